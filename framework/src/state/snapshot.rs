//! What a manifest says of state: which files hold it, and how its bytes are to be read. How the files are
//! written is in `delta.rs` and `fold.rs`.

use crate::Epoch;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A file that a checkpoint needs, relative to the directory of checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRef {
    /// Path below the directory of checkpoints, with `/`.
    pub(crate) path: String,
    /// Length.
    pub(crate) bytes: u64,
    /// XXH3-128 of the content, 32 hexadecimal digits.
    pub(crate) checksum: String,
}

/// All rows of a subtask as of a decided epoch: a RocksDB checkpoint directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// The epoch up to which deltas were folded in.
    pub(crate) epoch: Epoch,
    /// The directory, relative to the directory of checkpoints.
    pub(crate) directory: String,
    /// Its files.
    pub(crate) files: Vec<FileRef>,
}

/// The rows that one epoch changed in one subtask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// The file.
    pub(crate) file: FileRef,
    /// How many entries it holds, tombstones included.
    pub(crate) entries: u64,
}

/// The keyed state of one operator's subtask: a base, and the deltas since, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct StateSnapshot {
    /// The name of the operator.
    pub(crate) operator: String,
    /// The key groups it owns.
    pub(crate) groups: Range<u32>,
    /// None until the first fold.
    pub(crate) base: Option<Base>,
    /// After the base's epoch, oldest first.
    pub(crate) deltas: Vec<Delta>,
}

impl StateSnapshot {
    /// All files this snapshot needs.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.base.iter().flat_map(|b| &b.files).chain(self.deltas.iter().map(|d| &d.file))
    }
}

/// The items of one subtask of an un-keyed operator. Subtasks without items have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ItemsSnapshot {
    /// The name of the operator.
    pub(crate) operator: String,
    /// Which subtask kept them.
    pub(crate) subtask: usize,
    /// How many subtasks the operator had.
    pub(crate) parallelism: usize,
    /// How an item is encoded; 1 is bincode 2, standard configuration.
    pub(crate) codec: u8,
    /// The schema version of the items.
    pub(crate) version: u32,
    /// The shape of an item.
    pub(crate) shape: ShapeRef,
    /// How many.
    pub(crate) items: u64,
    /// The file that holds them, in their order.
    pub(crate) file: FileRef,
}

/// How one operator's rows are to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperatorStates {
    /// The name of the operator.
    pub(crate) operator: String,
    /// The first two bytes of the keys of its rows.
    pub(crate) table: u16,
    /// The shape of its key.
    pub(crate) key: ShapeRef,
    /// Its states.
    pub(crate) states: Vec<StateSpec>,
}

/// One state: a field of the operator's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateSpec {
    /// The name of the field.
    pub(crate) name: String,
    /// What names it in the bytes of a row; never used for another state.
    pub(crate) id: u32,
    /// The first two bytes of the keys of its entries, if it has a table of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u16>,
    /// How its payload is encoded; 1 is bincode 2, standard configuration.
    pub(crate) codec: u8,
    /// The schema version its user gave it.
    pub(crate) version: u32,
    /// The shape of what it keeps.
    pub(crate) shape: ShapeRef,
}

/// The shape of a type, as far as serde shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShapeRef {
    /// For people.
    pub(crate) text: String,
    /// For the comparison, 16 hexadecimal digits.
    pub(crate) fingerprint: String,
}
