//! The transaction of a job: one producer, one transaction at a time, shared by all exactly-once sinks of a `Kafka`
//! value. Writers begin it and write in it; the log commits it (`log.rs`).
//!
//! There is no abort of what was written and no going on after a failure: what failed is over, and the next attempt
//! begins with a producer of its own, whose `init_transactions` settles what this one left. Before anything is written,
//! a transaction that is there only to be aborted ends what brokers forgot (`settle.rs`).

use super::producer::{Producer, is_fenced};
use crate::kafka::client::code_of;
use crate::kafka::outage::Outage;
use crate::sources::kafka::KafkaPartition;
use millstream_framework::{Attempt, Error, ErrorKind, clock, failpoint};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long one call of the client may take before it is made again.
const SLICE: Duration = Duration::from_secs(1);

/// How long `init_transactions` may take before it is called again: it waits for a transaction that ends.
const INIT_SLICE: Duration = Duration::from_secs(5);

/// How long an abort may take when the log is dropped. It helps who reads and the next attempt, and is not needed.
const ABORT: Duration = Duration::from_secs(2);

/// How long the producer may be in use elsewhere after its last record.
const RELEASE: Duration = Duration::from_secs(5);

/// Commits that take longer are followed by a new producer: a copy of the request that comes late could end the next
/// transaction. There is a copy only if the client has sent the request again, which it does not do before it has
/// waited for [`BACKOFF_MS`], less a fifth. What it tells of broken connections is no sign: not all of them are told.
const LATE: Duration = Duration::from_millis(500);

/// How long the client waits before it sends a request again, in milliseconds: its `retry.backoff.ms`.
const BACKOFF_MS: u64 = 700;

const _: () = assert!(BACKOFF_MS * 4 / 5 > LATE.as_millis() as u64);

/// The key of records that are written to be aborted. There is one at all for topics that are compacted.
pub(super) const ABORTED: &[u8] = b"aborted";

