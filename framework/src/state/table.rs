//! The row table: the typed write-back cache of one operator's subtask. What is not in it is behind `backend.rs`; which
//! rows are to be evicted, and when, is decided in `cache.rs`.
//!
//! One open-addressing table per key group, key and state in the slot itself, so that a record touches one cache line.
//! Groups grow one at a time, or a large table would stop the subtask for seconds. A slot holds the upper half of the
//! key's hash as a tag (growing reads no key) and the stamp of the epoch that last changed the row, which is all there
//! is to be done per record: dirty means that the stamp is the running epoch's.
//!
//! Once a table has been over its bound, a byte per slot counts how often a row was used since the hand of eviction
//! last came by, up to seven, of which the hand takes one (GCLOCK). A row that was used once is not worth its place, or
//! the many that come once would drive out the few that come again and again. (Simulated with keys drawn log-uniformly
//! and room for a tenth of them: seven finds 71.6 % in the table and three 71.1, more than seven nothing more, taking
//! all but one of the uses 70.2; the ten percent that come most would be 79.4.)
//!
//! A freeze advances the epoch and swaps two bitmaps per group, nothing that depends on the state. The rows of the
//! frozen epoch are then copied out piece by piece; a row that is touched before its turn is given out first. Nothing
//! is removed while a copy is under way, for closing a gap moves rows past the cursor.

use crate::key::{group_of, visit_bytes};
use crate::mutant::broken;
use serde::Serialize;
use std::ops::Range;

/// Slots per bit of a bitmap.
const BLOCK: usize = 32;
/// Slots of an empty group.
const SMALLEST: usize = 64;
/// Uses are counted up to this.
const USES: u8 = 7;

/// The epoch that last changed a row, plus one; 0 for rows as `base` has them.
pub(crate) type Stamp = u32;

/// Two per cache line for an integer key and value; unaligned slots would straddle lines.
#[repr(align(32))]
struct Slot<K, S> {
    /// Upper half of the hash, at least 1; 0: no row.
    tag: u32,
    stamp: Stamp,
    row: Option<(K, S)>,
}

impl<K, S> Slot<K, S> {
    /// Two of them make a cache line.
    const IS_PAIRED: bool = size_of::<Self>() == 32;

    /// Where a row is to be among so many slots, a power of two: the first slot of a line where lines have two.
    #[inline(always)]
    fn home(tag: u32, slots: usize) -> usize {
        tag as usize & (slots - 1) & if Self::IS_PAIRED { !1 } else { !0 }
    }
}

struct Group<K, S> {
    slots: Vec<Slot<K, S>>,
    len: usize,
    /// Grows when it holds this many rows.
    limit: usize,
    /// Blocks that may hold rows of the running epoch.
    dirty: Vec<u64>,
    /// Blocks that may hold rows of the epoch that is being copied.
    frozen: Vec<u64>,
    /// By slot, how often its row was used lately; none while nothing has ever been evicted.
    uses: Vec<u8>,
}

/// Group and slot of a row; valid until a row is inserted or removed, with this table only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(u32, u32);

/// Rows by key. `K` and `S` are stored in place: box what is larger than about 128 bytes.
pub(crate) struct RowTable<K, S> {
    groups: Vec<Group<K, S>>,
    /// The key group of `groups[0]`, and how many there are in the job.
    first: u32,
    key_groups: u32,
    /// Of the running epoch.
    stamp: Stamp,
    rows: usize,
    copying: bool,
    /// The copy gives out all rows, not only those of the frozen epoch.
    whole: bool,
    /// Group and block up to which frozen rows have been given out.
    cursor: (usize, usize),
    /// Where eviction goes on.
    hand: (usize, usize),
    /// Where [`sweep`](RowTable::sweep) goes on.
    broom: (usize, usize),
}

fn empty<K, S>(n: usize) -> Vec<Slot<K, S>> {
    let mut slots = Vec::with_capacity(n);
    slots.resize_with(n, || Slot { tag: 0, stamp: 0, row: None });
    slots
}

/// Asks for a cache line. A hint, which reads nothing.
#[inline(always)]
fn prefetch<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the instruction takes any address and has no effect but on caches; this one is a live reference.
        #[allow(unsafe_code, reason = "worth a factor of three on the hot path, see the module's measurements")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(at).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

