//! The seam to threads: every thread of the library is started here, has a name, and is joined by who started it
//! (but the one of a job that a program has a handle on: the handle is told its end).

use crate::{Error, ErrorKind};
use std::thread::JoinHandle;

/// Starts a named thread; connectors whose client blocks have one of their own, too. It is joined by who started it,
/// at the latest when the reader or writer that needs it is dropped.
///
/// # Errors
/// When the system has no thread left to give.
#[allow(clippy::disallowed_methods, reason = "this is the seam")]
pub fn thread<T: Send + 'static>(
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    let name = name.into();
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(run)
        .map_err(|e| Error::new(ErrorKind::Io, format!("cannot start the thread `{name}`")).because(e))
}
