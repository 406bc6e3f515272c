//! Operators without keys, and records for all subtasks. How they survive SIGKILL is in `crash/lookups.rs`.

use crate::common::{Asks, Call, Scratch, collect, gives, job, names, refused};
use futures::FutureExt;
use millstream::prelude::*;
use millstream::{ErrorKind, clock};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// What the calls of a test wait for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Service {
    Waits,
    Answers,
    Fails,
}

/// An operator whose calls give twice the number when the service answers.
fn asks(
    at_once: usize,
    service: watch::Receiver<Service>,
    asked: Arc<AtomicUsize>,
) -> impl Fn() -> Asks<Box<dyn Fn(u64) -> Call<u64>>, u64> + Send + Sync + 'static {
    move || {
        let (service, asked) = (service.clone(), asked.clone());
        Asks::new(
            at_once,
            Box::new(move |n| {
                let mut service = service.clone();
                asked.fetch_add(1, SeqCst);
                async move {
                    match *service.wait_for(|service| *service != Service::Waits).await? {
                        Service::Fails => Err(format!("no answer to {n}").into()),
                        _ => Ok(2 * n),
                    }
                }
                .boxed_local()
            }),
        )
    }
}

/// The newest checkpoint that is finished.
fn finished(scratch: &Scratch) -> u64 {
    let names = names(&scratch.join("data/checkpoints"));
    names.iter().filter_map(|name| name.strip_prefix("decided-")?.parse().ok()).max().unwrap_or(0)
}

/// Waits until something holds, and not for ever.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = clock::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn each_record_is_answered_once() {
    let build = |t: &Topology, sink: Collected<u64>| {
        let (_, service) = watch::channel(Service::Answers);
        let numbers = t.source("numbers", Generator::new(|split, n| split * 1000 + n).splits(3).count(1000));
        let asked = Arc::default();
        numbers
            .operator("first", asks(7, service.clone(), Arc::clone(&asked)))
            .rebalance()
            .operator("second", asks(50, service, asked))
            .sink("out", sink);
    };
    gives(build, (0..3000).map(|n| 4 * n));
}

/// More is read than calls may be under way, and no call is answered: checkpoints go on.
#[test]
fn checkpoints_are_taken_while_all_calls_wait() {
    const AT_ONCE: usize = 10;
    for rebalanced in [false, true] {
        let scratch = Scratch::new();
        let (open, service) = watch::channel(Service::Waits);
        let ((sink, seen), asked) = (Collected::new(), Arc::new(AtomicUsize::new(0)));
        let counted = asked.clone();
        let topology = move |t: &Topology| {
            let numbers = t.source("numbers", Generator::new(|_, n| n).count(20_000));
            let numbers = if rebalanced { numbers.rebalance() } else { numbers };
            numbers.operator("asks", asks(AT_ONCE, service.clone(), counted.clone())).sink("out", sink.clone());
            Ok(())
        };
        let job = job(&scratch, topology).checkpoint_interval(Duration::from_millis(5));
        std::thread::scope(|scope| {
            let running = scope.spawn(|| job.run());
            until("the limit of calls", || asked.load(SeqCst) >= AT_ONCE);
            let before = finished(&scratch);
            until("a fifth checkpoint", || finished(&scratch) >= before + 5);
            assert!(asked.load(SeqCst) <= 2 * AT_ONCE, "one limit in each subtask");
            assert!(seen.is_empty());
            open.send(Service::Answers).unwrap();
            running.join().unwrap().unwrap();
        });
        let mut seen = seen.take();
        seen.sort_unstable();
        assert!(seen.into_iter().eq((0..20_000).map(|n| 2 * n)));
    }
}

/// The last checkpoint of a life that failed holds calls under way; the next life, whose sources have nothing to read
/// any more, does not end before they are answered.
#[test]
fn what_was_under_way_is_answered_by_the_next_life() {
    for parallelism in [1, 2, 3] {
        let scratch = Scratch::new();
        let run = |parallelism: usize, count: u64, service: watch::Receiver<Service>, sink: Collected<u64>| {
            // a source that hands its records to an operator without room does not end: in the second life there is
            let at_once = if count == u64::MAX { 40 } else { 100_000 };
            let topology = move |t: &Topology| {
                let numbers = t.source("numbers", Generator::new(|split, n| split << 32 | n).splits(2).count(count));
                numbers.operator("asks", asks(at_once, service.clone(), Arc::default())).sink("out", sink.clone());
                Ok(())
            };
            job(&scratch, topology).parallelism(parallelism).checkpoint_interval(Duration::from_millis(5)).run()
        };
        let (sink, seen) = Collected::new();
        std::thread::scope(|scope| {
            let (open, service) = watch::channel(Service::Waits);
            let running = scope.spawn(|| run(2, u64::MAX, service, sink.clone()));
            until("some checkpoints", || finished(&scratch) >= 4);
            open.send(Service::Fails).unwrap();
            let error = running.join().unwrap().unwrap_err();
            assert!(error.to_string().contains("operator `asks`, subtask"), "{error}");
        });
        assert!(seen.is_empty());
        std::thread::scope(|scope| {
            let (open, service) = watch::channel(Service::Waits);
            let running = scope.spawn(|| run(parallelism, 1, service, sink));
            // long after the sources have ended
            std::thread::sleep(Duration::from_millis(100));
            assert!(open.send(Service::Answers).is_ok(), "the job ended while records had no answer");
            running.join().unwrap().unwrap();
        });
        let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        seen.take().into_iter().for_each(|n| numbers.entry(n >> 33).or_default().push((n / 2) & u64::from(u32::MAX)));
        assert_eq!(numbers.len(), 2);
        for (split, mut numbers) in numbers {
            numbers.sort_unstable();
            let count = numbers.len() as u64;
            assert!(count >= 40 && numbers.into_iter().eq(0..count), "split {split} at parallelism {parallelism}");
        }
    }
}

