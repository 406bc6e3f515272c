//! How long a record takes from one topic to the other, through a job that keeps state by key.

use super::broker::{Broker, PATIENCE, Writer, put};
use super::{PARTITIONS, number, value};
use crate::jobs::job;
use crate::watch::{self, Taken};
use millstream::clock;
use millstream::prelude::*;
use millstream::sources::kafka::Bare;
use rdkafka::producer::{BaseRecord, Producer as _};
use std::time::Instant;

/// Records a second.
pub(super) const RATE: u64 = 2000;

/// The producer writes so often, each time to the next partition: a request per record would measure the broker.
const TICK: Duration = Duration::from_millis(5);

/// Seconds that do not count.
const WARM_UP: u64 = 4;

const INTERVAL: Duration = Duration::from_millis(100);

/// What came out.
pub(super) struct Latencies {
    /// From before a record was given to its producer until a reader of committed records had its result.
    pub(super) took_ms: Vec<f64>,
    pub(super) checkpoints: Vec<Taken>,
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn of(broker: &Broker, exactly_once: bool, seconds: u64) -> Latencies {
    let (input, output) = (broker.topic("ticks"), broker.topic("tocks"));
    let n = RATE * seconds / PARTITIONS as u64 * PARTITIONS as u64;
    let (kafka, from, to) = (broker.kafka(), input.clone(), output.clone());
    let (job, _directory) = job(&output, 2, move |t| {
        let ends = (0..PARTITIONS).map(|p| (KafkaPartition::new(&from, p), (n / PARTITIONS as u64) as i64));
        let records = kafka.read(&*from).until_offsets(ends);
        let sink = kafka.write(&*to);
        let sink = if exactly_once { sink } else { sink.at_least_once() };
        t.source("records", records.decode(|record| Ok((number::<0>(record)?, number::<8>(record)?))))
            .key_by(|(key, _)| key)
            .map_with_state("count", |count: &mut u64, (key, at): (u64, u64)| {
                *count += 1;
                (key, at)
            })
            .map(|(key, at)| KafkaMessage::bytes(at.to_le_bytes()).key(key.to_le_bytes()))
            .sink("counts", sink);
        Ok(())
    });
    let job = job.checkpoint_interval(INTERVAL);
    let start = clock::now();
    watch::take();
    let took = std::thread::scope(|scope| {
        let running = scope.spawn(|| job.run());
        let seen = scope.spawn(|| see(broker, &output, n, start));
        std::thread::sleep(Duration::from_secs(1));
        write(broker, &input, n, start);
        running.join().expect("no panic").expect("the job runs");
        seen.join().expect("no panic")
    });
    let checkpoints = watch::take();
    broker.delete(&input);
    broker.delete(&output);
    let counted = (WARM_UP * RATE) as usize;
    let took_ms = took.into_iter().skip(counted).map(|nanos| nanos as f64 / 1e6).collect();
    let early = checkpoints.len() / 4;
    Latencies { took_ms, checkpoints: checkpoints.into_iter().skip(early).collect() }
}

fn write(broker: &Broker, topic: &str, n: u64, start: Instant) {
    let producer: Writer = broker.client().set("linger.ms", "1").create().expect("a producer");
    let begun = clock::now();
    let per_tick = RATE * TICK.as_millis() as u64 / 1000;
    for i in 0..n {
        let tick = i / per_tick;
        if i % per_tick == 0 {
            let due = begun + TICK * tick as u32;
            std::thread::sleep(due.saturating_duration_since(clock::now()));
        }
        let value = value(crate::r#gen::dense(i, 10_000), nanos(start));
        put(&producer, || BaseRecord::to(topic).partition(tick as i32 % PARTITIONS).payload(&value[..]));
    }
    producer.flush(PATIENCE).expect("all is written");
}

/// Nanoseconds that each record took, in the order in which they were seen.
fn see(broker: &Broker, topic: &str, n: u64, start: Instant) -> Vec<u64> {
    let mut consumer = Bare::read(&broker.kafka(), topic, PARTITIONS, 1 << 20).expect("a consumer");
    let mut took = Vec::new();
    let until = clock::now() + Duration::from_secs(n / RATE) + PATIENCE;
    while (took.len() as u64) < n && clock::now() < until {
        let taken = consumer.take(topic, 1, Duration::from_millis(100), |record| {
            took.push(nanos(start).saturating_sub(number::<0>(record)?));
            Ok(())
        });
        taken.expect("records");
    }
    assert_eq!(took.len() as u64, n, "all records come out");
    took
}
