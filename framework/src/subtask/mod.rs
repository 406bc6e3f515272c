//! What runs in one subtask: stages, the loops that drive them, and the lanes between subtasks.
//!
//! What depends on a record type is compiled for each type that a user has, so it is short: the loops that call user
//! code. All else knows batches as [`AnyBatch`](crate::record::AnyBatch), stages as `AnyStage`, and is compiled once.
//! Which subtasks there are is decided in `topology/`, where they run in `runtime/`.
//!
//! | file | what |
//! |---|---|
//! | `stage.rs`, `chain.rs` | the one virtual call per batch; fan-out; fused chains |
//! | `branch.rs` | `split`: a batch per branch |
//! | `exchange.rs`, `inbox.rs` | from subtask to subtask: routing; bounded lanes |
//! | `gate.rs`, `marks.rs` | alignment of barriers and of watermarks; watermarks of several inputs as one |
//! | `source.rs`, `drive.rs` | the two loops: at a source, behind an inbox |
//! | `reader.rs` | a source's reader without its types |
//! | `splits.rs` | event time at a source: the stage of `event_time`, and what it knows of splits |
//! | `process.rs`, `state_stage.rs`, `timers.rs` | keyed operators on the row table: records; state; timers that fire |
//! | `heat.rs` | which keys are busy |
//! | `operator.rs` | operators without keys: calls, items |
//! | `sink.rs` | the sink driver: write, prepare, hold back, commit |
//! | `stand_in.rs` | both ends of a topology under test |
//! | `suspect.rs` | which record ended an attempt |
//! | `report.rs` | what subtasks tell the coordinator, and are told by it |

mod branch;
mod chain;
mod drive;
mod exchange;
mod gate;
mod heat;
mod inbox;
mod marks;
mod operator;
mod process;
mod reader;
mod report;
mod sink;
mod source;
mod splits;
mod stage;
mod stand_in;
mod state_stage;
mod suspect;
mod timers;

pub(crate) use branch::{BranchStage, branch_loops};
pub(crate) use chain::{ChainStage, Loops, chain_loops};
pub(crate) use drive::drive;
pub(crate) use exchange::{Batches, Borrowed, Computed, Consumers, IntoLanes, LaneWriter, Lending, Making, Owners};
pub(crate) use gate::GateSpec;
pub(crate) use inbox::{Receiver, Sender, inbox};
pub(crate) use marks::Mark;
pub(crate) use operator::OperatorStage;
pub(crate) use process::ProcessStage;
pub(crate) use reader::{Opening, open_source};
pub(crate) use report::{Command, Commands, Counters, Report, Reports, StageContext};
pub(crate) use sink::{SinkStage, open_sink, sink_context};
pub(crate) use source::{Assignment, drive_source, source_context};
pub(crate) use splits::{EventTimeStage, SetTimes, Splits, set_times};
pub(crate) use stage::{AnyStage, Control, Copier, Discard, FanOut, Followers, Stage, copier, mismatch};
pub(crate) use stand_in::{Keep, Kept, Unpack};
pub(crate) use state_stage::KeyOf;
pub(crate) use suspect::Suspect;

use crate::Error;
use futures::future::LocalBoxFuture;

/// A subtask's life.
pub(crate) type Life = LocalBoxFuture<'static, Result<(), Error>>;
