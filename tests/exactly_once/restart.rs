//! Attempts that fail: the job recovers in its process, by its policy, and what it gives is as if nothing had been.

use crate::common::{Output, Scratch, WordCount, counted, job, visible};
use millstream::ErrorKind;
use millstream::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const N: u64 = 3000;

/// So many attempts at once, a few milliseconds apart.
fn at_once(attempts: u32) -> RestartPolicy {
    RestartPolicy { attempts, pause: Duration::from_millis(5), pause_max: Duration::from_millis(20) }
}

/// Counts numbers by their remainder into files; `f` sees each of them.
fn counting(
    output: &Path,
    f: impl Fn(u64) -> Result<(), BoxError> + Clone + Send + Sync + 'static,
) -> impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static {
    let output = output.to_owned();
    move |t| {
        let f = f.clone();
        t.source("numbers", Generator::new(|split, n| n * 3 + split).splits(3).count(N / 3).rate(3000))
            .try_map(move |n| f(n).map(|()| n))
            .key_by_value(|n| n % 50)
            .aggregate("count", |of| of.count())
            .map(|(key, count)| format!("{key} {count}"))
            .sink("counts", Files::write(&output).text());
        Ok(())
    }
}

/// That the output holds the counts of all numbers, each once.
fn check(output: &Path) {
    let output = Output::of(output);
    let mut totals = BTreeMap::<String, u64>::new();
    (0..N).for_each(|n| *totals.entry((n % 50).to_string()).or_default() += 1);
    let counts = output.lines("counts").into_iter().map(|line| {
        let (key, count) = line.split_once(' ').unwrap();
        (key.to_owned(), count.parse().unwrap())
    });
    counted("counts", counts, &totals).unwrap();
}

#[test]
fn a_function_that_fails_twice_gives_exactly_once_output() {
    let scratch = Scratch::new();
    let failures = Arc::new(AtomicU32::new(0));
    let fails = {
        let failures = failures.clone();
        move |n| match n {
            2000 if failures.fetch_add(1, Ordering::Relaxed) < 2 => Err("not now".into()),
            _ => Ok(()),
        }
    };
    let output = scratch.join("out");
    let job = job(&scratch, counting(&output, fails)).checkpoint_interval(Duration::from_millis(30));
    job.restart(at_once(5)).run().unwrap();
    assert_eq!(failures.load(Ordering::Relaxed), 3);
    check(&output);
}

/// The failures in a row count, not all of them: a checkpoint in between starts the count anew. Fails whenever more has
/// become visible.
#[test]
fn failures_far_apart_do_not_add_up() {
    let scratch = Scratch::new();
    let output = scratch.join("out");
    let failures = Arc::new(Mutex::new((0, 0)));
    let fails = {
        let (failures, output) = (failures.clone(), output.clone());
        move |n: u64| {
            if n.is_multiple_of(40) {
                let (failed, seen) = &mut *failures.lock().map_err(|e| e.to_string())?;
                let shown = visible(&output).len();
                if shown > *seen && *failed < 5 {
                    (*failed, *seen) = (*failed + 1, shown);
                    return Err(format!("failure {failed}").into());
                }
            }
            Ok(())
        }
    };
    let job = job(&scratch, counting(&output, fails)).checkpoint_interval(Duration::from_millis(20));
    job.restart(at_once(3)).run().unwrap();
    let failed = failures.lock().unwrap().0;
    assert!(failed >= 3, "it has failed {failed} times only");
    check(&output);
}

#[test]
fn a_poison_record_fails_the_job_after_its_attempts() {
    let scratch = Scratch::new();
    let attempts = Arc::new(AtomicU32::new(0));
    let poison = {
        let attempts = attempts.clone();
        move |n| {
            if n == 0 {
                attempts.fetch_add(1, Ordering::Relaxed);
                return Err("zero cannot be divided by".into());
            }
            Ok(())
        }
    };
    let output = scratch.join("out");
    let error = job(&scratch, counting(&output, poison)).restart(at_once(4)).run().unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Failed, 1));
    let text = error.to_string();
    for said in ["zero cannot be divided by", "4 times", "`numbers`"] {
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }
    assert_eq!(attempts.load(Ordering::Relaxed), 4);
    assert_eq!(Output::of(&output), Output::default());
    // the remedy is another program: it goes on
    job(&scratch, counting(&output, |_| Ok(()))).run().unwrap();
    check(&output);
}

/// The same through a command line: a line that is not UTF-8 is met five times, half a second to four seconds apart.
#[test]
fn a_poison_line_ends_word_count_with_1() {
    let scratch = Scratch::new();
    let job = WordCount::new(scratch.path());
    std::fs::write(job.input().join("a.txt"), b"good\nb\xffd\n").unwrap();
    job.run(&[]).expect(1, &["5 times", "source `text`", "a.txt"]);
    std::fs::write(job.input().join("a.txt"), b"good\nbad\n").unwrap();
    job.run(&[]).expect(0, &["finished"]);
    job.check(&job.shown()).unwrap();
}

#[test]
fn a_panic_is_an_error_that_names_the_operator() {
    let (scratch, panicked) = (Scratch::new(), Arc::new(AtomicU32::new(0)));
    let (output, seen) = Collected::<u64>::new();
    let topology = move |once: bool, in_state: bool| {
        let (panicked, output) = (panicked.clone(), output.clone());
        move |t: &Topology| {
            let (panicked, output) = (panicked.clone(), output.clone());
            let check = move |n: u64, here: bool| {
                let again = panicked.load(Ordering::Relaxed) > 0;
                if n == 50 && here && !(once && again) {
                    panicked.fetch_add(1, Ordering::Relaxed);
                    panic!("fifty is too much");
                }
                n
            };
            let mapped = check.clone();
            t.source("numbers", Records::of(0..100u64))
                .map(move |n| mapped(n, !in_state))
                .key_by_value(|n| n % 10)
                .map_with_state("totals", move |_: &mut u64, n| check(n, in_state))
                .sink("out", output.clone());
            Ok(())
        }
    };
    for (in_state, name) in [(false, "`numbers`"), (true, "`totals`")] {
        let error = job(&scratch, topology(false, in_state)).restart(at_once(2)).run().unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Failed, "{text}");
        for said in ["panicked: fifty is too much", name, "2 times"] {
            assert!(text.contains(said), "`{said}` is not in: {text}");
        }
    }
    assert!(seen.is_empty());
    job(&scratch, topology(true, true)).restart(at_once(3)).run().unwrap();
    let mut all = seen.take();
    all.sort();
    assert!(all.into_iter().eq(0..100));
}

#[test]
fn a_refusal_is_final() {
    let (scratch, attempts) = (Scratch::new(), Arc::new(AtomicU32::new(0)));
    let refuses = {
        let attempts = attempts.clone();
        move |n| {
            if n > 0 {
                return Ok(());
            }
            attempts.fetch_add(1, Ordering::Relaxed);
            Err(millstream::Error::refused("somebody has to look at this").into())
        }
    };
    let error = job(&scratch, counting(&scratch.join("out"), refuses)).restart(at_once(9)).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
}
