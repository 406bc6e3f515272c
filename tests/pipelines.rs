//! What pipelines give, operator by operator, compared with plain iterators over the same records; mistakes in
//! building; the description of a topology.

use crate::common::{Scratch, collect, example, gives, job, refused};
use millstream::ErrorKind;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// More than a few batches.
const N: u64 = 5000;

fn numbers(t: &Topology) -> Stream<u64> {
    t.source("numbers", Records::of(0..N))
}

/// `N` records in splits of their own, so that all subtasks have something to read.
fn generated(t: &Topology) -> Stream<u64> {
    t.source("generated", Generator::new(|split, offset| split * (N / 5) + offset).splits(5).count(N / 5))
}

/// The running results of a fold over `0..N`, keyed by `n % 97`.
fn running<S: Default, U>(fold: impl Fn(&mut S, u64) -> U) -> Vec<U> {
    let mut states: HashMap<u64, S> = HashMap::new();
    (0..N).map(|n| fold(states.entry(n % 97).or_default(), n)).collect()
}

#[test]
fn stateless_steps() {
    gives(|t, sink| numbers(t).map(|n| n * 2).sink("out", sink), (0..N).map(|n| n * 2));
    gives(|t, sink| generated(t).filter(|n| n % 3 == 0).sink("out", sink), (0..N).filter(|n| n % 3 == 0));
    gives(
        |t, sink| generated(t).filter_map(|n| (n % 2 == 0).then(|| n.to_string())).sink("out", sink),
        (0..N).filter(|n| n % 2 == 0).map(|n| n.to_string()),
    );
    gives(
        |t, sink| generated(t).flat_map(|n| vec![n; (n % 4) as usize]).sink("out", sink),
        (0..N).flat_map(|n| vec![n; (n % 4) as usize]),
    );
    let spell = |n: u64, into: &mut Vec<char>| into.extend(n.to_string().chars());
    gives(
        move |t, sink| generated(t).flat_map_into(spell).sink("out", sink),
        (0..N).flat_map(|n| {
            let mut all = Vec::new();
            spell(n, &mut all);
            all
        }),
    );
    gives(|t, sink| numbers(t).map(|n| n.to_string()).try_map(|text| Ok(text.parse::<u64>()?)).sink("out", sink), 0..N);
}

#[test]
fn one_subtask_keeps_the_order() {
    let found = collect(1, |t, sink| numbers(t).map(|n| n + 1).filter(|n| n % 2 == 0).sink("out", sink));
    assert!(found.iter().copied().eq((0..N).map(|n| n + 1).filter(|n| n % 2 == 0)));
}

#[test]
fn inspect_sees_every_record() {
    let sum = Arc::new(AtomicU64::new(0));
    let adds = sum.clone();
    collect(2, move |t, sink| {
        let adds = adds.clone();
        generated(t).inspect(move |n| _ = adds.fetch_add(*n, Ordering::Relaxed)).sink("out", sink);
    });
    assert_eq!(sum.load(Ordering::Relaxed), (0..N).sum::<u64>());
}

/// A step of one's own, with scratch memory.
#[derive(Clone, Default)]
struct Digits {
    scratch: String,
}
impl Step<u64> for Digits {
    type Out = (u64, usize);
    fn push(&mut self, record: Record<u64>, out: &mut impl Collect<(u64, usize)>) {
        use std::fmt::Write;
        self.scratch.clear();
        let _ = write!(self.scratch, "{}", record.value);
        if record.value % 10 == 9 {
            return;
        }
        out.emit(Record { value: (record.value, self.scratch.len()), time: record.time });
    }
}

