//! The stages at both ends of a topology under test: behind the source that a test speaks for, and in place of a sink.
//! The nodes they are of are in `topology/stand_in.rs`.
//!
//! Record types are not known here, for every program that is built has this in it.

use super::report::Counters;
use super::stage::{AnyStage, Control, Stage, end};
use crate::record::AnyBatch;
use crate::{Batch, Error, Record, Timestamp};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// Hands batches on that came as records.
pub(crate) struct Unpack(pub(crate) Box<dyn AnyStage>);

impl Control for Unpack {
    fn next(&mut self) -> &mut dyn Control {
        &mut *self.0
    }
}

impl Stage for Unpack {
    type In = Box<dyn AnyBatch>;
    fn on_batch(&mut self, batch: &mut Batch<Box<dyn AnyBatch>>) -> Result<(), Error> {
        batch.values.drain(..).try_for_each(|mut batch| self.0.on_any(batch.as_mut()))
    }
}

/// What has come to an end of the topology, in order.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<Box<dyn AnyBatch>>>>);

impl Kept {
    fn push(&self, batch: Box<dyn AnyBatch>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
    }

    /// The records since the last call; those of another type are gone.
    pub(crate) fn take<T: 'static>(&self) -> Vec<Record<T>> {
        let batches = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let typed = batches.into_iter().filter_map(|batch| (batch as Box<dyn Any>).downcast::<Batch<T>>().ok());
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

impl AnyStage for Keep {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        let mut kept = batch.fresh();
        batch.give(batch.len(), &mut *kept);
        self.kept.push(kept);
        Ok(())
    }
}
