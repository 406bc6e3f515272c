//! Which topics, what of a record, in which order, how fast and with how much memory.

use super::broker::{Rec, broker, numbers};
use super::{is_misused, run, to_end, up_to};
use crate::common::{MIB, Process, Scratch, collect, gives, job, myself, peak};
use millstream::ErrorKind;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[test]
fn topics_are_read_by_name_by_list_and_by_pattern() {
    let broker = broker();
    let one = broker.topic("by-pattern", 2, &[]);
    let two = broker.topic("by-pattern", 1, &[]);
    let mine = one.rsplit_once('-').unwrap().0.to_owned();
    let hidden = format!("__{mine}");
    broker.make(&hidden, 1, &[]);
    broker.write(numbers(&one, 0, 0..3).chain(numbers(&one, 1, 3..5)).chain(numbers(&two, 0, 5..9)));
    broker.write(numbers(&hidden, 0, 100..101));
    let read = |topics: Topics| run(&Scratch::new(), to_end(broker, topics));
    assert_eq!(read(Topics::named(&*one)), up_to(5));
    assert_eq!(read(Topics::from([&*one, &*two])), up_to(9));
    // internal ones are not found, but whoever names one may read it
    assert_eq!(read(Topics::matching(format!(".*{mine}-.*"))), up_to(9));
    assert_eq!(read(Topics::named(&*hidden)), [100]);
    // the whole name counts
    is_misused(to_end(broker, Topics::matching("by-patter")), &["matching `by-patter`", "make one"]);
    is_misused(to_end(broker, "no-such-topic"), &["no topic `no-such-topic`", "correct the name"]);
    is_misused(to_end(broker, "__millstream_progress_a"), &["decisions of a job"]);
}

#[test]
fn all_of_a_record_is_at_the_decoders_hand() {
    let broker = broker();
    let topic = broker.topic("record", 2, &[]);
    let headers = |rec: Rec| rec.header("a", Some("1")).header("b", None).header("a", Some("2"));
    broker.write([
        headers(Rec::new(&topic, 1, "value").key("key").at(1_700_000_000_123)),
        Rec::tombstone(&topic, 1, "gone").at(5),
        Rec::new(&topic, 1, "").at(6),
    ]);
    let read = to_end(broker, &*topic);
    type Seen = (String, i32, i64, Option<i64>, Option<String>, Option<String>, Vec<(String, Option<String>)>);
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let decode = move |r: &KafkaRecord<'_>| -> Result<Seen, BoxError> {
        let headers = r.headers().map(|(name, value)| (name.to_owned(), text(value))).collect();
        let time = r.timestamp().map(|time| time.as_millis());
        Ok((r.topic().into(), r.partition(), r.offset(), time, text(r.key()), text(r.value()), headers))
    };
    let some = |text: &str| Some(text.to_owned());
    let headers = vec![("a".into(), some("1")), ("b".into(), None), ("a".into(), some("2"))];
    let expect = [
        (topic.clone(), 1, 0, Some(1_700_000_000_123), some("key"), some("value"), headers),
        (topic.clone(), 1, 1, Some(5), some("gone"), None, vec![]),
        (topic, 1, 2, Some(6), None, some(""), vec![]),
    ];
    gives(move |t, sink| t.source("records", read.clone().decode(decode)).sink("out", sink), expect);
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Order {
    id: u64,
    user: String,
}

#[test]
fn values_are_bytes_text_json_or_bincode() {
    let broker = broker();
    let topic = |values: Vec<Vec<u8>>| {
        let topic = broker.topic("formats", 1, &[]);
        broker.write(values.into_iter().map(|value| Rec::new(&topic, 0, value)));
        to_end(broker, &*topic)
    };
    let orders: Vec<_> = (0..9).map(|id| Order { id, user: format!("user {id}") }).collect();
    let json = topic(orders.iter().map(|order| serde_json::to_vec(order).unwrap()).collect());
    gives(move |t, sink| t.source("orders", json.clone().json::<Order>()).sink("out", sink), orders.clone());
    // bincode 2 in its standard configuration: numbers below 251 are a byte, a string is its length and its bytes
    let encode = |order: &Order| [&[order.id as u8, order.user.len() as u8], order.user.as_bytes()].concat();
    let bincode = topic(orders.iter().map(encode).collect());
    gives(move |t, sink| t.source("orders", bincode.clone().bincode::<Order>()).sink("out", sink), orders);
    let (bytes, text) = (b"\xff\x00".to_vec(), "grüße".as_bytes().to_vec());
    let raw = topic(vec![bytes.clone(), text.clone()]);
    gives(move |t, sink| t.source("raw", raw.clone().bytes()).sink("out", sink), [bytes, text.clone()]);
    let read = topic(vec![text]);
    gives(move |t, sink| t.source("text", read.clone().text()).sink("out", sink), ["grüße".to_owned()]);
}

