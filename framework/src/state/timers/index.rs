//! The time index of one timer field: which keys are due when. Only the near entries are in memory. Which of them fire,
//! and what that means for a row, is decided in `subtask/timers.rs`; the cells of rows are in `cell.rs`, how near
//! entries are kept in order in `heap.rs`.
//!
//! An entry is `[table][key group][time][key]` in storage, with a value of one byte. Per key group there is a
//! *horizon*: what is due before it is in memory, be it in storage or not; what is due at or after it is in storage
//! only.
//!
//! 1. What is near is written with the epoch that added it, piece by piece after the barrier, as rows are. So an entry
//!    that was added and taken within an epoch is never written.
//! 2. Entries are taken in the order of their times. So what is gone need not be named: at each barrier a group's
//!    *floor* is written, the time that was reached. Whatever storage has at or before it is gone, and a fold removes
//!    it (see `backend.rs`). The few that are at or before the floor all the same, because they were set when their
//!    time was over and have not fired yet, are listed in the floor's row.
//! 3. Over its bound, a group's later half goes: what is not in a delta yet is put there, and what storage would not
//!    find is spilled; the horizon comes down to the first of them, but never to the floor. What was cancelled leaves a
//!    mark, which goes the same way, for storage may still have what it cancels.
//! 4. When the near ones are used up and the horizon is due, the next ones are read, and the horizon goes up.
//!
//! After a restore every horizon stands at the floor. In a fresh job there is none: everything is in memory.

use super::due::Due;
use super::heap::{Entry, RadixHeap, timestamp};
use crate::state::backend::FLOORS;
use crate::{Epoch, Error, Timestamp};
use std::ops::Range;

/// Bytes in front of time and key: the table and the key group.
const PREFIX: usize = 4;
/// Entries that are copied at a time: about 0.1 ms.
const COPIED: usize = 8192;
/// Entries that are read at a time, at most.
const READ: usize = 16 << 10;

/// What an index wants of the state backend. Keys are whole, from the table's number on; no value says that a key is
/// gone.
pub(crate) trait IndexStorage {
    /// Writes into the delta of the frozen or the running epoch.
    fn put(&mut self, epoch: Epoch, key: &[u8], value: &[u8]) -> Result<(), Error>;
    /// Keeps what leaves memory, as of an epoch.
    fn spill(&mut self, epoch: Epoch, key: &[u8], value: &[u8]) -> Result<(), Error>;
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

/// The near entries of one key group.
#[derive(Debug)]
struct Near {
    heap: RadixHeap,
    /// None: storage has nothing that is not here.
    horizon: Option<Due>,
    /// What was reached when the floor was last written, and whether that listed something.
    floor: (u64, bool),
}

impl Near {
    /// When the next one is due, as far as that is known without reading; cancelled ones count.
    fn next(&self) -> Option<Timestamp> {
        self.heap.next().or(self.horizon.as_ref().map(|due| due.at))
    }

    /// The open entries that are due, in order.
    fn due(&self, now: Timestamp) -> impl Iterator<Item = &Due> {
        let due = self.heap.open().iter().rev().take_while(move |entry| entry.due.at <= now);
        due.filter(|entry| entry.there).map(|entry| &entry.due)
    }

    fn is_far(&self, due: &Due) -> bool {
        self.horizon.as_ref().is_some_and(|horizon| due >= horizon)
    }
}

/// A copy under way.
#[derive(Debug, Clone, Copy)]
struct Copying {
    frozen: Epoch,
    /// Also what earlier epochs added.
    whole: bool,
    /// Groups before this one are done.
    next: usize,
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
    /// The same entry may be set again and again.
    many: bool,
    copying: Option<Copying>,
    /// Nothing is due before; `None`: nothing at all.
    next: Option<Timestamp>,
    key: Vec<u8>,
}

/// Writes what has to be written before it is gone.
struct Leaving<'a, S> {
    table: u16,
    group: u32,
    /// The epoch whose delta this group is still to be copied into, and whether all of it is.
    copying: Option<(Epoch, bool)>,
    key: &'a mut Vec<u8>,
    storage: &'a mut S,
    result: Result<(), Error>,
}

