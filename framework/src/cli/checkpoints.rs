//! `checkpoints list`, `show` and `verify`: what lies in the job directory, for people and for programs. Read only and
//! without the lock, so also while the job runs; what it collects meanwhile is not missed.

use crate::checkpoints::{Damage, Directory, Listed, Listing, Manifest, Outlook, Verification, outlook};
use crate::{Attempt, Epoch, Error, ErrorKind, Job};
use bytesize::ByteSize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// What is to be shown of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Inspect {
    /// All, a line for each.
    List { verify: bool, json: bool },
    /// One, the newest if none is named.
    Show { epoch: Option<Epoch>, json: bool },
    /// Whether the files of one, or of all, are what they were.
    Verify { epoch: Option<Epoch>, all: bool },
}

/// What was found to be damaged, and why.
type Damaged = Vec<(Epoch, Attempt, String)>;

/// Prints what is to be shown.
pub(crate) fn run(job: &Job, inspect: Inspect, print: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let data_dir = &job.settings.data_dir;
    let owner = if job.is_unnamed() { Directory::owner(data_dir) } else { None };
    let name = owner.as_ref().unwrap_or(&job.name);
    let directory = Directory::new(data_dir, name);
    let listing = directory.list()?;
    match inspect {
        Inspect::List { verify, json } => list(&directory, &listing, name, (verify, json), print),
        Inspect::Show { epoch, json } => chosen(&directory, &listing, epoch)?.try_for_each(|listed| {
            print(&match &listed.content {
                Ok((manifest, _)) if json => manifest_json(manifest)?,
                Ok((manifest, digest)) => manifest_text(manifest, &digest.0),
                Err(damage) => return Err(damage_of(listed, damage)),
            });
            Ok(())
        }),
        Inspect::Verify { epoch, all } => {
            if all || epoch.is_none() && listing.manifests.is_empty() {
                return verify(&directory, &listing, listing.manifests.iter(), true, print);
            }
            let newest = epoch.is_none();
            verify(&directory, &listing, chosen(&directory, &listing, epoch)?, newest, print)
        }
    }
}

/// The checkpoint of a number, the newest if none is named. There may be two, if two instances have run at once.
fn chosen<'a>(
    directory: &Directory,
    listing: &'a Listing,
    epoch: Option<Epoch>,
) -> Result<impl Iterator<Item = &'a Listed>, Error> {
    let newest = listing.manifests.last().map(|m| m.epoch);
    match epoch.or(newest).filter(|epoch| listing.manifests.iter().any(|m| m.epoch == *epoch)) {
        Some(epoch) => Ok(listing.manifests.iter().filter(move |m| m.epoch == epoch)),
        None => {
            let all: Vec<_> = listing.manifests.iter().map(|m| m.epoch.to_string()).collect();
            let there = if all.is_empty() { "there is none".into() } else { format!("there are {}", all.join(", ")) };
            let which = epoch.map_or_else(String::new, |epoch| format!(" {epoch}"));
            let text = format!("there is no checkpoint{which} in {}: {there}", directory.place());
            Err(Error::new(ErrorKind::Usage, text))
        }
    }
}

fn damage_of(listed: &Listed, damage: &Damage) -> Error {
    Error::refused(format!("the manifest of checkpoint {} is damaged: {damage}", listed.epoch))
}

// ---- list ----------------------------------------------------------------------------------------------------------

fn list(
    directory: &Directory,
    listing: &Listing,
    job: &str,
    (verify, json): (bool, bool),
    print: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let mut damaged = Damaged::new();
    for listed in &listing.manifests {
        let damage = match &listed.content {
            Err(damage) => Some(damage.clone()),
            Ok((manifest, _)) if !verify => directory.glance(manifest)?.err(),
            Ok((manifest, digest)) => Verification::begin(directory, (manifest, digest))?.end()?.err(),
        };
        // what the job has collected meanwhile is no damage; it was there when the listing was made
        if let Some(damage) = damage.filter(|_| !directory.is_gone(listed)) {
            damaged.push((listed.epoch, listed.attempt, damage.to_string()));
        }
    }
    let next = outlook(directory.place(), listing, &damaged);
    print(&match json {
        true => list_json(directory, listing, job, &damaged, &next),
        false => list_text(directory, listing, job, &damaged, &next),
    });
    Ok(())
}

/// A checkpoint in numbers.
struct Sizes {
    bytes: u64,
    files: usize,
    deltas: usize,
    bases: usize,
}

impl Sizes {
    fn of(manifest: &Manifest) -> Self {
        Self {
            bytes: manifest.files().map(|file| file.bytes).sum(),
            files: manifest.files().count(),
            deltas: manifest.states.iter().map(|state| state.deltas.len()).sum(),
            bases: manifest.states.iter().filter(|state| state.base.is_some()).count(),
        }
    }
}

fn why<'a>(damaged: &'a Damaged, listed: &Listed) -> Option<&'a str> {
    damaged.iter().find(|(n, by, _)| (*n, *by) == (listed.epoch, listed.attempt)).map(|(_, _, why)| why.as_str())
}

