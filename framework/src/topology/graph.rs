//! The logical graph: what the user wrote, untyped. Which parts of it run together is decided in `plan.rs`.

use super::node::{BranchesNode, Edge, EventTimeNode, ItemsNode, OperatorNode, ProcessNodeSpec, SinkNode, SourceNode};
use crate::{Error, Secret};
use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::Arc;

/// Where in the user's program something was written.
pub(crate) type Site = &'static Location<'static>;

/// An output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) node: usize,
    pub(crate) port: usize,
}

/// How a node's input reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Within the subtask, if the parallelism is the same; else as `Rebalance`.
    Direct,
    /// By key.
    Hash,
    /// From subtask to subtask with the same number, through an inbox.
    Forward,
    /// Batch by batch to each subtask in turn.
    Rebalance,
    /// Every record to every subtask.
    Broadcast,
}

/// What a node is, typed inside.
#[derive(Clone)]
pub(crate) enum Kind {
    Source(Arc<dyn SourceNode>),
    /// A fused chain, the end of a keyed one included.
    Chain(Arc<dyn OperatorNode>),
    /// A fused chain that ends in branches.
    Branches(Arc<dyn BranchesNode>),
    /// Sets times, and makes watermarks of them.
    EventTime(Arc<dyn EventTimeNode>),
    /// Keyed, with state.
    Process(Arc<dyn ProcessNodeSpec>),
    /// Without keys, with items.
    Operator(Arc<dyn ItemsNode>),
    /// Several streams that become one, or one that is dealt out anew.
    Merge,
    Sink(Arc<dyn SinkNode>),
    Discard(Arc<dyn OperatorNode>),
}

/// A node of the logical graph.
pub(crate) struct Node {
    /// Given by the user; the identity of its state.
    pub(crate) name: Option<String>,
    /// What it is called in texts.
    pub(crate) what: &'static str,
    pub(crate) site: Site,
    pub(crate) kind: Kind,
    pub(crate) inputs: Vec<Port>,
    pub(crate) link: Link,
    /// Set by the user.
    pub(crate) parallelism: Option<usize>,
    /// Its outputs, each typed inside.
    pub(crate) outs: Vec<Arc<dyn Edge>>,
    /// What they are called, if they are branches.
    pub(crate) branches: &'static [&'static str],
    /// Its records carry event times.
    pub(crate) timed: bool,
    /// Watermarks come with them.
    pub(crate) marked: bool,
}

impl Node {
    /// Its name, or what it is and where it was written.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{} at {}", self.what, self.site))
    }

    /// What an output is called, if it is a branch.
    pub(crate) fn branch(&self, port: usize) -> Option<&'static str> {
        self.branches.get(port).copied()
    }

    pub(crate) fn is_end(&self) -> bool {
        matches!(self.kind, Kind::Sink(_) | Kind::Discard(_))
    }
}

/// An operator that works in event time.
pub(crate) struct TimeNeed {
    pub(crate) operator: String,
    pub(crate) site: Site,
    /// What it reads.
    pub(crate) input: Port,
}

/// All nodes, in the order in which they were written, hence inputs before readers.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    /// What was named while it was built, to be read before it runs.
    pub(crate) secrets: Vec<Secret>,
    pub(crate) needs_time: Vec<TimeNeed>,
}

impl Graph {
    /// Reads all secrets, so that one that is missing is known before anything has begun.
    pub(crate) fn read_secrets(&self) -> Result<(), Error> {
        self.secrets.iter().try_for_each(|secret| secret.reveal().map(drop))
    }

    /// The nodes that read a port, with the position among their inputs.
    pub(crate) fn readers(&self, port: Port) -> impl Iterator<Item = (usize, usize)> {
        let reads = move |(i, node): (usize, &Node)| {
            let inputs: Vec<_> =
                node.inputs.iter().enumerate().filter(|(_, p)| **p == port).map(|(at, _)| (i, at)).collect();
            inputs
        };
        self.nodes.iter().enumerate().flat_map(reads)
    }

    /// The sources that a node's records come from.
    pub(crate) fn sources_of(&self, node: usize) -> BTreeSet<usize> {
        let inputs = &self.nodes[node].inputs;
        if inputs.is_empty() {
            return BTreeSet::from([node]);
        }
        inputs.iter().flat_map(|input| self.sources_of(input.node)).collect()
    }

    /// The node before which a node's records are still known by their splits, on the way up to the source; none if all
    /// of them hand on batches as they come.
    pub(crate) fn loses_splits(&self, node: usize) -> Option<usize> {
        let mut at = node;
        loop {
            let Node { kind, link, inputs, parallelism, .. } = &self.nodes[at];
            match (kind, link, &inputs[..]) {
                (Kind::Source(_), ..) => return None,
                (Kind::Chain(_) | Kind::Branches(_) | Kind::EventTime(_), Link::Direct, [input]) => {
                    let moved = parallelism.is_some() && *parallelism != self.nodes[input.node].parallelism;
                    if moved {
                        return Some(at);
                    }
                    at = input.node;
                }
                _ => return Some(at),
            }
        }
    }

    /// Which one of those that set times of the records of its source a node is: what checkpoints know it by.
    pub(crate) fn event_time_number(&self, node: usize) -> usize {
        let sources = self.sources_of(node);
        let sets_time = |other: &usize| matches!(self.nodes[*other].kind, Kind::EventTime(_));
        (0..node).filter(sets_time).filter(|other| self.sources_of(*other) == sources).count()
    }

    /// For each input of a node, if it brings watermarks, its group: inputs of one group can be read apart, for no two
    /// of them come from the same source. With one that is shared each is a group of its own.
    pub(crate) fn time_groups(&self, node: usize) -> Vec<Option<usize>> {
        let inputs = &self.nodes[node].inputs;
        let marked: Vec<_> = inputs.iter().map(|input| self.nodes[input.node].marked).collect();
        let from =
            inputs.iter().zip(&marked).filter(|(_, marked)| **marked).map(|(input, _)| self.sources_of(input.node));
        let (mut all, mut apart) = (BTreeSet::new(), true);
        from.for_each(|sources| sources.into_iter().for_each(|source| apart &= all.insert(source)));
        marked.iter().enumerate().map(|(i, marked)| marked.then_some(if apart { 0 } else { i })).collect()
    }

    /// The `broadcast_all` that a node reads, at once or behind steps: they have one parallelism, or its records would
    /// be shared out among the subtasks of the node.
    pub(crate) fn broadcast_before(&self, node: usize) -> Option<usize> {
        let Node { inputs, link: Link::Direct, .. } = &self.nodes[node] else { return None };
        let [input] = inputs[..] else { return None };
        match &self.nodes[input.node] {
            Node { kind: Kind::Merge, link: Link::Broadcast, .. } => Some(input.node),
            Node { kind: Kind::Chain(_) | Kind::Branches(_), .. } => self.broadcast_before(input.node),
            _ => None,
        }
    }

    /// A text that changes when names, kinds or edges change, not when code moves.
    pub(crate) fn fingerprint(&self) -> String {
        let mut text = String::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let inputs: Vec<_> = node.inputs.iter().map(|p| format!("{}.{}", p.node, p.port)).collect();
            let name = node.name.as_deref().unwrap_or("");
            text.push_str(&format!("{i} {} {name} {:?} {}\n", node.what, node.link, inputs.join(",")));
        }
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }
}
