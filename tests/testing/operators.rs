//! Every operator, fed record by record through the test tools: what each record gives, and at what time. What whole
//! jobs give, in parallel and from files, is in `pipelines.rs`.

use millstream::prelude::*;
use millstream::testing::TestDriver;
use std::fmt::Debug;

/// A topology from the source `in` to the sink `out`.
fn between<T: Clone + Send + Sync + 'static, U: Send + 'static>(
    build: impl Fn(Stream<T>) -> Stream<U> + Send + Sync + 'static,
) -> TestDriver {
    TestDriver::new(move |t| {
        build(t.source("in", Records::<T>::of([]))).sink("out", Null::new());
        Ok(())
    })
}

/// That each record gives what is written beside it, before the next one comes.
#[track_caller]
fn each<T: Clone + Send + Sync + 'static, U: Debug + PartialEq + Send + 'static, const N: usize>(
    build: impl Fn(Stream<T>) -> Stream<U> + Send + Sync + 'static,
    steps: impl IntoIterator<Item = (T, [U; N])>,
) {
    let mut test = between(build);
    for (record, expect) in steps {
        test.source("in").push(record);
        assert_eq!(test.take::<U>("out"), expect);
    }
    test.end();
    assert_eq!(test.take::<U>("out"), []);
}

/// The same where records give different numbers of results.
#[track_caller]
fn gives<T: Clone + Send + Sync + 'static, U: Debug + PartialEq + Send + 'static>(
    build: impl Fn(Stream<T>) -> Stream<U> + Send + Sync + 'static,
    steps: &[(T, &[U])],
) {
    let mut test = between(build);
    for (record, expect) in steps {
        test.source("in").push(record.clone());
        assert_eq!(test.take::<U>("out"), *expect);
    }
}

#[test]
fn steps() {
    each(|s| s.map(|n: u32| n + 1).boxed(), [(1, [2]), (5, [6])]);
    each(|s| s.try_map(|w: &str| Ok(w.parse::<u8>()?)).boxed(), [("7", [7])]);
    gives(|s| s.filter(|n: &u32| n.is_multiple_of(2)).boxed(), &[(1, &[]), (2, &[2])]);
    gives(|s| s.filter_map(|n: u32| n.checked_sub(3)).boxed(), &[(1, &[]), (5, &[2])]);
    gives(|s| s.flat_map(|n: u32| 0..n).boxed(), &[(0, &[]), (3, &[0, 1, 2])]);
    let words = |s: Stream<&'static str>| s.flat_map_into(|line, words| words.extend(line.split(' '))).boxed();
    gives(words, &[("to be", &["to", "be"]), ("or", &["or"])]);
    each(|s| s.inspect(|n: &u32| assert!(*n < 9)).rebalance(), [(4, [4])]);
}

#[test]
fn steps_keep_the_time_of_a_record() {
    let mut test = between(|s: Stream<i64>| {
        let timed = s.event_time(|n| Timestamp::from_secs(*n), Watermarks::monotonous());
        timed.filter(|n| *n > 1).map(|n| n * 10).flat_map(|n| [n, n + 1]).key_by(|n| n).reduce("last", |a, b| *a = b)
    });
    test.source("in").push_all([1i64, 2]);
    let at = Timestamp::from_secs(2);
    assert_eq!(test.take_records::<i64>("out"), [20, 21].map(|value| Record { value, time: at }));
    assert_eq!(test.watermark("out"), at - Duration::from_millis(1));
}

#[test]
fn streams_meet_and_part() {
    let mut test = TestDriver::new(|t| {
        let left = t.source("left", Records::<u32>::of([]));
        let right = t.source("right", Records::<u32>::of([]));
        let both = left.union(right);
        both.clone().sink("first", Null::new());
        both.sink("second", Null::new());
        Ok(())
    });
    test.source("left").push(1u32);
    test.source("right").push(2u32);
    test.source("left").push(3u32);
    assert_eq!(test.take::<u32>("first"), [1, 2, 3]);
    assert_eq!(test.take::<u32>("second"), [1, 2, 3]);
}

#[derive(Debug, PartialEq)]
struct Click(u32);
#[derive(Branches)]
enum Event {
    Click(Click),
    Noise(String),
}

#[test]
fn branches() {
    let mut test = TestDriver::new(|t| {
        let numbers = t.source("in", Records::<&str>::of([])).map(str::parse::<u32>);
        let (good, bad) = numbers.split();
        let event = |n: u32| if n < 10 { Event::Click(Click(n)) } else { Event::Noise(n.to_string()) };
        let (clicks, noise) = good.map(event).split();
        clicks.sink("clicks", Null::new());
        noise.sink("noise", Null::new());
        bad.map(|e| e.to_string()).sink("bad", Null::new());
        Ok(())
    });
    test.source("in").push_all(["7", "x", "70"]);
    assert_eq!(test.take::<Click>("clicks"), [Click(7)]);
    assert_eq!(test.take::<String>("noise"), ["70"]);
    assert_eq!(test.take::<String>("bad"), ["invalid digit found in string"]);
}

#[test]
fn errors_as_values() {
    gives(|s| s.map(|w: &str| w.parse::<u8>()).or_skip().boxed(), &[("x", &[]), ("7", &[7])]);
    let mut test = between(|s| s.map(|w: &str| w.parse::<u8>()).or_fail().boxed());
    assert!(test.source("in").push("7").try_push("x").is_err());
    assert_eq!(test.take::<u8>("out"), [7]);
}

