//! One RocksDB instance, and the settings that all of a process share. What is kept in which instance is decided in
//! `spill.rs`, `fold.rs` and `restore.rs`; the `rocksdb` crate is named here, in `sorter.rs`, and for what is read in
//! order in `scan.rs` and `spill.rs`.
//!
//! Memory: blocks, indexes, filters and memtables of all instances are charged to one cache, which has the budget but
//! for a quarter, which is for rows of the spill (`held.rs`), and a thirty-second, which is for its filters.
//! Beside it stand, per instance, about 0.3 MiB of RocksDB's own structures and up to 64 open files.
//!
//! There is no write-ahead log (what must survive is in deltas and base checkpoints), no statistics and no LOG file:
//! what RocksDB has to say at level `Warn` and above goes to `tracing`.

use super::backend::Keys;
use super::delta::damaged;
#[cfg(test)]
use super::memory;
use super::room::Room;
use crate::{Error, ErrorKind, disk};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRawIterator, Env, InfoLogger, IngestExternalFileOptions, LogLevel, Options, ReadOptions, WriteBatch,
    WriteBufferManager, WriteOptions,
};
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Keys per call of RocksDB's multi-get. It works on 32 at a time; what is found stays pinned until the call is done.
const MULTI_GET_KEYS: usize = 256;
/// From so many bytes on a cache is large.
const LARGE_CACHE: usize = 64 << 20;
/// How the names of sorted files end.
pub(super) const FILE_ENDING: &str = ".sst";
/// The only column family.
const FAMILY: &str = "default";

/// The settings of all instances, and what they share.
pub(super) struct Tuning {
    pub(super) options: Options,
    /// For rows of the spill in memory, and for its filters.
    pub(super) held: Arc<Room>,
    pub(super) filters: Arc<Room>,
    write: WriteOptions,
    ingest: IngestExternalFileOptions,
}

impl Tuning {
    /// Of instances that stay within `budget_bytes` together.
    ///
    /// # Errors
    /// When RocksDB cannot be set up.
    pub(super) fn new(budget_bytes: usize) -> Result<Self, Error> {
        let mut env = Env::new().map_err(|e| Error::new(ErrorKind::Io, "cannot set up RocksDB").because(e))?;
        env.set_background_threads(2);
        env.set_high_priority_background_threads(1);
        let (held, filters) = (budget_bytes / 4, budget_bytes / 32);
        let budget_bytes = budget_bytes - held - filters;
        let (held, filters) = (Room::new(held), Room::new(filters));
        let cache = cache(budget_bytes);
        // A quarter may be memtables. Not stalled when it is more: the operator would wait, not the disk.
        let buffers = (budget_bytes / 4).max(1 << 20);
        let manager = WriteBufferManager::new_write_buffer_manager_with_cache(buffers, false, cache.clone());

        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_env(&env);
        options.set_write_buffer_manager(&manager);
        options.set_write_buffer_size((budget_bytes / 32).clamp(256 << 10, 8 << 20));
        options.set_arena_block_size(64 << 10);
        options.set_max_background_jobs(2);
        options.set_max_open_files(64);
        options.set_max_file_opening_threads(1);
        options.set_skip_stats_update_on_db_open(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_block_based_table_factory(&blocks(&cache, budget_bytes));
        options.set_manifest_preallocation_size(64 << 10);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |_, text| {
            tracing::debug!(target: "millstream::rocksdb", "{}", text.trim_end());
        }));
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        Ok(Self { options, held, filters, write, ingest })
    }

    fn families(&self) -> [ColumnFamilyDescriptor; 1] {
        [ColumnFamilyDescriptor::new(FAMILY, self.options.clone())]
    }
}

/// A cache whose look-ups take no lock and write no list: a fifth more records where most of the state is in it. For
/// large ones; small ones do better with exact order.
fn cache(bytes: usize) -> Cache {
    if bytes >= LARGE_CACHE { Cache::new_hyper_clock_cache(bytes, 0) } else { Cache::new_lru_cache(bytes) }
}

fn blocks(cache: &Cache, cache_bytes: usize) -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    // Indexes and filters grow with the state, so they must be inside the budget; in pieces, or a small cache would
    // read those of a whole file again for nearly every key.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    // In pieces as large as the cache can bear: each look-up searches among them first, and in the cache then.
    blocks.set_metadata_block_size((cache_bytes / 2048).clamp(4 << 10, 128 << 10));
    blocks.set_pin_top_level_index_and_filter(true);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_optimize_filters_for_memory(true);
    blocks
}

/// An open instance.
pub(super) struct Rocks {
    db: Db,
    path: PathBuf,
    read: ReadOptions,
}

enum Db {
    Real(DB),
    /// In a simulation.
    #[cfg(test)]
    Memory(memory::Rows),
}

