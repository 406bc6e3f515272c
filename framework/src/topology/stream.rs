//! [`Topology`] and [`Stream`]: what users build with. Keyed streams are in `keyed.rs`, operators above the contracts
//! in the crate of operators.

use super::graph::{Graph, Kind, Link, Node, Port, TimeNeed};
use super::keyed::KeyedStream;
use super::node::{ChainOf, DiscardOf, Edge, KeyByOf, Of, SinkOf, SourceOf, TypedSource};
use crate::operator::{
    Boxed, Chain, Filter, FilterMap, FlatMap, FlatMapInto, Fused, Inspect, Map, Own, RecordOf, Sink, Source, Step,
    Then, TryMap,
};
use crate::subtask::{Borrowed, Computed, IntoLanes, KeyOf, Lending, Loops, Making, chain_loops};
use crate::values::{Reads, Values};
use crate::{BoxError, Data, Error, Key, Name};
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

/// What a topology function is handed: the place where sources start, and the settings.
///
/// Building does no I/O and returns no errors: mistakes are collected and shown together when the job starts.
#[derive(Clone)]
pub struct Topology(Rc<Shared>);

/// What a topology and all its streams work on.
struct Shared {
    job: String,
    graph: RefCell<Graph>,
    settings: Values,
    reads: RefCell<Reads>,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self.0.graph.borrow().nodes.iter().map(Node::label).collect();
        f.debug_tuple("Topology").field(&labels).finish()
    }
}

impl Topology {
    pub(crate) fn new(job: &str, settings: Values) -> Self {
        let (graph, reads) = Default::default();
        Self(Rc::new(Shared { job: job.into(), graph, settings, reads }))
    }

    /// The name of the job.
    pub(super) fn job(&self) -> &str {
        &self.0.job
    }

    pub(crate) fn into_graph(self) -> Graph {
        std::mem::take(&mut self.0.graph.borrow_mut())
    }

