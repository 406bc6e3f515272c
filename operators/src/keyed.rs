//! The table of contents of keyed operators: each method is one line that calls its operator's file.

use crate::aggregate::{Aggregate, Of, Running};
use crate::reduce::Reduce;
use crate::with_state::{FlatMapWithState, MapWithState};
use millstream_framework::{Data, Key, KeyedStream, Name, Stream};

/// Operators on keyed streams. The first argument of each is the name under which its state lives: it is the identity
/// of that state and must not change while a job has any.
///
/// All of them handle the records of one key in the order in which they arrive: records of one split of a source stay
/// in order, records of different splits meet in any order.
pub trait KeyedOperators<K: Key, T: Send + 'static>: Sized {
    #[doc(hidden)]
    fn keyed(self) -> KeyedStream<K, T>;

    /// One result per record, with a value of state per key to look at and to change. It starts as its type's default.
    ///
    /// ```
    /// # use millstream_framework::{KeyedStream, Stream};
    /// # use millstream_operators::KeyedOperators;
    /// # fn topology(cents: KeyedStream<u64, u64>) -> Stream<u64> {
    /// cents.map_with_state("total", |total: &mut u64, cents| {
    ///     *total += cents;
    ///     *total
    /// })
    /// # }
    /// ```
    #[track_caller]
    fn map_with_state<S, U, F>(self, name: impl Name, f: F) -> Stream<U>
    where
        S: Data + Default,
        U: Send + 'static,
        F: Fn(&mut S, T) -> U + Send + Sync + 'static,
    {
        self.keyed().process(name, MapWithState::new(f))
    }

    /// The same with none, one or several results per record: an `Option`, an array, a `Vec`.
    ///
    /// ```
    /// # use millstream_framework::{KeyedStream, Stream};
    /// # use millstream_operators::KeyedOperators;
    /// # fn topology(visits: KeyedStream<String, String>) -> Stream<String> {
    /// visits.flat_map_with_state("first_visit", |seen: &mut bool, visit| {
    ///     (!std::mem::replace(seen, true)).then_some(visit)
    /// })
    /// # }
    /// ```
    #[track_caller]
    fn flat_map_with_state<S, I, F>(self, name: impl Name, f: F) -> Stream<I::Item>
    where
        S: Data + Default,
        I: IntoIterator<Item: Send + 'static> + 'static,
        F: Fn(&mut S, T) -> I + Send + Sync + 'static,
    {
        self.keyed().process(name, FlatMapWithState::new(f))
    }

    /// Folds the records of a key into one of their own type. Running: each record gives the result so far, the first
    /// one itself; what comes last is the result of all. Costs a clone per record.
    ///
    /// ```
    /// # use millstream_framework::{KeyedStream, Stream};
    /// # use millstream_operators::KeyedOperators;
    /// # fn topology(cents: KeyedStream<String, u64>) -> Stream<u64> {
    /// cents.reduce("largest", |largest, cents| *largest = cents.max(*largest))
    /// # }
    /// ```
    #[track_caller]
    fn reduce<F>(self, name: impl Name, f: F) -> Stream<T>
    where
        T: Data + Clone,
        F: Fn(&mut T, T) + Send + Sync + 'static,
    {
        self.keyed().process(name, Reduce::new(f))
    }

    /// Aggregates the records of a key. Running: each record gives the key and the result so far; what comes last is
    /// the result of all. [`Of`] has what is supplied; one's own implements [`Aggregate`]. Costs a clone of the key per
    /// record.
    ///
    /// ```
    /// # use millstream_framework::{KeyedStream, Stream};
    /// # use millstream_operators::KeyedOperators;
    /// # type Stats = (u64, f64, Option<u64>);
    /// # fn topology(cents: KeyedStream<String, u64>) -> Stream<(String, Stats)> {
    /// cents.aggregate("stats", |of| (of.count(), of.mean(|cents| *cents), of.max(|cents| *cents)))
    /// # }
    /// ```
    ///
    /// # Errors
    /// What [`Aggregate::check`] says, such as a sum that has overflowed, ends the job.
    #[track_caller]
    fn aggregate<A: Aggregate<T>>(self, name: impl Name, aggregate: impl FnOnce(Of<T>) -> A) -> Stream<(K, A::Out)> {
        self.keyed().process(name, Running::new(aggregate(Of::new())))
    }
}

impl<K: Key, T: Send + 'static> KeyedOperators<K, T> for KeyedStream<K, T> {
    fn keyed(self) -> KeyedStream<K, T> {
        self
    }
}
