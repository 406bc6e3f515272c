//! How the state of one subtask is brought back. Which checkpoint is restored, and whether its files are whole, is
//! decided before; here a missing or damaged file that is met is a refusal, too.
//!
//! 1. There is nothing: nothing is done, instances are made when something comes.
//! 2. One snapshot of the same key groups: the base is linked, the deltas are read, so that `spill` knows where each
//!    row is, and the chain goes on. Costs reading the deltas. Where there is no room to know that, `spill` loads them.
//! 3. Other key groups: rows of the own groups are copied out of each base into a new one, then the deltas are applied.
//!    Costs the state.
//!
//! In case 2, `folded` is the base's epoch, so the rows of the deltas hide those of the base until a
//! fold has them. In case 3 all is in `base`, `folded` is the restored epoch, and a base checkpoint is taken at
//! once, so that the next snapshot names nothing of an attempt that had other groups.
//!
//! Memory: a chunk of entries, which all cores together keep below one fold's. Nothing of the old attempt is changed.

use super::backend::OpenSpec;
use super::base;
use super::delta::{self, damaged};
use super::indexed::Indexed;
use super::rocks::{Rocks, failed};
use super::snapshot::StateSnapshot;
use super::sorter::{Gone, Run, Sorter};
use super::spill::{self, Spill};
use super::store::{Chain, Scratch, Shared, Store, lock};
use crate::{Epoch, Error, disk};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    Nothing,
    /// Go on with this snapshot.
    Link(&'a StateSnapshot),
    /// Copy rows out of these.
    Rewrite(Vec<&'a StateSnapshot>),
}

/// Opens the state of a subtask, restored.
///
/// # Errors
/// A refusal if a file is missing or damaged, or if the snapshots leave out a key group; when the disk fails.
pub(super) fn open(shared: &Arc<Shared>, spec: &OpenSpec) -> Result<Store, Error> {
    let scratch = shared.live.join(format!("{}-{}", spec.operator, spec.subtask));
    let way = choose(spec)?;
    if way != Way::Nothing {
        disk::create_dir_all(&scratch).map_err(|e| Error::io(e, "make the directory", &scratch))?;
    }
    let store = Store {
        id: shared.stores.fetch_add(1, Relaxed),
        shared: Arc::clone(shared),
        operator: spec.operator.clone(),
        subtask: spec.subtask,
        groups: spec.groups.clone(),
        report: Arc::clone(&spec.report),
        chain: Default::default(),
        folded: Default::default(),
        decided: spec.restored.unwrap_or(0).into(),
        folding: Default::default(),
        unreported: Default::default(),
        failure: Default::default(),
        base: Default::default(),
        restored: Default::default(),
        spill: Spill::new(Arc::clone(&shared.tuning), &scratch),
        checksums: Default::default(),
        scratch: Scratch(scratch),
    };
    match way {
        Way::Nothing => {}
        Way::Link(snapshot) => link(&store, snapshot)?,
        Way::Rewrite(snapshots) => rewrite(&store, &snapshots, spec)?,
    }
    Ok(store)
}

fn choose(spec: &OpenSpec) -> Result<Way<'_>, Error> {
    let own = &spec.groups;
    let overlap = |s: &StateSnapshot| s.groups.end.min(own.end).saturating_sub(s.groups.start.max(own.start)) as usize;
    let snapshots: Vec<_> = spec.restore.iter().filter(|s| overlap(s) > 0).collect();
    let covered: usize = snapshots.iter().map(|s| overlap(s)).sum();
    if !spec.restore.is_empty() && covered != own.len() {
        let found: Vec<_> = spec.restore.iter().map(|s| &s.groups).collect();
        let message = format!("the checkpoint has state of `{}` for the key groups {found:?} only", spec.operator);
        return Err(Error::refused(format!("{message}, and {own:?} are needed: restore an older checkpoint")));
    }
    if snapshots.iter().all(|s| s.base.is_none() && s.deltas.is_empty()) {
        return Ok(Way::Nothing);
    }
    match snapshots[..] {
        [same] if same.groups == *own => Ok(Way::Link(same)),
        _ => Ok(Way::Rewrite(snapshots)),
    }
}

/// Bytes of entries that one subtask sorts at a time while others do the same.
fn chunk_bytes(shared: &Shared) -> usize {
    shared.limits.chunk_bytes / std::thread::available_parallelism().map_or(1, usize::from)
}

fn link(store: &Store, snapshot: &StateSnapshot) -> Result<(), Error> {
    let shared = &store.shared;
    if let Some(base) = &snapshot.base {
        let path = store.scratch.0.join("restored");
        base::link(&shared.checkpoints, base, &path)?;
        base::keep_checksums(store, &base.files);
        *lock(&store.restored) = Some(Rocks::open_read_only(&shared.tuning, &path)?);
        store.folded.store(base.epoch, SeqCst);
    }
    if let Some(last) = snapshot.deltas.last() {
        match index(store, snapshot)? {
            Some(rows) => store.spill.keep(last.epoch, rows),
            None => store.spill.load(last.epoch, |tuning, rocks| {
                let mut sorter = Sorter::new(tuning, rocks, Gone::Keep, chunk_bytes(shared));
                for delta in &snapshot.deltas {
                    let head = spill::head(delta.epoch);
                    let push = |key: &_, row: &_, _| sorter.push(key, &head, row);
                    delta::read(&shared.checkpoints, &store.operator, delta, push)?;
                }
                sorter.flush()
            })?,
        }
    }
    *lock(&store.chain) = Chain { base: snapshot.base.clone(), deltas: snapshot.deltas.clone() };
    Ok(())
}

