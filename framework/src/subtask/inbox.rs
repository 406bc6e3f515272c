//! Where a subtask's input arrives: one bounded lane per producer behind one lock, and one waker. Which lanes may be
//! read is decided in `gate.rs`.
//!
//! A lane is bounded in messages, so that what is in flight stays in cache, and in records, so that at most about
//! [`WORK`] of work waits before a slow subtask and barriers stay quick: the receiver measures what a record costs it
//! and allows lanes as many records as take that long. Emptied batches go home to their producer under the same lock,
//! so that no batch is allocated in steady state. Safe code; about 60 ns per batch.

use crate::message::Message;
use crate::record::{AnyBatch, BATCH};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Batches per lane. Marks take no room.
const LANE: usize = 8;
/// How much work may wait before a subtask, all lanes together.
pub(crate) const WORK: Duration = Duration::from_millis(20);
/// Records that may wait before anything has been measured.
pub(crate) const FIRST: usize = 64;

struct Lane {
    messages: VecDeque<Message>,
    batches: usize,
    records: usize,
    empties: Vec<Box<dyn AnyBatch>>,
    sender: Option<Waker>,
}

struct Inner {
    lanes: Vec<Lane>,
    receiver: Option<Waker>,
    /// Records a lane may hold.
    allowed: usize,
}

struct Shared(Mutex<Inner>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn is_full(&self, allowed: usize) -> bool {
        self.batches >= LANE || (self.batches > 0 && self.records >= allowed)
    }
}

/// An inbox with so many lanes: the sender of each, and the receiver.
pub(crate) fn inbox(lanes: usize) -> (Vec<Sender>, Receiver) {
    let lane = || Lane { messages: VecDeque::new(), batches: 0, records: 0, empties: Vec::new(), sender: None };
    let inner = Inner { lanes: (0..lanes).map(|_| lane()).collect(), receiver: None, allowed: FIRST };
    let shared = Arc::new(Shared(Mutex::new(inner)));
    let senders = (0..lanes).map(|lane| Sender { shared: shared.clone(), lane, allowed: FIRST }).collect();
    (senders, Receiver { shared, next: 0, blocked: vec![false; lanes], cost: Cost::default() })
}

/// A producer's end of a lane.
pub(crate) struct Sender {
    shared: Arc<Shared>,
    lane: usize,
    /// As of the last send.
    allowed: usize,
}

impl Sender {
    /// How many records a batch should have now: a few batches are to fill the lane.
    #[inline]
    pub(crate) fn batch_size(&self) -> usize {
        (self.allowed / 2).clamp(1, BATCH)
    }

