//! The supplied aggregates, and `Of`, which makes them. Their functions are boxed, so that an operator is compiled once
//! per data type and not once per closure.

use super::{Aggregate, Number, Summable};
use millstream_framework::{BoxError, Data, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// Makes the supplied aggregates for records of type `T`, so that their closures need no types. Tuples of up to six
/// aggregates are aggregates too.
///
/// ```
/// use millstream_operators::{Aggregate, Of};
///
/// fn result<A: Aggregate<i32>>(values: &[i32], aggregate: impl FnOnce(Of<i32>) -> A) -> A::Out {
///     let aggregate = aggregate(Of::new());
///     let mut acc = A::Acc::default();
///     values.iter().for_each(|value| aggregate.add(&mut acc, value));
///     aggregate.finish(&acc)
/// }
///
/// assert_eq!(result(&[5, 7], |of| (of.count(), of.sum(|v| *v), of.mean(|v| *v))), (2, 12, 6.0));
/// assert_eq!(result(&[5, 7], |of| (of.min(|v| *v), of.max(|v| *v))), (Some(5), Some(7)));
/// assert_eq!(result(&[], |of| (of.count(), of.sum(|v| *v), of.max(|v| *v))), (0, 0, None));
/// ```
pub struct Of<T>(PhantomData<fn(T)>);

impl<T> fmt::Debug for Of<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Of")
    }
}

impl<T> Default for Of<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Of<T> {
    /// For those who write operators; users are handed one.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// How many values, as `u64`.
    #[must_use]
    pub fn count(&self) -> Count {
        Count
    }

    /// The sum of what `f` names, of the same type; 0 of nothing.
    ///
    /// Integers are added with a check: a sum that its type cannot hold ends the job with an error, in release too;
    /// widen the value in `f` where that may happen (`|order| u64::from(order.cents)`). Float sums depend on the order
    /// of the values in their last digits, and values of different splits meet in any order: for results that are the
    /// same in each run sum integers of a fixed unit.
    pub fn sum<N: Summable, F: Fn(&T) -> N + Send + Sync + 'static>(&self, f: F) -> Sum<T, N> {
        Sum(Box::new(f))
    }

    /// The mean of what `f` names, as `f64`; not a number (which JSON writes as `null`) of nothing. The sum is kept as
    /// `f64`: exact for integers while it is below 2^53, and for anything else subject to what [`sum`](Of::sum) says
    /// of floats.
    pub fn mean<N: Number, F: Fn(&T) -> N + Send + Sync + 'static>(&self, f: F) -> Mean<T, N> {
        Mean(Box::new(f))
    }

    /// The smallest of what `f` names; `None` of nothing. Floats have no order that `Ord` accepts: give an integer of a
    /// fixed unit. Costs a clone per result.
    pub fn min<N: Data + Ord + Clone, F: Fn(&T) -> N + Send + Sync + 'static>(&self, f: F) -> Min<T, N> {
        Min(Box::new(f))
    }

    /// The largest of what `f` names; otherwise as [`min`](Of::min).
    pub fn max<N: Data + Ord + Clone, F: Fn(&T) -> N + Send + Sync + 'static>(&self, f: F) -> Max<T, N> {
        Max(Box::new(f))
    }
}

macro_rules! boxed { ($($(#[$doc:meta])* $name:ident),*) => { $(
    $(#[$doc])*
    pub struct $name<T, N>(Box<dyn Fn(&T) -> N + Send + Sync>);
    impl<T, N> fmt::Debug for $name<T, N> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(stringify!($name))
        }
    }
)* } }
boxed!(
    /// Made by [`Of::sum`].
    Sum,
    /// Made by [`Of::mean`].
    Mean,
    /// Made by [`Of::min`].
    Min,
    /// Made by [`Of::max`].
    Max
);

/// Made by [`Of::count`].
#[derive(Debug, Clone, Copy)]
pub struct Count;

impl<T> Aggregate<T> for Count {
    type Acc = u64;
    type Out = u64;
    #[inline(always)]
    fn add(&self, acc: &mut u64, _: &T) {
        *acc += 1;
    }
    #[inline(always)]
    fn merge(&self, into: &mut u64, other: u64) {
        *into += other;
    }
    #[inline(always)]
    fn finish(&self, acc: &u64) -> u64 {
        *acc
    }
}

/// What [`Sum`] keeps: the sum so far. That it has overflowed is never stored, since [`Aggregate::check`] ends the
/// attempt before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Total<N> {
    sum: N,
    #[serde(skip)]
    overflowed: bool,
}

impl<N: Summable> Total<N> {
    #[inline(always)]
    fn add(&mut self, value: &N) {
        match self.sum.checked_sum(value) {
            Some(sum) => self.sum = sum,
            None => self.overflowed = true,
        }
    }
}

impl<T: 'static, N: Summable> Aggregate<T> for Sum<T, N> {
    type Acc = Total<N>;
    type Out = N;
    #[inline(always)]
    fn add(&self, acc: &mut Total<N>, value: &T) {
        acc.add(&(self.0)(value));
    }
    #[inline(always)]
    fn merge(&self, into: &mut Total<N>, other: Total<N>) {
        into.add(&other.sum);
        into.overflowed |= other.overflowed;
    }
    #[inline(always)]
    fn finish(&self, acc: &Total<N>) -> N {
        acc.sum.clone()
    }
    #[inline(always)]
    fn check(&self, acc: &Total<N>) -> Result<(), BoxError> {
        if acc.overflowed { Err(overflow::<N>()) } else { Ok(()) }
    }
}

