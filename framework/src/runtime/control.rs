//! What a running job shares with those who watch and command it: its figures, what is wished of it, how it ended. The
//! public face of it is in `handle.rs`; what the wishes do is in `attempt.rs` and `supervise.rs`.

use super::status::{CheckpointStatus, JobStatus, OperatorStatus, Phase, Role};
use crate::subtask::Counters;
use crate::{Epoch, Error, ErrorKind, Timestamp, clock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot, watch};

/// How the job is to end. What is stronger comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    /// When its input does.
    GoOn,
    /// After a last checkpoint.
    Stop,
    /// Now.
    Abort,
}

/// Where the answer to somebody who asked for a checkpoint goes.
pub(crate) type Asked = oneshot::Sender<Result<Epoch, Error>>;

struct Shared {
    wish: watch::Sender<Wish>,
    /// How it ended.
    end: watch::Sender<Option<Result<(), Error>>>,
    /// One for each caller that waits.
    asked: Mutex<Vec<Asked>>,
    ask: Notify,
    state: Mutex<State>,
}

struct State {
    status: JobStatus,
    operators: Vec<Operator>,
    /// When the barrier of the checkpoint under way was sent.
    since: Option<Instant>,
}

/// A named node of the present attempt, to be watched.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// By subtask.
    pub(crate) counters: Vec<Arc<Counters>>,
}

impl Operator {
    /// The least of its subtasks; none before all have one.
    pub(crate) fn watermark(&self) -> Option<Timestamp> {
        let marks: Option<Vec<_>> = self.counters.iter().map(|c| c.watermark.get()).collect();
        marks?.into_iter().min()
    }
}

