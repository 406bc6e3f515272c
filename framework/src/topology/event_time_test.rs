//! Event time over the whole engine, looked at from within: probes in every subtask write down what passes them, and
//! the test compares that with what the source gave. What splits, gates and writers do by themselves is tested beside
//! them.

use super::graph::{Kind, Link};
use super::node::{OperatorNode, Outputs};
use super::stream::{NewNode, Stream, Topology};
use crate::operator::{
    Context as Cx, Operator, Output, Polled, Process, Source, SourceContext, SourceReader, SplitBatch, Watermarks,
};
use crate::state::{EventTimer, State};
use crate::subtask::{self, AnyStage, Stage, StageContext};
use crate::{Attempt, Batch, BoxError, Epoch, Error, Job, RestartPolicy, Timestamp, clock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How far a record may be behind a newer one of its split, in milliseconds.
const BOUND: i64 = 50;

/// So many records of a split make sure that there is a watermark.
const FAR: u64 = 50;

/// A split and a time.
type Event = (u64, i64);

/// A source of splits whose times grow with some disorder.
#[derive(Clone)]
struct Disorder {
    splits: u64,
    records: u64,
    control: Arc<Control>,
}

/// What the test tells its source.
#[derive(Default)]
struct Control {
    /// Split 0 stays at its end after ten records, and does not finish before this is said.
    quiet: AtomicBool,
    /// A poll fails, once, when so many readers know that a decided checkpoint has [`FAR`] records of each split; 0 for
    /// never.
    fails_after: AtomicUsize,
    far: AtomicUsize,
}

/// The time of a record: it grows, but by up to [`BOUND`] it may be less than that of one before.
fn time_of(split: u64, offset: u64) -> i64 {
    let noise = (split * 31 + offset).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (offset * 7 + split * 100) as i64 - (noise % BOUND as u64) as i64
}

impl Source for Disorder {
    type Reader = DisorderReader;
    async fn splits(&self, _: &[u64]) -> Result<Vec<u64>, BoxError> {
        Ok((0..self.splits).collect())
    }
    async fn open(&self, _: &SourceContext) -> Result<DisorderReader, BoxError> {
        Ok(DisorderReader { of: self.clone(), lanes: Vec::new(), next: 0, far: false })
    }
}

struct DisorderReader {
    of: Disorder,
    lanes: Vec<(u64, u64)>,
    next: usize,
    far: bool,
}

impl SourceReader for DisorderReader {
    type Record = Event;
    type Split = u64;
    type Offset = u64;
    async fn assign(&mut self, split: u64, from: Option<u64>) -> Result<u64, BoxError> {
        self.lanes.push((split, from.unwrap_or(0)));
        Ok(from.unwrap_or(0))
    }
    async fn ready(&mut self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fn poll(&mut self, out: &mut SplitBatch<Event, u64>) -> Result<Polled, BoxError> {
        let Disorder { records, control, .. } = &self.of;
        let fails_after = control.fails_after.load(SeqCst);
        if fails_after > 0 && control.far.load(SeqCst) >= fails_after {
            control.fails_after.store(0, SeqCst);
            return Err("as the test wants it".into());
        }
        let quiet = control.quiet.load(SeqCst);
        let mut waits = false;
        for _ in 0..self.lanes.len() {
            self.next = (self.next + 1) % self.lanes.len();
            let (split, offset) = &mut self.lanes[self.next];
            let end = if *split == 0 && quiet { 10 } else { *records };
            if *offset >= end {
                waits |= end < *records;
                continue;
            }
            let until = (*offset + 1 + *offset % 7).min(end);
            out.of(split);
            out.values().extend((*offset..until).map(|offset| (*split, time_of(*split, offset))));
            *offset = until;
            if until == *records {
                out.finished(split);
            }
            return Ok(if waits || fails_after > 0 { Polled::Later } else { Polled::More });
        }
        Ok(if waits { Polled::AtEnd } else { Polled::Finished })
    }
    fn offset(&self, split: &u64) -> Result<u64, BoxError> {
        self.lanes.iter().find(|lane| lane.0 == *split).map(|lane| lane.1).ok_or_else(|| "unknown".into())
    }
    async fn decided(&mut self, offsets: &[(u64, u64)]) {
        if !self.far && offsets.iter().all(|(_, offset)| *offset >= FAR) {
            self.far = true;
            self.of.control.far.fetch_add(1, SeqCst);
        }
    }
}

/// What passes a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Record(Event),
    Watermark(Timestamp),
    Idle,
    Barrier(Epoch),
    End,
}

/// By attempt, place and subtask.
#[derive(Debug, Default)]
struct Log(Mutex<BTreeMap<(Attempt, &'static str, usize), (Epoch, Vec<Seen>)>>);

impl Log {
    fn add(&self, place: &'static str, cx: &StageContext, seen: impl IntoIterator<Item = Seen>) {
        let mut log = self.0.lock().unwrap();
        let entry = log.entry((cx.attempt, place, cx.subtask)).or_insert((cx.first_epoch, Vec::new()));
        entry.1.extend(seen);
    }

    /// What was seen at a place, by attempt in the order of first epochs, and by subtask.
    fn at(&self, place: &str) -> Vec<(Epoch, Vec<Vec<Seen>>)> {
        let mut attempts: BTreeMap<_, (Epoch, Vec<Vec<Seen>>)> = BTreeMap::new();
        for ((attempt, _, _), (first, seen)) in self.0.lock().unwrap().iter().filter(|((_, at, _), _)| *at == place) {
            attempts.entry(*attempt).or_insert((*first, Vec::new())).1.push(seen.clone());
        }
        let mut all: Vec<_> = attempts.into_values().collect();
        all.sort_by_key(|(first, _)| *first);
        all
    }

    fn saw(&self, place: &str, what: impl Fn(&Seen) -> bool) -> bool {
        self.at(place).iter().flat_map(|(_, subtasks)| subtasks).flatten().any(what)
    }
}

struct Probe {
    place: &'static str,
    log: Arc<Log>,
}

struct ProbeStage {
    place: &'static str,
    log: Arc<Log>,
    next: Box<dyn AnyStage>,
    context: StageContext,
}

impl OperatorNode for Probe {
    fn stage(&self, next: Outputs, cx: &StageContext) -> Result<Box<dyn AnyStage>, Error> {
        let next = next.stage()?;
        Ok(Box::new(ProbeStage { place: self.place, log: self.log.clone(), next, context: cx.clone() }))
    }
}

impl Stage for ProbeStage {
    type In = Event;
    fn on_batch(&mut self, batch: &mut Batch<Event>) -> Result<(), Error> {
        assert_eq!(batch.values.len(), batch.times.len(), "every record has its time");
        for (value, time) in batch.values.iter().zip(&batch.times) {
            assert_eq!(value.1, time.as_millis());
        }
        self.log.add(self.place, &self.context, batch.values.iter().map(|event| Seen::Record(*event)));
        self.next.on_any(batch)
    }
}

impl subtask::Control for ProbeStage {
    fn next(&mut self) -> &mut dyn subtask::Control {
        &mut *self.next
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.log.add(self.place, &self.context, [Seen::Watermark(mark)]);
        self.next.on_watermark(mark)
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.log.add(self.place, &self.context, [Seen::Idle]);
        self.next.on_idle()
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.log.add(self.place, &self.context, [Seen::Barrier(epoch)]);
        self.next.on_barrier(epoch)
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.log.add(self.place, &self.context, [Seen::End]);
        self.next.on_end()
    }
}

fn probe(stream: Stream<Event>, place: &'static str, log: &Arc<Log>) -> Stream<Event> {
    let (topology, port) = stream.into_parts();
    let kind = Kind::Chain(Arc::new(Probe { place, log: log.clone() }));
    let new = NewNode { name: None, what: "probe", kind, inputs: vec![port], link: Link::Direct };
    topology.add(new, true)
}

/// Hands on what it gets.
struct Pass;
impl Process for Pass {
    type Key = u64;
    type In = Event;
    type Out = Event;
    type State = ();
    fn on_record(&self, event: Event, _: &mut (), cx: &mut Cx<'_, u64, Event>) -> Result<(), BoxError> {
        cx.emit(event);
        Ok(())
    }
}

/// As an operator without keys.
struct Forward;
impl Operator for Forward {
    type In = Event;
    type Out = Event;
    type Item = ();
    async fn on_batch(
        &mut self,
        batch: Batch<Event>,
        _: &mut Vec<()>,
        out: &mut Output<Event>,
    ) -> Result<(), BoxError> {
        batch.into_records().for_each(|record| out.emit(record));
        Ok(())
    }
}

const PLACES: [&str; 4] = ["source", "keyed", "far", "behind"];

/// A source, and behind it probes: in its subtasks, behind an exchange by key, behind another exchange, and behind one
/// that follows an operator without keys.
fn job(directory: &Path, parallelism: usize, source: Disorder, idle_after: Duration, log: &Arc<Log>) -> Job {
    let log = log.clone();
    let topology = move |t: &Topology| {
        let bound = Watermarks::bounded(Duration::from_millis(BOUND as u64)).idle_after(idle_after);
        let events =
            t.source("events", source.clone()).filter(|_| true).event_time(|e| Timestamp::from_millis(e.1), bound);
        let events = probe(events, PLACES[0], &log).key_by_value(|e| e.1 as u64 % 16).process("pass", Pass);
        let events = probe(events, PLACES[1], &log).rebalance().operator("forward", || Forward);
        let events = probe(events, PLACES[2], &log).key_by_value(|e| e.1 as u64 % 16).process("again", Pass);
        probe(events, PLACES[3], &log).discard();
        Ok(())
    };
    Job::new("times", topology)
        .data_dir(directory)
        .parallelism(parallelism)
        .workers(2)
        .checkpoint_interval(Duration::from_millis(5))
        .restart(RestartPolicy::never())
}

fn disorder(splits: u64, records: u64) -> Disorder {
    Disorder { splits, records, control: Arc::default() }
}

/// Nothing that passed here was covered by a watermark before it, watermarks grow, and the last one is the end.
fn no_watermark_overtakes(seen: &[Seen]) {
    let mut told = Timestamp::MIN;
    for (i, event) in seen.iter().enumerate() {
        match event {
            Seen::Record((split, time)) => {
                assert!(Timestamp::from_millis(*time) > told, "split {split} at {time} after {told:?}, as no. {i}");
            }
            Seen::Watermark(mark) => {
                assert!(*mark > told, "{mark:?} after {told:?}");
                told = *mark;
            }
            _ => {}
        }
    }
}

fn runs_to_the_end(parallelism: usize) {
    let (directory, log) = (tempfile::tempdir().unwrap(), Arc::<Log>::default());
    let (splits, records) = (5, 3000);
    job(directory.path(), parallelism, disorder(splits, records), Duration::from_secs(30), &log).run().unwrap();
    for place in PLACES {
        let attempts = log.at(place);
        assert_eq!((attempts.len(), attempts[0].1.len()), (1, parallelism));
        let mut all = Vec::new();
        for seen in &attempts[0].1 {
            no_watermark_overtakes(seen);
            let marks: Vec<_> =
                seen.iter().filter_map(|s| if let Seen::Watermark(m) = s { Some(*m) } else { None }).collect();
            assert_eq!(marks.last(), Some(&Timestamp::MAX));
            assert!(marks.len() > 10 || seen.len() < 100, "{} watermarks at {place}", marks.len());
            let end = seen.iter().position(|s| *s == Seen::End).unwrap();
            assert!(seen.iter().position(|s| *s == Seen::Watermark(Timestamp::MAX)).unwrap() < end);
            assert!(!seen[end..].iter().any(|s| matches!(s, Seen::Record(_) | Seen::Watermark(_))));
            all.extend(seen.iter().filter_map(|s| if let Seen::Record(event) = s { Some(*event) } else { None }));
        }
        all.sort_unstable();
        let mut expected: Vec<_> =
            (0..splits).flat_map(|split| (0..records).map(move |offset| (split, time_of(split, offset)))).collect();
        expected.sort_unstable();
        assert_eq!(all, expected, "at {place}");
    }
}

#[test]
fn no_record_within_the_bound_is_overtaken() {
    [1, 2, 4].into_iter().for_each(runs_to_the_end);
}

/// Runs a job whose split 0 falls silent, until `enough` holds, and then to its end.
fn with_a_quiet_split(parallelism: usize, idle_after: Duration, enough: impl Fn(&Log) -> bool) -> Arc<Log> {
    let (directory, log) = (tempfile::tempdir().unwrap(), Arc::<Log>::default());
    let source = disorder(3, 1000);
    source.control.quiet.store(true, SeqCst);
    let job = job(directory.path(), parallelism, source.clone(), idle_after, &log);
    std::thread::scope(|scope| {
        #[allow(clippy::disallowed_methods, reason = "a test")]
        let running = scope.spawn(|| job.run());
        let deadline = clock::now() + Duration::from_secs(60);
        while !enough(&log) && !running.is_finished() && clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let was_enough = enough(&log);
        source.control.quiet.store(false, SeqCst);
        running.join().unwrap().unwrap();
        assert!(was_enough, "what was waited for has not come");
    });
    log
}

/// Later than all that the quiet split brings before it falls silent.
fn is_beyond(seen: &Seen) -> bool {
    matches!(seen, Seen::Watermark(mark) if mark.as_millis() > time_of(0, 9) + 2 * BOUND)
}

#[test]
fn an_idle_split_holds_nobody_back() {
    for parallelism in [1, 3] {
        let log = with_a_quiet_split(parallelism, Duration::from_millis(20), |log| log.saw(PLACES[2], is_beyond));
        let of_quiet = |seen: &Seen| matches!(seen, Seen::Record((0, _)));
        let records =
            log.at(PLACES[2]).iter().flat_map(|(_, subtasks)| subtasks).flatten().filter(|s| of_quiet(s)).count();
        assert_eq!(records, 1000, "what comes later is late and not lost");
        assert!(log.saw(PLACES[0], |seen| *seen == Seen::Idle), "the subtask of this split has no other, or none left");
    }
}

#[test]
fn a_split_that_has_caught_up_holds_the_others_back() {
    let log = with_a_quiet_split(3, Duration::from_hours(1), |log| {
        let others = |seen: &&Seen| matches!(seen, Seen::Record((1 | 2, _)));
        let all = log.at(PLACES[2]);
        let read = all.iter().flat_map(|(_, subtasks)| subtasks).flatten().filter(others).count();
        assert!(read == 2000 || !log.saw(PLACES[2], is_beyond));
        read == 2000
    });
    assert!(log.saw(PLACES[2], is_beyond), "at the end nothing holds back");
    log.at(PLACES[2]).iter().flat_map(|(_, subtasks)| subtasks).for_each(|seen| no_watermark_overtakes(seen));
}

/// The last watermark before something was seen.
fn watermark_before(seen: &[Seen], what: Seen) -> Timestamp {
    let until = seen.iter().position(|s| *s == what).unwrap();
    let mark = |s: &Seen| if let Seen::Watermark(mark) = s { Some(*mark) } else { None };
    seen[..until].iter().rev().find_map(mark).unwrap_or(Timestamp::MIN)
}

#[test]
fn a_restart_goes_on_with_the_watermarks_of_the_checkpoint() {
    for (before, after) in [(1, 1), (2, 2), (3, 2), (1, 4)] {
        let (directory, log) = (tempfile::tempdir().unwrap(), Arc::<Log>::default());
        let source = disorder(4, 5000);
        source.control.fails_after.store(before, SeqCst);
        let run = |parallelism| job(directory.path(), parallelism, source.clone(), Duration::from_secs(30), &log).run();
        run(before).unwrap_err();
        run(after).unwrap();
        for place in PLACES {
            let [(_, first), (epoch, second)] = &log.at(place)[..] else { panic!("two attempts") };
            let kept: Vec<_> = first.iter().map(|seen| watermark_before(seen, Seen::Barrier(epoch - 1))).collect();
            let least = *kept.iter().min().unwrap();
            assert!(least > Timestamp::MIN);
            for (subtask, seen) in second.iter().enumerate() {
                let Seen::Watermark(mark) = seen[0] else { panic!("{:?} before any watermark", seen[0]) };
                assert!(mark >= least, "{mark:?} after {least:?}");
                if place != PLACES[0] {
                    assert!(kept.iter().all(|kept| *kept == mark), "{place}: {mark:?} after {kept:?}");
                } else if before == after {
                    assert_eq!(mark, kept[subtask]);
                }
                no_watermark_overtakes(seen);
            }
        }
    }
}

/// A gate does not go back when a lane that was idle brings something again, and far behind the others at that: nor
/// does it in the next life, though by what is known of the splits it might have been there.
#[test]
fn a_restart_takes_no_gate_back_to_where_a_split_is_that_was_idle() {
    let ahead = Timestamp::from_millis(time_of(0, 10 * FAR));
    for after in [3, 2] {
        let (directory, log) = (tempfile::tempdir().unwrap(), Arc::<Log>::default());
        let source = disorder(3, 20_000);
        source.control.quiet.store(true, SeqCst);
        source.control.fails_after.store(3, SeqCst);
        let job = |parallelism| job(directory.path(), parallelism, source.clone(), Duration::from_millis(20), &log);
        std::thread::scope(|scope| {
            #[allow(clippy::disallowed_methods, reason = "a test")]
            let running = scope.spawn(|| job(3).run());
            let is_ahead = |seen: &Seen| matches!(seen, Seen::Watermark(mark) if *mark > ahead);
            let deadline = clock::now() + Duration::from_secs(60);
            while !PLACES[1..].iter().all(|place| log.saw(place, is_ahead)) && clock::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            source.control.quiet.store(false, SeqCst);
            assert!(running.join().unwrap().is_err());
        });
        job(after).run().unwrap();
        for place in &PLACES[1..] {
            let [(_, first), (epoch, second)] = &log.at(place)[..] else { panic!("two attempts") };
            let kept: Vec<_> = first.iter().map(|seen| watermark_before(seen, Seen::Barrier(epoch - 1))).collect();
            // gates differ a little, for each sees for itself when a lane is idle
            let least = *kept.iter().min().unwrap();
            assert!(least > ahead, "{place}: {kept:?}");
            for seen in second {
                assert_eq!(seen[0], Seen::Watermark(least), "{place}: after {kept:?}");
            }
        }
    }
}

/// What is said of a topology, with places left out.
fn mistakes(build: impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static) -> Vec<String> {
    let Err(error) = Job::new("mistakes", build).plan() else { return Vec::new() };
    let text = error.to_string();
    text.lines()
        .map(|line| {
            line.split(file!())
                .enumerate()
                .map(|(i, part)| {
                    let rest = part.trim_start_matches(|c: char| i > 0 && (c == ':' || c.is_ascii_digit()));
                    if i > 0 { format!("HERE{rest}") } else { rest.to_owned() }
                })
                .collect()
        })
        .collect()
}

fn at(event: &Event) -> Timestamp {
    Timestamp::from_millis(event.1)
}

#[test]
fn times_are_set_where_splits_are_known() {
    let exchange = "`event_time` at HERE comes after an exchange, where the splits of the source are no longer known: \
                    move it up, before the first `key_by`, `union` or `rebalance`";
    let found = mistakes(|t| {
        let events = t.source("events", disorder(1, 1));
        let keyed = events.clone().key_by(|e| &e.0).process("pass", Pass);
        keyed.event_time(at, Watermarks::monotonous()).discard();
        events.clone().rebalance().map(|e| e).event_time(at, Watermarks::monotonous()).discard();
        events.clone().union(events.clone()).event_time(at, Watermarks::monotonous()).discard();
        events.clone().operator("late", || Forward).event_time(at, Watermarks::monotonous()).discard();
        events.map(|e| e).boxed().parallelism(3).event_time(at, Watermarks::monotonous()).discard();
        Ok(())
    });
    let parallelism = "`event_time` at HERE comes after a change of parallelism, where the splits of the source are no \
                       longer known: move it up, and `parallelism` down, behind it";
    let operator = "`event_time` at HERE comes after the operator at HERE, where the splits of the source are no \
                    longer known: move it up, before `late`";
    assert_eq!(found, [exchange, exchange, exchange, operator, parallelism]);
    let none = mistakes(|t| {
        let events = t.source("events", disorder(1, 1)).parallelism(2);
        let (events, late) = events.map(Ok::<Event, Event>).split();
        events.event_time(at, Watermarks::monotonous()).event_time(at, Watermarks::monotonous()).discard();
        late.discard();
        Ok(())
    });
    assert_eq!(none, Vec::<String>::new());
}

#[test]
fn who_needs_event_time_has_it() {
    let found = mistakes(|t| {
        let (one, two) = (t.source("one", disorder(1, 1)), t.source("two", disorder(1, 1)));
        let timed = t.source("timed", Timed).boxed();
        let one_timed = one.clone().event_time(at, Watermarks::monotonous());
        one_timed.clone().key_by(|e| &e.0).require_event_time("minute").process("good", Pass).discard();
        two.clone().key_by(|e| &e.0).require_event_time("hour").process("bad", Pass).discard();
        timed.clone().key_by(|e| &e.0).require_event_time("day").process("worse", Pass).discard();
        one_timed.clone().key_by(|e| &e.0).process("alarm", Alarm).discard();
        two.clone().key_by(|e| &e.0).process("silent", Alarm).discard();
        one_timed.clone().union(two).discard();
        one_timed.clone().union(timed).discard();
        one_timed.clone().union(one_timed).discard();
        one.discard();
        Ok(())
    });
    let set = "write `.event_time(|record| record.at, Watermarks::bounded(..))` right after the source";
    assert_eq!(
        found,
        [
            format!("the union at HERE has inputs with and inputs without event time: {set} of each"),
            format!("the union at HERE has inputs with and inputs without watermarks: {set} of each"),
            format!("`hour` at HERE works in event time, but its records have none: {set}"),
            format!(
                "`day` at HERE works in event time, but the source of its records, which gives them times, makes no \
                 watermarks: {set}"
            ),
            format!("`silent` at HERE works in event time, but its records have none: {set}"),
        ]
    );
}

/// Has a timer in event time.
struct Alarm;
#[derive(State)]
struct Due {
    due: EventTimer,
}
impl Process for Alarm {
    type Key = u64;
    type In = Event;
    type Out = Event;
    type State = Due;
    fn on_record(&self, _: Event, state: &mut Due, cx: &mut Cx<'_, u64, Event>) -> Result<(), BoxError> {
        state.due.set(cx.time());
        Ok(())
    }
}

/// A source that gives times itself.
struct Timed;
impl Source for Timed {
    type Reader = DisorderReader;
    async fn splits(&self, known: &[u64]) -> Result<Vec<u64>, BoxError> {
        disorder(1, 1).splits(known).await
    }
    async fn open(&self, cx: &SourceContext) -> Result<DisorderReader, BoxError> {
        disorder(1, 1).open(cx).await
    }
    fn has_event_time(&self) -> bool {
        true
    }
}

#[test]
fn each_event_time_of_a_source_has_its_number() {
    let graph = Job::new("numbers", |t: &Topology| {
        let (one, two) = (t.source("one", disorder(1, 1)), t.source("two", disorder(1, 1)));
        for events in [one.clone(), two, one] {
            events.event_time(at, Watermarks::monotonous()).discard();
        }
        Ok(())
    })
    .graph()
    .unwrap();
    let of_source: Vec<_> = (0..graph.nodes.len())
        .filter(|i| matches!(graph.nodes[*i].kind, Kind::EventTime(_)))
        .map(|i| (graph.sources_of(i).into_iter().collect::<Vec<_>>(), graph.event_time_number(i)))
        .collect();
    assert_eq!(of_source, [(vec![0], 0), (vec![1], 0), (vec![0], 1)]);
}

#[test]
fn inputs_of_one_source_are_not_held_against_each_other() {
    let graph = Job::new("groups", |t: &Topology| {
        let (one, two) = (t.source("one", disorder(1, 1)), t.source("two", disorder(1, 1)));
        let set = |events: &Stream<Event>| events.clone().event_time(at, Watermarks::monotonous());
        set(&one).union(set(&two)).discard();
        set(&one).union(set(&one)).discard();
        one.union(two).discard();
        Ok(())
    })
    .graph()
    .unwrap();
    let unions = (0..graph.nodes.len()).filter(|i| graph.nodes[*i].what == "union");
    let groups: Vec<_> = unions.map(|i| graph.time_groups(i)).collect();
    assert_eq!(groups, [vec![Some(0), Some(0)], vec![Some(0), Some(1)], vec![None, None]]);
}
