//! What is known of the topics that are written to: how many partitions they have, and how large a record may be.

use super::message::KafkaMessage;
use crate::kafka::Cluster;
use crate::kafka::admin::Admin;
use crate::kafka::client::{Client, Questions, connect};
use crate::kafka::outage::Outage;
use crate::kafka::settings::{Purpose, Settings, configure, configure_producer};
use crate::sources::kafka::topics::PROGRESS;
use millstream_framework::{BoxError, Error, ErrorKind, clock};
use rdkafka::ClientConfig;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// How large a record may be for the client if nothing else is set: librdkafka's `message.max.bytes`.
const MESSAGE_BYTES: usize = 1_000_000;

/// And a batch: `batch.size`.
const BATCH_BYTES: usize = 1_000_000;

/// How long a topic that was just made may be unknown to the broker that is asked.
const GRACE: Duration = Duration::from_secs(2);

/// A topic to write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) partitions: i32,
    /// How large a record may be, with all that Kafka keeps beside it.
    pub(super) record_bytes_max: usize,
    /// What the record limit is called.
    pub(super) limit: &'static str,
    /// How large a batch may be, if that is known.
    pub(super) batch_bytes_max: Option<usize>,
    pub(super) known_since: Instant,
}

impl Destination {
    /// Why a record is too large, if it is.
    #[inline]
    pub(super) fn why_too_large(&self, message: &KafkaMessage) -> Option<String> {
        let size = message.size();
        (size > self.record_bytes_max).then(|| {
            format!(
                "it has {size} bytes with its headers, and {} allows {}: raise that, or make it smaller",
                self.limit, self.record_bytes_max
            )
        })
    }

    /// Whether it fits only if it is compressed well.
    #[inline]
    pub(super) fn is_doubtful(&self, message: &KafkaMessage) -> bool {
        self.batch_bytes_max.is_some_and(|most| message.size() > most)
    }
}

/// Asks about topics, for all subtasks of a sink.
pub(super) struct Lookup {
    client: Client,
    admin: Admin,
    message_bytes_max: usize,
    compresses: bool,
}

impl Lookup {
    /// # Errors
    /// [`ErrorKind::Usage`] for settings that cannot be.
    pub(super) fn new(cluster: &Cluster, more: &Settings, job: &str) -> Result<Self, BoxError> {
        let outage = Arc::new(Outage::new(&cluster.brokers));
        let asking =
            configure(cluster, &Settings::default(), &Purpose { client_id: job, group: None, ahead_bytes: 0 })?;
        let admin = Admin::new(&configure_producer(cluster, &Settings::default(), job)?, outage.clone())?;
        let writing = configure_producer(cluster, more, job)?;
        let compresses = ["compression.type", "compression.codec"]
            .iter()
            .any(|name| writing.get(name).is_some_and(|codec| codec != "none"));
        let message_bytes_max = number(&writing, "message.max.bytes").unwrap_or(MESSAGE_BYTES);
        Ok(Self { client: connect(&asking, outage)?, admin, message_bytes_max, compresses })
    }

