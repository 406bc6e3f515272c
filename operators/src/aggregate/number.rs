//! The numbers that `sum` and `mean` take. What is done with them is in `supplied.rs`.

use millstream_framework::Data;
use std::time::Duration;

/// What `sum` adds up: integers, floats, `Duration`, and types of one's own.
#[diagnostic::on_unimplemented(
    message = "values of type `{Self}` cannot be summed",
    note = "`sum` takes integers, floats and `Duration`: name one of the record, as in \
            `|of| of.sum(|order| order.cents)`, or implement `Summable` for `{Self}`"
)]
pub trait Summable: Data + Default + Clone {
    /// The sum; `None` if the type cannot hold it. The default of the type must be its zero.
    #[must_use]
    fn checked_sum(&self, other: &Self) -> Option<Self>;
}

/// What `mean` takes: every integer and float, and types of one's own.
#[diagnostic::on_unimplemented(
    message = "there is no mean of values of type `{Self}`",
    note = "`mean` takes integers and floats: name one of the record, as in \
            `|of| of.mean(|order| order.cents)`, or implement `Number` for `{Self}`"
)]
pub trait Number: 'static {
    /// As a float; what it cannot hold exactly (integers beyond 2^53) is rounded.
    #[must_use]
    fn as_f64(&self) -> f64;
}

macro_rules! integers { ($($N:ty),*) => { $(
    impl Summable for $N {
        #[inline(always)]
        fn checked_sum(&self, other: &Self) -> Option<Self> {
            self.checked_add(*other)
        }
    }
    impl Number for $N {
        #[inline(always)]
        fn as_f64(&self) -> f64 {
            *self as f64
        }
    }
)* } }
integers!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

macro_rules! floats { ($($N:ty),*) => { $(
    impl Summable for $N {
        #[inline(always)]
        fn checked_sum(&self, other: &Self) -> Option<Self> {
            Some(*self + *other)
        }
    }
    impl Number for $N {
        #[inline(always)]
        fn as_f64(&self) -> f64 {
            f64::from(*self)
        }
    }
)* } }
floats!(f32, f64);

impl Summable for Duration {
    #[inline(always)]
    fn checked_sum(&self, other: &Self) -> Option<Self> {
        self.checked_add(*other)
    }
}
