//! The decision log of a job in Kafka: a topic of one partition, and one transaction at a time that holds all output of
//! an epoch and, last, the record of the decision. The protocol is told in `framework/src/checkpoints/`; what is
//! Kafka's part of it:
//!
//! 1. `open` makes or checks the progress topic, and works out the transaction's time-out. It fences nobody.
//! 2. `look` reads the newest record, an undecided one included (`tail.rs`); for a job that has run before, this is
//!    done while the log is opened.
//! 3. `fence` makes a producer with the job's transactional id. `init_transactions` ends the right of all earlier ones
//!    to commit, and settles what they left open.
//! 4. `read`, only after that, ends what was left open all the same (`settle.rs`), and reads the newest committed
//!    record up to the high watermark.
//! 5. Writers begin the transaction with their first record (`transaction.rs`).
//! 6. `commit` writes the record, waits until all is written, and asks for the commit. Only an `Ok` of Kafka's is
//!    `Committed`. Being fenced is `Fenced`. All else is `Unknown`, whatever Kafka calls the error: a commit that fails
//!    may have been carried out.
//! 7. If a commit took so long that its request may have been sent more than once, a copy of it may still be under way,
//!    and would commit whatever is written next. So the producer is replaced before `commit` returns, which makes that
//!    copy one of a producer that was fenced. Then the newest record is read again: if it bears another instance, that
//!    one has taken the job over, and this one is superseded.
//! 8. After anything but `Committed` the log is over: nothing is written or committed any more.

use super::self_test;
use super::settle::settle;
use super::tail::{Kept, Key, Tail};
use super::topic;
use super::transaction::{Outcome, Record, Transaction};
use crate::kafka::Cluster;
use crate::kafka::admin::{Admin, Values};
use crate::kafka::client::{Client, Questions, aside, connect};
use crate::kafka::outage::Outage;
use crate::kafka::settings::{Purpose, Settings, configure, configure_producer};
use millstream_framework::{
    BoxError, Decided, Decider, DecisionLog, Error, ErrorKind, LogContext, LogId, Progress, clock,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer as _;
use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What the contract calls a `LocalBoxFuture`.
type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// How long a commit may take before its outcome counts as unknown.
const COMMIT: Duration = Duration::from_secs(15);

/// How long a call that was given up may take to return: longer than any of its steps.
const LEAVE: Duration = Duration::from_secs(10);

/// The shortest time-out of a transaction.
const TIMEOUT_MIN: Duration = Duration::from_mins(1);

/// The longest, where the broker does not tell its own: its default.
const TIMEOUT_MAX: Duration = Duration::from_mins(15);

impl Decider for Cluster {
    fn place(&self) -> String {
        format!("Kafka at {}", self.brokers)
    }

    fn check<'a>(&'a self) -> Later<'a, Result<String, Error>> {
        Box::pin(async { Ok(self_test::run(self).await?.to_string()) })
    }

    fn open<'a>(&'a self, cx: &'a LogContext, create: bool) -> Later<'a, Result<Option<Box<dyn DecisionLog>>, Error>> {
        Box::pin(async move {
            let opened = Opening::new(self, cx).map_err(|error| Error::from_user(error, self.place()))?;
            let (opened, patience) = (Arc::new(opened), self.patience);
            let (asked, tail) = (opened.clone(), Arc::new(opened.tail()));
            let found = async {
                let found = aside(move |called_off| asked.find(create, called_off)).await;
                found.map_err(|error| Some(Error::from_user(error, self.place())))?.ok_or(None)
            };
            // a job that has run before has a record, which can be looked for meanwhile
            let seen = tail.clone();
            let looked = async {
                if create {
                    return Ok(None);
                }
                Ok(aside(move |called_off| seen.look(called_off)).await.ok())
            };
            let both = tokio::time::timeout(patience, async { tokio::try_join!(found, looked) });
            let (found, looked) = match both.await.map_err(|_| self.is_away())? {
                Ok(both) => both,
                Err(no_log) => return no_log.map_or(Ok(None), Err),
            };
            transaction_timeout(cx, found.timeout_max)?;
            // a job that exists has done so when it was new
            if create && self.self_test {
                self_test::run_once(self).await?;
            }
            let log =
                opened.log(self, cx, (found, tail, looked)).map_err(|error| Error::from_user(error, self.place()))?;
            Ok(Some(Box::new(log) as Box<dyn DecisionLog>))
        })
    }
}

impl Cluster {
    /// Nobody has answered in time.
    pub(super) fn is_away(&self) -> Error {
        let text = format!(
            "Kafka at {} has not answered for {:?}: see that it runs and can be reached, and start again \
            (`Kafka::patience` says how long to wait)",
            self.brokers, self.patience
        );
        Error::new(ErrorKind::Busy, text)
    }
}

