//! A keyed operator in a subtask, but for its function: the rows, what brings them into memory, and the barrier. It
//! depends on the types of key, state and record only, so that operators that differ in their functions share its
//! machine code. What calls the function is in `process.rs` and, where time has come, in `timers.rs`.
//!
//! At a barrier the epoch's rows are frozen and copied into its delta piece by piece between batches (see
//! `state/table.rs`); when the last piece is durable, the backend's writer reports this subtask's share. The state
//! itself, rows and the tables of their collections, is `state/keyed.rs`.

use super::drive::nanos;
use super::exchange::{Lends, Makes};
use super::heat::Heat;
use super::report::{Counters, StageContext};
use super::stage::{AnyStage, Control};
use super::timers::Waiting;
use crate::state::backend::Keys;
use crate::state::keyed::{Keyed, StateContext};
use crate::state::{State, Table};
use crate::{Batch, Epoch, Error, Key, Timestamp, clock};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Distance of prefetching slots, in records. Where the third-level cache is far, as on servers of many cores, 16 is a
/// fifth slower than 32; more than that gains nothing.
pub(super) const SLOT_AHEAD: usize = 32;

/// How a keyed operator finds the key of a record.
pub(crate) enum KeyOf<K, T> {
    /// It is a part of the record.
    Borrowed(Arc<dyn Lends<T, K>>),
    /// It is made from the record.
    Computed(Arc<dyn Makes<T, K>>),
}

impl<K, T> KeyOf<K, T> {
    #[inline(always)]
    pub(super) fn with<R>(&self, value: &T, f: impl FnOnce(&K) -> R) -> R {
        match self {
            Self::Borrowed(lends) => f(lends.key(value)),
            Self::Computed(makes) => f(&makes.key(value)),
        }
    }
}

impl<K, T> Clone for KeyOf<K, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Borrowed(key) => Self::Borrowed(key.clone()),
            Self::Computed(key) => Self::Computed(key.clone()),
        }
    }
}

/// Scratch of the first pass: the keys that are not in the table, and where in the batch they are.
#[derive(Default)]
pub(super) struct Misses {
    pub(super) at: Vec<usize>,
    pub(super) keys: Keys,
}

/// See the module. As a stage it stands in front of what follows the operator.
pub(crate) struct StateStage<K: Key, S: State, T> {
    pub(super) key_of: KeyOf<K, T>,
    pub(super) state: Keyed<K, S>,
    pub(super) misses: Misses,
    heat: Heat,
    pub(super) waiting: Waiting,
    pub(super) next: Box<dyn AnyStage>,
    pub(super) context: StageContext,
}

