//! Kills a pipeline again and again, and looks at what it leaves. What the pipeline does, and what it ought to have
//! written, is the subject's.
//!
//! 1. A life: the process is started, every other time at another parallelism, and killed at an instant drawn from the
//!    seed: within milliseconds of its start, when its working directory appears (it recovers), while records flow,
//!    when a pending part file, a manifest, a marker or a visible part file appears (within 5 ms). If it ends by itself
//!    before that, it gets more input.
//! 2. After the last kill it is left to finish, and again, with nothing new to read: that must change nothing, but for
//!    what timers by the clock still have to say.
//! 3. A probe: new input that touches every key once, read by a fresh process, so that all restored state shows.
//!
//! Meanwhile an [`Observer`] watches the output, and after it all is compared with the subject's oracle.
//!
//! A pipeline of these tests is a process of this binary that is told its [`Life`]; what all of them have in common,
//! their settings and the source of most, is [`Told`].

use super::progress::{self, Progress, Read};
use crate::common::{Observer, Output, Process, Random, Scratch, myself, names, visible};
use millstream::prelude::*;
use millstream::sinks::files::WriteFiles;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A pipeline, its input, and what is right.
pub(super) trait Subject {
    /// Starts a life.
    fn command(&self, life: &Life) -> Command;
    /// The pipeline has read everything and there are kills left: more of the same.
    fn more_input(&mut self);
    /// Input that touches every key once.
    fn probe(&mut self);
    /// Compares all output with the oracle, whatever was added included.
    fn check(&self, output: &Output) -> Result<(), String>;
    /// Whether SIGTERM ends it in good order.
    fn has_signals(&self) -> bool {
        false
    }
    /// Whether it may have more to say when it is run again with nothing to read.
    fn has_clock(&self) -> bool {
        false
    }
    /// How many records its input has by now.
    fn input(&self) -> u64;
}

/// How a pipeline is to run this time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Life {
    places: Places,
    number: usize,
    /// Subtasks of each operator that does not say itself.
    pub(super) parallelism: usize,
    /// Slow enough that kills land while it works.
    pub(super) paced: bool,
}

/// What a process of this binary runs, and how.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) pipeline: String,
    life: Life,
    input: Value,
}

const TOLD: &str = "MILLSTREAM_TEST_PIPELINE";

impl Life {
    /// As fast as it goes.
    pub(super) fn new(places: &Places, number: usize, parallelism: usize) -> Self {
        Self { places: places.clone(), number, parallelism, paced: false }
    }

    /// A process that runs a pipeline, which finds its name in `pipeline_process`.
    pub(super) fn process(&self, pipeline: &str, input: impl Serialize) -> Command {
        let input = serde_json::to_value(input).unwrap();
        let told = Told { pipeline: pipeline.into(), life: self.clone(), input };
        let mut command = myself("crash::pipeline_process");
        command.env(TOLD, serde_json::to_string(&told).unwrap());
        command
    }
}

impl Told {
    /// If this process was started by [`Life::process`].
    pub(super) fn here() -> Option<Self> {
        Some(serde_json::from_str(&std::env::var(TOLD).ok()?).unwrap())
    }

    pub(super) fn input<I: DeserializeOwned>(&self) -> I {
        serde_json::from_value(self.input.clone()).unwrap()
    }

    /// The pipeline with its settings, of which those of a cache are its own.
    pub(super) fn job(self, build: impl Fn(&Topology, &Running) + Send + Sync + 'static) -> Job {
        let Self { pipeline, life: Life { places, number, parallelism, paced }, .. } = self;
        let (data, progress) = (places.data(), Arc::new(Progress::new(&places.progress(), number)));
        let running = Running { places, number, parallelism, paced, progress };
        let topology = move |t: &Topology| {
            build(t, &running);
            Ok(())
        };
        Job::new(format!("crash_{pipeline}"), topology)
            .data_dir(data)
            .checkpoint_interval(Duration::from_millis(70))
            .parallelism(parallelism)
            .workers(2)
            .restart(RestartPolicy::never())
    }
}

/// A life from within.
pub(super) struct Running {
    pub(super) places: Places,
    /// Which life it is.
    pub(super) number: usize,
    pub(super) parallelism: usize,
    paced: bool,
    pub(super) progress: Arc<Progress>,
}

