//! Topics of Kafka as a sink: exactly once, in one transaction per epoch, or at least once.
//!
//! | file | what |
//! |---|---|
//! | `message.rs` | a record to be written |
//! | `partitioning.rs` | to which partition it goes |
//! | `destination.rs` | what is known of topics: partitions, and how large a record may be |
//! | `dead_letter.rs` | what becomes of a record that cannot be written |
//! | `writer.rs` | the writer of a subtask |
//! | `rejected.rs` | records that brokers have found too large |
//! | `producer.rs` | a producer, its thread, and the first thing that went wrong |
//! | `transaction.rs` | the transaction that all writers of a job share |
//! | `log.rs` | the decision log: how it is opened, fenced, read, and committed to |
//! | `topic.rs`, `tail.rs` | the topic where decisions stand, and its newest record |
//! | `self_test.rs` | whether brokers keep what they promise |
//! | `settle.rs` | what brokers left open in spite of it is ended |
//!
//! There is one producer per process, job and `Kafka` value for exactly once, and one per sink for at least once. What
//! a writer has written before its barrier is drained in `prepare`; what decides is the commit of the transaction, by
//! the coordinator.

mod dead_letter;
mod destination;
mod log;
mod message;
mod partitioning;
mod producer;
mod rejected;
pub(crate) mod self_test;
mod settle;
mod tail;
mod topic;
mod transaction;
mod writer;

pub use message::{IntoBytes, KafkaMessage};
pub use partitioning::Partitioning;
pub use self_test::SelfTest;
pub(crate) use transaction::Transaction;
pub use writer::KafkaWriter;

use crate::kafka::Cluster;
use crate::kafka::client::aside;
use crate::kafka::outage::Outage;
use crate::kafka::settings::{Settings, Value, configure_producer};
use destination::{Destination, Lookup, fit, may_be_written};
use millstream_framework::{Attempt, BoxError, Decider, Error, ErrorKind, Secret, Sink, SinkContext};
use partitioning::Chooser;
use producer::Producer;
use std::fmt;
use std::sync::{Arc, Weak};
use writer::Line;

/// A sink that writes to a topic of Kafka. Made by [`Kafka::write`](crate::Kafka::write); takes [`KafkaMessage`] and
/// all that is `Into<KafkaMessage>`.
///
/// ```
/// # use millstream_framework::{BoxError, Topology};
/// # use millstream_operators::Kafka;
/// use millstream_operators::sinks::kafka::{KafkaMessage, Partitioning};
///
/// # fn topology(t: &Topology) -> Result<(), BoxError> {
/// let kafka = Kafka::new("localhost:9092");
/// t.source("clicks", kafka.read("clicks").text())
///     .map(|line| KafkaMessage::text(line).header("from", "clicks"))
///     .sink("lines", kafka.write("lines").dead_letters("lines-dead").partitioned_by(Partitioning::round_robin()));
/// # Ok(())
/// # }
/// ```
///
/// # Exactly once
///
/// The default. All that the exactly-once sinks of a job write in an epoch is one transaction, whose commit is also the
/// decision that the epoch's checkpoint counts. Who reads with `isolation.level=read_committed` sees each record once,
/// when its checkpoint is decided: after `checkpoint_interval` and a little. The decisions stand in a topic of the
/// job, `__millstream_progress_<job>`, which is made if it is not there; the brokers have to be of Kafka 3.7 or newer.
///
/// Sinks that are to share the transaction have to be made of one [`Kafka`](crate::Kafka) value or its clones. A job
/// can decide on one cluster only.
///
/// Between a crash and the next start, readers of committed records wait at the transaction that was left open: up to
/// its time-out, four times `checkpoint_interval` and `checkpoint_timeout` together.
///
/// # At least once
///
/// With [`at_least_once`](Self::at_least_once) records are visible some milliseconds after they were written. After a
/// failure the job writes again what it has written since its last checkpoint. While nothing fails, each is there once
/// and in order: the producer is idempotent.
///
/// # Records that cannot be written
///
/// Those that are too large, could not be encoded, or name a topic or partition that is not there go to the
/// [`dead_letters`](Self::dead_letters) if there is such a topic. If not, they end the attempt.
///
/// # Rights
///
/// Where Kafka checks them: WRITE for the topics that are written to. Exactly once also CREATE, READ and WRITE for the
/// progress topic, and WRITE and DESCRIBE for the transactional id `millstream-<job>-0`. With DESCRIBE_CONFIGS for
/// topics and cluster their settings are checked; without it, with a warning, they are not.
///
/// # Brokers that are away
///
/// Records wait for them in memory (up to 128 MiB: `queue.buffering.max.kbytes`), then the job waits. A checkpoint
/// takes that long, too, and `checkpoint_timeout` says how long is too long.
#[derive(Clone)]
#[must_use = "a sink does nothing before it is given to a stream, as in `.sink(name, kafka.write(topic))`"]
pub struct KafkaSink {
    cluster: Arc<Cluster>,
    topic: String,
    is_exact: bool,
    partitioning: Partitioning,
    dead_letters: Option<String>,
    settings: Settings,
    shared: Arc<tokio::sync::Mutex<Option<(Attempt, Weak<OfAttempt>)>>>,
}

/// What the subtasks of a sink share, in one attempt. Goes with the last of them.
struct OfAttempt {
    lookup: Arc<Lookup>,
    own: Destination,
    /// And how large its batches get; none if they write in the transaction of the job.
    producer: Option<(Arc<Producer>, usize)>,
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, topic, is_exact, partitioning, dead_letters, settings, shared: _ } = self;
        f.debug_struct("KafkaSink")
            .field("cluster", cluster)
            .field("topic", topic)
            .field("exactly_once", is_exact)
            .field("partitioning", partitioning)
            .field("dead_letters", dead_letters)
            .field("settings", settings)
            .finish()
    }
}

