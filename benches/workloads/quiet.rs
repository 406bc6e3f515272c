//! Jobs that have little to do: how long a single record takes, and checkpoints behind a slow sink.

use crate::jobs::{NEVER, job};
use crate::meter::Stop;
use crate::watch::{self, Taken};
use millstream::clock;
use millstream::framework::{
    Batch, Epoch, Polled, Sink, SinkContext, SinkWriter, Source, SourceContext, SourceReader, SplitBatch,
};
use millstream::prelude::*;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

/// From one record to the next.
const GAP: Duration = Duration::from_millis(2);

/// A key of the second of two subtasks, which is on the other worker than the source.
fn key_of_the_second() -> u64 {
    (0..).find(|key| millstream::key::stable_hash(key) as u32 >> 31 == 1).unwrap_or_default()
}

/// Microseconds that each of `n` records took from the moment it was read to its sink writer, on the other worker.
pub(crate) fn latencies(n: u64) -> Vec<f64> {
    let (start, key) = (clock::now(), key_of_the_second());
    let (seen, took) = channel();
    let (job, _directory) = job("quiet", 2, move |t| {
        t.source("ticks", Ticks { n, start })
            .map(move |at| (key, at))
            .key_by(|(key, _)| key)
            .map_with_state("count", |count: &mut u64, (_, at): (u64, u64)| {
                *count += 1;
                at
            })
            .sink("clock", Clock { start, seen: seen.clone() });
        Ok(())
    });
    job.checkpoint_interval(NEVER).run().expect("the job runs");
    took.try_iter().map(|nanos| nanos as f64 / 1e3).collect()
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// One record at a time; it says when it was read.
struct Ticks {
    n: u64,
    start: Instant,
}

struct TickReader {
    n: u64,
    read: u64,
    assigned: bool,
    next: tokio::time::Instant,
    start: Instant,
}

impl Source for Ticks {
    type Reader = TickReader;
    async fn splits(&self, _: &[u64]) -> Result<Vec<u64>, BoxError> {
        Ok(vec![0])
    }
    async fn open(&self, _: &SourceContext) -> Result<TickReader, BoxError> {
        let next = tokio::time::Instant::now() + GAP;
        Ok(TickReader { n: self.n, read: 0, assigned: false, next, start: self.start })
    }
}

impl SourceReader for TickReader {
    type Record = u64;
    type Split = u64;
    type Offset = u64;
    async fn assign(&mut self, _: u64, from: Option<u64>) -> Result<u64, BoxError> {
        self.assigned = true;
        Ok(from.unwrap_or(0))
    }
    async fn ready(&mut self) {
        tokio::time::sleep_until(self.next).await;
    }
    fn poll(&mut self, out: &mut SplitBatch<u64, u64>) -> Result<Polled, BoxError> {
        if !self.assigned || self.read == self.n {
            return Ok(Polled::Finished);
        }
        let now = tokio::time::Instant::now();
        if now < self.next {
            return Ok(Polled::AtEnd);
        }
        self.next = now + GAP;
        self.read += 1;
        out.of(&0);
        out.push(nanos(self.start));
        Ok(Polled::AtEnd)
    }
    fn offset(&self, _: &u64) -> Result<u64, BoxError> {
        Ok(self.read)
    }
}

/// Says how long ago each record was read.
struct Clock {
    start: Instant,
    seen: Sender<u64>,
}

struct ClockWriter {
    start: Instant,
    seen: Sender<u64>,
}

impl Sink<u64> for Clock {
    type Writer = ClockWriter;
    async fn open(&self, _: &SinkContext) -> Result<ClockWriter, BoxError> {
        Ok(ClockWriter { start: self.start, seen: self.seen.clone() })
    }
}

impl SinkWriter<u64> for ClockWriter {
    type Committable = ();
    async fn write(&mut self, batch: Batch<u64>) -> Result<(), BoxError> {
        let now = nanos(self.start);
        batch.values.iter().try_for_each(|at| self.seen.send(now.saturating_sub(*at)))?;
        Ok(())
    }
    async fn prepare(&mut self, _: Epoch) -> Result<Option<()>, BoxError> {
        Ok(None)
    }
    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}

/// `n` checkpoints in a row, asked for each 200 ms, of a job whose sink takes 1 ms per record while its source has no
/// limit.
pub(crate) fn behind_a_slow_sink(n: usize) -> Vec<Taken> {
    let stop = Stop::default();
    let end = stop.clone();
    let (job, _directory) = job("slow", 2, move |t| {
        let keys = Generator::new(|split, offset| crate::r#gen::dense(offset * 2 + split, 1000)).splits(2);
        t.source("keys", end.ends(keys))
            .key_by(|key| key)
            .map_with_state("count", |count: &mut u64, _| {
                *count += 1;
                *count
            })
            .sink("slow", Slow);
        Ok(())
    });
    let job = job.checkpoint_interval(Duration::from_millis(200));
    watch::take();
    let mut checkpoints = Vec::new();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| job.run());
        // the first is taken before any record flows
        while checkpoints.len() < n + 1 && !running.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            checkpoints.extend(watch::take());
        }
        stop.stop();
        running.join().expect("no panic").expect("the job runs");
    });
    checkpoints.split_off(1.min(checkpoints.len()))
}

/// Takes 1 ms per record.
struct Slow;

impl Sink<u64> for Slow {
    type Writer = Self;
    async fn open(&self, _: &SinkContext) -> Result<Self, BoxError> {
        Ok(Self)
    }
}

impl SinkWriter<u64> for Slow {
    type Committable = ();
    async fn write(&mut self, batch: Batch<u64>) -> Result<(), BoxError> {
        tokio::time::sleep(Duration::from_millis(batch.len() as u64)).await;
        Ok(())
    }
    async fn prepare(&mut self, _: Epoch) -> Result<Option<()>, BoxError> {
        Ok(None)
    }
    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}
