//! Whose the job is, where sinks decide: opening their log, looking, fencing, reading and claiming, steps 0, 1, 3, 4
//! and 6 of a recovery as numbered in `checkpoints/`. Where the directory decides its lock says whose the job is.
//!
//! A process claims once in its life, by a record with its instance: the newest one once more, or its genesis. Whoever
//! is fenced after that looks whose the newest record is: another's, then it is superseded, for good; its own, then it
//! was fenced by somebody who gave up, and goes on. Whoever loses the right before its claim is known to be decided
//! cannot tell, and yields: it ends, to be started again after a pause, and never fences back.

use super::attempt::{Order, Session};
use crate::checkpoints::{Decision, Facts, Log, Manifest, Record, hint, refuse_gone};
use crate::config::Settings;
use crate::failpoint::failpoint;
use crate::mutant::broken;
use crate::operator::{Decided, Decider, DecisionLog, Digest, LogContext, Progress};
use crate::topology::{Kind, Plan};
use crate::{Attempt, Error, ErrorKind};
use std::sync::Arc;

/// What a process may do to the log of its job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Right {
    /// Nothing yet: it has fenced nobody.
    #[default]
    None,
    /// It has fenced others, and its claim is not known to be decided.
    Fenced,
    /// The job is its own, until another one claims it.
    Claimed,
}

/// What the sinks of a plan decide with, if any do.
///
/// # Errors
/// When they disagree.
pub(crate) fn decider(plan: &Plan) -> Result<Option<Arc<dyn Decider>>, Error> {
    let mut first: Option<(Arc<dyn Decider>, String)> = None;
    for node in &plan.graph.nodes {
        let Kind::Sink(sink) = &node.kind else { continue };
        let Some(decider) = sink.decides() else { continue };
        let name = node.name.as_deref().unwrap_or_default();
        let at = format!("sink `{name}` at {} ({})", node.site, decider.place());
        match &first {
            None => first = Some((decider, at)),
            Some((known, _)) if Arc::ptr_eq(known, &decider) => {}
            Some((_, other)) => {
                let text = format!(
                    "the {other} and the {at} both decide checkpoints, each in a transaction of its own, and only one \
                     can: make them of one and the same connection, or let one of them write at least once"
                );
                return Err(Error::new(ErrorKind::Topology, text));
            }
        }
    }
    Ok(first.map(|(decider, _)| decider))
}

/// The log of a job, of this name and with these settings.
pub(crate) fn context(job: &str, settings: &Settings, attempt: Attempt) -> LogContext {
    LogContext {
        job: job.to_owned(),
        attempt,
        checkpoint_interval: settings.checkpoint_interval.max(settings.checkpoint_pause),
        checkpoint_timeout: settings.checkpoint_timeout,
    }
}

/// Steps 0 and 1: opens the log, and notes in the facts what it says as far as that can be told without harm to
/// anybody. None if there is none, and none is to be made.
///
/// # Errors
/// [`Superseded`](ErrorKind::Superseded), refusals, and those of the log.
pub(crate) async fn look(
    session: &Session,
    decider: &dyn Decider,
    attempt: Attempt,
    (order, makes): (&Order, bool),
    facts: &mut Facts,
) -> Result<Option<Box<dyn DecisionLog>>, Error> {
    let cx = context(&session.job.name, &session.job.settings, attempt);
    let is_lost = facts.expects_a_record() && !order.allow_duplicates;
    let Some(log) = decider.open(&cx, makes && !is_lost).await? else {
        return if is_lost { Err(refuse_gone(facts)) } else { Ok(None) };
    };
    let id = log.id();
    tracing::debug!(log = %id, "opened the decision log");
    // 0. or 1. whose is it? Without harm to anybody
    let newest = log.look().await?;
    if session.right.get() == Right::Claimed {
        if !broken("C2") {
            superseded(session, newest.as_ref())?;
        }
    } else {
        facts.record = Some(Record { id, newest });
        hint(facts).map_or(Ok(()), Err)?;
    }
    failpoint("recovery-looked");
    tracing::debug!("looked whose the job is");
    Ok(Some(log))
}

