//! Commits whose requests or replies are late or lost, so that nobody but the broker knows what became of them.

use super::broker::Broker;
use super::log::{Life, is_committed, name, prepare, texts, write};
use super::proxy::{Fault, Proxy};
use super::{plain, wait_until};
use millstream::framework::{Attempt, Decided, DecisionLog, Progress};
use millstream::prelude::*;
use std::pin::pin;

/// A life whose clients have the job's name as their id, and which has decided epoch 0.
async fn begun(broker: &Broker, of: &str) -> (Life, Box<dyn DecisionLog>) {
    let life = Life::of(broker, &name(of));
    let log = life.fenced().await;
    assert_eq!(log.read().await.unwrap(), None);
    is_committed(log.commit(&life.progress(0)).await);
    (life, log)
}

async fn written(life: &Life, topic: &str, epoch: u64, text: &str) {
    let mut writer = life.writer(topic).await;
    write(&mut writer, &[text]).await.unwrap();
    prepare(&mut writer, epoch).await.unwrap();
}

/// Runs both at once.
async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    tokio::join!(first, second)
}

async fn pause(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("this did not come: {what}");
}

#[test]
fn f5_a_reply_that_is_late_or_lost_makes_a_new_producer_and_no_difference() {
    let proxy = Proxy::new();
    let topic = proxy.broker.topic("late", 1, &[]);
    plain(async {
        let (life, log) = begun(&proxy.broker, "late").await;
        let faults = [Fault::LateReply, Fault::LostReply, Fault::LostRequest, Fault::LateRequest];
        for (epoch, fault) in (1..).zip(faults) {
            written(&life, &topic, epoch, &format!("{fault:?}")).await;
            proxy.disturb(&life.job, fault);
            let release = async {
                pause("the commit", || proxy.has_met()).await;
                tokio::time::sleep(Duration::from_millis(1500)).await;
                proxy.end();
            };
            let (decided, ()) = both(log.commit(&life.progress(epoch)), release).await;
            is_committed(decided);
            assert_eq!(log.look().await.unwrap(), Some(life.progress(epoch)));
        }
        // and so it goes on
        written(&life, &topic, 5, "last").await;
        is_committed(log.commit(&life.progress(5)).await);
    });
    let expected = ["LateReply", "LostReply", "LostRequest", "LateRequest", "last"];
    wait_until("all is seen, once", || texts(&proxy.broker, &topic) == expected);
}

#[test]
fn f5_whoever_lost_the_job_while_its_reply_was_late_gives_it_up_for_good() {
    let proxy = Proxy::new();
    let topic = proxy.broker.topic("lost", 1, &[]);
    plain(async {
        let (first, log) = begun(&proxy.broker, "lost").await;
        let theirs = Kafka::new(&*proxy.broker.address).self_test(false).set("client.id", "second");
        let second = Life { kafka: theirs, ..Life::of(&proxy.broker, &first.job) };
        written(&first, &topic, 1, "first").await;
        proxy.disturb(&first.job, Fault::LateReply);
        let takes_over = async {
            pause("the commit", || proxy.has_met()).await;
            let other = second.fenced().await;
            let newest = other.read().await.unwrap().unwrap();
            assert_eq!(newest, first.progress(1), "the broker has committed");
            let claim = Progress { instance: second.instance, attempt: second.attempt, ..newest };
            is_committed(other.commit(&claim).await);
            proxy.end();
            other
        };
        let (decided, other) = both(log.commit(&first.progress(1)), takes_over).await;
        assert!(matches!(decided, Decided::Superseded), "{decided:?}");
        let mut writer = first.writer(&topic).await;
        assert!(write(&mut writer, &["late"]).await.is_err());
        drop(log);
        // it was fenced in passing, sees that the job is its own still, and goes on
        written_or_fenced(&second, &topic, other).await;
    });
    wait_until("all is seen, once", || texts(&proxy.broker, &topic) == ["first", "second"]);
}

/// Epoch 2, at the second attempt.
async fn written_or_fenced(life: &Life, topic: &str, log: Box<dyn DecisionLog>) {
    let mut writer = life.writer(topic).await;
    let _ = write(&mut writer, &["second"]).await;
    let _ = prepare(&mut writer, 2).await;
    let decided = log.commit(&life.progress(2)).await;
    assert!(matches!(decided, Decided::Fenced | Decided::Unknown(_)), "{decided:?}");
    assert_eq!(log.look().await.unwrap().unwrap().instance, life.instance);
    drop(log);
    let life = Life { kafka: life.kafka.clone(), job: life.job.clone(), attempt: Attempt::draw(), ..*life };
    let log = life.fenced().await;
    assert_eq!(log.read().await.unwrap().unwrap().epoch, 1);
    written(&life, topic, 2, "second").await;
    is_committed(log.commit(&life.progress(2)).await);
}

/// The request of an attempt that has given up comes when the next one has a transaction open.
#[test]
fn f6_a_request_that_comes_in_the_next_attempt_commits_nothing() {
    let proxy = Proxy::new();
    let topic = proxy.broker.topic("overdue", 1, &[]);
    plain(async {
        let (life, log) = begun(&proxy.broker, "overdue").await;
        written(&life, &topic, 1, "lost").await;
        proxy.disturb(&life.job, Fault::LateRequest);
        {
            // given up in the middle, as when the process recovers from something else
            let progress = life.progress(1);
            let mut commit = pin!(log.commit(&progress));
            let met = pause("the commit", || proxy.has_met());
            tokio::select! { decided = &mut commit => panic!("{decided:?}"), () = met => {} }
        }
        drop(log);
        let theirs = Kafka::new(&*proxy.broker.address).self_test(false).set("client.id", "next");
        let life = Life { kafka: theirs, attempt: Attempt::draw(), ..life };
        let log = life.fenced().await;
        assert_eq!(log.read().await.unwrap().unwrap().epoch, 0);
        written(&life, &topic, 1, "half").await;
        proxy.end();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(texts(&proxy.broker, &topic), [""; 0], "what is open was not committed");
        is_committed(log.commit(&life.progress(1)).await);
    });
    wait_until("it is seen", || texts(&proxy.broker, &topic) == ["half"]);
}

/// The client has sent the request again meanwhile, so that there are two, and has gone on to the next epoch.
#[test]
fn f6_a_copy_of_a_request_that_comes_in_the_next_epoch_commits_nothing() {
    let proxy = Proxy::new();
    let topic = proxy.broker.topic("copy", 1, &[]);
    plain(async {
        let (life, log) = begun(&proxy.broker, "copy").await;
        written(&life, &topic, 1, "one").await;
        proxy.disturb(&life.job, Fault::Overdue);
        is_committed(log.commit(&life.progress(1)).await);
        assert!(proxy.has_met());
        written(&life, &topic, 2, "two").await;
        proxy.end();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(texts(&proxy.broker, &topic), ["one"], "what is open was not committed");
        is_committed(log.commit(&life.progress(2)).await);
    });
    wait_until("it is seen", || texts(&proxy.broker, &topic) == ["one", "two"]);
}
