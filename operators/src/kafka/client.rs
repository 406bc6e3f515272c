//! The client and what it is asked when a job starts: topics, ids, offsets. All of it blocks, and waits for brokers
//! that are away, so it runs on threads for that (`aside`).

use super::ffi;
use super::outage::Outage;
use super::settings::not_taken;
use crate::sources::kafka::KafkaPartition;
use millstream_framework::{BoxError, Error, ErrorKind};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How long one call may take before it is made again: as long as nobody waits for the thread to end.
const SLICE: Duration = Duration::from_secs(1);

/// The pause between two calls.
const PAUSE: Duration = Duration::from_millis(100);

/// librdkafka's client.
pub(crate) type Client = BaseConsumer<Events>;

/// What librdkafka tells while it is polled.
pub(crate) struct Events {
    pub(crate) outage: Arc<Outage>,
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        use RDKafkaLogLevel as Level;
        match level {
            Level::Emerg | Level::Alert | Level::Critical | Level::Error | Level::Warning | Level::Notice => {
                // what they tell of is either waited out, and then told by `Outage`, or an error of a call
                tracing::info!(target: "librdkafka", facility, "{text}");
            }
            Level::Info | Level::Debug => tracing::debug!(target: "librdkafka", facility, "{text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown | Code::Authentication | Code::SSL | Code::Resolve) => self.outage.began(reason),
            // whoever asked for it knows
            Some(Code::PartitionEOF) => {}
            _ => tracing::info!(target: "librdkafka", %error, "{reason}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        tracing::debug!(target: "librdkafka", statistics = %String::from_utf8_lossy(statistics));
    }
}

impl ConsumerContext for Events {}

/// Makes a client. Nothing is asked yet.
///
/// # Errors
/// [`ErrorKind::Usage`] for settings that librdkafka does not take.
pub(crate) fn connect(config: &ClientConfig, outage: Arc<Outage>) -> Result<Client, BoxError> {
    Client::from_config_and_context(config, Events { outage }).map_err(|e| not_taken(&e))
}

/// Whether an error goes away by itself: then the call is made again.
pub(crate) fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::Authentication
            | Code::SSL
            | Code::WaitingForCoordinator
            | Code::InProgress
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::RequestTimedOut
            | Code::BrokerNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::UnknownTopicOrPartition
    )
}

/// The code of an error, also of what admin clients are asked.
pub(crate) fn code_of(error: &KafkaError) -> Code {
    match error {
        KafkaError::AdminOp(code) => *code,
        error => error.rdkafka_error_code().unwrap_or(Code::Unknown),
    }
}

/// A conversation with the cluster that ends when it is called off.
pub(crate) struct Questions<'a> {
    pub(crate) client: &'a Client,
    pub(crate) called_off: &'a AtomicBool,
}

/// How long it takes.
type Wait = Duration;

/// What will not become better by itself.
fn refused(what: &str, error: &KafkaError) -> Error {
    let (kind, remedy) = match code_of(error) {
        Code::TopicAuthorizationFailed => {
            (ErrorKind::Usage, ": give this user the rights to DESCRIBE it, to READ it or to WRITE to it, as is needed")
        }
        Code::ClusterAuthorizationFailed => (ErrorKind::Usage, ": give this user the right to DESCRIBE the cluster"),
        Code::GroupAuthorizationFailed => (ErrorKind::Usage, ": give this user the right to READ the group"),
        _ => (ErrorKind::Failed, ""),
    };
    Error::new(kind, format!("cannot {what}: {error}{remedy}"))
}

