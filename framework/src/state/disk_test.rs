//! The state backend against a plain map: random work of operators, checkpoints that are decided or not, folds, crashes
//! and rescales; then single properties. The bytes of delta files are tested in `delta.rs`.

use super::*;
use crate::state::snapshot::{FileRef, StateSnapshot};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128;

type Bytes = Vec<u8>;
type Reports = Receiver<(Epoch, Result<StateSnapshot, Error>)>;

const GROUPS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(20);
/// Folds after every third delta, in chunks of a few entries.
const SMALL: Limits = Limits { deltas: 3, bytes: 4000, chunk_bytes: 1000, keep_bytes: 500 };

/// In memory where that can be had: hundreds of fsyncs prove nothing here.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn group(key: u16) -> u32 {
    u32::from(key) % GROUPS
}

/// In one of two tables; not all of one length.
fn key(key: u16) -> Bytes {
    let mut bytes = vec![0, 1 + u8::from(key.is_multiple_of(3)), 0, group(key) as u8];
    bytes.extend(key.to_be_bytes());
    bytes.extend(vec![7; usize::from(key % 5)]);
    bytes
}

fn append(bytes: &[u8]) -> impl FnOnce(&mut Vec<u8>) -> Result<(), Error> {
    move |into| {
        into.extend(bytes);
        Ok(())
    }
}

fn keys(of: &[u16]) -> Keys {
    let mut keys = Keys::default();
    for k in of {
        keys.push(append(&key(*k))).unwrap();
    }
    keys
}

fn put(backend: &mut Backend, epoch: Epoch, k: u16, row: &[u8]) {
    backend.put(epoch, append(&key(k)), append(row)).unwrap();
}

fn get(backend: &mut Backend, of: &[u16]) -> BTreeMap<u16, (Epoch, Bytes)> {
    let mut all = BTreeMap::new();
    let found = |index: usize, epoch, row: &[u8]| {
        assert!(!row.is_empty());
        assert_eq!(all.insert(of[index], (epoch, row.to_vec())), None, "found twice");
        Ok(())
    };
    backend.get_many(&keys(of), found).unwrap();
    all
}

fn open(
    env: &Arc<StateEnv>,
    (subtask, groups): (usize, Range<u32>),
    restored: Option<Epoch>,
    restore: &[StateSnapshot],
) -> Result<(Backend, Reports), Error> {
    let (to, reports) = channel();
    let report = Arc::new(move |epoch, result| to.send((epoch, result)).unwrap());
    let restore = restore.to_vec();
    Ok((env.open(OpenSpec { operator: "count".into(), subtask, groups, restore, restored, report })?, reports))
}

fn start(dir: &Path, limits: Limits) -> Arc<StateEnv> {
    StateEnv::start_with(dir, Attempt::draw(), 1 << 20, limits).unwrap()
}

/// In one life after the other: room in memory for hardly any spilled row, and for all.
const BUDGETS: [usize; 2] = [12 << 10, 1 << 20];

fn finish(backend: &mut Backend, reports: &Reports, epoch: Epoch) -> Result<StateSnapshot, Error> {
    backend.finish(epoch, false)?;
    let (reported, snapshot) = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!(reported, epoch);
    snapshot
}

/// All files are there and are what the manifest says.
fn verify(dir: &Path, snapshot: &StateSnapshot) {
    for FileRef { path, bytes, checksum } in snapshot.files() {
        let content = std::fs::read(dir.join(CHECKPOINTS).join(path)).unwrap();
        assert_eq!(
            (content.len() as u64, format!("{:032x}", xxh3_128(&content))),
            (*bytes, checksum.clone()),
            "{path}"
        );
    }
    let epochs: Vec<_> = snapshot.base.iter().map(|b| b.epoch).chain(snapshot.deltas.iter().map(|d| d.epoch)).collect();
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

/// Content of all files below the checkpoints.
fn files(dir: &Path) -> BTreeMap<std::path::PathBuf, Bytes> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.join(CHECKPOINTS)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                all.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    all
}