impl<K: Eq, S> RowTable<K, S> {
    /// An empty table for the keys of `groups`, in which `stamp` is the running epoch's.
    pub(crate) fn new(groups: Range<u32>, key_groups: u32, stamp: Stamp) -> Self {
        let first = groups.start;
        let n = groups.len().max(1);
        // full between 1/2 and 3/4, staggered, so that groups of equal size do not all grow at the same time
        let group = |i: usize| Group {
            slots: empty(SMALLEST),
            len: 0,
            limit: SMALLEST / 2 + SMALLEST * i / (4 * n),
            dirty: vec![0],
            frozen: vec![0],
            uses: Vec::new(),
        };
        let groups = (0..n).map(group).collect();
        let (rows, copying, whole, cursor, hand, broom) = Default::default();
        Self { groups, first, key_groups, stamp, rows, copying, whole, cursor, hand, broom }
    }

    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Bytes of one slot.
    pub(crate) const fn slot_bytes() -> usize {
        size_of::<Slot<K, S>>()
    }

    /// The running epoch's stamp.
    #[cfg(test)]
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    #[inline(always)]
    fn group(&self, hash: u64) -> usize {
        (group_of(hash, self.key_groups) - self.first) as usize
    }

    /// The key group of a hash.
    pub(crate) fn key_group(&self, hash: u64) -> u32 {
        group_of(hash, self.key_groups)
    }

