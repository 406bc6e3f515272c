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
use super::stage::{AnyStage, Control, end, mismatch};
use crate::checkpoints::Part;
use crate::guard::guarded;
use crate::operator::{Sink, SinkContext, SinkWriter};
use crate::record::AnyBatch;
use crate::{BoxError, Epoch, Error, Timestamp, clock};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long it may take to write what is held back.
const HOLD: Duration = Duration::from_millis(100);

/// What is asked of the writer.
enum Op {
    Write(Box<dyn AnyBatch>),
    Prepare(Epoch),
    Commit(Epoch),
}

/// What a call gave.
pub(crate) enum Done {
    Opened,
    Written,
    /// With its committable as JSON, if it has one.
    Prepared(Epoch, Option<Value>),
    Committed(Epoch),
}

/// A call under way; it owns the writer.
pub(crate) type Call = LocalBoxFuture<'static, Result<(Box<dyn AnyWriter>, Done), BoxError>>;

/// A writer whose types only it knows.
pub(crate) trait AnyWriter {
    fn write(self: Box<Self>, batch: Box<dyn AnyBatch>) -> Call;
    fn prepare(self: Box<Self>, epoch: Epoch) -> Call;
    /// Of what was prepared last.
    fn commit(self: Box<Self>, epoch: Epoch) -> Call;
}

struct WriterOf<T, W: SinkWriter<T>> {
    writer: W,
    committable: Option<W::Committable>,
}

/// Opens a writer.
pub(crate) fn open_sink<T: Send + 'static, S: Sink<T>>(sink: Arc<S>, cx: SinkContext) -> Call {
    async move {
        let writer: Box<dyn AnyWriter> = Box::new(WriterOf { writer: sink.open(&cx).await?, committable: None });
        Ok((writer, Done::Opened))
    }
    .boxed_local()
}

impl<T: Send + 'static, W: SinkWriter<T>> AnyWriter for WriterOf<T, W> {
    fn write(mut self: Box<Self>, batch: Box<dyn AnyBatch>) -> Call {
        async move {
            let batch: Box<dyn Any> = batch;
            self.writer.write(*batch.downcast().map_err(|_| mismatch::<T>())?).await?;
            Ok((self as Box<dyn AnyWriter>, Done::Written))
        }
        .boxed_local()
    }

    fn prepare(mut self: Box<Self>, epoch: Epoch) -> Call {
        async move {
            self.committable = self.writer.prepare(epoch).await?;
            let value = self.committable.as_ref().map(serde_json::to_value).transpose();
            let value = value.map_err(|e| format!("its committable cannot be written as JSON: {e}"))?;
            Ok((self as Box<dyn AnyWriter>, Done::Prepared(epoch, value)))
        }
        .boxed_local()
    }

    fn commit(mut self: Box<Self>, epoch: Epoch) -> Call {
        async move {
            if let Some(committable) = self.committable.take() {
                self.writer.commit(committable).await?;
            }
            Ok((self as Box<dyn AnyWriter>, Done::Committed(epoch)))
        }
        .boxed_local()
    }
}

enum State {
    Idle(Box<dyn AnyWriter>),
    Busy(Call),
    /// Between two of the others, and after an error.
    Gone,
}

/// The last stage of a stream.
pub(crate) struct SinkStage {
    state: State,
    queue: VecDeque<Op>,
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
    /// Whether that epoch has something to commit.
    committable: bool,
    separates: bool,
    context: StageContext,
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

impl SinkStage {
    /// Opens the writer, by `open`, and reports ready when it is open. Whether it separates epochs itself is said by
    /// the sink.
    pub(crate) fn new(open: Call, separates: bool, context: StageContext) -> Self {
        Self {
            state: State::Busy(open),
            queue: VecDeque::new(),
            held: 0,
            held_bytes: 0,
            cost: Cost::default(),
            writing: None,
            undecided: None,
            prepared: false,
            committable: false,
            separates,
            context,
        }
    }

    fn is_held_back(&self) -> bool {
        self.prepared && !self.separates
    }

    /// The next call that may be made now.
    fn next_op(&mut self) -> Option<Op> {
        if matches!(self.queue.front(), Some(Op::Write(_))) && self.is_held_back() {
            return None;
        }
        let op = self.queue.pop_front();
        self.prepared |= matches!(op, Some(Op::Prepare(_)));
        op
    }

    fn call(&mut self, writer: Box<dyn AnyWriter>, op: Op) -> Call {
        match op {
            Op::Write(batch) => {
                self.held -= batch.len();
                self.held_bytes -= batch.bytes();
                self.writing = Some((batch.len(), clock::now()));
                Counters::add(&self.context.counters.records_out, batch.len());
                writer.write(batch)
            }
            Op::Prepare(epoch) => writer.prepare(epoch),
            Op::Commit(epoch) => writer.commit(epoch),
        }
    }

    fn done(&mut self, done: Done) {
        let participant = self.context.participant;
        match done {
            Done::Written => {
                if let Some((records, since)) = self.writing.take() {
                    self.cost.measured(records, clock::since(since), 1);
                }
            }
            Done::Opened => self.context.reports.send(Report::Ready),
            Done::Prepared(epoch, value) => {
                self.committable = value.is_some();
                let (name, subtask) = (self.context.name.to_string(), self.context.subtask);
                let part = Part::Sink { name, subtask, committable: value };
                self.context.reports.send(Report::Part { participant, epoch, part });
            }
            Done::Committed(epoch) => self.committed(epoch),
        }
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
                        self.done(done);
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

impl AnyStage for SinkStage {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        if batch.len() > 0 {
            let mut taken = batch.fresh();
            batch.give(batch.len(), &mut *taken);
            Counters::add(&self.context.counters.records_in, taken.len());
            self.held += taken.len();
            self.held_bytes += taken.bytes();
            self.queue.push_back(Op::Write(taken));
        }
        Ok(())
    }
}

impl Control for SinkStage {
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
        if std::mem::take(&mut self.committable) {
            self.queue.push_front(Op::Commit(epoch));
        } else {
            self.committed(epoch);
        }
        Ok(())
    }
    fn poll_ready(&mut self, _: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.drive(cx)?;
        if self.takes_more() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