#[derive(Debug, Clone)]
enum Op {
    /// A row is changed; no bytes take it away.
    Write(u16, Bytes),
    Read(Vec<u16>),
    Evict(u16),
    EvictAll,
    /// So many frozen rows are copied.
    Copy(u8),
    /// The next barrier, with a delta of all rows if the backend wants one, and may have it.
    Freeze(bool),
    /// Rows without content are forgotten.
    Sweep,
    /// All copied and reported, so it may be decided.
    Finish,
    /// The oldest that may be, or the newest, is decided.
    Decide(bool),
    WaitForFold,
    /// Restored with so many subtasks.
    Crash(u32),
}

fn op() -> impl Strategy<Value = Op> {
    // short ones, and such that a restore leaves in the files
    let of = |bytes| prop::collection::vec(any::<u8>(), bytes);
    let row = prop_oneof![1 => Just(vec![]), 3 => of(1..40), 1 => of(60..100)];
    prop_oneof![
        40 => (0u16..150, row).prop_map(|(k, row)| Op::Write(k, row)),
        6 => prop::collection::vec(0u16..150, 1..20).prop_map(Op::Read),
        20 => (0u16..150).prop_map(Op::Evict),
        3 => Just(Op::EvictAll),
        5 => (0u8..20).prop_map(Op::Copy),
        8 => any::<bool>().prop_map(Op::Freeze),
        4 => Just(Op::Sweep),
        8 => Just(Op::Finish),
        8 => any::<bool>().prop_map(Op::Decide),
        4 => Just(Op::WaitForFold),
        2 => prop_oneof![Just(1), Just(1), Just(2), Just(3), Just(8)].prop_map(Op::Crash),
    ]
}

struct Row {
    epoch: Epoch,
    bytes: Bytes,
}

struct Sub {
    backend: Backend,
    reports: Reports,
    table: BTreeMap<u16, Row>,
    /// Rows that the frozen epoch changed, and that have not been copied.
    frozen: BTreeMap<u16, Bytes>,
    /// Nothing has ever left the table.
    complete: bool,
    /// The frozen epoch's delta holds all rows.
    whole: bool,
}

/// What a crash goes back to.
#[derive(Clone, Default)]
struct Point {
    epoch: Option<Epoch>,
    truth: BTreeMap<u16, Bytes>,
    snapshots: Vec<StateSnapshot>,
}

struct World {
    dir: tempfile::TempDir,
    env: Arc<StateEnv>,
    subs: Vec<Sub>,
    running: Epoch,
    truth: BTreeMap<u16, Bytes>,
    /// The truth at the last barrier, until that epoch is finished.
    frozen: Option<BTreeMap<u16, Bytes>>,
    point: Point,
    /// Checkpoints that may be decided, oldest first.
    prepared: Vec<Point>,
    /// Files that a decided checkpoint named.
    named: BTreeSet<String>,
    lives: usize,
}

impl World {
    fn new() -> Self {
        let dir = tempdir();
        let env = StateEnv::start_with(dir.path(), Attempt::draw(), BUDGETS[0], SMALL).unwrap();
        let (truth, point, prepared) = Default::default();
        let (subs, named) = Default::default();
        let mut world = Self { dir, env, lives: 1, subs, running: 1, truth, frozen: None, point, prepared, named };
        world.open(1);
        world
    }

    fn open(&mut self, parallelism: u32) {
        for i in 0..parallelism {
            let groups = GROUPS * i / parallelism..GROUPS * (i + 1) / parallelism;
            let at = (i as usize, groups);
            let (backend, reports) = open(&self.env, at, self.point.epoch, &self.point.snapshots).unwrap();
            let (table, frozen) = Default::default();
            self.subs.push(Sub { complete: backend.is_empty(), backend, reports, table, frozen, whole: false });
        }
    }

