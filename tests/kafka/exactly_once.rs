//! Jobs that write exactly once: what readers of committed records see, after failures of all kinds.

use super::broker::{Broker, broker, numbers};
use super::{to_end, wait_until};
use crate::common::{Scratch, job, mix};
use millstream::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A job of this name with a data directory of its own.
fn named(
    name: &str,
    scratch: &Scratch,
    topology: impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static,
) -> Job {
    Job::new(name, topology)
        .data_dir(scratch.join("data"))
        .parallelism(2)
        .workers(2)
        .memory(64 << 20)
        .checkpoint_interval(Duration::from_millis(100))
        .restart(RestartPolicy { pause: Duration::from_millis(10), ..RestartPolicy::default() })
}

/// Counts each key of `from`, and writes every new count to `to`. Calls `happens` with each record.
pub(super) fn counting(
    address: &str,
    (from, to): (&str, &str),
    happens: impl Fn(&str) + Clone + Send + Sync + 'static,
) -> impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static {
    let kafka = Kafka::new(address).self_test(false);
    let (source, to) = (kafka.read(from).until_end(), to.to_owned());
    move |t| {
        let happens = happens.clone();
        t.source("records", source.clone().decode(|r| Ok((r.key_text()?.to_owned(), r.text()?.to_owned()))))
            .inspect(move |(_, text)| happens(text))
            .key_by(|(key, _)| key)
            .map_with_state("counts", |count: &mut u64, (key, _)| {
                *count += 1;
                (key, *count)
            })
            .map(|(key, count)| KafkaMessage::text(count.to_string()).key(key))
            .sink("out", kafka.write(&*to));
        Ok(())
    }
}

/// Writes numbers under ten keys in each of two partitions.
pub(super) fn fill(broker: &Broker, topic: &str, range: std::ops::Range<u64>) {
    for partition in [0, 1] {
        let records = numbers(topic, partition, range.clone()).zip(range.clone());
        broker.write(records.map(|(rec, n)| rec.key(format!("{partition}-{}", n % 10))));
    }
}

/// Each key has been counted up one by one, once, to this.
#[track_caller]
pub(super) fn counts_up_to(broker: &Broker, topic: &str, last: u64) {
    wait_until("all is committed", || broker.committed(topic).len() as u64 >= 20 * last);
    let mut by_key: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    for read in broker.committed(topic) {
        by_key.entry(read.key.clone().unwrap()).or_default().push(read.text().parse().unwrap());
    }
    assert_eq!(by_key.len(), 20);
    for (key, counts) in by_key {
        assert!(counts.iter().copied().eq(1..=last), "{}: {counts:?}", String::from_utf8_lossy(&key));
    }
}

