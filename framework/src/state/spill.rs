//! Spill: the rows that left the table before a fold had brought them to base. What is evicted, and when, is decided by
//! the operator; folds are in `fold.rs`.
//!
//! A generation is made when the first row comes and removed when a fold has caught up with its newest row: so nothing
//! is ever deleted from it, base checkpoints hold none of it, and an operator whose rows fit the table has none. Its
//! rows stay in memory as long as there is room (`held.rs`); those that come then go to an instance of RocksDB of its
//! own, removed directory and all, before which a filter stands (`filter.rs`). What a restore finds in deltas is a
//! generation, too (`indexed.rs`). A value is `[epoch u64 BE][row]`, the epoch being the one that last changed the row;
//! no row bytes say that the row is gone. Nothing in here survives the attempt.
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
use super::filter::{self, Filter};
use super::held::Held;
use super::indexed::Indexed;
use super::rocks::{Rocks, Tuning};
use super::scan::{self, Run};
use super::store::lock;
use crate::{Epoch, Error};
use rocksdb::WriteBatch;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Rows are written to an instance together, at the latest when they have this many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// The generations of one subtask. Written and read by its worker, begun and removed by the thread that folds; the lock
/// is contended only when those meet, a few microseconds per fold.
pub(super) struct Spill {
    tuning: Arc<Tuning>,
    directory: PathBuf,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    /// How many instances there have been.
    begun: u64,
    /// Oldest first.
    generations: Vec<Generation>,
    /// Ranges have been read.
    ordered: bool,
}

struct Generation {
    rows: Rows,
    /// The newest epoch of its entries; 0 if it has none.
    newest: Epoch,
}

/// Where the rows of a generation are.
enum Rows {
    /// Evicted ones.
    Written(Written),
    /// What a restore has found in deltas. Nothing is added to it.
    Restored(Indexed),
    /// The same if there was no room to know where all of it is.
    Loaded(Rocks),
}

/// Evicted rows. Of a row that is in both places the newer one is in memory.
struct Written {
    held: Held,
    disk: Option<Disk>,
}

/// Those for which there was no room.
struct Disk {
    rocks: Rocks,
    filter: Filter,
    /// Not written yet.
    batch: WriteBatch,
    value: Vec<u8>,
}

impl Disk {
    fn put(&mut self, tuning: &Tuning, hash: u64, key: &[u8], epoch: Epoch, row: &[u8]) -> Result<(), Error> {
        self.filter.add(hash);
        self.value.clear();
        self.value.extend(head(epoch));
        self.value.extend(row);
        self.batch.put(key, &self.value);
        if self.batch.size_in_bytes() >= BATCH_BYTES { self.flush(tuning) } else { Ok(()) }
    }

    /// Before anything is read.
    fn flush(&mut self, tuning: &Tuning) -> Result<(), Error> {
        if self.batch.is_empty() { Ok(()) } else { self.rocks.write(tuning, std::mem::take(&mut self.batch)) }
    }
}

