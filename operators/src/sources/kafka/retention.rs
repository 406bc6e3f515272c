//! How long it takes until what comes after a checkpoint leaves the log. The estimate is pure; the settings of topics
//! are asked for here, too.

use crate::kafka::client::passes;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, config::FromClientConfig};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retention {
    /// Records go when they are so old, in milliseconds; none if not by age.
    pub(super) age_ms: Option<i64>,
    /// Whether they go when a partition is too large.
    pub(super) by_size: bool,
}

impl Retention {
    /// Of the settings of a topic.
    fn of<'a>(setting: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let number = |name| setting(name)?.parse::<i64>().ok();
        let (age, bytes) = (number("retention.ms")?, number("retention.bytes")?);
        let deletes = setting("cleanup.policy")?.contains("delete");
        Some(Self { age_ms: Some(age).filter(|age| deletes && *age >= 0), by_size: deletes && bytes >= 0 })
    }
}

/// How fast the start of a log moves, as far as was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    first: (i64, Instant),
    last: (i64, Instant),
}

impl Pace {
    pub(super) fn new(log_start: i64, now: Instant) -> Self {
        Self { first: (log_start, now), last: (log_start, now) }
    }

    pub(super) fn saw(&mut self, log_start: i64, now: Instant) {
        self.last = (log_start, now);
    }

    /// Until it reaches an offset, at this pace; none if it does not move.
    fn reaches(&self, offset: i64) -> Option<Duration> {
        let moved = self.last.0 - self.first.0;
        let took = self.last.1.saturating_duration_since(self.first.1).as_secs_f64();
        let left = (offset - self.last.0).max(0);
        (moved > 0).then(|| Duration::from_secs_f64((took * left as f64 / moved as f64).min(1e9)))
    }
}

/// Until the record at `next`, the first one after a checkpoint, is thrown away; none if that is not to be expected.
/// `read_ms` is the time of the last record before it, which is about its own.
pub(super) fn expires_in(
    (next, read_ms): (i64, Option<i64>),
    end: i64,
    retention: Option<Retention>,
    pace: &Pace,
    now_ms: i64,
) -> Option<Duration> {
    let retention = retention?;
    if next >= end {
        return None;
    }
    let by_age = retention.age_ms.zip(read_ms).map(|(age, read)| {
        Duration::from_millis(u64::try_from(read.saturating_add(age).saturating_sub(now_ms)).unwrap_or(0))
    });
    let by_size = if retention.by_size { pace.reaches(next) } else { None };
    by_age.into_iter().chain(by_size).min()
}

/// Asks what each of these topics keeps. Those of which nothing is told are left out: not everybody may ask.
pub(super) async fn ask(config: &ClientConfig, topics: &[String]) -> BTreeMap<String, Retention> {
    let mut config = config.clone();
    let of_consumers = ["group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset"];
    for name in of_consumers {
        config.remove(name);
    }
    let Ok(client) = AdminClient::<DefaultClientContext>::from_config(&config) else { return BTreeMap::new() };
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
    let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let answers = loop {
        match client.describe_configs(&wanted, &options).await {
            Ok(answers) => break answers,
            Err(error) if error.rdkafka_error_code().is_some_and(passes) => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot ask for the retention of topics");
                return BTreeMap::new();
            }
        }
    };
    let mut all = BTreeMap::new();
    for (topic, answer) in topics.iter().zip(answers) {
        match answer {
            Ok(resource) => {
                let setting = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref());
                all.extend(Retention::of(setting).map(|retention| (topic.clone(), retention)));
            }
            Err(code) => tracing::debug!(topic, %code, "cannot ask for the retention of a topic"),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_framework::clock;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn settings_of_a_topic_say_what_it_keeps() {
        let of = |policy: &'static str, ms: &'static str, bytes: &'static str| {
            Retention::of(|name| match name {
                "cleanup.policy" => Some(policy),
                "retention.ms" => Some(ms),
                "retention.bytes" => Some(bytes),
                _ => None,
            })
        };
        let keeps = |age_ms, by_size| Some(Retention { age_ms, by_size });
        assert_eq!(of("delete", "5", "-1"), keeps(Some(5), false));
        assert_eq!(of("delete", "-1", "100"), keeps(None, true));
        assert_eq!(of("compact", "5", "100"), keeps(None, false));
        assert_eq!(of("compact,delete", "5", "100"), keeps(Some(5), true));
        assert_eq!(of("delete", "x", "100"), None);
    }

    #[test]
    fn what_expires_first_counts() {
        let start = clock::now();
        let both = Some(Retention { age_ms: Some(2 * HOUR_MS), by_size: true });
        let mut pace = Pace::new(100, start);
        let left = |pace: &Pace, next, retention| expires_in((next, Some(HOUR_MS)), 1000, retention, pace, 2 * HOUR_MS);
        // two hours after a record that is an hour old
        assert_eq!(left(&pace, 500, both), Some(Duration::from_hours(1)));
        // 100 records in ten minutes, and 300 are left
        pace.saw(200, start + Duration::from_mins(10));
        assert_eq!(left(&pace, 500, both), Some(Duration::from_mins(30)));
        let by_age = Some(Retention { age_ms: Some(HOUR_MS / 2), by_size: false });
        assert_eq!(left(&pace, 500, by_age), Some(Duration::ZERO));
        // nothing follows, nothing is known, nothing is thrown away
        assert_eq!(left(&pace, 1000, both), None);
        assert_eq!(left(&pace, 500, None), None);
        assert_eq!(left(&pace, 500, Some(Retention { age_ms: None, by_size: false })), None);
    }
}
