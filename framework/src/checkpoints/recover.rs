//! What to resume from: the recovery table as a pure function of what was found. Who looks (listing, verifying, asking
//! the sinks) is the runtime; what is cleared away afterwards is in `collect.rs`.
//!
//! Without a sink that decides, a manifest in place *is* the decision (listing it made its name durable [H5]). So there
//! is no record to compare with, and the only witnesses that a directory was put back, copied or half deleted are the
//! sinks' own output and the `decided-<n>` markers. The rows, newest M(n):
//!
//! | seen | do |
//! |---|---|
//! | nothing at all | start fresh, genesis 0 [H7] |
//! | M(n) | restore n |
//! | a final file newer than n, or of n and of an attempt that is not M(n)'s | refuse [H13] |
//! | a marker newer than n | refuse |
//! | no manifest, but visible output | refuse; with `--allow-duplicates` start fresh above it |
//! | M(n) damaged | the newest intact one, if no sink shows anything newer than that; else refuse [H14, H15] |
//! | several M(n) | see below |
//! | `--restore none` | start fresh above all there is; over visible output only with `--allow-duplicates` |
//! | `--restore ID` | that one; if a sink shows newer epochs only with `--allow-duplicates`; unknown, damaged: refuse |
//!
//! **Going back is a decision itself** [H16]: whoever restores an older checkpoint, or starts afresh above visible
//! output, takes a checkpoint at once, before records flow, under a number above everything known
//! ([`Decision::Restore`]'s `announce`, [`Decision::Fresh`]'s `first`). Until it is decided nothing may be cleared away
//! that was decided before: neither manifests nor the sinks' pending files. A crash before that leaves all as it was.
//! After it the newest manifest is the announced one, so recoveries from then on are to use [`Restore::Latest`], or
//! each would go back again. Falling back from a damaged checkpoint is going back, too: reusing its number would meet
//! its marker and its output.
//!
//! **Several manifests of the newest number.** One process at a time never makes them: a manifest that is in place when
//! a recovery lists is restored and not retaken, and one that was lost in a power loss is not in place. They mean that
//! the lock did not hold (a network file system) or that directories were merged. Then the output tells: the attempt
//! that shows is the one others may have built on, and its sibling has shown nothing. If nothing of n shows and they
//! have the same parent, they are two ways to take the same step, of which none was finished: either is right, and the
//! smallest hash is taken so that a crash in this recovery finds the same one. (Not the newest by the clock: clocks
//! jump.) In all other cases they are two histories, each with decided epochs of its own, and no choice keeps both:
//! refuse, unless the sinks are at least once anyway.
//!
//! **With a sink that decides** there is a record R, and what it names is decided and nothing else: those rows are in
//! `record.rs`. Recovery goes by the mode that stands in the newest manifest, so that such a sink can be added (the
//! directory's newest checkpoint is adopted by a record that names it) and taken away (once its last checkpoint is
//! marked as decided).

use crate::checkpoints::listing::{FileName, Listed, Listing};
use crate::checkpoints::manifest::{DecisionMode, Manifest};
use crate::checkpoints::record::{self, Record};
use crate::mutant::broken;
use crate::operator::{Digest, LogId, Visible};
use crate::{Attempt, Epoch, Error};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What the user wants to resume from: `--restore`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Restore {
    /// The newest decided checkpoint.
    #[default]
    Latest,
    /// None: read everything again.
    None,
    /// This one.
    Id(Epoch),
}

impl Restore {
    /// The checkpoint that this is likely to be, as far as a listing tells; what others know can make it another one.
    pub(crate) fn likely(self, listing: &Listing) -> Option<(&Manifest, &Digest)> {
        match self {
            Self::Latest => listing.intact().last(),
            Self::Id(id) => listing.intact().rfind(|(manifest, _)| manifest.epoch == id),
            Self::None => None,
        }
    }
}

impl fmt::Display for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::None => f.write_str("none"),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

impl FromStr for Restore {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            "none" => Ok(Self::None),
            id => {
                id.parse().map(Self::Id).map_err(|_| format!("`{id}` is not `latest`, `none` or a checkpoint's number"))
            }
        }
    }
}

/// Everything the decision rests on.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The job directory, for people.
    pub(crate) place: String,
    /// Manifests in place.
    pub(crate) found: Vec<Found>,
    /// Numbers of `decided-<n>` markers.
    pub(crate) decided: Vec<Epoch>,
    /// What each sink found of earlier attempts.
    pub(crate) sinks: Vec<Shown>,
    /// Whether any sink makes epochs visible as they are decided; false if all are at least once, or there is none.
    pub(crate) sinks_show: bool,
    /// What the log of the sinks says, if the program has sinks that decide.
    pub(crate) record: Option<Record>,
    /// What the user wants.
    pub(crate) restore: Restore,
    /// Whether the user accepts duplicates.
    pub(crate) allow_duplicates: bool,
}

/// What a sink found of earlier attempts.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// The name of the sink.
    pub(crate) sink: String,
    /// What it found.
    pub(crate) visible: Visible,
}

/// A manifest in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its number, by its name.
    pub(crate) epoch: Epoch,
    /// Its attempt, by its name.
    pub(crate) attempt: Attempt,
    /// Its identity and its parent's, if it can be read.
    pub(crate) link: Option<Link>,
    /// None if it can be restored; else why not.
    pub(crate) damage: Option<String>,
}

/// A manifest's place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its identity.
    pub(crate) digest: Digest,
    /// Its parent's.
    pub(crate) parent: Option<Digest>,
    /// Where it was, or was to be, decided.
    pub(crate) mode: DecisionMode,
}

/// What recovery does.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Start from the sources' beginnings; the genesis has this number. 0 in a virgin directory, else above all there
    /// is.
    Fresh {
        /// Number of the genesis.
        first: Epoch,
    },
    /// Load this checkpoint, finish its committables [H1], go on.
    Restore {
        /// Its identity.
        digest: Digest,
        /// Its number.
        epoch: Epoch,
        /// If the job goes back: the number of the checkpoint to take at once, before records flow.
        announce: Option<Epoch>,
    },
    /// Touch nothing; a person has to decide.
    Refuse(Error),
}

