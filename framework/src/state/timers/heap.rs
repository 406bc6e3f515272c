//! The near entries of one key group in the order of their times: a radix heap (Ahuja, Mehlhorn, Orlin and Tarjan, 1990).
//! What is in storage instead, and what is written there, is decided in `index.rs`.
//!
//! Nothing is taken out before its time has come, so times need to be in order only where they are near. An entry stands
//! in the bucket of the highest bit in which its time differs from the time that was *reached*; adding it appends to
//! that bucket. When nothing is open any more, the first bucket that has entries is dealt out anew: the earliest of its
//! times is the one reached, its entries are *open*, the others go to lower buckets. An entry is dealt out once per bit
//! at most, and is only touched along with its neighbours in memory, never searched for.
//!
//! Buckets are logs: an entry may be there twice, and one that was cancelled is followed by the mark that says so. The
//! last one counts, and the same instant and key are in one bucket always, in the order in which they came. What is
//! open has been cleared up.

use super::due::Due;
use crate::{Epoch, Timestamp};

/// Fewer entries than that are not cleared up.
const FEW: usize = 64;

/// An entry, or the mark that there is none any more.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) due: Due,
    /// False: cancelled.
    pub(super) there: bool,
    /// In which it was last changed.
    pub(super) epoch: Epoch,
}

#[derive(Debug, Default)]
struct Bucket {
    entries: Vec<Entry>,
    /// The earliest of them.
    least: u64,
    /// So many there were when it was last cleared up.
    clear: usize,
}

/// The entries of a key group that are in memory.
#[derive(Debug)]
pub(super) struct RadixHeap {
    /// All that is not later is open.
    reached: u64,
    /// By time and key, the first one last; each once.
    open: Vec<Entry>,
    /// By the highest bit in which they differ from `reached`.
    buckets: Vec<Bucket>,
    /// A bit for each bucket that has entries.
    filled: u64,
    len: usize,
}

/// As an unsigned number, in whose order times are.
pub(super) fn ordered(at: Timestamp) -> u64 {
    at.as_millis() as u64 ^ 1 << 63
}

pub(super) fn timestamp(ordered: u64) -> Timestamp {
    Timestamp::from_millis((ordered ^ 1 << 63) as i64)
}

impl RadixHeap {
    /// Without entries; what is added at `reached` or before is open at once.
    pub(super) fn new(reached: u64) -> Self {
        Self { reached, open: Vec::new(), buckets: Vec::new(), filled: 0, len: 0 }
    }

    /// How many entries, those included that are there twice.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The latest time of which something was open, as [`ordered`] has it.
    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    /// What is open, the first one last.
    pub(super) fn open(&self) -> &[Entry] {
        &self.open
    }

    /// All entries, in no set order, but for those of one instant and key.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.entries).chain(&self.open)
    }

    /// The time of the first one; cancelled ones count.
    #[inline]
    pub(super) fn next(&self) -> Option<Timestamp> {
        match self.open.last() {
            Some(entry) => Some(entry.due.at),
            None if self.filled == 0 => None,
            None => Some(timestamp(self.buckets[self.filled.trailing_zeros() as usize].least)),
        }
    }

    /// Adds an entry. With `clear_up`, because the same one may come again and again, a bucket that has doubled is
    /// cleared up; `leaves` is shown what goes for good.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry, clear_up: bool, leaves: impl FnMut(&Entry)) {
        let at = ordered(entry.due.at);
        if at <= self.reached {
            return self.put_in_order(entry, leaves);
        }
        self.len += 1;
        let bucket = self.put(at, entry);
        if clear_up && bucket.entries.len() >= FEW && bucket.entries.len() >= 2 * bucket.clear {
            let before = bucket.entries.len();
            bucket.entries.sort_by(|a, b| a.due.cmp(&b.due));
            keep_last(&mut bucket.entries, leaves);
            bucket.clear = bucket.entries.len();
            self.len -= before - bucket.entries.len();
        }
    }

    /// Puts one that is later than what was reached.
    #[inline]
    fn put(&mut self, at: u64, entry: Entry) -> &mut Bucket {
        let bit = 63 - (at ^ self.reached).leading_zeros() as usize;
        if self.buckets.len() <= bit {
            self.buckets.resize_with(bit + 1, Bucket::default);
        }
        let bucket = &mut self.buckets[bit];
        if bucket.entries.is_empty() {
            self.filled |= 1 << bit;
            (bucket.least, bucket.clear) = (at, 0);
        }
        bucket.least = bucket.least.min(at);
        bucket.entries.push(entry);
        bucket
    }

    /// Puts one that is open at once.
    #[cold]
    #[inline(never)]
    fn put_in_order(&mut self, entry: Entry, mut leaves: impl FnMut(&Entry)) {
        match self.open.binary_search_by(|other| entry.due.cmp(&other.due)) {
            Ok(place) => {
                leaves(&self.open[place]);
                self.open[place] = entry;
            }
            Err(place) => {
                self.open.insert(place, entry);
                self.len += 1;
            }
        }
    }

    /// Opens the earliest entries, unless some are open or none is due by then. True if some are open that are due.
    pub(super) fn advance(&mut self, now: Timestamp, mut leaves: impl FnMut(&Entry)) -> bool {
        while self.open.is_empty() {
            if self.filled == 0 {
                return false;
            }
            let first = self.filled.trailing_zeros() as usize;
            let reached = self.buckets[first].least;
            if reached > ordered(now) {
                return false;
            }
            self.reached = reached;
            self.filled &= !(1 << first);
            let mut entries = std::mem::take(&mut self.buckets[first].entries);
            for entry in entries.drain(..) {
                match ordered(entry.due.at) {
                    at if at == reached => self.open.push(entry),
                    at => _ = self.put(at, entry),
                }
            }
            self.buckets[first].entries = entries;
            if self.open.len() > 1 {
                let before = self.open.len();
                self.open.sort_by(|a, b| a.due.cmp(&b.due));
                keep_last(&mut self.open, &mut leaves);
                self.open.reverse();
                self.len -= before - self.open.len();
            }
        }
        self.open.last().is_some_and(|first| first.due.at <= now)
    }

    /// Takes the first of the open entries.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.open.pop()?;
        self.len -= 1;
        Some(entry)
    }

    /// Takes the later half of what is not open, in order; or less, if much of it was there twice.
    pub(super) fn split_off(&mut self, mut leaves: impl FnMut(&Entry)) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.buckets.iter_mut().flat_map(|bucket| bucket.entries.drain(..)).collect();
        self.filled = 0;
        entries.sort_by(|a, b| a.due.cmp(&b.due));
        keep_last(&mut entries, &mut leaves);
        let later = entries.split_off(entries.len() / 2);
        self.len = self.open.len() + entries.len();
        for entry in entries {
            self.put(ordered(entry.due.at), entry);
        }
        later
    }
}

