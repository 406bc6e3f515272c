//! The rows of the recovery table for jobs whose sinks decide: there is a record R in a log, read after fencing, and
//! what it names by its hash is decided, and nothing else.
//!
//! | seen | do |
//! |---|---|
//! | R names M(n) by its hash | restore n; a child of it that is here too came to nothing |
//! | no R; nothing here, or only M(0) | start fresh, genesis 0 [H7] |
//! | no R, but some M(n >= 1) or a marker | refuse |
//! | R older than what is known decided here (M(n) proves n-1 [I2], a marker n) | refuse |
//! | R newer than all that is here, or unknown here | refuse |
//! | M(n) damaged | refuse: its output may show |
//! | a final file newer than R, or of R's number and another attempt | refuse |
//! | the newest M is of another log, or this one was made again | refuse |
//! | the newest M is the directory's; no R, or one of an ancestor of it | the directory's rows: it is adopted |
//! | no sink decides, and the newest M is of a log | the directory's rows if it is marked as decided; else refuse |
//! | `--restore ID`, `--restore none` | where R, or its absence, says that output may show: with `--allow-duplicates` |
//! | `--restore ID` of one that was prepared, and is not known to be decided | refuse: its output would be left out |
//!
//! A job that goes back takes its first checkpoint under R's number plus one. Until that is decided R names what it
//! named before, so a crash leaves all as it was.

use crate::checkpoints::listing::Listing;
use crate::checkpoints::manifest::DecisionMode;
use crate::checkpoints::recover::{self, Decision, Facts, Found, Restore};
use crate::mutant::broken;
use crate::operator::{LogId, Progress};
use crate::{Epoch, Error};

/// What the log of a job's sinks says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Which log.
    pub(crate) id: LogId,
    /// The newest record, R.
    pub(crate) newest: Option<Progress>,
}

impl Record {
    /// Whether the newest checkpoint was decided by the directory, and what this log says does not contradict it.
    pub(super) fn is_behind_the_directory(&self, facts: &Facts) -> bool {
        let Some(newest) = facts.newest().filter(|_| facts.newest_log().is_none()) else { return false };
        match &self.newest {
            None => true,
            Some(r) => r.epoch < newest && facts.found.iter().any(|f| f.digest() == Some(&r.manifest)),
        }
    }
}

/// Whether there may be output of which nobody can be asked any more.
pub(super) fn is_lost(facts: &Facts) -> bool {
    match &facts.record {
        Some(record) => record.newest.is_none() && facts.newest_log().is_some() && facts.known_decided().is_some(),
        None => facts.newest_log().is_some() && facts.decided.iter().max() < facts.newest().as_ref(),
    }
}

/// Whether a checkpoint that R does not name was decided for sure. If not, what was written in its epoch may have come
/// to nothing: duplicates can be allowed, gaps cannot.
pub(super) fn was_decided(facts: &Facts, found: &Found) -> bool {
    let is_logged = found.link.as_ref().is_some_and(|link| matches!(link.mode, DecisionMode::Log(_)));
    let recorded = facts.record.as_ref().and_then(|record| record.newest.as_ref()).map(|r| r.epoch);
    !is_logged || recorded.is_some_and(|n| found.epoch < n) || facts.known_decided() >= Some(found.epoch)
}

/// What a record says to do.
pub(super) fn latest(facts: &Facts, record: &Record) -> Result<Decision, Error> {
    if let Some(log) = facts.newest_log().filter(|log| !log.is(&record.id)) {
        return Err(refuse_other_log(facts, record, log));
    }
    let known = facts.known_decided();
    let Some(r) = &record.newest else {
        return match (known, facts.shown()) {
            (Some(known), _) => Err(refuse_no_record(facts, record, known)),
            (None, Some(shows)) if !facts.allow_duplicates => Err(recover::refuse_output_alone(facts, shows)),
            (None, Some(shows)) => Ok(Decision::Fresh { first: shows.epoch.saturating_add(1) }),
            (None, None) => Ok(Decision::Fresh { first: 0 }),
        };
    };
    if r.version != Progress::VERSION {
        return Err(refuse_version(record, r));
    }
    if let Some(known) = known.filter(|known| *known > r.epoch) {
        return Err(refuse_older(facts, record, r, known));
    }
    if let Some(shows) = facts.shown().filter(|shows| shows.epoch > r.epoch) {
        return Err(recover::refuse_newer_output(facts, r.epoch, shows));
    }
    let is_it = |f: &&Found| f.digest() == Some(&r.manifest) || (broken("M6") && f.epoch == r.epoch);
    let Some(found) = facts.found.iter().find(is_it) else {
        let damaged = facts.found.iter().find(|f| f.epoch == r.epoch && f.link.is_none());
        return Err(match damaged {
            Some(found) => recover::refuse_damaged(facts, found, found.damage.as_deref().unwrap_or_default()),
            None => refuse_unknown_record(facts, record, r),
        });
    };
    if let Some(why) = &found.damage {
        if broken("H14") {
            return recover::fall_back(facts, found, why);
        }
        return Err(recover::refuse_damaged(facts, found, why));
    }
    let shown = facts.shown_at(r.epoch);
    if !shown.is_empty() && !shown.contains(&found.attempt) {
        return Err(recover::refuse_other_output(facts, r.epoch, &shown));
    }
    recover::restore(found, None)
}

