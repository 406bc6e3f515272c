//! Errors in place of what the broker says, for each kind of request that a job makes. After each of them the job goes
//! on by itself, or ends with what there is to do; and all that is read in the end is there once.

use super::counting::{Counting, Watcher};
use super::proxy::{Injected, Proxy, Way};
use super::wire::Api;
use crate::common::{Process, Scratch, is_soak, seed};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::path::PathBuf;

// Only codes that the client knows: rdkafka's conversion of others is undefined.

const BOTH: &[Way] = &[Way::Applied, Way::Refused];

/// Of requests that change nothing.
const ONE: &[Way] = &[Way::Applied];

/// What becomes of the attempt that meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The client asks again.
    GoesOn,
    /// It fails, and the next one goes on from what was decided.
    Fails,
    /// The one or the other: several ask at the same time, and one of them does without the answer.
    Either,
}

use Outcome::{Either, Fails, GoesOn};

/// Requests, errors, ways and outcome.
type Row = (Api, &'static [Code], &'static [Way], Outcome);

/// Who coordinates is another one, or is not ready yet.
const COORDINATOR: &[Code] = &[
    Code::NotCoordinator,
    Code::CoordinatorNotAvailable,
    Code::CoordinatorLoadInProgress,
    Code::ConcurrentTransactions,
];

/// Who leads a partition is another one, or cannot do it now.
const LEADER: &[Code] = &[Code::NotLeaderForPartition, Code::KafkaStorageError, Code::UnknownTopicOrPartition];

/// The producer may not go on with its transaction, or nobody knows whether it may.
const RIGHT_IS_GONE: &[Code] = &[
    Code::UnknownProducerId,
    Code::InvalidProducerIdMapping,
    Code::InvalidTransactionalState,
    Code::InvalidProducerEpoch,
    Code::ProducerFenced,
    Code::Unknown,
];

/// What a job meets that is under way.
const RUNNING: &[Row] = &[
    (Api::EndTxn, COORDINATOR, BOTH, GoesOn),
    (Api::EndTxn, RIGHT_IS_GONE, BOTH, Fails),
    (
        Api::EndTxn,
        &[Code::RequestTimedOut, Code::TransactionalIdAuthorizationFailed, Code::ClusterAuthorizationFailed],
        BOTH,
        Fails,
    ),
    (Api::AddPartitionsToTxn, COORDINATOR, BOTH, GoesOn),
    (Api::AddPartitionsToTxn, &[Code::UnknownTopicOrPartition], BOTH, GoesOn),
    (Api::AddPartitionsToTxn, RIGHT_IS_GONE, BOTH, Fails),
    (
        Api::AddPartitionsToTxn,
        &[Code::OperationNotAttempted, Code::TransactionalIdAuthorizationFailed, Code::TopicAuthorizationFailed],
        BOTH,
        Fails,
    ),
    (Api::Produce, LEADER, BOTH, GoesOn),
    (Api::Produce, &[Code::LeaderNotAvailable, Code::RequestTimedOut], BOTH, GoesOn),
    (Api::Produce, RIGHT_IS_GONE, BOTH, Fails),
    (
        Api::Produce,
        &[
            Code::OutOfOrderSequenceNumber,
            Code::ConcurrentTransactions,
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
        ],
        BOTH,
        Fails,
    ),
    (Api::Fetch, LEADER, ONE, GoesOn),
    (Api::Fetch, &[Code::OffsetNotAvailable, Code::FencedLeaderEpoch], ONE, GoesOn),
    (Api::Fetch, &[Code::OffsetOutOfRange, Code::TopicAuthorizationFailed, Code::Unknown], ONE, Fails),
    (
        Api::OffsetCommit,
        &[
            Code::NotCoordinator,
            Code::CoordinatorLoadInProgress,
            Code::RequestTimedOut,
            Code::UnknownMemberId,
            Code::RebalanceInProgress,
            Code::GroupAuthorizationFailed,
            Code::TopicAuthorizationFailed,
            Code::Unknown,
        ],
        ONE,
        GoesOn,
    ),
];

