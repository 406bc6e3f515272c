//! A real Apache Kafka. One is started for this binary when a test asks for the first time, and it dies with the
//! binary, however that ends: the script that runs it waits for the end of its standard input.
//! `MILLSTREAM_KAFKA_BOOTSTRAP` names another one to use in its place. Tests that kill brokers have one of their own in
//! any case.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker, and what to do with it.
pub(crate) struct Broker {
    pub(crate) address: String,
    own: Option<Own>,
}

struct Own {
    directory: PathBuf,
    script: Child,
}

fn script() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh"))
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The broker of this binary.
pub(crate) fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| match std::env::var("MILLSTREAM_KAFKA_BOOTSTRAP") {
        Ok(address) if !address.is_empty() => Broker { address, own: None },
        _ => Broker::own(&[]),
    })
}

impl Broker {
    /// One that nobody else uses, with these settings; with `nodes=3` a cluster of three.
    pub(crate) fn own(settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("millstream-kafka-").tempdir().unwrap().keep();
        let mut script = script();
        script.arg("attend").arg(&directory).args(settings).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.trim().is_empty(), "there is no broker: see what its script has said");
        Self { address: address.trim().into(), own: Some(Own { directory, script }) }
    }

    fn directory(&self) -> &PathBuf {
        &self.own.as_ref().expect("this broker is for others, too").directory
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        run(script().arg("kill").arg(self.directory()));
    }

    /// Starts it again, after a kill or a stop.
    pub(crate) fn start(&self) {
        run(script().arg("start").arg(self.directory()));
    }

    /// SIGKILL of one node, of several.
    pub(crate) fn kill_node(&self, node: i32) {
        run(script().arg("kill").arg(self.directory().join(node.to_string())));
    }

    pub(crate) fn start_node(&self, node: i32) {
        run(script().arg("start").arg(self.directory().join(node.to_string())));
    }

    pub(crate) fn stop(&self) {
        run(script().arg("stop").arg(self.directory()));
    }

    /// Where it keeps a partition.
    pub(crate) fn log(&self, topic: &str, partition: i32) -> PathBuf {
        self.directory().join("log").join(format!("{topic}-{partition}"))
    }

    /// What a tool of Kafka's prints.
    pub(crate) fn tool(&self, arguments: &[&str]) -> String {
        run(script().arg("tool").arg(&self.address).args(arguments))
    }

    /// Gives a tool of Kafka's these lines to read.
    pub(crate) fn feed(&self, arguments: &[&str], lines: &str) {
        let mut command = script();
        command.arg("tool").arg(&self.address).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut tool = command.spawn().unwrap();
        tool.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(tool.wait().unwrap().success(), "{command:?} failed");
    }

    /// How many nodes it has.
    pub(crate) fn nodes(&self) -> usize {
        self.address.split(',').count()
    }

    /// Of each partition, of a topic or of all, its leader, and how many nodes have it in sync.
    pub(crate) fn leaders(&self, topic: Option<&str>) -> Vec<(i32, usize)> {
        let client: BaseConsumer = self.client().create().unwrap();
        let metadata = client.fetch_metadata(topic, PATIENCE).unwrap();
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.map(|one| (one.leader(), one.isr().len())).collect()
    }

    /// For clients of tests.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// On a thread of its own, for the caller's may run a job.
    fn admin(&self, act: impl AsyncFnOnce(AdminClient<DefaultClientContext>, AdminOptions) + Send) {
        let client: AdminClient<_> = self.client().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        std::thread::scope(|threads| {
            threads.spawn(|| super::plain(act(client, options)));
        });
    }

    /// A topic that no other test has, with these settings.
    pub(crate) fn topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        self.make(&name, partitions, settings);
        name
    }

    /// A topic of exactly this name, of which each node has a copy.
    pub(crate) fn make(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let nodes = self.nodes() as i32;
        self.admin(async |client, options| {
            let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(nodes));
            for (name, value) in settings {
                topic = topic.set(name, value);
            }
            let made = client.create_topics(&[topic], &options).await.unwrap();
            assert!(made.iter().all(Result::is_ok), "{made:?}");
        });
    }

    pub(crate) fn delete(&self, topic: &str) {
        self.admin(async |client, options| {
            let gone = client.delete_topics(&[topic], &options).await.unwrap();
            assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        });
    }

    /// From now on a topic has so many partitions.
    pub(crate) fn widen(&self, topic: &str, partitions: usize) {
        self.admin(async |client, options| {
            let made = client.create_partitions(&[NewPartitions::new(topic, partitions)], &options).await.unwrap();
            assert!(made.iter().all(Result::is_ok), "{made:?}");
        });
    }

    /// Writes records and waits until they are there.
    pub(crate) fn write(&self, records: impl IntoIterator<Item = Rec>) {
        let producer = self.producer(&[]);
        send(&producer, records);
    }

    /// A transaction, which is given up unless it `commits`.
    pub(crate) fn transaction(&self, commits: bool, records: impl IntoIterator<Item = Rec>) {
        let producer = self.open_transaction(records);
        if commits {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }

    /// A transaction that is open as long as the producer is not told to end it.
    pub(crate) fn open_transaction(&self, records: impl IntoIterator<Item = Rec>) -> Writer {
        let producer = self.producer(&[("transactional.id", &format!("{:?}", uuid()))]);
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, records);
        producer
    }

    pub(crate) fn producer(&self, settings: &[(&str, &str)]) -> Writer {
        let mut config = self.client();
        config.set("linger.ms", "2");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.create().unwrap()
    }
}

