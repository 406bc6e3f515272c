//! Sinks that decide checkpoints: how a job takes and keeps the right to decide, and what it does when it loses that or
//! gets no answer. Against a broker in memory, which does on order what a real one does once in a year; what is proved
//! of exactly once is proved in `kafka`, against a real one.

mod ledger;

use crate::common::{Random, Scratch, copy_directory, job, seed};
use ledger::{Fault, Ledger, Row};
use millstream::prelude::*;
use millstream::{Error, ErrorKind, JobHandle};
use std::collections::BTreeMap;
use std::path::Path;

const N: u64 = 3000;
const KEYS: u64 = 50;

/// Counts numbers by their remainder into the ledger, at so many a second.
fn counting(data: &Path, ledger: &Ledger, rate: u64) -> Job {
    let ledger = ledger.clone();
    let topology = move |t: &Topology| {
        counts(t, rate).sink("counts", ledger.clone());
        Ok(())
    };
    settings(Job::new("numbers", topology), data)
}

fn counts(t: &Topology, rate: u64) -> Stream<Row> {
    t.source("numbers", Generator::new(|split, n| n * 3 + split).splits(3).count(N / 3).rate(rate))
        .key_by_value(|n| n % KEYS)
        .aggregate("count", |of| of.count())
}

fn settings(job: Job, data: &Path) -> Job {
    let policy = RestartPolicy { pause: Duration::from_millis(5), pause_max: Duration::from_millis(20), attempts: 20 };
    job.data_dir(data).parallelism(2).checkpoint_interval(Duration::from_millis(20)).restart(policy)
}

/// That each key was counted up one by one, to the end if the job has finished.
#[track_caller]
fn check(ledger: &Ledger, finished: bool) {
    let seen = counted(ledger);
    if finished {
        assert_eq!(seen, (0..KEYS).map(|key| (key, N / KEYS)).collect());
    }
}

