//! Keyed operators in a subtask: one row look-up per record, the user's function on the row in place.
//!
//! 1. If rows may be in storage only, a first pass over the batch finds the misses and fetches them together.
//! 2. The loop asks for the slot of a record 32 records ahead and for what its key keeps on the heap 8 ahead, then
//!    finds the row, marks it, and calls the user's function with it.
//! 3. When the table is over its bound, rows of earlier epochs are evicted, then any.
//!
//! At a barrier the epoch's rows are frozen and copied into its delta piece by piece between batches (see
//! `state/table.rs`); when the last piece is durable, the backend's writer reports this subtask's share.

use super::drive::nanos;
use super::report::{Counters, StageContext};
use super::stage::Stage;
use crate::clock;
use crate::codec::CodecError;
use crate::key::encode_key;
use crate::operator::{Context, Process};
use crate::state::backend::{Backend, Keys};
use crate::state::table::{RowTable, Stamp};
use crate::state::{RowLayout, State};
use crate::{Batch, BoxError, Epoch, Error, ErrorKind, Key, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll};

/// Distance of prefetching, in records: a slot, and what its key keeps on the heap. Where the third-level cache is far,
/// as on servers of many cores, 16 for slots is a fifth slower than 32; more than that gains nothing.
const SLOT_AHEAD: usize = 32;
const KEY_AHEAD: usize = 8;
/// Slots copied or swept between two batches: about 0.1 ms.
const SLOTS: usize = 8192;

/// How a keyed operator finds the key of a record.
pub(crate) enum KeyOf<K, T> {
    /// It is a part of the record.
    Borrowed(Arc<dyn Fn(&T) -> &K + Send + Sync>),
    /// It is made from the record.
    Computed(Arc<dyn Fn(&T) -> K + Send + Sync>),
}

impl<K, T> KeyOf<K, T> {
    #[inline(always)]
    fn with<R>(&self, value: &T, f: impl FnOnce(&K) -> R) -> R {
        match self {
            Self::Borrowed(key) => f(key(value)),
            Self::Computed(key) => f(&key(value)),
        }
    }
}

impl<K, T> Clone for KeyOf<K, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Borrowed(key) => Self::Borrowed(key.clone()),
            Self::Computed(key) => Self::Computed(key.clone()),
        }
    }
}

/// Where a keyed operator's rows are kept, and how many may be in memory.
pub(crate) struct StateContext {
    pub(crate) backend: Backend,
    pub(crate) layout: RowLayout,
    /// The first two bytes of this operator's keys.
    pub(crate) table: u16,
    pub(crate) groups: std::ops::Range<u32>,
    /// Bytes for rows in memory.
    pub(crate) cache_bytes: usize,
    /// Rows in memory, whatever they take; for tests that want eviction.
    pub(crate) cache_rows: Option<usize>,
}

/// The bytes side: what goes to deltas and to the spill.
struct Disk {
    backend: Backend,
    layout: RowLayout,
    table: u16,
    running: Epoch,
    /// The epoch that is being copied, or was last.
    frozen: Epoch,
    key: Vec<u8>,
    row: Vec<u8>,
    /// Of the rows of the last copy.
    encoded_bytes: usize,
    encoded_rows: usize,
    gone: usize,
    /// The copy under way holds every row there is.
    whole: bool,
    /// The first error of a call that could not return it.
    error: Option<Error>,
}

fn stamp(epoch: Epoch) -> Stamp {
    epoch as Stamp + 1
}

fn codec(error: CodecError) -> Error {
    Error::new(ErrorKind::Failed, "a row cannot be encoded or decoded").because(error)
}

/// Appends the key as storage orders it.
#[inline(always)]
fn put_key<K: Key>(table: u16, group: u32, key: &K, into: &mut Vec<u8>) -> Result<(), Error> {
    into.extend_from_slice(&table.to_be_bytes());
    into.extend_from_slice(&(group as u16).to_be_bytes());
    encode_key(key, into).map_err(|e| Error::new(ErrorKind::Failed, "this key cannot be kept").because(e))
}

