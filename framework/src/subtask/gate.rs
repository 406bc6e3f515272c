//! The gate: aligns barriers. Pure; which lane holds what is in `inbox.rs`.
//!
//! 1. The first barrier `n` closes its lane: what follows on it belongs to the next epoch.
//! 2. The other lanes are read on until each has brought barrier `n`.
//! 3. With the last one the gate opens all lanes, and barrier `n` passes: everything before it, on every lane, has been
//!    worked off, nothing behind it has.
//!
//! A lane that has ended still brings barriers, so that checkpoints go on after some sources have ended.

use crate::Epoch;

/// What is to be done about a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Nothing.
    Hold,
    /// Leave this lane alone until the barrier passes.
    Close(usize),
    /// The barrier passes; all lanes are open again.
    Barrier(Epoch),
    /// All lanes have ended.
    End,
}

/// Which lanes have brought the barrier, and which have ended.
#[derive(Debug)]
pub(crate) struct Gate {
    aligned: Vec<bool>,
    ended: Vec<bool>,
}

impl Gate {
    /// A gate over so many lanes.
    pub(crate) fn new(lanes: usize) -> Self {
        Self { aligned: vec![false; lanes], ended: vec![false; lanes] }
    }

    /// A barrier arrived on a lane.
    pub(crate) fn barrier(&mut self, lane: usize, epoch: Epoch) -> Passage {
        self.aligned[lane] = true;
        if self.aligned.iter().all(|a| *a) {
            self.aligned.fill(false);
            return Passage::Barrier(epoch);
        }
        Passage::Close(lane)
    }

    /// Whether a barrier has arrived on some lanes and not on others.
    #[cfg(test)]
    fn is_aligning(&self) -> bool {
        self.aligned.iter().any(|a| *a)
    }

    /// A lane has ended.
    pub(crate) fn end(&mut self, lane: usize) -> Passage {
        self.ended[lane] = true;
        if self.ended.iter().all(|e| *e) { Passage::End } else { Passage::Hold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Item {
        Record(u64),
        Barrier(Epoch),
        End,
    }

    /// Lanes with records of each epoch, barriers between them, and an end that may come before the last barriers.
    fn lanes() -> impl Strategy<Value = Vec<VecDeque<Item>>> {
        let lane = (prop::collection::vec(0usize..4, 4), 0usize..4).prop_map(|(counts, end_at)| {
            let mut items = VecDeque::new();
            for (epoch, count) in counts.iter().enumerate() {
                let count = if epoch > end_at { 0 } else { *count };
                items.extend((0..count).map(|_| Item::Record(epoch as u64)));
                if epoch == end_at {
                    items.push_back(Item::End);
                }
                items.push_back(Item::Barrier(epoch as u64));
            }
            items
        });
        prop::collection::vec(lane, 1..5)
    }

    proptest! {
        /// Whatever lane is read when: between two barriers that pass lie exactly the records of that epoch, all of
        /// them.
        #[test]
        fn epochs_are_not_mixed(mut lanes in lanes(), choices in prop::collection::vec(any::<usize>(), 400)) {
            let expected: Vec<usize> = (0..4u64)
                .map(|e| lanes.iter().flatten().filter(|i| **i == Item::Record(e)).count())
                .collect();
            let (mut gate, mut closed) = (Gate::new(lanes.len()), vec![false; lanes.len()]);
            let (mut seen, mut epoch, mut ends) = (vec![0; 4], 0, 0);
            let mut choices = choices.into_iter().cycle();
            while lanes.iter().any(|l| !l.is_empty()) {
                let lane = choices.next().unwrap() % lanes.len();
                if closed[lane] || lanes[lane].is_empty() {
                    // every lane that is neither closed nor empty keeps the loop alive
                    prop_assert!((0..lanes.len()).any(|l| !closed[l] && !lanes[l].is_empty()));
                    continue;
                }
                let passage = match lanes[lane].pop_front().unwrap() {
                    Item::Record(e) => {
                        prop_assert_eq!(e, epoch);
                        seen[e as usize] += 1;
                        Passage::Hold
                    }
                    Item::Barrier(e) => gate.barrier(lane, e),
                    Item::End => gate.end(lane),
                };
                match passage {
                    Passage::Hold => {}
                    Passage::Close(lane) => closed[lane] = true,
                    Passage::Barrier(e) => {
                        prop_assert_eq!(e, epoch);
                        prop_assert!(!gate.is_aligning());
                        closed.fill(false);
                        epoch += 1;
                    }
                    Passage::End => ends += 1,
                }
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!((epoch, ends), (4, 1));
        }
    }
}
