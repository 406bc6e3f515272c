//! State ten times as large as the memory a job is given: how much memory its process needs at most, start to end.

use crate::common::{MIB, Process as Child, Scratch, is_soak, mix, myself, peak};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a process may need beside what it was given.
const BESIDE: u64 = 256 * MIB;
const SPLITS: u64 = 2;

#[derive(Serialize, Deserialize)]
struct Spec {
    root: PathBuf,
    memory: u64,
    /// Rows of state, each of `bytes` in its value.
    rows: u64,
    bytes: usize,
}

/// Puts a value for each key, and at the second time looks whether it is still there.
struct Keep {
    bytes: usize,
    noise: String,
}

#[derive(State)]
struct Kept {
    text: ValueState<String>,
}

impl Process for Keep {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = Kept;
    fn on_record(&self, key: u64, kept: &mut Kept, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        match kept.text.get() {
            None => kept.text.set(self.text(key)),
            Some(kept) if *kept == self.text(key) => cx.emit(key),
            Some(kept) => return Err(format!("key {key} has `{kept}`").into()),
        }
        Ok(())
    }
}

impl Keep {
    fn new(bytes: usize) -> Self {
        let random = (0..1 << 16).map(|at| char::from(b'!' + (mix(at) & 63) as u8));
        Self { bytes, noise: random.collect() }
    }

    /// Text of its own for each key, which does not compress well.
    fn text(&self, key: u64) -> String {
        let mut text = format!("{key:020}");
        let rest = self.bytes - text.len();
        let at = mix(key) as usize % (self.noise.len() - rest);
        text.push_str(&self.noise[at..at + rest]);
        text
    }
}

/// Every key once, then every fourth one in another order.
fn job(spec: &Spec) -> (Job, Null) {
    let (rows, bytes, null) = (spec.rows / SPLITS, spec.bytes, Null::new());
    let out = null.clone();
    let topology = move |t: &Topology| {
        let make = move |split, n| {
            let n = if n < rows { n } else { (n - rows) * 7919 % (rows / 4) * 4 };
            n * SPLITS + split
        };
        let keys = t.source("keys", Generator::new(make).splits(SPLITS).count(rows + rows / 4));
        keys.key_by(|key| key).process("keep", Keep::new(bytes)).sink("again", out.clone());
        Ok(())
    };
    let job = Job::new("memory", topology).data_dir(spec.root.join("data")).memory(spec.memory);
    (job.workers(2).checkpoint_interval(Duration::from_millis(500)).restart(RestartPolicy::never()), null)
}

/// Not a test: the process whose memory is measured.
#[test]
#[ignore = "started by another test"]
fn process() {
    let Ok(spec) = std::env::var("MILLSTREAM_TEST_MEMORY") else { return };
    let spec: Spec = serde_json::from_str(&spec).unwrap();
    let (job, null) = job(&spec);
    job.run().unwrap();
    println!("again {}", null.records());
    println!("peak {}", peak(std::process::id()));
}

/// The number after `word`.
fn number(printed: &str, word: &str) -> u64 {
    let rest = printed.split(word).nth(1).unwrap_or_else(|| panic!("no `{word}` in {printed}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn soak_state_of_ten_times_the_memory() {
    let (memory, bytes) = if is_soak() { (64 * MIB, 100) } else { (32 * MIB, 200) };
    let scratch = Scratch::new();
    let rows = 10 * memory / (bytes as u64 + 8) / (4 * SPLITS) * (4 * SPLITS) + 4 * SPLITS;
    let spec = Spec { root: scratch.path().to_owned(), memory, rows, bytes };
    assert!(rows * (bytes as u64 + 8) >= 10 * memory);
    let mut command = myself("memory::process");
    command.env("MILLSTREAM_TEST_MEMORY", serde_json::to_string(&spec).unwrap());
    let mut process = Child::start(&mut command, &scratch.join("log"));
    assert_eq!(process.wait().unwrap(), 0, "{}", process.tail());
    let printed = process.printed();
    assert_eq!(number(&printed, "again "), rows / 4, "all keys that come twice were found again");
    let peak = number(&printed, "peak ");
    println!("{rows} rows, peak {} MiB of {} + {}", peak / MIB, memory / MIB, BESIDE / MIB);
    assert!(peak <= memory + BESIDE, "{} MiB at peak with {} MiB given", peak / MIB, memory / MIB);
}