/// What it takes to open a log.
struct Opening {
    job: String,
    topic: String,
    address: String,
    /// What will be written to.
    written_to: Vec<String>,
    consuming: ClientConfig,
    producing: ClientConfig,
    outage: Arc<Outage>,
}

/// What the cluster has told.
struct Found {
    id: LogId,
    /// `transaction.max.timeout.ms` of the broker.
    timeout_max: Option<Duration>,
    batch_bytes_max: Vec<usize>,
}

impl Opening {
    fn new(cluster: &Cluster, cx: &LogContext) -> Result<Self, BoxError> {
        let topic = topic::name(&cx.job)?;
        let id = topic::transactional_id(&cx.job);
        let purpose = Purpose { client_id: &cx.job, group: Some(&id), ahead_bytes: 1 << 20 };
        let consuming = configure(cluster, &Settings::default(), &purpose)?;
        let producing = configure_producer(cluster, &Settings::default(), &cx.job)?;
        Ok(Self {
            job: cx.job.clone(),
            topic,
            address: cluster.brokers.clone(),
            written_to: cluster.written_to(),
            consuming,
            producing,
            outage: Arc::new(Outage::new(&cluster.brokers)),
        })
    }

    fn find(&self, create: bool, called_off: &AtomicBool) -> Result<Option<Found>, BoxError> {
        let client = connect(&self.consuming, self.outage.clone())?;
        let questions = Questions { client: &client, called_off };
        let admin = Admin::new(&self.producing, self.outage.clone())?;
        let broker = broker(&questions, &admin, &self.topic)?;
        if !topic::ensure(&questions, &admin, &self.topic, (&self.address, create))? {
            return Ok(None);
        }
        let mut batch_bytes_max = Vec::new();
        for topic in &self.written_to {
            let settings = admin.topic_settings(&questions, topic)?;
            batch_bytes_max
                .extend(settings.and_then(|settings| settings.get("max.message.bytes")?.parse::<usize>().ok()));
        }
        let timeout_max = broker.and_then(|broker| broker.get("transaction.max.timeout.ms")?.parse().ok());
        let id = self.id(&client, &questions)?;
        Ok(Some(Found { id, timeout_max: timeout_max.map(Duration::from_millis), batch_bytes_max }))
    }

    fn id(&self, client: &Client, questions: &Questions<'_>) -> Result<LogId, BoxError> {
        let system = client.client().fetch_cluster_id(Duration::from_secs(5)).filter(|id| !id.is_empty());
        let system = system.ok_or_else(|| {
            let text =
                "the cluster does not tell its id, so that another one could be taken for it: use Kafka 3.7 or newer";
            Error::refused(text)
        })?;
        let incarnation = questions.topic_ids(std::slice::from_ref(&self.topic))?.pop().flatten();
        Ok(LogId { system, name: self.topic.clone(), incarnation })
    }

    fn tail(&self) -> Tail {
        let (job, topic, config) = (self.job.clone(), self.topic.clone(), self.consuming.clone());
        Tail { job, topic, config, outage: self.outage.clone(), kept: Kept::default() }
    }

    fn log(
        &self,
        cluster: &Cluster,
        cx: &LogContext,
        (found, tail, looked): (Found, Arc<Tail>, Option<Option<Progress>>),
    ) -> Result<KafkaLog, BoxError> {
        let timeout = transaction_timeout(cx, found.timeout_max)?;
        let mut producing = self.producing.clone();
        let batch_bytes = super::destination::fit(&mut producing, found.batch_bytes_max.into_iter());
        let timeout_ms = timeout.as_millis().to_string();
        producing.set("transactional.id", topic::transactional_id(&cx.job));
        producing.set("transaction.timeout.ms", &timeout_ms);
        producing.set("message.timeout.ms", &timeout_ms);
        let transaction = Transaction::new((&cx.job, cx.attempt), producing, self.outage.clone(), batch_bytes);
        let transaction = Arc::new(transaction);
        cluster.register(&transaction)?;
        let (key, written_to) = (serde_json::to_vec(&Key::of(&cx.job))?, self.written_to.clone());
        let inner = Inner { key, tail, written_to, transaction };
        let looked = Cell::new(looked);
        Ok(KafkaLog { id: found.id, inner: Arc::new(inner), looked, patience: cluster.patience })
    }
}

/// The settings of a broker, if they may be asked for.
///
/// # Errors
/// A refusal if it is too old.
fn broker(questions: &Questions<'_>, admin: &Admin, topic: &str) -> Result<Option<Values>, BoxError> {
    let broker = questions.ask("list the brokers", |wait| {
        let metadata = questions.client.fetch_metadata(Some(topic), wait)?;
        Ok(metadata.brokers().iter().map(|broker| broker.id()).min())
    })?;
    let settings = broker.map(|broker| admin.broker_settings(questions, broker)).transpose()?.flatten();
    match &settings {
        None => tracing::warn!(
            "the settings of the brokers may not be read: whether they are of 3.7 or newer is not checked"
        ),
        Some(settings) => old(settings)?,
    }
    Ok(settings)
}

