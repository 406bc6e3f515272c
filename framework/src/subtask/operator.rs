//! Operators without keys in a subtask: makes one call after the other, between barriers. The contract is in
//! `operator/unkeyed.rs`, the files of items are in `state/items.rs`.
//!
//! 1. Batches, watermarks and the end wait in a queue; for each of them there is a call, and while one is under way the
//!    subtask takes nothing more. Operator and items are moved into the future of the call and come back with its end,
//!    so that no call is ever dropped half way.
//! 2. When the queue is empty there is a call of `ready`, which holds nobody up: its future gives operator and items
//!    back at once when it is told to stop.
//! 3. What is emitted goes on each time a future has been polled. Until what follows has taken it nothing is polled.
//! 4. A watermark is passed on after its call, when what was emitted before has gone on, and only as far as the
//!    operator allows; the rest of the way when it allows more.
//! 5. While the operator has as many items as it wants, no batch is taken, unless a barrier is on its way behind it: it
//!    is not to wait for answers either.
//! 6. At a barrier: no call is under way, for the subtask has waited until this stage was ready. The barrier is passed
//!    on, `ready` is stopped, the items are encoded, and written on another thread, which reports this subtask's part.

use super::report::{Counters, Report, StageContext};
use super::stage::{AnyStage, Control, Stage};
use crate::checkpoints::Part;
use crate::guard::guarded;
use crate::operator::{Operator, Output};
use crate::state::items::ItemsStore;
use crate::state::snapshot::ItemsSnapshot;
use crate::{Batch, BoxError, Epoch, Error, ErrorKind, Timestamp};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Calls made in one go; then other subtasks of the worker have their turn.
const ROUNDS: usize = 64;

/// What is moved into calls and comes back.
struct Body<O: Operator> {
    operator: O,
    items: Vec<O::Item>,
}

/// What is asked of the operator.
enum Op<T> {
    Batch(Batch<T>),
    Watermark(Timestamp),
    Idle,
    End,
}

/// What has to follow a call.
enum Done {
    Nothing,
    Watermark(Timestamp),
    End,
}

type Call<O> = LocalBoxFuture<'static, Result<(Body<O>, Done), BoxError>>;

enum State<O: Operator> {
    Idle(Body<O>),
    Busy(Call<O>),
    /// In `ready`.
    Waiting(Call<O>),
    /// Between two of the others, and after an error.
    Gone,
}

/// The last file, by the hash of its content, once it is written.
type Written = (u128, Arc<OnceLock<ItemsSnapshot>>);

/// An operator without keys in one subtask.
pub(crate) struct OperatorStage<O: Operator> {
    state: State<O>,
    queue: VecDeque<Op<O::In>>,
    out: Output<O::Out>,
    /// Tells the future of `ready` to give back what it holds.
    stop: Rc<Cell<bool>>,
    /// It had as many items as it wants when it was last at hand.
    full: bool,
    /// The epoch that is running, and the last one whose barrier is known to be on its way.
    running: Epoch,
    announced: Option<Epoch>,
    /// The watermark that has come, and as far as it was passed on.
    received: Timestamp,
    passed: Timestamp,
    /// Whether the coordinator knows that something was emitted in this epoch.
    told: bool,
    /// Nothing comes for now, and whether that was passed on.
    idle: bool,
    told_idle: bool,
    /// `on_end` has returned.
    ending: bool,
    /// The end was passed on.
    ended: bool,
    written: Option<Written>,
    store: Arc<ItemsStore>,
    next: Box<dyn AnyStage>,
    context: StageContext,
}

impl<O: Operator> OperatorStage<O> {
    /// An operator with its restored items; reports ready.
    pub(crate) fn new(
        operator: O,
        store: ItemsStore,
        timed: bool,
        next: Box<dyn AnyStage>,
        context: StageContext,
    ) -> Result<Self, Error> {
        let items = store.load().map_err(|e| e.at(context.place("operator")))?;
        let body = Body { operator, items };
        let stage = Self {
            state: State::Gone,
            queue: VecDeque::new(),
            out: Output::new(timed),
            stop: Rc::default(),
            full: false,
            running: context.first_epoch,
            announced: None,
            received: Timestamp::MIN,
            passed: Timestamp::MIN,
            told: false,
            idle: false,
            told_idle: false,
            ending: false,
            ended: false,
            written: None,
            store: Arc::new(store),
            next,
            context,
        };
        stage.report_owing(&body);
        stage.context.reports.send(Report::Ready);
        Ok(Self { state: State::Idle(body), ..stage })
    }

