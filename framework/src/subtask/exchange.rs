//! The writer's side of an exchange: which subtask a record goes to. How it gets there is in `inbox.rs`.
//!
//! A keyed writer fuses the chain before it, key extraction, hash and routing into one loop per batch; the hash travels
//! with the record, so that the reader needs no key to find its row. Targets are flushed after each input batch when
//! they are full, and all of them when the subtask is idle, before a barrier and at the end.
//!
//! A watermark stays behind the records it covers and flushes nothing: it is remembered with the number of records
//! gathered before it, and follows when these have been sent. Of several that wait, the oldest and the newest are kept.

use super::chain::{Loop, Loops, call, run};
use super::inbox::Sender;
use super::stage::{Control, Stage, end};
use crate::key::{group_of, stable_hash, subtask_of};
use crate::message::Message;
use crate::operator::{Chain, Collect};
use crate::{Batch, BoxError, Epoch, Error, Key, Record, Timestamp};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// So many watermarks may gather behind a batch that does not fill before it is sent all the same.
const LATE: u32 = 16;

/// A watermark that waits for the first `behind` records of the batch to be sent.
#[derive(Debug, Clone, Copy)]
struct Due {
    behind: usize,
    mark: Timestamp,
    /// Nothing came after it.
    idle: bool,
}

/// A lane to one subtask, and what is gathered for it.
pub(crate) struct Target<T> {
    batch: Batch<T>,
    sender: Sender<T>,
    /// The oldest watermark that waits, which newer ones may not put off, and the newest.
    oldest: Option<Due>,
    newest: Option<Due>,
    /// How many have taken each other's place as the newest.
    replaced: u32,
    /// As it was sent last.
    told: Timestamp,
}

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// Full batches, and those that have kept watermarks for long.
    Full,
    /// Those that keep watermarks, too.
    Marked,
    All,
}

impl<T> Target<T> {
    pub(crate) fn new(sender: Sender<T>) -> Self {
        let (oldest, newest) = (None, None);
        Self { batch: Batch::default(), sender, oldest, newest, replaced: 0, told: Timestamp::MIN }
    }

    /// Takes a whole batch and leaves it empty.
    fn put(&mut self, batch: &mut Batch<T>) {
        if self.batch.is_empty() {
            std::mem::swap(&mut self.batch, batch);
        } else {
            self.batch.values.append(&mut batch.values);
            self.batch.times.append(&mut batch.times);
        }
        batch.clear();
    }

    fn put_copies(&mut self, batch: &Batch<T>, clone: fn(&T) -> T) {
        self.batch.values.extend(batch.values.iter().map(clone));
        self.batch.times.extend_from_slice(&batch.times);
    }

    fn poll_flush(&mut self, flush: Flush, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let marked = self.oldest.is_some() && (flush == Flush::Marked || self.replaced >= LATE);
            let any = !self.batch.is_empty() && (flush == Flush::All || marked);
            if !any && self.batch.len() < self.sender.batch_size() {
                return Poll::Ready(());
            }
            let before = self.batch.len();
            ready!(self.sender.poll_send(&mut self.batch, cx));
            if self.oldest.is_some() {
                self.sent(before - self.batch.len());
            }
        }
    }

    /// Watermarks behind what was sent follow it.
    fn sent(&mut self, records: usize) {
        for _ in 0..2 {
            let Some(due) = self.oldest.filter(|due| due.behind <= records) else { break };
            self.tell(due, due.idle && due.behind == records);
            (self.oldest, self.replaced) = (self.newest.take(), 0);
        }
        for due in [&mut self.oldest, &mut self.newest].into_iter().flatten() {
            due.behind -= records;
        }
    }

    /// Nobody is idle of whom a record came since.
    fn tell(&mut self, due: Due, idle: bool) {
        if due.mark > self.told || !due.idle {
            self.sender.send_mark(Message::Watermark(due.mark));
        }
        self.told = due.mark;
        if idle {
            self.sender.send_mark(Message::Idle);
        }
    }

    /// A watermark, behind what is gathered; with none it is the one before again.
    fn mark(&mut self, mark: Option<Timestamp>) {
        let known = self.newest.or(self.oldest).map_or(self.told, |due| due.mark);
        let due = Due { behind: self.batch.len(), mark: mark.unwrap_or(known), idle: mark.is_none() };
        match (&mut self.oldest, &mut self.newest) {
            (None, _) if self.batch.is_empty() => self.tell(due, due.idle),
            (None, _) => self.oldest = Some(due),
            (Some(same), None) if same.behind == due.behind => *same = due,
            (_, newest) => {
                self.replaced += u32::from(newest.replace(due).is_some());
            }
        }
    }
}

