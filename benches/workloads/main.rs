//! The workloads, each beside a limit loop or a job that it is held against:
//! `cargo bench --bench workloads -- [--quick] [part of a name]...`. What the figures mean is in `benches/README.md`.
//!
//! | file | what |
//! |---|---|
//! | `gen.rs` | the generator, the same in every engine |
//! | `limits.rs` | what the machine gives without an engine |
//! | `jobs.rs`, `quiet.rs` | the workloads as jobs: under load; with little to do |
//! | `maps.rs` | maps larger than memory, and bare RocksDB in their place |
//! | `kafka.rs`, `kafka/` | with a real Kafka, only if a part of their names is given |
//! | `meter.rs` | the sink and the source of these jobs |
//! | `watch.rs` | what checkpoints cost, from the log |
//! | `measure.rs`, `report.rs` | taking figures; the table |

mod r#gen;
mod jobs;
#[cfg(feature = "kafka")]
mod kafka;
mod limits;
mod maps;
mod measure;
mod meter;
mod quiet;
mod report;
mod watch;

use jobs::{NEVER, Pace, Sustained};
use measure::{Figure, interleaved, median, quantile};
use millstream::framework::{Data, Key};
use report::{Bar, Row};
use std::hash::Hash;
use std::io::Write as _;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much is run.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// Records are divided by it.
    less: u64,
    /// Of a sustained run.
    measured: Duration,
    warm_up: Duration,
}

const FULL: Effort = Effort { rounds: 5, less: 1, measured: Duration::from_secs(8), warm_up: Duration::from_secs(2) };
const QUICK: Effort = Effort { rounds: 3, less: 4, measured: Duration::from_secs(3), warm_up: Duration::from_secs(1) };

const KEYS: u64 = 1_000_000;

type Workload = fn(Effort) -> Vec<Row>;

/// In the order of the table.
const WORKLOADS: [(&str, Workload); 14] = [
    ("w1_fused", w1_fused),
    ("w1_event_time", w1_event_time),
    ("w1_boundary", w1_boundary),
    ("w2_memory", w2_memory),
    ("w2_scattered", w2_scattered),
    ("w2_strings", w2_strings),
    ("w2_durable", w2_durable),
    ("w2_20m_keys", w2_20m_keys),
    ("maps", maps),
    ("maps_shared", maps_shared),
    ("entries_tight", entries_tight),
    ("timers", timers),
    ("quiet_record", quiet_record),
    ("slow_sink", slow_sink),
];

fn main() {
    r#gen::check();
    watch::start();
    // cargo passes `--bench`
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let (flags, names): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|a| a.starts_with('-'));
    #[cfg(feature = "kafka")]
    if kafka::child(&names) {
        return;
    }
    let effort = if flags.iter().any(|flag| flag == "--quick") { QUICK } else { FULL };
    let named = |name: &str| names.iter().any(|part| name.contains(part.as_str()));
    let wanted = WORKLOADS.into_iter().filter(|(name, _)| names.is_empty() || named(name));
    #[cfg(feature = "kafka")]
    let wanted = wanted.chain(kafka::WORKLOADS.into_iter().filter(|(name, _)| named(name)));
    let mut rows = Vec::new();
    for (name, workload) in wanted {
        eprint!("{name} ... ");
        let _ = std::io::stderr().flush();
        rows.extend(workload(effort));
        eprintln!("done");
    }
    println!("{}", report::table(&rows));
}

/// Throughput of a job against its baseline: the median of the ratios of each round.
fn against(name: &'static str, bar: Bar, job: &[Figure], limit: &[Figure], note: &str) -> Row {
    let rates = |figures: &[Figure], of: fn(&Figure) -> f64| figures.iter().map(of).collect::<Vec<_>>();
    let ratio = |of| {
        let (job, limit) = (rates(job, of), rates(limit, of));
        median(&job.iter().zip(&limit).map(|(a, b)| a / b).collect::<Vec<_>>())
    };
    let text = |figures| {
        let rates = rates(figures, Figure::rate);
        let [least, middle, most] = [quantile(&rates, 0.0), median(&rates), quantile(&rates, 1.0)];
        if middle < 3.0 {
            return format!("{middle:.2} ({least:.2}-{most:.2}) M/s");
        }
        format!("{middle:.1} ({least:.0}-{most:.0}) M/s")
    };
    let per_cpu = format!("per CPU second {:.2}x", ratio(Figure::rate_cpu));
    let note = if note.is_empty() { per_cpu } else { format!("{per_cpu}; {note}") };
    Row { name, figure: text(job), baseline: text(limit), value: ratio(Figure::rate), unit: "x", bar, note }
}

fn w1_fused(effort: Effort) -> Vec<Row> {
    let n = 100_000_000 / effort.less;
    let [job, limit] = interleaved(effort.rounds, [&mut || jobs::w1_fused(n, 1), &mut || limits::w1(n)]);
    vec![against(
        "w1_fused",
        Bar::AtLeast(0.85, 1.0),
        &job,
        &limit,
        "one worker; one virtual call per operator and batch",
    )]
}

