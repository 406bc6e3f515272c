//! What a job publishes through the crate `metrics`, to whatever recorder the program has installed: the list, which is
//! `docs/metrics.md`, too, and the hand that publishes. Subtasks count for themselves (`subtask/report.rs`) and know
//! nothing of recorders; the coordinator reads their counters about once per second and at each checkpoint.

use super::status::CheckpointStatus;
use super::wiring::Common;
use crate::checkpoints::Manifest;
use crate::clock;
use crate::subtask::Counters;
use crate::topology::{Kind as Node, Plan};
use metrics::{Gauge, Label};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often figures are published.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric as it stands in the list.
#[derive(Debug)]
pub(crate) struct Metric {
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
}

const SUBTASK: &[&str] = &["job", "operator", "subtask"];
const OPERATOR: &[&str] = &["job", "operator"];
const SPLIT: &[&str] = &["job", "operator", "split"];
const WORKER: &[&str] = &["job", "worker"];
const JOB: &[&str] = &["job"];

macro_rules! list { ($($id:ident $name:literal $kind:ident $unit:literal $labels:expr, $help:literal;)*) => {
    $(pub(crate) const $id: Metric =
        Metric { name: $name, kind: Kind::$kind, unit: $unit, labels: $labels, help: $help };)*
    const ALL: &[Metric] = &[$($id),*];
} }

list! {
    RECORDS_IN "millstream_records_in_total" Counter "records" SUBTASK,
        "Records that came in; of a source, that were read. Those that are read again after a failure count again.";
    RECORDS_OUT "millstream_records_out_total" Counter "records" SUBTASK,
        "Records that went out; of a sink, that were written, visible or not yet.";
    BYTES_IN "millstream_bytes_in_total" Counter "bytes" SUBTASK,
        "Bytes that a source has read, if its connector counts them, as that of files does.";
    BYTES_OUT "millstream_bytes_out_total" Counter "bytes" SUBTASK,
        "Bytes that a sink has written, if its connector counts them, as that of files does.";
    SKIPPED "millstream_skipped_records_total" Counter "records" OPERATOR,
        "Records left out because of what was wrong with them, by `or_skip` or by a source that skips.";
    LAG "millstream_source_lag_records" Gauge "records" SPLIT,
        "Records of a split that are there and not read yet, if the connector knows, as that of Kafka does.";
    EXPIRY "millstream_source_expiry_seconds" Gauge "seconds" SPLIT,
        "Until retention throws away what comes after the last checkpoint, as far as can be told; then it cannot be restored. Infinite where nothing is thrown away.";
    BATCH "millstream_batch_records" Gauge "records" SUBTASK,
        "Mean size of the batches that came since it was published last. Small ones are a sign of slow work or of little.";
    BUSY "millstream_busy_ratio" Gauge "share of time" SUBTASK,
        "How much of its time a subtask worked; at the first operator of those that run as one.";
    BACKPRESSURE "millstream_backpressure_ratio" Gauge "share of time" SUBTASK,
        "How much of its time it waited for what follows to take records; at the first operator, likewise.";
    WORKER_BUSY "millstream_worker_busy_ratio" Gauge "share of time" WORKER,
        "How much of its time a worker, which is a thread, worked for its subtasks. At 1 it is what bounds the job.";
    WATERMARK "millstream_watermark_seconds" Gauge "seconds since 1970" SUBTASK,
        "The watermark, once there is one. The time of day less this is how far event time lags behind.";
    ROWS "millstream_state_rows" Gauge "rows" SUBTASK,
        "Rows of keyed state in memory, as of the last checkpoint.";
    HITS "millstream_state_hits_total" Counter "records" SUBTASK,
        "Records whose row was in memory.";
    MISSES "millstream_state_misses_total" Counter "records" SUBTASK,
        "Rows, and entries of collections, that were looked up in storage, batch by batch.";
    BLOCKING "millstream_state_blocking_misses_total" Counter "entries" SUBTASK,
        "Entries of collections that user code had to wait for, because `Process::prefetch` had not asked for them.";
    EVICTIONS "millstream_state_evictions_total" Counter "rows" SUBTASK,
        "Rows, and entries of collections, that left memory to make room.";
    SPILLED "millstream_state_spilled_bytes_total" Counter "bytes" SUBTASK,
        "Bytes of evicted rows that had to be kept, in memory or in a file, for no fold had them yet.";
    DELTAS "millstream_state_delta_bytes_total" Counter "bytes" OPERATOR,
        "Bytes of changed rows that checkpoints have written.";
    HOTTEST "millstream_hottest_key_group" Gauge "number" SUBTASK,
        "The key group that got most records in an epoch, by a sample of one in 64. None is told of a few hundred.";
    HOTTEST_SHARE "millstream_hottest_key_group_ratio" Gauge "share of records" SUBTASK,
        "Its share of the records of its subtask. A share far above the others' is a key that gets too much.";
    CHECKPOINTS "millstream_checkpoints_total" Counter "checkpoints" JOB,
        "Checkpoints that were decided.";
    EPOCH "millstream_checkpoint_epoch" Gauge "number" JOB,
        "The newest of them.";
    SIZE "millstream_checkpoint_bytes" Gauge "bytes" JOB,
        "What it needs on disk, files that it shares with others included.";
    TOOK "millstream_checkpoint_seconds" Histogram "seconds" JOB,
        "From the barrier to the decision.";
    ALIGNMENT "millstream_checkpoint_alignment_seconds" Histogram "seconds" JOB,
        "The longest wait of a subtask between the first and the last barrier of its inputs.";
    FREEZE "millstream_checkpoint_freeze_seconds" Histogram "seconds" JOB,
        "The longest stop of a subtask: to freeze its rows, or to copy a piece of them.";
    DURABLE "millstream_checkpoint_durable_seconds" Histogram "seconds" JOB,
        "From the barrier until all snapshots and all prepared output are on disk.";
    DECISION "millstream_checkpoint_decision_seconds" Histogram "seconds" JOB,
        "From then to the decision: the manifest and its fsync.";
    COMMIT "millstream_checkpoint_commit_seconds" Histogram "seconds" JOB,
        "From the decision until all sinks have made their output visible.";
    RESTARTS "millstream_restarts_total" Counter "restarts" JOB,
        "Attempts that have failed and were followed by another one.";
}

