//! What others see: the consumer group through Kafka's own tool, and metrics.

use super::broker::{Broker, broker, numbers};
use super::{collecting, run, to_end, up_to, wait_until};
use crate::common::{Process, Scratch, myself};
use metrics_exporter_prometheus::PrometheusBuilder;
use millstream::prelude::*;
use std::collections::BTreeMap;

/// What `kafka-consumer-groups --describe` says of each partition: offset, end of the log, lag.
fn described(broker: &Broker, group: &str) -> BTreeMap<(String, i32), [Option<i64>; 3]> {
    let table = broker.tool(&["consumer-groups", "--describe", "--group", group]);
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let Some(head) = rows.find(|row| row.contains(&"CURRENT-OFFSET")) else { return BTreeMap::new() };
    let column = |name| head.iter().position(|column| *column == name).unwrap();
    let [topic, partition, at, end, lag] =
        ["TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"].map(column);
    let row = |row: Vec<&str>| {
        let key = (row.get(topic)?.to_string(), row.get(partition)?.parse().ok()?);
        Some((key, [at, end, lag].map(|column| row.get(column)?.parse().ok())))
    };
    rows.filter_map(row).collect()
}

fn number(broker: &Broker, group: &str, topic: &str, partition: i32, column: usize) -> i64 {
    described(broker, group).get(&(topic.to_owned(), partition)).and_then(|row| row[column]).unwrap_or(-1)
}

/// The lag of a group by Kafka's tool; -1 if it knows none.
pub(super) fn lag(broker: &Broker, group: &str, topic: &str, partition: i32) -> i64 {
    number(broker, group, topic, partition, 2)
}

/// Where a group is, likewise.
pub(super) fn offset(broker: &Broker, group: &str, topic: &str, partition: i32) -> i64 {
    number(broker, group, topic, partition, 0)
}

#[test]
fn kafkas_own_tool_shows_offsets_and_lag_of_the_group() {
    let broker = broker();
    let topic = broker.topic("group", 3, &[]);
    let group = format!("{topic}-readers");
    let (scratch, read) = (Scratch::new(), to_end(broker, &*topic).group(&*group));
    broker.write(numbers(&topic, 0, 0..10).chain(numbers(&topic, 1, 10..15)));
    assert_eq!(run(&scratch, read.clone()), up_to(15));
    broker.write(numbers(&topic, 1, 15..22));
    let key = |partition| (topic.clone(), partition);
    let shown = described(broker, &group);
    let expect = [(key(0), [10, 10, 0]), (key(1), [5, 12, 7]), (key(2), [0, 0, 0])];
    assert_eq!(shown, expect.map(|(key, row)| (key, row.map(Some))).into());
    // the group is not asked where to go on
    broker.tool(&[
        "consumer-groups",
        "--group",
        &group,
        "--topic",
        &topic,
        "--reset-offsets",
        "--to-earliest",
        "--execute",
    ]);
    assert_eq!(offset(broker, &group, &topic, 0), 0);
    assert_eq!(run(&scratch, read), (15..22).collect::<Vec<_>>());
    let shown = described(broker, &group);
    let expect = [(key(0), [10, 10, 0]), (key(1), [12, 12, 0]), (key(2), [0, 0, 0])];
    assert_eq!(shown, expect.map(|(key, row)| (key, row.map(Some))).into());
}

#[test]
fn the_group_is_named_after_job_and_source_and_can_be_left_alone() {
    let broker = broker();
    let topic = broker.topic("no-group", 1, &[]);
    broker.write(numbers(&topic, 0, 0..10));
    let quiet = format!("{topic}-quiet");
    assert_eq!(run(&Scratch::new(), to_end(broker, &*topic).group(&*quiet).commit_offsets(false)), up_to(10));
    assert_eq!(offset(broker, "test.records", &topic, 0), -1);
    let groups = broker.tool(&["consumer-groups", "--list"]);
    assert!(!groups.lines().any(|group| group == quiet), "{groups}");
    assert_eq!(run(&Scratch::new(), to_end(broker, &*topic)), up_to(10));
    assert_eq!(offset(broker, "test.records", &topic, 0), 10);
}

