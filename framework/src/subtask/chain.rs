//! Fused chains in a subtask: the loop over a batch, and the stage it runs in. Chains that end in an exchange by key
//! are in `exchange.rs`, those that end in branches in `branch.rs`.
//!
//! The loop is all that is compiled once per chain. What surrounds it knows record types only and calls it once per
//! batch, or sixty pipelines would take twice as long to compile.

use super::stage::{Control, Stage};
use crate::guard::guarded;
use crate::operator::{Chain, Collect};
use crate::{Batch, BoxError, Error, Record, Timestamp};
use std::sync::{Mutex, PoisonError};
use std::vec::Drain;

/// Runs a batch through the chain it owns, and leaves the batch empty. Gives the first error of a step, after which the
/// results are not to be used.
pub(crate) type Loop<I, Out> = Box<dyn FnMut(&mut Batch<I>, &mut Out) -> Option<BoxError>>;

/// Runs a loop on a batch. What a step fails with and what it panics with are errors of this place.
pub(crate) fn call<I, Out>(
    run: &mut Loop<I, Out>,
    batch: &mut Batch<I>,
    out: &mut Out,
    place: &str,
) -> Result<(), Error> {
    let run = || run(batch, out).map_or(Ok(()), |error| Err(Error::from_user(error, place)));
    guarded(|| place.to_owned(), run)
}

/// Makes a loop for each subtask.
pub(crate) struct Loops<I, Out>(Mutex<Box<dyn Fn() -> Loop<I, Out> + Send>>);

impl<I, Out> Loops<I, Out> {
    /// Those that `of` makes of clones of a chain.
    pub(crate) fn of<T, C: Chain<T, In = I>>(chain: C, of: impl Fn(C) -> Loop<I, Out> + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(move || of(chain.clone()))))
    }

    /// Another one.
    pub(crate) fn make(&self) -> Loop<I, Out> {
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))()
    }
}

/// The loops of a chain whose results go into a batch. Two, so that untimed streams do not pay for times.
pub(crate) fn chain_loops<T: 'static, C: Chain<T>>(chain: C, timed: bool) -> Loops<C::In, Batch<T>> {
    Loops::of(chain, move |mut chain: C| {
        if timed {
            Box::new(move |batch, out| run(&mut chain, batch, Tail::<T, true> { out, error: None }).error)
        } else {
            Box::new(move |batch, out| run(&mut chain, batch, Tail::<T, false> { out, error: None }).error)
        }
    })
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
pub(crate) struct ChainStage<I, T> {
    run: Loop<I, Batch<T>>,
    out: Batch<T>,
    next: Box<dyn Stage<T>>,
    /// For errors.
    place: String,
}

impl<I, T> ChainStage<I, T> {
    pub(crate) fn new(run: Loop<I, Batch<T>>, next: Box<dyn Stage<T>>, place: String) -> Self {
        Self { run, out: Batch::default(), next, place }
    }
}

impl<I, T> Control for ChainStage<I, T> {
    fn next(&mut self) -> &mut dyn Control {
        &mut *self.next
    }
}

impl<I, T> Stage<I> for ChainStage<I, T> {
    fn on_batch(&mut self, batch: &mut Batch<I>) -> Result<(), Error> {
        self.out.values.reserve(batch.len());
        self.out.times.resize(batch.times.len(), Timestamp::MIN);
        call(&mut self.run, batch, &mut self.out, &self.place)?;
        self.out.times.truncate(self.out.values.len());
        self.next.on_batch(&mut self.out)
    }
}
