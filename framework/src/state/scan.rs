//! A range of keys in order, merged from all places where rows of storage may be: the generations of the spill, newest
//! first, then base. Which those are, and why that order is right, is in `spill.rs`; what is in memory is laid over it
//! in `entries.rs`.

use super::filter;
use super::held::{Held, Ordered};
use super::indexed::{self, Indexed};
use super::rocks::{Cursor, Rocks, failed};
use super::spill::split_value;
use crate::{Epoch, Error};
use std::path::Path;

/// The rows of one place, from a key on.
pub(super) enum Run<'a> {
    Disk(Cursor<'a>, &'a Path),
    Held(Ordered<'a>),
    Restored(indexed::Ordered<'a>),
}

impl<'a> Run<'a> {
    /// Of an instance, up to `to`.
    pub(super) fn of_disk(rocks: &'a Rocks, from: &[u8], to: &[u8]) -> Self {
        let mut rows = rocks.range(to);
        rows.seek(from);
        Self::Disk(rows, rocks.path())
    }

    /// Of rows in memory that are in order; these, and those below, end where `merge` is told to.
    pub(super) fn of_held(rows: &'a Held, from: &[u8]) -> Self {
        Self::Held(rows.from(from, filter::hash))
    }

    /// Of restored rows.
    pub(super) fn of_restored(rows: &'a Indexed, from: &[u8]) -> Self {
        Self::Restored(rows.from(from))
    }

    fn item(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Disk(rows, _) => rows.item(),
            Self::Held(rows) => rows.item(),
            Self::Restored(rows) => rows.item(),
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Disk(rows, _) => rows.next(),
            Self::Held(rows) => rows.advance(),
            Self::Restored(rows) => rows.advance(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Disk(rows, path) => rows.status().map_err(|e| failed(e, "read", path)),
            Self::Restored(rows) => rows.check(),
            Self::Held(_) => Ok(()),
        }
    }
}

/// Shows each row before `to`, in order, until `each` says false: key, epoch that last changed it, and row. The runs
/// are newest first; `base` is the last one if there is one, its rows have no epoch and count as of epoch 0. Entries of
/// epochs `<= folded` in the others do not count. A row of no bytes is gone, and so is what older runs have of it.
///
/// # Errors
/// When the disk fails; what `each` returns.
pub(super) fn merge<'a>(
    mut spilled: Vec<Run<'a>>,
    mut base: Option<Run<'a>>,
    (folded, to): (Epoch, &[u8]),
    mut each: impl FnMut(&[u8], Epoch, &[u8]) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut key = Vec::new();
    loop {
        let keys = spilled.iter().chain(&base).filter_map(|run| run.item().map(|(key, _)| key));
        let Some(first) = keys.min().filter(|key| *key < to) else { break };
        key.clear();
        key.extend_from_slice(first);
        let newest = spilled.iter().find_map(|run| {
            let (_, value) = run.item().filter(|(at, _)| *at == key)?;
            split_value(value).filter(|(epoch, _)| *epoch > folded)
        });
        let in_base = || base.as_ref()?.item().filter(|(at, _)| *at == key).map(|(_, row)| (0, row));
        let goes_on = match newest.or_else(in_base) {
            Some((_, [])) | None => true,
            Some((epoch, row)) => each(&key, epoch, row)?,
        };
        for run in spilled.iter_mut().chain(&mut base) {
            if run.item().is_some_and(|(at, _)| *at == key) {
                run.advance();
            }
        }
        if !goes_on {
            break;
        }
    }
    spilled.iter().chain(&base).try_for_each(Run::check)
}
