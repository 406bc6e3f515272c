//! What flows: records, and the batches they travel in. What else travels beside them is in `message.rs`.

use crate::Timestamp;

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

impl<T> From<Vec<T>> for Batch<T> {
    /// A batch without event times.
    fn from(values: Vec<T>) -> Self {
        Self { values, times: Vec::new(), hashes: Vec::new() }
    }
}
