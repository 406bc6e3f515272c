//! Timers of a keyed operator against a plain model: whatever is set, moved, cancelled and set again while others fire,
//! with barriers, folds, crashes and rescales in between. Then single properties. The index alone is tested in
//! `state/timers/`.

use super::*;
use crate::key::{KEY_GROUPS, groups_of, stable_hash};
use crate::state::backend::{OpenSpec, StateEnv};
use crate::state::keyed::StateContext;
use crate::state::snapshot::{OperatorStates, StateSnapshot};
use crate::state::{EventTimer, EventTimers, Layout, ProcessingTimer, ProcessingTimers, RowLayout, State, ValueState};
use crate::subtask::stage::{Control, Stage, end};
use crate::subtask::{Borrowed, KeyOf, Reports, StageContext};
use crate::{Attempt, Batch, BoxError, Epoch};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::Waker;
use tokio::sync::mpsc::unbounded_channel;

const PATIENCE: Duration = Duration::from_secs(20);

/// What user code does with the timers of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Act {
    A(i64),
    NoA,
    B(i64),
    NoB,
    Many(i64),
    NotMany(i64),
    /// By the clock of the machine: in so many milliseconds.
    In(i64),
    NotIn,
    ManyIn(i64),
}

#[derive(State)]
struct Row {
    /// What the next firings do.
    then: ValueState<Vec<Act>>,
    a: EventTimer,
    many: EventTimers,
    b: EventTimer,
    soon: ProcessingTimer,
    many_soon: ProcessingTimers,
}

fn at(ms: i64) -> Timestamp {
    if ms == i64::MAX { Timestamp::MAX } else { Timestamp::from_millis(ms) }
}

impl Act {
    fn run(self, row: &mut Row, cx: &Context<'_, u64, Fired>) {
        let later = |ms| at(cx.now().as_millis() + ms);
        match self {
            Self::A(ms) => row.a.set(at(ms)),
            Self::NoA => row.a.cancel(),
            Self::B(ms) => row.b.set(at(ms)),
            Self::NoB => row.b.cancel(),
            Self::Many(ms) => row.many.set(at(ms)),
            Self::NotMany(ms) => row.many.cancel(at(ms)),
            Self::In(ms) => row.soon.set(later(ms)),
            Self::NotIn => row.soon.cancel(),
            Self::ManyIn(ms) => row.many_soon.set(later(ms)),
        }
    }
}

/// Key, which timer, and when it was set for.
type Fired = (u64, &'static str, i64);

struct Script;
impl Process for Script {
    type Key = u64;
    type In = (u64, Vec<Act>, Vec<Act>);
    type Out = Fired;
    type State = Row;
    fn on_record(
        &self,
        (_, now, then): Self::In,
        row: &mut Row,
        cx: &mut Context<'_, u64, Fired>,
    ) -> Result<(), BoxError> {
        now.into_iter().for_each(|act| act.run(row, cx));
        if !then.is_empty() {
            row.then.or_default().extend(then);
        }
        Ok(())
    }
    fn on_timer(&self, row: &mut Row, cx: &mut Context<'_, u64, Fired>) -> Result<(), BoxError> {
        let all = [
            ("a", row.a.fired()),
            ("many", row.many.fired()),
            ("b", row.b.fired()),
            ("soon", row.soon.fired()),
            ("many_soon", row.many_soon.fired()),
        ];
        let fired: Vec<_> = all.into_iter().filter_map(|(name, at)| Some((name, at?))).collect();
        let [(name, time)] = fired[..] else { return Err(format!("{fired:?} fire at once").into()) };
        if time != cx.time() {
            return Err(format!("{time:?} is not {:?}", cx.time()).into());
        }
        cx.emit((*cx.key(), name, time.as_millis()));
        let mut then = row.then.take().unwrap_or_default();
        if !then.is_empty() {
            then.remove(0).run(row, cx);
        }
        if !then.is_empty() {
            row.then.set(then);
        }
        Ok(())
    }
}

/// What came out, and the time of it.
#[derive(Debug, Clone, PartialEq)]
enum Out {
    Fired(Fired),
    Watermark(i64),
    Idle,
}

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<Out>>>);
impl Stage for Log {
    type In = Fired;
    fn on_batch(&mut self, batch: &mut Batch<Fired>) -> Result<(), Error> {
        for (fired, time) in batch.values.drain(..).zip(batch.times.drain(..)) {
            assert_eq!(fired.2, time.as_millis(), "what a timer emits bears its time");
            self.0.borrow_mut().push(Out::Fired(fired));
        }
        Ok(())
    }
}
impl Control for Log {
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.0.borrow_mut().push(Out::Watermark(mark.as_millis()));
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.0.borrow_mut().push(Out::Idle);
        Ok(())
    }
}

