//! The near entries of one key group in the order of their times: a radix heap (Ahuja, Mehlhorn, Orlin and Tarjan,
//! 1990). What is in storage instead, and what is written there, is decided in `index.rs`.
//!
//! Nothing is taken out before its time has come, so times need to be in order only where they are near. A time is a
//! number of 13 digits of five bits. An entry stands in the bucket of the highest digit in which its time differs from
//! the time that was *reached*, and of what that digit is; adding it appends to that bucket. When nothing is open any
//! more, the first bucket that has entries is dealt out anew: the earliest of its times is the one reached, its entries
//! are *open*, the others go to buckets of lower digits. An entry is dealt out once per digit at most, and is only
//! touched along with its neighbours in memory, never searched for.
//!
//! Buckets are logs: an entry may be there twice, and one that was cancelled is followed by the mark that says so. The
//! last one counts, and the same instant and key are in one bucket always, in the order in which they came. What is
//! open has been cleared up. A log is made of chunks of one size, which go from bucket to bucket, so that memory is
//! what the entries take.

use super::due::Due;
use crate::{Epoch, Timestamp};

/// Bits of a digit. Fewer would deal out each entry more often, more would take more memory for empty buckets.
const BITS: u32 = 5;
const DIGITS: usize = 1 << BITS;
const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;
/// Entries of a chunk; fewer in a bucket are not cleared up.
const CHUNK: usize = 64;

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
    /// All but the last one are full.
    chunks: Vec<Vec<Entry>>,
    /// The earliest of them.
    least: u64,
    /// So many there were when it was last cleared up.
    clear: usize,
}

impl Bucket {
    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    #[inline]
    fn push(&mut self, entry: Entry, spare: &mut Vec<Vec<Entry>>) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(entry),
            _ => {
                let mut chunk = spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK));
                chunk.push(entry);
                self.chunks.push(chunk);
            }
        }
    }

    /// Takes all entries out.
    fn drain(&mut self, spare: &mut Vec<Vec<Entry>>, into: &mut Vec<Entry>) {
        for mut chunk in self.chunks.drain(..) {
            into.append(&mut chunk);
            spare.push(chunk);
        }
    }
}

/// The entries of a key group that are in memory.
#[derive(Debug)]
pub(super) struct RadixHeap {
    /// All that is not later is open.
    reached: u64,
    /// The first one last: by time, and of many by key, each once.
    open: Vec<Entry>,
    /// By the highest digit in which they differ from `reached`, and by that digit.
    levels: [Option<Box<[Bucket; DIGITS]>>; LEVELS],
    /// A bit for each level that has entries, and by level for each digit.
    filled: u32,
    digits: [u32; LEVELS],
    spare: Vec<Vec<Entry>>,
    len: usize,
    /// The same entry may come again and again.
    many: bool,
}

/// As an unsigned number, in whose order times are.
pub(super) fn ordered(at: Timestamp) -> u64 {
    at.as_millis() as u64 ^ 1 << 63
}

pub(super) fn timestamp(ordered: u64) -> Timestamp {
    Timestamp::from_millis((ordered ^ 1 << 63) as i64)
}

impl RadixHeap {
    /// Without entries; what is added at `reached` or before is open at once. Of `many`, the same one may come again
    /// and again, and is to be given out once; of others it hardly ever does, and may be given out twice.
    pub(super) fn new(reached: u64, many: bool) -> Self {
        let (open, levels, spare) = Default::default();
        Self { reached, open, levels, filled: 0, digits: [0; LEVELS], spare, len: 0, many }
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
        let buckets = self.levels.iter().flatten().flat_map(|level| level.iter());
        buckets.flat_map(|bucket| bucket.chunks.iter().flatten()).chain(&self.open)
    }

    /// Level and digit of the first bucket that has entries.
    #[inline]
    fn first(&self) -> Option<(usize, usize)> {
        let level = self.filled.trailing_zeros() as usize;
        Some((level, self.digits.get(level)?.trailing_zeros() as usize))
    }

    #[inline]
    fn bucket(&mut self, (level, digit): (usize, usize)) -> &mut Bucket {
        &mut self.levels[level].get_or_insert_default()[digit]
    }

    /// The time of the first one; cancelled ones count.
    #[inline]
    pub(super) fn next(&self) -> Option<Timestamp> {
        if let Some(entry) = self.open.last() {
            return Some(entry.due.at);
        }
        let (level, digit) = self.first()?;
        Some(timestamp(self.levels[level].as_ref()?[digit].least))
    }