    fn sub(&mut self, k: u16) -> &mut Sub {
        let sub = self.subs.iter_mut().find(|s| s.backend.store.groups.contains(&group(k)));
        sub.unwrap()
    }

    /// Into the table, if there is such a row; what the backend gives must be the truth.
    fn fetch(&mut self, of: &[u16]) {
        for i in 0..self.subs.len() {
            let sub = &mut self.subs[i];
            let own = |k: &&u16| sub.backend.store.groups.contains(&group(**k)) && !sub.table.contains_key(*k);
            let missing: BTreeSet<u16> = of.iter().filter(own).copied().collect();
            let missing: Vec<u16> = missing.into_iter().rev().collect();
            assert!(!sub.complete || sub.backend.is_empty());
            let found = get(&mut sub.backend, &missing);
            for k in &missing {
                let (found, truth) = (found.get(k).map(|(_, row)| row), self.truth.get(k));
                assert_eq!(found, truth, "key {k}");
            }
            sub.table.extend(found.into_iter().map(|(k, (epoch, bytes))| (k, Row { epoch, bytes })));
        }
    }

    fn write(&mut self, k: u16, bytes: Bytes) {
        self.fetch(&[k]);
        let epoch = self.running;
        let sub = self.sub(k);
        if let Some(old) = sub.frozen.remove(&k) {
            put(&mut sub.backend, epoch - 1, k, &old);
        }
        sub.table.insert(k, Row { epoch, bytes: bytes.clone() });
        if bytes.is_empty() {
            self.truth.remove(&k)
        } else {
            self.truth.insert(k, bytes)
        };
    }

    fn evict(&mut self, k: u16) {
        let running = self.running;
        let sub = self.sub(k);
        let Some(row) = sub.table.remove(&k) else { return };
        if let Some(old) = sub.frozen.remove(&k) {
            put(&mut sub.backend, running - 1, k, &old);
        }
        sub.complete = false;
        if sub.backend.may_drop(row.epoch) {
            return;
        }
        if row.epoch == running {
            put(&mut sub.backend, running, k, &row.bytes);
        }
        sub.backend.spill(row.epoch, &key(k), &row.bytes).unwrap();
    }

    fn copy(&mut self, budget: usize) {
        for sub in &mut self.subs {
            for _ in 0..budget {
                let Some((k, row)) = sub.frozen.pop_first() else { break };
                put(&mut sub.backend, self.running - 1, k, &row);
            }
        }
    }

    fn freeze(&mut self, whole: bool) {
        self.finish();
        for sub in &mut self.subs {
            let bytes = sub.table.values().map(|row| row.bytes.len() as u64).sum();
            sub.whole = whole && sub.complete && sub.backend.wants_whole(bytes);
            let whole = |row: &Row| sub.whole && !row.bytes.is_empty();
            let copied = sub.table.iter().filter(|(_, row)| row.epoch == self.running || whole(row));
            sub.frozen = copied.map(|(k, row)| (*k, row.bytes.clone())).collect();
        }
        self.frozen = Some(self.truth.clone());
        self.running += 1;
    }

    fn sweep(&mut self) {
        for Sub { backend, table, frozen, .. } in &mut self.subs {
            let gone = |k: &u16, row: &Row| row.bytes.is_empty() && !frozen.contains_key(k);
            table.retain(|k, row| !(gone(k, row) && backend.may_forget(row.epoch)));
        }
    }

    fn finish(&mut self) {
        self.copy(usize::MAX);
        let epoch = self.running - 1;
        let Some(truth) = self.frozen.take() else { return };
        for sub in &mut self.subs {
            sub.backend.finish(epoch, std::mem::take(&mut sub.whole)).unwrap();
        }
        let report = |sub: &Sub| sub.reports.recv_timeout(PATIENCE).unwrap();
        let snapshots: Vec<_> = self
            .subs
            .iter()
            .map(report)
            .map(|(e, s)| {
                assert_eq!(e, epoch);
                s.unwrap()
            })
            .collect();
        snapshots.iter().for_each(|s| verify(self.dir.path(), s));
        self.prepared.push(Point { epoch: Some(epoch), truth, snapshots });
    }

