//! To which partition a record goes. By key it is librdkafka's affair; what is left is decided here.

use super::message::KafkaMessage;
use std::fmt;
use std::sync::Arc;

/// To which partition of a topic a sink writes a record; given to
/// [`KafkaSink::partitioned_by`](super::KafkaSink::partitioned_by). A partition that the message names
/// ([`KafkaMessage::partition`]) counts in any case.
#[derive(Clone, Default)]
pub struct Partitioning(pub(super) Kind);

#[derive(Clone, Default)]
pub(super) enum Kind {
    #[default]
    Key,
    RoundRobin,
    Explicit,
    With(Arc<dyn Fn(&KafkaMessage, i32) -> i32 + Send + Sync>),
}

impl Partitioning {
    /// By the hash of the key, in the same way as Java's producers, so that both put a key into one partition. Without
    /// a key, to one partition for a while (`sticky.partitioning.linger.ms`), then to another. This is the default.
    #[must_use]
    pub fn by_key() -> Self {
        Self(Kind::Key)
    }

    /// To one partition after the other, whatever the key. Each subtask goes round by itself.
    #[must_use]
    pub fn round_robin() -> Self {
        Self(Kind::RoundRobin)
    }

    /// To the one that the message names; a message that names none cannot be written.
    #[must_use]
    pub fn explicit() -> Self {
        Self(Kind::Explicit)
    }

    /// As a function says, given the message and how many partitions there are. A record for a partition that is not
    /// there cannot be written. New partitions count within a minute.
    #[must_use]
    pub fn with(choose: impl Fn(&KafkaMessage, i32) -> i32 + Send + Sync + 'static) -> Self {
        Self(Kind::With(Arc::new(choose)))
    }
}

impl fmt::Debug for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Key => "by_key",
            Kind::RoundRobin => "round_robin",
            Kind::Explicit => "explicit",
            Kind::With(_) => "with(..)",
        })
    }
}

/// Chooses for one writer.
#[derive(Debug)]
pub(super) struct Chooser {
    partitioning: Partitioning,
    next: u32,
}

impl Chooser {
    /// Subtasks begin in different places.
    pub(super) fn new(partitioning: Partitioning, subtask: usize) -> Self {
        Self { partitioning, next: subtask as u32 }
    }

    /// The partition; none if librdkafka is to choose.
    ///
    /// # Errors
    /// What is wrong with the choice.
    #[inline]
    pub(super) fn choose(&mut self, message: &KafkaMessage, partitions: i32) -> Result<Option<i32>, String> {
        let partition = match (message.get_partition(), &self.partitioning.0) {
            (Some(named), _) => named,
            (None, Kind::Key) => return Ok(None),
            (None, Kind::RoundRobin) => {
                let next = self.next % partitions.max(1).cast_unsigned();
                self.next = next + 1;
                next.cast_signed()
            }
            (None, Kind::Explicit) => {
                return Err("it names no partition, and the sink is `Partitioning::explicit()`".into());
            }
            (None, Kind::With(choose)) => choose(message, partitions),
        };
        if (0..partitions).contains(&partition) {
            return Ok(Some(partition));
        }
        Err(format!("it is for partition {partition}, and the topic has {partitions}, counted from 0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(partitioning: Partitioning, messages: &[KafkaMessage]) -> Vec<Result<Option<i32>, String>> {
        let mut chooser = Chooser::new(partitioning, 1);
        messages.iter().map(|message| chooser.choose(message, 3)).collect()
    }

    #[test]
    fn the_message_comes_before_the_sink() {
        let plain = KafkaMessage::text("v");
        let named = plain.clone().partition(2);
        let all = [plain.clone(), plain.clone(), named, plain];
        assert_eq!(chosen(Partitioning::by_key(), &all), [Ok(None), Ok(None), Ok(Some(2)), Ok(None)]);
        assert_eq!(chosen(Partitioning::round_robin(), &all), [1, 2, 2, 0].map(|p| Ok(Some(p))));
        let by_size = Partitioning::with(|message, partitions| message.get_value().unwrap().len() as i32 % partitions);
        assert_eq!(chosen(by_size, &all), [1, 1, 2, 1].map(|p| Ok(Some(p))));
        let explicit = chosen(Partitioning::explicit(), &all);
        assert!(explicit[0].as_ref().is_err_and(|why| why.contains("names no partition")));
        assert_eq!(explicit[2], Ok(Some(2)));
    }

    #[test]
    fn a_partition_that_is_not_there_is_not_chosen() {
        for partitioning in [Partitioning::by_key(), Partitioning::with(|_, _| -1)] {
            let partition = if matches!(partitioning.0, Kind::Key) { Some(3) } else { None };
            let message = KafkaMessage::text("v");
            let message = partition.map_or(message.clone(), |partition| message.partition(partition));
            assert!(chosen(partitioning, &[message])[0].as_ref().is_err_and(|why| why.contains("the topic has 3")));
        }
    }
}