impl Questions<'_> {
    fn outage(&self) -> &Outage {
        &self.client.context().outage
    }

    /// # Errors
    /// If nobody waits for the answer any more.
    pub(crate) fn go_on(&self) -> Result<(), BoxError> {
        match self.called_off.load(Relaxed) {
            true => Err(Error::new(ErrorKind::Failed, "called off").into()),
            false => Ok(()),
        }
    }

    /// Asks until there is an answer. `what` is for the error.
    pub(crate) fn ask<T>(&self, what: &str, call: impl Fn(Wait) -> KafkaResult<T>) -> Result<T, BoxError> {
        loop {
            match call(SLICE) {
                Ok(answer) => {
                    self.outage().ended();
                    return Ok(answer);
                }
                Err(error) if passes(code_of(&error)) => {
                    self.outage().began(&error.to_string());
                }
                Err(error) => return Err(refused(what, &error).into()),
            }
            self.go_on()?;
            // lets it say what it has to
            let _ = self.client.poll(Duration::ZERO);
            std::thread::sleep(PAUSE);
        }
    }

    /// How many partitions each topic has: of these, or of all. Topics that are not there are left out.
    pub(crate) fn topics(&self, names: Option<&[String]>) -> Result<BTreeMap<String, i32>, BoxError> {
        let mut all = BTreeMap::new();
        let each: Vec<Option<&str>> =
            names.map_or(vec![None], |names| names.iter().map(|name| Some(name.as_str())).collect());
        for name in each {
            let what = name.map_or("list the topics".to_owned(), |name| format!("look at the topic `{name}`"));
            let found = self.ask(&what, |wait| {
                let metadata = self.client.fetch_metadata(name, wait)?;
                let mut found = Vec::new();
                for topic in metadata.topics() {
                    match topic.error().map(Code::from) {
                        None => found.push((topic.name().to_owned(), topic.partitions().len() as i32)),
                        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {}
                        // one of many that may not be looked at is as if it were not there
                        Some(Code::TopicAuthorizationFailed) if name.is_none() => {}
                        Some(code) => return Err(KafkaError::MetadataFetch(code)),
                    }
                }
                Ok(found)
            })?;
            all.extend(found);
        }
        Ok(all)
    }

    /// The id of the cluster, if it has one.
    pub(crate) fn cluster(&self) -> Option<String> {
        self.client.client().fetch_cluster_id(SLICE)
    }

    /// The ids of these topics, as far as the cluster tells them.
    pub(crate) fn topic_ids(&self, topics: &[String]) -> Result<Vec<Option<String>>, BoxError> {
        /// What old brokers give.
        const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";
        let ids = self.ask("ask for the ids of topics", |wait| match ffi::topic_ids(self.client, topics, wait) {
            Ok(ids) => Ok(ids),
            Err(code) => match Code::from(code) {
                Code::UnsupportedFeature | Code::UnsupportedVersion => Ok(vec![None; topics.len()]),
                code => Err(KafkaError::AdminOp(code)),
            },
        })?;
        Ok(ids.into_iter().map(|id| id.filter(|id| id != NONE)).collect())
    }

    /// Of each partition the offset that `at` stands for: an end of the log, or the first record at a time (in
    /// milliseconds since 1970). None if there is no such record.
    pub(crate) fn offsets(
        &self,
        partitions: &[KafkaPartition],
        at: Offset,
    ) -> Result<BTreeMap<KafkaPartition, Option<i64>>, BoxError> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let wanted = list(partitions.iter().map(|partition| (partition, at)))?;
        self.ask("ask for offsets", |wait| {
            let found = self.client.offsets_for_times(wanted.clone(), wait)?;
            offsets_of(&found)
        })
    }

    /// Where the group of this client is.
    pub(crate) fn committed(
        &self,
        partitions: &[KafkaPartition],
    ) -> Result<BTreeMap<KafkaPartition, Option<i64>>, BoxError> {
        let wanted = list(partitions.iter().map(|partition| (partition, Offset::Invalid)))?;
        self.ask("ask for the offsets of the consumer group", |wait| {
            offsets_of(&self.client.committed_offsets(wanted.clone(), wait)?)
        })
    }
}

/// Partitions with offsets, for librdkafka.
pub(crate) fn list<'a>(
    partitions: impl Iterator<Item = (&'a KafkaPartition, Offset)>,
) -> Result<TopicPartitionList, BoxError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, offset)?;
    }
    Ok(list)
}

fn offsets_of(list: &TopicPartitionList) -> KafkaResult<BTreeMap<KafkaPartition, Option<i64>>> {
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        offsets.insert(KafkaPartition::new(element.topic(), element.partition()), offset);
    }
    Ok(offsets)
}

/// Runs what blocks on a thread for that. Dropped before it is done, it is called off, and waited for.
///
/// # Errors
/// Those of `work`; if it panics, that.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    /// Says that nobody waits any more.
    struct CallOff(Arc<AtomicBool>);
    impl Drop for CallOff {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let called_off = CallOff(Arc::default());
    let flag = called_off.0.clone();
    let done = tokio::task::spawn_blocking(move || work(&flag)).await;
    done.unwrap_or_else(|error| Err(Error::new(ErrorKind::Failed, format!("the Kafka client failed: {error}")).into()))
}