    fn decide(&mut self, oldest: bool) {
        let at = if oldest { 0 } else { self.prepared.len().saturating_sub(1) };
        let Some(point) = self.prepared.drain(..).nth(at) else { return };
        let epoch = point.epoch.unwrap();
        self.point = point;
        self.subs.iter_mut().for_each(|s| s.backend.decided(epoch));
        self.collect();
    }

    /// Deletes what a decided checkpoint named and the newest one does not.
    fn collect(&mut self) {
        let now: BTreeSet<_> = self.point.snapshots.iter().flat_map(|s| s.files()).map(|f| f.path.clone()).collect();
        for path in self.named.difference(&now) {
            std::fs::remove_file(self.dir.path().join(CHECKPOINTS).join(path)).unwrap();
        }
        self.named = now;
    }

    fn crash(&mut self, parallelism: u32) {
        self.env.shut_down();
        self.subs.clear();
        let budget = BUDGETS[self.lives % 2];
        self.env = StateEnv::start_with(self.dir.path(), Attempt::draw(), budget, SMALL).unwrap();
        self.lives += 1;
        let old = files(self.dir.path());
        self.open(parallelism);
        let now = files(self.dir.path());
        assert!(old.iter().all(|(path, bytes)| now.get(path) == Some(bytes)), "a restore changes no file");
        self.truth = self.point.truth.clone();
        self.frozen = None;
        self.prepared.clear();
        self.running = self.point.epoch.unwrap_or(0) + 1;
        self.fetch(&(0..150).collect::<Vec<_>>());
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Write(k, bytes) => self.write(k, bytes),
            Op::Read(keys) => self.fetch(&keys),
            Op::Evict(k) => self.evict(k),
            Op::EvictAll => (0..150).for_each(|k| self.evict(k)),
            Op::Copy(n) => self.copy(n.into()),
            Op::Freeze(whole) => self.freeze(whole),
            Op::Sweep => self.sweep(),
            Op::Finish => self.finish(),
            Op::Decide(oldest) => self.decide(oldest),
            // One that is to bring all rows keeps folds away until it is finished.
            Op::WaitForFold => self.subs.iter().filter(|s| !s.whole).for_each(|s| s.backend.wait_for_fold()),
            Op::Crash(parallelism) => self.crash(parallelism),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn restored_is_what_was_decided(ops in prop::collection::vec(op(), 1..400)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        for parallelism in [1, 3, 1] {
            world.crash(parallelism);
        }
    }
}

#[test]
fn folds_bound_the_chain_and_empty_the_spill() {
    let dir = tempdir();
    let env = start(dir.path(), Limits::PRODUCTION);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    assert!(backend.is_empty());
    let mut longest = 0;
    for epoch in 1..=100 {
        for k in 0..50 {
            let k = k + epoch as u16;
            put(&mut backend, epoch, k, &epoch.to_be_bytes());
            backend.spill(epoch, &key(k), &epoch.to_be_bytes()).unwrap();
        }
        let snapshot = finish(&mut backend, &reports, epoch).unwrap();
        verify(dir.path(), &snapshot);
        longest = longest.max(snapshot.deltas.len());
        backend.decided(epoch);
        if epoch % 5 == 0 {
            backend.wait_for_fold();
            assert!(backend.store.spill.generations() <= 2);
        }
    }
    assert!((16..=20).contains(&longest), "{longest}");
    assert!(backend.folded() >= 80);
    let all: Vec<u16> = (0..200).collect();
    let found = get(&mut backend, &all);
    assert_eq!(found.len(), 149);
    assert!(found.iter().all(|(k, (_, row))| row[..] == u64::from(*k).min(100).to_be_bytes()));
}

/// Three epochs are folded.
fn fold_three(backend: &mut Backend, reports: &Reports, first: Epoch) {
    for epoch in first..first + 3 {
        (0..10).for_each(|k| put(backend, epoch, k, &epoch.to_be_bytes()));
        finish(backend, reports, epoch).unwrap();
    }
    backend.decided(first + 2);
    backend.wait_for_fold();
    assert_eq!(backend.folded(), first + 2);
}

#[test]
fn what_was_dropped_is_looked_up() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    fold_three(&mut backend, &reports, 1);
    assert!(!backend.may_drop(4) && backend.is_empty());
    assert!(backend.may_drop(3) && !backend.is_empty());
    assert_eq!(get(&mut backend, &[3, 20]), BTreeMap::from([(3, (0, 3u64.to_be_bytes().to_vec()))]));
}

