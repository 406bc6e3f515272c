//! What a program does with a job inside it, on any runtime and on none.

use super::{Sums, beside, plain, rest, sums};
use crate::common::{Scratch, job};
use millstream::prelude::*;
use millstream::{ErrorKind, JobHandle, Phase, Role};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// Waits until the job has read so much.
fn read(job: &JobHandle, records: u64) {
    while job.status().records_in < records {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Start, send, checkpoint, look, stop, start again.
async fn life() {
    let scratch = Scratch::new();
    let Sums { sender, mut receiver, job } = sums(&scratch, 100);
    let job = job.start().await.unwrap();
    for n in [1, 2, 4] {
        sender.send(n).await.unwrap();
    }
    let epoch = sender.checkpoint(&job).await.unwrap();
    let mut seen = [receiver.recv().await, receiver.recv().await, receiver.recv().await].map(Option::unwrap);
    seen.sort();
    assert_eq!(seen, [1, 2, 5]);
    assert_eq!(job.checkpoint().await.unwrap(), epoch, "nothing was read since");

    let status = job.status();
    assert_eq!((status.job.as_str(), status.phase, status.restored), ("test", Phase::Running, None));
    assert_eq!(status.checkpoint.map(|newest| newest.epoch), Some(epoch));
    assert_eq!((status.records_in, status.records_out, status.restarts), (3, 3, 0));
    let operators: Vec<_> = job.metrics().into_iter().map(|o| (o.name, o.role, o.records_in, o.records_out)).collect();
    let expected = [("numbers", Role::Source), ("sums", Role::Operator), ("out", Role::Sink)];
    assert_eq!(operators, expected.map(|(name, role)| (name.to_owned(), role, 3, 3)));

    sender.send(6).await.unwrap();
    read(&job, 4);
    job.clone().stop().await.unwrap();
    assert_eq!(rest(receiver).await, [6]);
    assert_eq!(job.status().phase, Phase::Ended);
    job.wait().await.unwrap();
    assert_eq!(job.checkpoint().await.unwrap_err().kind(), ErrorKind::Failed);

    let Sums { sender, receiver, job } = sums(&scratch, 100);
    let job = job.start().await.unwrap();
    for n in [10, 20, 30] {
        sender.send(n).await.unwrap();
    }
    drop(sender);
    job.wait().await.unwrap();
    let mut seen = rest(receiver).await;
    seen.sort();
    assert_eq!(seen, [15, 22, 36]);
}

#[test]
fn works_without_a_runtime() {
    plain(life());
}

#[test]
fn works_in_a_runtime_of_one_thread() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(life());
}

/// In the runtime of one thread the job is started and waited for on the only thread there is.
#[test]
fn works_in_a_runtime_of_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    // on its threads, too: the futures are `Send`
    let task = runtime.spawn(life());
    runtime.block_on(async { tokio::join!(life(), task).1 }).unwrap();
}

/// Blocks, and starts no runtime within the one that is there.
#[test]
fn run_may_be_called_from_within_a_runtime() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let scratch = Scratch::new();
        let Sums { sender, receiver, job } = sums(&scratch, 10);
        sender.send(3).await.unwrap();
        drop(sender);
        job.run().unwrap();
        assert_eq!(rest(receiver).await, [3]);
    });
}

#[test]
fn all_who_wait_are_told_how_it_ended() {
    let scratch = Scratch::new();
    let topology = |t: &Topology| {
        let numbers = t.source("numbers", Records::of(0..10u64));
        numbers.try_map(|n| if n < 9 { Ok(n) } else { Err("nine".into()) }).sink("out", Null::new());
        Ok(())
    };
    let job = plain(job(&scratch, topology).start()).unwrap();
    let waiters: Vec<_> = (0..3).map(|_| job.clone()).map(|job| beside(move || plain(job.wait()))).collect();
    let told = waiters.into_iter().map(|waiter| waiter.join().unwrap()).chain([plain(job.wait()), plain(job.stop())]);
    for result in told {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.to_string().contains("nine"), "{error}");
    }
}