/// While it runs, offsets are shown checkpoint by checkpoint, and not what was read since.
#[test]
fn a_running_job_shows_what_is_decided() {
    let broker = broker();
    let topic = broker.topic("running", 1, &[]);
    let group = format!("{topic}-readers");
    broker.write(numbers(&topic, 0, 0..10));
    let read = Kafka::new(&*broker.address).read(&*topic).group(&*group);
    let (job, _seen) = collecting(&Scratch::new(), read);
    super::plain(async {
        let job = job.checkpoint_interval(Duration::from_hours(1)).start().await.unwrap();
        wait_until("all is read", || job.status().records_in == 10);
        assert!(offset(broker, &group, &topic, 0) <= 0, "offsets were committed before they were decided");
        job.checkpoint().await.unwrap();
        wait_until("the offset is shown", || offset(broker, &group, &topic, 0) == 10);
        job.stop().await.unwrap();
    });
}

/// Not a test: reads slowly under a recorder of its own, and prints what it has been told of lag.
#[test]
#[ignore = "started by another test"]
fn measured_process() {
    let Ok(topic) = std::env::var("MILLSTREAM_TEST_TOPIC") else { return };
    let brokers = std::env::var("MILLSTREAM_TEST_BROKERS").unwrap();
    let recorder = PrometheusBuilder::new().install_recorder().unwrap();
    let scratch = Scratch::new();
    let read = Kafka::new(brokers).read(topic);
    let topology = move |t: &Topology| {
        t.source("records", read.clone().text().rate(100)).discard();
        Ok(())
    };
    let interval = Duration::from_millis(100);
    let job = Job::new("measured", topology).data_dir(scratch.path()).checkpoint_interval(interval).workers(1);
    super::plain(async {
        let job = job.start().await.unwrap();
        loop {
            let read = job.status().records_in;
            println!("{}", recorder.render());
            println!("read {read}");
            if read == 600 {
                tokio::time::sleep(Duration::from_secs(3)).await;
                println!("done");
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
}

#[test]
fn lag_and_expiry_are_metrics_of_each_partition() {
    let broker = broker();
    let hour_ms = 3_600_000;
    let topic = broker.topic("measured", 1, &[("retention.ms", &hour_ms.to_string())]);
    let now = millstream::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    // half an hour old, so they have half an hour left
    broker.write(numbers(&topic, 0, 0..600).map(|rec| rec.at(now - hour_ms / 2)));
    let scratch = Scratch::new();
    let mut command = myself("kafka::group::measured_process");
    command.env("MILLSTREAM_TEST_TOPIC", &topic).env("MILLSTREAM_TEST_BROKERS", &broker.address);
    let mut process = Process::start(&mut command, &scratch.join("log"));
    let seen = |process: &Process, name: &str| -> Vec<f64> {
        let start = format!("millstream_source_{name}{{job=\"measured\",operator=\"records\",split=\"{topic}/0\"}} ");
        let printed = process.printed();
        printed.lines().filter_map(|line| line.strip_prefix(&*start)?.parse().ok()).collect()
    };
    wait_until("the lag is gone", || seen(&process, "lag_records").last() == Some(&0.0));
    wait_until("nothing can expire", || seen(&process, "expiry_seconds").last() == Some(&f64::INFINITY));
    let lags = seen(&process, "lag_records");
    assert!(lags.is_sorted_by(|one, next| one >= next) && lags[0] > 100.0, "{lags:?}");
    let expiry = seen(&process, "expiry_seconds");
    let left: Vec<_> = expiry.into_iter().filter(|seconds| seconds.is_finite()).collect();
    assert!(left.iter().any(|seconds| (1700.0..=1800.0).contains(seconds)), "{left:?}");
    process.kill();
}
