//! A topic of committed, aborted and plain records, written to files as it is, and counted by key.
//!
//! The oracle is Kafka's own console consumer, reading what is committed, and a count of what it says.

use super::campaign::{Life, Places, Subject, Told};
use crate::common::{Output, counted, mix};
use crate::kafka::broker::{Rec, broker};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::process::Command;

const PARTITIONS: i32 = 5;
const KEYS: u64 = 300;

/// Where a pipeline reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Input {
    brokers: String,
    topic: String,
}

/// The pipeline.
pub(super) fn job(told: Told) -> Job {
    let Input { brokers, topic } = told.input();
    told.job(move |t, life| {
        let progress = life.progress.clone();
        let decode = move |record: &KafkaRecord<'_>| {
            progress.read(record.partition() as u64, record.offset() as u64);
            Ok((record.key_text()?.to_owned(), format!("{}\t{}", record.partition(), record.text()?)))
        };
        let kafka = Kafka::new(&*brokers);
        let records = t.source("records", kafka.read(&*topic).until_end().decode(decode).rate(life.rate(6000)));
        records.clone().map(|(_, line)| line).sink("lines", life.files().text());
        records
            .key_by_value(|(key, _)| key.clone())
            .aggregate("count", |of| of.count())
            .map(|(key, count)| format!("{key}\t{count}"))
            .sink("counts", life.files().text());
    })
}

/// The topic.
pub(super) struct Topic {
    input: Input,
    /// Records that are to be read.
    records: u64,
}

impl Topic {
    pub(super) fn new(_: &Places, records: u64) -> Self {
        let (brokers, topic) = (broker().address.clone(), broker().topic("crash", PARTITIONS, &[]));
        let mut this = Self { input: Input { brokers, topic }, records: 0 };
        while this.records < records {
            this.more_input();
        }
        this
    }

    fn record(&self, key: u64, n: u64) -> Rec {
        Rec::new(&self.input.topic, (mix(n) % PARTITIONS as u64) as i32, format!("{key} {n}")).key(format!("key{key}"))
    }

    /// Writes records of these keys: plain, in a transaction, and some that are given up.
    fn write(&mut self, keys: impl Iterator<Item = u64>) {
        let records: Vec<_> = (self.records..).zip(keys).map(|(n, key)| self.record(key, n)).collect();
        let (plain, rest) = records.split_at(records.len() / 2);
        broker().write(plain.iter().cloned());
        broker().transaction(false, (0..70).map(|n| self.record(n, u64::MAX - n)));
        broker().transaction(true, rest.iter().cloned());
        self.records += records.len() as u64;
    }

    /// What the console consumer prints, by partition.
    fn committed(&self) -> BTreeMap<String, Vec<String>> {
        let most = self.records.to_string();
        let said = broker().tool(&[
            "console-consumer",
            "--topic",
            &self.input.topic,
            "--isolation-level",
            "read_committed",
            "--from-beginning",
            "--formatter-property",
            "print.partition=true",
            "--max-messages",
            &most,
            "--timeout-ms",
            "30000",
        ]);
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for line in said.lines() {
            let (partition, value) = line.split_once('\t').unwrap();
            let partition = partition.trim_start_matches("Partition:").to_owned();
            all.entry(partition).or_default().push(value.to_owned());
        }
        all
    }
}

impl Subject for Topic {
    fn command(&self, life: &Life) -> Command {
        life.process("kafka", &self.input)
    }

    fn more_input(&mut self) {
        let from = self.records;
        self.write((0..1500).map(|n| mix(from + n) % KEYS));
    }

    fn probe(&mut self) {
        self.write(0..KEYS);
    }

    fn check(&self, output: &Output) -> Result<(), String> {
        let committed = self.committed();
        let all: usize = committed.values().map(Vec::len).sum();
        if all as u64 != self.records {
            return Err(format!("the console consumer has read {all} records of {}", self.records));
        }
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for line in output.lines("lines") {
            let (partition, value) = line.split_once('\t').unwrap();
            found.entry(partition.to_owned()).or_default().push(value.to_owned());
        }
        for (partition, expect) in &committed {
            let found = found.remove(partition).unwrap_or_default();
            if let Some(at) = (0..found.len().max(expect.len())).find(|at| found.get(*at) != expect.get(*at)) {
                let (is, should) = (found.get(at), expect.get(at));
                return Err(format!("record {at} of partition {partition} is {is:?} in place of {should:?}"));
            }
        }
        if let Some((partition, records)) = found.first_key_value() {
            return Err(format!("partition {partition} has {} records and should have none", records.len()));
        }
        let mut totals = BTreeMap::<String, u64>::new();
        for value in committed.values().flatten() {
            let (key, _) = value.split_once(' ').unwrap();
            *totals.entry(format!("key{key}")).or_default() += 1;
        }
        let counts = output.lines("counts").into_iter().map(|line| {
            let (key, count) = line.split_once('\t').unwrap();
            (key.to_owned(), count.parse().unwrap())
        });
        counted("counts", counts, &totals)
    }

    fn input(&self) -> u64 {
        self.records
    }
}
