//! The handles of keyed state, and what `#[derive(State)]` implements. Where rows live is in `table.rs`.

use crate::Data;
use crate::codec::{self, CodecError};
use crate::shape::{Shape, shape_of};
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
}

/// How a state was declared: its name, its schema version, and the shape of what it keeps.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) shape: fn() -> Shape,
}

impl Field {
    /// Of a field of type `H`; for `#[derive(State)]`.
    #[must_use]
    pub const fn of<H: Handle>(name: &'static str, version: u32) -> Self {
        Self { name, version, shape: H::shape }
    }
}

/// A field of a row. Implemented by the handles of this module only.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state handle",
    label = "not a state handle",
    note = "a field of a `#[derive(State)]` struct is a `ValueState<V>`; for a plain value write `ValueState<{Self}>`"
)]
pub trait Handle: 'static {
    /// With nothing in it.
    #[doc(hidden)]
    fn open() -> Self
    where
        Self: Sized;
    #[doc(hidden)]
    fn is_empty(&self) -> bool;
    /// Appends the field in its envelope.
    #[doc(hidden)]
    fn save(&self, id: u32, version: u32, into: &mut Vec<u8>) -> Result<(), CodecError>;
    /// Reads what `save` wrote into the envelope.
    #[doc(hidden)]
    fn load(&mut self, field: &codec::Field<'_>) -> Result<(), CodecError>;
    #[doc(hidden)]
    fn shape() -> Shape
    where
        Self: Sized;
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
