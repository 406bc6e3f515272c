//! The bytes of a row, and whether a program can read what a checkpoint holds. The envelope of a field is in
//! `codec.rs`.
//!
//! A row is the concatenation of its fields that hold something, each in its envelope; no bytes at all say that the row
//! is gone. Field ids come from the manifest, so fields may change places, and new ones be added, without a migration.

use super::backend::FLOORS;
use super::handle::{Field, Handle, Kind, State, Visitor, VisitorMut};
use super::snapshot::{OperatorStates, ShapeRef, StateSpec};
use crate::codec::{self, CodecError};
use crate::shape::{Shape, shape_of};
use crate::{Error, Key};
use std::collections::BTreeMap;

impl From<Shape> for ShapeRef {
    fn from(shape: Shape) -> Self {
        Self { text: shape.text, fingerprint: format!("{:016x}", shape.fingerprint) }
    }
}

/// The states of an operator as the program declares them, without the types.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    key: ShapeRef,
    fields: Vec<Declared>,
}

/// A state as the program declares it.
#[derive(Debug, Clone)]
struct Declared {
    name: &'static str,
    kind: Kind,
    version: u32,
    shape: ShapeRef,
}

impl Layout {
    /// Of keys `K` and rows `S`.
    pub(crate) fn of<K: Key, S: State>() -> Self {
        let declared =
            |f: &Field| Declared { name: f.name, kind: f.kind, version: f.version, shape: (f.shape)().into() };
        Self { key: shape_of::<K>().into(), fields: S::FIELDS.iter().map(declared).collect() }
    }

    /// What the manifest is to say of `operator`, given what it said so far: known states keep their ids and tables,
    /// new ones get the next. `next` is the first table that nobody has in the whole job.
    ///
    /// # Errors
    /// A refusal if the program cannot read what the checkpoint holds.
    pub(crate) fn reconcile(
        &self,
        operator: &str,
        next: &mut u32,
        old: Option<&OperatorStates>,
    ) -> Result<OperatorStates, Error> {
        let mut take = || {
            let table = u16::try_from(*next).ok().filter(|table| *table != FLOORS);
            *next += 1;
            table.ok_or_else(|| Error::refused("the job has more than 65,535 tables of state: divide it"))
        };
        let table = old.map_or_else(&mut take, |old| Ok(old.table))?;
        let known = old.map_or(&[][..], |o| &o.states[..]);
        if let Some(old) = old
            && old.key.fingerprint != self.key.fingerprint
        {
            let (was, is) = (&old.key.text, &self.key.text);
            return Err(Error::refused(format!(
                "the keys of `{operator}` were `{was}` in the checkpoint and are `{is}` in the program: key it as before, or give the operator another name to start it empty"
            )));
        }
        let mut next_id = known.iter().map(|s| u64::from(s.id) + 1).max().unwrap_or(0);
        let mut states = Vec::new();
        for Declared { name, kind, version, shape } in &self.fields {
            let found = known.iter().find(|s| s.name == *name);
            if let Some(found) = found {
                check(operator, found, *version, shape)?;
            }
            let id = found.map_or_else(|| u32::try_from(next_id), |s| Ok(s.id)).map_err(|_| {
                Error::refused(format!("`{operator}` has no number left for its state `{name}`: give it another name"))
            })?;
            next_id = next_id.max(u64::from(id) + 1);
            let table = match found.and_then(|s| s.table) {
                None if kind.has_table() => Some(take()?),
                table => table,
            };
            states.push(StateSpec {
                name: (*name).into(),
                id,
                table,
                codec: codec::BINCODE,
                version: *version,
                shape: shape.clone(),
            });
        }
        if let Some(gone) = known.iter().find(|k| !states.iter().any(|s| s.name == k.name)) {
            return Err(Error::refused(format!(
                "state `{}` of `{operator}` is in the checkpoint but not in the program: declare it again, or give the operator another name to start it empty",
                gone.name
            )));
        }
        Ok(OperatorStates { operator: operator.into(), table, key: self.key.clone(), states })
    }
}

