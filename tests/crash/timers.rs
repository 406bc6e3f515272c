//! Accounts that work in event time: each record waits until the watermark has passed it and is then booked, in order,
//! by its timer; another timer closes the account when nothing was booked for a while, and is set later, earlier, not
//! at all, and again while it fires. So what is booked when follows from the input alone, whatever batches, subtasks
//! and kills there were. 20,000 keys behind a cache of 1,000 rows and timers per subtask.
//!
//! Beside it timers by the clock of the machine, of which it can be said that each is set once and fires once.

use super::campaign::{Life, Made, SPLITS, Subject, Told};
use crate::common::{Output, mix};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const KEYS: u64 = 20_000;
/// A timer by the clock that is so much behind was lost.
const LOST_MS: i64 = 5000;

/// What the source makes.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    key: u64,
    offset: u64,
    value: u64,
    is_probe: bool,
}

impl Entry {
    /// Before `probe_from` random keys of the split, from there on each of its keys once.
    fn of(split: u64, offset: u64, probe_from: u64) -> Self {
        let random = mix(split << 48 | offset | 7 << 40);
        let is_probe = offset >= probe_from;
        let at = if is_probe { offset - probe_from } else { random % (KEYS / SPLITS) };
        Self { key: at * SPLITS + split, offset, value: random >> 40, is_probe }
    }

    /// Now and then several records of a key have one time.
    fn time(&self) -> i64 {
        self.offset as i64 / 2 * 4
    }

    /// When the account is to be closed if nothing comes; later or earlier than what was said before, or never.
    fn quiet(&self) -> Option<i64> {
        (!self.value.is_multiple_of(8)).then(|| self.time() + 1 + (self.value % 1000) as i64 * (self.value % 30) as i64)
    }
}

#[derive(State)]
struct Account {
    /// Records whose time has not come.
    waiting: ValueState<Vec<Entry>>,
    /// One for each time in `waiting`.
    due: EventTimers,
    quiet: EventTimer,
    booked: ValueState<u64>,
    remind: ProcessingTimer,
    /// How often that was set.
    reminders: ValueState<u64>,
    retry: ProcessingTimers,
    /// What these were set for, each with a number.
    retries: ValueState<BTreeMap<i64, u64>>,
    /// How many there were.
    retried: ValueState<u64>,
}

struct Accounts;

impl Accounts {
    fn set_by_clock(entry: &Entry, account: &mut Account, now: Timestamp) {
        if account.remind.at().is_none() && entry.value % 4 == 1 {
            account.remind.set(now + Duration::from_millis(entry.value % 300));
            *account.reminders.or_default() += 1;
        }
        for ms in [entry.value % 50, entry.value % 400].into_iter().take((entry.value % 3) as usize) {
            let at = now + Duration::from_millis(ms);
            let retries = account.retries.or_default();
            if let std::collections::btree_map::Entry::Vacant(entry) = retries.entry(at.as_millis()) {
                let number = account.retried.or_default();
                *number += 1;
                entry.insert(*number);
                account.retry.set(at);
            }
        }
    }

    /// What is known of timers by the clock: nothing was lost.
    fn show_clock(account: &Account, now: Timestamp) -> String {
        let retries = account.retries.get().cloned().unwrap_or_default();
        let oldest = account.remind.at().map(Timestamp::as_millis).into_iter().chain(retries.keys().copied()).min();
        let is_lost = oldest.is_some_and(|at| at < now.as_millis() - LOST_MS);
        let (reminders, retried) = (account.reminders.get().unwrap_or(&0), account.retried.get().unwrap_or(&0));
        let open: Vec<_> = retries.into_values().collect();
        format!(
            "{reminders} {retried} {} {open:?}{}",
            account.remind.at().is_some(),
            if is_lost { " LOST" } else { "" }
        )
    }
}

impl Process for Accounts {
    type Key = u64;
    type In = Entry;
    type Out = String;
    type State = Account;
    fn on_record(
        &self,
        entry: Entry,
        account: &mut Account,
        cx: &mut Context<'_, u64, String>,
    ) -> Result<(), BoxError> {
        if entry.is_probe {
            cx.emit(format!("{} clock {}", entry.key, Self::show_clock(account, cx.now())));
        } else {
            Self::set_by_clock(&entry, account, cx.now());
        }
        account.due.set(cx.time());
        account.waiting.or_default().push(entry);
        Ok(())
    }

