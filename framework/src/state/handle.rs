//! What `#[derive(State)]` implements, what a field of a row is, and the simplest one, [`ValueState`]. Collections are
//! in `map.rs` and `list.rs`; where rows live is in `table.rs`.
//!
//! # Lending
//!
//! Entries of collections are no part of the row: they are rows of a table of their own, one for all keys. A subtask
//! has one further instance of the [`State`] struct, the *desk*, whose cells hold these tables. Around each call of
//! user code the tables are lent: [`State::enter`] moves them, a pointer each, from the desk into the row at hand and
//! tells them whose row it is; [`State::leave`] takes them back. So user code has plain `&mut` and nobody shares
//! anything. A cell that nobody lent a table, as in a test of a process function, makes one for itself.

use super::cache::unkept;
use super::storage::TableSpec;
use super::timers::{Changes, Verdict};

use crate::codec::{self, CodecError};
use crate::key::encode_key;
use crate::shape::{Shape, shape_of};
use crate::{Data, Epoch, Error, Key, Timestamp};
use std::fmt;

/// The row of one key: a struct whose fields are handles. Implemented by `#[derive(State)]` and for `()`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of states",
    label = "expected a struct with `#[derive(State)]`",
    note = "write `#[derive(State)] struct {Self} {{ count: ValueState<u64> }}`; every field is a state handle, and its name is the name of the state"
)]
pub trait State: Sized + 'static {
    /// One entry per field, in order.
    const FIELDS: &'static [Field];
    /// A row with nothing in it.
    fn open() -> Self;
    /// Shows each field in order.
    fn visit(&self, visitor: &mut impl Visitor);
    /// Shows each field in order, to be changed.
    fn visit_mut(&mut self, visitor: &mut impl VisitorMut);
    /// Takes the tables of collections from the desk: user code is about to see this row.
    fn enter(&mut self, desk: &mut Self, here: &Here);
    /// Gives the tables back.
    fn leave(&mut self, desk: &mut Self, here: &Here);
    /// Whether a field keeps something in a table of its own.
    #[doc(hidden)]
    const HAS_TABLES: bool = any(Self::FIELDS, Has::Entries);
    /// Whether a field keeps something in the row.
    #[doc(hidden)]
    const HAS_CELLS: bool = any(Self::FIELDS, Has::Cell);
    /// Whether a field is a timer.
    #[doc(hidden)]
    const HAS_TIMERS: bool = any(Self::FIELDS, Has::Timers);
    /// Whether a field is a timer in event time.
    #[doc(hidden)]
    const HAS_EVENT_TIMERS: bool = any(Self::FIELDS, Has::EventTimers);
}

/// What a field is.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value in the row.
    Value,
    /// Entries by key.
    Map,
    /// Entries by number, and in the row which numbers there are.
    List,
    /// An instant in the row, and when to look at it in an index.
    EventTimer,
    /// Instants in an index only.
    EventTimers,
    /// As `EventTimer`, by the clock of the machine.
    ProcessingTimer,
    /// As `EventTimers`, by the clock of the machine.
    ProcessingTimers,
}

/// What a field has.
#[derive(Clone, Copy)]
enum Has {
    Cell,
    /// A table of entries, which is lent.
    Entries,
    Timers,
    EventTimers,
}

impl Kind {
    const fn has(self, what: Has) -> bool {
        match what {
            Has::Cell => matches!(self, Self::Value | Self::List | Self::EventTimer | Self::ProcessingTimer),
            Has::Entries => matches!(self, Self::Map | Self::List),
            Has::Timers => !matches!(self, Self::Value | Self::Map | Self::List),
            Has::EventTimers => matches!(self, Self::EventTimer | Self::EventTimers),
        }
    }
    /// Whether something of it is kept under keys of its own.
    pub(crate) const fn has_table(self) -> bool {
        self.has(Has::Entries) || self.has(Has::Timers)
    }
    /// Whether that is entries.
    pub(crate) const fn has_entries(self) -> bool {
        self.has(Has::Entries)
    }
}

