//! One decision without a run, for the commands `adopt`, `offsets reset` and `rename`: a checkpoint that continues
//! another one, with what a person has ordered changed. It is decided like any other, and nothing is changed before
//! that but what each recovery does. No subtask is made for it and no source opened, so it works also where a source
//! refuses to go on.

use super::attempt::{Order, Session};
use super::control::Control;
use super::ownership;
use super::recovery::{self, Access, Examined, Recovered};
use super::reset::{self, Wanted};
use crate::checkpoints::{Decision, Manifest, Store};
use crate::failpoint::failpoint;
use crate::operator::Decided;
use crate::topology::Plan;
use crate::{Attempt, Epoch, Error, ErrorKind, Job};

/// A job whose directory is held.
pub(super) struct Lone {
    pub(super) session: Session,
    pub(super) plan: Plan,
    pub(super) attempt: Attempt,
    order: Order,
}

impl Lone {
    fn hold(job: Job) -> Result<Self, Error> {
        let plan = job.plan()?;
        plan.graph.read_secrets()?;
        let store = Store::open(&job.settings.data_dir, &job.name)?;
        Ok(Self::of(job, plan, store))
    }

    /// Of a directory that is held already.
    pub(super) fn of(job: Job, plan: Plan, store: Store) -> Self {
        let (restore, allow_duplicates) = (job.settings.restore, job.settings.allow_duplicates);
        let order = Order { restore, allow_duplicates, suspect: None };
        let control = Control::new(&job.name);
        Self { session: Session::new(job, store, control), plan, attempt: Attempt::draw(), order }
    }

    /// Steps 2 to 5 of a recovery.
    pub(super) async fn examine(&self, access: Access) -> Result<Examined, Error> {
        let listing = self.session.store.list()?;
        recovery::examine(&self.session, &self.plan, (self.attempt, &self.order), listing, access).await
    }

    /// Steps 6 and 7, then 4 to 6 of a checkpoint, if there is one to decide.
    pub(super) async fn decide(&self, examined: Examined, next: Option<Manifest>) -> Result<(), Error> {
        let Self { session, plan, attempt, .. } = self;
        let Recovered { log, uncleaned, .. } = recovery::settle(session, plan, *attempt, examined).await?;
        let Some(next) = next else { return Ok(()) };
        let digest = session.store.put_manifest(&next)?;
        failpoint("checkpoint-written");
        let record = session.record(*attempt, next.epoch, (digest, next.parent));
        known(log.commit(&record).await, session)?;
        failpoint("checkpoint-decided");
        session.store.mark_decided(next.epoch)?;
        recovery::clean(plan, &session.job.name, *attempt, uncleaned).await
    }
}

/// # Errors
/// If a decision is not known to be made.
pub(super) fn known(decided: Decided, session: &Session) -> Result<(), Error> {
    match decided {
        Decided::Committed => Ok(()),
        Decided::Superseded => Err(ownership::lost(session, None)),
        Decided::Fenced => Err(ownership::yields(&session.job.name, None)),
        Decided::Unknown(error) => Err(error.advise("whether it is decided is not known: give the command again")),
    }
}

pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::new(ErrorKind::Io, "cannot start a runtime").because(e))?.block_on(work)
}

/// Makes a job go on from what its settings say to restore; the number of the checkpoint that it goes on from now.
pub(crate) fn adopt(job: Job) -> Result<Epoch, Error> {
    block_on(async {
        let lone = Lone::hold(job)?;
        let examined = lone.examine(Access::Make).await?;
        let goes_back = matches!(examined.decision, Decision::Restore { announce: Some(_), .. });
        let (now, next) = match (examined.continued(lone.attempt), &examined.restored) {
            (Some(next), _) if goes_back => (next.epoch, Some(next)),
            (_, Some((manifest, _))) => (manifest.epoch, None),
            _ => return Err(nothing(&lone)),
        };
        lone.decide(examined, next).await?;
        Ok(now)
    })
}

/// Changes where a source goes on, if it is to be done, and says what is changed.
pub(crate) fn reset(job: Job, wanted: &Wanted, executes: bool) -> Result<String, Error> {
    block_on(async {
        let lone = Lone::hold(job)?;
        let examined = lone.examine(if executes { Access::Make } else { Access::Look }).await?;
        let continued = examined.continued(lone.attempt).zip(examined.restored.as_ref());
        let Some((mut next, (restored, _))) = continued else { return Err(nothing(&lone)) };
        let (now, then) = (restored.epoch, next.epoch);
        let changes = reset::reset(&lone.plan, &mut next, wanted).await?;
        if next.sources == restored.sources {
            return Ok(format!("{changes}Nothing changes: the next run goes on from checkpoint {now}, as before.\n"));
        }
        let keeps = format!("Checkpoint {now} stays, for `run --restore {now} --allow-duplicates`.\n");
        if !executes {
            return Ok(format!("{changes}{keeps}Nothing has been changed: with --execute it is.\n"));
        }
        lone.decide(examined, Some(next)).await?;
        Ok(format!("{changes}{keeps}Checkpoint {then} is decided: the next run goes on from it.\n"))
    })
}

fn nothing(lone: &Lone) -> Error {
    let place = lone.session.store.data_dir().display();
    Error::new(ErrorKind::Usage, format!("{place} has no checkpoint to go on from: start the job first"))
}
