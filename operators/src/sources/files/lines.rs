//! One open file, cut into lines. Which file is read when is in `reader.rs`.
//!
//! The buffer always holds the up to [`HISTORY`] bytes before the next line, so that the hash in an offset is of what
//! was read, and not of what the file holds by then:
//!
//! ```text
//! | history | lines handed out | next line .. | free |
//!                              ^ start        ^ end     scanned: up to here there is no newline after start
//! ```

use super::offset::{FileOffset, HISTORY, refuse};
use millstream_framework::{Error, ErrorKind};
use std::fs::File;
use std::io::{BufRead, ErrorKind::Interrupted, ErrorKind::NotFound, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// How much is asked of the file system at once.
const BLOCK: usize = 256 * 1024;

/// The longest line, so that a file without newlines does not fill the memory.
const LINE_MAX: usize = 64 * 1024 * 1024;

/// A file at a position between two lines.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
    end: usize,
    /// Where `start` is in the file.
    byte: u64,
    /// The longest the file has been.
    length: u64,
    at_end: bool,
    unterminated: bool,
    line_max: usize,
}

impl LineFile {
    /// Opens the file at `from`, with a buffer that another one gave back, or an empty one.
    ///
    /// # Errors
    /// A refusal if it is not the file that `from` was taken of.
    pub(super) fn open(path: &Path, from: &FileOffset, mut buffer: Vec<u8>) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| match error.kind() {
            NotFound => refuse(path, "it is missing"),
            _ => Error::io(error, "open", path),
        })?;
        let length = file.metadata().map_err(|error| Error::io(error, "look at", path))?.len();
        buffer.resize(HISTORY + BLOCK, 0);
        let mut this = Self {
            path: path.to_owned(),
            file,
            buffer,
            start: 0,
            scanned: 0,
            end: 0,
            byte: from.byte,
            length,
            at_end: false,
            unterminated: from.unterminated,
            line_max: LINE_MAX,
        };
        this.verify(from)?;
        if this.unterminated && length > this.byte {
            this.fill()?;
            this.pass_newline()?;
        }
        Ok(this)
    }

    /// Whether the file is the one `from` was taken of, as far as it was read; loads the history.
    fn verify(&mut self, from: &FileOffset) -> Result<(), Error> {
        let before = from.length.max(from.byte);
        if self.length < before {
            return Err(refuse(&self.path, &shorter(self.length, before)));
        }
        let history = HISTORY.min(usize::try_from(from.byte).unwrap_or(HISTORY));
        self.file
            .seek(SeekFrom::Start(from.byte - history as u64))
            .and_then(|_| self.file.read_exact(&mut self.buffer[..history]))
            .map_err(|error| Error::io(error, "read", &self.path))?;
        (self.start, self.scanned, self.end) = (history, history, history);
        if self.hash() != from.hash {
            let found = format!("the {history} bytes before byte {} have changed", from.byte);
            return Err(refuse(&self.path, &found));
        }
        Ok(())
    }

    /// The next line without its `\n` or `\r\n`; none at the end of the file. What follows the last newline is a line
    /// too, if it is not empty.
    ///
    /// # Errors
    /// When the file cannot be read, when a line is too long, and a refusal when the file is not what it was.
    #[inline]
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>, Error> {
        loop {
            if let Some(newline) = find_newline(&self.buffer[self.scanned..self.end]) {
                let from = self.start;
                let to = self.scanned + newline;
                self.pass(to + 1 - from);
                return Ok(Some(without_return(&self.buffer[from..to])));
            }
            self.scanned = self.end;
            if self.at_end {
                return Ok(self.last_line());
            }
            if self.end - self.start > self.line_max {
                return Err(self.too_long());
            }
            self.fill()?;
            self.pass_newline()?;
        }
    }

    /// What is left at the end of the file.
    fn last_line(&mut self) -> Option<&[u8]> {
        let from = self.start;
        if from == self.end {
            return None;
        }
        self.unterminated = true;
        self.pass(self.end - from);
        Some(without_return(&self.buffer[from..self.end]))
    }

    /// Where the next line begins, in bytes from the start of the file.
    #[inline(always)]
    pub(super) fn byte(&self) -> u64 {
        self.byte
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Of the next line.
    pub(super) fn offset(&self) -> FileOffset {
        let Self { byte, length, unterminated, .. } = *self;
        FileOffset { byte, length, hash: self.hash(), unterminated }
    }

    /// Closes the file, and gives the buffer to the next one, without what a very long line made of it.
    pub(super) fn into_buffer(mut self) -> Vec<u8> {
        self.buffer.truncate(HISTORY + BLOCK);
        self.buffer.shrink_to(HISTORY + BLOCK);
        self.buffer
    }

    fn hash(&self) -> u64 {
        xxh3_64(&self.buffer[self.start.saturating_sub(HISTORY)..self.start])
    }

    #[inline(always)]
    fn pass(&mut self, bytes: usize) {
        self.start += bytes;
        self.scanned = self.start;
        self.byte += bytes as u64;
    }

    /// Reads the next block behind what there is, or notices the end.
    fn fill(&mut self) -> Result<(), Error> {
        let keep = self.start.saturating_sub(HISTORY);
        self.buffer.copy_within(keep..self.end, 0);
        (self.start, self.scanned, self.end) = (self.start - keep, self.scanned - keep, self.end - keep);
        if self.buffer.len() - self.end < BLOCK / 4 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let read = loop {
            match self.file.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == Interrupted => {}
                Err(error) => return Err(Error::io(error, "read", &self.path)),
                Ok(read) => break read,
            }
        };
        self.end += read;
        let known = self.byte + (self.end - self.start) as u64;
        if read == 0 && known < self.length {
            return Err(refuse(&self.path, &shorter(known, self.length)));
        }
        self.at_end = read == 0;
        self.length = self.length.max(known);
        Ok(())
    }

    /// After a last line without a newline only a newline may follow: it belongs to that line.
    fn pass_newline(&mut self) -> Result<(), Error> {
        let next = &self.buffer[self.start..self.end];
        if !self.unterminated || next.is_empty() {
            return Ok(());
        }
        let returned = self.start > 0 && self.buffer[self.start - 1] == b'\r';
        let newline = match next {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] if !returned => 2,
            _ => {
                let found = format!("its last line had no newline at byte {}, and has been continued since", self.byte);
                return Err(refuse(&self.path, &found));
            }
        };
        self.unterminated = false;
        self.pass(newline);
        Ok(())
    }

    #[cold]
    fn too_long(&self) -> Error {
        let (path, byte, max) = (self.path.display(), self.byte, self.line_max);
        Error::new(
            ErrorKind::Failed,
            format!(
                "`{path}`: the line at byte {byte} is longer than {max} bytes: \
                 split it, or take the file out of the input"
            ),
        )
    }
}

