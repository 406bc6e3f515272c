//! The example `word_count` as users run it: its command line, its signals, text by Jane Austen.

use super::campaign::{Life, Places, Subject};
use crate::common::{Output, WordCount, words_of};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The input and what is right.
pub(super) struct Novels {
    word_count: WordCount,
    /// What is appended, again and again from the start.
    more: Vec<String>,
    grown: usize,
}

impl Novels {
    /// With so many lines of each text to begin with.
    pub(super) fn new(places: &Places, lines: usize) -> Self {
        let mut subject = Self { word_count: WordCount::new(&places.root), more: Vec::new(), grown: 0 };
        for name in ["persuasion.txt", "pride_and_prejudice.txt"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
            let text = std::fs::read_to_string(path).unwrap();
            let mut all = text.lines().map(|line| format!("{line}\n"));
            subject.word_count.append(name, all.by_ref().take(lines));
            subject.more.extend(all);
        }
        subject
    }
}

impl Subject for Novels {
    fn command(&self, life: &Life) -> Command {
        let mut command = self.word_count.command();
        command.args(["--checkpoint-interval", "70ms"]);
        command.args(["--memory", "64MiB", "--parallelism", &life.parallelism.to_string()]);
        if life.paced {
            command.args(["--rate", "2500"]);
        }
        command
    }

    fn more_input(&mut self) {
        let more: Vec<String> = self.more.iter().cycle().skip(self.grown * 1500).take(3000).cloned().collect();
        self.grown += 1;
        let (old, new) = more.split_at(1500);
        self.word_count.append("persuasion.txt", old.iter().cloned());
        self.word_count.append(&format!("new-{}.txt", self.grown), new.iter().cloned());
    }

    fn probe(&mut self) {
        let all: BTreeSet<String> = words_of(&self.word_count.text()).collect();
        self.word_count.append("probe.txt", all.into_iter().map(|word| format!("{word}\n")));
    }

    fn check(&self, output: &Output) -> Result<(), String> {
        self.word_count.check(output)
    }

    fn has_signals(&self) -> bool {
        true
    }

    fn input(&self) -> u64 {
        self.word_count.text().lines().count() as u64
    }
}
