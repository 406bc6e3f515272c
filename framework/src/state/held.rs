//! Evicted rows that are still in memory, as bytes: a fifth of what they took as rows of the table, and neither written
//! nor read through RocksDB. Many come back before a fold has them; the others are dropped with their generation.
//!
//! A log of entries in pieces, and an index of where the newest entry of each key is. As long as there is room: what
//! does not fit is for the caller to keep elsewhere. Nothing is cleared away but the whole, so an entry that changes
//! its length leaves its old place unused.
//!
//! Cost: some 50 ns for a row that is put or found, and about 15 bytes beside key and row; twice the memory and three
//! times the time once ranges are read.

use super::entries::EntryKey;
use super::room::{Room, Share};
use hashbrown::HashTable;
use std::collections::{BTreeSet, btree_set};
use std::ops::Bound;
use std::sync::Arc;

/// Bytes of a piece of the log: a sixty-fourth of all the room, for each generation takes one at least, but not less
/// than this, and not more than can be addressed in it.
const PIECE_MIN: usize = 1 << 10;
const PIECE_MAX: usize = 64 << 10;
/// So many pieces can be addressed.
const PIECES: usize = 1 << 16;
/// Before key and value stand their lengths.
const LENGTHS: usize = 4;

/// See the module.
pub(super) struct Held {
    share: Share,
    /// Bytes of a piece.
    piece: usize,
    pieces: Vec<Vec<u8>>,
    /// Part of the hash, and where the entry is.
    index: HashTable<(u32, u32)>,
    /// All keys in order, from the first time that a range is read.
    order: Option<BTreeSet<EntryKey>>,
}

/// The index takes its bits from both ends of a hash.
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Where key and value of an entry are.
#[inline]
fn entry(pieces: &[Vec<u8>], at: u32) -> Option<(&[u8], &[u8])> {
    let rest = pieces.get(at as usize / PIECE_MAX)?.get(at as usize % PIECE_MAX..)?;
    let (&[k0, k1, v0, v1], rest) = rest.split_first_chunk::<LENGTHS>()?;
    let (key, rest) = rest.split_at_checked(u16::from_le_bytes([k0, k1]).into())?;
    Some((key, rest.get(..u16::from_le_bytes([v0, v1]).into())?))
}

impl Held {
    /// Nothing yet. `ordered`: ranges are going to be read.
    pub(super) fn new(room: &Arc<Room>, ordered: bool) -> Self {
        let piece = (room.all() / 64).clamp(PIECE_MIN, PIECE_MAX);
        let (share, pieces, index) = (Share::new(room), Vec::new(), HashTable::new());
        Self { share, piece, pieces, index, order: ordered.then(BTreeSet::new) }
    }

    /// What a piece takes with its part of the index, and of the order.
    fn takes(&self) -> usize {
        let takes = self.piece + self.piece / 4;
        if self.order.is_some() { 2 * takes } else { takes }
    }

    /// Keeps `head` followed by `tail` as the value of a key whose hash is `hash`. False: there is no room, and nothing
    /// is known of the key any more.
    pub(super) fn put(&mut self, hash: u64, key: &[u8], head: &[u8], tail: &[u8]) -> bool {
        let Self { pieces, index, .. } = self;
        let tag = hash as u32;
        let known = index.find_entry(spread(tag), |(t, at)| *t == tag && is(pieces, *at, key));
        let was_known = known.is_ok();
        if let Ok(known) = known {
            let at = known.get().1;
            if replace(pieces, at, head, tail) {
                return true;
            }
            known.remove();
        }
        let at = self.append(key, head, tail);
        if let Some(at) = at {
            self.index.insert_unique(spread(tag), (tag, at), |(tag, _)| spread(*tag));
        }
        match &mut self.order {
            Some(order) if at.is_none() => _ = was_known && order.remove(key),
            Some(order) if !was_known => _ = order.insert(EntryKey::new(key)),
            _ => {}
        }
        at.is_some()
    }

    fn append(&mut self, key: &[u8], head: &[u8], tail: &[u8]) -> Option<u32> {
        let value = head.len() + tail.len();
        let bytes = LENGTHS + key.len() + value;
        // or much of a piece would be left over
        if bytes > self.piece / 4 {
            return None;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() + bytes > self.piece) {
            if self.pieces.len() == PIECES || !self.share.take(self.takes()) {
                return None;
            }
            self.pieces.push(Vec::with_capacity(self.piece));
        }
        let number = self.pieces.len() - 1;
        let piece = self.pieces.last_mut()?;
        let at = number * PIECE_MAX + piece.len();
        piece.extend_from_slice(&(key.len() as u16).to_le_bytes());
        piece.extend_from_slice(&(value as u16).to_le_bytes());
        [key, head, tail].into_iter().for_each(|part| piece.extend_from_slice(part));
        u32::try_from(at).ok()
    }

    /// The value of a key whose hash is `hash`.
    #[inline]
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<&[u8]> {
        let tag = hash as u32;
        let (_, at) = self.index.find(spread(tag), |(t, at)| *t == tag && is(&self.pieces, *at, key))?;
        entry(&self.pieces, *at).map(|(_, value)| value)
    }

