//! The deserializer that records what it is asked for and answers with dummies: one position of the type. What is
//! recorded, and what is explored next, is in `shape.rs`.

use super::{BYTES, DEPTH_MAX, Kind, NodeId, ROOT, Status, TEXTS, Trace};
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use std::any::type_name;
use std::fmt;

/// A position of the type, as the deserializer that records it.
pub(super) struct Probe<'a> {
    pub(super) trace: &'a mut Trace,
    /// None only in a replay, where the first passage did not come.
    pub(super) node: Option<NodeId>,
    /// Only produces a value, records nothing.
    pub(super) replay: bool,
    pub(super) depth: u32,
}

impl Probe<'_> {
    /// Notes what this position is, at the first passage.
    fn record(&mut self, name: &'static str, kind: Kind) -> Result<(), Rejected> {
        self.trace.last = None;
        self.trace.calls_left = self.trace.calls_left.saturating_sub(1);
        if self.trace.calls_left == 0 || self.depth > DEPTH_MAX {
            return Err(Rejected);
        }
        if let (false, Some(node)) = (self.replay, self.node.and_then(|id| self.trace.nodes.get_mut(id)))
            && node.kind == Kind::Unknown
        {
            (node.name, node.kind) = (name, kind);
        }
        Ok(())
    }

    /// The position of part `index`.
    fn part(&mut self, index: usize) -> Result<Probe<'_>, Rejected> {
        let node = match (self.replay, self.node) {
            (false, Some(id)) => Some(self.trace.child(id, index)?),
            (_, id) => id.and_then(|id| *self.trace.nodes.get(id)?.children.get(index)?),
        };
        Ok(Probe { trace: self.trace, node, replay: self.replay, depth: self.depth + 1 })
    }

    /// Takes one of `count` choices; `fallback` is for replays of a position without experience.
    fn choose(&mut self, count: usize, fallback: Option<usize>) -> Result<usize, Rejected> {
        let Some(node) = self.node.and_then(|id| self.trace.nodes.get_mut(id)) else {
            return fallback.ok_or(Rejected);
        };
        if self.replay {
            node.wanted |= node.worked.or(fallback).is_none();
            return node.worked.or(fallback).ok_or(Rejected);
        }
        if node.choices.is_empty() {
            node.choices = vec![Status::New; count];
        }
        node.next_choice().or(node.worked).filter(|choice| *choice < count).ok_or(Rejected)
    }

    fn settle<T>(self, choice: usize, result: Result<T, Rejected>) -> Result<T, Rejected> {
        if let (false, Some(id)) = (self.replay, self.node) {
            self.trace.settle(id, choice, result.is_ok());
        }
        result
    }

    /// A number or string, answered with one of `dummies`.
    fn plain<D: Copy, T>(
        mut self,
        name: &'static str,
        dummies: &[D],
        visit: impl FnOnce(D) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        self.record(name, Kind::Plain)?;
        let choice = self.choose(dummies.len(), Some(0))?;
        let dummy = *dummies.get(choice).ok_or(Rejected)?;
        let result = visit(dummy);
        self.trace.last = self.node.filter(|_| result.is_ok() && !self.replay);
        self.settle(choice, result)
    }

    /// An option, sequence or map: choice 0 is with content, choice 1 empty.
    fn wrapper<T>(
        mut self,
        name: &'static str,
        visit: impl FnOnce(&mut Probe<'_>, bool) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        self.record(name, Kind::Wrapper)?;
        // Replays are there to end a recursion.
        let choice = if self.replay { 1 } else { self.choose(2, None)? };
        let result = visit(&mut self, choice == 0);
        self.settle(choice, result)
    }

    /// A type with a name, of which `V` is the visitor: `visit` runs here, or in a replay of the same type around it.
    fn named<V, T>(
        mut self,
        name: &'static str,
        kind: Kind,
        visit: impl FnOnce(Probe<'_>) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        if self.replay {
            return self.replayed(name, kind, visit);
        }
        // The name of the type may be that of other types too; the visitor's is not, within one build.
        let identity = type_name::<V>();
        if let Some((_, outer)) = self.trace.stack.iter().find(|(known, _)| *known == identity).copied() {
            self.record(name, Kind::Cut(outer))?;
            self.replay = true;
            self.node = Some(outer);
            return self.replayed(name, kind, visit);
        }
        self.record(name, kind)?;
        let depth = self.trace.stack.len();
        self.trace.stack.push((identity, self.node.unwrap_or(ROOT)));
        let result = visit(Probe { trace: self.trace, node: self.node, replay: false, depth: self.depth });
        self.trace.stack.truncate(depth);
        result
    }

    fn replayed<T>(
        mut self,
        name: &'static str,
        kind: Kind,
        visit: impl FnOnce(Probe<'_>) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        self.record(name, kind)?;
        if let Some(Kind::Cut(outer)) = self.node.and_then(|id| self.trace.nodes.get(id)).map(|node| node.kind) {
            self.node = Some(outer);
        }
        visit(self)
    }

    /// Parts whose number the type knows.
    fn parts<'de, V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Rejected> {
        visitor.visit_seq(Parts { probe: self, next: 0, count })
    }
}

/// A dummy was refused, or a bound reached.
#[derive(Debug)]
pub(super) struct Rejected;

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dummy value rejected")
    }
}