/// The subtasks of one attempt.
struct Life {
    stages: Vec<ProcessStage<Script>>,
    logs: Vec<Log>,
    reports: Vec<Receiver<(Epoch, Result<StateSnapshot, Error>)>>,
    progress: tokio::sync::mpsc::UnboundedReceiver<Report>,
    running: Epoch,
}

/// An operator through its lives.
struct Operator {
    directory: tempfile::TempDir,
    states: OperatorStates,
    cache_rows: Option<usize>,
    life: Life,
    /// Of the last barrier.
    snapshots: Vec<StateSnapshot>,
}

impl Operator {
    fn new(parallelism: usize, cache_rows: Option<usize>) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let states = Layout::of::<u64, Row>().reconcile("script", &mut 0, None).unwrap();
        let life = Life::new(directory.path(), &states, parallelism, cache_rows, (None, &[]));
        Self { directory, states, cache_rows, life, snapshots: Vec::new() }
    }

    /// The process dies, and another one goes on from the last barrier.
    fn restart(&mut self, parallelism: usize) {
        let restored = self.life.running - 1;
        let restore = (Some(restored), &self.snapshots[..]);
        self.life = Life::new(self.directory.path(), &self.states, parallelism, self.cache_rows, restore);
    }

    fn barrier(&mut self) {
        let Life { stages, reports, running, .. } = &mut self.life;
        let epoch = *running;
        *running += 1;
        self.snapshots.clear();
        for (stage, reports) in stages.iter_mut().zip(reports) {
            stage.on_barrier(epoch).unwrap();
            while stage.background().unwrap() {}
            let (of, snapshot) = reports.recv_timeout(PATIENCE).unwrap();
            assert_eq!(of, epoch);
            self.snapshots.push(snapshot.unwrap());
        }
        stages.iter_mut().for_each(|stage| stage.on_decided(epoch).unwrap());
    }
}

impl Life {
    fn new(
        directory: &std::path::Path,
        states: &OperatorStates,
        parallelism: usize,
        cache_rows: Option<usize>,
        (restored, restore): (Option<Epoch>, &[StateSnapshot]),
    ) -> Self {
        let (attempt, running) = (Attempt::draw(), restored.unwrap_or(0) + 1);
        let env = StateEnv::start(directory, attempt, 8 << 20).unwrap();
        let (told, progress) = unbounded_channel();
        let mut life = Self { stages: vec![], logs: vec![], reports: vec![], progress, running };
        for subtask in 0..parallelism {
            let groups = groups_of(subtask as u32, parallelism as u32, KEY_GROUPS);
            let (to, reports) = channel();
            let report = Arc::new(move |epoch, result| drop(to.send((epoch, result))));
            let (operator, restore) = ("script".into(), restore.to_vec());
            let spec = OpenSpec { operator, subtask, groups: groups.clone(), restore, restored, report };
            let (backend, layout) = (env.open(spec).unwrap(), RowLayout::new(states));
            let cache_bytes = 32 << 20;
            let (backend, table) = (Some(backend), states.table);
            let state = StateContext { backend, layout, table, groups, cache_bytes, cache_rows };
            let context = StageContext {
                job: "test".into(),
                name: "script".into(),
                subtask,
                parallelism,
                attempt,
                participant: subtask,
                first_epoch: running,
                key_groups: KEY_GROUPS,
                hold_bytes: 0,
                ahead_bytes: 0,
                suspect: None,
                reports: Reports(told.clone()),
                counters: Arc::default(),
            };
            let (log, key_of) =
                (Log::default(), KeyOf::Borrowed(Arc::new(Borrowed::new(|record: &(u64, _, _)| &record.0))));
            life.stages.push(ProcessStage::new(Arc::new(Script), key_of, state, true, Box::new(log.clone()), context));
            life.logs.push(log);
            life.reports.push(reports);
        }
        life
    }

    /// Until all that is due has fired.
    fn ready(&mut self) {
        let mut cx = TaskContext::from_waker(Waker::noop());
        for stage in &mut self.stages {
            while stage.poll_ready(false, &mut cx).map(Result::unwrap).is_pending() {}
        }
    }

