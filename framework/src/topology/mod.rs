//! What users build, and what is made of it: streams, the logical graph, and the plan of subtasks.
//!
//! | file | what |
//! |---|---|
//! | `stream.rs`, `keyed.rs`, `operator.rs`, `event_time.rs` | [`Topology`], [`Stream`], [`KeyedStream`]: each method adds a node |
//! | `branch.rs` | `split`, `or_fail`, `or_skip` |
//! | `graph.rs` | the logical graph, untyped; mistakes are collected in `validate.rs` |
//! | `node.rs` | nodes and edges, typed inside: how each becomes a stage |
//! | `plan.rs` | which nodes share a subtask, how many there are of each, and the lanes between them |
//! | `stand_in.rs` | what replaces sources and sinks in a test |
//! | `describe.rs` | the graph as text, Mermaid and JSON |
//!
//! Nothing here runs, does I/O or knows of checkpoints.

mod branch;
mod describe;
mod event_time;
#[cfg(test)]
#[cfg(feature = "rocksdb")]
mod event_time_test;
mod graph;
mod keyed;
mod node;
mod operator;
mod plan;
mod stand_in;
mod stream;
mod validate;

pub use branch::{Branches, Ports};
pub use keyed::KeyedStream;
pub use stream::{IsBoxed, Stream, Topology};

pub(crate) use describe::Format;
pub(crate) use graph::{Graph, Kind};
pub(crate) use node::{Inlet, RecordType, SinkNode, SourceNode};
pub(crate) use plan::{Assemble, Plan};
pub(crate) use stand_in::{Told, keeper, listener};
pub(crate) use validate::validate;
