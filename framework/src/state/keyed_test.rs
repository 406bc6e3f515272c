//! Values, maps and lists against plain collections: random calls of user code, evictions, barriers, folds, crashes and
//! rescales; then single properties. The bytes below are tested in `disk_test.rs`.

use super::*;
use crate::Attempt;
use crate::key::group_of;
use crate::state::backend::{Keys, OpenSpec, StateEnv};
use crate::state::row::Layout;
use crate::state::snapshot::StateSnapshot;
use crate::state::store::Limits;
use crate::state::{ListState, MapState, ValueState, Wanted};
use millstream_derive::State;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const GROUPS: u32 = 8;
/// Folds after every third delta, in chunks of a few entries; small deltas are restored in memory.
const SMALL: Limits = Limits { deltas: 3, bytes: 4000, chunk_bytes: 1000, keep_bytes: 500 };
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(State)]
struct Row {
    value: ValueState<u64>,
    map: MapState<i16, u64>,
    list: ListState<u32>,
    words: MapState<String, String>,
}

/// The truth about one key.
#[derive(Debug, Default, Clone, PartialEq)]
struct Model {
    value: Option<u64>,
    map: BTreeMap<i16, u64>,
    list: VecDeque<u32>,
    words: BTreeMap<String, String>,
}

/// What user code does with the row of a key.
#[derive(Debug, Clone)]
enum Act {
    Set(u64),
    TakeValue,
    Insert(i16, u64),
    Remove(i16),
    Get(i16),
    Add(i16),
    AddOrMake(i16),
    Take(i16),
    Range(i16, i16),
    Clear,
    Push(u32),
    PopFront,
    PopBack,
    Index(u64),
    List,
    ClearList,
    Word(String, String),
    NoWord(String),
    Words(String),
}

fn act() -> impl Strategy<Value = Act> {
    let key = || prop_oneof![4 => -3i16..20, 1 => any::<i16>()];
    prop_oneof![
        2 => any::<u64>().prop_map(Act::Set),
        1 => Just(Act::TakeValue),
        8 => (key(), any::<u64>()).prop_map(|(k, v)| Act::Insert(k, v)),
        3 => key().prop_map(Act::Remove),
        3 => key().prop_map(Act::Get),
        3 => key().prop_map(Act::Add),
        3 => key().prop_map(Act::AddOrMake),
        2 => key().prop_map(Act::Take),
        3 => (key(), key()).prop_map(|(a, b)| Act::Range(a, b)),
        1 => Just(Act::Clear),
        6 => any::<u32>().prop_map(Act::Push),
        2 => Just(Act::PopFront),
        2 => Just(Act::PopBack),
        2 => (0u64..6).prop_map(Act::Index),
        1 => Just(Act::List),
        1 => Just(Act::ClearList),
        4 => ("[a-b\0]{0,3}|[a-z]{40}", "[a-z]{0,20}").prop_map(|(k, v)| Act::Word(k, v)),
        2 => "[a-b\0]{0,3}".prop_map(Act::NoWord),
        2 => "[a-b\0]{0,2}".prop_map(Act::Words),
    ]
}