impl Facts {
    /// What a directory holds; the sinks' part is to be added.
    pub(crate) fn new(place: String, listing: &Listing, restore: Restore, allow_duplicates: bool) -> Self {
        let (found, decided, sinks) = Default::default();
        let mut facts =
            Self { place, found, decided, sinks, sinks_show: false, record: None, restore, allow_duplicates };
        facts.list(listing);
        facts
    }

    /// Takes what the directory holds from another listing.
    pub(crate) fn list(&mut self, listing: &Listing) {
        self.found = listing.manifests.iter().map(Found::of).collect();
        self.decided = listing.decided.clone();
    }

    /// The checkpoint that the record names, if it was not found.
    pub(crate) fn missing(&self) -> Option<&Digest> {
        let named = &self.record.as_ref()?.newest.as_ref()?.manifest;
        self.recorded().is_none().then_some(named)
    }

    /// The same of a directory in which a job is being renamed: the checkpoint with which it is given its name is one
    /// of the job as it was, and was decided, or not, where that decides.
    pub(crate) fn with_heir(mut self, listing: &Listing, job: &str) -> Self {
        let heirs = listing.intact().filter(|(manifest, _)| manifest.job != job);
        for (former, digest) in heirs.filter_map(|(manifest, digest)| Some((manifest.formerly.as_ref()?, digest))) {
            let links = self.found.iter_mut().filter_map(|found| found.link.as_mut());
            links.filter(|link| link.digest == *digest).for_each(|link| link.mode = former.decision.clone());
        }
        self
    }

    /// Notes that a checkpoint failed its verification. Verify what `recover` says to restore, and if it is damaged
    /// note it here and ask again.
    pub(crate) fn note_damage(&mut self, digest: &Digest, why: &str) {
        for found in self.found.iter_mut().filter(|f| f.digest() == Some(digest)) {
            found.damage = Some(why.to_owned());
        }
    }

    pub(super) fn newest(&self) -> Option<Epoch> {
        self.found.iter().map(|f| f.epoch).max()
    }

    /// The log that the newest checkpoint that can be read was to be decided in; none if that was the directory.
    pub(super) fn newest_log(&self) -> Option<&LogId> {
        let readable = self.found.iter().filter_map(|f| Some((f.epoch, &f.link.as_ref()?.mode)));
        let logs = readable.map(|(epoch, mode)| match mode {
            DecisionMode::Directory => (epoch, None),
            DecisionMode::Log(id) => (epoch, Some(id)),
        });
        logs.max_by_key(|(epoch, log)| (*epoch, log.is_some())).and_then(|(_, log)| log)
    }

    /// The newest checkpoint that is decided by the directory's own evidence. Of a log's a manifest in place proves its
    /// predecessor [I2], and a marker itself.
    pub(super) fn known_decided(&self) -> Option<Epoch> {
        let proven = match self.newest_log() {
            Some(_) => self.newest().and_then(|n| n.checked_sub(1)),
            None => self.newest(),
        };
        proven.max(self.decided.iter().copied().max())
    }

    fn intact(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(|f| f.damage.is_none())
    }

    /// The newest epoch of which output shows or may show.
    pub(super) fn shown(&self) -> Option<Shows<'_>> {
        let of_sink = |s: &'_ Shown| s.visible.newest.as_ref().map(|(epoch, _)| *epoch);
        let sinks = self.sinks.iter().filter_map(|s| Some(Shows { epoch: of_sink(s)?, who: Witness::Sink(&s.sink) }));
        let decided = self
            .record
            .as_ref()
            .and_then(|record| Some(Shows { epoch: record.newest.as_ref()?.epoch, who: Witness::Log(&record.id) }));
        sinks.chain(decided).max_by_key(|shows| shows.epoch)
    }

    /// Attempts of which `epoch` shows, as far as that is a sink's newest.
    pub(super) fn shown_at(&self, epoch: Epoch) -> BTreeSet<Attempt> {
        let newest = self.sinks.iter().filter_map(|s| s.visible.newest.as_ref());
        newest.filter(|(n, _)| *n == epoch).flat_map(|(_, attempts)| attempts.iter().copied()).collect()
    }

    /// The next number: after the record, if that is the newest known; else above everything that was ever used for a
    /// decision.
    fn next(&self) -> Epoch {
        let recorded = self.record.as_ref().and_then(|record| record.newest.as_ref()).map(|r| r.epoch);
        let shown = self.shown().map(|shows| shows.epoch);
        if let Some(n) = recorded.filter(|_| recorded >= self.known_decided() && recorded >= shown) {
            return n.saturating_add(1);
        }
        let known = self.newest().into_iter().chain(self.decided.iter().copied()).chain(shown);
        known.max().map_or(0, |n| n.saturating_add(1))
    }

    /// The manifest that the record names.
    fn recorded(&self) -> Option<&Found> {
        let digest = &self.record.as_ref()?.newest.as_ref()?.manifest;
        self.found.iter().find(|f| f.digest() == Some(digest))
    }

    /// The checkpoints a user can choose from, in words.
    pub(super) fn ids(&self) -> String {
        let ids: BTreeSet<_> = self.intact().map(|f| f.epoch).collect();
        let ids: Vec<_> = ids.iter().map(Epoch::to_string).collect();
        if ids.is_empty() { "no intact one is there".into() } else { format!("there are {}", ids.join(", ")) }
    }
}

impl Found {
    fn of(listed: &Listed) -> Self {
        let Listed { epoch, attempt, content } = listed;
        let link = content.as_ref().ok().map(|(m, d)| Link {
            digest: d.clone(),
            parent: m.parent.clone(),
            mode: m.decision.clone(),
        });
        let name = FileName::Manifest(*epoch, *attempt);
        let damage = content.as_ref().err().map(|damage| format!("{name}: {damage}"));
        Self { epoch: *epoch, attempt: *attempt, link, damage }
    }

