//! The delta file: the rows that one epoch changed in one subtask. What its bytes are, how entries get into a piece,
//! and how a file is read back. The thread that writes the files is in `writer.rs`, what becomes of them in `fold.rs`.
//!
//! The format, version 1. Integers are little-endian; a varint has 7 bits per byte, lowest first, the top bit saying
//! that more follow. The file is a header, then pieces up to its end; its length and the number of its entries stand in
//! the manifest.
//!
//! | header: offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `MSDELTA` and a line feed |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | subtask |
//! | 16 | 8 | epoch |
//! | 24 | 4 | length L of the operator's name |
//! | 28 | L | the operator's name, UTF-8 |
//! | 28 + L | 8 | XXH3-64 of all bytes before |
//!
//! | piece: offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | length N of the entries |
//! | 4 | 8 | XXH3-64 of the entries |
//! | 12 | N | entries |
//!
//! An entry is `[length of key: varint][key][length of row: varint][row]`; a row of length 0 says that the row is gone.
//! Of several entries of one key the last one counts. An epoch that changed nothing has no file.

use super::snapshot::Delta;
use crate::disk::File;
use crate::{Epoch, Error, ErrorKind};
use std::io::{BufReader, Read};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// A piece is sent off when it has grown to this; large enough that a hand-over costs nothing per row, small enough
/// that a subtask with two open deltas holds half a MiB.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// The longest key or row: with two of them a piece still has a length of 32 bits.
const FIELD_BYTES_MAX: usize = 1 << 30;
const MAGIC: &[u8; 8] = b"MSDELTA\n";
const VERSION: u32 = 1;
const FRAME_BYTES: usize = 12;

/// The first bytes of a file.
pub(super) fn header(epoch: Epoch, operator: &str, subtask: usize) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(u32::try_from(subtask).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(u32::try_from(operator.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(operator.as_bytes());
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// Entries on their way into a file, with room for the frame in front.
#[derive(Debug, Default)]
pub(super) struct Piece(Vec<u8>);

impl Piece {
    /// An empty piece in a buffer that was used before.
    pub(super) fn reuse(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self(buffer)
    }

    /// Appends an entry; the closures append key and row to the buffer and must not touch what stands there. About 5 ns
    /// with short ones.
    ///
    /// # Errors
    /// What the closures return, or that a field is over 1 GiB; the piece is as before then.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
        row: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.0.is_empty() {
            self.0.resize(FRAME_BYTES, 0);
        }
        let start = self.0.len();
        let result = put_field(&mut self.0, key).and_then(|()| put_field(&mut self.0, row));
        if result.is_err() {
            self.0.truncate(start);
        }
        result
    }

    /// Whether it is time to send it off.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= PIECE_BYTES
    }

    /// Whether it has no entries.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() <= FRAME_BYTES
    }

    /// The bytes for the file, once the frame is filled in.
    pub(super) fn seal(&mut self) -> &[u8] {
        if let Some((frame, entries)) = self.0.split_at_mut_checked(FRAME_BYTES) {
            let length = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            frame[..4].copy_from_slice(&length.to_le_bytes());
            frame[4..].copy_from_slice(&xxh3_64(entries).to_le_bytes());
        }
        &self.0
    }

    /// The buffer, to be used again.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.0
    }
}

/// Appends what `write` appends, with its length in front: one byte is left for it, which nearly always does.
#[inline(always)]
fn put_field(into: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
    let at = into.len();
    into.push(0);
    write(into)?;
    let length = into.len() - at - 1;
    match into.get_mut(at) {
        Some(byte) if length < 0x80 => *byte = length as u8,
        _ => put_long_length(into, at, length)?,
    }
    Ok(())
}

/// Makes room for a length of more than one byte, which moves the field.
#[cold]
#[inline(never)]
fn put_long_length(into: &mut Vec<u8>, at: usize, length: usize) -> Result<(), Error> {
    if length > FIELD_BYTES_MAX {
        let message =
            format!("a key or a row of {length} bytes is over the limit of {FIELD_BYTES_MAX}: keep less per key");
        return Err(Error::new(ErrorKind::Failed, message));
    }
    let (mut varint, mut n, mut rest) = ([0; 5], 0, length);
    while let Some(byte) = varint.get_mut(n) {
        *byte = (rest & 0x7f) as u8 | if rest >= 0x80 { 0x80 } else { 0 };
        (rest, n) = (rest >> 7, n + 1);
        if rest == 0 {
            break;
        }
    }
    into.splice(at..=at, varint.into_iter().take(n));
    Ok(())
}