    /// Sends up to [`batch_size`](Self::batch_size) records of the batch; what is sent is gone from it.
    pub(crate) fn poll_send(&mut self, batch: &mut dyn AnyBatch, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.shared.lock();
        self.allowed = inner.allowed;
        let lane = &mut inner.lanes[self.lane];
        if lane.is_full(self.allowed) {
            lane.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut sent = lane.empties.pop().unwrap_or_else(|| batch.fresh());
        let size = (self.allowed / 2).clamp(1, BATCH);
        batch.give(if batch.len() <= 2 * size { batch.len() } else { size }, &mut *sent);
        lane.batches += 1;
        lane.records += sent.len();
        lane.messages.push_back(Message::Batch(sent));
        wake(inner);
        Poll::Ready(())
    }

    /// Sends a mark. A watermark takes the place of those that wait right before it, so of them at most two follow one
    /// batch.
    pub(crate) fn send_mark(&mut self, mark: Message) {
        let mut inner = self.shared.lock();
        let messages = &mut inner.lanes[self.lane].messages;
        match mark {
            Message::Watermark(_) => {
                while messages.back().is_some_and(|last| matches!(last, Message::Watermark(_) | Message::Idle)) {
                    messages.pop_back();
                }
            }
            Message::Idle if matches!(messages.back(), Some(Message::Idle)) => return,
            _ => {}
        }
        messages.push_back(mark);
        wake(inner);
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.receiver.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The subtask's end.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    next: usize,
    blocked: Vec<bool>,
    cost: Cost,
}

impl Receiver {
    /// Whether messages of this lane are to be left where they are.
    pub(crate) fn block(&mut self, lane: usize, blocked: bool) {
        self.blocked[lane] = blocked;
    }

    /// So long it took to work off so many records: lanes are allowed accordingly.
    pub(crate) fn worked(&mut self, records: usize, took: Duration) {
        if let Some(allowed) = self.cost.measured(records, took, self.blocked.len()) {
            self.shared.lock().allowed = allowed;
        }
    }

    /// The next message of a lane that is not blocked; `used` goes back to where it came from.
    pub(crate) fn poll_recv(
        &mut self,
        used: &mut Option<(usize, Box<dyn AnyBatch>)>,
        cx: &mut Context<'_>,
    ) -> Poll<(usize, Message)> {
        let mut inner = self.shared.lock();
        if let Some((lane, batch)) = used.take() {
            let empties = &mut inner.lanes[lane].empties;
            if empties.len() <= LANE {
                empties.push(batch);
            }
        }
        let (n, allowed) = (self.blocked.len(), inner.allowed);
        for i in 0..n {
            let at = (self.next + i) % n;
            if self.blocked[at] {
                continue;
            }
            let lane = &mut inner.lanes[at];
            let Some(message) = lane.messages.pop_front() else { continue };
            self.next = (at + 1) % n;
            if let Message::Batch(batch) = &message {
                lane.batches -= 1;
                lane.records -= batch.len();
            }
            // a waiting sender is woken when half of the lane is free, not at each message: a wake costs microseconds
            let low = lane.batches <= LANE / 2 && lane.records <= allowed / 2;
            let waker = if low { lane.sender.take() } else { None };
            drop(inner);
            if let Some(waker) = waker {
                waker.wake();
            }
            return Poll::Ready((at, message));
        }
        inner.receiver = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What a record costs, smoothed, and how many may wait. It rises fast and falls slowly: a stage that puts records
/// aside for a moment, as a sink does between barrier and decision, has not become fast by that.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// Nanoseconds per record; 0 before the first measurement.
    smoothed: f64,
    allowed: usize,
}

impl Cost {
    /// Takes a measurement in; gives how many records a lane is allowed if that has changed by much. It at most
    /// doubles, so that a first batch that is quick because nothing is in its way does not open the lane.
    pub(crate) fn measured(&mut self, records: usize, took: Duration, lanes: usize) -> Option<usize> {
        if records == 0 {
            return None;
        }
        let cost = took.as_nanos() as f64 / records as f64;
        let weight = if cost > self.smoothed { 4.0 } else { 64.0 };
        self.smoothed = if self.smoothed == 0.0 { cost } else { self.smoothed + (cost - self.smoothed) / weight };
        let fits = (WORK.as_nanos() as f64 / self.smoothed.max(0.1)) as usize / lanes.max(1);
        let allowed = fits.clamp(1, LANE * BATCH).min(2 * self.allowed.max(FIRST));
        let changed = allowed * 4 > self.allowed * 5 || allowed * 5 < self.allowed * 4;
        changed.then(|| {
            self.allowed = allowed;
            allowed
        })
    }

    /// How long so many records take; none before the first measurement.
    pub(crate) fn of(&self, records: usize) -> Option<Duration> {
        (self.smoothed > 0.0).then(|| Duration::from_nanos((self.smoothed * records as f64) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Timestamp};
    use std::any::Any;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_lane_is_bounded_and_marks_pass() {
        let (mut senders, mut receiver) = inbox(1);
        (0..10).for_each(|_| receiver.worked(1000, Duration::from_micros(1)));
        let mut sent = 0;
        loop {
            let mut batch = Batch::from(vec![1; BATCH]);
            if senders[0].poll_send(&mut batch, &mut context()).is_pending() {
                break;
            }
            sent += 1;
        }
        assert!((2..=LANE + 2).contains(&sent), "{sent}");
        senders[0].send_mark(Message::Barrier(1));
        let mut used = None;
        let mut last = None;
        while let Poll::Ready((lane, message)) = receiver.poll_recv(&mut used, &mut context()) {
            match message {
                Message::Batch(batch) => used = Some((lane, batch)),
                mark => last = Some(mark),
            }
        }
        assert!(matches!(last, Some(Message::Barrier(1))));
    }

    #[test]
    fn watermarks_do_not_pile_up() {
        let (mut senders, mut receiver) = inbox(1);
        let at = |ms| Message::Watermark(Timestamp::from_millis(ms));
        [at(1), at(2), Message::Idle, Message::Idle].into_iter().for_each(|mark| senders[0].send_mark(mark));
        (3..100).for_each(|ms| senders[0].send_mark(at(ms)));
        senders[0].send_mark(Message::Barrier(1));
        [at(100), Message::Idle].into_iter().for_each(|mark| senders[0].send_mark(mark));
        let mut got = Vec::new();
        while let Poll::Ready((_, message)) = receiver.poll_recv(&mut None, &mut context()) {
            got.push(match message {
                Message::Watermark(mark) => mark.as_millis(),
                Message::Barrier(_) => -1,
                _ => -2,
            });
        }
        assert_eq!(got, [99, -1, 100, -2]);
    }

    #[test]
    fn what_is_put_aside_does_not_count_as_fast() {
        let mut cost = Cost::default();
        assert_eq!(cost.of(1), None);
        let slow: Vec<_> = (0..100).filter_map(|_| cost.measured(20, Duration::from_millis(20), 2)).collect();
        assert_eq!(slow.last(), Some(&10), "20 ms of work in two lanes");
        assert!((0..16).all(|_| cost.measured(5, Duration::from_nanos(100), 2).is_none_or(|allowed| allowed < 14)));
        assert!(cost.of(100).is_some_and(|work| work > Duration::from_millis(70)));
        assert!((0..1000).filter_map(|_| cost.measured(1000, Duration::from_micros(30), 2)).last() > Some(4096));
    }

    #[test]
    fn a_slow_receiver_gets_small_batches() {
        let (mut senders, mut receiver) = inbox(1);
        receiver.worked(64, Duration::from_millis(64));
        let mut batch = Batch::from((0..1000).collect::<Vec<u64>>());
        while senders[0].poll_send(&mut batch, &mut context()).is_ready() {}
        let mut got = Vec::new();
        let mut used = None;
        while let Poll::Ready((_, Message::Batch(batch))) = receiver.poll_recv(&mut used, &mut context()) {
            got.extend((batch as Box<dyn Any>).downcast::<Batch<u64>>().unwrap().values);
        }
        assert!(got.len() <= 40, "20 ms of work at 1 ms each, and not {}", got.len());
        assert_eq!(got, (0..got.len() as u64).collect::<Vec<_>>());
        assert_eq!(batch.values.first(), Some(&(got.len() as u64)));
    }
}
