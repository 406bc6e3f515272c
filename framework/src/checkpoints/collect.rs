//! What may be deleted, as pure functions of a listing: after a decision (protocol step 6) and after a restore
//! (recovery step 7). `Store::collect` executes the plans. The rule above all others is I4: nothing that a recovery may
//! need is ever deleted. So nothing here goes by age or by number alone, and whatever cannot be read is taken to name
//! everything.

use crate::Epoch;
use crate::checkpoints::listing::{FileName, Listed, Listing, StateFile};
use crate::checkpoints::manifest::Manifest;
use crate::checkpoints::recover::Decision;
use crate::operator::Digest;
use std::collections::BTreeSet;
use std::iter::successors;
use std::ops::Range;

/// What is to be deleted, in two stages: that the manifests are gone is durable before a file goes that they named, or
/// a power loss could bring a manifest back without its files.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// First; paths below the directory of checkpoints.
    pub(crate) manifests: Vec<String>,
    /// Then, after an fsync of the directory: state files, base directories, markers, unfinished manifests.
    pub(crate) files: Vec<String>,
}

/// Protocol step 6, once checkpoint `current` is decided and finished:
///
/// 1. Kept are M(n) and its `keep` - 1 nearest ancestors, found by the parent's hash: a manifest of a smaller number
///    that came to nothing must not count [K1]. All other manifests of epochs before n go.
/// 2. The directory is made durable.
/// 3. Files of epochs before n go that no remaining manifest names. Deltas and bases that a kept one builds on are
///    named by it [K2, M12].
///
/// Never anything of epochs from n on: they are being made [H10, H11]. Nor a base of this attempt that is newer than
/// what M(n) names of its owner: it bears the epoch up to which it was folded, and the next manifest is the first to
/// name it. If M(n) is not in the listing, nothing goes.
pub(crate) fn collect(listing: &Listing, current: &Digest, keep: usize) -> Plan {
    let Some(newest) = listing.find(current) else { return Plan::default() };
    #[cfg(test)]
    if let Some(plan) = wrongly(listing, newest, current, keep) {
        return plan;
    }
    let kept = chain(listing, current, keep.max(1));
    let is_kept = |m: &Listed| m.epoch >= newest.epoch || m.content.as_ref().is_ok_and(|(_, d)| kept.contains(&d));
    let mut plan = plan(listing, is_kept, 0..newest.epoch);
    let bases = newest.states.iter().filter_map(|s| s.base.as_ref());
    let named: Vec<_> = bases.filter_map(|b| StateFile::parse(b.directory.strip_prefix("state/")?)).collect();
    let is_unnamed = |s: &&StateFile| s.is_base && s.attempt == newest.attempt && !is_replaced(s, &named);
    let unnamed: BTreeSet<_> = listing.states.iter().filter(is_unnamed).map(|s| s.path.as_str()).collect();
    plan.files.retain(|path| !unnamed.contains(path.as_str()));
    plan
}

/// What a collector would take that got a rule wrong, for simulations.
#[cfg(test)]
fn wrongly(listing: &Listing, newest: &Manifest, current: &Digest, keep: usize) -> Option<Plan> {
    use crate::mutant::broken;
    let n = newest.epoch;
    let mut by_number: Vec<_> = listing.intact().filter(|(m, _)| m.epoch <= n).collect();
    by_number.sort_by_key(|(m, _)| m.epoch);
    let by_number: Vec<_> = by_number.into_iter().rev().take(keep.max(1)).collect();
    let kept_numbers: BTreeSet<_> = by_number.iter().map(|(m, _)| m.epoch).collect();
    let kept = chain(listing, current, keep.max(1));
    let in_chain = |m: &Listed| m.epoch >= n || m.content.as_ref().is_ok_and(|(_, d)| kept.contains(&d));
    let mut all = plan(listing, in_chain, 0..n);
    let files = |gone: &dyn Fn(&StateFile) -> bool| {
        listing.states.iter().filter(|s| gone(s)).map(|s| s.path.clone()).collect::<Vec<_>>()
    };
    let named: BTreeSet<_> = listing.intact().flat_map(|(m, _)| paths(m).map(entry)).collect();
    if broken("M12") {
        all.files = files(&|s| s.epoch < n);
    } else if broken("H10") {
        all = plan(listing, |m| is(m, current), 0..Epoch::MAX);
    } else if broken("H11") {
        all.files = files(&|s| !named.contains(s.path.as_str()));
    } else if broken("K1") {
        let counts = |m: &Listed| by_number.iter().any(|(_, d)| is(m, d));
        all = plan(listing, |m| m.epoch > n || counts(m), 0..n);
    } else if broken("K2") {
        all.files = files(&|s| s.epoch < n && !kept_numbers.contains(&s.epoch));
    } else {
        return None;
    }
    Some(all)
}

