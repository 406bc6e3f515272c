//! State written at one parallelism and restored at others: every value of every key is there, and is there once.

use crate::common::{Output, Scratch, job, mix, names};
use millstream::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

const SPLITS: u64 = 3;

#[derive(State)]
struct Entry {
    count: ValueState<u64>,
    text: ValueState<String>,
}

/// Keeps the count and the last text of each key; every 11th text is taken out again.
struct Keep;
impl Process for Keep {
    type Key = String;
    type In = (String, u64);
    type Out = String;
    type State = Entry;
    fn on_record(
        &self,
        (key, n): (String, u64),
        entry: &mut Entry,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), BoxError> {
        let count = entry.count.or_default();
        *count += 1;
        let before = entry.text.take();
        cx.emit(format!("{key} {n} {count} {before:?}"));
        if n % 11 != 0 {
            entry.text.set(format!("text {n}"));
        }
        if n % 13 == 0 {
            entry.count.take();
        }
        Ok(())
    }
}

/// A way to run: parallelism of the job, of the operator if it differs, rows in the cache if few.
#[derive(Debug, Clone, Copy)]
struct Round {
    parallelism: usize,
    operator: Option<usize>,
    cache: Option<usize>,
}

fn round(parallelism: usize, operator: impl Into<Option<usize>>, cache: impl Into<Option<usize>>) -> Round {
    Round { parallelism, operator: operator.into(), cache: cache.into() }
}

fn key(split: u64, n: u64, keys: u64) -> String {
    format!("key {}", mix(n) % keys * SPLITS + split)
}

/// Runs one round up to `count` records of each split.
fn run(scratch: &Scratch, round: Round, keys: u64, count: u64, rate: Option<u64>) {
    let output = scratch.join("out");
    let topology = move |t: &Topology| {
        let make = move |split, n| (key(split, n, keys), n);
        let numbers = t.source("numbers", Generator::new(make).splits(SPLITS).count(count).rate(rate));
        let mut kept = numbers.key_by(|(key, _)| key).process("keep", Keep);
        if let Some(operator) = round.operator {
            kept = kept.parallelism(operator);
        }
        kept.sink("kept", Files::write(&output).text());
        Ok(())
    };
    let mut job = job(scratch, topology).parallelism(round.parallelism).checkpoint_interval(Duration::from_millis(20));
    if let Some(rows) = round.cache {
        job = job.cache_rows(rows);
    }
    job.run().unwrap();
}

/// Compares the output with plain loops over the same records.
#[track_caller]
fn check(output: &Path, keys: u64, count: u64) {
    let mut expect: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut state: BTreeMap<String, (Option<u64>, Option<String>)> = BTreeMap::new();
    for (split, n) in (0..SPLITS).flat_map(|split| (0..count).map(move |n| (split, n))) {
        let key = key(split, n, keys);
        let (so_far, text) = state.entry(key.clone()).or_default();
        let now = so_far.unwrap_or(0) + 1;
        expect.entry(key.clone()).or_default().push(format!("{key} {n} {now} {text:?}"));
        *text = (n % 11 != 0).then(|| format!("text {n}"));
        *so_far = (n % 13 != 0).then_some(now);
    }
    let output = Output::of(output);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in output.lines("kept") {
        let key = line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ");
        found.entry(key).or_default().push(line.to_owned());
    }
    assert_eq!(found.len(), expect.len(), "keys");
    for (key, expect) in expect {
        assert_eq!(found[&key], expect, "{key}");
    }
}

/// Runs the rounds one after the other, each over so many more records of each split.
fn rounds(rounds: &[Round], keys: u64, more: u64) {
    let scratch = Scratch::new();
    for (at, round) in rounds.iter().enumerate() {
        run(&scratch, *round, keys, more * (at as u64 + 1), None);
    }
    check(&scratch.join("out"), keys, more * rounds.len() as u64);
}

#[test]
fn f14_from_each_parallelism_to_each() {
    let pairs = (1..=5).flat_map(|from| (1..=5).map(move |to| [from, to]));
    let all: Vec<Round> = pairs.flatten().map(|parallelism| round(parallelism, None, None)).collect();
    rounds(&all, 700, 500);
}

#[test]
fn with_few_rows_in_memory() {
    let all = [1, 3, 2, 5, 4, 1].map(|parallelism| round(parallelism, None, 100));
    rounds(&all, 4000, 6000);
}

#[test]
fn with_few_rows_and_many_in_turn() {
    rounds(&[round(2, None, 50), round(5, None, None), round(1, None, 50), round(4, None, None)], 3000, 5000);
}

#[test]
fn of_one_operator_only() {
    rounds(&[round(2, 1, None), round(2, 128, 64), round(3, 7, None), round(1, 2, 64), round(2, 5, None)], 2000, 4000);
}

#[test]
fn down_to_one_and_up_again_with_nothing_to_read_in_between() {
    let scratch = Scratch::new();
    for parallelism in [4, 1, 3] {
        run(&scratch, round(parallelism, None, None), 1000, 3000, None);
    }
    run(&scratch, round(2, None, None), 1000, 6000, None);
    check(&scratch.join("out"), 1000, 6000);
}

/// Checkpoints enough for folds of deltas into bases, before and after each change of parallelism. How often a state is
/// folded is not promised, so it is read on until it was.
#[test]
fn after_folds() {
    let scratch = Scratch::new();
    let epochs = |directory: &str, kind: &str| {
        let all = names(&scratch.join(directory)).into_iter();
        let epochs = all.filter_map(|name| name.strip_prefix(kind)?.split('-').next()?.parse::<u64>().ok());
        epochs.max().unwrap_or(0)
    };
    let mut count = 0;
    for parallelism in [3, 5, 2, 2] {
        let before = epochs("data/checkpoints", "manifest-");
        for _ in 0..50 {
            count += 2000;
            run(&scratch, round(parallelism, None, 200), 2000, count, Some(24_000));
            if epochs("data/checkpoints/state", "base-") > before {
                break;
            }
        }
        assert!(epochs("data/checkpoints/state", "base-") > before, "no fold in 50 runs");
    }
    check(&scratch.join("out"), 2000, count);
}

/// Rows stay in memory for many epochs after they were changed, and leave it then: at any age, before and after the
/// fold that takes their epoch.
#[test]
fn rows_that_leave_long_after_they_changed() {
    let scratch = Scratch::new();
    for (at, parallelism) in [1, 1, 2, 2].into_iter().enumerate() {
        let count = 1500 * (at as u64 + 1);
        run(&scratch, round(parallelism, None, 400), 500, count, Some(4500));
    }
    check(&scratch.join("out"), 500, 6000);
}