    /// The job must not end without a further checkpoint while something is under way.
    fn report_owing(&self, body: &Body<O>) {
        if body.operator.pending_since(&body.items).is_some() {
            self.context.reports.send(Report::Owing);
        }
    }

    /// Begins the call for what was at the front of the queue.
    fn call(&mut self, mut body: Body<O>, op: Op<O::In>) -> Result<Call<O>, Error> {
        self.idle = matches!(op, Op::Idle);
        if !self.idle && std::mem::take(&mut self.told_idle) {
            self.next.on_watermark(self.passed)?;
        }
        let mut out = self.out.share();
        let call = async move {
            let Body { operator, items } = &mut body;
            let done = match op {
                Op::Batch(batch) => operator.on_batch(batch, items, &mut out).await.map(|()| Done::Nothing),
                Op::Watermark(mark) => {
                    operator.on_watermark(mark, items, &mut out).await.map(|()| Done::Watermark(mark))
                }
                Op::Idle => Ok(Done::Nothing),
                Op::End => operator.on_end(items, &mut out).await.map(|()| Done::End),
            };
            Ok((body, done?))
        };
        Ok(call.boxed_local())
    }

    fn call_ready(&self, mut body: Body<O>) -> Call<O> {
        let (mut out, stop) = (self.out.share(), self.stop.clone());
        stop.set(false);
        async move {
            {
                let mut ready = pin!(body.operator.ready(&mut body.items, &mut out));
                poll_fn(|cx| if stop.get() { Poll::Ready(Ok(())) } else { ready.as_mut().poll(cx) }).await?;
            }
            Ok((body, Done::Nothing))
        }
        .boxed_local()
    }

