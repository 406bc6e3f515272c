//! The writer of a subtask: gives records to the producer, waits when it has too many, and sends what cannot be written
//! to the dead letters.

use super::OfAttempt;
use super::dead_letter::{Place, dead_letter};
use super::destination::{Destination, may_be_written};
use super::message::KafkaMessage;
use super::partitioning::Chooser;
use super::producer::Producer;
use super::rejected;
use super::transaction::Transaction;
use crate::kafka::Cluster;
use crate::kafka::client::{aside, code_of};
use millstream_framework::{Batch, BoxError, Epoch, Error, ErrorKind, SinkContext, SinkWriter, clock};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a writer waits before it looks for room again.
const PAUSE: Duration = Duration::from_millis(1);

/// How old what is known of a topic may get.
const REFRESH: Duration = Duration::from_mins(1);

/// How old it may be where a record cannot be written because of it.
const RECENT: Duration = Duration::from_secs(1);

/// How its records become visible.
#[derive(Debug)]
pub(super) enum Line {
    AtLeastOnce {
        producer: Arc<Producer>,
        batch_bytes: usize,
    },
    ExactlyOnce {
        cluster: Arc<Cluster>,
        /// Once it was needed.
        transaction: Option<Arc<Transaction>>,
    },
}

/// The writer of [`KafkaSink`](super::KafkaSink).
pub struct KafkaWriter {
    cx: SinkContext,
    line: Line,
    chooser: Chooser,
    topic: String,
    dead_letters: Option<String>,
    shared: Arc<OfAttempt>,
    /// Of the sink's own topic.
    own: Destination,
    /// Of those that records name, and of the dead letters; none if it is known that there is no such topic.
    others: HashMap<String, (Option<Destination>, std::time::Instant)>,
}

impl fmt::Debug for KafkaWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaWriter").field("topic", &self.topic).field("line", &self.line).finish_non_exhaustive()
    }
}

/// What came of giving a record to the producer.
enum Given {
    Taken,
    /// The producer has all it can hold.
    Full,
    /// Its topic has to be looked at first.
    Unseen,
    /// It cannot be written, for this reason.
    Bad(String),
    Failed(Error),
}

impl KafkaWriter {
    pub(super) fn new(
        cx: &SinkContext,
        line: Line,
        chooser: Chooser,
        (topic, own): (&str, Destination),
        dead_letters: Option<String>,
        shared: Arc<OfAttempt>,
    ) -> Self {
        let (cx, topic, others) = (cx.clone(), topic.to_owned(), HashMap::new());
        Self { cx, line, chooser, topic, dead_letters, shared, own, others }
    }

    /// The producer to write with now.
    fn producer(&mut self) -> Result<Arc<Producer>, Error> {
        match &mut self.line {
            Line::AtLeastOnce { producer, .. } => {
                producer.check()?;
                Ok(producer.clone())
            }
            Line::ExactlyOnce { cluster, transaction } => match transaction {
                Some(transaction) => transaction.enter(),
                None => {
                    let found = cluster.transaction(&self.cx.job, self.cx.attempt)?;
                    transaction.insert(found).enter()
                }
            },
        }
    }

    /// How large a batch of the producer gets.
    fn batch_bytes(&self) -> usize {
        match &self.line {
            Line::AtLeastOnce { batch_bytes, .. } => *batch_bytes,
            Line::ExactlyOnce { transaction, .. } => transaction.as_ref().map_or(0, |found| found.batch_bytes),
        }
    }

    /// Whether batches of the producer fit into a topic.
    fn fits(&self, topic: &str, destination: &Destination) -> Result<(), Error> {
        let (batch, most) = (self.batch_bytes(), destination.batch_bytes_max.unwrap_or(usize::MAX));
        if batch <= most {
            return Ok(());
        }
        let text = format!(
            "the topic `{topic}` takes batches of up to {most} bytes (its `max.message.bytes`), and the producer makes \
            some of up to {batch}: set `batch.size` to {most} or less in `Kafka::set`, or raise the topic's setting"
        );
        Err(Error::new(ErrorKind::Usage, text))
    }

    /// What there is to know of a topic; afterwards the producer knows as much.
    async fn look(&self, producer: &Arc<Producer>, topic: &str) -> Result<Option<Destination>, BoxError> {
        may_be_written(topic)?;
        let (lookup, producer, name) = (self.shared.lookup.clone(), producer.clone(), topic.to_owned());
        let found = aside(move |called_off| {
            let found = lookup.look(&name, called_off)?;
            if found.is_some() {
                producer.learn(&name);
            }
            Ok(found)
        });
        let found = found.await?;
        if let Some(found) = &found {
            self.fits(topic, found)?;
        }
        Ok(found)
    }

