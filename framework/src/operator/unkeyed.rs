//! Operators without keys: whole batches, async, with a list of items as state. Keyed ones are in `process.rs`.
//!
//! An operator works in calls, which never overlap, and what it has to remember between them is in its items. A
//! checkpoint holds the items as they are **between two calls**, and what was emitted by then:
//!
//! * A call of [`on_batch`](Operator::on_batch), [`on_watermark`](Operator::on_watermark) or
//!   [`on_end`](Operator::on_end) is never cut in two: a barrier waits until it has returned. So the first two must not
//!   wait for answers of others; they start work and keep an item for it.
//! * [`ready`](Operator::ready) is where answers are waited for. It is dropped whenever something else is to be done, a
//!   barrier included, so that nothing waits for it, and called again after that.
//!
//! An operator that asks a remote service keeps each record, with its time, as an item until the answer is emitted.
//! After a crash the items are there again, and nothing else of the operator is: in the first `ready` it asks again for
//! all that it has no call under way for. `framework/examples/lookup/` is such an operator.

use crate::{Batch, BoxError, Data, Record, Timestamp};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Without keys, batch by batch, async. One is made per subtask by the function given to
/// [`Stream::operator`](crate::Stream::operator), on the thread it stays on: it need not be `Send`, `Sync` or `Clone`.
///
/// All methods may change the items and emit; both belong to the same epoch. Any error ends the attempt: the job
/// recovers from its last checkpoint. So does a panic.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operator",
    label = "the function has to make something that implements `Operator`",
    note = "implement `Operator` for it: `type In, Out, Item` and `async fn on_batch`; what must survive a crash belongs into the items"
)]
pub trait Operator: 'static {
    /// What it reads.
    type In: Send + 'static;
    /// What it emits.
    type Out: Send + 'static;
    /// What it keeps. The items of all subtasks are written at each barrier, each at most 256 MiB, and dealt round when
    /// the parallelism has changed: item `i` of all goes to subtask `i` modulo their number. With the same parallelism
    /// each subtask has its own items again, in their order. An item must not rely on its neighbours, therefore.
    type Item: Data;
    /// The version of what an item is, from 1; that of [`Item`](Self::Item) as `#[state(version = 2)]` is that of a
    /// state. A checkpoint with items of another version is refused, and so is one in which items have another shape
    /// under this version. Another version says that items of the same shape mean something else; there are no
    /// migrations yet.
    const ITEM_VERSION: u32 = 1;

    /// Takes a batch, never an empty one. The subtask does nothing else until this returns, so it must not wait for
    /// answers: start work here and finish it in [`ready`](Self::ready).
    ///
    /// # Errors
    /// Ends the attempt.
    async fn on_batch(
        &mut self,
        batch: Batch<Self::In>,
        items: &mut Vec<Self::Item>,
        out: &mut Output<Self::Out>,
    ) -> Result<(), BoxError>;

    /// Finishes what is under way. Called when nothing else is to be done, again after it has returned, and also right
    /// after the start, with the restored items. It returns when it has changed something, and waits for ever if there
    /// is nothing to wait for, as this default does.
    ///
    /// **Cancel-safe**: the future is dropped when a batch, a watermark, a barrier or the end comes. What is under way
    /// (calls, timers) belongs into `self`, for a future or a `sleep` that is made in here begins anew each time; and
    /// between taking a result, emitting it and removing its item there must be no `await`.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn ready(&mut self, items: &mut Vec<Self::Item>, out: &mut Output<Self::Out>) -> Result<(), BoxError> {
        let _ = (items, out);
        std::future::pending().await
    }

    /// How many items it wants to keep at most. While it has as many it is given no further batch, and back-pressure
    /// reaches the sources; only [`ready`](Self::ready) is called then, which must bring the number down. A batch is
    /// given as a whole, so there may be some more; and at a checkpoint it is given what is on its way before the
    /// barrier, about 20 ms of work, for the barrier must not wait for answers. No limit by default: for operators
    /// whose items do not grow with their input.
    fn capacity(&self) -> usize {
        usize::MAX
    }

    /// The time of the oldest record that it may still emit because of what it keeps; none if nothing is under way.
    /// Asked for two reasons, and cheap to answer if it can be:
    ///
    /// * A watermark that has come is passed on only as far as this allows, so that no record of the operator is late.
    /// * A job whose sources have all ended does not end while something is under way, or in the restored items.
    ///
    /// By default anything may still come, of any time, while there are items: safe, and right for all that hand out
    /// what they keep, but an operator that always has items holds event time up for ever unless it says more.
    fn pending_since(&self, items: &[Self::Item]) -> Option<Timestamp> {
        (!items.is_empty()).then_some(Timestamp::MIN)
    }

    /// No record of this time or older will come. The watermark is passed on after this, as far as
    /// [`pending_since`](Self::pending_since) allows.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn on_watermark(
        &mut self,
        watermark: Timestamp,
        items: &mut Vec<Self::Item>,
        out: &mut Output<Self::Out>,
    ) -> Result<(), BoxError> {
        let _ = (watermark, items, out);
        Ok(())
    }

    /// The input has ended. The end is passed on when this returns, so all that is under way has to be finished here:
    /// it may wait, and barriers wait for it. Items that stay are in the last checkpoint; if the sources have more to
    /// read at the next start, they are there.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn on_end(&mut self, items: &mut Vec<Self::Item>, out: &mut Output<Self::Out>) -> Result<(), BoxError> {
        let _ = (items, out);
        Ok(())
    }
}

/// Where an operator puts its results. They go on as soon as the future that emitted them waits or returns; no further
/// call is made, and none under way is polled, before what follows has taken them. So an operator has in memory what it
/// emits without waiting, and no more.
pub struct Output<T> {
    emitted: Rc<RefCell<Batch<T>>>,
    timed: bool,
}

impl<T> Output<T> {
    pub(crate) fn new(timed: bool) -> Self {
        Self { emitted: Rc::default(), timed }
    }

    /// Hands a record on, at its own time; in streams without event time the time is not kept.
    pub fn emit(&mut self, record: Record<T>) {
        let mut emitted = self.emitted.borrow_mut();
        emitted.values.push(record.value);
        if self.timed {
            emitted.times.push(record.time);
        }
    }

    /// Another end of the same.
    pub(crate) fn share(&self) -> Self {
        Self { emitted: self.emitted.clone(), timed: self.timed }
    }

    /// What was emitted; to be emptied, the memory is kept.
    pub(crate) fn emitted(&self) -> std::cell::RefMut<'_, Batch<T>> {
        self.emitted.borrow_mut()
    }
}

impl<T> fmt::Debug for Output<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output of {} records", self.emitted.borrow().len())
    }
}
