//! All keyed state of an operator in one subtask: the rows, and the tables of their collections. Who calls user code
//! with it, and when, is in `subtask/process.rs`; how a table is kept is in `cache.rs`.

use super::backend::Backend;
use super::cache::{Cache, Form, PREFIX, unkept};
use super::handle::{Handle, Here, State, Table, VisitorMut};
use super::row::{RowLayout, is_empty};
use super::storage::{Storage, TableSpec};
use super::timers::Timers;
use super::wanted::Missing;
use crate::codec::CodecError;
use crate::key::{decode_key, encode_key, stable_hash};
use crate::{Epoch, Error, ErrorKind, Key};
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

/// Where a keyed operator's state is kept, and how much may be in memory.
pub(crate) struct StateContext {
    /// None: what is in memory is all there is.
    pub(crate) backend: Option<Backend>,
    pub(crate) layout: RowLayout,
    /// The first two bytes of the keys of its rows.
    pub(crate) table: u16,
    pub(crate) groups: Range<u32>,
    /// Bytes for what is in memory, all tables together.
    pub(crate) cache_bytes: usize,
    /// Rows in memory of each table, whatever they take; for tests that want eviction.
    pub(crate) cache_rows: Option<usize>,
}

/// Rows as the program declares them.
pub(crate) struct Rows<K, S> {
    layout: RowLayout,
    of: PhantomData<fn() -> (K, S)>,
}

impl<K: Key, S: State> Form for Rows<K, S> {
    type Key = K;
    type Row = S;
    const IS_KEPT: bool = S::HAS_CELLS;
    #[inline(always)]
    fn put_key(&self, key: &K, into: &mut Vec<u8>) -> Result<(), Error> {
        encode_key(key, into).map_err(unkept)
    }
    fn read_key(&self, _: u32, bytes: &[u8]) -> Result<(u64, K), Error> {
        let (key, _) = decode_key(bytes).map_err(unkept)?;
        Ok((stable_hash(&key), key))
    }
    fn is(key: &K, stored: &[u8]) -> bool {
        decode_key(stored).is_ok_and(|(of, _): (K, _)| of == *key)
    }
    #[inline(always)]
    fn save(&self, row: &S, into: &mut Vec<u8>) -> Result<(), CodecError> {
        self.layout.save(row, into)
    }
    fn load(&self, bytes: &[u8]) -> Result<S, CodecError> {
        self.layout.load(bytes)
    }
    #[inline(always)]
    fn open(&self) -> S {
        S::open()
    }
    fn is_empty(row: &S) -> bool {
        is_empty(row)
    }
    /// What is on the heap is taken to be what it is on disk, plus the allocator's share.
    fn heap(&self, _: usize, row: usize) -> usize {
        if std::mem::needs_drop::<(K, S)>() { 48 + row } else { 0 }
    }
}

/// The state of one subtask.
pub(crate) struct Keyed<K: Key, S: State> {
    pub(crate) rows: Cache<Rows<K, S>>,
    /// Has the tables of the collections while they are not lent.
    pub(crate) desk: S,
    pub(crate) here: Here,
    pub(crate) storage: Rc<Storage>,
    pub(crate) missing: Missing,
    pub(crate) timers: Timers,
    /// An epoch is frozen whose delta is not complete, and whether that delta holds all there is.
    copying: Option<bool>,
}

impl<K: Key, S: State> Keyed<K, S> {
    /// What was restored, or nothing; `running` is the first epoch.
    pub(crate) fn new(context: StateContext, running: Epoch, key_groups: u32) -> Self {
        let StateContext { backend, layout, table, groups, cache_bytes, cache_rows } = context;
        let storage = Storage::new(backend, running);
        // rows that hold nothing themselves need little
        let shares = if S::HAS_CELLS { 1 + layout.tables() } else { layout.tables().max(1) };
        let cache_bytes = cache_bytes / shares;
        let (id, version) = (0, 0);
        let spec =
            TableSpec { storage: storage.clone(), table, id, version, groups, key_groups, cache_bytes, cache_rows };
        let mut desk = S::open();
        desk.visit_mut(&mut Furnish { layout: &layout, spec: &spec });
        let timers = Timers::new::<S>(&spec, |field| layout.table(field).map(|(_, _, table)| table));
        let spec = TableSpec { cache_bytes: if S::HAS_CELLS { cache_bytes } else { cache_bytes / 16 }, ..spec };
        let rows = Cache::new(Rows { layout, of: PhantomData }, &spec);
        let (here, missing) = Default::default();
        let mut state = Self { rows, desk, here, storage, missing, timers, copying: None };
        state.each(|table| table.load_all());
        state
    }

    /// Shows a test the state of a key, collections included; what it changes is kept.
    pub(crate) fn look<R>(&mut self, key: &K, look: impl FnOnce(&mut S) -> R) -> Result<R, Error> {
        let Self { rows, desk, here, timers, .. } = self;
        let hash = stable_hash(key);
        let group = rows.key_group(hash);
        here.set(group, key)?;
        let place = rows.locate(hash, |k| k == key, || key.clone());
        let (_, row) = rows.touch(place);
        timers.enter(row);
        row.enter(desk, here);
        let seen = look(row);
        row.leave(desk, here);
        timers.leave(row, group, key);
        Ok(seen)
    }

    /// Calls `f` with the table of each collection.
    pub(crate) fn each_table(&mut self, f: impl FnMut(&mut dyn Table)) {
        if S::HAS_TABLES {
            self.desk.visit_mut(&mut Each(f));
        }
    }

    fn each(&mut self, mut f: impl FnMut(&mut dyn Table)) {
        f(&mut self.rows);
        self.each_table(f);
    }

