//! [`TestDriver`]: a topology under test. What stands in for sources and sinks is in `topology/stand_in.rs`, what runs
//! between them is what runs in a job.

use super::done;
use super::rig::Rig;
use crate::record::AnyBatch;
use crate::runtime::Solo;
use crate::subtask::{Kept, Life, Mark};
use crate::topology::{Graph, Kind, Plan, RecordType, Told, keeper, listener};
use crate::{Batch, BoxError, Error, ErrorKind, Job, Record, Timestamp, Topology};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::any::{TypeId, type_name};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Runs a topology in the calling thread. Every source and sink is replaced by the test's own, by name; what is between
/// them runs as in a job. See the [module](super) for how a test is written.
///
/// Each call returns when all it has caused has happened: the same calls give the same results in the same order. Time
/// of day begins with 1970 and moves in [`advance`](Self::advance) only. Nothing is read or written, and state is in
/// memory. Every operator has one subtask, unless the topology or the job says otherwise.
///
/// What fails, whether a mistake of the topology, an error of user code or a name that is not there, panics at the
/// line of the test; so do panics of user code, with their own message. After an error the driver is of no more use.
///
/// It has a runtime of its own, so it cannot be used from within an `async` test.
pub struct TestDriver {
    rig: Rig,
    lives: FuturesUnordered<Life>,
    /// How often a life was polled.
    polled: Rc<Cell<u64>>,
    solo: Solo,
    sources: BTreeMap<String, SourceEnd>,
    sinks: BTreeMap<String, SinkEnd>,
    /// What ended it.
    failed: Option<String>,
}

struct SourceEnd {
    told: Told,
    records: RecordType,
    /// Its records carry event times.
    timed: bool,
    /// Something behind it makes watermarks.
    marked: bool,
}

struct SinkEnd {
    node: usize,
    records: RecordType,
    kept: Kept,
}

impl fmt::Debug for TestDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sources, sinks) = (self.sources.keys(), self.sinks.keys());
        f.debug_struct("TestDriver").field("sources", &sources).field("sinks", &sinks).finish_non_exhaustive()
    }
}

impl TestDriver {
    /// A topology without settings.
    ///
    /// # Panics
    /// When the topology is wrong, with what to write.
    #[track_caller]
    pub fn new(topology: impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static) -> Self {
        Self::of(&Job::new("test", topology))
    }

    /// The topology of a job, with what [`Job::config`] gives it; of its other settings only
    /// [`Job::parallelism`] counts.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[track_caller]
    pub fn of(job: &Job) -> Self {
        done(Self::try_of(job))
    }

    /// As [`of`](Self::of), for tests of what is wrong with a topology.
    ///
    /// # Errors
    /// What is wrong with it, with what to write.
    pub fn try_of(job: &Job) -> Result<Self, Error> {
        let mut graph = job.graph()?;
        let (sources, sinks) = replace(&mut graph);
        let plan = Plan::new(graph, job.settings.parallelism.unwrap_or(1));
        let rig = Rig::new()?;
        let (solo, lives) = rig.within(|| Solo::start(&job.name, plan, &job.settings))?;
        let polled = Rc::new(Cell::new(0));
        let counted = |mut life: Life| {
            let polled = polled.clone();
            let life: Life = Box::pin(poll_fn(move |cx| {
                polled.set(polled.get() + 1);
                life.as_mut().poll(cx)
            }));
            life
        };
        let lives = lives.into_iter().map(counted).collect();
        let mut driver = Self { rig, lives, polled, solo, sources, sinks, failed: None };
        driver.settle()?;
        Ok(driver)
    }