    /// Looks at a topic that a record names.
    async fn look_at(&mut self, producer: &Arc<Producer>, topic: &str) -> Result<(), BoxError> {
        let found = self.look(producer, topic).await?;
        self.others.insert(topic.to_owned(), (found, clock::now()));
        Ok(())
    }

    /// Now and then, topics get partitions and other settings.
    async fn refresh(&mut self, producer: &Arc<Producer>) -> Result<(), BoxError> {
        let now = clock::now();
        let is_old = |since| now.saturating_duration_since(since) > REFRESH;
        if is_old(self.own.known_since) {
            self.renew_own(producer).await?;
        }
        self.others.retain(|_, (_, since)| !is_old(*since));
        Ok(())
    }

    /// What was not taken at once.
    async fn give(&mut self, producer: &Arc<Producer>, message: KafkaMessage, given: Given) -> Result<(), BoxError> {
        let Some(why) = self.insist(producer, &message, given).await? else { return Ok(()) };
        let topic = message.get_topic().unwrap_or(&self.topic).to_owned();
        let Some(dead_letters) = self.dead_letters.clone() else { return Err(self.refusal(&topic, &why).into()) };
        if !self.others.contains_key(&dead_letters) {
            self.look_at(producer, &dead_letters).await?;
        }
        let Some((Some(found), _)) = self.others.get(&dead_letters) else {
            let text = format!("the cluster has no topic `{dead_letters}` for the dead letters: make it");
            return Err(Error::new(ErrorKind::Usage, text).into());
        };
        let place = Place { job: &self.cx.job, sink: &self.cx.sink, topic: &topic };
        let dead = dead_letter(message, &why, place, found.record_bytes_max).topic(&*dead_letters);
        tracing::debug!(sink = self.cx.sink, topic, why, "a record went to the dead letters");
        let given = self.try_give(producer, &dead);
        match self.insist(producer, &dead, given).await? {
            None => Ok(()),
            Some(why) => Err(self.refusal(&dead_letters, &why).into()),
        }
    }

    /// Until it is taken; or why it cannot be.
    async fn insist(
        &mut self,
        producer: &Arc<Producer>,
        message: &KafkaMessage,
        mut given: Given,
    ) -> Result<Option<String>, BoxError> {
        loop {
            match given {
                Given::Taken => return Ok(None),
                // partitions and settings may have changed since the topic was looked at
                Given::Bad(why) if !self.look_again(producer, message.get_topic()).await? => return Ok(Some(why)),
                Given::Bad(_) => {}
                Given::Failed(error) => return Err(error.into()),
                Given::Full => {
                    producer.check()?;
                    producer.outage().lasts();
                    tokio::time::sleep(PAUSE).await;
                }
                Given::Unseen => self.look_at(producer, message.get_topic().unwrap_or_default()).await?,
            }
            given = self.try_give(producer, message);
        }
    }

    /// Looks at a topic, the sink's own or another one, if that was not done just now. Whether it was to be done.
    async fn look_again(&mut self, producer: &Arc<Producer>, topic: Option<&str>) -> Result<bool, BoxError> {
        let since = match topic {
            None => Some(self.own.known_since),
            Some(topic) => self.others.get(topic).map(|(_, since)| *since),
        };
        let now = clock::now();
        if since.is_none_or(|since| now.saturating_duration_since(since) < RECENT) {
            return Ok(false);
        }
        match topic {
            None => self.renew_own(producer).await?,
            Some(topic) => self.look_at(producer, topic).await?,
        }
        Ok(true)
    }

    async fn renew_own(&mut self, producer: &Arc<Producer>) -> Result<(), BoxError> {
        // that it is gone is said by the record that cannot be written
        self.own.known_since = clock::now();
        if let Some(found) = self.look(producer, &self.topic).await? {
            self.own = found;
        }
        Ok(())
    }

