//! What people see of a running job, and how they stop it. Who shows it is in `cli/`.

use crate::subtask::Counters;
use crate::{Epoch, clock};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Finding out what to resume from, and loading it.
    #[default]
    Recovering,
    /// Records flow.
    Running,
    /// Waiting before the next attempt.
    Pausing,
    /// Taking the last checkpoint.
    Stopping,
}

/// A checkpoint that was decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) epoch: Epoch,
    /// From its barrier to its decision.
    pub(crate) took: Duration,
    /// Longest stop it caused in a subtask.
    pub(crate) pause: Duration,
    /// Longest wait of a subtask between its first and its last lane's barrier.
    pub(crate) alignment: Duration,
}

/// What a job has done since it was started, attempts before the present one included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    /// What the present attempt resumed from.
    pub(crate) restored: Option<Epoch>,
    pub(crate) records_in: u64,
    pub(crate) records_out: u64,
    pub(crate) checkpoints: u64,
    pub(crate) last: Option<Taken>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    stop: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    status: Status,
    /// Of the present attempt: sources, sinks, and all.
    sources: Vec<Arc<Counters>>,
    sinks: Vec<Arc<Counters>>,
    all: Vec<Arc<Counters>>,
    /// When the barrier of the checkpoint under way was sent.
    since: Option<Instant>,
}

/// A handle on a running job. Clones are the same job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control(Arc<Shared>);

fn sum(counters: &[Arc<Counters>], of: impl Fn(&Counters) -> u64) -> u64 {
    counters.iter().map(|c| of(c)).sum()
}

impl Control {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a last checkpoint and the end.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.stop.notify_one();
    }

    /// Whether that was asked.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Until that is asked.
    pub(crate) async fn stopped(&self) {
        while !self.is_stopping() {
            self.0.stop.notified().await;
        }
    }

    /// What the job has done so far.
    pub(crate) fn status(&self) -> Status {
        let state = self.state();
        let mut status = state.status.clone();
        status.records_in += sum(&state.sources, |c| c.records_in.load(Ordering::Relaxed));
        status.records_out += sum(&state.sinks, |c| c.records_out.load(Ordering::Relaxed));
        status
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.state().status.phase = phase;
    }

    /// A new attempt begins; what the last one counted is kept.
    pub(crate) fn begin(
        &self,
        restored: Option<Epoch>,
        sources: Vec<Arc<Counters>>,
        sinks: Vec<Arc<Counters>>,
        all: Vec<Arc<Counters>>,
    ) {
        let status = self.status();
        let mut state = self.state();
        *state = State { status: Status { restored, ..status }, sources, sinks, all, since: None };
    }

    /// The barrier of a checkpoint is sent.
    pub(crate) fn barrier(&self) {
        self.state().since = Some(clock::now());
    }

    /// A checkpoint is decided.
    pub(crate) fn decided(&self, epoch: Epoch) -> Taken {
        let mut state = self.state();
        let took = state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        let longest = |of: fn(&Counters) -> &std::sync::atomic::AtomicU64| {
            let nanos = state.all.iter().map(|c| of(c).swap(0, Ordering::Relaxed)).max().unwrap_or(0);
            Duration::from_nanos(nanos)
        };
        let (pause, alignment) = (longest(|c| &c.pause_ns_max), longest(|c| &c.alignment_ns_max));
        let taken = Taken { epoch, took, pause, alignment };
        state.status.checkpoints += 1;
        state.status.last = Some(taken);
        drop(state);
        publish(&self.status(), taken);
        taken
    }
}

/// Hands the figures of a checkpoint to whatever recorder the program has installed; nothing without one.
fn publish(status: &Status, taken: Taken) {
    metrics::counter!("millstream_records_in_total").absolute(status.records_in);
    metrics::counter!("millstream_records_out_total").absolute(status.records_out);
    metrics::counter!("millstream_checkpoints_total").absolute(status.checkpoints);
    metrics::histogram!("millstream_checkpoint_seconds").record(taken.took);
    metrics::histogram!("millstream_checkpoint_pause_seconds").record(taken.pause);
    metrics::histogram!("millstream_checkpoint_alignment_seconds").record(taken.alignment);
}
