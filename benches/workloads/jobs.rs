//! The workloads as jobs, built and run as a user would.

use crate::r#gen::{rec, w1_map};
use crate::measure::{Figure, Watch};
use crate::meter::{Last, Meter, Stop};
use crate::watch::{self, Taken};
use millstream::framework::{Data, Key};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// A checkpoint interval that never comes.
pub(crate) const NEVER: Duration = Duration::from_hours(1);

/// A job with a directory of its own, which goes with the second value.
pub(crate) fn job(
    name: &str,
    workers: usize,
    topology: impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static,
) -> (Job, TempDir) {
    let directory = tempfile::tempdir().expect("a directory for the job");
    let job = Job::new(name, topology).data_dir(directory.path()).workers(workers).parallelism(workers);
    (job.checkpoint_interval(NEVER).memory(2 << 30).restart(RestartPolicy::never()), directory)
}

/// Runs a job to its end; the time is from the first record that reaches the sink to the last.
pub(crate) fn whole(job: Job, meter: &Meter, records: u64) -> Figure {
    let watch = Watch::start();
    job.run().expect("the job runs");
    let (_, cpu_seconds) = watch.read();
    Figure { records, seconds: meter.seconds(), cpu_seconds, output: meter.output() }
}

/// W1: source, map, filter and sink fused in each subtask.
pub(crate) fn w1_fused(n: u64, workers: usize) -> Figure {
    let meter = Meter::default();
    let sink = meter.clone();
    let step = workers as u64;
    let (job, _directory) = job("w1_fused", workers, move |t| {
        let numbers = Generator::new(move |split, offset| rec(offset * step + split)).splits(step).count(n / step);
        t.source("numbers", numbers).map(w1_map).filter(|r| r.v & 1 == 0).sink("meter", sink.clone());
        Ok(())
    });
    whole(job, &meter, n)
}

/// W1 in event time: times are set behind the source, and watermarks made of them.
pub(crate) fn w1_event_time(n: u64, workers: usize) -> Figure {
    let meter = Meter::default();
    let sink = meter.clone();
    let step = workers as u64;
    let (job, _directory) = job("w1_event_time", workers, move |t| {
        let numbers = Generator::new(move |split, offset| rec(offset * step + split)).splits(step).count(n / step);
        let bound = Watermarks::bounded(Duration::from_secs(1));
        let timed = t.source("numbers", numbers).event_time(|r| Timestamp::from_millis(r.id as i64), bound);
        timed.map(w1_map).filter(|r| r.v & 1 == 0).sink("meter", sink.clone());
        Ok(())
    });
    whole(job, &meter, n)
}

/// W1 with a boundary between the source, on the second worker, and the rest, on the first.
pub(crate) fn w1_boundary(n: u64) -> Figure {
    let meter = Meter::default();
    let sink = meter.clone();
    let (job, _directory) = job("w1_boundary", 2, move |t| {
        let numbers = Last(Generator::new(|_, offset| rec(offset)).splits(2).count(n));
        let moved = t.source("numbers", numbers).rebalance().parallelism(1);
        moved.map(w1_map).filter(|r| r.v & 1 == 0).sink("meter", sink.clone());
        Ok(())
    });
    whole(job, &meter, n)
}

/// W2: the running count of each key.
fn count_by<K: Key + Data>(
    name: &str,
    sink: &Meter,
    stop: &Stop,
    workers: usize,
    count: Option<u64>,
    make: impl Fn(u64) -> K + Clone + Send + Sync + 'static,
) -> (Job, TempDir) {
    let (sink, stop, step) = (sink.clone(), stop.clone(), workers as u64);
    job(name, workers, move |t| {
        let make = make.clone();
        let keys = Generator::new(move |split, offset| make(offset * step + split)).splits(step);
        let keys = match count {
            Some(n) => keys.count(n / step),
            None => keys,
        };
        t.source("keys", stop.ends(keys))
            .key_by(|key| key)
            .map_with_state("count", |count: &mut u64, _| {
                *count += 1;
                *count
            })
            .sink("meter", sink.clone());
        Ok(())
    })
}

