//! What the unit tests of this crate share. Pipelines are tested in the workspace's `tests/`.

use millstream_framework::{
    Attempt, Error, ErrorKind, Polled, SinkContext, SourceContext, SourceReader, SplitBatch, Traffic, Trouble,
};

/// Runs a future on a runtime like that of a worker.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// The only subtask.
pub(crate) fn source_context() -> SourceContext {
    SourceContext {
        job: "job".into(),
        source: "text".into(),
        subtask: 0,
        parallelism: 1,
        attempt: Attempt::draw(),
        traffic: Traffic::default(),
        trouble: Trouble::default(),
        ahead_bytes: 1 << 20,
    }
}

/// A subtask of the sink `name`, in a life of its own.
pub(crate) fn sink_context(name: &str, subtask: usize) -> SinkContext {
    SinkContext {
        job: "job".into(),
        sink: name.into(),
        subtask,
        parallelism: 4,
        attempt: Attempt::draw(),
        traffic: Traffic::default(),
    }
}

/// All that is left in a reader, with the split of each record.
pub(crate) fn drain<R: SourceReader>(reader: &mut R) -> Vec<(R::Split, R::Record)> {
    let (mut batch, mut all) = (SplitBatch::new(), Vec::new());
    while reader.poll(&mut batch).unwrap() != Polled::Finished {
        let records = std::mem::take(batch.values());
        all.extend(records.into_iter().map(|record| (batch.split().unwrap().clone(), record)));
    }
    all
}

/// The kind and the text of what a connector returned.
pub(crate) fn said(error: &millstream_framework::BoxError) -> (ErrorKind, String) {
    let error = error.downcast_ref::<Error>().expect("an error of the library");
    (error.kind(), error.to_string())
}
