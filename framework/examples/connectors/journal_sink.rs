//! A sink, exactly once: journals in a directory, one per subtask, to which each epoch is appended as one line. A
//! prepared epoch is a staged file: durable, and can be taken back. One step makes it visible and may be repeated: the
//! line bears the name of what it holds, so that it is not appended twice. Once the answer to a commit gets lost.

use millstream_framework::{Attempt, Batch, BoxError, Epoch, Sink, SinkContext, SinkWriter, Visible};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the answer to a commit was lost.
pub(crate) static LOST: AtomicBool = AtomicBool::new(false);

/// What one subtask wrote in one epoch, and all it takes to commit it. The attempt tells apart what two lives of a job
/// wrote under one number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part(Epoch, usize, Attempt);

/// A directory of journals and staged files.
#[derive(Clone)]
pub(crate) struct Journals(pub(crate) PathBuf);

impl Journals {
    fn staged(&self, Part(epoch, subtask, attempt): &Part) -> PathBuf {
        self.0.join(format!("staged-{epoch}-{subtask}-{attempt}"))
    }

    pub(crate) fn read(&self) -> Result<Vec<(Part, Vec<u64>)>, BoxError> {
        let parts = self.names("journal-")?.into_iter().map(|name| Ok(read(&self.0.join(name))?.0));
        Ok(parts.collect::<Result<Vec<_>, BoxError>>()?.concat())
    }

    fn names(&self, start: &str) -> Result<Vec<String>, BoxError> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.filter(|name| name.as_ref().map_or(true, |name| name.starts_with(start))).collect()
    }
}

/// The lines of a journal, and how long they are: a crash may have torn the last one.
fn read(path: &Path) -> Result<(Vec<(Part, Vec<u64>)>, u64), BoxError> {
    let mut text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
    text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
    let lines: Result<_, _> = text.lines().map(serde_json::from_str).collect();
    Ok((lines?, text.len() as u64))
}

fn remove(path: &Path) -> Result<(), BoxError> {
    if path.exists() { Ok(fs::remove_file(path)?) } else { Ok(()) }
}

impl Sink<u64> for Journals {
    type Writer = JournalWriter;

    async fn open(&self, cx: &SinkContext) -> Result<JournalWriter, BoxError> {
        Ok(JournalWriter { to: self.clone(), subtask: cx.subtask, attempt: cx.attempt, rows: Vec::new() })
    }

    fn separates_epochs(&self) -> bool {
        true // what is written after `prepare` goes to another staged file
    }

    async fn inspect(&self, _: &SinkContext) -> Result<Visible, BoxError> {
        File::open(&self.0)?.sync_all()?;
        let parts: Vec<Part> = self.read()?.into_iter().map(|(part, _)| part).collect();
        let newest = parts.iter().map(|Part(epoch, ..)| *epoch).max();
        let attempts = |n: Epoch| parts.iter().filter(|part| part.0 == n).map(|part| part.2).collect();
        Ok(Visible { newest: newest.map(|n| (n, attempts(n))), pending: self.names("staged-")? })
    }

    async fn clean(&self, _: &SinkContext, listed: Visible) -> Result<(), BoxError> {
        // those of the restored checkpoint are among them, and have been committed and removed since
        listed.pending.iter().try_for_each(|name| remove(&self.0.join(name)))
    }
}

pub(crate) struct JournalWriter {
    to: Journals,
    subtask: usize,
    attempt: Attempt,
    rows: Vec<u64>,
}

impl SinkWriter<u64> for JournalWriter {
    type Committable = Part;

    async fn write(&mut self, mut batch: Batch<u64>) -> Result<(), BoxError> {
        self.rows.append(&mut batch.values);
        Ok(())
    }

    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<Part>, BoxError> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let part = Part(epoch, self.subtask, self.attempt);
        fs::write(self.to.staged(&part), serde_json::to_string(&(&part, std::mem::take(&mut self.rows)))? + "\n")?;
        File::open(self.to.staged(&part))?.sync_all()?;
        File::open(&self.to.0)?.sync_all()?; // so that its name lasts
        Ok(Some(part))
    }

    async fn commit(&mut self, part: Part) -> Result<(), BoxError> {
        let path = self.to.0.join(format!("journal-{}", part.1)); // of who wrote it, whoever commits it
        let (lines, whole) = read(&path)?;
        if !lines.iter().any(|(there, _)| *there == part) {
            let line = fs::read(self.to.staged(&part))?;
            let mut journal = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            journal.set_len(whole)?;
            journal.seek(SeekFrom::End(0))?;
            journal.write_all(&line)?;
            journal.sync_all()?;
            File::open(&self.to.0)?.sync_all()?;
        }
        if !LOST.swap(true, Ordering::Relaxed) {
            return Err("the answer is lost".into());
        }
        remove(&self.to.staged(&part))
    }
}
