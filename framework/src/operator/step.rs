//! Stateless steps, and the chain they are fused into: one push-style loop per batch, compiled as if written by hand.
//!
//! Everything on the path is `#[inline(always)]`, so that a fused run costs what the loop by hand costs without any
//! setting in the user's profile.

use crate::operator::Skipped;
use crate::{BoxError, Record};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

/// Where a step puts its results.
pub trait Collect<T> {
    /// Hands a record on.
    fn emit(&mut self, record: Record<T>);
    /// Hands a record on, or drops it. What filters call: at the end of a chain there is no branch then, which would be
    /// mispredicted for every other record.
    #[inline(always)]
    fn emit_if(&mut self, keep: bool, record: Record<T>) {
        if keep {
            self.emit(record);
        }
    }
    /// Ends the attempt with this error; the runtime adds operator, subtask, split and offset. The step may still be
    /// called for records of the same batch, but nothing of that batch goes further.
    fn fail(&mut self, error: BoxError);
}

/// Stateless; sees records only: never watermarks, barriers or timers. Each subtask works on a clone of its own, so a
/// step may own scratch memory, but nothing that matters after the call.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a step over records of type `{I}`",
    note = "implement `Step<{I}>` for it; a step is `Clone + Send` because every subtask works on its own clone"
)]
pub trait Step<I>: Clone + Send + 'static {
    /// What it makes.
    type Out: Send + 'static;
    /// Handles one record: emits none, one or several.
    fn push(&mut self, record: Record<I>, out: &mut impl Collect<Self::Out>);
}

/// A step as it is fused: what all subtasks share of it, and the scratch memory that each has of its own. Closures are
/// shared and own none. (So they need neither be cloned nor counted, which would be compiled once per closure.) A step
/// of one's own is a [`Step`], and becomes one of these by [`Stream::step`](crate::Stream::step).
#[diagnostic::on_unimplemented(message = "`{Self}` is not a step over records of type `{I}`")]
pub trait Fused<I>: Send + Sync + 'static {
    /// What it makes.
    type Out: Send + 'static;
    /// What a subtask owns of it.
    type Scratch: Send + 'static;
    /// Made anew for each subtask of each attempt, on its thread.
    fn scratch(&self) -> Self::Scratch;
    /// Handles one record: emits none, one or several.
    fn push(&self, scratch: &mut Self::Scratch, record: Record<I>, out: &mut impl Collect<Self::Out>);
}

/// A fused run of steps that ends in records of type `T`.
pub trait Chain<T>: Send + Sync + 'static {
    /// What enters the first step.
    type In: Send + 'static;
    /// What a subtask owns of it.
    type Scratch: Send + 'static;
    /// Whether there is no step at all.
    const IS_EMPTY: bool = false;
    /// Made anew for each subtask of each attempt, on its thread.
    fn scratch(&self) -> Self::Scratch;
    /// Runs one record through all steps.
    fn push(&self, scratch: &mut Self::Scratch, record: Record<Self::In>, out: &mut impl Collect<T>);
}

/// The empty chain.
pub struct Boxed<T>(PhantomData<fn() -> T>);

impl<T> Boxed<T> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}
impl<T> Clone for Boxed<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}
impl<T> fmt::Debug for Boxed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Boxed")
    }
}
impl<T: Send + 'static> Chain<T> for Boxed<T> {
    type In = T;
    type Scratch = ();
    const IS_EMPTY: bool = true;
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), record: Record<T>, out: &mut impl Collect<T>) {
        out.emit(record);
    }
}

/// `chain`, then `step`.
pub struct Then<C, S, M> {
    chain: C,
    step: S,
    middle: PhantomData<fn() -> M>,
}
impl<C, S, M> Then<C, S, M> {
    pub(crate) fn new(chain: C, step: S) -> Self {
        Self { chain, step, middle: PhantomData }
    }
}
impl<C: fmt::Debug, S: fmt::Debug, M> fmt::Debug for Then<C, S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -> {:?}", self.chain, self.step)
    }
}

/// What the chain before a step emits into: the step.
struct Through<'a, S, W, O> {
    step: &'a S,
    scratch: &'a mut W,
    out: &'a mut O,
}
impl<M, S: Fused<M>, O: Collect<S::Out>> Collect<M> for Through<'_, S, S::Scratch, O> {
    #[inline(always)]
    fn emit(&mut self, record: Record<M>) {
        self.step.push(self.scratch, record, self.out);
    }
    fn fail(&mut self, error: BoxError) {
        self.out.fail(error);
    }
}

impl<M: 'static, C: Chain<M>, S: Fused<M>> Chain<S::Out> for Then<C, S, M> {
    type In = C::In;
    type Scratch = (C::Scratch, S::Scratch);
    #[inline(always)]
    fn scratch(&self) -> Self::Scratch {
        (self.chain.scratch(), self.step.scratch())
    }
    #[inline(always)]
    fn push(&self, (before, scratch): &mut Self::Scratch, record: Record<C::In>, out: &mut impl Collect<S::Out>) {
        self.chain.push(before, record, &mut Through { step: &self.step, scratch, out });
    }
}