    pub(super) fn digest(&self) -> Option<&Digest> {
        self.link.as_ref().map(|link| &link.digest)
    }
}

/// Output that shows, or may show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shows<'a> {
    pub(super) epoch: Epoch,
    who: Witness<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Witness<'a> {
    Sink(&'a str),
    Log(&'a LogId),
}

impl fmt::Display for Shows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            Witness::Sink(sink) => write!(f, "the sink `{sink}` shows output up to epoch {}", self.epoch),
            Witness::Log(id) => write!(f, "{id} says that checkpoint {} was decided, with its output", self.epoch),
        }
    }
}

/// The recovery table; see the head of this file.
pub(crate) fn recover(facts: &Facts) -> Decision {
    let decided = match facts.restore {
        Restore::Latest => latest(facts),
        Restore::None => none(facts),
        Restore::Id(id) => chosen(facts, id),
    };
    decided.unwrap_or_else(Decision::Refuse)
}

/// The newest decided one.
fn latest(facts: &Facts) -> Result<Decision, Error> {
    match (&facts.record, facts.newest_log()) {
        (Some(record), _) if !record.is_behind_the_directory(facts) => record::latest(facts, record),
        (None, Some(log)) if facts.decided.iter().max() < facts.newest().as_ref() => {
            Err(record::refuse_no_log(facts, log))
        }
        _ => by_directory(facts),
    }
}

/// The newest one that is in place.
fn by_directory(facts: &Facts) -> Result<Decision, Error> {
    let newest = facts.newest();
    if let Some(marker) = facts.decided.iter().copied().max().filter(|n| newest.is_none_or(|newest| *n > newest)) {
        return Err(refuse_marker(facts, marker));
    }
    let Some(newest) = newest else {
        return match facts.shown() {
            Some(shows) if !facts.allow_duplicates => Err(refuse_output_alone(facts, shows)),
            _ => Ok(Decision::Fresh { first: facts.next() }),
        };
    };
    if let Some(shows) = facts.shown().filter(|shows| shows.epoch > newest) {
        return Err(refuse_newer_output(facts, newest, shows));
    }
    let found = choose(facts, newest)?;
    match &found.damage {
        None => restore(found, None),
        Some(why) => fall_back(facts, found, why),
    }
}

/// None on the user's order.
fn none(facts: &Facts) -> Result<Decision, Error> {
    match facts.shown() {
        Some(shows) if !facts.allow_duplicates => Err(refuse_none_over_output(shows)),
        _ if record::is_lost(facts) && !facts.allow_duplicates => Err(record::refuse_order(facts)),
        _ => Ok(Decision::Fresh { first: facts.next() }),
    }
}

/// A certain one on the user's order.
fn chosen(facts: &Facts, id: Epoch) -> Result<Decision, Error> {
    if !facts.found.iter().any(|f| f.epoch == id) {
        return Err(refuse_unknown(facts, id));
    }
    if let Some(shows) = facts.shown().filter(|shows| shows.epoch > id && !facts.allow_duplicates) {
        return Err(refuse_going_back(id, shows));
    }
    if record::is_lost(facts) && !facts.allow_duplicates {
        return Err(record::refuse_order(facts));
    }
    let shown = facts.shown_at(id);
    let recorded = facts.recorded().filter(|f| f.epoch == id);
    let found =
        match recorded.or_else(|| ancestor(facts, id)).filter(|f| shown.is_empty() || shown.contains(&f.attempt)) {
            Some(found) => found,
            None => choose(facts, id)?,
        };
    if let Some(why) = &found.damage {
        return Err(refuse_damaged(facts, found, why));
    }
    if recorded.is_none() && !record::was_decided(facts, found) {
        return Err(record::refuse_undecided(facts, found));
    }
    let is_newest = facts.next() == id.saturating_add(1);
    let is_decided = facts.record.is_none() || recorded.is_some();
    restore(found, (!is_newest || !is_decided).then(|| facts.next()))
}

/// The only ancestor of that number that what the record names has; without one the newest checkpoints, if they agree.
fn ancestor(facts: &Facts, id: Epoch) -> Option<&Found> {
    let newest = facts.newest().filter(|n| *n > id)?;
    let by_digest = |digest: &Digest| facts.found.iter().find(|f| f.digest() == Some(digest));
    let parent = |f: &&Found| f.link.as_ref()?.parent.as_ref().and_then(by_digest);
    let recorded = facts.recorded();
    let lines = facts.found.iter().filter(|f| recorded.map_or(f.epoch == newest, |recorded| *f == recorded));
    let mut all = lines.filter_map(|f| std::iter::successors(Some(f), parent).find(|f| f.epoch == id));
    let first = all.next()?;
    all.all(|f| f == first).then_some(first)
}

/// Of the manifests of one number (there is one) the one to restore, damaged or not.
fn choose(facts: &Facts, epoch: Epoch) -> Result<&Found, Error> {
    let all: Vec<_> = facts.found.iter().filter(|f| f.epoch == epoch).collect();
    let shown = facts.shown_at(epoch);
    if shown.len() > 1 && !facts.allow_duplicates {
        return Err(refuse_two_outputs(facts, epoch, &shown));
    }
    if !shown.is_empty() {
        let its = all.into_iter().filter(|f| shown.contains(&f.attempt));
        return first_of(its).ok_or_else(|| refuse_other_output(facts, epoch, &shown));
    }
    let parent = |f: &Found| f.link.as_ref().map(|link| link.parent.clone());
    let are_one_step = all.windows(2).all(|w| parent(w[0]).is_some() && parent(w[0]) == parent(w[1]));
    if !are_one_step && facts.sinks_show {
        return Err(refuse_two_histories(facts, epoch, &all));
    }
    first_of(all.into_iter()).ok_or_else(|| refuse_unknown(facts, epoch))
}

/// An intact one before damaged ones, and of these the smallest hash.
fn first_of<'a>(all: impl Iterator<Item = &'a Found>) -> Option<&'a Found> {
    all.min_by_key(|f| (f.damage.is_some(), f.digest(), f.attempt))
}

