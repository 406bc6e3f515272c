//! The job directory as it is read: what lies in it, and whether the files of a checkpoint are what its manifest says.
//! For recovery, which holds the lock, through `store.rs`; and without the lock for those who look while a job runs.
//! Nothing here writes, creates or makes durable.

use crate::checkpoints::listing::{FileName, Listed, Listing, STATE};
use crate::checkpoints::manifest::{Damage, Manifest};
use crate::disk::{self, File};
use crate::state::snapshot::FileRef;
use crate::{Attempt, Epoch, Error, ErrorKind};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// The directory of checkpoints, below the job directory.
pub(super) const CHECKPOINTS: &str = "checkpoints";
/// The unit of verifying files: what is read at a time, whatever they hold.
pub(super) const BUFFER: usize = 256 * 1024;
/// So often a listing is made again that the job has changed meanwhile. Manifests stay for some checkpoints, so the
/// second one does, unless the machine stands still in between.
const LISTINGS_MAX: usize = 100;
/// So often, if it lacks the manifest of its newest marker: the one may have been seen and the other not.
const MARKED_MAX: usize = 3;

/// A job directory, to be read.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    place: String,
    checkpoints: PathBuf,
    job: String,
    /// Another job whose manifests may be there, too: the one it is being renamed to.
    heir: Option<String>,
}

/// The names in a job directory; its manifests are still to be read.
pub(super) struct Names {
    listing: Listing,
    manifests: Vec<(Epoch, Attempt)>,
}

impl Directory {
    /// The directory of a job. Touches nothing.
    pub(crate) fn new(data_dir: &Path, job: &str) -> Self {
        let checkpoints = data_dir.join(CHECKPOINTS);
        Self { place: data_dir.display().to_string(), checkpoints, job: job.to_owned(), heir: None }
    }

    /// The same with manifests of the job that it is being renamed to.
    pub(super) fn with_heir(self, heir: &str) -> Self {
        Self { heir: Some(heir.to_owned()), ..self }
    }

    /// The job that a directory belongs to, if one of its manifests can be read.
    pub(crate) fn owner(data_dir: &Path) -> Option<String> {
        let directory = Self::new(data_dir, "");
        let Names { manifests, .. } = directory.names().ok()?;
        let read = |(epoch, attempt)| Manifest::decode(&disk::read(&directory.manifest(epoch, attempt)).ok()?).ok();
        manifests.into_iter().find_map(read).map(|(manifest, _)| manifest.job)
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// What there is, as of one instant, also while a job writes to it and clears it up.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if there is no such directory; a refusal for manifests of another job or another version;
    /// [`ErrorKind::Io`]; [`ErrorKind::Busy`] if it does not stand still for long enough.
    pub(crate) fn list(&self) -> Result<Listing, Error> {
        if !disk::is_dir(&self.checkpoints.join(STATE)) {
            let text = format!(
                "{} holds no checkpoints: either the job `{}` has not run yet, or it runs with another --data-dir",
                self.place, self.job
            );
            return Err(Error::new(ErrorKind::Usage, text));
        }
        for n in 0..LISTINGS_MAX {
            let listing = self.read(self.names()?)?;
            let newest = listing.manifests.last().map(|m| m.epoch);
            let is_torn = n < MARKED_MAX && listing.decided.last().copied() > newest;
            if !is_torn && !listing.manifests.iter().any(|m| self.is_gone(m)) {
                return Ok(listing);
            }
        }
        let text = format!("{} changes faster than it can be listed: try again", self.place);
        Err(Error::new(ErrorKind::Busy, text))
    }

    /// Whether a manifest that was listed is no longer there.
    pub(crate) fn is_gone(&self, listed: &Listed) -> bool {
        !disk::try_exists(&self.manifest(listed.epoch, listed.attempt)).unwrap_or(false)
    }

    fn manifest(&self, epoch: Epoch, attempt: Attempt) -> PathBuf {
        self.checkpoints.join(FileName::Manifest(epoch, attempt).to_string())
    }

    /// The names of all that is there.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(super) fn names(&self) -> Result<Names, Error> {
        let mut listing = Listing::default();
        let manifests = names(&self.checkpoints)?.iter().filter_map(|name| listing.add(name)).collect();
        names(&self.checkpoints.join(STATE))?.iter().for_each(|name| listing.add_state(name));
        Ok(Names { listing, manifests })
    }

