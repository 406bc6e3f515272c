//! The job directory (`--data-dir`) and everything that is done to it: the I/O at the edge of this folder. What its
//! names mean is in `listing.rs`; reading it, which needs no lock, is in `directory.rs`; what to restore and what to
//! delete is decided elsewhere, by pure functions.
//!
//! ```text
//! LOCK               held by the process that runs the job; names its pid (`hold.rs`)
//! RENAMED            the job has another name now, or is being given it (`hold.rs`)
//! checkpoints/       manifests, markers, and state/ with the files manifests name
//! live-<attempt>/    working files of one attempt; worth nothing once it is over
//! ```
//!
//! All calls block; they belong on the coordinator's thread. A failing fsync is fatal and is not tried again: the
//! kernel may have dropped the pages and would report success. Local file systems only, for the lock and for rename.

use crate::checkpoints::collect::Plan;
use crate::checkpoints::directory::{CHECKPOINTS, Directory, names};
use crate::checkpoints::hold::Hold;
use crate::checkpoints::listing::{FileName, Listing, STATE};
use crate::checkpoints::manifest::Manifest;
use crate::checkpoints::verify::Verification;
use crate::disk::{self, File};
use crate::failpoint::failpoint;
use crate::operator::Digest;
use crate::{Attempt, Epoch, Error, spawn};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

const LIVE: &str = "live-";

/// A job directory, locked for as long as this value lives: recoveries in place keep it.
#[derive(Debug)]
pub(crate) struct Store {
    data_dir: PathBuf,
    checkpoints: PathBuf,
    directory: Directory,
    job: String,
    _hold: Arc<Hold>,
}

impl Store {
    /// Recovery step 1: makes the directories where they are missing, and takes the lock.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) if another process holds the lock,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the directory cannot be used; a refusal if the job is renamed, or is
    /// being renamed.
    pub(crate) fn open(data_dir: &Path, job: &str) -> Result<Self, Error> {
        let hold = Hold::take(data_dir, job)?;
        hold.refuse_renamed(job)?;
        Self::of(Arc::new(hold), job)
    }

    /// The same of a directory that is held already.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the directory cannot be used.
    pub(crate) fn of(hold: Arc<Hold>, job: &str) -> Result<Self, Error> {
        let data_dir = hold.data_dir().to_owned();
        let checkpoints = data_dir.join(CHECKPOINTS);
        // each by itself, for who made the first may not have come to its fsync
        create_durably(&checkpoints)?;
        create_durably(&checkpoints.join(STATE))?;
        let directory = Directory::new(&data_dir, job);
        Ok(Self { data_dir, checkpoints, directory, job: job.to_owned(), _hold: hold })
    }

    /// The same with manifests of the job that this one is being renamed to.
    pub(crate) fn with_heir(self, heir: &str) -> Self {
        Self { directory: self.directory.with_heir(heir), ..self }
    }

    /// The job it was opened for.
    pub(crate) fn job(&self) -> &str {
        &self.job
    }

    /// Where it is.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The directory of checkpoints, which the paths in manifests are relative to.
    pub(crate) fn checkpoints(&self) -> &Path {
        &self.checkpoints
    }

    /// Where an attempt keeps its working files. Not created here.
    pub(crate) fn live(&self, attempt: Attempt) -> PathBuf {
        self.data_dir.join(format!("{LIVE}{attempt}"))
    }

