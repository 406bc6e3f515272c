//! Operator state: the items of un-keyed operators, in files that the manifest names. Keyed state is in all the others.
//!
//! A file holds the items of one subtask at one barrier, all of them, in their order, as bytes that `ItemsLayout::put`
//! makes. It is written whole, off the worker's thread, and synced; its name is made durable with the manifest. It is
//! not written at all if there are no items, or if they are what the last file of this attempt holds: then that one is
//! named again.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `MSITEMS` and a line feed |
//! | 8 | | items, each in the envelope of `codec.rs` |
//!
//! Length and checksum of the file and the number of items stand in the manifest, and what the items are: codec, schema
//! version and shape. Works without RocksDB.

use super::snapshot::{FileRef, ItemsSnapshot, ShapeRef};
use crate::codec::{self, BINCODE, CodecError};
use crate::disk::{self, File};
use crate::shape::shape_of;
use crate::{Attempt, Data, Epoch, Error, ErrorKind};
use std::io::Write;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

const MAGIC: &[u8; 8] = b"MSITEMS\n";
/// Names a field in a row; items have one.
const FIELD: u32 = 0;

/// What items are, as a manifest says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemsLayout {
    /// Of the schema, as the operator says it.
    version: u32,
    shape: ShapeRef,
}

impl ItemsLayout {
    pub(crate) fn of<T: Data>(version: u32) -> Self {
        Self { version, shape: shape_of::<T>().into() }
    }

    /// Whether the program can read these.
    ///
    /// # Errors
    /// A refusal that says why not.
    pub(crate) fn check(&self, found: &ItemsSnapshot) -> Result<(), Error> {
        let Self { version, shape } = self;
        let (operator, was, is) = (&found.operator, &found.shape.text, &shape.text);
        if found.version != *version {
            return Err(Error::refused(format!(
                "the items of `{operator}` have version {} in the checkpoint and {version} in the program, and there is no migration: use version {} again, or start with an empty --data-dir",
                found.version, found.version
            )));
        }
        if found.shape.fingerprint != shape.fingerprint {
            return Err(Error::refused(format!(
                "the items of `{operator}` were `{was}` in the checkpoint and are `{is}` in the program, under one version: restore the type, or start with an empty --data-dir"
            )));
        }
        if found.codec != BINCODE {
            return Err(Error::refused(format!(
                "the items of `{operator}` are encoded with codec {}, which this version of millstream does not know: use the version that wrote them",
                found.codec
            )));
        }
        Ok(())
    }

    /// All items, as they will be in a file.
    ///
    /// # Errors
    /// If serde cannot write one, or it is too large.
    pub(crate) fn put<T: Data>(&self, items: &[T]) -> Result<Items, CodecError> {
        let mut bytes = MAGIC.to_vec();
        items.iter().try_for_each(|item| codec::put_field(FIELD, self.version, item, &mut bytes))?;
        Ok(Items { hash: xxh3_128(&bytes), bytes, count: items.len() as u64 })
    }
}

/// The items of one subtask on their way to a file, of which this is the content.
#[derive(Debug)]
pub(crate) struct Items {
    bytes: Vec<u8>,
    count: u64,
    /// Of the content.
    pub(crate) hash: u128,
}

/// Whose items, and where they are kept.
#[derive(Debug, Clone)]
pub(crate) struct ItemsStore {
    /// The directory that paths of manifests are relative to.
    pub(crate) checkpoints: PathBuf,
    pub(crate) attempt: Attempt,
    pub(crate) operator: String,
    pub(crate) subtask: usize,
    pub(crate) parallelism: usize,
    pub(crate) layout: ItemsLayout,
    /// Of this operator in the restored checkpoint, by subtask.
    pub(crate) restore: Vec<ItemsSnapshot>,
}

impl ItemsStore {
    /// The items that are this subtask's: its own if the parallelism is the same, else every so many-th of all.
    ///
    /// # Errors
    /// If a file is not what its manifest says. It was verified before, so this is rare.
    pub(crate) fn load<T: Data>(&self) -> Result<Vec<T>, Error> {
        let mut mine = Vec::new();
        let mut at = 0;
        for found in &self.restore {
            if found.parallelism == self.parallelism && found.subtask != self.subtask {
                continue;
            }
            let path = self.checkpoints.join(&found.file.path);
            let bytes = disk::read(&path).map_err(|e| Error::io(e, "read", &path))?;
            let fields = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged(&path, "it does not begin like items"))?;
            let before = at;
            for field in codec::fields(fields) {
                if found.parallelism == self.parallelism || at % self.parallelism == self.subtask {
                    mine.push(field.and_then(|field| field.value()).map_err(|e| damaged(&path, e))?);
                }
                at += 1;
            }
            if (at - before) as u64 != found.items {
                return Err(damaged(&path, format!("it has {} items and not {}", at - before, found.items)));
            }
        }
        Ok(mine)
    }

    /// Writes a file and makes its content durable. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn write(&self, epoch: Epoch, items: &Items) -> Result<ItemsSnapshot, Error> {
        let name = format!("state/items-{epoch}-{}-{}-{}", self.attempt, self.operator, self.subtask);
        let path = self.checkpoints.join(&name);
        let mut file = File::create_new(&path).map_err(|e| Error::io(e, "make", &path))?;
        file.write_all(&items.bytes).map_err(|e| Error::io(e, "write", &path))?;
        file.sync_data().map_err(|e| Error::io(e, "sync", &path))?;
        let checksum = format!("{:032x}", items.hash);
        Ok(ItemsSnapshot {
            operator: self.operator.clone(),
            subtask: self.subtask,
            parallelism: self.parallelism,
            codec: BINCODE,
            version: self.layout.version,
            shape: self.layout.shape.clone(),
            items: items.count,
            file: FileRef { path: name, bytes: items.bytes.len() as u64, checksum },
        })
    }
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("{} is damaged: {why}", path.display()))
}
