//! Disks that are full. A process with mounts of its own gives the job a small tmpfs, as data directory or as output,
//! with so much left that each kind of write is the first to fail once; then it makes room, and the job goes on.
//!
//! A tmpfs is short of bytes or of files, and both are "no space". Names and empty files take no bytes, so it is the
//! files that let the making of directories and markers fail.

use super::ledger::{Ledger, SPLITS, run};
use super::{copy, tool, with_mounts};
use crate::common::{Output, Scratch, WordCount, counted, mix, names};
use millstream::prelude::*;
use millstream::sources::ChannelSender;
use millstream::{ErrorKind, JobHandle};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Of what there is too little, and how much is left.
#[derive(Debug, Clone, Copy)]
enum Left {
    Kib(u64),
    Files(u64),
}

/// A tmpfs, for as long as this value lives.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(path).map_err(|e| e.to_string())?;
        let options = "size=256m,nr_inodes=100000,mode=700";
        tool("mount", &["-t", "tmpfs", "-o", options, "tmpfs", path.to_str().unwrap()])?;
        Ok(Self(path.to_owned()))
    }

    fn remount(&self, options: &str) {
        tool("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]).unwrap();
    }

    fn used(&self, what: &str) -> u64 {
        let found = tool("df", &[&format!("--output={what}"), "-B1", self.0.to_str().unwrap()]).unwrap();
        found.lines().last().unwrap().trim().parse().unwrap()
    }

    /// Leaves so much room and no more.
    fn limit(&self, left: Left) {
        match left {
            Left::Kib(kib) => self.remount(&format!("size={}", (self.used("used") + kib * 1024).max(4096))),
            Left::Files(files) => self.remount(&format!("nr_inodes={}", self.used("iused") + files)),
        }
    }

    fn enlarge(&self) {
        self.remount("size=256m,nr_inodes=100000");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = tool("umount", &["-l", self.0.to_str().unwrap_or_default()]);
    }
}

const FOLD: &str = "fold";
const BASE: &str = "base checkpoint";

/// What was written, by what an error says of it; the first that is found counts.
const WRITES: [(&str, &str); 12] = [
    ("folding: ", FOLD),
    ("the marker", "marker"),
    ("/tmp-manifest-", "manifest"),
    ("/delta-", "delta"),
    ("/items-", "items"),
    ("/.pending-", "part file"),
    ("/state/base-", BASE),
    ("/base", "base"),
    ("/spill-", "spill"),
    ("/live-", "working directory"),
    ("/LOCK", "lock"),
    ("create the directory", "directory"),
];

fn write_of(text: &str) -> Option<&'static str> {
    WRITES.iter().find(|(said, _)| text.contains(said)).map(|(_, write)| *write)
}

struct Subject {
    root: PathBuf,
    count: u64,
    parallelism: usize,
}

impl Subject {
    /// With as many records as are read in a third of a second.
    fn new(root: PathBuf, parallelism: usize) -> Self {
        let count = Ledger::new(&root).prepare() + 700 / SPLITS;
        Self { root, count, parallelism }
    }

    /// Few rows in memory, as rows or spilled, so that the others are spilled to files, and many checkpoints.
    fn job(&self, ledger: &Ledger) -> Job {
        let job = ledger.job(self.count, Some(2000)).parallelism(self.parallelism).cache_rows(4);
        job.memory(128 << 10).checkpoint_interval(Duration::ZERO)
    }

    /// A job on a disk with so much left below it; with nothing on it if `new`.
    fn disk(&self, place: &str, left: Left, new: bool) -> (Scratch, Ledger, Disk) {
        let scratch = Scratch::new();
        let disk = Disk::mount(&scratch.join(place)).unwrap();
        if !new {
            copy(&self.root, scratch.path());
        }
        disk.limit(left);
        let ledger = Ledger::new(scratch.path());
        (scratch, ledger, disk)
    }

