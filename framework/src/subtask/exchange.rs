//! The writer's side of an exchange: which subtask a record goes to. How it gets there is in `inbox.rs`.
//!
//! A keyed writer fuses the chain before it, key extraction, hash and routing into one loop per batch; the hash travels
//! with the record, so that the reader needs no key to find its row. Targets are flushed after each input batch when
//! they are full, and all of them when the subtask is idle, before a barrier and at the end.
//!
//! A watermark stays behind the records it covers and flushes nothing: it is remembered with the number of records
//! gathered before it, and follows when these have been sent. Of several that wait, the oldest and the newest are kept.

use super::chain::{Loop, Run, Typed, run};
use super::inbox::Sender;
use super::stage::{AnyStage, Control, Copier, end};
use crate::key::{group_of, stable_hash, subtask_of};
use crate::message::Message;
use crate::operator::{Chain, Collect};
use crate::record::AnyBatch;
use crate::{Batch, BoxError, Epoch, Error, Key, Record, Timestamp};
use std::any::Any;
use std::marker::PhantomData;
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

/// A lane to one subtask. What is gathered for it is kept where it is typed, and handed to each call.
pub(crate) struct Outlet {
    sender: Sender,
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

impl Outlet {
    pub(crate) fn new(sender: Sender) -> Self {
        let (oldest, newest) = (None, None);
        Self { sender, oldest, newest, replaced: 0, told: Timestamp::MIN }
    }

    fn poll_flush(&mut self, batch: &mut dyn AnyBatch, flush: Flush, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let before = batch.len();
            let marked = self.oldest.is_some() && (flush == Flush::Marked || self.replaced >= LATE);
            let any = before > 0 && (flush == Flush::All || marked);
            if !any && before < self.sender.batch_size() {
                return Poll::Ready(());
            }
            ready!(self.sender.poll_send(batch, cx));
            if self.oldest.is_some() {
                self.sent(before - batch.len());
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

    /// A watermark, behind so many records that are gathered; with none it is the one before again.
    fn mark(&mut self, behind: usize, mark: Option<Timestamp>) {
        let known = self.newest.or(self.oldest).map_or(self.told, |due| due.mark);
        let due = Due { behind, mark: mark.unwrap_or(known), idle: mark.is_none() };
        match (&mut self.oldest, &mut self.newest) {
            (None, _) if behind == 0 => self.tell(due, due.idle),
            (None, _) => self.oldest = Some(due),
            (Some(same), None) if same.behind == due.behind => *same = due,
            (_, newest) => {
                self.replaced += u32::from(newest.replace(due).is_some());
            }
        }
    }
}

/// What is gathered for each of several lanes.
pub(crate) trait Batches: Any {
    fn batch(&mut self, lane: usize) -> &mut dyn AnyBatch;
}

impl Batches for Vec<Box<dyn AnyBatch>> {
    fn batch(&mut self, lane: usize) -> &mut dyn AnyBatch {
        &mut *self[lane]
    }
}

/// The lanes of a writer, to all its consumers.
struct Lanes(Vec<Outlet>);

impl Lanes {
    fn new(senders: impl IntoIterator<Item = Sender>) -> Self {
        Self(senders.into_iter().map(Outlet::new).collect())
    }

    /// Flushes each as far as it goes, so that one full lane does not keep the others from their wakers. Says whether
    /// all has been sent.
    fn poll_flush(&mut self, batches: &mut dyn Batches, flush: Flush, cx: &mut Context<'_>) -> bool {
        let mut done = true;
        for (lane, outlet) in self.0.iter_mut().enumerate() {
            done &= outlet.poll_flush(batches.batch(lane), flush, cx).is_ready();
        }
        done
    }

    fn poll_ready(&mut self, batches: &mut dyn Batches, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.poll_flush(batches, if all { Flush::All } else { Flush::Full }, cx) {
            return Poll::Ready(Ok(()));
        }
        // the reader of a full lane may be waiting for a watermark of another one
        self.poll_flush(batches, Flush::Marked, cx);
        Poll::Pending
    }

    /// A watermark; none says that nothing comes for now.
    fn watermark(&mut self, batches: &mut dyn Batches, mark: Option<Timestamp>) {
        for (lane, outlet) in self.0.iter_mut().enumerate() {
            outlet.mark(batches.batch(lane).len(), mark);
        }
    }

    fn mark(&mut self, mark: impl Fn() -> Message) {
        for outlet in &mut self.0 {
            outlet.sender.send_mark(mark());
        }
    }
}

/// The stable hash of a record's key.
pub(crate) trait HashOf<T>: Send + Sync + 'static {
    fn hash(&self, value: &T) -> u64;
}
/// The key is a part of the record, and borrowed from it.
pub(crate) trait Lends<T, K>: Send + Sync {
    fn key<'a>(&self, value: &'a T) -> &'a K;
}
/// The key is made from the record.
pub(crate) trait Makes<T, K>: Send + Sync {
    fn key(&self, value: &T) -> K;
}

/// What lends keys of type `K`.
pub(crate) struct Borrowed<K, F>(F, PhantomData<fn() -> K>);
impl<K, F> Borrowed<K, F> {
    pub(crate) fn new<T>(key: F) -> Self
    where
        F: Fn(&T) -> &K,
    {
        Self(key, PhantomData)
    }
}
impl<T, K: Key, F: Fn(&T) -> &K + Send + Sync + 'static> HashOf<T> for Borrowed<K, F> {
    #[inline(always)]
    fn hash(&self, value: &T) -> u64 {
        stable_hash((self.0)(value))
    }
}
impl<T, K, F: Fn(&T) -> &K + Send + Sync> Lends<T, K> for Borrowed<K, F> {
    fn key<'a>(&self, value: &'a T) -> &'a K {
        (self.0)(value)
    }
}

