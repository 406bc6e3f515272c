//! A cluster of three nodes, of which one is killed while a transaction is open: the one that coordinates it, and those
//! that lead what is written.

use super::broker::Broker;
use super::counting::{Counting, Watcher};
use super::wait_until;
use crate::common::Process;

/// The node that coordinates the transactions of a job.
fn coordinator(broker: &Broker, job: &str) -> i32 {
    let shown = broker.tool(&["transactions", "describe", "--transactional-id", &format!("millstream-{job}-0")]);
    let row = shown.lines().nth(1).unwrap_or_else(|| panic!("no transaction in: {shown}"));
    row.split_whitespace().next().unwrap().parse().unwrap()
}

fn goes_on(process: &mut Process, watcher: &Watcher, records: u64) {
    let done = process.wait_until(|| watcher.seen() >= records);
    assert_eq!(done, Ok(true), "{}", process.tail());
}

#[test]
fn f7_nodes_that_are_killed_in_the_middle_of_a_transaction_change_nothing() {
    // nodes that are gone are given up soon
    let settings = ["nodes=3", "broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"];
    let broker = Broker::own(&settings);
    let (_scratch, mut counting, data, watcher) = Counting::begin(&broker, 7);
    let mut process = counting.start(&data, &["--checkpoint-interval", "1s"]);
    counting.write(200);
    goes_on(&mut process, &watcher, 200);
    let progress = counting.progress_topic();
    assert_eq!(broker.leaders(Some(&progress))[0].1, 3, "copies of the decisions");
    let shown = broker.tool(&["topics", "--describe", "--topic", &progress]);
    assert!(shown.contains("min.insync.replicas=2"), "{shown}");
    for whose in ["transaction", "decisions"] {
        let node = match whose {
            "transaction" => coordinator(&broker, &counting.job()),
            _ => broker.leaders(Some(&progress))[0].0,
        };
        counting.opens(&mut process);
        println!("killing node {node}, which leads the {whose}");
        broker.kill_node(node);
        counting.add(100);
        goes_on(&mut process, &watcher, counting.records());
        broker.start_node(node);
        wait_until("all copies are in sync", || broker.leaders(None).iter().all(|(_, in_sync)| *in_sync == 3));
        counting.add(100);
        goes_on(&mut process, &watcher, counting.records());
    }
    process.ends_well();
    println!("{} attempts have failed", process.failures());
    wait_until("all is decided", || !counting.has_undecided());
    counting.check_decisions(&data);
    watcher.check_all();
}