impl Metric {
    fn labels(&self, values: &[&str]) -> Vec<Label> {
        self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect()
    }

    pub(crate) fn counter(&self, values: &[&str]) -> metrics::Counter {
        metrics::counter!(self.name, self.labels(values))
    }

    fn gauge(&self, values: &[&str]) -> Gauge {
        metrics::gauge!(self.name, self.labels(values))
    }

    fn record(&self, values: &[&str], took: Duration) {
        metrics::histogram!(self.name, self.labels(values)).record(took);
    }
}

/// Tells the recorder what there is.
pub(crate) fn describe() {
    for Metric { name, kind, unit, help, .. } in ALL {
        let text = format!("{help} Unit: {unit}.");
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, text),
            Kind::Gauge => metrics::describe_gauge!(*name, text),
            Kind::Histogram => metrics::describe_histogram!(*name, text),
        }
    }
}

/// Who is watched: a node in a subtask.
struct Series {
    labels: [String; 3],
    counters: Arc<Counters>,
    /// Grow only: what was published, and of what.
    counted: Vec<(metrics::Counter, u64, fn(&Counters) -> u64)>,
    /// May go down; none, and not there, as long as there is nothing to tell.
    shown: Vec<(&'static Metric, Option<Gauge>, fn(&Counters) -> Option<f64>)>,
}

impl Series {
    fn new(labels: [String; 3], counters: Arc<Counters>) -> Self {
        Self { labels, counters, counted: Vec::new(), shown: Vec::new() }
    }

    fn count(&mut self, metric: &Metric, of: fn(&Counters) -> u64) {
        self.counted.push((metric.counter(&self.labels.each_ref().map(String::as_str)), 0, of));
    }

    fn show(&mut self, metric: &'static Metric, of: fn(&Counters) -> Option<f64>) {
        self.shown.push((metric, None, of));
    }