fn uuid() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    COUNT.fetch_add(1, Relaxed) + 1000 * std::process::id() as usize
}

pub(crate) type Writer = ThreadedProducer<DefaultProducerContext>;

/// Sends records and waits until they are there; it is an error if one cannot be written.
pub(crate) fn send(producer: &Writer, records: impl IntoIterator<Item = Rec>) {
    for rec in records {
        let mut record = BaseRecord::<[u8], [u8]>::to(&rec.topic).partition(rec.partition);
        if let Some(key) = &rec.key {
            record = record.key(key);
        }
        if let Some(value) = &rec.value {
            record = record.payload(value);
        }
        if let Some(time_ms) = rec.time_ms {
            record = record.timestamp(time_ms);
        }
        if !rec.headers.is_empty() {
            let headers = rec.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: value.as_ref() })
            });
            record = record.headers(headers);
        }
        let mut record = Some(record);
        while let Some(again) = record.take() {
            if let Err((error, back)) = producer.send(again) {
                assert!(error.to_string().contains("Queue full"), "{error}");
                std::thread::sleep(Duration::from_millis(2));
                record = Some(back);
            }
        }
    }
    producer.flush(PATIENCE).unwrap();
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut own) = self.own.take() {
            drop(own.script.stdin.take());
            let _ = own.script.wait();
        }
    }
}

/// A record to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rec {
    topic: String,
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    time_ms: Option<i64>,
    headers: Vec<(&'static str, Option<Vec<u8>>)>,
}

impl Rec {
    pub(crate) fn new(topic: &str, partition: i32, value: impl Into<Vec<u8>>) -> Self {
        Self { topic: topic.into(), partition, value: Some(value.into()), ..Self::default() }
    }

    pub(crate) fn tombstone(topic: &str, partition: i32, key: &str) -> Self {
        Self { topic: topic.into(), partition, key: Some(key.into()), ..Self::default() }
    }

    pub(crate) fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn at(mut self, time_ms: i64) -> Self {
        self.time_ms = Some(time_ms);
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.headers.push((name, value.map(Into::into)));
        self
    }
}

/// Lines with these numbers, for a partition.
pub(crate) fn numbers(topic: &str, partition: i32, numbers: std::ops::Range<u64>) -> impl Iterator<Item = Rec> {
    numbers.map(move |n| Rec::new(topic, partition, n.to_string()))
}