    /// Brings the keys in order, now and from now on.
    pub(super) fn put_in_order(&mut self) {
        if self.order.is_none() {
            self.share.take_anyway(self.pieces.len() * self.takes());
            let Self { pieces, index, .. } = self;
            let keys = index.iter().filter_map(|(_, at)| entry(pieces, *at).map(|(key, _)| EntryKey::new(key)));
            self.order = Some(keys.collect());
        }
    }

    /// The entries from a key on, in order; only after `put_in_order`.
    pub(super) fn from<'a>(&'a self, key: &[u8], hash: fn(&[u8]) -> u64) -> Ordered<'a> {
        let order = self.order.as_ref();
        let mut keys = order.map(|order| order.range::<[u8], _>((Bound::Included(key), Bound::Unbounded)));
        let next = keys.as_mut().and_then(Iterator::next);
        Ordered { held: self, hash, keys, next }
    }
}

/// Entries in order.
pub(super) struct Ordered<'a> {
    held: &'a Held,
    hash: fn(&[u8]) -> u64,
    keys: Option<btree_set::Range<'a, EntryKey>>,
    next: Option<&'a EntryKey>,
}

impl<'a> Ordered<'a> {
    /// The one at hand.
    pub(super) fn item(&self) -> Option<(&'a [u8], &'a [u8])> {
        let key = self.next?.bytes();
        Some((key, self.held.get((self.hash)(key), key)?))
    }

    /// Goes on to the next one.
    pub(super) fn advance(&mut self) {
        self.next = self.keys.as_mut().and_then(Iterator::next);
    }
}

#[inline]
fn is(pieces: &[Vec<u8>], at: u32, key: &[u8]) -> bool {
    entry(pieces, at).is_some_and(|(k, _)| k == key)
}

/// Puts a value in the place of one of the same length, if it is that.
fn replace(pieces: &mut [Vec<u8>], at: u32, head: &[u8], tail: &[u8]) -> bool {
    let Some((key, value)) = entry(pieces, at).map(|(key, value)| (key.len(), value.len())) else { return false };
    let start = at as usize % PIECE_MAX + LENGTHS + key;
    let place = pieces.get_mut(at as usize / PIECE_MAX).and_then(|piece| piece.get_mut(start..start + value));
    match place.and_then(|place| place.split_at_mut_checked(head.len())) {
        Some((first, rest)) if rest.len() == tail.len() => {
            first.copy_from_slice(head);
            rest.copy_from_slice(tail);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::filter::hash;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Whatever is put, what is held is what was put last, and what is not held is not known.
        #[test]
        fn is_a_map_as_far_as_there_is_room(
            puts in prop::collection::vec((prop::collection::vec(0u8..4, 0..40), 0usize..400), 0..400),
            room in 0usize..20_000, from_start in any::<bool>(), later in any::<bool>(),
        ) {
            let bytes = room;
            let room = Room::new(bytes);
            let mut held = Held::new(&room, from_start);
            let mut map = BTreeMap::<Vec<u8>, Vec<u8>>::new();
            for (i, (key, length)) in puts.into_iter().enumerate() {
                let length = if length > 300 { length } else { length % 40 };
                let value: Vec<u8> = (0..length).map(|n| (n + i) as u8).collect();
                let (head, tail) = value.split_at(length / 3);
                if held.put(hash(&key), &key, head, tail) {
                    map.insert(key, value);
                } else {
                    map.remove(&key);
                }
                if later && i == 100 {
                    held.put_in_order();
                }
            }
            for key in map.keys().cloned().chain([vec![9], vec![]]) {
                prop_assert_eq!(held.get(hash(&key), &key), map.get(&key).map(|value| &value[..]));
            }
            held.put_in_order();
            for from in [&[][..], &[1, 2], &[3, 3, 3], &[9]] {
                let mut all = held.from(from, hash);
                let mut found = Vec::new();
                while let Some((key, value)) = all.item() {
                    found.push((key.to_vec(), value.to_vec()));
                    all.advance();
                }
                let expect = map.range(from.to_vec()..).map(|(k, v)| (k.clone(), v.clone()));
                prop_assert_eq!(found, expect.collect::<Vec<_>>());
            }
            drop(held);
            prop_assert_eq!(room.left(), bytes as isize);
        }
    }

    #[test]
    fn what_is_put_again_takes_no_more_room() {
        let room = Room::new(64 << 10);
        let mut held = Held::new(&room, false);
        for round in 0..100u64 {
            for key in 0..1000u64 {
                let key = key.to_be_bytes();
                assert!(held.put(hash(&key), &key, &round.to_be_bytes(), b"row"));
            }
        }
        let pieces = (1000usize * (LENGTHS + 8 + 8 + 3)).div_ceil(PIECE_MIN - 22);
        assert_eq!(room.left(), (64 << 10) - (pieces * held.takes()) as isize);
        assert!(!held.put(1, &[0; 200], &[0; 100], &[]), "it is larger than a quarter of a piece");
    }
}