    fn publish(&mut self) {
        for (counter, last, of) in &mut self.counted {
            let now = of(&self.counters).max(*last);
            counter.increment(now - std::mem::replace(last, now));
        }
        for (metric, gauge, of) in &mut self.shown {
            if let Some(value) = of(&self.counters) {
                let make = || metric.gauge(&self.labels.each_ref().map(String::as_str));
                gauge.get_or_insert_with(make).set(value);
            }
        }
    }
}

/// A subtask's time, and what came to it, at the head of its task.
struct Share {
    counters: Arc<Counters>,
    worker: usize,
    busy: Gauge,
    backpressure: Gauge,
    batch: Gauge,
    /// As published last: busy, blocked, batches, records in them.
    last: [u64; 4],
}

impl Share {
    /// Publishes the shares of what was between; gives the busy time.
    fn publish(&mut self, between: Duration) -> Duration {
        let c = &self.counters;
        let now = [&c.busy_ns, &c.blocked_ns, &c.batches, &c.batched].map(|c: &AtomicU64| c.load(Relaxed));
        let [busy, blocked, batches, records] = std::array::from_fn(|i| now[i].saturating_sub(self.last[i]));
        self.last = now;
        let (busy, blocked) = (Duration::from_nanos(busy), Duration::from_nanos(blocked));
        self.busy.set(share(busy, between));
        self.backpressure.set(share(blocked, between));
        if batches > 0 {
            self.batch.set(records as f64 / batches as f64);
        }
        busy
    }
}

/// A part of a time. What ends within it may have begun before, so it is cut.
fn share(part: Duration, whole: Duration) -> f64 {
    (part.as_secs_f64() / whole.as_secs_f64().max(1e-9)).min(1.0)
}

/// Publishes the figures of an attempt.
pub(crate) struct Meters {
    job: String,
    series: Vec<Series>,
    shares: Vec<Share>,
    workers: Vec<Gauge>,
    published: Instant,
    /// When the step of the checkpoint under way began.
    step: Instant,
}

impl Meters {
    pub(crate) fn new(plan: &Plan, common: &Common, workers: usize) -> Self {
        describe();
        let job = common.job.to_string();
        RESTARTS.counter(&[&job]).increment(0);
        let (mut series, mut shares) = (Vec::new(), Vec::new());
        for (i, node) in plan.graph.nodes.iter().enumerate() {
            for (subtask, counters) in common.counters[i].iter().enumerate() {
                let labels = [job.clone(), node.label(), subtask.to_string()];
                if plan.tasks.iter().any(|task| task.head == i) {
                    let labels = labels.each_ref().map(String::as_str);
                    let [busy, backpressure, batch] = [BUSY, BACKPRESSURE, BATCH].map(|metric| metric.gauge(&labels));
                    let (counters, worker) = (counters.clone(), subtask % workers);
                    shares.push(Share { counters, worker, busy, backpressure, batch, last: [0; 4] });
                }
                if node.name.is_some() {
                    let mut one = Series::new(labels, counters.clone());
                    one.named(&node.kind);
                    series.push(one);
                }
            }
        }
        let used = 0..shares.iter().map(|share| share.worker + 1).max().unwrap_or(0);
        let workers = used.map(|worker| WORKER_BUSY.gauge(&[&job, &worker.to_string()])).collect();
        Self { job, series, shares, workers, published: clock::now(), step: clock::now() }
    }

    /// All that subtasks count.
    pub(crate) fn publish(&mut self) {
        let between = clock::since(self.published);
        self.published = clock::now();
        self.series.iter_mut().for_each(Series::publish);
        let mut busy = vec![Duration::ZERO; self.workers.len()];
        self.shares.iter_mut().for_each(|share| busy[share.worker] += share.publish(between));
        self.workers.iter().zip(busy).for_each(|(worker, busy)| worker.set(share(busy, between)));
    }

    /// When that is due again.
    pub(crate) fn due(&self) -> Instant {
        self.published + EVERY
    }

    /// A step of a checkpoint ends, and the next one begins. How long it took.
    fn next_step(&mut self, metric: &Metric) -> Duration {
        let took = clock::since(self.step);
        metric.record(&[&self.job], took);
        self.step = clock::now();
        took
    }

    /// The barrier is sent.
    pub(crate) fn barrier(&mut self) {
        self.step = clock::now();
    }

    /// All parts are durable.
    pub(crate) fn durable(&mut self) {
        self.next_step(&DURABLE);
    }

    /// The manifest is.
    pub(crate) fn written(&mut self, manifest: &Manifest) {
        SIZE.gauge(&[&self.job]).set(manifest.files().map(|file| file.bytes as f64).sum::<f64>());
        for snapshot in &manifest.states {
            let new = snapshot.deltas.iter().filter(|delta| delta.epoch == manifest.epoch);
            DELTAS.counter(&[&self.job, &snapshot.operator]).increment(new.map(|delta| delta.file.bytes).sum());
        }
    }