/// Whether a checkpoint that names these bases has no use for this one: the bases of an owner follow one another, so
/// one that is newer than what is named is waiting to be named.
fn is_replaced(base: &StateFile, named: &[StateFile]) -> bool {
    let its = |n: &&StateFile| n.owner == base.owner && n.attempt == base.attempt;
    named.iter().filter(its).any(|n| n.epoch >= base.epoch)
}

/// Recovery step 7, on the listing of step 2 and not on what lies there now [H8, H9]:
///
/// * The newest checkpoint was restored: what is newer, or a sibling of it, was left by attempts that are over, and
///   goes unless it needs it. What is older is the collector's.
/// * The job went back, or starts afresh above what there is: going back is a decision itself, and until that is taken
///   nothing may be touched that was decided before [H16]. Only numbers that nothing decided can bear are cleared.
pub(crate) fn clean_after_restore(listing: &Listing, decision: &Decision) -> Plan {
    match decision {
        Decision::Restore { digest, announce: None, .. } => match listing.find(digest) {
            Some(restored) => {
                let is_kept = |m: &Listed| m.epoch < restored.epoch || is(m, digest);
                plan(listing, is_kept, restored.epoch..Epoch::MAX)
            }
            None => Plan::default(),
        },
        Decision::Restore { announce: Some(next), .. } | Decision::Fresh { first: next } => {
            plan(listing, |_| true, *next..Epoch::MAX)
        }
        Decision::Refuse(_) => Plan::default(),
    }
}

/// Takes the manifests that are not kept, and of the epochs in `due` whatever no kept manifest names.
fn plan(listing: &Listing, is_kept: impl Fn(&Listed) -> bool, due: Range<Epoch>) -> Plan {
    let (kept, gone): (Vec<_>, Vec<_>) = listing.manifests.iter().partition(|m| is_kept(m));
    let manifests = gone.iter().map(|m| FileName::Manifest(m.epoch, m.attempt).to_string()).collect();
    let markers = listing.decided.iter().filter(|n| due.contains(n) && !is_newest_marker(listing, **n));
    let unfinished = listing.unfinished.iter().filter(|u| due.contains(&u.epoch)).map(|u| u.path.clone());
    let mut files: Vec<_> = markers.map(|n| FileName::Decided(*n).to_string()).chain(unfinished).collect();
    // A manifest names no file of a later epoch.
    if let Some(needed) = needed(kept.into_iter().filter(|m| m.epoch >= due.start)) {
        let gone = listing.states.iter().filter(|s| due.contains(&s.epoch) && !needed.contains(s.path.as_str()));
        files.extend(gone.map(|s| s.path.clone()));
    }
    Plan { manifests, files }
}

/// The names below `state/` that kept manifests need; None if one of them cannot be read, for it may need any.
fn needed<'a>(kept: impl Iterator<Item = &'a Listed>) -> Option<BTreeSet<&'a str>> {
    let mut needed = BTreeSet::new();
    for listed in kept {
        let (manifest, _) = listed.content.as_ref().ok()?;
        needed.extend(paths(manifest).map(entry));
    }
    Some(needed)
}

/// The files of a manifest, and the directories of its bases, which may be empty.
fn paths(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let bases = manifest.states.iter().filter_map(|s| s.base.as_ref()).map(|b| b.directory.as_str());
    manifest.files().map(|f| f.path.as_str()).chain(bases)
}

/// The part of a path that a listing shows: `state/<name>`.
fn entry(path: &str) -> &str {
    let end = path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at);
    &path[..end]
}

/// Marker n proves more than all markers before it; nothing proves more than the newest.
fn is_newest_marker(listing: &Listing, epoch: Epoch) -> bool {
    listing.decided.iter().max() == Some(&epoch)
}

fn is(listed: &Listed, digest: &Digest) -> bool {
    listed.content.as_ref().is_ok_and(|(_, d)| d == digest)
}

