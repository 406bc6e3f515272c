//! Timers: instants at which a process function is called again for a key. This page is for those who use them; how
//! they are kept is told in `cell.rs` and `index.rs`, how they fire in `subtask/timers.rs`.
//!
//! A timer is a field of the state, so it has a name, belongs to a key, and is part of every checkpoint:
//!
//! ```
//! use millstream_framework::state::{EventTimer, State, ValueState};
//! use millstream_framework::{BoxError, Context, Process};
//! use std::time::Duration;
//!
//! #[derive(State)]
//! struct Visit {
//!     pages: ValueState<u64>,
//!     left: EventTimer,
//! }
//!
//! /// How many pages a visitor looks at until half an hour passes without one.
//! struct Visits;
//! impl Process for Visits {
//!     type Key = u64;
//!     type In = u64;
//!     type Out = (u64, u64);
//!     type State = Visit;
//!     fn on_record(&self, _: u64, visit: &mut Visit, cx: &mut Context<'_, u64, (u64, u64)>) -> Result<(), BoxError> {
//!         *visit.pages.or_default() += 1;
//!         visit.left.set(cx.time() + Duration::from_mins(30)); // set again: moved
//!         Ok(())
//!     }
//!     fn on_timer(&self, visit: &mut Visit, cx: &mut Context<'_, u64, (u64, u64)>) -> Result<(), BoxError> {
//!         cx.emit((*cx.key(), visit.pages.take().unwrap_or(0)));
//!         Ok(())
//!     }
//! }
//! ```
//!
//! | field | fires | per key |
//! |---|---|---|
//! | [`EventTimer`] | when the watermark reaches it | one; set again it is moved |
//! | [`EventTimers`] | the same | one for each instant it was set for |
//! | [`ProcessingTimer`] | when the clock of the machine reaches it | one; set again it is moved |
//! | [`ProcessingTimers`] | the same | one for each instant it was set for |
//!
//! # Which clock
//!
//! *Event time* is the time of the records: a timer fires when no older record is expected any more, however fast or
//! late the records are read, and does so again when the same input is read again. It is nearly always what is meant. A
//! timer that is set at or before the watermark fires right after the batch. When the input ends, all timers fire that
//! are set, also those that are set meanwhile: one that sets itself again without end should look whether
//! [`Context::watermark`](crate::Context::watermark) is `Timestamp::MAX`. Timers in event time need records that have
//! it; without `event_time` the topology is refused.
//!
//! The *clock of the machine* is for what the outside world waits for: ask again in ten seconds. Such a timer fires
//! some milliseconds after its time, with records or without. What is overdue after a restart fires at once. Set it by
//! [`Context::now`](crate::Context::now). When the input ends, those that are set stay set, and wait for the next run.
//!
//! # What is exactly once
//!
//! Each setting fires once: what `on_timer` changed, emitted and set, and that the timer has fired, are part of one
//! epoch, or of none. After a crash it fires again only if nothing of the first time counts. Within a key timers fire
//! in the order of their instants, at one instant in the order of the fields, also those that are set while others
//! fire. Different keys fire in no set order.
//!
//! A timer fires between batches. A record that is younger than the timer may be handled before it fires, if it came
//! before the watermark did. Where that matters, compare `cx.time()` with the timer's `at()` in `on_record`, or keep
//! records until a timer at their own time fires.
//!
//! # What it costs
//!
//! A single timer takes 16 bytes of its key's row. To set it later again and again costs a comparison each time, and
//! one change of the index per interval; to set it earlier costs an entry of the index, some 0.05 us. A field of many
//! takes 8 bytes of the row and an entry for each instant. Entries that are near are in memory, about 50 bytes each,
//! within the share of memory that each state of an operator has; the others are on disk and are read when their time
//! is near. So there may be far more timers than memory holds, and a restore reads none of them. An entry is written
//! with the checkpoint after it came, unless it is gone by then; that it is gone costs nothing. Rows that are not in
//! memory are read some hundreds at a time when their timers fire.
//!
//! Instants are kept to the millisecond, within 36 million years of 1970; what is beyond fires at the end of the input.

