//! Topics of Kafka as a source: one split per partition.
//!
//! | file | what |
//! |---|---|
//! | `topics.rs` | which topics and partitions |
//! | `find.rs` | those questions in order, and what the answers mean for each partition |
//! | `start.rs` | where a partition begins and ends: decisions |
//! | `reset.rs` | where one goes on by the order of a person: decisions |
//! | `offset.rs` | what a checkpoint keeps of a partition |
//! | `pump.rs` | the thread that fetches, commits and measures; one lane per subtask |
//! | `reader.rs` | the reader of a subtask: takes batches out of its lane and decodes |
//! | `record.rs`, `format.rs` | a record in place, and what is made of it |
//! | `bare.rs` | what the benchmarks hold it against |
//! | `group.rs`, `retention.rs` | what the consumer group is told, when records expire |
//!
//! Clients, their settings, and brokers that are away are in `kafka/`, for sinks have them, too.
//!
//! A job does not join its consumer group: it owns its partitions, by explicit assignment, and uses the group only to
//! show offsets. Where to go on from is in its checkpoints and nowhere else.

mod bare;
mod find;
mod format;
mod group;
mod offset;
mod pump;
mod reader;
mod record;
mod reset;
mod retention;
mod start;
pub(crate) mod topics;

#[doc(hidden)]
pub use bare::Bare;
pub use format::{KafkaBincode, KafkaBytes, KafkaDecode, KafkaJson, KafkaText, KafkaTry, With};
pub(crate) use offset::hash;
pub use offset::{KafkaOffset, LastRecord};
pub use reader::KafkaReader;
pub use record::KafkaRecord;
pub use start::OutOfRange;
pub use topics::{KafkaPartition, Topics};

use crate::kafka::Kafka;
use crate::kafka::client::{Questions, aside, connect};
use crate::kafka::outage::Outage;
use crate::kafka::settings::{Purpose, Settings, Value, configure};
use crate::sources::rate::Rate;
use millstream_framework::{Attempt, BoxError, ResetPlace, ResetTo, Secret, Skipped, Source, SourceContext, Timestamp};
use pump::{Lookout, Pump};
use rdkafka::consumer::Consumer;
use reader::Partitions;
use serde::de::DeserializeOwned;
use start::{Facts, Start, Stop};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Topics to be read; a format makes it a source. Made by [`Kafka::read`](crate::Kafka::read).
///
/// # Where it begins and ends
///
/// A job that has no checkpoint begins with the oldest records, or as one of the `from_` methods says. A job that has
/// one goes on where it was, and begins partitions that are new with their oldest records. The source ends never, or as
/// one of the `until_` methods says, so that one pipeline runs bounded and unbounded. Topics and partitions are listed
/// when the job starts, and each time it is started again or recovers; a source without an end finds new ones while it
/// runs, too ([`discover_every`](Self::discover_every)). Those are read by subtasks that read some already, and dealt
/// out evenly at the next start.
///
/// Only committed records are read; those of aborted transactions are passed over.
///
/// # Running again
///
/// A checkpoint keeps for each partition the next offset, the ids of cluster and topic, and offset, time and hash of
/// the last record. What could lose or double records is refused, with exit code 78: a partition that is missing,
/// another cluster, a topic that was deleted and made again, a log that was cut off, another record in place of the
/// last one. What retention threw away before it was read is refused unless
/// [`when_out_of_range`](Self::when_out_of_range) says otherwise. The refusal names the command `offsets reset` that
/// makes the job go on with what is there.
///
/// # The consumer group
///
/// Once a checkpoint is decided its offsets are committed to a consumer group, `<job>.<source>` if
/// [`group`](Self::group) gives no other name, so that Kafka's tools show how far the job is. Nothing is ever read from
/// it. Do not let other consumers join that group: their commits would be taken for those of the job.
///
/// # Brokers that are away
///
/// They are waited for, however long it takes, at the start too. Meanwhile a warning is logged every 30 seconds, and
/// the trouble shows in the job's status.
///
/// # Records that cannot be decoded
///
/// As of files: they end the attempt, are left out ([`KafkaSource::skip_undecodable`]), or are a value
/// ([`Undecodable`](crate::Undecodable)) in the `try_` formats.
#[derive(Debug, Clone)]
#[must_use = "a format makes it a source, as in `kafka.read(topic).text()`"]
pub struct ReadKafka {
    kafka: Kafka,
    topics: Topics,
    start: Start,
    stop: Stop,
    out_of_range: OutOfRange,
    group: Option<String>,
    commits: bool,
    discover_every: Duration,
    settings: Settings,
}

