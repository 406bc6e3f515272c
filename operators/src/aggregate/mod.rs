//! Aggregates: the contract, and the operator that keeps one per key. What is supplied is in `supplied.rs`, the numbers
//! it works on in `number.rs`. Windows use the same contract.

mod number;
mod supplied;

pub use number::{Number, Summable};
pub use supplied::{Count, Max, Mean, Min, Of, Sum, Total};

use crate::with_state::One;
use millstream_framework::{BoxError, Context, Data, Key, Process};
use std::marker::PhantomData;

/// Folds values of type `T` into an accumulator.
///
/// ```
/// use millstream_operators::Aggregate;
///
/// /// The two largest values.
/// struct TopTwo;
/// impl Aggregate<u64> for TopTwo {
///     type Acc = (u64, u64);
///     type Out = (u64, u64);
///     fn add(&self, acc: &mut (u64, u64), value: &u64) {
///         if *value > acc.0 {
///             *acc = (*value, acc.0);
///         } else if *value > acc.1 {
///             acc.1 = *value;
///         }
///     }
///     fn merge(&self, into: &mut (u64, u64), other: (u64, u64)) {
///         self.add(into, &other.0);
///         self.add(into, &other.1);
///     }
///     fn finish(&self, acc: &(u64, u64)) -> (u64, u64) {
///         *acc
///     }
/// }
///
/// let mut acc = Default::default();
/// [3, 9, 4].iter().for_each(|value| TopTwo.add(&mut acc, value));
/// assert_eq!(TopTwo.finish(&acc), (9, 4));
/// // in a topology: orders.key_by(..).aggregate("top_two", |_| TopTwo)
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not aggregate values of type `{T}`",
    note = "return one from the closure, as in `|of| of.count()` or `|of| (of.count(), of.mean(|x| x.amount))`, \
            or implement `Aggregate<{T}>`"
)]
pub trait Aggregate<T>: Send + Sync + 'static {
    /// What is kept. The default is the accumulator of no values.
    type Acc: Data + Default;
    /// The result.
    type Out: Send + 'static;

    /// Takes a value in.
    fn add(&self, acc: &mut Self::Acc, value: &T);

    /// Takes another accumulator of the same key in: panes of a sliding window, merged sessions, two-phase aggregation.
    /// Must give what adding all values to one accumulator would have given.
    fn merge(&self, into: &mut Self::Acc, other: Self::Acc);

    /// The result so far; values may be added afterwards.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;

    /// Whether `acc` is right. Called after each [`add`](Self::add) and [`merge`](Self::merge), before anything is kept
    /// or shown; since `add` gives no `Result`, this is how an aggregate fails. Costs nothing where it is not written.
    ///
    /// # Errors
    /// Ends the attempt: nothing of the epoch becomes visible.
    #[inline(always)]
    fn check(&self, acc: &Self::Acc) -> Result<(), BoxError> {
        let _ = acc;
        Ok(())
    }
}

macro_rules! tuple { ($($A:ident $i:tt),*) => {
    impl<T, $($A: Aggregate<T>),*> Aggregate<T> for ($($A,)*) {
        type Acc = ($($A::Acc,)*);
        type Out = ($($A::Out,)*);
        #[inline(always)]
        fn add(&self, acc: &mut Self::Acc, value: &T) {
            $(self.$i.add(&mut acc.$i, value);)*
        }
        #[inline(always)]
        fn merge(&self, into: &mut Self::Acc, other: Self::Acc) {
            $(self.$i.merge(&mut into.$i, other.$i);)*
        }
        #[inline(always)]
        fn finish(&self, acc: &Self::Acc) -> Self::Out {
            ($(self.$i.finish(&acc.$i),)*)
        }
        #[inline(always)]
        fn check(&self, acc: &Self::Acc) -> Result<(), BoxError> {
            $(self.$i.check(&acc.$i)?;)*
            Ok(())
        }
    }
} }
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);

/// The operator behind `aggregate`: keeps an accumulator per key, and emits the result so far with each record.
pub(crate) struct Running<K, T, A> {
    aggregate: A,
    of: PhantomData<fn(T) -> K>,
}

impl<K, T, A> Running<K, T, A> {
    pub(crate) fn new(aggregate: A) -> Self {
        Self { aggregate, of: PhantomData }
    }
}

impl<K: Key, T: Send + 'static, A: Aggregate<T>> Process for Running<K, T, A> {
    type Key = K;
    type In = T;
    type Out = (K, A::Out);
    type State = One<A::Acc>;
    #[inline(always)]
    fn on_record(
        &self,
        record: T,
        state: &mut Self::State,
        cx: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), BoxError> {
        let acc = state.value.or_default();
        self.aggregate.add(acc, &record);
        self.aggregate.check(acc)?;
        let result = self.aggregate.finish(acc);
        cx.emit((cx.key().clone(), result));
        Ok(())
    }
}
