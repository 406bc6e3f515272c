//! The time index of one timer field: which keys are due when. Only the near entries are in memory. Which of them fire,
//! and what that means for a row, is decided in `subtask/timers.rs`; the cells of rows are in `cell.rs`.
//!
//! An entry is `[table][key group][time][key]` in storage, with a value of one byte. Per key group there is a
//! *horizon*: what is due before it is in memory, be it in storage or not; what is due at or after it is in storage
//! only.
//!
//! 1. Whatever is added or removed is written to the running epoch's delta at once. So there is nothing to do at
//!    barriers, and what leaves memory is in a delta already.
//! 2. Over its bound, a group's later half goes: entries whose epoch is folded are dropped, others are spilled, and the
//!    horizon comes down to the first of them. What was cancelled leaves a mark, which goes the same way, for storage
//!    may still have what it cancels.
//! 3. When the near ones are used up and the horizon is due, the next ones are read, and the horizon goes up.
//! 4. What has been taken, because it is due, is in front of the *floor*, and the horizon never comes down to that: so
//!    what storage still has of it is never read again. After a restore it is gone by its delta.
//!
//! After a restore every horizon stands before all entries. In a fresh job there is none: everything is in memory.

use super::due::Due;
use crate::{Epoch, Error, Timestamp};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes in front of time and key: the table and the key group.
const PREFIX: usize = 4;

/// What an index wants of the state backend. Keys are whole, from the table's number on.
pub(crate) trait IndexStorage {
    /// Writes into the running epoch's delta that an entry is there, or that it is gone.
    fn put(&mut self, key: &[u8], there: bool) -> Result<(), Error>;
    /// Keeps what leaves memory, as of an epoch.
    fn spill(&mut self, epoch: Epoch, key: &[u8], there: bool) -> Result<(), Error>;
    /// Whether an entry that was last changed in this epoch is where [`scan`](Self::scan) finds it.
    fn may_drop(&mut self, epoch: Epoch) -> bool;
    /// Shows the entries in `range`, in order, with the epoch each was changed in, until told to stop.
    fn scan(
        &mut self,
        range: Range<&[u8]>,
        each: &mut dyn FnMut(Epoch, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error>;
    /// The running epoch.
    fn running(&self) -> Epoch;
}

/// Of an entry in memory.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// Not cancelled.
    there: bool,
    /// In which it was last changed.
    epoch: Epoch,
}

/// The near entries of one key group.
#[derive(Debug)]
struct Near {
    entries: BTreeMap<Due, Standing>,
    /// None: storage has nothing that is not here.
    horizon: Option<Due>,
    /// The last one that was taken.
    floor: Due,
}

impl Near {
    /// When the next one is due, as far as that is known without reading; cancelled ones count.
    fn next(&self) -> Option<Timestamp> {
        self.entries.keys().next().or(self.horizon.as_ref()).map(|due| due.at)
    }

    fn due(&self, now: Timestamp) -> impl Iterator<Item = &Due> {
        let due = self.entries.iter().take_while(move |(due, _)| due.at <= now);
        due.filter(|(_, standing)| standing.there).map(|(due, _)| due)
    }

    /// Whether more has to be read to know what is due by then.
    fn is_used_up(&self, now: Timestamp) -> bool {
        self.horizon.as_ref().is_some_and(|horizon| horizon.at <= now) && self.due(now).next().is_none()
    }

    /// Removes the first entry if it is due.
    fn pop(&mut self, now: Timestamp) -> Option<(Due, Standing)> {
        let first = self.entries.first_entry().filter(|first| first.key().at <= now)?;
        let (due, standing) = first.remove_entry();
        if due > self.floor {
            self.floor = due.clone();
        }
        Some((due, standing))
    }
}

/// A time index.
#[derive(Debug)]
pub(crate) struct TimerIndex {
    table: u16,
    /// The key group of `groups[0]`.
    first: u32,
    groups: Vec<Near>,
    /// Entries in memory, per group.
    bound: usize,
    /// Nothing is due before; `None`: nothing at all.
    next: Option<Timestamp>,
    key: Vec<u8>,
}

impl TimerIndex {
    /// The index of a table, for the key groups of a subtask; `restored` if storage may have entries. About `bound`
    /// entries are kept in memory.
    pub(crate) fn new(table: u16, groups: Range<u32>, restored: bool, bound: usize) -> Self {
        let (first, n) = (groups.start, groups.len().max(1));
        let near = || Near { entries: BTreeMap::new(), horizon: restored.then(Due::first), floor: Due::first() };
        let groups: Vec<Near> = (0..n).map(|_| near()).collect();
        let mut index = Self { table, first, groups, bound: 0, next: None, key: Vec::new() };
        index.set_bound(bound);
        index.look_ahead();
        index
    }

    /// Changes how many entries are kept in memory; at least a few for each group.
    pub(crate) fn set_bound(&mut self, bound: usize) {
        self.bound = (bound / self.groups.len()).max(8);
    }

    /// Entries in memory.
    #[cfg(test)]
    pub(crate) fn near(&self) -> usize {
        self.groups.iter().map(|near| near.entries.len()).sum()
    }

