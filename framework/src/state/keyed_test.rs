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
            backend: Some(env.open(spec).unwrap()),
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
    lives: usize,
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
    start_with(dir, 1 << 20)
}

fn start_with(dir: &Path, budget: usize) -> Arc<StateEnv> {
    StateEnv::start_with(dir, Attempt::draw(), budget, SMALL).unwrap()
}

/// In one life after the other: room in memory for hardly any spilled row, and for all.
const BUDGETS: [usize; 2] = [12 << 10, 1 << 20];

impl World {
    fn new(cache_rows: usize) -> Self {
        let dir = tempdir();
        let env = start_with(dir.path(), BUDGETS[0]);
        let (subs, truth, point, prepared) = Default::default();
        let mut world = Self { dir, env, lives: 1, subs, running: 1, truth, frozen: None, point, prepared, cache_rows };
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
        self.env = start_with(self.dir.path(), BUDGETS[self.lives % 2]);
        self.lives += 1;
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

/// A map alone: nothing is kept of its row.
#[derive(State)]
struct Big {
    map: MapState<u64, u64>,
}

#[derive(State)]
struct Log {
    lines: ListState<String>,
}

/// A subtask of its own, with all key groups.
fn alone<S: State>(dir: &Path, cache_rows: usize) -> (Arc<StateEnv>, Sub<S>) {
    let env = start(dir);
    let sub = Sub::open(&env, (0, 0..GROUPS), &Point::default(), cache_rows);
    (env, sub)
}

/// Ends the epoch; gives what its delta holds: entries and bytes.
fn checkpoint<S: State>(sub: &mut Sub<S>, epoch: Epoch) -> (u64, u64) {
    sub.state.freeze(epoch).unwrap();
    let (reported, snapshot) = sub.finish();
    assert_eq!(reported, epoch);
    snapshot.deltas.iter().find(|d| d.epoch == epoch).map_or((0, 0), |d| (d.entries, d.file.bytes))
}

#[test]
fn one_changed_entry_is_one_entry_of_the_delta() {
    let dir = tempdir();
    let (_env, mut sub) = alone::<Big>(dir.path(), 100_000);
    sub.call("k", |_| (), |row| (0..5000).for_each(|i| row.map.insert(i, i)));
    let (entries, all) = checkpoint(&mut sub, 1);
    assert_eq!(entries, 5000);
    sub.call("k", |_| (), |row| *row.map.or_default(77) += 1);
    let (entries, one) = checkpoint(&mut sub, 2);
    assert!(entries == 1 && one < 100, "{entries} entries, {one} of {all} bytes");
    // one that was only looked at is not written
    sub.call("k", |_| (), |row| assert_eq!(row.map.get(&77), Some(&78)));
    assert_eq!(checkpoint(&mut sub, 3).0, 0);
}

#[test]
fn push_reads_nothing() {
    let dir = tempdir();
    let (_env, mut sub) = alone::<Log>(dir.path(), 10);
    for i in 0..1000 {
        sub.call("k", |_| (), |row| row.lines.push(format!("line {i}")));
        sub.state.settle().unwrap();
    }
    assert_eq!(sub.state.storage.blocking.get(), 0);
    assert!(sub.state.len() <= 20);
    sub.call("k", |_| (), |row| assert_eq!(row.lines.get(3), Some(&"line 3".into())));
    assert_eq!(sub.state.storage.blocking.get(), 1);
    let lines = sub.call("k", |_| (), |row| row.lines.iter().enumerate().all(|(i, line)| line == format!("line {i}")));
    assert!(lines && sub.state.storage.blocking.get() == 1);
}

#[test]
fn entries_that_nobody_asked_for_are_waited_for_one_by_one() {
    let dir = tempdir();
    let (_env, mut sub) = alone::<Big>(dir.path(), 50);
    sub.call("k", |_| (), |row| (0..5000).for_each(|i| row.map.insert(i, i)));
    sub.state.settle().unwrap();
    let read = |sub: &mut Sub<Big>, prefetch: bool| {
        let keys = || (0..5000).step_by(100);
        let wanted = |wanted: &mut Wanted<'_, Big>| {
            keys().filter(|_| prefetch).for_each(|i| wanted.entry(|row| &row.map, &i));
        };
        let sum: u64 = sub.call("k", wanted, |row| keys().filter_map(|i| row.map.get(&i).copied()).sum());
        assert_eq!(sum, keys().sum::<u64>());
        // those that are not there, too
        let wanted = |wanted: &mut Wanted<'_, Big>| {
            (9000..9010).filter(|_| prefetch).for_each(|i| wanted.entry(|row| &row.map, &i));
        };
        sub.call("k", wanted, |row| assert!((9000..9010).all(|i| !row.map.contains(&i))));
        sub.call("k", |_| (), |row| (10_000..10_200).for_each(|i| row.map.insert(i, i)));
        sub.state.settle().unwrap();
        sub.state.storage.blocking.take()
    };
    assert_eq!(read(&mut sub, false), 60);
    assert_eq!(read(&mut sub, true), 0);
}

