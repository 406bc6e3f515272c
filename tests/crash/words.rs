//! Counts words of JSON lines, and then words by their first letter: two exchanges, two keyed operators of different
//! parallelism, a fan-out, and two sinks of files in one directory.

use super::campaign::{Life, Places, Subject, Told};
use crate::common::{Output, counted, mix};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

const FILES: u64 = 5;
const WORDS: u64 = 5000;

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    file: u64,
    line: u64,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Count {
    word: String,
    count: u64,
}

/// The pipeline.
pub(super) fn job(told: Told) -> Job {
    told.job(|t, life| {
        let progress = life.progress.clone();
        let counts = t
            .source("text", Files::read(life.places.input()).json::<Line>().rate(life.rate(2500)))
            .inspect(move |line| progress.read(line.file, line.line))
            .flat_map_into(|line, words| words.extend(words_of(&line.text)))
            .key_by(|word| word)
            .aggregate("count", |of| of.count());
        counts.clone().map(|(word, count)| Count { word, count }).sink("counts", life.files().json());
        counts
            .key_by_value(|(word, _)| first(word))
            .map_with_state("initials", |count: &mut u64, (word, _)| {
                *count += 1;
                (first(&word), *count)
            })
            .parallelism(1 + life.parallelism % 3)
            .map(|(first, count)| format!("{first} {count}"))
            .sink("by-initial", life.files().text());
    })
}

fn words_of(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

fn first(word: &str) -> char {
    word.chars().next().unwrap_or(' ')
}

/// The text, some words far more often than others.
fn line(file: u64, line: u64) -> Line {
    let mut text = String::new();
    for at in 0..8 {
        let random = mix(mix(file << 40 | line) + at);
        let word = (random % WORDS) * (random >> 32 & 0xffff) / 0x1_0000;
        text.push_str(if random >> 60 == 0 { " -- Ä" } else { " " });
        text.push_str(&spelled(word));
    }
    Line { file, line, text }
}

fn spelled(mut word: u64) -> String {
    let mut text = String::from(if word.is_multiple_of(3) { "W" } else { "" });
    loop {
        text.push((b'a' + (word % 26) as u8) as char);
        word /= 26;
        if word == 0 {
            return text;
        }
    }
}

/// The input and what is right.
pub(super) struct Words {
    places: Places,
    /// How many lines each file has.
    lines: BTreeMap<u64, u64>,
    probed: Option<Vec<String>>,
}

impl Words {
    pub(super) fn new(places: &Places, lines: u64) -> Self {
        let mut words = Self { places: places.clone(), lines: BTreeMap::new(), probed: None };
        std::fs::create_dir_all(places.input()).unwrap();
        (0..FILES).for_each(|file| words.grow(file, lines));
        words
    }

    /// Appends to a file.
    fn grow(&mut self, file: u64, by: u64) {
        let from = self.lines.get(&file).copied().unwrap_or(0);
        self.append(file, (from..from + by).map(|at| line(file, at)));
        self.lines.insert(file, from + by);
    }

    fn append(&self, file: u64, lines: impl Iterator<Item = Line>) {
        let path = self.places.input().join(format!("{file}.jsonl"));
        let mut text = String::new();
        lines.for_each(|line| text.push_str(&(serde_json::to_string(&line).unwrap() + "\n")));
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// All words, in no matter which order.
    fn all(&self) -> impl Iterator<Item = String> {
        let lines = self.lines.iter().flat_map(|(file, lines)| (0..*lines).map(|at| line(*file, at)));
        lines.flat_map(|line| words_of(&line.text)).chain(self.probed.iter().flatten().cloned())
    }
}

impl Subject for Words {
    fn command(&self, life: &Life) -> Command {
        life.process("words", ())
    }

    fn more_input(&mut self) {
        let grown = self.lines.values().sum::<u64>() % FILES;
        self.grow(grown, 500);
        self.grow(self.lines.len() as u64 % 60, 500);
    }

    fn probe(&mut self) {
        let mut words: Vec<String> = self.all().collect();
        words.sort();
        words.dedup();
        let line = |(at, word): (usize, &String)| Line { file: 63, line: at as u64, text: word.clone() };
        self.append(63, words.iter().enumerate().map(line));
        self.probed = Some(words);
    }

    fn check(&self, output: &Output) -> Result<(), String> {
        let (mut words, mut initials) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
        for word in self.all() {
            *initials.entry(first(&word).to_string()).or_default() += 1;
            *words.entry(word).or_default() += 1;
        }
        let counts = output.lines("counts").into_iter().map(|line| {
            let count: Count = serde_json::from_str(line).unwrap();
            (count.word, count.count)
        });
        counted("counts", counts, &words)?;
        let by_initial = output.lines("by-initial").into_iter().map(|line| {
            let (first, count) = line.split_once(' ').unwrap();
            (first.to_owned(), count.parse().unwrap())
        });
        counted("by-initial", by_initial, &initials)
    }

    fn input(&self) -> u64 {
        self.lines.values().sum::<u64>() + self.probed.as_ref().map_or(0, |words| words.len() as u64)
    }
}
