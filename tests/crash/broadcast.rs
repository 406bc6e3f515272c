//! Records for all subtasks: each subtask of an operator says which one it is, of how many, and in which life; behind
//! an exchange by key all the copies of a rule are counted. At another parallelism a record has another number of
//! copies, so what is right follows from which life they came from, and that from the output: all copies of a record
//! are of one life, one of each subtask, in order; and a rule's count, restored and dealt anew each time, is that of
//! its copies.

use super::campaign::{Life, Made, SPLITS, Subject, Told};
use crate::common::{self, counted, mix};
use millstream::prelude::*;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const RULES: u64 = 500;

#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Rule {
    split: u64,
    offset: u64,
    rule: u64,
}

/// Before `probe_from` random rules, from there on each rule of the split once.
fn rule(split: u64, offset: u64, probe_from: u64) -> Rule {
    let at = if offset >= probe_from { offset - probe_from } else { mix(split << 48 | offset) % (RULES / SPLITS) };
    Rule { split, offset, rule: at * SPLITS + split }
}

/// Where a copy of a record came to.
struct Tag {
    life: usize,
    subtask: usize,
    of: usize,
}

impl Operator for Tag {
    type In = Rule;
    type Out = (u64, String);
    type Item = ();
    async fn on_batch(
        &mut self,
        batch: Batch<Rule>,
        _: &mut Vec<()>,
        out: &mut Output<(u64, String)>,
    ) -> Result<(), BoxError> {
        let Self { life, subtask, of } = self;
        for Rule { split, offset, rule } in batch.values {
            out.emit(Record::untimed((rule, format!("{split} {offset} {life} {subtask} {of}"))));
        }
        Ok(())
    }
}

/// The pipeline.
pub(super) fn job(told: Told) -> Job {
    let made = told.input();
    told.job(move |t, running| {
        let (life, of, next) = (running.number, 1 + running.parallelism % 4, AtomicUsize::new(0));
        let copies = running
            .source(t, made, 2500, rule)
            .broadcast_all()
            .operator("tags", move || Tag { life, subtask: next.fetch_add(1, Relaxed), of })
            .parallelism(of);
        copies.clone().map(|(_, copy)| copy).sink("copies", running.files().text());
        let count = |count: &mut u64, (rule, _): (u64, String)| {
            *count += 1;
            format!("{rule} {count}")
        };
        copies.key_by(|(rule, _)| rule).map_with_state("rules", count).sink("counts", running.files().text());
    })
}

/// The input and what is right.
pub(super) struct Broadcast(Made);

impl Broadcast {
    /// With so many records of each split.
    pub(super) fn new(count: u64) -> Self {
        Self(Made::new(count))
    }
}

/// The copies of one record.
#[derive(Default)]
struct Copies {
    life: usize,
    of: usize,
    /// By subtask.
    seen: Vec<bool>,
}

impl Copies {
    fn add(&mut self, life: usize, subtask: usize, of: usize) -> Result<(), String> {
        if self.seen.is_empty() {
            *self = Self { life, of, seen: vec![false; of] };
        }
        if (self.life, self.of) != (life, of) {
            return Err(format!("copies of lives {} and {life}, for {} and {of} subtasks", self.life, self.of));
        }
        match self.seen.get_mut(subtask) {
            Some(seen @ false) => {
                *seen = true;
                Ok(())
            }
            _ => Err(format!("once more for subtask {subtask} of {of}, in life {life}")),
        }
    }
}

/// The copies of each record, which are complete but for those of records that have none at all; in the order of the
/// lines each subtask of each life got the records of a split one after the other.
fn copies<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<BTreeMap<(u64, u64), usize>, String> {
    let (mut all, mut last) = (BTreeMap::<(u64, u64), Copies>::new(), BTreeMap::new());
    for line in lines {
        let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
        let Some([split, offset, life, subtask, of]) = numbers.as_deref() else {
            return Err(format!("a strange line: {line}"));
        };
        let place = |why: String| format!("record {offset} of split {split}: {why}");
        let copies = all.entry((*split, *offset)).or_default();
        copies.add(*life as usize, *subtask as usize, *of as usize).map_err(place)?;
        if let Some(before) = last.insert((*life, *subtask, *split), *offset).filter(|before| before + 1 != *offset) {
            return Err(place(format!("came to subtask {subtask} behind record {before}, in life {life}")));
        }
    }
    for ((split, offset), copies) in &all {
        if let Some(subtask) = copies.seen.iter().position(|seen| !seen) {
            return Err(format!("record {offset} of split {split} did not come to subtask {subtask} of {}", copies.of));
        }
    }
    Ok(all.into_iter().map(|(record, copies)| (record, copies.of)).collect())
}

impl Subject for Broadcast {
    fn command(&self, life: &Life) -> Command {
        life.process("broadcast", self.0)
    }

    fn more_input(&mut self) {
        self.0.count += 600;
    }

    fn probe(&mut self) {
        self.0.probe(RULES / SPLITS);
    }

    fn check(&self, output: &common::Output) -> Result<(), String> {
        let mut copies = copies(output.lines("copies"))?;
        let mut totals = BTreeMap::<String, u64>::new();
        for Rule { split, offset, rule } in self.0.all(rule) {
            let of = copies.remove(&(split, offset));
            let of = of.ok_or_else(|| format!("record {offset} of split {split} came to nobody"))?;
            *totals.entry(rule.to_string()).or_default() += of as u64;
        }
        if let Some(((split, offset), _)) = copies.pop_first() {
            return Err(format!("there is no record {offset} of split {split}"));
        }
        let counts = output.lines("counts").into_iter().map(|line| {
            let (rule, count) = line.split_once(' ').unwrap();
            (rule.to_owned(), count.parse().unwrap())
        });
        counted("counts", counts, &totals)
    }

    fn input(&self) -> u64 {
        self.0.records()
    }
}

#[test]
fn copies_are_complete_in_order_and_of_one_life() {
    let check = |lines: &[&'static str]| copies(lines.iter().copied()).err().unwrap_or_default();
    assert_eq!(check(&["0 0 1 0 2", "1 0 1 1 2", "0 0 1 1 2", "1 0 1 0 2", "0 1 2 0 1", "1 1 2 0 1"]), "");
    for (lines, expect) in [
        (&["0 0 1 0 2"][..], "record 0 of split 0 did not come to subtask 1 of 2"),
        (&["0 0 1 0 2", "0 0 1 0 2"], "once more for subtask 0"),
        (&["0 0 1 0 2", "0 0 1 2 2"], "once more for subtask 2 of 2"),
        (&["0 0 1 0 2", "0 0 2 1 2"], "copies of lives 1 and 2"),
        (&["0 0 1 0 1", "0 2 1 0 1"], "record 2 of split 0: came to subtask 0 behind record 0"),
        (&["0 1 1 0 1", "0 0 1 0 1"], "record 0 of split 0: came to subtask 0 behind record 1"),
        (&["0 0 1 0"], "a strange line"),
    ] {
        let found = check(lines);
        assert!(found.contains(expect), "`{expect}` is not in `{found}`");
    }
}