/// See the head of this file.
pub(crate) struct Transaction {
    job: String,
    attempt: Attempt,
    config: ClientConfig,
    outage: Arc<Outage>,
    /// How large a batch gets.
    pub(super) batch_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    producer: Option<Arc<Producer>>,
    /// The log is gone, and nothing that it has begun may be of use any more.
    is_closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is no producer yet.
    Unfenced,
    /// Nothing was written since the last commit.
    Idle,
    Open,
    /// A commit was asked for.
    Committing,
    /// Nothing more will be written.
    Over,
}

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Outcome {
    Committed {
        /// A new producer is needed before anything else is written.
        renew: bool,
    },
    Fenced,
    Unknown(Error),
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("job", &self.job).field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Transaction {
    pub(super) fn new(
        (job, attempt): (&str, Attempt),
        mut config: ClientConfig,
        outage: Arc<Outage>,
        batch_bytes: usize,
    ) -> Self {
        config
            .set("retry.backoff.ms", BACKOFF_MS.to_string())
            .set("retry.backoff.max.ms", (2 * BACKOFF_MS).to_string());
        let inner = Mutex::new(Inner { phase: Phase::Unfenced, producer: None, is_closed: false });
        Self { job: job.into(), attempt, config, outage, batch_bytes, inner }
    }

    pub(crate) fn job(&self) -> &str {
        &self.job
    }

    pub(crate) fn attempt(&self) -> Attempt {
        self.attempt
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().phase == Phase::Over
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The producer, to write with; begins the transaction if this is the first output of an epoch. Asks nobody, so it
    /// does not block.
    ///
    /// # Errors
    /// If something has failed before, or if this is not the time to write.
    pub(super) fn enter(&self) -> Result<Arc<Producer>, Error> {
        let mut inner = self.lock();
        let Inner { phase, producer, .. } = &mut *inner;
        let (Phase::Idle | Phase::Open, Some(producer)) = (*phase, producer) else {
            let text = match phase {
                Phase::Over => "the transaction of this attempt has failed or is over",
                Phase::Committing => "a record came while its transaction was committed",
                _ => "a record came before the decision log had its producer",
            };
            return Err(failed(text));
        };
        producer.check()?;
        if *phase == Phase::Idle {
            producer
                .base()
                .begin_transaction()
                .map_err(|error| failed(&format!("cannot begin a transaction: {error}")))?;
            *phase = Phase::Open;
        }
        Ok(producer.clone())
    }

    /// The producer, if something was written in this epoch.
    pub(super) fn open_producer(&self) -> Option<Arc<Producer>> {
        let inner = self.lock();
        inner.producer.clone().filter(|_| inner.phase == Phase::Open)
    }

    /// Nothing more is written. Gives the producer up; true if its transaction may still be open, and nobody has asked
    /// for its commit.
    fn end(&self) -> (Option<Arc<Producer>>, bool) {
        let mut inner = self.lock();
        let was_open = inner.phase == Phase::Open;
        inner.phase = Phase::Over;
        (inner.producer.take(), was_open)
    }

    /// What ended it, for an error.
    fn give_up(&self) {
        drop(self.end());
    }

    /// A new producer, which ends the right of all others to commit. Blocks until the cluster is there.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] at the deadline, [`ErrorKind::Usage`] if the cluster does not allow it.
    pub(super) fn fence(&self, until: Instant, goes_on: &dyn Fn() -> bool) -> Result<(), Error> {
        self.release()?;
        let since = clock::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let producer =
                Producer::new(&self.config, self.outage.clone()).map_err(|e| Error::from_user(e, "Kafka"))?;
            if self.init(&producer, until, goes_on)? {
                let init_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                tracing::debug!(job = self.job, init_us, "Kafka gave the right to commit");
                let mut inner = self.lock();
                if inner.is_closed {
                    return Err(failed("the attempt is over"));
                }
                (inner.phase, inner.producer) = (Phase::Idle, Some(Arc::new(producer)));
                return Ok(());
            }
            // somebody else did the same at the same time; one of us will be the later one
            drop(producer);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// The producer of before is gone when this returns.
    fn release(&self) -> Result<(), Error> {
        let Some(mut producer) = self.end().0 else { return Ok(()) };
        let until = clock::now() + RELEASE;
        while let Err(shared) = Arc::try_unwrap(producer) {
            if clock::now() >= until {
                return Err(failed("a sink still writes with the producer of the transaction before"));
            }
            producer = shared;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether the producer has the right to write now; if not, another one was faster.
    fn init(&self, producer: &Producer, until: Instant, goes_on: &dyn Fn() -> bool) -> Result<bool, Error> {
        loop {
            let Err(error) = producer.base().init_transactions(INIT_SLICE) else {
                self.outage.ended();
                return Ok(true);
            };
            let code = code_of(&error);
            if is_fenced(code) || producer.is_fenced() {
                return self.in_time(until, goes_on, &error).map(|()| false);
            }
            let id = self.config.get("transactional.id").unwrap_or_default();
            let usage = |text: String| Err(Error::new(ErrorKind::Usage, text));
            match code {
                Code::TransactionalIdAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                    return usage(format!(
                        "Kafka does not allow the transactional id `{id}`: give this user the rights to WRITE and \
                        DESCRIBE it ({error})"
                    ));
                }
                Code::InvalidTransactionTimeout => {
                    return usage(format!("Kafka does not take the transaction's time-out: {error}"));
                }
                code if is_retriable(&error) || crate::kafka::client::passes(code) => {
                    self.outage.began(&error.to_string());
                    self.in_time(until, goes_on, &error)?;
                    std::thread::sleep(Duration::from_millis(100));
                }
                _ => return Err(failed(&format!("cannot get the transactional id `{id}`: {error}"))),
            }
        }
    }

    fn in_time(&self, until: Instant, goes_on: &dyn Fn() -> bool, error: &KafkaError) -> Result<(), Error> {
        if !goes_on() {
            return Err(failed("called off"));
        }
        if clock::now() < until {
            return Ok(());
        }
        let text = format!("Kafka has not let the job `{}` commit in time: {error}; start it again later", self.job);
        Err(Error::new(ErrorKind::Busy, text))
    }

    /// Commits all that was written, and the record. Blocks, at most until the deadline and a little longer.
    pub(super) fn commit(&self, record: &Record<'_>, until: Instant, goes_on: &dyn Fn() -> bool) -> Outcome {
        let producer = match self.enter() {
            Ok(producer) => producer,
            Err(error) => return self.failed_with(error),
        };
        self.lock().phase = Phase::Committing;
        let breaks = producer.breaks();
        let asked = match self.send(&producer, std::slice::from_ref(record), until, goes_on) {
            Ok(()) => clock::now(),
            Err(error) => return self.failed_with(error),
        };
        failpoint("checkpoint-recorded");
        let mut again = false;
        loop {
            let Err(error) = producer.base().commit_transaction(SLICE) else { break };
            if is_fenced(code_of(&error)) || producer.is_fenced() {
                self.give_up();
                return Outcome::Fenced;
            }
            if !is_retriable(&error) || clock::now() >= until || !goes_on() {
                self.give_up();
                return Outcome::Unknown(failed(&format!("whether Kafka has committed is not known: {error}")));
            }
            again = true;
            std::thread::sleep(Duration::from_millis(20));
        }
        let renew = again || clock::now().saturating_duration_since(asked) > LATE || producer.breaks() != breaks;
        drop(producer);
        let mut inner = self.lock();
        if inner.phase == Phase::Committing {
            inner.phase = Phase::Idle;
        }
        Outcome::Committed { renew }
    }

    /// Nothing was asked of the coordinator yet, so nothing is committed; but recovery finds that out.
    fn failed_with(&self, error: Error) -> Outcome {
        let was_fenced = self.lock().producer.as_ref().is_some_and(|producer| producer.is_fenced());
        self.give_up();
        if was_fenced { Outcome::Fenced } else { Outcome::Unknown(error) }
    }

    /// Ends what this transactional id has open in these partitions, though nobody may know of it any more: the mark
    /// that aborts what is written now aborts that, too.
    ///
    /// # Errors
    /// If it is not known to have been done.
    pub(super) fn abort_in(
        &self,
        partitions: &[KafkaPartition],
        until: Instant,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let producer = self.enter()?;
        let records = partitions.iter().map(|KafkaPartition { topic, partition }| Record {
            topic,
            partition: *partition,
            key: ABORTED,
            value: b"",
        });
        if let Err(error) = self.send(&producer, &records.collect::<Vec<_>>(), until, goes_on) {
            self.give_up();
            return Err(error);
        }
        while let Err(error) = producer.base().abort_transaction(SLICE) {
            if !is_retriable(&error) || clock::now() >= until || !goes_on() {
                self.give_up();
                return Err(failed(&format!("cannot abort what was left open: {error}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut inner = self.lock();
        // or it was closed meanwhile
        if inner.phase == Phase::Open {
            inner.phase = Phase::Idle;
        }
        Ok(())
    }

    /// Has the records written. Blocks.
    fn send(
        &self,
        producer: &Producer,
        records: &[Record<'_>],
        until: Instant,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let goes_on = || clock::now() < until && goes_on();
        for Record { topic, partition, key, value } in records {
            while let Err((error, _)) =
                producer.base().send(BaseRecord::<[u8], [u8]>::to(topic).partition(*partition).key(key).payload(value))
            {
                if code_of(&error) != Code::QueueFull || !goes_on() {
                    return Err(failed(&format!("cannot write to `{topic}`: {error}")));
                }
                producer.check()?;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        match producer.drain(goes_on)? {
            true => Ok(()),
            false => {
                let records = producer.on_its_way();
                Err(failed(&format!(
                    "{records} records could not be written to Kafka in time, so nothing is committed"
                )))
            }
        }
    }

    /// The end of the attempt. What is open is aborted if that is quick, or else by whoever comes next.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        let (Some(mut producer), was_open) = self.end() else { return };
        let is_ours = was_open && !producer.is_fenced();
        // sinks that wait for room do not wait any longer
        producer.stop();
        if is_ours && let Err(error) = producer.base().abort_transaction(ABORT) {
            tracing::debug!(job = self.job, %error, "an open transaction is left to the next attempt");
        }
        let until = clock::now() + RELEASE;
        while let Err(shared) = Arc::try_unwrap(producer) {
            if clock::now() >= until {
                // it goes with who uses it, who cannot commit
                tracing::warn!(job = self.job, "a sink still writes, though its attempt is over");
                return;
            }
            producer = shared;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What the log writes itself.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        KafkaError::Flush(_) => true,
        _ => false,
    }
}

fn failed(text: &str) -> Error {
    Error::new(ErrorKind::Failed, text)
}
