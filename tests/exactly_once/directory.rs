//! Directories that are busy, damaged, rolled back or somebody else's, and what `--restore` may do.

use super::{epochs, files, finished, lines, refused, word_count};
use crate::common::{Output, PartName, Scratch, WordCount, copy_directory, names};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[test]
fn f4_a_second_instance_is_told_who_holds_the_directory() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    let mut first = job.start(&["--rate", "100", "--checkpoint-interval", "50ms"]);
    assert!(first.wait_until(|| !epochs(&job.shown()).is_empty()).unwrap(), "{}", first.tail());
    let holder = format!("process {}", first.id());
    job.run(&[]).expect(75, &[&holder, "--data-dir"]);
    assert!(first.ended().is_none());
    first.ends_well();
    job.run(&[]).expect(0, &["finished"]);
    job.check(&job.shown()).unwrap();
}

#[test]
fn f12_output_without_its_checkpoints_is_refused() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    fs::remove_dir_all(job.data()).unwrap();
    refused(&job, &[], &["shows output up to epoch", "holds no checkpoint", "--data-dir"]);
    refused(&job, &["--restore", "none"], &["--allow-duplicates"]);
    // on the user's word all of it is written once more, above what shows
    let before = job.shown();
    job.run(&["--allow-duplicates"]).expect(0, &["finished: 1000 records in"]);
    twice(&job, &before);
}

#[test]
fn none_is_restored_over_visible_output_only_with_the_word_for_it() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    refused(&job, &["--restore", "none"], &["--allow-duplicates"]);
    let before = job.shown();
    job.run(&["--restore", "none", "--allow-duplicates"]).expect(0, &["finished: 1000 records in"]);
    twice(&job, &before);
    let all = job.shown();
    job.run(&[]).expect(0, &["finished: 0 records in"]);
    assert_eq!(job.shown(), all);
}

/// That `before` still shows, and that what came is the whole result once more, under higher numbers.
#[track_caller]
fn twice(job: &WordCount, before: &Output) {
    let after = job.shown();
    after.continues(before).unwrap();
    let new = Output(after.0.into_iter().filter(|(name, _)| !before.0.contains_key(name)).collect());
    assert!(epochs(&new)[0] > *epochs(before).last().unwrap(), "numbering goes on");
    job.check(&new).unwrap();
}

#[test]
fn a_chosen_checkpoint_is_restored() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let before = job.shown();
    let (id, _) = files(&job, "manifest-")[0];
    let newest = files(&job, "manifest-").last().unwrap().0;
    assert!(id < newest, "at least two checkpoints are kept");
    let id_text = id.to_string();
    refused(&job, &["--restore", &id_text], &["--allow-duplicates", &format!("going back to checkpoint {id}")]);
    refused(&job, &["--restore", "9999"], &["there is no checkpoint 9999", &id_text]);
    job.run(&["--restore", "9999x"]).expect(2, &["latest, none or the number"]);

    job.run(&["--restore", &id_text, "--allow-duplicates", "--parallelism", "3"])
        .expect(0, &[&format!("resumed from checkpoint {id}")]);
    let after = job.shown();
    after.continues(&before).unwrap();
    // what came before the checkpoint, then what came after it, once more
    let until = |name: &String| PartName::parse(name).unwrap().epoch <= id || !before.0.contains_key(name);
    let (again, _): (BTreeMap<_, _>, BTreeMap<_, _>) = after.0.clone().into_iter().partition(|(name, _)| until(name));
    let again = Output(again);
    assert!(again.0.keys().any(|name| PartName::parse(name).unwrap().epoch > newest), "numbering goes on");
    job.check(&again).unwrap();
    job.append("a.txt", lines(1000, 1010));
    job.run(&[]).expect(0, &["finished: 10 records in"]);
}

/// Spoils the newest file of a kind in one of three ways.
fn spoil(path: &Path, how: &str) {
    let mut content = fs::read(path).unwrap();
    match how {
        "removed" => return fs::remove_file(path).unwrap(),
        "truncated" => content.truncate(content.len() / 2),
        "flipped" => {
            let at = content.len() / 2;
            content[at] ^= 1;
        }
        _ => unreachable!("no such way"),
    }
    fs::write(path, content).unwrap();
}

