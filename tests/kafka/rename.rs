//! A job that gets another name and decides in Kafka: its counts go on by one, its old name is refused, wherever the
//! command dies.

use super::broker::{Broker, broker};
use super::exactly_once::{counting, counts_up_to, fill};
use crate::common::{Process, Scratch, myself, named};
use millstream::prelude::*;
use std::process::Command;

/// A job of changing names, and what it has read so far.
struct Named {
    broker: &'static Broker,
    scratch: Scratch,
    topics: [String; 2],
    read: u64,
}

impl Named {
    fn new() -> Self {
        let broker = broker();
        let topics = ["rename-from", "rename-to"].map(|name| broker.topic(name, 2, &[]));
        Self { broker, scratch: Scratch::new(), topics, read: 0 }
    }

    /// More records: so many of each key.
    fn feed(&mut self, each: u64) {
        fill(self.broker, &self.topics[0], self.read * 10..(self.read + each) * 10);
        self.read += each;
    }

    fn command(&self, name: &str, words: &[&str]) -> Command {
        let mut command = myself("kafka::rename::runs_a_command");
        let words = [words, &["--data-dir", "data", "--checkpoint-interval", "100ms"]].concat().join(" ");
        let [from, to] = &self.topics;
        command.envs(
            [("NAME", name), ("WORDS", &words), ("FROM", from), ("TO", to)]
                .map(|(name, value)| (format!("MILLSTREAM_TEST_{name}"), value.to_owned())),
        );
        command.env("MILLSTREAM_TEST_BROKER", &self.broker.address).current_dir(self.scratch.path());
        command
    }

    /// Whether it ended well, and what it said. Whoever yields is started again.
    fn call(&self, name: &str, words: &[&str]) -> Result<String, String> {
        loop {
            let mut process = Process::start(&mut self.command(name, words), &self.scratch.join("log"));
            match process.end().result() {
                Err(said) if said.contains("error: yielded") => {}
                ended => return ended,
            }
        }
    }

    #[track_caller]
    fn refused(&self, name: &str, said: &[&str]) -> String {
        let refused = self.call(name, &["run"]).unwrap_err();
        said.iter().for_each(|said| assert!(refused.contains(said), "`{said}` is not in: {refused}"));
        refused
    }

    #[track_caller]
    fn check(&self) {
        counts_up_to(self.broker, &self.topics[1], self.read);
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn runs_a_command() -> ExitCode {
    let names = ["NAME", "WORDS", "FROM", "TO", "BROKER"];
    let [name, words, from, to, address] = names.map(|name| std::env::var(format!("MILLSTREAM_TEST_{name}")).unwrap());
    let job = Job::new(&*name, counting(&address, (&from, &to), |_| ()));
    let job = job.parallelism(2).workers(2).memory(64 << 20).restart(RestartPolicy::never());
    job.main_with(["job"].into_iter().chain(words.split(' ')))
}

#[test]
fn a_job_goes_on_under_its_new_name_and_not_under_the_old_one() {
    let mut job = Named::new();
    job.feed(3);
    job.call("renamed-a", &["run"]).unwrap();
    crate::common::copy_directory(&job.scratch.join("data"), &job.scratch.join("copy"));
    let refused = job.refused("renamed-b", &["belongs to the job `renamed-a`"]);
    let words = named(&refused, "rename ");
    job.feed(2);
    let said = job.call("renamed-b", &words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert!(said.contains("the job `renamed-b` has what `renamed-a` had"), "{said}");
    job.refused("renamed-a", &["is named `renamed-b` now"]);
    // a copy of what it was does not go on either, nor does it begin anew
    for kept in ["copy", "none"] {
        let (data, aside) = (job.scratch.join("data"), job.scratch.join("aside"));
        std::fs::rename(&data, &aside).unwrap();
        if kept == "copy" {
            std::fs::rename(job.scratch.join("copy"), &data).unwrap();
        }
        job.refused("renamed-a", &["or it was renamed, and is to be started under its new name"]);
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(&aside, &data).unwrap();
    }
    job.call("renamed-b", &["run"]).unwrap();
    job.check();
    let decisions = job.broker.committed("__millstream_progress_renamed-b");
    assert!(decisions.iter().all(|one| one.text().contains(r#""job":"renamed-b""#)));
    // a name that has decided something is not given to another job
    job.call("renamed-c", &["rename", "renamed-b"]).unwrap();
    job.call("renamed-c", &["run"]).unwrap();
    let said = job.call("renamed-a", &["rename", "renamed-c"]).unwrap_err();
    assert!(said.contains("has decided checkpoint"), "{said}");
    job.feed(1);
    job.call("renamed-c", &["run"]).unwrap();
    job.check();
}

#[cfg(debug_assertions)]
#[test]
fn dies_at_each_step_and_is_given_again() {
    let recovery = ["recovery-looked", "recovery-fenced", "recovery-read", "recovery-decided", "recovery-claimed"];
    let more = ["recovery-cleared", "manifest-durable", "manifest-renamed", "checkpoint-written"];
    let last = ["checkpoint-decided", "rename-recorded", "rename-taken", "rename-cleared"];
    let mut points: Vec<(&str, u32)> = [&recovery, &more[..], &last].concat().into_iter().map(|p| (p, 0)).collect();
    // the claim, the decision under the old name, and that under the new one
    points.extend([("checkpoint-recorded", 0), ("checkpoint-recorded", 1), ("checkpoint-recorded", 2)]);
    let mut job = Named::new();
    let mut went_on = Vec::new();
    for (n, (point, skips)) in points.into_iter().enumerate() {
        let [old, new] = [n, n + 1].map(|n| format!("dying-{n}"));
        job.feed(2);
        job.call(&old, &["run"]).unwrap();
        let words = ["rename", &old];
        crate::common::dies_at(&mut job.command(&new, &words), point, skips);
        job.feed(1);
        let (by_new, by_old) = (job.call(&new, &["run"]), job.call(&old, &["run"]));
        assert!(by_new.is_err() || by_old.is_err(), "{point} {skips}: both go on");
        went_on.push((point, skips, by_new.is_ok(), by_old.is_ok()));
        if by_new.is_err() {
            job.call(&new, &words).unwrap_or_else(|said| panic!("{point} {skips}: {said}"));
            job.refused(&old, &["is named"]);
            job.call(&new, &["run"]).unwrap();
        }
        job.check();
    }
    println!("point, skips, new goes on, old goes on: {went_on:#?}");
    let (new, old) = (went_on.iter().filter(|(_, _, new, _)| *new), went_on.iter().filter(|(_, _, _, old)| *old));
    assert!(new.count() == 1 && old.count() > 4, "{went_on:?}");
}
