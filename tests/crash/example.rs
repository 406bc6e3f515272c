//! The example `word_count` as users run it: its command line, its signals, text by Jane Austen.

use super::campaign::{Places, Subject};
use super::words::counted;
use crate::common::{Output, example};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

#[derive(Deserialize)]
struct Count {
    word: String,
    count: u64,
}

/// The input and what is right.
pub(super) struct WordCount {
    places: Places,
    /// What is left to be appended.
    rest: Vec<String>,
}

impl WordCount {
    /// With so many lines of each text to begin with.
    pub(super) fn new(places: &Places, lines: usize) -> Self {
        std::fs::create_dir_all(places.input()).unwrap();
        let mut subject = Self { places: places.clone(), rest: Vec::new() };
        for name in ["persuasion.txt", "pride_and_prejudice.txt"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
            let text = std::fs::read_to_string(path).unwrap();
            let mut all = text.lines().map(|line| format!("{line}\n"));
            subject.append(name, all.by_ref().take(lines));
            subject.rest.extend(all);
        }
        subject
    }

    fn append(&self, name: &str, lines: impl Iterator<Item = String>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.places.input().join(name)).unwrap();
        file.write_all(lines.collect::<String>().as_bytes()).unwrap();
    }

    fn text(&self) -> String {
        let files = std::fs::read_dir(self.places.input()).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if c.is_alphanumeric() => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).map(|word| word.to_lowercase())
}

impl Subject for WordCount {
    fn command(&self, _: usize, parallelism: usize, paced: bool) -> Command {
        let mut command = example("word_count");
        command.arg("run").arg("--input").arg(self.places.input()).arg("--output").arg(self.places.output());
        command.arg("--data-dir").arg(self.places.data()).args(["--checkpoint-interval", "70ms"]);
        command.args(["--memory", "64MiB", "--parallelism", &parallelism.to_string()]);
        if paced {
            command.args(["--rate", "2500"]);
        }
        command
    }

    fn more_input(&mut self) {
        let at = self.rest.len().saturating_sub(1000);
        let more = self.rest.split_off(at);
        let (grown, new) = more.split_at(more.len() / 2);
        self.append("persuasion.txt", grown.iter().cloned());
        self.append(&format!("new-{at}.txt"), new.iter().cloned());
    }

    fn probe(&mut self) {
        let all: BTreeSet<String> = words(&self.text()).collect();
        self.append("probe.txt", all.into_iter().map(|word| format!("{word}\n")));
    }

    fn check(&self, output: &Output) -> Result<(), String> {
        let mut totals = BTreeMap::<String, u64>::new();
        words(&self.text()).for_each(|word| *totals.entry(word).or_default() += 1);
        let counts = output.lines("result").into_iter().map(|line| {
            let count: Count = serde_json::from_str(line).unwrap();
            (count.word, count.count)
        });
        counted("result", counts, &totals)
    }

    fn has_signals(&self) -> bool {
        true
    }

    fn input(&self) -> u64 {
        self.text().lines().count() as u64
    }
}
