//! The index against a plain set, over a model of storage: what was folded, deltas, what was spilled.

use super::*;
use crate::fuzz::{Bound, any_bytes, bounded, cases, damaged};
use crate::state::backend::gone_by;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const TABLE: u16 = 7;
const GROUPS: Range<u32> = 3..6;
const BOUND: usize = 30;

type Key = Vec<u8>;

/// Storage as `backend.rs` describes it.
#[derive(Clone, Default)]
struct Model {
    running: Epoch,
    /// The last epoch whose delta is complete.
    finished: Epoch,
    folded: Epoch,
    base: BTreeMap<Key, Key>,
    /// After `folded`.
    deltas: Vec<(Epoch, Key, Key)>,
    spill: BTreeMap<Key, (Epoch, bool)>,
    scanned: usize,
}

impl IndexStorage for Model {
    fn put(&mut self, epoch: Epoch, key: &[u8], value: &[u8]) -> Result<(), Error> {
        assert!(epoch > self.finished && epoch <= self.running, "the delta of {epoch} is not open");
        self.deltas.push((epoch, key.into(), value.into()));
        Ok(())
    }
    fn spill(&mut self, epoch: Epoch, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.spill.insert(key.into(), (epoch, !value.is_empty()));
        Ok(())
    }
    fn may_drop(&mut self, epoch: Epoch) -> bool {
        epoch <= self.folded
    }
    fn scan(
        &mut self,
        range: Range<&[u8]>,
        each: &mut dyn FnMut(Epoch, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let keys: BTreeSet<&Key> = self.base.keys().chain(self.spill.keys()).collect();
        for key in keys.into_iter().filter(|key| range.contains(&&key[..])) {
            let (epoch, there) = match self.spill.get(key) {
                Some((epoch, there)) if *epoch > self.folded => (*epoch, *there),
                _ => (0, self.base.contains_key(key)),
            };
            self.scanned += usize::from(there);
            if there && !each(epoch, key)? {
                break;
            }
        }
        Ok(())
    }
    fn running(&self) -> Epoch {
        self.running
    }
}

impl Model {
    /// Brings all finished epochs into the base.
    fn fold(&mut self) {
        self.folded = self.finished;
        let mut deltas: Vec<_> = self.deltas.extract_if(.., |(epoch, ..)| *epoch <= self.folded).collect();
        deltas.sort_by_key(|(epoch, ..)| *epoch);
        for (_, key, value) in deltas {
            if let Some((from, to)) = gone_by(&key, &value) {
                self.base.retain(|key, _| key[..] < from[..] || key[..] >= *to);
            }
            if value.is_empty() {
                self.base.remove(&key);
            } else {
                self.base.insert(key, value);
            }
        }
    }
    /// The process dies and comes back: what is not finished is lost, and what was spilled.
    fn restart(&mut self) {
        self.deltas.retain(|(epoch, ..)| *epoch <= self.finished);
        self.deltas.sort_by_key(|(epoch, ..)| *epoch);
        self.running = self.finished + 1;
        self.spill = self.deltas.iter().map(|(epoch, key, row)| (key.clone(), (*epoch, !row.is_empty()))).collect();
    }
    /// The row of a floor.
    fn floor(&self, group: u32) -> Option<&Key> {
        let mut key = Vec::new();
        floor_key(TABLE, group, &mut key);
        let newest = self.deltas.iter().rev().find(|(_, of, _)| *of == key).map(|(.., row)| row);
        newest.or_else(|| self.base.get(&key))
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u32, i64, u8),
    /// And what is due waits, as timers do that are set when the end has come.
    Leave(u32, i64, u8),
    Cancel(u32, i64, u8),
    /// Up to so much later, and what is added once the first entry was taken.
    Fire(i64, Option<(i64, u8)>),
    /// With all there is, if that may be.
    Barrier(bool),
    Copy,
    Fold,
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let entry = || (GROUPS, -20i64..120, 0u8..4);
    let op = prop_oneof![
        40 => entry().prop_map(|(group, at, key)| Op::Insert(group, at, key)),
        4 => entry().prop_map(|(group, at, key)| Op::Leave(group, at, key)),
        12 => entry().prop_map(|(group, at, key)| Op::Cancel(group, at, key)),
        4 => (0i64..12, prop::option::of((-20i64..60, 0u8..4))).prop_map(|(by, more)| Op::Fire(by, more)),
        3 => any::<bool>().prop_map(Op::Barrier),
        3 => Just(Op::Copy),
        2 => Just(Op::Fold),
        1 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 0..400)
}

fn due(at: i64, key: u8) -> Due {
    // of different lengths, some beyond what is kept inline
    Due::new(Timestamp::from_millis(at), &vec![key; 1 + usize::from(key) * 9])
}

struct Both {
    index: TimerIndex,
    model: Model,
    oracle: BTreeSet<(u32, Due)>,
    /// As they were at the barrier whose epoch is being copied.
    frozen: Option<(Epoch, bool, BTreeSet<(u32, Due)>)>,
    at_barrier: BTreeSet<(u32, Due)>,
    now: i64,
}

impl Both {
    fn new() -> Self {
        let index = TimerIndex::new(TABLE, GROUPS, false, BOUND, true);
        let model = Model { running: 1, ..Model::default() };
        Self { index, model, oracle: BTreeSet::new(), frozen: None, at_barrier: BTreeSet::new(), now: -20 }
    }

