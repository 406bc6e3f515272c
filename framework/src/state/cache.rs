//! A table of rows in memory, and what goes to storage and comes from there: the write-back cache of rows, and of the
//! entries of a collection. The table itself is in `table.rs`; the backend's contract is in `backend.rs`; how a row is
//! written is said by the table's [`Form`].
//!
//! A row that is evicted is dropped if `base` has it; otherwise it goes to the spill, and into the delta of its epoch
//! if that still runs. Which rows those are, because they were hardly used, is found out in `table.rs`.

use super::handle::Table;
use super::storage::{Storage, TableSpec};
use super::table::{Place, RowTable, Stamp};
use crate::codec::CodecError;
use crate::key::KeyError;
use crate::{Epoch, Error, ErrorKind};
use serde::Serialize;
use std::rc::Rc;

/// Slots copied or swept at a time: about 0.1 ms.
const SLOTS: usize = 8192;
/// A restored table of so many bytes is loaded at once: some 20 ms, after which nothing is looked up any more.
const SMALL_BYTES: usize = 2 << 20;

/// How the rows of a table are written, and what is known of them beside.
pub(crate) trait Form: 'static {
    type Key: Eq + 'static;
    type Row: 'static;
    /// False: its rows never hold anything, nothing is kept in storage, and none are missed.
    const IS_KEPT: bool = true;
    /// Appends the key as storage orders it.
    fn put_key(&self, key: &Self::Key, into: &mut Vec<u8>) -> Result<(), Error>;
    /// Key and hash of what `put_key` wrote.
    fn read_key(&self, group: u32, bytes: &[u8]) -> Result<(u64, Self::Key), Error>;
    /// Whether `put_key` writes so.
    fn is(key: &Self::Key, stored: &[u8]) -> bool;
    /// Appends the row; nothing if it is empty.
    fn save(&self, row: &Self::Row, into: &mut Vec<u8>) -> Result<(), CodecError>;
    /// Reads what `save` wrote.
    fn load(&self, bytes: &[u8]) -> Result<Self::Row, CodecError>;
    /// A row with nothing in it.
    fn open(&self) -> Self::Row;
    fn is_empty(row: &Self::Row) -> bool;
    /// About what a row keeps on the heap whose key and content take so many bytes on disk.
    fn heap(&self, key: usize, row: usize) -> usize;
    /// A row is in memory from now on.
    #[inline(always)]
    fn added(&mut self, key: &Self::Key) {
        let _ = key;
    }
    /// A row is about to leave memory.
    #[inline(always)]
    fn removed(&mut self, key: &Self::Key) {
        let _ = key;
    }
}

/// Rows in memory before those in storage.
pub(crate) struct Cache<F: Form> {
    pub(crate) form: F,
    rows: RowTable<F::Key, F::Row>,
    disk: Disk,
    /// Every row there is is in memory: misses need no look-up.
    complete: bool,
    /// Rows that may be in memory, given or derived from bytes.
    cache_rows: Option<usize>,
    cache_bytes: usize,
    bound: usize,
    /// Within a batch there may be so many.
    limit: usize,
    evicting: bool,
    /// Rows that the last epoch left without content.
    gone: usize,
    /// Slots still to be looked at for rows without content.
    sweeping: usize,
}

/// The bytes side.
struct Disk {
    storage: Rc<Storage>,
    table: u16,
    key: Vec<u8>,
    row: Vec<u8>,
    copied: Copied,
}

/// What the copy under way has written.
#[derive(Default)]
struct Copied {
    rows: usize,
    key_bytes: usize,
    row_bytes: usize,
    /// Rows without content.
    gone: usize,
}

fn stamp(epoch: Epoch) -> Stamp {
    epoch as Stamp + 1
}

pub(crate) fn codec(error: CodecError) -> Error {
    Error::new(ErrorKind::Failed, "a row cannot be encoded or decoded").because(error)
}

pub(crate) fn unkept(error: KeyError) -> Error {
    Error::new(ErrorKind::Failed, "this key cannot be kept").because(error)
}