/// The targets of a writer, of all its consumers.
struct Targets<T>(Vec<Target<T>>);

impl<T> Targets<T> {
    fn new(senders: impl IntoIterator<Item = Sender<T>>) -> Self {
        Self(senders.into_iter().map(Target::new).collect())
    }

    /// Flushes each as far as it goes, so that one full lane does not keep the others from their wakers. Says whether
    /// all has been sent.
    fn poll_flush(&mut self, flush: Flush, cx: &mut Context<'_>) -> bool {
        let mut done = true;
        for target in &mut self.0 {
            done &= target.poll_flush(flush, cx).is_ready();
        }
        done
    }

    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.poll_flush(if all { Flush::All } else { Flush::Full }, cx) {
            return Poll::Ready(Ok(()));
        }
        // the reader of a full lane may be waiting for a watermark of another one
        self.poll_flush(Flush::Marked, cx);
        Poll::Pending
    }

    /// A watermark; none says that nothing comes for now.
    fn watermark(&mut self, mark: Option<Timestamp>) {
        for target in &mut self.0 {
            target.mark(mark);
        }
    }

    fn mark(&mut self, mark: impl Fn() -> Message<T>) {
        for target in &mut self.0 {
            target.sender.send_mark(mark());
        }
    }
}

/// How a key is had from a record: borrowed from it, or computed.
pub(crate) trait HashOf<T, K>: Send + Sync + 'static {
    /// The stable hash of the record's key.
    fn hash(&self, value: &T) -> u64;
}
/// The key is a part of the record.
pub(crate) struct Borrowed<F>(pub(crate) F);
impl<T, K: Key, F: Fn(&T) -> &K + Send + Sync + 'static> HashOf<T, K> for Borrowed<F> {
    #[inline(always)]
    fn hash(&self, value: &T) -> u64 {
        stable_hash((self.0)(value))
    }
}
/// The key is made from the record.
pub(crate) struct Computed<F>(pub(crate) F);
impl<T, K: Key, F: Fn(&T) -> K + Send + Sync + 'static> HashOf<T, K> for Computed<F> {
    #[inline(always)]
    fn hash(&self, value: &T) -> u64 {
        stable_hash(&(self.0)(value))
    }
}

/// The loops of a chain whose results go to the subtasks that own their keys.
pub(crate) fn keyed_loops<T, C, K, F>(chain: C, key: Arc<F>, timed: bool) -> Loops<C::In, Consumers<T>>
where
    T: 'static,
    C: Chain<T>,
    K: 'static,
    F: HashOf<T, K>,
{
    Loops::of(chain, move |mut chain: C| {
        let key = key.clone();
        Box::new(move |batch, to| {
            let router = Router { key: &*key, timed, to, error: None, of: PhantomData };
            run(&mut chain, batch, router).error
        })
    })
}

/// All subtasks that read a keyed stream.
pub(crate) struct Consumers<T> {
    targets: Targets<T>,
    key_groups: u32,
    /// Of the first consumer, by key group: which target owns it. To compute it for each record would take a division.
    owners: Vec<u32>,
    /// Of the others, whose records are cloned.
    others: Vec<Vec<u32>>,
    clone: Option<fn(&T) -> T>,
}

impl<T> Consumers<T> {
    /// Over the lanes to each subtask of each consumer; `clone` is needed for more than one consumer.
    pub(crate) fn new(lanes: Vec<Vec<Sender<T>>>, key_groups: u32, clone: Option<fn(&T) -> T>) -> Self {
        let mut owners = Vec::new();
        let mut before = 0;
        for lanes in &lanes {
            let owner = |group| before + subtask_of(group, lanes.len() as u32, key_groups);
            owners.push((0..key_groups).map(owner).collect());
            before += lanes.len() as u32;
        }
        let others = owners.split_off(owners.len().min(1));
        let owners = owners.pop().unwrap_or_default();
        Self { targets: Targets::new(lanes.into_iter().flatten()), key_groups, owners, others, clone }
    }
}

#[inline(always)]
fn put<T>(target: &mut Target<T>, hash: u64, r: Record<T>, timed: bool) {
    target.batch.values.push(r.value);
    target.batch.hashes.push(hash);
    if timed {
        target.batch.times.push(r.time);
    }
}

