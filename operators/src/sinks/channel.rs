//! The channel sink: records that a job hands to the program it runs inside of, exactly once within the process.
//!
//! 1. `write` gathers the records of the running epoch, and `prepare` sets them aside: nobody sees them.
//! 2. `commit` moves them to the queue of the receiver, once, whoever calls it and however often. It waits for room
//!    there. No barrier is under way then, for the next one is sent when all is committed; so a receiver that is slow
//!    slows the job down, and checkpoints stay quick.
//! 3. An epoch cannot be made to wait for room: its own barrier stands behind its records. So when it has as many
//!    records as the channel is to hold, each further batch waits a moment, and the stages before it, which measure
//!    what a batch costs, send few and small ones.

use millstream_framework::{Attempt, Batch, BoxError, Epoch, Error, ErrorKind, Sink, SinkContext, SinkWriter, Visible};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

/// How long a batch waits whose epoch is full.
const PAUSE: Duration = Duration::from_millis(10);

struct Shared<T> {
    id: Uuid,
    bound: usize,
    memory: Mutex<Memory<T>>,
    /// There may be something to receive.
    filled: Notify,
    /// There may be room.
    emptied: Notify,
}

struct Memory<T> {
    /// Committed and not received.
    queue: VecDeque<T>,
    /// Prepared epochs.
    pending: BTreeMap<ChannelPart, Vec<T>>,
    newest: Option<(Epoch, BTreeSet<Attempt>)>,
    /// Sinks and writers.
    ends: usize,
    has_receiver: bool,
}

/// What one subtask wrote in one epoch; what stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChannelPart {
    channel: Uuid,
    epoch: Epoch,
    subtask: usize,
    attempt: Attempt,
    records: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Memory<T>> {
        // nothing is left half done where it could panic
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) {
        self.lock().ends -= 1;
        self.filled.notify_one();
    }

    fn take(&self) -> Option<T> {
        let record = self.lock().queue.pop_front();
        if record.is_some() {
            self.emptied.notify_waiters();
        }
        record
    }

    /// Moves a part to the queue if there is room; true when it is there, now or from before.
    fn show(&self, part: &ChannelPart) -> Result<bool, BoxError> {
        let mut memory = self.lock();
        let Some(records) = memory.pending.get(part).map(Vec::len) else { return Ok(true) };
        memory.expects_receiver()?;
        if !memory.queue.is_empty() && memory.queue.len() + records > self.bound {
            return Ok(false);
        }
        let records = memory.pending.remove(part).unwrap_or_default();
        memory.queue.extend(records);
        match &mut memory.newest {
            Some((epoch, attempts)) if *epoch == part.epoch => _ = attempts.insert(part.attempt),
            Some((epoch, _)) if *epoch > part.epoch => {}
            newest => *newest = Some((part.epoch, BTreeSet::from([part.attempt]))),
        }
        drop(memory);
        self.filled.notify_one();
        Ok(true)
    }
}

impl<T> Memory<T> {
    fn expects_receiver(&self) -> Result<(), BoxError> {
        if self.has_receiver {
            return Ok(());
        }
        let text =
            "the receiver of this channel was dropped while the job goes on: receive until there is nothing more";
        Err(Error::new(ErrorKind::Failed, text).into())
    }
}

/// A sink that hands its records to a [`ChannelReceiver`] in the same process. Clones are the same sink; a topology
/// gives one away each time it is built. The receiver is told that nothing more comes when all clones are dropped: keep
/// none outside of the topology.
pub struct ChannelSink<T>(Arc<Shared<T>>);

/// Receives what a [`ChannelSink`] is given.
///
/// Only records of decided epochs come, epoch by epoch, those of one subtask in its order, and each exactly once as
/// long as the process lives, whatever attempts of the job fail meanwhile. What was decided and not received when the
/// process dies is gone: memory cannot be read again. The next process warns of how many records that may be; who needs
/// them writes to files or to a broker.
///
/// A receiver that is slow slows the job down. One that takes nothing at all keeps the job from its next checkpoint,
/// which it says in the log after `checkpoint_timeout`, and fails as it would with any sink that hangs. Go on receiving
/// while you wait for the job to stop, for its last checkpoint brings records, too.
pub struct ChannelReceiver<T>(Arc<Shared<T>>);

