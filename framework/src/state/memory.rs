//! What stands in for an instance of RocksDB in a simulation: sorted rows in memory, which it writes to the simulated
//! disk when a checkpoint of it is taken, and reads from there when it is opened.

use super::rocks::FILE_ENDING;
use super::store::lock;
use crate::disk::{self, File, simulated};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Mutex;

/// Key and row.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// A change of sorted rows.
pub(super) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// All keys from the first one up to the second one, of what was there before.
    DeleteRange(Vec<u8>, Vec<u8>),
}

#[derive(Default)]
pub(super) struct Rows(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Rows {
    /// Those of the file in the directory, if there is one.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut rows = BTreeMap::new();
        for name in disk::names(path)?.iter().filter(|name| name.ends_with(FILE_ENDING)) {
            let bytes = disk::read(&path.join(name))?;
            let mut rest = &bytes[..];
            while let Some((key, row)) = take(&mut rest) {
                rows.insert(key, row);
            }
        }
        Ok(Self(Mutex::new(rows)))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        lock(&self.0).get(key).cloned()
    }

    /// These come at once, the ranges first.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        let rows = &mut *lock(&self.0);
        for change in &changes {
            if let Change::DeleteRange(from, to) = change {
                rows.retain(|key, _| key < from || key >= to);
            }
        }
        for change in changes {
            match change {
                Change::Put(key, row) => _ = rows.insert(key, row),
                Change::Delete(key) => _ = rows.remove(&key),
                Change::DeleteRange(..) => {}
            }
        }
    }

    /// All there is now, before `to`.
    pub(super) fn before(&self, to: Option<&[u8]>) -> Vec<Row> {
        let rows = lock(&self.0);
        rows.iter()
            .take_while(|(key, _)| to.is_none_or(|to| key.as_slice() < to))
            .map(|(k, r)| (k.clone(), r.clone()))
            .collect()
    }

    /// Writes all of it into a new directory, and makes that durable.
    pub(super) fn checkpoint(&self, into: &Path) -> io::Result<()> {
        disk::create_dir_all(into)?;
        // a name is given once: what is known of a file is known by its name
        let number = simulated::current().map_or(0, |mount| mount.draw());
        let mut file = File::create_new(&into.join(format!("{number:016x}{FILE_ENDING}")))?;
        let mut bytes = Vec::new();
        for (key, row) in self.before(None) {
            bytes.extend((key.len() as u32).to_le_bytes());
            bytes.extend((row.len() as u32).to_le_bytes());
            bytes.extend(key);
            bytes.extend(row);
        }
        file.write_all(&bytes)?;
        file.sync_all()
    }
}

fn take(rest: &mut &[u8]) -> Option<Row> {
    let (key, after) = rest.split_first_chunk::<4>()?;
    let (row, after) = after.split_first_chunk::<4>()?;
    let (key, after) = after.split_at_checked(u32::from_le_bytes(*key) as usize)?;
    let (row, after) = after.split_at_checked(u32::from_le_bytes(*row) as usize)?;
    *rest = after;
    Some((key.to_vec(), row.to_vec()))
}