    fn insert(&mut self, group: u32, due: Due) {
        self.index.insert(group, due.clone(), &mut self.model).unwrap();
        self.oracle.insert((group, due));
    }

    /// Copies on; true if there is more.
    fn copy(&mut self) -> bool {
        if self.index.copy(&mut self.model).unwrap() {
            return true;
        }
        if let Some((epoch, whole, oracle)) = self.frozen.take() {
            self.model.finished = epoch;
            self.at_barrier = oracle;
            if whole {
                self.model.deltas.retain(|(of, ..)| *of >= epoch);
            }
        }
        false
    }

    /// Takes what is due, as a subtask does.
    fn fire(&mut self, mut more: Option<(i64, u8)>) -> Result<(), TestCaseError> {
        let now = Timestamp::from_millis(self.now);
        for group in GROUPS {
            loop {
                self.index.read_on(group, now, &mut self.model).unwrap();
                let first = self.oracle.iter().find(|(of, _)| *of == group).filter(|(_, due)| due.at <= now).cloned();
                let is_due = self.index.first(group, now, &mut self.model).unwrap().is_some();
                let taken = if is_due { self.index.take(group, &mut self.model).unwrap() } else { None };
                let Some(taken) = taken else {
                    prop_assert_eq!(first, None);
                    break;
                };
                prop_assert_eq!(Some((group, taken)), first.clone());
                self.oracle.remove(&first.unwrap());
                if let Some((at, key)) = more.take() {
                    self.insert(group, due(at, key));
                }
            }
        }
        self.index.look_ahead();
        prop_assert!(self.index.next().is_none_or(|next| next > now));
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Insert(group, at, key) => {
                self.insert(group, due(at, key));
                if at <= self.now {
                    self.fire(None)?;
                }
            }
            Op::Leave(group, at, key) => self.insert(group, due(at, key)),
            Op::Cancel(group, at, key) => {
                self.index.cancel(group, due(at, key), &mut self.model).unwrap();
                self.oracle.remove(&(group, due(at, key)));
            }
            Op::Fire(by, more) => {
                self.now += by;
                self.fire(more)?;
            }
            Op::Barrier(whole) => {
                while self.copy() {}
                let (frozen, whole) = (self.model.running, whole && self.index.is_complete() && self.model.folded == 0);
                self.model.running += 1;
                self.index.freeze(frozen, whole, &mut self.model).unwrap();
                self.frozen = Some((frozen, whole, self.oracle.clone()));
            }
            Op::Copy => _ = self.copy(),
            Op::Fold => self.model.fold(),
            Op::Restart => {
                self.frozen = None;
                self.model.restart();
                self.oracle = self.at_barrier.clone();
                self.index = TimerIndex::new(TABLE, GROUPS, true, BOUND, true);
                for group in GROUPS {
                    if let Some(floor) = self.model.floor(group) {
                        self.index.restore(group, floor).unwrap();
                    }
                }
                self.index.look_ahead();
                self.fire(None)?;
            }
        }
        let next = self.oracle.iter().map(|(_, due)| due.at).min();
        prop_assert!(next.is_none() || self.index.next() <= next, "a timer would be overlooked");
        let open: usize = self.index.groups.iter().map(|near| near.heap.open().len()).sum();
        prop_assert!(self.index.near() - open <= BOUND, "{} entries in memory", self.index.near());
        Ok(())
    }
}

