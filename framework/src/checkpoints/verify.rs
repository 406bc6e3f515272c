//! Whether the files of a checkpoint are what its manifest says, found out by as many threads as there are cores, while
//! others are asked who has the job.

use super::directory::{BUFFER, Directory};
use super::manifest::{Damage, Manifest};
use crate::operator::Digest;
use crate::state::snapshot::FileRef;
use crate::{Error, spawn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A verification under way. Called off, and waited for, when it is dropped.
pub(crate) struct Verification {
    of: Digest,
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
}

struct Work {
    directory: Directory,
    files: Vec<FileRef>,
    /// The place of the next file to be read.
    next: AtomicUsize,
    over: AtomicBool,
    /// The first file that is not what it should be, or of which that cannot be told, with its place.
    found: Mutex<Option<(usize, Result<Damage, Error>)>>,
}

impl Verification {
    /// Begins to read all files of a checkpoint.
    ///
    /// # Errors
    /// When there is no thread left to give.
    pub(crate) fn begin(directory: &Directory, (manifest, of): (&Manifest, &Digest)) -> Result<Self, Error> {
        let files: Vec<_> = manifest.files().cloned().collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
        let (directory, next, over, found) = (directory.clone(), 0.into(), false.into(), Mutex::default());
        let work = Arc::new(Work { directory, files, next, over, found });
        let mut verification = Self { of: of.clone(), work, threads: Vec::new() };
        for i in 0..threads {
            let work = verification.work.clone();
            verification.threads.extend(spawn::aside(format!("millstream-verify-{i}"), move || work.run())?);
        }
        Ok(verification)
    }

    /// Whether it is that of this checkpoint.
    pub(crate) fn is_of(&self, checkpoint: &Digest) -> bool {
        self.of == *checkpoint
    }

    /// What is wrong with the first file that is not what it should be. Waits until that is known.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be told, such as for want of rights: that is no damage, and
    /// no reason to fall back.
    pub(crate) fn end(mut self) -> Result<Result<(), Damage>, Error> {
        self.join();
        match self.work.found.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(Ok(())),
            Some((_, found)) => found.map(Err),
        }
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        self.work.over.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Work {
    fn run(&self) {
        let mut buffer = vec![0; BUFFER];
        while !self.over.load(Relaxed) {
            let at = self.next.fetch_add(1, Relaxed);
            let Some(file) = self.files.get(at) else { return };
            let wrong = match self.directory.check_file(file, &mut buffer) {
                Ok(Ok(())) => continue,
                Ok(Err(damage)) => Ok(damage),
                Err(error) => Err(error),
            };
            self.over.store(true, Relaxed);
            // all files before it have been begun, so the first of them is the first of all
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            if found.as_ref().is_none_or(|(first, _)| at < *first) {
                *found = Some((at, wrong));
            }
        }
    }
}
