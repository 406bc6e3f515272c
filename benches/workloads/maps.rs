//! Maps larger than the cache: a job with a [`MapState`], and bare RocksDB doing the same accesses as get and put. Both
//! have the same memory; neither waits for the disk to be durable but at checkpoints.

use crate::r#gen::{mix, scale};
use crate::jobs::job;
use crate::measure::{Figure, Watch};
use crate::meter::{Meter, Stop};
use millstream::prelude::*;
use rocksdb::{BlockBasedOptions, Cache, DB, Options, WriteOptions};

/// Keys, a power of two, each with so many entries.
const KEYS: u64 = 1 << KEY_BITS;
const KEY_BITS: u64 = 16;
const ENTRIES: u64 = 100;
/// All entries, before anything is measured.
pub(crate) const STATE: u64 = KEYS * ENTRIES;
/// How much memory both have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// So much that RocksDB's cache has room for all entries, of the job as of the other; the table of the job has room
    /// for a tenth of them.
    Ample,
    /// So little that the table of the job has room for a tenth of the entries, at about 160 bytes each with the room
    /// to grow: half of the memory that sinks may not hold back. RocksDB's cache has room for half of them beside it,
    /// and for all of them in the other.
    Tenth,
    /// A tenth of what the entries take as bytes: keys of 8 and 4 bytes, a count, and what stands around them. Of them
    /// the tables have room for one in four hundred.
    Tight,
}

impl Memory {
    fn bytes(self) -> u64 {
        match self {
            Self::Ample => 1 << 30,
            Self::Tenth => STATE / 10 * 160 * 2 + (64 << 20),
            Self::Tight => STATE * 24 / 10,
        }
    }
}

/// Each entry once, then keys that are drawn log-uniformly, so that half of the accesses go to the first 256 of them.
fn access(i: u64) -> (u64, u32) {
    let random = mix(i);
    let (key, entry) = if i < STATE {
        (i / ENTRIES, i % ENTRIES)
    } else {
        let bits = scale(mix(random), KEY_BITS + 1);
        let least = (1 << bits) >> 1;
        (least + scale(mix(random ^ 1), least.max(1)), random % ENTRIES)
    };
    (mix(key), entry as u32)
}

/// How often each entry was seen.
struct Count;

#[derive(State)]
struct Counts {
    by_entry: MapState<u32, u64>,
}

impl Process for Count {
    type Key = u64;
    type In = (u64, u32);
    type Out = u64;
    type State = Counts;
    fn on_record(
        &self,
        (_, entry): Self::In,
        counts: &mut Counts,
        cx: &mut Context<'_, u64, u64>,
    ) -> Result<(), BoxError> {
        let count = counts.by_entry.or_default(entry);
        *count += 1;
        cx.emit(*count);
        Ok(())
    }
    fn prefetch(&self, (_, entry): &Self::In, wanted: &mut Wanted<'_, Counts>) {
        wanted.entry(|counts| &counts.by_entry, entry);
    }
}

/// One worker, a checkpoint each second; `n` accesses are measured, once the state is there.
pub(crate) fn of_job(n: u64, memory: Memory) -> Figure {
    let (meter, stop) = (Meter::default(), Stop::default());
    let (sink, ends) = (meter.clone(), stop.clone());
    let (job, _directory) = job("maps", 1, move |t| {
        let accesses = Generator::new(|_, offset| access(offset)).splits(1);
        let counts = t.source("accesses", ends.ends(accesses)).key_by(|(key, _)| key).process("count", Count);
        counts.sink("meter", sink.clone());
        Ok(())
    });
    let mut job = job.checkpoint_interval(Duration::from_secs(1)).memory(memory.bytes());
    if let Memory::Ample = memory {
        job = job.cache_rows(STATE as usize / 10);
    }
    std::thread::scope(|scope| {
        let running = scope.spawn(|| job.run());
        let reach = |records| {
            while meter.output().0 < records && !running.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        reach(STATE);
        let (watch, before) = (Watch::start(), meter.output().0);
        reach(before + n);
        let ((seconds, cpu_seconds), after) = (watch.read(), meter.output().0);
        stop.stop();
        running.join().expect("no panic").expect("the job runs");
        Figure { records: after - before, seconds, cpu_seconds, output: (0, 0) }
    })
}

/// The same on one thread, with RocksDB's defaults but for compression, a Bloom filter and memory.
pub(crate) fn of_rocksdb(n: u64, memory: Memory) -> Figure {
    let directory = tempfile::tempdir().expect("a directory");
    let db = open(directory.path(), memory.bytes() as usize).expect("RocksDB opens");
    let mut write = WriteOptions::default();
    write.disable_wal(true);
    let count = |i| {
        let (key, entry) = access(i);
        let mut name = [0; 12];
        name[..8].copy_from_slice(&key.to_be_bytes());
        name[8..].copy_from_slice(&entry.to_be_bytes());
        let old = db.get_pinned(name).expect("RocksDB reads");
        let old = old.and_then(|value| Some(u64::from_le_bytes(value.get(..8)?.try_into().ok()?)));
        let count = old.unwrap_or(0) + 1;
        db.put_opt(name, count.to_le_bytes(), &write).expect("RocksDB writes");
        count
    };
    (0..STATE).for_each(|i| _ = count(i));
    let watch = Watch::start();
    let sum = (STATE..STATE + n).map(count).fold(0, u64::wrapping_add);
    let (seconds, cpu_seconds) = watch.read();
    std::hint::black_box(sum);
    Figure { records: n, seconds, cpu_seconds, output: (0, 0) }
}

fn open(path: &std::path::Path, memory: usize) -> Result<DB, rocksdb::Error> {
    let cache = Cache::new_lru_cache(memory * 3 / 4);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&cache);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_write_buffer_size(memory / 8);
    options.set_max_background_jobs(2);
    DB::open(&options, path)
}