/// Entries in order.
pub(super) enum Cursor<'a> {
    Real(DBRawIterator<'a>),
    /// And the place of the one at hand.
    #[cfg(test)]
    Memory(Vec<memory::Row>, usize),
}

impl Cursor<'_> {
    /// Goes to the first key that is not before this one.
    pub(super) fn seek(&mut self, key: impl AsRef<[u8]>) {
        match self {
            Self::Real(cursor) => cursor.seek(key),
            #[cfg(test)]
            Self::Memory(rows, at) => *at = rows.partition_point(|(k, _)| k.as_slice() < key.as_ref()),
        }
    }

    /// Goes to the next key.
    pub(super) fn next(&mut self) {
        match self {
            Self::Real(cursor) => cursor.next(),
            #[cfg(test)]
            Self::Memory(_, at) => *at += 1,
        }
    }

    /// Key and row of the one at hand; none at the end, and when something is wrong.
    pub(super) fn item(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Real(cursor) => cursor.item(),
            #[cfg(test)]
            Self::Memory(rows, at) => rows.get(*at).map(|(key, row)| (&key[..], &row[..])),
        }
    }

    /// # Errors
    /// What is wrong.
    pub(super) fn status(&self) -> Result<(), rocksdb::Error> {
        match self {
            Self::Real(cursor) => cursor.status(),
            #[cfg(test)]
            Self::Memory(..) => Ok(()),
        }
    }
}

impl Rocks {
    /// Opens the instance at `path`, or makes an empty one. About 10 ms, most of it fsync.
    ///
    /// # Errors
    /// When the disk fails; a refusal if what is there is damaged.
    pub(super) fn open(tuning: &Tuning, path: &Path) -> Result<Self, Error> {
        disk::create_dir_all(path).map_err(|e| Error::io(e, "make the directory", path))?;
        #[cfg(test)]
        if disk::simulated::is_on() {
            return Self::in_memory(path);
        }
        let db = DB::open_cf_descriptors(&tuning.options, path, tuning.families());
        let db = db.map_err(|e| failed(e, "open", path))?;
        Ok(Self { db: Db::Real(db), path: path.into(), read: ReadOptions::default() })
    }

    #[cfg(test)]
    fn in_memory(path: &Path) -> Result<Self, Error> {
        let rows = memory::Rows::open(path).map_err(|e| Error::io(e, "open", path))?;
        Ok(Self { db: Db::Memory(rows), path: path.into(), read: ReadOptions::default() })
    }