impl Running {
    /// So many records a second, if it is paced.
    pub(super) fn rate(&self, per_second: u64) -> Option<u64> {
        self.paced.then_some(per_second)
    }

    /// A source of what `make` makes of each split, offset and the offset from which on it is asked.
    pub(super) fn source<T: Send + 'static>(
        &self,
        t: &Topology,
        made: Made,
        per_second: u64,
        make: fn(u64, u64, u64) -> T,
    ) -> Stream<T> {
        let progress = self.progress.clone();
        let make = move |split, offset| {
            progress.read(split, offset);
            make(split, offset, made.probe_from)
        };
        let generator = Generator::new(make).splits(SPLITS).count(made.count);
        t.source("made", generator.rate(self.rate(per_second)))
    }

    pub(super) fn files(&self) -> WriteFiles {
        Files::write(self.places.output())
    }
}

/// Splits of [`Running::source`].
pub(super) const SPLITS: u64 = 5;

/// How much input there is, where it is made and not read.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Made {
    /// Records of each split.
    pub(super) count: u64,
    /// From this offset on records ask for what is known and change nothing.
    pub(super) probe_from: u64,
}

impl Made {
    pub(super) fn new(count: u64) -> Self {
        Self { count, probe_from: u64::MAX }
    }

    /// Of each split so many records more, which ask.
    pub(super) fn probe(&mut self, records: u64) {
        self.probe_from = self.count;
        self.count += records;
    }

    /// What `make` makes of all splits, one after the other.
    pub(super) fn all<T>(self, make: fn(u64, u64, u64) -> T) -> impl Iterator<Item = T> {
        let offsets = (0..SPLITS).flat_map(move |split| (0..self.count).map(move |offset| (split, offset)));
        offsets.map(move |(split, offset)| make(split, offset, self.probe_from))
    }

    pub(super) fn records(self) -> u64 {
        self.count * SPLITS
    }
}

/// Where a subject's files are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Places {
    pub(super) root: PathBuf,
}

impl Places {
    pub(super) fn of(scratch: &Scratch) -> Self {
        Self { root: scratch.path().to_owned() }
    }
    pub(super) fn input(&self) -> PathBuf {
        self.root.join("input")
    }
    pub(super) fn output(&self) -> PathBuf {
        self.root.join("output")
    }
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }
    pub(super) fn checkpoints(&self) -> PathBuf {
        self.data().join("checkpoints")
    }
    pub(super) fn progress(&self) -> PathBuf {
        self.root.join("progress")
    }
    pub(super) fn log(&self) -> PathBuf {
        self.root.join("log")
    }
}

/// When a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// So long after the start.
    Young(Duration),
    /// So long after its working directory appears.
    Recovering(Duration),
    /// So long after its first record or, where that does not show, its start.
    Working(Duration),
    /// So long after the `nth` new name appears that `what` recognises.
    Name(Event, usize, Duration),
    /// Not by SIGKILL: after so long it is asked to stop.
    Asked(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Pending,
    Manifest,
    Decided,
    Visible,
}

const MOMENT: Duration = Duration::from_millis(5);

impl End {
    fn draw(random: &mut Random, has_signals: bool) -> Self {
        let nth = 1 + random.within(0..6) as usize;
        match random.within(0..if has_signals { 15 } else { 14 }) {
            0 | 1 => Self::Young(random.up_to(Duration::from_millis(40))),
            2 | 3 => Self::Recovering(random.up_to(Duration::from_millis(60))),
            4..=6 => Self::Working(random.up_to(Duration::from_millis(1200))),
            7 | 8 => Self::Name(Event::Pending, nth, random.up_to(MOMENT)),
            9 | 10 => Self::Name(Event::Manifest, nth, random.up_to(MOMENT)),
            11 => Self::Name(Event::Decided, nth, random.up_to(MOMENT)),
            12 | 13 => Self::Name(Event::Visible, nth, random.up_to(MOMENT)),
            _ => Self::Asked(random.up_to(Duration::from_millis(1200))),
        }
    }
}