/// Whether one of the fields has it: `for` is not for constants.
const fn any(fields: &[Field], what: Has) -> bool {
    let mut i = 0;
    while i < fields.len() {
        if fields[i].kind.has(what) {
            return true;
        }
        i += 1;
    }
    false
}

/// Whose row is at hand.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Here {
    /// The key group.
    pub(crate) group: u32,
    /// The key, as stored.
    pub(crate) key: Vec<u8>,
}

impl Here {
    /// It is this key's.
    #[inline]
    pub(crate) fn set<K: Key>(&mut self, group: u32, key: &K) -> Result<(), Error> {
        self.group = group;
        self.key.clear();
        encode_key(key, &mut self.key).map_err(unkept)
    }
}

/// Sees the fields of a row.
pub trait Visitor {
    /// The field at `index` of [`State::FIELDS`].
    fn field<H: Handle>(&mut self, index: usize, handle: &H);
}

/// Sees and changes the fields of a row.
pub trait VisitorMut {
    /// The field at `index` of [`State::FIELDS`].
    fn field<H: Handle>(&mut self, index: usize, handle: &mut H);
}

impl State for () {
    const FIELDS: &'static [Field] = &[];
    fn open() -> Self {}
    fn visit(&self, _: &mut impl Visitor) {}
    fn visit_mut(&mut self, _: &mut impl VisitorMut) {}
    fn enter(&mut self, _: &mut Self, _: &Here) {}
    fn leave(&mut self, _: &mut Self, _: &Here) {}
}

/// How a state was declared: its name, what it is, its schema version, and the shape of what it keeps.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) version: u32,
    pub(crate) shape: fn() -> Shape,
}

impl Field {
    /// Of a field of type `H`; for `#[derive(State)]`.
    #[must_use]
    pub const fn of<H: Handle>(name: &'static str, version: u32) -> Self {
        Self { name, kind: H::KIND, version, shape: H::shape }
    }
}

/// A field of a row. Implemented by the handles of this module only.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state handle",
    label = "not a state handle",
    note = "a field of a `#[derive(State)]` struct is a `ValueState<V>`, `MapState<K, V>`, `ListState<V>` or a timer; for a plain value write `ValueState<{Self}>`"
)]
pub trait Handle: 'static {
    #[doc(hidden)]
    const KIND: Kind;
    /// With nothing in it.
    #[doc(hidden)]
    fn open() -> Self
    where
        Self: Sized;
    /// Whether nothing is in the row's cell.
    #[doc(hidden)]
    fn is_empty(&self) -> bool;
    /// Appends what is in the row's cell, in its envelope; nothing if that is empty.
    #[doc(hidden)]
    fn save(&self, id: u32, version: u32, into: &mut Vec<u8>) -> Result<(), CodecError>;
    /// Reads what `save` wrote into the envelope.
    #[doc(hidden)]
    fn load(&mut self, field: &codec::Field<'_>) -> Result<(), CodecError>;
    #[doc(hidden)]
    fn shape() -> Shape
    where
        Self: Sized;
    /// Makes the table; only called of the desk.
    #[doc(hidden)]
    fn furnish(&mut self, spec: &TableSpec) {
        let _ = spec;
    }
    /// The table, if one is here.
    #[doc(hidden)]
    fn table(&mut self) -> Option<&mut dyn Table> {
        None
    }
    /// Of many timers: user code is about to see this row.
    #[doc(hidden)]
    #[inline(always)]
    fn lend(&mut self, changes: &mut Changes) {
        let _ = changes;
    }
    /// Of timers: tells what the index of this field lacks now.
    #[doc(hidden)]
    #[inline(always)]
    fn settle(&mut self, field: usize, changes: &mut Changes) {
        let _ = (field, changes);
    }
    /// Of timers: an entry of the index is due, and is there no more. Changes nothing that is saved.
    #[doc(hidden)]
    fn due(&mut self, entry: Timestamp) -> Verdict {
        let _ = entry;
        Verdict::Stale
    }
    /// Of timers: it fires.
    #[doc(hidden)]
    fn fire(&mut self, at: Timestamp) {
        let _ = at;
    }
    /// Takes the table from the desk.
    #[doc(hidden)]
    #[inline(always)]
    fn enter(&mut self, desk: &mut Self, here: &Here) {
        let _ = (desk, here);
    }
    /// Gives the table back.
    #[doc(hidden)]
    #[inline(always)]
    fn leave(&mut self, desk: &mut Self, here: &Here) {
        let _ = (desk, here);
    }
}