impl KafkaSink {
    pub(crate) fn new(cluster: Arc<Cluster>, topic: String) -> Self {
        Self {
            cluster,
            topic,
            is_exact: true,
            partitioning: Partitioning::default(),
            dead_letters: None,
            settings: Settings::default(),
            shared: Arc::default(),
        }
    }

    /// Each record once, for readers of committed records. This is the default.
    pub fn exactly_once(mut self) -> Self {
        self.is_exact = true;
        self
    }

    /// Each record once or, after a failure, more often; visible at once.
    pub fn at_least_once(mut self) -> Self {
        self.is_exact = false;
        self
    }

    /// To which partition a record goes; by the hash of its key, as Java's producers do it, if nothing is said.
    pub fn partitioned_by(mut self, partitioning: Partitioning) -> Self {
        self.partitioning = partitioning;
        self
    }

    /// Sends records that cannot be written to this topic, in the same transaction: with their key, with as much of
    /// their value as fits, and with the headers `millstream.error`, `millstream.job`, `millstream.sink`,
    /// `millstream.topic` and, if something was cut off, `millstream.value.bytes` and `millstream.key.bytes`.
    pub fn dead_letters(mut self, topic: impl Into<String>) -> Self {
        self.dead_letters = Some(topic.into());
        self
    }

    /// Sets something of librdkafka for this sink, in addition to what [`Kafka::set`](crate::Kafka::set) says. Only at
    /// least once: sinks that are exactly once share a producer, whose settings are those of their `Kafka`.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.set(name, Value::Plain(value.into()));
        self
    }

    /// Sets something of librdkafka that nobody is to see. Only at least once, as [`set`](Self::set).
    pub fn secret(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.settings.set(name, Value::Secret(value));
        self
    }

    fn check(&self) -> Result<(), BoxError> {
        may_be_written(&self.topic)?;
        self.dead_letters.as_deref().map_or(Ok(()), may_be_written)?;
        match self.settings.names().next() {
            Some(name) if self.is_exact => {
                let text = format!(
                    "`{name}` is set for one exactly-once sink, and they share a producer: set it in `Kafka::set`, or \
                    make the sink `.at_least_once()`"
                );
                Err(Error::new(ErrorKind::Usage, text).into())
            }
            _ => Ok(()),
        }
    }

    async fn of_attempt(&self, cx: &SinkContext) -> Result<Arc<OfAttempt>, BoxError> {
        let mut shared = self.shared.lock().await;
        let there = shared.as_ref().filter(|(of, _)| *of == cx.attempt).and_then(|(_, there)| there.upgrade());
        if let Some(there) = there {
            return Ok(there);
        }
        let lookup = Arc::new(Lookup::new(&self.cluster, &self.settings, &cx.job)?);
        let own = self.find(&lookup, &self.topic, cx).await?;
        let dead_letters = match &self.dead_letters {
            Some(topic) => Some(self.find(&lookup, topic, cx).await?),
            None => None,
        };
        let mut config = configure_producer(&self.cluster, &self.settings, &cx.job)?;
        let known = [Some(&own), dead_letters.as_ref()].into_iter().flatten();
        let batch_bytes = fit(&mut config, known.filter_map(|topic| topic.batch_bytes_max));
        let producer = match self.is_exact {
            true => None,
            false => {
                let producer = Producer::new(&config, Arc::new(Outage::new(&self.cluster.brokers)))?;
                Some((Arc::new(producer), batch_bytes))
            }
        };
        let made = Arc::new(OfAttempt { lookup, own, producer });
        *shared = Some((cx.attempt, Arc::downgrade(&made)));
        Ok(made)
    }

    async fn find(&self, lookup: &Arc<Lookup>, topic: &str, cx: &SinkContext) -> Result<Destination, BoxError> {
        let (lookup, name) = (lookup.clone(), topic.to_owned());
        let found = aside(move |called_off| lookup.look(&name, called_off)).await?;
        found.ok_or_else(|| {
            let text =
                format!("the cluster has no topic `{topic}` for the sink `{}`: make it, or correct the name", cx.sink);
            Error::new(ErrorKind::Usage, text).into()
        })
    }
}

#[diagnostic::do_not_recommend]
impl<T: Into<KafkaMessage> + 'static> Sink<T> for KafkaSink {
    type Writer = KafkaWriter;

    /// Waits for brokers that are away.
    async fn open(&self, cx: &SinkContext) -> Result<KafkaWriter, BoxError> {
        self.check()?;
        let shared = self.of_attempt(cx).await?;
        let line = match &shared.producer {
            Some((producer, batch_bytes)) => {
                Line::AtLeastOnce { producer: producer.clone(), batch_bytes: *batch_bytes }
            }
            None => Line::ExactlyOnce { cluster: self.cluster.clone(), transaction: None },
        };
        let chooser = Chooser::new(self.partitioning.clone(), cx.subtask);
        let own = (&*self.topic, shared.own.clone());
        Ok(KafkaWriter::new(cx, line, chooser, own, self.dead_letters.clone(), shared))
    }

    /// At least once there is nothing to keep apart: records are visible when they are written.
    fn separates_epochs(&self) -> bool {
        !self.is_exact
    }

    fn decides(&self) -> Option<Arc<dyn Decider>> {
        if !self.is_exact {
            return None;
        }
        self.cluster.writes_to(self.dead_letters.iter().chain([&self.topic]).cloned());
        Some(self.cluster.clone())
    }
}