impl ReadKafka {
    pub(crate) fn new(kafka: Kafka, topics: Topics) -> Self {
        Self {
            kafka,
            topics,
            start: Start::default(),
            stop: Stop::default(),
            out_of_range: OutOfRange::default(),
            group: None,
            commits: true,
            discover_every: Duration::from_mins(1),
            settings: Settings::default(),
        }
    }

    /// Without a checkpoint, begins with the oldest record of each partition. This is the default.
    pub fn from_earliest(mut self) -> Self {
        self.start = Start::Earliest;
        self
    }

    /// Without a checkpoint, begins with what comes after the job has started. The first checkpoint, which is taken
    /// before any record flows, keeps where that was.
    pub fn from_latest(mut self) -> Self {
        self.start = Start::Latest;
        self
    }

    /// Without a checkpoint, begins in each partition with the first record of this time or a later one, or at its end
    /// if there is none.
    pub fn from_timestamp(mut self, time: impl Into<Timestamp>) -> Self {
        self.start = Start::At(time.into());
        self
    }

    /// Without a checkpoint, begins where this consumer group is, as when a job takes over from another program; with
    /// the oldest record where the group has no offset.
    pub fn from_group(mut self, group: impl Into<String>) -> Self {
        self.start = Start::Group(group.into());
        self
    }

    /// Without a checkpoint, begins with these offsets, of which there has to be one for each partition.
    pub fn from_offsets(mut self, offsets: impl IntoIterator<Item = (KafkaPartition, i64)>) -> Self {
        self.start = Start::Offsets(offsets.into_iter().collect());
        self
    }

    /// Ends where the partitions end when the job starts: at the last stable offset, before transactions that are open
    /// then.
    pub fn until_end(mut self) -> Self {
        self.stop = Stop::End;
        self
    }

    /// Ends in each partition before the first record of this time or a later one, or where the partition ends when the
    /// job starts if there is none. The time has to be past.
    pub fn until_timestamp(mut self, time: impl Into<Timestamp>) -> Self {
        self.stop = Stop::At(time.into());
        self
    }

    /// Ends before these offsets, of which there has to be one for each partition. Waits for them if they are not there
    /// yet.
    pub fn until_offsets(mut self, offsets: impl IntoIterator<Item = (KafkaPartition, i64)>) -> Self {
        self.stop = Stop::Offsets(offsets.into_iter().collect());
        self
    }

    /// What to do about a partition that does not have the offset to go on from; without this, the job is refused.
    pub fn when_out_of_range(mut self, policy: OutOfRange) -> Self {
        self.out_of_range = policy;
        self
    }

    /// The consumer group that offsets are committed to.
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Whether offsets are committed to the consumer group.
    pub fn commit_offsets(mut self, commits: bool) -> Self {
        self.commits = commits;
        self
    }

    /// How often the source looks whether its partitions are still there and, if it has no end, for partitions and
    /// topics that are new; every minute if nothing is said.
    pub fn discover_every(mut self, interval: Duration) -> Self {
        self.discover_every = interval;
        self
    }

