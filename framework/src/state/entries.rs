//! The table of a collection: the entries of all keys, each a row of its own, which comes, goes and is written by
//! itself. What users see of it is in `map.rs` and `list.rs`.
//!
//! An entry's key is the row's key and then the entry's, as stored; neither is ever the beginning of another one of its
//! type, so those of two rows do not mix. The hash is made of these bytes, but for the lower half, which says the key
//! group.
//!
//! The calls here cannot fail for user code. An error of the disk is kept, the call finds nothing, and the stage looks
//! for the error before it hands anything on.

use super::backend::Keys;
use super::cache::{Cache, Form, PREFIX, codec, put_prefix, unkept};
use super::handle::{Here, Table};
use super::storage::TableSpec;
use super::table::Place;
use super::wanted::Missing;
use crate::codec::{self, CodecError};
use crate::key::{encode_key, stable_hash};
use crate::{Data, Error, Key};
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Keys of up to so many bytes are kept in place, and `u64` or less with them is a cache line.
const SHORT: usize = 30;

/// A stored key: of the row, then of the entry.
#[derive(Debug, Clone)]
pub(crate) enum EntryKey {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl EntryKey {
    #[inline]
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match short.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Self::Short(bytes.len() as u8, short)
            }
            None => Self::Long(bytes.into()),
        }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for EntryKey {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}
impl PartialEq for EntryKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}
impl Eq for EntryKey {}
impl PartialOrd for EntryKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for EntryKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bytes().cmp(other.bytes())
    }
}

/// Entries of values `V`. One that was looked for and is not there is kept as `None`, until it is evicted.
pub(crate) struct Entries<V> {
    id: u32,
    version: u32,
    key_groups: u32,
    /// The keys in memory, in order, from the first time that a range is asked for.
    order: Option<BTreeSet<EntryKey>>,
    of: std::marker::PhantomData<fn() -> V>,
}

impl<V: Data> Form for Entries<V> {
    type Key = EntryKey;
    type Row = Option<V>;
    fn put_key(&self, key: &EntryKey, into: &mut Vec<u8>) -> Result<(), Error> {
        into.extend_from_slice(key.bytes());
        Ok(())
    }
    fn read_key(&self, group: u32, bytes: &[u8]) -> Result<(u64, EntryKey), Error> {
        Ok((hash(group, self.key_groups, bytes), EntryKey::new(bytes)))
    }
    fn is(key: &EntryKey, stored: &[u8]) -> bool {
        key.bytes() == stored
    }
    fn save(&self, row: &Option<V>, into: &mut Vec<u8>) -> Result<(), CodecError> {
        match row {
            Some(value) => codec::put_field(self.id, self.version, value, into),
            None => Ok(()),
        }
    }
    fn load(&self, bytes: &[u8]) -> Result<Option<V>, CodecError> {
        match codec::fields(bytes).next() {
            None => Ok(None),
            Some(field) => match field? {
                field if field.id == self.id => Ok(Some(field.value()?)),
                field => Err(CodecError::UnknownField { id: field.id }),
            },
        }
    }
    fn open(&self) -> Option<V> {
        None
    }
    fn is_empty(row: &Option<V>) -> bool {
        row.is_none()
    }
    /// What the order takes, too, if there is one.
    fn heap(&self, key: usize, row: usize) -> usize {
        let long = if key > SHORT + 4 { key + 16 } else { 0 };
        let value = if std::mem::needs_drop::<V>() { 48 + row } else { 0 };
        let order = if self.order.is_some() { 48 + long } else { 0 };
        long + value + order
    }
    fn added(&mut self, key: &EntryKey) {
        if let Some(order) = &mut self.order {
            order.insert(key.clone());
        }
    }
    fn removed(&mut self, key: &EntryKey) {
        if let Some(order) = &mut self.order {
            order.remove(key);
        }
    }
}

/// The upper half tells keys apart, the lower one is of the key group.
#[inline]
fn hash(group: u32, key_groups: u32, key: &[u8]) -> u64 {
    struct Bytes<'a>(&'a [u8]);
    impl serde::Serialize for Bytes<'_> {
        #[inline(always)]
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }
    let first = (u64::from(group) << 32).div_ceil(u64::from(key_groups));
    stable_hash(&Bytes(key)) & !0xFFFF_FFFF | first
}

/// The entries of all keys, of which those of one are at hand.
pub(crate) struct EntryTable<V: Data> {
    pub(crate) cache: Cache<Entries<V>>,
    key_groups: u32,
    group: u32,
    /// The key of the row at hand, then that of the entry that was last asked for.
    key: Vec<u8>,
    /// So many bytes of `key` are the row's.
    row: usize,
    /// Scratch of a look-up.
    wanted: Keys,
}

impl<V: Data> EntryTable<V> {
    pub(crate) fn new(spec: &TableSpec) -> Self {
        let TableSpec { id, version, key_groups, .. } = *spec;
        let form = Entries { id, version, key_groups, order: None, of: std::marker::PhantomData };
        let (group, key, row, wanted) = Default::default();
        Self { cache: Cache::new(form, spec), key_groups, group, key, row, wanted }
    }

