//! The loop at a source: reads, takes offsets at barriers, and hands decisions to the reader. The loop of the other
//! subtasks is in `drive.rs`.
//!
//! 1. Opens the reader and assigns its splits; reports ready. Nothing is read before the coordinator says so, for the
//!    first checkpoint has to keep where everything starts.
//! 2. Reads batch by batch. Commands are looked at between polls only, so a barrier never falls into a read.
//! 3. At barrier `n`: takes the offset of each split, reports them, sends the barrier on.
//! 4. At the end of all splits: passes the end on once, reports it, and serves barriers until it is told to leave.
//!
//! What `event_time` has to know of the splits it says in `splits.rs`. The types of a source are known in `reader.rs`.

use super::Life;
use super::drive::{Slice, Wait, wait_busily};
use super::inbox::Cost;
use super::reader::{AnyReader, Opening, Read};
use super::report::{Command, Commands, Counters, Report, StageContext};
use super::splits::Splits;
use super::stage::AnyStage;
use super::suspect::{Suspect, Tally};
use crate::checkpoints::{Part, SplitSnapshot, SplitTime};
use crate::clock;
use crate::guard::guarded;
use crate::operator::{Polled, SourceContext};
use crate::{Epoch, Error};
use futures::FutureExt;
use serde_json::Value;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// A split to read, as it stands in manifests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assignment {
    pub(crate) split: Value,
    /// Where from; none for its start.
    pub(crate) from: Option<Value>,
    /// What it has seen of event time.
    pub(crate) times: Vec<SplitTime>,
}

struct Driver {
    reader: Box<dyn AnyReader>,
    stage: Box<dyn AnyStage>,
    commands: Commands,
    /// Taken from the queue while something else was waited for.
    waiting: VecDeque<Command>,
    /// Decisions the stage knows of and the reader does not.
    unseen: VecDeque<Epoch>,
    leaving: bool,
    /// How many splits there are.
    splits: usize,
    tally: Tally,
    /// What is known of them in event time.
    times: Rc<Splits>,
    /// When a split will be idle that brings nothing until then.
    silence: Option<Instant>,
    running: bool,
    ended: bool,
    /// Whether the coordinator knows that something was read in this epoch.
    told: bool,
    cost: Cost,
    /// How long the batch at hand has waited for the stage.
    waited: Duration,
    room: usize,
    context: StageContext,
}

/// The context a source is given.
pub(crate) fn source_context(cx: &StageContext) -> SourceContext {
    SourceContext {
        job: cx.job.to_string(),
        source: cx.name.to_string(),
        subtask: cx.subtask,
        parallelism: cx.parallelism,
        attempt: cx.attempt,
        traffic: cx.counters.traffic.clone(),
        trouble: cx.counters.trouble.clone(),
        ahead_bytes: cx.ahead_bytes,
    }
}

/// Runs the source that is opened by `open`, until it is told to end.
pub(crate) fn drive_source(
    open: Opening,
    assigned: Vec<Assignment>,
    times: Rc<Splits>,
    stage: Box<dyn AnyStage>,
    commands: Commands,
    context: StageContext,
) -> Life {
    run(open, assigned, times, stage, commands, context).boxed_local()
}

async fn run(
    open: Opening,
    assigned: Vec<Assignment>,
    times: Rc<Splits>,
    stage: Box<dyn AnyStage>,
    commands: Commands,
    context: StageContext,
) -> Result<(), Error> {
    let place = context.place("source");
    let restored = context.first_epoch.saturating_sub(1);
    let suspect = context.suspect.as_ref().filter(|suspect| *suspect.source == *context.name);
    let range = |split: &Value| suspect.filter(|suspect| suspect.split == *split)?.range(restored);
    let suspects = assigned.iter().map(|assigned| range(&assigned.split)).collect();
    let reader = open.await.map_err(|e| Error::from_user(e, &place))?;
    let mut driver = Driver {
        reader,
        stage,
        commands,
        waiting: VecDeque::new(),
        unseen: VecDeque::new(),
        leaving: false,
        splits: assigned.len(),
        tally: Tally::new(restored, suspects),
        times,
        silence: None,
        running: false,
        ended: false,
        told: false,
        cost: Cost::default(),
        waited: Duration::ZERO,
        room: 64,
        context,
    };
    let restored: Vec<_> = assigned.iter().map(|split| split.times.clone()).collect();
    for (number, Assignment { split, from, .. }) in assigned.into_iter().enumerate() {
        let assigned = driver.reader.assign(split, from).map_err(|e| e.at(&place))?.await;
        assigned.map_err(|e| Error::from_user(e, format!("split {}", driver.reader.name(number))).at(&place))?;
    }
    driver.reader.assigned().await.map_err(|e| Error::from_user(e, &place))?;
    driver.times.assign(&restored, clock::now());
    driver.context.reports.send(Report::Ready);
    driver.run().await
}

/// What ended a wait.
enum Woken {
    Command(Command),
    Data,
}