proptest! {
    /// Any sequence of settings, cancellations, firings, evictions, folds and restarts: each entry is taken once, when
    /// it is due, in order, and memory stays bounded.
    #[test]
    fn is_a_plain_set(ops in ops()) {
        let mut both = Both::new();
        for op in ops {
            both.apply(op)?;
        }
        both.now = 1000;
        both.fire(None)?;
        prop_assert!(both.oracle.is_empty());
        prop_assert_eq!(both.index.next(), None);
    }
}

/// What is not overdue goes to buckets, of which each that has an entry takes some KiB; there are 416.
const FLOOR: Bound = Bound { per_byte: 64, more: 2 << 20 };

fn any_floor() -> impl Strategy<Value = Vec<u8>> {
    let overdue = prop::collection::vec((any::<i64>(), 0u8..4).prop_map(|(at, key)| due(at, key)), 0..8);
    (any::<u64>(), overdue).prop_map(|(reached, overdue)| {
        let mut row = Vec::new();
        put_floor(reached, overdue.iter(), TABLE, GROUPS.start, &mut row);
        row
    })
}

proptest! {
    #![proptest_config(cases(1000))]

    /// Floors that nobody wrote: whatever can be read can be gone on from.
    #[test]
    fn any_floor_is_taken(row in prop_oneof![any_bytes(), damaged(any_floor())], now in any::<i64>()) {
        let input = row.len();
        let mut key = Vec::new();
        floor_key(TABLE, GROUPS.start, &mut key);
        let gone = bounded(input, Bound { per_byte: 0, more: 0 }, || gone_by(&key, &row).map(|(_, to)| to.len()))?;
        prop_assert!(gone.is_none_or(|to| to < input));
        bounded(input, FLOOR, || {
            let (mut index, mut storage) = (TimerIndex::new(TABLE, GROUPS, true, BOUND, true), Model::default());
            if index.restore(GROUPS.start, &row).is_ok() {
                let now = Timestamp::from_millis(now);
                while index.first(GROUPS.start, now, &mut storage).unwrap().is_some_and(|first| first <= now) {
                    index.take(GROUPS.start, &mut storage).unwrap();
                }
            }
        })?;
    }
}

/// Each entry is read from storage a bounded number of times, however few are in memory.
#[test]
fn far_entries_are_read_when_they_are_near() {
    let mut both = Both::new();
    for at in (0..3000).rev() {
        both.index.insert(3, due(at, (at % 4) as u8), &mut both.model).unwrap();
        assert!(both.index.near() <= BOUND);
    }
    let mut last = None;
    let mut taken = 0;
    for now in (0..3000).step_by(100).chain([3000]).map(Timestamp::from_millis) {
        loop {
            both.index.read_on(3, now, &mut both.model).unwrap();
            if both.index.first(3, now, &mut both.model).unwrap().is_none() {
                break;
            }
            let due = both.index.take(3, &mut both.model).unwrap().unwrap();
            assert!(due.at <= now && Some(&due) > last.as_ref());
            last = Some(due);
            taken += 1;
            assert!(both.index.near() <= BOUND);
        }
    }
    assert_eq!(taken, 3000);
    assert!(both.model.scanned <= 6000, "{} entries were read", both.model.scanned);
}