#[test]
fn f11_a_damaged_checkpoint_that_shows_is_refused() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let intact = scratch.join("intact");
    copy_directory(&job.data(), &intact);
    for (kind, how, said) in [
        ("manifest-", "flipped", "is damaged"),
        ("manifest-", "truncated", "is damaged"),
        ("manifest-", "removed", "was decided, but the newest one is"),
        ("delta-", "flipped", "is damaged"),
        ("delta-", "truncated", "is damaged"),
        ("delta-", "removed", "is damaged"),
    ] {
        let (_, newest) = files(&job, kind).pop().unwrap();
        spoil(&newest, how);
        refused(&job, &[], &[said, "--restore"]);
        fs::remove_dir_all(job.data()).unwrap();
        copy_directory(&intact, &job.data());
    }
    job.append("a.txt", lines(1000, 1010));
    job.run(&[]).expect(0, &["finished: 10 records in"]);
    job.check(&job.shown()).unwrap();
}

#[test]
fn an_old_checkpoint_may_be_damaged() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    spoil(&files(&job, "manifest-")[0].1, "flipped");
    job.append("a.txt", lines(1000, 1010));
    job.run(&[]).expect(0, &["finished: 10 records in"]);
    job.check(&job.shown()).unwrap();
}

/// As a crash between the decision and the first rename leaves it, with a disk that has lost the manifest.
#[test]
fn a_damaged_checkpoint_that_does_not_show_is_fallen_back_from() {
    for how in ["flipped", "truncated"] {
        let scratch = Scratch::new();
        let job = finished(&scratch);
        let (newest, manifest) = files(&job, "manifest-").pop().unwrap();
        spoil(&manifest, how);
        fs::remove_file(job.data().join(format!("checkpoints/decided-{newest}"))).unwrap();
        for name in job.shown().0.keys().filter(|name| PartName::parse(name).unwrap().epoch == newest) {
            fs::remove_file(job.output().join(name)).unwrap();
        }
        let before = job.shown();
        job.run(&[]).expect(0, &["a checkpoint is damaged", "finished"]);
        job.shown().continues(&before).unwrap();
        job.check(&job.shown()).unwrap();
        job.append("b.txt", lines(1000, 1010));
        job.run(&[]).expect(0, &["finished: 10 records in"]);
        job.check(&job.shown()).unwrap();
    }
}

#[test]
fn f12_a_directory_that_was_put_back_is_refused() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let old = scratch.join("old");
    copy_directory(&job.data(), &old);
    job.append("a.txt", lines(1000, 1100));
    job.run(&[]).expect(0, &["finished"]);
    let newer = scratch.join("newer");
    fs::rename(job.data(), &newer).unwrap();
    copy_directory(&old, &job.data());
    refused(&job, &[], &["put back to an earlier state or copied", "--allow-duplicates"]);
    // the same number, another attempt
    job.append("b.txt", lines(1100, 1200));
    let output = job.output();
    fs::rename(&output, scratch.join("output-of-newer")).unwrap();
    job.run(&[]).expect(0, &["finished"]);
    fs::rename(&output, scratch.join("output-of-old")).unwrap();
    fs::rename(scratch.join("output-of-newer"), &output).unwrap();
    refused(&job, &[], &["another history has been written since"]);
    // the right one is welcome
    fs::remove_dir_all(job.data()).unwrap();
    fs::rename(&newer, job.data()).unwrap();
    job.run(&[]).expect(0, &["finished: 100 records in"]);
    job.check(&job.shown()).unwrap();
}

#[test]
fn pending_files_of_dead_attempts_are_cleared_away_and_strangers_files_are_not() {
    let scratch = Scratch::new();
    let job = finished(&scratch);
    let pending = format!(".pending-result-{:010}-{:04}-{:032x}", 7, 1, 0xabc);
    for name in [&pending, ".notes", ".pending-notes", ".pending-other-0000000001-0000-0"] {
        fs::write(job.output().join(name), "mine").unwrap();
    }
    job.run(&[]).expect(0, &["finished"]);
    let hidden: Vec<_> = names(&job.output()).into_iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(hidden, [".notes", ".pending-notes", ".pending-other-0000000001-0000-0"]);
}