/// Brokers tell no version; the settings that came with one tell it.
///
/// # Errors
/// A refusal if they are too old, or if what they have is switched off.
fn old(settings: &Values) -> Result<(), Error> {
    // came with 3.6
    const VERIFIES: &str = "transaction.partition.verification.enable";
    const OF_3_7: &str = "telemetry.max.bytes";
    match settings.get(VERIFIES).map(String::as_str) {
        Some("true") if settings.contains_key(OF_3_7) => Ok(()),
        Some("true") | None => Err(Error::refused(
            "the brokers are too old to write exactly once: take Kafka 3.7 or newer, or `.at_least_once()` sinks",
        )),
        Some(other) => Err(Error::refused(format!(
            "the brokers are set to `{VERIFIES}` = `{other}`, with which a record that is late can end up in a \
            transaction that is over: set it to `true`"
        ))),
    }
}

/// How long a transaction may stay open before the broker aborts it: so long that the checkpoint that ends it has
/// begun, is taken and is decided before half of that has passed. So none has to be begun early for it.
///
/// # Errors
/// [`ErrorKind::Usage`] if a checkpoint could take too long for it.
fn transaction_timeout(cx: &LogContext, broker_max: Option<Duration>) -> Result<Duration, Error> {
    let epoch = cx.checkpoint_interval.saturating_add(cx.checkpoint_timeout);
    let timeout = epoch.saturating_mul(4).max(TIMEOUT_MIN).min(broker_max.unwrap_or(TIMEOUT_MAX));
    if epoch.saturating_add(COMMIT).saturating_mul(2) <= timeout {
        return Ok(timeout);
    }
    let text = format!(
        "`checkpoint_interval` (or `checkpoint_pause`, {:?}) and `checkpoint_timeout` ({:?}) are too long for Kafka's \
        transactions, which the brokers abort after at most {timeout:?}: with {COMMIT:?} for the commit they must not \
        be more than half of that. Make them shorter, or raise the brokers' `transaction.max.timeout.ms`",
        cx.checkpoint_interval, cx.checkpoint_timeout
    );
    Err(Error::new(ErrorKind::Usage, text))
}

/// The log of a job, in one attempt.
struct KafkaLog {
    id: LogId,
    inner: Arc<Inner>,
    /// What the first look finds, if that was done already.
    looked: Cell<Option<Option<Progress>>>,
    patience: Duration,
}

/// What the threads need that ask.
struct Inner {
    tail: Arc<Tail>,
    /// What will be written to, as far as that is known before records come.
    written_to: Vec<String>,
    key: Vec<u8>,
    transaction: Arc<Transaction>,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog").field("id", &self.id).field("transaction", &self.inner.transaction).finish()
    }
}

impl KafkaLog {
    /// Runs what blocks. Brokers that are away are waited for, up to the deadline.
    async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Inner, Instant, &AtomicBool) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, Error> {
        let (inner, until) = (self.inner.clone(), clock::now() + self.patience);
        let topic = &self.inner.tail.topic;
        // what it does by itself at the deadline says more
        let most = self.patience + Duration::from_secs(10);
        let done = aside(move |called_off| call(&inner, until, called_off));
        match tokio::time::timeout(most, done).await {
            Ok(done) => done.map_err(|error| Error::from_user(error, format!("decision log `{topic}`"))),
            Err(_) => {
                let text = format!("Kafka has not answered for {:?}; start the job again later", self.patience);
                Err(Error::new(ErrorKind::Busy, text).at(format!("decision log `{topic}`")))
            }
        }
    }
}

impl DecisionLog for KafkaLog {
    fn id(&self) -> LogId {
        self.id.clone()
    }

    fn look<'a>(&'a self) -> Later<'a, Result<Option<Progress>, Error>> {
        Box::pin(async {
            match self.looked.take() {
                Some(looked) => Ok(looked),
                None => self.ask(|inner, _, called_off| inner.tail.look(called_off)).await,
            }
        })
    }

    fn fence<'a>(&'a self) -> Later<'a, Result<(), Error>> {
        Box::pin(
            self.ask(|inner, until, called_off| Ok(inner.transaction.fence(until, &|| !called_off.load(Relaxed))?)),
        )
    }

    fn read<'a>(&'a self) -> Later<'a, Result<Option<Progress>, Error>> {
        Box::pin(self.ask(|inner, until, called_off| inner.read(until, called_off)))
    }

    fn commit<'a>(&'a self, progress: &'a Progress) -> Later<'a, Decided> {
        let progress = progress.clone();
        Box::pin(async move {
            let decided = self.ask(move |inner, _, called_off| Ok(inner.commit(&progress, called_off)));
            decided.await.unwrap_or_else(Decided::Unknown)
        })
    }
}

