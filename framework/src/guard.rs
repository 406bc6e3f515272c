//! Panics of user code, as errors.

use crate::{Error, ErrorKind};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what calls user code: a panic is an error like any other, of this place. What `f` works on may be left half
/// changed and is not to be used again: the attempt is over. Costs nothing when nothing panics.
#[inline]
pub(crate) fn guarded<R>(place: impl FnOnce() -> String, f: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| Err(panicked(panic.as_ref()).at(place())))
}

/// The error that a panic is.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    Error::new(ErrorKind::Failed, format!("panicked: {}", message(panic)))
}

/// What a panic says.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_its_place() {
        let said = |panic: fn() -> Result<u8, Error>| guarded(|| "here".into(), panic).unwrap_err().to_string();
        assert_eq!(said(|| panic!("one {}", 2)), "here: panicked: one 2");
        assert_eq!(said(|| panic!("three")), "here: panicked: three");
        assert_eq!(said(|| std::panic::panic_any(4)), "here: panicked: no message");
        assert_eq!(said(|| Err(Error::new(ErrorKind::Failed, "no panic"))), "no panic");
        assert_eq!(guarded(|| "here".into(), || Ok(5)).unwrap(), 5);
    }
}