    fn on_timer(&self, account: &mut Account, cx: &mut Context<'_, u64, String>) -> Result<(), BoxError> {
        let (key, time) = (*cx.key(), cx.time().as_millis());
        if account.due.fired().is_some() {
            let waiting = account.waiting.take().unwrap_or_default();
            let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|entry| entry.time() == time);
            if !later.is_empty() {
                account.waiting.set(later);
            }
            for entry in now {
                let booked = account.booked.or_default();
                *booked += 1;
                cx.emit(format!("{key} booked {} {booked}", entry.offset));
                match entry.quiet() {
                    Some(at) => account.quiet.set(Timestamp::from_millis(at)),
                    None => account.quiet.cancel(),
                }
            }
        } else if account.quiet.fired().is_some() {
            let booked = account.booked.take();
            cx.emit(format!("{key} quiet {time} {booked:?}"));
            if booked.is_some_and(|booked| booked > 2) {
                account.quiet.set(cx.time() + Duration::from_millis(7));
            }
        } else if account.remind.fired().is_some() {
            cx.emit(format!("{key} remind {}", account.reminders.get().unwrap_or(&0)));
        } else if let Some(at) = account.retry.fired() {
            let retries = account.retries.or_default();
            let number = retries.remove(&at.as_millis()).ok_or("a timer that was not set has fired")?;
            if retries.is_empty() {
                account.retries.take();
            }
            cx.emit(format!("{key} retry {number}"));
        }
        Ok(())
    }
}

/// The pipeline.
pub(super) fn job(told: Told) -> Job {
    let made = told.input();
    let job = told.job(move |t, life| {
        life.source(t, made, 30_000, Entry::of)
            .event_time(|entry| Timestamp::from_millis(entry.time()), Watermarks::monotonous())
            .key_by(|entry| &entry.key)
            .process("accounts", Accounts)
            .sink("accounts-out", life.files().text());
    });
    // memory for some of the evicted rows, so that the others go to files
    job.cache_rows(1000).memory(1 << 20)
}

/// The input and what is right.
pub(super) struct Timers {
    made: Made,
    /// How much of each split there was when it ended for a while: then all timers in event time fire.
    ends: BTreeSet<u64>,
}

impl Timers {
    /// With so many records of each split.
    pub(super) fn new(count: u64) -> Self {
        Self { made: Made::new(count), ends: BTreeSet::new() }
    }

    /// What each account says of event time, by plain loops.
    fn oracle(&self) -> BTreeMap<u64, Vec<String>> {
        let mut all: BTreeMap<u64, Model> = BTreeMap::new();
        let ends: BTreeSet<u64> = self.ends.iter().copied().chain([self.made.count]).collect();
        for entry in self.made.all(Entry::of) {
            all.entry(entry.key).or_default().book(&entry);
            if ends.contains(&(entry.offset + 1)) {
                let of_split = all.iter_mut().filter(|(key, _)| **key % SPLITS == entry.key % SPLITS);
                of_split.for_each(|(key, model)| model.close(*key, i64::MAX));
            }
        }
        all.into_iter().map(|(key, model)| (key, model.lines)).collect()
    }
}

/// One account.
#[derive(Default)]
struct Model {
    booked: Option<u64>,
    quiet: Option<i64>,
    lines: Vec<String>,
}

impl Model {
    fn book(&mut self, entry: &Entry) {
        self.close(entry.key, entry.time() - 1);
        let booked = self.booked.unwrap_or(0) + 1;
        self.booked = Some(booked);
        self.lines.push(format!("{} booked {} {booked}", entry.key, entry.offset));
        self.quiet = entry.quiet();
    }

    /// Whatever timer is due by then.
    fn close(&mut self, key: u64, now: i64) {
        while let Some(at) = self.quiet.take_if(|at| *at <= now) {
            let booked = self.booked.take();
            self.lines.push(format!("{key} quiet {at} {booked:?}"));
            self.quiet = booked.filter(|booked| *booked > 2).map(|_| at + 7);
        }
    }
}

