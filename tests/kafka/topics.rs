//! What stands in a topic, for tests that write: all of each record, as Kafka's own client reads it.

use super::broker::{Broker, PATIENCE};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

/// A record as it stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) time_ms: Option<i64>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Read {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.value.clone().unwrap()).unwrap()
    }

    /// The value of a header, as text.
    pub(crate) fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(header, _)| header == name);
        String::from_utf8(found.unwrap_or_else(|| panic!("no `{name}` in {self:?}")).1.clone().unwrap()).unwrap()
    }
}

impl Broker {
    /// All that readers of committed records see, up to the last stable offset of now.
    pub(crate) fn committed(&self, topic: &str) -> Vec<Read> {
        self.read(topic, "read_committed")
    }

    /// All that was written, aborted or not.
    pub(crate) fn written(&self, topic: &str) -> Vec<Read> {
        self.read(topic, "read_uncommitted")
    }

    fn read(&self, topic: &str, isolation: &str) -> Vec<Read> {
        let mut config = self.client();
        config.set("isolation.level", isolation).set("group.id", "test").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "error").set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let (mut all, mut open) = (TopicPartitionList::new(), 0);
        for partition in metadata.topics()[0].partitions() {
            all.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
            open += 1;
        }
        consumer.assign(&all).unwrap();
        let mut read = Vec::new();
        while open > 0 {
            match consumer.poll(PATIENCE).expect("records or an end come") {
                Ok(message) => read.push(Read {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(Into::into),
                    value: message.payload().map(Into::into),
                    time_ms: message.timestamp().to_millis(),
                    headers: message.headers().map_or(Vec::new(), |headers| {
                        headers.iter().map(|one| (one.key.to_owned(), one.value.map(Into::into))).collect()
                    }),
                }),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => panic!("{error}"),
            }
        }
        read.sort_by_key(|one| (one.partition, one.offset));
        read
    }
}
