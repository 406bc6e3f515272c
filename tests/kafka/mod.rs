//! Kafka as a source and as a sink, against a real Apache Kafka.
//!
//! | module | what |
//! |---|---|
//! | `broker` | the broker, and how records get into it |
//! | `reading` | topics, formats, order, rates, memory |
//! | `places` | where reading starts and stops, new partitions |
//! | `transactions` | committed, aborted and open ones |
//! | `refusals` | what would lose or double records |
//! | `offsets` | `offsets reset` |
//! | `rename` | a job that gets another name |
//! | `group` | what the consumer group, metrics and status say |
//! | `outage` | brokers that are killed, and come back |
//! | `login` | settings, users, secrets |
//! | `rights` | users who may not do all that a sink needs |
//! | `topics` | what stands in a topic |
//! | `sink` | what arrives of what is written, and what cannot be written |
//! | `partitions` | that keys go where Java's producers put them |
//! | `counting` | the example `kafka_count`, and a reader that compares what it sees with what has to be |
//! | `kills` | `kafka_count`, killed at any instant |
//! | `instances` | two processes that are the same job |
//! | `decisions` | a log and a directory that do not agree |
//! | `exactly_once` | jobs that write exactly once, and are disturbed |
//! | `late` | commits whose requests or replies are late or lost |
//! | `errors` | errors in place of what the broker says, for each kind of request that a job makes |
//! | `timeouts` | transactions that the broker aborts: outages that last longer, and time-outs right at the commit |
//! | `hanging` | transactions that their coordinator forgot |
//! | `nodes` | a cluster of three, whose nodes are killed |
//! | `proxy` | what makes requests late, lost and erroneous |
//! | `wire` | what that has to know of the protocol |
//! | `log` | decisions: who may make them, and what becomes of transactions |

pub(crate) mod broker;
mod counting;
mod decisions;
mod errors;
mod exactly_once;
mod group;
mod hanging;
mod instances;
mod kills;
mod late;
mod log;
mod login;
mod nodes;
mod offsets;
mod outage;
mod partitions;
mod places;
mod proxy;
mod reading;
mod refusals;
mod rename;
mod rights;
mod sink;
mod timeouts;
mod topics;
mod transactions;
mod wire;

use crate::common::{Scratch, job, named};
use broker::Broker;
use millstream::prelude::*;
use millstream::sources::kafka::ReadKafka;

/// The topic, read to its end.
fn to_end(broker: &Broker, topics: impl Into<Topics>) -> ReadKafka {
    Kafka::new(&*broker.address).read(topics).until_end()
}

/// A job that collects the values of a source as text.
fn collecting(scratch: &Scratch, read: ReadKafka) -> (Job, millstream::sinks::Seen<String>) {
    let (sink, seen) = Collected::new();
    let topology = move |t: &Topology| {
        t.source("records", read.clone().text()).sink("out", sink.clone());
        Ok(())
    };
    (job(scratch, topology).checkpoint_interval(Duration::from_millis(50)), seen)
}

/// Runs it to its end; what it has read, sorted as numbers.
fn run(scratch: &Scratch, read: ReadKafka) -> Vec<u64> {
    let (job, seen) = collecting(scratch, read);
    job.run().unwrap();
    sorted(seen.take())
}

/// That it is refused, with these words; all that is said.
#[track_caller]
fn is_refused(scratch: &Scratch, read: ReadKafka, said: &[&str]) -> String {
    let (job, seen) = collecting(scratch, read);
    let error = job.run().expect_err("this is to be refused");
    assert_eq!(error.kind(), millstream::ErrorKind::Refused, "{error}");
    said.iter().for_each(|said| assert!(error.to_string().contains(said), "`{said}` is not in: {error}"));
    assert!(seen.take().is_empty(), "a refusal has let records through");
    error.to_string()
}

/// Runs the command `offsets reset` that a refusal names.
#[track_caller]
fn obey(scratch: &Scratch, read: ReadKafka, refused: &str) {
    let command = named(refused, "offsets reset");
    let done = collecting(scratch, read).0.main_with(["job".to_owned()].into_iter().chain(command));
    assert_eq!(done, ExitCode::SUCCESS, "{refused}");
}

/// The error of a job that is not set up well; its text.
#[track_caller]
fn is_misused(read: ReadKafka, said: &[&str]) -> String {
    let (job, _) = collecting(&Scratch::new(), read);
    let error = job.run().expect_err("this must not run");
    assert_eq!(error.kind(), millstream::ErrorKind::Usage, "{error}");
    said.iter().for_each(|said| assert!(error.to_string().contains(said), "`{said}` is not in: {error}"));
    error.to_string()
}

fn sorted(lines: Vec<String>) -> Vec<u64> {
    let mut numbers: Vec<u64> = lines.iter().map(|line| line.parse().unwrap()).collect();
    numbers.sort();
    numbers
}

fn up_to(n: u64) -> Vec<u64> {
    (0..n).collect()
}

/// Runs what is asynchronous.
fn plain<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Until it holds; it is an error if that takes too long.
#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = millstream::clock::now() + broker::PATIENCE;
    while !holds() {
        assert!(millstream::clock::now() < until, "this did not come: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