/// Where the rows of the deltas are; none if there is no room to know that.
fn index(store: &Store, snapshot: &StateSnapshot) -> Result<Option<Indexed>, Error> {
    let Shared { checkpoints, tuning, limits, .. } = &*store.shared;
    let (mut rows, mut fits) = (Indexed::new(&tuning.held, limits.keep_bytes), true);
    for delta in &snapshot.deltas {
        rows.begin(checkpoints.join(&delta.file.path));
        delta::read(checkpoints, &store.operator, delta, |key, row, at| {
            fits = fits && rows.push(key, delta.epoch, row, at);
            Ok(())
        })?;
        if !fits {
            return Ok(None);
        }
    }
    rows.finish();
    Ok(Some(rows))
}

fn rewrite(store: &Store, snapshots: &[&StateSnapshot], spec: &OpenSpec) -> Result<(), Error> {
    let shared = &store.shared;
    let rocks = Rocks::open(&shared.tuning, &store.scratch.0.join("base"))?;
    for snapshot in snapshots {
        copy_base(store, snapshot, &rocks)?;
        let mut sorter = Sorter::new(&shared.tuning, &rocks, Gone::Delete, chunk_bytes(shared));
        for delta in &snapshot.deltas {
            let path = shared.checkpoints.join(&delta.file.path);
            delta::read(&shared.checkpoints, &store.operator, delta, |key, row, _| match place(key, &store.groups) {
                Some(Place::Inside) => sorter.push(key, row, &[]),
                Some(_) => Ok(()),
                None => Err(damaged(&path, "it has a key without a key group")),
            })?;
        }
        sorter.flush()?;
    }
    let deltas = snapshots.iter().flat_map(|s| &s.deltas).map(|d| d.epoch);
    let bases = snapshots.iter().flat_map(|s| &s.base).map(|b| b.epoch);
    let newest = deltas.chain(bases).max().unwrap_or(0);
    let epoch: Epoch = spec.restored.unwrap_or(newest);
    let base = base::take(store, &rocks, epoch)?;
    lock(&store.chain).base = Some(base);
    store.folded.store(epoch, SeqCst);
    let _ = store.base.set(rocks);
    Ok(())
}

/// Copies the rows of the store's key groups out of a base.
fn copy_base(store: &Store, snapshot: &StateSnapshot, into: &Rocks) -> Result<(), Error> {
    let Some(base) = &snapshot.base else {
        return Ok(());
    };
    let shared = &store.shared;
    let path = store.scratch.0.join("old");
    base::link(&shared.checkpoints, base, &path)?;
    let old = Rocks::open_read_only(&shared.tuning, &path)?;
    copy_groups(&old, &store.groups, Run::new(&shared.tuning, into)).map_err(|e| e.at(base.directory.clone()))?;
    old.destroy();
    Ok(())
}

/// Where a key stands, seen from a range of key groups of its table.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Inside,
    /// Go on at this prefix.
    Before([u8; 4]),
    /// Go on at this prefix, the next table's, if there can be one.
    After(Option<[u8; 4]>),
}

/// None if the key is too short.
fn place(key: &[u8], groups: &Range<u32>) -> Option<Place> {
    let (prefix, _) = key.split_first_chunk::<4>()?;
    let [t0, t1, g0, g1] = *prefix;
    let group = u32::from(u16::from_be_bytes([g0, g1]));
    let [s0, s1] = u16::try_from(groups.start).unwrap_or(u16::MAX).to_be_bytes();
    if group < groups.start {
        return Some(Place::Before([t0, t1, s0, s1]));
    }
    if group < groups.end {
        return Some(Place::Inside);
    }
    let next = u16::from_be_bytes([t0, t1]).checked_add(1).map(u16::to_be_bytes);
    Some(Place::After(next.map(|[t0, t1]| [t0, t1, s0, s1])))
}

fn copy_groups(old: &Rocks, groups: &Range<u32>, mut run: Run<'_>) -> Result<(), Error> {
    let path: &Path = old.path();
    let mut scan = old.scan();
    while let Some((key, row)) = scan.item() {
        match place(key, groups) {
            Some(Place::Inside) => {
                run.put(key, row, Gone::Delete)?;
                scan.next();
            }
            Some(Place::Before(prefix) | Place::After(Some(prefix))) => scan.seek(prefix),
            Some(Place::After(None)) => break,
            None => return Err(damaged(path, "it has a key without a key group")),
        }
    }
    scan.status().map_err(|e| failed(e, "read", path))?;
    run.finish()
}