impl Generation {
    /// Looks up keys as [`Rocks::get_many`] does; `hashes` are those of all keys.
    fn get_many(
        &mut self,
        tuning: &Tuning,
        (keys, hashes): (&Keys, &[u64]),
        wanted: &[usize],
        mut hit: impl FnMut(usize, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let Written { held, disk } = match &mut self.rows {
            Rows::Loaded(rocks) => return rocks.get_many(keys, &mut wanted.to_vec(), hit),
            Rows::Restored(rows) => return rows.get_many(keys, wanted, hit),
            Rows::Written(written) => written,
        };
        let mut asked = Vec::new();
        for index in wanted {
            let (key, hash) = (keys.get(*index), hashes[*index]);
            match held.get(hash, key) {
                Some(value) => _ = hit(*index, value)?,
                None if disk.as_ref().is_some_and(|disk| disk.filter.may_have(hash)) => asked.push(*index),
                None => {}
            }
        }
        match disk {
            Some(disk) if !asked.is_empty() => {
                disk.flush(tuning)?;
                disk.rocks.get_many(keys, &mut asked, hit)
            }
            _ => Ok(()),
        }
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
    /// Without generations; their instances will be below `directory`.
    pub(super) fn new(tuning: Arc<Tuning>, directory: &Path) -> Self {
        Self { tuning, directory: directory.into(), live: Mutex::default() }
    }

    fn open(&self, number: u64) -> Result<Rocks, Error> {
        Rocks::open(&self.tuning, &self.directory.join(format!("spill-{number}")))
    }

    fn disk(&self, number: u64) -> Result<Disk, Error> {
        let (filter, rocks) = (Filter::new(&self.tuning.filters), self.open(number)?);
        Ok(Disk { rocks, filter, batch: WriteBatch::default(), value: Vec::new() })
    }

    /// A generation without rows.
    fn generation(&self, ordered: bool, disk: Option<Disk>) -> Generation {
        let held = Held::new(&self.tuning.held, ordered);
        Generation { rows: Rows::Written(Written { held, disk }), newest: 0 }
    }

    /// Keeps a row as `epoch` left it; no bytes say that it is gone.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn put(&self, epoch: Epoch, key: &[u8], row: &[u8]) -> Result<(), Error> {
        let mut live = lock(&self.live);
        let Live { begun, generations, ordered } = &mut *live;
        if !matches!(generations.last(), Some(Generation { rows: Rows::Written(_), .. })) {
            generations.push(self.generation(*ordered, None));
        }
        if let Some(Generation { rows: Rows::Written(Written { held, disk }), newest }) = generations.last_mut() {
            *newest = epoch.max(*newest);
            let hash = filter::hash(key);
            if held.put(hash, key, &head(epoch), row) {
                return Ok(());
            }
            if disk.is_none() {
                *disk = Some(self.disk(*begun)?);
                *begun += 1;
            }
            if let Some(disk) = disk {
                disk.put(&self.tuning, hash, key, epoch, row)?;
            }
        }
        Ok(())
    }

    /// Makes a generation of restored rows, whose newest epoch is `newest`.
    pub(super) fn keep(&self, newest: Epoch, rows: Indexed) {
        lock(&self.live).generations.push(Generation { rows: Rows::Restored(rows), newest });
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
        let rocks = self.open(live.begun)?;
        fill(&self.tuning, &rocks)?;
        live.begun += 1;
        live.generations.push(Generation { rows: Rows::Loaded(rocks), newest });
        Ok(())
    }

    /// Begins a new generation, unless there is none that is written to, or it is still empty. Called by one thread.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn begin(&self) -> Result<(), Error> {
        let number = {
            let mut live = lock(&self.live);
            let Some(Generation { rows: Rows::Written(written), newest: 1.. }) = live.generations.last() else {
                return Ok(());
            };
            let overflows = written.disk.as_ref().is_some_and(|disk| !disk.filter.is_empty());
            live.begun += u64::from(overflows);
            overflows.then(|| live.begun - 1)
        };
        // The next one will overflow, too. Takes milliseconds, in which the worker goes on.
        let disk = number.map(|number| self.disk(number)).transpose()?;
        let mut live = lock(&self.live);
        let generation = self.generation(live.ordered, disk);
        live.generations.push(generation);
        Ok(())
    }

    /// Removes the generations, but not the one that is written to, in which nothing is newer than `folded`.
    pub(super) fn drop_until(&self, folded: Epoch) {
        let dead: Vec<Generation> = {
            let mut live = lock(&self.live);
            let current = live.generations.pop_if(|g| matches!(g.rows, Rows::Written(_)));
            let dead = live.generations.extract_if(.., |g| g.newest <= folded).collect();
            live.generations.extend(current);
            dead
        };
        for generation in dead {
            match generation.rows {
                Rows::Loaded(rocks) | Rows::Written(Written { disk: Some(Disk { rocks, .. }), .. }) => rocks.destroy(),
                Rows::Written(_) | Rows::Restored(_) => {}
            }
        }
    }

    /// Looks up the keys at the indexes `wanted`, newest generation first, and leaves there those that are in none.
    /// Entries of epochs `<= folded` do not count. `found` is given the index of a key, the epoch and the row; the row
    /// is empty if it is gone.
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
        let mut live = lock(&self.live);
        let mut newer = live.generations.iter_mut().rev().filter(|g| g.newest > folded).peekable();
        if newer.peek().is_none() {
            return Ok(());
        }
        let hashes: Vec<u64> = (0..keys.len()).map(|index| filter::hash(keys.get(index))).collect();
        let mut answered = vec![false; keys.len()];
        for generation in newer {
            generation.get_many(&self.tuning, (keys, &hashes), wanted, |index, value| match split_value(value) {
                Some((epoch, row)) if epoch > folded => {
                    answered[index] = true;
                    found(index, epoch, row).map(|()| true)
                }
                _ => Ok(false),
            })?;
            wanted.retain(|index| !answered[*index]);
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
        let mut live = lock(&self.live);
        live.ordered = true;
        for generation in &mut live.generations {
            if let Rows::Written(Written { held, disk }) = &mut generation.rows {
                held.put_in_order();
                disk.as_mut().map_or(Ok(()), |disk| disk.flush(&self.tuning))?;
            }
        }
        let mut spilled = Vec::new();
        for generation in live.generations.iter().rev().filter(|g| g.newest > folded) {
            match &generation.rows {
                Rows::Written(Written { held, disk }) => {
                    spilled.push(Run::of_held(held, from));
                    spilled.extend(disk.as_ref().map(|disk| Run::of_disk(&disk.rocks, from, to)));
                }
                Rows::Loaded(rocks) => spilled.push(Run::of_disk(rocks, from, to)),
                Rows::Restored(rows) => spilled.push(Run::of_restored(rows, from)),
            }
        }
        scan::merge(spilled, base(), (folded, to), each)
    }

    /// How many generations there are.
    #[cfg(test)]
    pub(super) fn generations(&self) -> usize {
        lock(&self.live).generations.len()
    }
}
