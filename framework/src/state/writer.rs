//! The thread that writes the delta files of all subtasks. The bytes are in `delta.rs`; how files become durable and
//! are reported is in `syncer.rs`.
//!
//! Pieces come over one bounded channel; the first one of an epoch makes the file, the last one sends it on. Buffers go
//! back to a pool. The first error ends it: from then on each finished epoch of each subtask is reported as failed.
//!
//! Memory: at most `QUEUE` pieces under way, and as many in the pool. When the disk is slower than the subtasks encode,
//! the queue is full and they wait.

use super::delta::{self, PIECE_BYTES, Piece};
use super::snapshot::FileRef;
use super::store::{Shared, Store, lock};
use super::syncer::Finished;
use crate::disk::File;
use crate::{Epoch, Error};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use xxhash_rust::xxh3::Xxh3;

/// Pieces under way to the thread: 16 MiB.
pub(super) const QUEUE: usize = 64;
/// A buffer that a long row has made larger than this is not kept.
const BUFFER_BYTES_MAX: usize = 4 * PIECE_BYTES;

/// What the thread is asked to do.
pub(super) enum Job {
    /// Append a piece to the delta of an epoch.
    Piece(Arc<Store>, Epoch, Piece),
    /// Append the last piece and send the delta on. With the number of entries.
    Finish(Arc<Store>, Epoch, Piece, u64, bool),
    /// End.
    Stop,
}

/// Emptied buffers.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    /// An empty piece, with a used buffer if there is one.
    pub(super) fn take(&self) -> Piece {
        lock(&self.0).pop().map(Piece::reuse).unwrap_or_default()
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut pool = lock(&self.0);
        if pool.len() < QUEUE && (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity()) {
            pool.push(buffer);
        }
    }
}

/// A delta file.
pub(super) struct DeltaFile {
    file: File,
    path: PathBuf,
    /// Below the directory of checkpoints.
    name: String,
    hash: Xxh3,
    bytes: u64,
}

impl DeltaFile {
    fn create(store: &Store, epoch: Epoch) -> Result<Self, Error> {
        let Store { shared, operator, subtask, .. } = store;
        let name = format!("state/delta-{epoch}-{}-{operator}-{subtask}", shared.attempt);
        let path = shared.checkpoints.join(&name);
        let file = File::create_new(&path).map_err(|e| Error::io(e, "make", &path))?;
        let mut open = Self { file, path, name, hash: Xxh3::new(), bytes: 0 };
        open.append(&delta::header(epoch, operator, *subtask))?;
        Ok(open)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| Error::io(e, "write", &self.path))
    }

    /// Makes its content durable, not its name.
    ///
    /// # Errors
    /// When the disk fails; not to be tried again, for the kernel may have dropped what it could not write.
    pub(super) fn sync(self) -> Result<FileRef, Error> {
        self.file.sync_data().map_err(|e| Error::io(e, "sync", &self.path))?;
        let checksum = format!("{:032x}", self.hash.digest128());
        Ok(FileRef { path: self.name, bytes: self.bytes, checksum })
    }
}

/// The state of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    syncers: Vec<SyncSender<Finished>>,
    /// By subtask and epoch.
    open: HashMap<(usize, Epoch), DeltaFile>,
}

impl Writer {
    /// One that sends files to `syncers`, those of a subtask always to the same.
    pub(super) fn new(shared: Arc<Shared>, pool: Arc<Pool>, syncers: Vec<SyncSender<Finished>>) -> Self {
        Self { shared, pool, syncers, open: HashMap::new() }
    }

    /// Works until told to stop, or until nobody is left who could send.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if !self.step(job) {
                return;
            }
        }
    }

    /// Does one thing; false if it was the last one.
    pub(super) fn step(&mut self, job: Job) -> bool {
        if self.shared.is_stopped() {
            return false;
        }
        match job {
            Job::Piece(store, epoch, piece) => self.piece(&store, epoch, piece),
            Job::Finish(store, epoch, piece, entries, whole) => self.finish(store, epoch, piece, entries, whole),
            Job::Stop => return false,
        }
        true
    }

    fn piece(&mut self, store: &Store, epoch: Epoch, piece: Piece) {
        if self.shared.poison.get().is_none()
            && let Err(error) = self.append(store, epoch, piece)
        {
            self.shared.poison(&error);
        }
    }

    fn append(&mut self, store: &Store, epoch: Epoch, mut piece: Piece) -> Result<(), Error> {
        let file = match self.open.entry((store.id, epoch)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(DeltaFile::create(store, epoch)?),
        };
        file.append(piece.seal())?;
        self.pool.give_back(piece.into_buffer());
        Ok(())
    }

    fn finish(&mut self, store: Arc<Store>, epoch: Epoch, piece: Piece, entries: u64, whole: bool) {
        if !piece.is_empty() {
            self.piece(&store, epoch, piece);
        }
        let file = self.open.remove(&(store.id, epoch));
        if let Some(syncer) = self.syncers.get(store.id % self.syncers.len().max(1)) {
            // Fails only at the end of the attempt.
            let _ = syncer.send(Finished { store, epoch, file, entries, whole });
        }
    }
}
