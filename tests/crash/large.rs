//! State of full size behind a cache of 1,000 rows per subtask: ten million entries under one key of a map, and as many
//! of a list; a million keys, each with a timer in event time and one by the clock of the machine. Filled, killed on
//! the way, restored at another parallelism, and in the end compared with what arithmetic says. No life may need more
//! memory than it was given, and what a process needs beside that, whatever the state's size. In the normal suite all
//! this is smaller.

use super::campaign::{Life, Made, Places, SPLITS, Told};
use super::progress;
use crate::common::{MIB, Output, Process as Child, Scratch, is_soak, mix, names, peak};
use millstream::clock;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// How long a life may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_mins(15);
const MEMORY: u64 = 64 * MIB;
/// What a process may need beside what it was given.
const BESIDE: u64 = 256 * MIB;

/// The processes that run a pipeline, one after the other.
struct Lives {
    places: Places,
    pipeline: &'static str,
    lives: usize,
}

impl Lives {
    fn new(scratch: &Scratch, pipeline: &'static str) -> Self {
        let places = Places::of(scratch);
        std::fs::create_dir_all(places.progress()).unwrap();
        Self { places, pipeline, lives: 0 }
    }

    fn start(&mut self, parallelism: usize, input: impl Serialize) -> Child {
        self.lives += 1;
        let life = Life::new(&self.places, self.lives, parallelism);
        Child::start(&mut life.process(self.pipeline, input), &self.places.log()).patient(PATIENCE)
    }

    /// How many records the present life has read, at least.
    fn read(&self) -> u64 {
        progress::of(&self.places.progress()).get(self.lives - 1).map_or(0, |life| life.records)
    }

    /// Whether the present life has read anything.
    fn has_begun(&self) -> bool {
        progress::of(&self.places.progress()).get(self.lives - 1).is_some_and(|life| !life.first.is_empty())
    }

    fn newest_checkpoint(&self) -> u64 {
        let names = names(&self.places.checkpoints());
        names.iter().filter_map(|name| name.strip_prefix("decided-")?.parse().ok()).max().unwrap_or(0)
    }

    /// Waits until something holds, and kills.
    fn kill_when(&self, process: &mut Child, what: &str, holds: impl Fn(&Self) -> bool) {
        let found = process.wait_until(|| {
            std::thread::sleep(Duration::from_millis(10));
            holds(self)
        });
        assert_eq!(found, Ok(true), "{}: {what}", process.tail());
        self.note(what, peak(process.id()));
        assert!(process.kill(), "{}", process.tail());
    }

    fn wait(&self, mut process: Child) {
        assert_eq!(process.wait(), Ok(0), "{}", process.tail());
        let printed = process.printed();
        let peak = printed.split("peak ").nth(1).unwrap();
        self.note("its end", peak.lines().next().unwrap().parse().unwrap());
    }

    fn note(&self, until: &str, peak: u64) {
        println!("{}: life {} until {until}, peak {} MiB", self.pipeline, self.lives, peak / MIB);
        assert!(peak <= MEMORY + BESIDE, "{} MiB at peak with {} MiB given", peak / MIB, MEMORY / MIB);
    }

    fn lines(&self, sink: &str) -> Vec<String> {
        Output::of(&self.places.output()).lines(sink).into_iter().map(str::to_owned).collect()
    }
}

/// What goes under the one key.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Entry {
    split: u64,
    offset: u64,
    asks: bool,
}

fn entry(split: u64, offset: u64, probe_from: u64) -> Entry {
    Entry { split, offset, asks: offset >= probe_from }
}

impl Entry {
    fn number(self) -> u64 {
        self.offset * SPLITS + self.split
    }
}