    /// The settings of this pipeline: `[pipeline]` in the configuration file, `--set` and the flags of the command
    /// line, or what [`Job::config`](crate::Job::config) was given. What is given in the file or with `--set` and
    /// read by no call is a mistake, which is said when all is built.
    ///
    /// # Errors
    /// When they do not fit `T`: which of them does not, and where it was given.
    pub fn config<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        self.0.settings.read(&mut self.0.reads.borrow_mut())
    }

    /// That no setting was given that nobody reads.
    pub(crate) fn all_read(&self) -> Result<(), Error> {
        self.0.settings.all_read(&self.0.reads.borrow())
    }

    /// A stream of what `source` reads. `name` is the identity of its offsets.
    #[track_caller]
    pub fn source<S: Source>(&self, name: impl Name, source: S) -> Stream<RecordOf<S>> {
        let timed = source.has_event_time();
        let kind = Kind::Source(Arc::new(SourceOf(Box::new(TypedSource(Arc::new(source))))));
        let spec = NewNode { name: Some(name.into_name()), what: "source", kind, inputs: vec![], link: Link::Direct };
        self.add(spec, timed)
    }

    /// One stream of several. Records of one stream stay in order; streams are merged as their records arrive.
    #[track_caller]
    pub fn union<T: Send + 'static>(&self, streams: impl IntoIterator<Item = Stream<T>>) -> Stream<T> {
        let inputs: Vec<_> = streams.into_iter().map(|s| s.port).collect();
        self.merge("union", inputs, Link::Forward)
    }

    #[track_caller]
    pub(crate) fn merge<T: Send + 'static>(&self, what: &'static str, inputs: Vec<Port>, link: Link) -> Stream<T> {
        let timed = inputs.iter().any(|p| self.0.graph.borrow().nodes[p.node].timed);
        self.add(NewNode { name: None, what, kind: Kind::Merge, inputs, link }, timed)
    }

    #[track_caller]
    pub(crate) fn add<T: Send + 'static>(&self, new: NewNode, timed: bool) -> Stream<T> {
        self.add_edge(new, timed, Arc::new(Of::new()))
    }

    #[track_caller]
    fn add_edge<T: Send + 'static>(&self, new: NewNode, timed: bool, edge: Arc<Of<T>>) -> Stream<T> {
        let port = self.add_out(new, timed, edge.clone());
        Stream { topology: self.clone(), port, edge, chain: Boxed::new() }
    }

    /// A node with one output.
    #[track_caller]
    fn add_out(&self, new: NewNode, timed: bool, edge: Arc<dyn Edge>) -> Port {
        let node = self.add_node(new, timed, &[]);
        Port { node, port: self.add_port(node, edge) }
    }

    /// A node that reads a port, and whose records have times if those it reads have.
    #[track_caller]
    pub(super) fn add_behind<T: Send + 'static>(&self, input: Port, kind: Kind, called: Called) -> Stream<T> {
        let edge = Arc::new(Of::new());
        let port = self.add_reader(input, kind, called, edge.clone());
        Stream { topology: self.clone(), port, edge, chain: Boxed::new() }
    }

    #[track_caller]
    fn add_reader(&self, input: Port, kind: Kind, called: Called, edge: Arc<dyn Edge>) -> Port {
        let Called { name, what, link } = called;
        self.add_out(NewNode { name, what, kind, inputs: vec![input], link }, self.is_timed(input), edge)
    }

    /// A node that has no outputs yet; it may have as many as it has branches.
    #[track_caller]
    pub(super) fn add_node(&self, new: NewNode, timed: bool, branches: &'static [&'static str]) -> usize {
        let NewNode { name, what, kind, inputs, link } = new;
        let (site, outs) = (Location::caller(), Vec::new());
        let nodes = &mut self.0.graph.borrow_mut().nodes;
        let sets_time = matches!(kind, Kind::EventTime(_));
        let marked = sets_time || inputs.iter().any(|input| nodes[input.node].marked);
        let node = Node { name, what, site, kind, inputs, link, parallelism: None, outs, branches, timed, marked };
        nodes.push(node);
        nodes.len() - 1
    }

    /// Gives a node another output; which one it is.
    pub(super) fn add_port(&self, node: usize, edge: Arc<dyn Edge>) -> usize {
        let outs = &mut self.0.graph.borrow_mut().nodes[node].outs;
        outs.push(edge);
        outs.len() - 1
    }

    /// The name of whatever has one and comes before a port; of several the first.
    pub(super) fn name_before(&self, port: Port) -> String {
        let nodes = &self.0.graph.borrow().nodes;
        let mut node = &nodes[port.node];
        loop {
            match (&node.name, node.inputs.first()) {
                (None, Some(input)) => node = &nodes[input.node],
                (name, _) => return name.clone().unwrap_or_default(),
            }
        }
    }

    /// Apart from [`Stream::boxed`], as is the next one from its caller, so that it is compiled once per record type.
    #[track_caller]
    fn add_chain<T: Send + 'static>(&self, port: Port, loops: Loops) -> Stream<T> {
        let edge = Arc::new(Of::new());
        let kind = Kind::Chain(Arc::new(ChainOf { loops, edge: edge.clone() }));
        let port = self.add_reader(port, kind, Called::plain("chain"), edge.clone());
        Stream { topology: self.clone(), port, edge, chain: Boxed::new() }
    }

    #[track_caller]
    fn add_lending<K: Key, T: Send + 'static>(&self, port: Port, of: Arc<dyn Lending<T, K>>) -> KeyedStream<K, T> {
        self.add_keyed(port, Loops::new(of.clone()), KeyOf::Borrowed(of))
    }

    #[track_caller]
    fn add_making<K: Key, T: Send + 'static>(&self, port: Port, of: Arc<dyn Making<T, K>>) -> KeyedStream<K, T> {
        self.add_keyed(port, Loops::new(of.clone()), KeyOf::Computed(of))
    }

    #[track_caller]
    fn add_keyed<K: Key, T: Send + 'static>(&self, port: Port, loops: Loops, key_of: KeyOf<K, T>) -> KeyedStream<K, T> {
        let edge = Arc::new(Of::new());
        let kind = Kind::Chain(Arc::new(KeyByOf { loops, edge: edge.clone() }));
        let port = self.add_reader(port, kind, Called::plain("key_by"), edge.clone());
        KeyedStream::new(Stream { topology: self.clone(), port, edge, chain: Boxed::new() }, key_of)
    }

    pub(crate) fn is_timed(&self, port: Port) -> bool {
        self.0.graph.borrow().nodes[port.node].timed
    }

    /// Says that an operator works in event time; its lack is a mistake.
    pub(crate) fn needs_time(&self, need: TimeNeed) {
        self.0.graph.borrow_mut().needs_time.push(need);
    }

    pub(crate) fn set_parallelism(&self, port: Port, parallelism: usize) {
        let graph = &mut *self.0.graph.borrow_mut();
        graph.nodes[port.node].parallelism = Some(parallelism);
        // what is for all subtasks must not be shared out among them
        if let Some(broadcast) = graph.broadcast_before(port.node) {
            graph.nodes[broadcast].parallelism.get_or_insert(parallelism);
        }
    }
}