/// What a job meets that recovers in its process, because a commit has failed before.
const RECOVERING: &[Row] = &[
    (Api::InitProducerId, COORDINATOR, BOTH, GoesOn),
    (
        Api::InitProducerId,
        &[Code::ProducerFenced, Code::InvalidProducerEpoch, Code::RequestTimedOut, Code::Unknown],
        BOTH,
        GoesOn,
    ),
    (Api::FindCoordinator, &[Code::CoordinatorNotAvailable, Code::RequestTimedOut], ONE, GoesOn),
    (Api::Metadata, &[Code::LeaderNotAvailable, Code::UnknownTopicOrPartition, Code::Unknown], ONE, GoesOn),
    (Api::ListOffsets, &[Code::NotLeaderForPartition, Code::LeaderNotAvailable, Code::OffsetNotAvailable], ONE, GoesOn),
    (Api::ListOffsets, &[Code::Unknown], ONE, Either),
];

/// A job whose requests go through the proxy.
struct Disturbed<'a> {
    proxy: &'a Proxy,
    _scratch: Scratch,
    counting: Counting<'a>,
    data: PathBuf,
    watcher: Watcher,
}

impl<'a> Disturbed<'a> {
    fn new(proxy: &'a Proxy) -> Self {
        let (_scratch, counting, data, watcher) = Counting::begin(&proxy.broker, 5);
        Self { proxy, _scratch, counting, data, watcher }
    }

    fn start(&self, flags: &[&str]) -> Process {
        self.counting.start(&self.data, &[flags, &["--restart-pause", "10ms"]].concat())
    }

    fn inject(&self, errors: &[Injected]) {
        // that of a source that asks what there is has no job's name
        self.proxy.inject(&[&self.counting.job(), "millstream"], errors);
    }

    /// Has it meet these, and work afterwards. How often an attempt has failed by then.
    fn meets(&mut self, process: &mut Process, errors: &[Injected]) -> usize {
        let before = process.failures();
        self.inject(errors);
        let met = process.wait_until(|| {
            self.counting.add(20);
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.proxy.left().is_empty()
        });
        assert_eq!(met, Ok(true), "{errors:?}: left are {:?}\n{}", self.proxy.left(), process.tail());
        self.counting.add(20);
        let all = self.counting.records();
        let done = process.wait_until(|| self.watcher.seen() >= all);
        assert_eq!(done, Ok(true), "{errors:?}\n{}", process.tail());
        process.failures() - before
    }

    fn check(self) {
        self.counting.check_decisions(&self.data);
        self.watcher.check_all();
    }
}

/// How many requests meet it: the first for metadata is only to find the brokers.
fn times(api: Api) -> usize {
    if api == Api::Metadata { 2 } else { 1 }
}

/// Cases of the rows, each after what `first` says: in the normal suite some, by the seed, in a soak all. Those whose
/// outcome is another one.
fn surprises(disturbed: &mut Disturbed<'_>, process: &mut Process, rows: &[Row], first: &[Injected]) -> Vec<String> {
    let (mut number, mut cases, mut surprises) = (seed(), 0, Vec::new());
    println!("seed {number}");
    let began = millstream::clock::now();
    for (api, codes, ways, outcome) in rows {
        for (code, way) in codes.iter().flat_map(|code| ways.iter().map(move |way| (code, way))) {
            number += 1;
            if !is_soak() && !number.is_multiple_of(15) {
                continue;
            }
            let one = Injected { api: *api, code: *code as i16, way: *way, times: Some(times(*api)) };
            let failed = disturbed.meets(process, &[first, &[one]].concat());
            let failed = failed.checked_sub(first.len()).expect("the first fails the attempt");
            let became = if failed == 0 { GoesOn } else { Fails };
            println!("{api:?} {code:?} {way:?}: {became:?}, {failed} ({:?})", began.elapsed());
            if *outcome != Either && became != *outcome {
                surprises.push(format!("{api:?} {code:?} {way:?}: {became:?} in place of {outcome:?}"));
            }
            cases += 1;
        }
    }
    println!("{cases} errors were met");
    surprises
}

