//! Where reading starts and where it stops, without a checkpoint and with one.

use super::broker::{Rec, broker, numbers};
use super::{collecting, is_misused, is_refused, plain, run, sorted, to_end, up_to, wait_until};
use crate::common::{Scratch, job};
use millstream::Phase;
use millstream::prelude::*;
use millstream::sources::kafka::ReadKafka;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

fn partition(topic: &str, partition: i32) -> KafkaPartition {
    KafkaPartition::new(topic, partition)
}

/// Runs a job that never ends until `holds` for what it has read, then stops it.
fn run_until(scratch: &Scratch, read: ReadKafka, meanwhile: impl FnOnce(), count: usize) -> Vec<u64> {
    let (job, seen) = collecting(scratch, read);
    plain(async {
        let job = job.start().await.unwrap();
        wait_until("it runs", || job.status().phase == Phase::Running);
        meanwhile();
        wait_until("all is read", || job.status().records_in >= count as u64);
        job.stop().await.unwrap();
    });
    sorted(seen.take())
}

#[test]
fn a_start_at_the_latest_offset_is_pinned_before_the_first_record() {
    let broker = broker();
    let topic = broker.topic("latest", 2, &[]);
    broker.write(numbers(&topic, 0, 0..50).chain(numbers(&topic, 1, 50..60)));
    let read = Kafka::new(&*broker.address).read(&*topic).from_latest();
    let scratch = Scratch::new();
    // it starts, reads nothing, and is gone
    assert_eq!(run_until(&scratch, read.clone(), || {}, 0), [0; 0]);
    // what comes while it is away comes after its start
    broker.write(numbers(&topic, 0, 60..65).chain(numbers(&topic, 1, 65..66)));
    let more = || broker.write(numbers(&topic, 1, 66..70));
    assert_eq!(run_until(&scratch, read, more, 10), (60..70).collect::<Vec<_>>());
}

/// Also when its rate does not allow for a record yet, so that it is asked to wait first.
#[test]
fn a_job_that_has_read_all_ends_when_it_is_started_again() {
    let broker = broker();
    let topic = broker.topic("again", 2, &[]);
    broker.write(numbers(&topic, 0, 0..20));
    let scratch = Scratch::new();
    let read_again = || {
        let (sink, seen) = Collected::new();
        let read = to_end(broker, &*topic).text();
        let topology = move |t: &Topology| {
            t.source("records", read.clone().rate(500)).sink("out", sink.clone());
            Ok(())
        };
        job(&scratch, topology).run().unwrap();
        seen.take().len()
    };
    assert_eq!(read_again(), 20);
    for _ in 0..5 {
        assert_eq!(read_again(), 0);
    }
}

#[test]
fn a_source_without_an_end_reads_what_comes_and_goes_on_where_it_was() {
    let broker = broker();
    let topic = broker.topic("never", 2, &[]);
    broker.write(numbers(&topic, 0, 0..10));
    let (read, scratch) = (Kafka::new(&*broker.address).read(&*topic), Scratch::new());
    let more = || broker.write(numbers(&topic, 1, 10..20));
    assert_eq!(run_until(&scratch, read.clone(), more, 20), up_to(20));
    let more = || broker.write(numbers(&topic, 0, 20..30));
    assert_eq!(run_until(&scratch, read.clone(), more, 10), (20..30).collect::<Vec<_>>());
    // the same pipeline, bounded
    assert_eq!(run(&scratch, read.clone().until_end()), [0; 0]);
    broker.write(numbers(&topic, 1, 30..31));
    assert_eq!(run(&scratch, read.until_end()), [30]);
}

#[test]
fn starts_and_stops_at_times() {
    let broker = broker();
    let topic = broker.topic("times", 2, &[]);
    let at = |n: u64| Rec::new(&topic, (n % 2) as i32, n.to_string()).at(1_700_000_000_000 + n as i64);
    broker.write((0..100).map(at));
    let read = Kafka::new(&*broker.address).read(&*topic);
    let time = |n: i64| Timestamp::from_millis(1_700_000_000_000 + n);
    let of = |read: ReadKafka| run(&Scratch::new(), read);
    assert_eq!(of(read.clone().from_timestamp(time(40)).until_timestamp(time(60))), (40..60).collect::<Vec<_>>());
    assert_eq!(of(read.clone().until_timestamp(time(-5))), [0; 0]);
    // beyond all records: begins at the end, and ends where the log does
    assert_eq!(of(read.clone().from_timestamp(time(1000)).until_end()), [0; 0]);
    assert_eq!(of(read.clone().until_timestamp(time(1000))), up_to(100));
    let future = Timestamp::from_millis(i64::MAX / 4);
    is_misused(read.until_timestamp(future), &["a time to come"]);
}

