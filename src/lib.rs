//! Stream processing as a library: typed pipelines that survive any crash exactly once, with state larger than memory,
//! and without a cluster.
//!
//! A job is a name and a topology function. The function wires sources, steps, stateful operators and sinks; the
//! runtime runs it on the job's own threads, takes checkpoints, and resumes from the last one:
//!
//! ```
//! use millstream::prelude::*;
//!
//! fn topology(t: &Topology) -> Result<(), BoxError> {
//!     t.source("lines", Records::of(["to be or", "not to be"].map(String::from)))
//!         .flat_map_into(|line, words| words.extend(line.split_whitespace().map(str::to_owned)))
//!         .key_by(|word| word)
//!         .aggregate("counts", |of| of.count())
//!         .filter(|(_, count)| *count > 1)
//!         .map(|(word, count)| format!("{word} {count}"))
//!         .sink("repeated", Console::out());
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), millstream::Error> {
//! # let dir = tempfile::tempdir().map_err(|e| millstream::Error::new(millstream::ErrorKind::Io, e.to_string()))?;
//! Job::new("repeated_words", topology).data_dir(dir.path()).run()
//! # }
//! ```
//!
//! In a binary, `Job::main` in place of `run` gives the command line: `run`, `topology`, `checkpoints`, settings
//! from a file, the environment and flags, and the exit codes.
//!
//! What is where: [`framework`] has the contracts and the runtime, [`operators`] what is built on them. Those who write
//! a connector depend on `millstream-framework` only. This crate adds nothing but names.

pub use millstream_framework as framework;
pub use millstream_framework::{
    CheckpointStatus, Error, ErrorKind, JobHandle, JobStatus, OperatorStatus, Phase, RestartPolicy, Role, Secret,
    clock, key, operator, state, topology,
};
pub use millstream_operators as operators;
pub use millstream_operators::{sinks, sources};

/// `use millstream::prelude::*;` is the only import most pipelines need.
pub mod prelude {
    pub use millstream_framework::state::row_trait::State;
    pub use millstream_framework::state::{
        EventTimer, EventTimers, ListState, MapState, ProcessingTimer, ProcessingTimers, ValueState, Wanted,
    };
    pub use millstream_framework::{
        Batch, BoxError, Branches as _, Chain, Collect, Context, Data, Either, Error, FacadeBranches as Branches,
        FacadeState as State, Job, Key, KeyedStream, Operator, Output, Process, Record, RestartPolicy, Secret, Step,
        Stream, Timestamp, Topology, Watermarks,
    };
    pub use millstream_operators::{
        Aggregate, Channel, Collected, Console, Files, Generator, KeyedOperators as _, Null, Of, Records, Undecodable,
    };
    pub use std::process::ExitCode;
    pub use std::time::Duration;
}