impl Driver {
    async fn run(&mut self) -> Result<(), Error> {
        let mut slice = Slice::new();
        let mut read = Read::default();
        loop {
            while let Some(epoch) = self.unseen.pop_front() {
                self.show(epoch).await;
            }
            while let Some(command) = self.next_command() {
                self.obey(command).await?;
            }
            if self.leaving {
                return Ok(());
            }
            let polled = if self.running && !self.ended {
                let start = clock::now();
                let polled = self.read(&mut read, start).await?;
                let now = clock::now();
                let took = now.duration_since(start);
                self.context.worked(read.records, took, self.waited);
                slice.pass(now).await;
                self.adapt(read.records, took);
                polled
            } else {
                Polled::Later
            };
            match polled {
                Polled::More => {}
                Polled::Finished => self.finish().await?,
                Polled::AtEnd | Polled::Later => {
                    self.ready(true).await?;
                    if self.stage.background()? {
                        tokio::task::yield_now().await;
                    } else if !self.has_something_to_do()
                        && let Woken::Command(command) = self.wait().await?
                    {
                        self.waiting.push_back(command);
                    }
                }
            }
        }
    }

    /// Whether something was taken from the queue while the stage was waited for: nobody will wake this loop for it.
    fn has_something_to_do(&self) -> bool {
        self.leaving || !self.waiting.is_empty() || !self.unseen.is_empty()
    }

    fn next_command(&mut self) -> Option<Command> {
        self.waiting.pop_front().or_else(|| self.commands.try_recv().ok())
    }

    /// Reads a batch and hands it on.
    async fn read(&mut self, read: &mut Read, start: Instant) -> Result<Polled, Error> {
        self.waited = Duration::ZERO;
        let from = self.tally.suspect().map(|split| self.reader.offset(split));
        let (reader, room) = (&mut self.reader, self.tally.room(self.room));
        let poll = || reader.poll(room, read).map_err(|e| Error::from_user(e, self.context.place("source")));
        let polled = guarded(|| self.context.place("source"), poll)?;
        let moved = read.records > 0 || read.moved;
        if moved && !std::mem::replace(&mut self.told, true) {
            self.context.reports.send(Report::Progress);
        }
        if read.records > 0 {
            Counters::add(&self.context.counters.records_in, read.records);
            if let Some(split) = read.split {
                self.times.came(split, start);
            }
            self.hand_on(read, from).await?;
            Counters::add(&self.context.counters.records_out, read.records);
        } else {
            self.ready(false).await?;
        }
        self.note_ends(read, polled, start);
        if read.found {
            self.adopt().await?;
        }
        self.stage.background()?;
        Ok(polled)
    }

    /// Takes splits over that have come into being. The next checkpoint knows where they begin.
    async fn adopt(&mut self) -> Result<(), Error> {
        let adopted = self.reader.adopt().await;
        let adopted = adopted.map_err(|e| Error::from_user(e, self.context.place("source")))?;
        for _ in 0..adopted {
            self.times.add(clock::now());
            self.tally.add();
        }
        self.splits += adopted;
        if adopted > 0 && !std::mem::replace(&mut self.told, true) {
            self.context.reports.send(Report::Progress);
        }
        Ok(())
    }

    /// Hands a batch on, suspects one by one, and waits until the stage takes more. `from` is the offset of the first
    /// record, if that is suspect.
    async fn hand_on(&mut self, read: &Read, from: Option<String>) -> Result<(), Error> {
        let n = read.records;
        match (read.split, from) {
            (Some(split), Some(from)) if self.tally.is_suspect(split) => {
                let mut one = self.reader.batch().fresh();
                for i in 1..=n {
                    self.reader.batch().give(1, &mut *one);
                    let record = if n == 1 { from.clone() } else { format!("{from}, record {i} of {n}") };
                    let done = self.stage.on_any(&mut *one);
                    let done = if done.is_ok() { self.ready(true).await } else { done };
                    done.map_err(|error| self.blame(error, split, 1, Some(record)))?;
                    self.tally.pass(split, 1);
                }
            }
            (Some(split), _) => {
                self.stage.on_any(self.reader.batch()).map_err(|error| self.blame(error, split, n, None))?;
                let done = self.ready(false).await;
                // what the stage has under way need not be of this batch, but most often is
                done.inspect_err(|_| self.report(split, n, None))?;
                self.tally.pass(split, n);
            }
            (None, _) => {
                let done = self.stage.on_any(self.reader.batch());
                done.map_err(|error| error.at(self.context.place("source")))?;
                self.ready(false).await?;
            }
        }
        Ok(())
    }

    /// Says which records an error came from: of a batch, or the one at this offset.
    fn blame(&self, error: Error, split: usize, records: usize, offset: Option<String>) -> Error {
        let place = format!("{}, split {}", self.context.place("source"), self.reader.name(split));
        let error = match &offset {
            Some(offset) => error.at(format!("{place}, offset {offset}")),
            None => error.at(format!("{place}, in the batch that ends at offset {}", self.reader.offset(split))),
        };
        self.report(split, records, offset);
        error
    }

