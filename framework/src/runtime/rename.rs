//! `rename`: what a job has under its old name becomes this job's: its checkpoints, and with them its place in the
//! input, its state and its output. By steps, each of which finds what the one before has done when the command is
//! given again, however it ended:
//!
//! 1. Both directories are held, if they are two. What the old name decided last is looked for, so that what cannot be
//!    restored is refused before anything is moved.
//! 2. If they are two: the new directory is marked, then the old one, so that neither name starts; the checkpoints are
//!    moved; the mark of the new directory goes, for checkpoints of the old name are there now, which refuse a start as
//!    well. That of the old directory stays.
//! 3. A recovery under the old name: fence, read, decide, claim, finish.
//! 4. A checkpoint with the new name that continues what was restored is written, and decided where the old name
//!    decides: from now on no copy of the directory can go on under the old name.
//! 5. The log of the new name, if sinks decide, is fenced, and its first record names that checkpoint.
//! 6. Checkpoints with the old name go: the new one can be started.

use super::lone::{self, Lone, block_on};
use super::ownership;
use super::recovery::Access;
use crate::checkpoints::{Former, Hold, Listing, Log, Manifest, Renamed, Store, collect};
use crate::config;
use crate::failpoint::failpoint;
use crate::operator::{Digest, Progress};
use crate::{Error, ErrorKind, Job};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Gives a job what another one has; says what was done. `from` is where that is, if it is neither in the directory of
/// the job nor where a job of the old name has its own.
pub(crate) fn rename(job: Job, old: &str, from: Option<PathBuf>) -> Result<String, Error> {
    let new = job.name.clone();
    if old == new {
        return Err(usage(format!("the job is named `{new}` already: name the job that it was before")));
    }
    let is_usual = job.settings.data_dir == config::data_dir(&new);
    let to = job.settings.data_dir.clone();
    let from = from.unwrap_or_else(|| if is_usual { config::data_dir(old) } else { to.clone() });
    // one directory may be named in two ways
    let from = if from.canonicalize().is_ok_and(|from| to.canonicalize().is_ok_and(|to| from == to)) {
        to.clone()
    } else {
        from
    };
    // nothing is made where there is nothing to be had
    if ![&from, &to].into_iter().map(|place| Hold::has_manifests(place)).collect::<Result<Vec<_>, _>>()?.contains(&true)
    {
        return Err(nothing(&[&from, &to], old));
    }
    block_on(async {
        let hold = Arc::new(Hold::take(&to, &new)?);
        if from != to && Hold::has_manifests(&from)? {
            bring(&job, old, &from, &hold).await?;
        }
        take_over(job, old, hold).await
    })
}

/// Steps 1 and 2.
async fn bring(job: &Job, old: &str, from: &Path, to: &Hold) -> Result<(), Error> {
    if Hold::has_manifests(to.data_dir())? {
        let [from, to] = [from, to.data_dir()].map(Path::display);
        return Err(usage(format!(
            "{to} has checkpoints already, and those of `{old}` are in {from}: only one can go on"
        )));
    }
    let left = Arc::new(Hold::take(from, old)?);
    let lone = Lone::of(named(job, old), job.plan()?, Store::of(left.clone(), old)?);
    lone.examine(Access::Look).await?;
    drop(lone);
    failpoint("rename-examined");
    let renamed = Renamed { from: old.into(), to: job.name.clone() };
    to.mark(&renamed)?;
    failpoint("rename-marked");
    left.mark(&renamed)?;
    failpoint("rename-left");
    left.move_to(to)?;
    failpoint("rename-moved");
    Ok(())
}

