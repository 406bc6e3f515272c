//! The newest record of a progress topic: where it is looked for, and what stands in it. Blocks.

use super::transaction::ABORTED;
use crate::kafka::client::{Client, Questions, connect, list, passes};
use crate::kafka::ffi;
use crate::kafka::outage::Outage;
use crate::sources::kafka::KafkaPartition;
use millstream_framework::{BoxError, Error, ErrorKind, Progress, clock};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message as _, Offset};
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many records are read from the end back first. One of them is nearly always what is looked for, since all of
/// them are the job's.
const SPAN: i64 = 1000;

/// How long a transaction at the end may stay open before what it holds is given as it is.
const UNDECIDED: Duration = Duration::from_secs(5);

/// The key of all records of a job. The domain is for jobs that decide parts of themselves apart; there is one now.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) job: String,
    pub(super) domain: u32,
}

impl Key {
    pub(super) fn of(job: &str) -> Self {
        Self { job: job.into(), domain: 0 }
    }
}

/// Which records are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    ReadCommitted,
    ReadUncommitted,
}

/// Reads a progress topic.
pub(super) struct Tail {
    pub(super) job: String,
    pub(super) topic: String,
    /// Of a consumer.
    pub(super) config: ClientConfig,
    pub(super) outage: Arc<Outage>,
    pub(super) kept: Kept,
}

/// What a tail keeps, for it may be asked again and again whether there is something new.
#[derive(Default)]
pub(super) struct Kept {
    /// Those that ask for bounds, one for each isolation: connecting takes longer than asking. Records are read by
    /// clients of their own: librdkafka does not bear assignments that change quickly.
    clients: [Mutex<Option<Arc<Client>>>; 2],
    /// The newest committed record, and the end it was found before.
    newest: Mutex<Option<(i64, Option<Progress>)>>,
}

