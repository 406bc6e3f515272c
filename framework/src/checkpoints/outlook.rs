//! What the next start will do, as far as a directory tells: for those who look at it. The recovery table itself is
//! asked (`recover.rs`), twice, for the sinks have a word in it and are not asked here.

use crate::checkpoints::listing::Listing;
use crate::checkpoints::recover::{Decision, Facts, Restore, Shown, recover};
use crate::operator::{LogId, Visible};
use crate::{Attempt, Epoch, Error};
use std::collections::BTreeSet;

/// What the next start does when nothing is ordered.
#[derive(Debug)]
pub(crate) enum Outlook {
    /// Begins where the sources begin.
    Fresh,
    /// Goes on from a checkpoint.
    Restore {
        /// Its number.
        epoch: Epoch,
        /// The attempt that took it.
        attempt: Attempt,
        /// Refuses instead if a sink shows output of this later checkpoint.
        unless_shown: Option<Epoch>,
    },
    /// Asks the log of the sinks, which a directory cannot.
    Ask {
        /// Which log.
        log: LogId,
        /// The newest checkpoint that is decided whatever the log says.
        decided: Option<Epoch>,
    },
    /// Touches nothing; says this.
    Refuse(Error),
}

/// Judges a listing, in which these checkpoints were found to be damaged, and why.
pub(crate) fn outlook(place: &str, listing: &Listing, damaged: &[(Epoch, Attempt, String)]) -> Outlook {
    let mut facts = Facts::new(place.to_owned(), listing, Restore::Latest, false);
    for (epoch, attempt, why) in damaged {
        for found in facts.found.iter_mut().filter(|f| (f.epoch, f.attempt) == (*epoch, *attempt)) {
            found.damage = Some(why.clone());
        }
    }
    if let Some(log) = facts.newest_log() {
        return Outlook::Ask { log: log.clone(), decided: facts.known_decided() };
    }
    let (epoch, digest) = match recover(&facts) {
        Decision::Fresh { .. } => return Outlook::Fresh,
        Decision::Refuse(error) => return Outlook::Refuse(error),
        Decision::Restore { epoch, digest, .. } => (epoch, digest),
    };
    let attempt = listing.find(&digest).map(|m| m.attempt);
    let Some(attempt) = attempt else { return Outlook::Refuse(Error::refused("a checkpoint has no manifest")) };
    // the most that sinks can show: all of the newest, of the attempt that would be taken if it is among them
    let Some(newest) = facts.found.iter().map(|f| f.epoch).max() else { return Outlook::Fresh };
    let mut attempts = facts.found.iter().filter(|f| f.epoch == newest).map(|f| f.attempt);
    let by = if epoch == newest { Some(attempt) } else { attempts.next() };
    let visible = Visible { newest: Some((newest, BTreeSet::from_iter(by))), pending: Vec::new() };
    facts.sinks = vec![Shown { sink: String::new(), visible }];
    facts.sinks_show = true;
    let is_sure = matches!(recover(&facts), Decision::Restore { digest: other, .. } if other == digest);
    Outlook::Restore { epoch, attempt, unless_shown: (!is_sure).then_some(newest) }
}

#[cfg(test)]
mod tests {
    use super::super::listing::Listed;
    use super::super::listing::tests::listed;
    use super::super::manifest::tests::{attempt, manifest};
    use super::super::manifest::{Damage, DecisionMode, Manifest};
    use super::*;

    fn listing(epochs: &[Epoch]) -> Listing {
        let manifests = epochs.iter().map(|n| listed(manifest(*n, 1, None, &[])));
        Listing { manifests: manifests.collect(), ..Listing::default() }
    }

    fn broken(epoch: Epoch) -> (Epoch, Attempt, String) {
        (epoch, attempt(1), "checksum".into())
    }

    #[track_caller]
    fn check(listing: &Listing, damaged: &[(Epoch, Attempt, String)], expect: Result<(Epoch, Option<Epoch>), &str>) {
        match (outlook("/data", listing, damaged), expect) {
            (Outlook::Restore { epoch, unless_shown, .. }, Ok(expect)) => assert_eq!((epoch, unless_shown), expect),
            (Outlook::Refuse(error), Err(said)) => assert!(error.to_string().contains(said), "{error}"),
            (outlook, expect) => assert!(matches!(outlook, Outlook::Fresh) && expect == Err("fresh"), "{outlook:?}"),
        }
    }

    #[test]
    fn what_the_next_start_takes() {
        check(&listing(&[]), &[], Err("fresh"));
        check(&listing(&[3, 4, 5]), &[], Ok((5, None)));
        check(&listing(&[3, 4, 5]), &[broken(3)], Ok((5, None)));
        check(&listing(&[3, 4, 5]), &[broken(5)], Ok((4, Some(5))));
        check(&listing(&[3, 4, 5]), &[broken(5), broken(4)], Ok((3, Some(5))));
        check(&listing(&[5]), &[broken(5)], Err("is damaged"));
        check(&Listing { decided: vec![6], ..listing(&[4, 5]) }, &[], Err("checkpoint 6 was decided"));
        let mut unreadable = listing(&[4]);
        let content = Err(Damage::Unreadable("half of it".into()));
        unreadable.manifests.push(Listed { epoch: 5, attempt: attempt(2), content });
        check(&unreadable, &[], Ok((4, Some(5))));
    }

    #[test]
    fn where_sinks_decide_their_log_is_to_be_asked() {
        let log = LogId { system: "cluster".into(), name: "progress".into(), incarnation: None };
        let logged = |n| Manifest { decision: DecisionMode::Log(log.clone()), ..manifest(n, 1, None, &[]) };
        let manifests = [4, 5].map(|n| listed(logged(n))).into();
        let next = |decided| outlook("/data", &Listing { manifests, decided, ..Listing::default() }, &[]);
        let Outlook::Ask { log: asked, decided } = next(vec![]) else { panic!("it is not asked") };
        assert_eq!((asked, decided), (log, Some(4)));
    }

    #[test]
    fn of_two_the_one_that_is_taken_is_the_one_that_shows() {
        let mut both = listing(&[4, 5]);
        both.manifests.push(listed(manifest(5, 2, None, &[])));
        check(&both, &[], Ok((5, None)));
    }
}
