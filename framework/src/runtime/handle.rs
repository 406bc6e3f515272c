//! [`JobHandle`]: what a program holds of a job that runs inside it. What it asks for travels through `control.rs`.

use super::control::Control;
use super::status::{JobStatus, OperatorStatus};
use super::supervise;
use crate::{Epoch, Error, Job};
use std::fmt;
use tokio::sync::oneshot;

/// A running job. Clones are the same job; the handle goes wherever the program wants it, such as into the state of a
/// web framework.
///
/// The job runs on threads of its own, so its futures work on any runtime, tokio's or another, and may be dropped at
/// any time without harm. **The job does not depend on its handles:** when the last one is dropped it goes on, until
/// its input ends or the process does. A process that ends while the job runs is as a crash: the next start resumes
/// from the last checkpoint.
#[derive(Clone)]
pub struct JobHandle(Control);

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0.status();
        f.debug_struct("JobHandle").field("job", &status.job).field("phase", &status.phase).finish_non_exhaustive()
    }
}

impl JobHandle {
    /// Waits for the end of the job: of its input, by [`stop`](Self::stop) or [`abort`](Self::abort), or by an error.
    /// Any number of callers may wait; all are told the same, also those who come later. The directory of the job is
    /// free by then.
    ///
    /// # Errors
    /// What ended it, as from [`Job::run`].
    pub async fn wait(&self) -> Result<(), Error> {
        self.0.ended().await
    }

    /// Ends the job in good order: a last checkpoint, decided and its output committed, then the end, for which this
    /// waits. Of what waits in front of a source nothing more is read. Once asked for it is not taken back, also if
    /// this future is dropped. A job that waits to recover from a failure ends with that failure.
    ///
    /// # Errors
    /// What ended it instead.
    pub async fn stop(&self) -> Result<(), Error> {
        self.0.stop();
        self.0.ended().await
    }

    /// Ends the job now, without a checkpoint, as a crash would: what was read since the last one will be read again by
    /// the next start. Does not wait, neither for user code that is running; [`wait`](Self::wait) does, and says that
    /// the job was aborted.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Takes a checkpoint now, whatever the interval, and waits until it is decided and all its output is committed.
    /// Gives its number. It holds all that sources had handed to the job; what still waits in front of a source, such
    /// as in a channel or in a broker, belongs to a later one. If nothing was read since the last checkpoint, that one
    /// is the answer and no other is taken. Callers that come together share one.
    ///
    /// Dropping this future does not take it back.
    ///
    /// # Errors
    /// When the attempt fails before the decision, which it may survive: the job recovers, and one may ask again. When
    /// the job has ended.
    pub async fn checkpoint(&self) -> Result<Epoch, Error> {
        self.0.checkpoint().await
    }

    /// What the job has done so far. Costs some microseconds and stops nothing.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        self.0.status()
    }

    /// The figures of each named source, operator and sink, which are in [`status`](Self::status), too. All others are
    /// published through the crate `metrics`.
    #[must_use]
    pub fn metrics(&self) -> Vec<OperatorStatus> {
        self.0.status().operators
    }
}

/// Aborts a job that nobody will ever have a handle on.
struct Unheld(Option<Control>);

impl Drop for Unheld {
    fn drop(&mut self) {
        if let Some(control) = self.0.take() {
            control.abort();
        }
    }
}

/// Starts a job; gives the handle when its topology is built and its directory is held.
pub(crate) async fn start(job: Job) -> Result<JobHandle, Error> {
    let control = Control::new(&job.name);
    let mut unheld = Unheld(Some(control.clone()));
    let (begun, has_begun) = oneshot::channel();
    drop(supervise::launch(job, control.clone(), begun)?);
    if has_begun.await.is_err() {
        control.ended().await?;
    }
    unheld.0 = None;
    Ok(JobHandle(control))
}

/// Runs a job to its end and blocks.
pub(crate) fn run(job: Job) -> Result<(), Error> {
    let control = Control::new(&job.name);
    let (begun, _) = oneshot::channel();
    let thread = supervise::launch(job, control.clone(), begun)?;
    // it has told the end before
    let _ = thread.join();
    control.result().unwrap_or(Ok(()))
}
