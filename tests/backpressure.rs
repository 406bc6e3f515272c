//! Slow sinks and quiet streams. Nothing here measures time: what is asserted is that things go on, how far one part
//! runs ahead of another, and in which order things happen.

use crate::common::{Scratch, job};
use millstream::framework::{
    Batch, Epoch, Polled, Sink, SinkContext, SinkWriter, Source, SourceContext, SourceReader, SplitBatch,
};
use millstream::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What a source and a sink know of each other.
#[derive(Debug, Default)]
struct Shared {
    /// How many records the source has handed out, and how many the sink has written.
    made: AtomicU64,
    written: Mutex<Vec<u64>>,
    /// The most that were between the two.
    ahead: AtomicU64,
    prepared: AtomicU64,
    /// With each new epoch committed: how many records were written by then.
    commits: Mutex<Vec<(Epoch, usize)>>,
    /// Nothing more is to be read, and what is left to be written without delay.
    over: AtomicBool,
}

impl Shared {
    fn committed(&self) -> u64 {
        self.commits.lock().unwrap().last().map_or(0, |(epoch, _)| *epoch)
    }
}

/// Hands out 0, 1, 2 and so on, in one split, as long as `wait` does not hold.
#[derive(Clone)]
struct Counter {
    shared: Arc<Shared>,
    wait: Arc<dyn Fn(&Shared, u64) -> bool + Send + Sync>,
    next: Option<u64>,
}

impl Source for Counter {
    type Reader = Self;
    async fn splits(&self, _: &[u64]) -> Result<Vec<u64>, BoxError> {
        Ok(vec![0])
    }
    async fn open(&self, _: &SourceContext) -> Result<Self, BoxError> {
        Ok(self.clone())
    }
}