#[test]
fn the_first_fold_replaces_the_restored_base() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    fold_three(&mut backend, &reports, 1);
    let snapshot = finish(&mut backend, &reports, 4).unwrap();
    env.shut_down();
    drop(backend);
    let env = start(dir.path(), SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), Some(4), &[snapshot]).unwrap();
    assert_eq!(get(&mut backend, &[3])[&3], (0, 3u64.to_be_bytes().to_vec()));
    fold_three(&mut backend, &reports, 5);
    assert_eq!(get(&mut backend, &[3])[&3], (0, 7u64.to_be_bytes().to_vec()));
}

#[test]
fn an_old_spilled_row_does_not_hide_base() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    backend.spill(1, &key(3), b"old").unwrap();
    backend.spill(9, &key(4), b"new").unwrap();
    fold_three(&mut backend, &reports, 1);
    let found = BTreeMap::from([(3, (0, 3u64.to_be_bytes().to_vec())), (4, (9, b"new".to_vec()))]);
    assert_eq!(get(&mut backend, &[3, 4]), found);
}

#[test]
fn a_row_is_not_forgotten_while_the_spill_has_an_older_one() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    // Evicted, come back, and emptied.
    put(&mut backend, 1, 3, b"old");
    backend.spill(1, &key(3), b"old").unwrap();
    assert_eq!(get(&mut backend, &[3]).len(), 1);
    finish(&mut backend, &reports, 1).unwrap();
    put(&mut backend, 2, 3, b"");
    finish(&mut backend, &reports, 2).unwrap();
    backend.decided(2);
    if backend.may_forget(2) {
        assert_eq!(get(&mut backend, &[3]), BTreeMap::new());
    }
    put(&mut backend, 3, 4, b"r");
    finish(&mut backend, &reports, 3).unwrap();
    backend.decided(3);
    backend.wait_for_fold();
    assert!(backend.may_forget(2));
    assert_eq!(get(&mut backend, &[3]), BTreeMap::new());
}

#[test]
fn epochs_that_are_not_decided_stay_out_of_base() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    for epoch in 1..=5 {
        put(&mut backend, epoch, 1, &epoch.to_be_bytes());
        finish(&mut backend, &reports, epoch).unwrap();
    }
    backend.decided(3);
    backend.wait_for_fold();
    let mut snapshot = finish(&mut backend, &reports, 6).unwrap();
    assert_eq!(snapshot.base.as_ref().unwrap().epoch, 3);
    assert_eq!(snapshot.deltas.iter().map(|d| d.epoch).collect::<Vec<_>>(), [4, 5]);
    snapshot.deltas.clear();
    let (mut restored, _) = open(&env, (7, 0..GROUPS), Some(3), &[snapshot]).unwrap();
    assert_eq!(get(&mut restored, &[1])[&1], (0, 3u64.to_be_bytes().to_vec()));
}