    /// Recovery step 2: lists what is there and makes the names durable before anybody acts on them, or a power loss
    /// could take back the manifest that was just restored [H5]. Manifests are read, the files they name are not: see
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    /// A refusal for manifests of another job or another version; [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub(crate) fn list(&self) -> Result<Listing, Error> {
        let names = self.directory.names()?;
        self.sync()?;
        sync_dir(&self.checkpoints.join(STATE))?;
        self.directory.read(names)
    }

    /// Protocol step 4: writes a manifest and makes it durable under its name. When this returns, the checkpoint can be
    /// restored, and where the directory decides it is decided [H4].
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io). Whether the manifest is there is unknown then; recovery finds out.
    pub(crate) fn put_manifest(&self, manifest: &Manifest) -> Result<Digest, Error> {
        let (bytes, digest) = manifest.encode()?;
        if manifest.files().next().is_some() {
            // Participants sync what is in their files; the names are made durable once for all of them.
            sync_dir(&self.checkpoints.join(STATE))?;
        }
        let (epoch, attempt) = (manifest.epoch, manifest.attempt);
        let path = self.checkpoints.join(FileName::Manifest(epoch, attempt).to_string());
        let unfinished = self.checkpoints.join(FileName::Unfinished(epoch, attempt).to_string());
        write_durably(&unfinished, &bytes)?;
        // `rename` would replace an older file without a word. That none appears in between is what the lock and the
        // attempt in the name are for.
        if disk::try_exists(&path).map_err(|e| Error::io(e, "look for", &path))? {
            return Err(Error::io(io::ErrorKind::AlreadyExists.into(), "replace the manifest", &path));
        }
        failpoint("manifest-durable");
        disk::rename(&unfinished, &path).map_err(|e| Error::io(e, "put the manifest in place at", &path))?;
        failpoint("manifest-renamed");
        self.sync()?;
        Ok(digest)
    }

    /// Makes the names in the directory of checkpoints durable.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io); never to be tried again in this process.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        sync_dir(&self.checkpoints)
    }

    /// Begins to read every file a checkpoint needs, and to compare it with what the manifest says. Takes as long as
    /// reading them does, and a fixed amount of memory.
    ///
    /// # Errors
    /// When there is no thread left to give.
    pub(crate) fn verify(&self, checkpoint: (&Manifest, &Digest)) -> Result<Verification, Error> {
        Verification::begin(&self.directory, checkpoint)
    }

    /// Protocol step 6: notes that a checkpoint was decided and finished, so that a directory that was put back later
    /// is noticed. Durable with the next fsync of the directory, for it only ever serves to refuse.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub(crate) fn mark_decided(&self, epoch: Epoch) -> Result<(), Error> {
        let path = self.checkpoints.join(FileName::Decided(epoch).to_string());
        File::create(&path).map(drop).map_err(|e| Error::io(e, "write the marker", &path))
    }

    /// Deletes what a plan of [`collect`](super::collect) names: first manifests, then, when it is durable that they
    /// are gone, what only they needed. What is gone already is no error.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io). Part of it may be left; the next collection has it on its list again.
    pub(crate) fn collect(&self, plan: &Plan) -> Result<(), Error> {
        plan.manifests.iter().try_for_each(|name| remove(&self.checkpoints.join(name)))?;
        if !plan.manifests.is_empty() {
            self.sync()?;
        }
        plan.files.iter().try_for_each(|name| remove(&self.checkpoints.join(name)))
    }

    /// Begins to remove the working files of all attempts but one: they are over, for this process holds the lock and
    /// has joined the threads of its own earlier attempts. As large as they can be, that takes a while, in which others
    /// need not wait. What cannot be removed is left for the next start, with a warning.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the directory cannot be listed.
    pub(crate) fn remove_live_except(&self, attempt: Attempt) -> Result<Removal, Error> {
        let is_over = |name: &String| name.strip_prefix(LIVE).and_then(Attempt::parse).is_some_and(|a| a != attempt);
        let over: Vec<_> = names(&self.data_dir)?.into_iter().filter(is_over).collect();
        Removal::begin(over.into_iter().map(|name| self.data_dir.join(name)).collect())
    }
}

/// Directories that are being removed, which is waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Removal(Option<JoinHandle<()>>);