/// Reads the file of `delta` and shows each entry in order: key, row, and where in the file the row begins. Every byte
/// is verified before it is shown. Holds one piece in memory.
///
/// # Errors
/// A refusal that names the file if it is missing or damaged; an input error; what `each` returns.
pub(super) fn read(
    checkpoints: &Path,
    operator: &str,
    delta: &Delta,
    mut each: impl FnMut(&[u8], &[u8], u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let path = checkpoints.join(&delta.file.path);
    let mut reader = Reader::open(&path, delta.file.bytes)?;
    reader.header(operator, delta.epoch)?;
    let (mut piece, mut entries) = (Vec::new(), 0);
    while reader.piece(&mut piece)? {
        let (mut rest, end) = (&piece[..], delta.file.bytes - reader.left);
        while !rest.is_empty() {
            let (Some(key), Some(row)) = (take_field(&mut rest), take_field(&mut rest)) else {
                return Err(damaged(&path, "an entry ends early"));
            };
            each(key, row, end - (rest.len() + row.len()) as u64)?;
            entries += 1;
        }
    }
    if entries != delta.entries {
        return Err(damaged(&path, "the number of entries is not the manifest's"));
    }
    Ok(())
}

/// Splits a length and as many bytes off the front; None if there is less.
#[inline]
fn take_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
    let (field, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(field)
}

/// A refusal that names a damaged file of a checkpoint.
pub(super) fn damaged(path: &Path, what: &str) -> Error {
    let path = path.display();
    Error::refused(format!("{path} is damaged ({what}): put it back from a copy, or restore an older checkpoint"))
}

struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    /// Bytes of the file that have not been read.
    left: u64,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path, bytes: u64) -> Result<Self, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(damaged(path, "it is missing")),
            Err(e) => return Err(Error::io(e, "open", path)),
        };
        let left = file.len().map_err(|e| Error::io(e, "read", path))?;
        if left != bytes {
            return Err(damaged(path, &format!("it has {left} bytes instead of {bytes}")));
        }
        Ok(Self { path, file: BufReader::with_capacity(64 << 10, file), left })
    }

    /// Reads `length` bytes into `into`, whose content goes.
    fn bytes(&mut self, length: usize, into: &mut Vec<u8>) -> Result<(), Error> {
        let Some(left) = self.left.checked_sub(length as u64) else {
            return Err(damaged(self.path, "it ends early"));
        };
        self.left = left;
        into.resize(length, 0);
        self.file.read_exact(into).map_err(|e| Error::io(e, "read", self.path))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = Vec::with_capacity(N);
        self.bytes(N, &mut bytes)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    /// Reads the header and compares it with what is expected.
    fn header(&mut self, operator: &str, epoch: Epoch) -> Result<(), Error> {
        let start: [u8; 28] = self.array()?;
        let (magic, rest) = start.split_at(8);
        let (version, length) = (le32(rest), le32(&start[24..]));
        if magic != MAGIC {
            return Err(damaged(self.path, "it is no delta file"));
        }
        if version != VERSION {
            let path = self.path.display();
            let message = format!("{path} has version {version}, and this program reads version {VERSION} only");
            return Err(Error::refused(format!("{message}: use the version of millstream that wrote it")));
        }
        let mut name = Vec::new();
        self.bytes(length as usize, &mut name)?;
        let sum: [u8; 8] = self.array()?;
        let all = [&start[..], &name[..]].concat();
        if xxh3_64(&all).to_le_bytes() != sum {
            return Err(damaged(self.path, "the checksum of its header is wrong"));
        }
        if name != operator.as_bytes() || start[16..24] != epoch.to_le_bytes() {
            return Err(damaged(self.path, "it belongs to another operator or epoch"));
        }
        Ok(())
    }

    /// Reads the entries of the next piece; false at the end of the file.
    fn piece(&mut self, into: &mut Vec<u8>) -> Result<bool, Error> {
        if self.left == 0 {
            return Ok(false);
        }
        let frame: [u8; FRAME_BYTES] = self.array()?;
        self.bytes(le32(&frame) as usize, into)?;
        if xxh3_64(into).to_le_bytes() != frame[4..] {
            return Err(damaged(self.path, "the checksum of a piece is wrong"));
        }
        Ok(true)
    }
}

