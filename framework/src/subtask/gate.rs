//! The gate: aligns barriers and watermarks. Pure; which lane holds what is in `inbox.rs`.
//!
//! Barriers:
//! 1. The first barrier `n` closes its lane: what follows on it belongs to the next epoch.
//! 2. The other lanes are read on until each has brought barrier `n`.
//! 3. With the last one the gate opens all lanes, and barrier `n` passes: everything before it, on every lane, has been
//!    worked off, nothing behind it has.
//!
//! A lane that has ended still brings barriers, so that checkpoints go on after some sources have ended.
//!
//! Watermarks: the least of the lanes that count passes (`marks.rs`). A lane whose watermark is more than `drift` ahead
//! of the slowest one of its group is not read until that one has followed, for its records would only wait in state.
//! A group is of lanes that can be read apart: were two fed by one source at different times of the same records, the
//! one would wait for what it holds up itself. Not held are lanes while a barrier is aligned, for its barrier may be
//! behind what is not read; and nobody waits for a lane that is idle, has ended, or has brought no watermark yet. That
//! is not all that can go wrong in a graph of exchanges, so patience is limited: if nothing comes of the lanes that are
//! read for [`PATIENCE`], the drift is doubled, for good. To hold lanes back saves memory; no result depends on it.

use super::marks::{Mark, Marks};
use crate::{Epoch, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for the lanes that are read while others are not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be done about a barrier or an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Nothing.
    Hold,
    /// This lane is closed until the barrier passes.
    Close,
    /// The barrier passes; all lanes are open again.
    Barrier(Epoch),
    /// All lanes have ended.
    End,
}

/// What is known of the lanes when they are laid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GateSpec {
    /// Under which name a checkpoint keeps its watermark, if it does: that of the operator behind it.
    pub(crate) name: Option<Arc<str>>,
    /// For each lane: its group, if it brings watermarks.
    pub(crate) lanes: Vec<Option<usize>>,
    /// How far a lane may be ahead of the slowest of its group.
    pub(crate) drift: Option<Duration>,
    /// The watermark to begin with.
    pub(crate) from: Timestamp,
}

/// Which lanes have brought the barrier, which have ended, and how far they are in event time.
#[derive(Debug)]
pub(crate) struct Gate {
    name: Option<Arc<str>>,
    aligned: Vec<bool>,
    ended: Vec<bool>,
    marks: Marks,
    groups: Vec<Option<usize>>,
    drift: Option<Duration>,
    closed: Vec<bool>,
    /// By group; the memory is kept.
    slowest: Vec<Timestamp>,
}

impl Gate {
    /// An open gate.
    pub(crate) fn new(spec: GateSpec) -> Self {
        let GateSpec { name, lanes, drift, from } = spec;
        let marks = Marks::new(lanes.iter().map(Option::is_some), from);
        let groups = lanes.iter().flatten().max().map_or(0, |last| last + 1);
        let no = vec![false; lanes.len()];
        let (aligned, ended, closed) = (no.clone(), no.clone(), no);
        Self { name, aligned, ended, marks, groups: lanes, drift, closed, slowest: vec![Timestamp::MAX; groups] }
    }

    /// A barrier arrived on a lane.
    pub(crate) fn barrier(&mut self, lane: usize, epoch: Epoch) -> Passage {
        self.aligned[lane] = true;
        if self.aligned.iter().all(|a| *a) {
            self.aligned.fill(false);
            return Passage::Barrier(epoch);
        }
        Passage::Close
    }

    /// Whether a barrier has arrived on some lanes and not on others.
    fn is_aligning(&self) -> bool {
        self.aligned.iter().any(|a| *a)
    }

    /// A lane has ended.
    pub(crate) fn end(&mut self, lane: usize) -> Passage {
        self.ended[lane] = true;
        self.marks.end(lane);
        if self.ended.iter().all(|e| *e) { Passage::End } else { Passage::Hold }
    }

    /// Watermarks of the lanes; changes are to be followed by asking for [`news`](Self::news).
    pub(crate) fn marks(&mut self) -> &mut Marks {
        &mut self.marks
    }

    /// What the checkpoint whose barrier passes keeps: under which name, and the watermark. It may be ahead of all that
    /// is known of splits, for it does not go back when a lane that was idle brings something again.
    pub(crate) fn kept(&self) -> Option<(Arc<str>, Timestamp)> {
        self.name.clone().map(|name| (name, self.marks.reached()))
    }

    /// What passes in event time; to be asked until there is nothing.
    #[inline]
    pub(crate) fn news(&mut self) -> Option<Mark> {
        self.marks.next()
    }

