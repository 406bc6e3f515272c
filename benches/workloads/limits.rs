//! The limit loops: what the machine gives for the same work without an engine. Each is what one would write by hand in
//! the shape named, in batches of 1024 records; each gives the count and the sum of its output, to be compared.

use crate::r#gen::{Rec, rec, w1_map};
use crate::measure::{Figure, timed};
use hashbrown::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::hint::black_box;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Records per batch, as in the engine.
pub(crate) const BATCH: usize = 1024;
/// Batches under way between two threads, as in the engine.
const LANE: usize = 8;

/// An operator: takes the records of the first batch, leaves its results in the second.
type Operator = Box<dyn FnMut(&mut Vec<Rec>, &mut Vec<Rec>)>;

/// W1 on one thread: source, map and filter, each one virtual call per batch, and a sink that counts and sums.
pub(crate) fn w1(n: u64) -> Figure {
    let mut i = 0;
    let mut source: Box<dyn FnMut(&mut Vec<Rec>)> = black_box(Box::new(move |out| {
        let end = n.min(i + BATCH as u64);
        out.extend((i..end).map(rec));
        i = end;
    }));
    let mut map: Operator = black_box(Box::new(|from, to| to.extend(from.drain(..).map(w1_map))));
    let mut filter: Operator = black_box(Box::new(|from, to| {
        for r in from.drain(..) {
            if r.v & 1 == 0 {
                to.push(r);
            }
        }
    }));
    let [mut read, mut mapped, mut kept] = [(); 3].map(|()| Vec::with_capacity(BATCH));
    let (mut out, mut sum) = (0, 0u64);
    timed(n, || {
        loop {
            source(&mut read);
            if read.is_empty() {
                return (out, sum);
            }
            map(&mut read, &mut mapped);
            filter(&mut mapped, &mut kept);
            take(&mut kept, &mut out, &mut sum);
        }
    })
}

fn take(batch: &mut Vec<Rec>, out: &mut u64, sum: &mut u64) {
    *out += batch.len() as u64;
    *sum = batch.iter().fold(*sum, |sum, r| sum.wrapping_add(r.v));
    batch.clear();
}

/// W1 on two threads: the source on one, map, filter and sink on the other, and a bounded tokio channel in between.
pub(crate) fn w1_channel(n: u64) -> Figure {
    let (to, mut from) = tokio::sync::mpsc::channel::<Vec<Rec>>(LANE);
    let send = async move {
        let mut i = 0;
        while i < n {
            let end = n.min(i + BATCH as u64);
            if to.send((i..end).map(rec).collect()).await.is_err() {
                return;
            }
            i = end;
        }
    };
    let receive = async move {
        let (mut out, mut sum, mut kept) = (0, 0, Vec::with_capacity(BATCH));
        while let Some(batch) = from.recv().await {
            kept.extend(batch.into_iter().map(w1_map).filter(|r| r.v & 1 == 0));
            take(&mut kept, &mut out, &mut sum);
        }
        (out, sum)
    };
    timed(n, || {
        std::thread::scope(|scope| {
            scope.spawn(|| block_on(send));
            block_on(receive)
        })
    })
}

/// Runs a future on a runtime of its own, as a worker of the engine does.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future)
}

/// A multiplicative hash, as in `rustc-hash`.
#[derive(Default)]
pub(crate) struct Fx(u64);

impl Hasher for Fx {
    #[inline(always)]
    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.wrapping_add(word).wrapping_mul(0xF135_7AEA_2E62_A9C5);
    }
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.write_u64(rest.iter().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte)));
        }
    }
    #[inline(always)]
    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }
    #[inline(always)]
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

type Table<K> = HashMap<K, u64, BuildHasherDefault<Fx>>;

/// A running count per key: gives the count, with this record.
#[inline(always)]
fn count<K: Hash + Eq>(table: &mut Table<K>, key: K) -> u64 {
    let count = table.entry(key).or_insert(0);
    *count += 1;
    *count
}

/// W2 on one thread, without an exchange.
pub(crate) fn w2_one_thread<K: Hash + Eq>(n: u64, make: impl Fn(u64) -> K) -> Figure {
    let mut table = Table::<K>::default();
    timed(n, || (n, (0..n).fold(0, |sum: u64, i| sum.wrapping_add(count(&mut table, make(i))))))
}

/// W2 on two threads, thread per core: each makes half of the records, sends each batch to the owner of its keys,
/// itself included, over a bounded channel, and counts what it receives.
pub(crate) fn w2_exchange<K: Hash + Eq + Send>(n: u64, make: impl Fn(u64) -> K + Sync) -> Figure {
    exchange::<K, false>(n, make)
}