/// Bytes that stand before each key in storage: table and key group.
pub(crate) const PREFIX: usize = 4;

/// Appends them.
#[inline(always)]
pub(crate) fn put_prefix(table: u16, group: u32, into: &mut Vec<u8>) {
    into.extend_from_slice(&table.to_be_bytes());
    into.extend_from_slice(&(group as u16).to_be_bytes());
}

impl Disk {
    /// Appends a row of the frozen epoch to its delta.
    #[inline(always)]
    fn save<F: Form>(&mut self, form: &F, group: u32, key: &F::Key, row: &F::Row) {
        if !F::IS_KEPT {
            return;
        }
        let Self { storage, table, copied, .. } = self;
        let done = storage.attempt(|backend| {
            let Copied { rows, key_bytes, row_bytes, gone } = copied;
            backend.put(
                storage.frozen.get(),
                |into| {
                    let from = into.len();
                    put_prefix(*table, group, into);
                    form.put_key(key, into)?;
                    *key_bytes += into.len() - from;
                    Ok(())
                },
                |into| {
                    let from = into.len();
                    form.save(row, into).map_err(codec)?;
                    *row_bytes += into.len() - from;
                    *rows += 1;
                    *gone += usize::from(into.len() == from);
                    Ok(())
                },
            )
        });
        self.storage.note(done);
    }

    /// Sees to it that storage has a row that is about to leave memory.
    fn evict<F: Form>(&mut self, form: &F, group: u32, at: Stamp, key: &F::Key, row: &F::Row) -> Result<(), Error> {
        if !F::IS_KEPT || at == 0 {
            return Ok(());
        }
        let epoch = Epoch::from(at) - 1;
        let Self { storage, table, key: key_bytes, row: row_bytes, .. } = self;
        storage.attempt(|backend| {
            if backend.may_drop(epoch) {
                return Ok(());
            }
            key_bytes.clear();
            row_bytes.clear();
            put_prefix(*table, group, key_bytes);
            form.put_key(key, key_bytes)?;
            form.save(row, row_bytes).map_err(codec)?;
            if epoch == storage.running.get() {
                backend.put(epoch, |into| append(into, key_bytes), |into| append(into, row_bytes))?;
            }
            storage.spilled.set(storage.spilled.get() + key_bytes.len() + row_bytes.len());
            backend.spill(epoch, key_bytes, row_bytes)
        })
    }
}

#[allow(clippy::unnecessary_wraps, reason = "what `Backend::put` asks for")]
fn append(into: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    into.extend_from_slice(bytes);
    Ok(())
}

impl<F: Form> Cache<F> {
    /// A table without rows in memory.
    pub(crate) fn new(form: F, spec: &TableSpec) -> Self {
        let TableSpec { storage, table, groups, key_groups, cache_bytes, cache_rows, .. } = spec.clone();
        let (key, row, copied) = Default::default();
        let complete = !F::IS_KEPT || !storage.with(|backend| !backend.is_empty());
        let rows = RowTable::new(groups, key_groups, stamp(storage.running.get()));
        let disk = Disk { storage, table, key, row, copied };
        let (evicting, gone, sweeping) = Default::default();
        let (bound, limit) = Default::default();
        let mut cache =
            Self { form, rows, disk, complete, cache_rows, cache_bytes, bound, limit, evicting, gone, sweeping };
        cache.set_bound();
        cache
    }

    pub(crate) fn storage(&self) -> &Rc<Storage> {
        &self.disk.storage
    }

