//! The sink driver: runs a writer's calls one after the other, and keeps epochs apart for it.
//!
//! 1. `write` as batches come; the subtask waits while one is under way.
//! 2. At barrier `n`: `prepare(n)`, behind all writes of epoch `n`. What it gives is this sink's share of checkpoint
//!    `n`.
//! 3. Until `n` is decided and committed, records of `n + 1` are held back (unless the sink separates epochs itself),
//!    in a buffer that is bounded in bytes and in the time it takes to write them, or the next barrier would wait
//!    behind them for as long; then the subtask waits, and back-pressure reaches the sources.
//! 4. When `n` is decided: `commit`, reported when done. Only then may the coordinator start the next checkpoint.
//!
//! A writer is moved into the future of its call and comes back with the result, so that no call is ever dropped half
//! way.

use super::inbox::{Cost, FIRST};
use super::report::{Counters, Report, StageContext};
use super::stage::{Control, Stage, end};
use crate::checkpoints::Part;
use crate::guard::guarded;
use crate::operator::{Sink, SinkContext, SinkWriter};
use crate::{Batch, BoxError, Epoch, Error, Timestamp, clock};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long it may take to write what is held back.
const HOLD: Duration = Duration::from_millis(100);

/// What is asked of the writer.
enum Op<T, C> {
    Write(Batch<T>),
    Prepare(Epoch),
    Commit(Epoch, C),
}

/// What a call gave.
enum Done<C> {
    Opened,
    Written,
    Prepared(Epoch, Option<C>),
    Committed(Epoch),
}

type Call<W, C> = LocalBoxFuture<'static, Result<(W, Done<C>), BoxError>>;

enum State<W, C> {
    Idle(W),
    Busy(Call<W, C>),
    /// Between two of the others, and after an error.
    Gone,
}

type CommittableOf<T, S> = <<S as Sink<T>>::Writer as SinkWriter<T>>::Committable;

/// The last stage of a stream.
pub(crate) struct SinkStage<T, S: Sink<T>> {
    state: State<S::Writer, CommittableOf<T, S>>,
    queue: VecDeque<Op<T, CommittableOf<T, S>>>,
    /// Records that wait in `queue`, and their bytes.
    held: usize,
    held_bytes: usize,
    /// What a record costs the writer; how many are being written, since when.
    cost: Cost,
    writing: Option<(usize, Instant)>,
    /// The epoch that is prepared or being prepared, and not committed.
    undecided: Option<Epoch>,
    /// Whether `prepare` of that epoch has begun: what waits behind it belongs to the next one.
    prepared: bool,
    committable: Option<CommittableOf<T, S>>,
    separates: bool,
    context: StageContext,
}

/// Bytes of a batch, what values keep on the heap guessed at 64 each.
fn bytes<T>(batch: &Batch<T>) -> usize {
    let heap = if std::mem::needs_drop::<T>() { 64 } else { 0 };
    batch.len() * (size_of::<T>() + heap)
}

/// The context a sink is given.
pub(crate) fn sink_context(cx: &StageContext) -> SinkContext {
    let (job, sink) = (cx.job.to_string(), cx.name.to_string());
    SinkContext {
        job,
        sink,
        subtask: cx.subtask,
        parallelism: cx.parallelism,
        attempt: cx.attempt,
        traffic: cx.counters.traffic.clone(),
    }
}

