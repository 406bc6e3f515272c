//! Keyed operators with state: the contract, and what it is handed.

use crate::state::State;
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
}

/// The key, the time, and the way out.
#[derive(Debug)]
pub struct Context<'a, K, Out> {
    key: &'a K,
    time: Timestamp,
    out: &'a mut Batch<Out>,
    timed: bool,
}

impl<'a, K, Out> Context<'a, K, Out> {
    #[inline(always)]
    pub(crate) fn new(key: &'a K, time: Timestamp, out: &'a mut Batch<Out>, timed: bool) -> Self {
        Self { key, time, out, timed }
    }

    /// The key whose state is at hand.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> &'a K {
        self.key
    }

    /// Of the record at hand; [`Timestamp::MIN`] in streams without event time.
    #[inline(always)]
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Hands a result on, at the time of the record.
    #[inline(always)]
    pub fn emit(&mut self, value: Out) {
        self.out.values.push(value);
        if self.timed {
            self.out.times.push(self.time);
        }
    }
}
