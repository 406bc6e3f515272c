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

/// What the README shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use millstream_framework as framework;
pub use millstream_framework::{
    CheckpointStatus, Error, ErrorKind, JobHandle, JobStatus, OperatorStatus, Phase, RestartPolicy, Role, Secret,
    clock, key, operator, state, topology,
};
pub use millstream_operators as operators;
pub use millstream_operators::{sinks, sources};

/// How a pipeline is tested: [`TestDriver`](testing::TestDriver) runs a topology in the test, with sources and sinks of
/// the test's own; [`ProcessHarness`](testing::ProcessHarness) drives one process function.
///
/// A topology is a function, so a test hands it to a driver as `main` hands it to a job. Sources and sinks keep their
/// names; behind the names are queues of the test. What lies between runs as in a job, on the test's thread: when a
/// call returns, all that it causes has happened.
///
/// ```
/// use millstream::prelude::*;
/// use millstream::testing::TestDriver;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order {
///     user: String,
///     cents: u64,
/// }
///
/// fn topology(t: &Topology) -> Result<(), BoxError> {
///     let (orders, undecodable) = t.source("orders", Files::read("orders").try_json::<Order>()).split();
///     orders
///         .key_by(|order| &order.user)
///         .map_with_state("spent", |spent: &mut u64, order| {
///             *spent += order.cents;
///             (order.user, *spent)
///         })
///         .filter(|(_, spent)| *spent > 100_000)
///         .sink("large", Files::write("large").json());
///     undecodable.map(|line| line.to_string()).sink("undecodable", Console::out());
///     Ok(())
/// }
///
/// let order = |user: &str, cents| Ok::<_, Undecodable>(Order { user: user.into(), cents });
/// let mut test = TestDriver::new(topology);
/// test.source("orders").push(order("ann", 60_000)).push(order("bob", 70_000));
/// assert!(test.take::<(String, u64)>("large").is_empty());
/// test.source("orders").push(order("ann", 50_000));
/// assert_eq!(test.take::<(String, u64)>("large"), [("ann".into(), 110_000)]);
/// ```
///
/// * **Sources** give what is pushed, of the type that the source's format decodes to: of `json::<T>()` a `T`, of
///   `try_json::<T>()` a `Result`, of `lines()` a `String`. Formats themselves are tested where they are.
/// * **Sinks** keep what comes until it is [taken](testing::TestDriver::take), after the `map` before the sink and
///   before the format.
/// * **Event time** is that of the records, as `event_time` says. Watermarks are made of them as in a job, after each
///   record; [`watermark`](testing::TestSource::watermark) goes ahead of what they say, as if other records had come.
///   [`end`](testing::TestDriver::end) ends all sources, and with them all that waits for a watermark.
/// * **Time of day** stands still until [`advance`](testing::TestDriver::advance) moves it: timers of processing time,
///   time-outs, a source that becomes idle.
/// * **Settings** come from [`Job::config`](framework::Job::config): `TestDriver::of(&job)`.
/// * **Mistakes** of the topology and errors of user code end the test where it made the call, with the text that a job
///   would give.
///
/// What a driver does not show: that the output survives crashes (nothing is durable in it), how fast a pipeline is,
/// and what depends on how records of several splits happen to meet.
pub mod testing {
    pub use millstream_framework::testing::*;
}

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
    #[cfg(feature = "kafka")]
    pub use millstream_operators::{
        Kafka,
        sinks::kafka::{KafkaMessage, Partitioning},
        sources::kafka::{KafkaPartition, KafkaRecord, OutOfRange, Topics},
    };
    pub use std::process::ExitCode;
    pub use std::time::Duration;
}
