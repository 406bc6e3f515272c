//! Keyed state: what users declare, and how it is kept.
//!
//! A struct with `#[derive(State)]` is the row of one key. Rows live as Rust values in a table per operator (`table.rs`),
//! the write-back cache; what does not fit, and what a crash must not lose, is on disk:
//!
//! | where | what | file |
//! |---|---|---|
//! | table | rows in use, typed | `table.rs` |
//! | delta | the rows an epoch changed, one file per subtask and checkpoint | `delta.rs` |
//! | spill | rows that were evicted before a fold had them | `backend.rs` |
//! | base | all rows as of a decided epoch, folded from deltas | `backend.rs`, `fold.rs` |
//!
//! `handle.rs` has the handles, `row.rs` the bytes of a row, `snapshot.rs` what a manifest says of all this.

pub(crate) mod backend;
#[cfg(not(feature = "rocksdb"))]
mod diskless;
mod handle;
mod row;
pub(crate) mod snapshot;
pub(crate) mod table;

pub use handle::{Field, Handle, State, ValueState, Visitor, VisitorMut};
pub(crate) use row::{Layout, RowLayout, is_empty};