/// A marker says that its checkpoint and all before it were decided and their output made visible.
fn is_finished(listing: &Listing, listed: &Listed) -> bool {
    listing.decided.iter().any(|marker| *marker >= listed.epoch)
}

/// In the directory, what is there is decided; of the newest of a log only the log can say.
fn is_decided(next: &Outlook, listed: &Listed) -> bool {
    !matches!(next, Outlook::Ask { decided, .. } if decided.is_none_or(|n| n < listed.epoch))
}

fn is_next(next: &Outlook, listed: &Listed) -> bool {
    matches!(next, Outlook::Restore { epoch, attempt, .. } if (*epoch, *attempt) == (listed.epoch, listed.attempt))
}

fn list_text(directory: &Directory, listing: &Listing, job: &str, damaged: &Damaged, next: &Outlook) -> String {
    let mut out = format!("checkpoints of the job {job} in {}\n", directory.place());
    if !listing.manifests.is_empty() {
        out.push_str("  epoch  attempt   taken                      size  deltas  bases  status\n");
    }
    for listed in &listing.manifests {
        let (attempt, status) = (
            short(listed.attempt),
            match why(damaged, listed) {
                Some(_) => "damaged",
                None if is_finished(listing, listed) => "finished",
                None if is_decided(next, listed) => "decided",
                None => "prepared",
            },
        );
        let mark = if is_next(next, listed) { '>' } else { ' ' };
        let numbers = match &listed.content {
            Ok((manifest, _)) => {
                let Sizes { bytes, deltas, bases, .. } = Sizes::of(manifest);
                format!("{}  {:>9}  {deltas:>6}  {bases:>5}", taken(manifest), size(bytes))
            }
            Err(_) => format!("{:<20}  {:>9}  {:>6}  {:>5}", "-", "-", "-", "-"),
        };
        let _ = writeln!(out, "{mark} {:>5}  {attempt}  {numbers}  {status}", listed.epoch);
    }
    for (epoch, _, why) in damaged {
        let _ = writeln!(out, "checkpoint {epoch} is damaged: {why}");
    }
    let _ = writeln!(out, "{}", outlook_text(next));
    out
}

fn outlook_text(next: &Outlook) -> String {
    match next {
        Outlook::Fresh => "the next start begins where the sources begin".into(),
        Outlook::Restore { epoch, unless_shown: None, .. } => format!("the next start takes checkpoint {epoch}"),
        Outlook::Restore { epoch, unless_shown: Some(later), .. } => format!(
            "the next start takes checkpoint {epoch}, and refuses if a sink shows output of checkpoint {later} or of \
             others after {epoch}"
        ),
        Outlook::Ask { log, decided } => {
            let at_least = decided.map_or_else(String::new, |n| format!(", which is {n} or a later one"));
            format!("the next start takes the checkpoint that {log} says is decided{at_least}")
        }
        Outlook::Refuse(error) => format!("the next start refuses: {error}"),
    }
}

fn list_json(directory: &Directory, listing: &Listing, job: &str, damaged: &Damaged, outlook: &Outlook) -> String {
    let line = |listed: &Listed| {
        let manifest = listed.content.as_ref().ok().map(|(manifest, _)| manifest);
        let sizes = manifest.map(Sizes::of);
        let damage = why(damaged, listed);
        json!({
            "epoch": listed.epoch, "attempt": listed.attempt.to_string(), "taken_ms": manifest.map(|m| m.created_ms),
            "bytes": sizes.as_ref().map(|s| s.bytes), "files": sizes.as_ref().map(|s| s.files),
            "deltas": sizes.as_ref().map(|s| s.deltas), "bases": sizes.as_ref().map(|s| s.bases),
            "decided": manifest.is_some() && is_decided(outlook, listed), "finished": is_finished(listing, listed),
            "restorable": damage.is_none(), "damage": damage, "next": is_next(outlook, listed),
        })
    };
    let next = match outlook {
        Outlook::Fresh => json!({ "does": "fresh" }),
        Outlook::Restore { epoch, unless_shown, .. } => {
            json!({ "does": "restore", "epoch": epoch, "refuses_if_shown": unless_shown })
        }
        Outlook::Ask { log, decided } => json!({ "does": "ask", "log": log, "decided": decided }),
        Outlook::Refuse(error) => json!({ "does": "refuse", "why": error.to_string() }),
    };
    let all: Vec<Value> = listing.manifests.iter().map(line).collect();
    format!("{:#}\n", json!({ "job": job, "data_dir": directory.place(), "next_start": next, "checkpoints": all }))
}

fn short(attempt: Attempt) -> String {
    attempt.to_string().chars().take(8).collect()
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// When, in UTC, to the second.
fn taken(manifest: &Manifest) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(manifest.created_ms));
    at.map_or_else(|| "-".into(), |at| humantime::format_rfc3339_seconds(at).to_string())
}

// ---- show ----------------------------------------------------------------------------------------------------------

fn manifest_json(manifest: &Manifest) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(manifest);
    text.map(|text| text + "\n").map_err(|e| Error::new(ErrorKind::Failed, "cannot show the manifest").because(e))
}