impl SourceReader for Counter {
    type Record = u64;
    type Split = u64;
    type Offset = u64;
    async fn assign(&mut self, _: u64, from: Option<u64>) -> Result<u64, BoxError> {
        Ok(*self.next.insert(from.unwrap_or(0)))
    }
    async fn ready(&mut self) {
        while self.next.is_some_and(|next| !self.shared.over.load(SeqCst) && (self.wait)(&self.shared, next)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    fn poll(&mut self, out: &mut SplitBatch<u64, u64>) -> Result<Polled, BoxError> {
        let Some(next) = self.next.as_mut().filter(|_| !self.shared.over.load(SeqCst)) else {
            return Ok(Polled::Finished);
        };
        out.of(&0);
        let before = *next;
        while out.room() > 0 && !(self.wait)(&self.shared, *next) {
            out.push(*next);
            *next += 1;
        }
        let made = self.shared.made.fetch_add(*next - before, SeqCst) + (*next - before);
        let written = self.shared.written.lock().unwrap().len() as u64;
        self.shared.ahead.fetch_max(made.saturating_sub(written), SeqCst);
        Ok(if *next > before { Polled::More } else { Polled::AtEnd })
    }
    fn offset(&self, _: &u64) -> Result<u64, BoxError> {
        Ok(self.next.unwrap_or(0))
    }
}

/// Takes its time for each record. Does not separate epochs, so that the next one is held back for it.
#[derive(Debug, Clone)]
struct Slow {
    shared: Arc<Shared>,
    per_record: Duration,
}

impl Sink<u64> for Slow {
    type Writer = Self;
    async fn open(&self, _: &SinkContext) -> Result<Self, BoxError> {
        Ok(self.clone())
    }
}

impl SinkWriter<u64> for Slow {
    type Committable = Epoch;
    async fn write(&mut self, batch: Batch<u64>) -> Result<(), BoxError> {
        for n in batch.values {
            if !self.per_record.is_zero() && !self.shared.over.load(SeqCst) {
                tokio::time::sleep(self.per_record).await;
            }
            self.shared.written.lock().unwrap().push(n);
        }
        Ok(())
    }
    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<Epoch>, BoxError> {
        self.shared.prepared.fetch_max(epoch, SeqCst);
        Ok(Some(epoch))
    }
    async fn commit(&mut self, epoch: Epoch) -> Result<(), BoxError> {
        let written = self.shared.written.lock().unwrap().len();
        let mut commits = self.shared.commits.lock().unwrap();
        if commits.last().is_none_or(|(last, _)| epoch > *last) {
            commits.push((epoch, written));
        }
        Ok(())
    }
}

/// Source, exchange, state, sink; until `over`.
fn run(
    job_of: fn(Job) -> Job,
    per_record: Duration,
    wait: impl Fn(&Shared, u64) -> bool + Send + Sync + 'static,
    over: impl Fn(&Shared) -> bool,
) -> Arc<Shared> {
    let (scratch, shared) = (Scratch::new(), Arc::new(Shared::default()));
    let source = Counter { shared: shared.clone(), wait: Arc::new(wait), next: None };
    let sink = Slow { shared: shared.clone(), per_record };
    let topology = move |t: &Topology| {
        let newest = |newest: &mut u64, n: u64| {
            *newest = n.max(*newest);
            *newest
        };
        let numbers = t.source("numbers", source.clone()).key_by_value(|n| n % 100);
        numbers.map_with_state("newest", newest).sink("slow", sink.clone());
        Ok(())
    };
    let job = job_of(job(&scratch, topology));
    std::thread::scope(|threads| {
        let running = threads.spawn(|| job.run());
        while !running.is_finished() {
            if over(&shared) {
                shared.over.store(true, SeqCst);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        running.join().unwrap().unwrap();
    });
    shared
}

/// A sink of a millisecond and more per record behind a source that could make millions a second: twenty checkpoints in
/// a row complete, none of them waits for more than some thousand records, and the source does not run far ahead.
#[test]
fn f15_checkpoints_complete_behind_a_slow_sink() {
    let shared = run(
        |job| job.checkpoint_interval(Duration::from_millis(200)),
        Duration::from_millis(1),
        |_, _| false,
        |shared| shared.committed() >= 20 || shared.written.lock().unwrap().len() > 40_000,
    );
    let commits = shared.commits.lock().unwrap().clone();
    let epochs: Vec<Epoch> = commits.iter().map(|(epoch, _)| *epoch).collect();
    assert!(epochs.len() > 20 && epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{commits:?}");
    let waited = commits[..20].windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap();
    let ahead = shared.ahead.load(SeqCst);
    assert!(waited < 4000, "a checkpoint waited for {waited} records, {ahead} of them ahead: {commits:?}");
    assert!(ahead < 40_000, "the source was {ahead} records ahead of the sink");
    let written = shared.written.lock().unwrap().len() as u64;
    assert_eq!(written, shared.made.load(SeqCst), "all that was read is written");
}

/// A state that takes many pieces to copy, in front of a sink that takes no more before the copy is decided: the copy
/// goes on while the subtask waits for the sink.
#[test]
fn a_state_is_copied_while_its_sink_waits_for_the_decision() {
    const KEYS: u64 = 300_000;
    let (scratch, shared) = (Scratch::new(), Arc::new(Shared::default()));
    let source = Counter { shared: shared.clone(), wait: Arc::new(|_, _| false), next: None };
    let sink = Slow { shared: shared.clone(), per_record: Duration::from_millis(1) };
    let topology = move |t: &Topology| {
        let numbers = t.source("numbers", source.clone()).key_by_value(|n| n % KEYS);
        let newest = numbers.map_with_state("newest", |newest: &mut u64, n: u64| {
            *newest = n.max(*newest);
            *newest
        });
        // until each key has a row nothing is in the way, and never so much that barriers wait behind it for long
        newest.filter(|n| *n >= KEYS && n % 50 == 0).sink("slow", sink.clone());
        Ok(())
    };
    let job = job(&scratch, topology).checkpoint_interval(Duration::from_millis(500));
    let job = job.checkpoint_timeout(Duration::from_secs(10), 0);
    std::thread::scope(|threads| {
        let running = threads.spawn(|| job.run());
        while !running.is_finished() {
            let written = shared.written.lock().unwrap().len();
            if shared.committed() >= 3 && written > 0 {
                shared.over.store(true, SeqCst);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        running.join().unwrap().unwrap();
    });
}

/// A record is read when the one before has been written, so nothing ever fills a batch, and no checkpoint comes by:
/// each record crosses exchange, state and sink by itself.
#[test]
fn a_quiet_stream_is_not_held_back() {
    const RECORDS: u64 = 300;
    let shared = run(
        |job| job.checkpoint_interval(Duration::from_hours(1)),
        Duration::ZERO,
        |shared, next| next >= RECORDS || next > shared.written.lock().unwrap().len() as u64,
        |shared| {
            let all = shared.written.lock().unwrap().len() as u64 == RECORDS;
            assert!(!all || shared.over.load(SeqCst) || shared.prepared.load(SeqCst) == 0, "a checkpoint came by");
            all
        },
    );
    assert!(shared.written.lock().unwrap().iter().copied().eq(0..RECORDS));
    assert_eq!(shared.ahead.load(SeqCst), 1);
}

/// A barrier comes while the source looks for data and finds none: it must not wait for the next record, which here
/// comes after the checkpoint only.
#[test]
fn a_barrier_does_not_wait_for_a_quiet_source() {
    let shared = run(
        |job| job.checkpoint_interval(Duration::from_millis(10)).checkpoint_timeout(Duration::from_secs(10), 0),
        Duration::ZERO,
        |shared, next| {
            let quiet = next == 1 && shared.committed() == 0;
            if quiet {
                std::thread::sleep(Duration::from_millis(50));
            }
            quiet || next > 1
        },
        |shared| shared.written.lock().unwrap().len() == 2,
    );
    assert_eq!(*shared.written.lock().unwrap(), [0, 1]);
}