    /// The test's end of a source.
    ///
    /// # Panics
    /// When there is no source of that name.
    #[track_caller]
    pub fn source(&mut self, name: &str) -> TestSource<'_> {
        if !self.sources.contains_key(name) {
            unknown("source", name, self.sources.keys());
        }
        TestSource { driver: self, name: name.into() }
    }

    /// Takes the values that have reached a sink since the last call, in the order in which they came.
    ///
    /// # Panics
    /// When there is no sink of that name, or its records are of another type.
    #[track_caller]
    pub fn take<T: 'static>(&mut self, sink: &str) -> Vec<T> {
        self.take_records(sink).into_iter().map(|record| record.value).collect()
    }

    /// As [`take`](Self::take), with the event time of each record: [`Timestamp::MIN`] in streams without event time.
    ///
    /// # Panics
    /// As [`take`](Self::take).
    #[track_caller]
    pub fn take_records<T: 'static>(&mut self, sink: &str) -> Vec<Record<T>> {
        let SinkEnd { records, kept, .. } = self.sink(sink);
        if records.id != TypeId::of::<T>() {
            panic!("the records of sink `{sink}` are `{}`, not `{}`", records.name, type_name::<T>());
        }
        kept.take()
    }

    /// The watermark that has reached a sink: [`Timestamp::MIN`] as long as there was none, [`Timestamp::MAX`] when all
    /// that leads to it has ended.
    ///
    /// # Panics
    /// When there is no sink of that name.
    #[track_caller]
    #[must_use]
    pub fn watermark(&self, sink: &str) -> Timestamp {
        self.solo.watermark(self.sink(sink).node)
    }

    /// Lets time of day pass, and what is due meanwhile happen at its time: timers of processing time, time-outs, a
    /// source that becomes idle. In whole milliseconds, rounded up.
    ///
    /// # Panics
    /// When user code fails.
    #[track_caller]
    pub fn advance(&mut self, by: Duration) -> &mut Self {
        done(self.try_advance(by));
        self
    }

    /// The time of day by the clock that [`advance`](Self::advance) moves; it began with 1970.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.rig.now()
    }

    /// Ends all sources that have not ended: their watermarks come to [`Timestamp::MAX`], and all timers of event time
    /// fire.
    ///
    /// # Panics
    /// When user code fails.
    #[track_caller]
    pub fn end(&mut self) {
        let open: Vec<_> =
            self.sources.iter().filter(|(_, end)| end.told.batches.is_some()).map(|(name, _)| name.clone()).collect();
        for name in open {
            self.source(&name).end();
        }
    }

    #[track_caller]
    fn sink(&self, name: &str) -> &SinkEnd {
        self.sinks.get(name).unwrap_or_else(|| unknown("sink", name, self.sinks.keys()))
    }

    fn try_advance(&mut self, by: Duration) -> Result<(), Error> {
        self.run(|rig, turn| rig.advance(by, turn))
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.run(|rig, turn| rig.settle(turn))
    }

    fn run(
        &mut self,
        f: impl FnOnce(&Rig, &mut dyn FnMut(&mut Context<'_>) -> Result<bool, Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(text) = &self.failed {
            return Err(Error::new(ErrorKind::Failed, format!("this run has failed before: {text}")));
        }
        let Self { rig, lives, polled, .. } = self;
        let result = f(rig, &mut |cx| {
            let before = polled.get();
            while let Poll::Ready(Some(ended)) = lives.poll_next_unpin(cx) {
                ended?;
            }
            Ok(polled.get() > before)
        });
        self.failed = result.as_ref().err().map(ToString::to_string);
        result
    }
}

/// The test's end of a source. Each call returns when what it has caused has happened.
#[derive(Debug)]
pub struct TestSource<'a> {
    driver: &'a mut TestDriver,
    name: String,
}