    /// Sets something of librdkafka for this source, in addition to what [`Kafka::set`](crate::Kafka::set) says.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.set(name, Value::Plain(value.into()));
        self
    }

    /// Sets something of librdkafka that nobody is to see.
    pub fn secret(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.settings.set(name, Value::Secret(value));
        self
    }

    /// The value of each record as a `String`; has to be UTF-8. Costs one allocation per record.
    pub fn text(self) -> KafkaSource<KafkaText> {
        self.format(KafkaText)
    }

    /// The same; a record without a value, or whose value is not UTF-8, is an `Err`.
    pub fn try_text(self) -> KafkaSource<KafkaTry<KafkaText>> {
        self.try_format(KafkaText)
    }

    /// The value of each record as its bytes. Costs one allocation per record.
    pub fn bytes(self) -> KafkaSource<KafkaBytes> {
        self.format(KafkaBytes)
    }

    /// The same; a record without a value is an `Err`.
    pub fn try_bytes(self) -> KafkaSource<KafkaTry<KafkaBytes>> {
        self.try_format(KafkaBytes)
    }

    /// The value of each record is JSON of type `T`; a record without a value is `null`, so that with an `Option`
    /// tombstones are `None`.
    pub fn json<T: DeserializeOwned + Send + 'static>(self) -> KafkaSource<KafkaJson<T>> {
        self.format(KafkaJson::new())
    }

    /// The same; a value that is no `T` is an `Err`.
    pub fn try_json<T: DeserializeOwned + Send + 'static>(self) -> KafkaSource<KafkaTry<KafkaJson<T>>> {
        self.try_format(KafkaJson::new())
    }

    /// The value of each record is a `T` in bincode 2, in its standard configuration.
    pub fn bincode<T: DeserializeOwned + Send + 'static>(self) -> KafkaSource<KafkaBincode<T>> {
        self.format(KafkaBincode::new())
    }

    /// The same; a value that is no `T` is an `Err`.
    pub fn try_bincode<T: DeserializeOwned + Send + 'static>(self) -> KafkaSource<KafkaTry<KafkaBincode<T>>> {
        self.try_format(KafkaBincode::new())
    }

    /// Each record is what `decode` makes of it, which sees key, value, headers, time and place:
    ///
    /// ```
    /// # use millstream_operators::Kafka;
    /// let kafka = Kafka::new("localhost:9092");
    /// let orders = kafka.read("orders").decode(|record| Ok((record.key_text()?.to_owned(),
    /// record.text()?.to_owned())));
    /// ```
    pub fn decode<T, F>(self, decode: F) -> KafkaSource<With<F>>
    where
        T: Send + 'static,
        F: Fn(&KafkaRecord<'_>) -> Result<T, BoxError> + Clone + Send + Sync + 'static,
    {
        self.format(With(decode))
    }

    /// The same; a record of which it makes nothing is an `Err`.
    pub fn try_decode<T, F>(self, decode: F) -> KafkaSource<KafkaTry<With<F>>>
    where
        T: Send + 'static,
        F: Fn(&KafkaRecord<'_>) -> Result<T, BoxError> + Clone + Send + Sync + 'static,
    {
        self.try_format(With(decode))
    }

    /// Each record is what `format` makes of it.
    pub fn format<F: KafkaDecode>(self, format: F) -> KafkaSource<F> {
        KafkaSource { read: self, format, rate: Rate::default(), skips: false, attempt: Mutex::default() }
    }

    /// The same; a record of which it makes nothing is an `Err`.
    pub fn try_format<F: KafkaDecode>(self, format: F) -> KafkaSource<KafkaTry<F>> {
        self.format(KafkaTry(format))
    }
}

/// A source of the records of topics. Made by the formats of [`ReadKafka`].
#[derive(Debug)]
pub struct KafkaSource<F> {
    read: ReadKafka,
    format: F,
    rate: Rate,
    /// Whether records that cannot be decoded are left out.
    skips: bool,
    attempt: Mutex<OfAttempt>,
}

/// What the readers of an attempt share.
#[derive(Default)]
struct OfAttempt {
    /// What was found when its splits were listed.
    facts: Arc<BTreeMap<KafkaPartition, Facts>>,
    /// Goes with the last reader.
    pump: Option<(Attempt, Weak<Pump>)>,
}

impl std::fmt::Debug for OfAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.facts.keys()).finish()
    }
}

/// Each is a source of its own.
impl<F: Clone> Clone for KafkaSource<F> {
    fn clone(&self) -> Self {
        let Self { read, format, rate, skips, .. } = self;
        let (read, format, rate) = (read.clone(), format.clone(), rate.clone());
        Self { read, format, rate, skips: *skips, attempt: Mutex::default() }
    }
}

impl<F> KafkaSource<F> {
    /// At most so many records per second in the whole job, handed out about every 10 ms; `None` for no limit. The
    /// subtasks that still have something to read share it evenly.
    #[must_use]
    pub fn rate(mut self, records_per_second: impl Into<Option<u64>>) -> Self {
        self.rate.set(records_per_second.into());
        self
    }

    /// Leaves records out that cannot be decoded, instead of failing. They are counted in the metric
    /// `millstream_skipped_records_total` under the name of the source, and warned of at most once a minute.
    #[must_use]
    pub fn skip_undecodable(mut self) -> Self {
        self.skips = true;
        self
    }
}

