//! Event time at a source: what its loop and its `event_time` stages know together of the splits of one subtask. The
//! loop says which split a batch is of and which have been read to their end (`source.rs`); a stage sets times and
//! makes watermarks of them. Between the two all calls are nested, so the batch under way is of the split said last.
//!
//! A split is idle when, so long after it last brought something, its reader says that it is at its end, and not only
//! that it was once: while a subtask waits for its sink, records may wait for the subtask.

use super::marks::{Mark, Marks};
use super::report::StageContext;
use super::stage::{AnyStage, Control, mismatch};
use crate::checkpoints::SplitTime;
use crate::operator::Watermarks;
use crate::record::AnyBatch;
use crate::{Batch, Error, Timestamp};
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Shared by the loop at a source and the stages behind it in one subtask.
#[derive(Debug, Default)]
pub(crate) struct Splits(RefCell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Of the batch under way.
    current: usize,
    /// When each split last brought something, or was assigned.
    since: Vec<Instant>,
    /// By the number of the `event_time` among those of its source.
    tracks: BTreeMap<usize, Track>,
}

/// What one `event_time` knows of the splits.
#[derive(Debug)]
struct Track {
    watermarks: Watermarks,
    newest: Vec<Timestamp>,
    marks: Marks,
}

impl Track {
    /// A time of a split; those before it may have been larger.
    fn saw(&mut self, split: usize, time: Timestamp) {
        if time > self.newest[split] {
            self.newest[split] = time;
            let covered = time - self.watermarks.bound - Duration::from_millis(1);
            self.marks.advance(split, covered);
        }
    }
}

impl Splits {
    /// Whether anybody wants to know.
    pub(crate) fn matter(&self) -> bool {
        !self.0.borrow().tracks.is_empty()
    }

    /// The splits of this subtask with what the checkpoint knows of each. The watermarks go on where they were.
    pub(crate) fn assign(&self, restored: &[Vec<SplitTime>], now: Instant) {
        let Inner { since, tracks, .. } = &mut *self.0.borrow_mut();
        *since = vec![now; restored.len()];
        for (number, track) in tracks {
            let of = |split: &Vec<SplitTime>| split.get(*number).copied();
            let from = restored.iter().filter_map(of).map(|time| time.watermark.unwrap_or(Timestamp::MIN)).min();
            track.newest = vec![Timestamp::MIN; restored.len()];
            track.marks = Marks::new(restored.iter().map(|_| true), from.unwrap_or(Timestamp::MIN));
            for (split, times) in restored.iter().enumerate() {
                if let Some(newest) = of(times).and_then(|time| time.newest) {
                    track.saw(split, newest);
                }
            }
        }
    }

    /// One more split, of which nothing is known.
    pub(crate) fn add(&self, now: Instant) {
        let Inner { since, tracks, .. } = &mut *self.0.borrow_mut();
        since.push(now);
        for track in tracks.values_mut() {
            track.newest.push(Timestamp::MIN);
            track.marks.add();
        }
    }

    /// A batch of this split is about to be handed on.
    pub(crate) fn came(&self, split: usize, now: Instant) {
        let inner = &mut *self.0.borrow_mut();
        (inner.current, inner.since[split]) = (split, now);
        for track in inner.tracks.values_mut() {
            track.marks.wake(split);
        }
    }

    /// There is nothing left of this split for now. Gives when it will be idle if that lasts.
    pub(crate) fn at_end(&self, split: usize, now: Instant) -> Option<Instant> {
        let Inner { since, tracks, .. } = &mut *self.0.borrow_mut();
        let mut next = None;
        for track in tracks.values_mut() {
            let due = since[split] + track.watermarks.idle_after;
            if due <= now {
                track.marks.rest(split);
            } else {
                next = next.into_iter().chain([due]).min();
            }
        }
        next
    }

    /// Nothing will come of this split any more.
    pub(crate) fn finished(&self, split: usize) {
        self.0.borrow_mut().tracks.values_mut().for_each(|track| track.marks.end(split));
    }

    /// What a test says of all splits.
    pub(crate) fn declare(&self, mark: Mark) {
        for track in self.0.borrow_mut().tracks.values_mut() {
            for split in 0..track.newest.len() {
                match mark {
                    Mark::Watermark(mark) => track.marks.advance(split, mark),
                    Mark::Idle => track.marks.rest(split),
                }
            }
        }
    }

