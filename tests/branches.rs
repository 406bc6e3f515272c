//! Streams that are split by variant, and what becomes of errors and of lines that cannot be decoded: compared with
//! plain iterators, at several parallelisms and through kills.

use crate::common::{Scratch, collect, gives, job, read_lines, refused};
use millstream::ErrorKind;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// More than a few batches.
const N: u64 = 5000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Click {
    page: u64,
}
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Purchase {
    shop: String,
    cents: u64,
}

#[derive(Branches)]
enum Event {
    Click(Click),
    Purchase(Purchase),
    Noise(String),
}

fn event(n: u64) -> Event {
    match n % 10 {
        0..=5 => Event::Click(Click { page: n % 50 }),
        6..=8 => Event::Purchase(Purchase { shop: format!("shop {}", n % 7), cents: n }),
        _ => Event::Noise(format!("noise {n}")),
    }
}

/// `N` records in splits of their own, so that all subtasks have something to read.
fn numbers(t: &Topology) -> Stream<u64> {
    t.source("numbers", Generator::new(|split, offset| split * (N / 5) + offset).splits(5).count(N / 5))
}

fn parse(n: u64) -> Result<u64, String> {
    if n.is_multiple_of(3) { Err(format!("{n} is no good")) } else { Ok(n) }
}

#[test]
fn results_are_split() {
    gives(
        |t, sink| {
            let (good, bad) = numbers(t).map(parse).split();
            bad.discard();
            good.sink("good", sink);
        },
        (0..N).filter_map(|n| parse(n).ok()),
    );
    gives(
        |t, sink| {
            let (good, bad) = numbers(t).map(parse).split();
            good.map(|n| n.to_string()).union(bad).sink("all", sink);
        },
        (0..N).map(|n| parse(n).map_or_else(|e| e, |n| n.to_string())),
    );
}

#[test]
fn either_is_split_and_split_again() {
    gives(
        |t, sink| {
            let sides = |n: u64| match n % 4 {
                0 => Either::Left(n),
                1 => Either::Right(Either::Left(n.to_string())),
                _ => Either::Right(Either::Right(n)),
            };
            let (left, right) = numbers(t).map(sides).split();
            let (text, number) = right.split();
            left.discard();
            number.discard();
            text.map(|text| text.len()).sink("text", sink);
        },
        (0..N).filter(|n| n % 4 == 1).map(|n| n.to_string().len()),
    );
}

/// Each branch goes a way of its own: a keyed operator, a plain one, both of two readers.
fn busy(t: &Topology, sink: Collected<String>) {
    let (clicks, purchases, noise) = numbers(t).map(event).split();
    let pages = clicks.key_by(|click| &click.page).aggregate("pages", |of| of.count());
    let pages = pages.map(|(page, count)| format!("page {page} {count}"));
    let names = purchases.clone().map(|p| p.shop);
    let shops = purchases.key_by(|p| &p.shop).aggregate("shops", |of| (of.count(), of.sum(|p| p.cents)));
    let shops = shops.filter(|(_, (count, _))| *count > 200).map(|(shop, (_, cents))| format!("{shop} {}", cents > 0));
    t.union([pages.boxed(), names.boxed(), shops.boxed(), noise]).sink("all", sink);
}

fn busy_expected() -> Vec<String> {
    let (mut pages, mut shops, mut all) = (BTreeMap::<u64, u64>::new(), BTreeMap::<String, u64>::new(), Vec::new());
    for n in 0..N {
        match event(n) {
            Event::Click(Click { page }) => {
                let count = pages.entry(page).or_default();
                *count += 1;
                all.push(format!("page {page} {count}"));
            }
            Event::Purchase(Purchase { shop, .. }) => {
                let count = shops.entry(shop.clone()).or_default();
                *count += 1;
                if *count > 200 {
                    all.push(format!("{shop} true"));
                }
                all.push(shop);
            }
            Event::Noise(text) => all.push(text),
        }
    }
    all
}

#[test]
fn branches_of_a_derived_enum_are_keyed_cloned_and_united() {
    gives(busy, busy_expected());
}

#[test]
fn a_branch_keeps_its_order() {
    let odd = |n: &u64| n % 2 == 1;
    let found = collect(1, move |t, sink| {
        let side = move |n| if odd(&n) { Either::Left(n) } else { Either::Right(n) };
        let (odds, evens) = t.source("numbers", Records::of(0..N)).map(side).split();
        evens.discard();
        odds.sink("odds", sink);
    });
    assert!(found.into_iter().eq((0..N).filter(odd)));
}

#[derive(Branches)]
enum Verdict {
    Fine(u64),
    Twice(String),
}

