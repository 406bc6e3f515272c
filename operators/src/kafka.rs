//! `Kafka`: a cluster, from which sources are made. Reading is in `sources/kafka/`.

use crate::sources::kafka::{ReadKafka, Settings, Topics, Value};
use millstream_framework::Secret;

/// A Kafka cluster: where it is and how to get in. Clones are the same cluster; sources of several topics and jobs are
/// made of one value.
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
/// ```
///
/// Settings are those of librdkafka 2.12, by name. Those on which the guarantees rest cannot be set; a job that tries
/// ends with the reason. TLS, SCRAM and OAUTHBEARER need the cargo feature `kafka-tls`, Kerberos `kafka-gssapi`.
#[derive(Debug, Clone)]
pub struct Kafka {
    brokers: String,
    settings: Settings,
}

impl Kafka {
    /// The cluster of these brokers, `host:port` with commas between. One that answers is enough to find the others.
    /// Nothing is asked before the job starts.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), settings: Settings::default() }
    }

    /// Sets something of librdkafka. A password is better given by [`secret`](Self::secret); one that is given here is
    /// not shown either.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.set(name, Value::Plain(value.into()));
        self
    }

    /// Sets something of librdkafka that nobody is to see. It is read when the job starts.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.settings.set(name, Value::Secret(value));
        self
    }

    /// Reads topics: one by its name, several by a list, or all that match a pattern. See [`ReadKafka`].
    pub fn read(&self, topics: impl Into<Topics>) -> ReadKafka {
        ReadKafka::new(self.clone(), topics.into())
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }
}