    /// Whether all entries of all collections are in memory.
    pub(crate) fn has_all_entries(&mut self) -> bool {
        let mut complete = true;
        self.each_table(|table| complete &= table.is_complete());
        complete
    }

    /// Reads those of the entries that were asked for which are not in memory together. Gives how many these are, and
    /// how many of them there were.
    pub(crate) fn fetch_entries(&mut self) -> Result<(usize, usize), Error> {
        self.missing.check()?;
        self.forget_known();
        if self.missing.keys.is_empty() {
            return Ok((0, 0));
        }
        let Self { missing: Missing { keys, .. }, desk, storage, .. } = self;
        let mut load = |index: usize, found: Option<(Epoch, &[u8])>| {
            let Some((&[t0, t1, g0, g1], key)) = keys.get(index).split_first_chunk::<PREFIX>() else { return Ok(()) };
            let (id, group) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([g0, g1]));
            let mut result = Ok(());
            desk.visit_mut(&mut Each(|table: &mut dyn Table| {
                if table.id() == id {
                    result = table.load(group.into(), key, found);
                }
            }));
            result
        };
        let mut found = vec![false; keys.len()];
        storage.attempt(|backend| {
            backend.get_many(keys, |index, epoch, row| {
                found[index] = true;
                load(index, Some((epoch, row)))
            })
        })?;
        // also that there is nothing is worth to be remembered
        for index in (0..found.len()).filter(|index| !found[*index]) {
            load(index, None)?;
        }
        Ok((keys.len(), found.iter().filter(|found| **found).count()))
    }

    /// Of the entries that were asked for leaves those that are not in memory.
    fn forget_known(&mut self) {
        let Self { missing: Missing { keys, hashes, known, .. }, desk, .. } = self;
        known.clear();
        known.resize(keys.len(), false);
        desk.visit_mut(&mut Each(|table: &mut dyn Table| {
            let id = table.id().to_be_bytes();
            for (index, hash) in hashes.iter().enumerate() {
                if let Some((prefix, key)) = keys.get(index).split_first_chunk::<PREFIX>()
                    && prefix[..2] == id
                {
                    known[index] = table.has(*hash, key);
                }
            }
        }));
        keys.retain(|index| !known[index]);
    }

    /// The epoch is over: what it changed is to be copied. Ends the copy before it, if that has not ended:
    /// back-pressure on checkpoints.
    pub(crate) fn freeze(&mut self, epoch: Epoch) -> Result<(), Error> {
        while self.copy()? {}
        let (mut complete, mut bytes) = (self.timers.is_complete(), self.timers.bytes());
        self.each(|table| {
            complete &= table.is_complete();
            bytes += table.size().1;
        });
        let whole = complete && self.storage.with(|backend| backend.wants_whole(bytes));
        self.storage.frozen.set(epoch);
        self.storage.running.set(epoch + 1);
        self.each(|table| table.freeze(whole));
        self.copying = Some(whole);
        self.timers.freeze(whole)
    }

    /// Copies a piece of what is frozen; true if there is more. With the last piece the delta is complete.
    pub(crate) fn copy(&mut self) -> Result<bool, Error> {
        let Some(whole) = self.copying else { return Ok(false) };
        let mut more = false;
        self.each(|table| more = more || table.copy());
        more = more || self.timers.copy()?;
        self.storage.check()?;
        if !more {
            self.copying = None;
            self.storage.attempt(|backend| backend.finish(self.storage.frozen.get(), whole))?;
        }
        Ok(more)
    }

    /// Whether frozen rows are still to be copied.
    pub(crate) fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Drops some rows without content; true if there is more to look at.
    pub(crate) fn sweep(&mut self) -> Result<bool, Error> {
        let mut more = false;
        self.each(|table| more = more || table.sweep());
        self.storage.check()?;
        Ok(more)
    }

    /// After a batch, before anything of it is handed on: whether all went well, and room in memory.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        self.storage.check()?;
        let mut result = self.rows.settle();
        if S::HAS_TABLES {
            let mut home = true;
            self.desk.visit_mut(&mut IsHome(&mut home));
            if !home {
                return Err(Error::new(ErrorKind::Failed, REPLACED));
            }
            self.each_table(|table| result = std::mem::replace(&mut result, Ok(())).and_then(|()| table.settle()));
        }
        result
    }

    /// How many rows are in memory.
    pub(crate) fn len(&mut self) -> usize {
        let mut rows = 0;
        self.each(|table| rows += table.size().0);
        rows
    }
}

/// Rows may be changed, but not be taken away: the tables that were lent would go with them.
const REPLACED: &str = "the process function replaced its state as a whole, and with it the collections in it: change the states one by one, and `clear()` collections";

/// Makes the tables.
struct Furnish<'a> {
    layout: &'a RowLayout,
    spec: &'a TableSpec,
}
impl VisitorMut for Furnish<'_> {
    fn field<H: Handle>(&mut self, index: usize, handle: &mut H) {
        if let Some((id, version, table)) = self.layout.table(index) {
            handle.furnish(&TableSpec { id, version, table, ..self.spec.clone() });
        }
    }
}

struct Each<F>(F);
impl<F: FnMut(&mut dyn Table)> VisitorMut for Each<F> {
    fn field<H: Handle>(&mut self, _: usize, handle: &mut H) {
        if let Some(table) = handle.table() {
            self.0(table);
        }
    }
}

/// Whether all tables are where they belong.
struct IsHome<'a>(&'a mut bool);
impl VisitorMut for IsHome<'_> {
    fn field<H: Handle>(&mut self, _: usize, handle: &mut H) {
        *self.0 &= !H::KIND.has_entries() || handle.table().is_some();
    }
}

#[cfg(feature = "rocksdb")]
#[cfg(test)]
#[path = "keyed_test.rs"]
mod tests;