#[test]
fn starts_and_stops_at_offsets() {
    let broker = broker();
    let topic = broker.topic("offsets", 2, &[]);
    broker.write(numbers(&topic, 0, 0..10).chain(numbers(&topic, 1, 10..20)));
    let read = Kafka::new(&*broker.address).read(&*topic);
    let both = |one, two| [(partition(&topic, 0), one), (partition(&topic, 1), two)];
    let of = |read: ReadKafka| run(&Scratch::new(), read);
    let some = read.clone().from_offsets(both(8, 0)).until_offsets(both(10, 2));
    assert_eq!(of(some), [8, 9, 10, 11]);
    let one = [(partition(&topic, 0), 3)];
    is_misused(read.clone().from_offsets(one.clone()).until_end(), &[&format!("no start offset is said of {topic}/1")]);
    is_misused(read.clone().until_offsets(one), &[&format!("no stop offset is said of {topic}/1")]);
    let three = both(0, 0).into_iter().chain([(partition(&topic, 7), 0)]);
    is_misused(read.clone().from_offsets(three), &[&format!("said of {topic}/7, which is not read")]);

    // beside the log: refused, or as the policy says
    let beside = read.until_end().from_offsets(both(11, 0));
    let scratch = Scratch::new();
    is_refused(&scratch, beside.clone(), &[&format!("{topic}/0 is to be read from offset 11"), "from 0 up to 10"]);
    assert_eq!(of(beside.clone().when_out_of_range(OutOfRange::Earliest)), up_to(20));
    assert_eq!(of(beside.when_out_of_range(OutOfRange::Latest)), (10..20).collect::<Vec<_>>());
}

/// A stop that is not there yet is waited for.
#[test]
fn a_stop_may_lie_ahead() {
    let broker = broker();
    let topic = broker.topic("ahead", 1, &[]);
    broker.write(numbers(&topic, 0, 0..5));
    let read = Kafka::new(&*broker.address).read(&*topic).until_offsets([(partition(&topic, 0), 8)]);
    let (job, seen) = collecting(&Scratch::new(), read);
    plain(async {
        let job = job.start().await.unwrap();
        wait_until("what is there is read", || job.status().records_in == 5);
        broker.write(numbers(&topic, 0, 5..12));
        job.wait().await.unwrap();
    });
    assert_eq!(sorted(seen.take()), up_to(8));
}

#[test]
fn a_job_takes_over_where_a_consumer_group_is() {
    let broker = broker();
    let topic = broker.topic("take-over", 2, &[]);
    broker.write(numbers(&topic, 0, 0..10).chain(numbers(&topic, 1, 10..20)));
    let group = format!("{topic}-others");
    let mut config = broker.client();
    let other: BaseConsumer = config.set("group.id", &group).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(7)).unwrap();
    other.commit(&offsets, CommitMode::Sync).unwrap();
    // partition 1 has no offset: from its start
    let read = to_end(broker, &*topic).from_group(group);
    assert_eq!(run(&Scratch::new(), read), (7..20).collect::<Vec<_>>());
}

#[test]
fn f12_new_partitions_and_topics_are_found_while_the_job_runs() {
    let broker = broker();
    let topic = broker.topic("found", 1, &[]);
    broker.write(numbers(&topic, 0, 0..5));
    let (scratch, pattern) = (Scratch::new(), format!("{topic}.*"));
    let read = Kafka::new(&*broker.address).read(Topics::matching(pattern)).from_latest();
    let read = read.discover_every(Duration::from_millis(200));
    let other = format!("{topic}-other");
    let grow = || {
        broker.widen(&topic, 3);
        broker.make(&other, 2, &[]);
        wait_until("brokers know it", || {
            let listed = broker.tool(&["topics", "--describe", "--topic", &other]);
            listed.contains("PartitionCount: 2")
        });
        broker.write(numbers(&topic, 2, 10..20).chain(numbers(&other, 0, 20..25)).chain(numbers(&topic, 0, 25..26)));
    };
    assert_eq!(run_until(&scratch, read.clone(), grow, 16), (10..26).collect::<Vec<_>>());
    // the checkpoint has them
    let more = || broker.write(numbers(&other, 0, 26..28).chain(numbers(&topic, 1, 28..30)));
    assert_eq!(run_until(&scratch, read, more, 4), (26..30).collect::<Vec<_>>());
}

#[test]
fn new_partitions_and_topics_are_read_from_their_start() {
    let broker = broker();
    let topic = broker.topic("grows", 1, &[]);
    broker.write(numbers(&topic, 0, 0..5));
    let (scratch, pattern) = (Scratch::new(), format!("{topic}.*"));
    // the start is for what is there when a job has no checkpoint; what comes later is read whole
    let read = to_end(broker, Topics::matching(pattern)).from_latest();
    assert_eq!(run(&scratch, read.clone()), [0; 0]);
    broker.widen(&topic, 3);
    let other = format!("{topic}-other");
    broker.make(&other, 1, &[]);
    broker.write([(&topic, 2, 10), (&other, 0, 11)].map(|(topic, at, n)| Rec::new(topic, at, n.to_string())));
    // brokers need a moment to know
    wait_until("the new partitions are read", || run(&scratch, read.clone()) == [10, 11]);
}
