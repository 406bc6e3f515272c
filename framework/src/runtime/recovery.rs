//! A recovery, steps 2 to 7 as numbered in `checkpoints/`: what to resume from, whether the program fits it, and
//! putting the sinks and the directory in order. What it decides is decided by pure functions there.

use super::attempt::{Order, Session};
use super::ownership;
use crate::checkpoints::{
    Decision, Facts, Listing, Log, Manifest, Removal, Shown, Start, Store, Verification, clean_after_restore, recover,
};
use crate::failpoint::failpoint;
use crate::key::KEY_GROUPS;
use crate::mutant::broken;
use crate::operator::{DecisionLog, Digest, SinkContext, Traffic, Visible};
use crate::state::snapshot::OperatorStates;
use crate::topology::{Kind, Plan, SinkNode};
use crate::{Attempt, Epoch, Error, clock};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an attempt starts from.
pub(crate) struct Recovered {
    /// None: from the beginning of all sources.
    pub(crate) manifest: Option<Arc<Manifest>>,
    pub(crate) digest: Option<Digest>,
    /// The number of the first barrier to come, and whether records wait for it.
    pub(crate) first: Epoch,
    pub(crate) start: Start,
    /// How each keyed operator's rows are to be read, by name.
    pub(crate) operators: Vec<OperatorStates>,
    /// Sinks that are to be cleaned when the first checkpoint is decided and not before [H16].
    pub(crate) uncleaned: Vec<(usize, Visible)>,
    /// Where checkpoints are decided.
    pub(crate) log: Log,
    /// What earlier attempts have left, on its way out.
    pub(crate) removal: Removal,
}

fn sinks(plan: &Plan) -> impl Iterator<Item = (usize, &str, &dyn SinkNode)> {
    plan.graph.nodes.iter().enumerate().filter_map(|(i, node)| match &node.kind {
        Kind::Sink(sink) => Some((i, node.name.as_deref().unwrap_or_default(), sink.as_ref())),
        _ => None,
    })
}

fn sink_context(job: &str, sink: &str, parallelism: usize, attempt: Attempt) -> SinkContext {
    SinkContext { job: job.into(), sink: sink.into(), subtask: 0, parallelism, attempt, traffic: Traffic::default() }
}

fn sink_error(error: crate::BoxError, name: &str) -> Error {
    Error::from_user(error, format!("sink `{name}`"))
}

/// What a recovery may do to find out what to resume from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing that others notice: nobody is fenced, and of a log of sinks counts what it says without that, a decision
    /// under way included.
    Look,
    /// Fence all others.
    Take,
    /// The same, and make the log of the sinks if there is none.
    Make,
}

/// What a job is to resume from, before anything is changed.
pub(crate) struct Examined {
    listing: Listing,
    /// What the sinks show, by node.
    shown: Vec<(usize, Visible)>,
    facts: Facts,
    pub(crate) decision: Decision,
    pub(crate) restored: Option<(Arc<Manifest>, Digest)>,
    operators: Vec<OperatorStates>,
    log: Log,
}

/// Recovers a job from what was listed (step 2): nothing runs yet, and when this returns all is as the restored
/// checkpoint says.
pub(crate) async fn recover_job(
    session: &Session,
    plan: &Plan,
    attempt: Attempt,
    order: &Order,
    listing: Listing,
) -> Result<Recovered, Error> {
    let examined = examine(session, plan, (attempt, order), listing, Access::Make).await?;
    settle(session, plan, attempt, examined).await
}

impl Examined {
    /// The checkpoint that continues what is to be restored, though nothing has run; none if nothing is.
    pub(crate) fn continued(&self, attempt: Attempt) -> Option<Manifest> {
        let (manifest, digest) = self.restored.as_ref()?;
        let epoch = match self.decision {
            Decision::Restore { announce: Some(next), .. } => next,
            _ => manifest.epoch.saturating_add(1),
        };
        Some(manifest.continued(digest, (epoch, attempt), self.log.mode(), clock::wall_ms()))
    }
}

