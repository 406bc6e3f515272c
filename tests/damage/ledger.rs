//! A job with all there is in checkpoints: splits, a row with a value, a map, a list and a timer per key, items of an
//! operator without keys, and files as output. Its oracle is plain loops over plain collections.

use crate::common::Output as Visible;
use millstream::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) const SPLITS: u64 = 3;
/// Of each split.
const KEYS: u64 = 20;
const CHUNK: usize = 7;
/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(State)]
struct Row {
    count: ValueState<u64>,
    marks: MapState<u64, u64>,
    trail: ListState<u64>,
    /// Set again and again, and never due.
    timer: ProcessingTimer,
}

struct Keep;

impl Process for Keep {
    type Key = u64;
    type In = (u64, u64);
    type Out = String;
    type State = Row;
    fn on_record(
        &self,
        (split, n): (u64, u64),
        row: &mut Row,
        cx: &mut Context<'_, u64, String>,
    ) -> Result<(), BoxError> {
        *row.count.or_default() += 1;
        row.marks.insert(n % 9, n);
        if n.is_multiple_of(3) {
            row.marks.remove(&(n / KEYS % 9));
        }
        row.trail.push(n);
        if row.trail.len() > 5 {
            row.trail.pop_front();
        }
        let was_set = row.timer.at().is_some();
        row.timer.set(cx.now() + Duration::from_hours(1000));
        let (count, marks) = (row.count.get().copied().unwrap_or(0), row.marks.iter().collect());
        cx.emit(line((split, n), count, &marks, row.trail.iter(), was_set));
        Ok(())
    }
}

fn line(
    (split, n): (u64, u64),
    count: u64,
    marks: &BTreeMap<u64, u64>,
    trail: impl Iterator<Item = u64>,
    was_set: bool,
) -> String {
    format!("{split} {n} {count} {marks:?} {:?} {was_set}", Vec::from_iter(trail))
}

/// What is right, in no matter which order.
fn oracle(count: u64) -> Vec<String> {
    let mut lines = Vec::new();
    for split in 0..SPLITS {
        let mut rows: BTreeMap<u64, (BTreeMap<u64, u64>, Vec<u64>)> = BTreeMap::new();
        for n in 0..count {
            let (marks, all) = rows.entry(n % KEYS).or_default();
            marks.insert(n % 9, n);
            if n % 3 == 0 {
                marks.remove(&(n / KEYS % 9));
            }
            all.push(n);
            let trail = all.iter().skip(all.len().saturating_sub(5)).copied();
            lines.push(line((split, n), all.len() as u64, marks, trail, all.len() > 1));
        }
    }
    lines.sort();
    lines
}

/// Hands on its items by sevens, and the rest at the end.
struct Chunks;

impl Operator for Chunks {
    type In = String;
    type Out = String;
    type Item = String;
    async fn on_batch(
        &mut self,
        batch: Batch<String>,
        items: &mut Vec<String>,
        out: &mut Output<String>,
    ) -> Result<(), BoxError> {
        items.extend(batch.values);
        while items.len() >= CHUNK {
            out.emit(Record::untimed(items.drain(..CHUNK).collect::<Vec<_>>().join("|")));
        }
        Ok(())
    }
    async fn on_end(&mut self, items: &mut Vec<String>, out: &mut Output<String>) -> Result<(), BoxError> {
        items.drain(..).for_each(|item| out.emit(Record::untimed(item)));
        Ok(())
    }
}

/// The job at a place of its own.
pub(super) struct Ledger {
    root: PathBuf,
    name: &'static str,
}

