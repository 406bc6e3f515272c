//! Brokers that are killed, and come back: waited for and shown, and no record is lost or doubled.

use super::broker::{Broker, Rec, numbers, send};
use super::{collecting, plain, sorted, up_to, wait_until};
use crate::common::{Process, Scratch, example};
use millstream::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[test]
fn a_broker_that_is_killed_and_comes_back_is_waited_for() {
    let broker = Broker::own(&[]);
    let topic = broker.topic("killed", 3, &[]);
    let group = format!("{topic}-readers");
    let producer = broker.producer(&[("enable.idempotence", "true"), ("message.timeout.ms", "120000")]);
    let written = AtomicU64::new(0);
    let write = |n: u64| {
        let from = written.fetch_add(n, SeqCst);
        send(&producer, (from..from + n).map(|n| Rec::new(&topic, (n % 3) as i32, n.to_string())));
    };
    write(3000);
    let read = Kafka::new(&*broker.address).read(&*topic).group(&*group);
    let scratch = Scratch::new();
    let (job, seen) = collecting(&scratch, read);
    plain(async {
        let job = job.start().await.unwrap();
        let trouble = || job.status().operators.iter().find_map(|operator| operator.trouble.clone());
        wait_until("all is read", || job.status().records_in == 3000);
        assert_eq!(trouble(), None);
        for round in 1..=2 {
            broker.kill();
            wait_until("the outage is shown", || trouble().is_some());
            let text = trouble().unwrap();
            assert!(text.contains(&format!("waiting for Kafka at {}", broker.address)), "{text}");
            // checkpoints need no broker
            job.checkpoint().await.unwrap();
            broker.start();
            write(3000);
            let all = 3000 * (round + 1);
            wait_until("all is read", || job.status().records_in == all);
            wait_until("the outage is over", || trouble().is_none());
        }
        let status = job.status();
        assert_eq!((status.restarts, status.error), (0, None));
        for partition in 0..3 {
            wait_until("the group is told", || super::group::lag(&broker, &group, &topic, partition) == 0);
        }
        // it can be stopped while brokers are away
        broker.kill();
        wait_until("the outage is shown", || trouble().is_some());
        let asked = millstream::clock::now();
        job.stop().await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    });
    assert_eq!(sorted(seen.take()), up_to(9000));
}

/// The job is started first, then the broker; and it can be stopped while it waits.
#[test]
fn a_broker_that_is_not_there_yet_is_waited_for() {
    let broker = Broker::own(&[]);
    let (topic, scratch) = (broker.topic("late", 1, &[]), Scratch::new());
    broker.write(numbers(&topic, 0, 0..100));
    broker.stop();
    let start = || {
        let mut command = example("kafka_files");
        command.args(["run", "--brokers", &broker.address, "--topic", &topic, "--until-end"]);
        command.arg("--output").arg(scratch.join("out")).arg("--data-dir").arg(scratch.join("data"));
        Process::start(&mut command, &scratch.join("log"))
    };
    let waits = |process: &mut Process| {
        let log = scratch.join("log");
        let told = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("Kafka does not answer"));
        assert!(process.wait_until(told).unwrap(), "{}", process.tail());
    };
    let mut process = start();
    waits(&mut process);
    process.ends_well();
    std::fs::remove_file(scratch.join("log")).unwrap();
    let mut process = start();
    waits(&mut process);
    broker.start();
    assert_eq!(process.wait().unwrap(), 0, "{}", process.tail());
    assert!(process.printed().contains("Kafka answers again"), "{}", process.tail());
    let lines = crate::common::read_lines(&scratch.join("out"), "lines");
    assert_eq!(lines.len(), 100);
}
