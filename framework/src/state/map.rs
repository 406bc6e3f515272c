//! [`MapState`]: entries by key. How entries are kept is in `entries.rs`.

use super::cache::unkept;
use super::entries::EntryTable;
use super::handle::{Handle, Here, Kind, Table};
use super::storage::TableSpec;
use crate::codec::{self, CodecError};
use crate::key::{decode_key, encode_key};
use crate::shape::{Shape, shape_of};
use crate::{Data, Key};
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

/// A map per key, whose entries come from storage, are written and leave memory one by one: it may be much larger than
/// memory, and changing one entry costs one entry. There is no `len`, for nobody counts what is on disk.
///
/// ```
/// use millstream_framework::state::{MapState, State};
///
/// #[derive(State)]
/// struct Seen {
///     shops: MapState<String, u32>,
/// }
///
/// // what `on_record` is given; here it belongs to nobody
/// let mut seen = Seen::open();
/// *seen.shops.or_default("north".to_owned()) += 1;
/// seen.shops.insert("south".to_owned(), 5);
/// assert_eq!(seen.shops.get(&"north".into()), Some(&1));
/// let in_order: Vec<(String, u32)> = seen.shops.iter().collect();
/// assert_eq!(in_order, [("north".into(), 1), ("south".into(), 5)]);
/// ```
///
/// Keys are given as values or by reference where an entry may be made. The calls, and what they read:
///
/// | call | reads, if the entry is not in memory |
/// |---|---|
/// | `insert`, `remove` | nothing |
/// | `get`, `get_mut`, `contains`, `or_default`, `get_or_insert_with`, `take` | the entry |
/// | `range`, `iter` | the range, some hundred entries at a time; they do not stay in memory |
/// | `clear` | all entries, and writes that each of them is gone |
///
/// A read of one entry takes some microseconds, in which the worker waits, unless
/// [`Process::prefetch`](crate::Process::prefetch) asked for the entry; such waits are counted. No call fails: if the
/// disk does, the call finds nothing, and the attempt ends before anything of the batch is handed on.
pub struct MapState<K, V: Data> {
    table: Option<Box<EntryTable<V>>>,
    of: PhantomData<fn() -> K>,
}

impl<K, V: Data> fmt::Debug for MapState<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapState")
    }
}

impl<K: Key, V: Data> MapState<K, V> {
    #[inline(always)]
    fn entries(&mut self) -> &mut EntryTable<V> {
        self.table.get_or_insert_with(|| Box::new(EntryTable::new(&TableSpec::alone())))
    }

    pub(crate) fn lent(&self) -> Option<&EntryTable<V>> {
        self.table.as_deref()
    }

    /// The value of an entry.
    #[inline]
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.entries().at(key).get()
    }

    /// The value of an entry, to be changed in place. The entry is written with the next checkpoint, changed or not.
    #[inline]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries().at(key).get_mut()
    }

    /// Whether there is such an entry.
    #[inline]
    pub fn contains(&mut self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of an entry, to be changed; made by `default` if there is none.
    #[inline]
    pub fn get_or_insert_with(&mut self, key: impl Borrow<K>, default: impl FnOnce() -> V) -> &mut V {
        self.entries().at(key.borrow()).get_or_insert_with(default)
    }

    /// The value of an entry, to be changed; the default of its type if there is none.
    #[inline]
    pub fn or_default(&mut self, key: impl Borrow<K>) -> &mut V
    where
        V: Default,
    {
        self.get_or_insert_with(key, V::default)
    }

    /// Puts an entry, in place of the one there was. Reads nothing.
    #[inline]
    pub fn insert(&mut self, key: impl Borrow<K>, value: V) {
        self.entries().at(key.borrow()).set(Some(value));
    }

    /// Removes an entry, if there is one. Reads nothing.
    #[inline]
    pub fn remove(&mut self, key: &K) {
        self.entries().at(key).set(None);
    }

    /// Takes an entry out.
    #[inline]
    pub fn take(&mut self, key: &K) -> Option<V> {
        self.entries().at(key).take()
    }

    /// The entries of a range, in the order of their keys, as the encoding of keys has it: numbers by value, texts by
    /// their bytes, structs field by field. What is given out is owned: entries in memory are copied by writing and
    /// reading them, those in storage are read and do not stay. Nothing, if the range ends before it begins.
    ///
    /// ```
    /// # use millstream_framework::state::{MapState, State};
    /// # #[derive(State)] struct Row { days: MapState<u32, u64> }
    /// # let mut row = Row::open();
    /// (1..10).for_each(|day| row.days.insert(day, 100 * u64::from(day)));
    /// let week: u64 = row.days.range(2..9).map(|(_, sales)| sales).sum();
    /// assert_eq!(week, 3500);
    /// ```
    pub fn range(&mut self, keys: impl RangeBounds<K>) -> impl Iterator<Item = (K, V)> {
        let entries = self.entries();
        let mut bytes = [Vec::new(), Vec::new()];
        let [from, to] = &mut bytes;
        let bound = |bound: Bound<&K>, into: &mut Vec<u8>| {
            bound.map(|key| entries.cache.storage().note(encode_key(key, into).map_err(unkept)))
        };
        let (from_bound, to_bound) = (bound(keys.start_bound(), from), bound(keys.end_bound(), to));
        let mut range = entries.range(from_bound.map(|()| &from[..]), to_bound.map(|()| &to[..]));
        std::iter::from_fn(move || range.next_with(|key, value| Ok((decode_key(key).map_err(unkept)?.0, value))))
    }

    /// All entries, in the order of their keys; see [`range`](Self::range).
    pub fn iter(&mut self) -> impl Iterator<Item = (K, V)> {
        self.range(..)
    }

    /// Removes all entries, one by one.
    pub fn clear(&mut self) {
        self.entries().clear();
    }
}

impl<K: Key, V: Data> Handle for MapState<K, V> {
    const KIND: Kind = Kind::Map;
    fn open() -> Self {
        Self { table: None, of: PhantomData }
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        true
    }
    #[inline(always)]
    fn save(&self, _: u32, _: u32, _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }
    fn load(&mut self, field: &codec::Field<'_>) -> Result<(), CodecError> {
        Err(CodecError::UnknownField { id: field.id })
    }
    fn shape() -> Shape {
        Shape::of_parts("entries", &[shape_of::<K>(), shape_of::<V>()])
    }
    fn furnish(&mut self, spec: &TableSpec) {
        self.table = Some(Box::new(EntryTable::new(spec)));
    }
    fn table(&mut self) -> Option<&mut dyn Table> {
        Some(&mut self.table.as_mut()?.cache)
    }
    #[inline(always)]
    fn enter(&mut self, desk: &mut Self, here: &Here) {
        std::mem::swap(&mut self.table, &mut desk.table);
        if let Some(table) = &mut self.table {
            table.enter(here);
        }
    }
    #[inline(always)]
    fn leave(&mut self, desk: &mut Self, _: &Here) {
        std::mem::swap(&mut self.table, &mut desk.table);
    }
}
