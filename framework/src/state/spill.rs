//! Spill: the rows that left the table before a fold had brought them to base. What is evicted, and when, is decided by
//! the operator; folds are in `fold.rs`.
//!
//! A generation is an instance of RocksDB of its own, made when the first row comes and removed, directory and all,
//! when a fold has caught up with its newest row: so nothing is ever deleted from it, base checkpoints hold none of it,
//! and an operator whose rows fit the table has none. What a restore loads from deltas is a generation, too. A value is
//! `[epoch u64 BE][row]`, the epoch being the one that last changed the row; no row bytes say that the row is gone.
//! Nothing in here survives the attempt.
//!
//! # Why reads need no lock against folds
//!
//! A read of a key goes through the generations, newest first, then to base. Let `e` be the epoch that last changed the
//! row, and let a fold bring base from `folded = f` to `n`.
//!
//! 1. `e <= f`: no delta of `f+1..=n` names the key, so the fold does not touch it in base, and base has the row
//!    whether the fold has not begun, is half done, or is over. What generations hold of it has an epoch `<= f` and is
//!    ignored.
//! 2. `f < e <= n`: the row is in the table, or was spilled with `e`, for only `folded` allows to drop it without. Its
//!    generation is removed after base is complete and `folded = n` is published. Either the read finds it there, or it
//!    finds it gone, comes to base later than that, and base has the row.
//! 3. `e > n`: in the table, or in a generation whose newest epoch is `>= e`, which this fold does not remove.
//!
//! Two generations may hold one key. The newer one has the row as of the same epoch or a later one; if the newer one is
//! removed, its epoch was folded, hence that of the older one, too, and the older entry is ignored.
//!
//! A floor (`backend.rs`) in one of the deltas removes keys that no delta names. Nobody reads those any more since
//! before the floor was written.
//!
//! All this holds for a range of keys, too: its iterators, each a snapshot, are made in the same order.
//!
//! A new generation is begun when a fold starts, so that the older ones stop growing and can be removed by the next
//! fold at the latest: two or three are there at a time.

use super::backend::Keys;
use super::rocks::{Rocks, Tuning};
use super::scan::{self, Run};
use super::sorted::Sorted;
use super::store::lock;
use crate::{Epoch, Error};
use rocksdb::WriteBatch;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The generations of one subtask. Written and read by its worker, begun and removed by the thread that folds; the lock
/// is contended only when those meet, a few microseconds per fold.
pub(super) struct Spill {
    tuning: Arc<Tuning>,
    directory: PathBuf,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    /// How many generations there have been.
    begun: u64,
    /// Oldest first.
    generations: Vec<Generation>,
}

struct Generation {
    rows: Rows,
    /// The newest epoch of its entries; 0 if it has none.
    newest: Epoch,
}

/// Where the rows of a generation are.
enum Rows {
    Disk(Rocks),
    /// A few restored ones, for an instance takes some fsyncs to make. Nothing is added to them.
    Memory(Sorted),
}

impl Rows {
    fn get_many(
        &self,
        keys: &Keys,
        wanted: &mut Vec<usize>,
        mut hit: impl FnMut(usize, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let rows = match self {
            Self::Disk(rocks) => return rocks.get_many(keys, wanted, hit),
            Self::Memory(rows) => rows,
        };
        let mut result = Ok(());
        wanted.retain(|index| match rows.get(keys.get(*index)) {
            Some(value) if result.is_ok() => {
                let answered = hit(*index, value);
                !answered.unwrap_or_else(|error| {
                    result = Err(error);
                    false
                })
            }
            _ => true,
        });
        result
    }
}

/// What stands before the row in a value.
pub(super) fn head(epoch: Epoch) -> [u8; 8] {
    epoch.to_be_bytes()
}

pub(super) fn split_value(value: &[u8]) -> Option<(Epoch, &[u8])> {
    let (epoch, row) = value.split_first_chunk()?;
    Some((Epoch::from_be_bytes(*epoch), row))
}

impl Spill {
    /// Without generations; they will be below `directory`.
    pub(super) fn new(tuning: Arc<Tuning>, directory: &Path) -> Self {
        Self { tuning, directory: directory.into(), live: Mutex::default() }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("spill-{number}"))
    }

    fn open(&self, number: u64) -> Result<Generation, Error> {
        let rocks = Rocks::open(&self.tuning, &self.path(number))?;
        Ok(Generation { rows: Rows::Disk(rocks), newest: 0 })
    }

