//! The contracts: what operators, sources and sinks are written against. Newcomers read this folder first.
//!
//! | contract | what it is | where |
//! |---|---|---|
//! | [`Step`] | stateless, fused with its neighbours, sees records only | `step.rs` |
//! | [`Process`] | keyed, with state, synchronous | `process.rs` |
//! | [`Operator`] | without keys, with a list of items, async | `unkeyed.rs` |
//! | [`Source`], [`SourceReader`] | reads splits, each with an offset | `source.rs` |
//! | [`SplitSource`], [`SplitReader`] | the same for one split at a time: the simple form | `split.rs` |
//! | [`Watermarks`] | how event time advances with the records of a split | `watermarks.rs` |
//! | [`Sink`], [`SinkWriter`] | writes epochs that become visible when they are decided | `sink.rs` |
//! | [`DecisionLog`] | says which checkpoint was decided | `decision.rs` |
//!
//! Descriptions ([`Source`], [`Sink`], [`Process`]) are shared by all subtasks, hence `Send + Sync`. What runs
//! (readers, writers, [`Operator`]s and their futures) is made on a worker and stays on it, so its `async fn` need not
//! be `Send`.
//!
//! A worker is a thread with a tokio runtime, whose timers and sockets futures may use. All subtasks of the worker
//! share that thread: a call that blocks stops them all, so what takes more than about a millisecond (an fsync, a long
//! computation) belongs on `tokio::task::spawn_blocking`. A panic ends the attempt like an error.
//!
//! `framework/examples/connectors/` has a source of each kind and a sink, `framework/examples/lookup/` an operator, all
//! written against this crate alone.

mod branch;
mod decision;
mod lag;
mod process;
mod sink;
mod skipped;
mod source;
mod split;
mod step;
mod traffic;
mod trouble;
mod unkeyed;
mod watermarks;

#[doc(hidden)]
pub use crate::record::AnyBatch;
pub use branch::{As, Deal, Either, Is};
pub use decision::{Decided, Decider, DecisionLog, Digest, Instance, LogContext, LogId, Progress};
pub use lag::Lag;
pub(crate) use process::Moment;
pub use process::{Context, Process};
pub use sink::{Sink, SinkContext, SinkWriter, Visible};
pub use skipped::Skipped;
pub use source::{
    OffsetOf, Polled, RecordOf, ResetPlace, ResetTo, Source, SourceContext, SourceReader, Split, SplitBatch, SplitOf,
};
pub use split::{BySplit, SplitReader, SplitSource};
pub use step::{
    Boxed, Chain, Collect, Filter, FilterMap, FlatMap, FlatMapInto, Fused, Inspect, Map, OrFail, OrSkip, Own, Step,
    Then, TryMap,
};
pub use traffic::Traffic;
pub use trouble::Trouble;
pub use unkeyed::{Operator, Output};
pub use watermarks::Watermarks;
