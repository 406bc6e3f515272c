//! The ends of the measured jobs: a sink that counts and sums, and a source that can be told to end.

use millstream::clock;
use millstream::framework::{
    Batch, BoxError, Epoch, Polled, Sink, SinkContext, SinkWriter, Source, SourceContext, SourceReader, SplitBatch,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What one writer has seen; a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Lane {
    records: AtomicU64,
    sum: AtomicU64,
}

/// Counts and sums what is written; clones are the same meter. It keeps epochs apart, for nothing becomes visible.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Arc<Lane>>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Meter {
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Count and sum so far.
    pub(crate) fn output(&self) -> (u64, u64) {
        self.with(|state| {
            let of = |lane: &Arc<Lane>| (lane.records.load(Relaxed), lane.sum.load(Relaxed));
            state.lanes.iter().map(of).fold((0, 0u64), |(n, s), (out, sum)| (n + out, s.wrapping_add(sum)))
        })
    }

    /// From the first batch that was written to the end of the last one, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.with(|state| state.last.zip(state.first).map_or(0.0, |(last, first)| (last - first).as_secs_f64()))
    }
}

/// What of a record is summed.
pub(crate) trait Summed: Send + 'static {
    fn summed(&self) -> u64;
}
impl Summed for u64 {
    fn summed(&self) -> u64 {
        *self
    }
}
impl Summed for crate::r#gen::Rec {
    fn summed(&self) -> u64 {
        self.v
    }
}

impl<T: Summed> Sink<T> for Meter {
    type Writer = MeterWriter;
    async fn open(&self, _: &SinkContext) -> Result<MeterWriter, BoxError> {
        let lane = Arc::<Lane>::default();
        self.with(|state| state.lanes.push(lane.clone()));
        Ok(MeterWriter { meter: self.clone(), lane, last: None })
    }
    fn separates_epochs(&self) -> bool {
        true
    }
}

pub(crate) struct MeterWriter {
    meter: Meter,
    lane: Arc<Lane>,
    /// When the last batch was written; handed over when the writer goes.
    last: Option<Instant>,
}

impl<T: Summed> SinkWriter<T> for MeterWriter {
    type Committable = ();
    async fn write(&mut self, batch: Batch<T>) -> Result<(), BoxError> {
        let now = clock::now();
        if self.last.replace(now).is_none() {
            self.meter.with(|state| {
                state.first.get_or_insert(now);
            });
        }
        let sum = batch.values.iter().fold(0u64, |sum, value| sum.wrapping_add(value.summed()));
        self.lane.records.fetch_add(batch.len() as u64, Relaxed);
        self.lane.sum.fetch_add(sum, Relaxed);
        Ok(())
    }
    async fn prepare(&mut self, _: Epoch) -> Result<Option<()>, BoxError> {
        Ok(None)
    }
    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}

impl Drop for MeterWriter {
    fn drop(&mut self) {
        let last = self.last;
        self.meter.with(|state| state.last = state.last.max(last));
    }
}

/// Ends a source when it is told to, so that a job without an end can be measured and then stopped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn stop(&self) {
        self.0.store(true, Relaxed);
    }
    /// `source`, until it is told.
    pub(crate) fn ends<S>(&self, source: S) -> Until<S> {
        Until { source, stop: self.clone() }
    }
}

pub(crate) struct Until<S> {
    source: S,
    stop: Stop,
}

impl<S: Source> Source for Until<S> {
    type Reader = Until<S::Reader>;
    async fn splits(
        &self,
        known: &[<S::Reader as SourceReader>::Split],
    ) -> Result<Vec<<S::Reader as SourceReader>::Split>, BoxError> {
        self.source.splits(known).await
    }
    async fn open(&self, cx: &SourceContext) -> Result<Self::Reader, BoxError> {
        Ok(Until { source: self.source.open(cx).await?, stop: self.stop.clone() })
    }
}

impl<R: SourceReader> SourceReader for Until<R> {
    type Record = R::Record;
    type Split = R::Split;
    type Offset = R::Offset;
    async fn assign(&mut self, split: R::Split, from: Option<R::Offset>) -> Result<R::Offset, BoxError> {
        self.source.assign(split, from).await
    }
    async fn assigned(&mut self) -> Result<(), BoxError> {
        self.source.assigned().await
    }
    async fn ready(&mut self) {
        self.source.ready().await;
    }
    fn poll(&mut self, out: &mut SplitBatch<R::Record, R::Split>) -> Result<Polled, BoxError> {
        if self.stop.0.load(Relaxed) { Ok(Polled::Finished) } else { self.source.poll(out) }
    }
    fn offset(&self, split: &R::Split) -> Result<R::Offset, BoxError> {
        self.source.offset(split)
    }
}

/// All splits but the first, which is taken and left empty: of two subtasks the second one reads.
pub(crate) struct Last<S>(pub(crate) S);

impl<S: Source<Reader: SourceReader<Split = u64, Offset = u64>>> Source for Last<S> {
    type Reader = Last<S::Reader>;
    async fn splits(&self, known: &[u64]) -> Result<Vec<u64>, BoxError> {
        self.0.splits(known).await
    }
    async fn open(&self, cx: &SourceContext) -> Result<Self::Reader, BoxError> {
        Ok(Last(self.0.open(cx).await?))
    }
}

impl<R: SourceReader<Split = u64, Offset = u64>> SourceReader for Last<R> {
    type Record = R::Record;
    type Split = u64;
    type Offset = u64;
    async fn assign(&mut self, split: u64, from: Option<u64>) -> Result<u64, BoxError> {
        if split == 0 { Ok(0) } else { self.0.assign(split, from).await }
    }
    async fn assigned(&mut self) -> Result<(), BoxError> {
        self.0.assigned().await
    }
    async fn ready(&mut self) {
        self.0.ready().await;
    }
    fn poll(&mut self, out: &mut SplitBatch<R::Record, u64>) -> Result<Polled, BoxError> {
        self.0.poll(out)
    }
    fn offset(&self, split: &u64) -> Result<u64, BoxError> {
        if *split == 0 { Ok(0) } else { self.0.offset(split) }
    }
}
