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
//! | `power.rs` | power that is cut |

mod directory;
mod files;
mod full;
mod ledger;
mod power;

use crate::common::{Process, Scratch, myself};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

/// Runs a function of this binary in a process with mounts of its own, to which `variable` names a directory. Where a
/// process may not have them it is skipped.
#[track_caller]
fn with_mounts(function: &str, variable: &str, patience: Duration) {
    let scratch = Scratch::new();
    let mut command = match apart(function, &scratch) {
        Ok(command) => command,
        Err(why) => return println!("skipped: a process may not have mounts of its own here ({why})"),
    };
    command.env(variable, scratch.join("own"));
    let mut process = Process::start(&mut command, &scratch.join("log")).patient(patience);
    let code = process.wait();
    println!("{}", process.printed());
    assert_eq!(code, Ok(0));
}

/// This binary with mounts of its own; why not, where that is forbidden.
fn apart(function: &str, scratch: &Scratch) -> Result<Command, String> {
    let is_root = tool("id", &["-u"])? == "0";
    let mut flags = vec!["--mount", "--propagation", "private"];
    flags.extend(if is_root { &[][..] } else { &["--user", "--map-root-user"] });
    let probe = scratch.join("probe");
    std::fs::create_dir(&probe).map_err(|e| e.to_string())?;
    tool("unshare", &[&flags[..], &["mount", "-t", "tmpfs", "tmpfs", probe.to_str().unwrap()]].concat())?;
    let (myself, mut command) = (myself(function), Command::new("unshare"));
    command.args(flags).arg(myself.get_program()).args(myself.get_args());
    Ok(command)
}
