//! Which record ended an attempt. Pure; the loop at a source keeps a [`Tally`], and the supervisor takes a [`Suspect`]
//! from one attempt to the next.
//!
//! A batch is handed on as a whole, so an attempt that fails knows only which batch it was: that costs nothing per
//! record. The next attempt reads these records again, and hands them on one by one; then the one that fails is known,
//! with its own offset. How far they are is counted in records of their split, from the checkpoint that the next
//! attempt resumes from. Which one that will be is known only then, so a count is kept for each that it may be.

use crate::Epoch;
use serde_json::Value;
use std::collections::VecDeque;
use std::ops::Range;

/// Records of a split of which one ended an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Suspect {
    pub(crate) source: String,
    pub(crate) split: Value,
    /// The record in words, once it is known which one it is.
    pub(crate) record: Option<String>,
    /// How many records of the split are before them, by the checkpoint that is counted from.
    pub(crate) before: Vec<(Epoch, u64)>,
    /// How many they are.
    pub(crate) records: u64,
}

impl Suspect {
    /// Where they are for an attempt that resumes from a checkpoint; none if they are not behind it.
    pub(crate) fn range(&self, restored: Epoch) -> Option<Range<u64>> {
        let (_, before) = self.before.iter().find(|(epoch, _)| *epoch == restored)?;
        Some(*before..before + self.records)
    }
}

/// What a reader has handed out in this attempt, by the number of the split.
#[derive(Debug)]
pub(crate) struct Tally {
    read: Vec<u64>,
    /// The same at the last decided checkpoint and at those after it.
    kept: VecDeque<(Epoch, Vec<u64>)>,
    /// The records to be handed on one by one.
    suspects: Option<(usize, Range<u64>)>,
}

impl Tally {
    /// Of an attempt that resumes from a checkpoint.
    pub(crate) fn new(restored: Epoch, suspects: Vec<Option<Range<u64>>>) -> Self {
        let read = vec![0; suspects.len()];
        let kept = VecDeque::from([(restored, read.clone())]);
        let suspects = suspects.into_iter().enumerate().find_map(|(split, range)| Some((split, range?)));
        Self { read, kept, suspects }
    }

    /// One more split, which none of these checkpoints knows: it is read from its start after any of them.
    pub(crate) fn add(&mut self) {
        self.read.push(0);
        self.kept.iter_mut().for_each(|(_, read)| read.push(0));
    }

    /// How many records may be read at once: no more than there are before suspects, and these one by one.
    #[inline]
    pub(crate) fn room(&self, room: usize) -> usize {
        let Some((split, range)) = &self.suspects else { return room };
        let before = range.start.saturating_sub(self.read[*split]);
        room.min(usize::try_from(before).unwrap_or(usize::MAX)).max(1)
    }

    /// The split whose next record is suspect.
    #[inline]
    pub(crate) fn suspect(&self) -> Option<usize> {
        self.suspects.as_ref().map(|(split, _)| *split).filter(|split| self.is_suspect(*split))
    }

    /// Whether the next records of this split are suspects.
    #[inline]
    pub(crate) fn is_suspect(&self, split: usize) -> bool {
        let suspects = self.suspects.as_ref().filter(|(number, _)| *number == split);
        suspects.is_some_and(|(_, range)| range.contains(&self.read[split]))
    }

    /// So many records were handed on.
    #[inline]
    pub(crate) fn pass(&mut self, split: usize, records: usize) {
        self.read[split] += records as u64;
        if self.suspects.as_ref().is_some_and(|(number, range)| *number == split && self.read[split] >= range.end) {
            self.suspects = None;
        }
    }

    /// A checkpoint is taken here.
    pub(crate) fn barrier(&mut self, epoch: Epoch) {
        self.kept.push_back((epoch, self.read.clone()));
    }

    /// A checkpoint is decided: nobody goes back behind it.
    pub(crate) fn decided(&mut self, epoch: Epoch) {
        while self.kept.get(1).is_some_and(|(next, _)| *next <= epoch) {
            self.kept.pop_front();
        }
    }

    /// How many records of a split were handed on since each checkpoint that the next attempt may resume from.
    pub(crate) fn before(&self, split: usize) -> Vec<(Epoch, u64)> {
        self.kept.iter().map(|(epoch, read)| (*epoch, self.read[split] - read[split])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(before: Vec<(Epoch, u64)>, records: u64) -> Suspect {
        Suspect { source: "text".into(), split: Value::Null, record: None, before, records }
    }

    #[test]
    fn suspects_are_found_again_from_each_checkpoint_that_may_be_restored() {
        let mut tally = Tally::new(4, vec![None, None]);
        tally.pass(1, 100);
        tally.pass(0, 7);
        tally.barrier(5);
        tally.pass(1, 30);
        tally.barrier(6);
        tally.pass(1, 2);
        assert_eq!(tally.before(1), [(4, 132), (5, 32), (6, 2)]);
        assert_eq!(tally.before(0), [(4, 7), (5, 0), (6, 0)]);
        tally.decided(5);
        assert_eq!(tally.before(1), [(5, 32), (6, 2)]);
        let suspect = suspect(tally.before(1), 10);
        assert_eq!([4, 5, 6, 7].map(|epoch| suspect.range(epoch)), [None, Some(32..42), Some(2..12), None]);
        tally.decided(9);
        assert_eq!(tally.before(1), [(6, 2)]);
    }

    #[test]
    fn a_split_that_is_new_counts_from_its_start() {
        let mut tally = Tally::new(4, vec![None]);
        tally.pass(0, 7);
        tally.barrier(5);
        tally.add();
        tally.pass(1, 3);
        tally.barrier(6);
        tally.pass(1, 2);
        assert_eq!(tally.before(1), [(4, 5), (5, 5), (6, 2)]);
        assert_eq!(tally.before(0), [(4, 7), (5, 0), (6, 0)]);
    }

    #[test]
    fn suspects_are_read_one_by_one_and_all_else_as_ever() {
        let mut tally = Tally::new(0, vec![None, Some(1500..1502)]);
        let mut rooms = Vec::new();
        for split in [0, 1, 1, 1, 0, 1, 1] {
            let room = tally.room(1024);
            rooms.push((room, tally.is_suspect(split)));
            tally.pass(split, room);
        }
        let expect = [(1024, false), (1024, false), (476, false), (1, true), (1, false), (1, true), (1024, false)];
        assert_eq!(rooms, expect);
    }

    /// A reader may give more than it was asked for.
    #[test]
    fn suspects_may_be_overrun() {
        let mut tally = Tally::new(0, vec![Some(10..20)]);
        tally.pass(0, 64);
        assert_eq!((tally.room(1024), tally.is_suspect(0)), (1024, false));
        let mut tally = Tally::new(0, vec![Some(0..20)]);
        assert!(tally.is_suspect(0));
        tally.pass(0, 19);
        assert_eq!((tally.room(1024), tally.is_suspect(0)), (1, true));
        tally.pass(0, 19);
        assert_eq!((tally.room(1024), tally.is_suspect(0)), (1024, false));
    }
}
