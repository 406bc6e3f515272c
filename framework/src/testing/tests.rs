//! Tests of the test tools: that they run what a job runs, and say what is wrong.

use super::{ProcessHarness, TestDriver};
use crate::operator::{Source, SourceContext, SourceReader};
use crate::state::{EventTimer, MapState, ProcessingTimers, State, ValueState};
use crate::{
    Batch, BoxError, Context, Epoch, Job, Polled, Process, Record, Sink, SinkContext, SinkWriter, SplitBatch,
    Timestamp, Topology, Watermarks,
};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A source or sink that must not be called.
struct Never<T>(PhantomData<fn() -> T>);

fn never<T>() -> Never<T> {
    Never(PhantomData)
}

impl<T: Send + 'static> Source for Never<T> {
    type Reader = Self;
    async fn splits(&self, _: &[u8]) -> Result<Vec<u8>, BoxError> {
        unreachable!()
    }
    async fn open(&self, _: &SourceContext) -> Result<Self, BoxError> {
        unreachable!()
    }
}

impl<T: Send + 'static> SourceReader for Never<T> {
    type Record = T;
    type Split = u8;
    type Offset = u8;
    async fn assign(&mut self, _: u8, _: Option<u8>) -> Result<u8, BoxError> {
        unreachable!()
    }
    async fn ready(&mut self) {
        unreachable!()
    }
    fn poll(&mut self, _: &mut SplitBatch<T, u8>) -> Result<Polled, BoxError> {
        unreachable!()
    }
    fn offset(&self, _: &u8) -> Result<u8, BoxError> {
        unreachable!()
    }
}

impl<T: Send + 'static> Sink<T> for Never<T> {
    type Writer = Self;
    async fn open(&self, _: &SinkContext) -> Result<Self, BoxError> {
        unreachable!()
    }
}

impl<T: Send + 'static> SinkWriter<T> for Never<T> {
    type Committable = ();
    async fn write(&mut self, _: Batch<T>) -> Result<(), BoxError> {
        unreachable!()
    }
    async fn prepare(&mut self, _: Epoch) -> Result<Option<()>, BoxError> {
        unreachable!()
    }
    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        unreachable!()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

/// What a panic says.
fn says(f: impl FnOnce()) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(f)) else { panic!("there was no panic") };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap()
}

fn doubled(t: &Topology) -> Result<(), BoxError> {
    t.source("numbers", never::<u64>()).map(|n| n * 2).sink("doubled", never::<u64>());
    Ok(())
}

#[test]
fn what_is_pushed_has_come_out_when_push_returns() {
    let mut test = TestDriver::new(doubled);
    test.source("numbers").push(1u64).push(2u64);
    assert_eq!(test.take::<u64>("doubled"), [2, 4]);
    assert!(test.take::<u64>("doubled").is_empty());
    test.source("numbers").push_all(10u64..12);
    assert_eq!(test.take_records::<u64>("doubled"), [20, 22].map(Record::untimed));
    test.end();
    assert!(test.take::<u64>("doubled").is_empty());
}

#[test]
fn mistakes_are_said_where_they_are_made() {
    let mut test = TestDriver::new(doubled);
    let text = says(|| {
        test.source("number").push(1u64);
    });
    assert_eq!(text, "there is no source `number` in this topology; it has `numbers`");
    let text = says(|| drop(test.take::<u64>("numbers")));
    assert_eq!(text, "there is no sink `numbers` in this topology; it has `doubled`");
    let text = says(|| {
        test.source("numbers").push(1u8);
    });
    assert_eq!(text, "source `numbers` gives records of type `u64`, not `u8`");
    let text = says(|| drop(test.take::<String>("doubled")));
    assert_eq!(text, "the records of sink `doubled` are `u64`, not `alloc::string::String`");
    let text = says(|| {
        test.source("numbers").push_at(at(1), 1u64);
    });
    assert!(text.starts_with("source `numbers` carries no event times"), "{text}");
    let text = says(|| {
        test.source("numbers").watermark(at(1));
    });
    assert!(text.starts_with("no `event_time` follows source `numbers`"), "{text}");
    test.source("numbers").push(1u64).end();
    assert_eq!(
        says(|| {
            test.source("numbers").push(1u64);
        }),
        "source `numbers` has ended"
    );
    assert_eq!(test.take::<u64>("doubled"), [2]);

    let unread = |t: &Topology| {
        let _ = t.source("numbers", never::<u64>());
        Ok(())
    };
    let text = says(|| drop(TestDriver::new(unread)));
    assert!(text.contains("nothing reads the output of the source"), "{text}");
    assert!(TestDriver::try_of(&Job::new("Test", doubled)).is_err());
}

