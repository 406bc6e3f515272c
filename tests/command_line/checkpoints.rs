//! `checkpoints list`, `show` and `verify` of `word_count`: what they say of its directory, intact, damaged and in use,
//! compared with what the next start does.

use super::{lines, word_count};
use crate::common::{Ended, Scratch, WordCount, copy_directory, names};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Read in three runs, so that there are some checkpoints, with state.
fn finished(scratch: &Scratch) -> WordCount {
    let job = word_count(scratch);
    for from in [100, 200, 300] {
        job.run(&["--parallelism", "2"]).expect(0, &["finished"]);
        job.append("a.txt", lines(from));
    }
    job
}

fn call(job: &WordCount, arguments: &[&str]) -> Ended {
    let data = job.data();
    job.call(&[&["checkpoints"], arguments, &["--data-dir", data.to_str().unwrap()]].concat(), &[])
}

fn list(job: &WordCount, flags: &[&str]) -> Value {
    let ended = call(job, &[&["list", "--json"], flags].concat()).expect(0, &[]);
    serde_json::from_str(&ended.printed).unwrap()
}

/// The checkpoints of a list that hold something, by number.
fn that_are(list: &Value, what: &str) -> Vec<u64> {
    let all = list["checkpoints"].as_array().unwrap().iter();
    all.filter(|line| line[what] == true).map(|line| line["epoch"].as_u64().unwrap()).collect()
}

/// The newest file below the directory of checkpoints whose name begins like this.
fn newest(job: &WordCount, kind: &str) -> PathBuf {
    let below = if kind.starts_with("delta") { "checkpoints/state" } else { "checkpoints" };
    let directory = job.data().join(below);
    let epoch = |name: &String| name.split('-').nth(1).unwrap().parse::<u64>().unwrap();
    let all = names(&directory).into_iter().filter(|name| name.starts_with(kind));
    directory.join(all.max_by_key(epoch).unwrap())
}

fn spoil(path: &Path, how: &str) {
    let mut content = std::fs::read(path).unwrap();
    let middle = content.len() / 2;
    match how {
        "truncated" => content.truncate(middle),
        "flipped" => content[middle] ^= 1,
        _ => return std::fs::remove_file(path).unwrap(),
    }
    std::fs::write(path, content).unwrap();
}

#[test]
fn what_is_there_is_listed_and_shown() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let all = list(&job, &["--verify"]);
    let restorable = that_are(&all, "restorable");
    assert!(restorable.len() >= 2 && restorable.len() <= 3, "three are kept: {all}");
    let newest = restorable.last().copied().unwrap();
    assert_eq!((that_are(&all, "next"), &all["next_start"]["does"]), (vec![newest], &Value::from("restore")));
    assert_eq!(that_are(&all, "finished"), restorable);
    assert_eq!(all["next_start"]["refuses_if_shown"], Value::Null);
    let said = format!("the next start takes checkpoint {newest}");
    call(&job, &["list"]).expect(0, &["checkpoints of the job word_count", "finished", &said]);
    let manifest: Value = serde_json::from_str(&call(&job, &["show", "--json"]).expect(0, &[]).printed).unwrap();
    assert_eq!((manifest["epoch"].as_u64(), manifest["job"].as_str()), (Some(newest), Some("word_count")));
    let number = restorable[0].to_string();
    let said =
        [&format!("checkpoint {number} of"), "source text", "a.txt", "operator counts  2 subtasks, key str", "u64"];
    call(&job, &["show", &number]).expect(0, &said);
    call(&job, &["verify"]).expect(0, &[&format!("checkpoint {newest} (attempt"), "intact"]);
    call(&job, &["show", "9999"]).expect(2, &["there is no checkpoint 9999", &number]);
    call(&job, &["verify", "9999"]).expect(2, &["there is no checkpoint 9999"]);
    job.run(&[]).expect(0, &[&format!("resumed from checkpoint {newest}")]);
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    for command in ["list", "show", "verify"] {
        call(&job, &[command]).expect(2, &["holds no checkpoints", "--data-dir"]);
    }
    assert!(!job.data().exists());
    job.run(&[]).expect(0, &[]);
    call(&job, &["list"]).expect(0, &["the next start takes checkpoint"]);
}