/// The edge into an empty chain is also the one out of it: `C::In` is `T`, which only `Any` can be told.
fn edge_of<T: Send + 'static>(edge: Arc<dyn Any + Send + Sync>) -> Arc<Of<T>> {
    edge.downcast().unwrap_or_else(|_| unreachable!("only `Boxed` is empty, and it changes no type"))
}

/// What a node is made of.
pub(crate) struct NewNode {
    pub(crate) name: Option<String>,
    pub(crate) what: &'static str,
    pub(crate) kind: Kind,
    pub(crate) inputs: Vec<Port>,
    pub(crate) link: Link,
}

/// The rest of a node that reads one port.
pub(crate) struct Called {
    pub(crate) name: Option<String>,
    pub(crate) what: &'static str,
    pub(crate) link: Link,
}

impl Called {
    /// Without a name, in the subtask of what it reads.
    fn plain(what: &'static str) -> Self {
        Self { name: None, what, link: Link::Direct }
    }
}

/// A stream of `T`. `C` is the fused chain of stateless steps that makes it; functions over streams take and return
/// `Stream<T>`, which [`boxed`](Stream::boxed) gives.
#[must_use = "a stream does nothing until it reaches a sink"]
pub struct Stream<T, C: Chain<T> = Boxed<T>> {
    pub(super) topology: Topology,
    pub(super) port: Port,
    /// Of the port, hence of what enters the chain.
    pub(super) edge: Arc<Of<C::In>>,
    pub(super) chain: C,
}

impl<T, C: Chain<T>> fmt::Debug for Stream<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream<{}>", std::any::type_name::<T>())
    }
}

/// Fan-out: the records are cloned for each further reader.
impl<T: Clone + Send + 'static, C: IsBoxed<T>> Clone for Stream<T, C> {
    fn clone(&self) -> Self {
        self.edge.allow_clones(C::clone_record);
        let (topology, edge) = (self.topology.clone(), self.edge.clone());
        Self { topology, port: self.port, edge, chain: self.chain.clone() }
    }
}

