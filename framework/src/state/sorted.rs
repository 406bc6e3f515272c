//! Entries in one buffer, to be sorted by key with the newest of each key first. In memory only; `sorter.rs` brings
//! them into RocksDB, `indexed.rs` keeps what a restore has read of deltas.

use std::cmp::Ordering;

/// An entry in the buffer.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The first bytes of the key, table and group included, so that most comparisons need not look into the buffer.
    prefix: [u64; 2],
    /// Where the key begins; the value follows it. Grows with each entry, so the larger is the newer.
    at: usize,
    key: u32,
    value: u32,
}

/// How long a key may be for its prefix to hold all of it.
const PREFIX_BYTES: u32 = 16;

/// Keys and values.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    buffer: Vec<u8>,
    entries: Vec<Entry>,
}

impl Sorted {
    /// Adds an entry, whose value is `head` followed by `tail`. What was sorted is not any more.
    pub(super) fn push(&mut self, key: &[u8], head: &[u8], tail: &[u8]) {
        let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let value = length(head.len() + tail.len());
        self.entries.push(Entry { prefix: prefix(key), at: self.buffer.len(), key: length(key.len()), value });
        for part in [key, head, tail] {
            self.buffer.extend_from_slice(part);
        }
        if key.is_empty() && value == 0 {
            // `at` tells the newer of two entries.
            self.buffer.push(0);
        }
    }

    /// The memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Sorts, and keeps of each key the entry that was added last.
    pub(super) fn sort(&mut self) {
        let Self { buffer, entries } = self;
        entries.sort_unstable_by(|a, b| compare(buffer, a, b).then(b.at.cmp(&a.at)));
        entries.dedup_by(|older, newer| compare(buffer, older, newer) == Ordering::Equal);
    }

    /// Forgets all entries, but keeps the memory.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.entries.clear();
    }

    /// Keys and values, in order once sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|e| (key_of(&self.buffer, e), value_of(&self.buffer, e)))
    }

    /// The place of the first key that is not before `key`; sorted only.
    pub(super) fn first_from(&self, key: &[u8]) -> usize {
        self.entries.partition_point(|e| key_of(&self.buffer, e) < key)
    }

    /// Key and value at a place.
    pub(super) fn at(&self, place: usize) -> Option<(&[u8], &[u8])> {
        self.entries.get(place).map(|e| (key_of(&self.buffer, e), value_of(&self.buffer, e)))
    }

    /// The value of `key`; sorted only.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let prefix = prefix(key);
        let order = |e: &Entry| e.prefix.cmp(&prefix).then_with(|| key_of(&self.buffer, e).cmp(key));
        let found = self.entries.binary_search_by(order).ok()?;
        self.entries.get(found).map(|e| value_of(&self.buffer, e))
    }
}

fn prefix(key: &[u8]) -> [u64; 2] {
    [word(key), word(key.get(8..).unwrap_or_default())]
}

/// The first eight bytes as a number, in whose order they are; zeros stand in for what is missing.
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => bytes.iter().zip([56, 48, 40, 32, 24, 16, 8]).fold(0, |n, (b, shift)| n | u64::from(*b) << shift),
    }
}

fn key_of<'a>(buffer: &'a [u8], entry: &Entry) -> &'a [u8] {
    buffer.get(entry.at..entry.at + entry.key as usize).unwrap_or_default()
}

fn value_of<'a>(buffer: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.at + entry.key as usize;
    buffer.get(start..start + entry.value as usize).unwrap_or_default()
}

/// The order of the keys.
fn compare(buffer: &[u8], a: &Entry, b: &Entry) -> Ordering {
    a.prefix.cmp(&b.prefix).then_with(|| {
        if a.key.max(b.key) <= PREFIX_BYTES {
            // What one of them has beyond the other is zeros.
            a.key.cmp(&b.key)
        } else {
            key_of(buffer, a).cmp(key_of(buffer, b))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn as_a_map(entries in prop::collection::vec(
            (prop::collection::vec(0u8..3, 0..20), prop::collection::vec(any::<u8>(), 0..5)), 0..200,
        )) {
            let mut sorted = Sorted::default();
            let mut map = BTreeMap::new();
            for (key, value) in &entries {
                sorted.push(key, &value[..value.len() / 2], &value[value.len() / 2..]);
                map.insert(&key[..], &value[..]);
            }
            sorted.sort();
            prop_assert_eq!(sorted.iter().collect::<Vec<_>>(), map.clone().into_iter().collect::<Vec<_>>());
            for key in entries.iter().map(|(k, _)| &k[..]).chain([&[0, 0][..], &[4], &[0; 20]]) {
                prop_assert_eq!(sorted.get(key), map.get(key).copied());
                let first = sorted.at(sorted.first_from(key));
                prop_assert_eq!(first, map.range(key..).next().map(|(k, v)| (*k, *v)));
            }
        }
    }
}