    /// Opens the instance at `path` without changing it.
    ///
    /// # Errors
    /// As `open`.
    pub(super) fn open_read_only(tuning: &Tuning, path: &Path) -> Result<Self, Error> {
        #[cfg(test)]
        if disk::simulated::is_on() {
            return Self::in_memory(path);
        }
        let db = DB::open_cf_descriptors_read_only(&tuning.options, path, tuning.families(), false);
        let db = db.map_err(|e| failed(e, "open", path))?;
        Ok(Self { db: Db::Real(db), path: path.into(), read: ReadOptions::default() })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The instance, which there is but in a simulation.
    fn real(&self) -> Result<&DB, Error> {
        match &self.db {
            Db::Real(db) => Ok(db),
            #[cfg(test)]
            Db::Memory(_) => Err(Error::new(ErrorKind::Failed, "an instance in memory has no database")),
        }
    }

    fn family<'a>(&self, db: &'a DB) -> Result<&'a ColumnFamily, Error> {
        db.cf_handle(FAMILY).ok_or_else(|| damaged(&self.path, "it has no column family"))
    }

    /// Looks up the keys at the indexes `wanted`, which are in the order of the keys. `hit` is shown what is found and
    /// says whether that is an answer; the indexes without one are left in `wanted`.
    ///
    /// # Errors
    /// When the disk fails or is damaged; what `hit` returns.
    pub(super) fn get_many(
        &self,
        keys: &Keys,
        wanted: &mut Vec<usize>,
        mut hit: impl FnMut(usize, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        #[cfg(test)]
        if let Db::Memory(rows) = &self.db {
            let mut open = Vec::new();
            for index in std::mem::take(wanted) {
                let row = rows.get(keys.get(index));
                if !row.map_or(Ok(false), |row| hit(index, &row))? {
                    open.push(index);
                }
            }
            *wanted = open;
            return Ok(());
        }
        let db = self.real()?;
        let family = self.family(db)?;
        let mut open = Vec::new();
        for chunk in wanted.chunks(MULTI_GET_KEYS) {
            let slices = chunk.iter().map(|i| keys.get(*i));
            let results = db.batched_multi_get_cf_opt(family, slices, true, &self.read);
            for (index, result) in chunk.iter().zip(results) {
                let answered = match result.map_err(|e| failed(e, "read", &self.path))? {
                    Some(value) => hit(*index, &value)?,
                    None => false,
                };
                if !answered {
                    open.push(*index);
                }
            }
        }
        *wanted = open;
        Ok(())
    }

    /// Applies a batch. Lost when the process ends.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn write(&self, tuning: &Tuning, batch: WriteBatch) -> Result<(), Error> {
        match &self.db {
            Db::Real(db) => db.write_opt(batch, &tuning.write).map_err(|e| failed(e, "write to", &self.path)),
            #[cfg(test)]
            Db::Memory(rows) => {
                let mut changes = Changes::default();
                batch.iterate(&mut changes);
                rows.apply(changes.0);
                Ok(())
            }
        }
    }

    /// Takes over a file of `sorter.rs`: its entries are newer than all there are.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn ingest(&self, tuning: &Tuning, file: &Path) -> Result<(), Error> {
        match &self.db {
            Db::Real(db) => {
                let done = db.ingest_external_file_opts(&tuning.ingest, vec![file]);
                done.map_err(|e| failed(e, "add a file to", &self.path))
            }
            #[cfg(test)]
            Db::Memory(_) => Ok(()),
        }
    }

    /// The entries before `to`, in order, by way of the cache.
    pub(super) fn range(&self, to: &[u8]) -> Cursor<'_> {
        let mut read = ReadOptions::default();
        read.set_iterate_upper_bound(to);
        self.cursor(read, Some(to))
    }

    fn cursor(&self, read: ReadOptions, to: Option<&[u8]>) -> Cursor<'_> {
        // an instance in memory has no options to say it with
        let _ = to;
        match &self.db {
            Db::Real(db) => Cursor::Real(db.raw_iterator_opt(read)),
            #[cfg(test)]
            Db::Memory(rows) => Cursor::Memory(rows.before(to), 0),
        }
    }

    /// In a simulation, what a sorted file would bring.
    #[cfg(test)]
    pub(super) fn take(&self, changes: Vec<memory::Change>) {
        if let Db::Memory(rows) = &self.db {
            rows.apply(changes);
        }
    }

    /// All entries from front to back, past the cache.
    pub(super) fn scan(&self) -> Cursor<'_> {
        let mut read = ReadOptions::default();
        read.fill_cache(false);
        read.set_readahead_size(1 << 20);
        let mut cursor = self.cursor(read, None);
        cursor.seek([0; 0]);
        cursor
    }

    /// Makes the directory `into` with hard links to all data; its files and itself are durable, its name is not.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn checkpoint(&self, into: &Path) -> Result<(), Error> {
        #[cfg(test)]
        if let Db::Memory(rows) = &self.db {
            return rows.checkpoint(into).map_err(|e| Error::io(e, "copy the state to", into));
        }
        let db = self.real()?;
        let checkpoint = Checkpoint::new(db).map_err(|e| failed(e, "copy", &self.path))?;
        checkpoint.create_checkpoint_with_log_size(into, 0).map_err(|e| failed(e, "copy the state to", into))
    }

    /// Closes it and removes its files. Errors are ignored: the next start clears what is left.
    pub(super) fn destroy(self) {
        let Self { db, path, .. } = self;
        drop(db);
        if let Err(error) = disk::remove_dir_all(&path) {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// What is in a batch.
#[cfg(test)]
#[derive(Default)]
struct Changes(Vec<memory::Change>);

#[cfg(test)]
impl rocksdb::WriteBatchIterator for Changes {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.push(memory::Change::Put(key.into(), value.into()));
    }
    fn delete(&mut self, key: &[u8]) {
        self.0.push(memory::Change::Delete(key.into()));
    }
}

/// What the texts of RocksDB's errors end with, which are those of the system.
const CAUSES: [(&str, IoKind); 4] = [
    ("No space left on device", IoKind::StorageFull),
    ("Disk quota exceeded", IoKind::QuotaExceeded),
    ("Read-only file system", IoKind::ReadOnlyFilesystem),
    ("Permission denied", IoKind::PermissionDenied),
];

/// What RocksDB said, by what is to be done about it.
pub(super) fn failed(error: rocksdb::Error, doing: &str, path: &Path) -> Error {
    if error.kind() == rocksdb::ErrorKind::Corruption {
        return damaged(path, &error.into_string());
    }
    Error::storage(cause(error.as_ref()), error.as_ref(), doing, path)
}

fn cause(text: &str) -> IoKind {
    CAUSES.iter().find(|(said, _)| text.contains(said)).map_or(IoKind::Other, |(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_by_what_rocksdb_says() {
        let said = "IO error: No space left on device: While appending to file: /x/000012.sst: No space left on device";
        assert_eq!(cause(said), IoKind::StorageFull);
        let said = "IO error: While open a file for appending: /x/000007.log: Read-only file system";
        assert_eq!(cause(said), IoKind::ReadOnlyFilesystem);
        assert_eq!(cause("IO error: while stat a file: Input/output error"), IoKind::Other);
    }
}
