//! Brokers that do not answer: said once and then now and again, shown as the trouble of the source, and over when one
//! answers. Nothing fails because of it.

use millstream_framework::{Trouble, clock};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a lasting outage is told of.
const EVERY: Duration = Duration::from_secs(30);

/// What is known of the cluster's health. One per client.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    brokers: String,
    since: Option<Instant>,
    told: Option<Instant>,
    /// Of the readers that wait.
    troubles: Vec<Trouble>,
}

impl Outage {
    pub(crate) fn new(brokers: &str) -> Self {
        Self(Mutex::new(Inner { brokers: brokers.into(), ..Inner::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the cluster is.
    pub(crate) fn brokers(&self) -> String {
        self.lock().brokers.clone()
    }

    /// This one is to be shown, too.
    pub(crate) fn show_in(&self, trouble: Trouble) {
        self.lock().troubles.push(trouble);
    }

    pub(crate) fn is_there(&self) -> bool {
        self.lock().since.is_some()
    }

    /// The cluster does not answer, or not as it should.
    pub(crate) fn began(&self, reason: &str) {
        let mut inner = self.lock();
        let now = clock::now();
        let since = *inner.since.get_or_insert(now);
        if inner.told.is_some_and(|told| now.saturating_duration_since(told) < EVERY) {
            return;
        }
        inner.told = Some(now);
        let (brokers, seconds) = (&inner.brokers, now.saturating_duration_since(since).as_secs());
        tracing::warn!(brokers, reason, seconds, "Kafka does not answer, waiting for it");
        let text = format!("waiting for Kafka at {brokers}: {reason}");
        inner.troubles.iter().for_each(|trouble| trouble.set(Some(text.clone())));
    }

    /// Somebody waits: if the cluster did not answer before, it does not now.
    pub(crate) fn lasts(&self) {
        if self.is_there() {
            self.began("it does not answer yet");
        }
    }

    /// It answers.
    pub(crate) fn ended(&self) {
        let mut inner = self.lock();
        if let Some(since) = inner.since.take() {
            inner.told = None;
            let (brokers, seconds) = (&inner.brokers, clock::now().saturating_duration_since(since).as_secs());
            tracing::info!(brokers, seconds, "Kafka answers again");
            inner.troubles.iter().for_each(|trouble| trouble.set(None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trouble_lasts_as_long_as_the_outage() {
        let (outage, trouble) = (Outage::new("b:1"), Trouble::default());
        outage.show_in(trouble.clone());
        assert!(!outage.is_there() && trouble.text().is_none());
        outage.began("connection refused");
        outage.began("connection refused");
        assert!(outage.is_there());
        assert_eq!(trouble.text().unwrap(), "waiting for Kafka at b:1: connection refused");
        outage.ended();
        assert!(!outage.is_there() && trouble.text().is_none());
    }
}