/// The newest checkpoint that can be read and was decided for sure.
pub(crate) fn newest_decided(listing: &Listing) -> Option<Epoch> {
    let facts = Facts::new(String::new(), listing, Restore::Latest, false);
    let decided = facts.found.iter().filter(|f| f.damage.is_none() && was_decided(&facts, f));
    decided.map(|f| f.epoch).max()
}

/// A refusal that holds whatever becomes of a record that is not decided yet. Before anybody is fenced it is asked, so
/// that a mistaken start does not disturb a job that runs well.
pub(crate) fn hint(facts: &Facts) -> Option<Error> {
    let record = facts.record.as_ref()?;
    let is_sure = match &record.newest {
        None => true,
        Some(r) => facts.known_decided().is_some_and(|known| known > r.epoch),
    };
    match recover::recover(facts) {
        Decision::Refuse(error) if is_sure => Some(error),
        _ => None,
    }
}

impl Facts {
    /// Whether the log of the newest checkpoint has to be there.
    pub(crate) fn expects_a_record(&self) -> bool {
        self.newest_log().is_some() && self.known_decided().is_some()
    }
}

// ---- refusals -------------------------------------------------------------------------------------------------------

fn refuse_other_log(facts: &Facts, record: &Record, log: &LogId) -> Error {
    Error::refused(format!(
        "the newest checkpoint in {} was decided in {log}, but the program's sinks decide in {}: the log was deleted \
         and made again, or the program writes to another cluster now. What was decided since that checkpoint, if \
         anything, cannot be known here. Bring the old log back; or let the job go on from a checkpoint of this \
         directory in the new log, with the command `adopt` ({}), which may write some output again",
        facts.place,
        record.id,
        facts.ids()
    ))
}

/// The log is not there at all.
pub(crate) fn refuse_gone(facts: &Facts) -> Error {
    let log = facts.newest_log().map_or_else(|| "the decision log".to_owned(), LogId::to_string);
    Error::refused(format!(
        "{log}, in which the checkpoints in {} were decided, is gone: it was deleted, or the program writes to \
         another cluster now. Which output shows cannot be known here. Bring it back; or let the job go on from a \
         checkpoint of this directory in a new log, with the command `adopt` ({}), which may write some output \
         again",
        facts.place,
        facts.ids()
    ))
}

fn refuse_no_record(facts: &Facts, record: &Record, known: Epoch) -> Error {
    Error::refused(format!(
        "{} holds no record of this job, but {} knows that checkpoint {known} was decided: the log was emptied, or \
         made again. Which output shows cannot be known here. Bring the log back; or let the job go on from a \
         checkpoint of this directory, with the command `adopt` ({}), which may write some output again",
        record.id,
        facts.place,
        facts.ids()
    ))
}

fn refuse_older(facts: &Facts, record: &Record, r: &Progress, known: Epoch) -> Error {
    Error::refused(format!(
        "the newest record in {} says that checkpoint {} is decided, but {} knows of checkpoint {known}: the log was \
         put back to an earlier state, or has lost records. Going on would write again what was written since. Bring \
         the log back; or let the job go on from a checkpoint of this directory, with the command `adopt` ({}), which \
         may write some output again",
        record.id,
        r.epoch,
        facts.place,
        facts.ids()
    ))
}

fn refuse_unknown_record(facts: &Facts, record: &Record, r: &Progress) -> Error {
    let newest = facts.newest().map_or("there is none here".into(), |n| format!("the newest one here is {n}"));
    Error::refused(format!(
        "{} says that checkpoint {} with hash {} of attempt {} is decided, which {} does not hold ({newest}): the \
         directory was put back to an earlier state or copied, another instance ran on a copy, or another job has \
         this one's name; or it was renamed, and is to be started under its new name. Going on would write again what \
         is visible already. Name the --data-dir that belongs to it; \
         or give the job a name of its own; or let the job go on from a checkpoint of this directory, with the \
         command `adopt` ({}), which may write some output again, or with `--restore none --allow-duplicates` to read \
         everything again",
        record.id,
        r.epoch,
        r.manifest,
        r.attempt,
        facts.place,
        facts.ids()
    ))
}

