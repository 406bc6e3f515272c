//! Files as a sink, exactly once: part files that become visible by a rename. `encode.rs` makes bytes of records,
//! `writer.rs` writes the part files of one subtask, `name.rs` says what they are called, `directory.rs` is all that
//! touches the directory.
//!
//! # How an epoch becomes visible
//!
//! 1. With its first record a hidden file is made, `.pending-<sink>-<part>-<subtask>-<attempt>`; an epoch without
//!    records makes none. It is buffered and written as it fills.
//! 2. `prepare(n)` writes the rest and fsyncs the file, then the directory, in which its name must not get lost. The
//!    committable is its name and the one it will have.
//! 3. The checkpoint is decided.
//! 4. `commit` renames it to `<sink>-<epoch>-<subtask>-<attempt>.<extension>` and fsyncs the directory. If there is no
//!    such pending file this was done before. A file that is there is never written over.
//!
//! After a crash `inspect` lists what there is, and makes it durable before anybody acts on it; `clean` removes the
//! pending files that no decided checkpoint claims. Everything else in the directory is left alone and not looked at.
//!
//! Encoding and writing to the page cache happen on the worker, like any other work of a sink; what waits for the disk
//! (fsync, with the renames between) happens on the blocking threads of the worker's runtime, so that 4 to 20 ms of
//! disk do not stop the other subtasks of the worker.

mod directory;
mod encode;
mod name;
mod writer;

pub use encode::{Encode, JsonLines, Text};
pub use writer::{PartFile, PartWriter};

use millstream_framework::{BoxError, Error, ErrorKind, Sink, SinkContext, Visible};
use std::path::PathBuf;

/// A directory to be written to; a format makes it a sink. Made by [`Files::write`](crate::Files::write).
///
/// Exactly once: what is visible is the output of decided checkpoints, and it grows with each. A visible file never
/// changes and never goes. The files of one subtask become visible in the order they were written, and within a file
/// records stand in the order they came.
///
/// A file is called `<sink>-<epoch, 10 digits>-<subtask, 4 digits>-<attempt>.<extension>`, so that sorting by name
/// sorts by epoch. Names that begin with a dot are not output. Two jobs must not write into one directory with sinks of
/// the same name.
///
/// The directory is made when the job starts. Files in it may be read, copied and, once they are visible, moved away;
/// a job that is restarted notices by the newest of them that its data directory is older than its output.
#[derive(Debug, Clone)]
#[must_use = "a format makes it a sink, as in `Files::write(directory).json()`"]
pub struct WriteFiles {
    path: PathBuf,
}

impl WriteFiles {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// One JSON value per line, of any `Serialize` type, in files that end with `.jsonl`.
    pub fn json(self) -> FileSink<JsonLines> {
        self.encode(JsonLines)
    }

    /// One line per `String`, in files that end with `.txt`. A newline within the text makes two lines.
    pub fn text(self) -> FileSink<Text> {
        self.encode(Text)
    }

    /// One line per record, as `format` writes it.
    pub fn encode<F>(self, format: F) -> FileSink<F> {
        FileSink { path: self.path, format }
    }
}

/// A sink of part files. Made by the formats of [`WriteFiles`].
#[derive(Debug, Clone)]
pub struct FileSink<F> {
    path: PathBuf,
    format: F,
}

impl<F> FileSink<F> {
    /// The directory, whatever becomes of the process's own.
    fn directory(&self, cx: &SinkContext) -> Result<PathBuf, Error> {
        if cx.sink.starts_with('.') {
            let text = format!(
                "the files of a sink named `{}` would be hidden: give it a name that does not begin with a dot",
                cx.sink
            );
            return Err(Error::new(ErrorKind::Usage, text));
        }
        std::path::absolute(&self.path).map_err(|error| Error::io(error, "write to", &self.path))
    }
}

// The text for a format that does not take the record is that of `Sink`, which names the sink and the record.
#[diagnostic::do_not_recommend]
impl<T: 'static, F: Encode<T>> Sink<T> for FileSink<F> {
    type Writer = PartWriter<F>;

    async fn open(&self, cx: &SinkContext) -> Result<PartWriter<F>, BoxError> {
        let directory = self.directory(cx)?;
        directory::make(&directory)?;
        Ok(PartWriter::new(directory, self.format.clone(), cx))
    }

    /// Each epoch is a file of its own.
    fn separates_epochs(&self) -> bool {
        true
    }

    async fn inspect(&self, cx: &SinkContext) -> Result<Visible, BoxError> {
        let (directory, sink) = (self.directory(cx)?, cx.sink.clone());
        writer::blocking(move || {
            directory::make(&directory)?;
            directory::sync(&directory)?;
            directory::list(&directory, &sink)
        })
        .await
    }

    async fn clean(&self, cx: &SinkContext, listed: Visible) -> Result<(), BoxError> {
        let (directory, sink) = (self.directory(cx)?, cx.sink.clone());
        writer::blocking(move || directory::remove(&directory, &sink, &listed.pending)).await
    }
}

#[cfg(test)]
mod tests;
