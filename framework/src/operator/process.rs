//! Keyed operators with state: the contract, and what it is handed.

use crate::state::{State, Wanted};
use crate::{Batch, BoxError, Key, Timestamp};

/// Keyed, with state, synchronous: the runtime has the state of the whole batch at hand before it calls, so nobody
/// holds state across an await. All subtasks share one instance; what changes belongs into [`State`](Process::State).
///
/// Results depend on the order in which records of one key arrive: records of one split stay in order, records of
/// different splits meet in any order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot process this stream",
    note = "implement `Process` for it: `type Key, In, Out, State` and `fn on_record`; all subtasks share it; what changes belongs into `State`"
)]
pub trait Process: Send + Sync + 'static {
    /// The key of the stream.
    type Key: Key;
    /// What it reads.
    type In: Send + 'static;
    /// What it emits.
    type Out: Send + 'static;
    /// What it keeps per key: a struct with `#[derive(State)]`.
    type State: State;

    /// Handles one record. Changes of `state` and what `cx` was given are part of the same epoch, or of none.
    ///
    /// # Errors
    /// Any error ends the attempt: the job recovers from its last checkpoint.
    fn on_record(
        &self,
        record: Self::In,
        state: &mut Self::State,
        cx: &mut Context<'_, Self::Key, Self::Out>,
    ) -> Result<(), BoxError>;

    /// Says which entries of maps [`on_record`](Self::on_record) will look at, before it is called for any record of
    /// the batch: those that are not in memory are then read together, and not one by one while the worker waits.
    /// Nothing by default; worth it when a map is larger than memory. Asked for entries only while some are not in
    /// memory.
    ///
    /// ```
    /// # use millstream_framework::{BoxError, Context, Process, state::{MapState, State, Wanted}};
    /// #[derive(State)]
    /// struct Seen {
    ///     shops: MapState<String, u32>,
    /// }
    ///
    /// struct CountShops;
    /// impl Process for CountShops {
    ///     type Key = u64;
    ///     type In = (u64, String);
    ///     type Out = u32;
    ///     type State = Seen;
    ///     fn on_record(
    ///         &self,
    ///         (_, shop): (u64, String),
    ///         seen: &mut Seen,
    ///         cx: &mut Context<'_, u64, u32>,
    ///     ) -> Result<(), BoxError> {
    ///         let visits = seen.shops.or_default(shop);
    ///         *visits += 1;
    ///         cx.emit(*visits);
    ///         Ok(())
    ///     }
    ///     fn prefetch(&self, (_, shop): &(u64, String), wanted: &mut Wanted<'_, Seen>) {
    ///         wanted.entry(|seen| &seen.shops, shop);
    ///     }
    /// }
    /// ```
    #[inline]
    fn prefetch(&self, record: &Self::In, wanted: &mut Wanted<'_, Self::State>) {
        let _ = record;
        wanted.unused();
    }

    /// A timer of the key has fired: which one, the field's `fired()` tells, and when it was set for, `cx.time()`. It
    /// is not set any more. One call per timer; those of a key come in the order of their times. See
    /// [`state::timers`](crate::state::timers).
    ///
    /// # Errors
    /// Any error ends the attempt: the job recovers from its last checkpoint.
    fn on_timer(&self, state: &mut Self::State, cx: &mut Context<'_, Self::Key, Self::Out>) -> Result<(), BoxError> {
        let _ = (state, cx);
        Ok(())
    }
}

/// How far time has come for an operator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) watermark: Timestamp,
    /// By the clock of the machine, when the batch came or the timers became due.
    pub(crate) now: Timestamp,
}

/// The key, the time, and the way out.
#[derive(Debug)]
pub struct Context<'a, K, Out> {
    key: &'a K,
    time: Timestamp,
    out: &'a mut Batch<Out>,
    timed: bool,
    at: &'a Moment,
}

impl<'a, K, Out> Context<'a, K, Out> {
    #[inline(always)]
    pub(crate) fn new(key: &'a K, time: Timestamp, out: &'a mut Batch<Out>, timed: bool, at: &'a Moment) -> Self {
        Self { key, time, out, timed, at }
    }

    /// The key whose state is at hand.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> &'a K {
        self.key
    }

    /// Of the record at hand; [`Timestamp::MIN`] in streams without event time. Of a timer: when it was set for.
    #[inline(always)]
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// No record of this time or older is expected any more. [`Timestamp::MIN`] before the first watermark and in
    /// streams without event time, [`Timestamp::MAX`] after the end of the input.
    #[inline(always)]
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.at.watermark
    }

    /// By the clock of the machine, when the batch came that the record is in, or when the timer was found to be due.
    /// It is another time when a failed job reads the record again, and may go back when the clock is set.
    #[inline(always)]
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at.now
    }

    /// Hands a result on, at [`time`](Self::time).
    #[inline(always)]
    pub fn emit(&mut self, value: Out) {
        self.out.values.push(value);
        if self.timed {
            self.out.times.push(self.time);
        }
    }
}
