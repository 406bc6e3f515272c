//! Users who may not do all that a sink needs: each is told what to ask for.

use super::broker::Broker;
use super::log::{Life, is_committed, prepare, write};
use super::plain;
use crate::common::Scratch;
use millstream::ErrorKind;
use millstream::framework::{Attempt, Sink};
use millstream::prelude::*;

/// A broker with users, of which all but `broker` have no rights.
struct Guarded {
    broker: Broker,
    scratch: Scratch,
}

impl Guarded {
    fn new() -> Self {
        let jaas = "listener.name.client.plain.sasl.jaas.config=\
            org.apache.kafka.common.security.plain.PlainLoginModule required \
            username=\"broker\" password=\"b\" user_broker=\"b\" user_ann=\"a\";";
        let broker = Broker::own(&[
            "listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms=PLAIN",
            "sasl.mechanism.inter.broker.protocol=PLAIN",
            jaas,
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            // the controller knows its broker by no name
            "super.users=User:broker;User:ANONYMOUS",
        ]);
        let scratch = Scratch::new();
        let login = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=\
            org.apache.kafka.common.security.plain.PlainLoginModule required username=\"broker\" password=\"b\";\n";
        std::fs::write(scratch.join("login"), login).unwrap();
        Self { broker, scratch }
    }

    fn tool(&self, arguments: &[&str]) {
        let login = self.scratch.join("login");
        self.broker.tool(&[arguments, &["--command-config", login.to_str().unwrap()]].concat());
    }

    /// From now on ann may do this.
    fn allow(&self, what: &[&str], operations: &[&str]) {
        let operations: Vec<&str> = operations.iter().flat_map(|operation| ["--operation", operation]).collect();
        self.tool(&[&["acls", "--add", "--allow-principal", "User:ann"], what, &operations].concat());
    }

    fn ann(&self) -> Kafka {
        let kafka = Kafka::new(&*self.broker.address).set("security.protocol", "sasl_plaintext");
        kafka.set("sasl.mechanism", "PLAIN").set("sasl.username", "ann").set("sasl.password", "a").self_test(false)
    }
}

#[track_caller]
fn is_told(error: &millstream::Error, said: &[&str]) {
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    said.iter().for_each(|said| assert!(error.to_string().contains(said), "`{said}` is not in: {error}"));
}

#[test]
fn whoever_may_not_write_exactly_once_is_told_what_it_takes() {
    let guarded = Guarded::new();
    let life = Life { kafka: guarded.ann(), ..Life::of(&guarded.broker, "rights") };
    let again = || Life { kafka: life.kafka.clone(), job: life.job.clone(), attempt: Attempt::draw(), ..life };
    let progress = "__millstream_progress_rights";
    guarded.tool(&["topics", "--create", "--topic", "out", "--partitions", "1"]);
    plain(async {
        let open = async |life: &Life| life.decider().open(&life.cx(), true).await;
        is_told(&open(&life).await.unwrap_err(), &[progress, "DESCRIBE"]);
        guarded.allow(&["--topic", progress], &["Describe"]);
        is_told(&open(&again()).await.unwrap_err(), &[progress, "right to", "--partitions 1"]);
        guarded.allow(&["--topic", progress], &["Create", "DescribeConfigs"]);
        let log = open(&life).await.unwrap().unwrap();
        is_told(&log.fence().await.unwrap_err(), &["`millstream-rights-0`", "WRITE"]);
        drop(log);
        guarded.allow(&["--transactional-id", "millstream-rights-0"], &["Write", "Describe"]);
        guarded.allow(&["--topic", progress], &["Read", "Write"]);
        let life = again();
        let log = life.fenced().await;
        assert_eq!(log.read().await.unwrap(), None);
        is_committed(log.commit(&life.progress(0)).await);
        // neither the cluster nor the group may be looked at
        assert_eq!(log.read().await.unwrap(), Some(life.progress(0)));

        let sink = life.sink("out");
        let error = Sink::<KafkaMessage>::open(&sink, &life.sink_cx()).await.unwrap_err();
        is_told(&millstream::Error::from_user(error, "sink"), &["`out`", "DESCRIBE"]);
        guarded.allow(&["--topic", "out"], &["Describe"]);
        let mut writer = life.writer("out").await;
        write(&mut writer, &["a"]).await.unwrap();
        let error = prepare(&mut writer, 1).await.unwrap_err().to_string();
        println!("{error}");
        assert!(error.contains("right to WRITE") && error.contains("\"out\""), "{error}");
        drop(log);
        guarded.allow(&["--topic", "out"], &["Write"]);
        let life = again();
        let log = life.fenced().await;
        let mut writer = life.writer("out").await;
        write(&mut writer, &["a"]).await.unwrap();
        prepare(&mut writer, 1).await.unwrap();
        is_committed(log.commit(&life.progress(1)).await);
    });
}
