//! Operators without keys: one that asks a service, each question with a latency of its own, so that calls are under
//! way at every instant; behind an exchange one that gathers answers by sevens, so that some are always kept. Both have
//! items, nothing has keys, and so no order is known: each record is in the output once.

use super::campaign::{Life, Made, Subject, Told};
use crate::common::{self, Asks, mix};
use futures::FutureExt;
use millstream::prelude::*;
use std::collections::BTreeMap;
use std::process::Command;

const CHUNK: usize = 7;
/// Calls under way in a subtask at once.
const AT_ONCE: usize = 30;

/// Up to 20 ms, now and then 100.
fn latency(question: u64) -> Duration {
    let random = mix(question);
    Duration::from_millis(if random.is_multiple_of(50) { 100 } else { random % 20 })
}

fn answer(question: u64) -> u64 {
    mix(question) >> 8
}

/// Hands on its items by sevens, and the rest at the end.
struct Chunks;

impl Operator for Chunks {
    type In = String;
    type Out = String;
    type Item = String;
    async fn on_batch(
        &mut self,
        batch: Batch<String>,
        items: &mut Vec<String>,
        out: &mut Output<String>,
    ) -> Result<(), BoxError> {
        items.extend(batch.values);
        while items.len() >= CHUNK {
            out.emit(Record::untimed(items.drain(..CHUNK).collect::<Vec<_>>().join(",")));
        }
        Ok(())
    }
    async fn on_end(&mut self, items: &mut Vec<String>, out: &mut Output<String>) -> Result<(), BoxError> {
        items.drain(..).for_each(|item| out.emit(Record::untimed(item)));
        Ok(())
    }
}

fn question(split: u64, offset: u64, _: u64) -> u64 {
    split << 32 | offset
}

/// The pipeline.
pub(super) fn job(told: Told) -> Job {
    let made = told.input();
    told.job(move |t, life| {
        let ask = |question| {
            let call = async move {
                tokio::time::sleep(latency(question)).await;
                Ok((question, answer(question)))
            };
            call.boxed_local()
        };
        life.source(t, made, 1500, question)
            .operator("asks", move || Asks::new(AT_ONCE, ask))
            .map(|(question, answer)| format!("{question} {answer}"))
            .rebalance()
            .operator("chunks", || Chunks)
            .parallelism(1 + life.parallelism % 3)
            .sink("answers", life.files().text());
    })
}

/// The input and what is right.
pub(super) struct Lookups(Made);

impl Lookups {
    /// With so many records of each split.
    pub(super) fn new(count: u64) -> Self {
        Self(Made::new(count))
    }
}

impl Subject for Lookups {
    fn command(&self, life: &Life) -> Command {
        life.process("lookups", self.0)
    }

    fn more_input(&mut self) {
        self.0.count += 400;
    }

    fn probe(&mut self) {
        self.0.count += 100;
    }

    fn check(&self, output: &common::Output) -> Result<(), String> {
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        output
            .lines("answers")
            .into_iter()
            .flat_map(|line| line.split(','))
            .for_each(|pair| *found.entry(pair).or_default() += 1);
        if let Some((pair, times)) = found.iter().find(|(_, times)| **times > 1) {
            return Err(format!("{pair} was answered {times} times in place of once"));
        }
        let expect: Vec<String> =
            self.0.all(question).map(|question| format!("{question} {}", answer(question))).collect();
        if let Some(lost) = expect.iter().find(|pair| !found.contains_key(pair.as_str())) {
            return Err(format!("{lost} was never answered"));
        }
        match found.len() - expect.len() {
            0 => Ok(()),
            more => Err(format!("{more} answers to nothing")),
        }
    }

    fn input(&self) -> u64 {
        self.0.records()
    }
}