fn refuse_version(record: &Record, r: &Progress) -> Error {
    Error::refused(format!(
        "the newest record in {} has version {}, this program reads version {}: use the millstream that wrote \
         it, or a newer one",
        record.id,
        r.version,
        Progress::VERSION
    ))
}

pub(super) fn refuse_no_log(facts: &Facts, log: &LogId) -> Error {
    Error::refused(format!(
        "the newest checkpoint in {} was to be decided in {log}, and whether it was only that log can say, but no \
         sink of the program decides there: a sink was taken out, or no longer writes exactly once. Start the program \
         with that sink once more and stop it in good order; or let it go on from an older checkpoint, with the \
         command `adopt` ({}), which may write some output again",
        facts.place,
        facts.ids()
    ))
}

pub(super) fn refuse_undecided(facts: &Facts, found: &Found) -> Error {
    let n = found.epoch;
    let known = facts.known_decided().map_or_else(|| "none".into(), |n| n.to_string());
    Error::refused(format!(
        "checkpoint {n} in {} was prepared, and nothing says that it was decided: going on from it could leave out \
         what was written in its epoch. The newest that was decided for sure is {known} ({})",
        facts.place,
        facts.ids()
    ))
}

pub(super) fn refuse_order(facts: &Facts) -> Error {
    let log = facts.newest_log().map_or_else(|| "a log".to_owned(), LogId::to_string);
    Error::refused(format!(
        "checkpoints in {} were decided in {log}, which cannot be asked which output shows: going back may write some \
         of it again. If that is meant, add `--allow-duplicates`",
        facts.place
    ))
}

#[cfg(test)]
mod tests {
    use super::super::recover::Restore;
    use super::super::recover::tests::Expect::{self, *};
    use super::super::recover::tests::{
        check, child_of, damaged, digest, facts, found, log, names, ordered, shows, unreadable, with_log,
    };
    use super::*;

    #[test]
    fn what_the_record_names_and_nothing_else() {
        let all = vec![found(4, 1), found(5, 2), found(5, 3)];
        check(&with_log(all.clone(), Some(names(5, 2))), Take(5, 2));
        check(&with_log(all.clone(), Some(names(5, 3))), Take(5, 3));
        // prepared, and came to nothing
        check(&with_log(all.clone(), Some(names(4, 1))), Take(4, 1));
        check(&with_log(all, Some(names(5, 9))), Refuse("says that checkpoint 5 with hash 5/9"));
    }

    #[test]
    fn no_record() {
        check(&with_log(vec![], None), Fresh(0));
        check(&with_log(vec![found(0, 1), found(0, 2)], None), Fresh(0));
        check(&with_log(vec![found(1, 1)], None), Refuse("knows that checkpoint 0 was decided"));
        let marked = Facts { decided: vec![0], ..with_log(vec![found(0, 1)], None) };
        check(&marked, Refuse("checkpoint 0 was decided"));
        let visible = Facts { sinks: vec![shows(3, &[1])], ..with_log(vec![], None) };
        let [no, allowed] = ordered(visible, Restore::Latest);
        check(&no, Refuse("holds no checkpoint"));
        check(&allowed, Fresh(4));
    }

    #[test]
    fn a_log_put_back() {
        check(&with_log(vec![found(4, 1), found(6, 1)], Some(names(4, 1))), Refuse("but /data knows of checkpoint 5"));
        let marked = Facts { decided: vec![5], ..with_log(vec![found(4, 1), found(5, 1)], Some(names(4, 1))) };
        check(&marked, Refuse("the log was put back"));
        let shown = Facts { sinks: vec![shows(5, &[1])], ..with_log(vec![found(4, 1)], Some(names(4, 1))) };
        check(&shown, Refuse("shows output up to epoch 5"));
        let other = Facts { sinks: vec![shows(4, &[2])], ..with_log(vec![found(4, 1)], Some(names(4, 1))) };
        check(&other, Refuse("another history"));
    }

    #[test]
    fn a_directory_put_back_or_copied() {
        check(&with_log(vec![found(4, 1)], Some(names(7, 1))), Refuse("(the newest one here is 4)"));
        check(&with_log(vec![], Some(names(7, 1))), Refuse("(there is none here)"));
    }

