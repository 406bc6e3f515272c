//! The seam to threads: every thread of the library is started here, has a name, and is joined by who started it
//! (but the one of a job that a program has a handle on: the handle is told its end). In a simulation there is none:
//! what has an end is done at once, what has none is a task.

use crate::{Error, ErrorKind};
use std::thread::JoinHandle;
use tokio::task;

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

/// Does something that has an end on a thread of its own.
///
/// # Errors
/// When the system has no thread left to give.
pub(crate) fn aside(
    name: impl Into<String>,
    run: impl FnOnce() + Send + 'static,
) -> Result<Option<JoinHandle<()>>, Error> {
    #[cfg(test)]
    if crate::disk::simulated::is_on() {
        run();
        return Ok(None);
    }
    thread(name, run).map(Some)
}

/// Does something that blocks for a while on one of the threads that a runtime has for that.
pub(crate) fn blocking(run: impl FnOnce() + Send + 'static) {
    #[cfg(test)]
    if crate::disk::simulated::is_on() {
        return run();
    }
    drop(task::spawn_blocking(run));
}

/// Starts a task on this thread.
pub(crate) fn local<T: 'static>(task: impl Future<Output = T> + 'static) -> task::JoinHandle<T> {
    #[cfg(test)]
    if let Some(mount) = crate::disk::simulated::current() {
        return task::spawn_local(crate::disk::simulated::shaken(task, mount));
    }
    task::spawn_local(task)
}
