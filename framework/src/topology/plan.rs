//! The plan: which nodes share a subtask, how many subtasks there are of each, and the lanes between them. Pure.
//!
//! A task is a run of nodes that hand batches to each other directly. It begins at a source or behind an exchange, and
//! has as many subtasks as the node it begins with.

use super::graph::{Graph, Kind, Link, Port};
use super::node::Outputs;
use crate::state::items::{ItemsLayout, ItemsStore};
use crate::state::keyed::StateContext;
use crate::subtask::{AnyStage, Sender, Splits, StageContext};
use crate::{Error, ErrorKind};
use std::rc::Rc;

/// A run of nodes in one subtask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// The node it begins with.
    pub(crate) head: usize,
    /// All its nodes, inputs before readers.
    pub(crate) nodes: Vec<usize>,
    pub(crate) parallelism: usize,
}

/// An exchange from one node's output to the task of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) from: Port,
    /// The node that reads, and which of its inputs this is.
    pub(crate) to: usize,
    pub(crate) input: usize,
    pub(crate) link: Link,
}

/// What runs.
pub(crate) struct Plan {
    pub(crate) graph: Graph,
    pub(crate) tasks: Vec<Task>,
    /// The task of each node.
    task_of: Vec<usize>,
    pub(crate) exchanges: Vec<Exchange>,
}

/// Makes what follows a port in one subtask; the runtime knows the lanes and the contexts.
pub(crate) trait Assemble {
    /// The context of a node in the subtask at hand.
    fn context(&mut self, node: usize) -> StageContext;
    /// The state of a keyed operator in the subtask at hand.
    fn state(&mut self, node: usize) -> Result<StateContext, Error>;
    /// The items of an operator without keys in the subtask at hand.
    fn items(&mut self, node: usize, layout: ItemsLayout) -> ItemsStore;
    /// What the source of the subtask at hand and those who set times share.
    fn splits(&mut self) -> Rc<Splits>;
    /// The lanes of an exchange that begin in the subtask at hand.
    fn lanes(&mut self, exchange: usize) -> Vec<Sender>;
}

impl Plan {
    /// The plan of a validated graph, with `default` subtasks where the user gave no number.
    pub(crate) fn new(graph: Graph, default: usize) -> Self {
        let mut parallelism: Vec<usize> = Vec::new();
        let (mut tasks, mut task_of, mut exchanges) = (Vec::<Task>::new(), Vec::new(), Vec::new());
        for (i, node) in graph.nodes.iter().enumerate() {
            let direct = match node.inputs[..] {
                [input] if node.link == Link::Direct => {
                    let there = parallelism[input.node];
                    (node.parallelism.unwrap_or(there) == there).then_some(input)
                }
                _ => None,
            };
            let own = direct.map(|input| parallelism[input.node]);
            parallelism.push(own.or(node.parallelism).unwrap_or(default));
            if let Some(input) = direct {
                let task: usize = task_of[input.node];
                tasks[task].nodes.push(i);
                task_of.push(task);
                continue;
            }
            task_of.push(tasks.len());
            tasks.push(Task { head: i, nodes: vec![i], parallelism: parallelism[i] });
            for (input, from) in node.inputs.iter().enumerate() {
                let link = if node.link == Link::Direct { Link::Rebalance } else { node.link };
                exchanges.push(Exchange { from: *from, to: i, input, link });
            }
        }
        Self { graph, tasks, task_of, exchanges }
    }

    /// How many subtasks a node has.
    pub(crate) fn parallelism(&self, node: usize) -> usize {
        self.tasks[self.task_of[node]].parallelism
    }

    /// The lanes of an exchange: from each writing subtask, to which reading ones.
    pub(crate) fn targets(&self, exchange: &Exchange, writer: usize) -> Vec<usize> {
        let (from, to) = (self.parallelism(exchange.from.node), self.parallelism(exchange.to));
        if exchange.link == Link::Forward && from == to { vec![writer] } else { (0..to).collect() }
    }

    /// What a node's only output leads to, in one subtask.
    pub(crate) fn outputs(&self, node: usize, assemble: &mut dyn Assemble) -> Result<Outputs, Error> {
        self.behind(Port { node, port: 0 }, assemble)
    }

    /// What an output leads to, in one subtask.
    fn behind(&self, port: Port, assemble: &mut dyn Assemble) -> Result<Outputs, Error> {
        let Port { node, port: out } = port;
        let edge = &self.graph.nodes[node].outs[out];
        let keyed: Vec<usize> = self.exchanges_from(port, |link| link == Link::Hash);
        if !keyed.is_empty() {
            return Ok(Outputs::Lanes(keyed.into_iter().map(|e| assemble.lanes(e)).collect()));
        }
        let mut next = Vec::new();
        for exchange in self.exchanges_from(port, |link| link != Link::Hash) {
            let lanes = assemble.lanes(exchange);
            next.push(match self.exchanges[exchange].link {
                Link::Broadcast => edge.broadcaster(lanes)?,
                _ => edge.writer(lanes, assemble.context(node).subtask),
            });
        }
        for (reader, _) in self.graph.readers(port) {
            if self.task_of[reader] == self.task_of[node] && self.graph.nodes[reader].link == Link::Direct {
                next.push(self.stage(reader, assemble)?);
            }
        }
        Ok(Outputs::Stage(edge.fan_out(next)?))
    }

    fn exchanges_from(&self, port: Port, wanted: impl Fn(Link) -> bool) -> Vec<usize> {
        let all = self.exchanges.iter().enumerate();
        all.filter(|(_, e)| e.from == port && wanted(e.link)).map(|(i, _)| i).collect()
    }

    /// The stage of a node that is not a source.
    pub(crate) fn stage(&self, node: usize, assemble: &mut dyn Assemble) -> Result<Box<dyn AnyStage>, Error> {
        let context = assemble.context(node);
        match &self.graph.nodes[node].kind {
            Kind::Sink(sink) => Ok(sink.stage(&context)),
            Kind::Discard(end) => end.stage(Outputs::Lanes(Vec::new()), &context),
            Kind::Chain(chain) => chain.stage(self.outputs(node, assemble)?, &context),
            Kind::Branches(split) => {
                let ports = 0..self.graph.nodes[node].outs.len();
                let branches = ports.map(|port| self.behind(Port { node, port }, assemble)?.stage());
                Ok(split.stage(branches.collect::<Result<_, Error>>()?, &context))
            }
            Kind::Process(process) => {
                let state = assemble.state(node)?;
                process.stage(state, self.outputs(node, assemble)?, &context)
            }
            Kind::Operator(operator) => {
                let items = assemble.items(node, operator.layout());
                operator.stage(items, self.outputs(node, assemble)?, &context)
            }
            Kind::EventTime(event_time) => {
                let (number, splits) = (self.graph.event_time_number(node), assemble.splits());
                event_time.stage(number, splits, self.outputs(node, assemble)?, &context)
            }
            Kind::Merge => match self.outputs(node, assemble)? {
                Outputs::Stage(stage) => Ok(stage),
                Outputs::Lanes(_) => Err(Error::new(ErrorKind::Topology, "a keyed stream is read without its key")),
            },
            Kind::Source(_) => Err(Error::new(ErrorKind::Topology, "a source has no input")),
        }
    }
}