/// One to one, and scattered.
fn place(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[derive(State)]
struct Shelf {
    map: MapState<u64, u64>,
    list: ListState<u64>,
}

struct Shelves;

impl Process for Shelves {
    type Key = u64;
    type In = Entry;
    type Out = String;
    type State = Shelf;
    fn on_record(&self, entry: Entry, shelf: &mut Shelf, cx: &mut Context<'_, u64, String>) -> Result<(), BoxError> {
        let number = entry.number();
        if !entry.asks {
            shelf.map.insert(place(number), number);
            shelf.list.push(number);
        } else if entry.split == 0 {
            cx.emit(looked_through(shelf)?);
        } else {
            let after = shelf.map.range(place(number)..).next();
            cx.emit(format!("{number} {} {after:?}", shelf.map.contains(&place(number))));
        }
        Ok(())
    }
}

/// All entries of both, one by one.
fn looked_through(shelf: &mut Shelf) -> Result<String, BoxError> {
    let (mut in_map, mut map_sum, mut before) = (0, 0, None);
    for (at, number) in shelf.map.iter() {
        if before.replace(at) >= Some(at) || at != place(number) {
            return Err(format!("{number} at {at} in the map, behind {before:?}").into());
        }
        (in_map, map_sum) = (in_map + 1, map_sum + number);
    }
    // what splits have pushed is mixed, but of each it is in order
    let (mut in_list, mut next) = (0, [0; SPLITS as usize]);
    for number in shelf.list.iter() {
        let next = &mut next[(number % SPLITS) as usize];
        if number / SPLITS != *next {
            return Err(format!("{number} is no. {in_list} of the list, and {next} should be next of its split").into());
        }
        (in_list, *next) = (in_list + 1, *next + 1);
    }
    Ok(format!("{in_map} of {map_sum}, {in_list} {next:?} {}", shelf.list.len()))
}

/// The pipeline of entries.
pub(super) fn entries(told: Told) -> Job {
    let made = told.input();
    let job = told.job(move |t, life| {
        life.source(t, made, 0, entry)
            .key_by_value(|_| 0)
            .process("shelves", Shelves)
            .sink("answers", life.files().text());
    });
    job.cache_rows(1000).memory(MEMORY)
}

#[test]
fn soak_entries_under_one_key() {
    let of_each = if is_soak() { 10_000_000 / SPLITS } else { 60_000 / SPLITS };
    let scratch = Scratch::new();
    let (mut lives, mut made) = (Lives::new(&scratch, "entries"), Made::new(of_each));
    let half = made.records() / 2;
    let mut process = lives.start(1, made);
    lives.kill_when(&mut process, "half", |lives| lives.read() >= half && lives.newest_checkpoint() > 0);
    let process = lives.start(2, made);
    lives.wait(process);
    made.probe(1);
    let mut process = lives.start(3, made);
    lives.kill_when(&mut process, "it was asked", Lives::has_begun);
    let process = lives.start(2, made);
    lives.wait(process);
    let mut found = lives.lines("answers");
    found.sort();
    let all = of_each * SPLITS;
    let mut expect = vec![format!("{all} of {}, {all} {:?} {all}", all * (all - 1) / 2, [of_each; SPLITS as usize])];
    let by_place: BTreeMap<u64, u64> = (0..all).map(|number| (place(number), number)).collect();
    for number in (1..SPLITS).map(|split| entry(split, of_each, 0).number()) {
        expect.push(format!("{number} false {:?}", by_place.range(place(number)..).next().map(|(at, n)| (*at, *n))));
    }
    expect.sort();
    assert_eq!(found, expect);
    println!("entries: {all} in a map and {all} in a list");
}

/// Over how many milliseconds timers in event time are spread, and by the clock.
const SPREAD: u64 = 1_000_000;
const SPREAD_BY_CLOCK: u64 = 2000;
/// Records that move event time on, and how many of them come in a second.
const TICKS: u64 = 200;
const TICK_RATE: u64 = 100;

/// When the timers of keys are due: in event time behind all that is set, and by the clock from `due_ms` on. Another
/// source brings ticks, of which the first ones let time stand still.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Due {
    of_each: u64,
    due_ms: u64,
    still: u64,
    ticks: u64,
}

impl Due {
    fn event(self, key: u64) -> u64 {
        self.of_each + 1 + mix(key) % SPREAD
    }
    fn clock(self, key: u64) -> u64 {
        self.due_ms + mix(key) % SPREAD_BY_CLOCK
    }
    fn tick(self, offset: u64) -> Alarm {
        let at = offset.checked_sub(self.still).map_or(0, |moved| self.of_each + moved * SPREAD / TICKS);
        Alarm { key: None, at: at as i64 }
    }
}

/// A key that sets its timers, or a tick.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Alarm {
    key: Option<u64>,
    at: i64,
}

fn alarm(split: u64, offset: u64, _: u64) -> Alarm {
    Alarm { key: Some(offset * SPLITS + split), at: offset as i64 }
}

#[derive(State)]
struct Alarms {
    event: EventTimer,
    clock: ProcessingTimer,
}