impl Act {
    /// Does it to both, and compares what they say.
    fn run(self, row: &mut Row, model: &mut Model) {
        match self {
            Self::Set(v) => {
                row.value.set(v);
                model.value = Some(v);
            }
            Self::TakeValue => assert_eq!(row.value.take(), model.value.take()),
            Self::Insert(k, v) => {
                row.map.insert(k, v);
                model.map.insert(k, v);
            }
            Self::Remove(k) => {
                row.map.remove(&k);
                model.map.remove(&k);
            }
            Self::Get(k) => assert_eq!(row.map.get(&k), model.map.get(&k)),
            Self::Add(k) => {
                let (a, b) = (row.map.get_mut(&k), model.map.get_mut(&k));
                assert_eq!(a, b);
                a.into_iter().chain(b).for_each(|v| *v = v.wrapping_add(1));
            }
            Self::AddOrMake(k) => {
                let (a, b) = (row.map.or_default(k), model.map.entry(k).or_default());
                assert_eq!(a, b);
                [a, b].into_iter().for_each(|v| *v = v.wrapping_add(1));
            }
            Self::Take(k) => assert_eq!(row.map.take(&k), model.map.remove(&k)),
            Self::Range(a, b) => {
                let expect: Vec<_> =
                    model.map.iter().filter(|(k, _)| (a..b).contains(*k)).map(|(k, v)| (*k, *v)).collect();
                assert_eq!(row.map.range(a..b).collect::<Vec<_>>(), expect);
                let after = row.map.range((std::ops::Bound::Excluded(a), std::ops::Bound::Included(b)));
                let expect = model.map.iter().filter(|(k, _)| a < **k && **k <= b).map(|(k, v)| (*k, *v));
                assert_eq!(after.collect::<Vec<_>>(), expect.collect::<Vec<_>>());
            }
            Self::Clear => {
                row.map.clear();
                model.map.clear();
            }
            Self::Push(v) => {
                row.list.push(v);
                model.list.push_back(v);
            }
            Self::PopFront => assert_eq!(row.list.pop_front(), model.list.pop_front()),
            Self::PopBack => assert_eq!(row.list.pop_back(), model.list.pop_back()),
            Self::Index(i) => assert_eq!(row.list.get(i), model.list.get(i as usize)),
            Self::List => assert_eq!(row.list.iter().collect::<VecDeque<_>>(), model.list),
            Self::ClearList => {
                row.list.clear();
                model.list.clear();
            }
            Self::Word(k, v) => {
                row.words.insert(&k, v.clone());
                model.words.insert(k, v);
            }
            Self::NoWord(k) => {
                row.words.remove(&k);
                model.words.remove(&k);
            }
            Self::Words(from) => {
                let expect: Vec<_> = model.words.range(from.clone()..).map(|(k, v)| (k.clone(), v.clone())).collect();
                assert_eq!(row.words.range(from..).collect::<Vec<_>>(), expect);
            }
        }
    }

    /// The entry of `map` that it is about.
    fn entry(&self) -> Option<i16> {
        match self {
            Self::Get(k) | Self::Add(k) | Self::AddOrMake(k) | Self::Take(k) => Some(*k),
            _ => None,
        }
    }
}

/// All there is of a row.
fn content(row: &mut Row) -> Model {
    let value = row.value.get().copied();
    assert_eq!(row.list.len(), row.list.iter().count() as u64);
    let (map, list, words) = (row.map.iter().collect(), row.list.iter().collect(), row.words.iter().collect());
    Model { value, map, list, words }
}

#[derive(Debug, Clone)]
enum Op {
    /// User code runs for a record; the entries it asks for are prefetched or not.
    Record(String, Vec<Act>, bool),
    /// A batch is over.
    Settle,
    Copy,
    Sweep,
    Freeze,
    /// All copied and reported, so it may be decided.
    Finish,
    /// The oldest that may be, or the newest, is decided.
    Decide(bool),
    WaitForFold,
    /// Restored with so many subtasks.
    Crash(u32),
}

fn op() -> impl Strategy<Value = Op> {
    // keys of which some are the beginning of others
    let key = "[a\0]{0,3}";
    prop_oneof![
        40 => (key, prop::collection::vec(act(), 1..8), any::<bool>()).prop_map(|(k, acts, p)| Op::Record(k, acts, p)),
        12 => Just(Op::Settle),
        4 => Just(Op::Copy),
        4 => Just(Op::Sweep),
        6 => Just(Op::Freeze),
        6 => Just(Op::Finish),
        6 => any::<bool>().prop_map(Op::Decide),
        3 => Just(Op::WaitForFold),
        2 => prop_oneof![Just(1), Just(1), Just(2), Just(3), Just(8)].prop_map(Op::Crash),
    ]
}

