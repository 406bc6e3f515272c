//! The shape of a type as serde sees it, as text and fingerprint: what the manifest keeps of each state's type, so that
//! a changed type is refused with both shapes shown instead of misread. Not here: the comparison, and what follows.
//!
//! `T::deserialize` is run against a deserializer that records what it is asked for and answers with dummy values, in
//! passes (the idea is that of the crate `serde-reflection`; here positions are traced instead of names, so that
//! generic types with the same name do not mix):
//! 1. Every position of the type is a node. Where there is a choice (variant of an enum, content or none of an option,
//!    element or none of a sequence, value of a number or string), a pass takes one that was not explored yet.
//! 2. A pass that is rejected, and brought nothing new, blames the value it gave last if there is another to try, else
//!    the innermost choice around the rejection. What was blamed is not chosen again.
//! 3. A type met inside itself is recorded as `^Name`, and gets a value from choices that have worked. If none has yet,
//!    that is a rejection, and the choices start afresh once one has.
//! 4. The passes end when no choice is open, when one brings nothing new, or when the budget is used up.
//!
//! A position that was not reached, because the type rejects all dummies before it, is `?`.

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use std::any::type_name;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use xxhash_rust::xxh3::xxh3_64;

/// Longest text shown; the fingerprint is of the whole.
const TEXT_BYTES_MAX: usize = 2048;
/// Nesting after which a type is cut. Types that recurse by name are cut long before.
const DEPTH_MAX: u32 = 64;
/// Positions recorded of one type.
const NODES_MAX: usize = 16_384;
/// Calls answered in all passes together: ends any type in well under a second.
const CALLS_MAX: u32 = 1 << 20;

/// Dummies of strings: besides plain ones, the forms that common parsers accept.
const TEXTS: &[&str] = &[
    "",
    "1",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00",
    "1970-01-01",
    "00:00:00",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
    "http://localhost/",
];
const BYTES: &[&[u8]] = &[&[], &[0; 16], &[0; 32], &[0; 8]];

/// What serde sees of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Readable form, such as `Seen{small:option<u64>,shop:str}`; ends in `…` if it was too long.
    pub(crate) text: String,
    /// xxh3 of the untruncated text.
    pub(crate) fingerprint: u64,
}

/// The shape of `T`: equal for equal types in every build; different if a name, an order, a width or a variant differs.
///
/// Never panics (a panic of the type's own code is caught) and always ends. Of a type that refuses all dummy values it
/// knows what came before, and the names of the fields. Costs microseconds for common types: call it when a job starts, not
/// per record.
pub(crate) fn shape_of<T: DeserializeOwned>() -> Shape {
    let mut trace = Trace::new();
    loop {
        trace.progress = false;
        // A panic of the type's own code ends the recording, which stays valid: nodes are only ever added to.
        let pass = catch_unwind(AssertUnwindSafe(|| T::deserialize(trace.root()).is_ok()));
        match pass {
            Ok(succeeded) if trace.continues(succeeded) => {}
            _ => break,
        }
    }
    let mut text = String::new();
    trace.render(ROOT, &mut text);
    let fingerprint = xxh3_64(text.as_bytes());
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    Shape { text, fingerprint }
}

/// Index of a node; the root is 0.
type NodeId = usize;
const ROOT: NodeId = 0;

/// How a node is written, and what its children are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Never reached.
    Unknown,
    /// `u64`, `str`, `Name`: no children.
    Plain,
    /// `option<..>`, `seq<..>`, `map<..,..>`.
    Wrapper,
    /// `(..,..)`, `Name(..,..)` of this many parts.
    Tuple(usize),
    /// `Name{field:..,..}` with these fields.
    Struct(&'static [&'static str]),
    /// `Name[A|B(..)]` with these variants; child i is the content of variant i.
    Enum(&'static [&'static str]),
    /// `^Name`: a type inside itself, at this node.
    Cut(NodeId),
}

/// What is known of one choice.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Status {
    New,
    /// Blamed for a rejection.
    Failed,
    /// Gave a value, and nothing below it is left to explore.
    Done,
}

#[derive(Debug)]
struct Node {
    name: &'static str,
    kind: Kind,
    children: Vec<Option<NodeId>>,
    choices: Vec<Status>,
    /// The first choice that gave a value. It needs no choice that succeeded later, so replaying it ends.
    worked: Option<usize>,
    /// A replay failed because nothing had worked here.
    wanted: bool,
}

impl Node {
    /// The choice to explore next: of an enum all count, otherwise one success is enough.
    fn next_choice(&self) -> Option<usize> {
        if !matches!(self.kind, Kind::Enum(_)) && self.choices.contains(&Status::Done) {
            return None;
        }
        self.choices.iter().position(|status| *status == Status::New)
    }
}

