//! The contract of decision logs: where a checkpoint becomes the one to resume from. The directory is one (see
//! `checkpoints/`); a sink with transactions brings another, in which the decision and the output are one commit.

use crate::{Attempt, Epoch, Error};
use futures::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use std::fmt;

/// SHA-256 of a manifest, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a process: drawn at its start, kept by recoveries in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instance(pub uuid::Uuid);

/// The record R(n): which checkpoint is decided, and whose the job is. The newest one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Version of this record; 1.
    pub version: u32,
    /// The job.
    pub job: String,
    /// The process that decided or claimed.
    pub instance: Instance,
    /// Its attempt.
    pub attempt: Attempt,
    /// The checkpoint.
    pub epoch: Epoch,
    /// Its manifest.
    pub manifest: Digest,
    /// The manifest before it; none for the first.
    pub parent: Option<Digest>,
}

/// What became of a commit.
#[derive(Debug)]
pub enum Decided {
    /// It is decided, for good.
    Committed,
    /// Another producer has the right to decide: this process must recover, or give way.
    Fenced,
    /// Nobody here knows; recovery will find out.
    Unknown(Error),
}

/// Says which checkpoint was decided, and decides the next one. The coordinator knows only this trait.
///
/// The order of calls in a life of a process: `fence`, `read`, (`commit` of the newest record: the claim,) then
/// `commit` once per checkpoint. `look` serves a process that was fenced and wants to know by whom without fencing
/// back.
pub trait DecisionLog: Send + Sync + 'static {
    /// The newest record, an undecided one at the tail included, without fencing anybody.
    fn look<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>>;
    /// Ends the right of all earlier producers to commit, and settles what they left open.
    fn fence<'a>(&'a self) -> LocalBoxFuture<'a, Result<(), Error>>;
    /// The newest decided record; only after `fence`.
    fn read<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>>;
    /// Decides `progress`, whose manifest is durable already.
    fn commit<'a>(&'a self, progress: &'a Progress) -> LocalBoxFuture<'a, Decided>;
}
