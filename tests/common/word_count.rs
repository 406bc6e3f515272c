//! The example `word_count` with directories of its own, and what it ought to write.

use super::children::{Ended, Process, example};
use super::output::{Output, counted};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Deserialize)]
struct Count {
    word: String,
    count: u64,
}

/// See the head of this file.
pub(crate) struct WordCount {
    root: PathBuf,
}

impl WordCount {
    pub(crate) fn new(root: &Path) -> Self {
        let this = Self { root: root.to_owned() };
        std::fs::create_dir_all(this.input()).unwrap();
        this
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.root.join("input")
    }
    pub(crate) fn output(&self) -> PathBuf {
        self.root.join("output")
    }
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// With its directories.
    pub(crate) fn command(&self) -> Command {
        let mut command = example("word_count");
        command.arg("run").arg("--input").arg(self.input());
        command.arg("--output").arg(self.output()).arg("--data-dir").arg(self.data());
        command
    }

    /// Starts it with more flags.
    pub(crate) fn start(&self, flags: &[&str]) -> Process {
        Process::start(self.command().args(flags), &self.root.join("log"))
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(&self, flags: &[&str]) -> Ended {
        self.start(flags).end()
    }

    /// Runs a command to its end, such as `checkpoints list`, with more flags and with these variables.
    #[track_caller]
    pub(crate) fn call(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
        let mut command = example("word_count");
        command.args(arguments).envs(variables.iter().copied()).current_dir(&self.root);
        Process::start(&mut command, &self.root.join("log")).end()
    }

    /// Appends lines, which have their newlines, to a file of the input.
    pub(crate) fn append(&self, name: &str, lines: impl Iterator<Item = String>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.input().join(name)).unwrap();
        file.write_all(lines.collect::<String>().as_bytes()).unwrap();
    }

    /// All of the input.
    pub(crate) fn text(&self) -> String {
        let files = std::fs::read_dir(self.input()).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    /// What is visible now.
    pub(crate) fn shown(&self) -> Output {
        Output::of(&self.output())
    }

    /// Words with their counts, in the order in which they became visible.
    pub(crate) fn counts(output: &Output) -> impl Iterator<Item = (String, u64)> {
        let lines = output.lines("result").into_iter();
        lines.map(|line| serde_json::from_str::<Count>(line).unwrap()).map(|Count { word, count }| (word, count))
    }

    /// Compares the output with the input.
    pub(crate) fn check(&self, output: &Output) -> Result<(), String> {
        let mut totals = BTreeMap::<String, u64>::new();
        words_of(&self.text()).for_each(|word| *totals.entry(word).or_default() += 1);
        counted("result", Self::counts(output), &totals)
    }
}

/// The words of a text, in order, by a loop over its characters.
pub(crate) fn words_of(text: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if c.is_alphanumeric() => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).map(|word| word.to_lowercase())
}
