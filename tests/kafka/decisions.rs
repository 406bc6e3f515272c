//! The log of decisions and the data directory do not agree: what is refused, what it says, and the way out.

use super::broker::{Broker, Rec, broker};
use super::counting::Counting;
use crate::common::{Scratch, copy_directory, example};
use std::path::PathBuf;

/// A job that was started twice and has read all there is.
struct Ended {
    scratch: Scratch,
    counting: Counting<'static>,
}

impl Ended {
    fn new() -> Self {
        let (scratch, broker): (_, &'static Broker) = (Scratch::new(), broker());
        let mut counting = Counting::new(broker, scratch.path(), 2);
        for _ in 0..2 {
            counting.write(200);
            counting.finish(&scratch.join("data"), &[]);
        }
        Self { scratch, counting }
    }

    fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    fn refused(&self, said: &[&str]) {
        let before = self.counting.watch();
        before.wait_for(self.counting.records());
        self.counting.refused(&self.data(), &[], said);
        before.check_all();
    }
}

#[test]
fn f12_a_log_that_was_deleted_is_refused_and_can_be_given_up() {
    let mut ended = Ended::new();
    let topic = ended.counting.progress_topic();
    ended.counting.broker.delete(&topic);
    ended.refused(&["is gone", &topic, "with the command `adopt`"]);
    // nothing was in flight, so that nothing comes twice
    let data = ended.data();
    ended.counting.write(100);
    let adopt = || {
        let mut command = ended.counting.command(&data, &[]);
        let arguments: Vec<_> = command.get_args().skip(1).map(ToOwned::to_owned).collect();
        command = example("kafka_count");
        let output = command.arg("adopt").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let old = newest(&ended);
    assert_eq!(adopt(), format!("adopted checkpoint {old} as {}: the next run goes on from it\n", old + 1));
    assert!(adopt().contains("is what the job goes on from already"));
    ended.counting.finish(&data, &[]);
    ended.counting.write(100);
    ended.counting.finish(&data, &[]);
    ended.counting.watch().check_all();
}

/// The number of the newest checkpoint.
fn newest(ended: &Ended) -> u64 {
    let shown = example("kafka_count").args(["checkpoints", "list", "--json", "--data-dir"]).arg(ended.data()).output();
    let shown: serde_json::Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
    shown["checkpoints"].as_array().unwrap().iter().map(|c| c["epoch"].as_u64().unwrap()).max().unwrap()
}

#[test]
fn f12_a_log_that_was_made_again_is_refused() {
    let ended = Ended::new();
    let topic = ended.counting.progress_topic();
    ended.counting.broker.delete(&topic);
    ended.counting.broker.make(&topic, 1, &[("cleanup.policy", "compact")]);
    ended.refused(&[&topic, "the log was deleted and made again"]);
}

#[test]
fn f12_records_that_a_stranger_put_into_the_log_are_refused() {
    let ended = Ended::new();
    let topic = ended.counting.progress_topic();
    ended.counting.broker.write([Rec::new(&topic, 0, "hello").key("world")]);
    ended.refused(&[&topic]);
}

#[test]
fn f12_a_directory_that_was_put_back_is_refused() {
    let mut ended = Ended::new();
    let (data, old) = (ended.data(), ended.scratch.join("old"));
    copy_directory(&data, &old);
    ended.counting.write(100);
    ended.counting.finish(&data, &[]);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&old, &data).unwrap();
    ended.refused(&["put back to an earlier state or copied"]);
}

#[test]
fn f12_an_empty_directory_is_refused_where_output_shows() {
    let ended = Ended::new();
    std::fs::remove_dir_all(ended.data()).unwrap();
    ended.refused(&["which", "does not hold (there is none here)", "--restore none --allow-duplicates"]);
}

#[test]
fn brokers_can_be_checked_without_a_run() {
    let ended = Ended::new();
    let check = |flags: &[&str]| {
        let mut command = example("kafka_count");
        command.args(["check", "--brokers", &ended.counting.broker.address]);
        command.args(["--input-topic", "in", "--output-topic", "never-written"]).args(flags);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(check(&[]).contains("settings and topology are in order"));
    assert!(check(&["--broker"]).contains("a producer that was replaced cannot commit"));
    assert!(!ended.counting.broker.tool(&["topics", "--list"]).contains("never-written"), "it has made a topic");
}

#[test]
fn f11_a_damaged_checkpoint_is_refused() {
    let ended = Ended::new();
    let checkpoints = ended.data().join("checkpoints");
    let name = format!("manifest-{}-", newest(&ended));
    let manifest = crate::common::names(&checkpoints).into_iter().find(|n| n.starts_with(&name)).unwrap();
    let text = std::fs::read(checkpoints.join(&manifest)).unwrap();
    std::fs::write(checkpoints.join(&manifest), &text[..text.len() / 2]).unwrap();
    ended.refused(&["is damaged", &manifest]);
    std::fs::write(checkpoints.join(&manifest), text).unwrap();
    ended.counting.finish(&ended.data(), &[]);
}
