//! Which offsets are committed to the consumer group, so that Kafka's own tools show how far the job is. Pure; who
//! commits is `pump.rs`.
//!
//! They are shown and never read by us: what counts is the checkpoint. A commit that fails or is lost is made good by
//! the next one.

use super::topics::KafkaPartition;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Kafka forgets offsets that nobody commits (after seven days, if nobody has set it otherwise), so those of quiet
/// partitions are committed again.
const AGAIN: Duration = Duration::from_hours(24);

/// How long nothing is committed after a commit has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How often failures are told of.
const TELL: Duration = Duration::from_secs(30);

/// What the group knows.
#[derive(Debug, Default)]
pub(super) struct Group {
    offsets: BTreeMap<KafkaPartition, Offset>,
    /// When the last commit failed, and when that was told.
    failed: Option<Instant>,
    told: Option<Instant>,
}

#[derive(Debug)]
struct Offset {
    decided: i64,
    /// What was committed last, and when.
    committed: Option<(i64, Instant)>,
}

impl Group {
    /// These offsets belong to a decided checkpoint.
    pub(super) fn decided(&mut self, partition: &KafkaPartition, next: i64) {
        match self.offsets.get_mut(partition) {
            Some(offset) => offset.decided = next,
            None => drop(self.offsets.insert(partition.clone(), Offset { decided: next, committed: None })),
        }
    }

    /// What is to be committed now, and counts as committed from now on: what has changed, and what is a day old.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(KafkaPartition, i64)> {
        let mut due = Vec::new();
        if self.failed.is_some_and(|failed| now.saturating_duration_since(failed) < PAUSE) {
            return due;
        }
        for (partition, offset) in &mut self.offsets {
            let is_known = offset.committed.is_some_and(|(committed, at)| {
                committed == offset.decided && now.saturating_duration_since(at) < AGAIN
            });
            if !is_known {
                offset.committed = Some((offset.decided, now));
                due.push((partition.clone(), offset.decided));
            }
        }
        due
    }

    /// The commit of these has failed. Whether that is to be told.
    pub(super) fn failed<'a>(&mut self, of: impl IntoIterator<Item = &'a KafkaPartition>, now: Instant) -> bool {
        for partition in of {
            if let Some(offset) = self.offsets.get_mut(partition) {
                offset.committed = None;
            }
        }
        self.failed = Some(now);
        let is_news = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL);
        if is_news {
            self.told = Some(now);
        }
        is_news
    }

    /// There is no later: what has failed is due at once.
    pub(super) fn hurry(&mut self) {
        self.failed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_framework::clock;

    #[test]
    fn what_has_changed_is_due_and_once_a_day_all_of_it() {
        let (mut group, start) = (Group::default(), clock::now());
        let (one, two) = (KafkaPartition::new("a", 0), KafkaPartition::new("a", 1));
        group.decided(&one, 5);
        group.decided(&two, 7);
        assert_eq!(group.due(start), [(one.clone(), 5), (two.clone(), 7)]);
        assert_eq!(group.due(start), []);
        group.decided(&one, 5);
        group.decided(&two, 8);
        let hour = Duration::from_hours(1);
        assert_eq!(group.due(start + hour), [(two.clone(), 8)]);
        assert_eq!(group.due(start + 23 * hour), []);
        assert_eq!(group.due(start + 24 * hour), [(one.clone(), 5)]);
        assert_eq!(group.due(start + 25 * hour), [(two.clone(), 8)]);
    }

    #[test]
    fn what_has_failed_is_due_again_after_a_pause() {
        let (mut group, now) = (Group::default(), clock::now());
        let one = KafkaPartition::new("a", 0);
        group.decided(&one, 5);
        assert_eq!(group.due(now).len(), 1);
        assert!(group.failed([&one], now));
        assert_eq!(group.due(now), []);
        let later = now + PAUSE;
        assert_eq!(group.due(later), [(one.clone(), 5)]);
        assert!(!group.failed([&one], later) && group.failed([&one], now + TELL));
        group.hurry();
        assert_eq!(group.due(now + TELL), [(one, 5)]);
    }
}
