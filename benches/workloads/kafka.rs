//! Jobs that read from and write to a real Apache Kafka, which runs beside them. Each beside the loop that one would
//! write by hand, with the same settings of the clients, or held to a time.

mod bare;
mod broker;
mod jobs;
mod latency;
mod restart;

pub(crate) use restart::child;

use crate::measure::{interleaved, median, quantile};
use crate::report::{Bar, Row};
use crate::watch::Taken;
use crate::{Effort, Workload, against};
use broker::{Broker, broker};
use millstream::prelude::*;

/// They need a broker, so they run only when they are asked for.
pub(crate) const WORKLOADS: [(&str, Workload); 4] = [
    ("kafka_read", kafka_read),
    ("kafka_count", kafka_count),
    ("kafka_latency", kafka_latency),
    ("kafka_restart", kafka_restart),
];

/// Of each topic.
const PARTITIONS: i32 = 4;

/// The size of a record's value.
const BYTES: usize = 100;

const KEYS: u64 = 1_000_000;

/// A record: its key as W2 has it, then its number or the time it was made.
fn value(key: u64, more: u64) -> [u8; BYTES] {
    let mut value = [b'.'; BYTES];
    value[..8].copy_from_slice(&key.to_le_bytes());
    value[8..16].copy_from_slice(&more.to_le_bytes());
    value
}

/// The number at a place of a value.
#[inline]
fn number<const AT: usize>(record: &KafkaRecord<'_>) -> Result<u64, BoxError> {
    let bytes = record.value().and_then(|value| value.get(AT..)?.first_chunk()).ok_or("the value is too short")?;
    Ok(u64::from_le_bytes(*bytes))
}

/// A topic of `n` records.
fn filled(n: u64) -> (&'static Broker, String) {
    let broker = broker();
    let topic = broker.topic("records");
    broker.fill(&topic, (0..n).map(|i| value(crate::r#gen::dense(i, KEYS), i)));
    (broker, topic)
}

fn kafka_read(effort: Effort) -> Vec<Row> {
    let n = 6_000_000 / effort.less;
    let (broker, topic) = filled(n);
    let [job, limit] =
        interleaved(effort.rounds, [&mut || jobs::read(broker, &topic, n), &mut || bare::read(broker, &topic, n)]);
    broker.delete(&topic);
    let note = "two workers; one thread over `rd_kafka_consume_batch_queue`";
    vec![against("kafka_read", Bar::AtLeast(0.9, 1.0), &job, &limit, note)]
}

fn kafka_count(effort: Effort) -> Vec<Row> {
    let n = 4_000_000 / effort.less;
    let (broker, topic) = filled(n);
    let mut taken = Vec::new();
    let [job, limit] = interleaved(
        effort.rounds,
        [&mut || jobs::count(broker, &topic, n, &mut taken), &mut || bare::count(broker, &topic, n)],
    );
    broker.delete(&topic);
    let took: Vec<f64> = taken.iter().map(|taken| taken.took_ms).collect();
    let note = format!(
        "two workers, exactly once, a checkpoint each second, which takes {:.0} ms; hashbrown, one thread, a \
        transaction each second",
        median(&took)
    );
    vec![against("kafka_count", Bar::AtLeast(0.85, 1.0), &job, &limit, &note)]
}

fn kafka_latency(effort: Effort) -> Vec<Row> {
    let seconds = 24 / effort.less.min(2);
    // a broker that was started just now is slow until its code is compiled
    latency::of(broker(), true, 12);
    let exactly = latency::of(broker(), true, seconds);
    let least = latency::of(broker(), false, seconds);
    let row = |name, took: &[f64], bar| {
        let [median, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(took, share));
        Row {
            name,
            figure: format!("median {median:.1}, max {max:.1} ms"),
            baseline: "-".into(),
            value: p99,
            unit: " ms",
            bar,
            note: format!("p99 of {} records, {} a second; a checkpoint each 100 ms", took.len(), latency::RATE),
        }
    };
    vec![
        commit(&exactly.checkpoints),
        row("kafka_exactly_once", &exactly.took_ms, Bar::AtMost(200.0, 150.0)),
        row("kafka_at_least_once", &least.took_ms, Bar::AtMost(20.0, 10.0)),
    ]
}

/// From the last part of a checkpoint that is durable to the decision.
fn commit(checkpoints: &[Taken]) -> Row {
    let took: Vec<f64> = checkpoints.iter().map(|taken| taken.decision_ms).collect();
    let all: Vec<f64> = checkpoints.iter().map(|taken| taken.took_ms).collect();
    Row {
        name: "kafka_commit",
        figure: format!("p90 {:.1}, max {:.1} ms", quantile(&took, 0.9), quantile(&took, 1.0)),
        baseline: "-".into(),
        value: median(&took),
        unit: " ms",
        bar: Bar::AtMost(50.0, 25.0),
        note: format!("{} checkpoints; from the barrier: {:.1} ms", took.len(), median(&all)),
    }
}

fn kafka_restart(effort: Effort) -> Vec<Row> {
    let n = if effort.less > 1 { 100_000 } else { 1_000_000 };
    let starts = restart::starts(broker(), n, effort.rounds.min(3));
    let beyond: Vec<f64> = starts.iter().map(|start| start.first_ms - start.init_ms).collect();
    let first: Vec<f64> = starts.iter().map(|start| start.first_ms).collect();
    let init: Vec<f64> = starts.iter().map(|start| start.init_ms).collect();
    vec![Row {
        name: "kafka_restart",
        figure: format!("{:.0} (max {:.0}) ms in all", median(&first), quantile(&first, 1.0)),
        baseline: format!("init_transactions {:.0} ms", median(&init)),
        value: median(&beyond),
        unit: " ms",
        bar: Bar::AtMost(1000.0, 500.0),
        note: format!(
            "{} starts after kill -9, {} MB of state",
            starts.len(),
            n * restart::ROW_BYTES as u64 / 1_000_000
        ),
    }]
}