/// M(n) cannot be used. An older one may take its place only if nobody has seen what came after that [H14, H15].
pub(super) fn fall_back(facts: &Facts, damaged: &Found, why: &str) -> Result<Decision, Error> {
    let older = facts.intact().map(|f| f.epoch).filter(|n| *n < damaged.epoch).max();
    let may = |n: &Epoch| facts.shown().is_none_or(|shows| shows.epoch <= *n) || broken("H14") || broken("H15");
    let Some(older) = older.filter(may) else {
        return Err(refuse_damaged(facts, damaged, why));
    };
    let found = choose(facts, older)?;
    match &found.damage {
        None => restore(found, Some(facts.next())),
        Some(why) => Err(refuse_damaged(facts, found, why)),
    }
}

pub(super) fn restore(found: &Found, announce: Option<Epoch>) -> Result<Decision, Error> {
    let digest = found.digest().cloned().ok_or_else(|| Error::refused("an intact checkpoint has no identity"))?;
    Ok(Decision::Restore { digest, epoch: found.epoch, announce })
}

// ---- refusals: what was found, where, what going on could do, what to do --------------------------------------------

fn refuse_marker(facts: &Facts, marker: Epoch) -> Error {
    let newest = facts.newest().map_or("there is no checkpoint at all".into(), |n| format!("the newest one is {n}"));
    Error::refused(format!(
        "{} notes that checkpoint {marker} was decided, but {newest}: manifests were deleted, or the directory was put \
         back in part. Going on would write again what was written since. Put the missing files back; or start with \
         `--restore ID --allow-duplicates` ({}), or with `--restore none --allow-duplicates` to read everything again",
        facts.place,
        facts.ids()
    ))
}

pub(super) fn refuse_output_alone(facts: &Facts, shows: Shows<'_>) -> Error {
    Error::refused(format!(
        "{shows}, but {} holds no checkpoint: it is not the directory this output was made with, or it was emptied. \
         Starting from nothing would write all of it again. Name the right \
         --data-dir; or give the sink an empty place to write to; or start with `--allow-duplicates`",
        facts.place
    ))
}

pub(super) fn refuse_newer_output(facts: &Facts, newest: Epoch, shows: Shows<'_>) -> Error {
    let epoch = shows.epoch;
    Error::refused(format!(
        "{shows}, but the newest checkpoint in {} is {newest}: the directory was put \
         back to an earlier state or copied, or another instance ran on a copy. Going on would write the epochs up to \
         {epoch} a second time. Bring back the directory that belongs to this output; or start with `--restore ID \
         --allow-duplicates` ({}) and have these records twice",
        facts.place,
        facts.ids()
    ))
}

pub(super) fn refuse_other_output(facts: &Facts, epoch: Epoch, shown: &BTreeSet<Attempt>) -> Error {
    Error::refused(format!(
        "the sinks show epoch {epoch} of attempt {}, but checkpoint {epoch} in {} is of attempt {}: the directory was \
         put back or copied, and another history has been written since. Going on would write some records twice and, \
         for the two do not end at the same offsets, leave others out. Bring back the directory that belongs to this \
         output; or start with `--restore none --allow-duplicates` and read everything again",
        names(shown),
        facts.place,
        names(&facts.found.iter().filter(|f| f.epoch == epoch).map(|f| f.attempt).collect())
    ))
}

fn refuse_two_outputs(facts: &Facts, epoch: Epoch, shown: &BTreeSet<Attempt>) -> Error {
    Error::refused(format!(
        "the sinks show epoch {epoch} of more than one attempt ({}): two instances of the job have run at once, and \
         their output holds records twice. {} knows one of them only. Make sure that only one runs, on a local file \
         system where its lock holds; then start with `--restore {epoch} --allow-duplicates`, or with an empty output",
        names(shown),
        facts.place
    ))
}

fn refuse_two_histories(facts: &Facts, epoch: Epoch, all: &[&Found]) -> Error {
    Error::refused(format!(
        "{} holds {} checkpoints {epoch} that do not continue the same one (attempts {}), and no output tells which of \
         them counts: two instances have used the directory at once, or two directories were merged. Going on from \
         either would lose or double what the other decided. Move the manifest of one of them out of the directory; \
         or start with `--restore none`, and with `--allow-duplicates` if there is output",
        facts.place,
        all.len(),
        names(&all.iter().map(|f| f.attempt).collect())
    ))
}

pub(super) fn refuse_damaged(facts: &Facts, damaged: &Found, why: &str) -> Error {
    let shown = match facts.shown() {
        Some(shows) => format!(", and {shows}"),
        None => String::new(),
    };
    Error::refused(format!(
        "checkpoint {} in {} is damaged ({why}){shown}: going on from an older one would write the epochs after that \
         again, and going on without one would read everything again. Put the file back from a copy; or choose an \
         older checkpoint with `--restore ID` ({}), or `--restore none`, and add `--allow-duplicates` if what they \
         write again shows already",
        damaged.epoch,
        facts.place,
        facts.ids()
    ))
}

fn refuse_unknown(facts: &Facts, id: Epoch) -> Error {
    Error::refused(format!(
        "there is no checkpoint {id} in {}: {}. Choose one of these, or `--restore latest`",
        facts.place,
        facts.ids()
    ))
}

fn refuse_going_back(id: Epoch, shows: Shows<'_>) -> Error {
    Error::refused(format!(
        "{shows}: going back to checkpoint {id} would write the epochs \
         after {id} again. If that is meant, add `--allow-duplicates`; or give the sink an empty place to write to"
    ))
}

fn refuse_none_over_output(shows: Shows<'_>) -> Error {
    Error::refused(format!(
        "{shows}: `--restore none` would write all of it again. If that is \
         meant, add `--allow-duplicates`; or give the sink an empty place to write to"
    ))
}

