//! The source of files against its contract: what is read, and each rule of running again.

use super::*;
use crate::testing::{block_on, drain, said, source_context};
use millstream_framework::{Polled, SourceReader};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// One run of one subtask over all files of a path.
struct Run {
    reader: FileReader<Lines>,
    splits: Vec<String>,
}

impl Run {
    /// Starts from what another run has kept.
    fn start(path: &Path, kept: &[(String, FileOffset)]) -> Result<Self, BoxError> {
        let source = ReadFiles::new(path.into()).lines();
        let known: Vec<String> = kept.iter().map(|(split, _)| split.clone()).collect();
        block_on(async {
            let mut splits = source.splits(&known).await?;
            splits.extend(known.into_iter().filter(|split| !splits.contains(split)).collect::<Vec<_>>());
            let mut reader = source.open(&source_context()).await?;
            for split in &splits {
                let from = kept.iter().find(|(known, _)| known == split).map(|(_, offset)| offset.clone());
                let started = reader.assign(split.clone(), from).await?;
                assert_eq!(reader.offset(split)?, started);
            }
            Ok(Self { reader, splits })
        })
    }

    /// Reads `n` times at most `room` lines.
    fn read(&mut self, n: usize, room: usize) -> Result<Vec<String>, BoxError> {
        let mut lines = Vec::new();
        for _ in 0..n {
            if self.reader.read(room, &mut lines)?.0 == Polled::Finished {
                break;
            }
        }
        Ok(lines)
    }

    fn rest(&mut self) -> Result<Vec<String>, BoxError> {
        self.read(usize::MAX, 1024)
    }

    /// What a checkpoint keeps.
    fn keep(&self) -> Vec<(String, FileOffset)> {
        self.splits.iter().map(|split| (split.clone(), self.reader.offset(split).unwrap())).collect()
    }
}

/// A directory with one file `a.txt`.
fn with(text: impl AsRef<[u8]>) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    put(&directory, "a.txt", text);
    directory
}

fn put(directory: &TempDir, name: &str, text: impl AsRef<[u8]>) {
    fs::write(directory.path().join(name), text).unwrap();
}

/// Reads `before` to its end, then `after` as its continuation: what the second run reads, or how it is refused.
fn again(before: &str, after: impl AsRef<[u8]>) -> Result<Vec<String>, BoxError> {
    let directory = with(before);
    let mut run = Run::start(directory.path(), &[])?;
    run.rest()?;
    let kept = run.keep();
    put(&directory, "a.txt", after);
    let mut second = Run::start(directory.path(), &kept)?;
    let lines = second.rest()?;
    // and a third run over the same file reads nothing
    let mut third = Run::start(directory.path(), &second.keep())?;
    assert_eq!(third.rest()?, [""; 0]);
    assert_eq!(third.keep(), second.keep());
    Ok(lines)
}

/// That it is refused, with these words and a remedy.
fn refused<T: std::fmt::Debug>(result: Result<T, BoxError>, words: &str) {
    let (kind, text) = said(&result.unwrap_err());
    assert_eq!(kind, ErrorKind::Refused);
    assert!(text.contains(words) && text.contains("a.txt") && text.contains("--restore none"), "{text}");
}

#[test]
fn lines_with_and_without_returns_and_a_last_one_without_newline() {
    let directory = with("one\r\ntwo\n\nthree\rhalf\n\r\nlast");
    let mut run = Run::start(directory.path(), &[]).unwrap();
    assert_eq!(run.rest().unwrap(), ["one", "two", "", "three\rhalf", "", "last"]);
    let (_, offset) = &run.keep()[0];
    assert_eq!((offset.byte, offset.length, offset.unterminated), (27, 27, true));
    assert_eq!(run.rest().unwrap(), [""; 0]);
}

#[test]
fn goes_on_at_every_byte_it_may_have_stopped_at() {
    let lines: Vec<String> = (0..400).map(|i| format!("{i}:{}", "x".repeat(i * 7 % 90))).collect();
    let directory = with(lines.join("\n") + "\n");
    for stop in 0..=lines.len() {
        let mut run = Run::start(directory.path(), &[]).unwrap();
        let mut read = run.read(1, stop).unwrap();
        let mut next = Run::start(directory.path(), &run.keep()).unwrap();
        read.extend(next.read(2, 3).unwrap());
        let mut last = Run::start(directory.path(), &next.keep()).unwrap();
        read.extend(last.rest().unwrap());
        assert_eq!(read, lines, "stopped after {stop} lines");
    }
}