fn manifest_text(manifest: &Manifest, digest: &str) -> String {
    let Sizes { bytes, files, .. } = Sizes::of(manifest);
    let parent = manifest.parent.as_ref().map_or("none, it is the first", |parent| parent.0.as_str());
    let mut out = format!("checkpoint {} of the job {}\n", manifest.epoch, manifest.job);
    for (what, value) in [
        ("taken", taken(manifest)),
        ("attempt", manifest.attempt.to_string()),
        ("sha-256", digest.to_owned()),
        ("parent", parent.to_owned()),
        ("topology", manifest.topology.clone()),
        ("key groups", manifest.key_groups.to_string()),
        ("state", format!("{} in {files} files", size(bytes))),
    ] {
        let _ = writeln!(out, "  {what:<10}  {value}");
    }
    sources(manifest, &mut out);
    operators(manifest, &mut out);
    items(manifest, &mut out);
    sinks(manifest, &mut out);
    out
}

fn sources(manifest: &Manifest, out: &mut String) {
    for source in &manifest.sources {
        let _ = writeln!(out, "source {}", source.name);
        for split in &source.splits {
            let finished = if split.finished { "  finished" } else { "" };
            let _ = writeln!(out, "  split {}  offset {}{finished}", split.split, split.offset);
        }
    }
}

fn operators(manifest: &Manifest, out: &mut String) {
    for operator in &manifest.operators {
        let subtasks = manifest.states.iter().filter(|state| state.operator == operator.operator);
        let parallelism = subtasks.clone().count();
        let _ = writeln!(out, "operator {}  {parallelism} subtasks, key {}", operator.operator, operator.key.text);
        for state in &operator.states {
            let _ = writeln!(out, "  state {}  version {}, {}", state.name, state.version, state.shape.text);
        }
        for state in subtasks {
            let base = state.base.as_ref().map_or_else(String::new, |base| {
                let bytes = base.files.iter().map(|file| file.bytes).sum();
                format!(", base of epoch {} with {}", base.epoch, size(bytes))
            });
            let rows: u64 = state.deltas.iter().map(|delta| delta.entries).sum();
            let bytes = state.deltas.iter().map(|delta| delta.file.bytes).sum();
            let (deltas, groups) = (state.deltas.len(), &state.groups);
            let deltas = format!("{deltas} deltas with {rows} changed rows in {}", size(bytes));
            let _ = writeln!(out, "  key groups {}..{}  {deltas}{base}", groups.start, groups.end);
        }
    }
}

fn items(manifest: &Manifest, out: &mut String) {
    for items in &manifest.items {
        let (operator, subtask, n) = (&items.operator, items.subtask, items.items);
        let _ = writeln!(out, "operator {operator}[{subtask}]  {n} items in {}", size(items.file.bytes));
    }
}

fn sinks(manifest: &Manifest, out: &mut String) {
    for sink in &manifest.sinks {
        let _ = writeln!(out, "sink {}[{}]  {}", sink.name, sink.subtask, sink.committable);
    }
}

// ---- verify --------------------------------------------------------------------------------------------------------

/// Reads every file of some checkpoints. If the newest is among them, a start must be possible, too.
fn verify<'a>(
    directory: &Directory,
    listing: &Listing,
    wanted: impl Iterator<Item = &'a Listed>,
    with_start: bool,
    print: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let mut damaged = Damaged::new();
    for listed in wanted {
        let found = verify_one(directory, listed)?;
        let title = format!("checkpoint {} (attempt {})", listed.epoch, short(listed.attempt));
        match found {
            _ if directory.is_gone(listed) => print(&format!("{title}: collected by the job meanwhile\n")),
            Ok(what) => print(&format!("{title}: intact, {what}\n")),
            Err(faults) => {
                print(&format!("{title}: damaged\n"));
                faults.iter().for_each(|fault| print(&format!("  {fault}\n")));
                damaged.push((listed.epoch, listed.attempt, faults.join("; ")));
            }
        }
    }
    if with_start {
        let next = outlook(directory.place(), listing, &damaged);
        print(&format!("{}\n", outlook_text(&next)));
        if let (Outlook::Refuse(_), true) = (next, damaged.is_empty()) {
            return Err(Error::refused("checkpoints are missing"));
        }
    }
    match damaged.len() {
        0 => Ok(()),
        1 => Err(Error::refused("a checkpoint is damaged; put its files back from a copy, if there is one")),
        n => Err(Error::refused(format!("{n} checkpoints are damaged; put their files back from a copy"))),
    }
}

/// All that is wrong with one; else what was read.
fn verify_one(directory: &Directory, listed: &Listed) -> Result<Result<String, Vec<String>>, Error> {
    let manifest = match &listed.content {
        Ok((manifest, _)) => manifest,
        Err(damage) => return Ok(Err(vec![format!("manifest: {damage}")])),
    };
    let mut faults = Vec::new();
    for (_, found) in directory.check(manifest) {
        faults.extend(found?.err().map(|damage| damage.to_string()));
    }
    let Sizes { bytes, files, .. } = Sizes::of(manifest);
    Ok(if faults.is_empty() { Ok(format!("{} in {files} files", size(bytes))) } else { Err(faults) })
}
