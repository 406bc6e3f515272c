//! What each life of a pipeline has read, so that it can be shown that work is not done again from the start. Written
//! by the pipeline as it reads; what was written survives SIGKILL in the page cache.

use crate::common::names;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The most splits a pipeline may have here.
const SPLITS: usize = 64;

/// Written by a pipeline.
#[derive(Debug)]
pub(super) struct Progress {
    file: Mutex<File>,
    records: AtomicU64,
    seen: [AtomicBool; SPLITS],
}

impl Progress {
    pub(super) fn new(directory: &Path, life: usize) -> Self {
        let file = File::create(directory.join(format!("life-{life:06}"))).unwrap();
        Self { file: Mutex::new(file), records: AtomicU64::new(0), seen: [const { AtomicBool::new(false) }; SPLITS] }
    }

    /// A record was read.
    pub(super) fn read(&self, split: u64, offset: u64) {
        let records = self.records.fetch_add(1, Ordering::Relaxed) + 1;
        let seen = &self.seen[split as usize];
        let is_first = !seen.load(Ordering::Relaxed) && !seen.swap(true, Ordering::Relaxed);
        if is_first || records.is_multiple_of(128) {
            let mut file = self.file.lock().unwrap();
            let first = if is_first { format!("first {split} {offset}\n") } else { String::new() };
            file.write_all(format!("{first}records {records}\n").as_bytes()).unwrap();
        }
    }
}

/// What a life has read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    /// Of each split the offset of its first record.
    pub(super) first: BTreeMap<u64, u64>,
    /// At least so many records.
    pub(super) records: u64,
}

/// What all lives have written here.
pub(super) fn of(directory: &Path) -> Vec<Read> {
    let parse = |text: String| {
        let mut read = Read::default();
        for line in text.lines() {
            let number = |at| line.split(' ').nth(at).and_then(|word| word.parse().ok());
            match (line.split(' ').next(), number(1), number(2)) {
                (Some("first"), Some(split), Some(offset)) => _ = read.first.insert(split, offset),
                (Some("records"), Some(records), None) => read.records = read.records.max(records),
                _ => {}
            }
        }
        read
    };
    names(directory).iter().map(|name| parse(std::fs::read_to_string(directory.join(name)).unwrap())).collect()
}
