//! Operators without keys: one that asks a service, each question with a latency of its own, so that calls are under
//! way at every instant; behind an exchange one that gathers answers by sevens, so that some are always kept. Both have
//! items, nothing has keys, and so no order is known: each record is in the output once.

use super::campaign::{Places, Subject};
use super::progress::Progress;
use crate::common::{self, Asks, mix, myself};
use futures::FutureExt;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

const SPLITS: u64 = 5;
const CHUNK: usize = 7;
/// Calls under way in a subtask at once.
const AT_ONCE: usize = 30;

/// How a life runs.
#[derive(Serialize, Deserialize)]
pub(super) struct Spec {
    root: PathBuf,
    life: usize,
    parallelism: usize,
    rate: Option<u64>,
    /// Records of each split.
    count: u64,
}

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

/// The pipeline.
pub(super) fn job(spec: Spec) -> Job {
    let places = Places { root: spec.root };
    let progress = Arc::new(Progress::new(&places.progress(), spec.life));
    let output = places.output();
    let topology = move |t: &Topology| {
        let progress = progress.clone();
        let make = move |split, offset| {
            progress.read(split, offset);
            split << 32 | offset
        };
        let ask = |question| {
            let call = async move {
                tokio::time::sleep(latency(question)).await;
                Ok((question, answer(question)))
            };
            call.boxed_local()
        };
        t.source("questions", Generator::new(make).splits(SPLITS).count(spec.count).rate(spec.rate))
            .operator("asks", move || Asks::new(AT_ONCE, ask))
            .map(|(question, answer)| format!("{question} {answer}"))
            .rebalance()
            .operator("chunks", || Chunks)
            .parallelism(1 + spec.parallelism % 3)
            .sink("answers", Files::write(&output).text());
        Ok(())
    };
    Job::new("crash_lookups", topology)
        .data_dir(places.data())
        .checkpoint_interval(Duration::from_millis(60))
        .parallelism(spec.parallelism)
        .workers(2)
        .restart(RestartPolicy::never())
}

/// The input and what is right.
pub(super) struct Lookups {
    places: Places,
    count: u64,
}

impl Lookups {
    /// With so many records of each split.
    pub(super) fn new(places: &Places, count: u64) -> Self {
        Self { places: places.clone(), count }
    }
}

impl Subject for Lookups {
    fn command(&self, life: usize, parallelism: usize, paced: bool) -> Command {
        let (root, rate, count) = (self.places.root.clone(), paced.then_some(1500), self.count);
        let spec = Spec { root, life, parallelism, rate, count };
        let mut command = myself("crash::pipeline_process");
        command.env("MILLSTREAM_TEST_LOOKUPS", serde_json::to_string(&spec).unwrap());
        command
    }

    fn more_input(&mut self) {
        self.count += 400;
    }

    fn probe(&mut self) {
        self.count += 100;
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
        let questions = (0..SPLITS).flat_map(|split| (0..self.count).map(move |offset| split << 32 | offset));
        let expect: Vec<String> = questions.map(|question| format!("{question} {}", answer(question))).collect();
        if let Some(lost) = expect.iter().find(|pair| !found.contains_key(pair.as_str())) {
            return Err(format!("{lost} was never answered"));
        }
        match found.len() - expect.len() {
            0 => Ok(()),
            more => Err(format!("{more} answers to nothing")),
        }
    }

    fn input(&self) -> u64 {
        self.count * SPLITS
    }
}