fn w1_event_time(effort: Effort) -> Vec<Row> {
    let n = 100_000_000 / effort.less;
    let [job, untimed] = interleaved(effort.rounds, [&mut || jobs::w1_event_time(n, 1), &mut || jobs::w1_fused(n, 1)]);
    vec![against("w1_event_time", Bar::AtLeast(0.75, 0.85), &job, &untimed, "one worker; the job without event time")]
}

fn w1_boundary(effort: Effort) -> Vec<Row> {
    let n = 100_000_000 / effort.less;
    let [job, limit] = interleaved(effort.rounds, [&mut || jobs::w1_boundary(n), &mut || limits::w1_channel(n)]);
    vec![against("w1_boundary", Bar::AtLeast(0.8, 0.9), &job, &limit, "bare channel of batches")]
}

/// W2 from empty, two workers, against hashbrown and an exchange on two threads.
fn w2<K: Key + Data + Hash>(
    name: &'static str,
    bar: Bar,
    effort: Effort,
    n: u64,
    make: impl Fn(u64) -> K + Copy + Send + Sync + 'static,
) -> Vec<Row> {
    let n = n / effort.less.min(2);
    let [job, limit, tuned, one] = interleaved(
        effort.rounds,
        [
            &mut || jobs::w2(n, 2, make),
            &mut || limits::w2_exchange(n, make),
            &mut || limits::w2_exchange_tuned(n, make),
            &mut || limits::w2_one_thread(n, make),
        ],
    );
    let [tuned, one] = [tuned, one].map(|runs| median(&runs.iter().map(Figure::rate).collect::<Vec<_>>()));
    let note = format!("hashbrown and exchange; tuned by hand: {tuned:.1}; one thread, no exchange: {one:.1} M/s");
    vec![against(name, bar, &job, &limit, &note)]
}