/// Records of a shop with a number each.
type Sale = (&'static str, i64);

#[test]
fn state_per_key() {
    let sales = [("a", 5), ("b", 7), ("a", 2)];
    let with = |results: [i64; 3]| sales.into_iter().zip(results.map(|result| [result]));
    let total = |s: Stream<(String, i64)>| {
        let keyed = s.key_by(|(shop, _)| shop);
        keyed.map_with_state("total", |sum: &mut i64, (_, n)| {
            *sum += n;
            *sum
        })
    };
    let owned = |(shop, n): Sale| (shop.to_owned(), n);
    each(total, with([5, 7, 7]).map(|(sale, result)| (owned(sale), result)));
    let fresh = |s: Stream<(String, i64)>| {
        let keyed = s.key_by_value(|(shop, _)| shop.clone());
        keyed.flat_map_with_state("fresh", |seen: &mut bool, (_, n)| (!std::mem::replace(seen, true)).then_some(n))
    };
    gives(fresh, &[(owned(sales[0]), &[5]), (owned(sales[1]), &[7]), (owned(sales[2]), &[])]);
    let largest = |s: Stream<(String, i64)>| {
        s.key_by(|(shop, _)| shop)
            .reduce("largest", |best, sale| best.1 = best.1.max(sale.1))
            .map(|sale| sale.1)
            .boxed()
    };
    each(largest, with([5, 7, 5]).map(|(sale, result)| (owned(sale), result)));
}

#[test]
fn aggregates() {
    fn running<A: Aggregate<i64, Out: Debug + PartialEq>>(aggregate: fn(Of<i64>) -> A, results: [A::Out; 3]) {
        let build = move |s: Stream<i64>| s.key_by_value(|n| n % 2 == 0).aggregate("of", aggregate);
        // the one even number has a result of its own, which is that of the first odd one
        let mut test = between(build);
        test.source("in").push_all([5i64, 9, -3]);
        let found: Vec<(bool, A::Out)> = test.take("out");
        assert_eq!(found.into_iter().map(|(_, out)| out).collect::<Vec<_>>(), results);
        test.source("in").push(4i64);
        assert!(test.take::<(bool, A::Out)>("out")[0].0);
    }
    running(|of| of.count(), [1, 2, 3]);
    running(|of| of.sum(|n| *n), [5, 14, 11]);
    running(|of| of.mean(|n| *n), [5.0, 7.0, 11.0 / 3.0]);
    running(|of| of.min(|n| *n), [Some(5), Some(5), Some(-3)]);
    running(|of| of.max(|n| *n), [Some(5), Some(9), Some(9)]);
    running(|of| (of.count(), of.max(|n| -n)), [(1, Some(-5)), (2, Some(-5)), (3, Some(3))]);
}

/// Says when a key has been quiet for a minute.
struct Quiet;

#[derive(State)]
struct Since {
    minute: EventTimer,
}

impl Process for Quiet {
    type Key = String;
    type In = (String, i64);
    type Out = String;
    type State = Since;
    fn on_record(&self, _: Self::In, since: &mut Since, cx: &mut Context<'_, String, String>) -> Result<(), BoxError> {
        since.minute.set(cx.time() + Duration::from_mins(1));
        Ok(())
    }
    fn on_timer(&self, _: &mut Since, cx: &mut Context<'_, String, String>) -> Result<(), BoxError> {
        cx.emit(cx.key().clone());
        Ok(())
    }
}

#[test]
fn process_functions_with_timers() {
    let mut test = between(|s: Stream<(String, i64)>| {
        let timed = s.event_time(|(_, second)| Timestamp::from_secs(*second), Watermarks::monotonous());
        timed.key_by(|(key, _)| key).process("quiet", Quiet)
    });
    test.source("in").push_all([("a", 0i64), ("b", 30), ("a", 50), ("c", 80)].map(|(key, s)| (key.to_owned(), s)));
    assert!(test.take::<String>("out").is_empty());
    test.source("in").watermark(Timestamp::from_secs(90));
    assert_eq!(test.take::<String>("out"), ["b"]);
    test.end();
    let mut rest: Vec<String> = test.take("out");
    rest.sort_unstable();
    assert_eq!(rest, ["a", "c"]);
}

/// Gives each record back, a second later.
#[derive(Default)]
struct Later(Option<std::pin::Pin<Box<tokio::time::Sleep>>>);

impl Operator for Later {
    type In = u64;
    type Out = u64;
    type Item = u64;
    async fn on_batch(&mut self, batch: Batch<u64>, items: &mut Vec<u64>, _: &mut Output<u64>) -> Result<(), BoxError> {
        items.extend(batch.values);
        Ok(())
    }
    async fn ready(&mut self, items: &mut Vec<u64>, out: &mut Output<u64>) -> Result<(), BoxError> {
        if items.is_empty() {
            std::future::pending::<()>().await;
        }
        self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_secs(1)))).as_mut().await;
        self.0 = None;
        out.emit(Record::untimed(items.remove(0)));
        Ok(())
    }
}

#[test]
fn operators_that_wait() {
    let mut test = between(|s: Stream<u64>| s.operator("later", Later::default));
    test.source("in").push(1u64).push(2u64);
    assert!(test.take::<u64>("out").is_empty());
    test.advance(Duration::from_secs(1));
    assert_eq!(test.take::<u64>("out"), [1]);
    test.advance(Duration::from_secs(1));
    assert_eq!(test.take::<u64>("out"), [2]);
}

#[test]
fn a_broadcast_reaches_all_subtasks() {
    let topology = |t: &Topology| {
        t.source("in", Records::<u64>::of([])).broadcast_all().sink("out", Null::new());
        Ok(())
    };
    let mut test = TestDriver::of(&Job::new("test", topology).parallelism(3));
    test.source("in").push(7u64);
    assert_eq!(test.take::<u64>("out"), [7; 3]);
}
