//! A limit of records per second for a whole job, kept without any talk between its subtasks: the readers that still
//! have something to read share it evenly. What a rate is asked for by is in the sources.

use millstream_framework::{BoxError, Error, ErrorKind, clock};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often a reader gets more, so that a high rate is not handed out one by one.
const TICK: Duration = Duration::from_millis(10);

/// What a reader may make up for after it could not read, in seconds of its share. More would be a flood.
const CREDIT_SECONDS: f64 = 1.0;

/// The limit as the source knows it; its clones and all readers count as one job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rate {
    per_second: Option<u64>,
    /// How many readers still have something to read.
    active: Arc<AtomicUsize>,
}

impl Rate {
    pub(crate) fn set(&mut self, per_second: Option<u64>) {
        self.per_second = per_second;
    }

    /// A rate of nothing would be a job that never ends.
    pub(crate) fn check(&self) -> Result<(), BoxError> {
        if self.per_second != Some(0) {
            return Ok(());
        }
        let text = "a rate of 0 records per second reads nothing: leave it out to read without a limit";
        Err(Error::new(ErrorKind::Usage, text).into())
    }

    /// The share of one reader, which does not count before [`Pacer::start`].
    pub(crate) fn pacer(&self) -> Pacer {
        Pacer { rate: self.clone(), counted: false, credit: 0.0, as_of: None }
    }
}

/// The share of one reader.
#[derive(Debug)]
pub(crate) struct Pacer {
    rate: Rate,
    counted: bool,
    /// Records that may be handed out; a fraction is kept.
    credit: f64,
    /// When that was; none until the first record is wanted.
    as_of: Option<Instant>,
}

impl Pacer {
    /// From now on this reader has something to read.
    pub(crate) fn start(&mut self) {
        if !std::mem::replace(&mut self.counted, true) {
            self.rate.active.fetch_add(1, Relaxed);
        }
    }

    /// This reader has nothing more to read: the others share what it had.
    pub(crate) fn stop(&mut self) {
        if std::mem::replace(&mut self.counted, false) {
            self.rate.active.fetch_sub(1, Relaxed);
        }
    }

    /// How many of `wanted` records may be handed out now.
    pub(crate) fn grant(&mut self, wanted: usize) -> usize {
        if self.rate.per_second.is_some() { self.grant_at(wanted, clock::now()) } else { wanted }
    }

    fn grant_at(&mut self, wanted: usize, now: Instant) -> usize {
        let passed = now.saturating_duration_since(*self.as_of.get_or_insert(now));
        if passed >= TICK {
            let share = self.share();
            self.credit = (self.credit + passed.as_secs_f64() * share).min((share * CREDIT_SECONDS).max(1.0));
            self.as_of = Some(now);
        }
        wanted.min(self.credit as usize)
    }

    /// So many were handed out.
    pub(crate) fn spend(&mut self, records: usize) {
        if self.rate.per_second.is_some() {
            self.credit -= records as f64;
        }
    }

    /// How long there is nothing to hand out; `None` if there is now, or may be.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.rate.per_second.filter(|_| self.credit < 1.0)?;
        let passed = clock::now().saturating_duration_since(self.as_of?);
        let missing = Duration::from_secs_f64((1.0 - self.credit) / self.share());
        Some(missing.max(TICK).saturating_sub(passed))
    }

    /// Waits until there may be something to hand out; takes nothing.
    pub(crate) async fn ready(&self) {
        if let Some(pause) = self.pause() {
            tokio::time::sleep(pause).await;
        }
    }

    /// Records per second of this reader; only with a limit, which is at least 1.
    fn share(&self) -> f64 {
        self.rate.per_second.unwrap_or(1).max(1) as f64 / self.rate.active.load(Relaxed).max(1) as f64
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls `readers` pacers of one rate every 10 ms for `seconds`; what each handed out.
    fn run(per_second: u64, readers: usize, seconds: u64) -> Vec<usize> {
        let mut rate = Rate::default();
        rate.set(Some(per_second));
        let mut pacers: Vec<_> = (0..readers).map(|_| rate.pacer()).collect();
        pacers.iter_mut().for_each(Pacer::start);
        let start = clock::now();
        pacers.iter_mut().for_each(|pacer| assert_eq!(pacer.grant_at(1024, start), 0));
        let mut handed_out = vec![0; readers];
        for tick in 1..=seconds * 100 {
            for (pacer, sum) in pacers.iter_mut().zip(&mut handed_out) {
                let granted = pacer.grant_at(1024, start + TICK * tick as u32);
                pacer.spend(granted);
                *sum += granted;
            }
        }
        handed_out
    }

    #[test]
    fn the_shares_add_up_to_the_rate_of_the_job() {
        for (per_second, readers) in [(1000, 1), (1000, 3), (100_000, 4), (10, 2)] {
            let sum: usize = run(per_second, readers, 10).iter().sum();
            let due = per_second as usize * 10;
            assert!(sum <= due && sum + readers >= due, "{per_second}/s by {readers}: {sum}");
        }
    }

    #[test]
    fn more_readers_than_records_per_second_add_up_too() {
        let each = run(3, 8, 80);
        assert!(each.iter().all(|n| (29..=30).contains(n)), "{each:?}");
    }

    #[test]
    fn who_is_done_leaves_its_share_to_the_others() {
        let mut rate = Rate::default();
        rate.set(Some(1000));
        let (mut one, mut other) = (rate.pacer(), rate.pacer());
        for pacer in [&mut one, &mut other] {
            pacer.start();
        }
        other.start();
        assert_eq!(one.share(), 500.0);
        other.stop();
        assert_eq!(one.share(), 1000.0);
        other.start();
        drop(other);
        assert_eq!(one.share(), 1000.0);
    }

    #[test]
    fn no_flood_after_a_stop_and_no_limit_without_a_rate() {
        let mut rate = Rate::default();
        let mut free = rate.pacer();
        assert_eq!((free.grant(1024), free.pause()), (1024, None));
        rate.set(Some(100));
        let mut pacer = rate.pacer();
        pacer.start();
        let start = clock::now();
        assert_eq!(pacer.grant_at(1024, start), 0);
        assert_eq!(pacer.grant_at(1024, start + Duration::from_secs(3600)), 100);
    }

    #[test]
    fn a_high_rate_is_not_handed_out_one_by_one() {
        let mut rate = Rate::default();
        rate.set(Some(100_000));
        let mut pacer = rate.pacer();
        let start = clock::now();
        let granted = [0, 5, 10, 15, 20].map(|ms| {
            let granted = pacer.grant_at(10_000, start + Duration::from_millis(ms));
            pacer.spend(granted);
            granted
        });
        assert_eq!(granted, [0, 0, 1000, 0, 1000]);
    }

    #[test]
    fn a_pause_lasts_until_a_record_is_due() {
        let mut rate = Rate::default();
        rate.set(Some(2));
        let mut pacer = rate.pacer();
        pacer.start();
        assert_eq!((pacer.pause(), pacer.grant(1)), (None, 0));
        let pause = pacer.pause().unwrap();
        assert!(pause > Duration::from_millis(400) && pause <= Duration::from_millis(500), "{pause:?}");
        rate.set(Some(0));
        assert!(rate.check().is_err());
    }
}
