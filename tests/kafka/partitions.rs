//! That keys go where Java's producers put them, so that a topic may have writers of both kinds.

use super::broker::broker;
use crate::common::{Scratch, job};
use millstream::prelude::*;
use std::collections::BTreeMap;

/// Keys, and their partitions of 3, 7 and 12. Printed by Java from `BuiltInPartitioner.partitionForKey(bytes, n)` of
/// kafka-clients 4.3.1, the keys in UTF-8; the hash is `Utils.murmur2(bytes)`.
const JAVA: &[(&str, i32, [i32; 3])] = &[
    ("", 275646681, [0, 2, 9]),
    ("a", -1563381124, [1, 5, 4]),
    ("ab", 316155434, [2, 0, 2]),
    ("abc", 479470107, [0, 4, 3]),
    ("abcd", -1323649548, [2, 5, 8]),
    ("abcde", 461995741, [1, 4, 1]),
    ("key", -1079937367, [1, 4, 1]),
    ("user-1", 1404122828, [2, 3, 8]),
    ("user-2", -324981792, [2, 0, 8]),
    ("user-3", 1141442267, [2, 0, 11]),
    ("order/17", 128629665, [0, 3, 9]),
    ("grüße", 1943707148, [2, 5, 8]),
    ("日本語", 1431860170, [1, 6, 10]),
    ("\0", 375494588, [2, 0, 8]),
    ("0", 971027396, [2, 3, 8]),
    ("12345678", 338742798, [0, 2, 6]),
    ("kafka", -798503068, [1, 3, 4]),
    ("millstream", 1106344398, [0, 5, 6]),
    ("The quick brown fox jumps over the lazy dog", 495243318, [0, 3, 6]),
];

const COUNTS: [i32; 3] = [3, 7, 12];

/// Where the sink puts each of these keys.
fn put(topic: &str, keys: &[String]) {
    let (keys, sink) = (keys.to_vec(), Kafka::new(&*broker().address).write(topic).at_least_once());
    let topology = move |t: &Topology| {
        let messages = keys.iter().map(|key| KafkaMessage::text("ours").key(key)).collect::<Vec<_>>();
        t.source("keys", Records::of(messages)).sink("out", sink.clone());
        Ok(())
    };
    job(&Scratch::new(), topology).run().unwrap();
}

#[test]
fn the_table_agrees_with_itself() {
    for (key, hash, partitions) in JAVA {
        assert_eq!(COUNTS.map(|count| (hash & 0x7fff_ffff) % count), *partitions, "{key}");
    }
}

#[test]
fn keys_go_where_the_table_says() {
    let keys: Vec<String> = JAVA.iter().map(|(key, ..)| (*key).to_owned()).collect();
    for (i, count) in COUNTS.into_iter().enumerate() {
        let topic = broker().topic("table", count, &[]);
        put(&topic, &keys);
        let read = broker().committed(&topic);
        let found: BTreeMap<_, _> = read.into_iter().map(|read| (read.key.unwrap(), read.partition)).collect();
        let expected = JAVA.iter().map(|(key, _, partitions)| (key.as_bytes().to_vec(), partitions[i])).collect();
        assert_eq!(found, expected, "{count} partitions");
    }
}

#[test]
fn keys_go_where_the_console_producer_puts_them() {
    let topic = broker().topic("console", 11, &[]);
    let keys: Vec<String> = (0..200).map(|n| format!("key {n}")).collect();
    let lines: String = keys.iter().map(|key| format!("{key}\ttheirs\n")).collect();
    broker().feed(&["console-producer", "--topic", &topic, "--reader-property", "parse.key=true"], &lines);
    put(&topic, &keys);
    let mut by_key: BTreeMap<Vec<u8>, Vec<(String, i32)>> = BTreeMap::new();
    for read in broker().committed(&topic) {
        by_key.entry(read.key.clone().unwrap()).or_default().push((read.text(), read.partition));
    }
    assert_eq!(by_key.len(), 200);
    for (key, places) in by_key {
        let [(theirs, there), (ours, here)] = &places[..] else { panic!("{key:?}: {places:?}") };
        assert_eq!((&**theirs, &**ours, there), ("theirs", "ours", here), "{key:?}");
    }
}
