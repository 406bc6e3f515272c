//! All that touches the output directory, as blocking calls; `writer.rs` says on which thread. Names are made and read
//! in `name.rs`.

use super::name;
use super::writer::PartFile;
use millstream_framework::{Error, Visible};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind::{AlreadyExists, NotADirectory, NotFound};
use std::path::Path;

/// Makes the directory and those above it, each durable in the one above it.
pub(super) fn make(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return sync_above(path);
    }
    let parent = path.parent().unwrap_or(path);
    if parent != path {
        make(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync(parent),
        Err(_) if path.is_dir() => sync_above(path),
        Err(error) if error.kind() == AlreadyExists => Err(Error::io(NotADirectory.into(), "make the directory", path)),
        Err(error) => Err(Error::io(error, "make the directory", path)),
    }
}

/// The directory was there before. Whoever made it may not have come to the fsync: that is not relied upon. A directory
/// above it that this user may not open is not one that this program made it in.
fn sync_above(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    match File::open(if parent == Path::new("") { Path::new(".") } else { parent }) {
        Ok(open) => open.sync_all().map_err(|error| Error::io(error, "fsync the directory", parent)),
        Err(_) => Ok(()),
    }
}

/// Makes the names in the directory durable.
pub(super) fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io(error, "fsync the directory", directory))
}

/// Makes a file that was not there.
pub(super) fn create(path: &Path) -> Result<File, Error> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| Error::io(error, "create", path))
}

/// What shows of a sink, and what does not show yet.
pub(super) fn list(directory: &Path, sink: &str) -> Result<Visible, Error> {
    let failed = |error| Error::io(error, "list", directory);
    let mut found = Visible::default();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name::is_pending(sink, name) {
            found.pending.push(name.to_owned());
        } else if let Some((epoch, attempt)) = name::parse_visible(sink, name) {
            let newest = found.newest.get_or_insert_default();
            if epoch > newest.0 {
                *newest = (epoch, Default::default());
            }
            if epoch == newest.0 {
                newest.1.insert(attempt);
            }
        }
    }
    found.pending.sort();
    Ok(found)
}

/// Renames a pending file to its visible name, and makes that durable. Done before, it does nothing.
pub(super) fn show(directory: &Path, part: &PartFile) -> Result<(), Error> {
    let (from, to) = (directory.join(&part.pending), directory.join(&part.visible));
    match (exists(&from)?, exists(&to)?) {
        (true, false) => {
            fs::rename(&from, &to).map_err(|error| Error::io(error, "rename to its visible name", &from))?
        }
        (false, true) => {}
        (true, true) => return Err(twice(&from, &to)),
        (false, false) => tracing::warn!(
            file = %to.display(),
            "a part file of a decided checkpoint is neither visible nor pending: fine if it was committed and has been \
             moved away since; if the output directory is another one now, that output is in the former one"
        ),
    }
    sync(directory)
}

fn twice(from: &Path, to: &Path) -> Error {
    Error::refused(format!(
        "both `{}` and `{}` are there, though the first becomes the second: somebody has copied files here; \
         remove the one that is not right",
        from.display(),
        to.display()
    ))
}

fn exists(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == NotFound => Ok(false),
        Err(error) => Err(Error::io(error, "look at", path)),
    }
}

/// Removes pending files of a sink, of the listed ones those that are still there.
pub(super) fn remove(directory: &Path, sink: &str, listed: &[String]) -> Result<(), Error> {
    let mut removed = false;
    for name in listed.iter().filter(|name| name::is_pending(sink, name)) {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == NotFound => {}
            Err(error) => return Err(Error::io(error, "remove", &path)),
        }
    }
    if removed { sync(directory) } else { Ok(()) }
}