/// What the runtime asks of a table, whatever it keeps. Errors of calls that return none are kept in what all tables of
/// an operator share.
#[doc(hidden)]
pub trait Table {
    /// The first two bytes of its keys.
    fn id(&self) -> u16;
    /// After a restore: loads what there is, if that is little, so that nothing will be missed.
    fn load_all(&mut self) {}
    /// Ends the epoch. What it changed, or with `whole` all there is, is to be copied into its delta.
    fn freeze(&mut self, whole: bool);
    /// Copies a bounded number of frozen rows; true if there are more.
    fn copy(&mut self) -> bool;
    /// Drops rows without content among a bounded number; true if there is more to look at.
    fn sweep(&mut self) -> bool;
    /// Between batches: makes room.
    fn settle(&mut self) -> Result<(), Error>;
    /// Whether every row there is is in memory.
    fn is_complete(&self) -> bool;
    /// How many rows are in memory, and about how many bytes they take on disk.
    fn size(&self) -> (usize, u64);
    /// Whether the row of a stored key is in memory.
    fn has(&self, hash: u64, key: &[u8]) -> bool;
    /// Puts what storage has of a key, or that it has nothing.
    fn load(&mut self, group: u32, key: &[u8], found: Option<(Epoch, &[u8])>) -> Result<(), Error>;
}

/// One value per key. Setting nothing, or taking the value out, keeps nothing on disk.
pub struct ValueState<V>(Option<V>);

impl<V: fmt::Debug> fmt::Debug for ValueState<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<V: Data> ValueState<V> {
    /// The value, if there is one.
    #[inline(always)]
    #[must_use]
    pub fn get(&self) -> Option<&V> {
        self.0.as_ref()
    }

    /// The value, to be changed in place.
    #[inline(always)]
    pub fn get_mut(&mut self) -> Option<&mut V> {
        self.0.as_mut()
    }

    /// Puts a value, in place of the one there was.
    #[inline(always)]
    pub fn set(&mut self, value: V) {
        self.0 = Some(value);
    }

    /// Takes the value out.
    #[inline(always)]
    pub fn take(&mut self) -> Option<V> {
        self.0.take()
    }

    /// The value; made by `default` if there is none.
    #[inline(always)]
    pub fn get_or_insert_with(&mut self, default: impl FnOnce() -> V) -> &mut V {
        self.0.get_or_insert_with(default)
    }

    /// The value; the default of its type if there is none.
    #[inline(always)]
    pub fn or_default(&mut self) -> &mut V
    where
        V: Default,
    {
        self.0.get_or_insert_with(V::default)
    }
}

impl<V: Data> Handle for ValueState<V> {
    const KIND: Kind = Kind::Value;
    fn open() -> Self {
        Self(None)
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
    #[inline(always)]
    fn save(&self, id: u32, version: u32, into: &mut Vec<u8>) -> Result<(), CodecError> {
        match &self.0 {
            Some(value) => codec::put_field(id, version, value, into),
            None => Ok(()),
        }
    }
    fn load(&mut self, field: &codec::Field<'_>) -> Result<(), CodecError> {
        self.0 = Some(field.value()?);
        Ok(())
    }
    fn shape() -> Shape {
        shape_of::<V>()
    }
}