/// How far each key was counted, one by one.
#[track_caller]
fn counted(ledger: &Ledger) -> BTreeMap<u64, u64> {
    let broker = ledger.broker();
    let mut seen = BTreeMap::<u64, u64>::new();
    for (key, count) in &broker.rows {
        let last = seen.entry(*key).or_default();
        assert_eq!(*count, *last + 1, "of key {key}");
        *last = *count;
    }
    let epochs: Vec<u64> = broker.records.iter().map(|r| r.epoch).collect();
    assert!(epochs.windows(2).all(|w| w[0] == w[1] || w[0] + 1 == w[1]), "{epochs:?}");
    seen
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn start(job: Job) -> JobHandle {
    block_on(job.start()).unwrap()
}

fn ended(handle: &JobHandle) -> Result<(), Error> {
    block_on(handle.wait())
}

/// Waits until so many records are decided.
fn decided(ledger: &Ledger, records: usize) {
    while ledger.broker().records.len() < records {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn answers_lost_rights_lost_and_crashes_double_and_lose_nothing() {
    let seed = seed();
    let mut random = Random::new(seed);
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let (mut ends, mut yielded) = (0, 0);
    let finished = loop {
        assert!(ends < 400, "seed {seed}: it never ends");
        ends += 1;
        let faults = [None, None, None, None, Some(Fault::Done), Some(Fault::Lost), Some(Fault::Fenced)];
        ledger.broker().faults = (0..40).map(|_| faults[random.within(0..7) as usize]).collect();
        let handle = start(counting(&scratch.join("data"), &ledger, 6000));
        if random.within(0..3) > 0 {
            std::thread::sleep(random.up_to(Duration::from_millis(150)));
            handle.abort();
        }
        match ended(&handle) {
            Ok(()) => break ends,
            Err(error) if error.kind() == ErrorKind::Busy => {
                assert!(error.to_string().contains("yielded"), "seed {seed}: {error}");
                yielded += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Failed, "seed {seed}: {error}"),
        }
        check(&ledger, false);
    };
    println!("seed {seed}: {finished} lives, {yielded} yielded");
    check(&ledger, true);
}

/// Nine of ten records are of one key; one in a hundred is of 3 MiB, and so is the row of state that keeps it.
#[test]
fn f15_skewed_keys_and_huge_records_come_once() {
    const HUGE: usize = 3 << 20;
    let key = |n: u64| if n.is_multiple_of(10) { 1 + n / 10 % 7 } else { 0 };
    let topology = |ledger: &Ledger| {
        let ledger = ledger.clone();
        move |t: &Topology| {
            let bytes = |n: u64| if n.is_multiple_of(100) { HUGE } else { 3 };
            t.source(
                "records",
                Generator::new(move |split, n| (n * 3 + split, bytes(n * 3 + split))).splits(3).count(N / 3).rate(4000),
            )
            .map(|(n, bytes)| (n, vec![n as u8; bytes]))
            .key_by_value(move |(n, _)| key(*n))
            .map_with_state("last", |(count, last): &mut (u64, Vec<u8>), (n, bytes)| {
                *count += 1;
                *last = bytes;
                (n, *count)
            })
            .map(move |(n, count)| (key(n), count))
            .sink("counts", ledger.clone());
            Ok(())
        }
    };
    let seed = seed();
    let mut random = Random::new(seed);
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let mut lives = 0;
    loop {
        lives += 1;
        let handle = start(settings(Job::new("numbers", topology(&ledger)), &scratch.join("data")));
        if lives < 12 {
            std::thread::sleep(random.up_to(Duration::from_millis(120)));
            handle.abort();
        }
        match ended(&handle) {
            Ok(()) => break,
            Err(error) => assert!(lives < 12, "seed {seed}: {error}"),
        }
        counted(&ledger);
    }
    assert!(lives > 2, "seed {seed}: it was over before it was killed");
    let mut all = BTreeMap::<u64, u64>::new();
    (0..N).for_each(|n| *all.entry(key(n)).or_default() += 1);
    assert_eq!(counted(&ledger), all, "seed {seed}: {lives} lives");
}

#[test]
fn a_replacement_on_a_copy_takes_the_job_and_the_other_ends_for_good() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let first = start(counting(&scratch.join("a"), &ledger, 3000));
    decided(&ledger, 5);
    // a copy of a running directory is torn: only one that stands still can be taken over
    first.abort();
    ended(&first).unwrap_err();
    copy_directory(&scratch.join("a"), &scratch.join("b"));
    let before = ledger.broker().records.len();
    let first = start(counting(&scratch.join("a"), &ledger, 1));
    decided(&ledger, before + 1);
    let instances = |ledger: &Ledger| ledger.broker().records.last().unwrap().instance;
    let of_first = instances(&ledger);
    let second = start(counting(&scratch.join("b"), &ledger, 6000));
    ended(&second).unwrap();
    assert_ne!(instances(&ledger), of_first);
    let error = ended(&first).unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Superseded, 77), "{error}");
    assert!(error.to_string().contains("another instance has taken the job `numbers` over"), "{error}");
    check(&ledger, true);
}

#[test]
fn whoever_is_fenced_by_one_that_gives_up_goes_on_in_its_process() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    ledger.broker().faults =
        [vec![None; 3], vec![Some(Fault::Fenced)], vec![None], vec![Some(Fault::Done)]].concat().into();
    ended(&start(counting(&scratch.join("data"), &ledger, 9000))).unwrap();
    check(&ledger, true);
    // one process: one claim, its genesis
    let broker = ledger.broker();
    assert!(broker.records.windows(2).all(|w| w[0].epoch < w[1].epoch && w[0].instance == w[1].instance));
}

#[test]
fn whoever_cannot_know_that_its_claim_is_decided_yields() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let run = || ended(&start(counting(&scratch.join("data"), &ledger, 30_000)));
    for (fault, decided) in [(Fault::Lost, 0), (Fault::Done, 1)] {
        ledger.broker().faults = [Some(fault)].into();
        let error = run().unwrap_err();
        assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Busy, 75), "{error}");
        assert!(error.to_string().contains("Start it again after a pause"), "{error}");
        assert_eq!(ledger.broker().records.len(), decided);
    }
    run().unwrap();
    check(&ledger, true);
    // the claim is the newest record once more, under another name
    let broker = ledger.broker();
    let [genesis, claim] = &broker.records[..2] else { panic!("there are fewer records") };
    assert_eq!((genesis.epoch, &genesis.manifest), (claim.epoch, &claim.manifest));
    assert_ne!(genesis.instance, claim.instance);
}