/// Steps 3 and 4: makes sure that nobody else can decide, and notes in the facts what is decided.
///
/// # Errors
/// [`Superseded`](ErrorKind::Superseded), and those of the log.
pub(crate) async fn fence(session: &Session, log: &dyn DecisionLog, facts: &mut Facts) -> Result<(), Error> {
    let early = if broken("M8") { Some(log.read().await?) } else { None };
    log.fence().await?;
    if session.right.get() == Right::None {
        session.right.set(Right::Fenced);
    }
    failpoint("recovery-fenced");
    tracing::debug!("fenced all others");
    match early {
        Some(newest) => facts.record = Some(Record { id: log.id(), newest }),
        None => read(session, log, facts).await?,
    }
    failpoint("recovery-read");
    let recorded = facts.record.as_ref().and_then(|record| record.newest.as_ref()).map(|r| r.epoch);
    tracing::info!(log = %log.id(), recorded, "the decision log is this process's");
    Ok(())
}

/// Step 4: notes in the facts what is decided.
///
/// # Errors
/// [`Superseded`](ErrorKind::Superseded), and those of the log.
pub(crate) async fn read(session: &Session, log: &dyn DecisionLog, facts: &mut Facts) -> Result<(), Error> {
    let newest = log.read().await?;
    if session.right.get() == Right::Claimed && !broken("C4") {
        superseded(session, newest.as_ref())?;
    }
    facts.record = Some(Record { id: log.id(), newest });
    Ok(())
}

/// Step 6: says whose the job is, by the record that this process goes on from. Without one the first checkpoint does.
///
/// # Errors
/// If that is not known to be decided: this process yields.
pub(crate) async fn claim(
    session: &Session,
    log: &Log,
    attempt: Attempt,
    (facts, decision): (&Facts, &Decision),
    restored: Option<&(Arc<Manifest>, Digest)>,
) -> Result<(), Error> {
    let Some(record) = &facts.record else { return Ok(()) };
    if session.right.get() == Right::Claimed || broken("C5") {
        return Ok(());
    }
    if broken("C1") {
        session.right.set(Right::Claimed);
        return Ok(());
    }
    let claimed = match (decision, restored, &record.newest) {
        // also adopts what the directory decided
        (Decision::Restore { announce: None, .. }, Some((manifest, digest)), _) => {
            session.record(attempt, manifest.epoch, (digest.clone(), manifest.parent.clone()))
        }
        // what goes back or starts afresh leaves the record as it is until it has decided something [H16]
        (_, _, Some(newest)) => Progress { instance: session.instance, attempt, ..newest.clone() },
        (_, _, None) => return Ok(()),
    };
    match log.commit(&claimed).await {
        Decided::Committed => {
            session.right.set(Right::Claimed);
            tracing::info!(epoch = claimed.epoch, "claimed");
            Ok(())
        }
        Decided::Fenced => Err(yields(&session.job.name, None)),
        Decided::Unknown(_) if broken("C8") => {
            session.right.set(Right::Claimed);
            Ok(())
        }
        Decided::Unknown(error) => Err(yields(&session.job.name, Some(error))),
        Decided::Superseded => Err(lost(session, None)),
    }
}

/// # Errors
/// If the newest record is another instance's.
pub(crate) fn superseded(session: &Session, newest: Option<&Progress>) -> Result<(), Error> {
    match newest {
        Some(r) if r.instance != session.instance => Err(lost(session, Some(r))),
        _ => Ok(()),
    }
}

/// Another instance has the job.
pub(crate) fn lost(session: &Session, newest: Option<&Progress>) -> Error {
    let by = newest.map_or_else(String::new, |r| format!(" (its checkpoint {}, attempt {})", r.epoch, r.attempt));
    let text = format!(
        "another instance has taken the job `{}` over{by}: this one is superseded, and changes nothing any more. Do \
         not start it again unless it is the one to go on; then stop the other one first",
        session.job.name
    );
    Error::new(ErrorKind::Superseded, text)
}

/// This process cannot know whether another one is taking the job over.
pub(crate) fn yields(job: &str, why: Option<Error>) -> Error {
    let text = format!(
        "yielded: this process was ended before the job `{job}` was known to be its own, and another instance may be \
         taking it over. Start it again after a pause"
    );
    let error = Error::new(ErrorKind::Busy, text);
    match why {
        Some(why) => error.because(why),
        None => error,
    }
}