fn w2_memory(effort: Effort) -> Vec<Row> {
    w2("w2_memory", Bar::AtLeast(1.1, 1.7), effort, 20_000_000, |i| r#gen::dense(i, KEYS))
}

fn w2_scattered(effort: Effort) -> Vec<Row> {
    w2("w2_scattered", Bar::AtLeast(0.5, 1.1), effort, 20_000_000, |i| r#gen::scattered(i, KEYS))
}

fn w2_strings(effort: Effort) -> Vec<Row> {
    w2("w2_strings", Bar::None, effort, 10_000_000, |i| r#gen::text(i, KEYS))
}

/// W2 that runs on: without checkpoints, with one each second, and with one each 100 ms, in turn.
fn w2_durable(effort: Effort) -> Vec<Row> {
    let run = |interval| {
        let Effort { measured, warm_up, .. } = effort;
        jobs::w2_sustained(Pace { keys: KEYS, interval, warm_up, measured, memory: 1 << 30 })
    };
    let (mut memory, mut second, mut tenth) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds.div_ceil(2) {
        memory.push(run(NEVER));
        second.push(run(Duration::from_secs(1)));
        tenth.push(run(Duration::from_millis(100)));
    }
    let of = |runs: &[Sustained]| runs.iter().map(|run| run.figure).collect::<Vec<_>>();
    let limit = of(&memory);
    let mut rows = vec![
        against("w2_durable_1s", Bar::AtLeast(0.85, 0.97), &of(&second), &limit, "a checkpoint each second"),
        against("w2_durable_100ms", Bar::AtLeast(0.65, 0.85), &of(&tenth), &limit, "a checkpoint each 100 ms"),
    ];
    let bars = (Bar::AtMost(10.0, 5.0), Bar::AtMost(100.0, 40.0));
    rows.extend(checkpoints(["1m_dirty_pause", "1m_dirty_durable"], &second, bars, 16 << 20));
    rows.extend(checkpoints(["100ms_pause", "100ms_durable"], &tenth, (Bar::None, Bar::None), 16 << 20));
    rows
}

/// What the checkpoints of these runs cost: the median of the longest stop of each, and of the time until it was
/// decided. The baseline is a file of about as many bytes as the deltas had.
fn checkpoints(names: [&'static str; 2], runs: &[Sustained], bars: (Bar, Bar), bytes: usize) -> Vec<Row> {
    let all: Vec<_> = runs.iter().flat_map(|run| &run.checkpoints).collect();
    let row = |name, of: fn(&watch::Taken) -> f64, bar, baseline| {
        let values: Vec<f64> = all.iter().map(|taken| of(taken)).collect();
        let (p90, max) = (quantile(&values, 0.9), quantile(&values, 1.0));
        let figure = format!("p90 {p90:.1}, max {max:.1} ms");
        let alignment = quantile(&all.iter().map(|taken| taken.alignment_ms).collect::<Vec<_>>(), 0.5);
        let note = format!("{} checkpoints; alignment {alignment:.2} ms", all.len());
        Row { name, figure, baseline, value: median(&values), unit: " ms", bar, note }
    };
    vec![
        row(names[0], |taken| taken.pause_ms, bars.0, "-".into()),
        row(names[1], |taken| taken.took_ms, bars.1, disk(bytes)),
    ]
}

/// A bare file, written and made durable.
fn disk(bytes: usize) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let took: Vec<f64> = (0..5)
        .filter_map(|_| limits::disk(directory.path(), bytes).ok())
        .map(|took| took.as_secs_f64() * 1e3)
        .collect();
    format!("file of {} MB: {:.0} ms", bytes >> 20, median(&took))
}

fn w2_20m_keys(effort: Effort) -> Vec<Row> {
    let run = |interval| {
        let measured = effort.measured * 2;
        let warm_up = effort.warm_up * 2;
        jobs::w2_sustained(Pace { keys: 20 * KEYS, interval, warm_up, measured, memory: 5 << 30 })
    };
    let (memory, second) = (run(NEVER), run(Duration::from_secs(1)));
    let (job, limit) = (second.figure, memory.figure);
    let mut rows = vec![against("w2_20m_1s", Bar::None, &[job], &[limit], "a checkpoint each second")];
    let bars = (Bar::None, Bar::AtMost(1500.0, 700.0));
    rows.extend(checkpoints(["20m_keys_pause", "20m_keys_durable"], &[second], bars, 200 << 20));
    rows
}

fn maps(effort: Effort) -> Vec<Row> {
    let bar = Bar::AtLeast(2.0, 3.0);
    maps_with("maps", bar, maps::Memory::Ample, 8_000_000, "ten times those in the table", effort)
}

fn maps_shared(effort: Effort) -> Vec<Row> {
    let bar = Bar::AtLeast(2.0, 3.0);
    maps_with("maps_shared", bar, maps::Memory::Tenth, 8_000_000, "ten times those in the table", effort)
}

fn entries_tight(effort: Effort) -> Vec<Row> {
    maps_with("entries_tight", Bar::None, maps::Memory::Tight, 2_000_000, "ten times the memory in bytes", effort)
}

fn maps_with(name: &'static str, bar: Bar, memory: maps::Memory, n: u64, what: &str, effort: Effort) -> Vec<Row> {
    let n = n / effort.less;
    let (mut job, mut limit) = (Vec::new(), Vec::new());
    // a round takes a minute, most of it until the state is there
    for _ in 0..effort.rounds.div_ceil(3) {
        job.push(maps::of_job(n, memory));
        limit.push(maps::of_rocksdb(n, memory));
    }
    let note = format!("one worker; {} entries, {what}; get and put on bare RocksDB", maps::STATE);
    vec![against(name, bar, &job, &limit, &note)]
}

/// Two values and a timer in event time per key, a checkpoint each second, against hashbrown and an exchange, which
/// count the same keys: time-outs that are moved ten times before they fire at all, and such that a third of them fire.
fn timers(effort: Effort) -> Vec<Row> {
    let Effort { measured, warm_up, .. } = effort;
    let run = |silence| {
        let interval = Duration::from_secs(1);
        let pace = Pace { keys: KEYS, interval, warm_up, measured, memory: 1 << 30 };
        jobs::sessions_sustained(pace, silence).figure
    };
    let (mut moved, mut fired, mut limit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds.div_ceil(2) {
        limit.push(limits::w2_exchange(20_000_000, |i| r#gen::dense(i, KEYS)));
        moved.push(run(Duration::from_secs(10)));
        fired.push(run(Duration::from_secs(1)));
    }
    let note = "a checkpoint each second; hashbrown and exchange";
    vec![
        against("timers_moved", Bar::AtLeast(0.12, 0.3), &moved, &limit, note),
        against("timers_fired", Bar::AtLeast(0.12, 0.3), &fired, &limit, note),
    ]
}

fn quiet_record(effort: Effort) -> Vec<Row> {
    let took = quiet::latencies(4000 / effort.less);
    let [median, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(&took, share) / 1e3);
    vec![Row {
        name: "quiet_record",
        figure: format!("p99 {p99:.3}, max {max:.3} ms"),
        baseline: "-".into(),
        value: median,
        unit: " ms",
        bar: Bar::AtMost(1.0, 0.1),
        note: format!("source, exchange to the other worker, state, sink writer; {} records", took.len()),
    }]
}

fn slow_sink(effort: Effort) -> Vec<Row> {
    let n = if effort.rounds > 3 { 20 } else { 10 };
    let taken = quiet::behind_a_slow_sink(n);
    let took: Vec<f64> = taken.iter().map(|taken| taken.took_ms).collect();
    let alignment = median(&taken.iter().map(|taken| taken.alignment_ms).collect::<Vec<_>>());
    vec![Row {
        name: "slow_sink",
        figure: format!("p90 {:.0}, max {:.0} ms", quantile(&took, 0.9), quantile(&took, 1.0)),
        baseline: "-".into(),
        value: median(&took),
        unit: " ms",
        bar: Bar::AtMost(500.0, 500.0),
        note: format!(
            "{} checkpoints, 200 ms, behind a sink of 1 ms per record; alignment {alignment:.0} ms",
            took.len()
        ),
    }]
}