impl<S: IndexStorage> Leaving<'_, S> {
    /// The epoch that still has to be told of an entry before it goes.
    fn untold(&self, entry: &Entry) -> Option<Epoch> {
        let (frozen, whole) = self.copying?;
        (entry.epoch == frozen || whole && entry.epoch < frozen).then_some(frozen)
    }

    fn put(&mut self, epoch: Epoch, entry: &Entry) {
        entry_key(self.table, self.group, &entry.due, self.key);
        let done = self.storage.put(epoch, self.key, value(entry.there));
        self.result = std::mem::replace(&mut self.result, Ok(())).and(done);
    }

    fn leaves(&mut self, entry: &Entry) {
        if let Some(frozen) = self.untold(entry) {
            self.put(frozen, entry);
        }
    }

    /// Memory does not have it any more.
    fn leaves_memory(&mut self, entry: &Entry) {
        let running = self.storage.running();
        if entry.epoch == running {
            self.put(running, entry);
        }
        self.leaves(entry);
        if !self.storage.may_drop(entry.epoch) {
            entry_key(self.table, self.group, &entry.due, self.key);
            let done = self.storage.spill(entry.epoch, self.key, value(entry.there));
            self.result = std::mem::replace(&mut self.result, Ok(())).and(done);
        }
    }
}

impl TimerIndex {
    /// The index of a table, for the key groups of a subtask; `restored` if storage may have entries. About `bound`
    /// entries are kept in memory. Of `many`, one that is set again is noticed sooner.
    pub(crate) fn new(table: u16, groups: Range<u32>, restored: bool, bound: usize, many: bool) -> Self {
        let (first, n) = (groups.start, groups.len().max(1));
        let near = || Near { heap: RadixHeap::new(0, many), horizon: restored.then(Due::first), floor: (0, false) };
        let groups: Vec<Near> = (0..n).map(|_| near()).collect();
        let (copying, key) = Default::default();
        let mut index = Self { table, first, groups, bound: 0, many, copying, next: None, key };
        index.bound = (bound / index.groups.len()).max(8);
        index.look_ahead();
        index
    }

    /// The first two bytes of its keys.
    pub(crate) fn table(&self) -> u16 {
        self.table
    }

    /// Entries in memory.
    pub(crate) fn near(&self) -> usize {
        self.groups.iter().map(|near| near.heap.len()).sum()
    }

    /// Every entry there is is in memory.
    pub(crate) fn is_complete(&self) -> bool {
        self.groups.iter().all(|near| near.horizon.is_none())
    }

    /// Nothing is due before this instant; none if nothing is there. Costs nothing.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Finds out what [`next`](Self::next) is to say after entries were taken.
    pub(crate) fn look_ahead(&mut self) {
        self.next = self.groups.iter().filter_map(Near::next).min();
    }

    fn of(&mut self, group: u32) -> (&mut Near, &mut Vec<u8>) {
        (&mut self.groups[(group - self.first) as usize], &mut self.key)
    }

