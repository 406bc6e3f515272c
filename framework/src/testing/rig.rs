//! Runs stages in the calling thread until nothing is left to do, in time that only the test moves.
//!
//! The runtime is that of a worker with a paused clock. It says when it is about to wait; then all is at rest. While
//! [`Rig::advance`] is under way it goes from one deadline to the next instead, as time would.

use crate::{Error, ErrorKind, Timestamp, clock};
use futures::task::AtomicWaker;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// A worker's runtime whose clock stands still.
pub(super) struct Rig {
    runtime: Runtime,
    local: LocalSet,
    rest: Arc<Rest>,
    start: Instant,
}

/// Whether the runtime was about to wait, and who wants to know.
#[derive(Default)]
struct Rest {
    reached: AtomicBool,
    asked: AtomicWaker,
}

impl Rig {
    pub(super) fn new() -> Result<Self, Error> {
        let rest = Arc::<Rest>::default();
        let at = rest.clone();
        let park = move || {
            at.reached.store(true, SeqCst);
            at.asked.wake();
        };
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).on_thread_park(park).build();
        let runtime = runtime.map_err(|e| Error::new(ErrorKind::Io, "cannot start a runtime").because(e))?;
        let start = {
            let _inside = runtime.enter();
            clock::now()
        };
        Ok(Self { runtime, local: LocalSet::new(), rest, start })
    }

    /// What the clock shows: it began with 1970.
    pub(super) fn now(&self) -> Timestamp {
        self.within(|| clock::wall().into())
    }

    /// Calls what does not wait, by the clock that stands still.
    pub(super) fn within<R>(&self, f: impl FnOnce() -> R) -> R {
        let _inside = self.runtime.enter();
        let _pretence = clock::pretend(self.start);
        f()
    }

    /// Until nothing is left to do before time moves on. `turn` polls what runs, as far as it has been woken, and says
    /// whether anything was.
    pub(super) fn settle(&self, turn: impl FnMut(&mut Context<'_>) -> Result<bool, Error>) -> Result<(), Error> {
        self.run(self.rest(turn))
    }

    /// Lets time pass, deadline by deadline, and what is due happen.
    pub(super) fn advance(
        &self,
        by: Duration,
        mut turn: impl FnMut(&mut Context<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.rest.asked.take();
        // in one go, for the runtime forgets who has only yielded when it is left
        self.run(async {
            let mut end = pin!(tokio::time::sleep(by));
            poll_fn(|cx| {
                turn(cx)?;
                end.as_mut().poll(cx).map(Ok::<_, Error>)
            })
            .await?;
            self.rest(turn).await
        })
    }

    async fn rest(&self, mut turn: impl FnMut(&mut Context<'_>) -> Result<bool, Error>) -> Result<(), Error> {
        self.rest.reached.store(false, SeqCst);
        poll_fn(|cx| {
            let rests = self.rest.reached.swap(false, SeqCst);
            if !turn(cx)? && rests {
                return Poll::Ready(Ok(()));
            }
            self.rest.asked.register(cx.waker());
            Poll::Pending
        })
        .await
    }

    fn run<R>(&self, future: impl Future<Output = R>) -> R {
        let _pretence = clock::pretend(self.start);
        self.local.block_on(&self.runtime, future)
    }
}