    /// Applies `batch`, whose newest epoch is `newest`, to the newest generation.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn write(&self, batch: WriteBatch, newest: Epoch) -> Result<(), Error> {
        let mut live = lock(&self.live);
        if !matches!(live.generations.last(), Some(Generation { rows: Rows::Disk(_), .. })) {
            let generation = self.open(live.begun)?;
            live.begun += 1;
            live.generations.push(generation);
        }
        if let Some(Generation { rows: Rows::Disk(rocks), newest: until }) = live.generations.last_mut() {
            *until = newest.max(*until);
            rocks.write(&self.tuning, batch)?;
        }
        Ok(())
    }

    /// Makes a generation of restored rows, whose newest epoch is `newest`. They stay in memory.
    pub(super) fn keep(&self, newest: Epoch, rows: Sorted) {
        lock(&self.live).generations.push(Generation { rows: Rows::Memory(rows), newest });
    }

    /// Makes a generation of what `fill` puts into an instance, whose newest epoch is `newest`.
    ///
    /// # Errors
    /// When the disk fails; what `fill` returns.
    pub(super) fn load(
        &self,
        newest: Epoch,
        fill: impl FnOnce(&Tuning, &Rocks) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut live = lock(&self.live);
        let rocks = Rocks::open(&self.tuning, &self.path(live.begun))?;
        fill(&self.tuning, &rocks)?;
        live.begun += 1;
        live.generations.push(Generation { rows: Rows::Disk(rocks), newest });
        Ok(())
    }

    /// Begins a new generation, unless there is none that is written to, or it is still empty. Called by one thread.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn begin(&self) -> Result<(), Error> {
        let number = {
            let mut live = lock(&self.live);
            match live.generations.last() {
                Some(Generation { rows: Rows::Disk(_), newest: 1.. }) => live.begun += 1,
                _ => return Ok(()),
            }
            live.begun - 1
        };
        // Takes milliseconds, in which the worker goes on.
        let generation = self.open(number)?;
        lock(&self.live).generations.push(generation);
        Ok(())
    }

    /// Removes the generations, but not the one that is written to, in which nothing is newer than `folded`.
    pub(super) fn drop_until(&self, folded: Epoch) {
        let dead: Vec<Generation> = {
            let mut live = lock(&self.live);
            let current = live.generations.pop_if(|g| matches!(g.rows, Rows::Disk(_)));
            let dead = live.generations.extract_if(.., |g| g.newest <= folded).collect();
            live.generations.extend(current);
            dead
        };
        for generation in dead {
            if let Rows::Disk(rocks) = generation.rows {
                rocks.destroy();
            }
        }
    }

    /// Looks up keys as [`Rocks::get_many`] does, newest generation first. Entries of epochs `<= folded` do not count.
    /// `found` is given the index of a key, the epoch and the row; the row is empty if it is gone.
    ///
    /// # Errors
    /// When the disk fails; what `found` returns.
    pub(super) fn get_many(
        &self,
        keys: &Keys,
        wanted: &mut Vec<usize>,
        folded: Epoch,
        mut found: impl FnMut(usize, Epoch, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let live = lock(&self.live);
        for generation in live.generations.iter().rev() {
            if wanted.is_empty() || generation.newest <= folded {
                continue;
            }
            generation.rows.get_many(keys, wanted, |index, value| match split_value(value) {
                Some((epoch, row)) if epoch > folded => found(index, epoch, row).map(|()| true),
                _ => Ok(false),
            })?;
        }
        Ok(())
    }

    /// Shows the rows of `from..to` in order, as [`scan::merge`] does; `base` is opened after the generations.
    ///
    /// # Errors
    /// When the disk fails; what `each` returns.
    pub(super) fn scan<'a>(
        &'a self,
        (from, to): (&[u8], &[u8]),
        folded: Epoch,
        base: impl FnOnce() -> Option<Run<'a>>,
        each: impl FnMut(&[u8], Epoch, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let live = lock(&self.live);
        let newest_first = live.generations.iter().rev().filter(|g| g.newest > folded);
        let spilled = newest_first.map(|g| match &g.rows {
            Rows::Disk(rocks) => Run::of_disk(rocks, from, to),
            Rows::Memory(rows) => Run::of_memory(rows, from),
        });
        scan::merge(spilled.collect(), base(), (folded, to), each)
    }

    /// How many generations there are.
    #[cfg(test)]
    pub(super) fn generations(&self) -> usize {
        lock(&self.live).generations.len()
    }
}