struct Doubles;
impl Process for Doubles {
    type Key = u64;
    type In = u64;
    type Out = Verdict;
    type State = Last;
    fn on_record(&self, n: u64, seen: &mut Last, cx: &mut Context<'_, u64, Verdict>) -> Result<(), BoxError> {
        match seen.last.get() {
            Some(last) => cx.emit(Verdict::Twice(format!("{} {n} after {last}", cx.key()))),
            None => cx.emit(Verdict::Fine(n)),
        }
        seen.last.set(n);
        Ok(())
    }
}

#[derive(State)]
struct Last {
    last: ValueState<u64>,
}

#[test]
fn a_process_function_emits_an_enum() {
    let build = |t: &Topology, fine: Collected<u64>, twice: Collected<String>| {
        let numbers = t.source("numbers", Records::of(0..N));
        let (good, bad) = numbers.key_by_value(|n| n % 1700).process("doubles", Doubles).split();
        good.sink("fine", fine);
        bad.sink("twice", twice);
    };
    for parallelism in [1, 2, 4] {
        let (scratch, (fine, fines), (twice, twices)) = (Scratch::new(), Collected::new(), Collected::new());
        let topology = move |t: &Topology| {
            build(t, fine.clone(), twice.clone());
            Ok(())
        };
        job(&scratch, topology).parallelism(parallelism).run().unwrap();
        let (mut fines, mut twices) = (fines.take(), twices.take());
        fines.sort();
        twices.sort();
        assert!(fines.into_iter().eq(0..1700));
        let mut expect: Vec<_> = (1700..N).map(|n| format!("{} {n} after {}", n % 1700, n - 1700)).collect();
        expect.sort();
        assert_eq!(twices, expect);
    }
}

#[test]
fn errors_are_skipped_or_end_the_job() {
    gives(|t, sink| numbers(t).map(parse).or_skip().sink("good", sink), (0..N).filter_map(|n| parse(n).ok()));
    gives(|t, sink| numbers(t).map(|n| Ok::<_, String>(n + 1)).or_fail().filter(|n| *n < 9).sink("all", sink), 1..9);
    let scratch = Scratch::new();
    let topology = |t: &Topology| {
        numbers(t).map(|n| n.to_string().parse::<i8>()).or_fail().sink("none", Null::new());
        Ok(())
    };
    let error = refused(job(&scratch, topology));
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("too large to fit"), "{error}");
}

#[test]
fn a_branch_that_nobody_reads_is_a_mistake_that_names_it() {
    let (scratch, line) = (Scratch::new(), line!() + 2);
    let topology = |t: &Topology| {
        let (clicks, _, noise) = numbers(t).map(event).split();
        clicks.discard();
        noise.sink("noise", Null::new());
        Ok(())
    };
    let error = refused(job(&scratch, topology));
    assert_eq!(error.kind(), ErrorKind::Topology);
    let said = format!("nothing reads the branch `Purchase` of the split at {}:{line}:", file!());
    assert!(error.to_string().contains(&said), "{error}");
}

/// What cannot be decoded is data like any other: it may be kept in state, and written to a file that says all of it.
#[test]
fn undecodable_lines_are_kept_and_written() {
    let scratch = Scratch::new();
    let input = scratch.join("in.csv");
    std::fs::write(&input, b"shop,cents\na,1\nb\nc,\xff\nd,4\n\"e,5\n").unwrap();
    let (output, path) = (scratch.join("out"), input.clone());
    let (sink, good) = Collected::new();
    let topology = move |t: &Topology| {
        let (purchases, undecodable) = t.source("purchases", Files::read(&path).try_csv::<Purchase>()).split();
        purchases.sink("good", sink.clone());
        let latest = undecodable.key_by(|line| &line.split).reduce("latest", |latest, line| *latest = line);
        latest.clone().sink("letters", Files::write(&output).json());
        latest.map(|line| line.to_string()).sink("texts", Files::write(&output).text());
        Ok(())
    };
    job(&scratch, topology).run().unwrap();
    let purchase = |shop: &str, cents| Purchase { shop: shop.into(), cents };
    assert_eq!(good.take(), [purchase("a", 1), purchase("d", 4)]);
    let letters: Vec<Undecodable> =
        read_lines(&scratch.join("out"), "letters").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> = letters.iter().map(|line| (line.offset, line.bytes.as_slice())).collect();
    assert_eq!(found, [(15, &b"b"[..]), (17, b"c,\xff"), (25, b"\"e,5")]);
    assert!(letters.iter().all(|line| line.split == input.canonicalize().unwrap().display().to_string()));
    let texts = read_lines(&scratch.join("out"), "texts");
    assert!(texts[0].contains("in.csv`, offset 15: it has 1 columns, and the header 2: `b`"), "{texts:?}");
    assert_eq!(texts.len(), 3);
}