    /// A group, and what is to be done with what leaves it.
    fn leaving<'a, S>(&'a mut self, group: u32, storage: &'a mut S) -> (&'a mut Near, Leaving<'a, S>) {
        let Self { table, first, groups, copying, key, .. } = self;
        let at = (group - *first) as usize;
        let copying = copying.filter(|copying| copying.next <= at).map(|copying| (copying.frozen, copying.whole));
        (&mut groups[at], Leaving { table: *table, group, copying, key, storage, result: Ok(()) })
    }

    /// Adds an entry, unless it is there.
    pub(crate) fn insert(&mut self, group: u32, due: Due, storage: &mut impl IndexStorage) -> Result<(), Error> {
        let at = due.at;
        if self.change(group, due, true, storage)? {
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
        Ok(())
    }

    /// Removes an entry, if it is there.
    pub(crate) fn cancel(&mut self, group: u32, due: Due, storage: &mut impl IndexStorage) -> Result<(), Error> {
        self.change(group, due, false, storage).map(drop)
    }

    /// True if it is near.
    #[inline]
    fn change(&mut self, group: u32, due: Due, there: bool, storage: &mut impl IndexStorage) -> Result<bool, Error> {
        let (table, bound) = (self.table, self.bound);
        let epoch = storage.running();
        let (near, mut leaving) = self.leaving(group, storage);
        if near.is_far(&due) {
            entry_key(table, group, &due, leaving.key);
            leaving.storage.put(epoch, leaving.key, value(there))?;
            leaving.storage.spill(epoch, leaving.key, value(there))?;
            return Ok(false);
        }
        near.heap.push(Entry { due, there, epoch }, |entry| leaving.leaves(entry));
        if near.heap.len() > bound {
            shrink(near, &mut leaving);
        }
        leaving.result.map(|()| true)
    }

    /// Reads on if the near entries of a group are used up.
    pub(crate) fn read_on(&mut self, group: u32, now: Timestamp, storage: &mut impl IndexStorage) -> Result<(), Error> {
        if self.first(group, now, storage)?.is_some() || !self.is_used_up(group, now) {
            return Ok(());
        }
        let (table, most) = (self.table, (self.bound / 2).min(READ));
        let (near, key) = self.of(group);
        let Some(horizon) = near.horizon.take() else { return Ok(()) };
        entry_key(table, group, &horizon, key);
        let end = (u32::from(table) << 16 | group).wrapping_add(1).to_be_bytes();
        let mut read = 0;
        storage.scan(&key[..]..&end[..], &mut |epoch, key| {
            let due = Due::read(key.get(PREFIX..).unwrap_or_default())?;
            if read >= most {
                near.horizon = Some(due);
                return Ok(false);
            }
            read += 1;
            near.heap.push(Entry { due, there: true, epoch }, |_| {});
            Ok(true)
        })?;
        self.first(group, now, storage).map(drop)
    }

    /// The near entries of a group that are next and are due, in order.
    pub(crate) fn due(&self, group: u32, now: Timestamp) -> impl Iterator<Item = &Due> {
        self.groups[(group - self.first) as usize].due(now)
    }

    /// When the first entry of a group is due, if it is.
    #[inline]
    pub(crate) fn first(
        &mut self,
        group: u32,
        now: Timestamp,
        storage: &mut impl IndexStorage,
    ) -> Result<Option<Timestamp>, Error> {
        let (near, mut leaving) = self.leaving(group, storage);
        while near.heap.advance(now, |entry| leaving.leaves(entry)) {
            match near.heap.open().last() {
                Some(first) if first.there => return leaving.result.map(|()| Some(first.due.at)),
                _ => near.heap.pop().iter().for_each(|gone| leaving.leaves(gone)),
            }
        }
        leaving.result.map(|()| None)
    }

    /// Whether it cannot be told what is due in a group before something was read; to be asked if there is no
    /// [`first`](Self::first).
    pub(crate) fn is_used_up(&self, group: u32, now: Timestamp) -> bool {
        let near = &self.groups[(group - self.first) as usize];
        near.horizon.as_ref().is_some_and(|horizon| horizon.at <= now) && near.due(now).next().is_none()
    }

    /// Takes the first entry of a group out; to be called if there is a [`first`](Self::first) that is due.
    #[inline]
    pub(crate) fn take(&mut self, group: u32, storage: &mut impl IndexStorage) -> Result<Option<Due>, Error> {
        let (near, mut leaving) = self.leaving(group, storage);
        let taken = near.heap.pop();
        taken.iter().for_each(|entry| leaving.leaves(entry));
        leaving.result.map(|()| taken.map(|entry| entry.due))
    }

    /// Ends the epoch: what it added, or with `whole` all there is, is to be [copied](Self::copy). Writes the floors
    /// that have changed, with `whole` all.
    pub(crate) fn freeze(&mut self, frozen: Epoch, whole: bool, storage: &mut impl IndexStorage) -> Result<(), Error> {
        let Self { table, first, groups, key, copying, .. } = self;
        *copying = Some(Copying { frozen, whole, next: 0 });
        let mut row = Vec::new();
        for (group, near) in (*first..).zip(groups) {
            let overdue = near.heap.open().iter().rev().filter(|entry| entry.there).map(|entry| &entry.due);
            let floor = (near.heap.reached(), overdue.clone().next().is_some());
            if floor != near.floor || floor.1 || (whole && floor.0 > 0) {
                floor_key(*table, group, key);
                put_floor(floor.0, overdue, *table, group, &mut row);
                storage.put(frozen, key, &row)?;
                near.floor = floor;
            }
        }
        Ok(())
    }

    /// Copies a number of frozen entries; true if there are more.
    pub(crate) fn copy(&mut self, storage: &mut impl IndexStorage) -> Result<bool, Error> {
        let mut copied = 0;
        while let Some(Copying { next, .. }) = self.copying {
            if next == self.groups.len() {
                self.copying = None;
            } else if copied >= COPIED {
                return Ok(true);
            } else {
                let (near, mut leaving) = self.leaving(self.first + next as u32, storage);
                near.heap.iter().for_each(|entry| leaving.leaves(entry));
                copied += near.heap.len();
                leaving.result?;
                self.copying = self.copying.map(|copying| Copying { next: next + 1, ..copying });
            }
        }
        Ok(false)
    }

    /// Takes over a group's floor from a checkpoint.
    pub(crate) fn restore(&mut self, group: u32, floor: &[u8]) -> Result<(), Error> {
        let (reached, overdue) = read_floor(floor)?;
        let many = self.many;
        let (near, _) = self.of(group);
        near.heap = RadixHeap::new(reached, many);
        near.floor = (reached, !overdue.is_empty());
        near.horizon = reached.checked_add(1).map(|next| Due::new(timestamp(next), &[]));
        for due in overdue {
            near.heap.push(Entry { due, there: true, epoch: 0 }, |_| {});
        }
        Ok(())
    }
}