    /// Asks for the home slot of `hash`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.home(hash) {
            prefetch(slot);
        }
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> Option<&Slot<K, S>> {
        let slots = &self.groups[self.group(hash)].slots[..];
        slots.get(Slot::<K, S>::home(tag_of(hash), slots.len()))
    }

    /// Asks for what the key in the home slot of `hash` keeps on the heap. Nothing for keys without heap.
    #[inline(always)]
    pub(crate) fn prefetch_key(&self, hash: u64)
    where
        K: Serialize,
    {
        if !std::mem::needs_drop::<K>() {
            return;
        }
        if let Some(Slot { row: Some((key, _)), .. }) = self.home(hash) {
            visit_bytes(key, |bytes| {
                if let Some(first) = bytes.first() {
                    prefetch(first);
                }
            });
        }
    }

    /// The row whose key `is` knows, or the slot where it would be.
    #[inline(always)]
    fn probe(&self, at: usize, tag: u32, is: impl Fn(&K) -> bool) -> Result<usize, usize> {
        let slots = &self.groups[at].slots[..];
        let mask = slots.len() - 1;
        let home = Slot::<K, S>::home(tag, slots.len());
        if Slot::<K, S>::IS_PAIRED {
            // which of the two holds the row is as good as random, where keys are: chosen without a branch
            let i = home + usize::from(slots[(home + 1) & mask].tag == tag);
            let slot = &slots[i & mask];
            if slot.tag == tag
                && let Some((k, _)) = &slot.row
                && is(k)
            {
                return Ok(i);
            }
        }
        let mut i = home;
        loop {
            let slot = &slots[i];
            if slot.tag == tag {
                if let Some((k, _)) = &slot.row
                    && is(k)
                {
                    return Ok(i);
                }
            } else if slot.tag == 0 {
                return Err(i);
            }
            i = (i + 1) & mask;
        }
    }

    /// Where the row is whose key `is` knows, if it is here.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<Place> {
        let at = self.group(hash);
        self.probe(at, tag_of(hash), is).ok().map(|i| Place(at as u32, i as u32))
    }

    /// Where the row is whose key `is` knows; if there is none, `make` gives key and row of a clean one.
    #[inline(always)]
    pub(crate) fn locate(&mut self, hash: u64, is: impl Fn(&K) -> bool, make: impl FnOnce() -> (K, S)) -> Place {
        let (at, tag) = (self.group(hash), tag_of(hash));
        let i = match self.probe(at, tag, is) {
            Ok(i) => i,
            Err(i) => self.insert(at, i, tag, 0, make()),
        };
        Place(at as u32, i as u32)
    }

    /// The row at a place, to be looked at.
    #[inline(always)]
    pub(crate) fn row(&self, place: Place) -> Option<(&K, &S)> {
        self.groups[place.0 as usize].slots[place.1 as usize].row.as_ref().map(|(k, s)| (k, s))
    }

    /// The row at a place, to change what of it is not saved.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, place: Place) -> Option<&mut S> {
        self.groups[place.0 as usize].slots[place.1 as usize].row.as_mut().map(|(_, s)| s)
    }

    /// Counts that the row at a place was used. [`touch`](Self::touch) does, too.
    #[inline(always)]
    pub(crate) fn used(&mut self, place: Place) {
        if let Some(uses) = self.groups[place.0 as usize].uses.get_mut(place.1 as usize) {
            *uses = (*uses + 1).min(USES);
        }
    }

    /// Puts a row that was loaded from storage, unless there is one already.
    pub(crate) fn load(&mut self, hash: u64, stamp: Stamp, key: K, row: S) {
        let (at, tag) = (self.group(hash), tag_of(hash));
        if let Err(i) = self.probe(at, tag, |k| *k == key) {
            let i = self.insert(at, i, tag, stamp, (key, row));
            if stamp == self.stamp {
                mark(&mut self.groups[at].dirty, i / BLOCK);
            }
        }
    }

    /// The row at a place from `locate`, marked as changed by the running epoch. `save` is given a row that is about to
    /// change while its frozen value has not been copied yet.
    #[inline(always)]
    pub(crate) fn touch(&mut self, place: Place, save: impl FnOnce(u32, &K, &S)) -> (&K, &mut S) {
        self.used(place);
        let (at, i) = (place.0 as usize, place.1 as usize);
        let stamp = self.stamp;
        let g = &mut self.groups[at];
        let slot = &mut g.slots[i];
        if slot.stamp != stamp {
            let (old, block) = (slot.stamp, i / BLOCK);
            slot.stamp = stamp;
            mark(&mut g.dirty, block);
            if self.copying
                && (old == stamp - 1 || self.whole)
                && (at, block) >= self.cursor
                && !broken("S5")
                && let Some((k, s)) = &slot.row
            {
                save(self.first + place.0, k, s);
            }
        }
        match &mut slot.row {
            Some((k, s)) => (k, s),
            None => unreachable!("a place names a row"),
        }
    }

    #[cold]
    #[inline(never)]
    fn insert(&mut self, at: usize, mut i: usize, tag: u32, stamp: Stamp, row: (K, S)) -> usize {
        if self.groups[at].len >= self.groups[at].limit {
            self.grow(at);
            let g = &self.groups[at];
            let mask = g.slots.len() - 1;
            i = Slot::<K, S>::home(tag, g.slots.len());
            while g.slots[i].tag != 0 {
                i = (i + 1) & mask;
            }
        }
        let g = &mut self.groups[at];
        g.len += 1;
        self.rows += 1;
        g.slots[i] = Slot { tag, stamp, row: Some(row) };
        if let Some(uses) = g.uses.get_mut(i) {
            *uses = 0;
        }
        i
    }

    /// Doubles a group. All blocks may hold dirty rows afterwards; the stamps tell.
    fn grow(&mut self, at: usize) {
        let uncopied = self.copying && at >= self.cursor.0;
        let g = &mut self.groups[at];
        let n = g.slots.len() * 2;
        let mut slots = empty(n);
        let mut uses = vec![0; if g.uses.is_empty() { 0 } else { n }];
        for (from, slot) in g.slots.drain(..).enumerate() {
            if slot.tag != 0 {
                let mut i = Slot::<K, S>::home(slot.tag, n);
                while slots[i].tag != 0 {
                    i = (i + 1) & (n - 1);
                }
                slots[i] = slot;
                if let Some(of) = uses.get_mut(i) {
                    *of = g.uses[from];
                }
            }
        }
        (g.slots, g.uses) = (slots, uses);
        g.limit *= 2;
        let words = n.div_ceil(BLOCK * 64);
        g.dirty = vec![u64::MAX; words];
        g.frozen = vec![if uncopied { u64::MAX } else { 0 }; words];
        if uncopied && self.cursor.0 == at {
            // its rows have moved: start the group again, for a delta may name a row twice but must not miss one
            self.cursor.1 = 0;
        }
    }

    /// Ends the epoch: what it changed is what [`copy`](Self::copy) will give out, or with `whole` all there is.
    pub(crate) fn freeze(&mut self, whole: bool) {
        debug_assert!(!self.copying, "a copy is finished before the next freeze");
        self.stamp += 1;
        self.copying = true;
        self.whole = whole;
        self.cursor = (0, 0);
        for g in &mut self.groups {
            std::mem::swap(&mut g.dirty, &mut g.frozen);
            if whole {
                g.frozen.fill(u64::MAX);
            }
        }
    }

    /// Whether frozen rows are still to be copied.
    pub(crate) fn is_copying(&self) -> bool {
        self.copying
    }

    /// Gives out the frozen rows of about `budget` slots, with their key group; true if there is more to do.
    pub(crate) fn copy(&mut self, budget: usize, mut save: impl FnMut(u32, &K, &S)) -> bool {
        let (running, whole) = (self.stamp, self.whole);
        let (mut at, mut block) = self.cursor;
        let mut left = budget;
        while at < self.groups.len() {
            let g = &mut self.groups[at];
            let blocks = g.slots.len() / BLOCK;
            while block < blocks {
                let word = g.frozen[block / 64] >> (block % 64);
                if word == 0 {
                    block = (block / 64 + 1) * 64;
                    continue;
                }
                block += word.trailing_zeros() as usize;
                if left < BLOCK {
                    self.cursor = (at, block);
                    return true;
                }
                left -= BLOCK;
                for slot in &g.slots[block * BLOCK..(block + 1) * BLOCK] {
                    if (slot.stamp == running - 1 || (whole && slot.stamp != running))
                        && let Some((k, s)) = &slot.row
                    {
                        save(self.first + at as u32, k, s);
                    }
                }
                block += 1;
            }
            g.frozen.fill(0);
            (at, block) = (at + 1, 0);
        }
        self.copying = false;
        false
    }

    /// Looks at up to `budget` slots from where the last call ended, and removes the rows for which `remove` says so;
    /// it is given stamp, key and state. Not while a copy is under way. Gives how many were removed, and the first
    /// error of `remove`, which ends the sweep.
    pub(crate) fn sweep<E>(
        &mut self,
        budget: usize,
        mut remove: impl FnMut(Stamp, &K, &S) -> Result<bool, E>,
    ) -> Result<usize, E> {
        let mut broom = self.broom;
        let removed = self.walk(&mut broom, budget, |_, slot, _| match &slot.row {
            Some((k, s)) => remove(slot.stamp, k, s),
            None => Ok(false),
        });
        self.broom = broom;
        removed
    }

    /// Goes round by up to `budget` slots from where the last call ended, and removes the rows that were hardly used
    /// since it last came by; `leave` is given key group, stamp, key and state of each before that. As for the rest
    /// like [`sweep`](Self::sweep).
    pub(crate) fn evict<E>(
        &mut self,
        budget: usize,
        mut leave: impl FnMut(u32, Stamp, &K, &S) -> Result<(), E>,
    ) -> Result<usize, E> {
        for g in self.groups.iter_mut().filter(|g| g.uses.is_empty()) {
            g.uses = vec![0; g.slots.len()];
        }
        let mut hand = self.hand;
        let removed = self.walk(&mut hand, budget, |group, slot, uses| match &slot.row {
            Some(_) if *uses > 1 => {
                *uses -= 1;
                Ok(false)
            }
            Some((k, s)) => leave(group, slot.stamp, k, s).map(|()| true),
            None => Ok(false),
        });
        self.hand = hand;
        removed
    }

    /// Shows up to `budget` slots with key group and uses, and removes the rows for which `goes` says so.
    #[inline]
    fn walk<E>(
        &mut self,
        hand: &mut (usize, usize),
        budget: usize,
        mut goes: impl FnMut(u32, &Slot<K, S>, &mut u8) -> Result<bool, E>,
    ) -> Result<usize, E> {
        debug_assert!(!self.copying, "closing a gap moves rows past the cursor");
        let mut removed = 0;
        for _ in 0..budget {
            let (at, i) = *hand;
            let g = &mut self.groups[at];
            let Some(slot) = g.slots.get(i) else {
                *hand = ((at + 1) % self.groups.len(), 0);
                continue;
            };
            if slot.tag != 0 && goes(self.first + at as u32, slot, g.uses.get_mut(i).unwrap_or(&mut 0))? {
                close_gap(g, i);
                removed += 1;
                self.rows -= 1;
            } else {
                hand.1 += 1;
            }
        }
        Ok(removed)
    }

    /// The keys of all rows, in no set order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.groups.iter().flat_map(|g| &g.slots).filter_map(|slot| slot.row.as_ref().map(|(key, _)| key))
    }

    /// How many slots there are: a sweep over so many has seen each row.
    pub(crate) fn slots(&self) -> usize {
        self.groups.iter().map(|g| g.slots.len() + 1).sum()
    }
}

