//! A job that gets another name, where the directory decides; where a log does is in `kafka/rename.rs`.

use crate::common::{Output, Process, Scratch, counted, myself, named};
use millstream::prelude::*;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

const KEYS: u64 = 7;

/// Counts the lines of files, into files; of this name.
fn counting(name: &str, root: &Path) -> Job {
    let [input, output] = ["in", "out"].map(|name| root.join(name));
    let topology = move |t: &Topology| {
        t.source("lines", Files::read(&input).lines())
            .key_by(|line| line)
            .aggregate("count", |of| of.count())
            .map(|(line, count)| format!("{line} {count}"))
            .sink("counts", Files::write(&output).text());
        Ok(())
    };
    Job::new(name, topology).parallelism(2).workers(2).memory(64 << 20).restart(RestartPolicy::never())
}

/// A job of changing names, and what it has counted so far.
struct Named {
    scratch: Scratch,
    lines: u64,
}

impl Named {
    fn new() -> Self {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.join("in")).unwrap();
        Self { scratch, lines: 0 }
    }

    /// Appends some lines of each key.
    fn feed(&mut self, lines: u64) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.scratch.join("in").join("a")).unwrap();
        let text: String = (0..lines * KEYS).map(|n| format!("key{}\n", n % KEYS)).collect();
        file.write_all(text.as_bytes()).unwrap();
        self.lines += lines;
    }

    /// A command of the job under a name, in a process of its own.
    fn command(&self, name: &str, data: &str, words: &[&str]) -> Command {
        let mut command = myself("rename::runs_a_command");
        let words = [words, &["--data-dir", data]].concat().join(" ");
        command.envs([("MILLSTREAM_TEST_NAME", name), ("MILLSTREAM_TEST_WORDS", &words)]);
        command.env("MILLSTREAM_TEST_ROOT", self.scratch.path()).current_dir(self.scratch.path());
        command
    }

    /// Whether it ended well, and what it said.
    fn call(&self, name: &str, data: &str, words: &[&str]) -> Result<String, String> {
        Process::start(&mut self.command(name, data, words), &self.scratch.join("log")).end().result()
    }

    #[track_caller]
    fn refused(&self, name: &str, data: &str, said: &[&str]) -> String {
        let refused = self.call(name, data, &["run"]).unwrap_err();
        said.iter().for_each(|said| assert!(refused.contains(said), "`{said}` is not in: {refused}"));
        refused
    }

    /// That each key was counted up one by one, to the end.
    #[track_caller]
    fn check(&self) {
        let output = Output::of(&self.scratch.join("out"));
        let counts = output.lines("counts").into_iter().map(|line| {
            let (key, count) = line.split_once(' ').unwrap();
            (key.to_owned(), count.parse().unwrap())
        });
        let expected: BTreeMap<_, _> = (0..KEYS).map(|key| (format!("key{key}"), self.lines)).collect();
        counted("counts", counts, &expected).unwrap();
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn runs_a_command() -> ExitCode {
    let [name, root, words] =
        ["NAME", "ROOT", "WORDS"].map(|name| std::env::var(format!("MILLSTREAM_TEST_{name}")).unwrap());
    counting(&name, Path::new(&root)).main_with(["job"].into_iter().chain(words.split(' ')))
}

#[test]
fn a_refusal_names_the_command_and_the_job_goes_on_under_its_new_name() {
    let mut job = Named::new();
    job.feed(3);
    job.call("old", "data", &["run"]).unwrap();
    let refused = job.refused("new", "data", &["belongs to the job `old`"]);
    let words = named(&refused, "rename ");
    job.feed(2);
    let said = job.call("new", "data", &words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert!(said.contains("the job `new` has what `old` had"), "{said}");
    job.refused("old", "data", &["is named `new` now"]);
    job.call("new", "data", &["run"]).unwrap();
    job.check();
    // once more is nothing; over what the new name has done it is a mistake
    let said = job.call("new", "data", &["rename", "old"]).unwrap_err();
    assert!(said.contains("checkpoints of its own"), "{said}");
    // says so by the checkpoint with which it was renamed, or by a later one
    job.refused("old", "data", &["`new`"]);
    job.feed(1);
    job.call("new", "data", &["run"]).unwrap();
    job.check();
}

#[test]
fn checkpoints_move_to_the_directory_of_the_new_name() {
    let mut job = Named::new();
    job.feed(3);
    // where jobs live if nothing is said
    let call = |name: &str, words: &[&str]| job.call(name, &format!("millstream-data/{name}"), words);
    let said = call("new", &["rename", "old"]).unwrap_err();
    assert!(said.contains("there is no checkpoint of the job `old`"), "{said}");
    assert!(!job.scratch.join("millstream-data").exists(), "it has made a directory");
    call("old", &["run"]).unwrap();
    call("new", &["rename", "old"]).unwrap();
    call("new", &["rename", "old"]).unwrap();
    job.refused("old", "millstream-data/old", &["is named `new` now"]);
    call("new", &["run"]).unwrap();
    job.check();
    // and back
    let call = |name: &str, words: &[&str]| job.call(name, &format!("millstream-data/{name}"), words);
    call("old", &["rename", "new"]).unwrap();
    job.refused("new", "millstream-data/new", &["is named `old` now"]);
    call("old", &["run"]).unwrap();
    job.check();
    // what is there already is not mixed with
    call("other", &["run"]).unwrap_err();
    let elsewhere = ["rename", "old", "--old-data-dir", "millstream-data/none"];
    let said = call("other", &elsewhere).unwrap_err();
    assert!(said.contains("there is no checkpoint of the job `old` in millstream-data/none"), "{said}");
}

/// Wherever it dies, the two names do not both go on, none of them from nothing; and given again it is carried out.
#[cfg(debug_assertions)]
#[test]
fn dies_at_each_step_and_is_given_again() {
    let of_a_decision = ["recovery-listed", "recovery-decided", "recovery-claimed", "recovery-committed"];
    let more = ["recovery-cleared", "manifest-durable", "manifest-renamed", "checkpoint-written", "checkpoint-decided"];
    let own = millstream::framework::RENAME_FAILPOINTS;
    let points = [&of_a_decision, &more[..], own].concat();
    let mut job = Named::new();
    let (mut names, mut went_on) = (0, BTreeMap::<_, Vec<_>>::new());
    for (point, moves) in points.iter().flat_map(|point| [(*point, false), (*point, true)]) {
        let moved = ["rename-examined", "rename-marked", "rename-left", "rename-moved"].contains(&point);
        if moved && !moves {
            continue;
        }
        let [old, new] = [names, names + 1].map(|n| format!("job{n}"));
        let data = |name: &str| if moves { format!("millstream-data/{name}") } else { "data".to_owned() };
        names += 1;
        let from = if moves { data(&old) } else { "data".into() };
        bring_to(&job, &old, &from);
        job.feed(2);
        job.call(&old, &from, &["run"]).unwrap();
        let words = ["rename", &old];
        crate::common::dies_at(&mut job.command(&new, &data(&new), &words), point, 0);
        job.feed(1);
        let by_new = job.call(&new, &data(&new), &["run"]);
        let by_old = job.call(&old, &from, &["run"]);
        assert!(by_new.is_err() || by_old.is_err(), "{point}: both go on");
        let how = match (&by_new, &by_old) {
            (Ok(_), _) => "new",
            (_, Ok(_)) => "old",
            _ => "none",
        };
        went_on.entry(how).or_default().push(point);
        if by_new.is_err() {
            job.call(&new, &data(&new), &words).unwrap_or_else(|said| panic!("{point}: {said}"));
            job.refused(&old, &from, &["is named"]);
            job.call(&new, &data(&new), &["run"]).unwrap();
        }
        job.check();
        if moves {
            bring_back(&job, &data(&new));
        }
    }
    println!("{names} names; after the kill goes on {went_on:?}");
    assert!(went_on["none"].len() > 4 && went_on["old"].len() > 4 && !went_on["new"].is_empty(), "{went_on:?}");
}

/// The job's checkpoints lie where this name expects them.
#[cfg(debug_assertions)]
fn bring_to(job: &Named, name: &str, data: &str) {
    let (kept, wanted) = (job.scratch.join("data"), job.scratch.join(data));
    if data != "data" && kept.exists() {
        std::fs::create_dir_all(wanted.parent().unwrap()).unwrap();
        std::fs::rename(kept, &wanted).unwrap();
        assert!(wanted.join("checkpoints").exists(), "of {name}");
    }
}

#[cfg(debug_assertions)]
fn bring_back(job: &Named, data: &str) {
    std::fs::rename(job.scratch.join(data), job.scratch.join("data")).unwrap();
}