    /// From now on the entries of this row are at hand.
    #[inline]
    pub(crate) fn enter(&mut self, here: &Here) {
        self.group = here.group;
        self.key.clear();
        self.key.extend_from_slice(&here.key);
        self.row = here.key.len();
    }

    /// Asks for an entry: the calls below are about it.
    #[inline]
    pub(crate) fn at<K: Key>(&mut self, entry: &K) -> &mut Self {
        self.key.truncate(self.row);
        self.cache.storage().note(encode_key(entry, &mut self.key).map_err(unkept));
        self
    }

    /// Where an entry is whose value matters; None if there is none.
    fn find(&mut self) -> Option<Place> {
        let Self { cache, key, group, .. } = self;
        let hash = hash(*group, self.key_groups, key);
        match cache.find(hash, |k| k.bytes() == *key) {
            None if !cache.is_complete() => self.fetch(hash),
            place => place,
        }
    }

    /// User code waits for an entry from storage.
    #[cold]
    #[inline(never)]
    fn fetch(&mut self, hash: u64) -> Option<Place> {
        let Self { cache, key, group, wanted, .. } = self;
        cache.make_room();
        wanted.clear();
        let _ = wanted.push(|into| {
            put_prefix(cache.id(), *group, into);
            into.extend_from_slice(key);
            Ok(())
        });
        let storage = cache.storage().clone();
        storage.get(wanted, |_, epoch, row| cache.put(hash, EntryKey::new(key), epoch, row));
        // also that there is nothing is worth to be remembered
        Some(cache.locate(hash, |k| k.bytes() == *key, || EntryKey::new(key)))
    }

    /// The value of the entry.
    #[inline]
    pub(crate) fn get(&mut self) -> Option<&V> {
        let place = self.find()?;
        self.cache.look_at(place)?.as_ref()
    }

    /// The value, to be changed; the entry counts as changed if there is one.
    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut V> {
        let place = self.find()?;
        self.cache.row(place)?.as_ref()?;
        self.cache.touch(place).1.as_mut()
    }

    /// The value, to be changed; made by `default` if there is none.
    #[inline]
    pub(crate) fn get_or_insert_with(&mut self, default: impl FnOnce() -> V) -> &mut V {
        let place = match self.find() {
            Some(place) => place,
            None => self.locate(),
        };
        self.cache.touch(place).1.get_or_insert_with(default)
    }

    /// Takes the value out.
    pub(crate) fn take(&mut self) -> Option<V> {
        let place = self.find()?;
        self.cache.row(place)?.as_ref()?;
        self.cache.touch(place).1.take()
    }

    /// Puts a value, or none, whatever there was; reads nothing.
    #[inline]
    pub(crate) fn set(&mut self, value: Option<V>) {
        let place = self.locate();
        *self.cache.touch(place).1 = value;
    }

    #[inline]
    fn locate(&mut self) -> Place {
        let Self { cache, key, group, .. } = self;
        cache.make_room();
        let hash = hash(*group, self.key_groups, key);
        cache.locate(hash, |k| k.bytes() == *key, || EntryKey::new(key))
    }

    /// Takes down an entry, unless all are in memory, and asks for its slot; whether it is there is looked up later.
    #[inline]
    pub(crate) fn want<K: Key>(&self, here: &Here, entry: &K, missing: &mut Missing) -> Result<(), Error> {
        if self.cache.is_complete() {
            return Ok(());
        }
        let Missing { keys, hashes, .. } = missing;
        let last = keys.len();
        keys.push(|into| {
            put_prefix(self.cache.id(), here.group, into);
            into.extend_from_slice(&here.key);
            encode_key(entry, into).map_err(unkept)
        })?;
        let hash = hash(here.group, self.key_groups, keys.get(last).get(PREFIX..).unwrap_or_default());
        self.cache.prefetch(hash);
        hashes.push(hash);
        Ok(())
    }

    /// The entries of the row at hand whose keys are in a range, in order.
    pub(crate) fn range(&mut self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Range<'_, V> {
        let Self { cache, key, row, .. } = self;
        key.truncate(*row);
        let after = |entry: &[u8], gap: &[u8]| [key, entry, gap].concat();
        let from = match from {
            Bound::Included(entry) => after(entry, &[]),
            // nothing is between a key and this, for no key is the beginning of another
            Bound::Excluded(entry) => after(entry, &[0]),
            Bound::Unbounded => key.clone(),
        };
        let to = match to {
            Bound::Included(entry) => Some(after(entry, &[0])),
            Bound::Excluded(entry) => Some(after(entry, &[])),
            Bound::Unbounded => successor(key),
        };
        if cache.form.order.is_none() {
            cache.form.order = Some(cache.keys().cloned().collect());
        }
        Range { done: cache.is_complete(), table: self, from, to, found: Found::default() }
    }
}