#[inline(always)]
fn tag_of(hash: u64) -> u32 {
    ((hash >> 32) as u32).max(1)
}

#[inline(always)]
fn mark(bits: &mut [u64], block: usize) {
    bits[block / 64] |= 1 << (block % 64);
}

/// Removes the row in slot `gap`, and moves up the rows behind it that probed past it, so that no tombstones are
/// needed.
fn close_gap<K, S>(g: &mut Group<K, S>, mut gap: usize) {
    let mask = g.slots.len() - 1;
    let mut i = gap;
    loop {
        i = (i + 1) & mask;
        let tag = g.slots[i].tag;
        if tag == 0 {
            break;
        }
        let home = Slot::<K, S>::home(tag, g.slots.len());
        if (i.wrapping_sub(home) & mask) >= (i.wrapping_sub(gap) & mask) {
            g.slots.swap(gap, i);
            if !g.uses.is_empty() {
                g.uses.swap(gap, i);
            }
            let (to, from) = (gap / BLOCK, i / BLOCK);
            if g.dirty[from / 64] >> (from % 64) & 1 == 1 {
                mark(&mut g.dirty, to);
            }
            gap = i;
        }
    }
    g.slots[gap] = Slot { tag: 0, stamp: 0, row: None };
    g.len -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::stable_hash;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Op {
        Add(u16),
        Freeze(bool),
        Copy(u8),
        Evict(u8),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            40 => (0u16..600).prop_map(Op::Add),
            1 => any::<bool>().prop_map(Op::Freeze),
            4 => any::<u8>().prop_map(Op::Copy),
            2 => any::<u8>().prop_map(Op::Evict),
        ];
        prop::collection::vec(op, 0..3000)
    }

    proptest! {
        /// A row of 0 is one without content, which a delta may name or not. Any order of changes, freezes, copies and
        /// evictions: the copies of an epoch, applied to those before, are the rows as they stood at its freeze.
        #[test]
        fn copies_are_the_frozen_rows(ops in ops()) {
            let mut table: RowTable<u16, u64> = RowTable::new(0..4, 4, 1);
            let (mut model, mut frozen) = (BTreeMap::<u16, u64>::new(), BTreeMap::new());
            let (mut disk, mut evicted) = (BTreeMap::<u16, u64>::new(), BTreeMap::<u16, (Stamp, u64)>::new());
            for op in ops {
                match op {
                    Op::Add(k) => {
                        let hash = stable_hash(&k);
                        if let Some((stamp, v)) = evicted.remove(&k) {
                            table.load(hash, stamp, k, v);
                        }
                        let place = table.locate(hash, |key| *key == k, || (k, 0));
                        let (_, v) = table.touch(place, |_, k, v| if *v > 0 { disk.insert(*k, *v); });
                        *v += 1;
                        *model.entry(k).or_default() += 1;
                    }
                    Op::Freeze(whole) => {
                        while table.is_copying() {
                            table.copy(1 << 20, |_, k, v| { disk.insert(*k, *v); });
                        }
                        if !frozen.is_empty() {
                            prop_assert_eq!(&disk, &frozen);
                        }
                        // what was evicted dirty is written to the running epoch at once
                        for (k, (stamp, v)) in &evicted {
                            if *stamp == table.stamp() {
                                disk.insert(*k, *v);
                            }
                        }
                        if whole && evicted.is_empty() {
                            disk.clear();
                        }
                        table.freeze(whole && evicted.is_empty());
                        frozen = model.clone();
                    }
                    Op::Copy(n) => {
                        if table.is_copying() {
                            table.copy(n as usize * 4, |_, k, v| { disk.insert(*k, *v); });
                        }
                    }
                    Op::Evict(n) => {
                        if !table.is_copying() {
                            let ok: Result<usize, ()> = table.evict(n as usize, |_, stamp, k, v| {
                                evicted.insert(*k, (stamp, *v));
                                Ok(())
                            });
                            prop_assert!(ok.is_ok());
                        }
                    }
                }
                prop_assert_eq!(table.len() + evicted.len(), model.len());
            }
        }
    }

    /// Of the rows that come again and again none is evicted while there are those that came once.
    #[test]
    fn what_comes_once_goes_first() {
        let mut table: RowTable<u64, u64> = RowTable::new(0..8, 8, 1);
        let mut gone = Vec::new();
        for i in 0..100_000u64 {
            for key in [i % 50, 1000 + i] {
                let hash = stable_hash(&key);
                let place = table.locate(hash, |k| *k == key, || (key, 0));
                *table.touch(place, |_, _, _| {}).1 += 1;
            }
            while table.len() > 300 {
                let evicted: Result<usize, ()> = table.evict(256, |_, _, k, _| {
                    gone.push(*k);
                    Ok(())
                });
                assert!(evicted.is_ok());
            }
        }
        let often = gone.iter().filter(|key| **key < 50).count();
        assert!(often <= 50, "{often} of those that come again and again were evicted"); // before uses were counted
        assert!(gone.len() > 99_000);
    }
}
