//! The graph for people and programs: text, Mermaid, JSON. Shows what the user wrote, with the number of subtasks.

use super::graph::{Link, Port};
use super::plan::Plan;
use serde_json::json;

/// How a topology is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// A line per operator.
    #[default]
    Text,
    /// A flow chart for Markdown.
    Mermaid,
    /// For programs.
    Json,
}

impl Plan {
    /// The topology in the given format.
    pub(crate) fn describe(&self, job: &str, format: Format) -> String {
        match format {
            Format::Text => self.text(job),
            Format::Mermaid => self.mermaid(),
            Format::Json => self.json(job),
        }
    }

    fn link(&self, node: usize, input: usize) -> &'static str {
        let exchange = self.exchanges.iter().find(|e| e.to == node && e.input == input);
        match exchange.map(|e| e.link) {
            None => "direct",
            Some(Link::Hash) => "hash",
            Some(Link::Rebalance) => "rebalance",
            Some(Link::Broadcast) => "broadcast",
            Some(Link::Forward | Link::Direct) => "forward",
        }
    }

    /// Which branch of a node an output is, if it has branches.
    fn branch(&self, port: Port) -> Option<&'static str> {
        self.graph.nodes[port.node].branch(port.port)
    }

    /// What a node is called, short.
    fn title(&self, node: usize) -> String {
        let spec = &self.graph.nodes[node];
        spec.name.clone().unwrap_or_else(|| spec.what.to_string())
    }

    fn text(&self, job: &str) -> String {
        let mut out = format!("job {job}\n");
        let wide = (0..self.graph.nodes.len()).map(|i| self.title(i).len()).max().unwrap_or(0);
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let input = |(at, p): (usize, &Port)| match self.branch(*p) {
                Some(branch) => format!("{}.{branch} ({})", p.node, self.link(i, at)),
                None => format!("{} ({})", p.node, self.link(i, at)),
            };
            let inputs: Vec<_> = node.inputs.iter().enumerate().map(input).collect();
            let from = if inputs.is_empty() { String::new() } else { format!("  <- {}", inputs.join(", ")) };
            let title = self.title(i);
            out.push_str(&format!(
                "{i:>3}  {title:<wide$}  {:<9} x{:<3} {}{from}\n",
                node.what,
                self.parallelism(i),
                node.site
            ));
        }
        out
    }

    fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let title = self.title(i);
            let label = if title == node.what { title } else { format!("{title}<br/>{}", node.what) };
            out.push_str(&format!("    n{i}[\"{label} x{}\"]\n", self.parallelism(i)));
            for (at, from) in node.inputs.iter().enumerate() {
                let link = self.link(i, at);
                let words: Vec<&str> =
                    self.branch(*from).into_iter().chain((link != "direct").then_some(link)).collect();
                let arrow = if words.is_empty() { "-->".into() } else { format!("-- {} -->", words.join(", ")) };
                out.push_str(&format!("    n{} {arrow} n{i}\n", from.node));
            }
        }
        out
    }

    fn json(&self, job: &str) -> String {
        let node = |(i, node): (usize, &super::graph::Node)| {
            let input = |(at, p): (usize, &Port)| {
                let mut input = json!({ "node": p.node, "link": self.link(i, at) });
                if let Some(branch) = self.branch(*p) {
                    input["branch"] = branch.into();
                }
                input
            };
            let inputs: Vec<_> = node.inputs.iter().enumerate().map(input).collect();
            json!({
                "node": i, "name": node.name, "what": node.what, "parallelism": self.parallelism(i),
                "site": node.site.to_string(), "inputs": inputs,
            })
        };
        let nodes: Vec<_> = self.graph.nodes.iter().enumerate().map(node).collect();
        format!("{:#}\n", json!({ "job": job, "fingerprint": self.graph.fingerprint(), "nodes": nodes }))
    }
}
