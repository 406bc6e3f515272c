//! What all clones of a `Kafka` share: address, settings, and the transactions of the jobs that decide there. How a
//! decision is made is in `sinks/kafka/log.rs`.

use super::settings::Settings;
use crate::sinks::kafka::Transaction;
use millstream_framework::{Attempt, Error, ErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// A cluster, and what this process does in it.
pub(crate) struct Cluster {
    pub(crate) brokers: String,
    pub(crate) settings: Settings,
    /// How long a decision log waits for brokers that are away.
    pub(crate) patience: Duration,
    /// Whether the brokers are tried out once.
    pub(crate) self_test: bool,
    /// By job. Each belongs to its log, and is over when that is gone.
    transactions: Mutex<BTreeMap<String, Weak<Transaction>>>,
    /// What exactly-once sinks are known to write to: batches have to fit into all of them.
    topics: Mutex<BTreeSet<String>>,
}

impl Cluster {
    pub(super) fn new(brokers: String) -> Self {
        Self {
            brokers,
            settings: Settings::default(),
            patience: Duration::from_mins(5),
            self_test: true,
            transactions: Mutex::default(),
            topics: Mutex::default(),
        }
    }

    /// Another one with the same settings.
    pub(super) fn anew(&self) -> Self {
        let Self { brokers, settings, patience, self_test, .. } = self;
        Self { settings: settings.clone(), patience: *patience, self_test: *self_test, ..Self::new(brokers.clone()) }
    }

    fn transactions(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Transaction>>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on writers of this job and attempt write in this transaction.
    ///
    /// # Errors
    /// If that of an earlier attempt is not over.
    pub(crate) fn register(&self, transaction: &Arc<Transaction>) -> Result<(), Error> {
        let mut all = self.transactions();
        all.retain(|_, transaction| transaction.strong_count() > 0);
        let job = transaction.job();
        if all.get(job).and_then(Weak::upgrade).is_some_and(|earlier| !earlier.is_over()) {
            let text = format!("the decision log of the job `{job}` is open already in this process");
            return Err(Error::new(ErrorKind::Failed, text));
        }
        all.insert(job.to_owned(), Arc::downgrade(transaction));
        Ok(())
    }

    /// The transaction of a job.
    ///
    /// # Errors
    /// If this attempt has none.
    pub(crate) fn transaction(&self, job: &str, attempt: Attempt) -> Result<Arc<Transaction>, Error> {
        let found = self.transactions().get(job).and_then(Weak::upgrade);
        found.filter(|transaction| transaction.attempt() == attempt).ok_or_else(|| {
            let text = format!("there is no transaction of the job `{job}` to write in: its attempt is over");
            Error::new(ErrorKind::Failed, text)
        })
    }

    /// A sink is going to write there exactly once.
    pub(crate) fn writes_to(&self, topics: impl IntoIterator<Item = String>) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).extend(topics);
    }

    /// Where sinks are going to write exactly once.
    pub(crate) fn written_to(&self) -> Vec<String> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Without secrets.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("brokers", &self.brokers).field("settings", &self.settings).finish()
    }
}