/// What makes keys of type `K`.
pub(crate) struct Computed<K, F>(F, PhantomData<fn() -> K>);
impl<K, F> Computed<K, F> {
    pub(crate) fn new<T>(key: F) -> Self
    where
        F: Fn(&T) -> K,
    {
        Self(key, PhantomData)
    }
}
impl<T, K: Key, F: Fn(&T) -> K + Send + Sync + 'static> HashOf<T> for Computed<K, F> {
    #[inline(always)]
    fn hash(&self, value: &T) -> u64 {
        stable_hash(&(self.0)(value))
    }
}
impl<T, K, F: Fn(&T) -> K + Send + Sync> Makes<T, K> for Computed<K, F> {
    fn key(&self, value: &T) -> K {
        (self.0)(value)
    }
}

#[inline(never)]
fn into_lanes<T, C: Chain<T>, F: HashOf<T>>(
    lanes: &IntoLanes<T, C, F>,
    scratch: &mut C::Scratch,
    batch: &mut Batch<C::In>,
    to: &mut Consumers<T>,
) -> Result<(), BoxError> {
    let IntoLanes { chain, key, timed, .. } = lanes;
    run(chain, scratch, batch, Router { key, timed: *timed, to, error: None }).error.map_or(Ok(()), Err)
}

/// A chain whose results go to the subtasks that own their keys, and, for these, what says the key of each: the writers
/// and the readers of an exchange share the closure.
pub(crate) struct IntoLanes<T, C, F> {
    chain: C,
    key: F,
    timed: bool,
    of: PhantomData<fn() -> T>,
}

impl<T, C, F> IntoLanes<T, C, F> {
    pub(crate) fn new(chain: C, key: F, timed: bool) -> Self {
        Self { chain, key, timed, of: PhantomData }
    }
}

/// Both ends of an exchange by a key that is lent.
pub(crate) trait Lending<T, K>: Run + Lends<T, K> {}
impl<T, K, E: Run + Lends<T, K>> Lending<T, K> for E {}
/// Both ends of an exchange by a key that is made.
pub(crate) trait Making<T, K>: Run + Makes<T, K> {}
impl<T, K, E: Run + Makes<T, K>> Making<T, K> for E {}