/// W2 in memory, from an empty table.
pub(crate) fn w2<K: Key + Data>(
    n: u64,
    workers: usize,
    make: impl Fn(u64) -> K + Clone + Send + Sync + 'static,
) -> Figure {
    let meter = Meter::default();
    let (job, _directory) = count_by("w2", &meter, &Stop::default(), workers, Some(n), make);
    whole(job, &meter, n)
}

/// What W2 gave while it ran on.
#[derive(Debug)]
pub(crate) struct Sustained {
    pub(crate) figure: Figure,
    pub(crate) checkpoints: Vec<Taken>,
}

/// How W2 is run on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) keys: u64,
    pub(crate) interval: Duration,
    /// Before anything counts: the table is filled, and rates have settled.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) memory: u64,
}

/// W2 with a full table: records per second between two instants, and the checkpoints in between.
pub(crate) fn w2_sustained(pace: Pace) -> Sustained {
    let keys = pace.keys;
    let (meter, stop) = (Meter::default(), Stop::default());
    // each key once, then uniformly
    let make = move |i| if i < keys { i } else { crate::r#gen::dense(i, keys) };
    let (job, _directory) = count_by("w2", &meter, &stop, 2, None, make);
    sustained(job, &meter, &stop, pace)
}

/// Runs a job over a source without an end, measures it after a while, and stops it.
fn sustained(job: Job, meter: &Meter, stop: &Stop, pace: Pace) -> Sustained {
    let Pace { keys, interval, warm_up, measured, memory } = pace;
    let job = job.checkpoint_interval(interval).memory(memory);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| job.run());
        while meter.output().0 < keys && !running.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(warm_up);
        watch::take();
        let (watch, before) = (Watch::start(), meter.output().0);
        std::thread::sleep(measured);
        let ((seconds, cpu_seconds), after) = (watch.read(), meter.output().0);
        let checkpoints = watch::take();
        stop.stop();
        running.join().expect("no panic").expect("the job runs");
        let figure = Figure { records: after - before, seconds, cpu_seconds, output: (0, 0) };
        Sustained { figure, checkpoints }
    })
}

/// A record of a key at an instant.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Click {
    key: u64,
    at_ms: i64,
}

/// Two values and a timer, which each record moves.
#[derive(State)]
struct Session {
    clicks: ValueState<u64>,
    last: ValueState<i64>,
    over: EventTimer,
}

struct Sessions {
    silence: Duration,
}

impl Process for Sessions {
    type Key = u64;
    type In = Click;
    type Out = u64;
    type State = Session;
    fn on_record(&self, click: Click, session: &mut Session, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        let clicks = session.clicks.or_default();
        *clicks += 1;
        cx.emit(*clicks);
        session.last.set(click.at_ms);
        session.over.set(cx.time() + self.silence);
        Ok(())
    }
    fn on_timer(&self, session: &mut Session, _: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        session.clicks.take();
        session.last.take();
        Ok(())
    }
}

/// Sessions that are over after so much silence. A key comes once in a second of event time on average.
pub(crate) fn sessions_sustained(pace: Pace, silence: Duration) -> Sustained {
    let (meter, stop) = (Meter::default(), Stop::default());
    let (sink, ends, keys) = (meter.clone(), stop.clone(), pace.keys);
    let (job, _directory) = job("sessions", 2, move |t| {
        let clicks = Generator::new(move |split, offset| {
            let i = offset * 2 + split;
            Click { key: crate::r#gen::dense(i, keys), at_ms: (i * 1000 / keys) as i64 }
        });
        t.source("clicks", ends.ends(clicks.splits(2)))
            .event_time(|click| Timestamp::from_millis(click.at_ms), Watermarks::bounded(Duration::from_millis(100)))
            .key_by(|click| &click.key)
            .process("sessions", Sessions { silence })
            .sink("meter", sink.clone());
        Ok(())
    });
    sustained(job, &meter, &stop, pace)
}