mod cell;
mod due;
mod heap;
mod index;

pub use cell::{Changes, EventTimer, EventTimers, ProcessingTimer, ProcessingTimers, Verdict};
pub(crate) use due::{Due, KeyBytes};

use super::backend::Keys;
use super::cache::unkept;
use super::handle::{Handle, Kind, State, VisitorMut};
use super::storage::{Storage, TableSpec};
use crate::key::encode_key;
use crate::{Epoch, Error, Key, Timestamp};
use cell::Change;
use index::{IndexStorage, TimerIndex, floor_key};
use std::ops::Range;
use std::rc::Rc;

/// About what an entry of an index takes in memory.
const ENTRY_BYTES: usize = 48;
/// About what it takes in storage, beside its key.
const STORED_BYTES: u64 = 24;

/// By which clock a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The watermark.
    Event,
    /// The clock of the machine.
    Processing,
}

impl Kind {
    /// Of timers.
    pub(crate) const fn clock(self) -> Option<Clock> {
        match self {
            Self::EventTimer | Self::EventTimers => Some(Clock::Event),
            Self::ProcessingTimer | Self::ProcessingTimers => Some(Clock::Processing),
            _ => None,
        }
    }
}

/// A field, and what is due of it.
struct Field {
    field: usize,
    clock: Clock,
    /// As many per key as there are instants: nothing of them is in the row.
    many: bool,
    index: TimerIndex,
}

/// All timer fields of an operator's rows.
pub(crate) struct Timers {
    fields: Vec<Field>,
    changes: Changes,
    storage: Rc<Storage>,
    groups: Range<u32>,
    key: Vec<u8>,
}

impl Timers {
    /// Of rows `S`; `table` gives the table of a field by its number.
    pub(crate) fn new<S: State>(spec: &TableSpec, table: impl Fn(usize) -> Option<u16>) -> Self {
        let TableSpec { storage, groups, cache_bytes, cache_rows, .. } = spec.clone();
        let restored = storage.with(|backend| !backend.is_empty());
        let bound = cache_rows.unwrap_or(cache_bytes / ENTRY_BYTES);
        let timers = S::FIELDS.iter().enumerate().filter_map(|(field, of)| Some((field, of.kind, of.kind.clock()?)));
        let fields = timers.filter_map(|(field, kind, clock)| {
            let many = matches!(kind, Kind::EventTimers | Kind::ProcessingTimers);
            let index = TimerIndex::new(table(field)?, groups.clone(), restored, bound, many);
            Some(Field { field, clock, many, index })
        });
        let (changes, key) = Default::default();
        let mut timers = Self { fields: fields.collect(), changes, storage, groups, key };
        if restored {
            let restored = timers.restore();
            timers.storage.note(restored);
        }
        timers
    }

    /// Reads where each index stands.
    fn restore(&mut self) -> Result<(), Error> {
        let Self { fields, storage, groups, key, .. } = self;
        for Field { index, .. } in fields {
            let mut floors = Keys::default();
            for group in groups.clone() {
                floor_key(index.table(), group, key);
                floors.push(|into| {
                    into.extend_from_slice(key);
                    Ok(())
                })?;
            }
            storage.attempt(|backend| {
                backend.get_many(&floors, |at, _, floor| index.restore(groups.start + at as u32, floor))
            })?;
            index.look_ahead();
        }
        Ok(())
    }

    /// Every timer there is is in memory.
    pub(crate) fn is_complete(&self) -> bool {
        self.fields.iter().all(|f| f.index.is_complete())
    }

