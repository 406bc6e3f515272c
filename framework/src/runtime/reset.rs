//! `offsets reset`: what a person orders of the splits of a source, and what of a checkpoint changes by it. The source
//! says where a place is (`Source::reset`); nothing is decided here. State, timers and event time stay as they are.

use crate::checkpoints::Manifest;
use crate::operator::ResetTo;
use crate::topology::{Kind, Plan, SourceNode};
use crate::{Error, ErrorKind};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::str::FromStr;

/// What was ordered.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The name of the source; none if the splits say it, or if there is one only.
    pub(crate) source: Option<String>,
    /// As the source shows them; none for all.
    pub(crate) splits: Vec<String>,
    pub(crate) to: To,
}

/// Where splits go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    /// Out of the checkpoint.
    Forget,
    Place(ResetTo),
}

impl FromStr for To {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = || text.parse().map(ResetTo::Offset).ok();
        let time = || text.parse().map(ResetTo::At).ok();
        match text {
            "forget" => Ok(Self::Forget),
            "earliest" => Ok(Self::Place(ResetTo::Earliest)),
            "latest" => Ok(Self::Place(ResetTo::Latest)),
            _ => number().or_else(time).map(Self::Place).ok_or_else(|| {
                "write `earliest`, `latest`, `forget`, a number, or a time such as `2026-01-31T12:00:00Z`".into()
            }),
        }
    }
}

/// A source of the program, and what the checkpoint has of it.
struct Known<'a> {
    /// Which of the checkpoint's.
    number: usize,
    name: String,
    node: &'a dyn SourceNode,
    /// What each split is called, and where it is.
    splits: Vec<(String, String)>,
}

/// Changes the offsets of a checkpoint, and says how.
///
/// # Errors
/// [`ErrorKind::Usage`], saying what there is, if there is no such source or split; those of the source.
pub(super) async fn reset(plan: &Plan, manifest: &mut Manifest, wanted: &Wanted) -> Result<String, Error> {
    let known = known(plan, manifest)?;
    let source = choose(&known, wanted)?;
    let chosen = match wanted.splits.is_empty() {
        true => (0..source.splits.len()).collect(),
        false => wanted.splits.iter().map(|name| find(source, name)).collect::<Result<BTreeSet<_>, _>>()?,
    };
    let splits = &mut manifest.sources[source.number].splits;
    let mut said = format!("Source {} of the job {}:\n", source.name, manifest.job);
    let width = chosen.iter().map(|i| source.splits[*i].0.len()).max().unwrap_or(0);
    let mut say = |i: usize, to: &str, what: &str| {
        let (name, from) = &source.splits[i];
        let _ = writeln!(said, "  {name:width$}  {from} -> {to}  {what}");
    };
    match &wanted.to {
        To::Forget => {
            chosen.iter().for_each(|i| say(*i, "-", FORGOTTEN));
            let mut i = 0..splits.len();
            splits.retain(|_| i.next().is_none_or(|i| !chosen.contains(&i)));
        }
        To::Place(to) => {
            let from = chosen.iter().map(|i| (splits[*i].split.clone(), splits[*i].offset.clone())).collect();
            let at = |e| Error::from_user(e, format!("source `{}`", source.name));
            let found = source.node.reset(from, *to).await.map_err(at)?;
            for (i, place) in chosen.iter().zip(found) {
                say(*i, &place.shown, &place.what);
                splits[*i].offset = place.offset;
                splits[*i].finished = false;
            }
        }
    }
    said.push_str(MEANS);
    Ok(said)
}

const FORGOTTEN: &str = "forgotten; if it is there, the next run reads it as a new one, from its beginning";

const MEANS: &str = "\
State, timers and event time stay as they are. What is read again counts again, and its results are written again; it
is late where event time has passed it. What is passed over never counts, and its results are missing.
";

/// All sources of the checkpoint.
fn known<'a>(plan: &'a Plan, manifest: &Manifest) -> Result<Vec<Known<'a>>, Error> {
    let mut all = Vec::new();
    for (number, source) in manifest.sources.iter().enumerate() {
        let node = plan.graph.nodes.iter().find_map(|node| match &node.kind {
            Kind::Source(found) if node.name.as_ref() == Some(&source.name) => Some(&**found),
            _ => None,
        });
        let Some(node) = node else { continue };
        let splits: Vec<_> = source.splits.iter().map(|s| (s.split.clone(), s.offset.clone())).collect();
        all.push(Known { number, name: source.name.clone(), node, splits: node.show(splits)? });
    }
    Ok(all)
}

/// The source that is meant: the one that is named, or has the splits that are, or is the only one.
fn choose<'a, 'b>(known: &'a [Known<'b>], wanted: &Wanted) -> Result<&'a Known<'b>, Error> {
    let has = |source: &&Known<'_>| match (&wanted.source, wanted.splits.first()) {
        (Some(name), _) => source.name == *name,
        (None, Some(split)) => source.splits.iter().any(|(name, _)| name == split),
        (None, None) => true,
    };
    let mut found = known.iter().filter(has);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (first, _) => {
            let said = match (&wanted.source, wanted.splits.first(), first) {
                (Some(name), ..) => format!("the checkpoint has no source `{name}`"),
                (None, Some(split), None) => format!("no source has a split `{split}`"),
                (None, None, None) => "the checkpoint has no source".into(),
                _ => "more than one source may be meant: name one with --source".into(),
            };
            let all = known.iter().map(|source| format!("{} ({})", source.name, names(source))).collect::<Vec<_>>();
            Err(usage(&said, "source", &all.join("; ")))
        }
    }
}

fn find(source: &Known<'_>, wanted: &str) -> Result<usize, Error> {
    source.splits.iter().position(|(name, _)| name == wanted).ok_or_else(|| {
        let said = format!("the checkpoint has no split `{wanted}` of the source `{}`", source.name);
        usage(&said, "split", &names(source))
    })
}

fn names(source: &Known<'_>) -> String {
    source.splits.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn usage(said: &str, what: &str, all: &str) -> Error {
    let there = if all.is_empty() { format!("there is no {what}") } else { format!("there are: {all}") };
    Error::new(ErrorKind::Usage, format!("{said}; {there}"))
}
