//! A sink whose files become visible by a rename, on the disk of the machine: what a sink of files is at its core.

use super::output::Row;
use crate::disk::{self, File, simulated};
use crate::mutant::broken;
use crate::operator::{Sink, SinkContext, SinkWriter, Visible};
use crate::{Attempt, Batch, BoxError, Epoch, Error};
use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Where they are.
pub(super) const OUT: &str = "/out";

/// `pending-<epoch>-<attempt>-<subtask>` becomes `part-...`.
pub(super) struct Parts;

fn names() -> io::Result<Vec<String>> {
    if disk::is_dir(Path::new(OUT)) { disk::names(Path::new(OUT)) } else { Ok(Vec::new()) }
}

fn sync() -> io::Result<()> {
    disk::sync_dir(Path::new(OUT))
}

fn path(name: &str) -> PathBuf {
    Path::new(OUT).join(name)
}

/// Epoch and attempt of a part.
fn parse(name: &str) -> Option<(Epoch, Attempt)> {
    let (epoch, rest) = name.strip_prefix("part-")?.split_once('-')?;
    Some((epoch.parse().ok()?, Attempt::parse(rest.rsplit_once('-')?.0)?))
}

impl Sink<Row> for Parts {
    type Writer = PartsWriter;

    async fn open(&self, cx: &SinkContext) -> Result<PartsWriter, BoxError> {
        if !disk::is_dir(Path::new(OUT)) {
            match disk::create_dir(Path::new(OUT)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            disk::sync_dir(Path::new("/"))?;
        }
        Ok(PartsWriter { attempt: cx.attempt, subtask: cx.subtask, rows: Vec::new() })
    }

    async fn inspect(&self, _: &SinkContext) -> Result<Visible, BoxError> {
        if disk::is_dir(Path::new(OUT)) {
            sync()?;
        }
        let names = names()?;
        let newest = names.iter().filter_map(|name| parse(name)).map(|(epoch, _)| epoch).max();
        let attempts = |epoch| names.iter().filter_map(|name| parse(name)).filter(move |part| part.0 == epoch);
        let newest = newest.map(|epoch| (epoch, attempts(epoch).map(|(_, attempt)| attempt).collect::<BTreeSet<_>>()));
        let pending = names.iter().filter(|name| name.starts_with("pending-")).cloned().collect();
        Ok(Visible { newest: newest.filter(|_| !broken("H13")), pending })
    }

    async fn clean(&self, _: &SinkContext, listed: Visible) -> Result<(), BoxError> {
        for name in listed.pending {
            match disk::remove_file(&path(&name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }
}

pub(super) struct PartsWriter {
    attempt: Attempt,
    subtask: usize,
    rows: Vec<Row>,
}

impl SinkWriter<Row> for PartsWriter {
    /// Of the part.
    type Committable = String;

    async fn write(&mut self, batch: Batch<Row>) -> Result<(), BoxError> {
        self.rows.extend(batch.values);
        Ok(())
    }

    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<String>, BoxError> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let name = format!("{epoch}-{}-{}", self.attempt, self.subtask);
        let mut file = File::create_new(&path(&format!("pending-{name}")))?;
        let bytes: Vec<u8> = self.rows.drain(..).flat_map(|(split, n)| [split as u8, n as u8]).collect();
        file.write_all(&bytes)?;
        file.sync_data()?;
        sync()?;
        if broken("M10") {
            disk::rename(&path(&format!("pending-{name}")), &path(&format!("part-{name}")))?;
        }
        Ok(Some(name))
    }

    async fn commit(&mut self, name: String) -> Result<(), BoxError> {
        match disk::rename(&path(&format!("pending-{name}")), &path(&format!("part-{name}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !names()?.contains(&format!("part-{name}")) {
                    return Err(Error::refused(format!("{name} is gone")).into());
                }
            }
            renamed => renamed?,
        }
        if !broken("H3") {
            sync()?;
        }
        Ok(())
    }
}

/// The rows in all parts, as they would be read, in the order of epochs.
pub(super) fn read(disk: &simulated::Disk) -> Vec<Row> {
    let mut parts: Vec<_> = disk
        .files()
        .into_iter()
        .filter_map(|path| {
            let name = path.strip_prefix(OUT).ok()?.to_str()?.to_owned();
            Some((parse(&name)?.0, path))
        })
        .collect();
    parts.sort();
    parts
        .into_iter()
        .flat_map(|(_, path)| disk.content(&path))
        .collect::<Vec<u8>>()
        .chunks_exact(2)
        .map(|row| (u32::from(row[0]), u64::from(row[1])))
        .collect()
}
