//! What is surely not in a generation of the spill: a Bloom filter that grows with it. Most rows that are looked up in
//! storage are in none of its generations, and to hear that from RocksDB takes a look at each of its files.
//!
//! In lines as long as those of a processor's cache, and a key has all its bits in one, one bit in each word (Putze,
//! Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007; the salts are those of the Parquet
//! format). How many keys there will be is not known, so there are layers, each with room for four times the keys of
//! the one before. At 16 bits per key about one in two hundred is taken for there that is not. The answer "no" is
//! always right.
//!
//! Cost: a line per layer and key, a few nanoseconds each; at most eight layers.

use super::room::{Room, Share};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Of the smallest layer: 6 KiB.
const LINES: usize = 96;
/// Lines of a layer, by those of the one before.
const GROWTH: usize = 4;
/// Keys per line of 512 bits.
const KEYS: usize = 32;
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

#[repr(align(64))]
#[derive(Clone, Default)]
struct Line([u64; SALTS.len()]);

struct Layer {
    lines: Vec<Line>,
    /// Keys for which there is still room.
    left: usize,
}

/// Keys, by their hashes.
pub(super) struct Filter {
    share: Share,
    /// The largest one last.
    layers: Vec<Layer>,
    /// There was no room for a layer, and keys are missing: any key may be there.
    full: bool,
}

/// The hash by which filters know a key.
#[inline]
pub(super) fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The bits of a key in its line.
#[inline(always)]
fn bits(hash: u64) -> [u64; SALTS.len()] {
    SALTS.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 26))
}

impl Layer {
    /// Where the line of a key is.
    #[inline(always)]
    fn line(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }
}

impl Filter {
    /// Without keys; takes no memory until there are some.
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { share: Share::new(room), layers: Vec::new(), full: false }
    }

    /// Whether no key was added.
    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty() && !self.full
    }

    /// Adds a key.
    pub(super) fn add(&mut self, hash: u64) {
        if !self.full && self.layers.last().is_none_or(|layer| layer.left == 0) {
            self.grow();
        }
        if let (false, Some(layer)) = (self.full, self.layers.last_mut()) {
            layer.left -= 1;
            let at = layer.line(hash);
            layer.lines[at].0.iter_mut().zip(bits(hash)).for_each(|(word, bit)| *word |= bit);
        }
    }

    #[cold]
    fn grow(&mut self) {
        let lines = self.layers.last().map_or(LINES, |layer| layer.lines.len() * GROWTH);
        self.full = !self.share.take(lines * size_of::<Line>());
        if !self.full {
            self.layers.push(Layer { lines: vec![Line::default(); lines], left: lines * KEYS });
        }
    }

    /// Whether the key may be among those that were added.
    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let bits = bits(hash);
        let has = |layer: &Layer| layer.lines[layer.line(hash)].0.iter().zip(bits).all(|(word, bit)| word & bit != 0);
        self.full || self.layers.iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nth(i: u64) -> u64 {
        hash(&i.to_be_bytes())
    }

    #[test]
    fn what_was_added_is_there_and_hardly_anything_else() {
        let mut filter = Filter::new(&Room::new(1 << 20));
        assert!(!filter.may_have(nth(1)));
        for i in 0..200_000 {
            filter.add(nth(i));
        }
        assert!(!filter.full && filter.layers.len() == 4);
        assert!((0..200_000).all(|i| filter.may_have(nth(i))));
        let wrong = (200_000..300_000).filter(|i| filter.may_have(nth(*i))).count();
        assert!(wrong < 1000, "{wrong} of 100,000 are taken for there");
    }

    #[test]
    fn without_room_anything_may_be_there_and_room_comes_back() {
        let room = Room::new(40 << 10);
        let mut filter = Filter::new(&room);
        for i in 0..30_000 {
            filter.add(nth(i));
            assert!(filter.may_have(nth(i)));
        }
        assert!(filter.full && filter.may_have(nth(99_999)));
        drop(filter);
        assert_eq!(room.left(), 40 << 10);
    }
}
