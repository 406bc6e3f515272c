//! What arrives of what is written, at least once; and what cannot be written.

use super::broker::{Rec, broker, numbers};
use super::{plain, to_end};
use crate::common::{Scratch, job};
use millstream::ErrorKind;
use millstream::prelude::*;
use millstream::sinks::kafka::KafkaSink;
use std::collections::{BTreeMap, BTreeSet};

fn kafka() -> Kafka {
    Kafka::new(&*broker().address)
}

/// A job that writes these.
fn writing(scratch: &Scratch, sink: KafkaSink, messages: Vec<KafkaMessage>) -> Job {
    let topology = move |t: &Topology| {
        t.source("messages", Records::of(messages.clone())).sink("out", sink.clone());
        Ok(())
    };
    job(scratch, topology)
}

fn write(sink: KafkaSink, messages: Vec<KafkaMessage>) {
    writing(&Scratch::new(), sink, messages).run().unwrap();
}

/// The error of a job that writes these.
#[track_caller]
fn fails(sink: KafkaSink, messages: Vec<KafkaMessage>, kind: ErrorKind, said: &[&str]) {
    let error = writing(&Scratch::new(), sink, messages).run().expect_err("this must not be written");
    assert_eq!(error.kind(), kind, "{error}");
    said.iter().for_each(|said| assert!(error.to_string().contains(said), "`{said}` is not in: {error}"));
}

