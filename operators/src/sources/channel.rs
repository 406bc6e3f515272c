//! The channel source: records that the program sends to a job which runs inside it.
//!
//! One queue in memory. A record stays in it until a checkpoint that holds it is decided, so that an attempt which
//! fails reads it again; what is decided is forgotten and makes room. An offset names the channel, too: the records of
//! a process that is gone are gone with it, and the next one begins with what it is sent itself.

use millstream_framework::{
    BoxError, Epoch, Error, ErrorKind, JobHandle, Polled, Source, SourceContext, SourceReader, SplitBatch,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use uuid::Uuid;

struct Queue<T> {
    id: Uuid,
    bound: usize,
    inner: Mutex<Inner<T>>,
    /// There may be something to read.
    filled: Notify,
    /// The job has got on, or is over: for those who wait for room, for checkpoints and for decisions.
    moved: Notify,
}

struct Inner<T> {
    /// Those that no decided checkpoint holds.
    records: VecDeque<T>,
    /// How many were decided before them.
    decided: u64,
    /// The number of the next one to hand out.
    next: u64,
    /// All before this one was handed out, and the coordinator knows that something was.
    told: u64,
    senders: usize,
    /// Sources and readers.
    ends: usize,
    is_read: bool,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // nothing is left half done where it could panic
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the record in and gives its number.
    fn put(&self, record: T) -> Result<u64, NotSent<T>> {
        let mut inner = self.lock();
        if inner.ends == 0 {
            return Err(NotSent::Closed(record));
        }
        if inner.records.len() >= self.bound {
            return Err(NotSent::Full(record));
        }
        inner.records.push_back(record);
        let number = inner.end() - 1;
        drop(inner);
        self.filled.notify_one();
        Ok(number)
    }

    /// All before `next` is decided.
    fn forget(&self, next: u64) {
        let mut inner = self.lock();
        let known = next.min(inner.end()).saturating_sub(inner.decided);
        inner.records.drain(..known as usize);
        inner.decided += known;
        drop(inner);
        self.moved.notify_waiters();
    }

    fn leave(&self) {
        let mut inner = self.lock();
        inner.ends -= 1;
        let is_over = inner.ends == 0;
        drop(inner);
        if is_over {
            self.moved.notify_waiters();
        }
    }

    /// Until `holds`.
    async fn until(&self, holds: impl Fn(&Inner<T>) -> bool) -> Result<(), Closed> {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            {
                let inner = self.lock();
                if holds(&inner) {
                    return Ok(());
                }
                if inner.ends == 0 {
                    return Err(Closed);
                }
            }
            moved.await;
        }
    }
}

impl<T> Inner<T> {
    /// The number of the next record to be sent.
    fn end(&self) -> u64 {
        self.decided + self.records.len() as u64
    }
}

/// Sends records to a [`ChannelSource`]. Clones send to the same one, from any thread and any runtime; when the last of
/// them is dropped the source has ended.
///
/// What is promised, and when:
///
/// * **Accepted**: [`send`](Self::send) has returned. The record is in memory and will be processed exactly once as
///   long as this process lives, whatever attempts of the job fail meanwhile. If the process dies before a checkpoint
///   with the record is decided, the record is lost: memory cannot be read again.
/// * **Durable**: [`flush`](Self::flush) or [`send_durably`](Self::send_durably) has returned. A decided checkpoint
///   holds the record and it is processed exactly once, whatever dies.
///
/// Who must not lose records on the way to durable keeps them until then and sends them again to the next process:
/// what was accepted and died undecided left no trace, what was told durable need not be sent again, and what died
/// between the decision and the word of it comes twice, as over every connection that breaks.
pub struct ChannelSender<T>(Arc<Queue<T>>);

/// The job is over, so nobody will make this durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the job that reads this channel is over, and no checkpoint of it holds all that was sent")
    }
}

impl std::error::Error for Closed {}

/// A record that was not accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NotSent<T> {
    /// There is no room: see [`Channel::read`](crate::Channel::read) for what counts.
    Full(T),
    /// The job is over, all clones of the source are dropped.
    Closed(T),
}

impl<T> NotSent<T> {
    /// The record.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(record) | Self::Closed(record) => record,
        }
    }
}