#[test]
fn blocks_may_end_anywhere_in_a_line() {
    let lines: Vec<String> = (0..3000).map(|i| format!("{i}{}", "é".repeat(i * 37 % 500))).collect();
    let directory = with(lines.join("\r\n") + "\r\n");
    let mut run = Run::start(directory.path(), &[]).unwrap();
    let mut read = Vec::new();
    while read.len() < lines.len() {
        read.extend(run.read(1, 100).unwrap());
        run = Run::start(directory.path(), &run.keep()).unwrap();
    }
    assert_eq!(read, lines);
}

#[test]
fn a_line_may_be_longer_than_a_block() {
    let long = "x".repeat(3_000_000);
    let directory = with(format!("a\n{long}\nb\n{long}"));
    let mut run = Run::start(directory.path(), &[]).unwrap();
    assert_eq!(run.read(1, 2).unwrap(), ["a", &long]);
    let mut run = Run::start(directory.path(), &run.keep()).unwrap();
    assert_eq!(run.rest().unwrap(), ["b", &long]);
}

#[test]
fn a_batch_of_long_lines_is_short() {
    let directory = with(format!("{}\n", "x".repeat(30_000)).repeat(10));
    let mut run = Run::start(directory.path(), &[]).unwrap();
    assert_eq!(run.read(1, 1024).unwrap().len(), 3);
}

#[test]
fn rerun_nothing_new_reads_nothing() {
    for text in ["", "\n", "a\nb\n", "a\nb", "a\r"] {
        assert_eq!(again(text, text).unwrap(), [""; 0], "{text:?}");
    }
}

#[test]
fn rerun_a_file_that_has_grown_is_read_on() {
    assert_eq!(again("a\n", "a\nb\nc").unwrap(), ["b", "c"]);
    assert_eq!(again("", "a\n").unwrap(), ["a"]);
    let long = "0123456789\n".repeat(1000);
    assert_eq!(again(&long, format!("{long}new\n")).unwrap(), ["new"]);
}

#[test]
fn rerun_new_files_start_at_their_start() {
    let directory = with("a\n");
    let mut run = Run::start(directory.path(), &[]).unwrap();
    run.rest().unwrap();
    put(&directory, "b.txt", "b1\nb2\n");
    let mut second = Run::start(directory.path(), &run.keep()).unwrap();
    assert_eq!(second.rest().unwrap(), ["b1", "b2"]);
}

#[test]
fn rerun_a_shorter_file_is_refused() {
    refused(again("a\nb\n", "a\n"), "it has 2 bytes, and had 4");
    // shorter than it was seen, though longer than it was read
    let directory = with("a\nb\nc\n");
    let mut run = Run::start(directory.path(), &[]).unwrap();
    assert_eq!(run.read(1, 1).unwrap(), ["a"]);
    put(&directory, "a.txt", "a\nb\n");
    refused(Run::start(directory.path(), &run.keep()).map(|_| ()), "it has 4 bytes, and had 6");
}

#[test]
fn rerun_a_missing_file_is_refused_even_if_it_was_the_only_one() {
    let directory = with("a\n");
    let run = Run::start(directory.path(), &[]).unwrap();
    fs::remove_file(directory.path().join("a.txt")).unwrap();
    refused(Run::start(directory.path(), &run.keep()).map(|_| ()), "it is missing");
}

#[test]
fn rerun_another_hash_is_refused() {
    refused(again("abc\n", "abd\nmore\n"), "the 4 bytes before byte 4 have changed");
    let long = "0123456789\n".repeat(1000);
    let changed = format!("{}X{}more\n", &long[..7000], &long[7001..]);
    refused(again(&long, &changed), "the 4096 bytes before byte 11000 have changed");
}

#[test]
fn rerun_a_continued_last_line_is_refused() {
    refused(again("a\nb", "a\nbc\n"), "its last line had no newline at byte 3");
    refused(again("a\nb", "a\nbc"), "had no newline");
    refused(again("a\nb", "a\nb\r"), "had no newline");
    refused(again("a\nb\r", "a\nb\r\r\n"), "had no newline");
}

#[test]
fn rerun_a_last_line_that_got_its_newline_is_read_on_after_it() {
    assert_eq!(again("a\nb", "a\nb\nc\n").unwrap(), ["c"]);
    assert_eq!(again("a\nb", "a\nb\n").unwrap(), [""; 0]);
    assert_eq!(again("a\nb", "a\nb\r\nc").unwrap(), ["c"]);
    assert_eq!(again("a\nb\r", "a\nb\r\nc").unwrap(), ["c"]);
    assert_eq!(again("a\nb", "a\nb\n\n").unwrap(), [""]);
}

