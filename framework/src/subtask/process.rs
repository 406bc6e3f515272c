//! Keyed operators in a subtask: one row look-up per record, the user's function on the row in place.
//!
//! 1. If rows may be in storage only, a first pass over the batch finds the misses and fetches them together, and then
//!    the entries of collections that the process function asks for (`Process::prefetch`).
//! 2. The loop asks for the slot of a record 32 records ahead and for what its key keeps on the heap 8 ahead, then
//!    finds the row, marks it, and calls the user's function with it.
//! 3. When a table is over its bound, rows of earlier epochs are evicted, then any.
//!
//! What timers do to the same rows is in `timers.rs`, what needs no user code in `state_stage.rs`.

use super::report::StageContext;
use super::stage::{AnyStage, Control, Stage};
use super::state_stage::{KeyOf, SLOT_AHEAD, StateStage};
use crate::guard::guarded;
use crate::operator::{Context, Process};
use crate::state::keyed::{Keyed, StateContext};
use crate::state::{State, Wanted};
use crate::{Batch, Error, Key, Timestamp};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

/// Distance of prefetching what a key keeps on the heap, in records.
const KEY_AHEAD: usize = 8;

/// A key in an error, as JSON, shortened.
#[cold]
pub(super) fn shown<K: Key>(key: &K) -> String {
    let text = serde_json::to_string(key).unwrap_or_default();
    let end = text.char_indices().nth(80).map(|(end, _)| end);
    format!("key {}{}", &text[..end.unwrap_or(text.len())], if end.is_some() { ".." } else { "" })
}

/// A keyed operator in one subtask.
pub(crate) struct ProcessStage<P: Process> {
    pub(super) process: Arc<P>,
    pub(super) out: Batch<P::Out>,
    pub(super) timed: bool,
    pub(super) keyed: StateStage<P::Key, P::State, P::In>,
}

impl<P: Process> ProcessStage<P> {
    pub(crate) fn new(
        process: Arc<P>,
        key_of: KeyOf<P::Key, P::In>,
        state: StateContext,
        timed: bool,
        next: Box<dyn AnyStage>,
        context: StageContext,
    ) -> Self {
        Self { process, out: Batch::default(), timed, keyed: StateStage::new(key_of, state, next, context) }
    }

    /// See [`Keyed::look`].
    pub(crate) fn look<R>(&mut self, key: &P::Key, look: impl FnOnce(&mut P::State) -> R) -> Result<R, Error> {
        self.keyed.state.look(key, look)
    }

    /// Then the entries of collections that the process function says it will need.
    fn prefetch(&mut self, batch: &Batch<P::In>) -> Result<(), Error> {
        let StateStage { state: Keyed { rows, desk, here, missing, .. }, key_of, .. } = &mut self.keyed;
        missing.clear();
        for (value, hash) in batch.values.iter().zip(&batch.hashes) {
            let group = rows.key_group(*hash);
            key_of.with(value, |key| here.set(group, key))?;
            self.process.prefetch(value, &mut Wanted::new(desk, here, missing));
            if missing.unused {
                return Ok(());
            }
        }
        self.keyed.fetch_entries()
    }

    /// Second pass: the user's function on each record. `at` is the number of the one at hand, also after a panic.
    fn run(&mut self, batch: &mut Batch<P::In>, at: &mut usize) -> Result<(), Error> {
        let Self { process, out, timed, keyed } = self;
        let StateStage { state: Keyed { rows, desk, here, timers, .. }, key_of, waiting, .. } = keyed;
        let (timed, moment) = (*timed, &waiting.at);
        out.values.reserve(batch.values.len());
        let hashes = &batch.hashes[..];
        let mut times = batch.times.drain(..);
        for h in &hashes[..hashes.len().min(SLOT_AHEAD)] {
            rows.prefetch(*h);
        }
        for (i, (value, hash)) in batch.values.drain(..).zip(hashes).enumerate() {
            if let Some(h) = hashes.get(i + SLOT_AHEAD) {
                rows.prefetch(*h);
            }
            if let Some(h) = hashes.get(i + KEY_AHEAD) {
                rows.prefetch_key(*h);
            }
            let time = if timed { times.next().unwrap_or(Timestamp::MIN) } else { Timestamp::MIN };
            let group = if P::State::HAS_TABLES || P::State::HAS_TIMERS { rows.key_group(*hash) } else { 0 };
            let place = key_of.with(&value, |key| rows.locate(*hash, |k| k == key, || key.clone()));
            let (key, row) = rows.touch(place);
            timers.enter(row);
            if P::State::HAS_TABLES {
                here.set(group, key)?;
                row.enter(desk, here);
            }
            *at = i;
            let done = process.on_record(value, row, &mut Context::new(key, time, out, timed, moment));
            if P::State::HAS_TABLES {
                row.leave(desk, here);
            }
            timers.leave(row, group, key);
            done.map_err(|error| Error::from_user(error, shown(key)))?;
        }
        Ok(())
    }
}

impl<P: Process> Stage for ProcessStage<P> {
    type In = P::In;
    fn on_batch(&mut self, batch: &mut Batch<P::In>) -> Result<(), Error> {
        self.keyed.begin(batch)?;
        let Keyed { missing, .. } = &self.keyed.state;
        if P::State::HAS_TABLES && !missing.unused && !self.keyed.state.has_all_entries() {
            let done = guarded(|| "prefetch".into(), || self.prefetch(batch));
            done.map_err(|e| e.at(self.keyed.context.place("operator")))?;
        }
        let mut at = 0;
        let done = guarded(|| "on_record".into(), || self.run(batch, &mut at));
        done.map_err(|error| self.keyed.blame(error, batch.hashes.get(at)))?;
        batch.clear();
        self.keyed.settle(self.out.len())?;
        self.keyed.next.on_any(&mut self.out)
    }
}

impl<P: Process> Control for ProcessStage<P> {
    fn next(&mut self) -> &mut dyn Control {
        &mut self.keyed
    }

    fn poll_ready(&mut self, all: bool, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_timers(cx))?;
        self.keyed.poll_ready(all, cx)
    }
}