impl<T> fmt::Debug for NotSent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Full(_)) { "Full" } else { "Closed" })
    }
}

impl<T> fmt::Display for NotSent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the channel is full of records that no checkpoint holds yet",
            Self::Closed(_) => "the job that reads this channel is over",
        })
    }
}

impl<T> std::error::Error for NotSent<T> {}

impl<T> ChannelSender<T> {
    /// Sends a record, waiting for room. When it returns the record is accepted; dropped before, it is not sent.
    ///
    /// # Errors
    /// [`NotSent::Closed`], with the record.
    pub async fn send(&self, record: T) -> Result<(), NotSent<T>> {
        self.accepted(record).await.map(drop)
    }

    /// Sends a record and waits until it is durable: about a checkpoint interval, or until somebody asks for a
    /// checkpoint. Many may wait for the same one. Dropped while waiting, the record may have been sent.
    ///
    /// # Errors
    /// When the job is over before that. Whether its state holds the record is then not known.
    pub async fn send_durably(&self, record: T) -> Result<(), Closed> {
        let number = self.accepted(record).await.map_err(|_| Closed)?;
        self.0.until(|inner| inner.decided > number).await
    }

    /// Waits until all that was accepted before, from any clone of this sender, is durable.
    ///
    /// # Errors
    /// When the job is over before that.
    pub async fn flush(&self) -> Result<(), Closed> {
        let end = self.0.lock().end();
        self.0.until(|inner| inner.decided >= end).await
    }

    /// Makes all durable that was accepted before, and now: by a checkpoint of the job that reads this channel, of
    /// which it gives the number.
    ///
    /// # Errors
    /// Those of [`JobHandle::checkpoint`]; what was accepted stays accepted, and one may ask again.
    pub async fn checkpoint(&self, job: &JobHandle) -> Result<Epoch, Error> {
        let end = self.0.lock().end();
        let closed = |closed: Closed| Error::new(ErrorKind::Failed, closed.to_string());
        self.0.until(|inner| inner.told.max(inner.decided) >= end).await.map_err(closed)?;
        let epoch = job.checkpoint().await?;
        // if the attempt has failed in between, that was an older one
        self.0.until(|inner| inner.decided >= end).await.map_err(closed)?;
        Ok(job.status().checkpoint.map_or(epoch, |newest| newest.epoch.max(epoch)))
    }

    /// Sends a record if there is room now.
    ///
    /// # Errors
    /// See [`NotSent`].
    pub fn try_send(&self, record: T) -> Result<(), NotSent<T>> {
        self.0.put(record).map(drop)
    }

    async fn accepted(&self, mut record: T) -> Result<u64, NotSent<T>> {
        loop {
            let mut moved = pin!(self.0.moved.notified());
            moved.as_mut().enable();
            match self.0.put(record) {
                Err(NotSent::Full(back)) => record = back,
                done => return done,
            }
            moved.await;
        }
    }
}

impl<T> Clone for ChannelSender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for ChannelSender<T> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.filled.notify_one();
    }
}

/// A source of what the program sends: one split, read by one subtask. Clones are the same source; a topology gives one
/// away each time it is built. One source of one job may read it at a time. Senders are told that it is over when all
/// clones are dropped: keep none outside of the topology.
pub struct ChannelSource<T>(Arc<Queue<T>>);

/// Makes the two ends.
pub(crate) fn channel<T>(bound: usize) -> (ChannelSender<T>, ChannelSource<T>) {
    let (records, decided, next, told) = (VecDeque::new(), 0, 0, 0);
    let queue = Arc::new(Queue {
        id: Uuid::new_v4(),
        bound: bound.max(1),
        inner: Mutex::new(Inner { records, decided, next, told, senders: 1, ends: 1, is_read: false }),
        filled: Notify::new(),
        moved: Notify::new(),
    });
    (ChannelSender(queue.clone()), ChannelSource(queue))
}

impl<T> Clone for ChannelSource<T> {
    fn clone(&self) -> Self {
        self.0.lock().ends += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for ChannelSource<T> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[diagnostic::do_not_recommend]
impl<T: Clone + Send + 'static> Source for ChannelSource<T> {
    type Reader = ChannelReader<T>;

    async fn splits(&self, _: &[u64]) -> Result<Vec<u64>, BoxError> {
        Ok(vec![0])
    }

    async fn open(&self, _: &SourceContext) -> Result<ChannelReader<T>, BoxError> {
        self.0.lock().ends += 1;
        Ok(ChannelReader { queue: self.0.clone(), reads: false })
    }
}

/// Where in a channel, and in which one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelOffset {
    channel: Uuid,
    next: u64,
}