impl Removal {
    fn begin(paths: Vec<PathBuf>) -> Result<Self, Error> {
        if paths.is_empty() {
            return Ok(Self(None));
        }
        let thread = spawn::aside("millstream-clear", move || {
            for path in paths {
                if let Err(error) = remove(&path) {
                    tracing::warn!(%error, "the working files of an earlier attempt are left");
                }
            }
        });
        thread.map(Self)
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// Creates a directory with its parents, and makes each new name durable in the directory above it.
pub(super) fn create_durably(path: &Path) -> Result<(), Error> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match disk::create_dir(path) {
        Ok(()) => sync_dir(parent),
        // Who created it may not have come to the fsync: do not rely on it.
        Err(_) if disk::is_dir(path) => sync_parent_of_old(parent),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_durably(parent)?;
            disk::create_dir(path).map_err(|e| Error::io(e, "create the directory", path))?;
            sync_dir(parent)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::io(io::ErrorKind::NotADirectory.into(), "create the directory", path))
        }
        Err(error) => Err(Error::io(error, "create the directory", path)),
    }
}

/// The directory was there before. Its parent may be one that this user may not open, `/` of a mount or a home: then it
/// is not this program's, and neither was the directory made by it.
fn sync_parent_of_old(parent: &Path) -> Result<(), Error> {
    disk::sync_dir_if_ours(parent).map_err(|e| Error::io(e, "make durable", parent))
}

pub(super) fn sync_dir(path: &Path) -> Result<(), Error> {
    disk::sync_dir(path).map_err(|e| Error::io(e, "make durable", path))
}

pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = File::create(path).map_err(|e| Error::io(e, "create", path))?;
    file.write_all(bytes).map_err(|e| Error::io(e, "write", path))?;
    file.sync_all().map_err(|e| Error::io(e, "make durable", path))
}

