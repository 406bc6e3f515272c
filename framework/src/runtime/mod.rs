//! What brings it together: recovers, wires, runs and supervises attempts of a job.
//!
//! | file | what |
//! |---|---|
//! | `supervise.rs` | attempts one after the other, by the restart policy |
//! | `recovery.rs` | what to resume from, and putting it in order: steps 2 to 7 of a recovery |
//! | `wiring.rs` | lanes, commands and participants of a plan |
//! | `worker.rs` | threads, and the subtasks pinned to them |
//! | `attempt.rs` | one attempt: carries out what the coordinator commands |
//! | `control.rs` | what people see of a job, and how they stop it |
//!
//! The coordinator and what serves people run on the thread that called, apart from the workers.

mod attempt;
mod control;
mod recovery;
mod supervise;
mod wiring;
mod worker;

pub(crate) use control::{Control, Phase, Status};
pub(crate) use supervise::run;