#[test]
fn errors_of_user_code_come_with_their_place() {
    let topology = |t: &Topology| {
        t.source("lines", never::<&str>()).try_map(|line| Ok(line.parse::<u8>()?)).sink("numbers", never::<u8>());
        Ok(())
    };
    let mut test = TestDriver::new(topology);
    test.source("lines").push("7");
    let error = test.source("lines").try_push("x").err().unwrap().to_string();
    assert!(error.contains("source `lines`") && error.contains("invalid digit"), "{error}");
    let text = says(|| {
        test.source("lines").push("8");
    });
    assert!(text.contains("has failed before") && text.contains("invalid digit"), "{text}");
    assert_eq!(test.take::<u8>("numbers"), [7]);

    let mut test = TestDriver::new(|t: &Topology| {
        t.source("numbers", never::<u8>()).map(|n| 100 / n).sink("out", never::<u8>());
        Ok(())
    });
    assert!(
        says(|| {
            test.source("numbers").push(0u8);
        })
        .contains("divide by zero")
    );
}

/// Two sources in event time, one behind an exchange.
fn timed(t: &Topology) -> Result<(), BoxError> {
    let bounded = Watermarks::bounded(Duration::from_secs(5)).idle_after(Duration::from_secs(30));
    let left = t.source("left", never::<i64>()).event_time(|s| at(*s), bounded);
    let right = t.source("right", never::<i64>()).event_time(|s| at(*s), Watermarks::monotonous());
    left.union(right).rebalance().sink("both", never::<i64>());
    Ok(())
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn watermarks_are_made_of_records_and_by_hand() {
    let mut test = TestDriver::new(timed);
    assert_eq!(test.watermark("both"), Timestamp::MIN);
    test.source("left").push(20i64);
    test.source("right").push(100i64);
    assert_eq!(test.watermark("both"), at(15) - MS);
    test.source("left").watermark(at(40)).push(30i64);
    assert_eq!(test.watermark("both"), at(40), "the later one holds");
    test.source("left").watermark(at(10));
    assert_eq!(test.watermark("both"), at(40), "none goes back");
    test.source("left").push(50i64);
    assert_eq!(test.watermark("both"), at(45) - MS);
    let times: Vec<_> = test.take_records::<i64>("both").into_iter().map(|r| (r.value, r.time)).collect();
    assert_eq!(times, [20, 100, 30, 50].map(|s| (s, at(s))));
    test.end();
    assert_eq!(test.watermark("both"), Timestamp::MAX);
}

#[test]
fn idle_sources_are_not_waited_for() {
    let mut test = TestDriver::new(timed);
    test.source("left").push(20i64);
    test.source("right").push(100i64);
    test.source("left").idle();
    assert_eq!(test.watermark("both"), at(100) - MS);

    let mut test = TestDriver::new(timed);
    test.source("left").push(20i64);
    test.advance(Duration::from_secs(29));
    test.source("right").push(100i64);
    assert_eq!(test.watermark("both"), at(15) - MS);
    test.advance(Duration::from_secs(1));
    assert_eq!(test.watermark("both"), at(100) - MS);
    assert_eq!(test.now(), at(30));
}

#[test]
fn time_moves_when_it_is_told_to() {
    let mut test = TestDriver::new(doubled);
    let other = TestDriver::new(doubled);
    assert_eq!(test.now(), at(0));
    test.advance(Duration::from_hours(1)).advance(MS);
    test.source("numbers").push(1u64);
    assert_eq!(test.now(), at(3600) + MS);
    assert_eq!(other.now(), at(0));
    assert!(crate::clock::wall() > std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(24), "outside it goes on");
}

/// Counts the records of a key, and says so at every second one.
struct Pairs;

#[derive(State)]
struct Count {
    count: ValueState<u32>,
}

impl Process for Pairs {
    type Key = String;
    type In = u32;
    type Out = (String, u32);
    type State = Count;
    fn on_record(&self, n: u32, state: &mut Count, cx: &mut Context<'_, String, Self::Out>) -> Result<(), BoxError> {
        if n == 0 {
            return Err("no record is 0".into());
        }
        let count = state.count.or_default();
        *count += 1;
        if count.is_multiple_of(2) {
            cx.emit((cx.key().clone(), *count));
        }
        Ok(())
    }
}

#[test]
fn a_process_function_is_driven_by_hand() -> Result<(), BoxError> {
    let mut pairs = ProcessHarness::new(Pairs);
    let push =
        |pairs: &mut ProcessHarness<Pairs>, key: &str, second, n| pairs.push(key.into(), at(second), n).map(drop);
    push(&mut pairs, "a", 1, 1)?;
    push(&mut pairs, "b", 2, 1)?;
    assert_eq!(pairs.take(), []);
    push(&mut pairs, "a", 3, 1)?;
    assert_eq!(pairs.take_records(), [Record { value: ("a".into(), 2), time: at(3) }]);
    pairs.watermark(at(10))?.advance(Duration::from_secs(5))?;
    assert_eq!((pairs.take(), pairs.now()), (vec![], at(5)));

    let count = |pairs: &mut ProcessHarness<Pairs>, key: &str| pairs.state(&key.to_owned(), |s| s.count.get().copied());
    assert_eq!(["a", "b", "c"].map(|key| count(&mut pairs, key)), [Some(2), Some(1), None]);
    pairs.state(&"b".to_owned(), |state| state.count.set(5));
    push(&mut pairs, "b", 4, 1)?;
    assert_eq!(pairs.take(), [("b".into(), 6)]);

    let error = push(&mut pairs, "a", 5, 0).unwrap_err().to_string();
    assert!(error.contains("operator `process`") && error.contains("no record is 0"), "{error}");
    Ok(())
}

/// A small payment, soon followed by a large one at a shop that is new to the user; and a reminder by the clock.
struct Fraud;

#[derive(State)]
struct Seen {
    small: ValueState<u64>,
    shops: MapState<String, u32>,
    forget: EventTimer,
    remind: ProcessingTimers,
}

impl Process for Fraud {
    type Key = u64;
    type In = (&'static str, u64);
    type Out = (&'static str, Timestamp);
    type State = Seen;

    fn on_record(
        &self,
        (shop, cents): Self::In,
        seen: &mut Seen,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        let times = seen.shops.or_default(shop.to_owned());
        *times += 1;
        if *times == 1 && cents > 500 && seen.small.get().is_some() {
            cx.emit(("fraud", cx.time()));
        }
        if cents < 10 {
            seen.small.set(cents);
            seen.forget.set(cx.time() + Duration::from_secs(60));
            seen.remind.set(cx.now() + Duration::from_secs(5));
        }
        Ok(())
    }

    fn on_timer(&self, seen: &mut Seen, cx: &mut Context<'_, u64, Self::Out>) -> Result<(), BoxError> {
        if let Some(time) = seen.remind.fired() {
            cx.emit(("remind", time));
        }
        if seen.forget.fired().is_some() {
            seen.small.take();
            cx.emit(("forgotten", cx.time()));
        }
        Ok(())
    }
}

#[test]
fn timers_fire_by_watermark_and_by_clock() -> Result<(), BoxError> {
    let mut fraud = ProcessHarness::new(Fraud);
    fraud.push(7, at(0), ("kiosk", 5))?.push(7, at(20), ("jeweller", 900))?.push(8, at(21), ("jeweller", 900))?;
    assert_eq!(fraud.take(), [("fraud", at(20))]);
    fraud.watermark(at(59))?.push(7, at(59), ("jeweller", 900))?;
    assert_eq!(fraud.take(), [], "the shop is known");
    assert_eq!(fraud.state(&7, |seen| seen.shops.get(&"jeweller".to_owned()).copied()), Some(2));
    fraud.watermark(at(60))?.push(7, at(61), ("cars", 900))?;
    assert_eq!(fraud.take_records(), [Record { value: ("forgotten", at(60)), time: at(60) }]);

    // a second one at the third second, so each fires at its own time
    fraud.advance(Duration::from_secs(3))?.push(7, at(70), ("kiosk", 5))?.advance(Duration::from_secs(1))?;
    assert_eq!((fraud.take(), fraud.now()), (vec![], at(4)));
    fraud.advance(Duration::from_secs(10))?;
    assert_eq!(fraud.take(), [("remind", at(5)), ("remind", at(8))]);

    // what a look changes counts
    fraud.state(&8, |seen| seen.forget.set(at(100)));
    fraud.watermark(at(120))?;
    assert_eq!(fraud.take(), [("forgotten", at(100))]);
    Ok(())
}