#[test]
fn all_of_a_message_arrives() {
    let topic = broker().topic("message", 3, &[]);
    let other = broker().topic("message-other", 1, &[]);
    let time = Timestamp::from_millis(1_700_000_000_123);
    let full = KafkaMessage::json(&("a", 1)).key("k").header("h", "1").header("h", "2").header_without_value("none");
    let messages = vec![
        full.timestamp(time).partition(2),
        KafkaMessage::tombstone().key(b"gone").partition(1),
        KafkaMessage::bytes(b"").key("").partition(0),
        KafkaMessage::text("elsewhere").topic(&*other),
    ];
    write(kafka().write(&*topic).at_least_once(), messages);
    let read = broker().committed(&topic);
    let [empty, gone, full] = &read[..] else { panic!("{read:?}") };
    assert_eq!((empty.partition, &empty.key, &empty.value), (0, &Some(vec![]), &Some(vec![])));
    assert_eq!((gone.partition, &gone.key, &gone.value), (1, &Some(b"gone".to_vec()), &None));
    assert!(gone.time_ms.unwrap() > 1_700_000_000_123, "the time of writing");
    assert_eq!((full.partition, full.text(), full.time_ms), (2, r#"["a",1]"#.into(), Some(1_700_000_000_123)));
    let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(|value| value.as_bytes().to_vec()));
    assert_eq!(full.headers, [header("h", Some("1")), header("h", Some("2")), header("none", None)]);
    let elsewhere = broker().committed(&other);
    assert_eq!(elsewhere.iter().map(|one| one.text()).collect::<Vec<_>>(), ["elsewhere"]);
}

#[test]
fn a_topic_is_copied_with_the_order_of_its_keys() {
    let (from, to) = (broker().topic("copy-from", 2, &[]), broker().topic("copy-to", 4, &[]));
    let records = 20_000;
    for partition in [0, 1] {
        let numbers = numbers(&from, partition, 0..records / 2);
        broker().write(numbers.zip(0u64..).map(|(rec, n)| rec.key(format!("{partition}-{}", n % 10))));
    }
    let (source, sink) = (to_end(broker(), &*from), kafka().write(&*to).at_least_once());
    let topology = move |t: &Topology| {
        t.source("records", source.clone().decode(|r| Ok((r.key_text()?.to_owned(), r.text()?.to_owned()))))
            .map(|(key, value)| KafkaMessage::text(value).key(key))
            .sink("out", sink.clone());
        Ok(())
    };
    job(&Scratch::new(), topology).checkpoint_interval(Duration::from_millis(50)).run().unwrap();
    let mut by_key: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    for read in broker().committed(&to) {
        by_key.entry(read.key.clone().unwrap()).or_default().push(read.text().parse().unwrap());
    }
    assert_eq!(by_key.len(), 20);
    assert_eq!(by_key.values().map(Vec::len).sum::<usize>(), records as usize);
    by_key.values().for_each(|numbers| assert!(numbers.is_sorted(), "{numbers:?}"));
}

/// More than the producer may hold, and it is waited for.
#[test]
fn a_full_producer_holds_the_job_back() {
    let topic = broker().topic("full", 1, &[]);
    let sink = kafka().write(&*topic).at_least_once().set("queue.buffering.max.messages", "100");
    write(sink, (0..5000).map(|n| KafkaMessage::text(n.to_string())).collect());
    assert_eq!(broker().committed(&topic).len(), 5000);
}

#[test]
fn records_without_a_key_are_spread_as_the_sink_says() {
    let messages = || (0..90).map(|n| KafkaMessage::text(n.to_string())).collect::<Vec<_>>();
    let counts = |partitioning: Partitioning, parallelism| {
        let topic = broker().topic("spread", 3, &[]);
        let sink = kafka().write(&*topic).at_least_once().partitioned_by(partitioning);
        writing(&Scratch::new(), sink, messages()).parallelism(parallelism).run().unwrap();
        let mut counts = [0; 3];
        broker().committed(&topic).iter().for_each(|read| counts[read.partition as usize] += 1);
        counts
    };
    assert_eq!(counts(Partitioning::round_robin(), 1), [30, 30, 30]);
    assert_eq!(counts(Partitioning::with(|message, _| message.get_value().unwrap().len() as i32), 1), [0, 10, 80]);
    assert_eq!(counts(Partitioning::by_key(), 1).iter().sum::<i32>(), 90);
}

#[test]
fn what_cannot_be_written_goes_to_the_dead_letters() {
    let topic = broker().topic("living", 2, &[("max.message.bytes", "20000")]);
    let dead = broker().topic("dead", 1, &[("max.message.bytes", "10000")]);
    let sink = kafka().write(&*topic).at_least_once().dead_letters(&*dead);
    let messages = vec![
        KafkaMessage::text("good"),
        KafkaMessage::text("x".repeat(30_000)).key("large").header("mine", "1"),
        KafkaMessage::json(&BTreeMap::from([((1, 2), 3)])).key("json"),
        KafkaMessage::text("nowhere").topic("no-such-topic"),
        KafkaMessage::text("partition").partition(2),
        KafkaMessage::text("time").timestamp(Timestamp::from_millis(0)),
        KafkaMessage::text("good, too"),
    ];
    write(sink, messages);
    let good: BTreeSet<_> = broker().committed(&topic).iter().map(|read| read.text()).collect();
    assert_eq!(good, ["good", "good, too"].map(Into::into).into());
    let read = broker().committed(&dead);
    let [large, json, nowhere, partition, time] = &read[..] else { panic!("{read:?}") };
    assert_eq!((large.key.as_deref(), large.header("mine")), (Some(&b"large"[..]), "1".into()));
    assert_eq!(large.header("millstream.value.bytes"), "30000");
    assert!(large.value.as_ref().unwrap().len() > 9000 && large.header("millstream.error").contains("20000"));
    assert_eq!((json.value.as_ref(), json.key.as_deref()), (None, Some(&b"json"[..])));
    assert!(json.header("millstream.error").contains("cannot be written as JSON"));
    assert_eq!((nowhere.text(), nowhere.header("millstream.topic")), ("nowhere".into(), "no-such-topic".into()));
    assert!(partition.header("millstream.error").contains("the topic has 2"));
    assert!(time.header("millstream.error").contains("1970"));
    for one in &read {
        let place = ["job", "sink"].map(|name| one.header(&format!("millstream.{name}")));
        assert_eq!(place, ["test", "out"]);
    }
}

/// What was not there when the job started is found when a record asks for it.
#[test]
fn partitions_that_are_new_are_written_to() {
    let topic = broker().topic("widened", 1, &[]);
    let (sink, widens) = (kafka().write(&*topic).at_least_once(), topic.clone());
    let topology = move |t: &Topology| {
        let widens = widens.clone();
        t.source("numbers", Generator::new(|_, n| n).count(3).rate(1))
            .inspect(move |n| {
                if *n == 1 {
                    broker().widen(&widens, 3);
                }
            })
            .map(|n| KafkaMessage::text(n.to_string()).partition(n as i32))
            .sink("out", sink.clone());
        Ok(())
    };
    job(&Scratch::new(), topology).parallelism(1).run().unwrap();
    let found: Vec<_> = broker().committed(&topic).iter().map(|read| read.partition).collect();
    assert_eq!(found, [0, 1, 2]);
}

#[test]
fn without_dead_letters_it_ends_the_attempt() {
    let topic = broker().topic("large", 1, &[("max.message.bytes", "20000")]);
    let sink = || kafka().write(&*topic).at_least_once();
    let large = vec![KafkaMessage::text("x".repeat(30_000))];
    let said = ["`out`", &*topic, "30097 bytes", "`max.message.bytes`", "20000", ".dead_letters(topic)"];
    fails(sink(), large, ErrorKind::Failed, &said);
    let unencodable = vec![KafkaMessage::json(&BTreeMap::from([((1, 2), 3)]))];
    fails(sink(), unencodable, ErrorKind::Failed, &["`out`", &*topic, "JSON"]);
    assert!(broker().committed(&topic).is_empty());
}

/// What compresses well may be larger than the topic allows: that is seen by the broker.
#[test]
fn a_record_that_the_broker_refuses_says_which_setting() {
    let topic = broker().topic("refused", 1, &[("max.message.bytes", "20000")]);
    let mut noise = 1u64;
    let bytes = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 56) as u8
    });
    let sink = || kafka().write(&*topic).at_least_once().set("compression.type", "zstd");
    let noise: Vec<u8> = bytes.take(50_000).collect();
    fails(
        sink(),
        vec![KafkaMessage::bytes(noise)],
        ErrorKind::Failed,
        &[&*topic, "50000 bytes", "`max.message.bytes`"],
    );
    write(sink(), vec![KafkaMessage::bytes(vec![0; 50_000])]);
    assert_eq!(broker().committed(&topic).len(), 1);
}