    /// Which lanes are not to be read now, because of a barrier or because they are ahead.
    pub(crate) fn closed(&mut self) -> &[bool] {
        self.closed.copy_from_slice(&self.aligned);
        let Some(drift) = self.drift.filter(|_| !self.is_aligning()) else { return &self.closed };
        let started = |mark: &Timestamp| *mark > Timestamp::MIN && *mark < Timestamp::MAX;
        self.slowest.fill(Timestamp::MAX);
        for (lane, group) in self.groups.iter().enumerate() {
            if let (Some(group), Some(mark)) = (group, self.marks.of(lane).filter(started)) {
                self.slowest[*group] = mark.min(self.slowest[*group]);
            }
        }
        for (lane, group) in self.groups.iter().enumerate() {
            if let (Some(group), Some(mark)) = (group, self.marks.of(lane).filter(started)) {
                self.closed[lane] = mark > self.slowest[*group] + drift;
            }
        }
        &self.closed
    }

    /// Whether lanes are not read because they are ahead of others.
    pub(crate) fn holds(&self) -> bool {
        !self.is_aligning() && self.closed.iter().any(|closed| *closed)
    }

    /// The slowest have brought nothing for [`PATIENCE`].
    pub(crate) fn give_way(&mut self) {
        self.drift = self.drift.map(|drift| drift.max(Duration::from_millis(1)).saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Item {
        /// Of an epoch, at a time.
        Record(u64, i64),
        Watermark(i64),
        Idle,
        Barrier(Epoch),
        End,
    }

    /// What a lane brings: records, honest watermarks and silences in each epoch, barriers between them, and an end
    /// that may come before the last barriers.
    fn lane() -> impl Strategy<Value = VecDeque<Item>> {
        let step = prop_oneof![
            5 => (1i64..40).prop_map(|ahead| Item::Record(0, ahead)),
            4 => (1i64..30).prop_map(Item::Watermark),
            1 => Just(Item::Idle),
        ];
        let epoch = prop::collection::vec(step, 0..6);
        (prop::collection::vec(epoch, 4), 0usize..4).prop_map(|(epochs, end_at)| {
            let (mut items, mut mark) = (VecDeque::new(), 0);
            for (epoch, steps) in epochs.into_iter().enumerate() {
                for step in steps.into_iter().filter(|_| epoch <= end_at) {
                    items.push_back(match step {
                        Item::Record(_, ahead) => Item::Record(epoch as u64, mark + ahead),
                        Item::Watermark(by) => {
                            mark += by;
                            Item::Watermark(mark)
                        }
                        other => other,
                    });
                }
                if epoch == end_at {
                    items.push_back(Item::End);
                }
                items.push_back(Item::Barrier(epoch as u64));
            }
            items
        })
    }

    /// The lanes as they are read, and what each has brought.
    struct Lanes {
        left: Vec<VecDeque<Item>>,
        timed: Vec<bool>,
        read: Vec<Vec<Item>>,
    }

    impl Lanes {
        /// The watermark and whether all is idle, by what each lane brought last.
        fn oracle(&self) -> (i64, bool) {
            let (mut counting, mut resting, mut ended) = (vec![], vec![], vec![]);
            for read in self.read.iter().zip(&self.timed).filter(|(_, timed)| **timed).map(|(read, _)| read) {
                let mark = read.iter().filter_map(|i| if let Item::Watermark(ms) = i { Some(*ms) } else { None }).max();
                let last = read.iter().rev().find(|i| !matches!(i, Item::Barrier(_)));
                match last {
                    _ if read.contains(&Item::End) => ended.push(mark.unwrap_or(i64::MIN)),
                    Some(Item::Idle) => resting.push(mark.unwrap_or(i64::MIN)),
                    _ => counting.push(mark.unwrap_or(i64::MIN)),
                }
            }
            let idle = counting.is_empty() && !resting.is_empty();
            let others = resting.iter().chain(&ended).max().copied();
            let all_over = (resting.is_empty() && !ended.is_empty()).then_some(i64::MAX);
            (counting.into_iter().min().or(all_over).or(others).unwrap_or(i64::MIN), idle)
        }

        /// The times of records that are not read yet.
        fn to_come(&self) -> impl Iterator<Item = i64> {
            let timed = self.left.iter().zip(&self.timed).filter(|(_, timed)| **timed).flat_map(|(left, _)| left);
            timed.filter_map(|item| if let Item::Record(_, time) = item { Some(*time) } else { None })
        }

        /// What comes after a silence may be late.
        fn has_been_idle(&self) -> bool {
            self.read.iter().any(|read| read.contains(&Item::Idle))
        }
    }

    proptest! {
        /// Whatever lane is read when: between two barriers that pass lie exactly the records of that epoch; the
        /// watermark is the least of those that count, never goes back, and passes no record that is still to come; and
        /// however narrow the drift, there is always a lane to read.
        #[test]
        fn epochs_are_not_mixed_and_watermarks_pass_nothing(
            left in prop::collection::vec(lane(), 1..5),
            timed in prop::collection::vec(prop::bool::weighted(0.8), 5),
            drift in prop::option::of(0u64..60),
            choices in prop::collection::vec(any::<usize>(), 400),
        ) {
            let n = left.len();
            let is_of = |i: &&Item, epoch| matches!(i, Item::Record(e, _) if *e == epoch);
            let expected: Vec<usize> =
                (0..4u64).map(|epoch| left.iter().flatten().filter(|i| is_of(i, epoch)).count()).collect();
            let spec = GateSpec {
                name: None,
                lanes: timed[..n].iter().map(|timed| timed.then_some(0)).collect(),
                drift: drift.map(Duration::from_millis),
                from: Timestamp::MIN,
            };
            let mut gate = Gate::new(spec);
            let mut lanes = Lanes { left, timed: timed[..n].to_vec(), read: vec![vec![]; n] };
            let (mut seen, mut epoch, mut ends) = (vec![0; 4], 0, 0);
            let (mut told, mut highest, mut idle) = (i64::MIN, i64::MIN, false);
            let mut choices = choices.into_iter().cycle();
            while lanes.left.iter().any(|l| !l.is_empty()) {
                let lane = choices.next().unwrap() % n;
                let closed = gate.closed();
                if closed[lane] || lanes.left[lane].is_empty() {
                    // every lane that is neither closed nor empty keeps the loop alive
                    prop_assert!((0..n).any(|l| !closed[l] && !lanes.left[l].is_empty()));
                    continue;
                }
                let item = lanes.left[lane].pop_front().unwrap();
                lanes.read[lane].push(item);
                let mut passage = Passage::Hold;
                match item {
                    Item::Record(e, _) => {
                        prop_assert_eq!(e, epoch);
                        seen[e as usize] += 1;
                        gate.marks().wake(lane);
                    }
                    Item::Watermark(ms) => gate.marks().advance(lane, Timestamp::from_millis(ms)),
                    Item::Idle => gate.marks().rest(lane),
                    Item::Barrier(e) => passage = gate.barrier(lane, e),
                    Item::End => passage = gate.end(lane),
                }
                while let Some(mark) = gate.news() {
                    match mark {
                        Mark::Watermark(mark) => {
                            prop_assert!(mark.as_millis() > told || idle);
                            prop_assert!(mark.as_millis() >= told);
                            (told, idle) = (mark.as_millis(), false);
                        }
                        Mark::Idle => idle = true,
                    }
                }
                let (now, now_idle) = lanes.oracle();
                highest = now.max(highest);
                prop_assert_eq!((told, idle), (highest, now_idle));
                prop_assert!(lanes.has_been_idle() || lanes.to_come().all(|time| time > told));
                match passage {
                    Passage::Hold => {}
                    Passage::Close => prop_assert!(gate.closed()[lane]),
                    Passage::Barrier(e) => {
                        prop_assert_eq!(e, epoch);
                        prop_assert!(!gate.is_aligning());
                        epoch += 1;
                    }
                    Passage::End => ends += 1,
                }
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!((epoch, ends), (4, 1));
        }
    }

    fn gate(lanes: Vec<Option<usize>>) -> Gate {
        Gate::new(GateSpec { name: None, lanes, drift: Some(Duration::from_millis(10)), from: Timestamp::MIN })
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn who_is_ahead_waits_for_its_group_only() {
        let mut gate = gate(vec![Some(0), Some(0), Some(1), None]);
        gate.marks().advance(0, at(100));
        assert!(!gate.closed().contains(&true), "nobody waits for lanes that have not begun");
        gate.marks().advance(1, at(89));
        gate.marks().advance(2, at(1000));
        assert_eq!(gate.closed(), [true, false, false, false]);
        assert!(gate.holds());
        gate.marks().advance(1, at(90));
        assert_eq!(gate.closed(), [false; 4]);
        gate.marks().advance(1, at(200));
        gate.marks().rest(0);
        assert_eq!(gate.closed(), [false; 4], "an idle lane is not waited for");
        gate.marks().wake(0);
        assert_eq!(gate.closed(), [false, true, false, false]);
        gate.end(0);
        assert_eq!(gate.closed(), [false; 4]);
    }

    #[test]
    fn a_barrier_is_not_left_behind_what_is_ahead() {
        let mut gate = gate(vec![Some(0), Some(0)]);
        gate.marks().advance(0, at(100));
        gate.marks().advance(1, at(1));
        assert_eq!(gate.closed(), [true, false]);
        assert_eq!(gate.barrier(1, 1), Passage::Close);
        assert_eq!(gate.closed(), [false, true]);
        assert!(!gate.holds());
        assert_eq!(gate.barrier(0, 1), Passage::Barrier(1));
        assert_eq!(gate.closed(), [true, false]);
    }

    #[test]
    fn patience_ends() {
        let mut gate = gate(vec![Some(0), Some(0)]);
        gate.marks().advance(0, at(35));
        gate.marks().advance(1, at(1));
        let mut times = 0;
        while gate.closed()[0] {
            gate.give_way();
            times += 1;
        }
        assert_eq!(times, 2, "10 ms, 20 ms, 40 ms");
    }
}