    /// Reads the manifests; the files they name are not read: see [`check`](Self::check).
    ///
    /// # Errors
    /// A refusal for manifests of another job or another version; [`ErrorKind::Io`].
    pub(super) fn read(&self, names: Names) -> Result<Listing, Error> {
        let Names { mut listing, manifests } = names;
        let jobs: Vec<_> = [Some(&*self.job), self.heir.as_deref()].into_iter().flatten().collect();
        for (epoch, attempt) in manifests {
            let path = self.manifest(epoch, attempt);
            let found = match disk::read(&path) {
                Ok(bytes) => Listed::judge((epoch, attempt), &bytes, &jobs, &self.place)?,
                Err(error) if is_damage(&error) => {
                    Listed { epoch, attempt, content: Err(Damage::Unreadable(error.to_string())) }
                }
                Err(error) => return Err(Error::io(error, "read", &path)),
            };
            listing.manifests.push(found);
        }
        listing.sort();
        Ok(listing)
    }

    /// Reads every file a checkpoint needs, one with each step, and compares it with what the manifest says. Takes as
    /// long as reading them does, and a fixed amount of memory.
    ///
    /// A step is an [`ErrorKind::Io`] if it cannot be told, such as for want of rights: that is no damage, and no
    /// reason to fall back.
    pub(crate) fn check(
        &self,
        manifest: &Manifest,
    ) -> impl Iterator<Item = (FileRef, Result<Result<(), Damage>, Error>)> {
        let mut buffer = vec![0; BUFFER];
        manifest.files().map(move |file| (file.clone(), self.check_file(file, &mut buffer)))
    }

    /// One step of it; the buffer is for what is read at a time.
    pub(super) fn check_file(&self, file: &FileRef, buffer: &mut [u8]) -> Result<Result<(), Damage>, Error> {
        self.judge(file, |path| compare(path, file, buffer))
    }

    /// The first file of a checkpoint that is not there or has another length. Costs a look-up for each.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be told.
    pub(crate) fn glance(&self, manifest: &Manifest) -> Result<Result<(), Damage>, Error> {
        for file in manifest.files() {
            if let Err(damage) = self.judge(file, |path| compare_length(&File::open(path)?, file))? {
                return Ok(Err(damage));
            }
        }
        Ok(Ok(()))
    }

    /// What `compare` says of a file, as damage.
    fn judge(
        &self,
        file: &FileRef,
        compare: impl FnOnce(&Path) -> io::Result<Option<String>>,
    ) -> Result<Result<(), Damage>, Error> {
        let damaged = |why: String| Ok(Err(Damage::File { path: file.path.clone(), why }));
        if !is_below(&file.path) {
            return damaged("this path leads out of the directory of checkpoints".into());
        }
        let path = self.checkpoints.join(&file.path);
        match compare(&path) {
            Ok(None) => Ok(Ok(())),
            Ok(Some(why)) => damaged(why),
            Err(error) if is_damage(&error) => damaged(error.to_string()),
            Err(error) => Err(Error::io(error, "read", &path)),
        }
    }
}

/// The names in a directory. One that is not UTF-8 is none of ours.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, Error> {
    disk::names(directory).map_err(|e| Error::io(e, "list", directory))
}

/// Whether a path of a manifest stays where it belongs.
fn is_below(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// What differs between a file and what the manifest says of it.
fn compare(path: &Path, expect: &FileRef, buffer: &mut [u8]) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    if let Some(why) = compare_length(&file, expect)? {
        return Ok(Some(why));
    }
    let mut hash = Xxh3::new();
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let checksum = format!("{:032x}", hash.digest128());
    Ok((checksum != expect.checksum)
        .then(|| format!("its content has the checksum {checksum}, not {}", expect.checksum)))
}

fn compare_length(file: &File, expect: &FileRef) -> io::Result<Option<String>> {
    let bytes = file.len()?;
    Ok((bytes != expect.bytes).then(|| format!("has {bytes} bytes and should have {}", expect.bytes)))
}

/// Whether an error means that the data is lost, and not that it cannot be reached for now.
fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory) || error.raw_os_error() == Some(EIO)
}