    /// The write that failed; none if there was room enough.
    fn case(&self, place: &str, left: Left, new: bool) -> Result<Option<&'static str>, String> {
        let (_scratch, ledger, disk) = self.disk(place, left, new);
        let Err(error) = run(self.job(&ledger)) else {
            return ledger.check(self.count, true).map(|()| None);
        };
        let text = error.to_string();
        if error.kind() != ErrorKind::Full || error.kind().exit_code() != 1 {
            return Err(format!("{:?}: {text}", error.kind()));
        }
        let path = disk.0.to_str().unwrap();
        if ![path, "left on that file system", "then start again"].iter().all(|said| text.contains(said))
            && !text.contains("files it can have; remove some there")
        {
            return Err(format!("it does not say where or what to do: {text}"));
        }
        let write = write_of(&text).ok_or_else(|| format!("what failed? {text}"))?;
        let shown = Output::of(&ledger.output());
        ledger.check(self.count, false)?;
        disk.enlarge();
        run(ledger.job(self.count, None)).map_err(|e| format!("with room again: {e}"))?;
        Output::of(&ledger.output()).continues(&shown)?;
        ledger.check(self.count, true).map(|()| Some(write))
    }

    /// Leaves a little more each time, until it is enough.
    #[track_caller]
    fn sweep(&self, place: &str, left: impl Iterator<Item = Left>, new: bool, hit: &mut BTreeMap<&str, usize>) {
        for left in left {
            match self.case(place, left, new) {
                Ok(None) => return println!("{place}: {left:?} is enough"),
                Ok(Some(write)) => {
                    println!("{place}: {left:?} is too little for the {write}");
                    *hit.entry(write).or_default() += 1;
                }
                Err(why) => panic!("{place}, {left:?}: {why}"),
            }
        }
    }

    /// Fails at each kind of write at least once. What comes when within an epoch is not the same each time, so what
    /// was not met is looked for in between. A base is made only once, at the start, and has a case of its own; so has
    /// a fold, for it runs beside the stream.
    fn at_each_write(&self) {
        let mut hit = BTreeMap::new();
        self.sweep("data", (0..6).map(Left::Files), true, &mut hit);
        self.sweep("out", (0..3).map(Left::Files), false, &mut hit);
        self.sweep("out", (0..40).step_by(12).map(Left::Kib), false, &mut hit);
        self.sweep("data", (0..360).step_by(90).map(Left::Kib), false, &mut hit);
        for pass in 0..4 {
            self.sweep("data", (pass * 3..400).step_by(12).map(Left::Files), false, &mut hit);
            self.sweep("data", (360 + pass * 16..4000).step_by(64).map(Left::Kib), false, &mut hit);
            if WRITES.iter().all(|(_, write)| hit.contains_key(write) || [FOLD, BASE].contains(write)) {
                return println!("failed: {hit:?}");
            }
        }
        panic!("some writes never failed: {hit:?}");
    }

    /// Fails at this write with one of these numbers of files left.
    fn at(&self, write: &str, files: impl Iterator<Item = u64>) {
        let mut hit = BTreeMap::new();
        for files in files {
            self.sweep("data", std::iter::once(Left::Files(files)), false, &mut hit);
            if hit.contains_key(write) {
                return;
            }
        }
        panic!("the {write} never failed: {hit:?}");
    }

    /// Others make room while the job recovers, by its policy; then it goes on in the same process.
    fn room_is_made(&self) {
        let (_scratch, ledger, disk) = self.disk("data", Left::Kib(200), false);
        let policy =
            RestartPolicy { attempts: 10_000, pause: Duration::from_millis(20), pause_max: Duration::from_millis(20) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let handle = self.job(&ledger).restart(policy).start().await.unwrap();
            while handle.status().restarts == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            disk.enlarge();
            handle.wait().await.unwrap();
        });
        ledger.check(self.count, true).unwrap();
    }

    /// A disk that is mounted read-only is no reason to try again.
    fn read_only(&self) {
        for place in ["data", "out"] {
            let (_scratch, ledger, disk) = self.disk(place, Left::Kib(10_000), false);
            disk.remount("ro");
            let error = run(self.job(&ledger)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            let text = error.to_string();
            let path = disk.0.to_str().unwrap();
            assert!(text.contains(path) && text.contains("mount it for writing"), "{text}");
            disk.remount("rw");
            run(ledger.job(self.count, None)).unwrap();
            ledger.check(self.count, true).unwrap();
        }
    }
}

/// A job whose every value is of its own and does not compress, and that says how often each key came. It takes a
/// checkpoint when it is asked to, and folds when there were some.
struct Bulk {
    sender: ChannelSender<u64>,
    job: Job,
}

/// Rows in the state.
const ROWS: u64 = 20_000;
/// Deltas in a chain that is folded.
const FOLDED: u64 = 16;

impl Bulk {
    fn new(scratch: &Scratch) -> Self {
        let (output, (sender, source)) = (scratch.join("out"), Channel::read(2 * ROWS as usize));
        let topology = move |t: &Topology| {
            let came = |state: &mut (u64, Vec<u64>), key: u64| {
                let values = || (0..25).map(|at| mix(key << 8 | at)).collect::<Vec<_>>();
                if state.0 == 0 {
                    state.1 = values();
                }
                state.0 += 1;
                if state.1 == values() {
                    Ok(format!("{key} {}", state.0))
                } else {
                    Err(format!("{key}: another value"))
                }
            };
            t.source("keys", source.clone())
                .key_by_value(|key: &u64| *key)
                .map_with_state("bulk", came)
                .or_fail()
                .sink("came", Files::write(&output).text());
            Ok(())
        };
        let job = Job::new("bulk", topology).data_dir(scratch.join("data")).workers(1).cache_rows(1000);
        let job = job.memory(64 << 20).checkpoint_interval(Duration::from_hours(1));
        Self { sender, job: job.restart(RestartPolicy::never()) }
    }