    /// About how many bytes the indexes take on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.fields.iter().map(|f| f.index.near() as u64 * STORED_BYTES).sum()
    }

    /// Ends the epoch: what it added, or with `whole` all there is, is to be copied into its delta.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn freeze(&mut self, whole: bool) -> Result<(), Error> {
        let Self { fields, storage, .. } = self;
        let frozen = storage.frozen.get();
        fields.iter_mut().try_for_each(|f| f.index.freeze(frozen, whole, storage))
    }

    /// Copies a bounded number of entries; true if there are more.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn copy(&mut self) -> Result<bool, Error> {
        let Self { fields, storage, .. } = self;
        for Field { index, .. } in fields {
            if index.copy(storage)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Before user code sees a row.
    #[inline(always)]
    pub(crate) fn enter<S: State>(&mut self, row: &mut S) {
        if S::HAS_TIMERS {
            row.visit_mut(&mut Lend(&mut self.changes));
        }
    }

    /// After it: whatever it changed is in the indexes.
    #[inline(always)]
    pub(crate) fn leave<S: State>(&mut self, row: &mut S, group: u32, key: &impl Key) {
        if S::HAS_TIMERS {
            row.visit_mut(&mut Settle(&mut self.changes));
            if !self.changes.list.is_empty() {
                let applied = self.apply(group, key);
                self.storage.note(applied);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn apply(&mut self, group: u32, key: &impl Key) -> Result<(), Error> {
        let Self { fields, changes, storage, key: bytes, .. } = self;
        bytes.clear();
        encode_key(key, bytes).map_err(unkept)?;
        for Change { field, at, there } in changes.list.drain(..) {
            let due = Due::new(at, bytes);
            match fields.iter_mut().find(|f| f.field == field) {
                Some(Field { index, .. }) if there => index.insert(group, due, storage)?,
                Some(Field { index, .. }) => index.cancel(group, due, storage)?,
                None => {}
            }
        }
        Ok(())
    }

    fn of(&self, clock: Clock) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |f| f.clock == clock)
    }

    /// Nothing is due by this clock before this instant; none if nothing is set.
    #[inline]
    pub(crate) fn next(&self, clock: Clock) -> Option<Timestamp> {
        self.of(clock).filter_map(|f| f.index.next()).min()
    }

    /// How many entries are in memory.
    #[cfg(test)]
    pub(crate) fn near(&self) -> usize {
        self.fields.iter().map(|f| f.index.near()).sum()
    }

    /// Finds up to `most` entries that are due, of each group those of the first instant. If there are none,
    /// [`next`](Self::next) knows from now on what comes then.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn plan(&mut self, clock: Clock, now: Timestamp, most: usize) -> Result<Round, Error> {
        let Self { fields, storage, groups, .. } = self;
        let mut round = Round::default();
        let mut left = most;
        for group in groups.clone() {
            let mut first: Option<Timestamp> = None;
            for Field { index, .. } in fields.iter_mut().filter(|f| f.clock == clock) {
                index.read_on(group, now, storage)?;
                first = first.into_iter().chain(index.due(group, now).next().map(|due| due.at)).min();
            }
            let Some(until) = first else { continue };
            let before = round.keys.len();
            for Field { index, .. } in fields.iter().filter(|f| f.clock == clock) {
                round.keys.extend(index.due(group, until).take(left).map(|due| (group, due.key.clone())));
            }
            let due = (round.keys.len() - before).min(left);
            round.groups.push(Share { group, until, due });
            left -= due;
            if left == 0 {
                return Ok(round);
            }
        }
        if round.keys.is_empty() {
            fields.iter_mut().filter(|f| f.clock == clock).for_each(|f| f.index.look_ahead());
        }
        Ok(round)
    }

    /// Takes the first entry of a group that is due, of whichever field; none, too, if something has to be read before
    /// that can be told.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn take(&mut self, clock: Clock, group: u32, now: Timestamp) -> Result<Option<(usize, Due)>, Error> {
        let Self { fields, storage, .. } = self;
        let mut first: Option<(Timestamp, &mut Field)> = None;
        for field in fields.iter_mut().filter(|f| f.clock == clock) {
            let next = field.index.first(group, now, storage)?;
            if next.is_none() && field.index.is_used_up(group, now) {
                return Ok(None);
            }
            // at one instant the fields are in their order
            if let Some(next) = next
                && first.as_ref().is_none_or(|(at, _)| next < *at)
            {
                first = Some((next, field));
            }
        }
        let Some((_, Field { field, index, .. })) = first else { return Ok(None) };
        Ok(index.take(group, storage)?.map(|due| (*field, due)))
    }

    /// Whether rows know nothing of the timers of a field.
    pub(crate) fn is_many(&self, field: usize) -> bool {
        self.fields.iter().any(|f| f.field == field && f.many)
    }

    /// What a row says to an entry that was taken. If its timer is set for later, the entry moves there. Nothing that
    /// is saved changes.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn ask<S: State>(
        &mut self,
        row: &mut S,
        field: usize,
        group: u32,
        entry: &Due,
    ) -> Result<Verdict, Error> {
        let mut ask = Ask { field, entry: entry.at, verdict: Verdict::Stale };
        row.visit_mut(&mut ask);
        if let Verdict::Later(at) = ask.verdict
            && let Some(Field { index, .. }) = self.fields.iter_mut().find(|f| f.field == field)
        {
            index.insert(group, Due { at, key: entry.key.clone() }, &mut self.storage)?;
        }
        Ok(ask.verdict)
    }

    /// Lets a row know which of its timers fires.
    pub(crate) fn fire<S: State>(&mut self, row: &mut S, field: usize, at: Timestamp) {
        self.enter(row);
        row.visit_mut(&mut Fire { field, at });
    }
}

