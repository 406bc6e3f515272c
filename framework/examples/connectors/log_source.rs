//! A source in full, for a client that says when there is something and hands it out without waiting: one
//! `SourceReader` per subtask reads all the splits the subtask was dealt. Here there is one split, a log that others
//! append to.

use millstream_framework::{BoxError, Error, Polled, Source, SourceContext, SourceReader, SplitBatch};
use tokio::sync::watch;

/// What was appended, and whether more will be.
#[derive(Default)]
struct Entries {
    values: Vec<u64>,
    closed: bool,
}

/// A log in memory. Clones are the same log.
#[derive(Clone, Default)]
pub(crate) struct Log(watch::Sender<Entries>);

impl Log {
    pub(crate) fn append(&self, value: u64) {
        self.0.send_modify(|log| log.values.push(value));
    }

    pub(crate) fn close(&self) {
        self.0.send_modify(|log| log.closed = true);
    }
}

impl Source for Log {
    type Reader = LogReader;

    async fn splits(&self, _known: &[String]) -> Result<Vec<String>, BoxError> {
        Ok(vec!["log".into()])
    }

    async fn open(&self, _: &SourceContext) -> Result<LogReader, BoxError> {
        Ok(LogReader { log: self.0.subscribe(), split: None, next: 0 })
    }
}

pub(crate) struct LogReader {
    log: watch::Receiver<Entries>,
    /// None in the subtasks that were not dealt the log.
    split: Option<String>,
    next: usize,
}

impl SourceReader for LogReader {
    type Record = u64;
    type Split = String;
    /// The index of the next entry.
    type Offset = usize;

    async fn assign(&mut self, split: String, from: Option<usize>) -> Result<usize, BoxError> {
        self.next = from.unwrap_or(0);
        let there = self.log.borrow().values.len();
        if self.next > there {
            let text = format!("{} entries of `{split}` were read, and it has {there}: put the others back", self.next);
            return Err(Error::refused(text).into());
        }
        self.split = Some(split);
        Ok(self.next)
    }

    /// Takes nothing, so nothing is lost when the runtime drops this future to send a barrier.
    async fn ready(&mut self) {
        let next = self.next;
        // an error says that nobody can append any more: `poll` finds that out
        drop(self.log.wait_for(|log| log.values.len() > next || log.closed).await);
    }

    fn poll(&mut self, out: &mut SplitBatch<u64, String>) -> Result<Polled, BoxError> {
        let Some(split) = &self.split else { return Ok(Polled::Finished) };
        let log = self.log.borrow();
        let new = log.values.get(self.next..).unwrap_or_default();
        let taken = new.len().min(out.room());
        out.of(split);
        out.values().extend_from_slice(&new[..taken]);
        self.next += taken;
        Ok(match (new.len() > taken, log.closed) {
            (true, _) => Polled::More,
            (false, true) => Polled::Finished,
            (false, false) => Polled::AtEnd,
        })
    }

    fn offset(&self, _split: &String) -> Result<usize, BoxError> {
        Ok(self.next)
    }
}
