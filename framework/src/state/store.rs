//! What the threads that work on one subtask's state share: its worker (`disk.rs`), those that write deltas and make
//! them durable (`writer.rs`, `syncer.rs`) and the one that folds (`fold.rs`). None of them waits for another here.
//!
//! The chain is what a snapshot says: a base and the deltas since. The syncer adds deltas in the order of epochs, the
//! fold replaces the base and takes away the deltas it holds.

use super::backend::Report;
use super::rocks::{Rocks, Tuning};
use super::snapshot::{Base, Delta, StateSnapshot};
use super::spill::Spill;
use crate::disk;
use crate::{Attempt, Epoch, Error, ErrorKind};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The lock, also after a panic of another thread: what it guards is valid at each step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    disk::sync_dir(path).map_err(|e| Error::io(e, "sync the directory", path))
}

/// The bounds of chains and of memory. Constants; tests take smaller ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A chain of so many decided deltas is folded. Each costs a restore a file to open and to verify, and the manifest
    /// a line; a fold costs some fsyncs however small it is, so folding more often would be dearer than the deltas.
    pub(super) deltas: usize,
    /// So many bytes of decided deltas are folded, or half of the base's if that is more: a restore reads them, and a
    /// fold that rewrites much of a large base is to be paid for by enough deltas.
    pub(super) bytes: u64,
    /// Entries that a fold sorts at a time: its share of memory, and the size of the files it adds to base.
    pub(super) chunk_bytes: usize,
    /// What is known of restored deltas stays in memory until a fold has them, however little room there is, up to so
    /// many bytes: making an instance for them takes some fsyncs, and many subtasks with little state are to start
    /// quickly.
    pub(super) keep_bytes: usize,
}

impl Limits {
    pub(super) const PRODUCTION: Self =
        Self { deltas: 16, bytes: 64 << 20, chunk_bytes: 32 << 20, keep_bytes: 128 << 10 };
}

/// What all subtasks of an attempt share.
pub(super) struct Shared {
    pub(super) attempt: Attempt,
    pub(super) limits: Limits,
    pub(super) tuning: Arc<Tuning>,
    /// The directory that paths of manifests are relative to.
    pub(super) checkpoints: PathBuf,
    /// The scratch directory of the attempt.
    pub(super) live: PathBuf,
    /// The attempt is over: leave work undone.
    pub(super) stopped: AtomicBool,
    /// Why no delta is written any more.
    pub(super) poison: OnceLock<(ErrorKind, String)>,
    /// How many stores there have been.
    pub(super) stores: AtomicUsize,
}

impl Shared {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Keeps the first error of writing deltas.
    pub(super) fn poison(&self, error: &Error) {
        let _ = self.poison.set((error.kind(), error.to_string()));
    }
}

/// Base and deltas, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    pub(super) base: Option<Base>,
    pub(super) deltas: Vec<Delta>,
}

impl Chain {
    /// Whether the deltas of epochs `<= decided` are to be folded.
    pub(super) fn is_due(&self, decided: Epoch, limits: &Limits) -> bool {
        let foldable = self.deltas.iter().filter(|d| d.epoch <= decided);
        let (count, bytes) = foldable.fold((0, 0), |(n, bytes), d| (n + 1, bytes + d.file.bytes));
        let base: u64 = self.base.iter().flat_map(|b| &b.files).map(|f| f.bytes).sum();
        count >= limits.deltas || bytes > limits.bytes.max(base / 2)
    }

    /// The deltas of epochs `<= epoch`.
    pub(super) fn until(&self, epoch: Epoch) -> Vec<Delta> {
        self.deltas.iter().filter(|d| d.epoch <= epoch).cloned().collect()
    }

    /// Puts a base in place of the one there was and of the deltas it holds.
    pub(super) fn rebase(&mut self, base: Base) {
        self.deltas.retain(|d| d.epoch > base.epoch);
        self.base = Some(base);
    }
}

/// A subtask's scratch directory; removed when nothing is open in it any more.
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = disk::remove_dir_all(&self.0) {
            tracing::debug!("cannot remove {}: {error}", self.0.display());
        }
        // The attempt's directory goes with the last one.
        if let Some(parent) = self.0.parent() {
            let _ = disk::remove_dir(parent);
        }
    }
}

/// The state of one subtask.
pub(super) struct Store {
    /// Its number in the attempt.
    pub(super) id: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) operator: String,
    pub(super) subtask: usize,
    pub(super) groups: Range<u32>,
    pub(super) report: Report,
    pub(super) chain: Mutex<Chain>,
    /// All changes of epochs up to this one are in `base`, whole.
    pub(super) folded: AtomicU64,
    /// The newest decided epoch.
    pub(super) decided: AtomicU64,
    /// A fold is queued or running.
    pub(super) folding: AtomicBool,
    /// Finished epochs that have not been reported.
    pub(super) unreported: AtomicU64,
    /// Why nothing more can be reported but this error.
    pub(super) failure: OnceLock<(ErrorKind, String)>,
    /// What a fold writes to, and then `folded` is about. Absent until the first one, unless the restore made it.
    pub(super) base: OnceLock<Rocks>,
    /// The restored base, opened without writing, which takes no fsync. Gone when there is `base`; hence asked first.
    pub(super) restored: Mutex<Option<Rocks>>,
    pub(super) spill: Spill,
    /// Checksums of base's files by name and length: a number is given once in an attempt.
    pub(super) checksums: Mutex<HashMap<(String, u64), String>>,
    /// Last, for what is open in it is closed before.
    pub(super) scratch: Scratch,
}

impl Store {
    /// What the manifest is to say now.
    pub(super) fn snapshot(&self) -> StateSnapshot {
        let Chain { base, deltas } = lock(&self.chain).clone();
        StateSnapshot { operator: self.operator.clone(), groups: self.groups.clone(), base, deltas }
    }

    /// `operator[subtask]`, for errors.
    pub(super) fn place(&self) -> String {
        format!("state of {}[{}]", self.operator, self.subtask)
    }

    /// Keeps the first failure of a thread, to be reported with the next epoch.
    pub(super) fn fail(&self, error: Error) {
        tracing::error!("{}: {error}", self.place());
        let _ = self.failure.set((error.kind(), error.to_string()));
    }

    /// The failure of a thread, if there was one.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure
            .get()
            .or_else(|| self.shared.poison.get())
            .map(|(kind, text)| Error::new(*kind, text.clone()).at(self.place()))
    }

    /// See the field.
    pub(super) fn folded(&self) -> Epoch {
        self.folded.load(SeqCst)
    }
}