impl Disk {
    /// Appends a row of the frozen epoch to its delta.
    #[inline(always)]
    fn save<K: Key, S: State>(&mut self, group: u32, key: &K, row: &S) {
        let Self { backend, layout, table, encoded_bytes, encoded_rows, gone, .. } = self;
        let done = backend.put(
            self.frozen,
            |into| put_key(*table, group, key, into),
            |into| {
                let from = into.len();
                layout.save(row, into).map_err(codec)?;
                *encoded_bytes += into.len() - from;
                *encoded_rows += 1;
                *gone += usize::from(into.len() == from);
                Ok(())
            },
        );
        if let Err(error) = done {
            self.error.get_or_insert(error);
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Sees to it that storage has a row that is about to leave the table.
    fn evict<K: Key, S: State>(&mut self, group: u32, at: Stamp, key: &K, row: &S) -> Result<(), Error> {
        let epoch = Epoch::from(at) - 1;
        if self.backend.may_drop(epoch) {
            return Ok(());
        }
        self.key.clear();
        self.row.clear();
        put_key(self.table, group, key, &mut self.key)?;
        self.layout.save(row, &mut self.row).map_err(codec)?;
        if epoch == self.running {
            let (key, row) = (&self.key, &self.row);
            self.backend.put(
                epoch,
                |into| {
                    into.extend_from_slice(key);
                    Ok(())
                },
                |into| {
                    into.extend_from_slice(row);
                    Ok(())
                },
            )?;
        }
        self.backend.spill(epoch, &self.key, &self.row)
    }
}

/// A keyed operator in one subtask.
pub(crate) struct ProcessStage<P: Process> {
    process: Arc<P>,
    key_of: KeyOf<P::Key, P::In>,
    table: RowTable<P::Key, P::State>,
    disk: Disk,
    /// Every row there is is in the table: misses need no look-up.
    complete: bool,
    /// Rows the table may hold, given or derived from bytes.
    cache_rows: Option<usize>,
    cache_bytes: usize,
    bound: usize,
    evicting: bool,
    /// Rows that the last epoch left without content.
    gone: usize,
    /// Slots still to be looked at for rows without content.
    sweeping: usize,
    misses: Misses,
    out: Batch<P::Out>,
    timed: bool,
    next: Box<dyn Stage<P::Out>>,
    context: StageContext,
}

/// Scratch of the first pass: the keys that are not in the table, and where in the batch they are.
#[derive(Default)]
struct Misses {
    at: Vec<usize>,
    keys: Keys,
}

impl<P: Process> ProcessStage<P> {
    pub(crate) fn new(
        process: Arc<P>,
        key_of: KeyOf<P::Key, P::In>,
        state: StateContext,
        timed: bool,
        next: Box<dyn Stage<P::Out>>,
        context: StageContext,
    ) -> Self {
        let StateContext { backend, layout, table, groups, cache_bytes, cache_rows } = state;
        let running = context.first_epoch;
        let complete = backend.is_empty();
        let rows = RowTable::new(groups, context.key_groups, stamp(running));
        let disk = Disk {
            backend,
            layout,
            table,
            running,
            frozen: running,
            key: Vec::new(),
            row: Vec::new(),
            encoded_bytes: 0,
            encoded_rows: 0,
            gone: 0,
            whole: false,
            error: None,
        };
        let mut stage = Self {
            process,
            key_of,
            table: rows,
            disk,
            complete,
            cache_rows,
            cache_bytes,
            bound: 0,
            evicting: false,
            gone: 0,
            sweeping: 0,
            misses: Misses::default(),
            out: Batch::default(),
            timed,
            next,
            context,
        };
        stage.bound = stage.row_bound();
        stage
    }

    /// How many rows fit the cache. Slots are between a quarter and three quarters full; what rows keep on the heap is
    /// taken to be what they take on disk, plus the allocator's share.
    fn row_bound(&self) -> usize {
        if let Some(rows) = self.cache_rows {
            return rows.max(1);
        }
        let slots = RowTable::<P::Key, P::State>::slot_bytes() * 5 / 2;
        let heap = if std::mem::needs_drop::<(P::Key, P::State)>() {
            48 + self.disk.encoded_bytes.checked_div(self.disk.encoded_rows).unwrap_or(64)
        } else {
            0
        };
        (self.cache_bytes / (slots + heap)).max(1024)
    }

    /// About what all rows take on disk.
    fn whole_bytes(&self) -> u64 {
        let row = self.disk.encoded_bytes.checked_div(self.disk.encoded_rows).unwrap_or(16);
        (self.table.len() * (row + 16)) as u64
    }

    /// First pass: fetches the rows that are in storage only.
    fn fetch(&mut self, batch: &Batch<P::In>) -> Result<(), Error> {
        let Self { table, key_of, disk, misses, .. } = self;
        misses.at.clear();
        misses.keys.clear();
        let hashes = &batch.hashes[..];
        hashes.iter().take(SLOT_AHEAD).for_each(|h| table.prefetch(*h));
        for (i, (value, hash)) in batch.values.iter().zip(hashes).enumerate() {
            if let Some(h) = hashes.get(i + SLOT_AHEAD) {
                table.prefetch(*h);
            }
            key_of.with(value, |key| {
                if table.contains(*hash, key) {
                    return Ok(());
                }
                misses.at.push(i);
                misses.keys.push(|into| put_key(disk.table, table.key_group(*hash), key, into))
            })?;
        }
        if misses.at.is_empty() {
            return Ok(());
        }
        Counters::add(&self.context.counters.misses, misses.at.len());
        let mut loaded = 0;
        let layout = &disk.layout;
        disk.backend.get_many(&misses.keys, |miss, epoch, row| {
            let at = misses.at[miss];
            let row = layout.load::<P::State>(row).map_err(codec)?;
            // rows of `base` are clean; an epoch that is not folded yet is never 0
            let stamp = if epoch == 0 { 0 } else { stamp(epoch) };
            key_of.with(&batch.values[at], |key| table.load(hashes[at], stamp, key.clone(), row));
            loaded += 1;
            Ok(())
        })?;
        Counters::add(&self.context.counters.loaded, loaded);
        Ok(())
    }

    /// Second pass: the user's function on each record.
    fn run(&mut self, batch: &mut Batch<P::In>) -> Result<(), BoxError> {
        let Self { table, key_of, process, disk, out, timed, .. } = self;
        let timed = *timed;
        out.values.reserve(batch.values.len());
        let hashes = &batch.hashes[..];
        let mut times = batch.times.drain(..);
        hashes.iter().take(SLOT_AHEAD).for_each(|h| table.prefetch(*h));
        for (i, (value, hash)) in batch.values.drain(..).zip(hashes).enumerate() {
            if let Some(h) = hashes.get(i + SLOT_AHEAD) {
                table.prefetch(*h);
            }
            if let Some(h) = hashes.get(i + KEY_AHEAD) {
                table.prefetch_key(*h);
            }
            let time = if timed { times.next().unwrap_or(Timestamp::MIN) } else { Timestamp::MIN };
            let place = key_of.with(&value, |key| table.locate(*hash, key, P::State::open));
            let (key, row) = table.touch(place, |group, key, row| disk.save(group, key, row));
            process.on_record(value, row, &mut Context::new(key, time, out, timed))?;
        }
        Ok(())
    }

    /// Makes room in the table. Rows of earlier epochs go first; within one call the work is bounded unless the table
    /// is far over its bound.
    fn evict(&mut self) -> Result<(), Error> {
        let Self { table, disk, bound, .. } = self;
        while table.is_copying() {
            table.copy(usize::MAX, |group, key, row| disk.save(group, key, row));
            disk.check()?;
            self.gone = disk.copied()?;
        }
        self.complete = false;
        let (target, hard, running) = (*bound - *bound / 8, *bound + *bound / 8, table.stamp());
        let before = table.len();
        let circle = table.slots();
        let mut swept = 0;
        while table.len() > target && (swept < 16 * SLOTS || table.len() > hard) {
            // after a full circle over cold rows the hot ones have to go
            let any = swept >= circle;
            table.sweep(SLOTS, |group, stamp, key, row| {
                let cold = any || stamp != running;
                if cold && stamp != 0 {
                    disk.evict(group, stamp, key, row)?;
                }
                Ok::<_, Error>(cold)
            })?;
            swept += SLOTS;
        }
        self.evicting = table.len() > target;
        Counters::add(&self.context.counters.evicted, before - table.len());
        Ok(())
    }

    /// Sweeps rows that hold nothing any more out of the table. It stays complete: a miss means that there is nothing.
    fn sweep(&mut self) -> Result<(), Error> {
        let Self { table, disk, sweeping, .. } = self;
        table.sweep(SLOTS.min(*sweeping), |_, stamp, _, row| {
            let forgotten = stamp == 0 || disk.backend.may_forget(Epoch::from(stamp) - 1);
            Ok::<_, Error>(forgotten && crate::state::is_empty(row))
        })?;
        *sweeping = sweeping.saturating_sub(SLOTS);
        Ok(())
    }

    fn copy(&mut self) -> Result<(), Error> {
        let Self { table, disk, .. } = self;
        if !table.copy(SLOTS, |group, key, row| disk.save(group, key, row)) {
            disk.check()?;
            let gone = disk.copied()?;
            // those that this epoch left without content can go when it is decided, hence with the next one
            self.sweeping = if std::mem::replace(&mut self.gone, gone) > 0 { self.table.slots() } else { 0 };
            self.bound = self.row_bound();
            self.context.counters.rows.store(self.table.len() as u64, Relaxed);
        }
        self.disk.check()
    }
}

impl Disk {
    /// The frozen epoch's rows have all been copied; gives how many of them are gone.
    fn copied(&mut self) -> Result<usize, Error> {
        self.backend.finish(self.frozen, self.whole)?;
        Ok(std::mem::take(&mut self.gone))
    }
}

impl<P: Process> Stage<P::In> for ProcessStage<P> {
    fn on_batch(&mut self, batch: &mut Batch<P::In>) -> Result<(), Error> {
        Counters::add(&self.context.counters.records_in, batch.len());
        if !self.complete {
            self.fetch(batch).map_err(|e| e.at(self.context.place("operator")))?;
        }
        self.run(batch).map_err(|e| Error::from_user(e, self.context.place("operator")))?;
        batch.clear();
        self.disk.check()?;
        if self.evicting || self.table.len() > self.bound {
            self.evict()?;
        }
        Counters::add(&self.context.counters.records_out, self.out.len());
        self.next.on_batch(&mut self.out)
    }

    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.context.counters.watermark.set(mark);
        self.next.on_watermark(mark)
    }

    fn on_idle(&mut self) -> Result<(), Error> {
        self.next.on_idle()
    }

    fn on_announced(&mut self, epoch: Epoch) {
        self.next.on_announced(epoch);
    }

    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        let start = clock::now();
        self.next.on_barrier(epoch)?;
        while self.table.is_copying() {
            // only if the last copy has not ended: back-pressure on checkpoints
            self.copy()?;
        }
        let whole = self.complete && self.disk.backend.wants_whole(self.whole_bytes());
        self.disk.encoded_bytes = 0;
        self.disk.encoded_rows = 0;
        self.disk.whole = whole;
        (self.disk.frozen, self.disk.running) = (epoch, epoch + 1);
        self.table.freeze(whole);
        debug_assert_eq!(self.table.stamp(), stamp(epoch + 1), "the table counts epochs as the coordinator does");
        Counters::max(&self.context.counters.pause_ns_max, nanos(start.elapsed()));
        Ok(())
    }

    fn on_end(&mut self) -> Result<(), Error> {
        self.next.on_end()
    }

    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.disk.backend.decided(epoch);
        self.next.on_decided(epoch)
    }

    fn poll_ready(&mut self, all: bool, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        self.next.poll_ready(all, cx)
    }

    fn background(&mut self) -> Result<bool, Error> {
        if self.table.is_copying() {
            let start = clock::now();
            self.copy()?;
            Counters::max(&self.context.counters.pause_ns_max, nanos(start.elapsed()));
            return Ok(true);
        }
        if self.sweeping > 0 {
            self.sweep()?;
            return Ok(true);
        }
        self.next.background()
    }
}