#[test]
fn an_epoch_without_changes_reports_at_once() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    for epoch in 1..40 {
        backend.finish(epoch, false).unwrap();
        let (reported, snapshot) = reports.try_recv().unwrap();
        let snapshot = snapshot.unwrap();
        assert_eq!((reported, snapshot.files().count()), (epoch, 0));
        backend.decided(epoch);
    }
    assert!(files(dir.path()).is_empty());
    put(&mut backend, 40, 1, b"r");
    let snapshot = finish(&mut backend, &reports, 40).unwrap();
    assert_eq!(finish(&mut backend, &reports, 41).unwrap(), snapshot);
    // An empty epoch right behind one under way names that one's delta.
    put(&mut backend, 42, 1, b"r");
    backend.finish(42, false).unwrap();
    backend.finish(43, false).unwrap();
    assert_eq!(reports.recv().unwrap().0, 42);
    assert_eq!(reports.recv().unwrap().1.unwrap().deltas.len(), 2);
}

#[test]
fn a_third_open_epoch_is_an_error() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, _reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    put(&mut backend, 1, 1, b"r");
    put(&mut backend, 2, 1, b"r");
    assert!(backend.put(3, |_| Ok(()), |_| Ok(())).is_err());
    backend.finish(1, false).unwrap();
    put(&mut backend, 3, 1, b"r");
}

/// A checkpoint with a base and deltas.
fn checkpoint(dir: &Path) -> StateSnapshot {
    let env = start(dir, SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    for epoch in 1..=5 {
        (0..20).for_each(|k| put(&mut backend, epoch, k, &[epoch as u8; 30]));
        finish(&mut backend, &reports, epoch).unwrap();
        backend.decided(epoch);
        backend.wait_for_fold();
    }
    let snapshot = finish(&mut backend, &reports, 6).unwrap();
    assert!(snapshot.base.is_some() && !snapshot.deltas.is_empty());
    env.shut_down();
    snapshot
}

#[test]
fn damage_is_refused_and_names_the_file() {
    let dir = tempdir();
    let snapshot = checkpoint(dir.path());
    let env = start(dir.path(), SMALL);
    let all: Vec<u16> = (0..20).collect();
    // RocksDB's log of a base is empty.
    for file in snapshot.files().filter(|f| f.bytes > 0) {
        let path = dir.path().join(CHECKPOINTS).join(&file.path);
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for broken in [Some(&flipped[..]), Some(&good[1..]), None] {
            std::fs::remove_file(&path).unwrap();
            broken.iter().for_each(|bytes| std::fs::write(&path, bytes).unwrap());
            for groups in [0..GROUPS, 0..2] {
                let opened = open(&env, (0, groups.clone()), Some(6), std::slice::from_ref(&snapshot));
                // A block of a sorted file is verified when it is read.
                let read = opened.and_then(|(mut b, _)| b.get_many(&keys(&all), |_, _, _| Ok(())));
                match read {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
                        let text = error.to_string();
                        let name = file.path.rsplit('/').next().unwrap();
                        assert!(text.contains(name) || text.contains("base-"), "{text} names no {name}");
                    }
                    Ok(()) => assert!(path.extension().is_some_and(|e| e == "sst"), "{path:?} {groups:?}"),
                }
                let _ = std::fs::remove_dir_all(
                    dir.path().join(CHECKPOINTS).join(format!("state/base-6-{}-count-0", env.shared.attempt)),
                );
            }
            std::fs::write(&path, &good).unwrap();
        }
    }
    assert!(open(&env, (0, 0..GROUPS), Some(6), &[snapshot]).is_ok());
}

