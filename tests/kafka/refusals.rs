//! What would lose or double records is refused, with the remedy; and a refusal changes nothing.

use super::broker::{Broker, broker, numbers};
use super::{collecting, is_refused, obey, plain, run, to_end, up_to, wait_until};
use crate::common::Scratch;
use millstream::prelude::*;
use std::path::Path;

#[test]
fn f12_a_topic_that_was_made_again_is_refused() {
    let broker = broker();
    let (topic, scratch) = (broker.topic("again", 1, &[]), Scratch::new());
    broker.write(numbers(&topic, 0, 0..10));
    assert_eq!(run(&scratch, to_end(broker, &*topic)), up_to(10));
    broker.delete(&topic);
    is_refused(&scratch, to_end(broker, &*topic), &[&format!("no partition {topic}/0"), "--to forget --execute"]);
    broker.make(&topic, 1, &[]);
    // of the same length, even of the same content
    broker.write(numbers(&topic, 0, 0..10));
    let said = [&*format!("{topic}/0 is not the partition"), "deleted and made again", "--restore none"];
    let refused = is_refused(&scratch, to_end(broker, &*topic), &said);
    // the remedies
    assert_eq!(run(&Scratch::new(), to_end(broker, &*topic)), up_to(10));
    obey(&scratch, to_end(broker, &*topic), &refused);
    assert_eq!(run(&scratch, to_end(broker, &*topic)), up_to(10));
    assert_eq!(run(&scratch, to_end(broker, &*topic)), up_to(0));
}

#[test]
fn f12_a_topic_that_is_gone_is_forgotten_by_order() {
    let broker = broker();
    let topics = ["gone", "stays"].map(|name| broker.topic(name, 1, &[]));
    let scratch = Scratch::new();
    topics.iter().for_each(|topic| broker.write(numbers(topic, 0, 0..10)));
    assert_eq!(run(&scratch, to_end(broker, topics.clone())).len(), 20);
    broker.delete(&topics[0]);
    broker.write(numbers(&topics[1], 0, 10..15));
    let read = || to_end(broker, &*topics[1]);
    let refused = is_refused(&scratch, read(), &[&format!("no partition {}/0", topics[0]), "--to forget"]);
    obey(&scratch, read(), &refused);
    assert_eq!(run(&scratch, read()), (10..15).collect::<Vec<_>>());
}

/// The attempt fails, and the next one finds out why.
#[test]
fn a_topic_that_is_deleted_while_it_is_read_ends_the_job() {
    let broker = broker();
    let topic = broker.topic("deleted", 1, &[]);
    broker.write(numbers(&topic, 0, 0..10));
    let read = Kafka::new(&*broker.address).read(&*topic);
    let read = read.discover_every(Duration::from_millis(500));
    let (job, _seen) = collecting(&Scratch::new(), read);
    let error = plain(async {
        let job = job.restart(RestartPolicy::default()).start().await.unwrap();
        wait_until("all is read", || job.status().records_in == 10 && job.status().checkpoints > 1);
        broker.delete(&topic);
        job.wait().await.expect_err("the topic is gone")
    });
    assert_eq!(error.kind(), millstream::ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(&format!("no partition {topic}/0")), "{error}");
}

#[test]
fn f12_another_cluster_is_refused() {
    let (here, there) = (broker(), Broker::own(&[]));
    let (topic, scratch) = (here.topic("foreign", 1, &[]), Scratch::new());
    here.write(numbers(&topic, 0, 0..10));
    there.make(&topic, 1, &[]);
    there.write(numbers(&topic, 0, 0..10));
    assert_eq!(run(&scratch, to_end(here, &*topic)), up_to(10));
    let said = ["is on the cluster", "name the brokers of that one"];
    let refused = is_refused(&scratch, to_end(&there, &*topic), &said);
    here.write(numbers(&topic, 0, 10..12));
    assert_eq!(run(&scratch, to_end(here, &*topic)), [10, 11]);
    obey(&scratch, to_end(&there, &*topic), &refused);
    assert_eq!(run(&scratch, to_end(&there, &*topic)), up_to(10));
}

