//! Base checkpoints: how one is taken from the live instance, and how a live instance is made from one. When that is
//! done is in `fold.rs` and `restore.rs`.
//!
//! The directory of a base checkpoint is never opened by RocksDB, nor changed in any other way: its sorted files are
//! shared with live instances by hard links, for RocksDB does not write to such a file again; the others are copied.

use super::delta::damaged;
use super::rocks::{FILE_ENDING, Rocks};
use super::snapshot::{Base, FileRef};
use super::store::{Store, lock, sync_directory};
use crate::disk::{self, File};
use crate::{Epoch, Error};
use std::io::Read;
use std::path::Path;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Makes a base checkpoint of what `rocks` holds, which is all changes of epochs `<= epoch` and no other. Durable when
/// it returns. Reads the files that are new since the last one, for their checksums.
///
/// # Errors
/// When the disk fails.
pub(super) fn take(store: &Store, rocks: &Rocks, epoch: Epoch) -> Result<Base, Error> {
    let Store { shared, operator, subtask, .. } = store;
    let directory = format!("state/base-{epoch}-{}-{operator}-{subtask}", shared.attempt);
    let path = shared.checkpoints.join(&directory);
    rocks.checkpoint(&path)?;
    sync_directory(&path)?;
    sync_directory(&shared.checkpoints.join("state"))?;

    let mut files = Vec::new();
    let unreadable = |e| Error::io(e, "read", &path);
    for name in disk::names(&path).map_err(unreadable)? {
        let file = path.join(&name);
        let bytes = disk::len(&file).map_err(unreadable)?;
        let checksum = checksum(store, &file, &name, bytes)?;
        files.push(FileRef { path: format!("{directory}/{name}"), bytes, checksum });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    keep_checksums(store, &files);
    Ok(Base { epoch, directory, files })
}

/// The name of a file without its directory.
fn name_of(file: &FileRef) -> &str {
    file.path.rsplit('/').next().unwrap_or(&file.path)
}

/// Whether RocksDB never writes to the file again.
fn is_sorted_file(name: &str) -> bool {
    name.ends_with(FILE_ENDING)
}

/// Remembers the checksums of the files there are, and forgets the others.
pub(super) fn keep_checksums(store: &Store, files: &[FileRef]) {
    let sorted = files.iter().filter(|f| is_sorted_file(&f.path));
    *lock(&store.checksums) = sorted.map(|f| ((name_of(f).to_owned(), f.bytes), f.checksum.clone())).collect();
}

/// Of a sorted file it is computed once.
fn checksum(store: &Store, path: &Path, name: &str, bytes: u64) -> Result<String, Error> {
    if is_sorted_file(name)
        && let Some(known) = lock(&store.checksums).get(&(name.to_owned(), bytes))
    {
        return Ok(known.clone());
    }
    let failed = |e| Error::io(e, "read", path);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// Makes the directory `into` with the files of `base`, to be opened by RocksDB. Small files are verified by checksum,
/// sorted files by length: RocksDB verifies each block of them when it reads it.
///
/// # Errors
/// A refusal that names a file that is missing or damaged; when the disk fails.
pub(super) fn link(checkpoints: &Path, base: &Base, into: &Path) -> Result<(), Error> {
    disk::create_dir_all(into).map_err(|e| Error::io(e, "make the directory", into))?;
    for file in &base.files {
        let (from, to) = (checkpoints.join(&file.path), into.join(name_of(file)));
        let bytes = match disk::len(&from) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(damaged(&from, "it is missing")),
            Err(e) => return Err(Error::io(e, "read", &from)),
        };
        if bytes != file.bytes {
            return Err(damaged(&from, &format!("it has {bytes} bytes instead of {}", file.bytes)));
        }
        if is_sorted_file(&file.path) {
            disk::link(&from, &to).map_err(|e| Error::io(e, "copy", &from))?;
        } else {
            copy(&from, &to, &file.checksum)?;
        }
    }
    Ok(())
}

/// Copies a small file.
fn copy(from: &Path, to: &Path, checksum: &str) -> Result<(), Error> {
    let bytes = disk::read(from).map_err(|e| Error::io(e, "read", from))?;
    if format!("{:032x}", xxh3_128(&bytes)) != checksum {
        return Err(damaged(from, "its checksum is wrong"));
    }
    disk::write(to, &bytes).map_err(|e| Error::io(e, "write", to))
}