    fn records(&mut self, records: impl IntoIterator<Item = (u64, Vec<Act>, Vec<Act>)>) {
        let mut batches: Vec<Batch<_>> = self.stages.iter().map(|_| Batch::default()).collect();
        for record in records {
            let hash = stable_hash(&record.0);
            let group = crate::key::group_of(hash, KEY_GROUPS);
            let owner = crate::key::subtask_of(group, batches.len() as u32, KEY_GROUPS);
            let batch = &mut batches[owner as usize];
            batch.values.push(record);
            batch.times.push(at(0));
            batch.hashes.push(hash);
        }
        for (stage, batch) in self.stages.iter_mut().zip(&mut batches) {
            stage.on_batch(batch).unwrap();
        }
        self.ready();
    }

    fn watermark(&mut self, ms: i64) {
        self.stages.iter_mut().for_each(|stage| stage.on_watermark(at(ms)).unwrap());
        self.ready();
    }

    /// What came out since last asked, key by key in order; watermarks are checked to be behind what they let fire.
    fn fired(&mut self) -> BTreeMap<u64, Vec<(&'static str, i64)>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for log in &self.logs {
            for out in log.0.borrow_mut().drain(..) {
                if let Out::Fired((key, name, at)) = out {
                    all.entry(key).or_default().push((name, at));
                }
            }
        }
        all
    }

    fn near(&self) -> usize {
        self.stages.iter().map(|stage| stage.keyed.state.timers.near()).sum()
    }
}

/// The truth about one key. The fields in the order of the row.
#[derive(Debug, Clone, Default)]
struct Model {
    a: Option<i64>,
    many: BTreeSet<i64>,
    b: Option<i64>,
    then: Vec<Act>,
}

impl Model {
    fn act(&mut self, act: Act) {
        match act {
            Act::A(ms) => self.a = Some(ms),
            Act::NoA => self.a = None,
            Act::B(ms) => self.b = Some(ms),
            Act::NoB => self.b = None,
            Act::Many(ms) => drop(self.many.insert(ms)),
            Act::NotMany(ms) => drop(self.many.remove(&ms)),
            Act::In(_) | Act::NotIn | Act::ManyIn(_) => {}
        }
    }

