//! Records that fail whatever is done: which operator, subtask, split and offset they are blamed on, and when they are
//! called poison. That a job recovers is shown in `restart.rs`.

use crate::common::{Scratch, job};
use millstream::ErrorKind;
use millstream::operator::{Sink, SinkContext, SinkWriter};
use millstream::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const LINES: u64 = 6000;
/// The line that fails.
const BAD: u64 = 1234;

/// So many attempts at once, a few milliseconds apart.
fn at_once(attempts: u32) -> RestartPolicy {
    RestartPolicy { attempts, pause: Duration::from_millis(5), pause_max: Duration::from_millis(20) }
}

/// A file of numbers, and the byte at which the bad one begins.
fn numbers(scratch: &Scratch) -> (std::path::PathBuf, usize) {
    let lines: Vec<String> = (0..LINES).map(|n| format!("{n}\n")).collect();
    let path = scratch.join("numbers.txt");
    std::fs::write(&path, lines.concat()).unwrap();
    (path, lines[..BAD as usize].concat().len())
}

/// Runs a topology over the file with four attempts, which all fail; what is said in the end.
#[track_caller]
fn fails(build: impl Fn(Stream<u64>) + Send + Sync + 'static, expect: &[&str]) -> (String, usize) {
    let scratch = Scratch::new();
    let (path, byte) = numbers(&scratch);
    let topology = move |t: &Topology| {
        let lines = t.source("lines", Files::read(&path).lines());
        build(lines.try_map(|line| Ok(line.parse::<u64>()?)).boxed());
        Ok(())
    };
    let error = job(&scratch, topology).restart(at_once(4)).run().unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Failed, 1), "{error}");
    let text = error.to_string();
    for said in expect.iter().chain(&["failed 4 times in a row", "a poison record", "`or_skip`", "`split`"]) {
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }
    (text, byte)
}

/// The same where the record is in the source's subtask: then it is known to the byte.
#[track_caller]
fn fails_at_the_byte(build: impl Fn(Stream<u64>) + Send + Sync + 'static, expect: &[&str]) {
    let (text, byte) = fails(build, expect);
    let place = format!("/numbers.txt, offset {byte}: ");
    let verdict = format!("/numbers.txt, offset {byte} is a poison record: all 4 attempts failed at it");
    for said in ["source `lines`, subtask 0, split /", &place, "the record of source `lines`, split /", &verdict] {
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }
}

#[test]
fn f16_a_function_that_fails_is_blamed_on_its_record() {
    fails_at_the_byte(
        |numbers| {
            let checked = numbers.try_map(|n| if n == BAD { Err("this is too much".into()) } else { Ok(n) });
            checked.filter(|n| n % 2 == 0).sink("out", Null::new());
        },
        &["poison.rs:", "operator `chain at ", "this is too much"],
    );
    fails_at_the_byte(
        |numbers| numbers.map(|n| if n == BAD { Err("not good") } else { Ok(n) }).or_fail().sink("out", Null::new()),
        &["operator `chain at ", "not good"],
    );
}

#[test]
fn f16_a_panic_in_a_function_is_blamed_on_its_record() {
    let wrong = |n: u64| {
        assert_ne!(n, BAD, "not this one");
        n
    };
    let panics = ["panicked: ", "not this one"];
    fails_at_the_byte(move |numbers| numbers.map(wrong).sink("out", Null::new()), &panics);
    // before an exchange, and before branches
    fails_at_the_byte(move |numbers| numbers.map(wrong).rebalance().sink("out", Null::new()), &panics);
    fails_at_the_byte(
        move |numbers| numbers.key_by_value(move |n| wrong(*n)).aggregate("sum", |of| of.count()).discard(),
        &panics,
    );
    fails_at_the_byte(
        move |numbers| {
            let (even, odd) = numbers.map(|n| if n % 2 == 0 { Ok(n) } else { Err(n) }).split();
            even.map(wrong).sink("even", Null::new());
            odd.sink("odd", Null::new());
        },
        &panics,
    );
}