#[test]
fn a_step_of_ones_own() {
    let expect = (0..N).filter(|n| n % 10 != 9).map(|n| (n, n.to_string().len()));
    gives(|t, sink| generated(t).step(Digits::default()).sink("out", sink), expect);
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Order {
    shop: String,
    cents: u64,
}

fn order(n: u64) -> Order {
    Order { shop: format!("shop {}", n % 97), cents: n }
}

fn orders(t: &Topology) -> Stream<Order> {
    numbers(t).map(order).boxed()
}

#[test]
fn keyed_by_a_part_or_by_a_value() {
    let expect = || {
        running(|count: &mut u64, n| {
            *count += 1;
            (format!("shop {}", n % 97), *count)
        })
    };
    gives(|t, sink| orders(t).key_by(|o| &o.shop).aggregate("count", |of| of.count()).sink("out", sink), expect());
    let shop = |o: &Order| (o.shop.len(), o.shop.clone());
    gives(
        move |t, sink| {
            let counts = orders(t).key_by_value(shop).aggregate("count", |of| of.count());
            counts.map(|((_, shop), count)| (shop, count)).sink("out", sink);
        },
        expect(),
    );
}

#[test]
fn map_with_state_and_flat_map_with_state() {
    let total = |total: &mut u64, n| {
        *total += n;
        *total
    };
    gives(
        move |t, sink| numbers(t).key_by_value(|n| n % 97).map_with_state("total", total).sink("out", sink),
        running(total),
    );
    let new_tens = |seen: &mut u64, n: u64| {
        *seen += 1;
        seen.is_multiple_of(10).then_some(n)
    };
    gives(
        move |t, sink| numbers(t).key_by_value(|n| n % 97).flat_map_with_state("tens", new_tens).sink("out", sink),
        running(new_tens).into_iter().flatten(),
    );
}

#[test]
fn reduce() {
    let expect = running(|so_far: &mut Option<Order>, n| {
        let order = order(n);
        let next = match so_far.take() {
            Some(old) => Order { cents: old.cents * 31 % 1009 + order.cents, ..old },
            None => order,
        };
        so_far.insert(next).clone()
    });
    gives(
        |t, sink| {
            let fold = |so_far: &mut Order, next: Order| so_far.cents = so_far.cents * 31 % 1009 + next.cents;
            orders(t).key_by(|o| &o.shop).reduce("folded", fold).sink("out", sink);
        },
        expect,
    );
}

/// The two largest values.
struct TopTwo;
impl Aggregate<Order> for TopTwo {
    type Acc = (u64, u64);
    type Out = (u64, u64);
    fn add(&self, acc: &mut (u64, u64), order: &Order) {
        if order.cents > acc.0 {
            *acc = (order.cents, acc.0);
        } else if order.cents > acc.1 {
            acc.1 = order.cents;
        }
    }
    fn merge(&self, into: &mut (u64, u64), other: (u64, u64)) {
        let mut all = [into.0, into.1, other.0, other.1];
        all.sort_unstable();
        *into = (all[3], all[2]);
    }
    fn finish(&self, acc: &(u64, u64)) -> (u64, u64) {
        *acc
    }
}

#[test]
fn aggregates_in_tuples_and_of_ones_own() {
    let expect = running(|all: &mut Vec<u64>, n| {
        all.push(n);
        let (count, sum) = (all.len() as u64, all.iter().sum::<u64>());
        let two = (n, if all.len() > 1 { all[all.len() - 2] } else { 0 });
        let mean = (sum as f64 / count as f64 * 1000.0) as u64;
        (format!("shop {}", n % 97), (count, sum), (all.first().copied(), Some(n)), mean, two)
    });
    gives(
        |t, sink| {
            orders(t)
                .key_by(|o| &o.shop)
                .aggregate("stats", |of| {
                    let ends = (of.min(|o| o.cents), of.max(|o| o.cents));
                    ((of.count(), of.sum(|o| o.cents)), ends, of.mean(|o| o.cents as f64), TopTwo)
                })
                .map(|(shop, (sums, ends, mean, two))| (shop, sums, ends, (mean * 1000.0) as u64, two))
                .sink("out", sink);
        },
        expect,
    );
}

/// Opens at the first record, closes at every fifth one and forgets all.
#[derive(State)]
struct Session {
    count: ValueState<u64>,
    first: ValueState<String>,
}
struct Sessions;
impl Process for Sessions {
    type Key = u64;
    type In = u64;
    type Out = (u64, u64, String);
    type State = Session;
    fn on_record(&self, n: u64, session: &mut Session, cx: &mut Context<'_, u64, Self::Out>) -> Result<(), BoxError> {
        session.first.get_or_insert_with(|| n.to_string());
        let count = session.count.or_default();
        *count += 1;
        if *count == 5 {
            let first = session.first.take().ok_or("no first record")?;
            session.count.take();
            cx.emit((*cx.key(), n, first));
        }
        Ok(())
    }
}

#[test]
fn process_with_a_state_of_two_fields() {
    let expect = running(|open: &mut Vec<u64>, n| {
        open.push(n);
        (open.len() == 5).then(|| (n % 97, n, std::mem::take(open)[0].to_string()))
    });
    gives(
        |t, sink| numbers(t).key_by_value(|n| n % 97).process("sessions", Sessions).sink("out", sink),
        expect.into_iter().flatten(),
    );
}

#[test]
fn union_rebalance_boxed_pipe_and_discard() {
    fn odd(numbers: Stream<u64>) -> Stream<u64> {
        numbers.filter(|n| n % 2 == 1).boxed()
    }
    let shifted = |t: &Topology| t.source("more", Records::of(N..2 * N)).map(|n| n + 1).boxed();
    gives(move |t, sink| numbers(t).map(|n| n + 1).union(shifted(t)).sink("out", sink), 1..=2 * N);
    gives(
        move |t, sink| t.union([numbers(t), generated(t), shifted(t)]).rebalance().sink("out", sink),
        (0..N).chain(0..N).chain(N + 1..=2 * N),
    );
    gives(
        move |t, sink| {
            let all = numbers(t);
            all.clone().filter(|n| n % 2 == 0).discard();
            all.map(|n| n).pipe(odd).map(|n| n * 3).sink("out", sink);
        },
        (0..N).filter(|n| n % 2 == 1).map(|n| n * 3),
    );
    // a union of keyed halves, keyed again
    gives(
        move |t, sink| {
            let all = t.union([numbers(t), shifted(t)]);
            all.key_by_value(|n| n % 7).aggregate("count", |of| of.count()).sink("out", sink);
        },
        {
            let mut counts = BTreeMap::<u64, u64>::new();
            (0..N).chain(N + 1..=2 * N).for_each(|n| *counts.entry(n % 7).or_default() += 1);
            counts.into_iter().flat_map(|(key, total)| (1..=total).map(move |count| (key, count)))
        },
    );
}

#[test]
fn fan_out_of_streams_and_of_keyed_streams_into_several_sinks() {
    for parallelism in [1, 2, 4] {
        let (scratch, sinks) = (Scratch::new(), [(); 4].map(|()| Collected::<(u64, u64)>::new()));
        let [all, doubled, counts, totals] = sinks.each_ref().map(|(sink, _)| sink.clone());
        let topology = move |t: &Topology| {
            let stream = numbers(t);
            stream.clone().map(|n| (n, n)).sink("all", all.clone());
            stream.clone().map(|n| (n, 2 * n)).sink("doubled", doubled.clone());
            let keyed = stream.key_by_value(|n| n % 97);
            keyed.clone().aggregate("count", |of| of.count()).sink("counts", counts.clone());
            let total = |total: &mut u64, n| {
                *total += n;
                (n, *total)
            };
            keyed.map_with_state("total", total).sink("totals", totals.clone());
            Ok(())
        };
        job(&scratch, topology).parallelism(parallelism).run().unwrap();
        let [all, doubled, counts, totals] = sinks.map(|(_, seen)| {
            let mut found = seen.take();
            found.sort();
            found
        });
        let sorted = |mut all: Vec<(u64, u64)>| {
            all.sort();
            all
        };
        assert_eq!(all, sorted((0..N).map(|n| (n, n)).collect()));
        assert_eq!(doubled, sorted((0..N).map(|n| (n, 2 * n)).collect()));
        let count = |count: &mut u64, n| {
            *count += 1;
            (n % 97, *count)
        };
        assert_eq!(counts, sorted(running(count)));
        let total = |total: &mut u64, n| {
            *total += n;
            (n, *total)
        };
        assert_eq!(totals, sorted(running(total)));
    }
}

#[test]
fn operators_have_a_parallelism_of_their_own() {
    for (source, keyed) in [(1, 3), (3, 1), (4, 2), (5, 128)] {
        let mut found = collect(2, move |t, sink| {
            let stream = generated(t).parallelism(source).map(|n| n + 1);
            let counts = stream.key_by_value(|n| n % 7).aggregate("count", |of| of.count()).parallelism(keyed);
            counts
                .map(|(key, count)| (count, key))
                .key_by(|(_, key)| key)
                .reduce("last", |a, b| *a = b)
                .sink("out", sink);
        });
        found.sort();
        let mut counts = BTreeMap::<u64, u64>::new();
        let mut expect: Vec<(u64, u64)> = (1..=N)
            .map(|n| {
                let count = counts.entry(n % 7).or_default();
                *count += 1;
                (*count, n % 7)
            })
            .collect();
        expect.sort();
        assert!(found == expect, "source {source}, keyed {keyed}: {} of {}", found.len(), expect.len());
    }
}

#[test]
fn files_are_read_and_written() {
    let (scratch, input) = (Scratch::new(), Scratch::new());
    for file in 0..7 {
        let lines: String = (0..100).map(|line| format!("{{\"shop\":\"s{line}\",\"cents\":{file}}}\n")).collect();
        std::fs::write(input.join(&format!("{file}.jsonl")), lines).unwrap();
    }
    let (pattern, output) = (input.join("[0-4].jsonl"), scratch.join("out"));
    let topology = move |t: &Topology| {
        let orders = t.source("orders", Files::read(&pattern).json::<Order>());
        let totals = orders.key_by(|o| &o.shop).aggregate("totals", |of| (of.count(), of.sum(|o| o.cents)));
        let finals = totals.filter(|(_, (count, _))| *count == 5).map(|(shop, (_, cents))| Order { shop, cents });
        finals.sink("finals", Files::write(&output).json());
        Ok(())
    };
    job(&scratch, topology).parallelism(3).run().unwrap();
    let mut lines = crate::common::read_lines(&scratch.join("out"), "finals");
    lines.sort();
    let mut expect: Vec<String> = (0..100).map(|n| format!("{{\"shop\":\"s{n}\",\"cents\":10}}")).collect();
    expect.sort();
    assert_eq!(lines, expect);
}

#[test]
fn more_files_than_subtasks_and_the_reverse() {
    for (files, parallelism) in [(40, 2), (1, 5), (3, 3)] {
        let input = Scratch::new();
        for file in 0..files {
            let lines: String = (0..50).map(|line| format!("{file} {line}\n")).collect();
            std::fs::write(input.join(&format!("{file}.txt")), lines).unwrap();
        }
        let directory = input.path().to_owned();
        let mut found = collect(parallelism, move |t, sink| {
            t.source("lines", Files::read(&directory).lines()).sink("out", sink);
        });
        found.sort();
        let mut expect: Vec<_> =
            (0..files).flat_map(|file| (0..50).map(move |line| format!("{file} {line}"))).collect();
        expect.sort();
        assert_eq!(found, expect);
    }
}

#[test]
fn an_empty_input_ends() {
    let plain = |t: &Topology, sink| t.source("none", Records::of(0..0u64)).sink("out", sink);
    assert_eq!(collect::<u64>(2, plain), [0; 0]);
    let keyed = |t: &Topology, sink| {
        let none = t.source("none", Records::of(0..0u64)).key_by(|n| n);
        none.aggregate("count", |of| of.count()).sink("out", sink);
    };
    assert_eq!(collect::<(u64, u64)>(3, keyed), [(0, 0); 0]);
}

#[test]
fn settings_reach_the_topology() {
    #[derive(Serialize, Deserialize)]
    struct Settings {
        factor: u64,
    }
    let (scratch, (sink, seen)) = (Scratch::new(), Collected::new());
    let topology = move |t: &Topology| {
        let Settings { factor } = t.config()?;
        t.source("numbers", Records::of(0..3)).map(move |n| n * factor).sink("out", sink.clone());
        Ok(())
    };
    job(&scratch, topology.clone()).config(Settings { factor: 7 }).run().unwrap();
    assert_eq!(seen.take(), [0, 7, 14]);
    assert_eq!(refused(job(&scratch, topology).config(3)).kind(), ErrorKind::Usage);
}

/// Places are `<file>:<line>:<column>`.
fn without_places(text: &str) -> String {
    let word = |word: &str| {
        let place = word.contains("pipelines.rs:").then(|| word.trim_end_matches(|c: char| !c.is_ascii_digit()));
        place.map_or_else(|| word.to_owned(), |place| word.replace(place, "PLACE"))
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn all_mistakes_in_building_are_shown_together() {
    let scratch = Scratch::new();
    let topology = |t: &Topology| {
        let all = numbers(t);
        all.clone().key_by(|n| n).aggregate("sum", |of| of.count()).discard();
        let _ = all.clone().key_by(|n| n).aggregate("sum", |of| of.sum(|n| *n)).parallelism(129);
        let _ = all.clone().map(|n| n + 1).boxed();
        all.sink("My Sink", Null::new());
        Ok(())
    };
    let error = refused(job(&scratch, topology));
    assert_eq!(error.kind(), ErrorKind::Topology);
    let expect = "the sink at PLACE is named `My Sink`: write a name of a-z, 0-9, `_`, `-` and `.`, which does not \
                  begin with `.`\n\
                  `sum` names two things: one at PLACE, one at PLACE; a name is the identity of state, write another \
                  one in one of the two places\n\
                  nothing reads the output of the process at PLACE: end it with `.sink(name, ..)`, or with \
                  `.discard()` if that is meant\n\
                  nothing reads the output of the chain at PLACE: end it with `.sink(name, ..)`, or with `.discard()` \
                  if that is meant\n\
                  the process at PLACE has a parallelism of 129: write at least 1 and at most 128, the number of key \
                  groups";
    let mut found: Vec<String> = error.to_string().lines().map(without_places).collect();
    let mut expect: Vec<&str> = expect.lines().collect();
    found.sort();
    expect.sort();
    assert_eq!(found, expect);
    assert!(!scratch.join("data").exists(), "nothing is made before the topology is right");
}

#[test]
fn a_mistake_names_its_place() {
    let (scratch, line) = (Scratch::new(), line!() + 2);
    let topology = |t: &Topology| {
        numbers(t).sink("My Sink", Null::new());
        Ok(())
    };
    let error = refused(job(&scratch, topology)).to_string();
    assert!(error.contains(&format!("the sink at {}:{line}:", file!())), "{error}");
    let error = refused(job(&scratch, |_| Ok(()))).to_string();
    assert!(error.contains("the topology is empty"), "{error}");
    let discarded = |t: &Topology| {
        numbers(t).discard();
        Ok(())
    };
    let error = refused(Job::new("My Job", discarded)).to_string();
    assert!(error.contains("the job is named `My Job`: write a name of"), "{error}");
    let error = refused(job(&scratch, |_| Err("no such table".into()))).to_string();
    assert!(error.contains("no such table"), "{error}");
}

#[test]
fn a_topology_is_described_in_three_ways() {
    let describe = |format: &str| {
        let mut command = example("word_count");
        command.args(["topology", "--input", "/nowhere", "--output", "/nowhere", "--parallelism", "3"]);
        let output = command.args(["--format", format]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = describe("text");
    let row = |name: &str| text.lines().find(|l| l.split_whitespace().nth(1) == Some(name)).unwrap_or_default();
    assert!(text.starts_with("job word_count\n"), "{text}");
    assert!(row("text").contains("source") && row("text").contains("x3"), "{text}");
    assert!(row("counts").contains("<- 1 (hash)") && row("counts").contains("word_count.rs:"), "{text}");
    assert!(row("result").contains("(direct)"), "{text}");

    let mermaid = describe("mermaid");
    assert!(mermaid.starts_with("flowchart LR\n"), "{mermaid}");
    for expect in ["n0[\"text<br/>source x3\"]", "n1 -- hash --> n2", "[\"result<br/>sink x3\"]"] {
        assert!(mermaid.contains(expect), "{expect}: {mermaid}");
    }

    let json: serde_json::Value = serde_json::from_str(&describe("json")).unwrap();
    assert_eq!(json["job"], "word_count");
    let names: Vec<_> = json["nodes"].as_array().unwrap().iter().filter_map(|node| node["name"].as_str()).collect();
    assert_eq!(names, ["text", "counts", "result"]);
    assert_eq!(json["nodes"][2]["inputs"][0]["link"], "hash");
    assert!(json["fingerprint"].as_str().is_some_and(|text| text.len() == 16));
}