impl<T, K, C: Send + Sync, F: Lends<T, K>> Lends<T, K> for IntoLanes<T, C, F> {
    fn key<'a>(&self, value: &'a T) -> &'a K {
        self.key.key(value)
    }
}
impl<T, K, C: Send + Sync, F: Makes<T, K>> Makes<T, K> for IntoLanes<T, C, F> {
    fn key(&self, value: &T) -> K {
        self.key.key(value)
    }
}

impl<T: Send + 'static, C: Chain<T>, F: HashOf<T>> Run for IntoLanes<T, C, F> {
    fn run(&self, scratch: &mut dyn Any, batch: &mut dyn AnyBatch, out: &mut dyn Any) -> Result<(), BoxError> {
        let Typed { scratch, batch, out } = Typed::of(scratch, batch, out)?;
        into_lanes(self, scratch, batch, out)
    }

    fn scratch(&self) -> Box<dyn Any + Send> {
        Box::new(self.chain.scratch())
    }
}

/// All subtasks that read a keyed stream, and what is gathered for them.
pub(crate) struct Consumers<T> {
    batches: Vec<Batch<T>>,
    owners: Owners,
    /// Needed for more than one consumer.
    clone: Option<fn(&T) -> T>,
}

impl<T> Consumers<T> {
    pub(crate) fn new(owners: Owners, clone: Option<fn(&T) -> T>) -> Self {
        let mut batches = Vec::new();
        batches.resize_with(owners.lanes, Batch::default);
        Self { batches, owners, clone }
    }
}

impl<T: Send + 'static> Batches for Consumers<T> {
    fn batch(&mut self, lane: usize) -> &mut dyn AnyBatch {
        &mut self.batches[lane]
    }
}

/// Which lane leads to the owner of a key group.
pub(crate) struct Owners {
    key_groups: u32,
    lanes: usize,
    /// Of the first consumer, by key group. To compute it for each record would take a division.
    first: Vec<u32>,
    /// Of the others, whose records are cloned.
    others: Vec<Vec<u32>>,
}

impl Owners {
    /// For consumers of so many subtasks each, whose lanes follow each other.
    pub(crate) fn new(consumers: &[usize], key_groups: u32) -> Self {
        let (mut all, mut before) = (Vec::new(), 0);
        for subtasks in consumers {
            let owner = |group| before + subtask_of(group, *subtasks as u32, key_groups);
            all.push((0..key_groups).map(owner).collect());
            before += *subtasks as u32;
        }
        let others = all.split_off(all.len().min(1));
        Self { key_groups, lanes: before as usize, first: all.pop().unwrap_or_default(), others }
    }
}

#[inline(always)]
fn put<T>(batch: &mut Batch<T>, hash: u64, r: Record<T>, timed: bool) {
    batch.values.push(r.value);
    batch.hashes.push(hash);
    if timed {
        batch.times.push(r.time);
    }
}

/// Where a keyed chain puts its results.
struct Router<'a, T, F> {
    key: &'a F,
    timed: bool,
    to: &'a mut Consumers<T>,
    error: Option<BoxError>,
}

impl<T, F: HashOf<T>> Collect<T> for Router<'_, T, F> {
    #[inline(always)]
    fn emit(&mut self, r: Record<T>) {
        let hash = self.key.hash(&r.value);
        let Consumers { batches, owners: Owners { key_groups, first, others, .. }, clone } = &mut *self.to;
        let group = group_of(hash, *key_groups) as usize;
        if let Some(clone) = clone {
            for owners in others {
                let copy = Record { value: clone(&r.value), time: r.time };
                put(&mut batches[owners[group] as usize], hash, copy, self.timed);
            }
        }
        put(&mut batches[first[group] as usize], hash, r, self.timed);
    }
    #[cold]
    fn fail(&mut self, error: BoxError) {
        self.error.get_or_insert(error);
    }
}

/// A fused chain, if there is one, and the lanes that its results leave by.
pub(crate) struct LaneWriter {
    way: Way,
    lanes: Lanes,
    batches: Box<dyn Batches>,
}

