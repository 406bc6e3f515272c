//! Records in and out of a job through channels: through attempts that fail, with a receiver that is slow, at the end.

use super::{Sums, beside, plain, rest, sums};
use crate::common::{Scratch, job, mix};
use millstream::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Through channels whose ends run on threads of their own: `n` records, of which some let their attempt fail when they
/// are met, with checkpoints as often as it goes. What comes out is what went in.
fn through(n: u64, fails_at: &'static [u64], receive: impl FnMut(u64) + Send + 'static) {
    let scratch = Scratch::new();
    let (sender, source) = Channel::read(500);
    let (sink, mut receiver) = Channel::write(200);
    let failed = Arc::new(AtomicU64::new(0));
    let topology = {
        let failed = failed.clone();
        move |t: &Topology| {
            let failed = failed.clone();
            let numbers = t.source("numbers", source.clone()).try_map(move |n: u64| {
                let at = failed.load(SeqCst);
                if fails_at.get(at as usize) == Some(&n) && failed.fetch_add(1, SeqCst) == at {
                    return Err("not now".into());
                }
                Ok(n)
            });
            let counted = |seen: &mut u64, n: u64| {
                *seen += 1;
                (n, *seen)
            };
            numbers.key_by_value(|n| n % 100).map_with_state("counts", counted).sink("out", sink.clone());
            Ok(())
        }
    };
    let policy = RestartPolicy { attempts: 9, pause: Duration::from_millis(1), pause_max: Duration::from_millis(1) };
    let job = job(&scratch, topology).restart(policy).checkpoint_interval(Duration::from_millis(5));
    let job = plain(job.start()).unwrap();
    let sends = beside(move || {
        plain(async {
            for i in 0..n {
                sender.send(i).await.unwrap();
            }
        });
    });
    let receives = beside(move || {
        let (mut seen, mut receive) = (Vec::new(), receive);
        while let Some(record) = plain(receiver.recv()) {
            receive(record.0);
            seen.push(record);
        }
        seen
    });
    plain(job.wait()).unwrap();
    sends.join().unwrap();
    let mut seen: Vec<(u64, u64)> = receives.join().unwrap();
    seen.sort_unstable();
    let expect: Vec<_> = (0..n).map(|i| (i, i / 100 + 1)).collect();
    assert_eq!(seen.len(), expect.len());
    assert!(seen == expect);
    assert_eq!(failed.load(SeqCst), fails_at.len() as u64);
}

#[test]
fn attempts_that_fail_lose_and_double_nothing() {
    through(6000, &[1, 700, 3000, 3001, 5999], |_| {});
}

/// Takes a record every millisecond now and then, and the rest at once.
#[test]
fn a_slow_receiver_slows_the_job_down_and_breaks_nothing() {
    through(3000, &[1500], |n| {
        if mix(n).is_multiple_of(4) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A receiver that takes nothing for a while: checkpoints of what fits go on, the one that does not fit waits, and all
/// comes when it is taken. Nobody is in a hurry here, so nothing times out.
#[test]
fn a_receiver_that_pauses_is_waited_for() {
    let scratch = Scratch::new();
    let Sums { sender, mut receiver, job } = sums(&scratch, 4);
    plain(async {
        let job = job.start().await.unwrap();
        for n in 0..4 {
            sender.send(n).await.unwrap();
        }
        let first = sender.checkpoint(&job).await.unwrap();
        for n in 4..8 {
            sender.send(n).await.unwrap();
        }
        // decided, so durable for the sender, and not committed: there is no room
        let second = {
            let (sender, job) = (sender.clone(), job.clone());
            beside(move || plain(sender.checkpoint(&job)))
        };
        sender.flush().await.unwrap();
        assert!(!second.is_finished());
        for _ in 0..4 {
            receiver.recv().await.unwrap();
        }
        assert!(second.join().unwrap().unwrap() > first);
        drop(sender);
        job.wait().await.unwrap();
        assert_eq!(rest(receiver).await.len(), 4);
    });
}

/// Durable means decided: after an abort, which is as a crash, the state has it.
#[test]
fn what_is_durable_survives_and_what_is_not_may_not() {
    let scratch = Scratch::new();
    let Sums { sender, receiver, job } = sums(&scratch, 100);
    let job = plain(job.start()).unwrap();
    plain(async {
        sender.send(3).await.unwrap();
        let durable = {
            let sender = sender.clone();
            beside(move || plain(sender.send_durably(30)))
        };
        while job.status().records_in < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!durable.is_finished(), "nobody has asked for a checkpoint");
        job.checkpoint().await.unwrap();
        durable.join().unwrap().unwrap();
        sender.send(300).await.unwrap();
        job.abort();
        assert!(job.wait().await.is_err());
        assert!(sender.flush().await.is_err() && sender.send(1).await.is_err());
        assert_eq!(rest(receiver).await, [3, 33]);
    });
    let Sums { sender, receiver, job } = sums(&scratch, 100);
    plain(async {
        let job = job.start().await.unwrap();
        sender.send(3000).await.unwrap();
        drop(sender);
        job.wait().await.unwrap();
        assert_eq!(rest(receiver).await, [3033]);
    });
}
