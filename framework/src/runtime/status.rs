//! What a job tells those who ask how it is doing: a snapshot, cheap to take, that serialises to JSON. Where its
//! figures are gathered is in `control.rs`.

use crate::{Epoch, Timestamp};
use serde::{Serialize, Serializer};
use std::time::Duration;

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// Finding out what to resume from, and loading it.
    #[default]
    Recovering,
    /// Records flow.
    Running,
    /// An attempt has failed; waiting before the next one.
    Pausing,
    /// Taking the last checkpoint.
    Stopping,
    /// Over, well or not: [`JobHandle::wait`](crate::JobHandle::wait) says which.
    Ended,
}

/// A checkpoint that was decided. Durations are milliseconds in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CheckpointStatus {
    /// Its number.
    pub epoch: Epoch,
    /// From its barrier to its decision.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
    /// The longest stop it caused in a subtask.
    #[serde(rename = "pause_ms", serialize_with = "milliseconds")]
    pub pause: Duration,
    /// The longest wait of a subtask between the first and the last of its inputs' barriers.
    #[serde(rename = "alignment_ms", serialize_with = "milliseconds")]
    pub alignment: Duration,
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

/// Where in the pipeline an operator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Reads.
    Source,
    /// In between.
    Operator,
    /// Writes.
    Sink,
}

/// A named source, operator or sink, all its subtasks together.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OperatorStatus {
    /// The name its user gave it.
    pub name: String,
    /// Where it stands.
    pub role: Role,
    /// Its subtasks.
    pub parallelism: usize,
    /// Records that came in since the job was started, of a source those it read. Records that are read again after a
    /// failure count again.
    pub records_in: u64,
    /// Records that went out, of a sink those it wrote. They may not be visible yet.
    pub records_out: u64,
    /// Rows of state that are in memory, as of the last checkpoint.
    pub rows: u64,
    /// The watermark, the least of its subtasks; none before there is one, and without event time.
    pub watermark: Option<Timestamp>,
    /// What holds it up for now, if something does: a server that does not answer, as the connector tells it.
    pub trouble: Option<String>,
}

/// What a job has done since it was started, attempts before the present one included.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct JobStatus {
    /// The name of the job.
    pub job: String,
    /// What it is doing.
    pub phase: Phase,
    /// The checkpoint that the present attempt resumed from.
    pub restored: Option<Epoch>,
    /// How many checkpoints were decided.
    pub checkpoints: u64,
    /// The newest of them.
    pub checkpoint: Option<CheckpointStatus>,
    /// How many attempts have failed and were followed by another one.
    pub restarts: u64,
    /// What the last attempt that failed died of.
    pub error: Option<String>,
    /// Records read by all sources.
    pub records_in: u64,
    /// Records written by all sinks.
    pub records_out: u64,
    /// In the order in which the topology names them.
    pub operators: Vec<OperatorStatus>,
}