/// The reader of [`ChannelSource`].
pub struct ChannelReader<T> {
    queue: Arc<Queue<T>>,
    /// Whether it was dealt the split.
    reads: bool,
}

impl<T> Drop for ChannelReader<T> {
    fn drop(&mut self) {
        if self.reads {
            self.queue.lock().is_read = false;
        }
        self.queue.leave();
    }
}

macro_rules! shown { ($($name:ident $field:tt),*) => { $(
    impl<T> fmt::Debug for $name<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let inner = self.$field.lock();
            let (waiting, decided) = (inner.end() - inner.next.max(inner.decided), inner.decided);
            write!(f, concat!(stringify!($name), "({} records waiting, {} decided)"), waiting, decided)
        }
    }
)* } }
shown!(ChannelSender 0, ChannelSource 0, ChannelReader queue);

impl<T: Clone + Send + 'static> SourceReader for ChannelReader<T> {
    type Record = T;
    type Split = u64;
    type Offset = ChannelOffset;

    async fn assign(&mut self, _: u64, from: Option<ChannelOffset>) -> Result<ChannelOffset, BoxError> {
        let mut inner = self.queue.lock();
        if inner.is_read {
            let text = "this channel is read already: make one for each source of each job";
            return Err(Error::new(ErrorKind::Topology, text).into());
        }
        // of another process: what it was sent is gone with it
        let from = from.filter(|from| from.channel == self.queue.id).map_or(inner.decided, |from| from.next);
        if from < inner.decided || from > inner.end() {
            return Err(Error::refused(format!(
                "the checkpoint goes on with record {from} of a channel that has kept those from {} to {} only: restore a newer one",
                inner.decided,
                inner.end()
            ))
            .into());
        }
        (inner.next, inner.told) = (from, from);
        inner.is_read = true;
        drop(inner);
        self.reads = true;
        self.queue.forget(from);
        self.offset(&0)
    }

    async fn ready(&mut self) {
        loop {
            let filled = self.queue.filled.notified();
            {
                let inner = self.queue.lock();
                if inner.next < inner.end() || inner.senders == 0 {
                    return;
                }
            }
            filled.await;
        }
    }

    fn poll(&mut self, out: &mut SplitBatch<T, u64>) -> Result<Polled, BoxError> {
        if !self.reads {
            return Ok(Polled::Finished);
        }
        let mut inner = self.queue.lock();
        // the runtime reports what a poll brought before it polls again
        if inner.told < inner.next {
            inner.told = inner.next;
            self.queue.moved.notify_waiters();
        }
        let from = (inner.next - inner.decided) as usize;
        let to = inner.records.len().min(from.saturating_add(out.room()));
        if from == to {
            return Ok(if inner.senders == 0 { Polled::Finished } else { Polled::AtEnd });
        }
        out.of(&0);
        out.values().extend(inner.records.range(from..to).cloned());
        inner.next += (to - from) as u64;
        Ok(Polled::More)
    }

    fn offset(&self, _: &u64) -> Result<ChannelOffset, BoxError> {
        Ok(ChannelOffset { channel: self.queue.id, next: self.queue.lock().next })
    }

    async fn decided(&mut self, offsets: &[(u64, ChannelOffset)]) {
        offsets.iter().for_each(|(_, offset)| self.queue.forget(offset.next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, said, source_context};

    async fn reader(source: &ChannelSource<u64>, from: Option<ChannelOffset>) -> ChannelReader<u64> {
        let mut reader = source.open(&source_context()).await.unwrap();
        reader.assign(0, from).await.unwrap();
        reader
    }

    fn taken(reader: &mut ChannelReader<u64>) -> (Vec<u64>, Polled) {
        let (mut batch, mut all) = (SplitBatch::new(), Vec::new());
        loop {
            match reader.poll(&mut batch).unwrap() {
                Polled::More => all.append(batch.values()),
                end => return (all, end),
            }
        }
    }

    #[test]
    fn an_attempt_that_fails_is_followed_by_one_that_reads_again() {
        block_on(async {
            let (sender, source) = channel(10);
            for n in 0..6 {
                sender.send(n).await.unwrap();
            }
            let mut first = reader(&source, None).await;
            let genesis = first.offset(&0).unwrap();
            assert_eq!(taken(&mut first), ((0..6).collect(), Polled::AtEnd));
            drop(first);
            let mut second = reader(&source, Some(genesis.clone())).await;
            assert_eq!(taken(&mut second).0, (0..6).collect::<Vec<_>>());
            let decided = second.offset(&0).unwrap();
            sender.send(6).await.unwrap();
            assert_eq!(taken(&mut second).0, [6]);
            drop(second);
            // decided, though no reader was told
            let mut third = reader(&source, Some(decided)).await;
            assert_eq!(taken(&mut third).0, [6]);
            drop(third);
            let mut fourth = source.open(&source_context()).await.unwrap();
            let refused = fourth.assign(0, Some(genesis)).await.unwrap_err();
            assert_eq!(said(&refused).0, ErrorKind::Refused);
        });
    }

    #[test]
    fn another_process_begins_with_what_it_is_sent() {
        block_on(async {
            let (sender, source) = channel(10);
            sender.send(1).await.unwrap();
            let gone = ChannelOffset { channel: Uuid::new_v4(), next: 99 };
            let mut reader = reader(&source, Some(gone)).await;
            assert_eq!(reader.offset(&0).unwrap().next, 0);
            assert_eq!(taken(&mut reader).0, [1]);
        });
    }

    #[test]
    fn room_is_made_by_decisions_and_those_who_wait_are_told() {
        block_on(async {
            let (sender, source) = channel(2);
            let mut reader = reader(&source, None).await;
            sender.send(1).await.unwrap();
            sender.send(2).await.unwrap();
            assert_eq!(taken(&mut reader).0, [1, 2]);
            assert_eq!(sender.try_send(3), Err(NotSent::Full(3)));
            let (mut durable, mut flushed) = (pin!(sender.send_durably(3)), pin!(sender.flush()));
            tokio::select! {
                biased;
                _ = &mut durable => panic!("there is no room"),
                _ = &mut flushed => panic!("nothing is decided"),
                () = std::future::ready(()) => {}
            }
            let offset = reader.offset(&0).unwrap();
            reader.decided(&[(0, offset)]).await;
            flushed.await.unwrap();
            assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut durable).await.is_err());
            reader.ready().await;
            assert_eq!(taken(&mut reader).0, [3]);
            let offset = reader.offset(&0).unwrap();
            reader.decided(&[(0, offset)]).await;
            durable.await.unwrap();
        });
    }

    #[test]
    fn the_last_sender_ends_the_source_and_the_last_source_the_senders() {
        block_on(async {
            let (sender, source) = channel(2);
            let mut reader = reader(&source, None).await;
            drop(sender.clone());
            sender.send(1).await.unwrap();
            assert_eq!(taken(&mut reader), (vec![1], Polled::AtEnd));
            let sender = {
                let other = sender.clone();
                drop(sender);
                other
            };
            drop(source);
            assert_eq!(sender.try_send(2), Ok(()));
            drop(reader);
            assert_eq!(sender.try_send(3), Err(NotSent::Closed(3)));
            assert_eq!(sender.flush().await, Err(Closed));
            let (sender, source) = channel::<u64>(2);
            drop(sender);
            let mut reader = source.open(&source_context()).await.unwrap();
            reader.assign(0, None).await.unwrap();
            reader.ready().await;
            assert_eq!(taken(&mut reader), (vec![], Polled::Finished));
        });
    }

    #[test]
    fn it_has_one_reader_at_a_time() {
        block_on(async {
            let (_sender, source) = channel(2);
            let first = reader(&source, None).await;
            let mut second = source.open(&source_context()).await.unwrap();
            assert_eq!(said(&second.assign(0, None).await.unwrap_err()).0, ErrorKind::Topology);
            assert_eq!(taken(&mut second), (vec![], Polled::Finished));
            drop(first);
            second.assign(0, None).await.unwrap();
        });
    }
}
