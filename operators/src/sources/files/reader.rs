//! All the files of one subtask: a batch of each in turn, a few of them open at a time. How a file is cut into lines is
//! in `lines.rs`.

use super::format::Decode;
use super::lines::LineFile;
use super::offset::FileOffset;
use crate::sources::rate::Pacer;
use crate::sources::undecodable::Undecodable;
use millstream_framework::{BoxError, Error, Polled, Skipped, SourceReader, SplitBatch, Traffic};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// How many files are open at once, each with a buffer of 260 KiB; the others wait for one of them to end.
const OPEN_MAX: usize = 4;

/// After so many bytes a batch is full, however few lines that are.
const BATCH_BYTES: u64 = 64 * 1024;

/// The reader of [`FileSource`](super::FileSource). Reads are plain blocking ones, of at most a block each: files are
/// expected on a local disk or in the page cache.
#[derive(Debug)]
pub struct FileReader<F> {
    format: F,
    /// Counts what cannot be decoded, if that is to be left out.
    skipped: Option<Skipped>,
    files: Vec<Lane<F>>,
    /// Where a split is in `files`.
    index: BTreeMap<String, usize>,
    /// Those that are open, next one first.
    turns: VecDeque<usize>,
    /// Those that were not opened yet.
    waiting: VecDeque<usize>,
    /// Buffers of files that have ended.
    spare: Vec<Vec<u8>>,
    pacer: Pacer,
    traffic: Traffic,
}

#[derive(Debug)]
struct Lane<F> {
    split: String,
    at: At<F>,
}

#[derive(Debug)]
enum At<F> {
    Closed(FileOffset),
    Open(LineFile, F),
}

impl<F: Decode> FileReader<F> {
    pub(super) fn new(format: F, skipped: Option<Skipped>, pacer: Pacer, traffic: Traffic) -> Self {
        Self {
            format,
            skipped,
            files: Vec::new(),
            index: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: VecDeque::new(),
            spare: Vec::new(),
            pacer,
            traffic,
        }
    }

    /// Appends up to `room` records of the file whose turn it is, and says which, and whether it met its end.
    pub(super) fn read(
        &mut self,
        room: usize,
        into: &mut Vec<F::Record>,
    ) -> Result<(Polled, Option<(usize, bool)>), BoxError> {
        while self.turns.len() < OPEN_MAX
            && let Some(next) = self.waiting.pop_front()
        {
            self.open(next)?;
            self.turns.push_back(next);
        }
        let Some(turn) = self.turns.front().copied() else {
            self.pacer.stop();
            return Ok((Polled::Finished, None));
        };
        let granted = self.pacer.grant(room);
        if granted == 0 {
            return Ok((Polled::Later, None));
        }
        self.turns.rotate_left(1);
        let before = into.len();
        let ended = !self.read_file(turn, granted, into)?;
        if ended {
            self.turns.pop_back();
            self.close(turn);
        }
        self.pacer.spend(into.len() - before);
        Ok((Polled::More, Some((turn, ended))))
    }

    /// Appends up to `room` records of a file; false if it has been read to its end.
    fn read_file(&mut self, turn: usize, room: usize, into: &mut Vec<F::Record>) -> Result<bool, BoxError> {
        let Lane { split, at: At::Open(file, format) } = &mut self.files[turn] else { return Ok(false) };
        let (from, mut more) = (file.byte(), true);
        for _ in 0..room {
            let byte = file.byte();
            let Some(line) = file.next_line()? else {
                more = false;
                break;
            };
            match format.decode(line) {
                Ok(record) => into.extend(record),
                Err(error) => {
                    let bad = Undecodable::new(split, byte, &error, line);
                    match &self.skipped {
                        Some(skipped) => skipped.skip(&bad),
                        None => into.push(give_up(format, bad, error)?),
                    }
                }
            }
            if file.byte() >= from + BATCH_BYTES {
                break;
            }
        }
        self.traffic.add(file.byte() - from);
        Ok(more)
    }

