//! Mistakes in building: all of them, each with its place and what to write.

use super::graph::{Graph, Kind, Port, Site};
use crate::key::KEY_GROUPS;
use crate::{Error, ErrorKind};
use std::collections::BTreeMap;

/// Checks the whole graph.
///
/// # Errors
/// One error with a line for each mistake.
pub(crate) fn validate(graph: &Graph) -> Result<(), Error> {
    let mut mistakes = Vec::new();
    names(graph, &mut mistakes);
    unread(graph, &mut mistakes);
    parallelism(graph, &mut mistakes);
    event_times(graph, &mut mistakes);
    unions(graph, &mut mistakes);
    broadcasts(graph, &mut mistakes);
    needs(graph, &mut mistakes);
    if graph.nodes.is_empty() {
        mistakes.push("the topology is empty: begin with `t.source(name, ..)`".into());
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Topology, mistakes.join("\n"))) }
}

fn names(graph: &Graph, mistakes: &mut Vec<String>) {
    let mut seen: BTreeMap<&str, Site> = BTreeMap::new();
    for node in &graph.nodes {
        let Some(name) = &node.name else { continue };
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(good) {
            mistakes.push(format!(
                "the {} at {} is named `{name}`: write a name of a-z, 0-9, `_`, `-` and `.`, which does not begin with `.`",
                node.what, node.site
            ));
        }
        if let Some(first) = seen.insert(name, node.site) {
            mistakes.push(format!(
                "`{name}` names two things: one at {first}, one at {}; a name is the identity of state, write another one in one of the two places",
                node.site
            ));
        }
    }
}

fn unread(graph: &Graph, mistakes: &mut Vec<String>) {
    for (i, node) in graph.nodes.iter().enumerate() {
        if node.is_end() {
            continue;
        }
        for port in 0..node.outs.len() {
            if graph.readers(Port { node: i, port }).next().is_none() {
                let output = node.branch(port).map_or("output".into(), |branch| format!("branch `{branch}`"));
                mistakes.push(format!(
                    "nothing reads the {output} of the {} at {}: end it with `.sink(name, ..)`, or with `.discard()` if that is meant",
                    node.what, node.site
                ));
            }
        }
    }
}

/// Where times are set, the splits of the source have to be known.
fn event_times(graph: &Graph, mistakes: &mut Vec<String>) {
    for (i, node) in graph.nodes.iter().enumerate().filter(|(_, node)| matches!(node.kind, Kind::EventTime(_))) {
        let Some(loser) = graph.loses_splits(i).map(|loser| &graph.nodes[loser]) else { continue };
        let (what, remedy) = match loser.kind {
            Kind::Merge | Kind::Process(_) => {
                ("an exchange".into(), "before the first `key_by`, `union` or `rebalance`".into())
            }
            Kind::Chain(_) | Kind::Branches(_) | Kind::EventTime(_) => {
                ("a change of parallelism".into(), "and `parallelism` down, behind it".into())
            }
            _ => (format!("the {} at {}", loser.what, loser.site), format!("before `{}`", loser.label())),
        };
        mistakes.push(format!(
            "`event_time` at {} comes after {what}, where the splits of the source are no longer known: move it up, {remedy}",
            node.site
        ));
    }
}

/// Streams that become one have event time or not, all of them alike.
fn unions(graph: &Graph, mistakes: &mut Vec<String>) {
    for node in graph.nodes.iter().filter(|node| matches!(node.kind, Kind::Merge)) {
        let inputs = || node.inputs.iter().map(|input| &graph.nodes[input.node]);
        let (timed, marked) = (inputs().filter(|n| n.timed).count(), inputs().filter(|n| n.marked).count());
        let lack = match node.inputs.len() {
            all if timed > 0 && timed < all => "event time",
            all if marked > 0 && marked < all => "watermarks",
            _ => continue,
        };
        mistakes.push(format!(
            "the {} at {} has inputs with and inputs without {lack}: write `.event_time(|record| record.at, Watermarks::bounded(..))` right after the source of each",
            node.what, node.site
        ));
    }
}

/// All that reads what is for all subtasks has as many of them.
fn broadcasts(graph: &Graph, mistakes: &mut Vec<String>) {
    for (i, node) in graph.nodes.iter().enumerate() {
        let Some(own) = node.parallelism.filter(|own| *own > 0) else { continue };
        let Some(broadcast) = graph.broadcast_before(i).map(|broadcast| &graph.nodes[broadcast]) else { continue };
        if let Some(others) = broadcast.parallelism.filter(|others| *others != own) {
            mistakes.push(format!(
                "the {} at {} has a parallelism of {own}, but what `broadcast_all` at {} gives to all subtasks goes to {others} others: give them one parallelism, or clone the stream and call `broadcast_all` for each",
                node.what, node.site, broadcast.site
            ));
        }
    }
}

/// Operators that work in event time have it.
fn needs(graph: &Graph, mistakes: &mut Vec<String>) {
    for need in &graph.needs_time {
        let input = &graph.nodes[need.input.node];
        let (operator, site) = (&need.operator, need.site);
        let lack = match (input.timed, input.marked) {
            (_, true) => continue,
            (false, _) => "its records have none",
            (true, _) => "the source of its records, which gives them times, makes no watermarks",
        };
        mistakes.push(format!(
            "`{operator}` at {site} works in event time, but {lack}: write `.event_time(|record| record.at, Watermarks::bounded(..))` right after the source"
        ));
    }
}

fn parallelism(graph: &Graph, mistakes: &mut Vec<String>) {
    for node in &graph.nodes {
        let Some(parallelism) = node.parallelism else { continue };
        let most = if matches!(node.kind, Kind::Process(_)) { KEY_GROUPS as usize } else { usize::MAX };
        if parallelism == 0 || parallelism > most {
            mistakes.push(format!(
                "the {} at {} has a parallelism of {parallelism}: write at least 1{}",
                node.what,
                node.site,
                if most == usize::MAX {
                    String::new()
                } else {
                    format!(" and at most {most}, the number of key groups")
                }
            ));
        }
    }
}
