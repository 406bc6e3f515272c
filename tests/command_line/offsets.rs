//! `offsets reset` of `word_count`: files that are read again, passed over or forgotten; and that the commands which
//! refusals name are commands.

use super::{lines, word_count};
use crate::common::{Ended, Scratch, WordCount, example, named};
use std::collections::BTreeMap;
use std::path::Path;

/// Calls a command with the directories of the job.
#[track_caller]
fn call(job: &WordCount, words: &[&str]) -> Ended {
    let [input, output, data] = [job.input(), job.output(), job.data()].map(|path| path.display().to_string());
    let directories = ["--input", &input, "--output", &output, "--data-dir", &data];
    job.call(&[words, &directories].concat(), &[])
}

#[track_caller]
fn reset(job: &WordCount, flags: &[&str]) -> Ended {
    call(job, &[&["offsets", "reset"], flags].concat())
}

/// How often each word was seen, as the output says last.
fn last(job: &WordCount) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for (word, count) in WordCount::counts(&job.shown()) {
        let before = last.insert(word, count).unwrap_or(0);
        assert_eq!(count, before + 1, "counted one by one");
    }
    last
}

/// Each count of a map, so many times.
fn times(counts: &BTreeMap<String, u64>, n: u64) -> BTreeMap<String, u64> {
    counts.iter().map(|(word, count)| (word.clone(), count * n)).collect()
}

/// A job that has counted what there is, and how often it has seen each word.
fn counted() -> (Scratch, WordCount, BTreeMap<String, u64>) {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    job.run(&[]).expect(0, &["finished"]);
    let once = last(&job);
    (scratch, job, once)
}

#[test]
fn a_file_is_read_again_or_passed_over_and_the_state_stays() {
    let (_scratch, job, once) = counted();
    let said = ["Source text of the job word_count", "a.txt", "-> 0  100 lines", "are read again", "with --execute"];
    reset(&job, &["--to", "earliest"]).expect(0, &said);
    job.run(&[]).expect(0, &["finished"]);
    assert_eq!(last(&job), once, "a plan changes nothing");
    reset(&job, &["--to", "earliest", "--execute"]).expect(0, &["is decided: the next run goes on from it"]);
    job.run(&[]).expect(0, &["finished"]);
    assert_eq!(last(&job), times(&once, 2));
    job.append("a.txt", lines(0));
    reset(&job, &["--source", "text", "--to", "latest", "--execute"]).expect(0, &["100 lines", "are passed over"]);
    job.run(&[]).expect(0, &["finished"]);
    assert_eq!(last(&job), times(&once, 2));
    let half = std::fs::metadata(job.input().join("a.txt")).unwrap().len() / 2;
    reset(&job, &["--to", &half.to_string(), "--execute"]).expect(0, &["100 lines", "are read again"]);
    reset(&job, &["--to", &half.to_string(), "--execute"]).expect(0, &["Nothing changes"]);
    job.run(&[]).expect(0, &["finished"]);
    assert_eq!(last(&job), times(&once, 3));
}

#[test]
fn the_checkpoint_before_can_be_restored() {
    let (_scratch, job, once) = counted();
    let said = reset(&job, &["--to", "earliest", "--execute"]).expect(0, &[]).printed;
    let back = named(&said, "run --restore");
    job.append("a.txt", lines(0));
    job.run(&back.iter().skip(1).map(String::as_str).collect::<Vec<_>>()).expect(0, &["finished"]);
    assert_eq!(last(&job), times(&once, 2), "from the end of what was read, and not from the beginning");
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    reset(&job, &["--to", "earliest"]).expect(2, &["holds no checkpoints"]);
    assert!(!job.data().exists(), "it has made a directory");
    job.run(&[]).expect(0, &["finished"]);
    reset(&job, &["--source", "texts", "--to", "earliest"]).expect(2, &["no source `texts`", "there are: text ("]);
    reset(&job, &["--split", "b.txt", "--to", "earliest"]).expect(2, &["no source has a split `b.txt`", "a.txt"]);
    let said = ["no split `b.txt` of the source `text`", "there are: ", "a.txt"];
    reset(&job, &["--source", "text", "--split", "b.txt", "--to", "earliest"]).expect(2, &said);
    reset(&job, &["--to", "99999999"]).expect(2, &["bytes: name one of them"]);
    reset(&job, &["--to", "1"]).expect(2, &["no line of", "begins at byte 1"]);
    reset(&job, &["--to", "2026-01-31T12:00:00Z"]).expect(2, &["have no times"]);
    reset(&job, &["--to", "yesterday"]).expect(2, &["write `earliest`, `latest`, `forget`, a number, or a time"]);
    job.run(&[]).expect(0, &["finished"]);
    last(&job);
}