#[test]
fn what_does_not_go_together_is_said_before_anything_is_written() {
    let topic = broker().topic("misused", 1, &[]);
    let none = |sink: KafkaSink, said: &[&str]| fails(sink, vec![], ErrorKind::Usage, said);
    none(kafka().write("no-such-topic").at_least_once(), &["no topic `no-such-topic`", "`out`"]);
    none(kafka().write(&*topic).at_least_once().dead_letters("no-dead"), &["no topic `no-dead`"]);
    none(kafka().write("__millstream_progress_x").at_least_once(), &["decisions of a job"]);
    none(kafka().write(&*topic).at_least_once().set("acks", "1"), &["`acks`", "cannot be set"]);
    none(kafka().write(&*topic).at_least_once().set("lingr.ms", "1"), &["`lingr.ms`"]);
    none(kafka().set("transactional.id", "x").write(&*topic).at_least_once(), &["`transactional.id`", "job's name"]);
    fails(
        kafka().set("batch.size", "1000").write(&*topic).at_least_once(),
        vec![KafkaMessage::text("a").topic(broker().topic("tiny", 1, &[("max.message.bytes", "500")]))],
        ErrorKind::Usage,
        &["`batch.size`", "up to 500 bytes"],
    );
}

/// What failed is written again, and nothing is missing.
#[test]
fn a_failure_repeats_records_and_loses_none() {
    let (from, to) = (broker().topic("again-from", 1, &[]), broker().topic("again-to", 1, &[]));
    broker().write(numbers(&from, 0, 0..2000));
    let (source, sink) = (to_end(broker(), &*from), kafka().write(&*to).at_least_once());
    let failures = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let topology = move |t: &Topology| {
        let failures = failures.clone();
        t.source("records", source.clone().text())
            .map(move |line| {
                let first = failures.load(std::sync::atomic::Ordering::Relaxed) == 0;
                if first && line == "1500" {
                    failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    panic!("once");
                }
                KafkaMessage::text(line)
            })
            .sink("out", sink.clone());
        Ok(())
    };
    let policy = RestartPolicy::default();
    let job = job(&Scratch::new(), topology).parallelism(1).restart(policy);
    job.checkpoint_interval(Duration::from_millis(20)).run().unwrap();
    let read: BTreeSet<u64> = broker().committed(&to).iter().map(|read| read.text().parse().unwrap()).collect();
    assert_eq!(read, (0..2000).collect());
}

#[test]
fn undecodable_records_and_types_of_ones_own_are_taken_as_they_are() {
    #[derive(Debug, Clone)]
    struct Order(u64);
    impl From<Order> for KafkaMessage {
        fn from(order: Order) -> Self {
            KafkaMessage::text(format!("order {}", order.0))
        }
    }
    let (from, to) = (broker().topic("own-from", 1, &[]), broker().topic("own-to", 1, &[]));
    let dead = broker().topic("own-dead", 1, &[]);
    broker().write(["1", "x", "2"].map(|value| Rec::new(&from, 0, value)));
    let (source, to_sink) = (to_end(broker(), &*from), kafka().write(&*to).at_least_once());
    let dead_sink = kafka().write(&*dead).at_least_once();
    let topology = move |t: &Topology| {
        let (numbers, undecodable) = t.source("records", source.clone().try_json::<u64>()).split();
        numbers.map(Order).sink("orders", to_sink.clone());
        undecodable.sink("dead_letters", dead_sink.clone());
        Ok(())
    };
    plain(async { job(&Scratch::new(), topology).start().await.unwrap().wait().await }).unwrap();
    let read: Vec<_> = broker().committed(&to).iter().map(|read| read.text()).collect();
    assert_eq!(read, ["order 1", "order 2"]);
    let read = broker().committed(&dead);
    assert_eq!((read.len(), read[0].text()), (1, "x".into()));
    assert_eq!(read[0].header("millstream.split"), format!("{from}/0"));
    assert_eq!(read[0].header("millstream.offset"), "1");
}
