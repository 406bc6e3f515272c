//! Many entries into an instance of RocksDB at once: collected up to a bound, sorted, the newest of each key written
//! into a sorted file, which the instance takes over without copying. Where the entries come from is in `fold.rs` and
//! `restore.rs`.
//!
//! Cost, one core, short keys and rows: 0.3 to 0.4 s per 1 M entries, of which RocksDB's file writer takes most.

use super::backend::gone_by;
#[cfg(test)]
use super::memory;
use super::rocks::{Rocks, Tuning, failed};
use super::sorted::Sorted;
use crate::Error;
use rocksdb::SstFileWriter;
use std::path::{Path, PathBuf};

/// What to write for a row without bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// That the key is gone: in `base`, which is the last place that is asked.
    Delete,
    /// A value without bytes, as any other.
    Keep,
}

/// Takes entries, oldest first, in any order of keys.
pub(super) struct Sorter<'a> {
    tuning: &'a Tuning,
    into: &'a Rocks,
    gone: Gone,
    entries: Sorted,
    bytes_max: usize,
}

impl<'a> Sorter<'a> {
    /// Of files with up to `bytes_max` bytes of entries, which is also the memory it takes; one entry may exceed it.
    pub(super) fn new(tuning: &'a Tuning, into: &'a Rocks, gone: Gone, bytes_max: usize) -> Self {
        Self { tuning, into, gone, entries: Sorted::default(), bytes_max }
    }

    /// Adds an entry, whose row is `head` followed by `tail`.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn push(&mut self, key: &[u8], head: &[u8], tail: &[u8]) -> Result<(), Error> {
        self.entries.push(key, head, tail);
        if self.entries.bytes() >= self.bytes_max { self.flush() } else { Ok(()) }
    }

    /// Writes what has been collected.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.entries.sort();
        let mut run = Run::new(self.tuning, self.into);
        for (key, row) in self.entries.iter() {
            run.put(key, row, self.gone)?;
        }
        run.finish()?;
        self.entries.clear();
        Ok(())
    }
}

/// Entries that come sorted, each key once, on their way into an instance.
pub(super) struct Run<'a> {
    tuning: &'a Tuning,
    into: &'a Rocks,
    file: Option<(PathBuf, SstFileWriter<'a>)>,
    /// In a simulation, what would be in the file.
    #[cfg(test)]
    changes: Vec<memory::Change>,
    bytes: usize,
}

impl<'a> Run<'a> {
    /// A file is handed over when it has grown to this many bytes before compression.
    const FILE_BYTES: usize = 64 << 20;

    pub(super) fn new(tuning: &'a Tuning, into: &'a Rocks) -> Self {
        Self {
            tuning,
            into,
            file: None,
            #[cfg(test)]
            changes: Vec::new(),
            bytes: 0,
        }
    }

    /// Appends an entry; its key must be greater than the last one.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn put(&mut self, key: &[u8], row: &[u8], gone: Gone) -> Result<(), Error> {
        #[cfg(test)]
        if crate::disk::simulated::is_on() {
            self.note(key, row, gone);
            return Ok(());
        }
        if self.bytes > Self::FILE_BYTES {
            self.hand_over()?;
        }
        if self.file.is_none() {
            self.file = Some(create(self.tuning, self.into.path())?);
        }
        if let Some((path, writer)) = &mut self.file {
            let delete = row.is_empty() && gone == Gone::Delete;
            let done = if delete { writer.delete(key) } else { writer.put(key, row) };
            done.map_err(|e| failed(e, "write", path))?;
            if gone == Gone::Delete
                && let Some((from, to)) = gone_by(key, row)
            {
                writer.delete_range(&from[..], to).map_err(|e| failed(e, "write", path))?;
            }
        }
        self.bytes += key.len() + row.len();
        Ok(())
    }

    /// Hands over what has been written.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.hand_over()
    }

    #[cfg(test)]
    fn note(&mut self, key: &[u8], row: &[u8], gone: Gone) {
        use memory::Change::{Delete, DeleteRange, Put};
        if row.is_empty() && gone == Gone::Delete {
            if !crate::mutant::broken("S3") {
                self.changes.push(Delete(key.into()));
            }
        } else {
            self.changes.push(Put(key.into(), row.into()));
        }
        if gone == Gone::Delete
            && let Some((from, to)) = gone_by(key, row)
        {
            self.changes.push(DeleteRange(from.to_vec(), to.to_vec()));
        }
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        #[cfg(test)]
        self.into.take(std::mem::take(&mut self.changes));
        self.bytes = 0;
        let Some((path, mut writer)) = self.file.take() else {
            return Ok(());
        };
        writer.finish().map_err(|e| failed(e, "write", &path))?;
        drop(writer);
        self.into.ingest(self.tuning, &path)
    }
}

/// A file beside the instance at `path`: on the same file system, or it could not be moved.
fn create<'a>(tuning: &'a Tuning, path: &Path) -> Result<(PathBuf, SstFileWriter<'a>), Error> {
    let path = path.with_extension("sst");
    let writer = SstFileWriter::create(&tuning.options);
    writer.open(&path).map_err(|e| failed(e, "write", &path))?;
    Ok((path, writer))
}
