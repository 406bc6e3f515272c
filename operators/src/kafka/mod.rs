//! `Kafka`: a cluster, from which sources and sinks are made. What both need of it lives here; reading is in
//! `sources/kafka/`, writing in `sinks/kafka/`.
//!
//! | file | what |
//! |---|---|
//! | `cluster.rs` | what clones of one `Kafka` share |
//! | `settings.rs` | settings of the clients, those that cannot be set, secrets |
//! | `client.rs` | the client that asks, and what it is asked |
//! | `admin.rs` | settings of topics and brokers; topics that are made and deleted |
//! | `outage.rs` | brokers that are away |
//! | `ffi.rs` | all that the safe client does not offer |

pub(crate) mod admin;
pub(crate) mod client;
mod cluster;
pub(crate) mod ffi;
pub(crate) mod outage;
pub(crate) mod settings;

pub(crate) use cluster::Cluster;

use crate::sinks::kafka::{KafkaSink, SelfTest, self_test};
use crate::sources::kafka::{ReadKafka, Topics};
use millstream_framework::{Error, Secret};
use settings::Value;
use std::sync::Arc;
use std::time::Duration;

/// A Kafka cluster: where it is and how to get in. Clones are the same cluster; sources and sinks of several topics and
/// jobs are made of one value.
///
/// ```
/// use millstream_framework::Secret;
/// use millstream_operators::Kafka;
///
/// let kafka = Kafka::new("kafka-1:9092,kafka-2:9092")
///     .set("security.protocol", "sasl_plaintext")
///     .set("sasl.mechanism", "PLAIN")
///     .set("sasl.username", "orders")
///     .secret("sasl.password", Secret::env("KAFKA_PASSWORD"));
/// let source = kafka.read("orders").text();
/// let sink = kafka.write("orders-per-minute");
/// ```
///
/// Settings are those of librdkafka 2.12, by name. Those on which the guarantees rest cannot be set; a job that tries
/// ends with the reason. TLS, SCRAM and OAUTHBEARER need the cargo feature `kafka-tls`, Kerberos `kafka-gssapi`.
///
/// All exactly-once sinks that a job makes of one value, or of its clones, write in one transaction. A value that was
/// changed (`set`, `secret`, ..) is another one from then on; a job with exactly-once sinks of two is refused.
#[derive(Debug, Clone)]
pub struct Kafka {
    cluster: Arc<Cluster>,
}

impl Kafka {
    /// The cluster of these brokers, `host:port` with commas between. One that answers is enough to find the others.
    /// Nothing is asked before the job starts.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { cluster: Arc::new(Cluster::new(brokers.into())) }
    }

    /// The same, changed: a value of its own, since sources and sinks may have been made of this one.
    fn but(&self, change: impl FnOnce(&mut Cluster)) -> Self {
        let mut cluster = self.cluster.anew();
        change(&mut cluster);
        Self { cluster: Arc::new(cluster) }
    }

    /// Sets something of librdkafka. A password is better given by [`secret`](Self::secret); one that is given here is
    /// not shown either.
    #[must_use]
    pub fn set(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.but(|cluster| cluster.settings.set(name, Value::Plain(value.into())))
    }

    /// Sets something of librdkafka that nobody is to see. It is read when the job starts.
    #[must_use]
    pub fn secret(self, name: impl Into<String>, value: Secret) -> Self {
        self.but(|cluster| cluster.settings.set(name, Value::Secret(value)))
    }

    /// How long a job that decides its checkpoints here waits for brokers that are away, when it starts and when it
    /// recovers; 5 minutes if nothing is said. Then it ends with code 75, to be started again later. Sources wait
    /// without a limit.
    #[must_use]
    pub fn patience(self, wait: Duration) -> Self {
        self.but(|cluster| cluster.patience = wait)
    }

    /// Whether an exactly-once job that has no checkpoint yet begins by trying out that the brokers keep what they
    /// promise (see [`check`](Self::check)), once per process. It does if nothing is said. That takes two seconds and
    /// the right to make and delete topics that begin with `__millstream_test_`.
    #[must_use]
    pub fn self_test(mut self, tests: bool) -> Self {
        self = self.but(|cluster| cluster.self_test = tests);
        self
    }

    /// Reads topics: one by its name, several by a list, or all that match a pattern. See [`ReadKafka`].
    pub fn read(&self, topics: impl Into<Topics>) -> ReadKafka {
        ReadKafka::new(self.clone(), topics.into())
    }

    /// Writes to a topic, exactly once if nothing else is said. See [`KafkaSink`].
    pub fn write(&self, topic: impl Into<String>) -> KafkaSink {
        KafkaSink::new(self.cluster.clone(), topic.into())
    }

    /// Tries the brokers out, on topics of its own that are deleted afterwards: that records of a transaction that was
    /// aborted are not read, and that a producer which was replaced cannot commit. Takes some seconds.
    ///
    /// # Errors
    /// [`Refused`](millstream_framework::ErrorKind::Refused) if they do not keep what exactly once rests on,
    /// [`Busy`](millstream_framework::ErrorKind::Busy) if they stay away.
    pub async fn check(&self) -> Result<SelfTest, Error> {
        self_test::run(&self.cluster).await
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }
}
