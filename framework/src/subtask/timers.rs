//! Firing timers: when the watermark or the clock of the machine has reached them, user code is called with their rows.
//! What is due is found by `state/timers/`; records come to the same rows in `process.rs`.
//!
//! 1. A watermark is held until every timer it reaches has fired, so that what these emit is in front of it. A timer
//!    that is set at or before the watermark fires after the batch.
//! 2. Timers fire in rounds of some hundreds, driven by `poll_ready` like all that takes time: before each round the
//!    next stage is ready for what it emits, and the others of the worker get their turn. Nothing else is done
//!    meanwhile.
//! 3. Rows that are in storage only are fetched together, round by round.
//! 4. Within a key timers fire in the order of their times, those included that are set while others fire.
//!
//! After the end of the input the clock of the machine makes nothing fire: what is set stays set.

use super::process::{ProcessStage, shown};
use super::report::{Counters, Report};
use super::state_stage::StateStage;
use crate::guard::guarded;
use crate::operator::{Context, Moment, Process};
use crate::state::cache::Form;
use crate::state::keyed::Keyed;
use crate::state::timers::{Clock, Due, Round, Share, Verdict};
use crate::state::{State, Table};
use crate::{Error, Key, Timestamp, clock};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// So many timers fire between two looks at the next stage, and so many rounds before others of the worker run.
const ROUND: usize = 256;
const ROUNDS: usize = 8;
/// The clock of the machine is looked at again after so long at the latest, for it may be set.
const NAP: Duration = Duration::from_secs(1);

/// What waits for timers, and what they wait for.
pub(super) struct Waiting {
    pub(super) at: Moment,
    /// A watermark that the next stage does not know yet.
    held: Option<Timestamp>,
    /// The next stage is to hear that nothing comes for now.
    idle: bool,
    /// Until when by the clock of the machine.
    nap: Option<(Timestamp, Pin<Box<Sleep>>)>,
    ended: bool,
    /// The coordinator knows that something has happened in this epoch.
    told: bool,
}

impl Waiting {
    pub(super) fn new() -> Self {
        let at = Moment { watermark: Timestamp::MIN, now: clock::wall().into() };
        Self { at, held: None, idle: false, nap: None, ended: false, told: false }
    }

    /// Something else begins: a batch, a round.
    pub(super) fn look_at_clock(&mut self) {
        self.at.now = clock::wall().into();
    }

    pub(super) fn begin_epoch(&mut self) {
        self.told = false;
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }
}

impl<K: Key, S: State, T: Send + 'static> StateStage<K, S, T> {
    /// A watermark has come. It goes on when what it reaches has fired.
    pub(super) fn reach(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.waiting.at.watermark = mark;
        (self.waiting.held, self.waiting.idle) = (Some(mark), false);
        if self.due().is_none() { self.hand_on() } else { Ok(()) }
    }

    /// Nothing comes for now; to be said after what is still to be said of time.
    pub(super) fn rest(&mut self) -> Result<(), Error> {
        self.waiting.idle = true;
        if self.due().is_none() { self.hand_on() } else { Ok(()) }
    }

    fn hand_on(&mut self) -> Result<(), Error> {
        if let Some(mark) = self.waiting.held.take() {
            self.next.on_watermark(mark)?;
        }
        if std::mem::take(&mut self.waiting.idle) { self.next.on_idle() } else { Ok(()) }
    }

    /// By which clock something may be due, and what time it is by that.
    fn due(&mut self) -> Option<(Clock, Timestamp)> {
        let Self { state: Keyed { timers, .. }, waiting, .. } = self;
        if timers.next(Clock::Event).is_some_and(|next| next <= waiting.at.watermark) {
            return Some((Clock::Event, waiting.at.watermark));
        }
        let next = timers.next(Clock::Processing).filter(|_| !waiting.ended)?;
        waiting.look_at_clock();
        (next <= waiting.at.now).then_some((Clock::Processing, waiting.at.now))
    }

    /// Ready when it may be time for the next timer by the clock of the machine; pending, too, if there is none.
    fn poll_nap(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let Self { state: Keyed { timers, .. }, waiting, .. } = self;
        let Some(next) = timers.next(Clock::Processing).filter(|_| !waiting.ended) else {
            waiting.nap = None;
            return Poll::Pending;
        };
        if waiting.nap.as_ref().is_none_or(|(until, _)| *until != next) {
            let left = next.as_millis().saturating_sub(waiting.at.now.as_millis());
            let left = Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(NAP);
            waiting.nap = Some((next, Box::pin(tokio::time::sleep(left))));
        }
        let Some((_, nap)) = &mut waiting.nap else { return Poll::Pending };
        ready!(nap.as_mut().poll(cx));
        waiting.nap = None;
        Poll::Ready(())
    }

    /// The next round, whose rows are in memory.
    fn plan(&mut self, clock: Clock, now: Timestamp) -> Result<Round, Error> {
        let round = self.state.timers.plan(clock, now, ROUND)?;
        let rows = &self.state.rows;
        for (group, key) in &round.keys {
            rows.prefetch(rows.form.read_key(*group, key.get())?.0);
        }
        if !rows.is_complete() {
            self.fetch_due(&round)?;
        }
        Ok(round)
    }

    /// Fetches the rows of a round of timers that are in storage only.
    fn fetch_due(&mut self, round: &Round) -> Result<(), Error> {
        let Self { state: Keyed { rows, storage, .. }, misses, .. } = self;
        misses.at.clear();
        misses.keys.clear();
        for (i, (group, key)) in round.keys.iter().enumerate() {
            let (hash, found) = rows.form.read_key(*group, key.get())?;
            if rows.find(hash, |k| *k == found).is_none() {
                misses.at.push(i);
                misses.keys.push(|into| rows.put_key(*group, &found, into))?;
            }
        }
        Counters::add(&self.context.counters.misses, misses.at.len());
        let mut loaded = 0;
        storage.attempt(|backend| {
            backend.get_many(&misses.keys, |miss, epoch, row| {
                loaded += 1;
                let (group, key) = &round.keys[misses.at[miss]];
                rows.load(*group, key.get(), Some((epoch, row)))
            })
        })?;
        Counters::add(&self.context.counters.loaded, loaded);
        Ok(())
    }
}

