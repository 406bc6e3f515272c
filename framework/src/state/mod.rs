//! Keyed state: what users declare, and how it is kept.
//!
//! # Which state when
//!
//! A struct with `#[derive(State)]` is the *row* of one key; each of its fields is a state, found again by its name. A
//! process function is handed the row of its record's key, and no other.
//!
//! ```
//! use millstream_framework::state::{ListState, MapState, State, ValueState};
//!
//! #[derive(State)]
//! struct Customer {
//!     total: ValueState<u64>,
//!     by_shop: MapState<String, u64>,
//!     waiting: ListState<String>,
//! }
//! ```
//!
//! | state | for | what it costs |
//! |---|---|---|
//! | [`ValueState`] | what each record looks at, up to some hundred bytes | nothing beside the look-up of the row, which all values of a row share |
//! | [`MapState`] | entries by key, of which a record needs a few, in any number | a look-up per call; a read if the entry is in storage only |
//! | [`ListState`] | what is gathered now and looked at later, in any number | a look-up per call; `push` reads nothing |
//!
//! A `ValueState` that holds a `BTreeMap` or a `Vec` is one value: it is read, written and kept in memory as a whole,
//! which is the fastest while it is small. With the collections each entry is by itself: ten million of them under one
//! key work with a cache of a thousand, and a checkpoint writes those that changed. Nothing is lost or doubled in any
//! of them: what a row and its entries hold belongs to the same epoch as the records that made it so.
//!
//! Entries that are in storage only are read while the worker waits, one by one, unless
//! [`Process::prefetch`](crate::Process::prefetch) names them beforehand ([`Wanted`]). The metric of such waits tells
//! whether that is worth it. States are changed one by one: `*state = Row::open()` would take the collections away from
//! all keys, and ends the attempt.
//!
//! # How it is kept
//!
//! Rows live as Rust values in a table per operator (`table.rs`, `cache.rs`), the write-back cache; the entries of a
//! collection are rows of a table of their own (`entries.rs`), lent to the row at hand (`handle.rs`). What does not
//! fit, and what a crash must not lose, is on disk:
//!
//! | where | what | file |
//! |---|---|---|
//! | table | rows in use, typed | `table.rs`, `cache.rs` |
//! | delta | the rows an epoch changed, one file per subtask and checkpoint | `delta.rs`, `writer.rs` |
//! | spill | rows that were evicted before a fold had them | `spill.rs`, `held.rs`, `filter.rs` |
//! | base | all rows as of a decided epoch, folded from deltas | `base.rs`, `fold.rs`, `sorter.rs` |
//!
//! Operators without keys have a list of items instead: `items.rs`.
//!
//! `keyed.rs` has all state of a subtask together, `row.rs` the bytes of a row, `snapshot.rs` what a manifest says of
//! all this, `backend.rs` the contract between the tables and storage, `disk.rs` the backend on RocksDB, `scan.rs`
//! reads a range of keys, `restore.rs` opens what was kept.

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
mod filter;
#[cfg(feature = "rocksdb")]
mod fold;
#[cfg(test)]
mod fuzz_test;
mod handle;
#[cfg(feature = "rocksdb")]
mod held;
#[cfg(feature = "rocksdb")]
mod indexed;
pub(crate) mod items;
pub(crate) mod keyed;
mod list;
mod map;
#[cfg(all(test, feature = "rocksdb"))]
mod memory;
#[cfg(feature = "rocksdb")]
mod restore;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(feature = "rocksdb")]
mod room;
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