/// Everything recorded about one type.
#[derive(Debug)]
struct Trace {
    nodes: Vec<Node>,
    /// Named types around the current position: their visitor's type, and where.
    stack: Vec<(&'static str, NodeId)>,
    /// Whether this pass changed the status of a choice.
    progress: bool,
    /// A choice that replays were waiting for has worked.
    restart: bool,
    /// The number or string that was answered last, if nothing was asked since.
    last: Option<NodeId>,
    calls_left: u32,
}

impl Trace {
    fn new() -> Self {
        let (nodes, stack) = (Vec::new(), Vec::new());
        let mut trace = Trace { nodes, stack, progress: false, restart: false, last: None, calls_left: CALLS_MAX };
        trace.add();
        trace
    }

    fn root(&mut self) -> Probe<'_> {
        Probe { trace: self, node: Some(ROOT), replay: false, depth: 0 }
    }

    fn add(&mut self) -> NodeId {
        let (children, choices) = (Vec::new(), Vec::new());
        self.nodes.push(Node { name: "", kind: Kind::Unknown, children, choices, worked: None, wanted: false });
        self.nodes.len() - 1
    }

    /// Child `index` of `parent`, made if it is new.
    fn child(&mut self, parent: NodeId, index: usize) -> Result<NodeId, Rejected> {
        if let Some(child) = self.nodes.get(parent).and_then(|node| *node.children.get(index)?) {
            return Ok(child);
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(Rejected);
        }
        let child = self.add();
        let children = &mut self.nodes.get_mut(parent).ok_or(Rejected)?.children;
        if children.len() <= index {
            children.resize(index + 1, None);
        }
        if let Some(place) = children.get_mut(index) {
            *place = Some(child);
        }
        Ok(child)
    }

    /// Whether a choice at or below `id` is unexplored.
    fn open(&self, id: NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| match node.choices[..] {
            [] => node.children.iter().flatten().any(|child| self.open(*child)),
            // A choice is done only if nothing below it is open.
            _ => node.next_choice().is_some(),
        })
    }

    /// Whether something below a choice of `id` is unexplored.
    fn open_below(&self, id: NodeId, choice: usize) -> bool {
        self.nodes.get(id).is_some_and(|node| match node.kind {
            Kind::Enum(_) => node.children.get(choice).is_some_and(|child| child.is_some_and(|c| self.open(c))),
            _ => node.children.iter().flatten().any(|child| self.open(*child)),
        })
    }

    /// Records how `choice` of `id` ended.
    fn settle(&mut self, id: NodeId, choice: usize, succeeded: bool) {
        let next = if succeeded && !self.open_below(id, choice) {
            Status::Done
        } else if !succeeded && !self.progress && !self.blame_last() {
            Status::Failed
        } else {
            Status::New
        };
        let Some(node) = self.nodes.get_mut(id) else { return };
        if succeeded && node.worked.is_none() {
            node.worked = Some(choice);
            self.restart |= node.wanted;
        }
        if let Some(status) = node.choices.get_mut(choice).filter(|status| **status == Status::New) {
            self.progress |= *status != next;
            *status = next;
        }
    }

    /// Takes another value for the number or string answered last, if there is one.
    fn blame_last(&mut self) -> bool {
        let Some(node) = self.last.take().and_then(|id| self.nodes.get_mut(id)) else { return false };
        if !node.choices.contains(&Status::New) {
            return false;
        }
        let blamed = node.worked.take().and_then(|choice| node.choices.get_mut(choice));
        self.progress |= blamed.is_some();
        blamed.is_some_and(|status| {
            *status = Status::Failed;
            true
        })
    }

    /// Whether another pass may bring something new.
    fn continues(&mut self, succeeded: bool) -> bool {
        self.stack.clear();
        if std::mem::take(&mut self.restart) {
            // Dummies are not asked again: whether they are accepted depends on no other choice.
            let choices = self.nodes.iter_mut().filter(|node| node.kind != Kind::Plain);
            choices.for_each(|node| node.choices.fill(Status::New));
            return self.calls_left > 0;
        }
        let progress = self.progress || (!succeeded && self.blame_last());
        progress && self.calls_left > 0 && (!succeeded || self.open(ROOT))
    }
}

/// A position of the type, as the deserializer that records it.
struct Probe<'a> {
    trace: &'a mut Trace,
    /// None only in a replay, where the first passage did not come.
    node: Option<NodeId>,
    /// Only produces a value, records nothing.
    replay: bool,
    depth: u32,
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
struct Rejected;

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

/// Writing a trace as text.
impl Trace {
    fn render(&self, id: NodeId, out: &mut String) {
        let Some(node) = self.nodes.get(id) else { return };
        match node.kind {
            Kind::Unknown => out.push('?'),
            Kind::Plain => out.push_str(node.name),
            Kind::Cut(_) => {
                out.push('^');
                out.push_str(node.name);
            }
            Kind::Wrapper => self.render_list(node, '<', node.children.len(), '>', out),
            Kind::Tuple(count) => self.render_list(node, '(', count, ')', out),
            Kind::Struct(fields) => self.render_struct(node, fields, out),
            Kind::Enum(variants) => self.render_enum(node, variants, out),
        }
    }

