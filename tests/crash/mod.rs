//! Real processes, killed with SIGKILL at any instant: what they have written in the end is what they would have
//! written undisturbed, and so is what they know.
//!
//! `campaign.rs` kills, `progress.rs` shows that work is not done again, `large.rs` has state of full size, and each of
//! the other files is a pipeline with its oracle, plain loops over the same input. At least 20 kills in the normal
//! suite; hundreds with `MILLSTREAM_SOAK=1`. `MILLSTREAM_SEED` repeats the one campaign of a failure: the same
//! instants, as far as the machine allows.

mod branches;
mod broadcast;
mod campaign;
mod example;
#[cfg(feature = "kafka")]
mod kafka;
mod large;
mod lookups;
mod numbers;
mod progress;
mod states;
mod timers;
mod words;

use crate::common::{Scratch, is_soak, mix, peak, seed};
use campaign::{Places, Report, Subject, Told};
use std::collections::BTreeMap;

/// Not a test: the process that the others start and kill.
#[test]
#[ignore = "started by other tests"]
fn pipeline_process() {
    let Some(told) = Told::here() else { return };
    let job = match &*told.pipeline {
        "words" => words::job(told),
        "numbers" => numbers::job(told),
        "states" => states::job(told),
        "lookups" => lookups::job(told),
        "branches" => branches::job(told),
        "broadcast" => broadcast::job(told),
        #[cfg(feature = "kafka")]
        "kafka" => kafka::job(told),
        "entries" => large::entries(told),
        "alarms" => large::alarms(told),
        "timers" => timers::job(told),
        name => panic!("no pipeline `{name}`"),
    };
    let code = match job.run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            error.kind().exit_code()
        }
    };
    println!("peak {}", peak(std::process::id()));
    std::process::exit(code.into());
}

/// Campaigns of 24 kills at most, each with a seed and directories of its own, until there were enough kills.
fn campaigns<S: Subject>(name: &str, kills: (usize, usize), new: impl Fn(&Places) -> S) {
    let wanted = if is_soak() { kills.1 } else { kills.0 };
    let (first, mut done, mut left) = (seed(), 0, BTreeMap::<_, usize>::new());
    for number in 0.. {
        let seed = if number == 0 { first } else { mix(first + number) >> 16 };
        let report = campaign(name, seed, (wanted - done).min(24), &new);
        done += report.kills;
        report.left.into_iter().for_each(|(what, kills)| *left.entry(what).or_default() += kills);
        if done >= wanted {
            break;
        }
    }
    println!("{name}: {done} kills left {left:?}");
    let all = ["nothing", "records", "pending", "unfinished"];
    assert!(!is_soak() || all.iter().all(|what| left.contains_key(what)), "kills are not spread: {left:?}");
}

fn campaign<S: Subject>(name: &str, seed: u64, kills: usize, new: impl Fn(&Places) -> S) -> Report {
    let scratch = Scratch::new();
    let places = Places::of(&scratch);
    let mut subject = new(&places);
    let report = campaign::run(&mut subject, &places, kills, seed);
    let report = report.and_then(|report| report.progress(subject.input()).map(|()| report));
    let report = report.unwrap_or_else(|e| panic!("{name}: {e}\nrepeat with MILLSTREAM_SEED={seed}"));
    let Report { kills, lives, epochs, .. } = report;
    let read: u64 = report.read.iter().map(|life| life.records).sum();
    let read = if read > 0 { format!("{read} read of ") } else { String::new() };
    println!("{name}, seed {seed}: {kills} kills, {lives} lives, {epochs} epochs, {read}{}", subject.input());
    report
}

#[test]
fn soak_words() {
    campaigns("words", (8, 200), |places| words::Words::new(places, 3000));
}

#[test]
fn soak_numbers() {
    campaigns("numbers", (10, 200), |_| numbers::Numbers::new(60_000));
}

#[test]
fn soak_states() {
    campaigns("states", (10, 200), |_| states::States::new(30_000));
}

#[test]
fn soak_lookups() {
    campaigns("lookups", (10, 200), |_| lookups::Lookups::new(1500));
}

#[test]
fn soak_branches() {
    campaigns("branches", (6, 150), |places| branches::Events::new(places, 6000));
}

#[test]
fn soak_broadcast() {
    campaigns("broadcast", (8, 150), |_| broadcast::Broadcast::new(2500));
}

#[test]
fn soak_timers() {
    campaigns("timers", (8, 200), |_| timers::Timers::new(25_000));
}

#[test]
fn soak_word_count() {
    campaigns("word_count", (8, 120), |places| example::Novels::new(places, 7000));
}

#[cfg(feature = "kafka")]
#[test]
fn soak_kafka() {
    campaigns("kafka", (10, 200), |places| kafka::Topic::new(places, 9000));
}

/// The oracle of `soak_numbers` is of use: it finds state that no snapshot knows of.
#[test]
fn state_outside_of_the_runtime_is_found() {
    let scratch = Scratch::new();
    let places = Places::of(&scratch);
    let mut subject = numbers::Numbers::new(10_000);
    subject.is_sabotaged = true;
    let found = campaign::run(&mut subject, &places, 3, 1).unwrap_err();
    assert!(found.contains("in place of"), "{found}");
}
