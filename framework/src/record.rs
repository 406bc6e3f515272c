//! What flows: records, and the batches they travel in. What else travels beside them is in `message.rs`.

use crate::Timestamp;
use std::any::Any;

/// Records per batch: large enough to make the cost of a message vanish, small enough that what is in flight stays in
/// the second-level cache.
pub(crate) const BATCH: usize = 1024;

/// A value with its event time ([`Timestamp::MIN`] in streams without event time).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// What the user's functions see.
    pub value: T,
    /// When it happened.
    pub time: Timestamp,
}

impl<T> Record<T> {
    /// A record without event time.
    pub const fn untimed(value: T) -> Self {
        Self { value, time: Timestamp::MIN }
    }
}

/// Records in order, as columns: one of values, one of times and one of key hashes, the latter two only where the
/// stream has them.
#[derive(Debug, Clone)]
pub struct Batch<T> {
    /// The values.
    pub values: Vec<T>,
    /// As long as `values` in streams with event time, else empty.
    pub times: Vec<Timestamp>,
    /// As long as `values` behind a keyed exchange, else empty.
    pub(crate) hashes: Vec<u64>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { values: Vec::new(), times: Vec::new(), hashes: Vec::new() }
    }
}

impl<T> Batch<T> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Removes the records and keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.times.clear();
        self.hashes.clear();
    }

    /// The records one by one, in order.
    pub fn into_records(self) -> impl Iterator<Item = Record<T>> {
        let times = self.times.into_iter().chain(std::iter::repeat(Timestamp::MIN));
        self.values.into_iter().zip(times).map(|(value, time)| Record { value, time })
    }
}

/// A [`Batch`] whose record type somebody else knows: what hands batches on is compiled once and not per type. A call
/// is a virtual one, so there are some per batch and none per record.
#[doc(hidden)]
#[allow(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait AnyBatch: Any + Send {
    /// How many records.
    fn len(&self) -> usize;
    /// Removes the records and keeps the memory.
    fn clear(&mut self);
    /// Moves the first `n` records behind those of `to`, a batch of the same type. To move all of them into an empty
    /// one costs nothing.
    fn give(&mut self, n: usize, to: &mut dyn AnyBatch);
    /// An empty one of the same type.
    fn fresh(&self) -> Box<dyn AnyBatch>;
    /// About how many bytes it takes: what values keep on the heap is guessed at 64 each.
    fn bytes(&self) -> usize;
}

impl<T: Send + 'static> AnyBatch for Batch<T> {
    fn len(&self) -> usize {
        self.values.len()
    }
    fn clear(&mut self) {
        Batch::clear(self);
    }
    fn give(&mut self, n: usize, to: &mut dyn AnyBatch) {
        let Some(to) = (to as &mut dyn Any).downcast_mut::<Self>() else {
            unreachable!("whoever pairs two batches has them from one stream")
        };
        if n == self.values.len() && to.values.is_empty() {
            return std::mem::swap(self, to);
        }
        to.values.extend(self.values.drain(..n));
        give_columns((&mut self.times, &mut self.hashes), n, (&mut to.times, &mut to.hashes));
    }
    fn fresh(&self) -> Box<dyn AnyBatch> {
        Box::new(Self::default())
    }
    fn bytes(&self) -> usize {
        let heap = if std::mem::needs_drop::<T>() { 64 } else { 0 };
        self.values.len() * (size_of::<T>() + heap)
    }
}

/// What of it does not depend on the type of the values.
fn give_columns(from: (&mut Vec<Timestamp>, &mut Vec<u64>), n: usize, to: (&mut Vec<Timestamp>, &mut Vec<u64>)) {
    to.0.extend(from.0.drain(..n.min(from.0.len())));
    to.1.extend(from.1.drain(..n.min(from.1.len())));
}

impl<T> From<Vec<T>> for Batch<T> {
    /// A batch without event times.
    fn from(values: Vec<T>) -> Self {
        Self { values, times: Vec::new(), hashes: Vec::new() }
    }
}
