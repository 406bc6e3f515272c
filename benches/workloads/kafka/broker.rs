//! The broker of these benchmarks: started when the first of them asks for it, with the script that tests use, too. It
//! dies with this process, for the script waits for the end of its standard input. `MILLSTREAM_KAFKA_BOOTSTRAP` names
//! another one to use in its place.

use super::PARTITIONS;
use millstream::prelude::*;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) type Writer = ThreadedProducer<DefaultProducerContext>;

pub(super) struct Broker {
    pub(super) address: String,
    /// Holds the pipe that keeps it alive.
    _script: Option<Child>,
}

pub(super) fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| match std::env::var("MILLSTREAM_KAFKA_BOOTSTRAP") {
        Ok(address) if !address.is_empty() => Broker { address, _script: None },
        _ => Broker::own(),
    })
}

impl Broker {
    fn own() -> Self {
        let directory = tempfile::Builder::new().prefix("millstream-kafka-").tempdir().expect("a directory").keep();
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh"));
        script.arg("attend").arg(&directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("scripts/kafka.sh starts");
        let mut address = String::new();
        BufReader::new(script.stdout.take().expect("a pipe")).read_line(&mut address).expect("an address");
        assert!(!address.trim().is_empty(), "there is no broker: see what its script has said");
        Self { address: address.trim().into(), _script: Some(script) }
    }

    /// As users make it. No job of these tries the broker out, which takes some seconds.
    pub(super) fn kafka(&self) -> Kafka {
        Kafka::new(&*self.address).self_test(false)
    }

    fn admin(&self, act: impl AsyncFnOnce(AdminClient<DefaultClientContext>, AdminOptions)) {
        let client: AdminClient<_> = self.client().create().expect("a client");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(act(client, options));
    }

    /// A new topic.
    pub(super) fn topic(&self, name: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        self.admin(async |client, options| {
            let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
            let made = client.create_topics(&[topic], &options).await.expect("an answer");
            assert!(made.iter().all(Result::is_ok), "{made:?}");
        });
        name
    }

    pub(super) fn delete(&self, topic: &str) {
        self.admin(async |client, options| {
            let gone = client.delete_topics(&[topic], &options).await.expect("an answer");
            assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        });
    }

    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// Writes records to the partitions in turn.
    pub(super) fn fill<V: AsRef<[u8]>>(&self, topic: &str, values: impl Iterator<Item = V>) {
        let producer: Writer = self.client().set("linger.ms", "20").create().expect("a producer");
        for (i, value) in values.enumerate() {
            let value = value.as_ref();
            put(&producer, || BaseRecord::to(topic).partition(i as i32 % PARTITIONS).payload(value));
        }
        producer.flush(PATIENCE).expect("all is written");
    }
}

/// Gives a record to the producer; waits while that is full.
#[inline]
pub(super) fn put<'a>(producer: &Writer, record: impl Fn() -> BaseRecord<'a, [u8], [u8]>) {
    loop {
        match producer.send(record()) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => std::thread::sleep(Duration::from_millis(1)),
            Err((error, _)) => panic!("cannot write: {error}"),
        }
    }
}