/// Steps 2 to 5: finds out what to resume from, of what was listed.
pub(crate) async fn examine(
    session: &Session,
    plan: &Plan,
    (attempt, order): (Attempt, &Order),
    listing: Listing,
    access: Access,
) -> Result<Examined, Error> {
    let store = &session.store;
    let decider = ownership::decider(plan)?;
    let likely = order.restore.likely(&listing).map(|checkpoint| store.verify(checkpoint)).transpose()?;
    let mut facts = Facts::new(store.data_dir().display().to_string(), &listing, order.restore, order.allow_duplicates);
    facts = facts.with_heir(&listing, store.job());
    let mut shown = Vec::new();
    for (node, visible) in inspect(plan, store.job(), attempt).await? {
        facts.sinks_show |= visible.newest.is_some();
        let sink = plan.graph.nodes[node].name.clone().unwrap_or_default();
        facts.sinks.push(Shown { sink, visible: visible.clone() });
        shown.push((node, visible));
    }
    failpoint("recovery-listed");
    // 0., 3. and 4. what was decided is known, and nobody else can decide any more if this process takes the job
    let log = match decider {
        Some(decider) => {
            ownership::look(session, &*decider, attempt, (order, access == Access::Make), &mut facts).await?
        }
        None => None,
    };
    let mut again = None;
    if let Some(log) = log.as_deref().filter(|_| access != Access::Look) {
        ownership::fence(session, log, &mut facts).await?;
        again = list_again(session, log, &mut facts).await?;
    }
    let newest = again.as_ref().unwrap_or(&listing);
    let log = log.map_or_else(|| Log::Directory(store.clone()), Log::Sinks);
    if broken("C6") {
        ownership::claim(session, &log, attempt, (&facts, &Decision::Fresh { first: 0 }), None).await?;
    }
    // 5. decide, and verify before anything is touched
    let decision = decide(store, newest, &mut facts, likely)?;
    let restored = match &decision {
        Decision::Restore { digest, .. } => newest.find(digest).map(|m| (Arc::new(m.clone()), digest.clone())),
        _ => None,
    };
    let operators = fit(plan, restored.as_ref().map(|(manifest, _)| &**manifest))?;
    failpoint("recovery-decided");
    Ok(Examined { listing, shown, facts, decision, restored, operators, log })
}

/// Steps 6 and 7: the job is this process's, and all is as the restored checkpoint says.
pub(crate) async fn settle(
    session: &Session,
    plan: &Plan,
    attempt: Attempt,
    examined: Examined,
) -> Result<Recovered, Error> {
    let Examined { listing, shown, facts, decision, restored, operators, log } = examined;
    let store = &session.store;
    let manifest = restored.as_ref().map(|(manifest, _)| manifest.clone());
    // 6. from here on the job is this process's
    if !broken("C7") {
        ownership::claim(session, &log, attempt, (&facts, &decision), restored.as_ref()).await?;
    }
    failpoint("recovery-claimed");
    // 7. finish what was decided, then clear away what is over
    if let Some(manifest) = manifest.as_ref().filter(|_| !broken("H1")) {
        commit(plan, store.job(), attempt, manifest).await?;
    }
    failpoint("recovery-committed");
    let listing = if broken("C7") { store.list()? } else { listing };
    store.collect(&clean_after_restore(&listing, &decision))?;
    let Some(start) = Start::of(&decision) else {
        return Err(Error::refused("a refusal cannot be started from"));
    };
    let (first, goes_back) = match start {
        Start::Take(first) => (first, first > 0),
        Start::After(epoch) => (epoch + 1, false),
    };
    let mut uncleaned = shown;
    if broken("H9") {
        uncleaned = inspect(plan, store.job(), attempt).await?;
    }
    if !goes_back {
        clean(plan, store.job(), attempt, std::mem::take(&mut uncleaned)).await?;
    }
    if broken("C7") {
        ownership::claim(session, &log, attempt, (&facts, &decision), restored.as_ref()).await?;
    }
    let removal = store.remove_live_except(attempt)?;
    failpoint("recovery-cleared");
    let digest = restored.map(|(_, digest)| digest);
    Ok(Recovered { manifest, digest, first, start, operators, uncleaned, log, removal })
}

/// Another listing, if the record names a checkpoint that is not in the first one: where the lock does not hold, one
/// may have been decided since. The record is read after each listing, so that it is never the older of the two.
async fn list_again(session: &Session, log: &dyn DecisionLog, facts: &mut Facts) -> Result<Option<Listing>, Error> {
    let mut again = None;
    while let Some(missing) = facts.missing().cloned() {
        let listing = session.store.list()?;
        facts.list(&listing);
        again = Some(listing);
        ownership::read(session, log, facts).await?;
        if facts.missing() == Some(&missing) {
            break;
        }
    }
    Ok(again)
}

/// What the sinks show, by node.
async fn inspect(plan: &Plan, job: &str, attempt: Attempt) -> Result<Vec<(usize, Visible)>, Error> {
    let mut shown = Vec::new();
    for (node, name, sink) in sinks(plan) {
        let cx = sink_context(job, name, plan.parallelism(node), attempt);
        shown.push((node, sink.inspect(&cx).await.map_err(|e| sink_error(e, name))?));
    }
    Ok(shown)
}