impl TestSource<'_> {
    /// A record of the type the source gives, after decoding: of `Files::read(..).json::<T>()` a `T`. From a source
    /// that carries event times it comes at the time of day; where the topology takes the time from the record, that
    /// holds.
    ///
    /// # Panics
    /// When the source gives another type or has ended; when user code fails.
    #[track_caller]
    pub fn push<T: Send + 'static>(&mut self, value: T) -> &mut Self {
        done(self.try_push(value))
    }

    /// Several records, one after the other: what one causes has happened before the next one comes.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    #[track_caller]
    pub fn push_all<T: Send + 'static>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self {
        for value in values {
            self.push(value);
        }
        self
    }

    /// A record with its event time, for sources that carry them.
    ///
    /// # Panics
    /// As [`push`](Self::push); when the source carries no event times: then they are in the records, or nowhere.
    #[track_caller]
    pub fn push_at<T: Send + 'static>(&mut self, time: Timestamp, value: T) -> &mut Self {
        if !self.end_of().timed {
            let name = &self.name;
            panic!("source `{name}` carries no event times: push records from which `event_time` can take them");
        }
        done(self.give(Record { value, time }))
    }

    /// As [`push`](Self::push), for tests of what fails.
    ///
    /// # Errors
    /// That of user code, with its place.
    ///
    /// # Panics
    /// When the source gives another type or has ended.
    #[track_caller]
    pub fn try_push<T: Send + 'static>(&mut self, value: T) -> Result<&mut Self, Error> {
        let time = self.driver.now();
        self.give(Record { value, time })
    }

    /// A watermark: no record of this time or older is expected any more. It comes in addition to those that the
    /// topology makes of the records: whichever is later holds, and none goes back.
    ///
    /// # Panics
    /// When the topology makes no watermarks of this source, or it has ended; when user code fails.
    #[track_caller]
    pub fn watermark(&mut self, at: Timestamp) -> &mut Self {
        self.mark(Mark::Watermark(at))
    }

    /// Nothing comes for now: until the next record or watermark others do not wait for the watermark of this source.
    /// Without it, that is so when the time of [`Watermarks::idle_after`](crate::Watermarks::idle_after) has
    /// [passed](TestDriver::advance).
    ///
    /// # Panics
    /// As [`watermark`](Self::watermark).
    #[track_caller]
    pub fn idle(&mut self) -> &mut Self {
        self.mark(Mark::Idle)
    }

    /// No record follows.
    ///
    /// # Panics
    /// When the source has ended before; when user code fails.
    #[track_caller]
    pub fn end(&mut self) {
        self.open();
        self.end_of().told.batches = None;
        done(self.driver.settle());
    }

    fn end_of(&mut self) -> &mut SourceEnd {
        match self.driver.sources.get_mut(&self.name) {
            Some(end) => end,
            None => unreachable!("`TestDriver::source` has looked"),
        }
    }

    #[track_caller]
    fn give<T: Send + 'static>(&mut self, record: Record<T>) -> Result<&mut Self, Error> {
        let SourceEnd { records, timed, .. } = *self.end_of();
        if records.id != TypeId::of::<T>() {
            panic!("source `{}` gives records of type `{}`, not `{}`", self.name, records.name, type_name::<T>());
        }
        let mut batch = Batch::from(vec![record.value]);
        batch.times.extend(timed.then_some(record.time));
        // nobody listens any more after a failure, which is then said again
        let _ = self.open().send(Box::new(batch));
        self.driver.settle()?;
        Ok(self)
    }

    #[track_caller]
    fn mark(&mut self, mark: Mark) -> &mut Self {
        self.open();
        let SourceEnd { told, marked, .. } = self.end_of();
        if !*marked {
            panic!("no `event_time` follows source `{}`, so nothing makes use of its watermarks", self.name);
        }
        let _ = told.marks.send(mark);
        done(self.driver.settle());
        self
    }

    /// Of a source that has not ended.
    #[track_caller]
    fn open(&mut self) -> &UnboundedSender<Box<dyn AnyBatch>> {
        let Self { driver, name } = self;
        let records = driver.sources.get(name).and_then(|end| end.told.batches.as_ref());
        records.unwrap_or_else(|| panic!("source `{name}` has ended"))
    }
}

/// Puts the test's own in place of all sources and sinks.
fn replace(graph: &mut Graph) -> (BTreeMap<String, SourceEnd>, BTreeMap<String, SinkEnd>) {
    let (mut sources, mut sinks) = (BTreeMap::new(), BTreeMap::new());
    for node in 0..graph.nodes.len() {
        let spec = &graph.nodes[node];
        let name = spec.name.clone().unwrap_or_default();
        match &spec.kind {
            Kind::Source(_) => {
                let (records, timed) = (spec.outs[0].record_type(), spec.timed);
                let (source, told) = listener();
                let of_it = |at: &usize| graph.sources_of(*at).contains(&node);
                let marked =
                    graph.nodes.iter().enumerate().any(|(at, n)| matches!(n.kind, Kind::EventTime(_)) && of_it(&at));
                sources.insert(name, SourceEnd { told, records, timed, marked });
                graph.nodes[node].kind = Kind::Source(source);
                graph.nodes[node].parallelism = Some(1);
            }
            Kind::Sink(_) => {
                let (sink, kept) = keeper();
                let input = spec.inputs[0];
                let records = graph.nodes[input.node].outs[input.port].record_type();
                sinks.insert(name, SinkEnd { node, records, kept });
                graph.nodes[node].kind = Kind::Sink(sink);
            }
            _ => {}
        }
    }
    (sources, sinks)
}

#[track_caller]
fn unknown<'a>(what: &str, name: &str, have: impl Iterator<Item = &'a String>) -> ! {
    let have: Vec<_> = have.map(|name| format!("`{name}`")).collect();
    let have = if have.is_empty() { "none".into() } else { have.join(", ") };
    panic!("there is no {what} `{name}` in this topology; it has {have}")
}