/// Where a keyed chain puts its results.
struct Router<'a, T, K, F> {
    key: &'a F,
    timed: bool,
    to: &'a mut Consumers<T>,
    error: Option<BoxError>,
    of: PhantomData<fn() -> K>,
}

impl<T, K, F: HashOf<T, K>> Collect<T> for Router<'_, T, K, F> {
    #[inline(always)]
    fn emit(&mut self, r: Record<T>) {
        let hash = self.key.hash(&r.value);
        let Consumers { targets: Targets(targets), key_groups, owners, others, clone } = &mut *self.to;
        let group = group_of(hash, *key_groups) as usize;
        if let Some(clone) = clone {
            for owners in others {
                let copy = Record { value: clone(&r.value), time: r.time };
                put(&mut targets[owners[group] as usize], hash, copy, self.timed);
            }
        }
        put(&mut targets[owners[group] as usize], hash, r, self.timed);
    }
    #[cold]
    fn fail(&mut self, error: BoxError) {
        self.error.get_or_insert(error);
    }
}

/// A fused chain that ends in an exchange by key, to one consumer or several.
pub(crate) struct KeyedWriter<I, T> {
    run: Loop<I, Consumers<T>>,
    to: Consumers<T>,
    /// For errors.
    place: String,
}

impl<I, T> KeyedWriter<I, T> {
    pub(crate) fn new(run: Loop<I, Consumers<T>>, to: Consumers<T>, place: String) -> Self {
        Self { run, to, place }
    }
}

impl<I, T> Stage<I> for KeyedWriter<I, T> {
    fn on_batch(&mut self, batch: &mut Batch<I>) -> Result<(), Error> {
        call(&mut self.run, batch, &mut self.to, &self.place)
    }
}

impl<I, T> Control for KeyedWriter<I, T> {
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.to.targets.watermark(Some(mark));
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.to.targets.watermark(None);
        Ok(())
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.to.targets.mark(|| Message::Barrier(epoch));
        Ok(())
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.to.targets.mark(|| Message::End);
        Ok(())
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.to.targets.poll_ready(all, cx)
    }
}

/// An exchange without keys: batch by batch, to the subtask with the same number, to each in turn or to all.
pub(crate) struct BatchWriter<T> {
    targets: Targets<T>,
    to: To<T>,
}

/// Where a batch goes.
enum To<T> {
    /// To the target with this number.
    One(usize),
    /// To the target with this number, and the next one to the next.
    Turn(usize),
    /// To all, cloned for all but the last.
    All(fn(&T) -> T),
}

impl<T> BatchWriter<T> {
    /// To one lane only.
    pub(crate) fn forward(sender: Sender<T>) -> Self {
        Self { targets: Targets::new([sender]), to: To::One(0) }
    }

    /// To each lane in turn, from `first` on.
    pub(crate) fn rebalance(senders: Vec<Sender<T>>, first: usize) -> Self {
        let at = first % senders.len().max(1);
        Self { targets: Targets::new(senders), to: To::Turn(at) }
    }

    /// To all lanes.
    pub(crate) fn broadcast(senders: Vec<Sender<T>>, clone: fn(&T) -> T) -> Self {
        Self { targets: Targets::new(senders), to: To::All(clone) }
    }
}

impl<T> Stage<T> for BatchWriter<T> {
    fn on_batch(&mut self, batch: &mut Batch<T>) -> Result<(), Error> {
        let targets = &mut self.targets.0;
        match &mut self.to {
            To::One(at) => targets[*at].put(batch),
            To::Turn(at) => {
                targets[*at].put(batch);
                *at = (*at + 1) % targets.len();
            }
            To::All(clone) => {
                if let Some((last, others)) = targets.split_last_mut() {
                    others.iter_mut().for_each(|target| target.put_copies(batch, *clone));
                    last.put(batch);
                }
            }
        }
        Ok(())
    }
}

