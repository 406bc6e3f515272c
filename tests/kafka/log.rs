//! Decisions in Kafka, driven as a coordinator would: who may make them, and what becomes of what was written.

use super::broker::{Broker, Rec, broker};
use super::plain;
use millstream::framework::{
    Attempt, Batch, Decided, Decider, DecisionLog, Digest, Epoch, Instance, LogContext, Progress, Sink, SinkContext,
    SinkWriter, Traffic,
};
use millstream::prelude::*;
use millstream::sinks::kafka::{KafkaSink, KafkaWriter};
use millstream::{ErrorKind, clock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A job with a name of its own, in one life of a process.
pub(super) struct Life {
    pub(super) kafka: Kafka,
    pub(super) job: String,
    pub(super) attempt: Attempt,
    pub(super) instance: Instance,
}

impl Life {
    pub(super) fn of(broker: &Broker, job: &str) -> Self {
        // it has a test of its own
        let kafka = Kafka::new(&*broker.address).self_test(false);
        Self { kafka, job: job.into(), attempt: Attempt::draw(), instance: instance() }
    }

    /// Of the same process.
    fn again(&self) -> Self {
        let (kafka, job) = (self.kafka.clone(), self.job.clone());
        Self { kafka, job, attempt: Attempt::draw(), instance: self.instance }
    }

    pub(super) fn sink(&self, topic: &str) -> KafkaSink {
        self.kafka.write(topic)
    }

    pub(super) fn decider(&self) -> Arc<dyn Decider> {
        Sink::<KafkaMessage>::decides(&self.sink("none")).unwrap()
    }

    pub(super) fn cx(&self) -> LogContext {
        let (interval, timeout) = (Duration::from_millis(100), Duration::from_secs(5));
        let (job, attempt) = (self.job.clone(), self.attempt);
        LogContext { job, attempt, checkpoint_interval: interval, checkpoint_timeout: timeout }
    }

    async fn open(&self) -> Box<dyn DecisionLog> {
        self.decider().open(&self.cx(), true).await.unwrap().unwrap()
    }

    /// One that has the right to decide.
    pub(super) async fn fenced(&self) -> Box<dyn DecisionLog> {
        let log = self.open().await;
        log.fence().await.unwrap();
        log
    }

    pub(super) async fn writer(&self, topic: &str) -> KafkaWriter {
        Sink::<KafkaMessage>::open(&self.sink(topic), &self.sink_cx()).await.unwrap()
    }

    pub(super) fn sink_cx(&self) -> SinkContext {
        SinkContext {
            job: self.job.clone(),
            sink: "out".into(),
            subtask: 0,
            parallelism: 1,
            attempt: self.attempt,
            traffic: Traffic::default(),
        }
    }

    pub(super) fn progress(&self, epoch: Epoch) -> Progress {
        Progress {
            version: 1,
            job: self.job.clone(),
            instance: self.instance,
            attempt: self.attempt,
            epoch,
            manifest: Digest(format!("manifest {epoch}")),
            parent: None,
        }
    }

    fn topic(&self) -> String {
        format!("__millstream_progress_{}", self.job)
    }
}

fn instance() -> Instance {
    serde_json::from_value(serde_json::json!(Attempt::draw().to_string())).unwrap()
}

pub(super) fn name(of: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{of}-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed))
}

pub(super) async fn write(writer: &mut KafkaWriter, texts: &[&str]) -> Result<(), BoxError> {
    let values = texts.iter().map(|text| KafkaMessage::text(*text)).collect();
    SinkWriter::<KafkaMessage>::write(writer, batch(values)).await
}

fn batch(values: Vec<KafkaMessage>) -> Batch<KafkaMessage> {
    let mut batch = Batch::default();
    batch.values = values;
    batch
}

pub(super) async fn prepare(writer: &mut KafkaWriter, epoch: Epoch) -> Result<(), BoxError> {
    let prepared = SinkWriter::<KafkaMessage>::prepare(writer, epoch).await?;
    assert_eq!(prepared, None, "nothing is in the manifest");
    Ok(())
}

#[track_caller]
pub(super) fn is_committed(decided: Decided) {
    assert!(matches!(decided, Decided::Committed), "{decided:?}");
}

pub(super) fn texts(broker: &Broker, topic: &str) -> Vec<String> {
    broker.committed(topic).iter().map(|read| read.text()).collect()
}

