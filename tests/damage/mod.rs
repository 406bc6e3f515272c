//! Disks that fail their user: files that are cut off, changed, gone or mixed up, directories that are not to be used,
//! and disks that are full. What is allowed is the output of an undisturbed run, or an error that says what to do and
//! leaves all as it was, so that nothing is lost. Crashes are in `crash`; what a command line says is in
//! `exactly_once/directory.rs`.
//!
//! | file | what |
//! |---|---|
//! | `ledger.rs` | the job that all of them run, and its oracle |
//! | `files.rs` | each file of a directory, damaged in each way |
//! | `directory.rs` | files that belong elsewhere; directories that cannot be read or written |
//! | `full.rs` | a disk that is full at each kind of write |

mod directory;
mod files;
mod full;
mod ledger;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All files below a directory with their content. A lock is held, not read.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if !path.ends_with("LOCK") {
                let content = std::fs::read(&path).unwrap();
                found.insert(path.strip_prefix(directory).unwrap().to_owned(), content);
            }
        }
    }
    found
}

/// Runs a tool of the system.
fn tool(name: &str, arguments: &[&str]) -> Result<String, String> {
    let done = Command::new(name).args(arguments).output().map_err(|e| format!("{name}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(format!("{name}: {}", text(&done.stderr))) }
}

/// Copies all there is below a directory, hard links as such.
fn copy(from: &Path, to: &Path) {
    let from = format!("{}/.", from.display());
    tool("cp", &["-a", &from, to.to_str().unwrap()]).unwrap();
}