    /// Asks for the slot of a key.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.rows.prefetch(hash);
    }

    /// Asks for what the key in that slot keeps on the heap.
    #[inline(always)]
    pub(crate) fn prefetch_key(&self, hash: u64)
    where
        F::Key: Serialize,
    {
        self.rows.prefetch_key(hash);
    }

    /// Where the row is whose key `is` knows, if it is in memory.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(&F::Key) -> bool) -> Option<Place> {
        self.rows.find(hash, is)
    }

    /// Where the row is whose key `is` knows; an empty, clean one is made if it is not in memory.
    #[inline(always)]
    pub(crate) fn locate(&mut self, hash: u64, is: impl Fn(&F::Key) -> bool, key: impl FnOnce() -> F::Key) -> Place {
        let Self { rows, form, .. } = self;
        rows.locate(hash, is, || {
            let key = key();
            form.added(&key);
            (key, form.open())
        })
    }

    /// The keys of the rows in memory, in no set order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &F::Key> {
        self.rows.keys()
    }

    /// The row at a place, to be looked at.
    #[inline(always)]
    pub(crate) fn row(&self, place: Place) -> Option<&F::Row> {
        self.rows.row(place).map(|(_, row)| row)
    }

    /// The row at a place, which counts as used.
    #[inline(always)]
    pub(crate) fn look_at(&mut self, place: Place) -> Option<&F::Row> {
        self.rows.used(place);
        self.row(place)
    }

    /// The row at a place, to change what of it is not saved.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, place: Place) -> Option<&mut F::Row> {
        self.rows.row_mut(place)
    }

    /// The row at a place, which counts as changed from now on.
    #[inline(always)]
    pub(crate) fn touch(&mut self, place: Place) -> (&F::Key, &mut F::Row) {
        let Self { rows, form, disk, .. } = self;
        rows.touch(place, |group, key, row| disk.save(form, group, key, row))
    }

    /// The key group of a hash.
    #[inline(always)]
    pub(crate) fn key_group(&self, hash: u64) -> u32 {
        self.rows.key_group(hash)
    }

    /// Appends the key as the backend knows it.
    pub(crate) fn put_key(&self, group: u32, key: &F::Key, into: &mut Vec<u8>) -> Result<(), Error> {
        put_prefix(self.disk.table, group, into);
        self.form.put_key(key, into)
    }

    /// Puts what storage has, unless the row is in memory. Epoch 0 is `base`, whose rows are clean; an epoch that is
    /// not folded yet is never 0.
    pub(crate) fn put(&mut self, hash: u64, key: F::Key, epoch: Epoch, row: &[u8]) -> Result<(), Error> {
        let row = self.form.load(row).map_err(codec)?;
        self.form.added(&key);
        self.rows.load(hash, if epoch == 0 { 0 } else { stamp(epoch) }, key, row);
        Ok(())
    }

    /// How many rows fit the cache. Slots are between a quarter and three quarters full; what rows keep on the heap is
    /// judged by what they take on disk.
    fn set_bound(&mut self) {
        let Copied { rows, key_bytes, row_bytes, .. } = self.disk.copied;
        let (key, row) = (key_bytes.checked_div(rows).unwrap_or(12), row_bytes.checked_div(rows).unwrap_or(64));
        let bytes = RowTable::<F::Key, F::Row>::slot_bytes() * 5 / 2 + self.form.heap(key, row);
        self.bound = self.cache_rows.unwrap_or_else(|| (self.cache_bytes / bytes).max(1024)).max(1);
        self.limit = self.limit.max(self.bound);
    }

    /// Sees to it that a row more may come within a batch: user code may look at more entries than there is room for.
    #[inline(always)]
    pub(crate) fn make_room(&mut self) {
        if self.rows.len() > self.limit {
            let evicted = self.evict();
            self.storage().note(evicted);
        }
    }

    /// Makes room in the table; within one call the work is bounded unless the table is far over its bound.
    #[cold]
    #[inline(never)]
    fn evict(&mut self) -> Result<(), Error> {
        while self.copy() {}
        self.disk.storage.check()?;
        self.complete = !F::IS_KEPT;
        let Self { rows, form, disk, bound, .. } = self;
        let (target, hard) = (*bound - *bound / 8, *bound + *bound / 8);
        let before = rows.len();
        // of a small table not all at once
        let step = SLOTS.min(rows.slots().div_ceil(8));
        let mut walked = 0;
        while rows.len() > target && (walked < 16 * SLOTS || rows.len() > hard) {
            rows.evict(step, |group, stamp, key, row| {
                disk.evict(form, group, stamp, key, row)?;
                form.removed(key);
                Ok::<_, Error>(())
            })?;
            walked += step;
        }
        self.evicting = rows.len() > target;
        let storage = &self.disk.storage;
        storage.evicted.set(storage.evicted.get() + before - self.rows.len());
        Ok(())
    }
}