#[test]
fn a_file_that_grows_while_it_is_read_is_read_to_the_end_that_is_met() {
    let directory = with("a\nb\n");
    let mut run = Run::start(directory.path(), &[]).unwrap();
    assert_eq!(run.read(1, 1).unwrap(), ["a"]);
    put(&directory, "a.txt", "a\nb\nc\n");
    assert_eq!(run.rest().unwrap(), ["b", "c"]);
    assert_eq!(run.keep()[0].1.length, 6);
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_refused() {
    let text = "0123456789\n".repeat(100_000);
    let directory = with(&text);
    let mut run = Run::start(directory.path(), &[]).unwrap();
    run.read(1, 10).unwrap();
    put(&directory, "a.txt", &text[..600_000]);
    refused(run.rest(), "it has 600000 bytes, and had 1100000");
}

#[test]
fn a_continuation_between_two_looks_is_noticed() {
    // assigned with nothing new, continued before it is opened
    let directory = with("a\nb");
    let mut run = Run::start(directory.path(), &[]).unwrap();
    run.rest().unwrap();
    let mut second = Run::start(directory.path(), &run.keep()).unwrap();
    put(&directory, "a.txt", "a\nbc\n");
    refused(second.rest(), "had no newline");
    // and if it was before, nothing is begun
    refused(Run::start(directory.path(), &run.keep()).map(|_| ()), "had no newline");
}

#[test]
fn thousands_of_files_are_read_with_a_few_open() {
    let directory = tempfile::tempdir().unwrap();
    for file in 0..3000 {
        put(&directory, &format!("{file:04}.txt"), format!("{file}\n").repeat(file % 3));
    }
    let mut run = Run::start(directory.path(), &[]).unwrap();
    let mut lines = Vec::new();
    while run.reader.read(1, &mut lines).unwrap().0 != Polled::Finished {
        assert!(run.reader.is_frugal());
    }
    let mut expected: Vec<String> = (0..3000).flat_map(|file| vec![file.to_string(); file % 3]).collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
    let mut second = Run::start(directory.path(), &run.keep()).unwrap();
    assert_eq!(second.rest().unwrap(), [""; 0]);
}

#[test]
fn files_take_turns() {
    let directory = with("a1\na2\na3\n");
    put(&directory, "b.txt", "b1\nb2\n");
    let mut run = Run::start(directory.path(), &[]).unwrap();
    assert_eq!(run.read(usize::MAX, 1).unwrap(), ["a1", "b1", "a2", "b2", "a3"]);
    let records = drain(&mut Run::start(directory.path(), &[]).unwrap().reader);
    let names: Vec<_> = records.iter().map(|(split, line)| (split.ends_with("a.txt"), line.as_str())).collect();
    assert_eq!(names, [(true, "a1"), (true, "a2"), (true, "a3"), (false, "b1"), (false, "b2")]);
}

#[test]
fn an_error_says_the_file_and_the_byte() {
    let directory = with(b"good\nb\xffd\n");
    let error = Run::start(directory.path(), &[]).unwrap().rest().unwrap_err().to_string();
    assert!(error.contains("a.txt`, offset 5: byte 1 of the line is not UTF-8"), "{error}");
    assert!(error.contains("`b\u{fffd}d`"), "{error}");

    let directory = with("{\"word\": \"a\"}\n\n{\"word\": 1}\n");
    let source = ReadFiles::new(directory.path().into()).json::<std::collections::BTreeMap<String, String>>();
    let mut reader = block_on(source.open(&source_context())).unwrap();
    let split = block_on(source.splits(&[])).unwrap().remove(0);
    block_on(reader.assign(split, None)).unwrap();
    let mut records = Vec::new();
    let error = reader.read(1024, &mut records).unwrap_err().to_string();
    assert!(error.contains("a.txt`, offset 15: ") && error.contains("`{\"word\": 1}`"), "{error}");
    assert_eq!(records.len(), 1);
}

#[test]
fn nothing_to_read_is_a_mistake_in_use() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("gone"), directory.path().join("*.txt")] {
        let (kind, text) = said(&Run::start(&path, &[]).map(|_| ()).unwrap_err());
        assert_eq!(kind, ErrorKind::Usage);
        assert!(text.contains(&path.display().to_string()) && text.contains("a pattern that matches"), "{text}");
    }
}

