//! Jobs inside of programs: what a handle does on any runtime, what channels promise, and the example `embedded` as a
//! process.
//!
//! | file | what |
//! |---|---|
//! | `handle.rs` | start, wait, stop, abort, checkpoint, status |
//! | `channels.rs` | records in and out, through failures, slow receivers and the end |
//! | `metrics.rs` | what is published of a job, compared with what went through it |
//! | `service.rs` | the example, over HTTP and through kill -9 |

mod channels;
mod handle;
mod metrics;
mod service;

use crate::common::{Scratch, job};
use millstream::prelude::*;
use millstream::sinks::ChannelReceiver;
use millstream::sources::ChannelSender;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};

/// Runs a future on this thread without any runtime.
fn plain<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Another thread of the program.
#[allow(clippy::disallowed_methods, reason = "what a program does")]
fn beside<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(run)
}

/// The sum of all numbers so far, per remainder by three; checkpoints are taken when somebody asks, and no others.
struct Sums {
    sender: ChannelSender<u64>,
    receiver: ChannelReceiver<u64>,
    job: Job,
}

fn sums(scratch: &Scratch, bound: usize) -> Sums {
    let (sender, source) = Channel::read(bound);
    let (sink, receiver) = Channel::write(bound);
    let topology = move |t: &Topology| {
        let numbers = t.source("numbers", source.clone()).key_by_value(|n: &u64| n % 3);
        let sum = |sum: &mut u64, n: u64| {
            *sum += n;
            *sum
        };
        numbers.map_with_state("sums", sum).sink("out", sink.clone());
        Ok(())
    };
    let job = job(scratch, topology).checkpoint_interval(Duration::from_hours(1));
    Sums { sender, receiver, job }
}

/// All that comes until the job is over.
async fn rest(mut receiver: ChannelReceiver<u64>) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(n) = receiver.recv().await {
        all.push(n);
    }
    all
}
