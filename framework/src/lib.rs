//! The contracts and the runtime of millstream. Connectors and operators depend on this crate, pipelines on the facade
//! `millstream`, which re-exports it.
//!
//! Layers, each seeing only those above it: base files (errors, time, records, keys, codecs), the contracts in
//! [`operator`] and [`state`], the logical [`topology`] beside the checkpoint protocol, and the runtime that brings
//! them together. `ARCHITECTURE.md` has the map.

// `#[derive(State)]` names this crate by its own name, here too.
extern crate self as millstream_framework;

pub mod clock;
mod codec;
mod data;
mod disk;
mod error;
mod failpoint;
#[cfg(test)]
#[path = "fuzz_test.rs"]
mod fuzz;
mod guard;
pub mod key;
mod message;
mod mutant;
pub mod operator;
#[cfg(test)]
mod random;
mod record;
mod secret;
mod shape;
pub mod spawn;
pub mod state;
mod subtask;
mod time;
pub mod topology;
mod values;

mod checkpoints;
mod cli;
mod config;
mod job;
mod runtime;
#[cfg(test)]
mod sim;
pub mod testing;

pub use config::RestartPolicy;
pub use data::{Data, Key, Name};
pub use error::{BoxError, Error, ErrorKind};
#[doc(hidden)]
pub use failpoint::{FAILPOINTS, RENAME_FAILPOINTS, failpoint};
pub use job::Job;
pub use message::{Attempt, Epoch};
pub use millstream_derive::{Branches, FacadeBranches, FacadeState};
pub use operator::*;
pub use record::{Batch, Record};
pub use runtime::{CheckpointStatus, JobHandle, JobStatus, OperatorStatus, Phase, Role};
pub use secret::Secret;
pub use time::Timestamp;
pub use topology::{Branches, KeyedStream, Stream, Topology};