/// Does what a refusal names, and gives what was said.
#[track_caller]
fn obey(job: &WordCount, refused: &Ended) -> String {
    let words = named(&refused.printed, "offsets reset");
    call(job, &words.iter().map(String::as_str).collect::<Vec<_>>()).expect(0, &["is decided"]).printed
}

#[test]
fn a_file_that_was_changed_and_one_that_is_gone_are_gone_on_with_as_the_refusal_says() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    job.append("b.txt", lines(50));
    job.run(&[]).expect(0, &["finished"]);
    let before = last(&job);
    std::fs::write(job.input().join("a.txt"), "a file of five words\n").unwrap();
    let refused = job.run(&[]).expect(78, &["is not the file", "it has 21 bytes"]);
    obey(&job, &refused);
    std::fs::remove_file(job.input().join("b.txt")).unwrap();
    let refused = job.run(&[]).expect(78, &["b.txt", "it is missing"]);
    assert!(obey(&job, &refused).contains("-> -  forgotten"));
    job.run(&[]).expect(0, &["finished"]);
    let mut expected = before;
    expected.extend(["a", "file", "of", "five", "words"].map(|word| (word.to_owned(), 1)));
    assert_eq!(last(&job), expected);
}

/// The commands between backticks in the code of a file, each line end within a text being none; `{..}` and upper case
/// stand for what is known when they are said.
fn commands(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap().replace("\\\n", " ");
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let quoted = code.split('`').map(|quoted| quoted.split_whitespace().collect::<Vec<_>>().join(" "));
    let begins = ["offsets reset", "adopt", "rename ", "run --"];
    quoted.filter(|quoted| begins.iter().any(|word| quoted.starts_with(word)) && !quoted.contains('"')).collect()
}

fn sources(directory: &Path, all: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => sources(&path, all),
            Some(end) if end == "rs" => all.push(path),
            _ => {}
        }
    }
}

#[test]
fn commands_that_messages_name_are_there() {
    let (scratch, root) = (Scratch::new(), Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut files = Vec::new();
    ["framework/src", "operators/src"].iter().for_each(|directory| sources(&root.join(directory), &mut files));
    let mut found = files.iter().flat_map(|path| commands(path)).collect::<Vec<_>>();
    found.sort();
    found.dedup();
    for command in &found {
        // a number is right wherever something is left open
        let words = command.split(' ').map(|word| {
            let is_open = word.contains('{') || word.chars().all(|c| c.is_ascii_uppercase());
            if is_open && !word.contains("earliest") { "7" } else { word }
        });
        let mut process = example("word_count");
        process.args(words).current_dir(scratch.path());
        process.args(["--input", "none", "--output", "none", "--data-dir", "none"]);
        let ended = process.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.starts_with("error: ") && !said.contains("Usage:"), "`{command}`: {said}");
    }
    println!("{found:#?}");
    for wanted in ["offsets reset --split", "adopt", "run --restore"] {
        assert!(found.iter().any(|command| command.starts_with(wanted)), "nobody names `{wanted}`: {found:?}");
    }
}
