//! Many entries into an instance of RocksDB at once: collected up to a bound, sorted, the newest of each key written into
//! a sorted file, which the instance takes over without copying. Where the entries come from is in `fold.rs` and
//! `restore.rs`.
//!
//! Cost, one core, short keys and rows: about 0.5 s per 1 M entries, of which RocksDB's file writer takes half.

use super::rocks::{Rocks, Tuning, failed};
use crate::Error;
use rocksdb::SstFileWriter;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

/// An entry in the arena.
#[derive(Clone, Copy)]
struct Entry {
    /// The first bytes of the key, table and group included, so that most comparisons need not look into the arena.
    prefix: [u64; 2],
    /// Where the key begins; the row follows it. Grows with the age of the sorter, so later means newer.
    at: usize,
    key: u32,
    row: u32,
}

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
    arena: Vec<u8>,
    entries: Vec<Entry>,
    /// Of arena and entries together.
    bytes_max: usize,
}

impl<'a> Sorter<'a> {
    /// Of files with up to `bytes_max` bytes of entries, which is also the memory it takes; one entry may exceed it.
    pub(super) fn new(tuning: &'a Tuning, into: &'a Rocks, gone: Gone, bytes_max: usize) -> Self {
        Self { tuning, into, gone, arena: Vec::new(), entries: Vec::new(), bytes_max }
    }

    /// Adds an entry, whose row is `head` followed by `tail`.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn push(&mut self, key: &[u8], head: &[u8], tail: &[u8]) -> Result<(), Error> {
        let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (key_bytes, row_bytes) = (length(key.len()), length(head.len() + tail.len()));
        let prefix = [word(key), word(key.get(8..).unwrap_or_default())];
        self.entries.push(Entry { prefix, at: self.arena.len(), key: key_bytes, row: row_bytes });
        for part in [key, head, tail] {
            self.arena.extend_from_slice(part);
        }
        if self.arena.len() + self.entries.len() * size_of::<Entry>() >= self.bytes_max {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what has been collected.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let Self { arena, entries, .. } = self;
        let (arena, key_of) = (&arena[..], |e: &Entry| slice(arena, e.at, e.key));
        entries.sort_unstable_by(|a, b| match a.prefix.cmp(&b.prefix) {
            Ordering::Equal => key_of(a).cmp(key_of(b)).then(b.at.cmp(&a.at)),
            order => order,
        });
        entries.dedup_by(|later, first| later.prefix == first.prefix && key_of(later) == key_of(first));
        let mut run = Run::new(self.tuning, self.into);
        for entry in &*entries {
            let row = slice(arena, entry.at + entry.key as usize, entry.row);
            run.put(key_of(entry), row, self.gone)?;
        }
        run.finish()?;
        self.arena.clear();
        self.entries.clear();
        Ok(())
    }
}

/// The first eight bytes as a number, in whose order they are; zeros stand in for what is missing.
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b)) << (8 * (8 - bytes.len())).min(63),
    }
}

fn slice(arena: &[u8], at: usize, length: u32) -> &[u8] {
    arena.get(at..at + length as usize).unwrap_or_default()
}

/// Entries that come sorted, each key once, on their way into an instance.
pub(super) struct Run<'a> {
    tuning: &'a Tuning,
    into: &'a Rocks,
    file: Option<(PathBuf, SstFileWriter<'a>)>,
    bytes: usize,
}

impl<'a> Run<'a> {
    /// A file is handed over when it has grown to this many bytes before compression.
    const FILE_BYTES: usize = 64 << 20;

    pub(super) fn new(tuning: &'a Tuning, into: &'a Rocks) -> Self {
        Self { tuning, into, file: None, bytes: 0 }
    }

    /// Appends an entry; its key must be greater than the last one.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn put(&mut self, key: &[u8], row: &[u8], gone: Gone) -> Result<(), Error> {
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

    fn hand_over(&mut self) -> Result<(), Error> {
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
