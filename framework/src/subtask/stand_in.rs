//! The stages at both ends of a topology under test: behind the source that a test speaks for, and in place of a sink.
//! The nodes they are of are in `topology/stand_in.rs`.
//!
//! Record types are not known here, or as briefly as can be, for every program that is built has this in it.

use super::report::Counters;
use super::stage::{Branch, Control, Stage, end};
use crate::{Batch, Error, Record, Timestamp};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// A `Batch` whose record type somebody else knows.
pub(crate) type AnyBatch = Box<dyn Any + Send>;

/// Hands batches on that came as records.
pub(crate) struct Unpack(pub(crate) Box<dyn Branch>);

impl Control for Unpack {
    fn next(&mut self) -> &mut dyn Control {
        &mut *self.0
    }
}

impl Stage<AnyBatch> for Unpack {
    fn on_batch(&mut self, batch: &mut Batch<AnyBatch>) -> Result<(), Error> {
        batch.values.drain(..).try_for_each(|mut batch| self.0.on_any(batch.as_mut()))
    }
}

/// What has come to an end of the topology, in order.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<AnyBatch>>>);

impl Kept {
    fn push(&self, batch: AnyBatch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
    }

    /// The records since the last call; those of another type are gone.
    pub(crate) fn take<T: 'static>(&self) -> Vec<Record<T>> {
        let batches = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let typed = batches.into_iter().filter_map(|batch| batch.downcast::<Batch<T>>().ok());
        typed.flat_map(|batch| batch.into_records()).collect()
    }
}

/// Keeps what comes.
pub(crate) struct Keep {
    pub(crate) kept: Kept,
    pub(crate) counters: Arc<Counters>,
}

impl Control for Keep {
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.counters.watermark.set(mark);
        Ok(())
    }
}

impl<T: Send + 'static> Stage<T> for Keep {
    fn on_batch(&mut self, batch: &mut Batch<T>) -> Result<(), Error> {
        self.kept.push(Box::new(std::mem::take(batch)));
        Ok(())
    }
}
