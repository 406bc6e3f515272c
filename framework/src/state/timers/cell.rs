//! Timers as fields of a row. What makes them fire is in `subtask/timers.rs`, the index that finds those that are due
//! in `index.rs`.
//!
//! A cell of one timer is the truth about when it fires; the index only has to have *some* entry at or before that
//! time. When that entry is due and the timer is not, the entry moves on. So to set a timer later again and again, as
//! time-outs do, costs a comparison and no change of the index, and to set it earlier costs one entry more.
//!
//! Of many timers under one key nothing is in the row: the index has one entry for each.

use crate::Timestamp;
use crate::codec::{self, CodecError};
use crate::shape::{Shape, shape_of};
use crate::state::handle::{Handle, Kind};
use bincode::error::DecodeError;
use serde::Deserialize;
use std::fmt;

/// A time that no timer has: not set, or not in the index.
const NONE: i64 = i64::MAX;
/// Timers are set within so many milliseconds of 1970, 36 million years, which leaves room for what follows.
const LAST: i64 = 1 << 60;
/// Added to the time of a timer that has fired, in place of its entry, until the call is over.
const FIRED: i64 = 1 << 62;

/// What a call did to timers and their indexes do not know yet, and what is kept for the next call.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Changes {
    pub(crate) list: Vec<Change>,
    #[allow(clippy::vec_box, reason = "the boxes go to rows and come back")]
    spare: Vec<Box<Many>>,
}

/// An entry that is to be in an index, or not to be there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) field: usize,
    pub(crate) at: Timestamp,
    pub(crate) there: bool,
}

/// What is to be done about an entry that is due.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The user's function is to be called.
    Fire,
    /// Not before then.
    Later(Timestamp),
    /// Nothing: the timer was cancelled, or has fired.
    Stale,
}

/// One timer of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
struct One {
    at: i64,
    /// At or before this the index has an entry; `FIRED` is explained there.
    indexed: i64,
}

impl One {
    const UNSET: Self = Self { at: NONE, indexed: NONE };

    fn fired(&self) -> Option<Timestamp> {
        let fired = (LAST + 1..NONE).contains(&self.indexed);
        fired.then(|| timestamp(self.indexed - FIRED))
    }

    #[inline(always)]
    fn settle(&mut self, field: usize, changes: &mut Changes) {
        if self.indexed > LAST {
            self.indexed = NONE;
        }
        if self.at < self.indexed {
            self.indexed = self.at;
            changes.list.push(Change { field, at: timestamp(self.at), there: true });
        }
    }

    fn due(&mut self, entry: Timestamp) -> Verdict {
        if self.at <= entry.as_millis().min(LAST) {
            return Verdict::Fire;
        }
        // the entry is used up, and may have been the one that was known
        self.indexed = self.at;
        if self.at == NONE { Verdict::Stale } else { Verdict::Later(timestamp(self.at)) }
    }

    fn fire(&mut self) {
        *self = Self { at: NONE, indexed: self.at + FIRED };
    }
}

/// The last instant of timers stands for the end of the input.
fn timestamp(ms: i64) -> Timestamp {
    if ms == LAST { Timestamp::MAX } else { Timestamp::from_millis(ms) }
}

/// Many timers of a key, while a call is under way.
#[derive(Debug, Default)]
struct Many {
    changes: Vec<(Timestamp, bool)>,
    fired: Option<Timestamp>,
}

