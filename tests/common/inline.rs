//! Pipelines that run in the process of the test, and what they give.

use super::Scratch;
use millstream::prelude::*;

/// A job with a data directory of its own; two workers, so that lanes cross threads. The first failure ends it.
pub(crate) fn job(
    scratch: &Scratch,
    topology: impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static,
) -> Job {
    Job::new("test", topology)
        .data_dir(scratch.join("data"))
        .parallelism(2)
        .workers(2)
        .memory(64 << 20)
        .restart(RestartPolicy::never())
}

/// What a topology with one sink gives.
pub(crate) fn collect<T: Send + 'static>(
    parallelism: usize,
    build: impl Fn(&Topology, Collected<T>) + Send + Sync + 'static,
) -> Vec<T> {
    let (scratch, (sink, seen)) = (Scratch::new(), Collected::new());
    let topology = move |t: &Topology| {
        build(t, sink.clone());
        Ok(())
    };
    job(&scratch, topology).parallelism(parallelism).run().unwrap();
    seen.take()
}

/// That a topology gives these records at parallelism 1, 2 and 4, in no matter which order.
#[track_caller]
pub(crate) fn gives<T: Ord + std::fmt::Debug + Send + 'static>(
    build: impl Fn(&Topology, Collected<T>) + Clone + Send + Sync + 'static,
    expect: impl IntoIterator<Item = T>,
) {
    let mut expect = Vec::from_iter(expect);
    expect.sort();
    for parallelism in [1, 2, 4] {
        let mut found = collect(parallelism, build.clone());
        found.sort();
        assert!(found == expect, "parallelism {parallelism}: {}", difference(&found, &expect));
    }
}

/// Where two sorted lists differ first.
fn difference<T: PartialEq + std::fmt::Debug>(found: &[T], expect: &[T]) -> String {
    let at = (0..).find(|at| found.get(*at) != expect.get(*at)).unwrap_or_default();
    let (have, want) = (found.len(), expect.len());
    format!("record {at} of {have} is {:?} in place of {:?} (of {want})", found.get(at), expect.get(at))
}

/// The error of a topology that cannot be built, or of a run.
pub(crate) fn refused(job: Job) -> millstream::Error {
    job.run().expect_err("this must not run")
}