/// Says of each number whether it is late.
struct Lateness;
impl Process for Lateness {
    type Key = u64;
    type In = u64;
    type Out = (u64, bool);
    type State = ();
    fn on_record(&self, n: u64, (): &mut (), cx: &mut Context<'_, u64, (u64, bool)>) -> Result<(), BoxError> {
        cx.emit((n, cx.time() <= cx.watermark()));
        Ok(())
    }
}

/// What was under way when a job died is not late in the next life, though the sources had gone on long before: behind
/// the operator time begins where it let it stand.
#[test]
fn what_was_under_way_is_not_late_in_the_next_life() {
    let scratch = Scratch::new();
    let run = |count: u64, service: watch::Receiver<Service>, sink: Collected<(u64, bool)>| {
        let topology = move |t: &Topology| {
            let numbers = t.source("numbers", Generator::new(|_, n| n).count(count));
            let numbers = numbers.event_time(|n| Timestamp::from_secs(*n as i64), Watermarks::monotonous());
            let answers = numbers.operator("asks", asks(1000, service.clone(), Arc::default()));
            answers.key_by_value(|n| n % 7).process("lateness", Lateness).sink("out", sink.clone());
            Ok(())
        };
        job(&scratch, topology).parallelism(2).checkpoint_interval(Duration::from_millis(5)).run()
    };
    let (sink, seen) = Collected::new();
    std::thread::scope(|scope| {
        let (open, service) = watch::channel(Service::Waits);
        let running = scope.spawn(|| run(u64::MAX, service, sink.clone()));
        until("some checkpoints", || finished(&scratch) >= 4);
        open.send(Service::Fails).unwrap();
        assert!(running.join().unwrap().is_err());
    });
    let (_open, service) = watch::channel(Service::Answers);
    run(1, service, sink).unwrap();
    let answers = seen.take();
    assert!(answers.len() >= 1000, "{}", answers.len());
    assert_eq!(answers.iter().find(|(_, late)| *late), None);
}

/// Keeps what it reads, and shows what it found when it started.
struct Keeps {
    found: Option<Arc<Mutex<Vec<Vec<u64>>>>>,
}

impl Keeps {
    fn show(&mut self, items: &[u64]) {
        if let Some(found) = self.found.take() {
            found.lock().unwrap().push(items.to_vec());
        }
    }
}

impl Operator for Keeps {
    type In = u64;
    type Out = u64;
    type Item = u64;
    async fn on_batch(&mut self, batch: Batch<u64>, items: &mut Vec<u64>, _: &mut Output<u64>) -> Result<(), BoxError> {
        self.show(items);
        items.extend(batch.values);
        Ok(())
    }
    async fn ready(&mut self, items: &mut Vec<u64>, _: &mut Output<u64>) -> Result<(), BoxError> {
        self.show(items);
        std::future::pending().await
    }
    fn pending_since(&self, _: &[u64]) -> Option<Timestamp> {
        None
    }
    async fn on_end(&mut self, items: &mut Vec<u64>, _: &mut Output<u64>) -> Result<(), BoxError> {
        self.show(items);
        Ok(())
    }
}

#[test]
fn items_are_dealt_round_when_the_parallelism_changes() {
    let scratch = Scratch::new();
    let mut before: Vec<Vec<u64>> = Vec::new();
    for (life, parallelism) in [3, 3, 5, 2, 1, 1, 4, 2].into_iter().enumerate() {
        let found = Arc::new(Mutex::new(Vec::new()));
        let count = 101 * (1 + life as u64);
        let shown = found.clone();
        let topology = move |t: &Topology| {
            let numbers = t.source("numbers", Generator::new(|split, n| split << 32 | n).splits(7).count(count));
            let found = shown.clone();
            numbers.operator("keeps", move || Keeps { found: Some(found.clone()) }).discard();
            Ok(())
        };
        job(&scratch, topology).parallelism(parallelism).run().unwrap();
        let found = found.lock().unwrap().clone();
        assert_eq!(found.len(), parallelism);
        let mut all = found.concat();
        all.sort_unstable();
        let read = count - 101;
        assert!(all.into_iter().eq((0..7).flat_map(|split| (0..read).map(move |n| split << 32 | n))), "life {life}");
        if !before.is_empty() && before.len() != parallelism {
            let sizes: Vec<_> = found.iter().map(Vec::len).collect();
            assert!(sizes.iter().max() <= sizes.iter().min().map(|least| least + 1).as_ref(), "{sizes:?}");
        }
        before = found;
    }
}

