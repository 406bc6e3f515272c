//! The settings of a job: what there is, and what holds where nothing is said.
//!
//! | file | what |
//! |---|---|
//! | `table.rs` | each setting: its key, what it takes, its default |
//! | `layers.rs` | the file, the environment and `--set`; in which order they are read is `job.rs`'s and `cli/`'s |
//!
//! The settings that users give a topology of their own are `values.rs`; how all are shown is in `cli/`.

mod layers;
mod table;

pub(crate) use layers::{FILE, assignment, environment, file};
pub(crate) use table::{SETTINGS, Setting, Takes};

use crate::checkpoints::Restore;
use crate::values::Origin;
use std::collections::BTreeMap;
use std::panic::Location;
use std::path::PathBuf;
use std::time::Duration;

/// What a job runs with. Setters of [`Job`](crate::Job) and flags of the command line change it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where checkpoints and working state live. One running instance per directory.
    pub(crate) data_dir: PathBuf,
    /// From start to start of a checkpoint.
    pub(crate) checkpoint_interval: Duration,
    /// From the end of one checkpoint to the start of the next, at least.
    pub(crate) checkpoint_pause: Duration,
    /// After so long a checkpoint counts as failed.
    pub(crate) checkpoint_timeout: Duration,
    /// So many time-outs of one checkpoint are waited out.
    pub(crate) tolerated_timeouts: u32,
    /// How many checkpoints are kept.
    pub(crate) keep: usize,
    /// Subtasks of each operator that says nothing else. `None`: as many as workers.
    pub(crate) parallelism: Option<usize>,
    /// Threads that run subtasks. `None`: as many as cores.
    pub(crate) workers: Option<usize>,
    /// Bytes for all that grows with state and load: row tables, RocksDB, records held back.
    pub(crate) memory: u64,
    /// Rows per subtask of a keyed operator, in place of what its share of the memory gives.
    pub(crate) cache_rows: Option<usize>,
    /// How far a lane's watermark may be ahead of the slowest before it is not read. `None`: any distance.
    pub(crate) watermark_drift: Option<Duration>,
    /// What to start from.
    pub(crate) restore: Restore,
    /// Whether results may become visible twice.
    pub(crate) allow_duplicates: bool,
    /// What happens when an attempt fails.
    pub(crate) restart: RestartPolicy,
    /// Where those came from that somebody set, by key.
    pub(crate) origins: BTreeMap<&'static str, Origin>,
}

/// Where a job lives if nothing is said.
pub(crate) fn data_dir(job: &str) -> PathBuf {
    PathBuf::from("millstream-data").join(job)
}

impl Settings {
    pub(crate) fn new(job: &str) -> Self {
        Self {
            data_dir: data_dir(job),
            checkpoint_interval: Duration::from_secs(1),
            checkpoint_pause: Duration::ZERO,
            checkpoint_timeout: Duration::from_mins(1),
            tolerated_timeouts: 2,
            keep: 3,
            parallelism: None,
            workers: None,
            memory: 512 << 20,
            cache_rows: None,
            // longer than a quiet split needs to become idle, so that none holds others up before that
            watermark_drift: Some(Duration::from_mins(1)),
            restore: Restore::Latest,
            allow_duplicates: false,
            restart: RestartPolicy::default(),
            origins: BTreeMap::new(),
        }
    }

    /// Notes that the caller's caller has set these.
    #[track_caller]
    pub(crate) fn set_by_program(&mut self, keys: &[&'static str]) {
        let origin = Origin::Program(Location::caller());
        self.origins.extend(keys.iter().map(|key| (*key, origin.clone())));
    }

    /// Where the setting with this key came from.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_default()
    }

    pub(crate) fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers.unwrap_or_else(cores).max(1)
    }

    pub(crate) fn parallelism(&self) -> usize {
        self.parallelism.unwrap_or_else(|| self.workers()).max(1)
    }

    /// How the memory is shared out, where some source reads ahead or none does.
    pub(crate) fn budget(&self, reads_ahead: bool) -> Budget {
        let all = usize::try_from(self.memory).unwrap_or(usize::MAX);
        let held = (all / 4).min(64 << 20);
        let ahead = if reads_ahead { (all / 8).min(64 << 20) } else { 0 };
        let rest = all - held - ahead;
        Budget { rows: rest / 2, storage: rest - rest / 2, held, ahead }
    }
}

/// Shares of the memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Row tables of all keyed operators.
    pub(crate) rows: usize,
    /// RocksDB: block cache, write buffers included.
    pub(crate) storage: usize,
    /// What sinks hold back, all together.
    pub(crate) held: usize,
    /// What sources read ahead, all together.
    pub(crate) ahead: usize,
}

/// What happens when an attempt fails: the job recovers in place from its last checkpoint, after a pause that doubles
/// each time. A checkpoint that is decided in between starts the count anew. Refusals are never retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// How many attempts in a row may fail before the job does.
    pub attempts: u32,
    /// The first pause.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for RestartPolicy {
    /// Five attempts, from half a second to 30 seconds apart.
    fn default() -> Self {
        Self { attempts: 5, pause: Duration::from_millis(500), pause_max: Duration::from_secs(30) }
    }
}

impl RestartPolicy {
    /// The first failure ends the job.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// The pause after so many failures in a row; none when the job is to fail.
    pub(crate) fn pause_after(&self, failures: u32) -> Option<Duration> {
        let doubled = self.pause.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
        (failures < self.attempts).then(|| doubled.min(self.pause_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_end() {
        let policy = RestartPolicy { attempts: 5, pause: Duration::from_secs(10), pause_max: Duration::from_secs(30) };
        let pauses: Vec<_> = (1..=5).map(|n| policy.pause_after(n).map(|d| d.as_secs())).collect();
        assert_eq!(pauses, [Some(10), Some(20), Some(30), Some(30), None]);
        assert_eq!(RestartPolicy::never().pause_after(1), None);
    }

    #[test]
    fn the_budget_is_shared_out_whole() {
        let settings = Settings { memory: 256 << 20, ..Settings::new("job") };
        for (reads_ahead, share) in [(false, 0), (true, 32 << 20)] {
            let Budget { rows, storage, held, ahead } = settings.budget(reads_ahead);
            assert_eq!(rows + storage + held + ahead, 256 << 20);
            assert_eq!((held, ahead), (64 << 20, share));
        }
    }
}
