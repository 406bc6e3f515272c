//! Transactional input: what is committed is read, what is aborted is not, what is open is waited for, and the marks of
//! transactions are passed.

use super::broker::{PATIENCE, broker, numbers};
use super::{collecting, plain, run, sorted, to_end, up_to, wait_until};
use crate::common::Scratch;
use crate::kafka::group::{lag, offset};
use millstream::prelude::*;
use rdkafka::producer::Producer;

#[test]
fn committed_records_are_read_and_aborted_ones_are_not() {
    let broker = broker();
    let topic = broker.topic("aborted", 2, &[]);
    broker.transaction(true, numbers(&topic, 0, 0..10));
    broker.transaction(false, numbers(&topic, 0, 900..950).chain(numbers(&topic, 1, 950..960)));
    broker.transaction(true, numbers(&topic, 0, 10..12).chain(numbers(&topic, 1, 12..20)));
    broker.write(numbers(&topic, 1, 20..21));
    // what lies last in the log is no record
    broker.transaction(false, numbers(&topic, 0, 960..999));
    let scratch = Scratch::new();
    assert_eq!(run(&scratch, to_end(broker, &*topic)), up_to(21));
    // the run has ended, though no record stands at the end, and has passed all of it
    let group = "test.records";
    for partition in [0, 1] {
        assert_eq!(lag(broker, group, &topic, partition), 0);
    }
    // ten records and their mark, fifty and theirs, two and theirs, 39 and theirs
    assert_eq!(offset(broker, group, &topic, 0), 11 + 51 + 3 + 40);
    broker.transaction(true, numbers(&topic, 0, 21..22));
    assert_eq!(run(&scratch, to_end(broker, &*topic)), [21]);
}

#[test]
fn a_bounded_run_ends_before_transactions_that_are_open() {
    let broker = broker();
    let topic = broker.topic("open", 1, &[]);
    broker.write(numbers(&topic, 0, 0..5));
    let open = broker.open_transaction(numbers(&topic, 0, 5..8));
    // behind the open transaction, so it is not stable yet
    broker.write(numbers(&topic, 0, 8..10));
    let scratch = Scratch::new();
    assert_eq!(run(&scratch, to_end(broker, &*topic)), up_to(5));
    open.commit_transaction(PATIENCE).unwrap();
    assert_eq!(run(&scratch, to_end(broker, &*topic)), (5..10).collect::<Vec<_>>());
}

/// A job that runs on passes what is no record, too: nobody who watches the group is to see a lag that stays.
#[test]
fn the_lag_of_a_running_job_goes_to_0_behind_an_aborted_transaction() {
    let broker = broker();
    let topic = broker.topic("live", 1, &[]);
    broker.transaction(true, numbers(&topic, 0, 0..3));
    let group = format!("{topic}-readers");
    let read = Kafka::new(&*broker.address).read(&*topic).group(&*group);
    let (job, seen) = collecting(&Scratch::new(), read);
    plain(async {
        let job = job.start().await.unwrap();
        wait_until("the first are read", || job.status().records_in == 3);
        wait_until("no lag", || lag(broker, &group, &topic, 0) == 0);
        broker.transaction(false, numbers(&topic, 0, 100..120));
        wait_until("no lag after the aborted one", || lag(broker, &group, &topic, 0) == 0);
        assert_eq!(offset(broker, &group, &topic, 0), 4 + 21);
        let open = broker.open_transaction(numbers(&topic, 0, 3..6));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(job.status().records_in, 3, "records of an open transaction were read");
        open.commit_transaction(PATIENCE).unwrap();
        wait_until("the committed ones are read", || job.status().records_in == 6);
        job.stop().await.unwrap();
    });
    assert_eq!(sorted(seen.take()), up_to(6));
}