/// The first key after all that begin so; None if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < 0xFF)?;
    let mut next = prefix.get(..=last)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}

/// What storage had of a stretch of keys.
#[derive(Default)]
struct Found {
    keys: Keys,
    values: Keys,
    /// The next one to be given out.
    next: usize,
}

/// Entries in order: those in storage, read some at a time, under those in memory.
pub(crate) struct Range<'a, V: Data> {
    table: &'a mut EntryTable<V>,
    /// What is left of the range; keys as the table knows them.
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    found: Found,
    /// Storage has nothing more.
    done: bool,
}

/// Read at a time, at first and at most.
const READ: [usize; 2] = [32, 512];

impl<V: Data> Range<'_, V> {
    /// Reads on, if all that was read has been given out.
    fn read(&mut self) {
        let Self { table, from, to, found, done } = self;
        if *done || found.next < found.keys.len() {
            return;
        }
        let most = (found.keys.len() * 4).clamp(READ[0], READ[1]);
        found.keys.clear();
        found.values.clear();
        found.next = 0;
        let full = |key: &[u8]| {
            let mut full = Vec::new();
            put_prefix(table.cache.id(), table.group, &mut full);
            full.extend_from_slice(key);
            full
        };
        let start = full(from);
        let Some(end) = to.as_ref().map_or_else(|| successor(&full(&[])), |to| Some(full(to))) else { return };
        let storage = table.cache.storage();
        let read = storage.attempt(|backend| {
            backend.scan(&start, &end, |key, _, value| {
                found.keys.push(|into| append(into, key.get(PREFIX..).unwrap_or_default()))?;
                found.values.push(|into| append(into, value))?;
                Ok(found.keys.len() < most)
            })
        });
        *done = read.is_err() || found.keys.len() < most;
        storage.note(read);
    }

    /// The next entry: its key without the row's, and its value.
    pub(crate) fn next_with<R>(&mut self, mut read: impl FnMut(&[u8], V) -> Result<R, Error>) -> Option<R> {
        let storage = self.table.cache.storage().clone();
        loop {
            self.read();
            let Self { table, from, to, found, done } = self;
            let (order, row) = (table.cache.form.order.as_ref()?, table.row);
            let end = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let is_open = to.as_ref().is_none_or(|to| *from < *to);
            let cached = if is_open { order.range::<[u8], _>((Bound::Included(&from[..]), end)).next() } else { None };
            let stored = (found.next < found.keys.len()).then(|| found.keys.get(found.next));
            let (key, value) = match (cached, stored) {
                (None, None) => return None,
                (Some(cached), stored) if stored.is_none_or(|stored| cached.bytes() <= stored) => {
                    found.next += usize::from(stored == Some(cached.bytes()));
                    (cached.bytes(), table.copy_of(cached))
                }
                (_, stored) => {
                    let value = table.cache.form.load(found.values.get(found.next)).map_err(codec);
                    found.next += 1;
                    (stored?, value)
                }
            };
            let given = match value {
                Ok(None) => None,
                Ok(Some(value)) => Some(read(key.get(row..).unwrap_or_default(), value)),
                Err(error) => Some(Err(error)),
            };
            from.clear();
            from.extend_from_slice(key);
            from.push(0);
            match given {
                None => {}
                Some(Ok(given)) => return Some(given),
                Some(Err(error)) => {
                    storage.note(Err(error));
                    *done = true;
                    *to = Some(Vec::new());
                    found.next = found.keys.len();
                    return None;
                }
            }
        }
    }
}

impl<V: Data> EntryTable<V> {
    /// Removes all entries of the row at hand.
    pub(crate) fn clear(&mut self) {
        let mut last: Option<Vec<u8>> = None;
        loop {
            let mut range = self.range(last.as_deref().map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            let some = std::iter::from_fn(|| range.next_with(|key, _| Ok(key.to_vec())));
            let keys: Vec<Vec<u8>> = some.take(READ[1]).collect();
            for entry in &keys {
                self.key.truncate(self.row);
                self.key.extend_from_slice(entry);
                self.set(None);
            }
            // behind it, for what was removed is to be read no more
            last = keys.last().cloned();
            if last.is_none() {
                return;
            }
        }
    }

    /// The value of an entry in memory. Values need not be `Clone`, but they can be written and read.
    fn copy_of(&self, key: &EntryKey) -> Result<Option<V>, Error> {
        let place = self.cache.find(hash(self.group, self.key_groups, key.bytes()), |k| k == key);
        let Some(row) = place.and_then(|place| self.cache.row(place)) else { return Ok(None) };
        let mut bytes = Vec::new();
        self.cache.form.save(row, &mut bytes).and_then(|()| self.cache.form.load(&bytes)).map_err(codec)
    }
}

#[allow(clippy::unnecessary_wraps, reason = "what `Keys::push` asks for")]
fn append(into: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    into.extend_from_slice(bytes);
    Ok(())
}
