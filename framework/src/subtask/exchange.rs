//! The writer's side of an exchange: which subtask a record goes to. How it gets there is in `inbox.rs`.
//!
//! A keyed writer fuses the chain before it, key extraction, hash and routing into one loop per batch; the hash travels
//! with the record, so that the reader needs no key to find its row. Targets are flushed after each input batch when
//! they are full, and all of them when the subtask is idle, before a barrier and at the end.
//!
//! A watermark stays behind the records it covers and flushes nothing: it is remembered with the number of records
//! gathered before it, and follows when these have been sent. Of several that wait, the oldest and the newest are kept.

use super::inbox::Sender;
use super::stage::{Stage, run_chain};
use crate::key::{group_of, stable_hash, subtask_of};
use crate::message::Message;
use crate::operator::{Chain, Collect};
use crate::{Batch, BoxError, Epoch, Error, Key, Record, Timestamp};
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
            self.tell(due);
            (self.oldest, self.replaced) = (self.newest.take(), 0);
        }
        for due in [&mut self.oldest, &mut self.newest].into_iter().flatten() {
            due.behind -= records;
        }
    }

    fn tell(&mut self, due: Due) {
        self.told = due.mark;
        self.sender.send_mark(Message::Watermark(due.mark));
        if due.idle {
            self.sender.send_mark(Message::Idle);
        }
    }

    /// A watermark, behind what is gathered; with none it is the one before again.
    fn mark(&mut self, mark: Option<Timestamp>) {
        let known = self.newest.or(self.oldest).map_or(self.told, |due| due.mark);
        let due = Due { behind: self.batch.len(), mark: mark.unwrap_or(known), idle: mark.is_none() };
        match (&mut self.oldest, &mut self.newest) {
            (None, _) if self.batch.is_empty() => self.tell(due),
            (None, _) => self.oldest = Some(due),
            (Some(same), None) if same.behind == due.behind => *same = due,
            (_, newest) => {
                self.replaced += u32::from(newest.replace(due).is_some());
            }
        }
    }
}

/// Flushes every target as far as it goes, so that one full lane does not keep the others from their wakers.
fn poll_flush<'a, T: 'a>(targets: impl Iterator<Item = &'a mut Target<T>>, flush: Flush, cx: &mut Context<'_>) -> bool {
    targets.map(|target| target.poll_flush(flush, cx)).filter(Poll::is_pending).count() == 0
}

/// The subtasks of one consumer.
struct Consumer<T> {
    targets: Vec<Target<T>>,
    /// By key group: which of them owns it. To compute it for each record would take a division.
    owners: Vec<u32>,
}

impl<T> Consumer<T> {
    fn new(lanes: Vec<Sender<T>>, key_groups: u32) -> Self {
        let owner = |group| subtask_of(group, lanes.len() as u32, key_groups);
        let owners = (0..key_groups).map(owner).collect();
        Self { owners, targets: lanes.into_iter().map(Target::new).collect() }
    }

    #[inline(always)]
    fn put<const TIMED: bool>(&mut self, group: u32, hash: u64, r: Record<T>) {
        let batch = &mut self.targets[self.owners[group as usize] as usize].batch;
        batch.values.push(r.value);
        batch.hashes.push(hash);
        if TIMED {
            batch.times.push(r.time);
        }
    }
}

/// A fused chain that ends in an exchange by key, to one consumer or several.
pub(crate) struct KeyedWriter<C, T, K, F> {
    chain: C,
    key: F,
    timed: bool,
    key_groups: u32,
    first: Consumer<T>,
    others: Vec<Consumer<T>>,
    clone: Option<fn(&T) -> T>,
    /// For errors.
    place: String,
    of: PhantomData<fn() -> K>,
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

/// What a keyed writer is made of.
pub(crate) struct KeyedParts<C, T, F> {
    pub(crate) chain: C,
    pub(crate) key: F,
    pub(crate) timed: bool,
    pub(crate) key_groups: u32,
    /// For each consumer, the lane to each of its subtasks.
    pub(crate) lanes: Vec<Vec<Sender<T>>>,
    /// Needed for more than one consumer.
    pub(crate) clone: Option<fn(&T) -> T>,
    /// For errors.
    pub(crate) place: String,
}

impl<C, T, K, F> KeyedWriter<C, T, K, F> {
    pub(crate) fn new(parts: KeyedParts<C, T, F>) -> Self {
        let KeyedParts { chain, key, timed, key_groups, lanes, clone, place } = parts;
        let mut consumers = lanes.into_iter().map(|lanes| Consumer::new(lanes, key_groups));
        let first = consumers.next().unwrap_or_else(|| Consumer::new(Vec::new(), key_groups));
        Self { chain, key, timed, key_groups, first, others: consumers.collect(), clone, place, of: PhantomData }
    }

