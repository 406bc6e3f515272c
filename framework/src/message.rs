//! What subtasks send each other, and the numbers checkpoints have. How it travels is in `subtask/inbox.rs`.

use crate::Timestamp;
use crate::record::AnyBatch;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a checkpoint, and of the stretch of stream before its barrier. Grows by one with each decision.
pub type Epoch = u64;

/// One life of a job: drawn anew at each start and at each recovery in place. Snapshots and pending files carry it, so
/// that what two lives wrote under one number is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(uuid::Uuid);

/// A number that nobody else draws.
pub(crate) fn draw() -> uuid::Uuid {
    #[cfg(test)]
    if let Some(mount) = crate::disk::simulated::current() {
        return uuid::Uuid::from_u64_pair(mount.draw(), mount.draw());
    }
    uuid::Uuid::new_v4()
}

impl Attempt {
    /// A new one.
    #[must_use]
    pub fn draw() -> Self {
        Self(draw())
    }

    /// Reads what [`Display`](fmt::Display) wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(Self).filter(|a| a.to_string() == text)
    }
}

impl fmt::Display for Attempt {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// What a subtask receives from another one.
pub(crate) enum Message {
    /// Records in order.
    Batch(Box<dyn AnyBatch>),
    /// No record of this time or older is expected any more. Also says that the sender is not idle, or no longer.
    Watermark(Timestamp),
    /// Nothing comes for now: nobody need wait for this sender's watermark. The next message but a barrier ends it.
    Idle,
    /// Everything before belongs to this epoch, everything after to the next.
    Barrier(Epoch),
    /// No record follows; barriers still do.
    End,
}