impl Event {
    /// The names of this kind that are there.
    fn names(self, places: &Places) -> BTreeSet<String> {
        let found = match self {
            Self::Pending => names(&places.output()).into_iter().filter(|name| name.starts_with(".pending-")).collect(),
            Self::Visible => visible(&places.output()),
            Self::Manifest | Self::Decided => {
                let prefix = if self == Self::Manifest { "manifest-" } else { "decided-" };
                names(&places.checkpoints()).into_iter().filter(|name| name.starts_with(prefix)).collect()
            }
        };
        found.into_iter().collect()
    }
}

/// What a campaign has seen.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) kills: usize,
    pub(super) lives: usize,
    /// Kills by what they left: nothing to restore, records only, output that is not visible, a manifest whose output
    /// was not known to be visible.
    pub(super) left: BTreeMap<&'static str, usize>,
    /// Epochs that became visible.
    pub(super) epochs: usize,
    /// Checkpoints of which the directory told at each start; they never go back.
    pub(super) restored: Vec<u64>,
    /// What each life read, where the subject tells.
    pub(super) read: Vec<Read>,
}

/// Runs a campaign to its end; says what is wrong, or what it has seen.
pub(super) fn run(subject: &mut dyn Subject, places: &Places, kills: usize, seed: u64) -> Result<Report, String> {
    for directory in [places.input(), places.progress()] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let mut observer = Observer::new(&places.output());
    let done = AtomicBool::new(false);
    let report = std::thread::scope(|threads| {
        let watching = threads.spawn(|| observer.run(&done));
        let report = Lives::new(places, seed).all(subject, kills);
        done.store(true, Ordering::Release);
        watching.join().unwrap();
        report
    });
    let verdict = observer.verdict();
    let mut report = report?;
    verdict?;
    report.epochs = observer.epochs();
    Ok(report)
}

struct Lives<'a> {
    places: &'a Places,
    random: Random,
    /// Of the last life, from 1 to 5.
    parallelism: usize,
    report: Report,
}

impl<'a> Lives<'a> {
    fn new(places: &'a Places, seed: u64) -> Self {
        Self { places, random: Random::new(seed), parallelism: 1, report: Report::default() }
    }

    fn all(mut self, subject: &mut dyn Subject, kills: usize) -> Result<Report, String> {
        while self.report.kills < kills {
            let end = match self.report.lives {
                // before there is a checkpoint, which a later life hardly ever is
                0 => End::Young(self.random.up_to(2 * MOMENT)),
                _ => End::draw(&mut self.random, subject.has_signals()),
            };
            self.note_restored();
            let mut process = self.begin(subject, true);
            let ended = self.live(&mut process, end).map_err(|e| format!("life {} {end:?}: {e}", self.report.lives))?;
            if ended == Ended::Itself {
                subject.more_input();
            }
            if ended == Ended::Killed {
                self.report.kills += 1;
                *self.report.left.entry(self.left()).or_default() += 1;
            }
        }
        self.finish(subject)?;
        self.report.read = progress::of(&self.places.progress());
        Ok(self.report)
    }

