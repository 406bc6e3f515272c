//! How far a split is behind, as a metric.

use std::sync::OnceLock;
use std::time::Duration;

/// What a source knows of how far one of its splits is behind, published when it is set: in the metrics
/// `millstream_source_lag_records` and `millstream_source_expiry_seconds`, with the labels `job`, `operator` and
/// `split`. Setting one costs a call of the recorder: about once per second is enough.
#[derive(Clone)]
pub struct Lag {
    labels: Vec<metrics::Label>,
    /// None before it is known: a gauge is 0 from the start.
    lag: OnceLock<metrics::Gauge>,
}

impl Lag {
    /// Of a split of the source of this name in this job.
    #[must_use]
    pub fn of(job: impl Into<String>, source: impl Into<String>, split: &dyn std::fmt::Display) -> Self {
        let texts = [("job", job.into()), ("operator", source.into()), ("split", split.to_string())];
        let labels = texts.into_iter().map(|(name, text)| metrics::Label::new(name, text)).collect();
        Self { labels, lag: OnceLock::new() }
    }

    /// So many records, or what a split has in their place, are there and not read yet.
    pub fn records(&self, records: u64) {
        let make = || metrics::gauge!("millstream_source_lag_records", self.labels.clone());
        self.lag.get_or_init(make).set(records as f64);
    }

    /// So long until the last checkpoint cannot be restored any more, because what comes after it is thrown away.
    /// Infinite where that is not to be expected.
    pub fn expires_in(&self, time: Option<Duration>) {
        let seconds = time.map_or(f64::INFINITY, |time| time.as_secs_f64());
        metrics::gauge!("millstream_source_expiry_seconds", self.labels.clone()).set(seconds);
    }
}

impl std::fmt::Debug for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lag").field(&self.labels).finish()
    }
}