    /// What a checkpoint keeps of a split.
    pub(crate) fn snapshot(&self, split: usize) -> Vec<SplitTime> {
        let tracks = &self.0.borrow().tracks;
        let numbers = tracks.keys().next_back().map_or(0, |last| last + 1);
        let of = |track: &Track| SplitTime {
            newest: known(track.newest[split]),
            watermark: known(track.marks.reached()),
            idle: track.marks.is_over_or_idle(),
        };
        (0..numbers).map(|number| tracks.get(&number).map_or_else(SplitTime::default, of)).collect()
    }

    /// Runs `f` with the split at hand and what the `event_time` of this number knows.
    fn with<R>(&self, number: usize, f: impl FnOnce(usize, &mut Track) -> R) -> Option<R> {
        let inner = &mut *self.0.borrow_mut();
        inner.tracks.get_mut(&number).map(|track| f(inner.current, track))
    }
}

fn known(time: Timestamp) -> Option<Timestamp> {
    (time > Timestamp::MIN).then_some(time)
}

/// Writes down the times of the values of a batch and gives the largest. One virtual call per batch, and the rest is
/// compiled once and not per closure.
pub(crate) type SetTimes = Arc<dyn Fn(&mut dyn AnyBatch) -> Result<Timestamp, Error> + Send + Sync>;

/// Sets the times that `at` gives.
pub(crate) fn set_times<T, M>(at: impl Fn(&T) -> M + Send + Sync + 'static) -> SetTimes
where
    T: Send + 'static,
    M: Into<Timestamp>,
{
    Arc::new(move |batch: &mut dyn AnyBatch| {
        let batch: &mut dyn Any = batch;
        let Batch { values, times, .. } = batch.downcast_mut::<Batch<T>>().ok_or_else(mismatch::<T>)?;
        times.clear();
        times.extend(values.iter().map(|value| at(value).into()));
        Ok(newest(times))
    })
}

/// The largest of them. Four at a time, for one comparison need not wait for the one before.
fn newest(times: &[Timestamp]) -> Timestamp {
    let (fours, rest) = times.as_chunks::<4>();
    let mut newest = [Timestamp::MIN; 4];
    for four in fours {
        newest.iter_mut().zip(four).for_each(|(newest, time)| *newest = (*time).max(*newest));
    }
    newest.iter().chain(rest).copied().max().unwrap_or(Timestamp::MIN)
}

/// The stage of `event_time`.
pub(crate) struct EventTimeStage {
    set: SetTimes,
    /// Which `event_time` of its source.
    number: usize,
    splits: Rc<Splits>,
    next: Box<dyn AnyStage>,
    context: StageContext,
}

impl EventTimeStage {
    pub(crate) fn new(
        set: SetTimes,
        watermarks: Watermarks,
        number: usize,
        splits: Rc<Splits>,
        next: Box<dyn AnyStage>,
        context: StageContext,
    ) -> Self {
        let track = Track { watermarks, newest: Vec::new(), marks: Marks::new([], Timestamp::MIN) };
        splits.0.borrow_mut().tracks.insert(number, track);
        Self { set, number, splits, next, context }
    }

    /// Passes on what there is to tell.
    fn tell(&mut self) -> Result<(), Error> {
        while let Some(mark) = self.splits.with(self.number, |_, track| track.marks.next()).flatten() {
            self.pass(mark)?;
        }
        Ok(())
    }

    fn pass(&mut self, mark: Mark) -> Result<(), Error> {
        match mark {
            Mark::Watermark(mark) => {
                self.context.counters.watermark.set(mark);
                self.next.on_watermark(mark)
            }
            Mark::Idle => self.next.on_idle(),
        }
    }
}

impl AnyStage for EventTimeStage {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        self.tell()?;
        let newest = (self.set)(batch)?;
        self.next.on_any(batch)?;
        self.splits.with(self.number, |split, track| track.saw(split, newest));
        self.tell()
    }
}