#[test]
fn damage_is_found_and_what_follows_from_it_is_said() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let (intact, before) = (scratch.join("intact"), that_are(&list(&job, &[]), "restorable"));
    copy_directory(&job.data(), &intact);
    let last = *before.last().unwrap();
    for (kind, how, said) in [
        ("manifest-", "truncated", "manifest: its content does not have the SHA-256"),
        ("manifest-", "flipped", "manifest: "),
        ("delta-", "truncated", "bytes and should have"),
        ("delta-", "flipped", "its content has the checksum"),
        ("delta-", "removed", "No such file"),
    ] {
        let path = newest(&job, kind);
        spoil(&path, how);
        let number = last.to_string();
        for which in [&["--all"][..], &[], &[&number]] {
            call(&job, &[&["verify"], which].concat()).expect(78, &[said, "damaged"]);
        }
        if kind == "delta-" {
            let name = path.file_name().unwrap().to_str().unwrap();
            call(&job, &["verify"]).expect(78, &[name]);
        }
        let found = list(&job, &["--verify"]);
        assert!(!that_are(&found, "restorable").contains(&last), "{kind} {how}: {found}");
        // only reading all of it finds a flipped bit
        let glance = that_are(&list(&job, &[]), "restorable").contains(&last);
        assert_eq!(glance, (kind, how) == ("delta-", "flipped"), "{kind} {how}");
        // the sink shows what the damaged one wrote, which the directory does not know
        assert_eq!(found["next_start"]["refuses_if_shown"], last, "{kind} {how}");
        job.run(&[]).expect(78, &["is damaged"]);
        std::fs::remove_dir_all(job.data()).unwrap();
        copy_directory(&intact, &job.data());
    }
    call(&job, &["verify", "--all"]).expect(0, &["intact"]);
}

#[test]
fn a_manifest_that_is_gone_is_noticed() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    std::fs::remove_file(newest(&job, "manifest-")).unwrap();
    call(&job, &["list"]).expect(0, &["the next start refuses", "was decided, but the newest one is"]);
    assert_eq!(list(&job, &[])["next_start"]["does"], "refuse");
    call(&job, &["verify"]).expect(78, &["was decided, but the newest one is"]);
    job.run(&[]).expect(78, &["was decided, but the newest one is"]);
}

#[test]
fn an_old_one_that_is_damaged_changes_nothing() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let all = that_are(&list(&job, &[]), "restorable");
    let directory = job.data().join("checkpoints");
    let start = format!("manifest-{}-", all[0]);
    let oldest = names(&directory).into_iter().find(|name| name.starts_with(&start)).unwrap();
    spoil(&directory.join(oldest), "flipped");
    let found = list(&job, &["--verify"]);
    assert_eq!(
        (that_are(&found, "next"), &found["next_start"]["refuses_if_shown"]),
        (vec![all[all.len() - 1]], &Value::Null)
    );
    call(&job, &["verify"]).expect(0, &["intact"]);
    call(&job, &["verify", "--all"]).expect(78, &["damaged"]);
    job.run(&[]).expect(0, &[&format!("resumed from checkpoint {}", all[all.len() - 1])]);
}

#[test]
fn one_may_look_while_the_job_runs() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    (1..6).for_each(|n| job.append("a.txt", lines(n * 100)));
    let mut running = job.start(&["--rate", "40", "--checkpoint-interval", "5ms", "--keep", "1", "--workers", "1"]);
    assert!(running.wait_until(|| !job.shown().0.is_empty()).unwrap(), "{}", running.tail());
    let mut seen = Vec::new();
    while running.ended().is_none() && seen.len() < 20 {
        let all = list(&job, &["--verify"]);
        assert_eq!(all["next_start"]["does"], "restore", "{all}");
        assert_eq!(that_are(&all, "restorable").len(), all["checkpoints"].as_array().unwrap().len(), "{all}");
        seen.extend(that_are(&all, "next"));
        call(&job, &["verify", "--all"]).expect(0, &[]);
        call(&job, &["show"]).expect(0, &["source text"]);
    }
    assert!(seen.len() > 2 && seen.is_sorted() && seen[0] < seen[seen.len() - 1], "{seen:?}");
    if running.ended().is_none() {
        running.terminate();
    }
    assert_eq!(running.wait().unwrap(), 0, "{}", running.tail());
    job.run(&[]).expect(0, &["finished"]);
    job.check(&job.shown()).unwrap();
}
