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
use std::sync::{Mutex, PoisonError};
use std::vec::Drain;

/// A loop that owns its chain. It remembers the types that the rest of a stage does not know. (A trait and no closures,
/// for those are compiled with ways to call them that nobody needs.)
pub(crate) trait Run: Send {
    /// Runs a batch into what the loop was made for, and leaves the batch empty. After an error the results are not to
    /// be used.
    fn run(&mut self, batch: &mut dyn AnyBatch, out: &mut dyn Any) -> Result<(), BoxError>;
    /// The same loop for another subtask.
    fn again(&self) -> Loop;
}
pub(crate) type Loop = Box<dyn Run>;

/// Runs a loop on a batch. What a step fails with and what it panics with are errors of this place.
pub(crate) fn call(run: &mut Loop, batch: &mut dyn AnyBatch, out: &mut dyn Any, place: &str) -> Result<(), Error> {
    guarded(|| place.to_owned(), || run.run(batch, out).map_err(|error| Error::from_user(error, place)))
}

/// Both ends of a loop, as what they are.
pub(crate) fn ends<'a, I: Send + 'static, Out: 'static>(
    batch: &'a mut dyn AnyBatch,
    out: &'a mut dyn Any,
) -> Result<(&'a mut Batch<I>, &'a mut Out), BoxError> {
    let batch: &mut dyn Any = batch;
    match (batch.downcast_mut(), out.downcast_mut()) {
        (Some(batch), Some(out)) => Ok((batch, out)),
        _ => Err(mismatch::<I>().into()),
    }
}

/// A loop for each subtask.
pub(crate) struct Loops(Mutex<Loop>);

impl Loops {
    /// As many as are asked for.
    pub(crate) fn of(run: impl Run + 'static) -> Self {
        Self(Mutex::new(Box::new(run)))
    }

    /// Another one.
    pub(crate) fn make(&self) -> Loop {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).again()
    }
}

/// The loops of a chain whose results go into a batch. Two, so that untimed streams do not pay for times.
pub(crate) fn chain_loops<T: Send + 'static, C: Chain<T>>(chain: C, timed: bool) -> Loops {
    let of = PhantomData;
    if timed {
        Loops::of(IntoBatch::<T, C, true> { chain, of })
    } else {
        Loops::of(IntoBatch::<T, C, false> { chain, of })
    }
}

/// A function of its own, as are those of the other ends: of what it is handed the compiler knows that it does not
/// overlap, which it does not know of what has been told its type a moment ago.
#[inline(never)]
fn into_batch<T, C: Chain<T>, const TIMED: bool>(
    chain: &mut C,
    batch: &mut Batch<C::In>,
    out: &mut Batch<T>,
) -> Result<(), BoxError> {
    out.values.reserve(batch.values.len());
    out.times.resize(batch.times.len(), Timestamp::MIN);
    let Tail { out, error } = run(chain, batch, Tail::<T, TIMED> { out, error: None });
    out.times.truncate(out.values.len());
    error.map_or(Ok(()), Err)
}

struct IntoBatch<T, C, const TIMED: bool> {
    chain: C,
    of: PhantomData<fn() -> T>,
}

impl<T: Send + 'static, C: Chain<T>, const TIMED: bool> Run for IntoBatch<T, C, TIMED> {
    fn run(&mut self, batch: &mut dyn AnyBatch, out: &mut dyn Any) -> Result<(), BoxError> {
        let (batch, out) = ends::<C::In, Batch<T>>(batch, out)?;
        into_batch::<T, C, TIMED>(&mut self.chain, batch, out)
    }

    fn again(&self) -> Loop {
        Box::new(Self { chain: self.chain.clone(), of: PhantomData })
    }
}

/// Runs each record of the batch through the chain into `tail`, which it gives back.
#[inline(always)]
pub(crate) fn run<T, C: Chain<T>, O: Collect<T>>(chain: &mut C, batch: &mut Batch<C::In>, mut tail: O) -> O {
    let mut records = Records::of(batch);
    while let Some(record) = records.next() {
        chain.push(record, &mut tail);
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
        call(&mut self.run, batch, &mut *self.out, &self.place)?;
        self.next.on_any(&mut *self.out)
    }
}