    /// What is known of a topic; none if there is none. Blocks.
    ///
    /// # Errors
    /// If the cluster does not answer as it should.
    pub(super) fn look(&self, topic: &str, called_off: &AtomicBool) -> Result<Option<Destination>, BoxError> {
        let questions = Questions { client: &self.client, called_off };
        let until = clock::now() + GRACE;
        let partitions = loop {
            let found = questions.topics(Some(&[topic.to_owned()]))?;
            match found.get(topic) {
                Some(partitions) if *partitions > 0 => break *partitions,
                _ if clock::now() >= until => return Ok(None),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
            questions.go_on()?;
        };
        let settings = self.admin.topic_settings(&questions, topic)?;
        let of_topic = settings.and_then(|settings| settings.get("max.message.bytes")?.parse().ok());
        Ok(Some(self.destination(partitions, of_topic)))
    }

    fn destination(&self, partitions: i32, of_topic: Option<usize>) -> Destination {
        // what a record comes to when it is compressed is not known before
        let of_record = of_topic.filter(|bytes| !self.compresses && *bytes < self.message_bytes_max);
        let (record_bytes_max, limit) = match of_record {
            Some(bytes) => (bytes, "the topic's setting `max.message.bytes`"),
            None => (self.message_bytes_max, "the client's setting `message.max.bytes`"),
        };
        Destination { partitions, record_bytes_max, limit, batch_bytes_max: of_topic, known_since: clock::now() }
    }
}

fn number(config: &ClientConfig, name: &str) -> Option<usize> {
    config.get(name)?.parse().ok()
}

/// How large batches of a producer get, so that they fit into topics that take so much.
pub(super) fn fit(config: &mut ClientConfig, batch_bytes_max: impl Iterator<Item = usize>) -> usize {
    let wanted = number(config, "batch.size").unwrap_or(BATCH_BYTES);
    let fitting = batch_bytes_max.fold(wanted, usize::min);
    config.set("batch.size", fitting.to_string());
    fitting
}

/// A name that a sink may write to.
///
/// # Errors
/// [`ErrorKind::Usage`] for topics that are not for sinks.
pub(super) fn may_be_written(topic: &str) -> Result<(), BoxError> {
    let text = if topic.starts_with(PROGRESS) {
        format!("`{topic}` holds the decisions of a job: only that job writes to it; name another topic")
    } else if topic.is_empty() {
        "a Kafka sink has no topic: name one, as in `kafka.write(\"orders\")`".into()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Usage, text).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Kafka;
    use crate::kafka::settings::Value;
    use crate::testing::said;

    fn lookup(more: &[(&str, &str)]) -> Lookup {
        let mut settings = Settings::default();
        more.iter().for_each(|(name, value)| settings.set(*name, Value::Plain((*value).into())));
        Lookup::new(Kafka::new("127.0.0.1:1").cluster(), &settings, "job").unwrap()
    }

    #[test]
    fn the_smaller_limit_counts_and_is_named() {
        let plain = lookup(&[]);
        let message = KafkaMessage::bytes(vec![0; 2000]);
        assert_eq!(plain.destination(1, None).record_bytes_max, 1_000_000);
        assert_eq!(plain.destination(1, None).why_too_large(&message), None);
        let why = plain.destination(1, Some(2000)).why_too_large(&message).unwrap();
        assert!(why.contains("2097 bytes") && why.contains("`max.message.bytes` allows 2000"), "{why}");
        let small = lookup(&[("message.max.bytes", "1500")]).destination(1, Some(2000));
        assert!(small.why_too_large(&message).unwrap().contains("`message.max.bytes` allows 1500"));
        // it may shrink to anything
        let compressed = lookup(&[("compression.type", "zstd")]).destination(1, Some(2000));
        assert_eq!((compressed.record_bytes_max, compressed.batch_bytes_max), (1_000_000, Some(2000)));
        assert!(compressed.is_doubtful(&message) && !compressed.is_doubtful(&KafkaMessage::text("a")));
    }

    #[test]
    fn batches_fit_into_all_topics() {
        let mut config = ClientConfig::new();
        assert_eq!(fit(&mut config, [2_000_000, 50_000].into_iter()), 50_000);
        assert_eq!(config.get("batch.size"), Some("50000"));
        config.set("batch.size", "1000");
        assert_eq!(fit(&mut config, [50_000].into_iter()), 1000);
    }

    #[test]
    fn decisions_are_not_for_sinks() {
        let (kind, text) = said(&may_be_written("__millstream_progress_a").unwrap_err());
        assert!(kind == ErrorKind::Usage && text.contains("decisions of a job"), "{text}");
        assert!(may_be_written("").is_err() && may_be_written("orders").is_ok());
    }
}
