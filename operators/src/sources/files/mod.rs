//! Files as a source: one split per file, read line by line. `list.rs` finds the files, `lines.rs` cuts them into
//! lines, `offset.rs` says how a file is found again, `reader.rs` reads all the files of a subtask, `format.rs` makes
//! records of lines.

mod format;
mod lines;
mod list;
mod offset;
mod reader;

pub use format::{Decode, Json, Lines};
pub use offset::FileOffset;
pub use reader::FileReader;

use crate::sources::rate::Rate;
use millstream_framework::{BoxError, Error, ErrorKind, Source, SourceContext};
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// Files to be read; a format makes it a source. Made by [`Files::read`](crate::Files::read).
///
/// The path is one of:
///
/// * a file;
/// * a directory: its regular files, without hidden ones (whose names begin with `.`) and those of directories below;
/// * a pattern with `*`, `?`, `[..]` or `**`, if nothing bears that very name: the regular files that it matches; a `*`
///   at the start of a name does not match a dot.
///
/// The name of a split is the absolute path of its file, with the links of its directory resolved. It has to be UTF-8.
/// Files are listed when the job starts; each is read until its end is met, and the source ends with the last of them.
///
/// # Running again
///
/// A checkpoint keeps for each file how far it was read, its length, and a hash of up to 4 KiB before that place. The
/// next run reads on from there. Files may grow by whole lines, and new ones may come; all else is refused, with exit
/// code 78, because it could lose or double records: a file that is missing, that has become shorter, whose bytes
/// before that place have changed, or whose last line had no newline and has been continued. A change further back goes
/// unnoticed.
#[derive(Debug, Clone)]
#[must_use = "a format makes it a source, as in `Files::read(path).lines()`"]
pub struct ReadFiles {
    path: PathBuf,
}

impl ReadFiles {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Every line is a `String`, without its `\n` or `\r\n`; empty lines too, and a last line without a newline. Lines
    /// have to be UTF-8; another one is an error. Costs one allocation per line.
    pub fn lines(self) -> FileSource<Lines> {
        self.decode(Lines)
    }

    /// Every line is a JSON value of type `T`; blank lines are passed over. A line that is none is an error.
    pub fn json<T: DeserializeOwned + Send + 'static>(self) -> FileSource<Json<T>> {
        self.decode(Json::new())
    }

    /// Every line is what `format` makes of it.
    pub fn decode<F: Decode>(self, format: F) -> FileSource<F> {
        FileSource { path: self.path, format, rate: Rate::default() }
    }
}

/// A source of the lines of files. Made by the formats of [`ReadFiles`].
#[derive(Debug, Clone)]
pub struct FileSource<F> {
    path: PathBuf,
    format: F,
    rate: Rate,
}

impl<F> FileSource<F> {
    /// At most so many lines per second in the whole job, handed out about every 10 ms; `None` for no limit. The
    /// subtasks that still have something to read share it evenly.
    #[must_use]
    pub fn rate(mut self, lines_per_second: impl Into<Option<u64>>) -> Self {
        self.rate.set(lines_per_second.into());
        self
    }
}

#[diagnostic::do_not_recommend]
impl<F: Decode> Source for FileSource<F> {
    type Reader = FileReader<F>;

    /// With known files it is no mistake that there are none now: the reader says which are missing.
    async fn splits(&self, known: &[String]) -> Result<Vec<String>, BoxError> {
        self.rate.check()?;
        let files = list::list(&self.path)?;
        if files.is_empty() && known.is_empty() {
            let path = self.path.display();
            let text = format!(
                "there is nothing to read at `{path}`: name a file, a directory with files in it, \
                 or a pattern that matches some, such as `logs/*.txt`"
            );
            return Err(Error::new(ErrorKind::Usage, text).into());
        }
        Ok(files)
    }

    async fn open(&self, _: &SourceContext) -> Result<FileReader<F>, BoxError> {
        Ok(FileReader::new(self.format.clone(), self.rate.pacer()))
    }
}

#[cfg(test)]
mod tests;
