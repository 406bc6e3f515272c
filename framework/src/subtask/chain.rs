//! Fused chains in a subtask: the loop over a batch, and the stage it runs in. Chains that end in an exchange by key
//! are in `exchange.rs`, those that end in branches in `branch.rs`.
//!
//! The loop is all that is compiled once per chain. What surrounds it knows no types and calls it once per batch, or
//! sixty pipelines would take twice as long to compile.

use super::stage::{AnyStage, Control, mismatch};
use crate::guard::guarded;
use crate::operator::{Chain, Collect};
use crate::record::AnyBatch;
use crate::{Batch, BoxError, Error, Record, Timestamp};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use std::vec::Drain;

/// A chain and its end, as all subtasks share them. It remembers the types that the rest of a stage does not know. (A
/// trait and no closures, for those are compiled with ways to call them that nobody needs.)
pub(crate) trait Run: Send + Sync {
    /// Runs a batch into what the loop was made for, and leaves the batch empty. After an error the results are not to
    /// be used.
    fn run(&self, scratch: &mut dyn Any, batch: &mut dyn AnyBatch, out: &mut dyn Any) -> Result<(), BoxError>;
    /// What a subtask brings to each call.
    fn scratch(&self) -> Box<dyn Any + Send>;
}

/// The loops of all subtasks.
pub(crate) struct Loops(Arc<dyn Run>);

impl Loops {
    pub(crate) fn new(run: Arc<dyn Run>) -> Self {
        Self(run)
    }

    /// The loop of a subtask.
    pub(crate) fn make(&self) -> Loop {
        Loop { run: self.0.clone(), scratch: self.0.scratch() }
    }
}

/// The loop of one subtask.
pub(crate) struct Loop {
    run: Arc<dyn Run>,
    scratch: Box<dyn Any + Send>,
}

impl Loop {
    /// Runs a batch. What a step fails with and what it panics with are errors of this place.
    pub(crate) fn call(&mut self, batch: &mut dyn AnyBatch, out: &mut dyn Any, place: &str) -> Result<(), Error> {
        let Self { run, scratch } = self;
        let run = || run.run(&mut **scratch, batch, out).map_err(|error| Error::from_user(error, place));
        guarded(|| place.to_owned(), run)
    }
}

/// What a loop is called with, as what it is.
pub(crate) struct Typed<'a, W, I, Out> {
    pub(crate) scratch: &'a mut W,
    pub(crate) batch: &'a mut Batch<I>,
    pub(crate) out: &'a mut Out,
}

impl<'a, W: 'static, I: Send + 'static, Out: 'static> Typed<'a, W, I, Out> {
    pub(crate) fn of(
        scratch: &'a mut dyn Any,
        batch: &'a mut dyn AnyBatch,
        out: &'a mut dyn Any,
    ) -> Result<Self, BoxError> {
        let batch: &mut dyn Any = batch;
        match (scratch.downcast_mut(), batch.downcast_mut(), out.downcast_mut()) {
            (Some(scratch), Some(batch), Some(out)) => Ok(Self { scratch, batch, out }),
            _ => Err(mismatch::<I>().into()),
        }
    }
}

/// The loops of a chain whose results go into a batch. Two, so that untimed streams do not pay for times.
pub(crate) fn chain_loops<T: Send + 'static, C: Chain<T>>(chain: C, timed: bool) -> Loops {
    let of = PhantomData;
    if timed {
        Loops::new(Arc::new(IntoBatch::<T, C, true> { chain, of }))
    } else {
        Loops::new(Arc::new(IntoBatch::<T, C, false> { chain, of }))
    }
}

/// A function of its own, as are those of the other ends: of what it is handed the compiler knows that it does not
/// overlap, which it does not know of what has been told its type a moment ago.
#[inline(never)]
fn into_batch<T, C: Chain<T>, const TIMED: bool>(
    chain: &C,
    scratch: &mut C::Scratch,
    batch: &mut Batch<C::In>,
    out: &mut Batch<T>,
) -> Result<(), BoxError> {
    out.values.reserve(batch.values.len());
    out.times.resize(batch.times.len(), Timestamp::MIN);
    let Tail { out, error } = run(chain, scratch, batch, Tail::<T, TIMED> { out, error: None });
    out.times.truncate(out.values.len());
    error.map_or(Ok(()), Err)
}

