//! [`ListState`]: values one after the other. How they are kept is in `entries.rs`: as entries whose keys are numbers.

use super::entries::EntryTable;
use super::handle::{Handle, Here, Kind, Table};
use super::storage::TableSpec;
use crate::Data;
use crate::codec::{self, CodecError};
use crate::shape::{Shape, shape_of};
use bincode::error::DecodeError;
use std::fmt;
use std::ops::Range;

/// A list per key, whose values come from storage, are written and leave memory one by one: it may be much larger than
/// memory. Which numbers there are stands in the row, so `push` reads nothing, whatever the length.
///
/// ```
/// use millstream_framework::state::{ListState, State};
///
/// #[derive(State)]
/// struct Waiting {
///     orders: ListState<String>,
/// }
///
/// // what `on_record` is given; here it belongs to nobody
/// let mut waiting = Waiting::open();
/// waiting.orders.push("first".into());
/// waiting.orders.push("second".into());
/// assert_eq!(waiting.orders.len(), 2);
/// assert_eq!(waiting.orders.pop_front(), Some("first".into()));
/// assert_eq!(waiting.orders.iter().collect::<Vec<_>>(), ["second"]);
/// ```
///
/// | call | reads, if it is not in memory |
/// |---|---|
/// | `push`, `len`, `is_empty` | nothing |
/// | `get`, `get_mut`, `pop_front`, `pop_back` | the value |
/// | `iter` | all values, some hundred at a time; they do not stay in memory |
/// | `clear` | nothing, but it writes that each value is gone |
///
/// A read of one value takes some microseconds, in which the worker waits; such waits are counted. No call fails: if
/// the disk does, the call finds nothing, and the attempt ends before anything of the batch is handed on.
pub struct ListState<V: Data> {
    table: Option<Box<EntryTable<V>>>,
    /// The numbers of its values.
    numbers: Range<u64>,
}

impl<V: Data> fmt::Debug for ListState<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListState {{ {:?} }}", self.numbers)
    }
}

impl<V: Data> ListState<V> {
    #[inline(always)]
    fn entries(&mut self) -> &mut EntryTable<V> {
        self.table.get_or_insert_with(|| Box::new(EntryTable::new(&TableSpec::alone())))
    }

    fn number(&self, index: u64) -> Option<u64> {
        let number = self.numbers.start.checked_add(index)?;
        self.numbers.contains(&number).then_some(number)
    }

    /// How many values.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.numbers.end - self.numbers.start
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Appends a value. Reads nothing.
    #[inline]
    pub fn push(&mut self, value: V) {
        let number = self.numbers.end;
        self.numbers.end += 1;
        self.entries().at(&number).set(Some(value));
    }

    /// The value at `index`, from 0 for the first.
    pub fn get(&mut self, index: u64) -> Option<&V> {
        let number = self.number(index)?;
        self.entries().at(&number).get()
    }

    /// The value at `index`, to be changed in place. It is written with the next checkpoint, changed or not.
    pub fn get_mut(&mut self, index: u64) -> Option<&mut V> {
        let number = self.number(index)?;
        self.entries().at(&number).get_mut()
    }

    /// Takes the first value out.
    pub fn pop_front(&mut self) -> Option<V> {
        let number = self.number(0)?;
        self.numbers.start += 1;
        self.pop(number)
    }

    /// Takes the last value out.
    pub fn pop_back(&mut self) -> Option<V> {
        let number = self.number(self.len().checked_sub(1)?)?;
        self.numbers.end -= 1;
        self.pop(number)
    }

    fn pop(&mut self, number: u64) -> Option<V> {
        if self.numbers.is_empty() {
            // as a row that never had a list: nothing of it is kept
            self.numbers = 0..0;
        }
        self.entries().at(&number).take()
    }

    /// All values from first to last. What is given out is owned: values in memory are copied by writing and reading
    /// them, those in storage are read and do not stay.
    pub fn iter(&mut self) -> impl Iterator<Item = V> {
        let mut range = self.entries().range(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        std::iter::from_fn(move || range.next_with(|_, value| Ok(value)))
    }

    /// Takes all values out, one by one, without reading them.
    pub fn clear(&mut self) {
        for number in std::mem::replace(&mut self.numbers, 0..0) {
            self.entries().at(&number).set(None);
        }
    }
}

impl<V: Data> Handle for ListState<V> {
    const KIND: Kind = Kind::List;
    fn open() -> Self {
        Self { table: None, numbers: 0..0 }
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
    fn save(&self, id: u32, version: u32, into: &mut Vec<u8>) -> Result<(), CodecError> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        codec::put_field(id, version, &(self.numbers.start, self.numbers.end), into)
    }
    fn load(&mut self, field: &codec::Field<'_>) -> Result<(), CodecError> {
        let (start, end) = field.value()?;
        // no list is written that is empty, and none has the last number
        if start >= end || end == u64::MAX {
            return Err(CodecError::Decode(DecodeError::Other("a list does not end like this")));
        }
        self.numbers = start..end;
        Ok(())
    }
    fn shape() -> Shape {
        Shape::of_parts("list", &[shape_of::<V>()])
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
