//! Pipelines under a recorder: all that `docs/metrics.md` lists is published, and says what went through.

use super::plain;
use crate::common::{Output, Scratch};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use millstream::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

const RECORDS: u64 = 30_000;

/// The recorder of this process. All tests of this binary publish to it, so jobs here have names of their own.
fn recorder() -> &'static Snapshotter {
    static RECORDER: OnceLock<Snapshotter> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().unwrap();
        snapshotter
    })
}

/// All names.
fn listed() -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split_once('`').unwrap().0.to_owned()).collect()
}

/// What was published: by job, name and operator, the values of all subtasks.
struct Published(BTreeMap<[String; 3], Vec<DebugValue>>);

impl Published {
    fn take() -> Self {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, _, _, value) in recorder().snapshot().into_vec() {
            let label = |name: &str| key.key().labels().find(|l| l.key() == name).map(|l| l.value().to_owned());
            let [job, operator] = ["job", "operator"].map(|name| label(name).unwrap_or_default());
            let operator = if operator.contains(file!()) { "or_skip".into() } else { operator };
            all.entry([job, key.key().name().to_owned(), operator]).or_default().push(value);
        }
        Self(all)
    }

    fn values(&self, job: &str, name: &str, operator: &str) -> &[DebugValue] {
        let key = [job.to_owned(), format!("millstream_{name}"), operator.to_owned()];
        self.0.get(&key).unwrap_or_else(|| panic!("no {key:?}"))
    }

    /// Of a counter or a gauge, of all subtasks.
    fn numbers(&self, job: &str, name: &str, operator: &str) -> Vec<f64> {
        let number = |value: &DebugValue| match value {
            DebugValue::Counter(n) => *n as f64,
            DebugValue::Gauge(n) => n.0,
            DebugValue::Histogram(_) => panic!("{name} is a histogram"),
        };
        self.values(job, name, operator).iter().map(number).collect()
    }

    fn sum(&self, job: &str, name: &str, operator: &str) -> f64 {
        self.numbers(job, name, operator).into_iter().sum()
    }
}

/// Lines of numbers of which each tenth is none, and half of the others are the same.
fn lines() -> String {
    let line = |n: u64| match n % 10 {
        0 => format!("none{n}\n"),
        1..=5 => "7\n".into(),
        _ => format!("{}\n", n % 2000),
    };
    (0..RECORDS).map(line).collect()
}

/// Counts numbers behind a cache of few rows, or of enough. The record of this number fails the first time it is met.
fn count(scratch: &Scratch, name: &str, cache_rows: usize, fails_at: Option<u64>) {
    let (input, output, failed) = (scratch.join("in.txt"), scratch.join(name), Arc::new(AtomicBool::new(false)));
    let topology = move |t: &Topology| {
        let failed = failed.clone();
        t.source("lines", Files::read(&input).lines())
            .map(|line| line.parse::<u64>())
            .or_skip()
            .try_map(move |n| match fails_at == Some(n) && !failed.swap(true, SeqCst) {
                true => Err("once".into()),
                false => Ok(n),
            })
            .key_by_value(|n| *n)
            .map_with_state("counts", |count: &mut u64, n| {
                *count += 1;
                format!("{n} {count}")
            })
            .sink("out", Files::write(&output).text());
        Ok(())
    };
    let policy = RestartPolicy { attempts: 3, pause: Duration::from_millis(1), pause_max: Duration::from_millis(1) };
    let job = Job::new(name, topology).data_dir(scratch.join("data").join(name)).workers(2).parallelism(2);
    job.cache_rows(cache_rows).restart(policy).checkpoint_interval(Duration::from_millis(20)).run().unwrap();
}

/// By how much the sources of [`in_time`] may be out of order, in milliseconds.
const BOUND: u64 = 2000;

/// Runs a job that is fed with times by two channels, and calls `look` when all of them have come and none has ended.
fn in_time(scratch: &Scratch, name: &str, times: [&[u64]; 2], look: impl FnOnce()) {
    let ((one, first), (two, second)) = (Channel::read(1000), Channel::read(1000));
    let topology = move |t: &Topology| {
        let watermarks = Watermarks::bounded(Duration::from_millis(BOUND)).idle_after(Duration::from_hours(1));
        let set = |numbers: Stream<u64>| numbers.event_time(|n| Timestamp::from_millis(*n as i64), watermarks);
        set(t.source("first", first.clone()))
            .union(set(t.source("second", second.clone())))
            .key_by_value(|n| *n)
            .map_with_state("times", |_: &mut u64, n| n)
            .sink("out", Null::new());
        Ok(())
    };
    let job = Job::new(name, topology).data_dir(scratch.join("data").join(name)).workers(2).parallelism(2);
    plain(async {
        let job = job.restart(RestartPolicy::never()).start().await.unwrap();
        for (sender, times) in [(&one, times[0]), (&two, times[1])] {
            for time in times {
                sender.send(*time).await.unwrap();
            }
            sender.checkpoint(&job).await.unwrap();
        }
        look();
        drop((one, two));
        job.wait().await.unwrap();
    });
}

