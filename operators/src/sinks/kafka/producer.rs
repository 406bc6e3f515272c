//! A producer: librdkafka's, the thread that serves its events, and the first thing that went wrong with it.

use super::rejected;
use crate::kafka::client::Events;
use crate::kafka::ffi;
use crate::kafka::outage::Outage;
use crate::kafka::settings::not_taken;
use millstream_framework::{BoxError, Error, ErrorKind, spawn};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long one wait for the producer's queue to empty takes.
const FLUSH_SLICE: Duration = Duration::from_millis(20);

/// How long a question may take.
const LEARN: Duration = Duration::from_secs(10);

/// How long the thread waits for events; so long the end of a producer may take.
const POLL: Duration = Duration::from_millis(50);

/// What a client says that does not go.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// Another producer has its right to write.
    pub(crate) is_fenced: bool,
}

impl Failure {
    pub(crate) fn error(&self) -> Error {
        Error::new(ErrorKind::Failed, self.text.clone())
    }
}

/// Whether another producer has taken over, or a coordinator has put an end to the transaction, which cannot be told
/// apart here.
pub(crate) fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// What librdkafka tells while it is polled.
pub(crate) struct Deliveries {
    events: Events,
    failure: OnceLock<Failure>,
    /// How often a connection broke.
    breaks: AtomicU64,
    told: Mutex<Told>,
}

/// What only the log tells of a transaction that has failed: what is on its way is given up without a reason.
#[derive(Default)]
struct Told {
    transaction: String,
    /// That could not become part of it.
    partition: String,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match facility {
            "ADDPARTS" => self.told(|told| told.partition = text.into()),
            "TXNERR" => self.told(|told| told.transaction = text.into()),
            _ => {}
        }
        self.events.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(code) if is_fenced(code) => self.failed(reason.to_owned(), true),
            Some(Code::Fatal) => self.failed(reason.to_owned(), false),
            _ => _ = self.breaks.fetch_add(1, Relaxed),
        }
        self.events.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.events.stats_raw(statistics);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    /// Only of records that could not be written.
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((error, message)) = result else { return };
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if matches!(code, Code::PurgeQueue | Code::PurgeInflight) {
            return self.given_up();
        }
        if code == Code::MessageSizeTooLarge {
            let place = (&*self.events.outage.brokers(), message.topic());
            rejected::remember(place, message.key(), message.payload());
        }
        let size = message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len);
        let (topic, partition) = (message.topic(), message.partition());
        let text = format!(
            "a record of {size} bytes for the topic `{topic}`, partition {partition}, was not written: {error}{}",
            remedy(code, topic)
        );
        self.failed(text, is_fenced(code));
    }
}

impl Deliveries {
    fn told(&self, of: impl FnOnce(&mut Told)) {
        of(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is on its way was given up. That of the record which was at fault, if it is one, has come before.
    #[cold]
    fn given_up(&self) {
        self.told(|Told { transaction, partition }| {
            let is_fenced = ["FENCED", "INVALID_PRODUCER_EPOCH"].iter().any(|code| transaction.contains(code));
            let remedy = match transaction.contains("TOPIC_AUTHORIZATION_FAILED") {
                true => "; give this user the right to WRITE to that topic",
                false => "",
            };
            let [transaction, partition] =
                [transaction, partition].map(|text| text.trim_start_matches("[thrd:main]: "));
            let text = format!("records were given up, since their transaction has failed: {transaction} {partition}");
            self.failed(text.trim_end().to_owned() + remedy, is_fenced);
        });
    }

    #[cold]
    fn failed(&self, text: String, is_fenced: bool) {
        let _ = self.failure.set(Failure { text, is_fenced });
    }
}

/// What to do, where that is known.
fn remedy(code: Code, topic: &str) -> String {
    match code {
        Code::MessageSizeTooLarge => format!(
            ": its batch is larger than the `max.message.bytes` of `{topic}`: raise that, or set `batch.size` to no \
            more than it"
        ),
        Code::TopicAuthorizationFailed => format!(": give this user the right to WRITE to `{topic}`"),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            format!(": `{topic}` is not there any more, or never was")
        }
        Code::InvalidTimestamp => ": its time is further away than the topic's `message.timestamp.before.max.ms` and \
            `message.timestamp.after.max.ms` allow"
            .into(),
        Code::InvalidRecord => ": a topic that is compacted takes no records without a key".into(),
        Code::InvalidProducerEpoch | Code::ProducerFenced | Code::Fenced => {
            ": another instance of the job has taken over, or the transaction took longer than its time-out".into()
        }
        _ => String::new(),
    }
}

/// A producer and its thread. Dropped, it forgets what was not sent; that takes up to a second.
pub(crate) struct Producer {
    base: Arc<BaseProducer<Deliveries>>,
    thread: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("on_its_way", &self.on_its_way()).finish_non_exhaustive()
    }
}

impl Producer {
    /// Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for settings that librdkafka does not take.
    pub(crate) fn new(config: &ClientConfig, outage: Arc<Outage>) -> Result<Self, BoxError> {
        let (events, failure) = (Events { outage }, OnceLock::new());
        let context = Deliveries { events, failure, breaks: AtomicU64::new(0), told: Mutex::default() };
        let base = BaseProducer::from_config_and_context(config, context).map_err(|error| not_taken(&error))?;
        let (base, closing) = (Arc::new(base), Arc::new(AtomicBool::new(false)));
        let (polled, closes) = (base.clone(), closing.clone());
        let thread = spawn::thread("kafka-producer", move || {
            while !closes.load(Relaxed) {
                polled.poll(POLL);
            }
        })?;
        Ok(Self { base, thread: Some(thread), closing })
    }

    #[inline]
    pub(crate) fn base(&self) -> &BaseProducer<Deliveries> {
        &self.base
    }

    /// The first thing that went wrong. Nothing that is written after that will do.
    #[inline]
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.base.context().failure.get()
    }

    /// Whether another producer is known to have its right to write.
    pub(crate) fn is_fenced(&self) -> bool {
        self.failure().is_some_and(|failure| failure.is_fenced)
            || self.base.client().fatal_error().is_some_and(|(code, _)| is_fenced(code))
    }

    /// # Errors
    /// If something went wrong.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.failure().map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Whoever still writes is to stop.
    pub(crate) fn stop(&self) {
        self.base.context().failed("the attempt is over".into(), false);
    }

    /// How often a connection broke so far.
    pub(crate) fn breaks(&self) -> u64 {
        self.base.context().breaks.load(Relaxed)
    }

    pub(crate) fn outage(&self) -> &Outage {
        &self.base.context().events.outage
    }

    /// How many records are not written yet.
    pub(crate) fn on_its_way(&self) -> usize {
        usize::try_from(self.base.in_flight_count()).unwrap_or(0)
    }

    /// Asks how many partitions a topic has, which it would find out by itself within a minute. Blocks.
    pub(crate) fn learn(&self, topic: &str) {
        if let Err(error) = self.base.client().fetch_metadata(Some(topic), LEARN) {
            tracing::debug!(topic, %error, "the producer cannot look at a topic");
        }
    }

    /// Waits until all is written, something has failed, or `goes_on` says no. Blocks. Whether all is written.
    ///
    /// # Errors
    /// If something has failed.
    pub(crate) fn drain(&self, goes_on: impl Fn() -> bool) -> Result<bool, Error> {
        loop {
            let is_empty = ffi::flush(self.base.client(), FLUSH_SLICE);
            self.check()?;
            if is_empty {
                self.outage().ended();
                return Ok(true);
            }
            if !goes_on() {
                return Ok(false);
            }
            self.outage().lasts();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.closing.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