/// Brings the later half of a group to storage.
fn shrink(near: &mut Near, leaving: &mut Leaving<'_, impl IndexStorage>) {
    let later = near.heap.split_off(|entry| leaving.leaves(entry));
    if let Some(first) = later.first() {
        later.iter().for_each(|entry| leaving.leaves_memory(entry));
        near.horizon = Some(first.due.clone());
    }
}

/// Writes the whole key of an entry into a buffer.
fn entry_key(table: u16, group: u32, due: &Due, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(&table.to_be_bytes());
    key.extend_from_slice(&(group as u16).to_be_bytes());
    due.put(key);
}

/// What stands in storage behind the key of an entry.
fn value(there: bool) -> &'static [u8] {
    if there { &[1] } else { &[] }
}

/// Writes the whole key of a floor into a buffer.
pub(crate) fn floor_key(table: u16, group: u32, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(&FLOORS.to_be_bytes());
    key.extend_from_slice(&(group as u16).to_be_bytes());
    key.extend_from_slice(&table.to_be_bytes());
}

/// Writes a floor's row: up to where all is gone, the time that was reached, and what is overdue.
fn put_floor<'a>(reached: u64, overdue: impl Iterator<Item = &'a Due>, table: u16, group: u32, row: &mut Vec<u8>) {
    row.clear();
    row.push(12);
    row.extend_from_slice(&table.to_be_bytes());
    row.extend_from_slice(&(group as u16).to_be_bytes());
    row.extend_from_slice(&reached.saturating_add(1).to_be_bytes());
    row.extend_from_slice(&reached.to_be_bytes());
    for due in overdue {
        row.extend_from_slice(&(8 + due.key.get().len() as u32).to_be_bytes());
        due.put(row);
    }
}

/// What was reached, and what is overdue.
fn read_floor(row: &[u8]) -> Result<(u64, Vec<Due>), Error> {
    let damaged = || Error::refused("a floor of a time index is damaged: restore an older checkpoint");
    let (_, rest) = row.split_at_checked(1 + PREFIX + 8).ok_or_else(damaged)?;
    let (reached, mut rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let mut overdue = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk() {
        let (due, more) = more.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(damaged)?;
        overdue.push(Due::read(due)?);
        rest = more;
    }
    if rest.is_empty() { Ok((u64::from_be_bytes(*reached), overdue)) } else { Err(damaged()) }
}

#[cfg(test)]
#[path = "index_test.rs"]
mod tests;
