//! The contract of sinks: what is written in an epoch becomes visible when its checkpoint is decided, all or nothing.
//!
//! For each epoch the runtime calls `write` any number of times, then `prepare`, then, once the checkpoint is decided,
//! `commit` with what `prepare` gave. A crash may come between any two of them:
//!
//! * before the decision: what was written must never become visible. The next attempt calls [`Sink::clean`].
//! * after it: the next attempt calls `commit` with the same committable, on a writer of its own, perhaps once more.
//!
//! Of one subtask epochs are prepared and committed in order, and one is committed before the next is prepared. What an
//! attempt calls, in order:
//!
//! 1. [`inspect`](Sink::inspect), once, also at the very first start.
//! 2. If the restored checkpoint has committables: [`open`](Sink::open) with subtask 0, and `commit` with each of them,
//!    of all subtasks. That writer is dropped.
//! 3. [`clean`](Sink::clean), once. When the job goes back to an older checkpoint it comes later, after the first
//!    commit.
//! 4. [`open`](Sink::open) in each subtask; then `write`, `prepare` and `commit` as said. Nothing is called at the end:
//!    what is not committed by then is over, and a writer that is dropped must leave no harm.

use crate::operator::{Decider, Traffic};
use crate::{Attempt, Batch, BoxError, Data, Epoch};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A sink for records of type `T`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot write records of type `{T}`",
    label = "this sink does not take `{T}`",
    note = "a connector's builder becomes a sink when its format is chosen, as in `Files::write(path).json()`",
    note = "text sinks take `String`, JSON and CSV sinks any `Serialize` type, `kafka.write(topic)` takes `KafkaMessage`: put a `map` before the sink"
)]
pub trait Sink<T>: Send + Sync + 'static {
    /// Writes for one subtask.
    type Writer: SinkWriter<T>;

    /// Opens the writer of one subtask, on the thread it stays on, after [`inspect`](Sink::inspect) and before any
    /// record flows. One more is opened at recovery if there is something to commit.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn open(&self, cx: &SinkContext) -> Result<Self::Writer, BoxError>;

    /// Sinks that decide checkpoints themselves, such as a transactional one, give their log; two different ones in a
    /// job are an error. `None`: the job's directory decides.
    fn decides(&self) -> Option<Arc<dyn Decider>> {
        None
    }

    /// Whether what is written after `prepare(n)` cannot become visible together with epoch `n`. If not (the default),
    /// the runtime holds back the records of `n + 1` until `n` is committed, in a bounded buffer.
    fn separates_epochs(&self) -> bool {
        false
    }

    /// At recovery, before anything is decided: lists what earlier attempts left, and makes the listed names durable
    /// (an fsync of the directory). Changes nothing else: the recovery may be refused. Sinks that show epochs as they
    /// are committed say which is the newest, so that a job directory older than its output is noticed; at least once
    /// sinks give the default.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn inspect(&self, cx: &SinkContext) -> Result<Visible, BoxError> {
        let _ = cx;
        Ok(Visible::default())
    }

    /// At recovery, after the restored checkpoint's committables were committed: removes what attempts left that are
    /// over, only of what [`inspect`](Sink::inspect) listed, and nothing that is visible.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn clean(&self, cx: &SinkContext, listed: Visible) -> Result<(), BoxError> {
        let _ = (cx, listed);
        Ok(())
    }
}

/// Writes for one subtask.
pub trait SinkWriter<T>: 'static {
    /// What it takes to make a prepared epoch visible, by this writer or another one. It stands in the manifest as
    /// JSON.
    type Committable: Data;

    /// Writes records of the running epoch. Waiting here is back-pressure up to the sources.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn write(&mut self, batch: Batch<T>) -> Result<(), BoxError>;

    /// Makes everything written in `epoch` durable, where it can still be taken back. `None` if nothing was written.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<Self::Committable>, BoxError>;

    /// Makes a prepared epoch visible, and that durable. Must be idempotent: it may be called again after a crash, with
    /// a committable of another writer or of another attempt; what is missing has been committed before. So the
    /// committable has to say what it is, by epoch, subtask and attempt, and whose it is, not who commits it.
    ///
    /// # Errors
    /// Ends the attempt; the next one commits again.
    async fn commit(&mut self, committable: Self::Committable) -> Result<(), BoxError>;
}

/// Who a writer is.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The job.
    pub job: String,
    /// The name of the sink.
    pub sink: String,
    /// Which of `parallelism` subtasks, from 0; 0 in `inspect` and `clean`.
    pub subtask: usize,
    /// How many subtasks write to this sink.
    pub parallelism: usize,
    /// This life of the job.
    pub attempt: Attempt,
    /// Where the writer counts the bytes it gives out, if it knows them.
    pub traffic: Traffic,
}

/// What earlier attempts left in a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visible {
    /// The newest epoch that shows, with the attempts it shows of (more than one only if two instances wrote).
    pub newest: Option<(Epoch, BTreeSet<Attempt>)>,
    /// What does not show, by names that only the sink understands.
    pub pending: Vec<String>,
}