/// Of sorted entries keeps the last of each instant and key. If it says what the one before said, that one is kept,
/// which storage may have already.
fn keep_last(entries: &mut Vec<Entry>, mut leaves: impl FnMut(&Entry)) {
    entries.dedup_by(|newer, older| {
        let same = newer.due == older.due;
        if same && newer.there != older.there {
            leaves(older);
            std::mem::swap(newer, older);
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(ms: i64, key: u8, there: bool) -> Entry {
        Entry { due: Due::new(Timestamp::from_millis(ms), &[key]), there, epoch: 0 }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push(i64, u8, bool),
        Take(i64),
        Split,
    }

    fn op() -> impl Strategy<Value = Op> {
        let ms = || prop_oneof![-50i64..300, any::<i64>()];
        prop_oneof![
            40 => (ms(), 0u8..3, any::<bool>()).prop_map(|(ms, key, there)| Op::Push(ms, key, there)),
            4 => ms().prop_map(Op::Take),
            1 => Just(Op::Split),
        ]
    }

    proptest! {
        /// Whatever comes, is cancelled, leaves and is taken: what is taken is what a sorted map has, in its order.
        #[test]
        fn is_a_sorted_map(clear_up: bool, ops in prop::collection::vec(op(), 0..600)) {
            let (mut heap, mut model) = (RadixHeap::new(0), BTreeMap::new());
            for op in ops {
                match op {
                    Op::Push(ms, key, there) => {
                        heap.push(entry(ms, key, there), clear_up, |_| {});
                        model.insert((ms, key), there);
                    }
                    Op::Take(ms) => {
                        let now = Timestamp::from_millis(ms);
                        while heap.advance(now, |_| {}) {
                            let taken = heap.pop().expect("it is open");
                            let (first, there) = model.pop_first().expect("it is there");
                            prop_assert_eq!((taken.due.at.as_millis(), taken.due.key.get()), (first.0, &[first.1][..]));
                            prop_assert_eq!(taken.there, there);
                        }
                        prop_assert!(model.keys().next().is_none_or(|(first, _)| *first > ms));
                    }
                    Op::Split => {
                        let open = heap.open().len();
                        let later = heap.split_off(|_| {});
                        prop_assert!(heap.len() - open <= later.len() + 1);
                        for Entry { due, there, .. } in later.iter().rev() {
                            let (last, of) = model.pop_last().expect("it is there");
                            prop_assert_eq!((due.at.as_millis(), due.key.get(), *there), (last.0, &[last.1][..], of));
                        }
                    }
                }
                prop_assert_eq!(heap.next().map(Timestamp::as_millis), model.keys().next().map(|(ms, _)| *ms));
                prop_assert!(heap.len() >= model.len());
                prop_assert_eq!(heap.len(), heap.iter().count());
            }
        }
    }

    /// Setting one instant again and again takes no more memory than setting it once.
    #[test]
    fn what_is_there_twice_is_cleared_up() {
        let mut heap = RadixHeap::new(0);
        for i in 0..100_000 {
            heap.push(entry(i % 50, (i % 2) as u8, i % 7 != 0), true, |_| {});
            assert!(heap.len() <= 2 * FEW.max(50));
        }
    }

    /// An entry that is dropped in favour of a mark is shown, for storage may have to have it first.
    #[test]
    fn what_is_cancelled_is_shown_before_it_goes() {
        let (mut heap, mut left) = (RadixHeap::new(0), Vec::new());
        heap.push(Entry { epoch: 1, ..entry(5, 1, true) }, true, |_| {});
        heap.push(Entry { epoch: 2, ..entry(5, 1, true) }, true, |_| {});
        heap.push(Entry { epoch: 3, ..entry(5, 1, false) }, true, |_| {});
        assert!(heap.advance(Timestamp::from_millis(5), |entry| left.push(entry.epoch)));
        assert_eq!(left, [1], "of those that say the same the older one stays");
        assert_eq!(heap.pop().map(|entry| (entry.there, entry.epoch)), Some((false, 3)));
    }
}
