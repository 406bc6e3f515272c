//! Where a file is to be read from by the order of a person, and what that means. What is compared when it is read on
//! is in `lines.rs`.

use super::offset::{FileOffset, HISTORY};
use millstream_framework::{Error, ErrorKind, ResetPlace, ResetTo};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind::NotFound, Read, Seek, SeekFrom};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The place in a file that has been read up to `from`. Reads what lies between the two.
///
/// # Errors
/// [`ErrorKind::Usage`] if the file is gone, for times, and for bytes at which no line begins.
pub(super) fn place(path: &Path, from: &FileOffset, to: ResetTo) -> Result<ResetPlace<FileOffset>, Error> {
    let failed = |error| Error::io(error, "read", path);
    let mut file = File::open(path).map_err(|error| match error.kind() {
        NotFound => usage(format!("`{}` is missing: it can only be forgotten, with `--to forget`", path.display())),
        _ => failed(error),
    })?;
    let length = file.metadata().map_err(failed)?.len();
    let byte = match to {
        ResetTo::Earliest => 0,
        ResetTo::Latest => length,
        ResetTo::Offset(byte) if byte <= length => byte,
        ResetTo::Offset(_) => return Err(usage(format!("`{}` has {length} bytes: name one of them", path.display()))),
        ResetTo::At(_) => {
            let text = format!("the lines of `{}` have no times: name a byte, `earliest` or `latest`", path.display());
            return Err(usage(text));
        }
    };
    let before = history(&mut file, byte).map_err(failed)?;
    let unterminated = byte > 0 && before.last() != Some(&b'\n');
    if unterminated && byte < length {
        let text = format!("no line of `{}` begins at byte {byte}, but within one: name another", path.display());
        return Err(usage(text));
    }
    let what = meaning(&mut file, from.byte, (byte, length)).map_err(failed)?;
    Ok(ResetPlace { offset: FileOffset { byte, length, hash: xxh3_64(&before), unterminated }, what })
}

fn usage(text: String) -> Error {
    Error::new(ErrorKind::Usage, text)
}

/// The bytes before this one that are remembered by a hash.
fn history(file: &mut File, byte: u64) -> io::Result<Vec<u8>> {
    let length = byte.min(HISTORY as u64);
    let mut before = vec![0; length as usize];
    file.seek(SeekFrom::Start(byte - length))?;
    file.read_exact(&mut before)?;
    Ok(before)
}

fn meaning(file: &mut File, from: u64, (byte, length): (u64, u64)) -> io::Result<String> {
    Ok(match byte {
        _ if from > length => {
            format!("it is shorter than what was read of it: {} are read", lines(file, byte..length)?)
        }
        byte if byte < from => format!("{} are read again", lines(file, byte..from)?),
        byte if byte > from => format!("{} are passed over", lines(file, from..byte)?),
        _ => "it stays where it is".into(),
    })
}

/// How many lines begin in this part of a file.
fn lines(file: &mut File, range: std::ops::Range<u64>) -> io::Result<String> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut part = BufReader::with_capacity(256 * 1024, file.take(range.end - range.start));
    let mut lines = 0_u64;
    while part.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(format!("{lines} lines ({} bytes)", range.end - range.start))
}

#[cfg(test)]
mod tests {
    use super::super::lines::LineFile;
    use super::*;

    #[test]
    fn a_file_goes_on_at_the_place_it_was_set_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        std::fs::write(&path, "one\ntwo\nthree\nfour").unwrap();
        let from = FileOffset { byte: 8, ..FileOffset::start(8) };
        let check = |to, byte, said: &str, next: Option<&[u8]>| {
            let place = place(&path, &from, to).unwrap();
            assert_eq!((place.offset.byte, place.what.as_str()), (byte, said));
            let mut file = LineFile::open(&path, &place.offset, Vec::new()).unwrap();
            assert_eq!(file.next_line().unwrap(), next);
        };
        check(ResetTo::Earliest, 0, "2 lines (8 bytes) are read again", Some(b"one"));
        check(ResetTo::Latest, 18, "2 lines (10 bytes) are passed over", None);
        check(ResetTo::Offset(14), 14, "1 lines (6 bytes) are passed over", Some(b"four"));
        check(ResetTo::Offset(8), 8, "it stays where it is", Some(b"three"));
        std::fs::write(&path, "one\n").unwrap();
        let said = "it is shorter than what was read of it: 1 lines (4 bytes) are read";
        check(ResetTo::Earliest, 0, said, Some(b"one"));
    }

    #[test]
    fn a_place_that_is_none_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        let check = |to, said: &str| {
            let error = place(&path, &FileOffset::start(0), to).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(said), "{error}");
        };
        check(ResetTo::Earliest, "is missing: it can only be forgotten");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        check(ResetTo::Offset(9), "has 8 bytes");
        check(ResetTo::Offset(5), "begins at byte 5");
        check(ResetTo::At(millstream_framework::Timestamp::from_secs(0)), "have no times");
    }
}