struct IntoBatch<T, C, const TIMED: bool> {
    chain: C,
    of: PhantomData<fn() -> T>,
}

impl<T: Send + 'static, C: Chain<T>, const TIMED: bool> Run for IntoBatch<T, C, TIMED> {
    fn run(&self, scratch: &mut dyn Any, batch: &mut dyn AnyBatch, out: &mut dyn Any) -> Result<(), BoxError> {
        let Typed { scratch, batch, out } = Typed::of(scratch, batch, out)?;
        into_batch::<T, C, TIMED>(&self.chain, scratch, batch, out)
    }

    fn scratch(&self) -> Box<dyn Any + Send> {
        Box::new(self.chain.scratch())
    }
}

/// Runs each record of the batch through the chain into `tail`, which it gives back.
#[inline(always)]
pub(crate) fn run<T, C: Chain<T>, O: Collect<T>>(
    chain: &C,
    scratch: &mut C::Scratch,
    batch: &mut Batch<C::In>,
    mut tail: O,
) -> O {
    let mut records = Records::of(batch);
    while let Some(record) = records.next() {
        chain.push(scratch, record, &mut tail);
    }
    drop(records);
    batch.clear();
    tail
}

/// Takes the records out of a batch. An iterator of the crate's own, for those of the library, one in the other, are
/// compiled anew for each chain.
struct Records<'a, I> {
    values: Drain<'a, I>,
    times: Drain<'a, Timestamp>,
}

impl<'a, I> Records<'a, I> {
    fn of(batch: &'a mut Batch<I>) -> Self {
        Self { values: batch.values.drain(..), times: batch.times.drain(..) }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<Record<I>> {
        let value = self.values.next()?;
        Some(Record { value, time: self.times.next().unwrap_or(Timestamp::MIN) })
    }
}

/// Records of so many bytes are cheaper to put down than a branch on whether to.
const SMALL: usize = 64;

/// Where a chain puts its results.
struct Tail<'a, T, const TIMED: bool> {
    out: &'a mut Batch<T>,
    error: Option<BoxError>,
}

impl<T, const TIMED: bool> Tail<'_, T, TIMED> {
    /// Puts down the time of the next value. The column has been made as long as the batch that comes in, so that
    /// hardly ever anything is pushed, and is cut to the number of values afterwards.
    #[inline(always)]
    fn put_time(&mut self, time: Timestamp) {
        let next = self.out.values.len();
        match self.out.times.get_mut(next) {
            Some(place) => *place = time,
            None => self.out.times.push(time),
        }
    }
}

impl<T, const TIMED: bool> Collect<T> for Tail<'_, T, TIMED> {
    #[inline(always)]
    fn emit(&mut self, r: Record<T>) {
        if TIMED {
            self.put_time(r.time);
        }
        self.out.values.push(r.value);
    }
    #[inline(always)]
    fn emit_if(&mut self, keep: bool, r: Record<T>) {
        if std::mem::needs_drop::<T>() || size_of::<T>() > SMALL {
            if keep {
                self.emit(r);
            }
            return;
        }
        // put down in any case, and left out of the length: no branch
        if TIMED {
            self.put_time(r.time);
        }
        let len = self.out.values.len();
        self.out.values.push(r.value);
        self.out.values.truncate(len + usize::from(keep));
    }
    #[cold]
    fn fail(&mut self, error: BoxError) {
        self.error.get_or_insert(error);
    }
}

/// A fused chain in front of another stage of the same subtask.
pub(crate) struct ChainStage {
    run: Loop,
    out: Box<dyn AnyBatch>,
    next: Box<dyn AnyStage>,
    /// For errors.
    place: String,
}

impl ChainStage {
    /// `out` is an empty batch of what the loop makes.
    pub(crate) fn new(run: Loop, out: Box<dyn AnyBatch>, next: Box<dyn AnyStage>, place: String) -> Self {
        Self { run, out, next, place }
    }
}

impl Control for ChainStage {
    fn next(&mut self) -> &mut dyn Control {
        &mut *self.next
    }
}

impl AnyStage for ChainStage {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        self.run.call(batch, &mut *self.out, &self.place)?;
        self.next.on_any(&mut *self.out)
    }
}