fn shorter(is: u64, was: u64) -> String {
    format!("it has {is} bytes, and had {was}")
}

/// Where the first newline is. `skip_until` is the way to the `memchr` of the standard library.
#[inline(always)]
fn find_newline(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let passed = rest.skip_until(b'\n').ok()?;
    passed.checked_sub(1).filter(|last| bytes[*last] == b'\n')
}

/// Without the `\r` of a `\r\n`. That of a last line without a newline goes too, since the newline may come later.
#[inline(always)]
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Bound, any_bytes, bounded, cases};
    use proptest::prelude::*;

    #[test]
    fn a_line_without_an_end_is_an_error_and_does_not_fill_the_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        std::fs::write(&path, "short\n".to_owned() + &"x".repeat(4_000_000)).unwrap();
        let mut file = LineFile::open(&path, &FileOffset::start(0), Vec::new()).unwrap();
        file.line_max = 1_000_000;
        assert_eq!(file.next_line().unwrap(), Some(&b"short"[..]));
        let error = file.next_line().unwrap_err().to_string();
        assert!(error.contains("a.txt`: the line at byte 6 is longer than 1000000 bytes"), "{error}");
        assert!(file.buffer.len() < 3_000_000);
        assert!(file.into_buffer().capacity() <= HISTORY + BLOCK);
    }

    #[test]
    fn a_last_line_may_get_its_newline_after_the_file_was_opened_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        for (then, read) in [("a", Some(None)), ("a\nb", Some(Some(&b"b"[..]))), ("ab", None)] {
            std::fs::write(&path, "a").unwrap();
            let from = FileOffset { byte: 1, length: 1, hash: xxh3_64(b"a"), unterminated: true };
            let mut file = LineFile::open(&path, &from, Vec::new()).unwrap();
            std::fs::write(&path, then).unwrap();
            assert_eq!(file.next_line().ok(), read, "{then}");
        }
    }

    #[test]
    fn finds_the_first_newline() {
        assert_eq!(find_newline(b""), None);
        assert_eq!(find_newline(b"abc"), None);
        assert_eq!(find_newline(b"\na\n"), Some(0));
        assert_eq!(find_newline(b"ab\n"), Some(2));
    }

    /// A buffer of some 260 KiB, which doubles for long lines, and the texts of errors.
    const FILE: Bound = Bound { per_byte: 64, more: 1 << 20 };

    proptest! {
        #![proptest_config(cases(300))]

        /// Every byte is in a line, in order, and an offset goes on where the file was left.
        #[test]
        fn any_file_is_taken(bytes in any_bytes(), lines in 0usize..9) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.txt");
            std::fs::write(&path, &bytes).unwrap();
            let read = |from: &FileOffset, most: usize| {
                let mut file = LineFile::open(&path, from, Vec::new()).unwrap();
                let mut all = Vec::new();
                while all.len() < most && let Some(line) = file.next_line().unwrap() {
                    all.push(line.to_vec());
                }
                (all, file.offset())
            };
            let start = FileOffset::start(0);
            let (all, end) = bounded(bytes.len(), FILE, || read(&start, usize::MAX))?;
            prop_assert_eq!(end.byte, bytes.len() as u64);
            let parts = bytes.split(|byte| *byte == b'\n');
            let mut expect: Vec<_> = parts.map(|line| without_return(line).to_vec()).collect();
            if bytes.last().is_none_or(|last| *last == b'\n') {
                expect.pop();
            }
            prop_assert_eq!(&all, &expect);
            let (mut first, at) = read(&start, lines);
            let (rest, _) = read(&at, usize::MAX);
            first.extend(rest);
            prop_assert_eq!(first, all);
        }

        /// An offset that was not taken of this file is refused, or is one that could have been.
        #[test]
        fn any_offset_is_taken(
            bytes in any_bytes(), byte in prop_oneof![0..200u64, any::<u64>()],
            more in prop_oneof![-2..3i64, any::<i64>()], hash: u64, is_known: bool, unterminated: bool,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.txt");
            std::fs::write(&path, &bytes).unwrap();
            let length = (bytes.len() as u64).wrapping_add_signed(more);
            let known = bytes.get(..usize::try_from(byte).unwrap_or(usize::MAX)).map(xxh3_64).filter(|_| is_known);
            let from = FileOffset { byte, length, hash: known.unwrap_or(hash), unterminated };
            match bounded(bytes.len(), FILE, || LineFile::open(&path, &from, Vec::new()))? {
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Refused),
                Ok(mut file) => {
                    prop_assert!(known.is_some() && length <= bytes.len() as u64);
                    bounded(bytes.len(), FILE, || while file.next_line().unwrap().is_some() {})?;
                }
            }
        }
    }
}