    /// Nothing is due before this instant; none if nothing is there. Costs nothing.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Finds out what [`next`](Self::next) is to say after entries were taken.
    pub(crate) fn look_ahead(&mut self) {
        self.next = self.groups.iter().filter_map(Near::next).min();
    }

    /// Adds an entry, unless it is there.
    pub(crate) fn insert(&mut self, group: u32, due: Due, storage: &mut impl IndexStorage) -> Result<(), Error> {
        let Self { table, first, groups, bound, next, key } = self;
        let near = &mut groups[(group - *first) as usize];
        if near.entries.get(&due).is_some_and(|standing| standing.there) {
            return Ok(());
        }
        whole(*table, group, &due, key);
        storage.put(key, true)?;
        let epoch = storage.running();
        if near.horizon.as_ref().is_some_and(|horizon| due >= *horizon) {
            return storage.spill(epoch, key, true);
        }
        *next = Some(next.map_or(due.at, |at| at.min(due.at)));
        near.entries.insert(due, Standing { there: true, epoch });
        if near.entries.len() > *bound { self.shrink(group, storage) } else { Ok(()) }
    }

    /// Removes an entry, if it is there.
    pub(crate) fn cancel(&mut self, group: u32, due: &Due, storage: &mut impl IndexStorage) -> Result<(), Error> {
        let Self { table, first, groups, key, .. } = self;
        let near = &mut groups[(group - *first) as usize];
        let epoch = storage.running();
        let is_far = near.horizon.as_ref().is_some_and(|horizon| due >= horizon);
        match near.entries.get_mut(due) {
            Some(standing) if standing.there => *standing = Standing { there: false, epoch },
            _ if is_far => {}
            _ => return Ok(()),
        }
        whole(*table, group, due, key);
        storage.put(key, false)?;
        if is_far { storage.spill(epoch, key, false) } else { Ok(()) }
    }

    /// Reads on if the near entries of a group are used up.
    pub(crate) fn read_on(&mut self, group: u32, now: Timestamp, storage: &mut impl IndexStorage) -> Result<(), Error> {
        let Self { table, first, groups, bound, key, .. } = self;
        let near = &mut groups[(group - *first) as usize];
        while near.entries.first_key_value().is_some_and(|(due, s)| !s.there && due.at <= now) {
            near.pop(now);
        }
        if !near.is_used_up(now) {
            return Ok(());
        }
        let Some(horizon) = near.horizon.take() else { return Ok(()) };
        whole(*table, group, &horizon, key);
        let end = (u32::from(*table) << 16 | group).wrapping_add(1).to_be_bytes();
        storage.scan(&key[..]..&end[..], &mut |epoch, key| {
            let due = Due::read(key.get(PREFIX..).unwrap_or_default())?;
            if near.entries.len() >= *bound / 2 {
                near.horizon = Some(due);
                return Ok(false);
            }
            near.entries.insert(due, Standing { there: true, epoch });
            Ok(true)
        })
    }

    /// Whether it cannot be told what is due in a group before something was read.
    pub(crate) fn is_used_up(&self, group: u32, now: Timestamp) -> bool {
        self.groups[(group - self.first) as usize].is_used_up(now)
    }

    /// The near entries of a group that are due, in order.
    pub(crate) fn due(&self, group: u32, now: Timestamp) -> impl Iterator<Item = &Due> {
        self.groups[(group - self.first) as usize].due(now)
    }

    /// Takes the first entry of a group out, if it is due.
    pub(crate) fn take(
        &mut self,
        group: u32,
        now: Timestamp,
        storage: &mut impl IndexStorage,
    ) -> Result<Option<Due>, Error> {
        let Self { table, first, groups, key, .. } = self;
        let near = &mut groups[(group - *first) as usize];
        while let Some((due, standing)) = near.pop(now) {
            if standing.there {
                whole(*table, group, &due, key);
                storage.put(key, false)?;
                return Ok(Some(due));
            }
        }
        Ok(None)
    }

    /// Brings the later half of a group to storage.
    fn shrink(&mut self, group: u32, storage: &mut impl IndexStorage) -> Result<(), Error> {
        let Self { table, first, groups, key, .. } = self;
        let near = &mut groups[(group - *first) as usize];
        let middle = near.entries.keys().nth(near.entries.len() / 2);
        let Some(from) = middle.map(|middle| middle.max(&near.floor)) else { return Ok(()) };
        // behind the floor, not at it
        let Some(from) = near.entries.range(from..).find(|(due, _)| **due > near.floor).map(|(due, _)| due.clone())
        else {
            return Ok(());
        };
        for (due, Standing { there, epoch }) in near.entries.split_off(&from) {
            if !storage.may_drop(epoch) {
                whole(*table, group, &due, key);
                storage.spill(epoch, key, there)?;
            }
        }
        near.horizon = Some(from);
        Ok(())
    }
}

/// Writes the whole key of an entry into a buffer.
fn whole(table: u16, group: u32, due: &Due, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(&table.to_be_bytes());
    key.extend_from_slice(&(group as u16).to_be_bytes());
    due.put(key);
}

#[cfg(test)]
#[path = "index_test.rs"]
mod tests;
