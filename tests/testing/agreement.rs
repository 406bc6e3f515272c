//! The test tools against what they stand for: whatever comes in, a driver gives what a job gives.

use crate::common::{Scratch, job};
use millstream::operator::Sink;
use millstream::prelude::*;
use millstream::testing::TestDriver;
use proptest::prelude::*;

type Out = (u64, Option<i64>, u64);

/// A chain, branches, and two keyed operators of the same key, so that what belongs to one key stays in order however
/// many subtasks there are.
fn pipeline(t: &Topology, records: Vec<(u64, i64)>, out: impl Sink<Out>, bad: impl Sink<i64>) {
    let checked = t.source("in", Records::of(records)).map(|(key, n)| if n < 0 { Err(n) } else { Ok((key, n)) });
    let (good, errors) = checked.split();
    errors.sink("bad", bad);
    good.flat_map(|(key, n)| (0..=n % 3).map(move |m| (key, n + m)))
        .key_by(|(key, _)| key)
        .map_with_state("sum", |sum: &mut i64, (key, n)| {
            *sum += n;
            (key, *sum)
        })
        .filter(|(_, sum)| sum % 5 != 0)
        .key_by_value(|(key, _)| key % 8)
        .aggregate("top", |of| (of.max(|(_, sum)| *sum), of.count()))
        .map(|(key, (top, count))| (key, top, count))
        .sink("out", out);
}

/// What each sink got, in no order.
fn sorted<T: Ord>(mut got: Vec<T>) -> Vec<T> {
    got.sort_unstable();
    got
}

fn of_job(records: Vec<(u64, i64)>, parallelism: usize) -> (Vec<Out>, Vec<i64>) {
    let (scratch, (out, got), (bad, got_bad)) = (Scratch::new(), Collected::new(), Collected::new());
    let topology = move |t: &Topology| {
        pipeline(t, records.clone(), out.clone(), bad.clone());
        Ok(())
    };
    job(&scratch, topology).parallelism(parallelism).run().unwrap();
    (sorted(got.take()), sorted(got_bad.take()))
}

fn of_driver(records: &[(u64, i64)], parallelism: usize) -> (Vec<Out>, Vec<i64>) {
    let topology = |t: &Topology| {
        pipeline(t, Vec::new(), Null::new(), Null::new());
        Ok(())
    };
    let mut test = TestDriver::of(&Job::new("test", topology).parallelism(parallelism));
    test.source("in").push_all(records.iter().copied());
    test.end();
    (sorted(test.take("out")), sorted(test.take("bad")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_driver_gives_what_a_job_gives(
        records in prop::collection::vec((0u64..8, -2i64..50), 0..200),
        (of_the_job, of_the_driver) in (1usize..=4, 1usize..=4),
    ) {
        prop_assert_eq!(of_driver(&records, of_the_driver), of_job(records, of_the_job));
    }
}

/// The same calls give the same results in the same order.
#[test]
fn a_driver_is_deterministic() {
    let in_order = || {
        let topology = |t: &Topology| {
            pipeline(t, Vec::new(), Null::new(), Null::new());
            Ok(())
        };
        let mut test = TestDriver::of(&Job::new("test", topology).parallelism(3));
        test.source("in").push_all((0u64..300).map(|n| (n % 8, (n * n % 47) as i64)));
        test.take::<Out>("out")
    };
    let first = in_order();
    assert!(first.len() > 200);
    (0..5).for_each(|_| assert_eq!(in_order(), first));
}