#[test]
fn rows_are_verified_when_they_are_read_in_a_delta() {
    let dir = tempdir();
    let row = |k: u16, epoch: u8| vec![k as u8 ^ epoch; 100 + usize::from(k)];
    let snapshot = {
        let env = start(dir.path(), Limits::PRODUCTION);
        let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
        (0..20).for_each(|k| put(&mut backend, 1, k, &row(k, 1)));
        finish(&mut backend, &reports, 1).unwrap();
        (0..5).for_each(|k| put(&mut backend, 2, k, &row(k, 2)));
        finish(&mut backend, &reports, 2).unwrap()
    };
    assert!(snapshot.base.is_none() && snapshot.deltas.len() == 2);
    let env = start(dir.path(), Limits::PRODUCTION);
    let (mut backend, _) = open(&env, (0, 0..GROUPS), Some(2), std::slice::from_ref(&snapshot)).unwrap();
    let mut read = |k: u16| {
        let mut found = None;
        backend.get_many(&keys(&[k]), |_, epoch, row| {
            found = Some((epoch, row.to_vec()));
            Ok(())
        })?;
        Ok::<_, Error>(found)
    };
    for k in 0..20 {
        let epoch = if k < 5 { 2 } else { 1 };
        assert_eq!(read(k).unwrap(), Some((epoch, row(k, epoch as u8))));
    }
    assert_eq!(read(20).unwrap(), None);
    let path = dir.path().join(CHECKPOINTS).join(&snapshot.deltas[0].file.path);
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let text = |found: Result<_, Error>| found.err().filter(|e| e.kind() == ErrorKind::Refused).unwrap().to_string();
    for (broken, said) in [(&flipped[..], "a row is not"), (&good[1..], "ends early")] {
        std::fs::write(&path, broken).unwrap();
        let found = text(read(19));
        assert!(found.contains(said) && found.contains(&path.display().to_string()), "{found}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(text(read(19)).contains("missing"));
    assert_eq!(read(4).unwrap(), Some((2, row(4, 2))));
}

#[test]
fn a_key_group_that_nobody_had_is_refused() {
    let dir = tempdir();
    let mut snapshot = checkpoint(dir.path());
    snapshot.groups = 0..4;
    let env = start(dir.path(), SMALL);
    let error = open(&env, (0, 2..6), Some(6), &[snapshot]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn the_first_error_poisons_the_writer() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut first, reports) = open(&env, (0, 0..4), None, &[]).unwrap();
    let (mut second, others) = open(&env, (1, 4..8), None, &[]).unwrap();
    let (state, away) = (dir.path().join("checkpoints/state"), dir.path().join("away"));
    std::fs::rename(&state, &away).unwrap();
    put(&mut first, 1, 1, b"r");
    assert_eq!(finish(&mut first, &reports, 1).unwrap_err().kind(), ErrorKind::Io);
    std::fs::rename(&away, &state).unwrap();
    put(&mut second, 1, 5, b"r");
    assert_eq!(finish(&mut second, &others, 1).unwrap_err().kind(), ErrorKind::Io);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_failed_fold_fails_the_next_epoch() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    for epoch in 1..=3 {
        put(&mut backend, epoch, 1, b"r");
        finish(&mut backend, &reports, epoch).unwrap();
    }
    for path in files(dir.path()).into_keys() {
        std::fs::write(path, b"gone").unwrap();
    }
    backend.decided(3);
    backend.wait_for_fold();
    let error = backend.finish(4, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("delta-1-"), "{error}");
}

#[test]
fn after_shut_down_there_are_errors_and_no_scratch() {
    let dir = tempdir();
    let env = start(dir.path(), SMALL);
    let (mut backend, _reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    backend.spill(1, &key(1), b"r").unwrap();
    assert_eq!(get(&mut backend, &[1, 2]).len(), 1);
    put(&mut backend, 1, 1, b"r");
    env.shut_down();
    env.shut_down();
    assert!(backend.finish(1, false).is_err());
    drop(backend);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [CHECKPOINTS]);
}

/// State of many times the budget, in four subtasks: written, spilled, folded, read back, rescaled.
#[test]
fn much_state_with_a_small_budget() {
    const KEYS: u32 = 200_000;
    let wide = |k: u32| [&[0, 1, 0, (k % GROUPS) as u8][..], &k.to_be_bytes()].concat();
    let row = |k: u32| [k.to_le_bytes(); 25].concat();
    let dir = tempdir();
    let limits = Limits { chunk_bytes: 4 << 20, ..SMALL };
    let env = start(dir.path(), limits);
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    for epoch in 1..=4 {
        for k in (0..KEYS).filter(|k| k % 4 == epoch as u32 - 1 || k % 1000 == 0) {
            backend.put(epoch, append(&wide(k)), append(&row(k))).unwrap();
            backend.spill(epoch, &wide(k), &row(k)).unwrap();
        }
        finish(&mut backend, &reports, epoch).unwrap();
        backend.decided(epoch);
    }
    backend.wait_for_fold();
    let all_there = |backend: &mut Backend, groups: Range<u32>| {
        let mut keys = Keys::default();
        let mut count = 0;
        for start in (0..KEYS).step_by(1000) {
            let of: Vec<_> = (start..start + 1000).filter(|k| groups.contains(&(k % GROUPS))).collect();
            keys.clear();
            of.iter().for_each(|k| keys.push(append(&wide(*k))).unwrap());
            let found = |i: usize, _, bytes: &[u8]| {
                count += 1;
                assert_eq!(bytes, row(of[i]));
                Ok(())
            };
            backend.get_many(&keys, found).unwrap();
        }
        assert_eq!(count, KEYS * groups.len() as u32 / GROUPS);
    };
    all_there(&mut backend, 0..GROUPS);
    let snapshot = finish(&mut backend, &reports, 5).unwrap();
    env.shut_down();
    drop(backend);
    let env = start(dir.path(), limits);
    let parts: Vec<_> = [0..2, 2..4, 4..6, 6..8].into_iter().enumerate().collect();
    let parts: Vec<_> = parts
        .into_iter()
        .map(|(i, groups)| {
            let (mut backend, reports) =
                open(&env, (i, groups.clone()), Some(5), std::slice::from_ref(&snapshot)).unwrap();
            all_there(&mut backend, groups);
            let part = finish(&mut backend, &reports, 6).unwrap();
            assert!(part.deltas.is_empty() && part.base.as_ref().is_some_and(|b| b.epoch == 5));
            part
        })
        .collect();
    env.shut_down();
    let env = start(dir.path(), limits);
    let (mut backend, _) = open(&env, (0, 0..GROUPS), Some(6), &parts).unwrap();
    all_there(&mut backend, 0..GROUPS);
}

/// A fold is under way nearly always, and each row is read from wherever it happens to be.
#[test]
fn reads_are_right_while_folds_run() {
    const ROWS: u16 = 3000;
    let dir = tempdir();
    let env = start(dir.path(), Limits { deltas: 1, chunk_bytes: 8 << 10, ..SMALL });
    let (mut backend, reports) = open(&env, (0, 0..GROUPS), None, &[]).unwrap();
    let mut truth = BTreeMap::new();
    let mut seed = 1u64;
    let mut random = |below: u16| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u16 % below
    };
    let mut folds = BTreeSet::new();
    for epoch in 1..=60u64 {
        for _ in 0..40 {
            for _ in 0..20 {
                let k = random(ROWS);
                let row = if random(5) == 0 { vec![] } else { [epoch.to_be_bytes(), [k as u8; 8]].concat() };
                put(&mut backend, epoch, k, &row);
                backend.spill(epoch, &key(k), &row).unwrap();
                truth.insert(k, row);
            }
            let of: BTreeSet<u16> = (0..30).map(|_| random(ROWS)).collect();
            let of: Vec<u16> = of.into_iter().collect();
            let found = get(&mut backend, &of);
            for k in of {
                let row = truth.get(&k).filter(|row| !row.is_empty());
                assert_eq!(found.get(&k).map(|(_, row)| row), row, "key {k} in epoch {epoch}");
            }
            folds.insert(backend.folded());
        }
        finish(&mut backend, &reports, epoch).unwrap();
        backend.decided(epoch);
    }
    assert!(folds.len() > 5, "{folds:?}");
}
