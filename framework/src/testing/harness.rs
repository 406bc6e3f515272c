//! [`ProcessHarness`]: one process function, driven by hand. Whole topologies are driven in `driver.rs`.

use super::done;
use super::rig::Rig;
use crate::key::{KEY_GROUPS, stable_hash};
use crate::operator::Process;
use crate::state::keyed::StateContext;
use crate::state::{Layout, RowLayout};
use crate::subtask::{Computed, Control, Keep, Kept, KeyOf, ProcessStage, Reports, Stage, StageContext};
use crate::{Attempt, Batch, Error, Record, Timestamp};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;

/// Drives one [`Process`] by hand: records, watermarks, time. It runs in the operator that runs it in a job, in event
/// time, with state in memory; time of day begins with 1970 and moves in [`advance`](Self::advance) only.
///
/// ```
/// use millstream_framework::state::{State, ValueState};
/// use millstream_framework::testing::ProcessHarness;
/// use millstream_framework::{BoxError, Context, Process, Timestamp};
///
/// /// Lets the first record of a key through.
/// struct First;
///
/// #[derive(State)]
/// struct Seen {
///     before: ValueState<()>,
/// }
///
/// impl Process for First {
///     type Key = u64;
///     type In = &'static str;
///     type Out = &'static str;
///     type State = Seen;
///     fn on_record(
///         &self,
///         record: &'static str,
///         seen: &mut Seen,
///         cx: &mut Context<'_, u64, &'static str>,
///     ) -> Result<(), BoxError> {
///         if seen.before.get().is_none() {
///             seen.before.set(());
///             cx.emit(record);
///         }
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), BoxError> {
/// let mut first = ProcessHarness::new(First);
/// let at = Timestamp::from_secs;
/// first.push(7, at(0), "a")?.push(8, at(1), "b")?.push(7, at(2), "c")?;
/// assert_eq!(first.take(), ["a", "b"]);
/// assert!(first.state(&7, |seen| seen.before.get().is_some()));
/// # Ok(())
/// # }
/// ```
///
/// Errors are those of the process function, with the place where they came up. After one the harness is of no more
/// use. It has a runtime of its own, so it cannot be used from within an `async` test.
pub struct ProcessHarness<P: Process> {
    rig: Rig,
    stage: ProcessStage<P>,
    /// Of the record that is pushed.
    key: Arc<Mutex<Option<P::Key>>>,
    kept: Kept,
}

impl<P: Process> fmt::Debug for ProcessHarness<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessHarness<{}>", std::any::type_name::<P>())
    }
}

impl<P: Process> ProcessHarness<P> {
    /// A process function without any state so far.
    ///
    /// # Panics
    /// When there is no runtime to be had.
    #[track_caller]
    pub fn new(process: P) -> Self {
        done(Self::make(process))
    }

    fn make(process: P) -> Result<Self, Error> {
        let rig = Rig::new()?;
        let key = Arc::new(Mutex::new(None));
        let pushed = key.clone();
        let key_of = KeyOf::Computed(Arc::new(Computed::new(move |_: &P::In| match &*held(&pushed) {
            Some(key) => P::Key::clone(key),
            None => unreachable!("a record is pushed with its key"),
        })));
        let states = Layout::of::<P::Key, P::State>().reconcile("process", &mut 0, None)?;
        let state = StateContext {
            backend: None,
            layout: RowLayout::new(&states),
            table: states.table,
            groups: 0..KEY_GROUPS,
            cache_bytes: usize::MAX,
            cache_rows: None,
        };
        let kept = Kept::default();
        let end = Keep { kept: kept.clone(), counters: Arc::default() };
        let process = Arc::new(process);
        let stage = rig.within(|| ProcessStage::new(process, key_of, state, true, Box::new(end), context()));
        let mut harness = Self { rig, stage, key, kept };
        harness.settle()?;
        Ok(harness)
    }

    /// A record of a key, with its event time. What it is given may lie behind the watermark, as late records do.
    ///
    /// # Errors
    /// Those of [`Process::on_record`], with their place.
    pub fn push(&mut self, key: P::Key, time: Timestamp, value: P::In) -> Result<&mut Self, Error> {
        let hashes = vec![stable_hash(&key)];
        *held(&self.key) = Some(key);
        let mut batch = Batch { values: vec![value], times: vec![time], hashes };
        self.rig.within(|| self.stage.on_batch(&mut batch))?;
        self.settle()
    }

    /// A watermark: timers of event time that are set to `at` or before fire.
    ///
    /// # Errors
    /// Those of the process function, with their place.
    pub fn watermark(&mut self, at: Timestamp) -> Result<&mut Self, Error> {
        self.rig.within(|| self.stage.on_watermark(at))?;
        self.settle()
    }

    /// Lets time of day pass: timers of processing time that come due fire, each at its time. In whole milliseconds,
    /// rounded up.
    ///
    /// # Errors
    /// Those of the process function, with their place.
    pub fn advance(&mut self, by: Duration) -> Result<&mut Self, Error> {
        let Self { rig, stage, .. } = self;
        rig.advance(by, |cx| turn(stage, cx))?;
        Ok(self)
    }

    /// The time of day by the clock that [`advance`](Self::advance) moves; it began with 1970.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.rig.now()
    }

    /// What was emitted since the last call, in order.
    #[must_use]
    pub fn take(&mut self) -> Vec<P::Out> {
        self.take_records().into_iter().map(|record| record.value).collect()
    }

    /// As [`take`](Self::take), with the event time of each record.
    #[must_use]
    pub fn take_records(&mut self) -> Vec<Record<P::Out>> {
        self.kept.take()
    }

    /// Looks at the state of a key, which is empty for a key that has none; changes are kept, timers included.
    pub fn state<R>(&mut self, key: &P::Key, look: impl FnOnce(&mut P::State) -> R) -> R {
        done(self.stage.look(key, look))
    }

    fn settle(&mut self) -> Result<&mut Self, Error> {
        let Self { rig, stage, .. } = self;
        rig.settle(|cx| turn(stage, cx))?;
        Ok(self)
    }
}

/// Drives what the stage has under way.
fn turn(stage: &mut dyn Control, cx: &mut Context<'_>) -> Result<bool, Error> {
    if let Poll::Ready(result) = stage.poll_ready(true, cx) {
        result?;
    }
    stage.background()
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of an operator that nobody else has to do with.
fn context() -> StageContext {
    StageContext {
        job: "test".into(),
        name: "process".into(),
        subtask: 0,
        parallelism: 1,
        attempt: Attempt::draw(),
        participant: 0,
        first_epoch: 0,
        key_groups: KEY_GROUPS,
        hold_bytes: usize::MAX,
        ahead_bytes: 0,
        suspect: None,
        reports: Reports(unbounded_channel().0),
        counters: Arc::default(),
    }
}