/// Steps 2, its end, to 6.
async fn take_over(job: Job, old: &str, hold: Arc<Hold>) -> Result<String, Error> {
    hold.unmark()?;
    let (new, place) = (job.name.clone(), hold.data_dir().to_owned());
    let lone = Lone::of(named(&job, old), job.plan()?, Store::of(hold, old)?.with_heir(&new));
    lone.plan.graph.read_secrets()?;
    let store = lone.session.store.clone();
    refuse_own(&store.list()?, old, &new)?;
    let log = open(&lone, &new).await?;
    // 3.
    let examined = lone.examine(Access::Take).await?;
    let Some((restored, digest)) = examined.restored.clone() else { return Err(nothing(&[&place], old)) };
    let is_done = restored.job == new;
    let next = examined.continued(lone.attempt).filter(|_| !is_done).map(|next| {
        let former = Former { job: old.into(), decision: next.decision.clone() };
        Manifest { job: new.clone(), formerly: Some(former), decision: log.mode(), ..next }
    });
    let epoch = next.as_ref().map_or(restored.epoch, |next| next.epoch);
    // 4.
    let (heir, parent) = match &next {
        Some(next) => (next.encode()?.1, Some(digest)),
        None => (digest, restored.parent.clone()),
    };
    lone.decide(examined, next).await?;
    failpoint("rename-recorded");
    // 5.
    let record = Progress { job: new.clone(), ..lone.session.record(lone.attempt, epoch, (heir.clone(), parent)) };
    own(&lone, &log, &record).await?;
    failpoint("rename-taken");
    // 6.
    store.collect(&collect(&store.list()?, &heir, 1))?;
    failpoint("rename-cleared");
    Ok(format!("the job `{new}` has what `{old}` had: its next run goes on from checkpoint {epoch}\n"))
}

fn named(job: &Job, name: &str) -> Job {
    let mut job = job.clone();
    name.clone_into(&mut job.name);
    job
}

/// # Errors
/// If the job has run under its new name.
fn refuse_own(listing: &Listing, old: &str, new: &str) -> Result<(), Error> {
    let is_heir = |m: &Manifest| m.formerly.as_ref().is_some_and(|former| former.job == old);
    let own = listing.intact().find(|(manifest, _)| manifest.job == new && !is_heir(manifest));
    own.map_or(Ok(()), |(manifest, _)| {
        let epoch = manifest.epoch;
        Err(usage(format!("the job `{new}` has checkpoints of its own, such as {epoch}: it needs nothing of `{old}`")))
    })
}

/// Where the job decides under its new name.
async fn open(lone: &Lone, new: &str) -> Result<Log, Error> {
    let Some(decider) = ownership::decider(&lone.plan)? else { return Ok(Log::Directory(lone.session.store.clone())) };
    let cx = ownership::context(new, &lone.session.job.settings, lone.attempt);
    let log = decider.open(&cx, true).await?.ok_or_else(|| usage(format!("there is no log for the job `{new}`")))?;
    is_free(&lone.session.store.list()?, log.look().await?.as_ref(), new)?;
    Ok(Log::Sinks(log))
}

/// # Errors
/// A refusal if the job has decided something under its new name, but for the checkpoint that gave it that name.
fn is_free(listing: &Listing, newest: Option<&Progress>, new: &str) -> Result<(), Error> {
    let is_heir = |digest: &Digest| listing.find(digest).is_some_and(|manifest| manifest.job == new);
    match newest.filter(|newest| !is_heir(&newest.manifest)) {
        None => Ok(()),
        Some(newest) => Err(Error::refused(format!(
            "the job `{new}` has decided checkpoint {} in a log of its own: it has run under this name. Take another \
             name, or start it as it is",
            newest.epoch
        ))),
    }
}

/// Step 5.
async fn own(lone: &Lone, log: &Log, record: &Progress) -> Result<(), Error> {
    let Log::Sinks(sinks) = log else { return Ok(()) };
    sinks.fence().await?;
    let newest = sinks.read().await?;
    if newest.as_ref().is_some_and(|newest| newest.manifest == record.manifest) {
        return Ok(());
    }
    is_free(&Listing::default(), newest.as_ref(), &record.job)?;
    lone::known(log.commit(record).await, &lone.session)
}

fn nothing(places: &[&PathBuf], old: &str) -> Error {
    let mut places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    places.dedup();
    usage(format!(
        "there is no checkpoint of the job `{old}` in {}: name its place, with --old-data-dir",
        places.join(" or ")
    ))
}

fn usage(text: String) -> Error {
    Error::new(ErrorKind::Usage, text)
}