/// Removes what a stopped broker has of a partition, as a disk that was lost would; the topic stays what it was.
fn forget(log: &Path) {
    for entry in std::fs::read_dir(log).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name != "partition.metadata") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn f12_a_log_that_was_cut_off_is_refused_also_when_it_has_grown_again() {
    let broker = Broker::own(&[]);
    let (topic, scratch) = (broker.topic("cut", 1, &[]), Scratch::new());
    broker.write(numbers(&topic, 0, 0..10));
    assert_eq!(run(&scratch, to_end(&broker, &*topic)), up_to(10));
    broker.stop();
    forget(&broker.log(&topic, 0));
    broker.start();
    broker.write(numbers(&topic, 0, 0..4));
    let said = [&*format!("{topic}/0 is not the partition"), "ends at offset 4", "has read up to 10", "--restore none"];
    is_refused(&scratch, to_end(&broker, &*topic), &said);
    // where the last record was there is another one now
    broker.write(numbers(&topic, 0, 100..120));
    let said = [&*format!("{topic}/0 is not the partition"), "the record at offset 9 has", "--restore none"];
    is_refused(&scratch, to_end(&broker, &*topic), &said);
    let lenient = to_end(&broker, &*topic).when_out_of_range(OutOfRange::Earliest);
    let refused = is_refused(&scratch, lenient, &["the record at offset 9 has"]);
    obey(&scratch, to_end(&broker, &*topic), &refused);
    assert_eq!(run(&scratch, to_end(&broker, &*topic)), [(0..4).collect::<Vec<_>>(), (100..120).collect()].concat());
}

#[test]
fn f12_what_was_thrown_away_before_it_was_read_is_refused_unless_told_otherwise() {
    let broker = broker();
    let (topic, scratch) = (broker.topic("expired", 1, &[]), Scratch::new());
    broker.write(numbers(&topic, 0, 0..10));
    assert_eq!(run(&scratch, to_end(broker, &*topic)), up_to(10));
    let throw_away = |before: u64| {
        let file = scratch.join("delete.json");
        let json = format!(r#"{{"partitions":[{{"topic":"{topic}","partition":0,"offset":{before}}}],"version":1}}"#);
        std::fs::write(&file, json).unwrap();
        broker.tool(&["delete-records", "--offset-json-file", file.to_str().unwrap()]);
    };
    // what was read may go, the last record by which the partition is known included
    broker.write(numbers(&topic, 0, 10..20));
    throw_away(10);
    assert_eq!(run(&scratch, to_end(broker, &*topic)), (10..20).collect::<Vec<_>>());
    broker.write(numbers(&topic, 0, 20..40));
    throw_away(25);
    let said = [&*format!("{topic}/0 begins at offset 25"), "goes on with 20", "up to 5 records", "retention.ms"];
    is_refused(&scratch, to_end(broker, &*topic), &said);
    let refused = is_refused(&scratch, to_end(broker, &*topic), &["OutOfRange::Earliest"]);
    let other = Scratch::new();
    crate::common::copy_directory(scratch.path(), other.path());
    let lenient = to_end(broker, &*topic).when_out_of_range(OutOfRange::Earliest);
    assert_eq!(run(&scratch, lenient), (25..40).collect::<Vec<_>>());
    obey(&other, to_end(broker, &*topic), &refused);
    assert_eq!(run(&other, to_end(broker, &*topic)), (25..40).collect::<Vec<_>>());
}

/// What compaction removes is missed by nobody, also where it was the last record read.
#[test]
fn a_record_that_compaction_removed_is_no_reason_to_refuse() {
    let broker = broker();
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "50"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "50"),
    ];
    let (topic, scratch) = (broker.topic("compacted", 1, &settings), Scratch::new());
    broker.write(numbers(&topic, 0, 0..10).map(|rec| rec.key("k")));
    assert_eq!(run(&scratch, to_end(broker, &*topic)), up_to(10));
    broker.write(numbers(&topic, 0, 10..12).map(|rec| rec.key("k")));
    wait_until("the log is compacted", || {
        // a segment that is written to is not compacted, so it has to be left
        broker.write(numbers(&topic, 0, 12..13).map(|rec| rec.key("other")));
        std::thread::sleep(Duration::from_secs(1));
        run(&Scratch::new(), to_end(broker, &*topic)).first() == Some(&11)
    });
    let read = run(&scratch, to_end(broker, &*topic));
    assert!(read.first() == Some(&11) && read.last() == Some(&12), "{read:?}");
}
