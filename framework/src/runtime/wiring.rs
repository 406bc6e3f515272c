//! Lanes, commands and participants of a plan: everything that subtasks on different workers share. What runs in a
//! subtask is made on its worker, in `worker.rs`.

use super::control::Operator;
use super::status::Role;
use crate::checkpoints::{self as protocol, GateTime};
use crate::config::Budget;
use crate::subtask::{
    Assignment, Command, Commands, Counters, GateSpec, Reports, Sender, StageContext, Suspect, inbox,
};
use crate::topology::{Inlet, Kind, Plan};
use crate::{Attempt, Epoch, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// One subtask, before it is made.
pub(crate) struct SubtaskSpec {
    pub(crate) task: usize,
    pub(crate) subtask: usize,
    /// If it is behind an exchange.
    pub(crate) inlet: Option<Inlet>,
    /// The lanes of each exchange that begin here.
    pub(crate) lanes: BTreeMap<usize, Vec<Sender>>,
    pub(crate) commands: Commands,
    /// Of a source: its splits.
    pub(crate) splits: Vec<Assignment>,
}

/// Who takes part in checkpoints: the subtasks of sources, of operators with state and of sinks, numbered in the order
/// of nodes.
#[derive(Debug, Clone)]
pub(crate) struct Participants {
    /// By node: the number of its first subtask.
    first: Vec<usize>,
    /// By number: the node.
    nodes: Vec<usize>,
}

impl Participants {
    pub(crate) fn of(plan: &Plan) -> Self {
        let (mut first, mut nodes) = (Vec::new(), Vec::new());
        for (i, node) in plan.graph.nodes.iter().enumerate() {
            first.push(nodes.len());
            if matches!(node.kind, Kind::Source(_) | Kind::Process(_) | Kind::Operator(_) | Kind::Sink(_)) {
                nodes.extend(std::iter::repeat_n(i, plan.parallelism(i)));
            }
        }
        Self { first, nodes }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How the coordinator sorts them.
    pub(crate) fn sorted(&self, plan: &Plan) -> protocol::Participants {
        let of = |is| self.which(plan, is).map(protocol::Participant).collect();
        protocol::Participants {
            sources: of(|k| matches!(k, Kind::Source(_))),
            others: of(|k| matches!(k, Kind::Process(_) | Kind::Operator(_))),
            sinks: of(|k| matches!(k, Kind::Sink(_))),
            names: (0..self.len()).map(|i| self.label(plan, i)).collect(),
        }
    }

    /// Who a participant is, for people.
    fn label(&self, plan: &Plan, participant: usize) -> String {
        let node = self.nodes[participant];
        format!("{}[{}]", plan.graph.nodes[node].label(), participant - self.first[node])
    }

    /// Those of nodes for which `is` holds.
    fn which<'a>(&'a self, plan: &'a Plan, is: fn(&Kind) -> bool) -> impl Iterator<Item = usize> + 'a {
        self.nodes.iter().enumerate().filter(move |(_, node)| is(&plan.graph.nodes[**node].kind)).map(|(i, _)| i)
    }

    fn number(&self, node: usize, subtask: usize) -> usize {
        self.first[node] + subtask
    }
}

/// What is the same for all stages of an attempt.
pub(crate) struct Common {
    pub(crate) job: Arc<str>,
    pub(crate) attempt: Attempt,
    pub(crate) first_epoch: Epoch,
    pub(crate) key_groups: u32,
    /// What ended the attempt before.
    pub(crate) suspect: Option<Arc<Suspect>>,
    pub(crate) reports: Reports,
    pub(crate) budget: Budget,
    pub(crate) participants: Participants,
    /// By node and subtask.
    pub(crate) counters: Vec<Vec<Arc<Counters>>>,
    names: Vec<Arc<str>>,
    sinks: usize,
    /// Subtasks of sources that read ahead.
    ahead: usize,
}

impl Common {
    pub(crate) fn new(
        plan: &Plan,
        job: &str,
        attempt: Attempt,
        first_epoch: Epoch,
        budget: Budget,
        reports: Reports,
    ) -> Self {
        let participants = Participants::of(plan);
        let nodes = &plan.graph.nodes;
        let counters = (0..nodes.len()).map(|i| (0..plan.parallelism(i)).map(|_| Arc::default()).collect()).collect();
        let sinks = participants.which(plan, |k| matches!(k, Kind::Sink(_))).count();
        Self {
            job: job.into(),
            attempt,
            first_epoch,
            key_groups: crate::key::KEY_GROUPS,
            suspect: None,
            reports,
            budget,
            counters,
            names: nodes.iter().map(|n| n.label().into()).collect(),
            sinks: sinks.max(1),
            ahead: participants.which(plan, reads_ahead).count().max(1),
            participants,
        }
    }

    /// The context of a node in a subtask.
    pub(crate) fn context(&self, plan: &Plan, node: usize, subtask: usize) -> StageContext {
        StageContext {
            job: self.job.clone(),
            name: self.names[node].clone(),
            subtask,
            parallelism: plan.parallelism(node),
            attempt: self.attempt,
            participant: self.participants.number(node, subtask),
            first_epoch: self.first_epoch,
            key_groups: self.key_groups,
            hold_bytes: self.budget.held / self.sinks,
            ahead_bytes: if reads_ahead(&plan.graph.nodes[node].kind) { self.budget.ahead / self.ahead } else { 0 },
            suspect: self.suspect.clone(),
            reports: self.reports.clone(),
            counters: self.counters[node][subtask].clone(),
        }
    }

    /// The named nodes, for those who watch.
    pub(crate) fn operators(&self, plan: &Plan) -> Vec<Operator> {
        let named = plan.graph.nodes.iter().zip(&self.counters);
        named
            .filter_map(|(node, counters)| {
                let role = match node.kind {
                    Kind::Source(_) => Role::Source,
                    Kind::Sink(_) => Role::Sink,
                    _ => Role::Operator,
                };
                Some(Operator { name: node.name.clone()?, role, counters: counters.clone() })
            })
            .collect()
    }

    /// How many subtasks keep keyed state.
    pub(crate) fn keyed(&self, plan: &Plan) -> usize {
        self.participants.which(plan, |k| matches!(k, Kind::Process(_))).count()
    }
}

/// Whether this is a source that reads ahead.
pub(crate) fn reads_ahead(kind: &Kind) -> bool {
    matches!(kind, Kind::Source(source) if source.reads_ahead())
}

/// The coordinator's end of the queues of commands.
pub(crate) struct Switchboard {
    sources: Vec<mpsc::UnboundedSender<Command>>,
    all: Vec<mpsc::UnboundedSender<Command>>,
}

impl Switchboard {
    /// To all sources. Who has left already needs no command.
    pub(crate) fn sources(&self, command: &Command) {
        self.sources.iter().for_each(|to| drop(to.send(command.clone())));
    }

    /// To all subtasks.
    pub(crate) fn all(&self, command: &Command) {
        self.all.iter().for_each(|to| drop(to.send(command.clone())));
    }
}

/// Makes all lanes and queues. `splits` are those of each source node, by subtask.
/// `gates` are those of the checkpoint.
pub(crate) fn wire(
    plan: &Plan,
    mut splits: Splits,
    gates: &[GateTime],
    drift: Option<Duration>,
) -> (Vec<SubtaskSpec>, Switchboard) {
    let mut board = Switchboard { sources: Vec::new(), all: Vec::new() };
    let (mut inlets, mut lanes) = connect(plan, &splits, gates, drift);
    let mut specs = Vec::new();
    for (task, spec) in plan.tasks.iter().enumerate() {
        let is_source = matches!(plan.graph.nodes[spec.head].kind, Kind::Source(_));
        let mut dealt = splits.remove(&spec.head).unwrap_or_default().into_iter();
        for subtask in 0..spec.parallelism {
            let (to, commands) = mpsc::unbounded_channel();
            if is_source {
                board.sources.push(to.clone());
            }
            board.all.push(to);
            specs.push(SubtaskSpec {
                task,
                subtask,
                inlet: inlets.remove(&(task, subtask)),
                lanes: lanes.remove(&(task, subtask)).unwrap_or_default(),
                commands,
                splits: dealt.next().unwrap_or_default(),
            });
        }
    }
    (specs, board)
}

/// Of each source node, by subtask.
pub(crate) type Splits = BTreeMap<usize, Vec<Vec<Assignment>>>;
type Inlets = BTreeMap<(usize, usize), Inlet>;
type Lanes = BTreeMap<(usize, usize), BTreeMap<usize, Vec<Sender>>>;

/// Where each subtask behind an exchange reads, and for each subtask and exchange the lanes that begin there.
fn connect(plan: &Plan, splits: &Splits, gates: &[GateTime], drift: Option<Duration>) -> (Inlets, Lanes) {
    let (mut inlets, mut lanes) = (Inlets::new(), Lanes::new());
    let task_of = |node: usize| plan.tasks.iter().position(|t| t.nodes.contains(&node)).unwrap_or_default();
    for (task, spec) in plan.tasks.iter().enumerate() {
        let into: Vec<_> = plan.exchanges.iter().enumerate().filter(|(_, e)| e.to == spec.head).collect();
        if into.is_empty() {
            continue;
        }
        let groups = plan.graph.time_groups(spec.head);
        let name: Option<Arc<str>> = kept_as(plan, task).map(Into::into);
        let kept = gates.iter().find(|gate| name.as_deref() == Some(&*gate.operator)).map(|gate| gate.watermark);
        let from = kept.unwrap_or_else(|| watermark(plan, splits, spec.head));
        for reader in 0..spec.parallelism {
            let mut writers = Vec::new();
            for (i, exchange) in &into {
                let writing = 0..plan.parallelism(exchange.from.node);
                let here = writing.filter(|w| plan.targets(exchange, *w).contains(&reader));
                writers.extend(here.map(|w| (*i, task_of(exchange.from.node), w)));
            }
            let (senders, inbox) = inbox(writers.len());
            let group = |(i, ..): &(usize, _, _)| groups[plan.exchanges[*i].input];
            let lanes_of = writers.iter().map(group).collect();
            let gate = GateSpec { name: name.clone(), lanes: lanes_of, drift, from };
            inlets.insert((task, reader), Inlet { inbox, gate });
            for ((exchange, from, writer), sender) in writers.into_iter().zip(senders) {
                lanes.entry((from, writer)).or_default().entry(exchange).or_default().push(sender);
            }
        }
    }
    (inlets, lanes)
}

/// Under which name a checkpoint keeps the watermark of the gates before a task: that of the first operator behind
/// them, which takes part in the checkpoint. Tasks that only hand on have none, nor have those without event time.
fn kept_as(plan: &Plan, task: usize) -> Option<&str> {
    let spec = &plan.tasks[task];
    let of = |node: &usize| {
        let node = &plan.graph.nodes[*node];
        node.name.as_deref().filter(|_| matches!(node.kind, Kind::Process(_) | Kind::Operator(_)))
    };
    spec.nodes.iter().find_map(of).filter(|_| plan.graph.nodes[spec.head].marked)
}

/// The watermark of a node of which the checkpoint keeps none, by what that says of the splits its records come from: a
/// subtask that held nobody back then does not now, and if that was so of all, the largest is what all of them had
/// reached.
fn watermark(plan: &Plan, splits: &Splits, node: usize) -> Timestamp {
    let nodes = &plan.graph.nodes;
    if !matches!(nodes[node].kind, Kind::EventTime(_)) {
        let marked = nodes[node].inputs.iter().filter(|input| nodes[input.node].marked);
        // an operator with items says itself how far they let time go on
        let of = |node: usize| match nodes[node].kind {
            Kind::Operator(_) => Timestamp::MIN,
            _ => watermark(plan, splits, node),
        };
        return marked.map(|input| of(input.node)).min().unwrap_or(Timestamp::MIN);
    }
    let number = plan.graph.event_time_number(node);
    let assigned = plan.graph.sources_of(node).into_iter().filter_map(|source| splits.get(&source)).flatten().flatten();
    let known: Vec<_> = assigned.filter_map(|split| split.times.get(number)).collect();
    let of = |idle| known.iter().filter(move |time| time.idle == idle).map(|time| time.watermark);
    of(false).min().or(of(true).max()).flatten().unwrap_or(Timestamp::MIN)
}
