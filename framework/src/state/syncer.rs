//! The threads that make delta files durable, join them to their chains, and report. Files are written in `writer.rs`.
//!
//! There are a few, for an fsync mostly waits for the file system's journal, and those that wait together share one
//! commit: 160 small files took 315 ms with one thread, 25 ms with four and 13 ms with sixteen (ext4). A subtask has
//! always the same one, so its epochs are reported in order.
//!
//! 1. Takes all finished deltas that are there, and syncs the content of each.
//! 2. Syncs the directory once, for the names are new.
//! 3. For each, in the order of their coming: the delta joins the chain, and the subtask's callback is given the chain.
//!
//! An fsync that failed is never tried again: from then on each finished epoch of each subtask is reported as failed.

use super::snapshot::{Delta, FileRef};
use super::store::{Shared, Store, lock, sync_directory};
use super::writer::{DeltaFile, QUEUE};
use crate::{Epoch, Error};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;

/// How many threads.
pub(super) const SYNCERS: usize = 4;

/// An epoch of a subtask whose rows have all been written; without a file if there are none.
pub(super) struct Finished {
    pub(super) store: Arc<Store>,
    pub(super) epoch: Epoch,
    pub(super) file: Option<DeltaFile>,
    pub(super) entries: u64,
    /// It holds every row there is, so it replaces the chain.
    pub(super) whole: bool,
}

/// Works until nobody is left who could send, or the attempt is over.
pub(super) fn run(shared: &Shared, jobs: &Receiver<Finished>) {
    while let Ok(first) = jobs.recv() {
        if shared.is_stopped() {
            return;
        }
        step(shared, std::iter::once(first).chain(jobs.try_iter().take(QUEUE)));
    }
}

/// Makes these durable, together, and reports them.
pub(super) fn step(shared: &Shared, batch: impl Iterator<Item = Finished>) {
    let batch: Vec<_> = batch.map(|mut finished| (sync(shared, finished.file.take()), finished)).collect();
    if batch.iter().any(|(file, _)| file.is_some())
        && let Err(error) = sync_directory(&shared.checkpoints.join("state"))
    {
        shared.poison(&error);
    }
    for (file, finished) in batch {
        report(file, &finished);
    }
}

/// None if there is no file, or if it failed.
fn sync(shared: &Shared, file: Option<DeltaFile>) -> Option<FileRef> {
    let result: Result<FileRef, Error> = file.filter(|_| shared.poison.get().is_none())?.sync();
    result.map_err(|error| shared.poison(&error)).ok()
}

fn report(file: Option<FileRef>, finished: &Finished) {
    let Finished { store, epoch, entries, whole, .. } = finished;
    let result = match store.failure() {
        Some(error) => Err(error),
        None => {
            let delta = file.map(|file| Delta { epoch: *epoch, file, entries: *entries });
            let mut chain = lock(&store.chain);
            if *whole {
                chain.deltas.clear();
            }
            chain.deltas.extend(delta);
            drop(chain);
            Ok(store.snapshot())
        }
    };
    if *whole {
        store.folding.store(false, SeqCst);
    }
    store.unreported.fetch_sub(1, SeqCst);
    (store.report)(*epoch, result);
}