fn check(operator: &str, found: &StateSpec, version: u32, shape: &ShapeRef) -> Result<(), Error> {
    let (name, was, is) = (&found.name, &found.shape.text, &shape.text);
    if found.version != version {
        return Err(Error::refused(format!(
            "state `{name}` of `{operator}` has version {} in the checkpoint and {version} in the program, and there is no migration: use version {} again, or give the operator another name to start it empty",
            found.version, found.version
        )));
    }
    if found.shape.fingerprint != shape.fingerprint {
        return Err(Error::refused(format!(
            "state `{name}` of `{operator}` held `{was}` in the checkpoint and holds `{is}` in the program, under one version: restore the type, or give the operator another name to start it empty"
        )));
    }
    if found.codec != codec::BINCODE {
        return Err(Error::refused(format!(
            "state `{name}` of `{operator}` is encoded with codec {}, which this version of millstream does not know: use the version that wrote it",
            found.codec
        )));
    }
    Ok(())
}

/// Writes and reads rows of one operator: which id each field has.
#[derive(Debug, Clone)]
pub(crate) struct RowLayout {
    /// By index of the field: id and version.
    ids: Vec<(u32, u32)>,
    /// By index of the field: the table of its own.
    tables: Vec<Option<u16>>,
    /// Index by id.
    index: BTreeMap<u32, usize>,
}

impl RowLayout {
    pub(crate) fn new(states: &OperatorStates) -> Self {
        let ids: Vec<_> = states.states.iter().map(|s| (s.id, s.version)).collect();
        let index = ids.iter().enumerate().map(|(i, (id, _))| (*id, i)).collect();
        Self { ids, tables: states.states.iter().map(|s| s.table).collect(), index }
    }

    /// How many fields have a table of their own.
    pub(crate) fn tables(&self) -> usize {
        self.tables.iter().flatten().count()
    }

    /// Id, version and table of a field that has one.
    pub(crate) fn table(&self, index: usize) -> Option<(u32, u32, u16)> {
        let (id, version) = self.ids.get(index)?;
        Some((*id, *version, (*self.tables.get(index)?)?))
    }

    /// Appends the row; nothing if it is empty.
    #[inline(always)]
    pub(crate) fn save<S: State>(&self, row: &S, into: &mut Vec<u8>) -> Result<(), CodecError> {
        let mut save = Save { ids: &self.ids, into, result: Ok(()) };
        row.visit(&mut save);
        save.result
    }

    /// Reads what `save` wrote.
    pub(crate) fn load<S: State>(&self, bytes: &[u8]) -> Result<S, CodecError> {
        let mut row = S::open();
        for field in codec::fields(bytes) {
            let field = field?;
            let Some(index) = self.index.get(&field.id) else {
                return Err(CodecError::UnknownField { id: field.id });
            };
            let mut load = Load { index: *index, field: &field, result: Ok(()) };
            row.visit_mut(&mut load);
            load.result?;
        }
        Ok(row)
    }
}

/// Whether no field holds anything.
#[inline(always)]
pub(crate) fn is_empty<S: State>(row: &S) -> bool {
    struct Empty(bool);
    impl Visitor for Empty {
        #[inline(always)]
        fn field<H: Handle>(&mut self, _: usize, handle: &H) {
            self.0 &= handle.is_empty();
        }
    }
    let mut empty = Empty(true);
    row.visit(&mut empty);
    empty.0
}

struct Save<'a> {
    ids: &'a [(u32, u32)],
    into: &'a mut Vec<u8>,
    result: Result<(), CodecError>,
}
impl Visitor for Save<'_> {
    #[inline(always)]
    fn field<H: Handle>(&mut self, index: usize, handle: &H) {
        if let (Ok(()), Some((id, version))) = (&self.result, self.ids.get(index)) {
            self.result = handle.save(*id, *version, self.into);
        }
    }
}

struct Load<'a> {
    index: usize,
    field: &'a codec::Field<'a>,
    result: Result<(), CodecError>,
}
impl VisitorMut for Load<'_> {
    fn field<H: Handle>(&mut self, index: usize, handle: &mut H) {
        if index == self.index {
            self.result = handle.load(self.field);
        }
    }
}
