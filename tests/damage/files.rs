//! Every file below a job directory, as it is found there and not by a list, damaged in every way, one at a time.

use super::ledger::{Ledger, run};
use super::{copy, tree};
use crate::common::{Output, Scratch};
use millstream::ErrorKind;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What happens to a file.
#[derive(Debug, Clone, PartialEq)]
enum Damage {
    Halved,
    Emptied,
    /// One bit, in the byte after so many quarters of the file.
    Flipped(usize),
    Longer,
    Removed,
    /// Has the content of this one.
    Replaced(PathBuf),
}

impl Damage {
    /// The content afterwards; none if the file is gone.
    fn of(&self, content: &[u8], all: &BTreeMap<PathBuf, Vec<u8>>) -> Option<Vec<u8>> {
        let mut new = content.to_vec();
        match self {
            Self::Halved => new.truncate(content.len() / 2),
            Self::Emptied => new.clear(),
            Self::Flipped(quarters) => {
                let at = (content.len() * quarters / 4).min(content.len().saturating_sub(1));
                new.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            }
            Self::Longer => new.push(b'\n'),
            Self::Removed => return None,
            Self::Replaced(other) => new.clone_from(&all[other]),
        }
        Some(new)
    }
}

/// The kind of a file: the beginning of its name; of a base, that of the file in it.
fn kind(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let in_base = path.parent().unwrap().to_str().unwrap().contains("base-");
    match (in_base, name.rsplit_once('.')) {
        (true, Some((_, extension))) => format!("base .{extension}"),
        (true, None) => format!("base {}", name.split('-').next().unwrap()),
        (false, _) => name.split('-').next().unwrap().to_owned(),
    }
}

/// What can happen to each file.
fn damages(all: &BTreeMap<PathBuf, Vec<u8>>, few: bool) -> Vec<(PathBuf, Damage)> {
    let mut cases = Vec::new();
    for (path, content) in all {
        let mut ways = vec![Damage::Halved, Damage::Flipped(2), Damage::Removed];
        if !few {
            ways.extend([Damage::Emptied, Damage::Flipped(0), Damage::Flipped(4), Damage::Longer]);
            let others = all.iter().filter(|(other, its)| kind(other) == kind(path) && *its != content);
            let others: Vec<_> = others.map(|(other, _)| Damage::Replaced(other.clone())).collect();
            // the first is the oldest, the last is of the newest or of another subtask
            ways.extend(others.first().cloned());
            ways.extend(others.last().filter(|_| others.len() > 1).cloned());
        }
        ways.retain(|way| way.of(content, all).as_ref() != Some(content));
        cases.extend(ways.into_iter().map(|way| (path.clone(), way)));
    }
    cases
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Right,
    Refused,
}

/// A directory to be damaged, and what it is to come to.
struct Subject {
    intact: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Records of each split in the end.
    count: u64,
}

impl Subject {
    fn new(intact: &Path, count: u64) -> Self {
        let files = tree(&intact.join("data/checkpoints"));
        Self { intact: intact.to_owned(), files, count }
    }

    /// Damages a file of a copy, and starts the job.
    fn case(&self, path: &Path, damage: &Damage) -> Result<Outcome, String> {
        let scratch = Scratch::new();
        copy(&self.intact, scratch.path());
        let ledger = Ledger::new(scratch.path());
        let file = ledger.data().join("checkpoints").join(path);
        match damage.of(&self.files[path], &self.files) {
            Some(content) => fs::write(&file, content).map_err(|e| e.to_string())?,
            None => fs::remove_file(&file).map_err(|e| e.to_string())?,
        }
        let (before, shown) = (tree(scratch.path()), Output::of(&ledger.output()));
        let Err(error) = run(ledger.job(self.count, None)) else {
            Output::of(&ledger.output()).continues(&shown)?;
            return ledger.check(self.count, true).map(|()| Outcome::Right);
        };
        let text = error.to_string();
        if error.kind() != ErrorKind::Refused || error.kind().exit_code() != 78 {
            return Err(format!("{:?}: {text}", error.kind()));
        }
        let mut name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if *damage == Damage::Removed && name.starts_with("manifest") {
            // only the marker knows of it
            name = format!("checkpoint {} was decided", name.split('-').nth(1).unwrap());
        }
        if !text.contains(&name) || !text.contains("--restore") {
            return Err(format!("it does not name the file or what to do: {text}"));
        }
        if tree(scratch.path()) != before {
            return Err(format!("a refusal has changed something: {text}"));
        }
        if *damage == Damage::Flipped(2) {
            fs::write(&file, &self.files[path]).map_err(|e| e.to_string())?;
            run(ledger.job(self.count, None)).map_err(|e| format!("after it was put back: {e}"))?;
            Output::of(&ledger.output()).continues(&shown)?;
            ledger.check(self.count, true)?;
        }
        Ok(Outcome::Refused)
    }

    /// All cases; how many of each kind of file came to what.
    #[track_caller]
    fn check(&self, few: bool) -> BTreeMap<(String, Outcome), usize> {
        let cases = damages(&self.files, few);
        let (next, outcomes, failures) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    while let Some((path, damage)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match self.case(path, damage) {
                            Ok(outcome) => *outcomes.lock().unwrap().entry((kind(path), outcome)).or_default() += 1,
                            Err(why) => failures.lock().unwrap().push(format!("{path:?} {damage:?}: {why}")),
                        }
                    }
                });
            }
        });
        let (outcomes, failures) = (outcomes.into_inner().unwrap(), failures.into_inner().unwrap());
        println!("{} cases: {outcomes:?}", cases.len());
        assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
        outcomes
    }
}

/// Kinds of files that a checkpoint has, and that must be refused at least once when they are damaged.
const KINDS: [&str; 7] = ["base .sst", "base CURRENT", "base MANIFEST", "base OPTIONS", "delta", "items", "manifest"];

#[test]
fn f11_no_damaged_file_leads_to_wrong_output() {
    let scratch = Scratch::new();
    let ledger = Ledger::new(scratch.path());
    let count = ledger.prepare() + 100;
    let outcomes = Subject::new(scratch.path(), count).check(false);
    for kind in KINDS {
        assert!(outcomes.contains_key(&(kind.to_owned(), Outcome::Refused)), "{kind}: {outcomes:?}");
    }
}

/// What nobody has seen may be made once more, so older checkpoints take the place of damaged ones.
#[test]
fn f11_what_does_not_show_yet_is_made_again() {
    let scratch = Scratch::new();
    let ledger = Ledger::new(scratch.path());
    let count = ledger.prepare() + 100;
    ledger.unshow();
    let outcomes = Subject::new(scratch.path(), count).check(true);
    for kind in ["delta", "items", "manifest"] {
        assert!(outcomes.contains_key(&(kind.to_owned(), Outcome::Right)), "{kind}: {outcomes:?}");
    }
}