impl<T> Control for BatchWriter<T> {
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.targets.watermark(Some(mark));
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.targets.watermark(None);
        Ok(())
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.targets.mark(|| Message::Barrier(epoch));
        Ok(())
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.targets.mark(|| Message::End);
        Ok(())
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.targets.poll_ready(all, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subtask::inbox::{Receiver, inbox};
    use proptest::prelude::*;
    use std::task::Waker;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn at(ms: usize) -> Timestamp {
        Timestamp::from_millis(ms as i64)
    }

    fn gather(target: &mut Target<usize>, records: impl IntoIterator<Item = usize>) {
        target.batch.values.extend(records);
    }

    /// What arrives: a record as itself, a watermark as its negative, idleness as the least number.
    fn arrived(receiver: &mut Receiver<usize>) -> Vec<i64> {
        let mut all = Vec::new();
        while let Poll::Ready((_, message)) = receiver.poll_recv(&mut None, &mut context()) {
            match message {
                Message::Batch(batch) => all.extend(batch.values.iter().map(|value| *value as i64)),
                Message::Watermark(mark) => all.push(-mark.as_millis()),
                Message::Idle => all.push(i64::MIN),
                _ => {}
            }
        }
        all
    }

    #[test]
    fn a_newer_watermark_does_not_put_off_an_older_one() {
        let (mut senders, mut receiver) = inbox(1);
        let mut target = Target::new(senders.remove(0));
        let size = target.sender.batch_size();
        // as much comes as goes, and the lane is full: what is gathered never ends
        let (mut made, mut told) = (20 * size, 0);
        gather(&mut target, 0..made);
        for round in 0..100 {
            gather(&mut target, made..made + size);
            made += size;
            target.mark(Some(at(made)));
            assert!(target.poll_flush(Flush::Full, &mut context()).is_pending(), "in round {round}");
            let mut batches = 0;
            while batches == 0
                && let Poll::Ready((_, message)) = receiver.poll_recv(&mut None, &mut context())
            {
                match message {
                    Message::Watermark(mark) => told = mark.as_millis() as usize,
                    _ => batches += 1,
                }
            }
            assert!(made - told < 70 * size, "{told} of {made} in round {round}");
        }
    }

    #[test]
    fn a_batch_that_does_not_fill_is_sent_when_many_watermarks_wait() {
        let (mut senders, mut receiver) = inbox(1);
        let mut target = Target::new(senders.remove(0));
        gather(&mut target, [1]);
        for i in 0..=LATE as usize + 1 {
            assert!(arrived(&mut receiver).is_empty(), "{i}");
            target.mark(Some(at(2 + i)));
            gather(&mut target, [0]);
            assert!(target.poll_flush(Flush::Full, &mut context()).is_ready());
        }
        let got = arrived(&mut receiver);
        assert_eq!((got[0], got.last()), (1, Some(&-(LATE as i64 + 3))));
    }

    proptest! {
        /// Whatever is gathered, marked and flushed in whatever order: records arrive in order, each watermark behind
        /// all that came before it, none goes back, and with a full flush nothing is left out.
        #[test]
        fn watermarks_stay_behind_what_they_cover(steps in prop::collection::vec((0usize..6, 1usize..120), 1..80)) {
            let (mut senders, mut receiver) = inbox(1);
            let mut target = Target::new(senders.remove(0));
            let (mut made, mut marked, mut idle, mut got) = (0, 0, false, Vec::new());
            for (what, n) in steps.into_iter().chain([(5, 0), (4, 0)]) {
                match what {
                    0 | 1 => {
                        gather(&mut target, made..made + n);
                        made += n;
                        idle = false;
                    }
                    2 => {
                        target.mark(Some(at(made + 1)));
                        (marked, idle) = (made + 1, false);
                    }
                    3 => {
                        target.mark(None);
                        idle = true;
                    }
                    4 => {
                        while target.poll_flush(Flush::All, &mut context()).is_pending() {
                            got.extend(arrived(&mut receiver));
                        }
                    }
                    _ => drop(target.poll_flush(if n % 2 == 0 { Flush::Full } else { Flush::Marked }, &mut context())),
                }
                if what != 5 || n % 3 == 0 {
                    got.extend(arrived(&mut receiver));
                }
            }
            let (mut records, mut mark) = (0, 0);
            for item in &got {
                match *item {
                    i64::MIN => {}
                    m if m < 0 => {
                        prop_assert!(-m >= mark);
                        prop_assert!(records >= -m - 1, "watermark {} after {records} records", -m);
                        mark = -m;
                    }
                    record => {
                        prop_assert_eq!(record, records);
                        records += 1;
                    }
                }
            }
            prop_assert_eq!((records, mark), (made as i64, marked as i64));
            prop_assert_eq!(got.last() == Some(&i64::MIN), idle);
        }
    }
}