impl<F: Form> Table for Cache<F> {
    fn id(&self) -> u16 {
        self.disk.table
    }

    fn load_all(&mut self) {
        if self.complete {
            return;
        }
        let storage = self.storage().clone();
        let [t0, t1] = self.disk.table.to_be_bytes();
        let (mut bytes, mut all) = (0, true);
        // there are fewer key groups than that
        let loaded = storage.attempt(|backend| {
            backend.scan(&[t0, t1], &[t0, t1, 0xFF, 0xFF], |key, epoch, row| {
                bytes += key.len() + row.len();
                all = bytes <= SMALL_BYTES && self.rows.len() < self.bound / 2;
                if let Some((&[_, _, g0, g1], key)) = key.split_first_chunk::<PREFIX>()
                    && all
                {
                    self.load(u16::from_be_bytes([g0, g1]).into(), key, Some((epoch, row)))?;
                }
                Ok(all)
            })
        });
        self.complete = all && loaded.is_ok();
        storage.note(loaded);
    }

    fn freeze(&mut self, whole: bool) {
        while self.copy() {}
        self.disk.copied = Copied::default();
        self.rows.freeze(whole);
    }

    fn copy(&mut self) -> bool {
        let Self { rows, form, disk, .. } = self;
        if !rows.is_copying() {
            return false;
        }
        if rows.copy(SLOTS, |group, key, row| disk.save(form, group, key, row)) {
            return true;
        }
        // those that this epoch left without content can go when it is decided, hence with the next one
        let gone = std::mem::replace(&mut self.gone, self.disk.copied.gone);
        self.sweeping = if gone > 0 { self.rows.slots() } else { 0 };
        self.set_bound();
        false
    }

    fn sweep(&mut self) -> bool {
        let Self { rows, form, disk, sweeping, .. } = self;
        if rows.is_copying() || *sweeping == 0 {
            return false;
        }
        let swept = disk.storage.attempt(|backend| {
            rows.sweep(SLOTS.min(*sweeping), |stamp, key, row| {
                let forgotten = !F::IS_KEPT || stamp == 0 || backend.may_forget(Epoch::from(stamp) - 1);
                let goes = forgotten && F::is_empty(row);
                if goes {
                    form.removed(key);
                }
                Ok(goes)
            })
        });
        *sweeping = sweeping.saturating_sub(SLOTS);
        disk.storage.note(swept.map(|_| ()));
        true
    }

    fn settle(&mut self) -> Result<(), Error> {
        if self.evicting || self.rows.len() > self.bound {
            self.evict()?;
        }
        self.limit = self.bound.max(self.rows.len()) + self.bound / 4;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn size(&self) -> (usize, u64) {
        let Copied { rows, row_bytes, .. } = self.disk.copied;
        let row = row_bytes.checked_div(rows).unwrap_or(16);
        (self.rows.len(), (self.rows.len() * (row + 16)) as u64)
    }

    fn has(&self, hash: u64, key: &[u8]) -> bool {
        self.rows.find(hash, |k| F::is(k, key)).is_some()
    }

    fn load(&mut self, group: u32, key: &[u8], found: Option<(Epoch, &[u8])>) -> Result<(), Error> {
        let (hash, key) = self.form.read_key(group, key)?;
        if self.rows.find(hash, |k| *k == key).is_none() {
            let (epoch, row) = found.unwrap_or_default();
            self.put(hash, key, epoch, row)?;
            // what was asked for is to be there when user code comes
            self.limit = self.limit.max(self.rows.len() + self.bound / 4);
        }
        Ok(())
    }
}
