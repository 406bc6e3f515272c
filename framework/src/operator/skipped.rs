//! Records that are left out on purpose: counted, and warned of.

use crate::clock;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often one place warns.
const EVERY: Duration = Duration::from_mins(1);

/// Counts the records that one place leaves out because of what is wrong with them: in the metric
/// `millstream_skipped_records_total`, with the labels `job` and `operator`, and with a warning in the log, at most one
/// a minute, that tells how many there were and shows the last one. `or_skip` and sources that skip have one; so should
/// connectors of your own that leave records out.
///
/// Clones count together. Costs a lock per skipped record. Counts are not exactly once: what is read again after a
/// recovery is counted again.
#[derive(Clone)]
pub struct Skipped(Arc<Place>);

struct Place {
    job: String,
    operator: String,
    counter: OnceLock<metrics::Counter>,
    unsaid: Mutex<Unsaid>,
}

/// What no warning has told of yet.
#[derive(Default)]
struct Unsaid {
    records: u64,
    /// What was wrong with the last one.
    last: String,
    /// When the last warning came.
    warned: Option<Instant>,
}

impl Unsaid {
    /// One more; gives what is to be said now, if anything is.
    fn add(&mut self, error: &dyn fmt::Display, now: Instant) -> Option<(u64, String)> {
        self.records += 1;
        self.last = error.to_string();
        if self.warned.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            return None;
        }
        self.warned = Some(now);
        self.take()
    }

    fn take(&mut self) -> Option<(u64, String)> {
        let (records, last) = (std::mem::take(&mut self.records), std::mem::take(&mut self.last));
        (records > 0).then_some((records, last))
    }
}

impl Skipped {
    /// For the source or operator of this name in this job; what has no name says what and where it is.
    #[must_use]
    pub fn of(job: impl Into<String>, operator: impl Into<String>) -> Self {
        let (job, operator) = (job.into(), operator.into());
        Self(Arc::new(Place { job, operator, counter: OnceLock::new(), unsaid: Mutex::default() }))
    }

    /// A record was left out because of `error`.
    #[cold]
    pub fn skip(&self, error: &dyn fmt::Display) {
        let Place { job, operator, counter, unsaid } = &*self.0;
        let make = || {
            let (job, operator) = (job.clone(), operator.clone());
            metrics::counter!("millstream_skipped_records_total", "job" => job, "operator" => operator)
        };
        counter.get_or_init(make).increment(1);
        let said = unsaid.lock().unwrap_or_else(PoisonError::into_inner).add(error, clock::now());
        said.into_iter().for_each(|(records, last)| warn(operator, records, &last));
    }
}

fn warn(operator: &str, skipped: u64, last: &str) {
    tracing::warn!(operator, skipped, last, "records were skipped");
}

/// What was skipped since the last warning is said at the end.
impl Drop for Place {
    fn drop(&mut self) {
        let said = self.unsaid.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        said.into_iter().for_each(|(records, last)| warn(&self.operator, records, &last));
    }
}

impl fmt::Debug for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Skipped").field(&self.0.operator).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_first_at_once_then_all_of_a_minute_and_the_rest_at_the_end() {
        let start = clock::now();
        let mut unsaid = Unsaid::default();
        let mut add = |second| unsaid.add(&format!("at {second}"), start + Duration::from_secs(second));
        assert_eq!(add(0), Some((1, "at 0".into())));
        assert_eq!([add(1), add(59)], [None, None]);
        assert_eq!(add(60), Some((3, "at 60".into())));
        assert_eq!(add(61), None);
        assert_eq!(unsaid.take(), Some((1, "at 61".into())));
        assert_eq!(unsaid.take(), None);
    }
}