/// The same with what can be tuned by hand: no channel for a thread's own keys, and batches that are used again.
pub(crate) fn w2_exchange_tuned<K: Hash + Eq + Send>(n: u64, make: impl Fn(u64) -> K + Sync) -> Figure {
    exchange::<K, true>(n, make)
}

fn exchange<K: Hash + Eq + Send, const TUNED: bool>(n: u64, make: impl Fn(u64) -> K + Sync) -> Figure {
    // a lane each, as in the engine; the threads' own ones are used by the plain loop only
    let [(to_a, a_from_a), (to_b, a_from_b), (b_to_a, b_from_a), (b_to_b, b_from_b)] =
        [(); 4].map(|()| sync_channel(LANE));
    let one = |number, to, from| {
        let (table, batches) = (Table::default(), [(); 2].map(|()| Vec::with_capacity(BATCH)));
        Thread::<K, TUNED> { number, to, from, table, batches, empty: Vec::new(), out: 0, sum: 0 }
    };
    let a = one(0, [Some(to_a), Some(to_b)], [a_from_a, b_from_a]);
    let b = one(1, [Some(b_to_a), Some(b_to_b)], [a_from_b, b_from_b]);
    timed(n, || {
        std::thread::scope(|scope| {
            let b = scope.spawn(|| b.run(n, &make));
            let (out, sum) = a.run(n, &make);
            b.join().map(|(o, s)| (out + o, sum.wrapping_add(s))).unwrap_or_default()
        })
    })
}

/// One of the two.
struct Thread<K, const TUNED: bool> {
    number: usize,
    /// To and from each thread, itself included.
    to: [Option<SyncSender<Vec<K>>>; 2],
    from: [Receiver<Vec<K>>; 2],
    table: Table<K>,
    /// By owner.
    batches: [Vec<K>; 2],
    /// To be used again.
    empty: Vec<Vec<K>>,
    out: u64,
    sum: u64,
}

impl<K: Hash + Eq, const TUNED: bool> Thread<K, TUNED> {
    fn run(mut self, n: u64, make: &impl Fn(u64) -> K) -> (u64, u64) {
        let mut i = self.number as u64;
        while i < n {
            let end = n.min(i + 2 * BATCH as u64);
            while i < end {
                self.route(make(i));
                i += 2;
            }
            while self.receive() {}
        }
        for (owner, batch) in std::mem::take(&mut self.batches).into_iter().enumerate() {
            self.send(owner, batch);
        }
        self.to = [None, None];
        for other in 0..2 {
            while let Ok(batch) = self.from[other].recv() {
                self.work(batch);
            }
        }
        (self.out, self.sum)
    }

    #[inline(always)]
    fn route(&mut self, key: K) {
        let mut fx = Fx::default();
        key.hash(&mut fx);
        // a bit that the table does not use at this size
        let owner = (fx.finish() >> 50) as usize & 1;
        let batch = &mut self.batches[owner];
        batch.push(key);
        if batch.len() == BATCH {
            let empty = self.empty.pop().unwrap_or_else(|| Vec::with_capacity(BATCH));
            let full = std::mem::replace(batch, empty);
            if TUNED && owner == self.number { self.work(full) } else { self.send(owner, full) }
        }
    }

    fn work(&mut self, mut batch: Vec<K>) {
        self.out += batch.len() as u64;
        for key in batch.drain(..) {
            self.sum = self.sum.wrapping_add(count(&mut self.table, key));
        }
        if TUNED && self.empty.len() < LANE {
            self.empty.push(batch);
        }
    }

    /// Works off a batch of each thread, where one is there.
    fn receive(&mut self) -> bool {
        let batches = [0, 1].map(|from| self.from[from].try_recv().ok());
        let any = batches.iter().any(Option::is_some);
        batches.into_iter().flatten().for_each(|batch| self.work(batch));
        any
    }

    /// While a lane is full, works off what has come.
    fn send(&mut self, owner: usize, mut batch: Vec<K>) {
        while let Some(to) = &self.to[owner] {
            match to.try_send(batch) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => batch = back,
            }
            if !self.receive() {
                std::thread::yield_now();
            }
        }
    }
}

/// What the disk takes for a file of so many bytes, written and made durable: the limit of a checkpoint.
pub(crate) fn disk(directory: &std::path::Path, bytes: usize) -> std::io::Result<std::time::Duration> {
    use std::io::Write;
    let path = directory.join("bare");
    let block = vec![0x5A; 256 << 10];
    let start = millstream::clock::now();
    let mut file = std::fs::File::create(&path)?;
    let mut left = bytes;
    while left > 0 {
        file.write_all(&block[..left.min(block.len())])?;
        left -= left.min(block.len());
    }
    file.sync_data()?;
    let took = start.elapsed();
    std::fs::remove_file(&path)?;
    Ok(took)
}
