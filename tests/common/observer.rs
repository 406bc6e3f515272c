//! Looks at a directory of output all the time, as somebody who copies finished files away would, and notes whatever
//! must not be: names that are no part files, visible files that change or go, epochs that become visible out of order.
//!
//! A listing is not atomic. What is visible before a listing begins is in it; so of two files that came into sight in
//! listings j and k, the first was there before the second if k is at least j + 2.

use super::output::PartName;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A visible file as it was first seen.
#[derive(Debug)]
pub(crate) struct Sighting {
    name: PartName,
    /// In which listing it was first seen.
    listing: u64,
    inode: u64,
    bytes: u64,
    content: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Observer {
    directory: PathBuf,
    listing: u64,
    pub(crate) seen: BTreeMap<String, Sighting>,
    /// Of each sink: the epochs that are in sight, each with the first listing that had a file of it.
    epochs: BTreeMap<String, BTreeMap<u64, u64>>,
    wrong: BTreeSet<String>,
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

impl Observer {
    pub(crate) fn new(directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { directory, listing: 0, seen: BTreeMap::new(), epochs: BTreeMap::new(), wrong: BTreeSet::new() }
    }

    /// Looks until `done`; every so often also at what is in the files.
    pub(crate) fn run(&mut self, done: &AtomicBool) {
        while !done.load(Ordering::Acquire) {
            self.look();
            if self.listing.is_multiple_of(64) {
                self.recheck(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// One listing.
    pub(crate) fn look(&mut self) {
        self.listing += 1;
        let listed = super::names(&self.directory);
        for name in &listed {
            if name.starts_with(".pending-") || self.seen.contains_key(name) {
                continue;
            }
            match PartName::parse(name) {
                Some(part) => self.first(name, part),
                None => self.note(format!("`{name}` is neither a part file nor hidden")),
            }
        }
        let listed: BTreeSet<&String> = listed.iter().collect();
        let gone: Vec<String> = self.seen.keys().filter(|name| !listed.contains(name)).cloned().collect();
        for name in gone {
            self.note(format!("the visible file {name} has disappeared"));
        }
    }

    /// A file comes into sight.
    fn first(&mut self, name: &str, part: PartName) {
        let path = self.directory.join(name);
        let (Ok(content), Ok(meta)) = (std::fs::read(&path), path.metadata()) else {
            return self.note(format!("the visible file {name} has disappeared"));
        };
        if content.last() != Some(&b'\n') {
            self.note(format!("the visible file {name} is empty or ends within a line"));
        }
        let epochs = self.epochs.entry(part.sink.clone()).or_default();
        let later = epochs.range(part.epoch + 1..).find(|(_, listing)| **listing + 2 <= self.listing);
        let late = later.map(|(epoch, _)| format!("{name} became visible after epoch {epoch} had"));
        epochs.entry(part.epoch).or_insert(self.listing);
        let (inode, bytes) = (meta.ino(), meta.len());
        let sighting = Sighting { name: part, listing: self.listing, inode, bytes, content: hash(&content) };
        self.seen.insert(name.to_owned(), sighting);
        if let Some(late) = late {
            self.note(late);
        }
    }

    /// Whether the files are still what they were; `deep` reads all of them again.
    fn recheck(&mut self, deep: bool) {
        let changed: Vec<String> = self
            .seen
            .iter()
            .filter(|(name, first)| {
                let path = self.directory.join(name);
                let same = path.metadata().is_ok_and(|now| now.ino() == first.inode && now.len() == first.bytes);
                !same || (deep && !std::fs::read(&path).is_ok_and(|now| hash(&now) == first.content))
            })
            .map(|(name, first)| format!("the visible file {name}, seen since listing {}, has changed", first.listing))
            .collect();
        changed.into_iter().for_each(|text| self.note(text));
    }

    fn note(&mut self, text: String) {
        self.wrong.insert(text);
    }

    /// How many epochs have come into sight.
    pub(crate) fn epochs(&self) -> usize {
        self.seen.values().map(|first| first.name.epoch).collect::<BTreeSet<_>>().len()
    }

    /// A last look at everything; the error says all that was wrong.
    pub(crate) fn verdict(&mut self) -> Result<(), String> {
        self.look();
        self.recheck(true);
        if self.wrong.is_empty() { Ok(()) } else { Err(Vec::from_iter(self.wrong.clone()).join("\n")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::Scratch;

    fn part(epoch: u64, subtask: u64) -> String {
        format!("result-{epoch:010}-{subtask:04}-{:032x}.txt", 7)
    }

    /// Looks after each of the steps, and says what was wrong.
    fn verdict(steps: &[&dyn Fn(&Path)]) -> String {
        let scratch = Scratch::new();
        let mut observer = Observer::new(scratch.path());
        for step in steps {
            step(scratch.path());
            observer.look();
        }
        observer.verdict().err().unwrap_or_default()
    }

    fn write(name: String, text: &'static str) -> impl Fn(&Path) {
        move |directory| std::fs::write(directory.join(&name), text).unwrap()
    }

    #[test]
    fn order_is_fine() {
        let pending = write(".pending-result-1".into(), "");
        assert_eq!(
            verdict(&[&write(part(1, 0), "a\n"), &pending, &write(part(2, 1), "b\n"), &write(part(2, 0), "c\n")]),
            ""
        );
    }

    #[test]
    fn each_wrong_is_noted() {
        let (one, two, none) = (write(part(1, 0), "a\n"), write(part(2, 0), "b\n"), |_: &Path| {});
        let cases: [(&[&dyn Fn(&Path)], &str); 6] = [
            (&[&one, &write(part(1, 0), "b\n")], "has changed"),
            (&[&one, &write(part(1, 0), "a\nb\n")], "has changed"),
            (&[&one, &|d| std::fs::remove_file(d.join(part(1, 0))).unwrap()], "has disappeared"),
            (&[&two, &none, &one], "became visible after epoch 2 had"),
            (&[&write("result.tmp".into(), "a\n")], "neither a part file nor hidden"),
            (&[&write(part(1, 0), "a")], "ends within a line"),
        ];
        for (steps, expect) in cases {
            let found = verdict(steps);
            assert!(found.contains(expect), "`{expect}` is not in `{found}`");
        }
    }
}