impl Tail {
    pub(super) fn client(&self, isolation: Isolation) -> Result<Arc<Client>, BoxError> {
        let mut kept = self.kept.clients[isolation as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*kept {
            return Ok(client.clone());
        }
        let client = Arc::new(self.connect(isolation)?);
        *kept = Some(client.clone());
        Ok(client)
    }

    fn connect(&self, isolation: Isolation) -> Result<Client, BoxError> {
        let mut config = self.config.clone();
        config.set(
            "isolation.level",
            match isolation {
                Isolation::ReadCommitted => "read_committed",
                Isolation::ReadUncommitted => "read_uncommitted",
            },
        );
        // the leader knows the end, its followers learn of it later
        config.set("client.rack", "");
        connect(&config, self.outage.clone())
    }

    /// Where it begins or ends. The end is the high watermark, or, with committed records only, the last stable offset.
    /// Not librdkafka's watermarks: of those one may have failed, and then both are the other one.
    fn edge(&self, isolation: Isolation, at: Offset, called_off: &AtomicBool) -> Result<i64, BoxError> {
        let (client, partition) = (self.client(isolation)?, KafkaPartition::new(&self.topic, 0));
        let questions = Questions { client: &client, called_off };
        let found = questions.offsets(std::slice::from_ref(&partition), at)?.remove(&partition).flatten();
        let untold =
            || Error::new(ErrorKind::Failed, format!("Kafka does not tell where `{}` begins and ends", self.topic));
        Ok(found.ok_or_else(untold)?)
    }

    /// The newest record, also one whose transaction is still open. Fences nobody. A transaction that is open is waited
    /// for, for some seconds.
    pub(super) fn look(&self, called_off: &AtomicBool) -> Result<Option<Progress>, BoxError> {
        let until = clock::now() + UNDECIDED;
        loop {
            let stable = self.edge(Isolation::ReadCommitted, Offset::End, called_off)?;
            let high = self.edge(Isolation::ReadUncommitted, Offset::End, called_off)?;
            if stable >= high {
                return self.newest(stable, called_off);
            }
            if clock::now() >= until {
                tracing::warn!(topic = self.topic, stable, high, "{HANGS}");
                let undecided = self.span(Isolation::ReadUncommitted, (stable, high), called_off)?;
                return match undecided {
                    Some(undecided) => Ok(Some(undecided)),
                    None => self.newest(stable, called_off),
                };
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The newest committed record up to the high watermark. Only the one who has fenced all others may rely on it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if a transaction stays open until the deadline.
    pub(super) fn read(&self, until: Instant, called_off: &AtomicBool) -> Result<Option<Progress>, BoxError> {
        self.newest(self.settled(until, called_off)?, called_off)
    }

    /// The high watermark, when all up to there is decided.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub(super) fn settled(&self, until: Instant, called_off: &AtomicBool) -> Result<i64, BoxError> {
        let high = self.edge(Isolation::ReadUncommitted, Offset::End, called_off)?;
        loop {
            let stable = self.edge(Isolation::ReadCommitted, Offset::End, called_off)?;
            if stable >= high {
                return Ok(high);
            }
            if clock::now() >= until {
                let topic = &self.topic;
                let text = format!("`{topic}` ends at {high}, is decided up to {stable} only, and stays so: {HANGS}");
                return Err(Error::new(ErrorKind::Busy, text).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The newest committed record before `end`.
    fn newest(&self, end: i64, called_off: &AtomicBool) -> Result<Option<Progress>, BoxError> {
        let mut kept = self.kept.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, newest)) = kept.as_ref().filter(|(before, _)| *before == end) {
            return Ok(newest.clone());
        }
        let low = self.edge(Isolation::ReadCommitted, Offset::Beginning, called_off)?;
        let mut span = SPAN;
        loop {
            let start = end.saturating_sub(span).max(low);
            let found = self.span(Isolation::ReadCommitted, (start, end), called_off)?;
            if found.is_some() || start <= low {
                *kept = Some((end, found.clone()));
                return Ok(found);
            }
            span = span.saturating_mul(10);
        }
    }

    /// The newest record from `start` on and before `end`, which has to be there. Those that were never meant to be
    /// decided are none.
    fn span(
        &self,
        isolation: Isolation,
        range: (i64, i64),
        called_off: &AtomicBool,
    ) -> Result<Option<Progress>, BoxError> {
        let mut newest = None;
        self.scan(isolation, range, called_off, &mut |record| {
            if isolation == Isolation::ReadUncommitted && record.key() == Some(ABORTED) {
                return Ok(());
            }
            newest = Some(self.parse(record.offset(), record.key(), record.payload())?);
            Ok(())
        })?;
        Ok(newest)
    }

    /// Calls `each` with the records from `start` on and before `end`, which has to be there.
    pub(super) fn scan(
        &self,
        isolation: Isolation,
        (start, end): (i64, i64),
        called_off: &AtomicBool,
        each: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), Error>,
    ) -> Result<(), BoxError> {
        if start >= end {
            return Ok(());
        }
        let client = self.connect(isolation)?;
        let partition = KafkaPartition::new(&self.topic, 0);
        client.assign(&list([(&partition, Offset::Offset(start))].into_iter())?)?;
        let questions = Questions { client: &client, called_off };
        loop {
            questions.go_on()?;
            let next = match client.poll(Duration::from_millis(100)) {
                None => start,
                Some(Ok(message)) if message.offset() >= end => end,
                Some(Ok(message)) => {
                    each(&message)?;
                    message.offset() + 1
                }
                // aborted records and what ends transactions are passed over; a leader that has just become one may not
                // know yet how far the log goes
                Some(Err(KafkaError::PartitionEOF(_))) => match ffi::watermarks(&client, &self.topic, 0) {
                    Some((_, high)) if high >= end => end,
                    _ => start,
                },
                // the client has to have a group, and needs nothing of it
                Some(Err(error)) if error.rdkafka_error_code() == Some(Code::GroupAuthorizationFailed) => start,
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(passes) => {
                    self.outage.began(&error.to_string());
                    start
                }
                Some(Err(error)) => return Err(self.unreadable(&error).into()),
            };
            if next >= end {
                self.outage.ended();
                return Ok(());
            }
        }
    }

    fn unreadable(&self, error: &KafkaError) -> Error {
        let (kind, remedy) = match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed) => (ErrorKind::Usage, ": give this user the right to READ it"),
            _ => (ErrorKind::Failed, ""),
        };
        Error::new(kind, format!("cannot read `{}`: {error}{remedy}", self.topic))
    }

    fn parse(&self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Progress, Error> {
        parse(&self.job, key, value).map_err(|wrong| {
            let text = format!(
                "the record at offset {offset} of `{}` is no decision of the job `{}`: {wrong}. Nobody but the job may \
                write to that topic; find out who did, and whether decisions are missing, before you go on",
                self.topic, self.job
            );
            Error::refused(text)
        })
    }
}

const HANGS: &str = "a transaction stays open at its end; if that lasts longer than its time-out, Kafka's tool \
    `kafka-transactions.sh find-hanging` finds it";

/// A record of the job.
///
/// # Errors
/// What is wrong with it.
fn parse(job: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Progress, String> {
    let key: Key = serde_json::from_slice(key.ok_or("it has no key")?).map_err(|error| format!("its key: {error}"))?;
    if key != Key::of(job) {
        return Err(format!("its key is that of the job `{}`, domain {}", key.job, key.domain));
    }
    let value = value.ok_or("it is a tombstone")?;
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(value).map_err(|error| format!("its value: {error}"))?;
    if version != Progress::VERSION {
        let known = Progress::VERSION;
        return Err(format!("it is of version {version}, and this program knows version {known}"));
    }
    let progress: Progress = serde_json::from_slice(value).map_err(|error| format!("its value: {error}"))?;
    if progress.job != job {
        return Err(format!("its value is of the job `{}`", progress.job));
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{TIGHT, any_bytes, any_text, bounded, cases, damaged};
    use millstream_framework::{Attempt, Digest, Instance};
    use proptest::prelude::*;

    fn progress(job: &str) -> Progress {
        Progress {
            version: Progress::VERSION,
            job: job.into(),
            instance: Instance(uuid::Uuid::from_u128(1)),
            attempt: Attempt::draw(),
            epoch: 7,
            manifest: Digest("ab".into()),
            parent: None,
        }
    }

    fn wrong(key: Option<&str>, value: Option<&str>) -> String {
        parse("shop", key.map(str::as_bytes), value.map(str::as_bytes)).expect_err("this is no decision")
    }

    #[test]
    fn a_decision_is_read_as_it_was_written() {
        let (key, value) = (serde_json::to_string(&Key::of("shop")).unwrap(), progress("shop"));
        assert_eq!(key, r#"{"job":"shop","domain":0}"#);
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(parse("shop", Some(key.as_bytes()), Some(json.as_bytes())), Ok(value));
    }

    #[test]
    fn what_is_no_decision_of_the_job_is_said() {
        let (key, other) = (r#"{"job":"shop","domain":0}"#, r#"{"job":"bar","domain":0}"#);
        let json = serde_json::to_string(&progress("shop")).unwrap();
        assert!(wrong(None, Some(&json)).contains("no key"));
        assert!(wrong(Some("x"), Some(&json)).contains("its key"));
        assert!(wrong(Some(other), Some(&json)).contains("`bar`"));
        assert!(wrong(Some(key), None).contains("tombstone"));
        assert!(wrong(Some(key), Some("hello")).contains("its value"));
        assert!(wrong(Some(key), Some(r#"{"version":2,"what":"new"}"#)).contains("version 2"));
        let foreign = serde_json::to_string(&progress("bar")).unwrap();
        assert!(wrong(Some(key), Some(&foreign)).contains("of the job `bar`"));
    }

    fn any_progress() -> impl Strategy<Value = String> {
        let job = prop_oneof![4 => Just("shop"), 1 => Just("shops")];
        (job, any::<u64>(), any::<Option<String>>()).prop_map(|(job, epoch, parent)| {
            let progress = Progress { epoch, parent: parent.map(Digest), ..progress(job) };
            serde_json::to_string(&progress).unwrap()
        })
    }

    proptest! {
        #![proptest_config(cases(1000))]

        /// What is taken for a decision is one of this job, of this version, and can be written.
        #[test]
        fn any_record_is_taken(
            key in prop_oneof![
                Just(Some(br#"{"job":"shop","domain":0}"#.to_vec())),
                prop::option::of(any_bytes()),
                prop::option::of(damaged(Just(br#"{"job":"shop","domain":0}"#.to_vec()))),
            ],
            value in prop_oneof![
                prop::option::of(any_bytes()),
                prop::option::of(any_text().prop_map(String::into_bytes)),
                any_progress().prop_map(|progress| Some(progress.into_bytes())),
                prop::option::of(damaged(any_progress().prop_map(String::into_bytes))),
            ],
        ) {
            let input = key.iter().chain(&value).map(Vec::len).sum();
            if let Ok(found) = bounded(input, TIGHT, || parse("shop", key.as_deref(), value.as_deref()))? {
                prop_assert_eq!((found.job.as_str(), found.version), ("shop", Progress::VERSION));
                let again = serde_json::to_vec(&found).unwrap();
                prop_assert_eq!(parse("shop", key.as_deref(), Some(&again)), Ok(found));
            }
        }
    }
}