#[test]
fn what_was_written_is_seen_when_it_is_decided() {
    let (broker, topic) = (broker(), broker().topic("decided", 1, &[]));
    let life = Life::of(broker, &name("decided"));
    plain(async {
        let log = life.fenced().await;
        assert_eq!(log.read().await.unwrap(), None);
        is_committed(log.commit(&life.progress(0)).await);
        let (mut first, mut second) = (life.writer(&topic).await, life.writer(&topic).await);
        for epoch in 1..=3 {
            write(&mut first, &[&format!("a{epoch}")]).await.unwrap();
            write(&mut second, &[&format!("b{epoch}")]).await.unwrap();
            prepare(&mut first, epoch).await.unwrap();
            prepare(&mut second, epoch).await.unwrap();
            assert_eq!(broker.written(&topic).len() as u64, 2 * epoch, "drained");
            assert_eq!(texts(broker, &topic).len() as u64, 2 * (epoch - 1), "not decided");
            is_committed(log.commit(&life.progress(epoch)).await);
            super::wait_until("it is seen", || texts(broker, &topic).len() as u64 == 2 * epoch);
        }
        // without output, too
        is_committed(log.commit(&life.progress(4)).await);
        assert_eq!(log.look().await.unwrap(), Some(life.progress(4)));
        assert_eq!(log.read().await.unwrap(), Some(life.progress(4)));
    });
    assert_eq!(texts(broker, &topic), ["a1", "b1", "a2", "b2", "a3", "b3"]);
    let decisions = broker.committed(&life.topic());
    assert_eq!(decisions.len(), 5);
    let key = format!(r#"{{"job":"{}","domain":0}}"#, life.job);
    assert!(decisions.iter().all(|one| one.key.as_deref() == Some(key.as_bytes())));
}

#[test]
fn a_log_has_an_identity_and_is_made_only_if_it_is_to_be() {
    let broker = Broker::own(&[]);
    let life = Life::of(&broker, &name("made"));
    plain(async {
        assert!(life.decider().open(&life.cx(), false).await.unwrap().is_none());
        let id = life.open().await.id();
        assert_eq!(id.name, life.topic());
        assert!(id.system.len() > 10 && id.incarnation.as_ref().is_some_and(|id| id.len() > 10), "{id:?}");
        assert_eq!(life.decider().open(&life.cx(), false).await.unwrap().unwrap().id(), id);
        broker.delete(&life.topic());
        while life.decider().open(&life.cx(), false).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_ne!(life.open().await.id().incarnation, id.incarnation);
    });
    let shown = broker.tool(&["topics", "--describe", "--topic", &life.topic()]);
    for said in ["PartitionCount: 1", "cleanup.policy=compact", "segment.ms=600000", "segment.bytes=16777216"] {
        assert!(shown.contains(said), "`{said}` is not in {shown}");
    }
}

#[test]
fn the_second_process_fences_the_first_and_settles_what_it_left() {
    let (broker, topic) = (broker(), broker().topic("fenced", 1, &[]));
    let first = Life::of(broker, &name("fenced"));
    let second = Life::of(broker, &first.job);
    plain(async {
        let log = first.fenced().await;
        is_committed(log.commit(&first.progress(0)).await);
        let mut writer = first.writer(&topic).await;
        write(&mut writer, &["lost"]).await.unwrap();
        prepare(&mut writer, 1).await.unwrap();
        let other = second.fenced().await;
        assert_eq!(other.read().await.unwrap(), Some(first.progress(0)), "nothing of the first is decided");
        let decided = log.commit(&first.progress(1)).await;
        assert!(matches!(decided, Decided::Fenced), "{decided:?}");
        // it is over for good
        assert!(write(&mut writer, &["late"]).await.is_err());
        let decided = log.commit(&first.progress(1)).await;
        assert!(matches!(decided, Decided::Unknown(_)), "{decided:?}");
        // whoever was fenced sees by whom, and fences nobody
        is_committed(other.commit(&second.progress(0)).await);
        assert_eq!(log.look().await.unwrap().unwrap().instance, second.instance);
        let mut writer = second.writer(&topic).await;
        write(&mut writer, &["kept"]).await.unwrap();
        prepare(&mut writer, 1).await.unwrap();
        is_committed(other.commit(&second.progress(1)).await);
        assert_eq!(other.read().await.unwrap(), Some(second.progress(1)));
    });
    super::wait_until("it is seen", || texts(broker, &topic) == ["kept"]);
    assert_eq!(broker.written(&topic).len(), 2);
}

#[test]
fn an_attempt_that_ends_leaves_nothing_to_be_seen() {
    let (broker, topic) = (broker(), broker().topic("ended", 1, &[]));
    let first = Life::of(broker, &name("ended"));
    let second = first.again();
    plain(async {
        let log = first.fenced().await;
        is_committed(log.commit(&first.progress(0)).await);
        let mut writer = first.writer(&topic).await;
        write(&mut writer, &["lost"]).await.unwrap();
        // one process has one log of a job at a time
        let error = second.decider().open(&second.cx(), true).await.expect_err("the other one is open");
        assert!(error.to_string().contains("open already"), "{error}");
        drop(log);
        assert!(write(&mut writer, &["late"]).await.unwrap_err().to_string().contains("is over"));
        let log = second.fenced().await;
        assert_eq!(log.read().await.unwrap(), Some(first.progress(0)));
        // a writer of the attempt before does not get into the new transaction
        let mut stale = first.writer(&topic).await;
        assert!(write(&mut stale, &["stale"]).await.unwrap_err().to_string().contains("its attempt is over"));
        let mut writer = second.writer(&topic).await;
        write(&mut writer, &["kept"]).await.unwrap();
        prepare(&mut writer, 1).await.unwrap();
        is_committed(log.commit(&second.progress(1)).await);
    });
    super::wait_until("it is seen", || texts(broker, &topic) == ["kept"]);
}

#[test]
fn a_decision_that_is_under_way_is_looked_at_and_an_aborted_one_is_not() {
    let broker = broker();
    let (ours, theirs) = (Life::of(broker, &name("looked")), Life::of(broker, "other"));
    plain(async {
        let log = ours.fenced().await;
        is_committed(log.commit(&ours.progress(0)).await);
        let record = |progress: &Progress| {
            let key = format!(r#"{{"job":"{}","domain":0}}"#, ours.job);
            Rec::new(&ours.topic(), 0, serde_json::to_string(progress).unwrap()).key(key)
        };
        let their = Progress { job: ours.job.clone(), ..theirs.progress(1) };
        broker.transaction(false, [record(&their)]);
        super::wait_until("it is aborted", || broker.written(&ours.topic()).len() == 2);
        assert_eq!(log.look().await.unwrap(), Some(ours.progress(0)));
        let open = broker.open_transaction([record(&their)]);
        let began = clock::now();
        assert_eq!(log.look().await.unwrap(), Some(their.clone()), "what may be decided soon counts");
        assert!((4..15).contains(&clock::now().duration_since(began).as_secs()), "it was waited for");
        drop(open);
    });
}

#[test]
fn two_sinks_of_one_kafka_write_in_one_transaction() {
    let (broker, [a, b]) = (broker(), ["pair-a", "pair-b"].map(|name| broker().topic(name, 2, &[])));
    let life = Life::of(broker, &name("pair"));
    let (one, other) = (life.sink(&a), life.kafka.clone().write(&*b));
    let deciders = [&one, &other].map(|sink| Sink::<KafkaMessage>::decides(sink).unwrap());
    assert!(Arc::ptr_eq(&deciders[0], &deciders[1]));
    let changed = life.kafka.clone().set("client.id", "x").write(&*b);
    assert!(!Arc::ptr_eq(&deciders[0], &Sink::<KafkaMessage>::decides(&changed).unwrap()));
    assert!(Sink::<KafkaMessage>::decides(&other.at_least_once()).is_none());
    plain(async {
        let log = life.fenced().await;
        let (mut to_a, mut to_b) = (life.writer(&a).await, life.writer(&b).await);
        write(&mut to_a, &["a"]).await.unwrap();
        write(&mut to_b, &["b"]).await.unwrap();
        drop(log);
        let life = life.again();
        let log = life.fenced().await;
        let (mut to_a, mut to_b) = (life.writer(&a).await, life.writer(&b).await);
        write(&mut to_a, &["a"]).await.unwrap();
        write(&mut to_b, &["b"]).await.unwrap();
        prepare(&mut to_a, 1).await.unwrap();
        prepare(&mut to_b, 1).await.unwrap();
        is_committed(log.commit(&life.progress(1)).await);
    });
    super::wait_until("both are seen", || (texts(broker, &a).len(), texts(broker, &b).len()) == (1, 1));
}

#[test]
fn dead_letters_are_in_the_transaction() {
    let broker = broker();
    let topic = broker.topic("exact", 1, &[("max.message.bytes", "20000")]);
    let dead = broker.topic("exact-dead", 1, &[]);
    let life = Life::of(broker, &name("dead"));
    let sink = life.sink(&topic).dead_letters(&*dead);
    // a job asks all sinks before it opens the log
    Sink::<KafkaMessage>::decides(&sink).unwrap();
    plain(async {
        let log = life.fenced().await;
        let mut writer = Sink::<KafkaMessage>::open(&sink, &life.sink_cx()).await.unwrap();
        let large = KafkaMessage::text("x".repeat(30_000));
        SinkWriter::<KafkaMessage>::write(&mut writer, batch(vec![large, KafkaMessage::text("small")])).await.unwrap();
        prepare(&mut writer, 1).await.unwrap();
        assert_eq!((broker.written(&dead).len(), broker.committed(&dead).len()), (1, 0));
        is_committed(log.commit(&life.progress(1)).await);
    });
    super::wait_until("both are seen", || (texts(broker, &topic).len(), broker.committed(&dead).len()) == (1, 1));
    assert_eq!(broker.committed(&dead)[0].header("millstream.sink"), "out");
}

/// A broker's rejection ends the epoch, and what to change is said.
#[test]
fn a_record_that_is_rejected_fails_the_epoch() {
    let broker = broker();
    let topic = broker.topic("rejected", 1, &[("message.timestamp.after.max.ms", "1000")]);
    let life = Life::of(broker, &name("rejected"));
    plain(async {
        let log = life.fenced().await;
        is_committed(log.commit(&life.progress(0)).await);
        let mut writer = life.writer(&topic).await;
        let future = Timestamp::from_millis(4_000_000_000_000);
        let messages = vec![KafkaMessage::text("good"), KafkaMessage::text("late").timestamp(future)];
        SinkWriter::<KafkaMessage>::write(&mut writer, batch(messages)).await.unwrap();
        let error = prepare(&mut writer, 1).await.unwrap_err().to_string();
        assert!(error.contains(&topic) && error.contains("message.timestamp.after.max.ms"), "{error}");
        assert!(write(&mut writer, &["more"]).await.is_err());
        let decided = log.commit(&life.progress(1)).await;
        assert!(matches!(decided, Decided::Unknown(_)), "{decided:?}");
        drop(log);
        let log = life.again().fenced().await;
        assert_eq!(log.read().await.unwrap(), Some(life.progress(0)));
    });
    assert_eq!(texts(broker, &topic), [""; 0]);
}

#[track_caller]
fn refused(error: Result<Option<Box<dyn DecisionLog>>, millstream::Error>, kind: ErrorKind, said: &[&str]) {
    let error = error.expect_err("this is to be refused");
    assert_eq!(error.kind(), kind, "{error}");
    said.iter().for_each(|said| assert!(error.to_string().contains(said), "`{said}` is not in: {error}"));
}

#[test]
fn f12_a_topic_in_which_decisions_could_get_lost_is_refused() {
    let broker = broker();
    for (settings, partitions, said) in [
        (&[("cleanup.policy", "delete")][..], 1, &["`cleanup.policy` = `delete`", "must have `compact`"][..]),
        (&[("cleanup.policy", "compact,delete")], 1, &["--add-config cleanup.policy=compact"]),
        (&[("cleanup.policy", "compact"), ("unclean.leader.election.enable", "true")], 1, &["unclean.leader"]),
        (&[("cleanup.policy", "compact")], 2, &["has 2 partitions"]),
    ] {
        let life = Life::of(broker, &name("topic"));
        broker.make(&life.topic(), partitions, settings);
        refused(plain(life.decider().open(&life.cx(), true)), ErrorKind::Refused, said);
    }
    let life = Life::of(broker, &name("good"));
    broker.make(&life.topic(), 1, &[("cleanup.policy", "compact")]);
    assert!(plain(life.decider().open(&life.cx(), true)).unwrap().is_some());
}

#[test]
fn what_others_wrote_among_the_decisions_is_refused() {
    let broker = broker();
    let life = Life::of(broker, &name("garbage"));
    plain(async {
        let log = life.fenced().await;
        is_committed(log.commit(&life.progress(0)).await);
        broker.write([Rec::new(&life.topic(), 0, "hello").key("k")]);
        let error = log.read().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        let text = error.to_string();
        assert!(text.contains("offset 2") && text.contains(&life.topic()) && text.contains("its key"), "{text}");
    });
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let broker = broker();
    let life = Life::of(broker, &name("settings"));
    let slow = LogContext { checkpoint_interval: Duration::from_mins(10), ..life.cx() };
    refused(plain(life.decider().open(&slow, true)), ErrorKind::Usage, &["`checkpoint_interval`", "15"]);
    let badly = Life { job: "a b".into(), ..life.again() };
    refused(plain(badly.decider().open(&badly.cx(), true)), ErrorKind::Usage, &["`a b`", "characters"]);
    let set = Life { kafka: life.kafka.clone().set("acks", "1"), ..life.again() };
    refused(plain(set.decider().open(&set.cx(), true)), ErrorKind::Usage, &["`acks`"]);
    let sink = life.sink(&broker.topic("settings", 1, &[])).set("linger.ms", "1");
    let error = plain(async { Sink::<KafkaMessage>::open(&sink, &life.sink_cx()).await }).unwrap_err().to_string();
    assert!(error.contains("`linger.ms`") && error.contains("share a producer"), "{error}");
}

#[test]
fn brokers_that_stay_away_are_waited_for_and_then_given_up() {
    let kafka = Kafka::new("127.0.0.1:1").self_test(false).patience(Duration::from_secs(2));
    let life = Life { kafka, job: "away".into(), attempt: Attempt::draw(), instance: instance() };
    let began = clock::now();
    refused(plain(life.decider().open(&life.cx(), true)), ErrorKind::Busy, &["127.0.0.1:1", "2s", "start again"]);
    assert!((2..10).contains(&clock::now().duration_since(began).as_secs()));
}

/// A broker that is killed while a transaction is open, and comes back.
#[test]
fn a_transaction_outlives_its_broker() {
    let broker = Broker::own(&[]);
    let topic = broker.topic("outage", 1, &[]);
    let life = Life::of(&broker, &name("outage"));
    plain(async {
        let log = life.fenced().await;
        is_committed(log.commit(&life.progress(0)).await);
        let mut writer = life.writer(&topic).await;
        write(&mut writer, &["before"]).await.unwrap();
        prepare(&mut writer, 1).await.unwrap();
        broker.kill();
        broker.start();
        write(&mut writer, &["after"]).await.unwrap();
        let decided = match prepare(&mut writer, 1).await {
            Ok(()) => log.commit(&life.progress(1)).await,
            Err(error) => Decided::Unknown(millstream::Error::from_user(error, "prepare")),
        };
        // whatever it says, what is seen is what is decided
        drop(log);
        let life = life.again();
        let log = life.fenced().await;
        let newest = log.read().await.unwrap().unwrap().epoch;
        let seen = texts(&broker, &topic);
        match decided {
            Decided::Committed => assert_eq!((newest, seen), (1, vec!["before".to_owned(), "after".into()])),
            other if newest == 0 => assert!(seen.is_empty(), "{other:?}: {seen:?}"),
            other => assert_eq!(seen, ["before", "after"], "{other:?}"),
        }
    });
}

#[test]
fn brokers_are_tried_out() {
    // the topics of others come and go
    let broker = Broker::own(&[]);
    // one of a test that was killed long ago, and one of somebody else
    ["__millstream_test_1000-a", "__millstream_test_mine"].iter().for_each(|topic| broker.make(topic, 1, &[]));
    let test = plain(Kafka::new(&*broker.address).check()).unwrap();
    assert!(test.to_string().contains(&broker.address), "{test}");
    println!("{test}");
    let left = broker.tool(&["topics", "--list"]);
    let left: Vec<_> = left.lines().filter(|topic| topic.contains("__millstream_test_")).collect();
    assert_eq!(left, ["__millstream_test_mine"]);
    // and so is every process that writes exactly once
    let life = Life { kafka: Kafka::new(&*broker.address), ..Life::of(&broker, &name("tried")) };
    assert!(plain(life.decider().open(&life.cx(), true)).unwrap().is_some());
}