    /// Polls the call under way; with its end the operator is back.
    fn poll_call(&mut self, mut call: Call<O>, waiting: bool, cx: &mut Context<'_>) -> Result<bool, Error> {
        match guarded(|| self.context.place("operator"), || Ok(call.poll_unpin(cx)))? {
            Poll::Pending => {
                self.state = if waiting { State::Waiting(call) } else { State::Busy(call) };
                Ok(false)
            }
            Poll::Ready(Ok((body, done))) => {
                match done {
                    Done::Watermark(mark) => self.received = self.received.max(mark),
                    Done::End => self.ending = true,
                    Done::Nothing => {}
                }
                self.state = State::Idle(body);
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(Error::from_user(error, self.context.place("operator"))),
        }
    }

    /// Hands on what was emitted, and waits for what follows to have room again.
    fn pass_on(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.next.poll_ready(all, cx))?;
        let emitted = !self.out.emitted().is_empty();
        if emitted {
            if !std::mem::replace(&mut self.told, true) {
                self.context.reports.send(Report::Progress);
            }
            let mut batch = self.out.emitted();
            Counters::add(&self.context.counters.records_out, batch.len());
            self.next.on_any(&mut *batch)?;
            drop(batch);
            ready!(self.next.poll_ready(all, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on as much of the watermark as the operator allows, that nothing comes if nothing will come of it either,
    /// and the end when it has come.
    fn advance(&mut self, body: &Body<O>) -> Result<(), Error> {
        if self.passed < self.received || self.idle != self.told_idle {
            let pending = body.operator.pending_since(&body.items).filter(|_| !self.ending);
            let allowed = pending.map_or(Timestamp::MAX, |oldest| oldest - Duration::from_millis(1));
            let mark = self.received.min(allowed);
            if mark > self.passed {
                self.passed = mark;
                self.next.on_watermark(mark)?;
            }
            if self.idle && !self.told_idle && pending.is_none() {
                self.told_idle = true;
                self.next.on_idle()?;
            }
        }
        if self.ending && !self.ended {
            self.ended = true;
            self.next.on_end()?;
        }
        Ok(())
    }

    /// Goes on until a call has to wait, or what follows has no room.
    fn drive(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..ROUNDS {
            ready!(self.pass_on(all || self.ending, cx))?;
            match std::mem::replace(&mut self.state, State::Gone) {
                State::Gone => return Poll::Ready(Ok(())),
                State::Idle(body) => {
                    self.advance(&body)?;
                    self.state = match self.queue.pop_front() {
                        Some(op) => State::Busy(self.call(body, op)?),
                        None if self.ended => {
                            self.state = State::Idle(body);
                            return Poll::Ready(Ok(()));
                        }
                        None => {
                            self.full = body.items.len() >= body.operator.capacity();
                            State::Waiting(self.call_ready(body))
                        }
                    };
                }
                State::Busy(call) => {
                    if !self.poll_call(call, false, cx)? && self.out.emitted().is_empty() {
                        return Poll::Pending;
                    }
                }
                State::Waiting(call) => {
                    self.stop.set(!self.queue.is_empty());
                    if !self.poll_call(call, true, cx)? && self.out.emitted().is_empty() {
                        return if self.takes_more() { Poll::Ready(Ok(())) } else { Poll::Pending };
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the next batch may come: there is room, or a barrier is behind it.
    fn takes_more(&self) -> bool {
        !self.full || self.announced >= Some(self.running)
    }

    /// The operator, when no call but one of `ready` is under way, which is ended.
    fn reclaim(&mut self) -> Option<Body<O>> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Idle(body) => Some(body),
            State::Waiting(call) => {
                self.stop.set(true);
                call.now_or_never()?.ok().map(|(body, _)| body)
            }
            State::Busy(_) | State::Gone => None,
        }
    }

    /// Sees to it that the items as they are now are in the checkpoint.
    fn snapshot(&mut self, epoch: Epoch, body: &Body<O>) -> Result<(), Error> {
        let part = Parts { context: self.context.clone(), epoch };
        if body.items.is_empty() {
            part.report(None);
            return Ok(());
        }
        let encoded = self.store.layout.put(&body.items);
        let encoded = encoded.map_err(|e| Error::from_user(e.into(), self.context.place("operator")))?;
        if let Some((_, file)) = self.written.as_ref().filter(|(last, _)| *last == encoded.hash)
            && let Some(snapshot) = file.get()
        {
            part.report(Some(snapshot.clone()));
            return Ok(());
        }
        let file = Arc::new(OnceLock::new());
        self.written = Some((encoded.hash, file.clone()));
        let store = self.store.clone();
        crate::spawn::blocking(move || match store.write(epoch, &encoded) {
            Ok(snapshot) => part.report(Some(file.get_or_init(|| snapshot).clone())),
            Err(error) => part.context.reports.send(Report::Failed(error.at(part.context.place("operator")))),
        });
        Ok(())
    }
}

/// Reports this subtask's part of a checkpoint.
struct Parts {
    context: StageContext,
    epoch: Epoch,
}

impl Parts {
    fn report(&self, snapshot: Option<ItemsSnapshot>) {
        let StageContext { name, subtask, participant, reports, .. } = &self.context;
        let part = Part::Items { name: name.to_string(), subtask: *subtask, snapshot };
        reports.send(Report::Part { participant: *participant, epoch: self.epoch, part });
    }
}

impl<O: Operator> Stage for OperatorStage<O> {
    type In = O::In;
    fn on_batch(&mut self, batch: &mut Batch<O::In>) -> Result<(), Error> {
        Counters::add(&self.context.counters.records_in, batch.len());
        if !batch.is_empty() {
            self.queue.push_back(Op::Batch(std::mem::take(batch)));
        }
        Ok(())
    }
}

impl<O: Operator> Control for OperatorStage<O> {
    fn next(&mut self) -> &mut dyn Control {
        &mut *self.next
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.context.counters.watermark.set(mark);
        self.queue.push_back(Op::Watermark(mark));
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.queue.push_back(Op::Idle);
        Ok(())
    }
    fn on_announced(&mut self, epoch: Epoch) {
        self.announced = self.announced.max(Some(epoch));
        self.next.on_announced(epoch);
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        (self.running, self.told) = (epoch + 1, false);
        self.next.on_barrier(epoch)?;
        let body = self.reclaim().ok_or_else(|| {
            let text = "a barrier came while a call was under way: this is a fault in millstream";
            Error::new(ErrorKind::Failed, text).at(self.context.place("operator"))
        })?;
        self.report_owing(&body);
        self.snapshot(epoch, &body)?;
        self.state = State::Idle(body);
        Ok(())
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.queue.push_back(Op::End);
        Ok(())
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.drive(all, cx)
    }
}

#[cfg(test)]
mod tests;