    /// Adds an entry. Of many, a bucket that has doubled is cleared up; `leaves` is shown what goes for good.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry, leaves: impl FnMut(&Entry)) {
        let at = ordered(entry.due.at);
        if at <= self.reached {
            return self.put_in_order(entry, leaves);
        }
        self.len += 1;
        let place = self.put(at, entry);
        if self.many {
            let Bucket { chunks, clear, .. } = self.bucket(place);
            if chunks.len() > (2 * *clear).div_ceil(CHUNK).max(1) {
                self.clear_up(place, leaves);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn clear_up(&mut self, (level, digit): (usize, usize), leaves: impl FnMut(&Entry)) {
        let Self { levels, spare, len, .. } = self;
        let bucket = &mut levels[level].get_or_insert_default()[digit];
        let mut entries = Vec::with_capacity(bucket.len());
        bucket.drain(spare, &mut entries);
        *len -= entries.len();
        entries.sort_by(|a, b| a.due.cmp(&b.due));
        keep_last(&mut entries, leaves);
        *len += entries.len();
        bucket.clear = entries.len();
        entries.into_iter().for_each(|entry| bucket.push(entry, spare));
    }

    /// Puts one that is later than what was reached; gives its bucket.
    #[inline(always)]
    fn put(&mut self, at: u64, entry: Entry) -> (usize, usize) {
        let Self { reached, levels, filled, digits, spare, .. } = self;
        let level = (63 - (at ^ *reached).leading_zeros()) / BITS;
        let digit = (at >> (level * BITS)) as usize % DIGITS;
        let bucket = &mut levels[level as usize].get_or_insert_default()[digit];
        if bucket.chunks.is_empty() {
            *filled |= 1 << level;
            digits[level as usize] |= 1 << digit;
            (bucket.least, bucket.clear) = (at, 0);
        }
        bucket.least = bucket.least.min(at);
        bucket.push(entry, spare);
        (level as usize, digit)
    }

    /// Puts one that is open at once.
    #[cold]
    #[inline(never)]
    fn put_in_order(&mut self, entry: Entry, mut leaves: impl FnMut(&Entry)) {
        if !self.many {
            // behind those of its time, which are in front of it in this order
            let place = self.open.partition_point(|other| other.due.at > entry.due.at);
            self.open.insert(place, entry);
            self.len += 1;
            return;
        }
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
            let Some(first) = self.first() else { return false };
            let reached = self.bucket(first).least;
            if reached > ordered(now) {
                return false;
            }
            self.reached = reached;
            let (level, digit) = first;
            self.digits[level] &= !(1 << digit);
            if self.digits[level] == 0 {
                self.filled &= !(1 << level);
            }
            for mut chunk in std::mem::take(&mut self.bucket(first).chunks) {
                for entry in chunk.drain(..) {
                    match ordered(entry.due.at) {
                        at if at == reached => self.open.push(entry),
                        at => _ = self.put(at, entry),
                    }
                }
                self.spare.push(chunk);
            }
            if self.many && self.open.len() > 1 {
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
        let Self { levels, spare, .. } = self;
        let mut entries = Vec::new();
        let buckets = levels.iter_mut().flatten().flat_map(|level| level.iter_mut());
        buckets.for_each(|bucket| bucket.drain(spare, &mut entries));
        (self.filled, self.digits) = (0, [0; LEVELS]);
        entries.sort_by(|a, b| a.due.cmp(&b.due));
        keep_last(&mut entries, &mut leaves);
        let later = entries.split_off(entries.len() / 2);
        self.len = self.open.len() + entries.len();
        for entry in entries {
            self.put(ordered(entry.due.at), entry);
        }
        self.spare.clear();
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
        fn is_a_sorted_map(ops in prop::collection::vec(op(), 0..600)) {
            let (mut heap, mut model) = (RadixHeap::new(0, true), BTreeMap::new());
            for op in ops {
                match op {
                    Op::Push(ms, key, there) => {
                        heap.push(entry(ms, key, there), |_| {});
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

    proptest! {
        /// What comes once only is taken in the order of its times.
        #[test]
        fn single_ones_are_in_order(ops in prop::collection::vec((any::<bool>(), 0i64..5000, 0i64..400), 0..600)) {
            let (mut heap, mut model, mut now) = (RadixHeap::new(0, false), BTreeMap::new(), 0);
            for (n, (push, ms, on)) in ops.into_iter().enumerate() {
                if push {
                    let due = Due::new(Timestamp::from_millis(ms), &n.to_be_bytes());
                    heap.push(Entry { due, there: true, epoch: 0 }, |_| {});
                    *model.entry(ms).or_insert(0) += 1;
                    continue;
                }
                now += on;
                let mut last = i64::MIN;
                while heap.advance(Timestamp::from_millis(now), |_| {}) {
                    let at = heap.pop().expect("it is open").due.at.as_millis();
                    prop_assert!(at >= last);
                    last = at;
                    *model.get_mut(&at).expect("it came") -= 1;
                }
                model.retain(|_, left| *left > 0);
                prop_assert!(model.keys().next().is_none_or(|first| *first > now));
            }
            prop_assert_eq!(heap.len(), model.values().sum::<usize>());
        }
    }

    /// Setting one instant again and again takes no more memory than setting it once.
    #[test]
    fn what_is_there_twice_is_cleared_up() {
        let mut heap = RadixHeap::new(0, true);
        for i in 0..100_000 {
            heap.push(entry(i % 50, (i % 2) as u8, i % 7 != 0), |_| {});
            assert!(heap.len() <= 8 * CHUNK * 2);
        }
    }

    /// An entry that is dropped in favour of a mark is shown, for storage may have to have it first.
    #[test]
    fn what_is_cancelled_is_shown_before_it_goes() {
        let (mut heap, mut left) = (RadixHeap::new(0, true), Vec::new());
        heap.push(Entry { epoch: 1, ..entry(5, 1, true) }, |_| {});
        heap.push(Entry { epoch: 2, ..entry(5, 1, true) }, |_| {});
        heap.push(Entry { epoch: 3, ..entry(5, 1, false) }, |_| {});
        assert!(heap.advance(Timestamp::from_millis(5), |entry| left.push(entry.epoch)));
        assert_eq!(left, [1], "of those that say the same the older one stays");
        assert_eq!(heap.pop().map(|entry| (entry.there, entry.epoch)), Some((false, 3)));
    }
}
