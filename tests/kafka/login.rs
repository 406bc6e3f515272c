//! Users, settings, and that nobody sees a secret.

use super::broker::{Broker, broker, numbers};
use super::{is_misused, to_end};
use crate::common::{Process, Scratch, example, read_lines};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{DefaultProducerContext, ThreadedProducer};
use std::path::Path;

const SECRET: &str = "correct-horse-battery-staple";

/// All text below a directory.
fn all_text(directory: &Path, into: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_text(&path, into);
        } else {
            into.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
        }
    }
}

/// A broker that lets in who knows the password.
fn guarded() -> Broker {
    let jaas = format!(
        "listener.name.client.plain.sasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required \
         username=\"broker\" password=\"{SECRET}\" user_broker=\"{SECRET}\" user_ann=\"{SECRET}\";"
    );
    Broker::own(&[
        "listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN",
        "sasl.mechanism.inter.broker.protocol=PLAIN",
        &jaas,
    ])
}

#[test]
fn a_user_logs_in_and_the_password_is_seen_by_nobody() {
    let broker = guarded();
    let mut config = broker.client();
    config.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", "PLAIN");
    config.set("sasl.username", "ann").set("sasl.password", SECRET);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let topic = NewTopic::new("guarded", 1, TopicReplication::Fixed(1));
    super::plain(async { admin.create_topics(&[topic], &AdminOptions::new()).await }).unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
    super::broker::send(&producer, numbers("guarded", 0, 0..10));

    let scratch = Scratch::new();
    let command = |verb: &str, password: &str| {
        let mut command = example("kafka_files");
        command.env("KAFKA_PASSWORD", password).env("RUST_LOG", "trace");
        command.args([verb, "--brokers", &broker.address, "--topic", "guarded", "--until-end", "--user", "ann"]);
        command.args(["--password", "env:KAFKA_PASSWORD"]).arg("--output").arg(scratch.join("out"));
        command
    };
    let run = |password: &str| {
        let mut command = command("run", password);
        Process::start(command.arg("--data-dir").arg(scratch.join("data")), &scratch.join("log"))
    };
    // a wrong one is told of, and waited for like anything that the cluster may mend
    let mut wrong = run("wrong-horse");
    let refused = || std::fs::read_to_string(scratch.join("log")).unwrap().contains("uthentication failed");
    assert!(wrong.wait_until(refused).unwrap(), "{}", wrong.tail());
    wrong.kill();
    let mut process = run(SECRET);
    assert_eq!(process.wait().unwrap(), 0, "{}", process.tail());
    assert_eq!(read_lines(&scratch.join("out"), "lines").len(), 10);
    let mut shown = Process::start(&mut command("topology", SECRET), &scratch.join("log"));
    assert_eq!(shown.wait().unwrap(), 0, "{}", shown.tail());

    let mut text = String::new();
    all_text(scratch.path(), &mut text);
    assert!(text.contains("guarded") && text.contains("\"cluster\""), "there is nothing to look at");
    for secret in [SECRET, "wrong-horse"] {
        assert!(
            !text.contains(secret),
            "a secret shows: {:?}",
            text.find(secret).map(|at| &text[at.saturating_sub(200)..at])
        );
    }
}

#[test]
fn settings_are_passed_on_and_those_that_cannot_be_are_refused() {
    let broker = broker();
    let topic = broker.topic("settings", 1, &[]);
    let read = to_end(broker, &*topic);
    is_misused(read.clone().set("isolation.level", "read_uncommitted"), &["`isolation.level`", "aborted transactions"]);
    is_misused(read.clone().set("enable.auto.commit", "true"), &["`enable.auto.commit`", "decided"]);
    is_misused(read.clone().set("fetch.min.byte", "1"), &["`fetch.min.byte`"]);
    is_misused(read.clone().set("fetch.min.bytes", "some"), &["`fetch.min.bytes` = `some`"]);
    let text = is_misused(read.set("my.password", SECRET), &["`my.password`", "no such setting"]);
    assert!(!text.contains(SECRET), "{text}");
}
