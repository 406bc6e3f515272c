//! Places at which tests let a process die, as a machine does that fails: between any two steps of the protocol. Off
//! without the feature `failpoints`, and in release builds whatever the features.
//!
//! `FAILPOINTS=checkpoint-written=3*off->return` ends a process by SIGABRT when it has written its fourth manifest.

/// All of them, in the order in which a process passes them.
#[doc(hidden)]
pub const FAILPOINTS: &[&str] = &[
    "recovery-listed",
    "recovery-looked",
    "recovery-fenced",
    "recovery-read",
    "recovery-decided",
    "recovery-claimed",
    "recovery-committed",
    "recovery-cleared",
    "checkpoint-barrier",
    "checkpoint-acked",
    "manifest-durable",
    "manifest-renamed",
    "checkpoint-written",
    "checkpoint-recorded",
    "checkpoint-decided",
    "checkpoint-finished",
    "checkpoint-marked",
    "checkpoint-collected",
];

/// Those of the command `rename`, which passes others, too.
#[doc(hidden)]
pub const RENAME_FAILPOINTS: &[&str] = &[
    "rename-examined",
    "rename-marked",
    "rename-left",
    "rename-moved",
    "rename-recorded",
    "rename-taken",
    "rename-cleared",
];

/// Passes a place.
#[doc(hidden)]
#[inline]
pub fn failpoint(name: &'static str) {
    debug_assert!(FAILPOINTS.contains(&name) || RENAME_FAILPOINTS.contains(&name), "{name} is not in the list");
    #[cfg(all(feature = "failpoints", debug_assertions))]
    on::pass(name);
}

#[cfg(all(feature = "failpoints", debug_assertions))]
mod on {
    use std::sync::Once;

    pub(super) fn pass(name: &str) {
        static SET_UP: Once = Once::new();
        // as the environment says, for the life of the process
        SET_UP.call_once(|| std::mem::forget(fail::FailScenario::setup()));
        fail::fail_point!(name, |_| std::process::abort());
    }
}