/// A handle on a running job. Clones are the same job.
#[derive(Clone)]
pub(crate) struct Control(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sum(counters: &[Arc<Counters>], of: fn(&Counters) -> &AtomicU64) -> u64 {
    counters.iter().map(|c| of(c).load(Ordering::Relaxed)).sum()
}

impl Control {
    pub(crate) fn new(job: &str) -> Self {
        let status = JobStatus {
            job: job.into(),
            phase: Phase::default(),
            restored: None,
            checkpoints: 0,
            checkpoint: None,
            restarts: 0,
            error: None,
            records_in: 0,
            records_out: 0,
            operators: Vec::new(),
        };
        Self(Arc::new(Shared {
            wish: watch::channel(Wish::GoOn).0,
            end: watch::channel(None).0,
            asked: Mutex::default(),
            ask: Notify::new(),
            state: Mutex::new(State { status, operators: Vec::new(), since: None }),
        }))
    }

    fn wish(&self, wish: Wish) {
        self.0.wish.send_if_modified(|now| std::mem::replace(now, wish.max(*now)) < wish);
    }

    async fn wished(&self, wish: Wish) {
        // this handle holds the sender, so there is always one
        let _ = self.0.wish.subscribe().wait_for(|now| *now >= wish).await;
    }

    /// Asks for a last checkpoint and the end.
    pub(crate) fn stop(&self) {
        self.wish(Wish::Stop);
    }

    /// Asks for the end, now.
    pub(crate) fn abort(&self) {
        self.wish(Wish::Abort);
    }

    /// Whether either was asked.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.wish.borrow() >= Wish::Stop
    }

    /// Until either is asked.
    pub(crate) async fn stopped(&self) {
        self.wished(Wish::Stop).await;
    }

    /// Until the end is asked for, now; gives the error that such an end is.
    pub(crate) async fn aborted(&self) -> Error {
        self.wished(Wish::Abort).await;
        Error::new(ErrorKind::Failed, "the job was aborted; its next start resumes from the last checkpoint")
    }

    /// The job is over.
    pub(crate) fn end(&self, result: Result<(), Error>) {
        self.phase(Phase::Ended);
        self.0.end.send_replace(Some(result));
        lock(&self.0.asked).clear();
    }

    /// How the job has ended.
    pub(crate) fn result(&self) -> Option<Result<(), Error>> {
        self.0.end.borrow().clone()
    }

    /// How the job ends.
    pub(crate) async fn ended(&self) -> Result<(), Error> {
        let mut end = self.0.end.subscribe();
        // as above: there is always a sender
        let end = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(Ok(()))
    }

    /// Asks for a checkpoint and waits for it.
    pub(crate) async fn checkpoint(&self) -> Result<Epoch, Error> {
        let over = || Error::new(ErrorKind::Failed, "the job has ended and takes no checkpoint any more");
        let (tell, told) = oneshot::channel();
        {
            let mut asked = lock(&self.0.asked);
            asked.retain(|asked| !asked.is_closed());
            asked.push(tell);
        }
        self.0.ask.notify_one();
        if self.result().is_some() {
            return Err(over());
        }
        told.await.unwrap_or_else(|_| Err(over()))
    }

    /// Those who ask for a checkpoint; at least one.
    pub(crate) async fn asked(&self) -> Vec<Asked> {
        loop {
            let asked = std::mem::take(&mut *lock(&self.0.asked));
            if !asked.is_empty() {
                return asked;
            }
            self.0.ask.notified().await;
        }
    }

    /// What the job has done so far.
    pub(crate) fn status(&self) -> JobStatus {
        let state = lock(&self.0.state);
        let mut status = state.status.clone();
        for operator in &state.operators {
            let records_in = sum(&operator.counters, |c| &c.records_in);
            let records_out = sum(&operator.counters, |c| &c.records_out);
            match operator.role {
                Role::Source => status.records_in += records_in,
                Role::Sink => status.records_out += records_out,
                Role::Operator => {}
            }
            if let Some(shown) = status.operators.iter_mut().find(|shown| shown.name == operator.name) {
                shown.records_in += records_in;
                shown.records_out += records_out;
                shown.rows = sum(&operator.counters, |c| &c.rows);
                shown.watermark = operator.watermark();
                shown.trouble = operator.counters.iter().find_map(|c| c.trouble.text());
            }
        }
        status
    }

    pub(crate) fn phase(&self, phase: Phase) {
        lock(&self.0.state).status.phase = phase;
    }

    /// An attempt has failed, and there will be another one.
    pub(crate) fn failed(&self, error: &Error) {
        let mut state = lock(&self.0.state);
        state.status.restarts += 1;
        state.status.error = Some(error.to_string());
        state.status.phase = Phase::Pausing;
    }

    /// A new attempt begins; what the last one counted is kept.
    pub(crate) fn begin(&self, restored: Option<Epoch>, operators: Vec<Operator>) {
        let mut status = self.status();
        status.restored = restored;
        let before = std::mem::take(&mut status.operators);
        status.operators = operators
            .iter()
            .map(|Operator { name, role, counters }| {
                let before = before.iter().find(|shown| shown.name == *name);
                OperatorStatus {
                    name: name.clone(),
                    role: *role,
                    parallelism: counters.len(),
                    records_in: before.map_or(0, |shown| shown.records_in),
                    records_out: before.map_or(0, |shown| shown.records_out),
                    rows: 0,
                    watermark: None,
                    trouble: None,
                }
            })
            .collect();
        *lock(&self.0.state) = State { status, operators, since: None };
    }

    /// The barrier of a checkpoint is sent.
    pub(crate) fn barrier(&self) {
        lock(&self.0.state).since = Some(clock::now());
    }

    /// A checkpoint is decided.
    pub(crate) fn decided(&self, epoch: Epoch) -> CheckpointStatus {
        let mut state = lock(&self.0.state);
        let took = state.since.take().map_or(Duration::ZERO, clock::since);
        let longest = |of: fn(&Counters) -> &AtomicU64| {
            let all = state.operators.iter().flat_map(|operator| &operator.counters);
            Duration::from_nanos(all.map(|c| of(c).swap(0, Ordering::Relaxed)).max().unwrap_or(0))
        };
        let (pause, alignment) = (longest(|c| &c.pause_ns_max), longest(|c| &c.alignment_ns_max));
        let taken = CheckpointStatus { epoch, took, pause, alignment };
        state.status.checkpoints += 1;
        state.status.checkpoint = Some(taken);
        taken
    }
}
