//! What exactly once means for whoever runs a pipeline: what may come again, what is refused and why, and that nothing
//! visible changes by it. Through the command line of `word_count` and through files; what a command line cannot show
//! (another program on the same directory, functions that fail) in the process of the test.
//!
//! | file | what |
//! |---|---|
//! | `checkpoints.rs` | what is kept, sources that end, time-outs |
//! | `rerun.rs` | input that grew, shrank, changed |
//! | `directory.rs` | damaged, rolled back, foreign and busy directories; `--restore` |
//! | `poison.rs` | records that fail in every attempt |
//! | `program.rs` | a program that does not fit its checkpoint |
//! | `recoveries.rs` | processes that die in the recovery of a recovery |
//! | `restart.rs` | failures, panics, recovery in the process |
//! | `signals.rs` | SIGTERM, and wrong usage |

mod checkpoints;
mod directory;
mod poison;
mod program;
#[cfg(debug_assertions)]
mod recoveries;
mod rerun;
mod restart;
mod signals;

use crate::common::{Output, Scratch, WordCount, mix, names};
use std::path::PathBuf;

/// Lines of text of which each word comes more than once.
fn lines(from: u64, to: u64) -> impl Iterator<Item = String> {
    (from..to).map(|line| {
        let words: Vec<String> = (0..6).map(|at| format!("Word{}", mix(line * 8 + at) % 300)).collect();
        words.join(", ") + "\n"
    })
}

/// `word_count` with two files of text.
fn word_count(scratch: &Scratch) -> WordCount {
    let job = WordCount::new(scratch.path());
    job.append("a.txt", lines(0, 500));
    job.append("b.txt", lines(500, 1000));
    job
}

/// The same, read to its end in five runs, so that there are at least as many epochs whatever the machine does.
fn finished(scratch: &Scratch) -> WordCount {
    let job = WordCount::new(scratch.path());
    for from in [0, 100, 200, 300, 400] {
        job.append("a.txt", lines(from, from + 100));
        job.append("b.txt", lines(500 + from, 600 + from));
        let parallelism = if from < 200 { "3" } else { "2" };
        job.run(&["--parallelism", parallelism]).expect(0, &["finished: 200 records in"]);
    }
    job.check(&job.shown()).unwrap();
    assert!(epochs(&job.shown()).len() >= 5, "{:?}", epochs(&job.shown()));
    job
}

/// The epochs that show.
fn epochs(output: &Output) -> Vec<u64> {
    let mut epochs: Vec<u64> =
        output.0.keys().map(|name| crate::common::PartName::parse(name).unwrap().epoch).collect();
    epochs.dedup();
    epochs
}

/// Files of checkpoints whose names begin like this, by epoch.
fn files(job: &WordCount, kind: &str) -> Vec<(u64, PathBuf)> {
    let directory = job.data().join("checkpoints").join(if kind.starts_with("delta") { "state" } else { "" });
    let epoch = |name: &str| name.split('-').nth(1).unwrap().parse().unwrap();
    let mut found: Vec<(u64, PathBuf)> = names(&directory)
        .into_iter()
        .filter(|name| name.starts_with(kind))
        .map(|name| (epoch(&name), directory.join(name)))
        .collect();
    found.sort();
    found
}

/// That a refusal leaves everything as it was.
#[track_caller]
fn refused(job: &WordCount, flags: &[&str], said: &[&str]) {
    let (output, checkpoints) = (job.shown(), files(job, "manifest-"));
    job.run(flags).expect(78, said);
    assert_eq!(job.shown(), output, "a refusal has changed the output");
    assert_eq!(files(job, "manifest-"), checkpoints, "a refusal has changed the checkpoints");
}
