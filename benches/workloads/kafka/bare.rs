//! The same work without an engine, as one would write it by hand: one thread, and those of the client.

use super::broker::{Broker, PATIENCE, Writer, put};
use super::{PARTITIONS, number};
use crate::r#gen::mix;
use crate::measure::{Figure, Watch};
use hashbrown::HashMap;
use millstream::clock;
use millstream::prelude::*;
use millstream::sources::kafka::Bare;
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

/// As much as a job with two subtasks may read ahead.
const AHEAD: usize = 64 << 20;

/// Records per call.
const MOST: usize = 1000;

/// How long a call waits for that many.
const WAIT: Duration = Duration::from_millis(100);

fn open(broker: &Broker, topic: &str) -> Bare {
    Bare::read(&broker.kafka(), topic, PARTITIONS, AHEAD).expect("a consumer")
}

pub(super) fn read(broker: &Broker, topic: &str, n: u64) -> Figure {
    let mut consumer = open(broker, topic);
    let (mut records, mut sum) = (0, 0u64);
    let mut watch = None;
    while records < n {
        let taken = consumer.take(topic, MOST, WAIT, |record| {
            sum = sum.wrapping_add(mix(number::<0>(record)?));
            Ok(())
        });
        records += taken.expect("records") as u64;
        watch.get_or_insert_with(Watch::start);
    }
    let (seconds, cpu_seconds) = watch.map_or((0.0, 0.0), |watch| watch.read());
    Figure { records, seconds, cpu_seconds, output: (records, sum) }
}

/// The running count of each key, with the offsets in a transaction each second.
pub(super) fn count(broker: &Broker, topic: &str, n: u64) -> Figure {
    let output = broker.topic("bare");
    let mut consumer = open(broker, topic);
    let group = consumer.group().expect("a group");
    let producer = producer(broker, &output);
    producer.init_transactions(PATIENCE).expect("the right to commit");
    producer.begin_transaction().expect("a transaction");
    let mut counts = HashMap::<u64, u64>::new();
    let mut offsets = [0; PARTITIONS as usize];
    let commit = |offsets: &[i64]| {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets.iter().enumerate() {
            list.add_partition_offset(topic, partition as i32, Offset::Offset(*offset)).expect("an offset");
        }
        producer.send_offsets_to_transaction(&list, &group, PATIENCE).expect("offsets");
        // with some of them under way, the commit would wait 100 ms at a time
        while producer.in_flight_count() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        producer.commit_transaction(PATIENCE).expect("a commit");
    };
    let (mut records, mut watch, mut due) = (0, None, None);
    while records < n {
        let taken = consumer.take(topic, MOST, WAIT, |record| {
            let key = number::<0>(record)?;
            let count = counts.entry(key).or_default();
            *count += 1;
            let (key, count) = (key.to_le_bytes(), count.to_le_bytes());
            put(&producer, || BaseRecord::to(&output).key(&key[..]).payload(&count[..]));
            offsets[record.partition() as usize] = record.offset() + 1;
            Ok(())
        });
        records += taken.expect("records") as u64;
        watch.get_or_insert_with(Watch::start);
        let now = clock::now();
        let due = due.get_or_insert(now + Duration::from_secs(1));
        if now >= *due {
            *due = now + Duration::from_secs(1);
            commit(&offsets);
            producer.begin_transaction().expect("a transaction");
        }
    }
    commit(&offsets);
    let (seconds, cpu_seconds) = watch.map_or((0.0, 0.0), |watch| watch.read());
    let figure = Figure { records, seconds, cpu_seconds, output: sum(broker, &output, n) };
    broker.delete(&output);
    figure
}

/// With the settings of the sink.
fn producer(broker: &Broker, id: &str) -> Writer {
    let mut config = broker.client();
    let settings = [
        ("transactional.id", id),
        ("linger.ms", "5"),
        ("queue.buffering.max.messages", "500000"),
        ("queue.buffering.max.kbytes", "131072"),
        ("delivery.report.only.error", "true"),
        ("partitioner", "murmur2_random"),
    ];
    for (name, value) in settings {
        config.set(name, value);
    }
    config.create().expect("a producer")
}

/// How many counts are committed in a topic, and their sum.
pub(super) fn sum(broker: &Broker, topic: &str, n: u64) -> (u64, u64) {
    let mut consumer = open(broker, topic);
    let (mut records, mut sum) = (0, 0u64);
    let until = clock::now() + PATIENCE;
    while records < n && clock::now() < until {
        let taken = consumer.take(topic, MOST, WAIT, |record| {
            sum = sum.wrapping_add(number::<0>(record)?);
            Ok(())
        });
        records += taken.expect("counts") as u64;
    }
    (records, sum)
}