    /// The checkpoint is decided. How long that took once all parts were durable.
    pub(crate) fn decided(&mut self, taken: &CheckpointStatus) -> Duration {
        let decision = self.next_step(&DECISION);
        TOOK.record(&[&self.job], taken.took);
        ALIGNMENT.record(&[&self.job], taken.alignment);
        FREEZE.record(&[&self.job], taken.pause);
        CHECKPOINTS.counter(&[&self.job]).increment(1);
        EPOCH.gauge(&[&self.job]).set(taken.epoch as f64);
        self.publish();
        decision
    }

    /// All its output is visible.
    pub(crate) fn committed(&mut self) {
        self.next_step(&COMMIT);
    }
}

impl Series {
    /// All that is published of a named node of this kind, but for its task's.
    fn named(&mut self, kind: &Node) {
        self.count(&RECORDS_IN, |c| c.records_in.load(Relaxed));
        self.count(&RECORDS_OUT, |c| c.records_out.load(Relaxed));
        self.show(&WATERMARK, |c| c.watermark.get().map(|mark| mark.as_millis() as f64 / 1e3));
        match kind {
            Node::Source(_) => self.count(&BYTES_IN, |c| c.traffic.bytes()),
            Node::Sink(_) => self.count(&BYTES_OUT, |c| c.traffic.bytes()),
            Node::Process(_) => {
                self.count(&HITS, |c| c.hits.load(Relaxed));
                self.count(&MISSES, |c| c.misses.load(Relaxed));
                self.count(&BLOCKING, |c| c.blocking_misses.load(Relaxed));
                self.count(&EVICTIONS, |c| c.evicted.load(Relaxed));
                self.count(&SPILLED, |c| c.spilled.load(Relaxed));
                self.show(&ROWS, |c| Some(c.rows.load(Relaxed) as f64));
                self.show(&HOTTEST, |c| hottest(c).map(|(group, _)| group));
                self.show(&HOTTEST_SHARE, |c| hottest(c).map(|(_, share)| share));
            }
            _ => {}
        }
    }
}

/// The key group with the largest share of the last epoch that had enough records, and that share.
fn hottest(counters: &Counters) -> Option<(f64, f64)> {
    let share = counters.hottest_share.load(Relaxed);
    (share > 0).then(|| (counters.hottest_group.load(Relaxed) as f64, share as f64 / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// `docs/metrics.md`.
    fn document() -> String {
        let head = [
            "# Metrics\n",
            "What a job publishes through the crate [`metrics`](https://docs.rs/metrics) to whatever recorder the program",
            "installs before it starts the job: about once per second, and at each checkpoint. Counters only grow, also when",
            "an attempt fails and another one follows. `JobHandle::status` has the most important figures without a recorder.\n",
            "A test of `framework/src/runtime/metrics.rs` writes this file when it is run with `MILLSTREAM_OVERWRITE=1`.\n",
            "| name | kind | unit | labels | what |\n|---|---|---|---|---|\n",
        ];
        let mut text = head.join("\n");
        for Metric { name, kind, unit, labels, help } in ALL {
            let kind = format!("{kind:?}").to_lowercase();
            text.push_str(&format!("| `{name}` | {kind} | {unit} | {} | {help} |\n", labels.join(", ")));
        }
        text
    }

    #[test]
    fn the_document_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("MILLSTREAM_OVERWRITE").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == document(), "docs/metrics.md is stale: MILLSTREAM_OVERWRITE=1 cargo test metrics");
    }

    #[test]
    fn names_are_as_monitoring_systems_want_them() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name stands twice");
        for Metric { name, kind, help, .. } in ALL {
            assert!(name.starts_with("millstream_") && name.ends_with("_total") == (*kind == Kind::Counter), "{name}");
            assert!(help.ends_with('.') && !help.contains('|'), "{name}");
        }
    }

    #[test]
    fn what_a_new_attempt_counts_anew_is_added() {
        let recorder = metrics_util::debugging::DebuggingRecorder::new();
        let counts = || {
            let counters = Arc::new(Counters::default());
            let mut series = Series::new(["job", "op", "0"].map(String::from), counters.clone());
            series.count(&RECORDS_IN, |c| c.records_in.load(Relaxed));
            for n in [5, 0, 7] {
                Counters::add(&counters.records_in, n);
                series.publish();
            }
        };
        metrics::with_local_recorder(&recorder, || {
            counts();
            counts();
        });
        let seen = recorder.snapshotter().snapshot().into_vec();
        assert!(matches!(seen[..], [(_, _, _, metrics_util::debugging::DebugValue::Counter(24))]), "{seen:?}");
    }
}
