//! How people stop a job, and what they mistype.

use super::{epochs, finished, word_count};
use crate::common::{Ended, Process, Scratch, WordCount, example};
use std::process::Command;

/// Slow, and at work.
fn at_work(job: &WordCount) -> Process {
    let mut process = job.start(&["--rate", "300", "--checkpoint-interval", "100ms", "--parallelism", "2"]);
    assert!(process.wait_until(|| epochs(&job.shown()).len() >= 2).unwrap(), "{}", process.tail());
    process
}

#[test]
fn the_first_signal_asks_for_a_last_checkpoint() {
    for signal in ["TERM", "INT"] {
        let scratch = Scratch::new();
        let job = word_count(&scratch);
        let mut process = at_work(&job);
        process.signal(signal);
        assert_eq!(process.wait().unwrap(), 0, "{}", process.tail());
        assert!(process.printed().contains("word_count stopped: "), "{}", process.tail());
        let read = number_before(&process.printed(), " records in");
        let shown = job.shown();
        // what was read after the last barrier is read again
        let again = job.run(&[]).expect(0, &["finished: ", "resumed from checkpoint"]);
        let rest = number_before(&again.printed, " records in");
        assert!(read > 0 && rest >= 1000 - read && rest < 1000, "{read} and {rest}");
        job.shown().continues(&shown).unwrap();
        job.check(&job.shown()).unwrap();
    }
}

/// The number in front of `words`.
fn number_before(text: &str, words: &str) -> u64 {
    let (before, _) = text.rsplit_once(words).unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Both signals wait for the process when it is let go on.
#[test]
fn the_second_signal_leaves_at_once() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    let mut process = at_work(&job);
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        process.signal(signal);
    }
    assert_eq!(process.wait().unwrap(), 1, "{}", process.tail());
    job.run(&[]).expect(0, &["finished", "resumed from checkpoint"]);
    job.check(&job.shown()).unwrap();
}

#[test]
fn wrong_usage_ends_with_2_and_makes_nothing() {
    let scratch = Scratch::new();
    let job = WordCount::new(scratch.path());
    for (flags, said) in [
        (&["--parallelism", "0"][..], "a number from 1 on"),
        (&["--workers", "many"], "a number from 1 on"),
        (&["--memory", "much"], "--memory"),
        (&["--checkpoint-interval", "often"], "--checkpoint-interval"),
        (&["--restore", "some"], "latest, none or the number"),
        (&["--rate", "0"], "a rate of 0 records per second"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        job.run(flags).expect(2, &[said]);
        assert!(epochs(&job.shown()).is_empty());
    }
    for (arguments, code, said) in
        [(&["run"][..], 2, "--input"), (&[], 2, "Usage"), (&["walk"], 2, "walk"), (&["run", "--help"], 0, "--data-dir")]
    {
        plain(example("word_count").args(arguments)).expect(code, &[said]);
    }
}

fn plain(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ended { code: output.status.code().unwrap(), printed }
}

/// What a person or a program reads of a run that was not on a terminal.
#[test]
fn the_log_says_what_was_done() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let ended = job.run(&[]).expect(0, &["recovered", "job=word_count", "restored="]);
    assert_eq!(number_before(&ended.printed, " records in"), 0);
}