/// What a manifest says of a timer.
#[derive(Deserialize)]
#[serde(rename = "timer")]
struct TimerShape(#[allow(dead_code, reason = "for its shape")] i64);
#[derive(Deserialize)]
#[serde(rename = "timers")]
struct TimersShape(#[allow(dead_code, reason = "for its shape")] i64);

macro_rules! timers {
    ($(#[$one_doc:meta])* $one:ident $one_kind:ident, $(#[$many_doc:meta])* $many:ident $many_kind:ident) => {
        $(#[$one_doc])*
        pub struct $one(One);

        impl $one {
            /// It is to fire at this instant; if it was set, it is moved.
            #[inline(always)]
            pub fn set(&mut self, at: Timestamp) {
                self.0.at = at.as_millis().clamp(-LAST, LAST);
            }

            /// It is not to fire.
            #[inline(always)]
            pub fn cancel(&mut self) {
                self.0.at = NONE;
            }

            /// When it is to fire, if it is set.
            #[inline(always)]
            #[must_use]
            pub fn at(&self) -> Option<Timestamp> {
                (self.0.at != NONE).then(|| timestamp(self.0.at))
            }

            /// In `on_timer`: when it was set for, if it is the one that fires. It is not set any more then.
            #[must_use]
            pub fn fired(&self) -> Option<Timestamp> {
                self.0.fired()
            }
        }

        impl fmt::Debug for $one {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.at().fmt(f)
            }
        }

        impl Handle for $one {
            const KIND: Kind = Kind::$one_kind;
            fn open() -> Self {
                Self(One::UNSET)
            }
            #[inline(always)]
            fn is_empty(&self) -> bool {
                self.0.at == NONE
            }
            #[inline(always)]
            fn save(&self, id: u32, version: u32, into: &mut Vec<u8>) -> Result<(), CodecError> {
                if self.is_empty() { Ok(()) } else { codec::put_field(id, version, &self.0.at, into) }
            }
            fn load(&mut self, field: &codec::Field<'_>) -> Result<(), CodecError> {
                let at = field.value()?;
                if !(-LAST..=LAST).contains(&at) {
                    return Err(CodecError::Decode(DecodeError::Other("no timer is set so far off")));
                }
                self.0 = One { at, indexed: at };
                Ok(())
            }
            fn shape() -> Shape {
                shape_of::<TimerShape>()
            }
            #[inline(always)]
            fn settle(&mut self, field: usize, changes: &mut Changes) {
                self.0.settle(field, changes);
            }
            fn due(&mut self, entry: Timestamp) -> Verdict {
                self.0.due(entry)
            }
            fn fire(&mut self, _: Timestamp) {
                self.0.fire();
            }
        }

        $(#[$many_doc])*
        pub struct $many(Option<Box<Many>>);

        impl $many {
            /// One is to fire at this instant; nothing changes if that is so already. Takes some microseconds less if
            /// it is soon, for the far ones are on disk.
            pub fn set(&mut self, at: Timestamp) {
                self.change(at, true);
            }

            /// None is to fire at this instant.
            pub fn cancel(&mut self, at: Timestamp) {
                self.change(at, false);
            }

            /// In `on_timer`: the instant of the one that fires, if it is one of these.
            #[must_use]
            pub fn fired(&self) -> Option<Timestamp> {
                self.0.as_ref().and_then(|many| many.fired)
            }

            fn change(&mut self, at: Timestamp, there: bool) {
                self.0.get_or_insert_default().changes.push((at, there));
            }
        }

        impl fmt::Debug for $many {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($many))
            }
        }

        impl Handle for $many {
            const KIND: Kind = Kind::$many_kind;
            fn open() -> Self {
                Self(None)
            }
            #[inline(always)]
            fn is_empty(&self) -> bool {
                true
            }
            #[inline(always)]
            fn save(&self, _: u32, _: u32, _: &mut Vec<u8>) -> Result<(), CodecError> {
                Ok(())
            }
            fn load(&mut self, _: &codec::Field<'_>) -> Result<(), CodecError> {
                Ok(())
            }
            fn shape() -> Shape {
                shape_of::<TimersShape>()
            }
            #[inline(always)]
            fn lend(&mut self, changes: &mut Changes) {
                self.0 = changes.spare.pop();
            }
            #[inline(always)]
            fn settle(&mut self, field: usize, changes: &mut Changes) {
                if let Some(mut many) = self.0.take() {
                    many.fired = None;
                    let change = |(at, there)| Change { field, at, there };
                    changes.list.extend(many.changes.drain(..).map(change));
                    changes.spare.push(many);
                }
            }
            fn due(&mut self, _: Timestamp) -> Verdict {
                Verdict::Fire
            }
            fn fire(&mut self, at: Timestamp) {
                self.0.get_or_insert_default().fired = Some(at);
            }
        }
    };
}

timers! {
    /// A timer in event time, one per key: it fires when the watermark reaches it. Set again, it is moved.
    EventTimer EventTimer,
    /// Timers in event time, as many per key as there are instants to set them for.
    EventTimers EventTimers
}
timers! {
    /// A timer by the clock of the machine, one per key. Set again, it is moved. See
    /// [`Context::now`](crate::Context::now).
    ProcessingTimer ProcessingTimer,
    /// Timers by the clock of the machine, as many per key as there are instants to set them for.
    ProcessingTimers ProcessingTimers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    /// What the index is told.
    fn told(handle: &mut impl Handle) -> Vec<(i64, bool)> {
        let mut changes = Changes::default();
        handle.settle(0, &mut changes);
        changes.list.iter().map(|change| (change.at.as_millis(), change.there)).collect()
    }

    #[test]
    fn later_costs_nothing_and_earlier_one_entry() {
        let mut timer = EventTimer::open();
        assert_eq!(told(&mut timer), []);
        timer.set(at(50));
        assert_eq!((told(&mut timer), told(&mut timer)), (vec![(50, true)], vec![]));
        for later in [60, 55, 51, 50] {
            timer.set(at(later));
            assert_eq!(told(&mut timer), []);
        }
        timer.set(at(40));
        assert_eq!(told(&mut timer), [(40, true)]);
        timer.cancel();
        assert_eq!((told(&mut timer), timer.at()), (vec![], None));
        timer.set(at(45));
        assert_eq!((told(&mut timer), timer.at()), (vec![], Some(at(45))));
    }

    #[test]
    fn an_entry_fires_moves_on_or_is_stale() {
        let mut timer = EventTimer::open();
        timer.set(at(50));
        told(&mut timer);
        timer.set(at(70));
        assert_eq!(timer.due(at(50)), Verdict::Later(at(70)));
        assert_eq!(told(&mut timer), []);
        assert_eq!(timer.due(at(70)), Verdict::Fire);
        timer.fire(at(70));
        assert_eq!((timer.fired(), timer.at(), timer.is_empty()), (Some(at(70)), None, true));
        timer.set(at(90));
        assert_eq!((timer.fired(), timer.at()), (Some(at(70)), Some(at(90))));
        assert_eq!(told(&mut timer), [(90, true)]);
        assert_eq!(timer.fired(), None);
        timer.cancel();
        assert_eq!(timer.due(at(90)), Verdict::Stale);
        timer.set(at(95));
        assert_eq!(told(&mut timer), [(95, true)], "the entry at 90 is used up");
    }

    #[test]
    fn the_ends_of_time() {
        let mut timer = ProcessingTimer::open();
        timer.set(Timestamp::MAX);
        assert_eq!((told(&mut timer).len(), timer.at()), (1, Some(Timestamp::MAX)));
        assert_eq!(timer.due(Timestamp::MAX), Verdict::Fire);
        timer.fire(Timestamp::MAX);
        assert_eq!(timer.fired(), Some(Timestamp::MAX));
        assert_eq!(told(&mut timer), []);
        timer.set(Timestamp::MIN);
        let mut bytes = Vec::new();
        timer.save(0, 1, &mut bytes).unwrap();
        let mut again = ProcessingTimer::open();
        again.load(&codec::fields(&bytes).next().unwrap().unwrap()).unwrap();
        assert_eq!(again.at(), timer.at());
        assert!(again.at() < Some(at(-LAST + 1)));
    }

    #[test]
    fn many_tell_each_change_in_order() {
        let mut timers = EventTimers::open();
        timers.set(at(5));
        timers.cancel(at(5));
        timers.set(at(7));
        assert_eq!(told(&mut timers), [(5, true), (5, false), (7, true)]);
        assert_eq!(timers.due(at(7)), Verdict::Fire);
        timers.fire(at(7));
        assert_eq!(timers.fired(), Some(at(7)));
        assert_eq!((told(&mut timers), timers.fired()), (vec![], None));
    }

    #[test]
    fn a_cell_is_two_words() {
        assert_eq!((size_of::<EventTimer>(), size_of::<ProcessingTimers>()), (16, 8));
    }
}