impl<T: Send + 'static, S: Sink<T>> SinkStage<T, S> {
    /// Begins to open the writer; reports ready when it is open.
    pub(crate) fn new(sink: Arc<S>, context: StageContext) -> Self {
        let (separates, cx) = (sink.separates_epochs(), sink_context(&context));
        let open = async move { Ok((sink.open(&cx).await?, Done::Opened)) };
        Self {
            state: State::Busy(open.boxed_local()),
            queue: VecDeque::new(),
            held: 0,
            held_bytes: 0,
            cost: Cost::default(),
            writing: None,
            undecided: None,
            prepared: false,
            committable: None,
            separates,
            context,
        }
    }

    fn is_held_back(&self) -> bool {
        self.prepared && !self.separates
    }

    /// The next call that may be made now.
    fn next_op(&mut self) -> Option<Op<T, CommittableOf<T, S>>> {
        if matches!(self.queue.front(), Some(Op::Write(_))) && self.is_held_back() {
            return None;
        }
        let op = self.queue.pop_front();
        self.prepared |= matches!(op, Some(Op::Prepare(_)));
        op
    }

    fn call(&mut self, mut writer: S::Writer, op: Op<T, CommittableOf<T, S>>) -> Call<S::Writer, CommittableOf<T, S>> {
        match op {
            Op::Write(batch) => {
                self.held -= batch.len();
                self.held_bytes -= bytes(&batch);
                self.writing = Some((batch.len(), clock::now()));
                Counters::add(&self.context.counters.records_out, batch.len());
                async move {
                    writer.write(batch).await?;
                    Ok((writer, Done::Written))
                }
                .boxed_local()
            }
            Op::Prepare(epoch) => async move {
                let committable = writer.prepare(epoch).await?;
                Ok((writer, Done::Prepared(epoch, committable)))
            }
            .boxed_local(),
            Op::Commit(epoch, committable) => async move {
                writer.commit(committable).await?;
                Ok((writer, Done::Committed(epoch)))
            }
            .boxed_local(),
        }
    }

    fn done(&mut self, done: Done<CommittableOf<T, S>>) -> Result<(), Error> {
        let participant = self.context.participant;
        match done {
            Done::Written => {
                if let Some((records, since)) = self.writing.take() {
                    self.cost.measured(records, since.elapsed(), 1);
                }
            }
            Done::Opened => self.context.reports.send(Report::Ready),
            Done::Prepared(epoch, committable) => {
                let value = committable.as_ref().map(serde_json::to_value).transpose().map_err(|e| {
                    let place = self.context.place("sink");
                    Error::from_user(format!("its committable cannot be written as JSON: {e}").into(), place)
                })?;
                self.committable = committable;
                let (name, subtask) = (self.context.name.to_string(), self.context.subtask);
                let part = Part::Sink { name, subtask, committable: value };
                self.context.reports.send(Report::Part { participant, epoch, part });
            }
            Done::Committed(epoch) => self.committed(epoch),
        }
        Ok(())
    }

    fn committed(&mut self, epoch: Epoch) {
        (self.undecided, self.prepared) = (None, false);
        self.context.reports.send(Report::Committed { participant: self.context.participant, epoch });
    }

    /// Makes calls until one has to wait or there is none to make.
    fn drive(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        loop {
            match std::mem::replace(&mut self.state, State::Gone) {
                State::Gone => return Ok(()),
                State::Idle(writer) => match self.next_op() {
                    Some(op) => self.state = State::Busy(self.call(writer, op)),
                    None => {
                        self.state = State::Idle(writer);
                        return Ok(());
                    }
                },
                State::Busy(mut call) => match guarded(|| self.context.place("sink"), || Ok(call.poll_unpin(cx)))? {
                    Poll::Pending => {
                        self.state = State::Busy(call);
                        return Ok(());
                    }
                    Poll::Ready(Ok((writer, done))) => {
                        self.state = State::Idle(writer);
                        self.done(done)?;
                    }
                    Poll::Ready(Err(error)) => return Err(Error::from_user(error, self.context.place("sink"))),
                },
            }
        }
    }

    /// Whether the next batch may come: nothing waits, or what waits is held back for good reason and within bounds.
    fn takes_more(&self) -> bool {
        let idle = self.queue.is_empty() && matches!(self.state, State::Idle(_));
        let in_time = self.cost.of(self.held).map_or(self.held < FIRST, |work| work < HOLD);
        idle || (self.undecided.is_some() && in_time && self.held_bytes < self.context.hold_bytes)
    }
}

impl<T: Send + 'static, S: Sink<T>> Stage<T> for SinkStage<T, S> {
    fn on_batch(&mut self, batch: &mut Batch<T>) -> Result<(), Error> {
        if !batch.is_empty() {
            let taken = std::mem::take(batch);
            Counters::add(&self.context.counters.records_in, taken.len());
            self.held += taken.len();
            self.held_bytes += bytes(&taken);
            self.queue.push_back(Op::Write(taken));
        }
        Ok(())
    }
}

impl<T: Send + 'static, S: Sink<T>> Control for SinkStage<T, S> {
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.context.counters.watermark.set(mark);
        Ok(())
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.queue.push_back(Op::Prepare(epoch));
        self.undecided = Some(epoch);
        Ok(())
    }
    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
        match self.committable.take() {
            Some(committable) => self.queue.push_front(Op::Commit(epoch, committable)),
            None => self.committed(epoch),
        }
        Ok(())
    }
    fn poll_ready(&mut self, _: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.drive(cx)?;
        if self.takes_more() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