    /// What a kill has left.
    fn left(&self) -> &'static str {
        let newest = |event: Event| {
            let names = event.names(self.places);
            names.iter().filter_map(|name| name.split('-').nth(1)?.parse::<u64>().ok()).max()
        };
        let (manifest, decided) = (newest(Event::Manifest), newest(Event::Decided));
        match (manifest, Event::Pending.names(self.places).is_empty()) {
            (None, _) => "nothing",
            _ if manifest > decided => "unfinished",
            (_, false) => "pending",
            _ => "records",
        }
    }

    /// The newest checkpoint before a life begins.
    fn note_restored(&mut self) {
        let manifests = Event::Manifest.names(self.places);
        let epochs = manifests.iter().filter_map(|name| name.split('-').nth(1)?.parse::<u64>().ok());
        self.report.restored.extend(epochs.max());
    }

    fn begin(&mut self, subject: &dyn Subject, paced: bool) -> Process {
        if self.random.within(0..2) == 0 {
            self.parallelism = 1 + self.random.within(0..5) as usize;
        }
        self.report.lives += 1;
        let life = Life { paced, ..Life::new(self.places, self.report.lives, self.parallelism) };
        Process::start(&mut subject.command(&life), &self.places.log())
    }

    /// Waits for the instant and kills it.
    fn live(&self, process: &mut Process, end: End) -> Result<Ended, String> {
        let places = self.places;
        let live = |directory: &Path| -> BTreeSet<String> {
            names(directory).into_iter().filter(|name| name.starts_with("live-")).collect()
        };
        let delay = match end {
            End::Young(delay) => delay,
            End::Recovering(delay) => {
                let before = live(&places.data());
                process.wait_until(|| !live(&places.data()).is_subset(&before))?;
                delay
            }
            End::Working(delay) | End::Asked(delay) => {
                let before = names(&places.progress()).len();
                let knows = before > 0 || self.report.lives == 1;
                process.wait_until(|| !knows || names(&places.progress()).len() > before)?;
                delay
            }
            End::Name(event, nth, delay) => {
                let mut known = event.names(places);
                let mut new = 0;
                process.wait_until(|| {
                    new += event.names(places).into_iter().filter(|name| known.insert(name.clone())).count();
                    new >= nth
                })?;
                delay
            }
        };
        std::thread::sleep(delay);
        if matches!(end, End::Asked(_)) && process.ended().is_none() {
            process.terminate();
            return match process.wait() {
                Ok(0) => Ok(Ended::Asked),
                Ok(code) => Err(format!("SIGTERM ended it with exit code {code}:\n{}", process.tail())),
                // asked before the program could listen
                Err(text) if delay < Duration::from_millis(100) && text.contains("SIGTERM") => Ok(Ended::Killed),
                Err(text) => Err(text),
            };
        }
        if process.kill() {
            return Ok(Ended::Killed);
        }
        match process.wait()? {
            0 => Ok(Ended::Itself),
            code => Err(format!("it ended with exit code {code}:\n{}", process.tail())),
        }
    }

    /// Steps 2 and 3.
    fn finish(&mut self, subject: &mut dyn Subject) -> Result<(), String> {
        self.run_to_the_end(subject)?;
        let finished = Output::of(&self.places.output());
        subject.check(&finished)?;
        self.run_to_the_end(subject)?;
        let again = Output::of(&self.places.output());
        if again != finished && !subject.has_clock() {
            return Err("a finished job that was run again has changed its output".into());
        }
        again.continues(&finished)?;
        subject.check(&again).map_err(|e| format!("run again: {e}"))?;
        subject.probe();
        self.run_to_the_end(subject)?;
        let probed = Output::of(&self.places.output());
        probed.continues(&finished)?;
        subject.check(&probed).map_err(|e| format!("after the probe: {e}"))?;
        match names(&self.places.output()).iter().find(|name| name.starts_with('.')) {
            Some(left) => Err(format!("{left} was left over when all was done")),
            None => Ok(()),
        }
    }

    fn run_to_the_end(&mut self, subject: &dyn Subject) -> Result<(), String> {
        self.note_restored();
        let mut process = self.begin(subject, false);
        match process.wait()? {
            0 => Ok(()),
            code => Err(format!("undisturbed it ended with exit code {code}:\n{}", process.tail())),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Ended {
    Killed,
    Asked,
    Itself,
}

impl Report {
    /// That progress survives: checkpoints go forward, and work is not done again from the start.
    pub(super) fn progress(&self, input: u64) -> Result<(), String> {
        if self.restored.windows(2).any(|w| w[0] > w[1]) {
            return Err(format!("the newest checkpoint went back: {:?}", self.restored));
        }
        if self.restored.first() >= self.restored.last() {
            return Err(format!("no checkpoint was ever taken: {:?}", self.restored));
        }
        if self.read.is_empty() {
            return Ok(());
        }
        let mut newest = BTreeMap::new();
        for (split, first) in self.read.iter().flat_map(|life| &life.first) {
            let before = newest.insert(split, first).unwrap_or(first);
            if first < before {
                return Err(format!("split {split} was read from {before} on, and later again from {first} on"));
            }
        }
        let all: u64 = self.read.iter().map(|life| life.records).sum();
        match all < 2 * input {
            true => Ok(()),
            false => Err(format!("{all} records were read of an input of {input}: {:?}", self.read)),
        }
    }
}
