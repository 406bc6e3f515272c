//! The workloads with Kafka as jobs.

use super::broker::Broker;
use super::{bare, number};
use crate::r#gen::mix;
use crate::jobs::{job, whole};
use crate::measure::{Figure, Watch};
use crate::meter::Meter;
use crate::watch::{self, Taken};
use millstream::clock;
use millstream::prelude::*;
use std::sync::{Arc, OnceLock};

/// Kafka -> map -> nothing.
pub(super) fn read(broker: &Broker, topic: &str, n: u64) -> Figure {
    let meter = Meter::default();
    let (sink, kafka, topic) = (meter.clone(), broker.kafka(), topic.to_owned());
    let (job, _directory) = job("kafka_read", 2, move |t| {
        let records = kafka.read(&*topic).until_end().decode(number::<0>);
        t.source("records", records).map(mix).sink("meter", sink.clone());
        Ok(())
    });
    whole(job, &meter, n)
}

/// Kafka -> the running count of each key -> Kafka. The time is from the first record to the last decision; the
/// checkpoints are given, too.
pub(super) fn count(broker: &Broker, topic: &str, n: u64, taken: &mut Vec<Taken>) -> Figure {
    let output = broker.topic("counts");
    let first = Arc::<OnceLock<_>>::default();
    let (kafka, from, to, begun) = (broker.kafka(), topic.to_owned(), output.clone(), first.clone());
    let (job, _directory) = job(&output, 2, move |t| {
        let begun = begun.clone();
        let records = kafka.read(&*from).until_end().decode(move |record| {
            begun.get_or_init(|| (Watch::start(), clock::now()));
            number::<0>(record)
        });
        t.source("records", records)
            .key_by(|key| key)
            .map_with_state("count", |count: &mut u64, key| {
                *count += 1;
                (key, *count)
            })
            .map(|(key, count)| KafkaMessage::bytes(count.to_le_bytes()).key(key.to_le_bytes()))
            .sink("counts", kafka.write(&*to));
        Ok(())
    });
    watch::take();
    job.checkpoint_interval(Duration::from_secs(1)).run().expect("the job runs");
    let checkpoints = watch::take();
    let (watch, since) = first.get().expect("a record was read");
    let (_, cpu_seconds) = watch.read();
    let until = checkpoints.last().and_then(|taken| taken.at).expect("the last epoch was decided");
    let seconds = until.saturating_duration_since(*since).as_secs_f64();
    let figure = Figure { records: n, seconds, cpu_seconds, output: bare::sum(broker, &output, n) };
    broker.delete(&output);
    // the first is taken before any record flows
    taken.extend(checkpoints.into_iter().skip(1));
    figure
}