/// Asks the recovery table until what it says to restore is intact. What is likely to be restored is being verified
/// already.
fn decide(
    store: &Store,
    listing: &Listing,
    facts: &mut Facts,
    mut likely: Option<Verification>,
) -> Result<Decision, Error> {
    for (epoch, why) in facts.found.iter().filter_map(|f| f.damage.as_ref().map(|why| (f.epoch, why))) {
        tracing::warn!(checkpoint = epoch, why, "a checkpoint is damaged");
    }
    loop {
        let (digest, epoch, announce) = match recover(facts) {
            Decision::Refuse(error) => return Err(error),
            fresh @ Decision::Fresh { .. } => return Ok(fresh),
            Decision::Restore { digest, epoch, announce } => (digest, epoch, announce),
        };
        let manifest = listing.find(&digest);
        let manifest = manifest.ok_or_else(|| Error::refused(format!("checkpoint {epoch} has no manifest")))?;
        let verification = match likely.take().filter(|likely| likely.is_of(&digest)) {
            Some(likely) => likely,
            None => store.verify((manifest, &digest))?,
        };
        let Err(damage) = verification.end()? else { return Ok(Decision::Restore { digest, epoch, announce }) };
        let why = damage.to_string();
        tracing::warn!(checkpoint = epoch, why, "a checkpoint is damaged");
        facts.note_damage(&digest, &why);
    }
}

/// Recovery 7, also when the first checkpoint of a job that went back is decided.
pub(crate) async fn clean(
    plan: &Plan,
    job: &str,
    attempt: Attempt,
    listed: Vec<(usize, Visible)>,
) -> Result<(), Error> {
    for (node, visible) in listed {
        if let Some((_, name, sink)) = sinks(plan).find(|(i, ..)| *i == node) {
            let cx = sink_context(job, name, plan.parallelism(node), attempt);
            sink.clean(&cx, visible).await.map_err(|e| sink_error(e, name))?;
        }
    }
    Ok(())
}

/// Makes visible what the restored checkpoint holds, however often this is done.
async fn commit(plan: &Plan, job: &str, attempt: Attempt, manifest: &Manifest) -> Result<(), Error> {
    let mut committables: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for sink in &manifest.sinks {
        committables.entry(&sink.name).or_default().push(sink.committable.clone());
    }
    for (node, name, sink) in sinks(plan) {
        if let Some(committables) = committables.remove(name) {
            let cx = sink_context(job, name, plan.parallelism(node), attempt);
            sink.commit(&cx, committables).await.map_err(|e| sink_error(e, name))?;
        }
    }
    Ok(())
}

/// Whether the program can read the items of a checkpoint.
fn fit_items(plan: &Plan, manifest: &Manifest) -> Result<(), Error> {
    for items in &manifest.items {
        let its = plan.graph.nodes.iter().find_map(|node| match &node.kind {
            Kind::Operator(operator) if node.name.as_ref() == Some(&items.operator) => Some(operator),
            _ => None,
        });
        its.ok_or_else(|| orphan(manifest.epoch, "items of", &items.operator))?.layout().check(items)?;
    }
    Ok(())
}

/// The program lacks what a checkpoint holds.
fn orphan(epoch: Epoch, what: &str, name: &str) -> Error {
    Error::refused(format!(
        "checkpoint {epoch} holds {what} `{name}`, which the program does not have: put it back, or start with an empty --data-dir"
    ))
}

/// Whether the program can go on from a checkpoint, and how each operator's rows are to be read.
pub(crate) fn fit(plan: &Plan, manifest: Option<&Manifest>) -> Result<Vec<OperatorStates>, Error> {
    let nodes = &plan.graph.nodes;
    let has =
        |name: &str, what: fn(&Kind) -> bool| nodes.iter().any(|n| n.name.as_deref() == Some(name) && what(&n.kind));
    if let Some(manifest) = manifest {
        let orphan = |what: &str, name: &str| orphan(manifest.epoch, what, name);
        if manifest.key_groups != KEY_GROUPS {
            let (was, is) = (manifest.key_groups, KEY_GROUPS);
            return Err(Error::refused(format!(
                "the checkpoint has {was} key groups and the program {is}: use the program that took it"
            )));
        }
        if let Some(source) = manifest.sources.iter().find(|s| !has(&s.name, |k| matches!(k, Kind::Source(_)))) {
            return Err(orphan("the offsets of source", &source.name));
        }
        if let Some(sink) = manifest.sinks.iter().find(|s| !has(&s.name, |k| matches!(k, Kind::Sink(_)))) {
            return Err(orphan("undelivered output of sink", &sink.name));
        }
        if let Some(op) = manifest.operators.iter().find(|o| !has(&o.operator, |k| matches!(k, Kind::Process(_)))) {
            return Err(orphan("the state of", &op.operator));
        }
    }
    manifest.map_or(Ok(()), |m| fit_items(plan, m))?;
    let known = manifest.map_or(&[][..], |m| &m.operators[..]);
    let tables = known.iter().flat_map(|o| o.states.iter().flat_map(|s| s.table).chain([o.table]));
    let mut next = tables.map(|table| u32::from(table) + 1).max().unwrap_or(0);
    let mut operators = Vec::new();
    for node in nodes {
        let (Some(name), Kind::Process(process)) = (&node.name, &node.kind) else { continue };
        let old = known.iter().find(|o| o.operator == *name);
        operators.push(process.layout().reconcile(name, &mut next, old)?);
    }
    Ok(operators)
}
