//! The loop that the benchmarks hold the source against: the client with the settings of the source and one queue,
//! without anything of the engine. Not part of the interface.

use super::record::KafkaRecord;
use super::topics::KafkaPartition;
use crate::kafka::Kafka;
use crate::kafka::client::{Client, connect, list};
use crate::kafka::ffi::{Messages, Queue};
use crate::kafka::outage::Outage;
use crate::kafka::settings::{Purpose, Settings, configure};
use millstream_framework::BoxError;
use rdkafka::Offset;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use std::sync::Arc;
use std::time::Duration;

/// A consumer as one would write it by hand.
pub struct Bare {
    queue: Queue,
    messages: Messages,
    client: Arc<Client>,
}

impl Bare {
    /// Reads all partitions of a topic from their beginning.
    ///
    /// # Errors
    /// Those of the client.
    pub fn read(kafka: &Kafka, topic: &str, partitions: i32, ahead_bytes: usize) -> Result<Self, BoxError> {
        let purpose = Purpose { client_id: "bare", group: Some("bare"), ahead_bytes };
        let config = configure(kafka.cluster(), &Settings::default(), &purpose)?;
        let client = Arc::new(connect(&config, Arc::new(Outage::new(&kafka.cluster().brokers)))?);
        let queue = Queue::new(client.clone(), Box::new(|| {})).ok_or("the Kafka client gives no queue")?;
        let all: Vec<_> = (0..partitions).map(|partition| KafkaPartition::new(topic, partition)).collect();
        if !all.iter().all(|partition| queue.attach(topic, partition.partition)) {
            return Err("the Kafka client has no queue of a partition".into());
        }
        client.assign(&list(all.iter().map(|partition| (partition, Offset::Offset(0))))?)?;
        Ok(Self { queue, messages: Messages::default(), client })
    }

    /// Takes up to `most` records, or what has come after `wait`, and shows each; how many there were.
    ///
    /// # Errors
    /// Of `each`, and what the client says.
    #[inline]
    pub fn take(
        &mut self,
        topic: &str,
        most: usize,
        wait: Duration,
        mut each: impl FnMut(&KafkaRecord<'_>) -> Result<(), BoxError>,
    ) -> Result<usize, BoxError> {
        let taken = self.queue.take(most, wait, &mut self.messages);
        let mut records = 0;
        for i in 0..taken {
            let Some(message) = self.messages.get(i) else { break };
            // ends of partitions
            if message.error().is_none() {
                each(&KafkaRecord::of(message, topic))?;
                records += 1;
            }
        }
        self.messages.clear();
        Ok(records)
    }

    /// For transactions.
    pub fn group(&self) -> Option<ConsumerGroupMetadata> {
        self.client.group_metadata()
    }
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}