/// What the output says of a key's timers by the clock.
#[derive(Default)]
struct Clock {
    reminded: Vec<u64>,
    retried: Vec<u64>,
    /// What the probe saw.
    seen: Option<String>,
}

impl Clock {
    /// Each reminder came once and in turn, each retry once, and what the probe saw open was still open.
    fn check(&self) -> Result<(), String> {
        let in_turn = (1..).zip(&self.reminded).all(|(number, found)| number == *found);
        let different: BTreeSet<_> = self.retried.iter().collect();
        if !in_turn || different.len() < self.retried.len() {
            return Err(format!("reminders {:?}, retries {:?}", self.reminded, self.retried));
        }
        let Some(seen) = &self.seen else { return Ok(()) };
        let numbers = |text: &str| -> Vec<u64> {
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
        };
        let [reminders, retries, open @ ..] = &numbers(seen)[..] else { return Err(format!("a strange line: {seen}")) };
        let pending = seen.contains("true");
        let missing = (1..=*retries).filter(|number| !different.contains(number)).count();
        let reminded = self.reminded.len() as u64;
        let is_right = !seen.contains("LOST")
            && (reminded == *reminders || (pending && reminded + 1 == *reminders))
            && missing <= open.len()
            && different.len() + missing == *retries as usize;
        if is_right { Ok(()) } else { Err(format!("{seen}, but reminders {reminded}, retries {:?}", self.retried)) }
    }
}

impl Subject for Timers {
    fn command(&self, life: &Life) -> Command {
        life.process("timers", self.made)
    }

    fn more_input(&mut self) {
        self.ends.insert(self.made.count);
        self.made.count += 10_000;
    }

    fn probe(&mut self) {
        self.ends.insert(self.made.count);
        self.made.probe(KEYS / SPLITS);
    }

    fn check(&self, output: &Output) -> Result<(), String> {
        let (mut found, mut clocks) = (BTreeMap::<u64, Vec<&str>>::new(), BTreeMap::<u64, Clock>::new());
        for line in output.lines("accounts-out") {
            let strange = || format!("a strange line: {line}");
            let mut words = line.splitn(3, ' ');
            let (Some(key), Some(what), Some(rest)) = (words.next(), words.next(), words.next()) else {
                return Err(strange());
            };
            let key = key.parse().map_err(|_| strange())?;
            let clock = clocks.entry(key).or_default();
            match what {
                "remind" => clock.reminded.push(rest.parse().map_err(|_| strange())?),
                "retry" => clock.retried.push(rest.parse().map_err(|_| strange())?),
                "clock" => clock.seen = Some(rest.into()),
                _ => found.entry(key).or_default().push(line),
            }
        }
        super::numbers::equal(&self.oracle(), &found)?;
        clocks.iter().try_for_each(|(key, clock)| clock.check().map_err(|e| format!("key {key}: {e}")))
    }

    fn has_clock(&self) -> bool {
        true
    }

    fn input(&self) -> u64 {
        self.made.records()
    }
}

#[test]
fn the_check_finds_what_is_lost_or_twice() {
    let clock = |reminded: &[u64], retried: &[u64], seen: &str| {
        Clock { reminded: reminded.into(), retried: retried.into(), seen: Some(seen.into()) }.check()
    };
    assert_eq!(clock(&[1, 2], &[2, 1], "2 2 false []"), Ok(()));
    assert_eq!(clock(&[1], &[1, 3], "2 3 true [2]"), Ok(()));
    assert_eq!(clock(&[1, 2], &[1, 3, 2], "2 3 true [2]"), Ok(()));
    for (reminded, retried, seen) in [
        (&[1, 1][..], &[][..], "2 0 false []"),
        (&[2], &[], "2 0 true []"),
        (&[1], &[], "2 0 false []"),
        (&[], &[1, 1], "0 2 false [2]"),
        (&[], &[1], "0 2 false []"),
        (&[], &[1, 2, 3], "0 2 false []"),
        (&[1], &[], "2 0 true [] LOST"),
    ] {
        assert!(clock(reminded, retried, seen).is_err(), "{reminded:?} {retried:?} {seen}");
    }
}