impl<K: Key, S: State, T: Send + 'static> StateStage<K, S, T> {
    pub(super) fn new(
        key_of: KeyOf<K, T>,
        state: StateContext,
        next: Box<dyn AnyStage>,
        context: StageContext,
    ) -> Self {
        let heat = Heat::new(state.groups.clone());
        let state = Keyed::new(state, context.first_epoch, context.key_groups);
        let (misses, waiting) = (Misses::default(), Waiting::new());
        Self { key_of, state, misses, heat, waiting, next, context }
    }

    /// A batch has come: counts its records, and brings the rows of its keys into memory.
    pub(super) fn begin(&mut self, batch: &Batch<T>) -> Result<(), Error> {
        let counters = &self.context.counters;
        Counters::add(&counters.records_in, batch.len());
        self.heat.sample(&batch.hashes, self.context.key_groups);
        self.misses.at.clear();
        if !self.state.rows.is_complete() {
            self.fetch(batch).map_err(|e| e.at(self.context.place("operator")))?;
        }
        Counters::add(&self.context.counters.hits, batch.len() - self.misses.at.len());
        self.waiting.look_at_clock();
        Ok(())
    }

    /// First pass: fetches the rows that are in storage only.
    fn fetch(&mut self, batch: &Batch<T>) -> Result<(), Error> {
        let Self { state: Keyed { rows, storage, .. }, key_of, misses, .. } = self;
        misses.keys.clear();
        let hashes = &batch.hashes[..];
        for h in &hashes[..hashes.len().min(SLOT_AHEAD)] {
            rows.prefetch(*h);
        }
        for (i, (value, hash)) in batch.values.iter().zip(hashes).enumerate() {
            if let Some(h) = hashes.get(i + SLOT_AHEAD) {
                rows.prefetch(*h);
            }
            key_of.with(value, |key| {
                if rows.find(*hash, |k| k == key).is_some() {
                    return Ok(());
                }
                misses.at.push(i);
                misses.keys.push(|into| rows.put_key(rows.key_group(*hash), key, into))
            })?;
        }
        if misses.at.is_empty() {
            return Ok(());
        }
        Counters::add(&self.context.counters.misses, misses.at.len());
        let mut loaded = 0;
        storage.attempt(|backend| {
            backend.get_many(&misses.keys, |miss, epoch, row| {
                let at = misses.at[miss];
                loaded += 1;
                key_of.with(&batch.values[at], |key| {
                    if rows.find(hashes[at], |k| k == key).is_some() {
                        return Ok(());
                    }
                    rows.put(hashes[at], key.clone(), epoch, row)
                })
            })
        })?;
        Counters::add(&self.context.counters.loaded, loaded);
        Ok(())
    }

    /// Fetches the entries of collections that the process function has asked for.
    pub(super) fn fetch_entries(&mut self) -> Result<(), Error> {
        let (misses, loaded) = self.state.fetch_entries()?;
        Counters::add(&self.context.counters.misses, misses);
        Counters::add(&self.context.counters.loaded, loaded);
        Ok(())
    }

    /// Says which records an error came from. Split and offset are not known behind an exchange.
    #[cold]
    pub(super) fn blame(&self, error: Error, hash: Option<&u64>) -> Error {
        let place = self.context.place("operator");
        match hash.map(|hash| self.state.rows.key_group(*hash)) {
            Some(group) => error.at(format!("{place}, key group {group}")),
            None => error.at(place),
        }
    }

    /// After user code, before what it emitted, so many records, is handed on.
    pub(super) fn settle(&mut self, emitted: usize) -> Result<(), Error> {
        self.state.settle().map_err(|e| e.at(self.context.place("operator")))?;
        let counters = &self.context.counters;
        Counters::add(&counters.spilled, self.state.storage.spilled.take());
        Counters::add(&counters.evicted, self.state.storage.evicted.take());
        Counters::add(&counters.blocking_misses, self.state.storage.blocking.take());
        Counters::add(&counters.records_out, emitted);
        Ok(())
    }
}

impl<K: Key, S: State, T: Send + 'static> Control for StateStage<K, S, T> {
    fn next(&mut self) -> &mut dyn Control {
        &mut *self.next
    }

    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.context.counters.watermark.set(mark);
        self.reach(mark)
    }

    fn on_idle(&mut self) -> Result<(), Error> {
        self.rest()
    }

    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        let start = clock::now();
        self.next.on_barrier(epoch)?;
        self.state.freeze(epoch)?;
        self.waiting.begin_epoch();
        self.heat.tell(&self.context.counters);
        self.context.counters.rows.store(self.state.len() as u64, Relaxed);
        Counters::max(&self.context.counters.pause_ns_max, nanos(clock::since(start)));
        Ok(())
    }

    fn on_end(&mut self) -> Result<(), Error> {
        self.waiting.end();
        self.next.on_end()
    }

    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.state.storage.with(|backend| backend.decided(epoch));
        self.next.on_decided(epoch)
    }

    fn background(&mut self) -> Result<bool, Error> {
        if self.state.is_copying() {
            let start = clock::now();
            self.state.copy()?;
            Counters::max(&self.context.counters.pause_ns_max, nanos(clock::since(start)));
            return Ok(true);
        }
        if self.state.sweep()? {
            return Ok(true);
        }
        self.next.background()
    }
}
