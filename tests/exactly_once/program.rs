//! A program that does not fit the checkpoint it finds.

use crate::common::{Scratch, job};
use millstream::ErrorKind;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};

/// The running sum of 0 to `to` per remainder, kept by an operator of this name as a state of type `S`.
fn sums<S: millstream::framework::Data + Default + Copy>(
    to: u64,
    operator: &'static str,
    sink: &Collected<(u64, u64)>,
    add: fn(&mut S, u64) -> u64,
) -> impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static {
    let sink = sink.clone();
    move |t| {
        let sum = move |sum: &mut S, n: u64| (n, add(sum, n));
        let numbers = t.source("numbers", Records::of(0..to)).key_by_value(|n| n % 10);
        numbers.map_with_state(operator, sum).sink("out", sink.clone());
        Ok(())
    }
}

fn plain(sum: &mut u64, n: u64) -> u64 {
    *sum += n;
    *sum
}

/// That `job` is refused with these words.
#[track_caller]
fn refused(job: Job, said: &[&str]) {
    let error = job.run().expect_err("this must be refused");
    let text = error.to_string();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Refused, 78), "{text}");
    for said in said {
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }
}

/// That the program of the beginning goes on, with 100 to 109.
#[track_caller]
fn goes_on(scratch: &Scratch, sink: &Collected<(u64, u64)>, seen: &millstream::sinks::Seen<(u64, u64)>) {
    assert_eq!(seen.take().len(), 100, "a refusal has changed the output");
    job(scratch, sums(110, "sums", sink, plain)).run().unwrap();
    let mut sums = seen.take();
    sums.sort();
    assert_eq!(sums, later_sums());
}

/// The sums of 100 to 109.
fn later_sums() -> Vec<(u64, u64)> {
    (100..110).map(|n| (n, (0..=n).filter(|m| m % 10 == n % 10).sum())).collect()
}

#[test]
fn f12_another_jobs_directory_is_refused() {
    let (scratch, (sink, seen)) = (Scratch::new(), Collected::new());
    job(&scratch, sums(100, "sums", &sink, plain)).run().unwrap();
    let other = Job::new("another", sums(100, "sums", &sink, plain)).data_dir(scratch.join("data"));
    refused(other, &["belongs to the job `test`", "this is the job `another`", "--data-dir"]);
    goes_on(&scratch, &sink, &seen);
}

#[test]
fn a_state_of_another_type_is_refused() {
    #[derive(Default, Clone, Copy, Serialize, Deserialize)]
    struct Sum {
        sum: u64,
        count: u32,
    }
    let (scratch, (sink, seen)) = (Scratch::new(), Collected::new());
    job(&scratch, sums(100, "sums", &sink, plain)).run().unwrap();
    let with_count = |state: &mut Sum, n| {
        state.count += 1;
        state.sum += n;
        state.sum
    };
    refused(job(&scratch, sums(110, "sums", &sink, with_count)), &["sums"]);
    let signed = |sum: &mut i64, n| {
        *sum += n as i64;
        *sum as u64
    };
    refused(job(&scratch, sums(110, "sums", &sink, signed)), &["sums"]);
    goes_on(&scratch, &sink, &seen);
}

#[test]
fn what_the_program_no_longer_has_is_not_dropped_in_silence() {
    let (scratch, (sink, seen)) = (Scratch::new(), Collected::new());
    job(&scratch, sums(100, "sums", &sink, plain)).run().unwrap();
    refused(job(&scratch, sums(110, "totals", &sink, plain)), &["the state of `sums`"]);
    let renamed = sink.clone();
    let other_source = move |t: &Topology| {
        let numbers = t.source("digits", Records::of(0..110u64)).key_by_value(|n| n % 10);
        let sum = |sum: &mut u64, n: u64| (n, plain(sum, n));
        numbers.map_with_state("sums", sum).sink("out", renamed.clone());
        Ok(())
    };
    refused(job(&scratch, other_source), &["the offsets of source `numbers`"]);
    goes_on(&scratch, &sink, &seen);
}

#[test]
fn what_is_new_starts_empty_and_the_rest_goes_on() {
    let (scratch, (sink, seen)) = (Scratch::new(), Collected::new());
    job(&scratch, sums(100, "sums", &sink, plain)).run().unwrap();
    let _ = seen.take();
    let (more, seen_more) = Collected::new();
    let topology = move |t: &Topology| {
        let numbers = t.source("numbers", Records::of(0..110u64)).key_by_value(|n| n % 10);
        let sum = |sum: &mut u64, n: u64| (n, plain(sum, n));
        numbers.clone().map_with_state("sums", sum).sink("out", sink.clone());
        numbers.aggregate("count", |of| of.count()).sink("counts", more.clone());
        t.source("others", Records::of(0..5u64)).discard();
        Ok(())
    };
    job(&scratch, topology).run().unwrap();
    let mut sums = seen.take();
    sums.sort();
    assert_eq!(sums, later_sums());
    let mut counts = seen_more.take();
    counts.sort();
    assert_eq!(counts, (0..10).map(|key| (key, 1)).collect::<Vec<_>>());
}

#[test]
fn a_shorter_list_than_was_read_is_refused() {
    let (scratch, (sink, _)) = (Scratch::new(), Collected::new());
    job(&scratch, sums(100, "sums", &sink, plain)).run().unwrap();
    refused(job(&scratch, sums(99, "sums", &sink, plain)), &["has 99 values", "read 100"]);
}

#[test]
fn an_instance_in_the_same_process_is_kept_out_too() {
    let scratch = Scratch::new();
    let job = |rate| {
        let topology = move |t: &Topology| {
            let numbers = t.source("numbers", Generator::new(|_, n| n).count(200).rate(rate));
            numbers.sink("out", Null::new());
            Ok(())
        };
        job(&scratch, topology)
    };
    std::thread::scope(|threads| {
        let first = threads.spawn(|| job(Some(200)).run());
        while !std::fs::read_to_string(scratch.join("data/LOCK")).is_ok_and(|pid| !pid.is_empty()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let error = job(None).run().expect_err("the directory is held");
        assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Busy, 75), "{error}");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        first.join().unwrap().unwrap();
    });
}