#[test]
fn behind_an_exchange_the_key_is_named() {
    let place = ["operator `totals`, subtask ", ", key group ", "most likely at the same record"];
    let wrong = |n: u64| if n == BAD { Err(format!("{n} is wrong")) } else { Ok(()) };
    struct Checks<F>(F);
    impl<F: Fn(u64) -> Result<(), String> + Send + Sync + 'static> Process for Checks<F> {
        type Key = u64;
        type In = u64;
        type Out = u64;
        type State = ();
        fn on_record(&self, n: u64, _: &mut (), _: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
            Ok((self.0)(n)?)
        }
    }
    let keyed = |numbers: Stream<u64>| numbers.key_by_value(|n| n % 100);
    fails(
        move |numbers| keyed(numbers).process("totals", Checks(wrong)).discard(),
        &[&place[..], &["key 34: 1234 is wrong"]].concat(),
    );
    fails(
        move |numbers| {
            let total = move |total: &mut u64, n: u64| {
                wrong(n).unwrap();
                *total += n;
                *total
            };
            keyed(numbers).map_with_state("totals", total).discard();
        },
        &[&place[..], &["panicked: ", "1234 is wrong"]].concat(),
    );
    fails(
        move |numbers| {
            let checked = move |n: &u64| {
                wrong(*n).unwrap();
                *n
            };
            keyed(numbers).aggregate("totals", |of| of.sum(checked)).discard();
        },
        &[&place[..], &["panicked: ", "1234 is wrong"]].concat(),
    );
}

/// A sink that panics over one record.
struct Picky;
impl Sink<u64> for Picky {
    type Writer = Picky;
    async fn open(&self, _: &SinkContext) -> Result<Picky, BoxError> {
        Ok(Picky)
    }
}
impl SinkWriter<u64> for Picky {
    type Committable = ();
    async fn write(&mut self, batch: millstream::framework::Batch<u64>) -> Result<(), BoxError> {
        tokio::task::yield_now().await;
        assert!(!batch.values.contains(&BAD), "this cannot be written");
        Ok(())
    }
    async fn prepare(&mut self, _: u64) -> Result<Option<()>, BoxError> {
        Ok(None)
    }
    async fn commit(&mut self, _: ()) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn f16_a_panic_in_a_sink_is_blamed_on_its_record() {
    let said = ["sink `out`, subtask ", "panicked: this cannot be written"];
    fails_at_the_byte(|numbers| numbers.sink("out", Picky), &said);
    fails(|numbers| numbers.rebalance().sink("out", Picky), &said);
}

#[test]
fn f16_a_panic_in_a_source_is_named() {
    let scratch = Scratch::new();
    let topology = |t: &Topology| {
        let make = |split, offset| if (split, offset) == (1, 500) { panic!("no such record") } else { offset };
        t.source("made", Generator::new(make).splits(3).count(1000)).sink("out", Null::new());
        Ok(())
    };
    let text = job(&scratch, topology).restart(at_once(2)).run().unwrap_err().to_string();
    for said in ["source `made`, subtask ", "panicked: no such record", "a poison record"] {
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }
}

/// A line that cannot be decoded is named by the source itself.
#[test]
fn f16_an_undecodable_line_is_poison() {
    let scratch = Scratch::new();
    let path = scratch.join("lines.jsonl");
    std::fs::write(&path, "1\n2\nx\n4\n").unwrap();
    let topology = move |t: &Topology| {
        t.source("lines", Files::read(&path).json::<u64>()).sink("out", Null::new());
        Ok(())
    };
    let text = job(&scratch, topology).restart(at_once(3)).run().unwrap_err().to_string();
    for said in ["source `lines`, subtask 0: `/", "lines.jsonl`, offset 4: no `u64` as JSON", "all 3 attempts"] {
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }
}

/// Errors that come and go, at one record or at several.
#[test]
fn trouble_that_passes_is_not_called_poison() {
    for (attempts, same) in [(3, false), (5, true)] {
        let scratch = Scratch::new();
        let (path, _) = numbers(&scratch);
        let failures = Arc::new(AtomicU32::new(0));
        let fails = failures.clone();
        let topology = move |t: &Topology| {
            let fails = fails.clone();
            let check = move |line: String| {
                let n: u64 = line.parse()?;
                let failed = fails.load(Ordering::Relaxed);
                if n == BAD + if same { 0 } else { u64::from(failed) * 1500 } && failed < 4 {
                    fails.fetch_add(1, Ordering::Relaxed);
                    return Err(if failed == 0 { "first of all" } else { "again" }.into());
                }
                Ok(n)
            };
            t.source("lines", Files::read(&path).lines()).try_map(check).sink("out", Null::new());
            Ok(())
        };
        let done = job(&scratch, topology).restart(at_once(attempts)).run();
        match done {
            Ok(()) => assert_eq!((attempts, failures.load(Ordering::Relaxed)), (5, 4)),
            Err(error) => {
                assert!(attempts == 3 && !error.to_string().contains("a poison record"), "{attempts} {same}: {error}");
            }
        }
    }
}