#[test]
fn f9_a_job_that_meets_an_error_goes_on_and_all_is_there_once() {
    let proxy = Proxy::new();
    let mut disturbed = Disturbed::new(&proxy);
    let mut process = disturbed.start(&[]);
    disturbed.meets(&mut process, &[]);
    let mut found = surprises(&mut disturbed, &mut process, RUNNING, &[]);
    let (api, code) = (Api::EndTxn, Code::InvalidTransactionalState as i16);
    let fails = [Injected { api, code, way: Way::Applied, times: Some(1) }];
    found.extend(surprises(&mut disturbed, &mut process, RECOVERING, &fails));
    // those whose names are not ours: too few nodes in sync, before and after it was written
    for (code, way) in [(19, Way::Refused), (20, Way::Applied)] {
        let failed = disturbed.meets(&mut process, &[Injected { api: Api::Produce, code, way, times: Some(1) }]);
        assert_eq!(failed, 0, "{code}");
    }
    assert!(found.is_empty(), "{found:#?}");
    process.ends_well();
    disturbed.check();
}

/// What a start meets for as long as it goes, its exit code, and what it says.
type End = (Api, Code, Way, i32, &'static [&'static str]);

const ENDS: &[End] = &[
    (Api::InitProducerId, Code::TransactionalIdAuthorizationFailed, Way::Refused, 2, &["`millstream-", "WRITE"]),
    (Api::InitProducerId, Code::ClusterAuthorizationFailed, Way::Applied, 2, &["`millstream-", "WRITE"]),
    (Api::InitProducerId, Code::InvalidTransactionTimeout, Way::Refused, 2, &["time-out"]),
    (Api::FindCoordinator, Code::TransactionalIdAuthorizationFailed, Way::Applied, 2, &["`millstream-", "WRITE"]),
    (Api::EndTxn, Code::Unknown, Way::Applied, 75, &["yielded", "Start it again"]),
    (Api::EndTxn, Code::ProducerFenced, Way::Refused, 75, &["yielded", "Start it again"]),
    (Api::AddPartitionsToTxn, Code::TopicAuthorizationFailed, Way::Refused, 75, &["yielded", "right to WRITE"]),
    (Api::Metadata, Code::TopicAuthorizationFailed, Way::Applied, 2, &["DESCRIBE"]),
    (Api::ListOffsets, Code::TopicAuthorizationFailed, Way::Applied, 2, &["READ"]),
    (Api::Fetch, Code::TopicAuthorizationFailed, Way::Applied, 2, &["right to READ"]),
];

#[test]
fn f9_an_error_that_lasts_ends_a_job_with_what_there_is_to_do_and_the_next_run_completes_it() {
    let proxy = Proxy::new();
    let mut disturbed = Disturbed::new(&proxy);
    disturbed.counting.add(100);
    disturbed.counting.finish(&disturbed.data, &[]);
    for (api, code, way, exit, said) in ENDS {
        disturbed.counting.add(100);
        disturbed.inject(&[Injected { api: *api, code: *code as i16, way: *way, times: None }]);
        let mut process = disturbed.start(&["--until", "end"]);
        let ended = process.wait().unwrap();
        assert_eq!(ended, *exit, "{api:?} {code:?}:\n{}", process.tail());
        let printed = process.printed();
        said.iter().for_each(|said| assert!(printed.contains(said), "{api:?} {code:?}: no `{said}` in: {printed}"));
        disturbed.inject(&[]);
        disturbed.counting.finish(&disturbed.data, &[]);
        disturbed.watcher.wait_for(disturbed.counting.records());
    }
    disturbed.check();
}
