//! Directories in which something stands that belongs elsewhere, and those that cannot be read or written. Directories
//! that are busy, copied or put back are in `exactly_once/directory.rs`, programs that do not fit in
//! `exactly_once/program.rs`.

use super::ledger::{Ledger, run};
use super::{copy, tool, tree};
use crate::common::{Process, Scratch, myself};
use millstream::ErrorKind;
use millstream::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// That the job does not run, says this, and leaves all as it was.
#[track_caller]
fn fails(ledger: &Ledger, root: &Path, kind: ErrorKind, said: &[&str]) {
    let before = tree(root);
    let error = run(ledger.job(10_000, None)).expect_err("this must not run");
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    said.iter().for_each(|said| assert!(text.contains(said), "`{said}` is not in: {text}"));
    assert!(tree(root) == before, "it has changed something: {text}");
}

/// That the job goes on to the right output.
#[track_caller]
fn goes_on(ledger: &Ledger, count: u64) {
    run(ledger.job(count, None)).unwrap();
    ledger.check(count, true).unwrap();
}

#[test]
fn f14_manifests_of_other_jobs_and_other_versions_are_refused() {
    let (scratch, strange) = (Scratch::new(), Scratch::new());
    let (ledger, other) = (Ledger::new(scratch.path()), Ledger::named(strange.path(), "other"));
    let count = ledger.prepare() + 50;
    other.prepare();
    let theirs = other.newest_manifest();
    let here = ledger.data().join("checkpoints").join(theirs.file_name().unwrap());
    fs::copy(&theirs, &here).unwrap();
    fails(&ledger, scratch.path(), ErrorKind::Refused, &["belongs to the job `other`", "--data-dir"]);
    fs::remove_file(here).unwrap();

    let ours = ledger.newest_manifest();
    let (text, epoch) = (fs::read_to_string(&ours).unwrap(), ledger.newest()["epoch"].as_u64().unwrap());
    let newer = text.replacen("millstream-manifest 1 ", "millstream-manifest 2 ", 1);
    let next = ours.with_file_name(format!("manifest-{}-{:032x}", epoch + 1, 0xabc));
    for path in [&next, &ours] {
        fs::write(path, &newer).unwrap();
        fails(&ledger, scratch.path(), ErrorKind::Refused, &["has format version 2", "Start the version that took it"]);
        fs::remove_file(path).unwrap();
    }
    fs::write(&ours, text).unwrap();
    goes_on(&ledger, count);
}

#[test]
fn files_of_strangers_stay() {
    let scratch = Scratch::new();
    let ledger = Ledger::new(scratch.path());
    let count = ledger.prepare() + 50;
    let names = ["notes", "live-show/notes", "checkpoints/notes", "checkpoints/manifest-x", "checkpoints/state/delta"];
    for name in names {
        let path = ledger.data().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    goes_on(&ledger, count);
    for name in names {
        assert_eq!(fs::read_to_string(ledger.data().join(name)).unwrap(), "mine", "{name}");
    }
}

#[test]
fn a_file_where_a_directory_should_be_is_named() {
    let scratch = Scratch::new();
    let ledger = Ledger::new(scratch.path());
    let count = ledger.prepare() + 50;
    let away = scratch.join("away");
    for name in ["data", "data/checkpoints", "data/checkpoints/state", "out"] {
        let path = scratch.join(name);
        fs::rename(&path, &away).unwrap();
        fs::write(&path, "a file").unwrap();
        let said = [path.to_str().unwrap(), "a file stands where a directory should be", "move it away"];
        fails(&ledger, scratch.path(), ErrorKind::Io, &said);
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
    }
    goes_on(&ledger, count);
}

/// Not a test: a process that may do what the bits of files allow and no more.
#[test]
#[ignore = "started by another test"]
fn process() {
    let Ok(root) = std::env::var("MILLSTREAM_TEST_DENIED") else { return };
    let job = Ledger::new(Path::new(&root)).job(10_000, None).checkpoint_interval(Duration::from_millis(20));
    let code = run(job).map_or_else(
        |error| {
            eprintln!("error: {error}");
            error.kind().exit_code()
        },
        |()| 0,
    );
    std::process::exit(code.into());
}

/// This binary without the rights that root has over the bits of files.
fn bound(name: &str) -> Command {
    let myself = myself(name);
    let is_root = tool("id", &["-u"]).is_ok_and(|id| id == "0");
    if !is_root {
        return myself;
    }
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(myself.get_program()).args(myself.get_args());
    command
}

#[test]
fn what_may_not_be_read_or_written_is_named() {
    if let Err(why) = tool("setpriv", &["--version"]) {
        return println!("skipped: rights cannot be given up here ({why})");
    }
    let intact = Scratch::new();
    let count = Ledger::new(intact.path()).prepare() + 50;
    let manifest = Ledger::new(intact.path()).newest_manifest();
    let manifest = manifest.strip_prefix(intact.path()).unwrap().to_str().unwrap();
    for (name, mode) in [
        ("data", 0o500),
        ("data", 0o000),
        ("data/LOCK", 0o000),
        ("data/checkpoints", 0o500),
        ("data/checkpoints/state", 0o500),
        ("data/checkpoints/state", 0o300),
        (manifest, 0o000),
        ("out", 0o500),
        ("out", 0o000),
    ] {
        let scratch = Scratch::new();
        copy(intact.path(), scratch.path());
        let (ledger, path) = (Ledger::new(scratch.path()), scratch.join(name));
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let is_dir = path.is_dir();
        set(mode);
        let mut command = bound("damage::directory::process");
        command.env("MILLSTREAM_TEST_DENIED", scratch.path());
        let mut process = Process::start(&mut command, &scratch.join("log"));
        let code = process.wait();
        set(if is_dir { 0o700 } else { 0o600 });
        let text = process.printed();
        assert_eq!(code, Ok(1), "{name} {mode:o}: {text}");
        for said in [path.to_str().unwrap(), "Permission denied", "give this user the right"] {
            assert!(text.contains(said), "{name} {mode:o}: `{said}` is not in: {text}");
        }
        ledger.check(count, false).unwrap();
        goes_on(&ledger, count);
    }
}