impl Process for Due {
    type Key = u64;
    type In = Alarm;
    type Out = String;
    type State = Alarms;
    fn on_record(&self, alarm: Alarm, alarms: &mut Alarms, _: &mut Context<'_, u64, String>) -> Result<(), BoxError> {
        if let Some(key) = alarm.key {
            alarms.event.set(Timestamp::from_millis(self.event(key) as i64));
            alarms.clock.set(Timestamp::from_millis(self.clock(key) as i64));
        }
        Ok(())
    }
    fn on_timer(&self, alarms: &mut Alarms, cx: &mut Context<'_, u64, String>) -> Result<(), BoxError> {
        let (what, at) = match (alarms.event.fired(), alarms.clock.fired()) {
            (Some(at), None) if at <= cx.watermark() => ("event", at),
            (None, Some(at)) if at <= cx.now() => ("clock", at),
            other => return Err(format!("fired too early, or not alone: {other:?}").into()),
        };
        cx.emit(format!("{} {what} {}", cx.key(), at.as_millis()));
        Ok(())
    }
}

/// The pipeline of timers.
pub(super) fn alarms(told: Told) -> Job {
    let due: Due = told.input();
    let job = told.job(move |t, life| {
        let set = |alarms: Stream<Alarm>| {
            alarms.event_time(|alarm| Timestamp::from_millis(alarm.at), Watermarks::monotonous())
        };
        let ticks = Generator::new(move |_, offset| due.tick(offset)).count(due.still.saturating_add(due.ticks));
        set(life.source(t, Made::new(due.of_each), 0, alarm))
            .union(set(t.source("ticks", ticks.rate(TICK_RATE))))
            .key_by_value(|alarm| alarm.key.unwrap_or(0))
            .process("alarms", due)
            .sink("fired", life.files().text());
    });
    job.cache_rows(1000).memory(MEMORY)
}

fn now_ms() -> u64 {
    clock::wall().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Sets all timers and kills the process when a checkpoint has them. None if some were due by then.
fn all_pending(scratch: &Scratch, of_each: u64, within: Duration) -> Option<(Lives, Due)> {
    let mut lives = Lives::new(scratch, "alarms");
    let begun = now_ms();
    let mut due = Due { of_each, due_ms: begun + within.as_millis() as u64, still: u64::MAX, ticks: TICKS };
    let mut process = lives.start(1, due);
    let set = Cell::new(None);
    lives.kill_when(&mut process, "all timers were set", |lives| {
        if set.get().is_none() && lives.read() >= of_each * SPLITS {
            set.set(Some(lives.newest_checkpoint()));
        }
        // the next one may have begun before
        set.get().is_some_and(|then| lives.newest_checkpoint() >= then + 2)
    });
    due.still = (now_ms() - begun) * TICK_RATE / 1000 + TICK_RATE;
    (now_ms() < due.due_ms).then_some((lives, due))
}

#[test]
fn soak_pending_timers() {
    // progress is told by 128 records
    let (of_each, within) = if is_soak() { (128 * 1600, 60) } else { (128 * 24, 3) };
    let found = (0..5).find_map(|doubled| {
        let scratch = Scratch::new();
        let (lives, due) = all_pending(&scratch, of_each, Duration::from_secs(within << doubled))?;
        Some((scratch, lives, due))
    });
    let (_scratch, mut lives, mut due) = found.expect("timers were due before all of them were set");
    assert_eq!(lives.lines("fired"), Vec::<String>::new(), "all are pending");
    let mut process = lives.start(2, due);
    let shows = |lives: &Lives| names(&lives.places.output()).iter().any(|name| !name.starts_with('.'));
    lives.kill_when(&mut process, "some have fired", shows);
    while lives.lives < 4 || now_ms() < due.due_ms + SPREAD_BY_CLOCK {
        let process = lives.start(2 + lives.lives % 2, due);
        lives.wait(process);
        due.ticks += TICK_RATE;
    }
    let mut found = lives.lines("fired");
    found.sort_unstable();
    let of = |key| [format!("{key} event {}", due.event(key)), format!("{key} clock {}", due.clock(key))];
    let mut expect: Vec<String> = (0..of_each * SPLITS).flat_map(of).collect();
    expect.sort_unstable();
    let wrong = (0..found.len().max(expect.len())).find(|at| found.get(*at) != expect.get(*at));
    assert_eq!(wrong.map(|at| (found.get(at), expect.get(at))), None);
    println!("alarms: {} keys had a timer in event time and one by the clock", of_each * SPLITS);
}