    fn render_child(&self, node: &Node, index: usize, out: &mut String) {
        match node.children.get(index) {
            Some(Some(child)) => self.render(*child, out),
            _ => out.push('?'),
        }
    }

    /// Parts in brackets; many equal ones, as of an array, as `u8;32`, and the end of what was never reached as `?`.
    fn render_list(&self, node: &Node, open: char, count: usize, close: char, out: &mut String) {
        let known = count.min(node.children.len() + 1);
        let parts: Vec<String> = (0..known)
            .map(|index| {
                let mut part = String::new();
                self.render_child(node, index, &mut part);
                part
            })
            .collect();
        out.push_str(node.name);
        out.push(open);
        match &parts[..] {
            [first, rest @ ..] if count > 4 && rest.iter().all(|part| part == first) => out.push_str(first),
            parts => out.push_str(&parts.join(",")),
        }
        if count > 4 {
            out.push_str(&format!(";{count}"));
        }
        out.push(close);
    }

    fn render_struct(&self, node: &Node, fields: &[&str], out: &mut String) {
        out.push_str(node.name);
        out.push('{');
        for (index, field) in fields.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "," });
            out.push_str(field);
            out.push(':');
            self.render_child(node, index, out);
        }
        out.push('}');
    }

    fn render_enum(&self, node: &Node, variants: &[&str], out: &mut String) {
        out.push_str(node.name);
        out.push('[');
        for (index, variant) in variants.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "|" });
            let content = node.children.get(index).copied().flatten().and_then(|child| self.nodes.get(child));
            if content.is_some_and(|content| content.kind != Kind::Unknown) {
                self.render_child(node, index, out);
            } else {
                out.push_str(variant);
                out.push('?');
            }
        }
        out.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::{BTreeMap, HashMap};
    use std::num::NonZeroU64;

    /// Checks the text, and that a second run gives the same.
    #[track_caller]
    fn check<T: DeserializeOwned>(expected: &str) {
        let shape = shape_of::<T>();
        assert_eq!(shape.text, expected);
        assert_eq!(shape, shape_of::<T>());
        assert_eq!(shape.fingerprint, xxh3_64(expected.as_bytes()));
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Seen {
        small: Option<u64>,
        shop: String,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Wrapper<T> {
        inner: T,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Event {
        Open,
        Sale(u64),
        Move { from: u32, to: Option<u32> },
        Pair(i8, Kind),
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Kind {
        A,
        B(String),
        C,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Tree {
        left: Option<Box<Tree>>,
        right: Vec<Tree>,
        weight: u32,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Expr {
        Add(Box<Expr>, Box<Expr>, u8),
        Call { name: String, args: Vec<Expr>, at: u16 },
        Literal(i64),
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Left {
        To(Right),
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Right {
        Back(Box<Left>, u8),
        Stop,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Metre(f64);

    #[derive(Deserialize)]
    struct Nothing;

    /// Parses what it is given as text, as chrono and others do.
    struct Time;

    impl<'de> Deserialize<'de> for Time {
        fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if text.ends_with('Z') { Ok(Time) } else { Err(de::Error::custom("no time")) }
        }
    }

    /// Refuses everything.
    struct Never;

    impl<'de> Deserialize<'de> for Never {
        fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u8::deserialize(deserializer)?;
            Err(de::Error::custom("never"))
        }
    }

    #[test]
    fn plain_types() {
        check::<u64>("u64");
        check::<i64>("i64");
        check::<u128>("u128");
        check::<bool>("bool");
        check::<char>("char");
        check::<f32>("f32");
        check::<String>("str");
        check::<()>("unit");
        check::<Nothing>("Nothing");
        check::<NonZeroU64>("u64");
        assert_ne!(shape_of::<u64>().fingerprint, shape_of::<i64>().fingerprint);
    }

    #[test]
    fn compound_types() {
        check::<Seen>("Seen{small:option<u64>,shop:str}");
        check::<(u8, String)>("(u8,str)");
        check::<[u8; 32]>("(u8;32)");
        check::<(u8, u8, u8, u8, u16)>("(u8,u8,u8,u8,u16;5)");
        check::<Metre>("Metre(f64)");
        check::<Vec<Option<Seen>>>("seq<option<Seen{small:option<u64>,shop:str}>>");
        check::<HashMap<String, Vec<i32>>>("map<str,seq<i32>>");
        check::<BTreeMap<(u8, u8), ()>>("map<(u8,u8),unit>");
        check::<std::time::Duration>("Duration{secs:u64,nanos:u32}");
        check::<std::net::IpAddr>("IpAddr[V4((u8,u8,u8,u8))|V6((u8;16))]");
    }

    #[test]
    fn generic_types_of_one_name_are_told_apart() {
        check::<Wrapper<Wrapper<u64>>>("Wrapper{inner:Wrapper{inner:u64}}");
        check::<(Wrapper<u8>, Wrapper<Kind>)>("(Wrapper{inner:u8},Wrapper{inner:Kind[A|B(str)|C]})");
    }

    #[test]
    fn enums_show_all_variants_wherever_they_are() {
        let event = "Event[Open|Sale(u64)|Move{from:u32,to:option<u32>}|Pair(i8,Kind[A|B(str)|C])]";
        check::<Event>(event);
        check::<Vec<Event>>(&format!("seq<{event}>"));
        check::<HashMap<u8, Option<Event>>>(&format!("map<u8,option<{event}>>"));
        check::<(Kind, Event, Kind)>(&format!("(Kind[A|B(str)|C],{event},Kind[A|B(str)|C])"));
        check::<Result<u8, Kind>>("Result[Ok(u8)|Err(Kind[A|B(str)|C])]");
    }

    #[test]
    fn recursive_types_are_recorded_whole() {
        check::<Tree>("Tree{left:option<^Tree>,right:seq<^Tree>,weight:u32}");
        check::<Expr>("Expr[Add(^Expr,^Expr,u8)|Call{name:str,args:seq<^Expr>,at:u16}|Literal(i64)]");
        check::<Left>("Left[To(Right[Back(^Left,u8)|Stop])]");
        check::<Right>("Right[Back(Left[To(^Right)],u8)|Stop]");
    }

    #[test]
    fn changes_are_seen() {
        mod renamed {
            #[derive(serde::Deserialize)]
            #[allow(dead_code)]
            pub(super) struct Seen {
                large: Option<u64>,
                shop: String,
            }
        }
        mod added {
            #[derive(serde::Deserialize)]
            #[allow(dead_code)]
            pub(super) struct Seen {
                small: Option<u64>,
                shop: String,
                last: u8,
            }
        }
        let before = shape_of::<Seen>().fingerprint;
        assert_ne!(before, shape_of::<renamed::Seen>().fingerprint);
        assert_ne!(before, shape_of::<added::Seen>().fingerprint);
    }

    #[test]
    fn validating_types() {
        check::<Time>("str");
        check::<(Time, Kind)>("(str,Kind[A|B(str)|C])");
        check::<Never>("u8");
        check::<(u16, Never, u32)>("(u16,u8,?)");
        check::<Option<Never>>("option<u8>");
        check::<(Vec<Never>, Kind)>("(seq<u8>,Kind[A|B(str)|C])");
        check::<Wrapper<(Kind, Never)>>("Wrapper{inner:(Kind[A|B(str)|C],u8)}");
    }

    #[test]
    fn names_of_unreached_fields_count() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Late {
            never: Never,
            name: String,
        }
        check::<Late>("Late{never:u8,name:?}");
    }

    #[test]
    fn formats_with_types_of_their_own() {
        #[derive(Deserialize)]
        #[serde(untagged)]
        #[allow(dead_code)]
        enum Loose {
            Number(u64),
            Text(String),
        }
        check::<Loose>("any");
        assert!(shape_of::<(u8, Loose)>().text.starts_with("(u8,any"));
    }

    /// Nests without a name, twice at each level.
    struct Endless;

    impl<'de> Deserialize<'de> for Endless {
        fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            <(Option<Box<Endless>>, Option<Box<Endless>>)>::deserialize(deserializer)?;
            Ok(Endless)
        }
    }

    struct Panics;

    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u8::deserialize(deserializer)?;
            panic!("on purpose")
        }
    }

    #[test]
    fn always_ends_and_never_panics() {
        let shape = shape_of::<Endless>();
        assert!(shape.text.len() <= TEXT_BYTES_MAX + '…'.len_utf8() && shape.text.ends_with('…'));
        assert_eq!(shape, shape_of::<Endless>());
        check::<(u16, Panics)>("(u16,u8)");
    }

    #[test]
    fn long_texts_differ_in_their_fingerprint_only() {
        type Wide<T> = ([[Seen; 3]; 4], [[(Seen, Seen); 2]; 4], Wrapper<(Wrapper<Event>, [(Seen, T, Event); 4])>);
        type Wider<T> = (Wide<u8>, Wide<u16>, Wide<u32>, T);
        let (one, two) = (shape_of::<Wider<u8>>(), shape_of::<Wider<u16>>());
        assert!(one.text.ends_with('…'), "{}", one.text.len());
        assert_eq!(one.text, two.text);
        assert_ne!(one.fingerprint, two.fingerprint);
    }
}
