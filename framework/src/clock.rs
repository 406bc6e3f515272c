//! The seam to the clocks of the machine: nothing else asks them. Event time is in `time.rs`.
//!
//! Both clocks follow tokio's: where a test has paused that one (`testing/`), time stands still until it moves it.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

thread_local! {
    /// In a thread that pretends: the instant at which it was 1970.
    static PRETENDED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Monotonic time, for measuring and for deadlines.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long ago that was. [`Instant::elapsed`] would ask another clock.
#[must_use]
pub fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// The time of day, for people, for file names, and for timers that go by it; for no decision of the protocol.
#[allow(clippy::disallowed_methods, reason = "this is the seam")]
#[must_use]
pub fn wall() -> SystemTime {
    match PRETENDED.get() {
        Some(start) => SystemTime::UNIX_EPOCH + now().duration_since(start),
        None => SystemTime::now(),
    }
}

/// As long as the result lives, the time of day of this thread is 1970 and what [`now`] has advanced since `start`.
pub(crate) fn pretend(start: Instant) -> Pretence {
    Pretence(PRETENDED.replace(Some(start)))
}

/// The time of day that this thread pretends is another one from now on.
#[cfg(test)]
pub(crate) fn jump(start: Instant) {
    PRETENDED.set(Some(start));
}

/// See [`pretend`]; brings back what was before.
pub(crate) struct Pretence(Option<Instant>);

impl Drop for Pretence {
    fn drop(&mut self) {
        PRETENDED.set(self.0);
    }
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