impl<P: Process> ProcessStage<P> {
    /// Ready when nothing is due any more.
    pub(super) fn poll_timers(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        if !P::State::HAS_TIMERS {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..ROUNDS {
            match self.keyed.due() {
                Some((clock, now)) => {
                    ready!(self.keyed.next.poll_ready(false, cx))?;
                    self.fire(clock, now)?;
                }
                None => {
                    self.keyed.hand_on()?;
                    if self.keyed.poll_nap(cx).is_pending() {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One round.
    fn fire(&mut self, clock: Clock, now: Timestamp) -> Result<(), Error> {
        let fired = guarded(|| "on_timer".into(), || self.round(clock, now));
        let keyed = &mut self.keyed;
        let fired = fired.map_err(|e| e.at(keyed.context.place("operator")))?;
        keyed.settle(self.out.len())?;
        if fired > 0 && !std::mem::replace(&mut keyed.waiting.told, true) {
            keyed.context.reports.send(Report::Progress);
        }
        keyed.next.on_any(&mut self.out)
    }

    /// Gives how many entries were looked at.
    fn round(&mut self, clock: Clock, now: Timestamp) -> Result<usize, Error> {
        let round = self.keyed.plan(clock, now)?;
        let mut looked_at = 0;
        for Share { group, until, due } in round.groups {
            for _ in 0..due {
                let Some((field, entry)) = self.keyed.state.timers.take(clock, group, until)? else { break };
                self.call(group, field, &entry)?;
                looked_at += 1;
            }
        }
        Ok(looked_at)
    }

    /// Calls user code, if the row's timer is set for the time of this entry.
    fn call(&mut self, group: u32, field: usize, entry: &Due) -> Result<(), Error> {
        let Self { process, out, timed, keyed, .. } = self;
        let StateStage { state: Keyed { rows, desk, here, timers, .. }, waiting, .. } = keyed;
        let (hash, key) = rows.form.read_key(group, entry.key.get())?;
        let is = |k: &P::Key| *k == key;
        // of many timers the row knows nothing, and need not be there
        let known =
            if timers.is_many(field) { Some(rows.locate(hash, is, || key.clone())) } else { rows.find(hash, is) };
        let Some(place) = known else { return Ok(()) };
        let Some(row) = rows.row_mut(place) else { return Ok(()) };
        if timers.ask(row, field, group, entry)? != Verdict::Fire {
            return Ok(());
        }
        let (key, row) = rows.touch(place);
        timers.fire(row, field, entry.at);
        if P::State::HAS_TABLES {
            here.set(group, key)?;
            row.enter(desk, here);
        }
        let done = process.on_timer(row, &mut Context::new(key, entry.at, out, *timed, &waiting.at));
        if P::State::HAS_TABLES {
            row.leave(desk, here);
        }
        timers.leave(row, group, key);
        done.map_err(|e| Error::from_user(e, shown(key)).at("on_timer"))
    }
}

#[cfg(feature = "rocksdb")]
#[cfg(test)]
#[path = "timers_test.rs"]
mod tests;
