//! What runs in one subtask: stages, the loops that drive them, and the lanes between subtasks.
//!
//! Everything here is generic over record types, hence short: what depends on a type is a loop that calls user code.
//! Which subtasks there are is decided in `topology/`, where they run in `runtime/`.
//!
//! | file | what |
//! |---|---|
//! | `stage.rs`, `chain.rs` | the one virtual call per batch; fan-out; fused chains |
//! | `branch.rs` | `split`: a batch per branch |
//! | `exchange.rs`, `inbox.rs` | from subtask to subtask: routing; bounded lanes |
//! | `gate.rs`, `marks.rs` | alignment of barriers and of watermarks; watermarks of several inputs as one |
//! | `source.rs`, `drive.rs` | the two loops: at a source, behind an inbox |
//! | `splits.rs` | event time at a source: the stage of `event_time`, and what it knows of splits |
//! | `process.rs`, `heat.rs` | keyed operators on the row table; which of their keys are busy |
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
mod report;
mod sink;
mod source;
mod splits;
mod stage;
mod stand_in;
mod suspect;
mod timers;

pub(crate) use branch::{BranchStage, branch_loops};
pub(crate) use chain::{ChainStage, Loops, chain_loops};
pub(crate) use drive::drive;
pub(crate) use exchange::{BatchWriter, Borrowed, Computed, Consumers, HashOf, KeyedWriter, keyed_loops};
pub(crate) use gate::GateSpec;
pub(crate) use inbox::{Receiver, Sender, inbox};
pub(crate) use marks::Mark;
pub(crate) use operator::OperatorStage;
pub(crate) use process::{KeyOf, ProcessStage};
pub(crate) use report::{Command, Commands, Counters, Report, Reports, StageContext};
pub(crate) use sink::SinkStage;
pub(crate) use source::{Assignment, drive_source};
pub(crate) use splits::{EventTimeStage, SetTimes, Splits, set_times};
pub(crate) use stage::{AnyStage, Branch, Control, Discard, FanOut, Followers, Stage, erase, mismatch, typed};
pub(crate) use stand_in::{AnyBatch, Keep, Kept, Unpack};
pub(crate) use suspect::Suspect;