type Reports = Receiver<(Epoch, Result<StateSnapshot, Error>)>;

struct Sub<S: State> {
    groups: Range<u32>,
    state: Keyed<String, S>,
    reports: Reports,
}

impl<S: State> Sub<S> {
    fn open(env: &Arc<StateEnv>, (subtask, groups): (usize, Range<u32>), point: &Point, cache_rows: usize) -> Self {
        let (to, reports) = channel();
        let report = Arc::new(move |epoch, result| to.send((epoch, result)).unwrap());
        let (restore, restored) = (point.snapshots.clone(), point.epoch);
        let spec = OpenSpec { operator: "op".into(), subtask, groups: groups.clone(), restore, restored, report };
        let states = Layout::of::<String, S>().reconcile("op", &mut 3, None).unwrap();
        let context = StateContext {
            backend: env.open(spec).unwrap(),
            layout: RowLayout::new(&states),
            table: states.table,
            groups: groups.clone(),
            cache_bytes: 1 << 20,
            cache_rows: Some(cache_rows),
        };
        Self { groups, state: Keyed::new(context, restored.unwrap_or(0) + 1, GROUPS), reports }
    }

    /// What a batch of one record does.
    fn call<R>(&mut self, key: &str, wanted: impl FnOnce(&mut Wanted<'_, S>), f: impl FnOnce(&mut S) -> R) -> R {
        let (hash, key) = (stable_hash(key), key.to_owned());
        let Keyed { rows, desk, here, storage, missing, .. } = &mut self.state;
        let group = rows.key_group(hash);
        if !rows.is_complete() && rows.find(hash, |k| *k == key).is_none() {
            let mut keys = Keys::default();
            keys.push(|into| rows.put_key(group, &key, into)).unwrap();
            let put = |_, epoch, row: &[u8]| rows.put(hash, key.clone(), epoch, row);
            storage.attempt(|backend| backend.get_many(&keys, put)).unwrap();
        }
        here.set(group, &key).unwrap();
        missing.clear();
        wanted(&mut Wanted::new(desk, here, missing));
        self.state.fetch_entries().unwrap();
        let Keyed { rows, desk, here, .. } = &mut self.state;
        let place = rows.locate(hash, |k| *k == key, || key.clone());
        let row = rows.touch(place).1;
        row.enter(desk, here);
        let result = f(row);
        row.leave(desk, here);
        result
    }

    fn finish(&mut self) -> (Epoch, StateSnapshot) {
        while self.state.copy().unwrap() {}
        let (epoch, snapshot) = self.reports.recv_timeout(PATIENCE).unwrap();
        (epoch, snapshot.unwrap())
    }
}

/// What a crash goes back to.
#[derive(Clone, Default)]
struct Point {
    epoch: Option<Epoch>,
    truth: BTreeMap<String, Model>,
    snapshots: Vec<StateSnapshot>,
}

struct World {
    dir: tempfile::TempDir,
    env: Arc<StateEnv>,
    subs: Vec<Sub<Row>>,
    running: Epoch,
    truth: BTreeMap<String, Model>,
    /// The truth at the last barrier, until that epoch is finished.
    frozen: Option<BTreeMap<String, Model>>,
    point: Point,
    /// Checkpoints that may be decided, oldest first.
    prepared: Vec<Point>,
    cache_rows: usize,
}

/// In memory where that can be had: hundreds of fsyncs prove nothing here.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn start(dir: &Path) -> Arc<StateEnv> {
    StateEnv::start_with(dir, Attempt::draw(), 1 << 20, SMALL).unwrap()
}

impl World {
    fn new(cache_rows: usize) -> Self {
        let dir = tempdir();
        let env = start(dir.path());
        let (subs, truth, point, prepared) = Default::default();
        let mut world = Self { dir, env, subs, running: 1, truth, frozen: None, point, prepared, cache_rows };
        world.open(1);
        world
    }