    /// Lets the next attempt know which records to look at one by one.
    fn report(&self, split: usize, records: usize, offset: Option<String>) {
        let name = self.reader.name(split);
        let Some(value) = self.reader.split(split) else { return };
        let source = self.context.name.to_string();
        let record = offset.map(|offset| format!("the record of source `{source}`, split {name}, offset {offset}"));
        let (before, records) = (self.tally.before(split), records as u64);
        self.context.reports.send(Report::Suspect(Suspect { source, split: value, record, before, records }));
    }

    /// Which splits have been read to their end, as of this poll.
    fn note_ends(&mut self, read: &mut Read, polled: Polled, now: Instant) {
        self.silence = None;
        if !self.times.matter() {
            return read.ends.clear();
        }
        let at_end = |split| self.times.at_end(split, now);
        for (split, finished) in read.ends.drain(..) {
            if finished {
                self.times.finished(split);
            } else {
                self.silence = self.silence.into_iter().chain(at_end(split)).min();
            }
        }
        if polled == Polled::AtEnd {
            self.silence = (0..self.splits).filter_map(at_end).min();
        }
    }

    /// Batches shrink so that a barrier never waits long for the one under way.
    fn adapt(&mut self, records: usize, took: Duration) {
        if let Some(allowed) = self.cost.measured(records, took, 1) {
            self.room = (allowed / 2).clamp(1, crate::record::BATCH);
        }
    }

    async fn finish(&mut self) -> Result<(), Error> {
        self.ready(true).await?;
        self.stage.on_end()?;
        self.ended = true;
        self.context.reports.send(Report::Ended(self.context.participant));
        Ok(())
    }

    async fn obey(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Run => self.running = true,
            Command::Barrier(epoch) => self.barrier(epoch).await?,
            Command::Decided(epoch) => {
                self.stage.on_decided(epoch)?;
                self.show(epoch).await;
            }
            Command::End => self.leaving = true,
        }
        Ok(())
    }

    async fn barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.stage.on_announced(epoch);
        self.ready(true).await?;
        let part = |(split, (value, offset))| SplitSnapshot {
            split: value,
            offset,
            finished: self.ended,
            times: self.times.snapshot(split),
        };
        let offsets = self.reader.keep(epoch, &self.context.place("source"))?;
        let splits = offsets.into_iter().enumerate().map(part).collect();
        self.stage.on_barrier(epoch)?;
        self.tally.barrier(epoch);
        self.told = false;
        let (participant, name) = (self.context.participant, self.context.name.to_string());
        self.context.reports.send(Report::Part { participant, epoch, part: Part::Source { name, splits } });
        Ok(())
    }

    /// Lets the reader know what has been decided.
    async fn show(&mut self, epoch: Epoch) {
        self.tally.decided(epoch);
        self.reader.decided(epoch).await;
    }

    /// Until the stage takes the next batch, or it is time to leave. Decisions are passed on meanwhile, for a sink may
    /// be waiting for one; other commands are kept.
    async fn ready(&mut self, all: bool) -> Result<(), Error> {
        let Self { stage, commands, waiting, unseen, leaving, .. } = self;
        let mut wait = Wait::default();
        poll_fn(|cx| {
            while let Poll::Ready(Some(command)) = commands.poll_recv(cx) {
                match command {
                    Command::Decided(epoch) => {
                        stage.on_decided(epoch)?;
                        unseen.push_back(epoch);
                    }
                    Command::End => *leaving = true,
                    other => {
                        if let Command::Barrier(epoch) = other {
                            stage.on_announced(epoch);
                        }
                        waiting.push_back(other);
                    }
                }
            }
            let ready = if *leaving { Poll::Ready(Ok(())) } else { wait_busily(&mut **stage, all, cx)? };
            wait.unless(ready)
        })
        .await?;
        self.waited += wait.took();
        Ok(())
    }

    /// Waits for a command or for data, while what the stage has under way goes on; and no longer than until a split
    /// becomes idle.
    async fn wait(&mut self) -> Result<Woken, Error> {
        let silence = self.silence.filter(|_| self.running && !self.ended).map(tokio::time::Instant::from_std);
        match silence {
            None => self.arrival().await,
            Some(until) => tokio::time::timeout_at(until, self.arrival()).await.unwrap_or(Ok(Woken::Data)),
        }
    }

    async fn arrival(&mut self) -> Result<Woken, Error> {
        let Self { reader, stage, commands, running, ended, .. } = self;
        let reading = *running && !*ended;
        let mut data = pin!(reader.ready());
        poll_fn(|cx| {
            if let Poll::Ready(command) = commands.poll_recv(cx) {
                // the sender is gone only when the attempt is being torn down
                return Poll::Ready(Ok(Woken::Command(command.unwrap_or(Command::End))));
            }
            if let Poll::Ready(Err(error)) = stage.poll_ready(true, cx) {
                return Poll::Ready(Err(error));
            }
            if reading && data.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(Woken::Data));
            }
            Poll::Pending
        })
        .await
    }
}