/// A checkpoint and its nearest ancestors, as far as they are here; no more than `keep`. Hashes cannot form a cycle.
fn chain<'a>(listing: &'a Listing, newest: &'a Digest, keep: usize) -> Vec<&'a Digest> {
    let parent = |child: &&Digest| listing.find(child)?.parent.as_ref().filter(|p| listing.find(p).is_some());
    successors(Some(newest), parent).take(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::super::listing::Named;
    use super::super::listing::tests::listed;
    use super::super::manifest::Damage;
    use super::super::manifest::tests::{attempt, file, manifest};
    use super::*;
    use crate::Error;
    use crate::state::snapshot::Base;
    use proptest::prelude::*;

    fn delta(epoch: Epoch, by: u8) -> String {
        format!("state/delta-{epoch}-{}-count-0", attempt(by))
    }

    fn name(epoch: Epoch, by: u8) -> String {
        FileName::Manifest(epoch, attempt(by)).to_string()
    }

    /// Adds a checkpoint that needs its own delta and those named; gives its identity.
    fn add(listing: &mut Listing, epoch: Epoch, by: u8, parent: Option<&Digest>, needs: &[String]) -> Digest {
        let own = delta(epoch, by);
        let files: Vec<_> = needs.iter().chain([&own]).map(String::as_str).collect();
        let listed = listed(manifest(epoch, by, parent.cloned(), &files));
        let digest = listed.content.as_ref().unwrap().1.clone();
        listing.manifests.push(listed);
        add_file(listing, &own);
        digest
    }

    fn add_file(listing: &mut Listing, path: &str) {
        listing.add_state(path.strip_prefix("state/").unwrap());
        listing.sort();
    }

    fn restore(digest: &Digest, announce: Option<Epoch>) -> Decision {
        Decision::Restore { digest: digest.clone(), epoch: 0, announce }
    }

    /// A chain 0..=4 in which each needs the delta before its own.
    fn history() -> (Listing, Vec<Digest>) {
        let mut listing = Listing { decided: (0..4).collect(), ..Listing::default() };
        let mut digests = vec![add(&mut listing, 0, 1, None, &[])];
        for epoch in 1..=4 {
            let parent = digests.last().unwrap().clone();
            digests.push(add(&mut listing, epoch, 1, Some(&parent), &[delta(epoch - 1, 1)]));
        }
        (listing, digests)
    }

    #[test]
    fn the_nearest_ancestors_are_kept_with_what_they_need() {
        let (mut listing, digests) = history();
        listing.decided.push(4);
        let check = |keep, manifests: &[Epoch], files: &[Epoch]| {
            let plan = collect(&listing, &digests[4], keep);
            let markers = (0..4).map(|n| format!("decided-{n}"));
            let files: Vec<_> = markers.chain(files.iter().map(|n| delta(*n, 1))).collect();
            let manifests = manifests.iter().map(|n| name(*n, 1)).collect();
            assert_eq!(plan, Plan { manifests, files }, "keep {keep}");
        };
        check(0, &[0, 1, 2, 3], &[0, 1, 2]);
        check(1, &[0, 1, 2, 3], &[0, 1, 2]);
        check(2, &[0, 1, 2], &[0, 1]);
        check(4, &[0], &[]);
        check(5, &[], &[]);
        check(100, &[], &[]);
    }

    /// [K1]: M(3) of another attempt came to nothing; counted by number it would push the real M(3) out.
    #[test]
    fn ancestors_are_found_by_hash() {
        let (mut listing, digests) = history();
        add(&mut listing, 3, 2, Some(&digests[2]), &[]);
        let plan = collect(&listing, &digests[4], 2);
        assert_eq!(plan.manifests, [name(0, 1), name(1, 1), name(2, 1), name(3, 2)]);
        assert!(plan.files.contains(&delta(3, 2)));
        assert!(!plan.files.contains(&delta(3, 1)) && !plan.files.contains(&delta(2, 1)), "{plan:?}");
    }

    /// [H10, H11]: what is of the decided epoch or later is being made, or not yet known to have come to nothing.
    #[test]
    fn nothing_from_the_decided_epoch_on_goes() {
        let (mut listing, digests) = history();
        add(&mut listing, 4, 2, Some(&digests[3]), &[delta(1, 2)]);
        add(&mut listing, 5, 1, Some(&digests[4]), &[]);
        for path in [delta(1, 2), delta(2, 2), delta(6, 1), delta(4, 3)] {
            add_file(&mut listing, &path);
        }
        listing.unfinished = [3, 4, 5].map(|epoch| Named { path: format!("tmp-{epoch}"), epoch }).into();
        listing.decided.push(9);
        let plan = collect(&listing, &digests[4], 1);
        assert_eq!(plan.manifests, (0..4).map(|n| name(n, 1)).collect::<Vec<_>>());
        let files: Vec<_> = plan.files.iter().filter(|f| !f.starts_with("decided")).cloned().collect();
        assert_eq!(files, ["tmp-3".into(), delta(0, 1), delta(1, 1), delta(2, 1), delta(2, 2)]);
    }

    fn base(epoch: Epoch, by: u8) -> String {
        format!("state/base-{epoch}-{}-a-b-0", attempt(by))
    }

    /// A listing of M(9) of attempt 1 that names one base with the given files; and what goes of `bases`.
    fn bases_that_go(named: (Epoch, u8), files: &[&str], bases: &[(Epoch, u8)]) -> Vec<String> {
        let mut newest = manifest(9, 1, None, &[]);
        let directory = base(named.0, named.1);
        let files = files.iter().map(|f| file(&format!("{directory}/{f}"))).collect();
        newest.states[0].base = Some(Base { epoch: named.0, directory, files });
        let mut listing = Listing { manifests: vec![listed(newest)], ..Listing::default() };
        bases.iter().for_each(|(epoch, by)| add_file(&mut listing, &base(*epoch, *by)));
        let digest = listing.intact().next().unwrap().1.clone();
        collect(&listing, &digest, 1).files
    }

    #[test]
    fn a_base_is_kept_by_its_directory_or_any_file_of_it() {
        assert_eq!(bases_that_go((4, 1), &["CURRENT", "1.sst"], &[(3, 1), (4, 1)]), [base(3, 1)]);
        assert_eq!(bases_that_go((4, 1), &[], &[(3, 1), (4, 1)]), [base(3, 1)]);
        assert_eq!(bases_that_go((4, 2), &["CURRENT"], &[(4, 2)]), Vec::<String>::new());
    }

    /// [H11] once more: folded up to 6, made while 7 to 9 were decided; M(10) will name it.
    #[test]
    fn a_base_that_no_manifest_names_yet_stays() {
        assert_eq!(bases_that_go((4, 1), &["CURRENT"], &[(3, 1), (4, 1), (6, 1), (8, 1)]), [base(3, 1)]);
        // After a restore the named one is of an attempt before; of that one, nothing is being made.
        let bases = [(2, 1), (3, 2), (4, 2), (6, 2), (6, 1)];
        assert_eq!(bases_that_go((4, 2), &["CURRENT"], &bases), [base(3, 2), base(6, 2)]);
    }

    #[test]
    fn what_cannot_be_read_needs_every_file() {
        let (mut listing, digests) = history();
        let damaged = |epoch| Listed { epoch, attempt: attempt(5), content: Err(Damage::Unreadable("so".into())) };
        listing.manifests.push(damaged(4));
        let plan = collect(&listing, &digests[4], 1);
        assert_eq!(plan.manifests.len(), 4);
        assert!(plan.files.iter().all(|f| f.starts_with("decided")), "{plan:?}");
        // One that goes itself needs nothing more.
        listing.manifests.last_mut().unwrap().epoch = 3;
        let plan = collect(&listing, &digests[4], 1);
        assert_eq!((plan.manifests.len(), plan.files.len()), (5, 3 + 3));
        assert_eq!(collect(&listing, &Digest("unknown".into()), 1), Plan::default());
    }

    #[test]
    fn after_the_newest_was_restored_its_siblings_go() {
        let (mut listing, digests) = history();
        add(&mut listing, 4, 2, Some(&digests[3]), &[]);
        for path in [delta(5, 1), delta(4, 3), delta(2, 3)] {
            add_file(&mut listing, &path);
        }
        listing.unfinished = [4, 5].map(|epoch| Named { path: format!("tmp-{epoch}"), epoch }).into();
        let plan = clean_after_restore(&listing, &restore(&digests[4], None));
        assert_eq!(plan.manifests, [name(4, 2)]);
        let files = ["tmp-4".into(), "tmp-5".into(), delta(4, 2), delta(4, 3), delta(5, 1)];
        assert_eq!(plan.files, files);
    }

    /// A base that M(4) needs may bear the number 4 or, of another attempt, any: it is needed, so it stays.
    #[test]
    fn what_the_restored_one_needs_stays() {
        let (mut listing, digests) = history();
        let own = add(&mut listing, 5, 2, Some(&digests[4]), &[delta(5, 9), delta(4, 1)]);
        add_file(&mut listing, &delta(5, 9));
        let plan = clean_after_restore(&listing, &restore(&own, None));
        assert_eq!(plan, Plan::default());
    }

    /// [H16].
    #[test]
    fn after_going_back_nothing_decided_is_touched() {
        let (mut listing, digests) = history();
        for path in [delta(4, 3), delta(5, 1), delta(6, 1)] {
            add_file(&mut listing, &path);
        }
        for decision in [restore(&digests[1], Some(5)), Decision::Fresh { first: 5 }] {
            let plan = clean_after_restore(&listing, &decision);
            assert_eq!(plan, Plan { manifests: vec![], files: vec![delta(5, 1), delta(6, 1)] });
        }
        let refused = Decision::Refuse(Error::refused(""));
        assert_eq!(clean_after_restore(&listing, &refused), Plan::default());
        assert_eq!(clean_after_restore(&listing, &restore(&Digest("gone".into()), None)), Plan::default());
    }

    #[test]
    fn a_first_start_that_died_leaves_nothing() {
        let mut listing = Listing::default();
        add_file(&mut listing, &delta(0, 1));
        listing.unfinished.push(Named { path: "tmp".into(), epoch: 0 });
        let plan = clean_after_restore(&listing, &Decision::Fresh { first: 0 });
        assert_eq!(plan.files, ["tmp".into(), delta(0, 1)]);
    }

    /// A directory of any history: each manifest has one of those before it as parent, or none.
    fn any_history() -> impl Strategy<Value = Listing> {
        let one = (0..6u64, 0..3u8, any::<prop::sample::Index>(), any::<bool>());
        let strays = proptest::collection::vec((0..8u64, 0..4u8), 0..8);
        (proptest::collection::vec(one, 1..12), strays).prop_map(|(all, strays)| {
            let mut listing = Listing::default();
            for (epoch, by, at, intact) in all {
                if listing.manifests.iter().any(|m| (m.epoch, m.attempt) == (epoch, attempt(by))) {
                    continue;
                }
                let older: Vec<_> = listing.intact().filter(|(m, _)| m.epoch < epoch).collect();
                let parent = (!older.is_empty()).then(|| older[at.index(older.len())]);
                let (digest, needs) = match parent {
                    Some((m, d)) => (Some(d.clone()), vec![delta(m.epoch, 0), delta(m.epoch, 1)]),
                    None => (None, vec![]),
                };
                add(&mut listing, epoch, by, digest.as_ref(), &needs);
                if !intact && let Some(m) = listing.manifests.iter_mut().find(|m| m.epoch == epoch) {
                    m.content = Err(Damage::Unreadable("so".into()));
                }
            }
            for (epoch, by) in strays {
                add_file(&mut listing, &delta(epoch, by));
            }
            listing.states.dedup();
            listing
        })
    }

    /// What lies there after a plan was executed.
    fn after(listing: &Listing, plan: &Plan) -> Listing {
        let mut left = listing.clone();
        left.manifests.retain(|m| !plan.manifests.contains(&FileName::Manifest(m.epoch, m.attempt).to_string()));
        left.states.retain(|s| !plan.files.contains(&s.path));
        left
    }

    fn is_complete(listing: &Listing, manifest: &Manifest) -> bool {
        manifest.files().all(|f| listing.states.iter().any(|s: &StateFile| s.path == f.path))
    }

    proptest! {
        /// V6: whatever remains is as complete as it was, the chain and all from n on remain, and a plan is final.
        #[test]
        fn nothing_needed_goes(listing in any_history(), at in any::<prop::sample::Index>(), keep in 0..4usize) {
            let all: Vec<_> = listing.intact().collect();
            if all.is_empty() {
                return Ok(());
            }
            let (newest, digest) = all[at.index(all.len())];
            let collected = after(&listing, &collect(&listing, digest, keep));
            let cleaned = after(&listing, &clean_after_restore(&listing, &restore(digest, None)));
            let back = after(&listing, &clean_after_restore(&listing, &restore(digest, Some(6))));
            for left in [&collected, &cleaned, &back] {
                prop_assert!(left.find(digest).is_some());
                for (m, _) in left.intact() {
                    prop_assert!(!is_complete(&listing, m) || is_complete(left, m) || m.epoch > newest.epoch);
                }
            }
            for d in chain(&listing, digest, keep.max(1)) {
                let m = collected.find(d);
                prop_assert!(m.is_some_and(|m| !is_complete(&listing, m) || is_complete(&collected, m)));
            }
            prop_assert_eq!(&back.manifests, &listing.manifests);
            let is_later = |l: &Listing| l.states.iter().filter(|s| s.epoch >= newest.epoch).count();
            prop_assert_eq!(is_later(&collected), is_later(&listing));
            prop_assert_eq!(collect(&collected, digest, keep), Plan::default());
        }
    }
}