/// Makes the two ends.
pub(crate) fn channel<T>(bound: usize) -> (ChannelSink<T>, ChannelReceiver<T>) {
    let (queue, pending, newest) = (VecDeque::new(), BTreeMap::new(), None);
    let shared = Arc::new(Shared {
        id: Uuid::new_v4(),
        bound: bound.max(1),
        memory: Mutex::new(Memory { queue, pending, newest, ends: 1, has_receiver: true }),
        filled: Notify::new(),
        emptied: Notify::new(),
    });
    (ChannelSink(shared.clone()), ChannelReceiver(shared))
}

impl<T> ChannelReceiver<T> {
    /// The next record; none when the job is over and everything was received. Dropped while waiting, it has taken
    /// nothing.
    pub async fn recv(&mut self) -> Option<T> {
        loop {
            let filled = self.0.filled.notified();
            // in this order: what was shown before the last end left is seen
            let is_over = self.0.lock().ends == 0;
            let record = self.0.take();
            if record.is_some() || is_over {
                return record;
            }
            filled.await;
        }
    }

    /// The next record, if it is there.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for ChannelReceiver<T> {
    fn drop(&mut self) {
        self.0.lock().has_receiver = false;
        self.0.emptied.notify_waiters();
    }
}

impl<T> Clone for ChannelSink<T> {
    fn clone(&self) -> Self {
        self.0.lock().ends += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for ChannelSink<T> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[diagnostic::do_not_recommend]
impl<T: Send + 'static> Sink<T> for ChannelSink<T> {
    type Writer = ChannelWriter<T>;

    async fn open(&self, cx: &SinkContext) -> Result<ChannelWriter<T>, BoxError> {
        let (channel, attempt) = (self.0.id, cx.attempt);
        let part = ChannelPart { channel, epoch: 0, subtask: cx.subtask, attempt, records: 0 };
        self.0.lock().ends += 1;
        Ok(ChannelWriter { shared: self.0.clone(), part, records: Vec::new() })
    }

    /// Each epoch is a part of its own.
    fn separates_epochs(&self) -> bool {
        true
    }

    async fn inspect(&self, _: &SinkContext) -> Result<Visible, BoxError> {
        let memory = self.0.lock();
        let pending: Result<_, _> = memory.pending.keys().map(serde_json::to_string).collect();
        Ok(Visible { newest: memory.newest.clone(), pending: pending? })
    }

    async fn clean(&self, _: &SinkContext, listed: Visible) -> Result<(), BoxError> {
        for name in &listed.pending {
            self.0.lock().pending.remove(&serde_json::from_str::<ChannelPart>(name)?);
        }
        Ok(())
    }
}

/// The writer of [`ChannelSink`].
pub struct ChannelWriter<T> {
    shared: Arc<Shared<T>>,
    part: ChannelPart,
    /// Of the running epoch.
    records: Vec<T>,
}

impl<T> Drop for ChannelWriter<T> {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

macro_rules! shown { ($($name:ident $field:tt),*) => { $(
    impl<T> fmt::Debug for $name<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let memory = self.$field.lock();
            write!(f, concat!(stringify!($name), "({} records, newest {:?})"), memory.queue.len(), memory.newest)
        }
    }
)* } }
shown!(ChannelSink 0, ChannelReceiver 0, ChannelWriter shared);