impl Ledger {
    /// With `data` and `out` below `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), name: "ledger" }
    }

    /// The same under another name.
    pub(super) fn named(root: &Path, name: &'static str) -> Self {
        Self { name, ..Self::new(root) }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.root.join("out")
    }

    /// With so many records of each split.
    pub(super) fn job(&self, count: u64, rate: Option<u64>) -> Job {
        let output = self.output();
        let topology = move |t: &Topology| {
            t.source("numbers", Generator::new(|split, n| (split, n)).splits(SPLITS).count(count).rate(rate))
                .key_by_value(|(split, n)| n % KEYS * SPLITS + split)
                .process("keep", Keep)
                .operator("chunks", || Chunks)
                .sink("lines", Files::write(&output).text());
            Ok(())
        };
        Job::new(self.name, topology)
            .data_dir(self.data())
            .parallelism(2)
            .workers(2)
            .memory(64 << 20)
            .checkpoint_interval(Duration::from_hours(1))
            .restart(RestartPolicy::never())
    }

    /// Makes a directory as a crash leaves it: three checkpoints, all of them finished, the newest with a base (since
    /// the parallelism has changed), deltas and items. Gives how many records of a split were read at most.
    pub(super) fn prepare(&self) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (parallelism, checkpoints) in [(3, 2), (2, 4)] {
            let job = self.job(u64::MAX, Some(2000)).parallelism(parallelism);
            runtime.block_on(async {
                let handle = job.start().await.unwrap();
                for done in 1.. {
                    let before = handle.status().records_in;
                    while handle.status().records_in < before + 30 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    handle.checkpoint().await.unwrap();
                    if done >= checkpoints && self.newest()["items"].is_array() {
                        break;
                    }
                }
                handle.abort();
                handle.wait().await.unwrap_err();
            });
        }
        let newest = self.newest();
        let splits = newest["sources"][0]["splits"].as_array().unwrap().iter();
        splits.map(|split| split["offset"].as_u64().unwrap()).max().unwrap()
    }

    /// The file of the newest manifest.
    pub(super) fn newest_manifest(&self) -> PathBuf {
        let directory = self.data().join("checkpoints");
        let all = crate::common::names(&directory);
        let manifests = all.iter().filter(|name| name.starts_with("manifest-"));
        let epoch = |name: &&String| name.split('-').nth(1).unwrap().parse::<u64>().unwrap();
        directory.join(manifests.max_by_key(epoch).unwrap())
    }

    /// What stands in it.
    pub(super) fn newest(&self) -> Value {
        let text = std::fs::read_to_string(self.newest_manifest()).unwrap();
        serde_json::from_str(text.split_once('\n').unwrap().1).unwrap()
    }

    /// Takes back what came after the decision of the newest checkpoint, as if the process had died at that instant.
    pub(super) fn unshow(&self) {
        let newest = self.newest();
        std::fs::remove_file(self.data().join(format!("checkpoints/decided-{}", newest["epoch"]))).unwrap();
        for sink in newest["sinks"].as_array().unwrap() {
            let name = |what: &str| self.output().join(sink["committable"][what].as_str().unwrap());
            std::fs::rename(name("visible"), name("pending")).unwrap();
        }
    }

    /// Whether what shows is right as far as it goes; if `whole`, all of it.
    pub(super) fn check(&self, count: u64, whole: bool) -> Result<(), String> {
        let output = Visible::of(&self.output());
        let mut found: Vec<&str> = output.lines("lines").into_iter().flat_map(|line| line.split('|')).collect();
        found.sort();
        let expect = oracle(count);
        let mut open = expect.iter().map(String::as_str);
        for line in &found {
            if !open.by_ref().any(|next| next == *line) {
                return Err(format!("`{line}` is wrong, or there twice"));
            }
        }
        match expect.len() - found.len() {
            missing @ 1.. if whole => Err(format!("{missing} of {} lines are missing", expect.len())),
            _ => Ok(()),
        }
    }
}

/// Runs a job to its end, and no longer than anything may take.
pub(super) fn run(job: Job) -> Result<(), millstream::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let handle = job.start().await?;
        tokio::time::timeout(PATIENCE, handle.wait()).await.expect("the job hangs")
    })
}