    fn fire(&mut self, now: i64) -> Vec<(&'static str, i64)> {
        let mut fired = Vec::new();
        loop {
            let all = [("a", self.a), ("many", self.many.first().copied()), ("b", self.b)];
            let due = all.into_iter().filter_map(|(name, at)| Some((name, at.filter(|at| *at <= now)?)));
            let Some((name, at)) = due.min_by_key(|(_, at)| *at) else { return fired };
            match name {
                "a" => self.a = None,
                "b" => self.b = None,
                _ => drop(self.many.remove(&at)),
            }
            fired.push((name, at));
            if !self.then.is_empty() {
                let then = self.then.remove(0);
                self.act(then);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Records(Vec<(u64, Vec<Act>, Vec<Act>)>),
    Watermark(i64),
    Barrier,
    Restart(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let time = || -5i64..100;
    prop_oneof![
        4 => time().prop_map(Act::A),
        1 => Just(Act::NoA),
        2 => time().prop_map(Act::B),
        1 => Just(Act::NoB),
        3 => time().prop_map(Act::Many),
        1 => time().prop_map(Act::NotMany),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let acts = || prop::collection::vec(act(), 0..3);
    let records = prop::collection::vec((0u64..40, acts(), acts()), 0..40);
    let op = prop_oneof![
        8 => records.prop_map(Op::Records),
        4 => (0i64..8).prop_map(Op::Watermark),
        2 => Just(Op::Barrier),
        1 => (1usize..4).prop_map(Op::Restart),
    ];
    prop::collection::vec(op, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Each timer fires once, at its time, in order within its key, and is part of the state like any value.
    #[test]
    fn timers_are_those_of_a_plain_model(ops in ops(), cache_rows in prop::option::of(1usize..20)) {
        let mut operator = Operator::new(2, cache_rows);
        let (mut now, mut models) = (-5, BTreeMap::<u64, Model>::new());
        operator.life.watermark(now);
        let mut kept = (now, models.clone());
        for op in ops.into_iter().chain([Op::Watermark(1000)]) {
            match op {
                Op::Records(records) => {
                    for (key, acts, then) in records.clone() {
                        let model = models.entry(key).or_default();
                        acts.into_iter().for_each(|act| model.act(act));
                        model.then.extend(then);
                    }
                    operator.life.records(records);
                }
                Op::Watermark(by) => {
                    now += by;
                    operator.life.watermark(now);
                }
                Op::Barrier => {
                    operator.barrier();
                    kept = (now, models.clone());
                }
                Op::Restart(parallelism) if operator.life.running > 1 => {
                    operator.restart(parallelism);
                    (now, models) = kept.clone();
                    operator.life.watermark(now);
                }
                Op::Restart(_) => {}
            }
            let expect = models.iter_mut().map(|(key, model)| (*key, model.fire(now)));
            let expect: BTreeMap<_, _> = expect.filter(|(_, fired)| !fired.is_empty()).collect();
            prop_assert_eq!(operator.life.fired(), expect);
        }
    }
}

fn set(key: u64, acts: impl Into<Vec<Act>>) -> (u64, Vec<Act>, Vec<Act>) {
    (key, acts.into(), vec![])
}

#[test]
fn a_watermark_goes_on_behind_what_it_lets_fire() {
    let mut operator = Operator::new(1, None);
    let life = &mut operator.life;
    life.records([set(1, [Act::A(10)]), set(1, [Act::B(20)]), set(2, [Act::Many(5)])]);
    [9, 19, 30].into_iter().for_each(|ms| life.watermark(ms));
    life.stages[0].on_watermark(at(40)).unwrap();
    life.records([set(3, [Act::A(35)])]);
    life.stages[0].on_idle().unwrap();
    let out = life.logs[0].0.take();
    let fired = |key, name, at| Out::Fired((key, name, at));
    let expect = [
        [fired(2, "many", 5), Out::Watermark(9)].to_vec(),
        [fired(1, "a", 10), Out::Watermark(19)].to_vec(),
        [fired(1, "b", 20), Out::Watermark(30), Out::Watermark(40)].to_vec(),
        // at or before the watermark: after the batch
        [fired(3, "a", 35), Out::Idle].to_vec(),
    ];
    assert_eq!(out, expect.concat());
}

/// An idle input whose last watermark still lets timers fire is idle after that.
#[test]
fn idleness_waits_for_the_watermark_before_it() {
    let mut operator = Operator::new(1, None);
    let life = &mut operator.life;
    life.records([set(1, [Act::A(10)])]);
    life.stages[0].on_watermark(at(10)).unwrap();
    life.stages[0].on_idle().unwrap();
    assert_eq!(life.logs[0].0.take(), []);
    life.ready();
    assert_eq!(life.logs[0].0.take(), [Out::Fired((1, "a", 10)), Out::Watermark(10), Out::Idle]);
}

#[test]
fn at_the_end_of_the_input_all_timers_in_event_time_fire() {
    let mut operator = Operator::new(2, Some(1));
    operator.life.records((0..300).map(|key| set(key, [Act::A(i64::MAX), Act::Many(1_000_000), Act::B(7)])));
    operator.life.watermark(10);
    assert_eq!(operator.life.fired(), (0..300).map(|key| (key, vec![("b", 7)])).collect());
    operator.barrier();
    operator.restart(3);
    operator.life.watermark(i64::MAX);
    let all = vec![("many", 1_000_000), ("a", i64::MAX)];
    assert_eq!(operator.life.fired(), (0..300).map(|key| (key, all.clone())).collect());
}

/// Somebody has to be told, or what timers emit while no record comes would never be part of a checkpoint.
#[test]
fn the_coordinator_hears_once_per_epoch_that_something_fired() {
    let mut operator = Operator::new(1, None);
    let told = |operator: &mut Operator| std::iter::from_fn(|| operator.life.progress.try_recv().ok()).count();
    operator.life.records((0..9).map(|key| set(key, [Act::A(key as i64 * 10)])));
    assert_eq!(told(&mut operator), 0);
    [0, 10, 20].into_iter().for_each(|ms| operator.life.watermark(ms));
    assert_eq!(told(&mut operator), 1);
    operator.barrier();
    operator.life.watermark(25);
    assert_eq!(told(&mut operator), 0, "nothing was due");
    operator.life.watermark(30);
    assert_eq!(told(&mut operator), 1);
}

/// More timers than memory is to hold, all at a few instants and spread: each fires once, in order within its key.
#[test]
fn far_timers_are_not_in_memory() {
    const KEYS: u64 = 30_000;
    let mut operator = Operator::new(2, Some(1000));
    let time = |key: u64, n: u64| (crate::key::stable_hash(&(key, n)) % 1_000_000) as i64 / 100 * 100;
    for keys in (0..KEYS).collect::<Vec<_>>().chunks(500) {
        let acts = |key| [Act::Many(time(key, 0)), Act::Many(time(key, 1)), Act::A(time(key, 2)), Act::B(500_000)];
        operator.life.records(keys.iter().map(|key| set(*key, acts(*key))));
        // a handful per key group and field
        assert!(operator.life.near() <= 3 * 2 * 1024, "{} entries in memory", operator.life.near());
        if keys[0] == KEYS / 2 {
            operator.barrier();
        }
    }
    operator.barrier();
    operator.restart(3);
    assert_eq!(operator.life.near(), 0, "a restore reads nothing that is not near");
    let mut found: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    for now in (0..=1_000_000).step_by(50_000) {
        operator.life.watermark(now);
        operator.life.fired().into_iter().for_each(|(key, fired)| found.entry(key).or_default().extend(fired));
        assert!(operator.life.near() <= 3 * 3 * 1024, "{} entries in memory", operator.life.near());
    }
    assert_eq!(found.len() as u64, KEYS);
    for (key, fired) in found {
        let mut model = Model { a: Some(time(key, 2)), b: Some(500_000), ..Model::default() };
        model.many = [time(key, 0), time(key, 1)].into();
        assert_eq!(fired, model.fire(i64::MAX), "key {key}");
    }
}

fn with_clock(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

/// Until something has fired, driven as a subtask that waits for records.
async fn next_fired(life: &mut Life) -> BTreeMap<u64, Vec<(&'static str, i64)>> {
    tokio::time::timeout(PATIENCE, async {
        loop {
            std::future::poll_fn(|cx| {
                for stage in &mut life.stages {
                    let _ = stage.poll_ready(true, cx).map(Result::unwrap);
                }
                let is_there = life.logs.iter().any(|log| !log.0.borrow().is_empty());
                if is_there { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let fired = life.fired();
            if !fired.is_empty() {
                return fired;
            }
        }
    })
    .await
    .unwrap()
}

#[test]
fn the_clock_of_the_machine_makes_timers_fire_without_records() {
    with_clock(async {
        let mut operator = Operator::new(1, None);
        let start = clock::wall().into();
        operator.life.records([set(1, [Act::In(30), Act::ManyIn(60), Act::ManyIn(3_600_000)]), set(2, [Act::In(-5)])]);
        let names =
            |fired: &BTreeMap<u64, Vec<_>>| fired.iter().map(|(key, all)| (*key, all.clone())).collect::<Vec<_>>();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(names(&next_fired(&mut operator.life).await).into_iter().flat_map(|(key, all)| {
                assert!(all.iter().all(|(_, at)| *at <= Timestamp::from(clock::wall()).as_millis()), "before its time");
                all.into_iter().map(move |(name, at)| (key, name, at))
            }));
        }
        let order: Vec<_> = seen.iter().map(|(key, name, _)| (*key, *name)).collect();
        assert_eq!(order, [(2, "soon"), (1, "soon"), (1, "many_soon")]);
        assert!(seen[1].2 >= Timestamp::as_millis(start) + 30);
    });
}

#[test]
fn timers_by_the_clock_survive_and_stay_set_after_the_end() {
    with_clock(async {
        let mut operator = Operator::new(1, Some(1));
        let soon = |key| set(key, [Act::In(200), Act::ManyIn(200)]);
        operator.life.records((0..50).map(soon));
        operator.life.records([set(7, [Act::NotIn])]);
        operator.life.watermark(i64::MAX);
        operator.life.stages[0].on_end().unwrap();
        operator.barrier();
        tokio::time::sleep(Duration::from_millis(250)).await;
        operator.life.ready();
        assert_eq!(operator.life.fired(), BTreeMap::new(), "nothing comes after the end");
        operator.restart(2);
        operator.life.ready();
        let fired = operator.life.fired();
        assert_eq!(fired.len(), 50);
        for (key, fired) in fired {
            let names: Vec<_> = fired.into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, if key == 7 { vec!["many_soon"] } else { vec!["soon", "many_soon"] });
        }
    });
}

/// What fires in rounds lets others run in between, and nothing is lost by that.
#[test]
fn many_timers_at_one_instant_fire_in_rounds() {
    let mut operator = Operator::new(1, None);
    let keys = 3 * (ROUND * ROUNDS) as u64;
    operator.life.records((0..keys).map(|key| set(key, [Act::A(5)])));
    operator.life.stages[0].on_watermark(at(5)).unwrap();
    let mut cx = TaskContext::from_waker(Waker::noop());
    let mut polls = 1;
    while operator.life.stages[0].poll_ready(false, &mut cx).map(Result::unwrap).is_pending() {
        assert!(!operator.life.logs[0].0.borrow().contains(&Out::Watermark(5)));
        polls += 1;
    }
    assert!(polls >= 3, "{polls}");
    let out = operator.life.logs[0].0.take();
    assert_eq!((out.len() as u64, out.last()), (keys + 1, Some(&Out::Watermark(5))));
}