#[cold]
fn overflow<N>() -> BoxError {
    let name = std::any::type_name::<N>();
    let text = format!(
        "the sum of a key has left the range of `{name}`: \
         sum a wider type, as in `of.sum(|record| i128::from(record.amount))`"
    );
    Error::new(ErrorKind::Failed, text).into()
}

impl<T: 'static, N: Number> Aggregate<T> for Mean<T, N> {
    type Acc = (u64, f64);
    type Out = f64;
    #[inline(always)]
    fn add(&self, acc: &mut (u64, f64), value: &T) {
        acc.0 += 1;
        acc.1 += (self.0)(value).as_f64();
    }
    #[inline(always)]
    fn merge(&self, into: &mut (u64, f64), other: (u64, f64)) {
        into.0 += other.0;
        into.1 += other.1;
    }
    #[inline(always)]
    fn finish(&self, acc: &(u64, f64)) -> f64 {
        acc.1 / acc.0 as f64
    }
}

macro_rules! extremes { ($($name:ident $better:ident),*) => { $(
    impl<T: 'static, N: Data + Ord + Clone> Aggregate<T> for $name<T, N> {
        type Acc = Option<N>;
        type Out = Option<N>;
        #[inline(always)]
        fn add(&self, acc: &mut Option<N>, value: &T) {
            let value = (self.0)(value);
            if acc.as_ref().is_none_or(|best| value.cmp(best).$better()) {
                *acc = Some(value);
            }
        }
        fn merge(&self, into: &mut Option<N>, other: Option<N>) {
            if let Some(value) = other
                && into.as_ref().is_none_or(|best| value.cmp(best).$better())
            {
                *into = Some(value);
            }
        }
        #[inline(always)]
        fn finish(&self, acc: &Option<N>) -> Option<N> {
            acc.clone()
        }
    }
)* } }
extremes!(Min is_lt, Max is_gt);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// All values in one accumulator, and the two halves merged: both must give the same.
    fn both<T, A: Aggregate<T, Out: PartialEq + fmt::Debug>>(values: &[T], aggregate: A) -> Result<A::Out, BoxError> {
        let fold = |part: &[T]| {
            let mut acc = A::Acc::default();
            part.iter().for_each(|value| aggregate.add(&mut acc, value));
            acc
        };
        let whole = fold(values);
        let (left, right) = values.split_at(values.len() / 2);
        let mut merged = fold(left);
        aggregate.merge(&mut merged, fold(right));
        assert_eq!(aggregate.check(&whole).is_ok(), aggregate.check(&merged).is_ok());
        aggregate.check(&whole)?;
        assert_eq!(aggregate.finish(&whole), aggregate.finish(&merged));
        Ok(aggregate.finish(&whole))
    }

    #[test]
    fn counts_sums_and_means() {
        let of = Of::<i64>::new();
        assert_eq!(both(&[4, -6, 5], of.count()).unwrap(), 3);
        assert_eq!(both(&[4, -6, 5], of.sum(|v| *v)).unwrap(), 3);
        assert_eq!(both(&[4, -6, 5], of.mean(|v| *v)).unwrap(), 1.0);
        assert_eq!(both(&[1, 2], of.sum(|v| Duration::from_secs(*v as u64))).unwrap(), Duration::from_secs(3));
        assert_eq!(both(&[1, 2], of.sum(|v| *v as f64 / 2.0)).unwrap(), 1.5);
    }

    #[test]
    fn extremes_are_those_of_ord_and_none_of_nothing() {
        let of = Of::<&str>::new();
        let words = ["pear", "fig", "apple"];
        assert_eq!(both(&words, of.min(|w| w.to_string())).unwrap().as_deref(), Some("apple"));
        assert_eq!(both(&words, of.max(|w| w.len())).unwrap(), Some(5));
        assert_eq!(both(&[], of.max(|w: &&str| w.len())).unwrap(), None);
        assert!(of.mean(|w| w.len()).finish(&Default::default()).is_nan());
    }

    #[test]
    fn tuples_go_up_to_six() {
        let of = Of::<u8>::new();
        let all = (of.count(), of.sum(|v| *v), of.min(|v| *v), of.max(|v| *v), of.mean(|v| *v), of.count());
        assert_eq!(both(&[1, 3], all).unwrap(), (2, 4, Some(1), Some(3), 2.0, 2));
    }

    #[test]
    fn an_overflow_is_an_error_and_never_wraps() {
        let of = Of::<u8>::new();
        let error = both(&[200, 56], of.sum(|v| *v)).unwrap_err().to_string();
        assert!(error.contains("left the range of `u8`"), "{error}");
        assert!(both(&[1, 1, 200, 100], of.sum(|v| *v)).is_err());
        assert!(both(&[200, 55], (of.count(), of.sum(|v| *v))).is_ok());
        assert!(both(&[200, 56], (of.count(), of.sum(|v| *v))).is_err());
        assert_eq!(both(&[200, 56], of.sum(|v| u64::from(*v))).unwrap(), 256);
    }

    #[test]
    fn a_total_is_stored_as_its_number() {
        let of = Of::<u64>::new();
        let sum = of.sum(|v| *v);
        let mut acc = Total::default();
        sum.add(&mut acc, &7);
        assert_eq!(serde_json::to_string(&acc).unwrap(), "7");
        assert_eq!(serde_json::from_str::<Total<u64>>("7").unwrap(), acc);
    }
}