/// The first four bytes as a number; there are as many.
fn le32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |n, b| n << 8 | u32::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Bound, any_bytes, bounded, cases, damaged};
    use crate::state::snapshot::FileRef;
    use proptest::prelude::*;

    /// Where the entries of the first piece of [`file`] begin.
    const FIRST: usize = 28 + "count".len() + 8 + FRAME_BYTES;

    fn entry(piece: &mut Piece, key: &[u8], row: &[u8]) {
        let put = |bytes: &[u8]| {
            let bytes = bytes.to_vec();
            move |into: &mut Vec<u8>| {
                into.extend(bytes);
                Ok(())
            }
        };
        piece.put(put(key), put(row)).unwrap();
    }

    fn file(pieces: &[&[(Vec<u8>, Vec<u8>)]]) -> Vec<u8> {
        let mut bytes = header(7, "count", 3);
        for entries in pieces {
            let mut piece = Piece::default();
            entries.iter().for_each(|(k, r)| entry(&mut piece, k, r));
            bytes.extend(piece.seal());
        }
        bytes
    }

    fn parse(bytes: &[u8], entries: u64) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("d"), bytes).unwrap();
        let file = FileRef { path: "d".into(), bytes: bytes.len() as u64, checksum: String::new() };
        let mut all = Vec::new();
        read(dir.path(), "count", &Delta { epoch: 7, file, entries }, |k, r, at| {
            assert_eq!(bytes[at as usize..][..r.len()], *r);
            all.push((k.to_vec(), r.to_vec()));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let bytes = file(&[&[(b"\0\x01\0\x05ab".to_vec(), vec![9, 8]), (b"\0\x01\0\x05c".to_vec(), vec![])]]);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let expected = [
            "4d5344454c54410a",   // magic
            "01000000",           // version
            "03000000",           // subtask
            "0700000000000000",   // epoch
            "05000000636f756e74", // operator
            "e8a1cbf056d8cc97",   // checksum of the header
            "11000000",           // length of the entries
            "860195f572b5543b",   // checksum of the entries
            "06000100056162",     // key
            "020908",             // row
            "050001000563",       // key
            "00",                 // gone
        ];
        assert_eq!(hex, expected.concat());
    }

    #[test]
    fn lengths_from_128_take_more_bytes() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 300_000] {
            let entries = vec![(vec![1; length], vec![2; length]), (b"next".to_vec(), vec![3])];
            assert_eq!(parse(&file(&[&entries]), 2).unwrap(), entries, "{length}");
        }
        let mut piece = Piece::default();
        entry(&mut piece, &[1; 300], &[]);
        assert_eq!(piece.seal()[12..14], [0xac, 0x02]);
    }

    #[test]
    fn a_failed_entry_leaves_no_trace() {
        let mut piece = Piece::default();
        entry(&mut piece, b"k", b"r");
        let before = piece.seal().to_vec();
        let fail = |into: &mut Vec<u8>| {
            into.push(1);
            Err(Error::refused("no"))
        };
        assert!(piece.put(|_| Ok(()), fail).is_err());
        assert!(piece.put(fail, |_| Ok(())).is_err());
        assert_eq!(piece.seal(), before);
    }

    #[test]
    fn any_flipped_bit_and_any_truncation_is_refused() {
        let entries = vec![(b"\0\x01\0\x05ab".to_vec(), vec![9; 200]), (b"\0\x01\0\x05c".to_vec(), vec![])];
        let bytes = file(&[&entries, &entries]);
        assert_eq!(parse(&bytes, 4).unwrap().len(), 4);
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1 << (at % 8);
            let error = parse(&broken, 4).expect_err("damage at {at}");
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert!(error.to_string().contains("/d "), "{error}");
            let error = parse(&bytes[..at], 4).expect_err("truncated");
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        }
        assert!(parse(&bytes, 3).is_err());
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..200)
    }

    fn pieces() -> impl Strategy<Value = Vec<Vec<(Vec<u8>, Vec<u8>)>>> {
        prop::collection::vec(prop::collection::vec((bytes(), bytes()), 1..20), 0..4)
    }

    /// One piece, whose length and checksum are right, whatever its entries are.
    fn sealed(entries: &[u8]) -> Vec<u8> {
        let mut bytes = header(7, "count", 3);
        bytes.extend((entries.len() as u32).to_le_bytes());
        bytes.extend(xxh3_64(entries).to_le_bytes());
        bytes.extend(entries);
        bytes
    }

    /// A piece, the buffer of the reader, and for the test the entries.
    const FILE: Bound = Bound { per_byte: 64, more: 256 << 10 };

    proptest! {
        #![proptest_config(cases(500))]

        #[test]
        fn any_file_is_taken(
            bytes in prop_oneof![
                any_bytes(),
                damaged(any_bytes().prop_map(|entries| sealed(&entries))),
                damaged(pieces().prop_map(|pieces| file(&pieces.iter().map(|p| &p[..]).collect::<Vec<_>>()))),
                // behind a right checksum, so that the entries are reached
                any_bytes().prop_map(|entries| sealed(&entries)),
                damaged(pieces().prop_map(|pieces| file(&[&pieces.concat()]).get(FIRST..).unwrap_or_default().to_vec()))
                    .prop_map(|entries| sealed(&entries)),
            ],
            entries in 0u64..9,
        ) {
            if let Err(error) = bounded(bytes.len(), FILE, || parse(&bytes, entries))? {
                prop_assert_eq!(error.kind(), ErrorKind::Refused);
            }
        }

        #[test]
        fn what_is_put_is_read(pieces in pieces()) {
            let slices: Vec<_> = pieces.iter().map(|p| &p[..]).collect();
            let all: Vec<_> = pieces.iter().flatten().cloned().collect();
            prop_assert_eq!(parse(&file(&slices), all.len() as u64).unwrap(), all);
        }
    }
}