pub(super) fn remove(path: &Path) -> Result<(), Error> {
    let removed = match disk::is_dir_itself(path) {
        Ok(true) => disk::remove_dir_all(path),
        Ok(false) => disk::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(error, "remove", path)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::BUFFER;
    use super::super::hold::LOCK;
    use super::super::manifest::tests::{attempt, file, manifest};
    use super::*;
    use crate::ErrorKind;
    use crate::state::snapshot::FileRef;
    use std::fs;

    fn open(directory: &tempfile::TempDir) -> Store {
        Store::open(&directory.path().join("a/b"), "words").unwrap()
    }

    /// Writes a file below `checkpoints/` and says what a manifest would say of it.
    fn write(store: &Store, path: &str, content: &[u8]) -> FileRef {
        let full = store.checkpoints().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, content).unwrap();
        let checksum = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(content));
        FileRef { bytes: content.len() as u64, checksum, ..file(path) }
    }

    #[test]
    fn a_directory_has_one_holder() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let error = Store::open(store.data_dir(), "words").unwrap_err();
        assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Busy, 75));
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let data_dir = store.data_dir().to_owned();
        drop(store);
        fs::write(data_dir.join(LOCK), "4294967295 and more than a pid").unwrap();
        let store = Store::open(&data_dir, "words").unwrap();
        assert_eq!(fs::read_to_string(data_dir.join(LOCK)).unwrap(), std::process::id().to_string());
        fs::write(data_dir.join(LOCK), "").unwrap();
        let error = Store::open(store.data_dir(), "words").unwrap_err();
        assert!(error.to_string().contains("another process holds"), "{error}");
    }

    #[test]
    fn a_path_that_is_no_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        for path in [path.clone(), path.join("below")] {
            let error = Store::open(&path, "words").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("a file stands where a directory should be"), "{error}");
        }
    }

    #[test]
    fn what_is_put_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        assert_eq!(store.list().unwrap(), Listing::default());
        let first = manifest(0, 1, None, &[]);
        let digest = store.put_manifest(&first).unwrap();
        let second = manifest(1, 1, Some(digest.clone()), &[]);
        store.put_manifest(&second).unwrap();
        store.mark_decided(0).unwrap();
        store.mark_decided(0).unwrap();
        write(&store, &format!("state/delta-1-{}-count-0", attempt(1)), b"");
        write(&store, &format!("tmp-manifest-2-{}", attempt(1)), b"half a mani");
        write(&store, &format!("manifest-2-{}", attempt(1)), b"damaged");
        fs::create_dir(store.checkpoints().join(format!("manifest-3-{}", attempt(1)))).unwrap();
        write(&store, "notes.txt", b"");
        let listing = store.list().unwrap();
        assert_eq!(listing.find(&digest), Some(&first));
        assert_eq!(listing.intact().count(), 2);
        let epochs: Vec<_> = listing.manifests.iter().map(|m| (m.epoch, m.content.is_ok())).collect();
        assert_eq!(epochs, [(0, true), (1, true), (2, false), (3, false)]);
        assert_eq!((listing.decided, listing.states.len(), listing.unfinished.len()), (vec![0], 1, 1));
        assert_eq!(listing.others, ["notes.txt"]);
    }

    #[test]
    fn a_manifest_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        store.put_manifest(&manifest(0, 1, None, &[])).unwrap();
        let error = store.put_manifest(&manifest(0, 1, None, &["state/x"])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(store.list().unwrap().intact().next().unwrap().0.files().count(), 0);
    }

    #[test]
    fn a_manifest_of_another_job_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        store.put_manifest(&manifest(0, 1, None, &[])).unwrap();
        let data_dir = store.data_dir().to_owned();
        drop(store);
        let error = Store::open(&data_dir, "other").unwrap().list().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(&data_dir.display().to_string()), "{error}");
    }

    #[test]
    fn every_byte_of_every_file_is_verified() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let content: Vec<u8> = (0..3 * BUFFER as u32 + 17).map(|i| (i % 251) as u8).collect();
        let mut m = manifest(1, 1, None, &["state/a", "state/dir/b"]);
        m.states[0].deltas[0].file = write(&store, "state/a", &content);
        m.states[0].deltas[1].file = write(&store, "state/dir/b", b"");
        let verify = |m: &Manifest| store.verify((m, &m.encode().unwrap().1)).unwrap().end().unwrap();
        assert_eq!(verify(&m), Ok(()));
        let check = |m: &Manifest, expect: &str| {
            let found = verify(m).unwrap_err().to_string();
            assert!(found.contains(expect), "{found}");
        };
        for at in [0, BUFFER, content.len() - 1] {
            let mut flipped = content.clone();
            flipped[at] ^= 1;
            write(&store, "state/a", &flipped);
            check(&m, "state/a: its content has the checksum");
        }
        write(&store, "state/a", &content[1..]);
        check(&m, "state/a: has 786448 bytes and should have 786449");
        write(&store, "state/a", &content);
        fs::remove_file(store.checkpoints().join("state/dir/b")).unwrap();
        check(&m, "state/dir/b: No such file");
        check(&manifest(1, 1, None, &["state"]), "state: ");
        check(&manifest(1, 1, None, &["../LOCK"]), "leads out");
        check(&manifest(1, 1, None, &["/etc/passwd"]), "leads out");
        check(&manifest(1, 1, None, &["state/a/below"]), "Not a directory");
    }

    #[test]
    fn plans_are_executed_and_may_be_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        write(&store, "m", b"");
        write(&store, "state/base/CURRENT", b"");
        write(&store, "state/kept", b"");
        let plan = Plan { manifests: vec!["m".into()], files: vec!["state/base".into(), "state/gone".into()] };
        store.collect(&plan).unwrap();
        store.collect(&plan).unwrap();
        assert_eq!(names(store.checkpoints()).unwrap(), ["state"]);
        assert_eq!(names(&store.checkpoints().join(STATE)).unwrap(), ["kept"]);
    }

    #[test]
    fn only_working_files_of_other_attempts_go() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        for by in 1..4 {
            fs::create_dir_all(store.live(attempt(by)).join("0")).unwrap();
        }
        fs::create_dir(store.data_dir().join("live-show")).unwrap();
        drop(store.remove_live_except(attempt(2)).unwrap());
        let mut left = names(store.data_dir()).unwrap();
        left.sort();
        assert_eq!(left, ["LOCK", "checkpoints", &format!("live-{}", attempt(2)), "live-show"]);
    }
}
