//! Tries brokers out: whether they keep what exactly once rests on. It takes a topic of its own, deleted afterwards,
//! and a transactional id that nobody else has. Topics of tests that were killed are deleted by the next one that comes
//! some time later: a name says when its topic was made.
//!
//! 1. A topic is made as those are where decisions stand, and has the settings that it was to have.
//! 2. A record of a transaction that is aborted, and one of a transaction that is committed.
//! 3. A record of a transaction that is open when another producer takes the id over; its commit must fail.
//! 4. A record that the other producer commits.
//! 5. Readers of committed records must see the second and the last, and nothing else.

use super::producer::{Producer, is_fenced};
use super::tail::{Isolation, Kept, Tail};
use super::topic;
use crate::kafka::Cluster;
use crate::kafka::admin::Admin;
use crate::kafka::client::{Questions, aside, code_of, connect, passes};
use crate::kafka::outage::Outage;
use crate::kafka::settings::{Purpose, Settings, configure, configure_producer};
use millstream_framework::{BoxError, Error, ErrorKind, clock};
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseRecord, Producer as _};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// The beginning of the names of topics for tests.
const TOPIC: &str = "__millstream_test_";

/// Topics that are older than that are left over.
const LEFT_OVER: Duration = Duration::from_hours(1);

/// How long one call may take.
const SLICE: Duration = Duration::from_secs(1);

/// How long it may take until all can be read.
const SETTLES: Duration = Duration::from_secs(30);

/// What [`Kafka::check`](crate::Kafka::check) has found: brokers that keep their word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    /// Where they are, as in `Kafka::new`.
    pub brokers: String,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, took } = self;
        write!(
            f,
            "Kafka at {brokers}: aborted records are not read, a producer that was replaced cannot commit, and topics \
            for decisions have the right settings ({took:.1?})"
        )
    }
}

/// Tries them out, waiting for those that are away.
pub(crate) async fn run(cluster: &Cluster) -> Result<SelfTest, Error> {
    let began = clock::now();
    let outside = |error| Error::from_user(error, format!("self-test of Kafka at {}", cluster.brokers));
    let test = Test::new(cluster).map_err(outside)?;
    let done = aside(move |called_off| test.run(called_off));
    let done = tokio::time::timeout(cluster.patience, done).await.map_err(|_| cluster.is_away())?;
    done.map_err(outside)?;
    Ok(SelfTest { brokers: cluster.brokers.clone(), took: clock::now().saturating_duration_since(began) })
}

/// The same, but for brokers that this process has tried out already.
pub(super) async fn run_once(cluster: &Cluster) -> Result<(), Error> {
    static TESTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let tested = || TESTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !tested().contains(&cluster.brokers) {
        tracing::info!("{}", run(cluster).await?);
        tested().insert(cluster.brokers.clone());
    }
    Ok(())
}

struct Test {
    address: String,
    tail: Tail,
    producing: ClientConfig,
    outage: Arc<Outage>,
}

impl Test {
    fn new(cluster: &Cluster) -> Result<Self, BoxError> {
        let id = uuid::Uuid::new_v4();
        let (topic, transactional) = (format!("{TOPIC}{}-{id}", now_s()), format!("millstream-test-{id}"));
        let purpose = Purpose { client_id: "millstream-test", group: Some(&transactional), ahead_bytes: 1 << 20 };
        let config = configure(cluster, &Settings::default(), &purpose)?;
        let mut producing = configure_producer(cluster, &Settings::default(), "millstream-test")?;
        producing.set("transactional.id", &transactional);
        // so short only because nothing is left open: shorter than any broker's maximum
        producing.set("transaction.timeout.ms", "60000").set("message.timeout.ms", "60000").set("linger.ms", "0");
        let outage = Arc::new(Outage::new(&cluster.brokers));
        let tail = Tail { job: "test".into(), topic, config, outage: outage.clone(), kept: Kept::default() };
        Ok(Self { address: cluster.brokers.clone(), tail, producing, outage })
    }

    fn run(&self, called_off: &AtomicBool) -> Result<(), BoxError> {
        let client = connect(&self.tail.config, self.outage.clone())?;
        let questions = Questions { client: &client, called_off };
        let admin = Admin::new(&self.admin(), self.outage.clone())?;
        let ready = topic::ensure(&questions, &admin, &self.tail.topic, (&self.address, true));
        let tried = ready.map_err(hint).and_then(|_| self.try_out(called_off));
        if let Err(code) = admin.delete(&questions, &[&self.tail.topic])? {
            tracing::warn!(topic = self.tail.topic, ?code, "the topic of the self-test could not be deleted");
        }
        if let Err(error) = Self::clear(&questions, &admin) {
            tracing::debug!(%error, "topics of earlier self-tests could not be deleted");
        }
        tried
    }