#[test]
fn many_entries_under_one_key_need_no_memory() {
    const ENTRIES: u64 = 200_000;
    let dir = tempdir();
    let (_env, mut sub) = alone::<Big>(dir.path(), 1000);
    let mut most = 0;
    for first in (0..ENTRIES).step_by(5000) {
        // within one call of user code, and within several
        sub.call("k", |_| (), |row| (first..first + 5000).for_each(|i| row.map.insert(i ^ 0x5555, i)));
        most = most.max(sub.state.len());
        sub.state.settle().unwrap();
    }
    sub.call(
        "k",
        |_| (),
        |row| {
            assert!(row.map.iter().map(|(k, _)| k).is_sorted());
            let (count, sum) =
                row.map.iter().fold((0, 0), |(n, sum), (k, v)| (n + u64::from(k ^ 0x5555 == v), sum + v));
            assert_eq!((count, sum), (ENTRIES, ENTRIES * (ENTRIES - 1) / 2));
            assert_eq!(row.map.range(1000..1010).count(), 10);
            assert_eq!(row.map.get(&777).copied(), Some(777 ^ 0x5555));
        },
    );
    assert!(most.max(sub.state.len()) < 2000, "{most} in memory");
    sub.call("k", |_| (), |row| row.map.clear());
    sub.state.settle().unwrap();
    assert!(sub.state.len() < 2000);
    sub.call("k", |_| (), |row| assert_eq!(row.map.iter().next(), None));
}

#[test]
fn a_state_that_is_replaced_as_a_whole_ends_the_attempt() {
    let dir = tempdir();
    let (_env, mut sub) = alone::<Big>(dir.path(), 1000);
    sub.call("k", |_| (), |row| row.map.insert(1, 1));
    sub.state.settle().unwrap();
    sub.call("k", |_| (), |row| *row = Big::open());
    let error = sub.state.settle().unwrap_err();
    assert!(error.to_string().contains("change the states one by one"), "{error}");
}

#[test]
fn an_entry_key_that_cannot_be_kept_ends_the_attempt() {
    #[derive(State)]
    struct Wrong {
        map: MapState<Float, u64>,
    }
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Float(f64);
    impl PartialEq for Float {
        fn eq(&self, other: &Self) -> bool {
            self.0.to_bits() == other.0.to_bits()
        }
    }
    impl Eq for Float {}
    let dir = tempdir();
    let (_env, mut sub) = alone::<Wrong>(dir.path(), 1000);
    sub.call("k", |_| (), |row| row.map.insert(Float(1.5), 1));
    let error = sub.state.settle().unwrap_err();
    assert!(std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("float")), "{error:?}");
}

#[test]
fn a_table_keeps_its_number_and_another_kind_is_refused() {
    #[derive(State)]
    struct Less {
        value: ValueState<u64>,
    }
    #[derive(State)]
    struct Other {
        map: ValueState<u64>,
    }
    let of = |layout: Layout, next: &mut u32, old| layout.reconcile("op", next, old);
    let mut next = 3;
    let first = of(Layout::of::<String, Less>(), &mut next, None).unwrap();
    assert_eq!((first.table, first.states[0].table, next), (3, None, 4));
    // another operator has taken 4
    next = 5;
    let second = of(Layout::of::<String, Row>(), &mut next, Some(&first)).unwrap();
    let tables: Vec<_> = second.states.iter().map(|s| s.table).collect();
    assert_eq!((second.table, &tables[..], next), (3, &[None, Some(5), Some(6), Some(7)][..], 8));
    assert_eq!(of(Layout::of::<String, Row>(), &mut next, Some(&second)).unwrap(), second);
    assert_eq!(next, 8);
    // manifests of before name no tables
    let text = serde_json::to_string(&first).unwrap();
    assert!(!text.contains("\"table\":null"), "{text}");
    assert_eq!(serde_json::from_str::<crate::state::snapshot::OperatorStates>(&text).unwrap(), first);
    let map = of(Layout::of::<String, Big>(), &mut next, None).unwrap();
    let error = of(Layout::of::<String, Other>(), &mut next, Some(&map)).unwrap_err();
    assert!(error.to_string().contains("held `entries<u64,u64>` in the checkpoint"), "{error}");
}

#[test]
fn a_small_state_is_loaded_at_once_and_a_large_one_when_asked_for() {
    let dir = tempdir();
    let (env, mut sub) = alone::<Row>(dir.path(), 1000);
    sub.call(
        "k",
        |_| (),
        |row| {
            row.value.set(5);
            row.map.insert(1, 1);
            (0..700).for_each(|i| row.words.insert(i.to_string(), String::new()));
        },
    );
    checkpoint(&mut sub, 1);
    sub.state.freeze(2).unwrap();
    let (_, snapshot) = sub.finish();
    drop(sub);
    env.shut_down();
    let env = start(dir.path());
    let point = Point { epoch: Some(2), snapshots: vec![snapshot], ..Point::default() };
    let mut sub: Sub<Row> = Sub::open(&env, (0, 0..GROUPS), &point, 1000);
    let mut complete = vec![sub.state.rows.is_complete()];
    sub.state.each_table(|table| complete.push(table.is_complete()));
    // the row, map, list, and words, of which there are more than half of what may be in memory
    assert_eq!(complete, [true, true, true, false]);
    let found =
        sub.call("k", |_| (), |row| (row.value.get().copied(), row.map.get(&1).copied(), row.words.iter().count()));
    assert_eq!(found, (Some(5), Some(1), 700));
    assert_eq!(sub.state.storage.blocking.get(), 0);
}