#[test]
fn what_cannot_be_decoded_is_a_value_or_skipped_or_an_error_that_says_where() {
    let broker = broker();
    let topic = broker.topic("undecodable", 1, &[]);
    broker.write(["1", "two", "3"].map(|value| Rec::new(&topic, 0, value)));
    let read = to_end(broker, &*topic);
    let place = format!("{topic}/0");

    let values = read.clone();
    let mut found = collect(2, move |t, sink| t.source("records", values.clone().try_json::<u64>()).sink("out", sink));
    let bad = found.remove(1).unwrap_err();
    assert_eq!((bad.split, bad.offset, bad.bytes), (place.clone(), 1, b"two".to_vec()));
    assert_eq!(found, [Ok(1), Ok(3)]);

    let skipping = read.clone();
    let source = move |t: &Topology, sink| {
        t.source("records", skipping.clone().json::<u64>().skip_undecodable()).sink("out", sink);
    };
    gives(source, [1, 3]);

    let scratch = Scratch::new();
    let failing = move |t: &Topology| {
        t.source("records", read.clone().json::<u64>()).discard();
        Ok(())
    };
    let error = job(&scratch, failing).run().expect_err("a record cannot be decoded");
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Failed);
    for said in ["source `records`", &format!("`{place}`, offset 1"), "no `u64` as JSON", "`two`"] {
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }
}

/// Each value has the number of its partition and a count, so that order shows.
#[test]
fn partitions_keep_their_order_at_any_parallelism() {
    const EACH: u64 = 8000;
    let broker = broker();
    let topic = broker.topic("order", 5, &[("compression.type", "zstd")]);
    let value = |n: u64| format!("{} {}", n % 5, n / 5);
    broker.write((0..5 * EACH).map(|n| Rec::new(&topic, (n % 5) as i32, value(n))));
    for parallelism in [1, 2, 8] {
        let read = to_end(broker, &*topic);
        let lines = collect(parallelism, move |t, sink| t.source("records", read.clone().text()).sink("out", sink));
        assert_eq!(lines.len() as u64, 5 * EACH, "parallelism {parallelism}");
        let mut next = BTreeMap::<String, u64>::new();
        for line in lines {
            let (partition, n) = line.split_once(' ').unwrap();
            let next = next.entry(partition.into()).or_default();
            assert_eq!(n, next.to_string(), "parallelism {parallelism}, partition {partition}");
            *next += 1;
        }
    }
}

#[test]
fn a_rate_is_kept_by_all_subtasks_together() {
    let broker = broker();
    let topic = broker.topic("rate", 4, &[]);
    broker.write((0..400).map(|n: u64| Rec::new(&topic, (n % 4) as i32, n.to_string())));
    let read = to_end(broker, &*topic);
    let start = millstream::clock::now();
    let found = collect(2, move |t, sink| t.source("records", read.clone().text().rate(400)).sink("out", sink));
    let took = start.elapsed();
    assert_eq!(found.len(), 400);
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

/// Not a test: reads 256 MB slowly, so that all that may be read ahead is.
#[test]
#[ignore = "started by another test"]
fn slow_process() {
    let Ok(topic) = std::env::var("MILLSTREAM_TEST_TOPIC") else { return };
    let brokers = std::env::var("MILLSTREAM_TEST_BROKERS").unwrap();
    let scratch = Scratch::new();
    let read = Kafka::new(brokers).read(topic).until_end();
    let topology = move |t: &Topology| {
        t.source("records", read.clone().decode(|record| Ok(record.value().map_or(0, <[u8]>::len))))
            .inspect(|_| std::thread::sleep(Duration::from_millis(1)))
            .discard();
        Ok(())
    };
    let job = Job::new("slow", topology).data_dir(scratch.path()).memory(64 << 20).parallelism(2).workers(2);
    job.run().unwrap();
    println!("peak {}", peak(std::process::id()));
}

#[test]
fn what_is_read_ahead_is_bounded_by_the_memory_of_the_job() {
    let broker = broker();
    let topic = broker.topic("memory", 4, &[]);
    let value = vec![b'x'; 64 << 10];
    broker.write((0..4096).map(|n| Rec::new(&topic, n % 4, value.clone())));
    let scratch = Scratch::new();
    let mut command = myself("kafka::reading::slow_process");
    command.env("MILLSTREAM_TEST_TOPIC", topic).env("MILLSTREAM_TEST_BROKERS", &broker.address);
    let mut process = Process::start(&mut command, &scratch.join("log"));
    assert_eq!(process.wait().unwrap(), 0, "{}", process.tail());
    let printed = process.printed();
    let (_, peak) = printed.lines().find_map(|line| line.split_once("peak ")).unwrap();
    let peak: u64 = peak.trim().parse().unwrap();
    // 256 MB in the topic; 8 to be read ahead, what is on its way besides, and the process itself
    assert!(peak < 120 * MIB, "{} MiB", peak / MIB);
}
