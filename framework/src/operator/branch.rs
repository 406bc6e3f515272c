//! How the values of a stream are dealt to branches, and the enum of two. What users call is in `topology/branch.rs`,
//! what runs in `subtask/branch.rs`.

use crate::Record;
use crate::operator::{Collect, Fused};
use crate::record::AnyBatch;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// One of two: what a function gives that has two kinds of results. `split` makes a stream of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Either<A, B> {
    /// The first.
    Left(A),
    /// The second.
    Right(B),
}

/// The half of [`Branches`](crate::Branches) that runs. Derived, never written by hand.
#[doc(hidden)]
pub trait Deal: Sized + Send + 'static {
    /// The names of the branches, in order.
    const BRANCHES: &'static [&'static str];
    /// A tuple of a batch per branch.
    type Batches: 'static;
    /// Empty ones.
    fn batches() -> Self::Batches;
    /// Puts a value into the batch of its branch, with its time if the stream has times.
    fn deal(record: Record<Self>, timed: bool, into: &mut Self::Batches);
    /// Shows each batch, with the number of its branch.
    fn each(batches: &mut Self::Batches, show: &mut dyn FnMut(usize, &mut dyn AnyBatch));
}

/// That two types are one: with it a bound on what a stream carries shows its own text in errors.
#[doc(hidden)]
pub trait Is<T> {
    fn same(self) -> T;
}
impl<T> Is<T> for T {
    #[inline(always)]
    fn same(self) -> T {
        self
    }
}

/// The step that does nothing but to tell the compiler what [`Is`] says.
#[doc(hidden)]
pub struct As<T>(PhantomData<fn() -> T>);
impl<T> As<T> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}
impl<T> fmt::Debug for As<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("As")
    }
}
impl<I: Is<T>, T: Send + 'static> Fused<I> for As<T> {
    type Out = T;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<I>, out: &mut impl Collect<T>) {
        out.emit(Record { value: r.value.same(), time: r.time });
    }
}