    /// Starts it, calls `feed`, and gives how it ended.
    fn run(self, feed: impl AsyncFnOnce(&ChannelSender<u64>, &JobHandle)) -> Result<(), millstream::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let handle = self.job.start().await?;
            feed(&self.sender, &handle).await;
            drop(self.sender);
            handle.wait().await
        })
    }
}

/// Waits until a fold has begun, and then until nothing more is written.
async fn settles(disk: &Disk, data: &Path) {
    let begun =
        || names(data).iter().any(|name| name.starts_with("live-") && data.join(name).join("bulk-0/base").exists());
    let (mut last, mut since) = (None, 0);
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = begun().then(|| disk.used("used"));
        since = if now.is_some() && now == last { since + 1 } else { 0 };
        last = now;
        if since == 20 {
            return;
        }
    }
    panic!("no fold, or no end of it");
}

/// The rows of one large delta have to be folded, and there is room for the small deltas that come after it only. While
/// the fold runs nothing else writes.
fn a_fold_is_the_first_to_fail() {
    let scratch = Scratch::new();
    let disk = Disk::mount(&scratch.join("data")).unwrap();
    let more = Cell::new(0);
    let failed = Bulk::new(&scratch).run(async |sender, handle| {
        for key in 0..ROWS {
            sender.send(key).await.unwrap();
        }
        sender.checkpoint(handle).await.unwrap();
        disk.limit(Left::Kib(ROWS * 200 / 1024 / 2));
        // the large one is the first of the chain
        for key in 0..FOLDED - 1 {
            sender.send(key).await.unwrap();
            sender.checkpoint(handle).await.unwrap();
        }
        // on a busy machine a fold that has stopped writing need not have failed yet
        for _ in 0..20 {
            settles(&disk, &scratch.join("data")).await;
            sender.send(0).await.unwrap();
            if sender.checkpoint(handle).await.is_err() {
                break;
            }
            more.set(more.get() + 1);
        }
    });
    let error = failed.expect_err("there was room enough to fold");
    let text = error.to_string();
    assert_eq!((error.kind(), write_of(&text)), (ErrorKind::Full, Some(FOLD)), "{text}");
    assert!(text.contains(disk.0.to_str().unwrap()) && text.contains("then start again"), "{text}");
    println!("the fold was the first to fail: {text}");
    disk.enlarge();
    let all = async |sender: &ChannelSender<u64>, _: &JobHandle| {
        for key in 0..ROWS {
            sender.send(key).await.unwrap();
        }
    };
    Bulk::new(&scratch).run(all).unwrap();
    let mut totals: BTreeMap<String, u64> = (0..ROWS).map(|key| (key.to_string(), 2)).collect();
    (0..FOLDED - 1).for_each(|key| *totals.entry(key.to_string()).or_default() += 1);
    *totals.entry(0.to_string()).or_default() += more.get();
    let output = Output::of(&scratch.join("out"));
    let came = output.lines("came").into_iter().map(|line| {
        let (key, count) = line.split_once(' ').unwrap();
        (key.to_owned(), count.parse().unwrap())
    });
    counted("came", came, &totals).unwrap();
}

/// Not a test: the process with mounts of its own.
#[test]
#[ignore = "started by another test"]
fn process() {
    let Ok(root) = std::env::var("MILLSTREAM_TEST_FULL") else { return };
    let root = PathBuf::from(root);
    let mut subject = Subject::new(root, 3);
    subject.at_each_write();
    subject.room_is_made();
    subject.read_only();
    // one subtask in place of two, which makes a base at once
    subject.parallelism = 1;
    subject.at(BASE, 0..60);
    a_fold_is_the_first_to_fail();
    a_process_ends_with_1();
}

/// The same by the command line.
fn a_process_ends_with_1() {
    let scratch = Scratch::new();
    let job = WordCount::new(scratch.path());
    job.append("a.txt", (0..2000).map(|n| format!("all of word{n} and number{n}\n")));
    let disk = Disk::mount(&job.data()).unwrap();
    disk.limit(Left::Kib(16));
    let said = ["failed 2 times in a row", "are left on that file system; free space there", "then start again"];
    job.run(&["--restart-attempts", "2"]).expect(1, &said);
    disk.enlarge();
    job.run(&[]).expect(0, &["finished"]);
    job.check(&job.shown()).unwrap();
}

#[test]
fn f11_a_full_disk_loses_nothing() {
    with_mounts("damage::full::process", "MILLSTREAM_TEST_FULL", Duration::from_mins(2));
}
