//! The contract of decision logs: where a checkpoint becomes the one to resume from. The directory is one (see
//! `checkpoints/`); a sink with transactions brings another, in which the decision and the output are one commit.

use crate::{Attempt, Epoch, Error};
use futures::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

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
    /// Version of this record, [`VERSION`](Self::VERSION).
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

impl Progress {
    /// The version that this code writes, and the only one that it reads.
    pub const VERSION: u32 = 1;
}

/// Which log it is. It stands in the manifests that the log decided, so that another one is not taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogId {
    /// The system that keeps it, by an id that no other has, such as that of a cluster.
    pub system: String,
    /// Its name there.
    pub name: String,
    /// What differs in a log that was deleted and made again under its name, if the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
}

impl LogId {
    /// Whether two names mean the same log. An incarnation that is not known tells nothing.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let differ = |(a, b)| a != b;
        self.system == other.system
            && self.name == other.name
            && !self.incarnation.as_ref().zip(other.incarnation.as_ref()).is_some_and(differ)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, name, incarnation } = self;
        write!(f, "`{name}` of {system}")?;
        incarnation.as_ref().map_or(Ok(()), |incarnation| write!(f, " (id {incarnation})"))
    }
}

/// The job that a log is opened for.
#[derive(Debug, Clone)]
pub struct LogContext {
    /// Its name, which is its identity: two jobs of one name are one job to the log.
    pub job: String,
    /// This life of the job.
    pub attempt: Attempt,
    /// From one checkpoint to the next: `checkpoint_interval`, or `checkpoint_pause` if that is longer.
    pub checkpoint_interval: Duration,
    /// How long one may take.
    pub checkpoint_timeout: Duration,
}

/// What sinks give that decide checkpoints themselves: it opens the log of a job. All sinks of a job that decide have
/// to give the same one.
pub trait Decider: fmt::Debug + Send + Sync + 'static {
    /// Where its logs are, for people: `Kafka at localhost:9092`.
    fn place(&self) -> String;

    /// Tries out whether its system keeps what exactly once rests on, for the command `check --broker`; says what was
    /// found. May take some seconds; leaves nothing behind.
    ///
    /// # Errors
    /// [`Refused`](crate::ErrorKind::Refused) if it does not; [`Busy`](crate::ErrorKind::Busy) if it stays away.
    fn check<'a>(&'a self) -> LocalBoxFuture<'a, Result<String, Error>>;

    /// Opens the log of a job, waiting for its system if that is not there. If there is no such log it is made, or,
    /// with `create` off, it is none. Fences nobody. Called in each attempt; the log of the attempt before is gone by
    /// then.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) and [`Refused`](crate::ErrorKind::Refused) for settings with which it could
    /// not keep its word, [`Busy`](crate::ErrorKind::Busy) if its system stays away for too long.
    fn open<'a>(
        &'a self,
        cx: &'a LogContext,
        create: bool,
    ) -> LocalBoxFuture<'a, Result<Option<Box<dyn DecisionLog>>, Error>>;
}

/// What became of a commit.
#[derive(Debug)]
pub enum Decided {
    /// It is decided, for good.
    Committed,
    /// Another producer has the right to decide: this process must recover, or give way.
    Fenced,
    /// Another instance is found to own the job, whatever became of this commit: this process ends for good.
    Superseded,
    /// Nobody here knows; recovery will find out.
    Unknown(Error),
}

/// Says which checkpoint was decided, and decides the next one. The coordinator knows only this trait.
///
/// The order of calls in an attempt: (`look`,) `fence`, `read`, (`commit` of the newest record: the claim,) then
/// `commit` once per checkpoint. `look` serves a process that was fenced and wants to know by whom without fencing
/// back, and one that starts and would rather refuse before it ends another's right.
///
/// What one of its sinks' writers has written before `commit` becomes visible with it, and what they have written
/// without one never does: sinks that decide do so in the transaction that the log commits.
pub trait DecisionLog: fmt::Debug + 'static {
    /// Which log it is.
    fn id(&self) -> LogId;
    /// The newest record, an undecided one at the tail included, without fencing anybody. If such a record stays
    /// undecided for some seconds it is given as it is.
    fn look<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>>;
    /// Ends the right of all earlier producers to commit, and settles what they left open.
    fn fence<'a>(&'a self) -> LocalBoxFuture<'a, Result<(), Error>>;
    /// The newest decided record; only after `fence`. What is open in spite of that is ended before.
    fn read<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>>;
    /// Decides `progress`, whose manifest is durable already. If the outcome leaves room for an answer that comes late
    /// the log sees to it that this cannot touch what is written next.
    fn commit<'a>(&'a self, progress: &'a Progress) -> LocalBoxFuture<'a, Decided>;
}
