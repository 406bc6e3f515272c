//! What brings it together: recovers, wires, runs and supervises attempts of a job.
//!
//! | file | what |
//! |---|---|
//! | `supervise.rs` | attempts one after the other, by the restart policy |
//! | `poison.rs` | whether it is always the same record that fails |
//! | `recovery.rs` | what to resume from, and putting it in order: steps 2 to 7 of a recovery |
//! | `ownership.rs` | whose the job is, where sinks decide: fencing and claiming |
//! | `wiring.rs` | lanes, commands and participants of a plan |
//! | `worker.rs` | threads, and the subtasks pinned to them |
//! | `attempt.rs` | one attempt: carries out what the coordinator commands |
//! | `handle.rs`, `status.rs` | the job as a program sees it that embeds it |
//! | `metrics.rs` | what is published for monitoring: the list, and the hand that publishes |
//! | `control.rs` | what the job shares with those who watch and command it |
//! | `lone.rs` | one decision without a run, for commands |
//! | `reset.rs` | what such a decision changes of the offsets of a source |
//! | `rename.rs` | what a job has under one name becomes another's |
//! | `solo.rs` | all subtasks of a plan in the calling thread, for tests |
//!
//! The coordinator runs on a thread of its own, apart from the workers and from who started the job.

mod attempt;
mod control;
mod handle;
mod lone;
mod metrics;
mod ownership;
mod poison;
mod recovery;
mod rename;
mod reset;
mod solo;
mod status;
mod supervise;
mod wiring;
mod worker;

pub(crate) use control::Control;
pub use handle::JobHandle;
pub(crate) use handle::{run, start};
pub(crate) use lone::{adopt, reset};
pub(crate) use ownership::decider;
pub(crate) use rename::rename;
pub(crate) use reset::{To, Wanted};
pub(crate) use solo::Solo;
pub use status::{CheckpointStatus, JobStatus, OperatorStatus, Phase, Role};
pub(crate) use supervise::launch;
#[cfg(test)]
pub(crate) use supervise::live;
