//! Directories with any names and any manifests in them, through all that is decided about them. What is in a manifest
//! is tested beside `manifest.rs`, marks and locks beside `hold.rs`.

use super::listing::{FileName, StateFile};
use super::manifest::DecisionMode;
use super::manifest::tests::{attempt, manifest};
use super::{
    Decision, Facts, Listed, Listing, Record, Restore, Shown, Start, clean_after_restore, collect, hint,
    newest_decided, outlook, recover,
};
use crate::fuzz::{Bound, TIGHT, any_text, bounded, cases, damaged, damaged_text};
use crate::operator::{Digest, Instance, LogId, Progress, Visible};
use crate::{Attempt, Epoch};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// JSON as in `manifest.rs`, and some copies of names.
const DIRECTORY: Bound = Bound { per_byte: 256, more: 256 << 10 };

fn any_epoch() -> impl Strategy<Value = Epoch> {
    prop_oneof![8 => 0..5u64, 1 => (0..3u64).prop_map(|below| Epoch::MAX - below), 1 => any::<u64>()]
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    (0..3u8).prop_map(attempt)
}

fn any_name() -> impl Strategy<Value = String> {
    let valid = (any_epoch(), any_attempt(), 0..6).prop_map(|(epoch, by, kind)| match kind {
        0 => FileName::Manifest(epoch, by).to_string(),
        1 => FileName::Unfinished(epoch, by).to_string(),
        2 => FileName::Decided(epoch).to_string(),
        3 => format!("delta-{epoch}-{by}-count-0"),
        4 => format!("items-{epoch}-{by}-a-b-1"),
        _ => format!("base-{epoch}-{by}-count-0"),
    });
    let valid = valid.boxed();
    prop_oneof![3 => valid.clone(), 1 => damaged_text(valid), 1 => any_text()]
}

/// Name and bytes of a manifest, which may be damaged, of another attempt, or in a log.
fn any_manifest() -> impl Strategy<Value = (String, Vec<u8>)> {
    let parts = (any_epoch(), any_attempt(), 0..3u8, any::<bool>(), any::<bool>());
    let whole = parts.prop_map(|(epoch, named, by, has_parent, is_logged)| {
        let (_, parent) = manifest(epoch.saturating_sub(1), by, None, &[]).encode().unwrap();
        let mut manifest = manifest(epoch, by, has_parent.then_some(parent), &["state/delta-1"]);
        if is_logged {
            manifest.decision = DecisionMode::Log(log());
        }
        let by = if epoch % 7 == 0 { named } else { manifest.attempt };
        (FileName::Manifest(epoch, by).to_string(), manifest.encode().unwrap().0)
    });
    let whole = whole.boxed();
    let broken = whole.clone().prop_flat_map(|(name, bytes)| (Just(name), damaged(Just(bytes))));
    prop_oneof![4 => whole, 1 => broken]
}

fn log() -> LogId {
    LogId { system: "cluster".into(), name: "progress".into(), incarnation: None }
}

/// As `directory.rs` puts one together.
fn listing(names: &[String], manifests: &[(String, Vec<u8>)]) -> Listing {
    let mut listing = Listing::default();
    let manifests = manifests.iter().map(|(name, bytes)| (name, &bytes[..]));
    // each name is there once
    let all: BTreeMap<_, _> = names.iter().map(|name| (name, &b""[..])).chain(manifests).collect();
    for (name, bytes) in all {
        listing.add_state(name);
        if let Some(named) = listing.add(name)
            && let Ok(listed) = Listed::judge(named, bytes, &["words"], "/data")
        {
            listing.manifests.push(listed);
        }
    }
    listing.sort();
    listing
}

fn any_facts() -> impl Strategy<Value = (Restore, bool, Option<(Epoch, Attempt)>, Option<Option<(Epoch, Digest)>>)> {
    let restore = prop_oneof![Just(Restore::Latest), Just(Restore::None), any_epoch().prop_map(Restore::Id)];
    let digest = (0..5u64, 0..3u8).prop_map(|(epoch, by)| manifest(epoch, by, None, &[]).encode().unwrap().1);
    let record = prop::option::of(prop::option::of((any_epoch(), digest)));
    (restore, any::<bool>(), prop::option::of((any_epoch(), any_attempt())), record)
}

proptest! {
    #![proptest_config(cases(500))]

    /// No name means more than one thing, and each is written the one way.
    #[test]
    fn any_name_is_taken(name in any_name()) {
        if let Some(parsed) = bounded(name.len(), TIGHT, || FileName::parse(&name))? {
            prop_assert_eq!(parsed.to_string(), &name[..]);
        }
        if let Some(file) = bounded(name.len(), TIGHT, || StateFile::parse(&name))? {
            prop_assert_eq!(file.path, format!("state/{name}"));
        }
        if let Some(attempt) = bounded(name.len(), TIGHT, || Attempt::parse(&name))? {
            prop_assert_eq!(attempt.to_string(), name);
        }
    }

    /// Whatever lies there: something is decided, what is restored is there and is not cleared away, and there is a
    /// number for the next checkpoint.
    #[test]
    fn any_directory_is_decided_about(
        names in prop::collection::vec(any_name(), 0..6), manifests in prop::collection::vec(any_manifest(), 0..5),
        (restore, allow, shown, record) in any_facts(),
    ) {
        let input = names.iter().map(String::len).chain(manifests.iter().map(|m| m.0.len() + m.1.len())).sum();
        let listing = bounded(input, DIRECTORY, || listing(&names, &manifests))?;
        let mut facts = Facts::new("/data".into(), &listing, restore, allow);
        let decision = bounded(input, DIRECTORY, || recover(&facts))?;
        let start = match Start::of(&decision) {
            Some(Start::After(epoch)) => epoch,
            Some(Start::Take(next)) => next,
            None => 0,
        };
        prop_assert!(start < Epoch::MAX, "{:?}", decision);
        let plan = bounded(input, DIRECTORY, || clean_after_restore(&listing, &decision))?;
        if let Decision::Restore { digest, epoch, .. } = &decision {
            let restored = listing.find(digest).unwrap();
            prop_assert_eq!(restored.epoch, *epoch);
            prop_assert!(!plan.manifests.contains(&FileName::Manifest(*epoch, restored.attempt).to_string()));
            let plan = bounded(input, DIRECTORY, || collect(&listing, digest, 2))?;
            prop_assert!(!plan.manifests.contains(&FileName::Manifest(*epoch, restored.attempt).to_string()));
        }
        let _ = bounded(input, DIRECTORY, || (outlook("/data", &listing, &[]), newest_decided(&listing)))?;
        // and with what sinks and a log say
        facts.sinks_show = shown.is_some();
        let visible = |(epoch, by)| Visible { newest: Some((epoch, BTreeSet::from([by]))), ..Visible::default() };
        facts.sinks = shown.map(visible).map(|visible| Shown { sink: "out".into(), visible }).into_iter().collect();
        facts.record = record.map(|newest| Record { id: log(), newest: newest.map(progress) });
        let decision = bounded(input, DIRECTORY, || recover(&facts))?;
        let _ = bounded(input, DIRECTORY, || (clean_after_restore(&listing, &decision), hint(&facts)))?;
    }
}

fn progress((epoch, digest): (Epoch, Digest)) -> Progress {
    Progress {
        version: Progress::VERSION,
        job: "words".into(),
        instance: Instance(uuid::Uuid::from_u128(1)),
        attempt: attempt(1),
        epoch,
        manifest: digest,
        parent: None,
    }
}
