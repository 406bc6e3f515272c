//! Files as a source: one split per file, read line by line. `list.rs` finds the files, `lines.rs` cuts them into
//! lines, `offset.rs` says how a file is found again, `reset.rs` where it is set to by order, `reader.rs` reads all the
//! files of a subtask, `format.rs` and `csv.rs` make records of lines.

mod csv;
mod format;
mod lines;
mod list;
mod offset;
mod reader;
mod reset;

pub use csv::Csv;
pub use format::{Bytes, Decode, Json, Lines, Try};
pub use offset::FileOffset;
pub use reader::FileReader;

use crate::sources::rate::Rate;
use millstream_framework::{BoxError, Error, ErrorKind, ResetPlace, ResetTo, Skipped, Source, SourceContext};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

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
/// unnoticed. The command `offsets reset` makes the job go on with the file as it is, or without it.
///
/// # Lines that cannot be decoded
///
/// | written | what becomes of such a line |
/// |---|---|
/// | `.json::<T>()` | the error names source, file and byte and ends the attempt, hence, after some of them, the job |
/// | `.json::<T>().skip_undecodable()` | it is left out, counted and warned of: [`Skipped`] |
/// | `.try_json::<T>()`, then `.split()` | it is a record of a stream of its own, for a dead-letter file:
/// [`Undecodable`] |
/// | `.try_json::<T>()`, then `.or_skip()` or `.or_fail()` | as above, decided on the stream |
///
/// Every format has its `try_` twin.
///
/// [`Undecodable`]: crate::Undecodable
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
    /// have to be UTF-8; another one cannot be decoded. Costs one allocation per line.
    pub fn lines(self) -> FileSource<Lines> {
        self.decode(Lines)
    }

    /// The same; a line that is not UTF-8 is an `Err`.
    pub fn try_lines(self) -> FileSource<Try<Lines>> {
        self.try_decode(Lines)
    }

    /// Every line is its bytes, without its `\n` or `\r\n`, whatever they are. Costs one allocation per line.
    pub fn bytes(self) -> FileSource<Bytes> {
        self.decode(Bytes)
    }

    /// Every line is a JSON value of type `T`; blank lines are passed over.
    pub fn json<T: DeserializeOwned + Send + 'static>(self) -> FileSource<Json<T>> {
        self.decode(Json::new())
    }

    /// The same; a line that is no `T` is an `Err`.
    pub fn try_json<T: DeserializeOwned + Send + 'static>(self) -> FileSource<Try<Json<T>>> {
        self.try_decode(Json::new())
    }

    /// Every line is a `T` of comma-separated values, found by the names of the columns in the first line of its file;
    /// blank lines are passed over. Fields may be quoted with `"`, in which `""` is a quote, and end with their line: a
    /// line break within quotes is not read.
    pub fn csv<T: DeserializeOwned + Send + 'static>(self) -> FileSource<Csv<T>> {
        self.decode(Csv::new())
    }

    /// The same; a line that is no `T` is an `Err`.
    pub fn try_csv<T: DeserializeOwned + Send + 'static>(self) -> FileSource<Try<Csv<T>>> {
        self.try_decode(Csv::new())
    }

    /// Every line is what `format` makes of it.
    pub fn decode<F: Decode>(self, format: F) -> FileSource<F> {
        FileSource { path: self.path, format, rate: Rate::default(), skips: false }
    }

    /// The same; a line of which it makes nothing is an `Err`.
    pub fn try_decode<F: Decode>(self, format: F) -> FileSource<Try<F>> {
        self.decode(Try(format))
    }
}

/// A source of the lines of files. Made by the formats of [`ReadFiles`].
#[derive(Debug, Clone)]
pub struct FileSource<F> {
    path: PathBuf,
    format: F,
    rate: Rate,
    /// Whether lines that cannot be decoded are left out.
    skips: bool,
}

impl<F> FileSource<F> {
    /// At most so many lines per second in the whole job, handed out about every 10 ms; `None` for no limit. The
    /// subtasks that still have something to read share it evenly.
    #[must_use]
    pub fn rate(mut self, lines_per_second: impl Into<Option<u64>>) -> Self {
        self.rate.set(lines_per_second.into());
        self
    }

    /// Leaves lines out that cannot be decoded, instead of failing. They are counted in the metric
    /// `millstream_skipped_records_total` under the name of the source, and warned of at most once a minute.
    #[must_use]
    pub fn skip_undecodable(mut self) -> Self {
        self.skips = true;
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

    /// A number is a byte at which a line begins. Lines have no times. Reads what is read again or passed over, to
    /// count it.
    async fn reset(
        &self,
        splits: &[(String, FileOffset)],
        to: ResetTo,
    ) -> Result<Vec<ResetPlace<FileOffset>>, BoxError> {
        let places = splits.iter().map(|(split, from)| reset::place(Path::new(split), from, to));
        Ok(places.collect::<Result<_, _>>()?)
    }

    async fn open(&self, cx: &SourceContext) -> Result<FileReader<F>, BoxError> {
        let skipped = self.skips.then(|| Skipped::of(&*cx.job, &*cx.source));
        Ok(FileReader::new(self.format.clone(), skipped, self.rate.pacer(), cx.traffic.clone()))
    }
}

#[cfg(test)]
mod tests;
