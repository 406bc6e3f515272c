//! The loop of a subtask behind an inbox: batches to the stage, barriers through the gate, background work in between.
//! The loop at a source is in `source.rs`.

use super::Life;
use super::gate::{Gate, GateSpec, PATIENCE, Passage};
use super::inbox::Receiver;
use super::marks::Mark;
use super::report::{Command, Commands, Counters, Report, StageContext};
use super::stage::AnyStage;
use crate::Error;
use crate::clock;
use crate::message::Message;
use crate::record::AnyBatch;
use futures::FutureExt;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A loop that finds work all the time lets the others of its worker run after so long.
const SLICE: Duration = Duration::from_millis(1);

/// Lets the other tasks of the worker run now and then.
#[derive(Debug)]
pub(crate) struct Slice(Instant);

impl Slice {
    pub(crate) fn new() -> Self {
        Self(clock::now())
    }

    /// To be called after each batch, with the time it is.
    pub(crate) async fn pass(&mut self, now: Instant) {
        if now.duration_since(self.0) >= SLICE {
            tokio::task::yield_now().await;
            self.0 = clock::now();
        }
    }
}

/// How long a subtask waits for what follows it. The clock is asked only when it does.
#[derive(Debug, Default)]
pub(crate) struct Wait(Option<Instant>);

impl Wait {
    /// It waits unless the result is there.
    pub(crate) fn unless<T>(&mut self, result: Poll<T>) -> Poll<T> {
        if result.is_pending() {
            self.0.get_or_insert_with(clock::now);
        }
        result
    }

    pub(crate) fn took(&self) -> Duration {
        self.0.map_or(Duration::ZERO, clock::since)
    }
}

/// Whether the stage takes the next batch. While it does not, background work goes on: a sink that holds records back
/// waits for a decision, which may be waiting for just that work.
pub(crate) fn wait_busily(
    stage: &mut dyn AnyStage,
    all: bool,
    cx: &mut Context<'_>,
) -> Result<Poll<Result<(), Error>>, Error> {
    let ready = stage.poll_ready(all, cx);
    if ready.is_pending() && stage.background()? {
        cx.waker().wake_by_ref();
    }
    Ok(ready)
}

struct Subtask {
    inbox: Receiver,
    stage: Box<dyn AnyStage>,
    commands: Commands,
    gate: Gate,
    used: Option<(usize, Box<dyn AnyBatch>)>,
    /// When the first lane's barrier came.
    aligning: Option<Instant>,
    leaving: bool,
    context: StageContext,
}

/// Runs until it is told to end.
pub(crate) fn drive(
    inbox: Receiver,
    gate: GateSpec,
    stage: Box<dyn AnyStage>,
    commands: Commands,
    context: StageContext,
) -> Life {
    run(inbox, gate, stage, commands, context).boxed_local()
}

async fn run(
    inbox: Receiver,
    gate: GateSpec,
    stage: Box<dyn AnyStage>,
    commands: Commands,
    context: StageContext,
) -> Result<(), Error> {
    let gate = Gate::new(gate);
    let mut subtask = Subtask { inbox, stage, commands, gate, used: None, aligning: None, leaving: false, context };
    let mut slice = Slice::new();
    subtask.time().await?;
    subtask.ready(false).await?;
    while let Some((lane, message)) = subtask.next().await? {
        match message {
            Message::Batch(batch) => slice.pass(subtask.batch(lane, batch).await?).await,
            Message::Watermark(mark) => {
                subtask.gate.marks().advance(lane, mark);
                subtask.time().await?;
            }
            Message::Idle => {
                subtask.gate.marks().rest(lane);
                subtask.time().await?;
            }
            Message::Barrier(epoch) => subtask.barrier(lane, epoch).await?,
            Message::End => subtask.end(lane).await?,
        }
    }
    Ok(())
}

impl Subtask {
    /// The next message; `None` when the subtask is to end. With nothing to read it flushes, does background work, and
    /// only then waits.
    async fn next(&mut self) -> Result<Option<(usize, Message)>, Error> {
        while !self.leaving {
            let (inbox, used) = (&mut self.inbox, &mut self.used);
            let got = poll_fn(|cx| match inbox.poll_recv(used, cx) {
                Poll::Ready(message) => Poll::Ready(Some(message)),
                Poll::Pending => Poll::Ready(None),
            });
            if let Some(message) = got.await {
                return Ok(Some(message));
            }
            if self.stage.background()? {
                tokio::task::yield_now().await;
                continue;
            }
            return self.wait().await;
        }
        Ok(None)
    }

