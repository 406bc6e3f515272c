//! What a transaction's coordinator has forgotten is still open in its partitions, where the next commit of the same
//! producer would close it: it has to be aborted before.

use super::broker::Broker;
use super::counting::Counting;
use super::proxy::{Injected, Proxy, Way};
use super::wire::Api;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Whether the broker asks the coordinator before it takes records.
fn verifies(broker: &Broker, verifies: bool) {
    let setting = format!("transaction.partition.verification.enable={verifies}");
    broker.tool(&["configs", "--alter", "--entity-type", "brokers", "--entity-default", "--add-config", &setting]);
}

#[test]
fn f8_what_the_coordinator_forgot_is_aborted_before_anything_is_committed() {
    let (proxy, flags) = (Proxy::new(), ["--checkpoint-interval", "2s"]);
    let (_scratch, mut counting, data, watcher) = Counting::begin(&proxy.broker, 11);
    let mut process = counting.start(&data, &flags);
    counting.write(200);
    watcher.wait_for(200);
    // the job believes that its partitions are part of the transaction, and nobody else knows of them; nor does it come
    // to commit it, which a coordinator that knows of no transaction takes for a copy of the request before
    verifies(&proxy.broker, false);
    let refused = |api, code| Injected { api, code, way: Way::Refused, times: None };
    let waits = refused(Api::EndTxn, Code::CoordinatorLoadInProgress as i16);
    proxy.inject(&[&counting.job()], &[refused(Api::AddPartitionsToTxn, 0), waits]);
    counting.opens(&mut process);
    process.kill();
    verifies(&proxy.broker, true);
    // whoever cannot abort it has fenced others, and yields
    counting.start(&data, &flags).end().expect(75, &["transactions are open where this job writes", "yielded"]);
    proxy.inject(&[], &[]);
    assert!(counting.has_undecided(), "somebody has ended it");
    let mut process = counting.start(&data, &flags);
    counting.add(100);
    let (all, seen) = (counting.records(), || watcher.seen());
    assert_eq!(process.wait_until(|| seen() >= all), Ok(true), "{}", process.tail());
    let said = process.printed();
    assert!(said.contains("ending those that are its own"), "{said}");
    process.ends_well();
    counting.finish(&data, &[]);
    watcher.check_all();
}