fn names(attempts: &BTreeSet<Attempt>) -> String {
    attempts.iter().map(Attempt::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::manifest::tests::attempt;
    use super::*;
    use crate::operator::{Instance, Progress};
    use proptest::prelude::*;

    /// A manifest of attempt `by`, and what names it: its number and its attempt. The parent is of the number before
    /// and of attempt 1, the usual one.
    pub(in crate::checkpoints) fn found(epoch: Epoch, by: u8) -> Found {
        let parent = epoch.checked_sub(1).map(|n| digest(n, 1));
        Found {
            epoch,
            attempt: attempt(by),
            link: Some(Link { digest: digest(epoch, by), parent, mode: DecisionMode::Directory }),
            damage: None,
        }
    }

    pub(in crate::checkpoints) fn digest(epoch: Epoch, by: u8) -> Digest {
        Digest(format!("{epoch}/{by}"))
    }

    pub(in crate::checkpoints) fn damaged(epoch: Epoch, by: u8) -> Found {
        Found { damage: Some("checksum".into()), ..found(epoch, by) }
    }

    pub(in crate::checkpoints) fn unreadable(epoch: Epoch, by: u8) -> Found {
        Found { link: None, ..damaged(epoch, by) }
    }

    pub(in crate::checkpoints) fn child_of(parent: Digest, epoch: Epoch, by: u8) -> Found {
        Found { link: Some(Link { parent: Some(parent), ..found(epoch, by).link.unwrap() }), ..found(epoch, by) }
    }

    pub(in crate::checkpoints) fn shows(epoch: Epoch, by: &[u8]) -> Shown {
        let attempts = by.iter().map(|i| attempt(*i)).collect();
        Shown { sink: "out".into(), visible: Visible { newest: Some((epoch, attempts)), pending: vec![] } }
    }

    fn shows_nothing() -> Shown {
        Shown { sink: "quiet".into(), visible: Visible::default() }
    }

    /// Facts with an exactly-once sink.
    pub(in crate::checkpoints) fn facts(found: Vec<Found>, sinks: Vec<Shown>) -> Facts {
        let place = "/data".into();
        let (restore, allow_duplicates) = (Restore::Latest, false);
        Facts { place, found, decided: vec![], sinks, sinks_show: true, record: None, restore, allow_duplicates }
    }

    /// The log of the tests.
    pub(in crate::checkpoints) fn log() -> LogId {
        LogId { system: "cluster".into(), name: "progress".into(), incarnation: Some("1".into()) }
    }

    /// A manifest that was, or was to be, decided in the log.
    pub(in crate::checkpoints) fn logged(mut found: Found) -> Found {
        found.link.iter_mut().for_each(|link| link.mode = DecisionMode::Log(log()));
        found
    }

    /// R of an epoch and the attempt that took it.
    pub(in crate::checkpoints) fn names(epoch: Epoch, by: u8) -> Progress {
        Progress {
            version: Progress::VERSION,
            job: "words".into(),
            instance: Instance(uuid::Uuid::nil()),
            attempt: attempt(by),
            epoch,
            manifest: digest(epoch, by),
            parent: None,
        }
    }

    /// Facts of a job whose sinks decide.
    pub(in crate::checkpoints) fn with_log(found: Vec<Found>, newest: Option<Progress>) -> Facts {
        let record = Some(Record { id: log(), newest });
        Facts { record, ..facts(found.into_iter().map(logged).collect(), vec![]) }
    }

    #[derive(Debug, PartialEq)]
    pub(in crate::checkpoints) enum Expect {
        Fresh(Epoch),
        Take(Epoch, u8),
        Back(Epoch, u8, Epoch),
        Refuse(&'static str),
    }
    use Expect::*;

    #[track_caller]
    pub(in crate::checkpoints) fn check(facts: &Facts, expect: Expect) {
        match (recover(facts), expect) {
            (Decision::Fresh { first }, Fresh(n)) if first == n => {}
            (Decision::Restore { digest: d, announce: None, .. }, Take(n, by)) if d == digest(n, by) => {}
            (Decision::Restore { digest: d, announce: Some(a), .. }, Back(n, by, next))
                if (&d, a) == (&digest(n, by), next) => {}
            (Decision::Refuse(error), Refuse(text)) => {
                assert_eq!(error.kind(), crate::ErrorKind::Refused);
                assert!(error.to_string().contains(text), "{error}");
            }
            (decision, expect) => panic!("expected {expect:?}, got {decision:?}"),
        }
    }

    pub(in crate::checkpoints) fn ordered(facts: Facts, restore: Restore) -> [Facts; 2] {
        [false, true].map(|allow_duplicates| Facts { restore, allow_duplicates, ..facts.clone() })
    }

    #[test]
    fn nothing_at_all() {
        check(&facts(vec![], vec![]), Fresh(0));
        check(&facts(vec![], vec![shows_nothing()]), Fresh(0));
        let [no, allowed] = ordered(facts(vec![], vec![]), Restore::None);
        check(&no, Fresh(0));
        check(&allowed, Fresh(0));
    }

    #[test]
    fn the_newest_manifest() {
        check(&facts(vec![found(0, 1)], vec![shows_nothing()]), Take(0, 1));
        check(&facts(vec![found(5, 2), found(4, 1), found(3, 1)], vec![shows(5, &[2])]), Take(5, 2));
        check(&facts(vec![found(4, 1), found(5, 2)], vec![shows(4, &[7]), shows_nothing()]), Take(5, 2));
        let marked = Facts { decided: vec![4, 5], ..facts(vec![found(5, 2)], vec![]) };
        check(&marked, Take(5, 2));
    }

    #[test]
    fn a_directory_put_back_or_copied() {
        check(
            &facts(vec![found(5, 1)], vec![shows(6, &[1])]),
            Refuse("shows output up to epoch 6, but the newest checkpoint in /data is 5"),
        );
        check(&facts(vec![found(5, 1)], vec![shows_nothing(), shows(5, &[2])]), Refuse("another history"));
        let both = [shows(5, &[1]), shows(5, &[2])];
        check(&facts(vec![found(5, 1)], both.to_vec()), Refuse("more than one attempt"));
        check(&facts(vec![found(5, 1)], vec![shows(5, &[1, 2])]), Refuse("more than one attempt"));
        // The flag alone does not turn `latest` into something older than what shows.
        let [_, allowed] = ordered(facts(vec![found(5, 1)], vec![shows(6, &[1])]), Restore::Latest);
        check(&allowed, Refuse("--restore ID --allow-duplicates"));
        let [_, allowed] = ordered(facts(vec![found(5, 1)], vec![shows(5, &[1, 2])]), Restore::Latest);
        check(&allowed, Take(5, 1));
    }

    #[test]
    fn a_marker_newer_than_all_manifests() {
        let marked = |found| Facts { decided: vec![6], ..facts(found, vec![]) };
        check(&marked(vec![found(5, 1)]), Refuse("checkpoint 6 was decided, but the newest one is 5"));
        check(&marked(vec![]), Refuse("there is no checkpoint at all"));
        let [_, allowed] = ordered(marked(vec![]), Restore::Latest);
        check(&allowed, Refuse("--restore none --allow-duplicates"));
        let [ordered, _] = ordered(marked(vec![found(5, 1)]), Restore::Id(5));
        check(&ordered, Back(5, 1, 7));
    }

    #[test]
    fn output_without_any_manifest() {
        let [no, allowed] = ordered(facts(vec![], vec![shows(8, &[1])]), Restore::Latest);
        check(&no, Refuse("`out` shows output up to epoch 8, but /data holds no checkpoint"));
        check(&allowed, Fresh(9));
    }

    #[test]
    fn the_newest_is_damaged() {
        for bad in [damaged(5, 1), unreadable(5, 1)] {
            let world = |sinks| facts(vec![found(3, 1), found(4, 1), bad.clone()], sinks);
            check(
                &world(vec![shows(5, &[1])]),
                Refuse("checkpoint 5 in /data is damaged (checksum), and the sink `out`"),
            );
            check(&world(vec![shows(5, &[2])]), Refuse("another history"));
            check(&world(vec![shows(4, &[1])]), Back(4, 1, 6));
            check(&world(vec![shows(4, &[2])]), Refuse("another history"));
            check(&world(vec![shows_nothing()]), Back(4, 1, 6));
            check(&Facts { sinks_show: false, ..world(vec![]) }, Back(4, 1, 6));
            check(&Facts { decided: vec![5], ..world(vec![]) }, Back(4, 1, 6));
        }
        let two = |sinks| facts(vec![found(3, 1), damaged(4, 1), damaged(5, 1)], sinks);
        check(&two(vec![shows(4, &[1])]), Refuse("there are 3"));
        check(&two(vec![shows(3, &[1])]), Back(3, 1, 6));
        check(&facts(vec![damaged(0, 1)], vec![]), Refuse("no intact one is there"));
        check(&facts(vec![damaged(4, 1), damaged(5, 1)], vec![shows_nothing()]), Refuse("no intact one"));
    }

    #[test]
    fn damage_that_verifying_finds() {
        let mut world = facts(vec![found(4, 1), found(5, 1)], vec![]);
        check(&world, Take(5, 1));
        world.note_damage(&digest(5, 1), "state/x is missing");
        check(&world, Back(4, 1, 6));
        world.note_damage(&digest(4, 1), "state/x is missing");
        check(&world, Refuse("state/x is missing"));
    }

    #[test]
    fn two_of_the_newest_number() {
        let siblings = vec![found(4, 1), found(5, 3), found(5, 2)];
        check(&facts(siblings.clone(), vec![shows(5, &[3])]), Take(5, 3));
        check(&facts(siblings.clone(), vec![shows(5, &[2])]), Take(5, 2));
        check(&facts(siblings.clone(), vec![shows(5, &[2, 3])]), Refuse("two instances"));
        check(&facts(siblings.clone(), vec![shows(5, &[9])]), Refuse("another history"));
        check(&facts(siblings, vec![shows(4, &[1])]), Take(5, 2));
        let histories = vec![found(5, 1), child_of(digest(4, 2), 5, 2)];
        check(&facts(histories.clone(), vec![shows(5, &[2])]), Take(5, 2));
        check(&facts(histories.clone(), vec![shows(4, &[2])]), Refuse("holds 2 checkpoints 5"));
        check(&Facts { sinks_show: false, ..facts(histories, vec![]) }, Take(5, 1));
        // A sibling that cannot be read may be of another history.
        let broken = vec![found(4, 1), found(5, 1), unreadable(5, 2)];
        check(&facts(broken.clone(), vec![shows(5, &[1])]), Take(5, 1));
        check(&facts(broken.clone(), vec![shows(5, &[2])]), Refuse("damaged"));
        check(&facts(broken.clone(), vec![]), Refuse("holds 2"));
        check(&Facts { sinks_show: false, ..facts(broken, vec![]) }, Take(5, 1));
        let same_step = vec![found(4, 1), damaged(5, 1), found(5, 2)];
        check(&facts(same_step, vec![shows(4, &[1])]), Take(5, 2));
    }

    #[test]
    fn none_on_order() {
        let world = |sinks| ordered(facts(vec![found(5, 1), damaged(7, 1)], sinks), Restore::None);
        let [no, allowed] = world(vec![shows(6, &[1])]);
        check(&no, Refuse("`out` shows output up to epoch 6: `--restore none`"));
        check(&allowed, Fresh(8));
        check(&world(vec![shows(9, &[1])])[1], Fresh(10));
        check(&world(vec![shows_nothing()])[0], Fresh(8));
        check(&Facts { decided: vec![11], ..world(vec![])[0].clone() }, Fresh(12));
    }

    #[test]
    fn a_chosen_one_on_order() {
        let all = vec![found(3, 1), found(4, 1), found(5, 1)];
        let world = |id, sinks| ordered(facts(all.clone(), sinks), Restore::Id(id));
        check(&world(5, vec![shows(5, &[1])])[0], Take(5, 1));
        let [no, allowed] = world(3, vec![shows(5, &[1])]);
        check(&no, Refuse("going back to checkpoint 3 would write the epochs after 3 again"));
        check(&allowed, Back(3, 1, 6));
        check(&world(3, vec![shows(3, &[1])])[0], Back(3, 1, 6));
        check(&Facts { sinks_show: false, ..world(3, vec![])[0].clone() }, Back(3, 1, 6));
        for facts in world(9, vec![]) {
            check(&facts, Refuse("no checkpoint 9 in /data: there are 3, 4, 5"));
        }
        // The epochs that show may be newer than all manifests.
        let [no, allowed] = world(5, vec![shows(8, &[2])]);
        check(&no, Refuse("going back"));
        check(&allowed, Back(5, 1, 9));
        // Duplicates are allowed, gaps are not: what shows of 5 may end before M(5) does.
        for facts in world(5, vec![shows(5, &[2])]) {
            check(&facts, Refuse("leave others out"));
        }
        let [no, allowed] = world(5, vec![shows(5, &[1, 2])]);
        check(&no, Refuse("more than one attempt"));
        check(&allowed, Take(5, 1));
    }

    #[test]
    fn a_chosen_one_that_is_damaged_or_not_the_only_one() {
        let world = |all| Facts { restore: Restore::Id(4), ..facts(all, vec![]) };
        check(&world(vec![found(3, 1), damaged(4, 1), found(5, 1)]), Refuse("there are 3, 5"));
        check(&world(vec![damaged(4, 1)]), Refuse("no intact one"));
        // The newest one's ancestor, though the other's hash is smaller.
        check(&world(vec![found(4, 0), found(4, 1), found(5, 1)]), Back(4, 1, 6));
        let apart = vec![found(4, 1), child_of(digest(3, 2), 4, 2)];
        check(&world(apart.clone()), Refuse("holds 2"));
        let torn = [apart, vec![child_of(digest(4, 1), 5, 1), child_of(digest(4, 2), 5, 2)]].concat();
        check(&world(torn), Refuse("holds 2"));
    }

    #[test]
    fn orders_are_read() {
        assert_eq!("latest".parse(), Ok(Restore::Latest));
        assert_eq!("none".parse(), Ok(Restore::None));
        assert_eq!("17".parse(), Ok(Restore::Id(17)));
        assert!("newest".parse::<Restore>().unwrap_err().contains("`newest` is not"));
    }

    /// What the model's `recover` (shared/model/src/steps.rs) says in worlds of files only, and what its `fall_back`
    /// would do if the rule `refuse_damaged` were off.
    #[derive(Debug, PartialEq)]
    enum Model {
        Fresh,
        Restore(Epoch, u8),
        UnknownEpochs,
        Damaged { older: Option<(Epoch, u8)> },
    }

    /// A manifest is (n, attempt, intact), a final file (n, attempt).
    fn model(seen: &[(Epoch, u8, bool)], last: &[(Epoch, u8)]) -> Model {
        let newest = seen.iter().max_by_key(|m| m.0);
        let other = |x: &(Epoch, u8), m: &(Epoch, u8, bool)| x.0 == m.0 && x.1 != m.1;
        let unknown = |x: &(Epoch, u8)| newest.is_none_or(|m| x.0 > m.0 || other(x, m));
        if last.iter().any(unknown) {
            return Model::UnknownEpochs;
        }
        match newest {
            None => Model::Fresh,
            Some((n, by, true)) => Model::Restore(*n, *by),
            Some((below, ..)) => {
                let older = seen.iter().filter(|m| m.0 < *below && m.2).max_by_key(|m| m.0);
                Model::Damaged { older: older.map(|m| (m.0, m.1)) }
            }
        }
    }

    /// What the model says in worlds with Kafka: of a manifest it knows number and identity, here the attempt.
    fn model_with_log(seen: &[(Epoch, u8, bool)], r: Option<(Epoch, u8)>) -> Model {
        let newest = seen.iter().map(|m| m.0).max();
        let proven = newest.and_then(|n| n.checked_sub(1));
        match r {
            None if proven.is_some() => Model::UnknownEpochs,
            None => Model::Fresh,
            Some(r) if proven > Some(r.0) => Model::UnknownEpochs,
            Some(r) => match seen.iter().find(|m| (m.0, m.1) == r) {
                Some((n, by, true)) => Model::Restore(*n, *by),
                Some(_) => Model::Damaged { older: None },
                None => Model::UnknownEpochs,
            },
        }
    }

    /// What a sink says of its final files.
    fn witness(last: &[(Epoch, u8)]) -> Visible {
        let newest = last.iter().map(|x| x.0).max();
        let attempts = |n| last.iter().filter(|x| x.0 == n).map(|x| attempt(x.1)).collect();
        Visible { newest: newest.map(|n| (n, attempts(n))), pending: vec![] }
    }

    fn any_files() -> impl Strategy<Value = Vec<(Epoch, u8)>> {
        proptest::collection::vec((0..7u64, 0..3u8), 0..4)
    }

    fn any_order() -> impl Strategy<Value = Restore> {
        prop_oneof![Just(Restore::Latest), Just(Restore::None), (0..8u64).prop_map(Restore::Id)]
    }

    prop_compose! {
        /// Any facts at all, siblings, several sinks and a log included.
        fn any_facts()(
            is_logged in proptest::collection::vec(any::<bool>(), 6),
            newest in proptest::option::of(proptest::option::of((0..6u64, 0..3u8))),
            seen in proptest::collection::btree_map((0..6u64, 0..3u8), (0..3u8, 0..3u8), 0..6),
            sinks in proptest::collection::vec(any_files(), 0..3), decided in proptest::collection::vec(0..7u64, 0..2),
            sinks_show in any::<bool>(), restore in any_order(), allow_duplicates in any::<bool>(),
        ) -> Facts {
            let make = |((n, by), (parent, state)): ((Epoch, u8), (u8, u8))| match state {
                0 => unreadable(n, by),
                1 => damaged(n, by),
                _ => n.checked_sub(1).map_or_else(|| found(n, by), |p| child_of(digest(p, parent), n, by)),
            };
            let sinks_show = sinks_show || sinks.iter().any(|last| !last.is_empty());
            let shown = |last: &Vec<_>| Shown { sink: "out".into(), visible: witness(last) };
            let mode = |(found, is_logged): (Found, bool)| if is_logged { logged(found) } else { found };
            let found = seen.into_iter().map(make).zip(is_logged).map(mode).collect();
            let record = newest.map(|newest| Record { id: log(), newest: newest.map(|(n, by)| names(n, by)) });
            Facts {
                decided, sinks_show, record, restore, allow_duplicates,
                ..facts(found, sinks.iter().map(shown).collect())
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_decides_as_the_model_does(
            seen in proptest::collection::btree_map(0..6u64, (0..3u8, any::<bool>()), 0..5), last in any_files(),
        ) {
            let seen: Vec<_> = seen.into_iter().map(|(n, (by, intact))| (n, by, intact)).collect();
            let all = seen.iter().map(|(n, by, intact)| if *intact { found(*n, *by) } else { damaged(*n, *by) });
            let visible = witness(&last);
            let decision = recover(&facts(all.collect(), vec![Shown { sink: "out".into(), visible }]));
            match (model(&seen, &last), decision) {
                (Model::Fresh, Decision::Fresh { first: 0 }) | (Model::UnknownEpochs, Decision::Refuse(_)) => {}
                (Model::Restore(n, by), Decision::Restore { digest: d, announce: None, .. }) => {
                    prop_assert_eq!(d, digest(n, by));
                }
                // The model always refuses; going back is allowed where nobody can tell.
                (Model::Damaged { older: Some((n, by)) }, Decision::Restore { digest: d, announce, .. }) => {
                    prop_assert_eq!(d, digest(n, by));
                    prop_assert_eq!(announce, seen.last().map(|m| m.0 + 1));
                    prop_assert!(last.iter().all(|x| x.0 < n || *x == (n, by)));
                }
                (Model::Damaged { older }, Decision::Refuse(_)) => {
                    prop_assert!(older.is_none_or(|m| last.iter().any(|x| x.0 > m.0 || (x.0 == m.0 && x.1 != m.1))));
                }
                (model, decision) => prop_assert!(false, "{model:?}, but {decision:?}"),
            }
        }

        #[test]
        fn with_a_log_it_decides_as_the_model_does(
            seen in proptest::collection::btree_map((0..6u64, 0..3u8), any::<bool>(), 0..6),
            r in proptest::option::of((0..7u64, 0..3u8)),
        ) {
            let seen: Vec<_> = seen.into_iter().map(|((n, by), intact)| (n, by, intact)).collect();
            let all = seen.iter().map(|(n, by, intact)| if *intact { found(*n, *by) } else { damaged(*n, *by) });
            let decision = recover(&with_log(all.collect(), r.map(|(n, by)| names(n, by))));
            match (model_with_log(&seen, r), decision) {
                (Model::Fresh, Decision::Fresh { first: 0 })
                | (Model::UnknownEpochs | Model::Damaged { .. }, Decision::Refuse(_)) => {}
                (Model::Restore(n, by), Decision::Restore { digest: d, announce: None, .. }) => {
                    prop_assert_eq!(d, digest(n, by));
                }
                (model, decision) => prop_assert!(false, "{model:?}, but {decision:?}"),
            }
        }

        #[test]
        fn no_decision_without_leave_doubles_or_forgets(facts in any_facts()) {
            let shown = facts.shown().map(|shows| shows.epoch);
            let known = facts.next();
            match recover(&facts) {
                Decision::Fresh { first } => {
                    let has_log = facts.record.is_some() && facts.newest_log().is_some();
                    prop_assert!(first == known || has_log && first == 0 && shown.is_none());
                    prop_assert!(facts.allow_duplicates || shown.is_none());
                    // Never silently from empty; of a log only a genesis that came to nothing.
                    let nothing = facts.newest().is_none_or(|n| has_log && n == 0) && facts.decided.is_empty();
                    prop_assert!(facts.restore == Restore::None || nothing);
                }
                Decision::Restore { digest, epoch, announce } => {
                    let found = facts.found.iter().find(|f| f.digest() == Some(&digest));
                    prop_assert!(found.is_some_and(|f| f.damage.is_none() && f.epoch == epoch));
                    prop_assert!(facts.allow_duplicates || shown.is_none_or(|n| n <= epoch));
                    // Numbering never goes back, and only who stands on the newest number goes on without a word.
                    prop_assert_eq!(announce.unwrap_or(epoch + 1), known);
                    // Where a log decided, its record and nothing else says what goes on without a word.
                    let named = facts.record.as_ref().and_then(|record| record.newest.as_ref());
                    let is_adopted = facts.newest_log().is_none();
                    let is_marked = facts.record.is_none() && facts.decided.contains(&epoch);
                    let is_named = named.is_some_and(|r| r.manifest == digest);
                    prop_assert!(announce.is_some() || is_adopted || is_marked || is_named || facts.allow_duplicates);
                    // What may have come to nothing is not gone on from, with or without leave.
                    prop_assert!(is_named || found.is_some_and(|f| record::was_decided(&facts, f)));
                    let by = found.map(|f| f.attempt);
                    let at = facts.shown_at(epoch);
                    prop_assert!(at.is_empty() || by.is_some_and(|by| at.contains(&by)));
                    prop_assert!(facts.restore != Restore::None);
                }
                Decision::Refuse(error) => prop_assert_eq!(error.kind(), crate::ErrorKind::Refused),
            }
        }

        /// A crash before anything was decided meets the same facts in any order and must decide the same.
        #[test]
        fn the_order_of_the_facts_does_not_matter(facts in any_facts()) {
            let mut other = facts.clone();
            other.found.reverse();
            other.decided.reverse();
            match (recover(&facts), recover(&other)) {
                (Decision::Fresh { first: a }, Decision::Fresh { first: b }) => prop_assert_eq!(a, b),
                (Decision::Restore { digest: a, .. }, Decision::Restore { digest: b, .. }) => prop_assert_eq!(a, b),
                (Decision::Refuse(_), Decision::Refuse(_)) => {}
                (a, b) => prop_assert!(false, "{a:?} and {b:?}"),
            }
        }
    }
}