/// Where records go.
enum Way {
    /// Where the loop puts them; the place is for errors.
    Loop(Loop, String),
    /// The whole batch to the lane with this number.
    One(usize),
    /// The whole batch to the lane with this number, and the next one to the next.
    Turn(usize),
    /// To all lanes, copied for all but the last.
    All(Copier),
}

impl LaneWriter {
    /// An exchange by key, to one consumer or several: what `run` puts into `batches`.
    pub(crate) fn keyed(run: Loop, senders: Vec<Sender>, batches: Box<dyn Batches>, place: String) -> Self {
        Self { way: Way::Loop(run, place), lanes: Lanes::new(senders), batches }
    }

    /// To one lane only; `empty` is a batch, here as below.
    pub(crate) fn forward(sender: Sender, empty: &dyn AnyBatch) -> Self {
        Self::whole(Way::One(0), vec![sender], empty)
    }

    /// To each lane in turn, from `first` on.
    pub(crate) fn rebalance(senders: Vec<Sender>, first: usize, empty: &dyn AnyBatch) -> Self {
        let at = first % senders.len().max(1);
        Self::whole(Way::Turn(at), senders, empty)
    }

    /// To all lanes.
    pub(crate) fn broadcast(senders: Vec<Sender>, copier: Copier, empty: &dyn AnyBatch) -> Self {
        Self::whole(Way::All(copier), senders, empty)
    }

    fn whole(way: Way, senders: Vec<Sender>, empty: &dyn AnyBatch) -> Self {
        let batches: Vec<_> = senders.iter().map(|_| empty.fresh()).collect();
        Self { way, lanes: Lanes::new(senders), batches: Box::new(batches) }
    }
}

impl AnyStage for LaneWriter {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        let Self { way, lanes, batches } = self;
        match way {
            Way::Loop(run, place) => return run.call(batch, &mut **batches, place),
            Way::One(at) => batch.give(batch.len(), batches.batch(*at)),
            Way::Turn(at) => {
                batch.give(batch.len(), batches.batch(*at));
                *at = (*at + 1) % lanes.0.len();
            }
            Way::All(copier) => {
                if let Some(last) = lanes.0.len().checked_sub(1) {
                    (0..last).try_for_each(|lane| copier(batch, batches.batch(lane)))?;
                    batch.give(batch.len(), batches.batch(last));
                }
            }
        }
        Ok(())
    }
}

impl Control for LaneWriter {
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.lanes.watermark(&mut *self.batches, Some(mark));
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.lanes.watermark(&mut *self.batches, None);
        Ok(())
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.lanes.mark(|| Message::Barrier(epoch));
        Ok(())
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.lanes.mark(|| Message::End);
        Ok(())
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.lanes.poll_ready(&mut *self.batches, all, cx)
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

    /// A lane, and what is gathered for it.
    struct Target {
        batch: Batch<usize>,
        outlet: Outlet,
    }

    impl Target {
        fn new(sender: Sender) -> Self {
            Self { batch: Batch::default(), outlet: Outlet::new(sender) }
        }
        fn mark(&mut self, mark: Option<Timestamp>) {
            self.outlet.mark(self.batch.len(), mark);
        }
        fn poll_flush(&mut self, flush: Flush, cx: &mut Context<'_>) -> Poll<()> {
            self.outlet.poll_flush(&mut self.batch, flush, cx)
        }
    }

    fn gather(target: &mut Target, records: impl IntoIterator<Item = usize>) {
        target.batch.values.extend(records);
    }

    /// What arrives: a record as itself, a watermark as its negative, idleness as the least number.
    fn arrived(receiver: &mut Receiver) -> Vec<i64> {
        let mut all = Vec::new();
        while let Poll::Ready((_, message)) = receiver.poll_recv(&mut None, &mut context()) {
            match message {
                Message::Batch(batch) => {
                    let batch = (batch as Box<dyn Any>).downcast::<Batch<usize>>().unwrap();
                    all.extend(batch.values.iter().map(|value| *value as i64));
                }
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
        let size = target.outlet.sender.batch_size();
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
