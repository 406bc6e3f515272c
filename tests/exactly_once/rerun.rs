//! Running a finished job again: with nothing new, with more, and with input that is not what it was.

use super::{finished, lines, refused};
use crate::common::{Scratch, WordCount};
use std::fs::{self, OpenOptions};
use std::path::PathBuf;

#[test]
fn nothing_new_changes_nothing() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let before = job.shown();
    for flags in [&[][..], &["--parallelism", "3"], &["--restore", "latest"]] {
        job.run(flags).expect(0, &["finished: 0 records in", "resumed from checkpoint"]);
        assert_eq!(job.shown(), before);
    }
}

#[test]
fn what_has_grown_is_read_on_and_what_is_new_from_the_start() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    for round in 0..3 {
        let before = job.shown();
        job.append("a.txt", lines(1000 + 100 * round, 1050 + 100 * round));
        job.append(&format!("c{round}.txt"), lines(1050 + 100 * round, 1070 + 100 * round));
        job.run(&["--parallelism", "3"]).expect(0, &["finished: 70 records in"]);
        let after = job.shown();
        after.continues(&before).unwrap();
        job.check(&after).unwrap();
    }
}

/// Changes a file of the input, shows that it is refused, and that all is well once the file is as it was.
#[track_caller]
fn refuses(change: impl Fn(&WordCount, PathBuf), said: &[&str]) {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let file = job.input().join("a.txt");
    let was = fs::read(&file).unwrap();
    change(&job, file.clone());
    refused(&job, &[], &[&["`", "/a.txt`", "`--restore none`"][..], said].concat());
    fs::write(&file, was).unwrap();
    job.append("a.txt", lines(2000, 2010));
    job.run(&[]).expect(0, &["finished: 10 records in"]);
    job.check(&job.shown()).unwrap();
}

#[test]
fn a_shorter_file_is_refused() {
    refuses(
        |_, file| {
            let length = file.metadata().unwrap().len();
            OpenOptions::new().write(true).open(file).unwrap().set_len(length - 1).unwrap();
        },
        &["put it back as it was"],
    );
}

#[test]
fn a_missing_file_is_refused() {
    refuses(|_, file| fs::remove_file(file).unwrap(), &["put it back as it was"]);
}

#[test]
fn an_altered_file_is_refused() {
    refuses(
        |job, file| {
            let mut text = fs::read(&file).unwrap();
            let at = text.len() - 100;
            text[at] = if text[at] == b'x' { b'y' } else { b'x' };
            fs::write(file, text).unwrap();
            job.append("a.txt", lines(3000, 3001));
        },
        &["put it back as it was"],
    );
}

#[test]
fn a_continued_last_line_is_refused() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    job.append("a.txt", ["last words without a newline".to_owned()].into_iter());
    job.run(&[]).expect(0, &["finished: 1 records in"]);
    job.run(&[]).expect(0, &["finished: 0 records in"]);
    job.append("a.txt", [" of these".to_owned()].into_iter());
    refused(&job, &[], &["/a.txt`", "newline"]);
}