/// That a job is refused, with exit code 78, says this, and that it has decided nothing.
#[track_caller]
fn refused(job: Job, ledger: &Ledger, said: &str) {
    let seen = || {
        let broker = ledger.broker();
        (broker.records.clone(), broker.rows.len())
    };
    let before = seen();
    let error = ended(&start(job)).unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Refused, 78), "{error}");
    assert!(error.to_string().contains(said), "{error}");
    assert_eq!(seen(), before);
}

#[test]
fn what_the_log_and_the_directory_do_not_agree_on_is_refused() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let again = |data: &str| counting(&scratch.join(data), &ledger, 9000);
    let life = |records: usize| {
        let handle = start(counting(&scratch.join("data"), &ledger, 3000));
        decided(&ledger, records);
        handle.abort();
        ended(&handle).unwrap_err();
    };
    life(4);
    copy_directory(&scratch.join("data"), &scratch.join("old"));
    let old = ledger.broker().records.clone();
    life(9);
    refused(again("old"), &ledger, "put back to an earlier state or copied");
    refused(again("other"), &ledger, "which");
    let new = std::mem::replace(&mut ledger.broker().records, old);
    refused(again("data"), &ledger, "the log was put back to an earlier state");
    ledger.broker().records.clear();
    refused(again("data"), &ledger, "holds no record of this job");
    ledger.broker().is_there = false;
    refused(again("data"), &ledger, "is gone");
    {
        let mut broker = ledger.broker();
        (broker.is_there, broker.made, broker.records) = (true, broker.made + 1, new.clone());
    }
    refused(again("data"), &ledger, "the log was deleted and made again");
    ledger.broker().made -= 1;
    ended(&start(again("data"))).unwrap();
    check(&ledger, true);
}

#[test]
fn sinks_that_decide_are_added_and_taken_out() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let (data, output) = (scratch.join("data"), scratch.join("out"));
    let program = |with_ledger: bool, rate: u64| {
        let (ledger, output) = (ledger.clone(), output.clone());
        let topology = move |t: &Topology| {
            let counts = counts(t, rate);
            if with_ledger {
                counts.clone().sink("ledger", ledger.clone());
            }
            counts.map(|(key, count)| format!("{key} {count}")).sink("counts", Files::write(&output).text());
            Ok(())
        };
        settings(Job::new("numbers", topology), &data)
    };
    let lives = |with_ledger: bool| {
        let handle = start(program(with_ledger, 3000));
        while handle.status().checkpoints < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        handle
    };
    let crash = |handle: &JobHandle| {
        handle.abort();
        ended(handle).unwrap_err();
    };
    crash(&lives(false));
    assert!(ledger.broker().records.is_empty());
    crash(&lives(true));
    crash(&lives(true));
    // what was decided last only the ledger can say
    let error = ended(&start(program(false, 3000)));
    let is_marked = error.is_ok();
    if let Err(error) = error {
        assert!(error.to_string().contains("no sink of the program decides there"), "{error}");
    }
    if !is_marked {
        block_on(lives(true).stop()).unwrap();
        ended(&start(program(false, 9000))).unwrap();
    }
    let output = crate::common::Output::of(&output);
    let expected: BTreeMap<String, u64> = (0..KEYS).map(|key| (key.to_string(), N / KEYS)).collect();
    let counts = output.lines("counts").into_iter().map(|line| {
        let (key, count) = line.split_once(' ').unwrap();
        (key.to_owned(), count.parse().unwrap())
    });
    crate::common::counted("counts", counts, &expected).unwrap();
}

#[test]
fn two_that_decide_are_a_mistake() {
    let (scratch, ledger) = (Scratch::new(), Ledger::new());
    let two = move |t: &Topology| {
        let counts = counts(t, 9000);
        counts.clone().sink("one", ledger.clone());
        counts.sink("two", ledger.again());
        Ok(())
    };
    let error = job(&scratch, two).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Topology);
    assert!(error.to_string().contains("sink `one`") && error.to_string().contains("sink `two`"), "{error}");
}