#[test]
fn a_rate_is_kept() {
    let directory = with("x\n".repeat(100));
    let source = ReadFiles::new(directory.path().into()).lines().rate(1000);
    let started = millstream_framework::clock::now();
    let lines = block_on(async {
        let mut reader = source.open(&source_context()).await.unwrap();
        let split = source.splits(&[]).await.unwrap().remove(0);
        reader.assign(split, None).await.unwrap();
        let mut lines = Vec::new();
        loop {
            match reader.read(1024, &mut lines).unwrap().0 {
                Polled::More => {}
                Polled::Later | Polled::AtEnd => reader.ready().await,
                Polled::Finished => break lines.len(),
            }
        }
    });
    let took = started.elapsed().as_millis();
    assert_eq!(lines, 100);
    assert!((95..1000).contains(&took), "took {took} ms");
    assert!(block_on(ReadFiles::new(directory.path().into()).lines().rate(0).splits(&[])).is_err());
}

/// All records of a source, read in two goes, of which the second starts from what the first has kept.
fn in_two_goes<F: Decode>(source: &FileSource<F>, first: usize) -> Result<Vec<F::Record>, BoxError> {
    let split = block_on(source.splits(&[]))?.remove(0);
    let mut records = Vec::new();
    let mut from = None;
    for room in [first, 1024] {
        let mut reader = block_on(source.open(&source_context()))?;
        block_on(reader.assign(split.clone(), from.take()))?;
        reader.read(room, &mut records)?;
        from = Some(reader.offset(&split)?);
    }
    Ok(records)
}

#[test]
fn columns_are_known_wherever_a_file_is_read_on() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Row {
        name: String,
        cents: u64,
    }
    let rows = |cents: std::ops::Range<u64>| cents.map(|cents| Row { name: format!("n{cents}"), cents });
    let lines: String = rows(0..20).map(|Row { name, cents }| format!("{cents},x,{name}\n")).collect();
    let directory = with("cents,note,name\n".to_owned() + &lines);
    let source = ReadFiles::new(directory.path().into()).csv::<Row>();
    for first in 0..20 {
        assert_eq!(in_two_goes(&source, first).unwrap(), rows(0..20).collect::<Vec<_>>(), "after {first}");
    }
    for empty in ["", "cents,note,name\n", "cents,note,name\n\n"] {
        put(&directory, "a.txt", empty);
        assert_eq!(in_two_goes(&source, 1).unwrap(), []);
    }
    put(&directory, "a.txt", "\"cents\n1\n");
    let error = in_two_goes(&source, 1).unwrap_err().to_string();
    assert!(error.contains("the header of `") && error.contains("no closing quote"), "{error}");
}

#[test]
fn what_cannot_be_decoded_is_a_record_or_left_out() {
    let directory = with(b"1\nx\n\n3\n\xff\n");
    let path = directory.path().canonicalize().unwrap().join("a.txt").display().to_string();
    let read = || ReadFiles::new(directory.path().into());
    let numbers = in_two_goes(&read().try_json::<u64>(), 2).unwrap();
    let bad = |at: usize| numbers[at].clone().unwrap_err();
    let (x, last) = (bad(1), bad(3));
    assert_eq!((&numbers[0], &numbers[2], numbers.len()), (&Ok(1), &Ok(3), 4));
    assert_eq!((x.split.as_str(), x.offset, x.bytes.as_slice()), (path.as_str(), 2, &b"x"[..]));
    assert!(x.error.contains("no `u64` as JSON"), "{x}");
    assert_eq!((last.offset, last.bytes.as_slice()), (7, &b"\xff"[..]));

    assert_eq!(in_two_goes(&read().json::<u64>().skip_undecodable(), 2).unwrap(), [1, 3]);
    let lines = in_two_goes(&read().try_lines(), 1).unwrap();
    let good: Vec<&str> = lines.iter().flatten().map(String::as_str).collect();
    assert_eq!((good, lines.len()), (vec!["1", "x", "", "3"], 5));
    let bytes = in_two_goes(&read().bytes(), 3).unwrap();
    assert_eq!(bytes, [&b"1"[..], b"x", b"", b"3", b"\xff"]);
    put(&directory, "a.txt", "n\n1\n1,2\n");
    let rows = in_two_goes(&read().try_csv::<(u64,)>(), 1).unwrap();
    assert_eq!((&rows[0], rows[1].as_ref().unwrap_err().offset), (&Ok((1,)), 4));
    assert!(in_two_goes(&read().csv::<(u64,)>(), 1).unwrap_err().to_string().contains("offset 4: it has 2 columns"));
}