    fn open(&mut self, parallelism: u32) {
        for i in 0..parallelism {
            let groups = GROUPS * i / parallelism..GROUPS * (i + 1) / parallelism;
            self.subs.push(Sub::open(&self.env, (i as usize, groups), &self.point, self.cache_rows));
        }
    }

    fn record(&mut self, key: &str, acts: Vec<Act>, prefetch: bool) {
        let group = group_of(stable_hash(key), GROUPS);
        let sub = self.subs.iter_mut().find(|s| s.groups.contains(&group)).unwrap();
        let model = self.truth.entry(key.to_owned()).or_default();
        let wanted = |wanted: &mut Wanted<'_, Row>| {
            let entries = acts.iter().filter(|_| prefetch).filter_map(Act::entry);
            entries.for_each(|k| wanted.entry(|row| &row.map, &k));
        };
        sub.call(key, wanted, |row| acts.clone().into_iter().for_each(|act| act.run(row, model)));
        sub.state.storage.check().unwrap();
    }

    fn finish(&mut self) {
        let Some(truth) = self.frozen.take() else { return };
        let (epochs, snapshots): (Vec<_>, _) = self.subs.iter_mut().map(Sub::finish).unzip();
        assert!(epochs.iter().all(|epoch| *epoch == self.running - 1));
        self.prepared.push(Point { epoch: Some(self.running - 1), truth, snapshots });
    }

    fn freeze(&mut self) {
        self.finish();
        self.subs.iter_mut().for_each(|sub| sub.state.freeze(self.running).unwrap());
        self.frozen = Some(self.truth.clone());
        self.running += 1;
    }

    fn decide(&mut self, oldest: bool) {
        let at = if oldest { 0 } else { self.prepared.len().saturating_sub(1) };
        let Some(point) = self.prepared.drain(..).nth(at) else { return };
        let epoch = point.epoch.unwrap();
        self.point = point;
        self.subs.iter_mut().for_each(|sub| sub.state.storage.with(|backend| backend.decided(epoch)));
    }

    fn crash(&mut self, parallelism: u32) {
        self.env.shut_down();
        self.subs.clear();
        self.env = start(self.dir.path());
        self.open(parallelism);
        self.truth = self.point.truth.clone();
        self.frozen = None;
        self.prepared.clear();
        self.running = self.point.epoch.unwrap_or(0) + 1;
        for (key, model) in &self.truth {
            let group = group_of(stable_hash(key), GROUPS);
            let sub = self.subs.iter_mut().find(|s| s.groups.contains(&group)).unwrap();
            assert_eq!(sub.call(key, |_| (), content), *model, "key {key:?}");
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Record(key, acts, prefetch) => self.record(&key, acts, prefetch),
            Op::Settle => self.subs.iter_mut().for_each(|sub| sub.state.settle().unwrap()),
            Op::Copy => self.subs.iter_mut().for_each(|sub| _ = sub.state.rows.copy()),
            Op::Sweep => self.subs.iter_mut().for_each(|sub| _ = sub.state.sweep().unwrap()),
            Op::Freeze => self.freeze(),
            Op::Finish => self.finish(),
            Op::Decide(oldest) => self.decide(oldest),
            Op::WaitForFold => {
                self.finish();
                self.subs.iter().for_each(|sub| sub.state.storage.with(|backend| backend.wait_for_fold()));
            }
            Op::Crash(parallelism) => self.crash(parallelism),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_use_equals_plain_collections(cache_rows in 1usize..40, ops in prop::collection::vec(op(), 1..250)) {
        let mut world = World::new(cache_rows);
        for op in ops {
            world.run(op);
        }
        for parallelism in [1, 3, 1] {
            world.freeze();
            world.finish();
            world.decide(false);
            world.crash(parallelism);
        }
    }
}