/// Chains without steps: only their streams can have several readers. Call `.boxed()` before `.clone()`.
#[diagnostic::on_unimplemented(
    message = "this stream ends in steps that are not boxed, so it has one reader and cannot be cloned",
    label = "write `.boxed()` at the end of what makes this stream",
    note = "the steps then run once, and what they make is cloned for each further reader"
)]
pub trait IsBoxed<T>: Chain<T> + Clone {
    #[doc(hidden)]
    fn clone_record(record: &Self::In) -> Self::In
    where
        T: Clone;
}
impl<T: Send + 'static> IsBoxed<T> for Boxed<T> {
    fn clone_record(record: &T) -> T
    where
        T: Clone,
    {
        record.clone()
    }
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// A further reader of this stream, which has to be [`boxed`](Self::boxed): the records are cloned for it. The same
    /// as [`Clone::clone`], and here so that the compiler can say what is missing.
    #[allow(clippy::should_implement_trait, reason = "it is implemented")]
    pub fn clone(&self) -> Self
    where
        T: Clone,
        C: IsBoxed<T>,
    {
        Clone::clone(self)
    }

    /// Appends a step of one's own to the fused chain. Each subtask works on a clone of it, made when an attempt
    /// begins: what a clone remembers is lost with the attempt.
    pub fn step<S: Step<T>>(self, step: S) -> Stream<S::Out, Then<C, Own<S>, T>> {
        self.fused(Own::new(step))
    }

    pub(super) fn fused<S: Fused<T>>(self, step: S) -> Stream<S::Out, Then<C, S, T>> {
        let Self { topology, port, edge, chain } = self;
        Stream { topology, port, edge, chain: Then::new(chain, step) }
    }

    /// Each record becomes another one.
    pub fn map<U, F>(self, f: F) -> Stream<U, Then<C, Map<F>, T>>
    where
        U: Send + 'static,
        F: Fn(T) -> U + Send + Sync + 'static,
    {
        self.fused(Map::new(f))
    }

    /// Each record becomes another one, or ends the attempt: the job recovers from its last checkpoint, and after some
    /// attempts it fails.
    pub fn try_map<U, F>(self, f: F) -> Stream<U, Then<C, TryMap<F>, T>>
    where
        U: Send + 'static,
        F: Fn(T) -> Result<U, BoxError> + Send + Sync + 'static,
    {
        self.fused(TryMap::new(f))
    }

    /// Keeps the records for which `f` holds.
    pub fn filter<F>(self, f: F) -> Stream<T, Then<C, Filter<F>, T>>
    where
        F: Fn(&T) -> bool + Send + Sync + 'static,
    {
        self.fused(Filter::new(f))
    }

    /// Each record becomes another one, or none.
    pub fn filter_map<U, F>(self, f: F) -> Stream<U, Then<C, FilterMap<F>, T>>
    where
        U: Send + 'static,
        F: Fn(T) -> Option<U> + Send + Sync + 'static,
    {
        self.fused(FilterMap::new(f))
    }

    /// Each record becomes any number of others, in the order of the iterator.
    pub fn flat_map<I, F>(self, f: F) -> Stream<I::Item, Then<C, FlatMap<F>, T>>
    where
        I: IntoIterator<Item: Send + 'static>,
        F: Fn(T) -> I + Send + Sync + 'static,
    {
        self.fused(FlatMap::new(f))
    }

    /// As [`flat_map`](Self::flat_map), without a collection per record: results are put into a buffer that is reused,
    /// and may borrow from the record while they are made.
    pub fn flat_map_into<U, F>(self, f: F) -> Stream<U, Then<C, FlatMapInto<F, U>, T>>
    where
        U: Send + 'static,
        F: Fn(T, &mut Vec<U>) + Send + Sync + 'static,
    {
        self.fused(FlatMapInto::new(f))
    }

    /// Shows each record to `f`, which may be called again for the same record after a crash.
    pub fn inspect<F>(self, f: F) -> Stream<T, Then<C, Inspect<F>, T>>
    where
        F: Fn(&T) + Send + Sync + 'static,
    {
        self.fused(Inspect::new(f))
    }

    /// Ends the fused chain; wanted where a stream is cloned, stored or returned. One virtual call per batch.
    #[track_caller]
    pub fn boxed(self) -> Stream<T> {
        let Self { topology, port, edge, chain } = self;
        if C::IS_EMPTY {
            return Stream { edge: edge_of(edge), topology, port, chain: Boxed::new() };
        }
        let timed = topology.is_timed(port);
        topology.add_chain(port, chain_loops::<T, C>(chain, timed))
    }

    /// `f(self.boxed())`, for functions over streams.
    #[track_caller]
    pub fn pipe<R>(self, f: impl FnOnce(Stream<T>) -> R) -> R {
        f(self.boxed())
    }

    /// How many subtasks the operator that makes this stream has, in place of the job's number. For a keyed operator at
    /// most the number of key groups (128).
    pub fn parallelism(self, subtasks: usize) -> Self
    where
        T: Data,
    {
        self.topology.set_parallelism(self.port, subtasks);
        self
    }

    /// Keys by a part of the record, which is borrowed: no clone per record.
    #[track_caller]
    pub fn key_by<K, F>(self, key: F) -> KeyedStream<K, T>
    where
        T: Data,
        K: Key,
        F: Fn(&T) -> &K + Send + Sync + 'static,
    {
        let Self { topology, port, chain, .. } = self;
        let lanes = IntoLanes::new(chain, Borrowed::new(key), topology.is_timed(port));
        topology.add_lending(port, Arc::new(lanes))
    }

    /// Keys by a value computed from the record.
    #[track_caller]
    pub fn key_by_value<K, F>(self, key: F) -> KeyedStream<K, T>
    where
        T: Data,
        K: Key,
        F: Fn(&T) -> K + Send + Sync + 'static,
    {
        let Self { topology, port, chain, .. } = self;
        let lanes = IntoLanes::new(chain, Computed::new(key), topology.is_timed(port));
        topology.add_making(port, Arc::new(lanes))
    }

    /// This stream and another one as one stream.
    #[track_caller]
    pub fn union<D: Chain<T>>(self, other: Stream<T, D>) -> Stream<T> {
        let (one, other) = (self.boxed(), other.boxed());
        one.topology.clone().union([one, other])
    }

    /// Deals batches out to all subtasks in turn. The order of records is lost.
    #[track_caller]
    pub fn rebalance(self) -> Stream<T>
    where
        T: Data,
    {
        let this = self.boxed();
        this.topology.merge("rebalance", vec![this.port], Link::Rebalance)
    }

    /// Writes the records to `sink`. `name` is the identity of what it has prepared.
    #[track_caller]
    pub fn sink<S: Sink<T>>(self, name: impl Name, sink: S) {
        self.boxed().into_sink(name.into_name(), sink);
    }

    /// Says that nothing is to be done with these records.
    #[track_caller]
    pub fn discard(self) {
        let kind = Kind::Discard(Arc::new(DiscardOf));
        self.boxed().end(kind, Called::plain("discard"));
    }
}

impl<T: Send + 'static> Stream<T> {
    #[track_caller]
    fn end(self, kind: Kind, called: Called) {
        let _: Stream<T> = self.topology.add_behind(self.port, kind, called);
    }

    /// Apart from [`Stream::sink`] for the reason that [`Topology::add_chain`] is.
    #[track_caller]
    fn into_sink<S: Sink<T>>(self, name: String, sink: S) {
        let kind = Kind::Sink(Arc::new(SinkOf { sink: Arc::new(sink), of: PhantomData }));
        self.end(kind, Called { name: Some(name), what: "sink", link: Link::Direct });
    }

    /// The records may be given to several readers.
    pub(crate) fn cloned(self) -> Self
    where
        T: Clone,
    {
        self.edge.allow_clones(T::clone);
        self
    }

    pub(crate) fn origin(&self) -> (&Topology, Port) {
        (&self.topology, self.port)
    }

    pub(crate) fn into_parts(self) -> (Topology, Port) {
        (self.topology, self.port)
    }
}