impl std::error::Error for Rejected {}

impl de::Error for Rejected {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Rejected
    }
}

macro_rules! plain {
    ($($method:ident: $name:literal, $dummies:expr => $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
            self.plain($name, $dummies, |dummy| visitor.$visit(dummy))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Probe<'_> {
    type Error = Rejected;

    // 1 comes first, because 0 is what types like NonZero refuse.
    plain! {
        deserialize_bool: "bool", &[false, true] => visit_bool;
        deserialize_i8: "i8", &[1, 0, 2] => visit_i8;
        deserialize_i16: "i16", &[1, 0, 2] => visit_i16;
        deserialize_i32: "i32", &[1, 0, 2] => visit_i32;
        deserialize_i64: "i64", &[1, 0, 2] => visit_i64;
        deserialize_i128: "i128", &[1, 0, 2] => visit_i128;
        deserialize_u8: "u8", &[1, 0, 2] => visit_u8;
        deserialize_u16: "u16", &[1, 0, 2] => visit_u16;
        deserialize_u32: "u32", &[1, 0, 2] => visit_u32;
        deserialize_u64: "u64", &[1, 0, 2] => visit_u64;
        deserialize_u128: "u128", &[1, 0, 2] => visit_u128;
        deserialize_f32: "f32", &[1.0, 0.0] => visit_f32;
        deserialize_f64: "f64", &[1.0, 0.0] => visit_f64;
        deserialize_char: "char", &['a', '1'] => visit_char;
        deserialize_str: "str", TEXTS => visit_str;
        deserialize_string: "str", TEXTS => visit_str;
        deserialize_identifier: "identifier", TEXTS => visit_str;
        deserialize_bytes: "bytes", BYTES => visit_bytes;
        deserialize_byte_buf: "bytes", BYTES => visit_bytes;
    }

    /// Only formats with types of their own support this; bincode does not.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.plain("any", &[0, 1, 2], |dummy| match dummy {
            0 => visitor.visit_unit(),
            1 => visitor.visit_u64(1),
            _ => visitor.visit_str(""),
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.deserialize_any(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Rejected> {
        self.record("unit", Kind::Plain)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        self.record(name, Kind::Plain)?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.wrapper("option", |probe, full| match full {
            true => visitor.visit_some(probe.part(0)?),
            false => visitor.visit_none(),
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.wrapper("seq", |probe, full| visitor.visit_seq(Once { probe, left: full }))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.wrapper("map", |probe, full| visitor.visit_map(Once { probe, left: full }))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Rejected> {
        self.named::<V, _>(name, Kind::Tuple(1), |mut probe| visitor.visit_newtype_struct(probe.part(0)?))
    }

    fn deserialize_tuple<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Rejected> {
        self.record("", Kind::Tuple(len))?;
        self.parts(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        self.named::<V, _>(name, Kind::Tuple(len), |probe| probe.parts(len, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        self.named::<V, _>(name, Kind::Struct(fields), |probe| probe.parts(fields.len(), visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        self.named::<V, _>(name, Kind::Enum(variants), |mut probe| {
            let choice = probe.choose(variants.len(), None)?;
            let name = variants.get(choice).copied().ok_or(Rejected)?;
            let result = probe.part(choice).and_then(|content| visitor.visit_enum(Variant { content, choice, name }));
            probe.settle(choice, result)
        })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The parts of a tuple or struct.
struct Parts<'a> {
    probe: Probe<'a>,
    next: usize,
    count: usize,
}

impl<'de> de::SeqAccess<'de> for Parts<'_> {
    type Error = Rejected;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Rejected> {
        if self.next == self.count {
            return Ok(None);
        }
        self.next += 1;
        seed.deserialize(self.probe.part(self.next - 1)?).map(Some)
    }
}

/// The content of a sequence or map: one element, or none.
struct Once<'a, 'b> {
    probe: &'a mut Probe<'b>,
    left: bool,
}

impl<'de> de::SeqAccess<'de> for Once<'_, '_> {
    type Error = Rejected;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Rejected> {
        if !std::mem::take(&mut self.left) {
            return Ok(None);
        }
        seed.deserialize(self.probe.part(0)?).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for Once<'_, '_> {
    type Error = Rejected;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Rejected> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Rejected> {
        seed.deserialize(self.probe.part(1)?)
    }
}

/// The chosen variant of an enum; its content is recorded like a struct of the variant's name.
struct Variant<'a> {
    content: Probe<'a>,
    choice: usize,
    name: &'static str,
}

impl<'a, 'de> de::EnumAccess<'de> for Variant<'a> {
    type Error = Rejected;
    type Variant = Variant<'a>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Variant<'a>), Rejected> {
        let index = u32::try_from(self.choice).map_err(|_| Rejected)?;
        let index: de::value::U32Deserializer<Rejected> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = Rejected;

    fn unit_variant(mut self) -> Result<(), Rejected> {
        self.content.record(self.name, Kind::Plain)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, Rejected> {
        self.content.record(self.name, Kind::Tuple(1))?;
        seed.deserialize(self.content.part(0)?)
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Rejected> {
        self.content.record(self.name, Kind::Tuple(len))?;
        self.content.parts(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        self.content.record(self.name, Kind::Struct(fields))?;
        self.content.parts(fields.len(), visitor)
    }
}
