//! Lines of several kinds, some of which cannot be decoded: a split of results, then one of an enum of three, and
//! behind each branch something else: a dead-letter file, a keyed operator, a fan-out, a plain sink. So every epoch has
//! parts of four sinks that belong together.

use super::campaign::{Life, Places, Subject, Told};
use crate::common::{Output, counted, mix};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

const FILES: u64 = 4;
const PAGES: u64 = 300;

#[derive(Clone, Serialize, Deserialize, Branches)]
enum Event {
    Click(Click),
    Purchase(Purchase),
    Note(String),
}

#[derive(Clone, Serialize, Deserialize)]
struct Click {
    at: (u64, u64),
    page: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Purchase {
    at: (u64, u64),
    cents: u64,
}

/// The pipeline.
pub(super) fn job(told: Told) -> Job {
    told.job(|t, life| {
        let (progress, lines) = (life.progress.clone(), Files::read(life.places.input()));
        let (events, undecodable) = t.source("events", lines.try_json::<Event>().rate(life.rate(6000))).split();
        undecodable.sink("undecodable", life.files().json());
        let (clicks, purchases, notes) = events
            .inspect(move |event| match event {
                Event::Click(Click { at, .. }) | Event::Purchase(Purchase { at, .. }) => progress.read(at.0, at.1),
                Event::Note(_) => {}
            })
            .split();
        notes.map(|note| note).sink("notes", life.files().text());
        let pages = clicks.key_by(|click| &click.page).aggregate("pages", |of| of.count());
        pages.map(|(page, count)| format!("{page} {count}")).sink("clicks", life.files().text());
        let dear = purchases.clone().filter(|p| p.cents >= 500).map(|p| format!("dear {}", p.at.0));
        let all = purchases.map(|p| format!("all {}", p.at.0));
        let counts = dear.union(all).key_by(|text| text).aggregate("purchases_by", |of| of.count());
        counts.map(|(text, count)| format!("{text} {count}")).sink("purchases", life.files().text());
    })
}

/// A line of a file: an event, or what is none.
fn line(file: u64, at: u64) -> Result<Event, String> {
    let random = mix(file << 40 | at);
    match random % 20 {
        0 => Err(format!("{{\"Click\":{{\"at\":[{file},{at}]}}}}")),
        1 => Err(format!("line {at} of {file} \u{1F4A5}")),
        2..=4 => Ok(Event::Note(format!("note {file} {at}"))),
        5..=9 => Ok(Event::Purchase(Purchase { at: (file, at), cents: random >> 32 & 1023 })),
        _ => Ok(Event::Click(Click { at: (file, at), page: (random >> 32) % PAGES })),
    }
}

fn text_of(line: &Result<Event, String>) -> String {
    line.as_ref().map_or_else(Clone::clone, |event| serde_json::to_string(event).unwrap())
}

/// The input and what is right.
pub(super) struct Events {
    places: Places,
    /// How many lines each file has.
    lines: BTreeMap<u64, u64>,
}

impl Events {
    pub(super) fn new(places: &Places, lines: u64) -> Self {
        let mut events = Self { places: places.clone(), lines: BTreeMap::new() };
        std::fs::create_dir_all(places.input()).unwrap();
        (0..FILES).for_each(|file| events.grow(file, lines));
        events
    }

    fn path(&self, file: u64) -> PathBuf {
        self.places.input().join(format!("{file}.jsonl"))
    }

    /// Appends to a file.
    fn grow(&mut self, file: u64, by: u64) {
        let from = self.lines.get(&file).copied().unwrap_or(0);
        let text: String = (from..from + by).map(|at| text_of(&line(file, at)) + "\n").collect();
        let mut to = OpenOptions::new().create(true).append(true).open(self.path(file)).unwrap();
        to.write_all(text.as_bytes()).unwrap();
        self.lines.insert(file, from + by);
    }

    /// What ought to be written: of each sink that counts the totals, of the others the lines.
    fn expect(&self) -> (BTreeMap<String, u64>, BTreeMap<String, u64>, Vec<String>, Vec<(String, u64, String)>) {
        let (mut pages, mut purchases) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
        let (mut notes, mut bad) = (Vec::new(), Vec::new());
        for (file, lines) in &self.lines {
            let (path, mut byte) = (self.path(*file).canonicalize().unwrap().display().to_string(), 0);
            for at in 0..*lines {
                let line = line(*file, at);
                let text = text_of(&line);
                match line {
                    Ok(Event::Click(Click { page, .. })) => *pages.entry(page.to_string()).or_default() += 1,
                    Ok(Event::Purchase(Purchase { cents, .. })) => {
                        *purchases.entry(format!("all {file}")).or_default() += 1;
                        if cents >= 500 {
                            *purchases.entry(format!("dear {file}")).or_default() += 1;
                        }
                    }
                    Ok(Event::Note(note)) => notes.push(note),
                    Err(_) => bad.push((path.clone(), byte, text.clone())),
                }
                byte += text.len() as u64 + 1;
            }
        }
        notes.sort();
        bad.sort();
        (pages, purchases, notes, bad)
    }
}

impl Subject for Events {
    fn command(&self, life: &Life) -> Command {
        life.process("branches", ())
    }

    fn more_input(&mut self) {
        let grown = self.lines.values().sum::<u64>() % FILES;
        self.grow(grown, 1000);
        self.grow(self.lines.len() as u64 % 60, 1000);
    }

    /// Lines enough that every page comes.
    fn probe(&mut self) {
        self.grow(63, 20 * PAGES);
    }

    fn check(&self, output: &Output) -> Result<(), String> {
        let (pages, purchases, notes, bad) = self.expect();
        let counts = |sink: &str, totals| {
            let lines = output.lines(sink).into_iter().map(|line| {
                let (key, count) = line.rsplit_once(' ').unwrap();
                (key.to_owned(), count.parse().unwrap())
            });
            counted(sink, lines, totals)
        };
        counts("clicks", &pages)?;
        counts("purchases", &purchases)?;
        let mut found = output.lines("notes");
        found.sort();
        if found != notes {
            return Err(format!("notes: {} lines in place of {}", found.len(), notes.len()));
        }
        let letter = |line: &str| {
            let Undecodable { split, offset, error, bytes } = serde_json::from_str(line).unwrap();
            assert!(error.contains("as JSON"), "{error}");
            (split, offset, String::from_utf8(bytes).unwrap())
        };
        let mut found: Vec<_> = output.lines("undecodable").into_iter().map(letter).collect();
        found.sort();
        match found == bad {
            true => Ok(()),
            false => Err(format!("undecodable: {} lines in place of {}", found.len(), bad.len())),
        }
    }

    fn input(&self) -> u64 {
        self.lines.values().sum()
    }
}
