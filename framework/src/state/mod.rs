//! Keyed state: what users declare, and how it is kept.
//!
//! A struct with `#[derive(State)]` is the row of one key. Rows live as Rust values in a table per operator
//! (`table.rs`), the write-back cache; what does not fit, and what a crash must not lose, is on disk:
//!
//! | where | what | file |
//! |---|---|---|
//! | table | rows in use, typed | `table.rs` |
//! | delta | the rows an epoch changed, one file per subtask and checkpoint | `delta.rs`, `writer.rs` |
//! | spill | rows that were evicted before a fold had them | `spill.rs` |
//! | base | all rows as of a decided epoch, folded from deltas | `base.rs`, `fold.rs`, `sorter.rs` |
//!
//! Operators without keys have a list of items instead: `items.rs`.
//!
//! `handle.rs` has the handles, `row.rs` the bytes of a row, `snapshot.rs` what a manifest says of all this,
//! `backend.rs` the contract between the table and storage, `disk.rs` the backend on RocksDB, `restore.rs` how it is
//! opened.

pub(crate) mod backend;
#[cfg(feature = "rocksdb")]
mod base;
pub(crate) mod cache;
#[cfg(feature = "rocksdb")]
mod delta;
#[cfg(feature = "rocksdb")]
mod disk;
#[cfg(not(feature = "rocksdb"))]
mod diskless;
mod entries;
#[cfg(feature = "rocksdb")]
mod fold;
mod handle;
pub(crate) mod items;
pub(crate) mod keyed;
mod list;
mod map;
#[cfg(feature = "rocksdb")]
mod restore;
#[cfg(feature = "rocksdb")]
mod rocks;
mod row;
#[cfg(feature = "rocksdb")]
mod scan;
pub(crate) mod snapshot;
#[cfg(feature = "rocksdb")]
mod sorted;
#[cfg(feature = "rocksdb")]
mod sorter;
#[cfg(feature = "rocksdb")]
mod spill;
mod storage;
#[cfg(feature = "rocksdb")]
mod store;
#[cfg(feature = "rocksdb")]
mod syncer;
pub(crate) mod table;
pub mod timers;
mod wanted;
#[cfg(feature = "rocksdb")]
mod writer;

pub use millstream_derive::State;

pub use handle::{Field, Handle, Here, Kind, State, Table, ValueState, Visitor, VisitorMut};
pub use list::ListState;
pub use map::MapState;
pub(crate) use row::{Layout, RowLayout};
pub use storage::TableSpec;
pub use timers::{EventTimer, EventTimers, ProcessingTimer, ProcessingTimers};
pub use wanted::Wanted;

/// The trait [`State`] without the derive macro of the same name: the facade has another macro.
#[doc(hidden)]
pub mod row_trait {
    pub use super::handle::State;
}
