//! What subtasks and the coordinator tell each other. The protocol they follow is in `checkpoints/protocol.rs`.

use super::drive::nanos;
use super::suspect::Suspect;
use crate::checkpoints::Part;
use crate::clock;
use crate::operator::{Traffic, Trouble};
use crate::{Attempt, Epoch, Error, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// A batch that takes longer is reported: nothing else runs on its worker meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// To a subtask. At most three are under way per epoch, so the queue needs no bound of its own.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Sources: let records flow.
    Run,
    /// Sources: the epoch is over. Others: it will be, the barrier comes by the lanes.
    Barrier(Epoch),
    /// The checkpoint is decided: sinks commit, sources may show their offsets.
    Decided(Epoch),
    /// Leave.
    End,
}

/// A subtask's end of the queue of commands.
pub(crate) type Commands = UnboundedReceiver<Command>;

/// To the coordinator, from one of those that take part in checkpoints: sources, keyed operators, sinks.
#[derive(Debug)]
pub(crate) enum Report {
    /// Restored, open, and waiting.
    Ready,
    /// Its share of the checkpoint is durable.
    Part { participant: usize, epoch: Epoch, part: Part },
    /// A barrier passes the gate of this operator, which has this watermark. The part of the same subtask follows.
    Gate { operator: Arc<str>, watermark: Timestamp },
    /// The sink has made the epoch visible.
    Committed { participant: usize, epoch: Epoch },
    /// A source has read something, or an operator without keys has emitted something: for the first time since the
    /// start or since its last barrier.
    Progress,
    /// An operator without keys has something under way since before its last barrier or since the restored checkpoint.
    Owing,
    /// The source will bring nothing more.
    Ended(usize),
    /// Where the error that follows came from.
    Suspect(Suspect),
    /// The attempt is over.
    Failed(Error),
}

/// Sends reports. Each participant has at most three under way per epoch, so the queue needs no bound of its own.
#[derive(Debug, Clone)]
pub(crate) struct Reports(pub(crate) UnboundedSender<Report>);

impl Reports {
    /// Sends one; nobody listens any more when the attempt is being torn down.
    pub(crate) fn send(&self, report: Report) {
        let _ = self.0.send(report);
    }
}

/// What one subtask of an operator counts. Relaxed: for people and for the question whether anything has happened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Records that came in; at a source, that were read.
    pub(crate) records_in: AtomicU64,
    /// Records that went out; at a sink, that were written.
    pub(crate) records_out: AtomicU64,
    /// Longest stop that barriers and copying caused since it was last asked, in nanoseconds.
    pub(crate) pause_ns_max: AtomicU64,
    /// Longest wait between the first and the last lane's barrier since it was last asked, in nanoseconds.
    pub(crate) alignment_ns_max: AtomicU64,
    /// Time spent in stages, and waiting for what follows, in nanoseconds; at the head of a task, for all of it.
    pub(crate) busy_ns: AtomicU64,
    pub(crate) blocked_ns: AtomicU64,
    /// Batches that came, at the head of a task, and the records in them.
    pub(crate) batches: AtomicU64,
    pub(crate) batched: AtomicU64,
    /// Bytes, if a connector counts them.
    pub(crate) traffic: Traffic,
    /// What holds a connector up.
    pub(crate) trouble: Trouble,
    /// Records whose row was in the table. Rows in it, and how many, entries of collections included, were looked up in
    /// storage, were found there, and were evicted.
    pub(crate) hits: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) loaded: AtomicU64,
    pub(crate) evicted: AtomicU64,
    /// Entries of collections that user code waited for, because nobody had asked for them (`Process::prefetch`).
    pub(crate) blocking_misses: AtomicU64,
    /// Bytes of keys and rows that were evicted before a fold had them.
    pub(crate) spilled: AtomicU64,
    /// The key group with the largest share of the records of an epoch, and that share in thousandths.
    pub(crate) hottest_group: AtomicU64,
    pub(crate) hottest_share: AtomicU64,
    /// The newest one.
    pub(crate) watermark: WatermarkCell,
}

/// The newest watermark of a subtask; [`Timestamp::MIN`] before the first one.
#[derive(Debug)]
pub(crate) struct WatermarkCell(AtomicI64);

impl Default for WatermarkCell {
    fn default() -> Self {
        Self(AtomicI64::new(Timestamp::MIN.as_millis()))
    }
}

impl WatermarkCell {
    pub(crate) fn set(&self, mark: Timestamp) {
        self.0.store(mark.as_millis(), Ordering::Relaxed);
    }

    /// None before the first one.
    pub(crate) fn get(&self) -> Option<Timestamp> {
        Some(Timestamp::from_millis(self.0.load(Ordering::Relaxed))).filter(|mark| *mark > Timestamp::MIN)
    }
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
    pub(crate) fn max(counter: &AtomicU64, n: u64) {
        counter.fetch_max(n, Ordering::Relaxed);
    }
}

/// Who a stage is, and whom it talks to.
#[derive(Debug, Clone)]
pub(crate) struct StageContext {
    pub(crate) job: Arc<str>,
    /// The operator's name, or what it is and where it was written.
    pub(crate) name: Arc<str>,
    pub(crate) subtask: usize,
    pub(crate) parallelism: usize,
    pub(crate) attempt: Attempt,
    /// Its number among those that take part in checkpoints.
    pub(crate) participant: usize,
    /// The epoch that is running when records begin to flow.
    pub(crate) first_epoch: Epoch,
    pub(crate) key_groups: u32,
    /// Bytes a sink may hold back.
    pub(crate) hold_bytes: usize,
    /// Bytes a source may read ahead.
    pub(crate) ahead_bytes: usize,
    /// What ended the attempt before.
    pub(crate) suspect: Option<Arc<Suspect>>,
    pub(crate) reports: Reports,
    pub(crate) counters: Arc<Counters>,
}

impl StageContext {
    /// A batch was worked off, in so long, of which its subtask waited so long for what follows.
    pub(crate) fn worked(&self, records: usize, took: Duration, waited: Duration) {
        let busy = took.saturating_sub(waited);
        self.counters.busy_ns.fetch_add(nanos(busy), Ordering::Relaxed);
        self.counters.blocked_ns.fetch_add(nanos(waited), Ordering::Relaxed);
        Counters::add(&self.counters.batches, usize::from(records > 0));
        Counters::add(&self.counters.batched, records);
        if busy >= SLOW {
            let (operator, subtask, took_ms) = (&*self.name, self.subtask, clock::millis(busy));
            tracing::warn!(operator, subtask, records, took_ms, "a batch kept a worker busy for long");
        }
    }

    /// For error messages.
    pub(crate) fn place(&self, what: &str) -> String {
        format!("{what} `{}`, subtask {}", self.name, self.subtask)
    }
}
