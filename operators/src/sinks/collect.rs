//! A sink that keeps its records in memory, for tests. Exactly once within a process: what it shows is what a sink of
//! files would show.

use millstream_framework::{Attempt, Batch, BoxError, Epoch, Sink, SinkContext, SinkWriter, Visible};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Collects records in memory. They are seen when their epoch is committed, and stay seen when the job recovers in
/// place or is started again in the same process with a clone of this sink. As over files that show, a job without a
/// checkpoint is refused over records that are seen; what was taken does not count any more.
///
/// ```
/// use millstream_operators::Collected;
///
/// let (sink, seen) = Collected::<u64>::new();
/// // in a topology: stream.sink("result", sink.clone())
/// assert!(seen.take().is_empty());
/// ```
pub struct Collected<T>(Arc<Mutex<Memory<T>>>);

/// What a [`Collected`] has seen.
pub struct Seen<T>(Arc<Mutex<Memory<T>>>);

/// Prepared epochs wait here until they are committed.
struct Memory<T> {
    seen: Vec<T>,
    newest: Option<(Epoch, BTreeSet<Attempt>)>,
    pending: BTreeMap<Part, Vec<T>>,
}

/// What one subtask wrote in one epoch; what stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    epoch: Epoch,
    subtask: usize,
    attempt: Attempt,
}

fn lock<T>(memory: &Mutex<Memory<T>>) -> MutexGuard<'_, Memory<T>> {
    // nothing is left half done where it could panic
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Memory<T> {
    /// Moves a part to what is seen, once.
    fn show(&mut self, part: &Part) {
        let Some(mut values) = self.pending.remove(part) else { return };
        self.seen.append(&mut values);
        match &mut self.newest {
            Some((epoch, attempts)) if *epoch == part.epoch => {
                attempts.insert(part.attempt);
            }
            Some((epoch, _)) if *epoch > part.epoch => {}
            newest => *newest = Some((part.epoch, BTreeSet::from([part.attempt]))),
        }
    }
}

impl<T: Send + 'static> Collected<T> {
    /// The sink, and what it will have seen.
    #[must_use]
    pub fn new() -> (Self, Seen<T>) {
        let memory = Arc::new(Mutex::new(Memory { seen: Vec::new(), newest: None, pending: BTreeMap::new() }));
        (Self(memory.clone()), Seen(memory))
    }
}

impl<T> Seen<T> {
    /// Takes out what has been seen since the last call: in the order written within a subtask and epoch, epoch by
    /// epoch.
    #[must_use]
    pub fn take(&self) -> Vec<T> {
        let mut memory = lock(&self.0);
        memory.newest = None;
        std::mem::take(&mut memory.seen)
    }

    /// How many records have been seen and not been taken.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0).seen.len()
    }

    /// Whether nothing has been seen that was not taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

macro_rules! shared { ($($name:ident),*) => { $(
    impl<T> Clone for $name<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }
    impl<T> fmt::Debug for $name<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let memory = lock(&self.0);
            write!(f, concat!(stringify!($name), "({} records, newest {:?})"), memory.seen.len(), memory.newest)
        }
    }
)* } }
shared!(Collected, Seen);

#[diagnostic::do_not_recommend]
impl<T: Send + 'static> Sink<T> for Collected<T> {
    type Writer = CollectedWriter<T>;

    async fn open(&self, cx: &SinkContext) -> Result<CollectedWriter<T>, BoxError> {
        let part = Part { epoch: 0, subtask: cx.subtask, attempt: cx.attempt };
        Ok(CollectedWriter { memory: self.0.clone(), part, values: Vec::new() })
    }

    /// Each epoch is a part of its own.
    fn separates_epochs(&self) -> bool {
        true
    }

    async fn inspect(&self, _: &SinkContext) -> Result<Visible, BoxError> {
        let memory = lock(&self.0);
        let pending: Result<_, _> = memory.pending.keys().map(serde_json::to_string).collect();
        Ok(Visible { newest: memory.newest.clone(), pending: pending? })
    }

    async fn clean(&self, _: &SinkContext, listed: Visible) -> Result<(), BoxError> {
        for name in &listed.pending {
            lock(&self.0).pending.remove(&serde_json::from_str::<Part>(name)?);
        }
        Ok(())
    }
}

/// The writer of [`Collected`].
pub struct CollectedWriter<T> {
    memory: Arc<Mutex<Memory<T>>>,
    part: Part,
    values: Vec<T>,
}

impl<T> fmt::Debug for CollectedWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CollectedWriter({} records)", self.values.len())
    }
}

impl<T: Send + 'static> SinkWriter<T> for CollectedWriter<T> {
    type Committable = Part;

    async fn write(&mut self, mut batch: Batch<T>) -> Result<(), BoxError> {
        self.values.append(&mut batch.values);
        Ok(())
    }

    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<Part>, BoxError> {
        if self.values.is_empty() {
            return Ok(None);
        }
        let part = Part { epoch, ..self.part.clone() };
        lock(&self.memory).pending.insert(part.clone(), std::mem::take(&mut self.values));
        Ok(Some(part))
    }

    async fn commit(&mut self, part: Part) -> Result<(), BoxError> {
        lock(&self.memory).show(&part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, sink_context};

    async fn write(writer: &mut CollectedWriter<u8>, epoch: Epoch, values: &[u8]) -> Option<Part> {
        writer.write(Batch::from(values.to_vec())).await.unwrap();
        writer.prepare(epoch).await.unwrap()
    }

    #[test]
    fn shows_epochs_when_they_are_committed_and_only_once() {
        let (sink, seen) = Collected::new();
        block_on(async {
            let mut writer = sink.open(&sink_context("result", 0)).await.unwrap();
            let one = write(&mut writer, 1, &[1, 2]).await.unwrap();
            assert!(seen.is_empty());
            let two = write(&mut writer, 2, &[3]).await.unwrap();
            assert_eq!(write(&mut writer, 3, &[]).await, None);
            writer.commit(one.clone()).await.unwrap();
            writer.commit(one).await.unwrap();
            assert_eq!(seen.len(), 2);
            assert_eq!(sink.inspect(&sink_context("result", 0)).await.unwrap().pending.len(), 1);
            let mut another = sink.open(&sink_context("result", 1)).await.unwrap();
            another.commit(two).await.unwrap();
        });
        assert_eq!(seen.take(), [1, 2, 3]);
        assert!(seen.take().is_empty());
    }

    #[test]
    fn a_recovery_keeps_what_is_decided_and_drops_the_rest() {
        let (sink, seen) = Collected::new();
        block_on(async {
            let dead = sink_context("result", 0);
            let mut writer = sink.open(&dead).await.unwrap();
            let decided = write(&mut writer, 1, &[1]).await.unwrap();
            write(&mut writer, 2, &[2]).await.unwrap();
            writer.write(Batch::from(vec![3])).await.unwrap();
            drop(writer);

            let cx = sink_context("result", 0);
            let listed = sink.inspect(&cx).await.unwrap();
            assert_eq!((listed.newest.clone(), listed.pending.len()), (None, 2));
            let mut writer = sink.open(&cx).await.unwrap();
            writer.commit(decided).await.unwrap();
            sink.clean(&cx, listed).await.unwrap();
            let left = sink.inspect(&cx).await.unwrap();
            assert_eq!(left, Visible { newest: Some((1, BTreeSet::from([dead.attempt]))), pending: Vec::new() });
        });
        assert_eq!(seen.take(), [1]);
        let taken = block_on(sink.inspect(&sink_context("result", 0))).unwrap();
        assert_eq!(taken, Visible::default());
    }
}
