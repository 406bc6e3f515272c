//! How long a job that was killed takes until it reads again: a process of this binary, killed and started anew.

use super::broker::{Broker, PATIENCE, Writer, put};
use super::{PARTITIONS, number, value};
use crate::r#gen::{dense, mix};
use crate::watch;
use millstream::clock;
use millstream::prelude::*;
use rdkafka::producer::{BaseRecord, Producer as _};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What is kept of each key.
pub(super) const ROW_BYTES: usize = 1000;

/// Records a second, once the state is there.
const RATE: u64 = 1000;

/// The argument that makes a process of this binary the job.
const CHILD: &str = "kafka_restart_child";

/// A start after a kill.
#[derive(Debug)]
pub(super) struct Start {
    /// Until the first record was read.
    pub(super) first_ms: f64,
    /// What of it was spent in `init_transactions`.
    pub(super) init_ms: f64,
}

/// A job that keeps `ROW_BYTES` for each of `n` keys is killed so often, and started again.
pub(super) fn starts(broker: &Broker, n: u64, times: usize) -> Vec<Start> {
    let (input, output) = (broker.topic("rows"), broker.topic("results"));
    broker.fill(&input, (0..n).map(|i| value(i, i)));
    let directory = tempfile::tempdir().expect("a directory");
    let command = || {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args([CHILD, &broker.address, &input, &output, &n.to_string()]).arg(directory.path());
        command.stdout(Stdio::piped());
        command
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| trickle(broker, &input, n, &over));
        drop(Running::start(&mut command(), "full"));
        let starts = (0..times).map(|_| {
            let running = Running::start(&mut command(), "settled");
            Start { first_ms: running.first_ms, init_ms: running.init_ms }
        });
        let starts = starts.collect();
        over.store(true, Relaxed);
        starts
    })
}

/// Records go on coming.
fn trickle(broker: &Broker, topic: &str, n: u64, over: &AtomicBool) {
    let producer: Writer = broker.client().set("linger.ms", "0").create().expect("a producer");
    let mut i = 0;
    while !over.load(Relaxed) {
        let value = value(dense(i, n), i);
        put(&producer, || BaseRecord::to(topic).partition(i as i32 % PARTITIONS).payload(&value[..]));
        std::thread::sleep(Duration::from_micros(1_000_000 / RATE));
        i += 1;
    }
    producer.flush(PATIENCE).expect("all is written");
}

/// A process of the job, killed at the latest when this goes.
struct Running {
    child: Child,
    first_ms: f64,
    init_ms: f64,
    /// Open, so that it can go on talking.
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Running {
    /// Waits until it says that it is so far.
    fn start(command: &mut Command, so_far: &str) -> Self {
        let since = clock::now();
        let child = command.spawn().expect("this binary starts");
        let mut running = Self { child, first_ms: 0.0, init_ms: 0.0, lines: None };
        let mut lines = BufReader::new(running.child.stdout.take().expect("a pipe")).lines();
        loop {
            let line = lines.next().expect("the job goes on").expect("a line");
            if let Some(ms) = line.strip_prefix("init_ms ") {
                running.init_ms = ms.parse().expect("a number");
            } else if line == "first" {
                running.first_ms = since.elapsed().as_secs_f64() * 1e3;
            } else if line == so_far {
                running.lines = Some(lines);
                return running;
            }
        }
    }
}

impl Drop for Running {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The job, if the arguments of this process ask for it. It runs until it is killed.
pub(crate) fn child(arguments: &[String]) -> bool {
    let [name, address, input, output, n, directory] = arguments else { return false };
    if name != CHILD {
        return false;
    }
    run(address, [input, output], n.parse().expect("a number"), Path::new(directory));
    true
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn run(address: &str, [input, output]: [&str; 2], n: u64, directory: &Path) {
    let kafka = Kafka::new(address);
    let seen = Arc::new(AtomicU64::new(0));
    let (input, to, counted) = (input.to_owned(), output.to_owned(), seen.clone());
    let job = Job::new(output, move |t: &Topology| {
        let counted = counted.clone();
        let records = kafka.read(&*input).decode(move |record| {
            if counted.fetch_add(1, Relaxed) == 0 {
                say("first");
            }
            number::<0>(record)
        });
        t.source("records", records)
            .key_by(|key| key)
            .map_with_state("rows", |row: &mut Vec<u8>, key: u64| {
                // bytes that no compression makes less
                row.clear();
                row.extend((0..ROW_BYTES as u64 / 8).flat_map(|i| mix(key ^ i << 32).to_le_bytes()));
                key
            })
            .map(|key| KafkaMessage::bytes(key.to_le_bytes()))
            .sink("results", kafka.write(&*to));
        Ok(())
    });
    let job = job.data_dir(directory).workers(2).parallelism(2).memory(2 << 30);
    let job = job.checkpoint_interval(Duration::from_secs(1)).restart(RestartPolicy::never());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| job.run());
        // a while with the whole state, as it is in the middle of a life
        let (mut full_at, mut settled): (Option<Instant>, bool) = (None, false);
        let mut decided = 0;
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            decided += watch::take().len();
            if let Some(init_ms) = watch::take_init() {
                say(&format!("init_ms {init_ms}"));
            }
            if decided >= 3 && seen.load(Relaxed) > 0 && !std::mem::replace(&mut settled, decided >= 3) {
                say("settled");
            }
            if seen.load(Relaxed) >= n {
                let at = *full_at.get_or_insert_with(clock::now);
                if at.elapsed() > Duration::from_secs(8) {
                    say("full");
                }
            }
        }
        running.join().expect("no panic").expect("the job runs");
    });
}