impl Control for EventTimeStage {
    fn next(&mut self) -> &mut dyn Control {
        &mut *self.next
    }
    /// Of other times than those that are set here.
    fn on_watermark(&mut self, _: Timestamp) -> Result<(), Error> {
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        Ok(())
    }
    fn on_end(&mut self) -> Result<(), Error> {
        if let Some(mark) = self.splits.with(self.number, |_, track| track.marks.finish()).flatten() {
            self.pass(mark)?;
        }
        self.next.on_end()
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.tell()?;
        self.next.poll_ready(all, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn splits(watermarks: Watermarks, restored: &[Vec<SplitTime>], now: Instant) -> Splits {
        let splits = Splits::default();
        let track = Track { watermarks, newest: Vec::new(), marks: Marks::new([], Timestamp::MIN) };
        splits.0.borrow_mut().tracks.insert(0, track);
        splits.assign(restored, now);
        splits
    }

    fn brings(splits: &Splits, split: usize, time: i64, now: Instant) {
        splits.came(split, now);
        splits.with(0, |current, track| track.saw(current, at(time)));
    }

    fn told(splits: &Splits) -> Vec<Mark> {
        std::iter::from_fn(|| splits.with(0, |_, track| track.marks.next()).flatten()).collect()
    }

    #[test]
    fn the_watermark_is_the_least_of_the_splits() {
        let now = clock::now();
        let splits = splits(Watermarks::bounded(SECOND), &[vec![], vec![]], now);
        brings(&splits, 0, 10_000, now);
        assert_eq!(told(&splits), [], "of the other one nothing is known");
        brings(&splits, 1, 5_000, now);
        assert_eq!(told(&splits), [Mark::Watermark(at(3_999))]);
        brings(&splits, 1, 4_500, now);
        assert_eq!(told(&splits), []);
        splits.finished(1);
        assert_eq!(told(&splits), [Mark::Watermark(at(8_999))]);
    }

    #[test]
    fn the_newest_of_any_number() {
        for n in 0..12i64 {
            let times: Vec<_> = (0..n).map(|i| at((i * 7) % n)).collect();
            assert_eq!(newest(&times), times.iter().copied().max().unwrap_or(Timestamp::MIN));
        }
    }

    #[test]
    fn to_have_caught_up_is_not_to_be_idle() {
        let start = clock::now();
        let splits = splits(Watermarks::monotonous().idle_after(30 * SECOND), &[vec![], vec![]], start);
        brings(&splits, 0, 100, start);
        brings(&splits, 1, 7, start);
        assert_eq!(told(&splits), [Mark::Watermark(at(6))]);
        assert_eq!(splits.at_end(1, start + 29 * SECOND), Some(start + 30 * SECOND));
        assert_eq!(told(&splits), []);
        assert_eq!(splits.at_end(1, start + 30 * SECOND), None);
        assert_eq!(told(&splits), [Mark::Watermark(at(99))]);
        // it comes back, late, and counts again: the watermark does not go back and waits for it
        brings(&splits, 1, 50, start + 31 * SECOND);
        brings(&splits, 0, 200, start + 31 * SECOND);
        assert_eq!(told(&splits), []);
        brings(&splits, 1, 150, start + 32 * SECOND);
        assert_eq!(told(&splits), [Mark::Watermark(at(149))]);
        splits.at_end(0, start + 90 * SECOND);
        splits.at_end(1, start + 90 * SECOND);
        assert_eq!(told(&splits), [Mark::Watermark(at(199)), Mark::Idle]);
        brings(&splits, 0, 150, start + 91 * SECOND);
        assert_eq!(told(&splits), [Mark::Watermark(at(199))], "says that something comes again");
    }

    #[test]
    fn a_checkpoint_goes_with_its_splits() {
        let now = clock::now();
        let watermarks = Watermarks::bounded(SECOND).idle_after(SECOND);
        let before = splits(watermarks, &[vec![], vec![]], now);
        brings(&before, 0, 10_000, now);
        brings(&before, 1, 5_000, now);
        before.at_end(1, now + SECOND);
        told(&before);
        let kept = [before.snapshot(0), before.snapshot(1)];
        let known =
            |newest, watermark| SplitTime { newest: Some(at(newest)), watermark: Some(at(watermark)), idle: false };
        assert_eq!(kept, [[known(10_000, 8_999)], [known(5_000, 8_999)]]);
        // the idle one is not idle any more, and still the watermark is no lower
        let after = splits(watermarks, &kept, now);
        assert_eq!(told(&after), [Mark::Watermark(at(8_999))]);
        brings(&after, 0, 20_000, now);
        assert_eq!(told(&after), []);
        brings(&after, 1, 15_000, now);
        assert_eq!(told(&after), [Mark::Watermark(at(13_999))]);
        // dealt to another subtask, with one that is new
        let moved = splits(watermarks, &[vec![], kept[1].clone()], now);
        assert_eq!(told(&moved), [Mark::Watermark(at(8_999))]);
        brings(&moved, 0, 9_500, now);
        brings(&moved, 1, 20_000, now);
        assert_eq!(told(&moved), []);
    }

    #[test]
    fn the_end_is_not_kept() {
        let now = clock::now();
        let splits = splits(Watermarks::monotonous(), &[vec![]], now);
        brings(&splits, 0, 100, now);
        told(&splits);
        splits.finished(0);
        assert_eq!(told(&splits), [Mark::Watermark(Timestamp::MAX)]);
        let kept = SplitTime { newest: Some(at(100)), watermark: Some(at(99)), idle: true };
        assert_eq!(splits.snapshot(0), [kept]);
    }
}
