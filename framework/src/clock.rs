//! The seam to the clocks of the machine: nothing else asks them. Event time is in `time.rs`.

use std::time::{Duration, Instant, SystemTime};

/// Monotonic time, for measuring and for deadlines.
#[allow(clippy::disallowed_methods, reason = "this is the seam")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, for people, for file names, and for timers that go by it; for no decision of the protocol.
#[allow(clippy::disallowed_methods, reason = "this is the seam")]
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970 by the clock of the machine; 0 before.
#[must_use]
pub(crate) fn wall_ms() -> u64 {
    wall().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Whole milliseconds of `d`; saturates.
pub(crate) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
