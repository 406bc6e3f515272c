//! The thread that folds: brings the deltas of decided epochs into `base`, and takes a base checkpoint. When a fold is
//! due is in `store.rs` (`Chain::is_due`); why reads go on meanwhile is in `spill.rs`.
//!
//! One thread per process, one fold at a time, at most one queued per subtask; so the queue is no longer than there are
//! subtasks, and a fold that waited takes all that was decided meanwhile. A fold of epoch n:
//!
//! 1. Begins a new generation of `spill`, so that the older ones can be removed some time.
//! 2. Applies the deltas of `folded+1..=n`, oldest first, in chunks: newest of a key wins, sorted, ingested.
//! 3. Publishes `folded = n`. From here on what epochs `<= n` changed is read from `base`.
//! 4. Removes generations of `spill` in which nothing is newer than n.
//! 5. Takes a base checkpoint, which is the state at n exactly, for nothing else writes to `base`. Makes it durable.
//! 6. Publishes the new chain: this base, and the deltas after n. Snapshots reported from here on name it.
//!
//! Only decided epochs are folded: what a restore of n-1 must not see never gets into `base`. The old base and the
//! deltas stay where they are; manifests name them. No manifest names the new base until the next snapshot is decided,
//! so it must not be taken for garbage by its epoch alone.
//!
//! Memory: one chunk. The first error ends folding for the subtask, and is reported with its next epoch.

use super::base;
use super::delta;
use super::rocks::Rocks;
use super::snapshot::Delta;
use super::sorter::{Gone, Sorter};
use super::store::{Shared, Store, lock};
use crate::{Error, ErrorKind, clock};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;

/// Folds what comes until the attempt is over. `None` only wakes it.
pub(super) fn run(shared: &Shared, jobs: &Receiver<Option<Arc<Store>>>) {
    while let Ok(job) = jobs.recv() {
        if shared.is_stopped() {
            return;
        }
        job.iter().for_each(|store| step(store));
    }
}

/// Folds what is decided of one subtask.
pub(super) fn step(store: &Store) {
    if let Err(error) = fold(store) {
        store.fail(error.at("folding"));
    }
}

fn fold(store: &Store) -> Result<(), Error> {
    let start = clock::now();
    let epoch = store.decided.load(SeqCst);
    let deltas = lock(&store.chain).until(epoch);
    store.spill.begin()?;
    let rocks = open_base(store)?;
    if !apply(store, rocks, &deltas)? {
        return Ok(());
    }
    store.folded.store(epoch, SeqCst);
    store.spill.drop_until(epoch);
    let base = base::take(store, rocks, epoch)?;
    lock(&store.chain).rebase(base);
    store.folding.store(false, SeqCst);
    tracing::debug!("{}: folded {} deltas in {:?}", store.place(), deltas.len(), clock::now() - start);
    Ok(())
}

/// Makes the instance if this is the first fold: of the restored base, or an empty one. Reads go there from here on.
fn open_base(store: &Store) -> Result<&Rocks, Error> {
    if store.base.get().is_none() {
        let path = store.scratch.0.join("base");
        let chain = lock(&store.chain).clone();
        if let Some(base) = &chain.base {
            base::link(&store.shared.checkpoints, base, &path)?;
        }
        let _ = store.base.set(Rocks::open(&store.shared.tuning, &path)?);
        let restored = lock(&store.restored).take();
        restored.into_iter().for_each(Rocks::destroy);
    }
    store.base.get().ok_or_else(|| Error::new(ErrorKind::Io, "base is not open"))
}

/// Applies deltas, oldest first; false if the attempt has ended before all were.
fn apply(store: &Store, rocks: &Rocks, deltas: &[Delta]) -> Result<bool, Error> {
    let shared = &store.shared;
    let mut sorter = Sorter::new(&shared.tuning, rocks, Gone::Delete, shared.limits.chunk_bytes);
    for delta in deltas {
        if shared.is_stopped() {
            return Ok(false);
        }
        delta::read(&shared.checkpoints, &store.operator, delta, |key, row, _| sorter.push(key, row, &[]))?;
    }
    sorter.flush()?;
    Ok(!shared.is_stopped())
}