    fn open(&mut self, turn: usize) -> Result<(), Error> {
        let lane = &mut self.files[turn];
        if let At::Closed(from) = &lane.at {
            let buffer = self.spare.pop().unwrap_or_default();
            let (path, mut format) = (Path::new(&lane.split), self.format.clone());
            let mut file = LineFile::open(path, from, buffer)?;
            if format.has_header() && from.byte == 0 {
                read_header(&mut format, &mut file)?;
            } else if format.has_header() {
                read_header(&mut format, &mut LineFile::open(path, &FileOffset::start(0), Vec::new())?)?;
            }
            lane.at = At::Open(file, format);
        }
        Ok(())
    }

    fn close(&mut self, turn: usize) {
        let at = &mut self.files[turn].at;
        if let At::Open(file, _) = at {
            let offset = file.offset();
            if let At::Open(file, _) = std::mem::replace(at, At::Closed(offset)) {
                self.spare.push(file.into_buffer());
            }
        }
    }

    /// Looks whether the file is the one that `from` was taken of; gives the offset to go on from.
    fn find_again(&mut self, split: &str, from: &FileOffset) -> Result<FileOffset, Error> {
        let file = LineFile::open(Path::new(split), from, self.spare.pop().unwrap_or_default())?;
        let offset = file.offset();
        self.spare.push(file.into_buffer());
        Ok(offset)
    }
}

impl<F: Decode> SourceReader for FileReader<F> {
    type Record = F::Record;
    type Split = String;
    type Offset = FileOffset;

    async fn assign(&mut self, split: String, from: Option<FileOffset>) -> Result<FileOffset, BoxError> {
        let offset = match from {
            Some(from) => self.find_again(&split, &from)?,
            None => {
                let path = Path::new(&split);
                let meta = std::fs::metadata(path).map_err(|error| Error::io(error, "look at", path))?;
                FileOffset::start(meta.len())
            }
        };
        self.index.insert(split.clone(), self.files.len());
        self.waiting.push_back(self.files.len());
        self.files.push(Lane { split, at: At::Closed(offset.clone()) });
        self.pacer.start();
        Ok(offset)
    }

    async fn ready(&mut self) {
        self.pacer.ready().await;
    }

    /// A file that has ended without a record gives a batch without any.
    fn poll(&mut self, out: &mut SplitBatch<F::Record, String>) -> Result<Polled, BoxError> {
        let room = out.room();
        let (polled, turn) = self.read(room, out.values())?;
        if let Some((turn, ended)) = turn {
            let split = &self.files[turn].split;
            out.of(split);
            if ended {
                out.finished(split);
            }
        }
        Ok(polled)
    }

    /// Of an open file it hashes 4 KiB.
    fn offset(&self, split: &String) -> Result<FileOffset, BoxError> {
        let lane = self.index.get(split).and_then(|index| self.files.get(*index));
        match lane.map(|lane| &lane.at) {
            Some(At::Closed(offset)) => Ok(offset.clone()),
            Some(At::Open(file, _)) => Ok(file.offset()),
            None => Err(format!("the file `{split}` was never assigned to this reader").into()),
        }
    }
}

/// Reads the first line of a file.
fn read_header<F: Decode>(format: &mut F, file: &mut LineFile) -> Result<(), Error> {
    let place = format!("the header of `{}`", file.path().display());
    match file.next_line()? {
        Some(line) => format.header(line).map_err(|error| Error::from_user(error, place)),
        None => Ok(()),
    }
}

/// The record that a format makes of a line that cannot be decoded, or the error that names its place.
#[cold]
fn give_up<F: Decode>(format: &mut F, bad: Undecodable, error: BoxError) -> Result<F::Record, BoxError> {
    format.undecodable(bad).map_err(|bad| match error.downcast::<Error>() {
        Ok(error) => error.at(bad.place()).into(),
        Err(_) => bad.into(),
    })
}

#[cfg(test)]
impl<F> FileReader<F> {
    /// Whether no more files are open, and no more buffers kept, than this file promises.
    pub(super) fn is_frugal(&self) -> bool {
        let open = self.files.iter().filter(|lane| matches!(lane.at, At::Open(..))).count();
        open <= OPEN_MAX && open + self.spare.len() <= OPEN_MAX
    }
}
