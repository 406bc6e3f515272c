//! The thread that writes the delta files of all subtasks and makes them durable. The bytes are in `delta.rs`.
//!
//! Per subtask and epoch:
//!
//! 1. Pieces come over one bounded channel; the first one makes the file. Buffers go back to a pool.
//! 2. When the epoch is finished: the last piece, `sync_data`, and an fsync of the directory, for the name is new.
//! 3. The delta joins the chain, and the subtask's callback is given the whole chain.
//!
//! The first error ends it: an fsync that failed is never tried again, for the kernel may have dropped what it could not
//! write. From then on each finished epoch of each subtask is reported as failed.
//!
//! Memory: at most `QUEUE` pieces under way, and as many in the pool. When the disk is slower than the subtasks encode,
//! the queue is full and they wait.

use super::delta::{self, PIECE_BYTES, Piece};
use super::snapshot::{Delta, FileRef};
use super::store::{Shared, Store, lock, sync_directory};
use crate::{Epoch, Error, ErrorKind};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;
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
    /// Append the last piece, make the delta durable, report. With the number of entries.
    Finish(Arc<Store>, Epoch, Piece, u64),
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

struct Open {
    file: File,
    path: PathBuf,
    /// Below the directory of checkpoints.
    name: String,
    hash: Xxh3,
    bytes: u64,
}

impl Open {
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

    fn finish(self) -> Result<FileRef, Error> {
        self.file.sync_data().map_err(|e| Error::io(e, "sync", &self.path))?;
        let checksum = format!("{:032x}", self.hash.digest128());
        Ok(FileRef { path: self.name, bytes: self.bytes, checksum })
    }
}

/// The state of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    /// By subtask, which is its store's address as long as the entry holds it, and epoch.
    open: HashMap<(usize, Epoch), (Arc<Store>, Open)>,
    failure: Option<(ErrorKind, String)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, pool: Arc<Pool>) -> Self {
        Self { shared, pool, open: HashMap::new(), failure: None }
    }

    /// Works until told to stop, or until nobody is left who could send.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if self.shared.is_stopped() {
                return;
            }
            match job {
                Job::Piece(store, epoch, piece) => self.piece(&store, epoch, piece),
                Job::Finish(store, epoch, piece, entries) => self.finish(&store, epoch, piece, entries),
                Job::Stop => return,
            }
        }
    }

    fn piece(&mut self, store: &Arc<Store>, epoch: Epoch, piece: Piece) {
        if self.failure.is_none()
            && let Err(error) = self.append(store, epoch, piece)
        {
            self.failure = Some((error.kind(), error.to_string()));
        }
    }

    fn append(&mut self, store: &Arc<Store>, epoch: Epoch, mut piece: Piece) -> Result<(), Error> {
        let key = (Arc::as_ptr(store).addr(), epoch);
        let open = match self.open.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => &mut entry.into_mut().1,
            std::collections::hash_map::Entry::Vacant(entry) => {
                &mut entry.insert((Arc::clone(store), Open::create(store, epoch)?)).1
            }
        };
        open.append(piece.seal())?;
        self.pool.give_back(piece.into_buffer());
        Ok(())
    }

    fn finish(&mut self, store: &Arc<Store>, epoch: Epoch, piece: Piece, entries: u64) {
        if !piece.is_empty() {
            self.piece(store, epoch, piece);
        }
        if self.failure.is_none()
            && let Err(error) = self.make_durable(store, epoch, entries)
        {
            self.failure = Some((error.kind(), error.to_string()));
        }
        let poisoned = self.failure.as_ref().map(|(kind, text)| Error::new(*kind, text.clone()).at(store.place()));
        let result = match poisoned.or_else(|| store.failure()) {
            Some(error) => Err(error),
            None => Ok(store.snapshot()),
        };
        store.unreported.fetch_sub(1, SeqCst);
        (store.report)(epoch, result);
    }

    fn make_durable(&mut self, store: &Arc<Store>, epoch: Epoch, entries: u64) -> Result<(), Error> {
        let Some((_, open)) = self.open.remove(&(Arc::as_ptr(store).addr(), epoch)) else {
            return Ok(());
        };
        let file = open.finish()?;
        sync_directory(&self.shared.checkpoints.join("state"))?;
        lock(&store.chain).deltas.push(Delta { epoch, file, entries });
        Ok(())
    }
}
