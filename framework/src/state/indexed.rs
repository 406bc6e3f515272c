//! Restored deltas where they are: of each key the newest row, or where in the delta's file that is if it is longer. So
//! a restore reads the deltas, which it must in order to verify them, and writes nothing.
//!
//! The files are those of the checkpoint. They stay as long as a snapshot of this attempt may name them, and that is
//! until a fold has brought their rows to base, before which this goes (`fold.rs`, steps 4 to 6). A row that is read
//! from a file is compared with the checksum it had when its piece was verified.
//!
//! Cost: of a restore, some 0.2 us per row and what hashing its bytes takes; 32 bytes of memory beside the key, and the
//! row or 32 bytes more. Of a read in a file, a call of the system, and another one per file that a batch of reads
//! meets.

use super::backend::Keys;
use super::delta::damaged;
use super::room::{Room, Share};
use super::sorted::Sorted;
use super::spill;
use crate::disk::File;
use crate::{Epoch, Error};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Rows of up to so many bytes are kept here.
const SHORT: usize = 64;
/// Memory is taken in steps of this, which is more than an entry takes but for keys that are as long.
const STEP: usize = 64 << 10;
/// The first byte of a value says where the row is.
const HERE: u8 = 0;
const IN_FILE: u8 = 1;

/// See the module.
pub(super) struct Indexed {
    files: Vec<PathBuf>,
    rows: Sorted,
    share: Share,
    taken: usize,
    /// So many bytes are kept whether there is room or not.
    anyway: usize,
}

/// Where a row is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: u32,
    at: u64,
    length: u32,
    sum: u64,
}

/// What is known of a key.
enum Found<'a> {
    /// Epoch and row, as in any other place of the spill.
    Value(&'a [u8]),
    InFile(&'a [u8], Place),
}

impl Place {
    const BYTES: usize = 24;

    fn bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.file.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.at.to_le_bytes());
        bytes[16..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (file, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let sum = u64::from_le_bytes(*rest.first_chunk()?);
        Some(Self {
            file: u32::from_le_bytes(*file),
            at: u64::from_le_bytes(*at),
            length: u32::from_le_bytes(*length),
            sum,
        })
    }
}

fn found(value: &[u8]) -> Option<Found<'_>> {
    let (kind, value) = value.split_first()?;
    if *kind == HERE {
        return Some(Found::Value(value));
    }
    let (head, place) = value.split_at_checked(value.len().checked_sub(Place::BYTES)?)?;
    Some(Found::InFile(head, Place::of(place)?))
}

impl Indexed {
    /// Nothing yet; memory is taken from `room`, of which half is left to others.
    pub(super) fn new(room: &Arc<Room>, anyway: usize) -> Self {
        Self { files: Vec::new(), rows: Sorted::default(), share: Share::new(room), taken: 0, anyway }
    }

    /// The rows that are pushed from now on are in this file.
    pub(super) fn begin(&mut self, file: PathBuf) {
        self.files.push(file);
    }

    /// Adds a row of the current file, newer than those before, and where in the file it is. False if there is no room.
    pub(super) fn push(&mut self, key: &[u8], epoch: Epoch, row: &[u8], at: u64) -> bool {
        let mut head = [0; 9];
        head[1..].copy_from_slice(&spill::head(epoch));
        if row.len() <= SHORT {
            head[0] = HERE;
            self.rows.push(key, &head, row);
        } else {
            head[0] = IN_FILE;
            let (file, length) = ((self.files.len() - 1) as u32, row.len() as u32);
            self.rows.push(key, &head, &Place { file, at, length, sum: xxh3_64(row) }.bytes());
        }
        let lacks = self.rows.bytes() > self.taken.max(self.anyway);
        if lacks && self.share.take_of_half(STEP) {
            self.taken += STEP;
            return true;
        }
        !lacks
    }

    /// All have been pushed.
    pub(super) fn finish(&mut self) {
        self.share.take_anyway(self.rows.bytes().saturating_sub(self.taken));
        self.rows.sort();
    }

    /// Looks up the keys at the indexes `wanted`. `hit` is shown what is found, epoch and row.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged; what `hit` returns.
    pub(super) fn get_many(
        &self,
        keys: &Keys,
        wanted: &[usize],
        mut hit: impl FnMut(usize, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut in_files = Vec::new();
        for index in wanted {
            match self.rows.get(keys.get(*index)).and_then(found) {
                Some(Found::Value(value)) => _ = hit(*index, value)?,
                Some(Found::InFile(head, place)) => in_files.push((place, head, *index)),
                None => {}
            }
        }
        // each file is opened once, and read from front to back
        in_files.sort_unstable();
        let mut reader = Reader::new(&self.files);
        in_files.into_iter().try_for_each(|(place, head, index)| hit(index, reader.read(head, place)?).map(drop))
    }

    /// The rows from a key on, in order.
    pub(super) fn from(&self, key: &[u8]) -> Ordered<'_> {
        let mut ordered = Ordered {
            rows: &self.rows,
            at: self.rows.first_from(key),
            reader: Reader::new(&self.files),
            failure: None,
        };
        ordered.load();
        ordered
    }
}

/// Rows in order.
pub(super) struct Ordered<'a> {
    rows: &'a Sorted,
    at: usize,
    reader: Reader<'a>,
    /// Why there are no more.
    failure: Option<Error>,
}

impl Ordered<'_> {
    /// Key and value of the one at hand.
    pub(super) fn item(&self) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.rows.at(self.at).filter(|_| self.failure.is_none())?;
        Some(match found(value)? {
            Found::Value(value) => (key, value),
            Found::InFile(..) => (key, &self.reader.value),
        })
    }

    /// Goes on to the next one.
    pub(super) fn advance(&mut self) {
        self.at += 1;
        self.load();
    }

    fn load(&mut self) {
        if let Some((_, value)) = self.rows.at(self.at)
            && let Some(Found::InFile(head, place)) = found(value)
        {
            self.failure = self.reader.read(head, place).err();
        }
    }

    /// # Errors
    /// When a file could not be read or is damaged.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}

/// Reads rows in files, of which it keeps the last one open.
struct Reader<'a> {
    files: &'a [PathBuf],
    open: Option<(u32, File)>,
    value: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(files: &'a [PathBuf]) -> Self {
        Self { files, open: None, value: Vec::new() }
    }

    /// `head` and the row.
    fn read(&mut self, head: &[u8], place: Place) -> Result<&[u8], Error> {
        let path = &self.files[place.file as usize];
        let unreadable = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => damaged(path, "it is missing"),
            io::ErrorKind::UnexpectedEof => damaged(path, "it ends early"),
            _ => Error::io(e, "read", path),
        };
        if self.open.as_ref().is_none_or(|(number, _)| *number != place.file) {
            self.open = Some((place.file, File::open(path).map_err(unreadable)?));
        }
        let Self { open: Some((_, file)), value, .. } = self else { return Ok(&[]) };
        value.clear();
        value.extend(head);
        value.resize(head.len() + place.length as usize, 0);
        let row = &mut value[head.len()..];
        file.read_exact_at(row, place.at).map_err(unreadable)?;
        if xxh3_64(row) != place.sum {
            return Err(damaged(path, "a row is not what it was when it was restored"));
        }
        Ok(value)
    }
}