/// The same name and another type.
struct Other;
impl Operator for Other {
    type In = u64;
    type Out = u64;
    type Item = String;
    async fn on_batch(&mut self, _: Batch<u64>, _: &mut Vec<String>, _: &mut Output<u64>) -> Result<(), BoxError> {
        panic!("all is lost");
    }
}

/// Items of the same shape that mean something else.
struct Later;
impl Operator for Later {
    type In = u64;
    type Out = u64;
    type Item = u64;
    const ITEM_VERSION: u32 = 2;
    async fn on_batch(&mut self, batch: Batch<u64>, items: &mut Vec<u64>, _: &mut Output<u64>) -> Result<(), BoxError> {
        items.extend(batch.values);
        Ok(())
    }
}

/// Items come back under the version they were written with, and under no other.
#[test]
fn items_have_the_version_of_their_operator() {
    let scratch = Scratch::new();
    let run = |count: u64, later: bool| {
        let topology = move |t: &Topology| {
            let numbers = t.source("numbers", Generator::new(|_, n| n).count(count));
            match later {
                true => numbers.operator("keeps", || Later).discard(),
                false => numbers.operator("keeps", || Keeps { found: None }).discard(),
            }
            Ok(())
        };
        job(&scratch, topology).run()
    };
    run(5, true).unwrap();
    run(9, true).unwrap();
    let error = run(9, false).unwrap_err();
    assert!(error.to_string().contains("version 2 in the checkpoint and 1 in the program"), "{error}");
    run(12, true).unwrap();
}

#[test]
fn items_that_the_program_does_not_know_are_refused() {
    let scratch = Scratch::new();
    let with = |build: fn(Stream<u64>) -> Stream<u64>| {
        let topology = move |t: &Topology| {
            build(t.source("numbers", Generator::new(|_, n| n).count(5))).discard();
            Ok(())
        };
        job(&scratch, topology)
    };
    with(|numbers| numbers.operator("keeps", || Keeps { found: None })).run().unwrap();
    let error = refused(with(|numbers| numbers));
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("holds items of `keeps`, which the program does not have"), "{error}");
    let error = refused(with(|numbers| numbers.operator("keeps", || Other)));
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("items of `keeps` were `u64` in the checkpoint and are `str`"), "{error}");
    assert!(error.to_string().contains("restore the type, or start with an empty --data-dir"), "{error}");
    let error = refused(with(|numbers| numbers.operator("keeps", || Later)));
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("version 1 in the checkpoint and 2 in the program"), "{error}");
    assert!(error.to_string().contains("use version 1 again, or start with an empty --data-dir"), "{error}");
    let keyed = |numbers: Stream<u64>| numbers.key_by(|n| n).map_with_state("keeps", |_: &mut u64, n| n);
    assert_eq!(refused(with(keyed)).kind(), ErrorKind::Refused);
}

#[test]
fn a_panic_names_the_operator() {
    let scratch = Scratch::new();
    let topology = |t: &Topology| {
        t.source("numbers", Generator::new(|_, n| n).count(5)).rebalance().operator("others", || Other).discard();
        Ok(())
    };
    let error = refused(job(&scratch, topology)).to_string();
    assert!(error.contains("operator `others`, subtask 0: panicked: all is lost"), "{error}");
}

/// Says which of the operators made it is.
struct Tag(u64);
impl Operator for Tag {
    type In = u64;
    type Out = (u64, u64);
    type Item = ();
    async fn on_batch(
        &mut self,
        batch: Batch<u64>,
        _: &mut Vec<()>,
        out: &mut Output<(u64, u64)>,
    ) -> Result<(), BoxError> {
        let Self(tag) = self;
        batch.into_records().for_each(|r| out.emit(Record { value: (*tag, r.value), time: r.time }));
        Ok(())
    }
}

#[test]
fn all_subtasks_get_all_records_in_their_order() {
    for (of_the_job, parallelism) in [(1, 1), (2, 2), (4, 4), (2, 3), (4, 1)] {
        let found = collect(of_the_job, move |t, sink| {
            let made = AtomicUsize::new(0);
            let numbers = t.source("numbers", Generator::new(|split, n| split * 10_000 + n).splits(3).count(5000));
            let tags = numbers.broadcast_all().operator("tag", move || Tag(made.fetch_add(1, SeqCst) as u64));
            (if of_the_job == parallelism { tags } else { tags.parallelism(parallelism) }).sink("out", sink);
        });
        assert_eq!(found.len(), parallelism * 15_000);
        let mut lanes: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
        for (tag, n) in found {
            lanes.entry((tag, n / 10_000)).or_default().push(n % 10_000);
        }
        assert_eq!(lanes.len(), parallelism * 3);
        for ((tag, split), numbers) in lanes {
            assert!(numbers.into_iter().eq(0..5000), "split {split} in subtask {tag} of {parallelism}");
        }
    }
}