#[test]
fn all_that_is_listed_is_published_and_true() {
    recorder();
    let scratch = Scratch::new();
    std::fs::write(scratch.join("in.txt"), lines()).unwrap();
    count(&scratch, "measured", 100, None);
    count(&scratch, "measured-twice", 1 << 20, Some(1999));
    // the one that is behind counts, and of its times the largest
    let times: [&[u64]; 2] = [&[30_000, 71_250, 70_000], &[9_000, 40_125, 39_500, 38_000]];
    let mut seen = None;
    in_time(&scratch, "measured-in-time", times, || seen = Some(Published::take()));
    let seen = seen.unwrap();

    let of = |job: &str| -> BTreeSet<_> {
        seen.0.keys().filter(|[of, ..]| of == job).map(|[_, name, _]| name.as_str()).collect()
    };
    // nothing here has event time, and files do not know how far they are behind
    let missing: Vec<_> = listed().into_iter().filter(|name| !of("measured").contains(name.as_str())).collect();
    let elsewhere =
        ["millstream_source_lag_records", "millstream_source_expiry_seconds", "millstream_watermark_seconds"];
    assert_eq!(missing, elsewhere);
    assert!(of("measured-in-time").contains("millstream_watermark_seconds"));
    let covered = times.map(|times| times.iter().max().unwrap() - BOUND - 1).into_iter().min().unwrap();
    for operator in ["times", "out"] {
        let shown = seen.numbers("measured-in-time", "watermark_seconds", operator);
        assert_eq!(shown, [covered as f64 / 1e3; 2], "{operator}");
    }

    let sum = |name, operator| seen.sum("measured", name, operator);
    let (all, good) = (RECORDS as f64, (RECORDS - RECORDS / 10) as f64);
    assert_eq!((sum("records_in_total", "lines"), sum("records_out_total", "lines")), (all, all));
    assert_eq!(sum("skipped_records_total", "or_skip"), all - good);
    assert_eq!((sum("records_in_total", "counts"), sum("records_out_total", "counts")), (good, good));
    assert_eq!((sum("records_in_total", "out"), sum("records_out_total", "out")), (good, good));
    assert_eq!(sum("bytes_in_total", "lines"), lines().len() as f64);
    let written: usize = Output::of(&scratch.join("measured")).lines("out").iter().map(|line| line.len() + 1).sum();
    assert_eq!(sum("bytes_out_total", "out"), written as f64);
    assert_eq!(sum("state_hits_total", "counts") + sum("state_misses_total", "counts"), good);
    for name in ["state_misses_total", "state_evictions_total", "state_spilled_bytes_total", "state_delta_bytes_total"]
    {
        assert!(sum(name, "counts") > 0.0, "{name}");
    }
    // 7 is more than half of all, so it is most of what its subtask gets
    let hottest = seen.numbers("measured", "hottest_key_group_ratio", "counts");
    assert!(hottest.iter().any(|share| (0.5..=1.0).contains(share)), "{hottest:?}");

    for (name, operator) in [("busy_ratio", "lines"), ("backpressure_ratio", "lines"), ("worker_busy_ratio", "")] {
        assert!(seen.numbers("measured", name, operator).iter().all(|ratio| (0.0..=1.0).contains(ratio)), "{name}");
    }
    assert!(seen.numbers("measured", "batch_records", "counts").iter().all(|mean| *mean >= 0.0 && *mean <= 1e5));
    let taken = sum("checkpoints_total", "");
    assert!(taken >= 2.0 && sum("checkpoint_epoch", "") + 1.0 == taken, "genesis is one");
    for name in ["", "_alignment", "_freeze", "_durable", "_decision", "_commit"] {
        let values = seen.values("measured", &format!("checkpoint{name}_seconds"), "");
        let [DebugValue::Histogram(values)] = values else { panic!("{values:?}") };
        assert!(values.len() == taken as usize && values.iter().all(|v| (0.0..60.0).contains(&v.0)), "{name}");
    }
    assert_eq!(sum("restarts_total", ""), 0.0);

    // with a failure: counted on, and what was read again counts again
    let sum = |name, operator| seen.sum("measured-twice", name, operator);
    assert_eq!(sum("restarts_total", ""), 1.0);
    assert!(sum("records_in_total", "lines") >= all);
    let keys: BTreeSet<u64> = lines().lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(sum("state_rows", "counts"), keys.len() as f64);
    assert!(sum("skipped_records_total", "or_skip") >= all - good);
}