    fn try_give(&mut self, producer: &Producer, message: &KafkaMessage) -> Given {
        let topic = message.get_topic().unwrap_or(&self.topic);
        let destination = match message.get_topic() {
            None => &self.own,
            Some(topic) => match self.others.get(topic) {
                Some((Some(destination), _)) => destination,
                Some((None, _)) => return Given::Bad("the cluster has no such topic: make it".into()),
                None => return Given::Unseen,
            },
        };
        if let Some(why) = why_bad(message).or_else(|| destination.why_too_large(message)) {
            return Given::Bad(why);
        }
        if destination.is_doubtful(message)
            && let Some(why) = why_rejected(producer, topic, message)
        {
            return Given::Bad(why);
        }
        // a dead letter goes where there is room
        let is_dead = self.dead_letters.as_deref() == Some(topic);
        let partition = match self.chooser.choose(message, destination.partitions) {
            Ok(partition) => partition,
            Err(_) if is_dead => None,
            Err(why) => return Given::Bad(why),
        };
        match producer.base().send(record(topic, partition, message)) {
            Ok(()) => Given::Taken,
            Err((error, _)) => match code_of(&error) {
                Code::QueueFull => Given::Full,
                Code::MessageSizeTooLarge | Code::UnknownPartition | Code::UnknownTopic => {
                    Given::Bad(error.to_string())
                }
                _ => Given::Failed(not_sent(topic, producer, &error)),
            },
        }
    }

    /// A record that cannot be written, and there is no place for those.
    fn refusal(&self, topic: &str, why: &str) -> Error {
        let text = format!(
            "the sink `{}` cannot write a record to the topic `{topic}`: {why}. With `.dead_letters(topic)` such \
            records are put aside",
            self.cx.sink
        );
        Error::new(ErrorKind::Failed, text)
    }
}

#[cold]
fn not_sent(topic: &str, producer: &Producer, error: &KafkaError) -> Error {
    producer
        .check()
        .err()
        .unwrap_or_else(|| Error::new(ErrorKind::Failed, format!("cannot write to the topic `{topic}`: {error}")))
}

/// What is wrong with a message wherever it goes.
#[inline]
fn why_bad(message: &KafkaMessage) -> Option<String> {
    if let Some(why) = message.why_unencodable() {
        return Some(why.to_owned());
    }
    let time = message.get_timestamp()?.as_millis();
    (time <= 0).then(|| format!("its time is {time} ms, and those up to the beginning of 1970 cannot be written"))
}

/// What is wrong with one that was given to brokers before.
#[cold]
fn why_rejected(producer: &Producer, topic: &str, message: &KafkaMessage) -> Option<String> {
    let place = (&*producer.outage().brokers(), topic);
    rejected::is_known(place, message.get_key(), message.get_value()).then(|| {
        format!(
            "it has {} bytes, and the brokers have rejected it as larger than the topic's `max.message.bytes`, also \
            compressed: raise that, or make it smaller",
            message.size()
        )
    })
}

/// As librdkafka takes it, which copies key and value.
#[inline]
fn record<'a>(topic: &'a str, partition: Option<i32>, message: &'a KafkaMessage) -> BaseRecord<'a, [u8], [u8]> {
    let mut record = BaseRecord::to(topic);
    (record.partition, record.key, record.payload) = (partition, message.get_key(), message.get_value());
    record.timestamp = message.get_timestamp().map(|time| time.as_millis());
    let headers = message.get_headers();
    if headers.len() > 0 {
        let all = OwnedHeaders::new_with_capacity(headers.len());
        record.headers = Some(headers.fold(all, |all, (key, value)| all.insert(Header { key, value })));
    }
    record
}

#[diagnostic::do_not_recommend]
impl<T: Into<KafkaMessage> + 'static> SinkWriter<T> for KafkaWriter {
    /// What is written is in the transaction, or on its way; nothing is left to be committed here.
    type Committable = ();

    async fn write(&mut self, batch: Batch<T>) -> Result<(), BoxError> {
        if batch.values.is_empty() {
            return Ok(());
        }
        let producer = self.producer()?;
        self.refresh(&producer).await?;
        let mut bytes = 0;
        for value in batch.values {
            let message = value.into();
            bytes += message.bytes_of_user() as u64;
            match self.try_give(&producer, &message) {
                Given::Taken => {}
                other => self.give(&producer, message, other).await?,
            }
        }
        self.cx.traffic.add(bytes);
        Ok(())
    }

    async fn prepare(&mut self, _: Epoch) -> Result<Option<()>, BoxError> {
        let producer = match &self.line {
            Line::AtLeastOnce { producer, .. } => Some(producer.clone()),
            Line::ExactlyOnce { transaction, .. } => transaction.as_ref().and_then(|found| found.open_producer()),
        };
        let Some(producer) = producer else { return Ok(None) };
        aside(move |called_off| {
            producer.drain(|| !called_off.load(Relaxed))?;
            Ok(())
        })
        .await?;
        Ok(None)
    }

    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}
