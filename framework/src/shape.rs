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

mod probe;

use probe::{Probe, Rejected};
use serde::de::DeserializeOwned;
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

impl Shape {
    /// Of something that consists of parts, such as a collection.
    pub(crate) fn of_parts(name: &str, parts: &[Shape]) -> Self {
        let texts: Vec<&str> = parts.iter().map(|part| &*part.text).collect();
        let prints: Vec<String> = parts.iter().map(|part| format!("{:016x}", part.fingerprint)).collect();
        let fingerprint = xxh3_64(format!("{name}<{}>", prints.join(",")).as_bytes());
        Self { text: format!("{name}<{}>", texts.join(",")), fingerprint }
    }
}

/// The shape of `T`: equal for equal types in every build; different if a name, an order, a width or a variant differs.
///
/// Never panics (a panic of the type's own code is caught) and always ends. Of a type that refuses all dummy values it
/// knows what came before, and the names of the fields. Costs microseconds for common types: call it when a job starts,
/// not per record.
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
    use serde::{Deserialize, de};
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