    #[test]
    fn a_damaged_one_is_never_passed_over() {
        for bad in [damaged(5, 1), unreadable(5, 1)] {
            check(&with_log(vec![found(4, 1), bad], Some(names(5, 1))), Refuse("checkpoint 5 in /data is damaged"));
        }
        check(&with_log(vec![found(4, 1), damaged(5, 1)], Some(names(4, 1))), Take(4, 1));
    }

    #[test]
    fn another_log() {
        let other = |change: fn(&mut LogId)| {
            let mut facts = with_log(vec![found(4, 1)], Some(names(4, 1)));
            facts.record.iter_mut().for_each(|record| change(&mut record.id));
            facts
        };
        check(&other(|id| id.incarnation = Some("2".into())), Refuse("deleted and made again"));
        check(&other(|id| id.system = "elsewhere".into()), Refuse("another cluster"));
        check(&other(|id| id.incarnation = None), Take(4, 1));
        let lost = |decided| Facts { decided, ..with_log(vec![found(3, 1), found(4, 1)], None) };
        let [no, allowed] = ordered(lost(vec![4]), Restore::Id(4));
        check(&no, Refuse("cannot be asked"));
        check(&allowed, Back(4, 1, 5));
        // what nobody knows to be decided could leave something out
        let [_, allowed] = ordered(lost(vec![]), Restore::Id(4));
        check(&allowed, Refuse("The newest that was decided for sure is 3"));
        let [_, allowed] = ordered(lost(vec![]), Restore::Id(3));
        check(&allowed, Back(3, 1, 5));
    }

    #[test]
    fn a_record_of_a_later_version() {
        let later = Progress { version: 2, ..names(4, 1) };
        check(&with_log(vec![found(4, 1)], Some(later)), Refuse("has version 2"));
    }

    #[test]
    fn sinks_that_decide_can_be_added() {
        let by_directory = |newest| {
            let record = Some(Record { id: log(), newest });
            Facts { record, ..facts(vec![found(4, 1), found(5, 1)], vec![]) }
        };
        check(&by_directory(None), Take(5, 1));
        check(&by_directory(Some(names(5, 1))), Take(5, 1));
        check(&by_directory(Some(names(4, 1))), Take(5, 1));
        check(&by_directory(Some(names(3, 9))), Refuse("knows of checkpoint 5"));
        check(&by_directory(Some(names(8, 1))), Refuse("another job has this one's name"));
    }

    #[test]
    fn sinks_that_decide_can_be_taken_out_once_all_is_decided() {
        let without = |decided| {
            let facts = with_log(vec![found(4, 1), found(5, 1)], None);
            Facts { record: None, decided, ..facts }
        };
        check(&without(vec![4]), Refuse("no sink of the program decides there"));
        check(&without(vec![4, 5]), Take(5, 1));
        let [no, allowed] = ordered(without(vec![4]), Restore::Id(4));
        check(&no, Refuse("cannot be asked"));
        check(&allowed, Back(4, 1, 6));
    }

    #[test]
    fn orders() {
        let all = || with_log(vec![found(3, 1), found(4, 1), found(5, 1)], Some(names(4, 1)));
        let order = |restore, no: Expect, allowed: Expect| {
            let [facts, with_leave] = ordered(all(), restore);
            check(&facts, no);
            check(&with_leave, allowed);
        };
        // 5 came to nothing: its number is free
        order(Restore::Id(4), Take(4, 1), Take(4, 1));
        order(Restore::Id(3), Refuse("going back to checkpoint 3"), Back(3, 1, 5));
        let undecided = "going on from it could leave out";
        order(Restore::Id(5), Refuse(undecided), Refuse(undecided));
        order(Restore::None, Refuse("`progress` of cluster (id 1) says that checkpoint 4 was decided"), Fresh(5));
        // of two with one number the one the record descends from
        let chain = vec![found(3, 1), found(3, 2), child_of(digest(3, 2), 4, 1)];
        let back = Facts { restore: Restore::Id(3), allow_duplicates: true, ..with_log(chain, Some(names(4, 1))) };
        check(&back, Back(3, 2, 5));
    }

    #[test]
    fn before_anybody_is_fenced_only_what_is_sure_is_refused() {
        assert!(hint(&with_log(vec![found(1, 1)], None)).is_some());
        assert!(hint(&with_log(vec![found(6, 1)], Some(names(4, 1)))).is_some());
        // what is not decided yet may come to nothing
        assert!(hint(&with_log(vec![found(4, 1)], Some(names(7, 1)))).is_none());
        assert!(hint(&with_log(vec![found(4, 1)], Some(names(4, 1)))).is_none());
        assert!(hint(&with_log(vec![], None)).is_none());
    }
}