/// A step of the user's: each subtask works on a clone. Locked only to make that clone, for a step need not be `Sync`.
pub struct Own<S>(Mutex<S>);
impl<S> Own<S> {
    pub(crate) fn new(step: S) -> Self {
        Self(Mutex::new(step))
    }
}
impl<S> fmt::Debug for Own<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<S>())
    }
}
#[diagnostic::do_not_recommend]
impl<T, S: Step<T>> Fused<T> for Own<S> {
    type Out = S::Out;
    type Scratch = S;
    fn scratch(&self) -> S {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    #[inline(always)]
    fn push(&self, step: &mut S, record: Record<T>, out: &mut impl Collect<S::Out>) {
        step.push(record, out);
    }
}

macro_rules! closures { ($($(#[$doc:meta])* $name:ident),*) => { $(
    $(#[$doc])*
    pub struct $name<F>(F);
    impl<F> $name<F> { pub(crate) fn new(f: F) -> Self { Self(f) } }
    impl<F> fmt::Debug for $name<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(stringify!($name)) }
    }
)* } }
closures!(
    /// Step of `map`.
    Map,
    /// Step of `try_map`.
    TryMap,
    /// Step of `filter`.
    Filter,
    /// Step of `filter_map`.
    FilterMap,
    /// Step of `flat_map`.
    FlatMap,
    /// Step of `inspect`.
    Inspect
);

#[diagnostic::do_not_recommend]
impl<T, U: Send + 'static, F: Fn(T) -> U + Send + Sync + 'static> Fused<T> for Map<F> {
    type Out = U;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<T>, out: &mut impl Collect<U>) {
        out.emit(Record { value: (self.0)(r.value), time: r.time });
    }
}
#[diagnostic::do_not_recommend]
impl<T, U: Send + 'static, F: Fn(T) -> Result<U, BoxError> + Send + Sync + 'static> Fused<T> for TryMap<F> {
    type Out = U;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<T>, out: &mut impl Collect<U>) {
        match (self.0)(r.value) {
            Ok(value) => out.emit(Record { value, time: r.time }),
            Err(error) => out.fail(error),
        }
    }
}
#[diagnostic::do_not_recommend]
impl<T: Send + 'static, F: Fn(&T) -> bool + Send + Sync + 'static> Fused<T> for Filter<F> {
    type Out = T;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<T>, out: &mut impl Collect<T>) {
        out.emit_if((self.0)(&r.value), r);
    }
}
#[diagnostic::do_not_recommend]
impl<T, U: Send + 'static, F: Fn(T) -> Option<U> + Send + Sync + 'static> Fused<T> for FilterMap<F> {
    type Out = U;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<T>, out: &mut impl Collect<U>) {
        if let Some(value) = (self.0)(r.value) {
            out.emit(Record { value, time: r.time });
        }
    }
}
#[diagnostic::do_not_recommend]
impl<T, I, F> Fused<T> for FlatMap<F>
where
    I: IntoIterator<Item: Send + 'static>,
    F: Fn(T) -> I + Send + Sync + 'static,
{
    type Out = I::Item;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<T>, out: &mut impl Collect<I::Item>) {
        for value in (self.0)(r.value) {
            out.emit(Record { value, time: r.time });
        }
    }
}
#[diagnostic::do_not_recommend]
impl<T: Send + 'static, F: Fn(&T) + Send + Sync + 'static> Fused<T> for Inspect<F> {
    type Out = T;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<T>, out: &mut impl Collect<T>) {
        (self.0)(&r.value);
        out.emit(r);
    }
}

/// Step of `flat_map_into`: results go to a reused buffer, so they may borrow from the record while they are made.
pub struct FlatMapInto<F, U>(F, PhantomData<fn() -> U>);
impl<F, U> FlatMapInto<F, U> {
    pub(crate) fn new(f: F) -> Self {
        Self(f, PhantomData)
    }
}
impl<F, U> fmt::Debug for FlatMapInto<F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlatMapInto")
    }
}
#[diagnostic::do_not_recommend]
impl<T, U: Send + 'static, F: Fn(T, &mut Vec<U>) + Send + Sync + 'static> Fused<T> for FlatMapInto<F, U> {
    type Out = U;
    type Scratch = Vec<U>;
    fn scratch(&self) -> Vec<U> {
        Vec::new()
    }
    #[inline(always)]
    fn push(&self, buffer: &mut Vec<U>, r: Record<T>, out: &mut impl Collect<U>) {
        (self.0)(r.value, buffer);
        for value in buffer.drain(..) {
            out.emit(Record { value, time: r.time });
        }
    }
}

/// Step of `or_fail`.
#[derive(Debug, Clone, Copy)]
pub struct OrFail;
#[diagnostic::do_not_recommend]
impl<T: Send + 'static, E: Into<BoxError>> Fused<Result<T, E>> for OrFail {
    type Out = T;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<Result<T, E>>, out: &mut impl Collect<T>) {
        match r.value {
            Ok(value) => out.emit(Record { value, time: r.time }),
            Err(error) => out.fail(error.into()),
        }
    }
}

/// Step of `or_skip`.
#[derive(Debug, Clone)]
pub struct OrSkip(Skipped);
impl OrSkip {
    pub(crate) fn new(skipped: Skipped) -> Self {
        Self(skipped)
    }
}
#[diagnostic::do_not_recommend]
impl<T: Send + 'static, E: Into<BoxError>> Fused<Result<T, E>> for OrSkip {
    type Out = T;
    type Scratch = ();
    fn scratch(&self) {}
    #[inline(always)]
    fn push(&self, _: &mut (), r: Record<Result<T, E>>, out: &mut impl Collect<T>) {
        match r.value {
            Ok(value) => out.emit(Record { value, time: r.time }),
            Err(error) => self.0.skip(&error.into()),
        }
    }
}
