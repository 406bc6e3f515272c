//! Attempts one after the other, by the restart policy. What an attempt does is in `attempt.rs`.

use super::attempt::{self, Order, Session};
use super::control::Control;
use super::metrics;
use super::ownership::{self, Right};
use super::poison::{Failure, verdict};
use super::status::Phase;
use crate::checkpoints::Store;
use crate::guard::message;
use crate::mutant::broken;
use crate::{Error, ErrorKind, Job, spawn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Runs a job to its end on a thread of its own, with a runtime of its own, so that it does not matter what the caller
/// runs on. `control` is told the end whatever it is; `begun`, that the topology is built and the directory is held.
///
/// # Errors
/// When there is no thread left to give.
pub(crate) fn launch(job: Job, control: Control, begun: oneshot::Sender<()>) -> Result<JoinHandle<()>, Error> {
    spawn::thread("millstream-job", move || {
        let done = catch_unwind(AssertUnwindSafe(|| run(job, &control, begun)));
        control.end(done.unwrap_or_else(|panic| {
            let text = format!("the coordinator has panicked: {}", message(panic.as_ref()));
            Err(Error::new(ErrorKind::Failed, text))
        }));
    })
}

fn run(job: Job, control: &Control, begun: oneshot::Sender<()>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(ErrorKind::Io, "cannot start the coordinator").because(e))?;
    // nobody listens when nobody wants a handle
    runtime.block_on(live(job, control, || _ = begun.send(())))
}

/// The life of a process. `begun` is called when the topology is built and the directory is held.
///
/// # Errors
/// What ended it.
pub(crate) async fn live(job: Job, control: &Control, begun: impl FnOnce()) -> Result<(), Error> {
    // mistakes in building, and secrets that are missing, show before a directory is made
    job.plan()?.graph.read_secrets()?;
    let store = Store::open(&job.settings.data_dir, &job.name)?;
    let session = Session::new(job, store, control.clone());
    begun();
    supervise(&session).await
}

/// # Errors
/// What ended the job: of a kind that is not retriable, or once too often in a row.
async fn supervise(session: &Session) -> Result<(), Error> {
    let (settings, control) = (&session.job.settings, &session.control);
    let mut order = Order { restore: settings.restore, allow_duplicates: settings.allow_duplicates, suspect: None };
    // in a row, without a checkpoint in between
    let mut failures = Vec::new();
    loop {
        control.phase(Phase::Recovering);
        let before = control.status().checkpoints;
        let Err(error) = attempt::run(session, &mut order).await else { return Ok(()) };
        if !error.kind().is_retriable() || control.is_stopping() {
            return Err(error);
        }
        // recovery 0: whoever has fenced others and cannot know that its claim is decided never fences back [C10]
        if session.right.get() == Right::Fenced && !broken("C10") {
            return Err(ownership::yields(&session.job.name, Some(error)));
        }
        if control.status().checkpoints > before {
            failures.clear();
        }
        failures.push(Failure::of(&error, order.suspect.as_ref().and_then(|suspect| suspect.record.clone())));
        let n = failures.len();
        let Some(pause) = settings.restart.pause_after(n as u32) else {
            let error = error.at(format!("failed {n} times in a row without a checkpoint in between"));
            return Err(verdict(&failures).into_iter().fold(error, Error::advise));
        };
        tracing::warn!(%error, pause_ms = crate::clock::millis(pause), failures = n, "attempt failed, recovering");
        control.failed(&error);
        metrics::RESTARTS.counter(&[&session.job.name]).increment(1);
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = control.stopped() => return Err(error),
        }
    }
}