impl<T: Send + 'static> SinkWriter<T> for ChannelWriter<T> {
    type Committable = ChannelPart;

    async fn write(&mut self, mut batch: Batch<T>) -> Result<(), BoxError> {
        self.records.append(&mut batch.values);
        self.shared.lock().expects_receiver()?;
        if self.records.len() >= self.shared.bound {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<ChannelPart>, BoxError> {
        if self.records.is_empty() {
            return Ok(None);
        }
        let records = std::mem::take(&mut self.records);
        let part = ChannelPart { epoch, records: records.len(), ..self.part.clone() };
        self.shared.lock().pending.insert(part.clone(), records);
        Ok(Some(part))
    }

    async fn commit(&mut self, part: ChannelPart) -> Result<(), BoxError> {
        if part.channel != self.shared.id {
            let (epoch, records) = (part.epoch, part.records);
            tracing::warn!(epoch, records, "the process that was to receive these records is gone; some may be lost");
            return Ok(());
        }
        loop {
            let mut emptied = pin!(self.shared.emptied.notified());
            emptied.as_mut().enable();
            if self.shared.show(&part)? {
                return Ok(());
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, said, sink_context};

    async fn write(writer: &mut ChannelWriter<u8>, epoch: Epoch, values: &[u8]) -> Option<ChannelPart> {
        writer.write(Batch::from(values.to_vec())).await.unwrap();
        writer.prepare(epoch).await.unwrap()
    }

    fn received(receiver: &mut ChannelReceiver<u8>) -> Vec<u8> {
        std::iter::from_fn(|| receiver.try_recv()).collect()
    }

    #[test]
    fn gives_decided_epochs_once_whoever_commits_them() {
        block_on(async {
            let (sink, mut receiver) = channel(10);
            let mut writer = sink.open(&sink_context("out", 0)).await.unwrap();
            let one = write(&mut writer, 1, &[1, 2]).await.unwrap();
            let two = write(&mut writer, 2, &[3]).await.unwrap();
            assert_eq!(write(&mut writer, 3, &[]).await, None);
            assert!(receiver.try_recv().is_none());
            writer.commit(one.clone()).await.unwrap();
            writer.write(Batch::from(vec![9])).await.unwrap();
            drop(writer);
            // the next attempt: epoch 1 was restored, 2 was not decided
            let cx = sink_context("out", 0);
            let listed = sink.inspect(&cx).await.unwrap();
            assert_eq!(listed.newest.as_ref().map(|(epoch, _)| *epoch), Some(1));
            assert_eq!(received(&mut receiver), [1, 2]);
            let mut writer = sink.open(&cx).await.unwrap();
            writer.commit(one).await.unwrap();
            sink.clean(&cx, listed).await.unwrap();
            writer.commit(two).await.unwrap();
            let again = write(&mut writer, 2, &[3, 4]).await.unwrap();
            writer.commit(again).await.unwrap();
            let lost = ChannelPart { channel: Uuid::new_v4(), epoch: 1, subtask: 0, attempt: cx.attempt, records: 2 };
            writer.commit(lost).await.unwrap();
            drop((writer, sink));
            assert_eq!((receiver.recv().await, receiver.recv().await, receiver.recv().await), (Some(3), Some(4), None));
        });
    }

    #[test]
    fn a_commit_waits_for_room_and_a_full_epoch_does_not() {
        block_on(async {
            let (sink, mut receiver) = channel(2);
            let mut writer = sink.open(&sink_context("out", 0)).await.unwrap();
            let large = write(&mut writer, 1, &[1, 2, 3]).await.unwrap();
            writer.commit(large).await.unwrap();
            let next = write(&mut writer, 2, &[4]).await.unwrap();
            let mut commit = pin!(writer.commit(next));
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut commit).await.is_err());
            assert_eq!(receiver.try_recv(), Some(1));
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut commit).await.is_err());
            assert_eq!(receiver.try_recv(), Some(2));
            commit.await.unwrap();
            assert_eq!(received(&mut receiver), [3, 4]);
        });
    }

    #[test]
    fn nobody_receives() {
        block_on(async {
            let (sink, receiver) = channel::<u8>(2);
            let mut writer = sink.open(&sink_context("out", 0)).await.unwrap();
            drop(receiver);
            let error = writer.write(Batch::from(vec![1])).await.unwrap_err();
            assert_eq!(said(&error).0, ErrorKind::Failed);
        });
    }
}
