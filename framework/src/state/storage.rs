//! What all tables of an operator's subtask share: its backend, the numbers of the epochs, and the first error of calls
//! that could not return one. What a table does with it is in `cache.rs`.

use super::backend::{Backend, Keys};
use crate::{Epoch, Error};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// Shared by the tables; borrowed for misses, evictions and copies only.
pub(crate) struct Storage {
    /// None of rows that no job runs: what they hold is all there is.
    backend: RefCell<Option<Backend>>,
    pub(crate) running: Cell<Epoch>,
    /// The epoch that is being copied, or was last.
    pub(crate) frozen: Cell<Epoch>,
    error: RefCell<Option<Error>>,
    /// Reads that user code had to wait for, since last asked.
    pub(crate) blocking: Cell<usize>,
    /// Rows that left memory, since last asked.
    pub(crate) evicted: Cell<usize>,
    /// Bytes of those that went to the spill, since last asked.
    pub(crate) spilled: Cell<usize>,
}

impl Storage {
    /// Where `running` is the epoch under way.
    pub(crate) fn new(backend: Option<Backend>, running: Epoch) -> Rc<Self> {
        let (error, blocking, evicted, spilled) = Default::default();
        let (running, frozen) = (running.into(), running.into());
        Rc::new(Self { backend: backend.into(), running, frozen, error, blocking, evicted, spilled })
    }

    /// What `f` does with the backend; the default of its result if there is none. `f` must not come back here.
    #[inline(always)]
    pub(crate) fn with<R: Default>(&self, f: impl FnOnce(&mut Backend) -> R) -> R {
        self.backend.borrow_mut().as_mut().map_or_else(R::default, f)
    }

    /// The same for what can fail.
    #[inline(always)]
    pub(crate) fn attempt<R: Default>(&self, f: impl FnOnce(&mut Backend) -> Result<R, Error>) -> Result<R, Error> {
        self.backend.borrow_mut().as_mut().map_or_else(|| Ok(R::default()), f)
    }

    /// Looks up one key while user code waits.
    pub(crate) fn get(&self, key: &Keys, found: impl FnMut(usize, Epoch, &[u8]) -> Result<(), Error>) {
        self.blocking.set(self.blocking.get() + 1);
        self.note(self.attempt(|backend| backend.get_many(key, found)));
    }

    /// Keeps an error, unless there was one before.
    pub(crate) fn note(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.error.borrow_mut().get_or_insert(error);
        }
    }

    /// The error that was kept.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.error.borrow_mut().take().map_or(Ok(()), Err)
    }
}

/// What a table of an operator's subtask is made of.
#[doc(hidden)]
#[derive(Clone)]
pub struct TableSpec {
    pub(crate) storage: Rc<Storage>,
    /// The first two bytes of its keys.
    pub(crate) table: u16,
    /// The number and the version of the state, as they stand in the envelope of its values.
    pub(crate) id: u32,
    pub(crate) version: u32,
    pub(crate) groups: Range<u32>,
    pub(crate) key_groups: u32,
    /// Bytes for its rows in memory.
    pub(crate) cache_bytes: usize,
    /// Rows in memory, whatever they take.
    pub(crate) cache_rows: Option<usize>,
}

impl fmt::Debug for TableSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} of {:?}", self.table, self.groups)
    }
}

impl TableSpec {
    /// Of a table that no job runs.
    pub(crate) fn alone() -> Self {
        let storage = Storage::new(None, 0);
        let (cache_bytes, cache_rows) = (usize::MAX, None);
        Self { storage, table: 0, id: 0, version: 1, groups: 0..1, key_groups: 1, cache_bytes, cache_rows }
    }
}
