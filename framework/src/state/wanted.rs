//! [`Wanted`]: what a process function says beforehand that it will look at, so that the entries of a whole batch are
//! read together.

use super::backend::Keys;
use super::handle::Here;
use super::map::MapState;
use crate::{Data, Error, Key};
use std::fmt;

/// Takes down which entries a record will need; see [`Process::prefetch`](crate::Process::prefetch).
pub struct Wanted<'a, S> {
    /// The tables are there between two calls of user code.
    desk: &'a S,
    here: &'a Here,
    missing: &'a mut Missing,
}

/// The entries that a batch needs, by the keys that the backend knows them by, and their hashes. They are looked up in
/// memory when all have been taken down, for by then their slots have come.
#[derive(Default)]
pub(crate) struct Missing {
    pub(crate) keys: Keys,
    pub(crate) hashes: Vec<u64>,
    /// By index: it is in memory.
    pub(crate) known: Vec<bool>,
    /// The process function asks for nothing, ever.
    pub(crate) unused: bool,
    error: Option<Error>,
}

impl<S> fmt::Debug for Wanted<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wanted({})", self.missing.keys.len())
    }
}

impl<'a, S> Wanted<'a, S> {
    pub(crate) fn new(desk: &'a S, here: &'a Here, missing: &'a mut Missing) -> Self {
        Self { desk, here, missing }
    }

    /// This process function does not ask.
    pub(crate) fn unused(&mut self) {
        self.missing.unused = true;
    }

    /// The entry of `key` in the map that `state` points to will be looked at: `wanted.entry(|seen| &seen.shops,
    /// &shop)`. Costs a look-up in memory if it is there, and else a share of one read for the whole batch.
    #[inline]
    pub fn entry<K: Key, V: Data>(&mut self, state: impl FnOnce(&S) -> &MapState<K, V>, key: &K) {
        if let Some(table) = state(self.desk).lent()
            && let Err(error) = table.want(self.here, key, self.missing)
        {
            self.missing.error.get_or_insert(error);
        }
    }
}

impl Missing {
    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.hashes.clear();
    }

    /// The first error of a key that cannot be written.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        self.error.take().map_or(Ok(()), Err)
    }
}