    fn targets(&mut self) -> impl Iterator<Item = &mut Target<T>> {
        std::iter::once(&mut self.first).chain(&mut self.others).flat_map(|consumer| &mut consumer.targets)
    }

    fn mark(&mut self, mark: impl Fn() -> Message<T>) {
        self.targets().for_each(|target| target.sender.send_mark(mark()));
    }
}

struct Router<'a, T, K, F, const TIMED: bool> {
    key: &'a F,
    key_groups: u32,
    first: &'a mut Consumer<T>,
    others: &'a mut [Consumer<T>],
    clone: Option<fn(&T) -> T>,
    error: Option<BoxError>,
    of: PhantomData<fn() -> K>,
}

impl<T, K, F: HashOf<T, K>, const TIMED: bool> Collect<T> for Router<'_, T, K, F, TIMED> {
    #[inline(always)]
    fn emit(&mut self, r: Record<T>) {
        let hash = self.key.hash(&r.value);
        let group = group_of(hash, self.key_groups);
        if let Some(clone) = self.clone {
            for others in self.others.iter_mut() {
                let copy = Record { value: clone(&r.value), time: r.time };
                others.put::<TIMED>(group, hash, copy);
            }
        }
        self.first.put::<TIMED>(group, hash, r);
    }
    #[cold]
    fn fail(&mut self, error: BoxError) {
        self.error.get_or_insert(error);
    }
}

impl<T, C: Chain<T>, K, F: HashOf<T, K>> KeyedWriter<C, T, K, F> {
    fn route<const TIMED: bool>(&mut self, batch: &mut Batch<C::In>) -> Option<BoxError> {
        let mut router: Router<'_, T, K, F, TIMED> = Router {
            key: &self.key,
            key_groups: self.key_groups,
            first: &mut self.first,
            others: &mut self.others,
            clone: self.clone,
            error: None,
            of: PhantomData,
        };
        run_chain(&mut self.chain, TIMED, batch, &mut router);
        router.error
    }
}

impl<T, C: Chain<T>, K, F: HashOf<T, K>> Stage<C::In> for KeyedWriter<C, T, K, F> {
    fn on_batch(&mut self, batch: &mut Batch<C::In>) -> Result<(), Error> {
        let error = if self.timed { self.route::<true>(batch) } else { self.route::<false>(batch) };
        error.map_or(Ok(()), |error| Err(Error::from_user(error, &self.place)))
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.targets().for_each(|target| target.mark(Some(mark)));
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.targets().for_each(|target| target.mark(None));
        Ok(())
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.mark(|| Message::Barrier(epoch));
        Ok(())
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.mark(|| Message::End);
        Ok(())
    }
    fn on_decided(&mut self, _: Epoch) -> Result<(), Error> {
        Ok(())
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if poll_flush(self.targets(), if all { Flush::All } else { Flush::Full }, cx) {
            return Poll::Ready(Ok(()));
        }
        // the reader of a full lane may be waiting for a watermark of another one
        poll_flush(self.targets(), Flush::Marked, cx);
        Poll::Pending
    }
    fn background(&mut self) -> Result<bool, Error> {
        Ok(false)
    }
}

/// An exchange without keys: batch by batch, to the subtask with the same number, to each in turn or to all.
pub(crate) struct BatchWriter<T> {
    targets: Vec<Target<T>>,
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
        Self { targets: vec![Target::new(sender)], to: To::One(0) }
    }

    /// To each lane in turn, from `first` on.
    pub(crate) fn rebalance(senders: Vec<Sender<T>>, first: usize) -> Self {
        let at = first % senders.len().max(1);
        Self { targets: senders.into_iter().map(Target::new).collect(), to: To::Turn(at) }
    }

    /// To all lanes.
    pub(crate) fn broadcast(senders: Vec<Sender<T>>, clone: fn(&T) -> T) -> Self {
        Self { targets: senders.into_iter().map(Target::new).collect(), to: To::All(clone) }
    }
}

impl<T> Stage<T> for BatchWriter<T> {
    fn on_batch(&mut self, batch: &mut Batch<T>) -> Result<(), Error> {
        let targets = &mut self.targets;
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
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.targets.iter_mut().for_each(|target| target.mark(Some(mark)));
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.targets.iter_mut().for_each(|target| target.mark(None));
        Ok(())
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.targets.iter_mut().for_each(|target| target.sender.send_mark(Message::Barrier(epoch)));
        Ok(())
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.targets.iter_mut().for_each(|target| target.sender.send_mark(Message::End));
        Ok(())
    }
    fn on_decided(&mut self, _: Epoch) -> Result<(), Error> {
        Ok(())
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if poll_flush(self.targets.iter_mut(), if all { Flush::All } else { Flush::Full }, cx) {
            return Poll::Ready(Ok(()));
        }
        poll_flush(self.targets.iter_mut(), Flush::Marked, cx);
        Poll::Pending
    }
    fn background(&mut self) -> Result<bool, Error> {
        Ok(false)
    }
}