/// What is due of a key group: so many entries, none of them later than `until`. The rows of those that are later have
/// not been asked for.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) group: u32,
    pub(crate) until: Timestamp,
    pub(crate) due: usize,
}

/// What is due.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What may be taken before more is looked for.
    pub(crate) groups: Vec<Share>,
    /// The keys of these entries, and perhaps of some others.
    pub(crate) keys: Vec<(u32, KeyBytes)>,
}

struct Lend<'a>(&'a mut Changes);
impl VisitorMut for Lend<'_> {
    #[inline(always)]
    fn field<H: Handle>(&mut self, _: usize, handle: &mut H) {
        handle.lend(self.0);
    }
}

struct Settle<'a>(&'a mut Changes);
impl VisitorMut for Settle<'_> {
    #[inline(always)]
    fn field<H: Handle>(&mut self, index: usize, handle: &mut H) {
        handle.settle(index, self.0);
    }
}

struct Ask {
    field: usize,
    entry: Timestamp,
    verdict: Verdict,
}
impl VisitorMut for Ask {
    fn field<H: Handle>(&mut self, index: usize, handle: &mut H) {
        if index == self.field {
            self.verdict = handle.due(self.entry);
        }
    }
}

struct Fire {
    field: usize,
    at: Timestamp,
}
impl VisitorMut for Fire {
    fn field<H: Handle>(&mut self, index: usize, handle: &mut H) {
        if index == self.field {
            handle.fire(self.at);
        }
    }
}

impl IndexStorage for Rc<Storage> {
    fn put(&mut self, epoch: Epoch, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.attempt(|backend| {
            let append = |into: &mut Vec<u8>, bytes: &[u8]| {
                into.extend_from_slice(bytes);
                Ok(())
            };
            backend.put(epoch, |into| append(into, key), |into| append(into, value))
        })
    }
    fn spill(&mut self, epoch: Epoch, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.attempt(|backend| backend.spill(epoch, key, value))
    }
    fn may_drop(&mut self, epoch: Epoch) -> bool {
        self.with(|backend| backend.may_drop(epoch))
    }
    fn scan(
        &mut self,
        range: Range<&[u8]>,
        each: &mut dyn FnMut(Epoch, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.attempt(|backend| backend.scan(range.start, range.end, |key, epoch, _| each(epoch, key)))
    }
    fn running(&self) -> Epoch {
        self.running.get()
    }
}
