//! The contract of the state backend: what an operator's subtask opens it with, and which implementation stands behind
//! it. Everything here is bytes; types, and the rows in use, are in `table.rs`.
//!
//! With the cargo feature `rocksdb` a [`Backend`] is `disk.rs`; without it `diskless.rs`, which keeps nothing, so that
//! topologies without state run and others compile.
//!
//! Keys are `[table u16 BE][key group u16 BE][order-preserving key bytes]`, and the backend reads the key group only. A
//! table is the rows of an operator, or the entries of one of its collections, whose keys are those of row and entry
//! one after the other. A value is the bytes of a row, opaque here, and no bytes at all say that the row is gone.
//!
//! The table [`FLOORS`] says where others begin. Its keys are `[FLOORS][key group][table]`; a row is a length of one
//! byte, so many bytes, and more that is opaque. All keys of that table and group that are less than these bytes are
//! gone: nobody will ask for them again, and where rows come together to stay they are removed.
//!
//! What an operator does with it, epoch by epoch:
//!
//! 1. `get_many` for the rows of a batch that the table does not hold, unless `is_empty`; `scan` for a range of keys.
//! 2. At barrier n the table is frozen; `put(n, ..)` for each row that epoch n changed, between batches.
//! 3. A row that leaves the table: nothing is to be done if `may_drop` its epoch. Otherwise `spill` it and, if it is
//!    dirty, `put` it into the delta of its epoch, the running one included, for nobody comes back to it at the
//!    barrier.
//! 4. `finish(n)`: the report follows, from another thread, when the delta is durable.
//! 5. `decided(n)` when the coordinator says so; it may start a fold.

use super::snapshot::StateSnapshot;
use crate::{Epoch, Error};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

#[cfg(feature = "rocksdb")]
pub(crate) use super::disk::{Backend, StateEnv};
#[cfg(not(feature = "rocksdb"))]
pub(crate) use super::diskless::{Backend, StateEnv};

/// The directory of checkpoints below the data directory. Paths of manifests are relative to it.
#[cfg(feature = "rocksdb")]
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// The table of floors; no other has this number.
pub(crate) const FLOORS: u16 = u16::MAX;

/// The keys that a row of [`FLOORS`] says are gone, if it is one: the first, and the first that is not.
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "nothing is kept"))]
pub(crate) fn gone_by<'a>(key: &[u8], row: &'a [u8]) -> Option<([u8; 4], &'a [u8])> {
    let [f0, f1] = FLOORS.to_be_bytes();
    let &[k0, k1, g0, g1, t0, t1] = key else { return None };
    let (length, rest) = row.split_first()?;
    let (from, to) = ([t0, t1, g0, g1], rest.get(..usize::from(*length))?);
    ([k0, k1] == [f0, f1] && from[..] < *to).then_some((from, to))
}

/// Is told, in the order of epochs, what the snapshot of an epoch is, or why there is none. Called from the thread that
/// writes deltas, or from within `finish`; must return soon and must not panic.
pub(crate) type Report = Arc<dyn Fn(Epoch, Result<StateSnapshot, Error>) + Send + Sync>;

/// What a subtask's state is opened with.
pub(crate) struct OpenSpec {
    /// The name of the operator: a-z, 0-9, `_`, `-` and `.`.
    pub(crate) operator: String,
    /// Its parallel instance.
    pub(crate) subtask: usize,
    /// The key groups it owns.
    pub(crate) groups: Range<u32>,
    /// What the restored checkpoint holds of this operator: at least the snapshots whose key groups overlap `groups`.
    pub(crate) restore: Vec<StateSnapshot>,
    /// The restored checkpoint.
    pub(crate) restored: Option<Epoch>,
    /// Is told of each finished epoch.
    pub(crate) report: Report,
}

impl fmt::Debug for OpenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] of {:?}, restored {:?}", self.operator, self.subtask, self.groups, self.restored)
    }
}

/// A list of keys in one buffer, to be filled anew for each batch without allocating.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "nothing reads them"))]
impl Keys {
    /// Forgets all keys.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends the key that `write` appends to the buffer.
    ///
    /// # Errors
    /// What `write` returns; nothing is appended then.
    #[inline]
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
        let start = self.bytes.len();
        match write(&mut self.bytes) {
            Ok(()) => self.ends.push(self.bytes.len()),
            Err(error) => {
                self.bytes.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes away the keys for which `keep` says no; it is given the index of each, in order.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let (mut kept, mut start, mut end) = (0, 0, 0);
        for index in 0..self.ends.len() {
            let key = start..self.ends[index];
            start = key.end;
            if keep(index) {
                end += key.len();
                self.bytes.copy_within(key.clone(), end - key.len());
                self.ends[kept] = end;
                kept += 1;
            }
        }
        self.ends.truncate(kept);
        self.bytes.truncate(end);
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The key at `index`; no bytes if there is none.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|i| self.ends.get(i)).copied().unwrap_or(0);
        let end = self.ends.get(index).copied().unwrap_or(start);
        self.bytes.get(start..end).unwrap_or_default()
    }
}
