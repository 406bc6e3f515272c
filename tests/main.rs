//! The one integration binary: whole pipelines, through the public API and through files and processes only.
//!
//! | module | what |
//! |---|---|
//! | `pipelines` | what operators give, compared with plain iterators |
//! | `testing` | every operator under the test tools, and those against jobs |
//! | `branches` | streams by variant, errors as values, undecodable lines |
//! | `command_line` | settings and where they come from; looking at checkpoints |
//! | `exactly_once` | rerun, refusal, recovery, signals, restart |
//! | `crash` | SIGKILL at any instant |
//! | `damage` | damaged files, full disks, directories that cannot be used |
//! | `rename` | a job that gets another name |
//! | `rescale` | state restored at another parallelism |
//! | `operator` | operators without keys, and what goes to all subtasks |
//! | `backpressure` | slow sinks, quiet streams |
//! | `memory` | state larger than memory |
//! | `deciding` | sinks that decide checkpoints: the right to decide, taken and lost |
//! | `embed` | jobs inside of programs: the handle, channels, the example `embedded` |
//! | `kafka` | Kafka as a source, against a real one (feature `kafka`) |
//! | `timers` | timers in whole pipelines |
//! | `tidy` | house rules: imports, lengths, words |
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backpressure;
mod branches;
mod command_line;
mod common;
mod crash;
mod damage;
mod deciding;
mod embed;
mod exactly_once;
#[cfg(feature = "kafka")]
mod kafka;
mod memory;
mod operator;
mod pipelines;
mod rename;
mod rescale;
mod testing;
mod tidy;
mod timers;
