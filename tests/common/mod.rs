//! What the tests of this binary share: randomness that can be repeated, scratch directories that outlive a failure,
//! processes, and what may be seen of a directory of output.

mod asks;
mod children;
mod commands;
mod inline;
mod observer;
mod output;
mod random;
mod word_count;

pub(crate) use asks::{Asks, Call};
pub(crate) use children::{Ended, MIB, Process, example, myself, peak};
pub(crate) use commands::named;
#[cfg(debug_assertions)]
pub(crate) use commands::{deaths_in_recoveries, dies_at};
pub(crate) use inline::{collect, gives, job, refused};
pub(crate) use observer::Observer;
pub(crate) use output::{Output, PartName, counted, read_lines, visible};
pub(crate) use random::{Random, mix, seed};
pub(crate) use word_count::{WordCount, words_of};

use std::path::{Path, PathBuf};

/// Where `make soak` is to be told from `make test`.
pub(crate) fn is_soak() -> bool {
    std::env::var_os("MILLSTREAM_SOAK").is_some_and(|value| value == "1")
}

/// A directory that goes with this value, unless the test fails: then it stays, and its path is printed.
pub(crate) struct Scratch(Option<tempfile::TempDir>);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(Some(tempfile::Builder::new().prefix("millstream-test-").tempdir().unwrap()))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(directory) = self.0.take().filter(|_| std::thread::panicking()) {
            eprintln!("left for a look: {}", directory.keep().display());
        }
    }
}

/// The names in a directory, sorted; none if there is no such directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
