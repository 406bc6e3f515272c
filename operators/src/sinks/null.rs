//! A sink that writes nowhere and counts: for benchmarks, and for pipelines that are run for their side effects.

use millstream_framework::{Batch, BoxError, Epoch, Sink, SinkContext, SinkWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Drops every record and counts it. At least once: what is processed again after a restart is counted again.
///
/// ```
/// use millstream_operators::Null;
///
/// let null = Null::new();
/// let count = null.clone(); // shares the count
/// // in a topology: stream.sink("nowhere", null)
/// assert_eq!(count.records(), 0);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Null(Arc<AtomicU64>);

impl Null {
    /// A count of its own, shared by its clones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records have come, in all subtasks and lives of this process.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[diagnostic::do_not_recommend]
impl<T: 'static> Sink<T> for Null {
    type Writer = Self;
    async fn open(&self, _: &SinkContext) -> Result<Self, BoxError> {
        Ok(self.clone())
    }
    /// Nothing ever becomes visible.
    fn separates_epochs(&self) -> bool {
        true
    }
}

impl<T: 'static> SinkWriter<T> for Null {
    type Committable = ();
    async fn write(&mut self, batch: Batch<T>) -> Result<(), BoxError> {
        self.0.fetch_add(batch.len() as u64, Relaxed);
        Ok(())
    }
    async fn prepare(&mut self, _: Epoch) -> Result<Option<()>, BoxError> {
        Ok(None)
    }
    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, sink_context};

    #[test]
    fn counts_what_all_writers_drop() {
        let null = Null::new();
        block_on(async {
            for subtask in 0..2 {
                let mut writer = Sink::<u8>::open(&null, &sink_context("nowhere", subtask)).await.unwrap();
                writer.write(Batch::from(vec![1_u8, 2])).await.unwrap();
                assert_eq!(SinkWriter::<u8>::prepare(&mut writer, 1).await.unwrap(), None);
            }
        });
        assert_eq!(null.records(), 4);
    }
}
