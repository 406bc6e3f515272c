//! Which key group a keyed operator's subtask is busiest with: a sample, so that a key that gets too much is seen.

use super::report::Counters;
use crate::key::group_of;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// One record in so many is looked at.
const EVERY: usize = 64;
/// So many have to be, or chance decides.
const ENOUGH: u32 = 256;

/// Counts a sample of records by key group.
pub(crate) struct Heat {
    first: u32,
    counts: Vec<u32>,
    seen: u32,
}

impl Heat {
    pub(crate) fn new(groups: Range<u32>) -> Self {
        Self { first: groups.start, counts: vec![0; groups.len()], seen: 0 }
    }

    /// A batch of records with these hashes.
    pub(crate) fn sample(&mut self, hashes: &[u64], key_groups: u32) {
        for hash in hashes.iter().step_by(EVERY) {
            if let Some(count) = self.counts.get_mut((group_of(*hash, key_groups) - self.first) as usize) {
                *count += 1;
                self.seen += 1;
            }
        }
    }

    /// Says which group had the largest share, and begins anew; once per epoch, and not before enough was seen.
    pub(crate) fn tell(&mut self, counters: &Counters) {
        if self.seen < ENOUGH {
            return;
        }
        let hottest = self.counts.iter().zip(self.first..).max_by_key(|(count, _)| **count);
        if let Some((count, group)) = hottest {
            counters.hottest_group.store(u64::from(group), Relaxed);
            counters.hottest_share.store(u64::from(*count) * 1000 / u64::from(self.seen), Relaxed);
        }
        self.counts.fill(0);
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_most_records_is_told() {
        let (counters, groups) = (Counters::default(), 128);
        let mut heat = Heat::new(64..128);
        let hash = |group: u64| group << 25;
        assert_eq!(group_of(hash(100), groups), 100);
        let (hot, other) = (vec![hash(100); 64], vec![hash(70); 64]);
        for n in 0..1000 {
            heat.sample(if n % 4 == 0 { &other } else { &hot }, groups);
        }
        heat.tell(&counters);
        assert_eq!((counters.hottest_group.load(Relaxed), counters.hottest_share.load(Relaxed)), (100, 750));
        // too few to say anything
        heat.sample(&other, groups);
        heat.tell(&counters);
        assert_eq!(counters.hottest_group.load(Relaxed), 100);
    }
}