#[test]
fn an_abort_is_as_a_crash() {
    let scratch = Scratch::new();
    let Sums { sender, mut receiver, job } = sums(&scratch, 10);
    let job = plain(job.start()).unwrap();
    plain(async {
        sender.send(3).await.unwrap();
        sender.checkpoint(&job).await.unwrap();
        sender.send(6).await.unwrap();
        read(&job, 2);
        job.abort();
        let error = job.wait().await.unwrap_err();
        assert!(error.to_string().contains("aborted"), "{error}");
        assert_eq!(receiver.recv().await, Some(3));
        assert_eq!(rest(receiver).await, [0; 0]);
    });
    // 6 was in memory only
    let Sums { sender, receiver, job } = sums(&scratch, 10);
    plain(async {
        let job = job.start().await.unwrap();
        sender.send(30).await.unwrap();
        drop(sender);
        job.wait().await.unwrap();
        assert!(job.status().restored.is_some());
        assert_eq!(rest(receiver).await, [33]);
    });
}

#[test]
fn a_job_goes_on_without_handles() {
    let scratch = Scratch::new();
    let Sums { sender, receiver, job } = sums(&scratch, 10);
    drop(plain(job.start()).unwrap());
    plain(async {
        sender.send(3).await.unwrap();
        drop(sender);
        assert_eq!(rest(receiver).await, [3]);
    });
}

#[test]
fn what_can_be_known_at_the_start_is_told_by_the_start() {
    let scratch = Scratch::new();
    let nothing = job(&scratch, |t| {
        let _ = t.source("numbers", Records::of([1]));
        Ok(())
    });
    assert_eq!(plain(nothing.start()).unwrap_err().kind(), ErrorKind::Topology);
    let Sums { sender: _sender, receiver: _receiver, job } = sums(&scratch, 10);
    let first = plain(job.clone().start()).unwrap();
    assert_eq!(plain(job.start()).unwrap_err().kind(), ErrorKind::Busy);
    plain(first.stop()).unwrap();
}

/// It has been polled, so the thread is there: it must come to nothing all the same.
#[test]
fn a_start_that_is_dropped_does_not_run() {
    let scratch = Scratch::new();
    let Sums { sender, receiver, job } = sums(&scratch, 10);
    {
        let mut start = std::pin::pin!(job.start());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        if start.as_mut().poll(&mut cx).is_ready() {
            return; // it was quick: there was a handle
        }
    }
    plain(async {
        let _ = sender.send(3).await;
        // the job lets go of the sink when it is over
        assert_eq!(rest(receiver).await, [0; 0]);
    });
}

#[test]
fn a_checkpoint_of_an_attempt_that_fails_is_an_error_and_may_be_asked_for_again() {
    let (scratch, fails, blocks) = (Scratch::new(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
    let (sender, source) = Channel::read(10);
    let (sink, receiver) = Channel::write(10);
    let topology = {
        let (fails, blocks) = (fails.clone(), blocks.clone());
        move |t: &Topology| {
            let (fails, blocks) = (fails.clone(), blocks.clone());
            let numbers = t.source("numbers", source.clone()).try_map(move |n: u64| {
                while blocks.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if fails.fetch_add(1, SeqCst) == 0 { Err("not now".into()) } else { Ok(n) }
            });
            numbers.sink("out", sink.clone());
            Ok(())
        }
    };
    let policy = RestartPolicy { attempts: 3, pause: Duration::from_millis(1), pause_max: Duration::from_millis(1) };
    let job = job(&scratch, topology).restart(policy).checkpoint_interval(Duration::from_hours(1));
    let job = plain(job.start()).unwrap();
    plain(async {
        sender.send(7).await.unwrap();
        read(&job, 1);
        let asked = {
            let job = job.clone();
            beside(move || plain(job.checkpoint()))
        };
        blocks.store(false, SeqCst);
        if let Err(error) = asked.join().unwrap() {
            assert!(error.to_string().contains("ask again") && error.to_string().contains("not now"), "{error}");
        }
        sender.checkpoint(&job).await.unwrap();
        let status = job.status();
        assert_eq!(status.restarts, 1);
        assert!(status.error.is_some_and(|error| error.contains("not now")));
        drop(sender);
        job.wait().await.unwrap();
        assert_eq!(rest(receiver).await, [7]);
    });
}