impl ReadKafka {
    /// Asks the cluster what there is, and what it means for each partition.
    async fn find(&self, known: &[KafkaPartition]) -> Result<BTreeMap<KafkaPartition, Facts>, BoxError> {
        let (read, known) = (self.clone(), known.to_vec());
        self.ask(move |questions| find::find(questions, &read.topics, (&read.start, &read.stop), &known)).await
    }

    /// Asks the cluster something.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Questions<'_>) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, BoxError> {
        let group = match &self.start {
            Start::Group(group) => Some(group.as_str()),
            _ => None,
        };
        let purpose = Purpose { client_id: "millstream", group, ahead_bytes: 0 };
        let config = configure(self.kafka.cluster(), &self.settings, &purpose)?;
        let client = connect(&config, Arc::new(Outage::new(&self.kafka.cluster().brokers)))?;
        aside(move |called_off| ask(&Questions { client: &client, called_off })).await
    }

    /// Where these partitions are to be read from by the order of a person.
    async fn reset(
        &self,
        splits: &[(KafkaPartition, KafkaOffset)],
        to: ResetTo,
    ) -> Result<Vec<ResetPlace<KafkaOffset>>, BoxError> {
        let splits = splits.to_vec();
        self.ask(move |questions| find::places(questions, &splits, to)).await
    }

    /// The client that reads, and its thread.
    fn pump(&self, cx: &SourceContext, facts: &BTreeMap<KafkaPartition, Facts>) -> Result<Pump, BoxError> {
        let group = self.group.clone().unwrap_or_else(|| format!("{}.{}", cx.job, cx.source));
        let purpose = Purpose { client_id: &cx.job, group: Some(&group), ahead_bytes: cx.ahead_bytes };
        let config = configure(self.kafka.cluster(), &self.settings, &purpose)?;
        let client = connect(&config, Arc::new(Outage::new(&self.kafka.cluster().brokers)))?;
        let every = self.discover_every.max(Duration::from_millis(10));
        // where it ends was said of what there was at the start
        let takes_new = self.stop == Stop::Never;
        let lookout = Lookout { topics: self.topics.clone(), every, takes_new, known: facts.keys().cloned().collect() };
        Pump::start(&cx.job, &cx.source, config, client, lookout, self.commits)
    }
}

#[diagnostic::do_not_recommend]
impl<F: KafkaDecode> Source for KafkaSource<F> {
    type Reader = KafkaReader<F>;

    /// Waits for brokers that are away.
    async fn splits(&self, known: &[KafkaPartition]) -> Result<Vec<KafkaPartition>, BoxError> {
        self.rate.check()?;
        let facts = self.read.find(known).await?;
        let partitions = facts.keys().cloned().collect();
        *self.attempt.lock().unwrap_or_else(PoisonError::into_inner) = OfAttempt { facts: Arc::new(facts), pump: None };
        Ok(partitions)
    }

    /// A number is an offset. Waits for brokers that are away.
    async fn reset(
        &self,
        splits: &[(KafkaPartition, KafkaOffset)],
        to: ResetTo,
    ) -> Result<Vec<ResetPlace<KafkaOffset>>, BoxError> {
        self.read.reset(splits, to).await
    }

    async fn open(&self, cx: &SourceContext) -> Result<KafkaReader<F>, BoxError> {
        let (pump, facts) = {
            let mut attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
            let pump = attempt.pump.as_ref().filter(|(of, _)| *of == cx.attempt).and_then(|(_, pump)| pump.upgrade());
            let pump = match pump {
                Some(pump) => pump,
                None => Arc::new(self.read.pump(cx, &attempt.facts)?),
            };
            attempt.pump = Some((cx.attempt, Arc::downgrade(&pump)));
            (pump, attempt.facts.clone())
        };
        pump.client().context().outage.show_in(cx.trouble.clone());
        let lane = pump.lane()?;
        let partitions = Partitions::new(facts, self.read.out_of_range, pump, lane, cx.traffic.clone());
        let skipped = self.skips.then(|| Skipped::of(&*cx.job, &*cx.source));
        Ok(KafkaReader::new(self.format.clone(), skipped, self.rate.pacer(), partitions))
    }

    fn reads_ahead(&self) -> bool {
        true
    }
}
