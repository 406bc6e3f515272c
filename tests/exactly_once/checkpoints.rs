//! Checkpoints as such: how many are kept, what they do when sources end one after the other, and what becomes of one
//! that does not complete.

use crate::common::{MIB, Scratch, is_soak, job, names};
use millstream::ErrorKind;
use millstream::framework::{Batch, Epoch, Sink, SinkContext, SinkWriter};
use millstream::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Manifests, and files of state.
fn kept(data: &Path) -> (Vec<String>, usize) {
    let all = names(&data.join("checkpoints"));
    let manifests = all.into_iter().filter(|name| name.starts_with("manifest-")).collect();
    (manifests, names(&data.join("checkpoints/state")).len())
}

/// Counts keys at a rate, over very many checkpoints.
fn long(scratch: &Scratch, count: u64) -> Job {
    let topology = move |t: &Topology| {
        let numbers = t.source("numbers", Generator::new(|_, n| n).count(count).rate(4000)).key_by_value(|n| n % 500);
        numbers.aggregate("count", |of| of.count()).sink("out", Null::new());
        Ok(())
    };
    job(scratch, topology).checkpoint_interval(Duration::from_millis(10))
}

#[test]
fn as_many_are_kept_as_asked_for_and_disk_use_is_bounded() {
    for keep in [1, 2, 5] {
        let scratch = Scratch::new();
        let mut files = Vec::new();
        for run in 1..=8 {
            long(&scratch, 1500 * run).keep(keep).run().unwrap();
            let (manifests, state) = kept(&scratch.join("data"));
            assert!(manifests.len() <= keep && (run < 8 || manifests.len() == keep), "{manifests:?}");
            files.push(state);
        }
        // a chain of deltas is at most some tens long; hundreds of epochs were taken
        assert!(files.iter().all(|files| *files < 200), "{files:?} files");
        let live: Vec<_> = names(&scratch.join("data")).into_iter().filter(|name| name.starts_with("live-")).collect();
        assert_eq!(live, [""; 0], "working files are left over");
    }
}

/// Files below a directory, and their bytes. Those that go meanwhile count as they are seen.
fn use_of(directory: &Path) -> (usize, u64) {
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let (its_files, its_bytes) = if metadata.is_dir() { use_of(&entry.path()) } else { (1, metadata.len()) };
        files += its_files;
        bytes += its_bytes;
    }
    (files, bytes)
}

/// V6: what is not needed goes, however long a job runs: at no time there is more than so much. Ten thousand epochs in
/// a soak.
#[test]
fn soak_disk_use_is_bounded() {
    let (scratch, epochs) = (Scratch::new(), if is_soak() { 10_000 } else { 300 });
    let data = scratch.join("data");
    let newest = || {
        let epoch = |name: String| name.strip_prefix("manifest-")?.split('-').next()?.parse::<Epoch>().ok();
        names(&data.join("checkpoints")).into_iter().filter_map(epoch).max().unwrap_or(0)
    };
    let (mut most, mut count) = ((0, 0), 0);
    while newest() < epochs {
        count += 4000 * if is_soak() { 20 } else { 1 };
        let life = long(&scratch, count).checkpoint_interval(Duration::from_millis(1));
        std::thread::scope(|threads| {
            let running = threads.spawn(|| life.run());
            while !running.is_finished() {
                let (files, bytes) = use_of(&data);
                most = (most.0.max(files), most.1.max(bytes));
                std::thread::sleep(Duration::from_millis(20));
            }
            running.join().unwrap().unwrap();
        });
    }
    println!("{} epochs: at most {} files and {} KiB", newest(), most.0, most.1 >> 10);
    assert!(most.0 < 200 && most.1 < 16 * MIB, "{most:?}");
}

#[test]
fn checkpoints_go_on_after_some_sources_have_ended() {
    let scratch = Scratch::new();
    let read = Arc::new([const { AtomicU64::new(0) }; 2]);
    let (sink, seen) = Collected::new();
    let topology = |long: u64| {
        let (read, sink) = (read.clone(), sink.clone());
        move |t: &Topology| {
            let source = |at: usize, count, rate: Option<u64>| {
                let read = read.clone();
                let make = move |_, n| {
                    read[at].fetch_add(1, Ordering::Relaxed);
                    n
                };
                t.source(["short", "long"][at], Generator::new(make).count(count).rate(rate))
            };
            let all = source(0, 10, None).union(source(1, long, Some(1000)));
            all.key_by_value(|n| n % 10).aggregate("count", |of| of.count()).sink("out", sink.clone());
            Ok(())
        }
    };
    let early = job(&scratch, topology(1000)).checkpoint_interval(Duration::from_millis(20));
    std::thread::scope(|threads| {
        let running = threads.spawn(|| early.run());
        let mut growing = std::collections::BTreeSet::new();
        while !running.is_finished() {
            growing.insert(seen.len());
            std::thread::sleep(Duration::from_millis(2));
        }
        running.join().unwrap().unwrap();
        assert!(growing.len() > 2, "output became visible at {growing:?} only");
    });
    assert_eq!(seen.len(), 1010);
    job(&scratch, topology(1090)).run().unwrap();
    let mut counts = seen.take();
    counts.sort();
    assert!(counts.into_iter().eq((0..10).flat_map(|key| (1..=110).map(move |count| (key, count)))));
    assert_eq!(read.each_ref().map(|read| read.load(Ordering::Relaxed)), [10, 1090], "nothing is read twice");
}

/// Commands reach sources that have ended and sources that have not whenever they come: checkpoints as fast as the disk
/// takes them, so that a barrier follows the decision before it at once.
#[test]
fn no_command_is_missed() {
    let scratch = Scratch::new();
    let topology = |t: &Topology| {
        let short: Vec<_> = (0..4).map(|n| t.source(format!("short-{n}"), Records::of(0..1u64))).collect();
        let long = t.source("long", Generator::new(|_, n| n).splits(2).count(4000).rate(4000));
        t.union(short.into_iter().chain([long])).sink("out", Null::new());
        Ok(())
    };
    let job = job(&scratch, topology).checkpoint_interval(Duration::ZERO);
    job.checkpoint_timeout(Duration::from_secs(20), 0).run().unwrap();
}

/// Never gets done with preparing.
#[derive(Clone)]
struct Stuck;
impl Sink<u64> for Stuck {
    type Writer = Self;
    async fn open(&self, _: &SinkContext) -> Result<Self, BoxError> {
        Ok(Self)
    }
}
impl SinkWriter<u64> for Stuck {
    type Committable = ();
    async fn write(&mut self, _: Batch<u64>) -> Result<(), BoxError> {
        Ok(())
    }
    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<()>, BoxError> {
        match epoch {
            0 => Ok(None),
            _ => std::future::pending().await,
        }
    }
    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn a_checkpoint_that_does_not_complete_ends_the_attempt() {
    let scratch = Scratch::new();
    let topology = |t: &Topology| {
        t.source("numbers", Generator::new(|_, n| n).rate(1000)).sink("stuck", Stuck);
        Ok(())
    };
    let job = job(&scratch, topology).checkpoint_interval(Duration::from_millis(10));
    let error = job.checkpoint_timeout(Duration::from_millis(50), 2).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    let text = error.to_string();
    assert!(text.contains("checkpoint 1") && text.contains("time"), "{text}");
}
