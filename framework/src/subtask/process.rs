//! Keyed operators in a subtask: one row look-up per record, the user's function on the row in place.
//!
//! 1. If rows may be in storage only, a first pass over the batch finds the misses and fetches them together, and then
//!    the entries of collections that the process function asks for (`Process::prefetch`).
//! 2. The loop asks for the slot of a record 32 records ahead and for what its key keeps on the heap 8 ahead, then
//!    finds the row, marks it, and calls the user's function with it.
//! 3. When a table is over its bound, rows of earlier epochs are evicted, then any.
//!
//! What timers do to the same rows is in `timers.rs`.
//!
//! At a barrier the epoch's rows are frozen and copied into its delta piece by piece between batches (see
//! `state/table.rs`); when the last piece is durable, the backend's writer reports this subtask's share.
//!
//! The state itself, rows and the tables of their collections, is `state/keyed.rs`.

use super::drive::nanos;
use super::exchange::{Lends, Makes};
use super::heat::Heat;
use super::report::{Counters, StageContext};
use super::stage::{AnyStage, Control, Stage};
use super::timers::Waiting;
use crate::clock;
use crate::guard::guarded;
use crate::operator::{Context, Process};
use crate::state::backend::Keys;
use crate::state::keyed::{Keyed, StateContext};
use crate::state::{State, Table, Wanted};
use crate::{Batch, Epoch, Error, Key, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll, ready};

/// Distance of prefetching, in records: a slot, and what its key keeps on the heap. Where the third-level cache is far,
/// as on servers of many cores, 16 for slots is a fifth slower than 32; more than that gains nothing.
const SLOT_AHEAD: usize = 32;
const KEY_AHEAD: usize = 8;

/// How a keyed operator finds the key of a record.
pub(crate) enum KeyOf<K, T> {
    /// It is a part of the record.
    Borrowed(Arc<dyn Lends<T, K>>),
    /// It is made from the record.
    Computed(Arc<dyn Makes<T, K>>),
}

impl<K, T> KeyOf<K, T> {
    #[inline(always)]
    fn with<R>(&self, value: &T, f: impl FnOnce(&K) -> R) -> R {
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
    key_of: KeyOf<P::Key, P::In>,
    pub(super) state: Keyed<P::Key, P::State>,
    pub(super) misses: Misses,
    heat: Heat,
    pub(super) waiting: Waiting,
    pub(super) out: Batch<P::Out>,
    pub(super) timed: bool,
    pub(super) next: Box<dyn AnyStage>,
    pub(super) context: StageContext,
}

/// Scratch of the first pass: the keys that are not in the table, and where in the batch they are.
#[derive(Default)]
pub(super) struct Misses {
    pub(super) at: Vec<usize>,
    pub(super) keys: Keys,
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
        let heat = Heat::new(state.groups.clone());
        let state = Keyed::new(state, context.first_epoch, context.key_groups);
        let (misses, out, waiting) = (Misses::default(), Batch::default(), Waiting::new());
        Self { process, key_of, state, misses, heat, waiting, out, timed, next, context }
    }

    /// See [`Keyed::look`].
    pub(crate) fn look<R>(&mut self, key: &P::Key, look: impl FnOnce(&mut P::State) -> R) -> Result<R, Error> {
        self.state.look(key, look)
    }

    /// First pass: fetches the rows that are in storage only.
    fn fetch(&mut self, batch: &Batch<P::In>) -> Result<(), Error> {
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

    /// Then the entries of collections that the process function says it will need.
    fn prefetch(&mut self, batch: &Batch<P::In>) -> Result<(), Error> {
        let Keyed { rows, desk, here, missing, .. } = &mut self.state;
        missing.clear();
        for (value, hash) in batch.values.iter().zip(&batch.hashes) {
            let group = rows.key_group(*hash);
            self.key_of.with(value, |key| here.set(group, key))?;
            self.process.prefetch(value, &mut Wanted::new(desk, here, missing));
            if missing.unused {
                return Ok(());
            }
        }
        let (misses, loaded) = self.state.fetch_entries()?;
        Counters::add(&self.context.counters.misses, misses);
        Counters::add(&self.context.counters.loaded, loaded);
        Ok(())
    }

    /// Says which records an error came from. Split and offset are not known behind an exchange.
    #[cold]
    fn blame(&self, error: Error, hash: Option<&u64>) -> Error {
        let place = self.context.place("operator");
        match hash.map(|hash| self.state.rows.key_group(*hash)) {
            Some(group) => error.at(format!("{place}, key group {group}")),
            None => error.at(place),
        }
    }

    /// Second pass: the user's function on each record. `at` is the number of the one at hand, also after a panic.
    fn run(&mut self, batch: &mut Batch<P::In>, at: &mut usize) -> Result<(), Error> {
        let Self { state: Keyed { rows, desk, here, timers, .. }, key_of, process, waiting, out, timed, .. } = self;
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

    /// After user code, before what it emitted is handed on.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        self.state.settle().map_err(|e| e.at(self.context.place("operator")))?;
        let counters = &self.context.counters;
        Counters::add(&counters.spilled, self.state.storage.spilled.take());
        Counters::add(&counters.evicted, self.state.storage.evicted.take());
        Counters::add(&counters.blocking_misses, self.state.storage.blocking.take());
        Counters::add(&counters.records_out, self.out.len());
        Ok(())
    }
}

impl<P: Process> Stage for ProcessStage<P> {
    type In = P::In;
    fn on_batch(&mut self, batch: &mut Batch<P::In>) -> Result<(), Error> {
        let records = batch.len();
        Counters::add(&self.context.counters.records_in, records);
        self.heat.sample(&batch.hashes, self.context.key_groups);
        self.misses.at.clear();
        if !self.state.rows.is_complete() {
            self.fetch(batch).map_err(|e| e.at(self.context.place("operator")))?;
        }
        if P::State::HAS_TABLES && !self.state.missing.unused && !self.state.has_all_entries() {
            let done = guarded(|| "prefetch".into(), || self.prefetch(batch));
            done.map_err(|e| e.at(self.context.place("operator")))?;
        }
        Counters::add(&self.context.counters.hits, records - self.misses.at.len());
        self.waiting.look_at_clock();
        let mut at = 0;
        let done = guarded(|| "on_record".into(), || self.run(batch, &mut at));
        done.map_err(|error| self.blame(error, batch.hashes.get(at)))?;
        batch.clear();
        self.settle()?;
        self.next.on_any(&mut self.out)
    }
}

impl<P: Process> Control for ProcessStage<P> {
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
        Counters::max(&self.context.counters.pause_ns_max, nanos(start.elapsed()));
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

    fn poll_ready(&mut self, all: bool, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_timers(cx))?;
        self.next.poll_ready(all, cx)
    }

    fn background(&mut self) -> Result<bool, Error> {
        if self.state.is_copying() {
            let start = clock::now();
            self.state.copy()?;
            Counters::max(&self.context.counters.pause_ns_max, nanos(start.elapsed()));
            return Ok(true);
        }
        if self.state.sweep()? {
            return Ok(true);
        }
        self.next.background()
    }
}