impl Inner {
    /// Before anybody writes.
    fn read(&self, until: Instant, called_off: &AtomicBool) -> Result<Option<Progress>, BoxError> {
        settle((&self.tail, &self.transaction), &self.written_to, until, called_off)?;
        self.tail.read(until, called_off)
    }

    fn commit(&self, progress: &Progress, called_off: &AtomicBool) -> Decided {
        let value = match serde_json::to_vec(progress) {
            Ok(value) => value,
            Err(error) => {
                return Decided::Unknown(Error::new(ErrorKind::Failed, "a decision cannot be written").because(error));
            }
        };
        let record = Record { topic: &self.tail.topic, partition: 0, key: &self.key, value: &value };
        let goes_on = || !called_off.load(Relaxed);
        match self.transaction.commit(&record, clock::now() + COMMIT, &goes_on) {
            Outcome::Committed { renew: false } => Decided::Committed,
            Outcome::Committed { renew: true } => self.renew(progress, called_off),
            Outcome::Fenced => Decided::Fenced,
            Outcome::Unknown(error) => Decided::Unknown(error),
        }
    }

    /// Replaces the producer, so that an answer that is late finds nothing to commit; and sees whose the job is.
    fn renew(&self, progress: &Progress, called_off: &AtomicBool) -> Decided {
        tracing::info!(job = progress.job, epoch = progress.epoch, "Kafka was slow to commit: taking a new producer");
        let until = clock::now() + COMMIT;
        // nothing is open any more: that was the commit
        let renewed = self.transaction.fence(until, &|| !called_off.load(Relaxed));
        let newest = renewed.map_err(Into::into).and_then(|()| self.tail.read(until, called_off));
        let decided = match newest {
            Ok(Some(newest)) if newest == *progress => return Decided::Committed,
            Ok(Some(newest)) if newest.instance != progress.instance => Decided::Superseded,
            Ok(_) => {
                let text = "Kafka has committed, and the newest decision is another one of this process";
                Decided::Unknown(Error::new(ErrorKind::Failed, text))
            }
            Err(error) => Decided::Unknown(Error::from_user(error, "after a commit that was slow")),
        };
        self.transaction.close();
        decided
    }
}

/// The attempt is over: so is the right to write. What still runs for a call that was given up is waited for, since it
/// must not meet the next attempt.
impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.inner.transaction.close();
        let until = clock::now() + LEAVE;
        while Arc::strong_count(&self.inner) > 1 {
            if clock::now() >= until {
                tracing::warn!(log = %self.id, "a call to Kafka does not return, though its attempt is over");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_framework::Attempt;

    fn timeout(interval_s: u64, timeout_s: u64, broker_s: Option<u64>) -> Result<Duration, Error> {
        let cx = LogContext {
            job: "job".into(),
            attempt: Attempt::draw(),
            checkpoint_interval: Duration::from_secs(interval_s),
            checkpoint_timeout: Duration::from_secs(timeout_s),
        };
        transaction_timeout(&cx, broker_s.map(Duration::from_secs))
    }

    #[test]
    fn a_transaction_outlasts_a_slow_checkpoint() {
        assert_eq!(timeout(1, 5, None).unwrap(), Duration::from_mins(1));
        assert_eq!(timeout(1, 60, None).unwrap(), Duration::from_secs(244));
        assert_eq!(timeout(60, 300, None).unwrap(), Duration::from_mins(15));
        assert_eq!(timeout(600, 600, Some(7200)).unwrap(), Duration::from_secs(4800));
        for error in [timeout(600, 60, None), timeout(1, 60, Some(60)), timeout(10, 10, Some(40))] {
            let error = error.unwrap_err();
            let said = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(said.contains("`checkpoint_interval`") && said.contains("`transaction.max.timeout.ms`"), "{said}");
        }
    }

    #[test]
    fn brokers_that_are_too_old_are_refused() {
        let with = |value: &str| {
            let set = [("transaction.partition.verification.enable", value), ("telemetry.max.bytes", "1048576")];
            set.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        };
        assert!(old(&with("true")).is_ok());
        assert!(old(&with("false")).unwrap_err().to_string().contains("set it to `true`"));
        let mut of_3_6: Values = with("true");
        of_3_6.remove("telemetry.max.bytes");
        assert!(old(&of_3_6).unwrap_err().to_string().contains("3.7 or newer"));
        assert!(old(&Values::new()).unwrap_err().to_string().contains("3.7 or newer"));
    }
}