    /// Waits for a message or the end, while what the stage has under way goes on. While lanes are left alone because
    /// they are ahead, patience is limited.
    async fn wait(&mut self) -> Result<Option<(usize, Message)>, Error> {
        while self.gate.holds() {
            tokio::select! {
                biased;
                got = self.arrival() => return got,
                () = tokio::time::sleep(PATIENCE) => {
                    self.gate.give_way();
                    self.block();
                }
            }
        }
        self.arrival().await
    }

    async fn arrival(&mut self) -> Result<Option<(usize, Message)>, Error> {
        let Self { inbox, stage, commands, used, .. } = self;
        poll_fn(|cx| {
            while let Poll::Ready(command) = commands.poll_recv(cx) {
                match command {
                    Some(Command::Decided(epoch)) => stage.on_decided(epoch)?,
                    Some(Command::Barrier(epoch)) => stage.on_announced(epoch),
                    Some(Command::Run) => {}
                    Some(Command::End) | None => return Poll::Ready(Ok(None)),
                }
            }
            if let Poll::Ready(Err(error)) = stage.poll_ready(true, cx) {
                return Poll::Ready(Err(error));
            }
            match inbox.poll_recv(used, cx) {
                Poll::Ready(message) => Poll::Ready(Ok(Some(message))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Until the stage takes the next batch, or it is time to leave. Decisions are passed on meanwhile, for a sink may
    /// be waiting for one. Says how long it was.
    async fn ready(&mut self, all: bool) -> Result<Duration, Error> {
        let Self { stage, commands, leaving, .. } = self;
        let mut wait = Wait::default();
        poll_fn(|cx| {
            while let Poll::Ready(Some(command)) = commands.poll_recv(cx) {
                match command {
                    Command::Decided(epoch) => stage.on_decided(epoch)?,
                    Command::End => *leaving = true,
                    Command::Barrier(epoch) => stage.on_announced(epoch),
                    Command::Run => {}
                }
            }
            let ready = if *leaving { Poll::Ready(Ok(())) } else { wait_busily(&mut **stage, all, cx)? };
            wait.unless(ready)
        })
        .await?;
        Ok(wait.took())
    }

    /// Gives the time when it was done.
    async fn batch(&mut self, lane: usize, mut batch: Box<dyn AnyBatch>) -> Result<Instant, Error> {
        if self.gate.marks().wake(lane) {
            self.time().await?;
        }
        let (records, start) = (batch.len(), clock::now());
        self.stage.on_any(&mut *batch)?;
        self.used = Some((lane, batch));
        let waited = self.ready(false).await?;
        let now = clock::now();
        let took = now.duration_since(start);
        self.context.worked(records, took, waited);
        self.inbox.worked(records, took);
        self.stage.background()?;
        Ok(now)
    }

    async fn barrier(&mut self, lane: usize, epoch: crate::Epoch) -> Result<(), Error> {
        match self.gate.barrier(lane, epoch) {
            Passage::Close => {
                self.aligning.get_or_insert_with(clock::now);
                self.block();
                Ok(())
            }
            _ => {
                self.block();
                let took = self.aligning.take().map_or(0, |since| nanos(clock::since(since)));
                Counters::max(&self.context.counters.alignment_ns_max, took);
                self.ready(true).await?;
                // before the part of this subtask, so that it belongs to the same checkpoint
                if let Some((operator, watermark)) = self.gate.kept() {
                    self.context.reports.send(Report::Gate { operator, watermark });
                }
                self.stage.on_barrier(epoch)
            }
        }
    }

    async fn end(&mut self, lane: usize) -> Result<(), Error> {
        let passage = self.gate.end(lane);
        self.time().await?;
        if passage == Passage::End {
            self.ready(true).await?;
            self.stage.on_end()?;
        }
        Ok(())
    }

    /// Passes on what a lane's watermark, its silence or its end means to the whole, and waits until the stage has done
    /// what follows from it.
    async fn time(&mut self) -> Result<(), Error> {
        while let Some(mark) = self.gate.news() {
            match mark {
                Mark::Watermark(mark) => self.stage.on_watermark(mark)?,
                Mark::Idle => self.stage.on_idle()?,
            }
            self.ready(false).await?;
        }
        self.block();
        Ok(())
    }

    /// Leaves those lanes alone that the gate has closed.
    fn block(&mut self) {
        self.gate.closed().iter().enumerate().for_each(|(lane, closed)| self.inbox.block(lane, *closed));
    }
}

/// Whole nanoseconds; saturates.
pub(crate) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