#[test]
fn each_record_counts_once_and_so_it_goes_on() {
    let (broker, scratch) = (broker(), Scratch::new());
    let [from, to] = ["once-from", "once-to"].map(|name| broker.topic(name, 2, &[]));
    let run = || named("once", &scratch, counting(&broker.address, (&from, &to), |_| ())).run().unwrap();
    fill(broker, &from, 0..500);
    run();
    counts_up_to(broker, &to, 50);
    // nothing new is nothing new
    run();
    fill(broker, &from, 500..800);
    run();
    counts_up_to(broker, &to, 80);
    let decisions = broker.committed("__millstream_progress_once");
    assert!(decisions.iter().all(|one| one.text().contains(r#""job":"once""#)));
}

#[test]
fn attempts_that_fail_leave_nothing_twice() {
    let (broker, scratch) = (broker(), Scratch::new());
    let [from, to] = ["fails-from", "fails-to"].map(|name| broker.topic(name, 2, &[]));
    fill(broker, &from, 0..20_000);
    let failures = Arc::new(AtomicU32::new(0));
    let happens = {
        let failures = failures.clone();
        move |text: &str| {
            let n: u64 = text.parse().unwrap();
            // so that some checkpoints come in between
            if n.is_multiple_of(100) {
                std::thread::sleep(Duration::from_millis(2));
            }
            if n % 5000 == 4999 && failures.fetch_add(1, Relaxed).is_multiple_of(2) && failures.load(Relaxed) < 8 {
                panic!("at {n}");
            }
        }
    };
    named("fails", &scratch, counting(&broker.address, (&from, &to), happens)).run().unwrap();
    assert!(failures.load(Relaxed) > 3);
    counts_up_to(broker, &to, 2000);
}

#[test]
fn f8_brokers_that_are_killed_leave_nothing_twice() {
    let (broker, scratch) = (Broker::own(&[]), Scratch::new());
    let [from, to] = ["killed-from", "killed-to"].map(|name| broker.topic(name, 2, &[]));
    fill(&broker, &from, 0..20_000);
    let pace = |text: &str| {
        if text.parse::<u64>().unwrap().is_multiple_of(100) {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let policy = RestartPolicy { attempts: 20, pause: Duration::from_millis(200), ..RestartPolicy::default() };
    let job = named("killed", &scratch, counting(&broker.address, (&from, &to), pace)).restart(policy);
    super::plain(async {
        let job = job.start().await.unwrap();
        for records in [5000, 15_000] {
            wait_until("it is under way", || job.status().records_in >= records);
            broker.kill();
            tokio::time::sleep(Duration::from_millis(500)).await;
            broker.start();
        }
        job.wait().await.unwrap();
    });
    counts_up_to(&broker, &to, 2000);
}

#[test]
fn exactly_once_and_at_least_once_go_together() {
    let (broker, scratch) = (broker(), Scratch::new());
    let [from, exact, fast, dead] =
        ["both-from", "both-exact", "both-fast", "both-dead"].map(|n| broker.topic(n, 1, &[]));
    broker.write(numbers(&from, 0, 0..1000));
    let (source, kafka) = (to_end(broker, &*from), Kafka::new(&*broker.address));
    let sinks = (kafka.write(&*exact).dead_letters(&*dead), kafka.write(&*fast).at_least_once());
    let topology = move |t: &Topology| {
        let all = t.source("records", source.clone().text());
        let message = |text: String| match text.as_str() {
            "500" => KafkaMessage::text("x".repeat(2_000_000)).key("500"),
            _ => KafkaMessage::text(text),
        };
        all.clone().map(message).sink("exact", sinks.0.clone());
        all.map(KafkaMessage::text).sink("fast", sinks.1.clone());
        Ok(())
    };
    job(&scratch, topology).run().unwrap();
    wait_until("all is committed", || broker.committed(&exact).len() == 999 && broker.committed(&dead).len() == 1);
    assert_eq!(broker.committed(&fast).len(), 1000);
    assert_eq!(broker.committed(&dead)[0].key.as_deref(), Some(&b"500"[..]));
}

/// Whether it fits is not known before the broker has rejected it, which ends the attempt.
#[test]
fn a_record_that_stays_too_large_when_it_is_compressed_is_a_dead_letter() {
    let (broker, scratch) = (broker(), Scratch::new());
    let [from, dead] = ["packed-from", "packed-dead"].map(|n| broker.topic(n, 1, &[]));
    let to = broker.topic("packed-to", 1, &[("max.message.bytes", "20000")]);
    broker.write(numbers(&from, 0, 0..100));
    let kafka = Kafka::new(&*broker.address).self_test(false).set("compression.type", "zstd");
    let (source, sink) = (to_end(broker, &*from), kafka.write(&*to).dead_letters(&*dead));
    let topology = move |t: &Topology| {
        let message = |text: String| match text.as_str() {
            "40" => KafkaMessage::text("x".repeat(50_000)).key("packs well"),
            "50" | "60" => {
                let noise = (0..5000u64).flat_map(|n| mix(n ^ text.len() as u64).to_le_bytes()).collect::<Vec<_>>();
                KafkaMessage::bytes(noise).key(text)
            }
            _ => KafkaMessage::text(text),
        };
        t.source("records", source.clone().text()).map(message).sink("out", sink.clone());
        Ok(())
    };
    named("packed", &scratch, topology).run().unwrap();
    wait_until("all is committed", || broker.committed(&to).len() == 98 && broker.committed(&dead).len() == 2);
    for (read, key) in broker.committed(&dead).iter().zip(["50", "60"]) {
        assert_eq!((read.key.as_deref(), read.value.as_ref().unwrap().len()), (Some(key.as_bytes()), 40_000));
        assert!(read.header("millstream.error").contains("`max.message.bytes`"));
    }
}

#[test]
fn two_clusters_cannot_both_decide() {
    let (broker, scratch) = (broker(), Scratch::new());
    let [from, to] = ["two-from", "two-to"].map(|name| broker.topic(name, 1, &[]));
    let source = to_end(broker, &*from);
    let sinks = ["a", "b"].map(|id| Kafka::new(&*broker.address).set("client.id", id).write(&*to));
    let topology = move |t: &Topology| {
        let all = t.source("records", source.clone().text()).map(KafkaMessage::text).boxed();
        all.clone().sink("a", sinks[0].clone());
        all.sink("b", sinks[1].clone());
        Ok(())
    };
    let error = job(&scratch, topology).run().unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("`a`") && error.to_string().contains("`b`"), "{error}");
}
