//! How watermarks follow from the times of records. What carries them is in `subtask/`, what combines those of several
//! inputs in `subtask/marks.rs`.

use std::time::Duration;

/// How far event time is known to have come, by the records of each split: the second argument of
/// [`event_time`](crate::Stream::event_time).
///
/// The watermark of a split is its largest time so far less the bound, less 1 ms: records of the largest time may still
/// come. That of a subtask is the least of its splits that count, and so is, across exchanges, that of any operator.
///
/// A split does not count when it has been read to its end **and** has brought nothing for
/// [`idle_after`](Self::idle_after), or when it is finished. To have caught up is not enough: the watermark of the
/// others would make its next records late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Watermarks {
    pub(crate) bound: Duration,
    pub(crate) idle_after: Duration,
}

impl Watermarks {
    /// A record of a split may be older than the newest before it by up to `bound`. Those that are older still are
    /// late: by the watermark they were not expected any more.
    pub fn bounded(bound: Duration) -> Self {
        Self { bound, idle_after: Duration::from_secs(30) }
    }

    /// Times never go back within a split; records of one time may be many.
    pub fn monotonous() -> Self {
        Self::bounded(Duration::ZERO)
    }

    /// How long a split that has been read to its end may bring nothing before the others go on without it; 30 s if not
    /// set. What it brings later counts again, and may be late.
    pub fn idle_after(mut self, silence: Duration) -> Self {
        self.idle_after = silence;
        self
    }
}
