//! The seam to the file systems that job directories are on: what the runtime reads and writes there goes through here.
//!
//! In a simulation (`sim/`) the disk is one in memory (`memory.rs`), that of the process whose turn it is
//! (`simulated.rs`); else each call is the one of the standard library that has its name.

#[cfg(test)]
mod memory;
#[cfg(test)]
pub(crate) mod simulated;

use std::fs;
use std::io::{self, Read, Write};
#[cfg(feature = "rocksdb")]
use std::os::unix::fs::FileExt as _;
use std::path::Path;
#[cfg(test)]
use std::path::PathBuf;

/// Calls the simulated disk, if there is one, or the system.
macro_rules! on {
    ($disk:ident => $simulated:expr, $real:expr) => {{
        #[cfg(test)]
        if let Some(done) = simulated::with(|$disk| $simulated) {
            return done;
        }
        $real
    }};
}

/// An open file.
#[derive(Debug)]
pub(crate) enum File {
    /// Of the system.
    Real(fs::File),
    /// Of a disk in memory.
    #[cfg(test)]
    Simulated(simulated::Handle),
}

impl File {
    /// To be written, without content.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        on!(disk => disk.create(path, false).map(Self::Simulated), fs::File::create(path).map(Self::Real))
    }

    /// The same; it must not be there yet.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        on!(disk => disk.create(path, true).map(Self::Simulated), fs::File::create_new(path).map(Self::Real))
    }

    /// To be read.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        on!(disk => disk.open(path).map(Self::Simulated), fs::File::open(path).map(Self::Real))
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Self::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            Self::Simulated(file) => file.len(),
        }
    }

    /// Makes content and length durable, and what else the file system keeps of the file.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_all(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }

    /// Makes content and length durable.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_data(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }
}

/// The lock of a file, held as long as this lives, with the pid of this process in the file.
#[derive(Debug)]
pub(crate) enum Lock {
    /// The descriptor is `O_CLOEXEC`, so a child of the process does not inherit it.
    Real(fs::File),
    /// On a disk in memory.
    #[cfg(test)]
    Simulated(PathBuf),
}

impl Lock {
    /// Takes it, or gives what begins the file, which is the pid of the process that has it unless that one has still
    /// to write it.
    pub(crate) fn take(path: &Path) -> io::Result<Result<Self, String>> {
        on!(disk => {
            let taken = disk.lock(path);
            taken.map(|taken| taken.then(|| Self::Simulated(path.into())).ok_or_else(String::new))
        }, Self::take_real(path))
    }

    fn take_real(path: &Path) -> io::Result<Result<Self, String>> {
        let mut file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.take(20).read_to_string(&mut pid);
                return Ok(Err(pid));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.write_all(std::process::id().to_string().as_bytes())?;
        Ok(Ok(Self::Real(file)))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        match self {
            // closing the file alone would leave the lock to a child that was forked and has not come to its `exec` yet
            Self::Real(file) => _ = file.unlock(),
            #[cfg(test)]
            Self::Simulated(path) => _ = simulated::with(|disk| disk.unlock(path)),
        }
    }
}

impl File {
    /// Fills `into` with what begins at a place.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.read_exact_at(into, at),
            #[cfg(test)]
            Self::Simulated(file) => file.read_exact_at(into, at),
        }
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Real(file) => file.read(into),
            #[cfg(test)]
            Self::Simulated(file) => file.read(into),
        }
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Real(file) => file.write(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that is in a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    on!(disk => disk.read(path), fs::read(path))
}

/// The names in a directory. One that is not UTF-8 is none of ours.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<String>> {
    on!(disk => disk.names(directory), {
        let entries: Vec<_> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    })
}

/// Whether there is a directory.
pub(crate) fn is_dir(path: &Path) -> bool {
    on!(disk => disk.is_dir(path).unwrap_or(false), path.is_dir())
}

/// The same of what a link at this place is itself.
pub(crate) fn is_dir_itself(path: &Path) -> io::Result<bool> {
    on!(disk => disk.is_dir(path), Ok(fs::symlink_metadata(path)?.is_dir()))
}

/// Whether there is anything.
pub(crate) fn try_exists(path: &Path) -> io::Result<bool> {
    on!(disk => disk.exists(path), path.try_exists())
}

/// Makes a directory in one that is there.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    on!(disk => disk.create_dir(path), fs::create_dir(path))
}

/// Makes a directory and those above it, as far as they are missing.
#[cfg(feature = "rocksdb")]
pub(crate) fn create_dir_all(path: &Path) -> io::Result<()> {
    on!(disk => disk.create_dir_all(path), fs::create_dir_all(path))
}

/// How many bytes a file has.
#[cfg(feature = "rocksdb")]
pub(crate) fn len(path: &Path) -> io::Result<u64> {
    on!(disk => disk.len(path), Ok(fs::metadata(path)?.len()))
}

/// Gives a file another name beside its own, or, where file systems cannot, copies it.
#[cfg(feature = "rocksdb")]
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
    on!(disk => disk.link(from, to), fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)))
}

/// Makes a file of these bytes.
#[cfg(feature = "rocksdb")]
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(path)?.write_all(bytes)
}

/// Gives a file or a directory another name; a file of that name is replaced, in one step.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    on!(disk => disk.rename(from, to), fs::rename(from, to))
}

/// Takes a file away.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    on!(disk => disk.remove(path, false), fs::remove_file(path))
}

/// Takes a directory away that is empty.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    on!(disk => disk.remove(path, true), fs::remove_dir(path))
}

/// Takes a directory away with all that is in it.
pub(crate) fn remove_dir_all(path: &Path) -> io::Result<()> {
    on!(disk => disk.remove(path, true), fs::remove_dir_all(path))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    on!(disk => disk.sync_dir(path), fs::File::open(path)?.sync_all())
}

/// Makes the names in a directory durable, if it may be opened.
pub(crate) fn sync_dir_if_ours(path: &Path) -> io::Result<()> {
    on!(disk => disk.sync_dir(path), fs::File::open(path).map_or(Ok(()), |directory| directory.sync_all()))
}