    /// Deletes what tests have left that were killed; whoever may not do that leaves it.
    fn clear(questions: &Questions<'_>, admin: &Admin) -> Result<(), BoxError> {
        let all = questions.topics(None)?;
        let left: Vec<_> = all.keys().map(String::as_str).filter(|topic| is_left_over(topic, now_s())).collect();
        if left.is_empty() {
            return Ok(());
        }
        tracing::info!(topics = ?left, "deleting what self-tests have left that were killed");
        admin.delete(questions, &left)?.map_err(|code| KafkaError::AdminOp(code).into())
    }

    fn admin(&self) -> ClientConfig {
        let mut config = self.producing.clone();
        config.remove("transactional.id").remove("transaction.timeout.ms");
        config
    }

    fn try_out(&self, called_off: &AtomicBool) -> Result<(), BoxError> {
        let first = self.producer(called_off)?;
        self.write(&first, "aborted", called_off)?;
        self.until_done("abort a transaction", called_off, || first.base().abort_transaction(SLICE))?;
        self.write(&first, "committed", called_off)?;
        self.until_done("commit a transaction", called_off, || first.base().commit_transaction(SLICE))?;
        self.write(&first, "fenced", called_off)?;
        let second = self.producer(called_off)?;
        match first.base().commit_transaction(SLICE * 10) {
            Ok(()) => {
                let text = "a producer could commit after another one had taken its transactional id over: two \
                    instances of a job could write at once. These brokers cannot be written to exactly once";
                return Err(Error::refused(text).into());
            }
            Err(error) if is_fenced(code_of(&error)) || first.is_fenced() => {}
            Err(error) => {
                let text = format!("the commit of a producer that was replaced has failed with another error: {error}");
                return Err(Error::new(ErrorKind::Failed, text).into());
            }
        }
        self.write(&second, "last", called_off)?;
        self.until_done("commit a transaction", called_off, || second.base().commit_transaction(SLICE))?;
        self.read(called_off)
    }

    /// One that has the right to write.
    fn producer(&self, called_off: &AtomicBool) -> Result<Producer, BoxError> {
        let producer = Producer::new(&self.producing, self.outage.clone())?;
        self.until_done("use transactions", called_off, || producer.base().init_transactions(SLICE * 5))?;
        Ok(producer)
    }

    fn write(&self, producer: &Producer, text: &str, called_off: &AtomicBool) -> Result<(), BoxError> {
        producer.base().begin_transaction()?;
        let record = BaseRecord::to(&self.tail.topic).partition(0).key("test").payload(text);
        producer.base().send(record).map_err(|(error, _)| error)?;
        match producer.drain(|| !called_off.load(Relaxed))? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Failed, "called off").into()),
        }
    }

    fn until_done(
        &self,
        what: &str,
        called_off: &AtomicBool,
        call: impl Fn() -> KafkaResult<()>,
    ) -> Result<(), BoxError> {
        loop {
            let Err(error) = call() else { return Ok(()) };
            let is_retriable = matches!(&error, rdkafka::error::KafkaError::Transaction(error) if error.is_retriable());
            if !is_retriable && !passes(code_of(&error)) || called_off.load(Relaxed) {
                return Err(Error::new(ErrorKind::Failed, format!("cannot {what}: {error}")).into());
            }
            self.outage.began(&error.to_string());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn read(&self, called_off: &AtomicBool) -> Result<(), BoxError> {
        let high = self.tail.settled(clock::now() + SETTLES, called_off)?;
        let mut seen = Vec::new();
        self.tail.scan(Isolation::ReadCommitted, (0, high), called_off, &mut |record| {
            seen.push(String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned());
            Ok(())
        })?;
        if seen == ["committed", "last"] {
            return Ok(());
        }
        let text = format!(
            "of records that were aborted, committed, fenced and committed, readers of committed records see {seen:?}. \
            These brokers cannot be written to exactly once"
        );
        Err(Error::refused(text).into())
    }
}

/// Seconds since 1970.
fn now_s() -> u64 {
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether a topic is one of a test, and none that may be under way.
fn is_left_over(topic: &str, now_s: u64) -> bool {
    let made_s = topic.strip_prefix(TOPIC).and_then(|rest| rest.split('-').next()?.parse::<u64>().ok());
    made_s.is_some_and(|made_s| now_s.saturating_sub(made_s) > LEFT_OVER.as_secs())
}

/// Who may not make topics for tests can do without.
fn hint(error: BoxError) -> BoxError {
    let error =
        Error::from_user(error, "it needs topics that begin with `__millstream_test_`, or `Kafka::self_test(false)`");
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_tests_are_left_over_after_a_while() {
        assert!(is_left_over("__millstream_test_1000-ab", 4601));
        assert!(!is_left_over("__millstream_test_1000-ab", 4600));
        // a clock that is ahead
        assert!(!is_left_over("__millstream_test_9000-ab", 4600));
        assert!(!is_left_over("__millstream_test_mine", 4600) && !is_left_over("orders-1000-ab", 4600));
    }
}
