//! The manifest M(n): everything a checkpoint consists of, in one file, and how it is put together and read back.
//! Which manifest counts is decided in `recover.rs`; where it lies and how it gets there is in `store.rs`.
//!
//! The file is one line, `millstream-manifest 1 <sha256 of what follows, hex>`, and then JSON that a person can read.
//! The SHA-256 is the identity of the checkpoint: children name their parent by it, and so does a record R(n) of a
//! decision log. Numbers do not identify: two attempts may use the same one.

use crate::operator::{Digest, LogId};
use crate::state::snapshot::{FileRef, ItemsSnapshot, OperatorStates, StateSnapshot};
use crate::{Attempt, Epoch, Error, ErrorKind, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The version this code writes, and the only one it reads.
pub(crate) const VERSION: u32 = 1;
const MAGIC: &str = "millstream-manifest";

/// One checkpoint of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of the format, [`VERSION`].
    pub(crate) version: u32,
    /// The job: another job's directory is refused.
    pub(crate) job: String,
    /// Its number.
    pub(crate) epoch: Epoch,
    /// The attempt that took it.
    pub(crate) attempt: Attempt,
    /// The checkpoint whose state and offsets this one continues; none for a genesis.
    pub(crate) parent: Option<Digest>,
    /// Of the checkpoint with which the job got its name: what it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) formerly: Option<Former>,
    /// Where it was decided.
    pub(crate) decision: DecisionMode,
    /// When, by the clock of the machine; for people only.
    pub(crate) created_ms: u64,
    /// Fingerprint of the topology that took it.
    pub(crate) topology: String,
    /// How many key groups the job has; fixed for its life.
    pub(crate) key_groups: u32,
    /// Offsets, by name of the source.
    pub(crate) sources: Vec<SourceSnapshot>,
    /// How the bytes of keyed state are to be read, by name of the operator.
    pub(crate) operators: Vec<OperatorStates>,
    /// The files of keyed state, by operator and first key group.
    pub(crate) states: Vec<StateSnapshot>,
    /// The items of operators without keys, by operator and subtask. Subtasks without items are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) items: Vec<ItemsSnapshot>,
    /// How far operators behind exchanges were in event time, by name. Those without a watermark are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gates: Vec<GateTime>,
    /// What makes this epoch's output visible, by sink and subtask. Subtasks that wrote nothing are left out.
    pub(crate) sinks: Vec<SinkSnapshot>,
}

/// Where checkpoints of a job are decided. Recovery goes by the mode that stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DecisionMode {
    /// In the job directory: a manifest in place is the decision.
    Directory,
    /// In the log of sinks: a record that names the manifest by its hash is the decision.
    Log(LogId),
}

/// A job before it was renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Former {
    /// Its name.
    pub(crate) job: String,
    /// Where its checkpoints were decided, the one with which it was renamed included.
    pub(crate) decision: DecisionMode,
}

/// The offsets of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceSnapshot {
    /// The name of the source.
    pub(crate) name: String,
    /// All its splits, by the text of their JSON.
    pub(crate) splits: Vec<SplitSnapshot>,
}

/// Where one split was read to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SplitSnapshot {
    /// The split, as the source's own JSON.
    pub(crate) split: Value,
    /// The offset of the next record, as the source's own JSON.
    pub(crate) offset: Value,
    /// Nothing more will come.
    pub(crate) finished: bool,
    /// What it has seen of event time, for each `event_time` of its source in the order in which the topology function
    /// writes them. Empty without any; manifests from before there was event time have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) times: Vec<SplitTime>,
}

/// How far a split is in event time. Watermarks go on from there, also if it is read by another subtask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SplitTime {
    /// The largest time of its records; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) newest: Option<Timestamp>,
    /// The watermark of the subtask that read it; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) watermark: Option<Timestamp>,
    /// That subtask held back no others: all its splits were idle or finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) idle: bool,
}

/// How far an operator was in event time. It goes on from there, at any parallelism.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GateTime {
    /// The name of the operator.
    pub(crate) operator: String,
    /// The least watermark of its subtasks when the barrier passed.
    pub(crate) watermark: Timestamp,
}

/// What one subtask of a sink needs to make the epoch visible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SinkSnapshot {
    /// The name of the sink.
    pub(crate) name: String,
    /// Which subtask prepared it; any other may commit it.
    pub(crate) subtask: usize,
    /// The sink's own JSON.
    pub(crate) committable: Value,
}

/// What one participant adds to a checkpoint with its ack.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    /// Of a source's subtask; none of its splits may be left out, finished ones included.
    Source {
        /// The name of the source.
        name: String,
        /// The splits of this subtask.
        splits: Vec<SplitSnapshot>,
    },
    /// Of a subtask with keyed state.
    State(StateSnapshot),
    /// Of a subtask of an operator without keys.
    Items {
        /// The name of the operator.
        name: String,
        /// Which subtask.
        subtask: usize,
        /// None if there are no items.
        snapshot: Option<ItemsSnapshot>,
    },
    /// Of the gate before a subtask.
    Gate {
        /// The name of the operator behind it.
        operator: String,
        /// Its watermark; [`Timestamp::MIN`] before the first.
        watermark: Timestamp,
    },
    /// Of a sink's subtask.
    Sink {
        /// The name of the sink.
        name: String,
        /// Which subtask.
        subtask: usize,
        /// None if it wrote nothing in this epoch.
        committable: Option<Value>,
    },
}

/// What a manifest says besides the parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    /// See [`Manifest::job`].
    pub(crate) job: String,
    /// See [`Manifest::epoch`].
    pub(crate) epoch: Epoch,
    /// See [`Manifest::attempt`].
    pub(crate) attempt: Attempt,
    /// See [`Manifest::parent`].
    pub(crate) parent: Option<Digest>,
    /// See [`Manifest::decision`].
    pub(crate) decision: DecisionMode,
    /// See [`Manifest::created_ms`].
    pub(crate) created_ms: u64,
    /// See [`Manifest::topology`].
    pub(crate) topology: String,
    /// See [`Manifest::key_groups`].
    pub(crate) key_groups: u32,
    /// See [`Manifest::operators`].
    pub(crate) operators: Vec<OperatorStates>,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// The bytes are no manifest, or not those that were written.
    #[error("{0}")]
    Unreadable(String),
    /// Intact as far as one can tell, but from another version of millstream. Never a reason to fall back to an older
    /// checkpoint: the newer version may have decided this one.
    #[error("it has format version {found}, this program reads version {VERSION}")]
    Version {
        /// The version it names.
        found: String,
    },
    /// A file it needs is not what it was.
    #[error("{path}: {why}")]
    File {
        /// Relative to the directory of checkpoints.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Manifest {
    /// Puts a checkpoint together. The order of `parts` does not matter: equal checkpoints have equal bytes.
    ///
    /// # Errors
    /// When two parts claim the same thing, which would lose one of them or read a split twice.
    pub(crate) fn assemble(head: Head, parts: impl IntoIterator<Item = Part>) -> Result<Self, Error> {
        let Head { job, epoch, attempt, parent, decision, created_ms, topology, key_groups, mut operators } = head;
        operators.sort_by(|a, b| a.operator.cmp(&b.operator));
        let mut all = Parts::default();
        for part in parts {
            all.add(part)?;
        }
        all.states.sort_by(|a, b| (&a.operator, a.groups.start).cmp(&(&b.operator, b.groups.start)));
        no_overlap(&all.states)?;
        let source =
            |(name, splits): (_, BTreeMap<_, _>)| SourceSnapshot { name, splits: splits.into_values().collect() };
        let sink = |((name, subtask), committable): (_, Option<_>)| {
            committable.map(|committable| SinkSnapshot { name, subtask, committable })
        };
        let gate = |(operator, watermark): (_, Timestamp)| {
            (watermark > Timestamp::MIN).then_some(GateTime { operator, watermark })
        };
        Ok(Self {
            version: VERSION,
            job,
            epoch,
            attempt,
            parent,
            formerly: None,
            decision,
            created_ms,
            topology,
            key_groups,
            sources: all.sources.into_iter().map(source).collect(),
            operators,
            states: all.states,
            items: all.items.into_values().flatten().collect(),
            gates: all.gates.into_iter().filter_map(gate).collect(),
            sinks: all.sinks.into_iter().filter_map(sink).collect(),
        })
    }

    /// The checkpoint that continues this one, though nothing has run: what this one has not made visible yet is to be
    /// finished before it is decided.
    pub(crate) fn continued(&self, own: &Digest, head: (Epoch, Attempt), decision: DecisionMode, now_ms: u64) -> Self {
        let (epoch, attempt) = head;
        let parent = Some(own.clone());
        let sinks = Vec::new();
        Self { epoch, attempt, parent, formerly: None, decision, created_ms: now_ms, sinks, ..self.clone() }
    }

    /// All files this checkpoint needs, those of deltas and bases that earlier checkpoints wrote included.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.states.iter().flat_map(StateSnapshot::files).chain(self.items.iter().map(|items| &items.file))
    }

    /// The bytes of the file, and the identity of the checkpoint.
    ///
    /// # Errors
    /// Only if a value in it has no JSON form, which none of its types has been seen to do.
    pub(crate) fn encode(&self) -> Result<(Vec<u8>, Digest), Error> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| {
            Error::new(ErrorKind::Failed, format!("cannot encode checkpoint {}", self.epoch)).because(e)
        })?;
        let digest = digest_of(&json);
        let mut bytes = format!("{MAGIC} {VERSION} {digest}\n").into_bytes();
        bytes.extend_from_slice(&json);
        Ok((bytes, digest))
    }

    /// Reads what [`encode`](Self::encode) wrote. Takes any bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, Digest), Damage> {
        let unreadable = |why: &str| Damage::Unreadable(why.to_owned());
        let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| unreadable("its first line has no end"))?;
        let (line, json) = (&bytes[..end], &bytes[end + 1..]);
        let line = std::str::from_utf8(line).map_err(|_| unreadable("its first line is no text"))?;
        let mut words = line.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(unreadable("it does not begin like a manifest"));
        }
        let version = words.next().unwrap_or_default();
        if version != VERSION.to_string() {
            return Err(unknown_version(version));
        }
        let digest = digest_of(json);
        if words.next() != Some(digest.0.as_str()) || words.next().is_some() {
            return Err(unreadable("its content does not have the SHA-256 that its first line names"));
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|e| Damage::Unreadable(format!("its content: {e}")))?;
        if manifest.version != VERSION {
            return Err(unknown_version(&manifest.version.to_string()));
        }
        Ok((manifest, digest))
    }
}

/// A version is a number; anything else is a damaged line and says nothing about versions.
fn unknown_version(text: &str) -> Damage {
    match text.parse::<u32>() {
        Ok(_) => Damage::Version { found: text.to_owned() },
        Err(_) => Damage::Unreadable("its first line names no version".into()),
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Digest(hex)
}

/// Parts in order, each under what names it.
#[derive(Default)]
struct Parts {
    sources: BTreeMap<String, BTreeMap<String, SplitSnapshot>>,
    states: Vec<StateSnapshot>,
    items: BTreeMap<(String, usize), Option<ItemsSnapshot>>,
    gates: BTreeMap<String, Timestamp>,
    sinks: BTreeMap<(String, usize), Option<Value>>,
}

impl Parts {
    fn add(&mut self, part: Part) -> Result<(), Error> {
        match part {
            Part::Source { name, splits } => {
                let all = self.sources.entry(name.clone()).or_default();
                for split in splits {
                    let text = split.split.to_string();
                    if all.insert(text.clone(), split).is_some() {
                        return Err(twice(&format!("two subtasks of the source `{name}` read the split {text}")));
                    }
                }
            }
            Part::State(snapshot) => self.states.push(snapshot),
            Part::Items { name, subtask, snapshot } => {
                if self.items.insert((name.clone(), subtask), snapshot).is_some() {
                    return Err(twice(&format!("subtask {subtask} of `{name}` reported its items twice")));
                }
            }
            Part::Gate { operator, watermark } => {
                let least = self.gates.entry(operator).or_insert(watermark);
                *least = watermark.min(*least);
            }
            Part::Sink { name, subtask, committable } => {
                if self.sinks.insert((name.clone(), subtask), committable).is_some() {
                    return Err(twice(&format!("subtask {subtask} of the sink `{name}` prepared twice")));
                }
            }
        }
        Ok(())
    }
}

/// `states` in order of operator and first key group: each group may have one owner only.
fn no_overlap(states: &[StateSnapshot]) -> Result<(), Error> {
    match states.windows(2).find(|w| w[0].operator == w[1].operator && w[0].groups.end > w[1].groups.start) {
        Some(w) => {
            let (operator, group) = (&w[0].operator, w[1].groups.start);
            Err(twice(&format!("two subtasks of `{operator}` own key group {group}")))
        }
        None => Ok(()),
    }
}

fn twice(what: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("a checkpoint does not fit together: {what}; this is a bug of millstream"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fuzz::{Bound, TIGHT, any_bytes, any_text, bounded, cases, damaged};
    use crate::state::snapshot::{Base, Delta, ShapeRef};
    use proptest::prelude::*;
    use serde_json::json;

    pub(crate) fn attempt(i: u8) -> Attempt {
        Attempt::parse(&format!("{i:032x}")).unwrap()
    }

    pub(crate) fn head(epoch: Epoch, by: u8, parent: Option<Digest>) -> Head {
        Head {
            job: "words".into(),
            epoch,
            attempt: attempt(by),
            parent,
            decision: DecisionMode::Directory,
            created_ms: 1,
            topology: "t".into(),
            key_groups: 128,
            operators: vec![],
        }
    }

    pub(crate) fn file(path: &str) -> FileRef {
        FileRef { path: path.into(), bytes: 0, checksum: "0".repeat(32) }
    }

    /// A checkpoint that needs the given files, each as a delta.
    pub(crate) fn manifest(epoch: Epoch, by: u8, parent: Option<Digest>, files: &[&str]) -> Manifest {
        let deltas = files.iter().map(|f| Delta { epoch, file: file(f), entries: 1 }).collect();
        let state = StateSnapshot { operator: "count".into(), groups: 0..128, base: None, deltas };
        Manifest::assemble(head(epoch, by, parent), [Part::State(state)]).unwrap()
    }

    fn split(name: &str, offset: u64) -> SplitSnapshot {
        SplitSnapshot { split: json!(name), offset: json!(offset), finished: false, times: vec![] }
    }

    fn some_parts() -> Vec<Part> {
        let base = Base { epoch: 3, directory: "state/base-4".into(), files: vec![file("state/base-4/CURRENT")] };
        let deltas = vec![Delta { epoch: 5, file: file("state/delta-5"), entries: 9 }];
        let state = |groups, base| StateSnapshot { operator: "count".into(), groups, base, deltas: deltas.clone() };
        let sink = |subtask, committable| Part::Sink { name: "out".into(), subtask, committable };
        vec![
            Part::Source { name: "lines".into(), splits: vec![split("b", 7), split("d", 1)] },
            Part::Source { name: "lines".into(), splits: vec![split("a", 3), split("c", 0)] },
            Part::Source { name: "idle".into(), splits: vec![] },
            Part::State(state(64..128, None)),
            Part::State(state(0..64, Some(base))),
            sink(1, Some(json!({"from": ".part", "to": "part"}))),
            sink(0, None),
        ]
    }

    #[test]
    fn parts_are_merged_in_one_order() {
        let one = Manifest::assemble(head(5, 1, None), some_parts()).unwrap();
        let other = Manifest::assemble(head(5, 1, None), some_parts().into_iter().rev()).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.encode().unwrap(), other.encode().unwrap());
        let names: Vec<_> = one.sources.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["idle", "lines"]);
        let splits: Vec<_> = one.sources[1].splits.iter().map(|s| s.split.to_string()).collect();
        assert_eq!(splits, [r#""a""#, r#""b""#, r#""c""#, r#""d""#]);
        assert_eq!(one.sinks.len(), 1, "a subtask that wrote nothing has nothing to commit");
        let files: Vec<_> = one.files().map(|f| f.path.as_str()).collect();
        assert_eq!(files, ["state/base-4/CURRENT", "state/delta-5", "state/delta-5"]);
    }

    fn items(subtask: usize, count: u64) -> Part {
        let operator = "asks".to_owned();
        let shape = ShapeRef { text: "u64".into(), fingerprint: "0".repeat(16) };
        let path = format!("state/items-{subtask}");
        let snapshot = ItemsSnapshot {
            operator: operator.clone(),
            subtask,
            parallelism: 3,
            codec: 1,
            version: 1,
            shape,
            items: count,
            file: file(&path),
        };
        Part::Items { name: operator, subtask, snapshot: (count > 0).then_some(snapshot) }
    }

    #[test]
    fn files_of_items_are_needed_and_subtasks_without_are_left_out() {
        let parts = [items(2, 5), items(1, 0), items(0, 3)];
        let manifest = Manifest::assemble(head(5, 1, None), parts.clone()).unwrap();
        let files: Vec<_> = manifest.files().map(|f| f.path.as_str()).collect();
        assert_eq!(files, ["state/items-0", "state/items-2"]);
        let (bytes, digest) = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes), Ok((manifest, digest)));
        let twice = parts.into_iter().chain([items(1, 1)]);
        let error = Manifest::assemble(head(5, 1, None), twice).unwrap_err().to_string();
        assert!(error.contains("subtask 1 of `asks` reported its items twice"), "{error}");
    }

    #[test]
    fn the_watermark_of_an_operator_is_the_least_of_its_gates() {
        let gate = |operator: &str, ms| {
            let watermark = if ms == 0 { Timestamp::MIN } else { Timestamp::from_millis(ms) };
            Part::Gate { operator: operator.into(), watermark }
        };
        let parts = [gate("b", 7), gate("a", 5), gate("b", 3), gate("c", 9), gate("c", 0)];
        let manifest = Manifest::assemble(head(5, 1, None), parts).unwrap();
        let found: Vec<_> = manifest.gates.iter().map(|g| (g.operator.as_str(), g.watermark.as_millis())).collect();
        assert_eq!(found, [("a", 5), ("b", 3)], "nothing is known of one that had none in some subtask");
        let (bytes, digest) = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes), Ok((manifest, digest)));
    }

    #[test]
    fn parts_that_claim_the_same_are_an_error() {
        let check = |part: Part, expect: &str| {
            let mut parts = some_parts();
            parts.push(part);
            let error = Manifest::assemble(head(5, 1, None), parts).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(Part::Source { name: "lines".into(), splits: vec![split("a", 4)] }, "`lines` read the split \"a\"");
        check(Part::Sink { name: "out".into(), subtask: 0, committable: None }, "subtask 0 of the sink `out`");
        let again = StateSnapshot { operator: "count".into(), groups: 63..64, ..StateSnapshot::default() };
        check(Part::State(again), "own key group 63");
    }

    #[test]
    fn a_file_is_one_line_and_json() {
        let manifest = Manifest::assemble(head(5, 1, Some(Digest("ab".into()))), some_parts()).unwrap();
        let (bytes, digest) = manifest.encode().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.starts_with(&format!("millstream-manifest 1 {digest}\n{{\n")), "{text}");
        assert_eq!(digest.0.len(), 64);
        assert!(text.contains(r#""decision": "directory""#));
        assert_eq!(Manifest::decode(&bytes), Ok((manifest, digest)));
    }

    #[test]
    fn other_versions_are_named_and_not_called_damage() {
        let (bytes, digest) = manifest(5, 1, None, &[]).encode().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let later = text.replacen("manifest 1 ", "manifest 2 ", 1);
        let found = Manifest::decode(later.as_bytes()).unwrap_err();
        assert_eq!(found, Damage::Version { found: "2".into() });
        assert!(found.to_string().contains("version 2"), "{found}");
        let odd = text.replacen("manifest 1 ", "manifest x ", 1);
        assert!(matches!(Manifest::decode(odd.as_bytes()), Err(Damage::Unreadable(_))));
        let within = text.split_once('\n').unwrap().1.replacen("\"version\": 1", "\"version\": 3", 1);
        let within = format!("{MAGIC} 1 {}\n{within}", digest_of(within.as_bytes()));
        assert_eq!(Manifest::decode(within.as_bytes()), Err(Damage::Version { found: "3".into() }));
        assert_ne!(digest.0, digest_of(b"").0);
    }

    #[test]
    fn the_digest_is_sha_256() {
        // The test vector of FIPS 180-4 for "abc".
        let expect = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of(b"abc").0, expect);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e18..1e18).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            proptest::collection::vec(any::<u64>(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), any::<bool>(), 0..3).prop_map(|m| json!(m)),
        ]
    }

    prop_compose! {
        fn any_manifest()(
            epoch in any::<u64>(), by in any::<u8>(), job in any::<String>(), parent in any::<Option<u64>>(),
            splits in proptest::collection::vec((any_json(), any_json(), any::<bool>()), 0..4),
            newest in proptest::option::of(any::<i64>()),
            files in proptest::collection::vec(any::<String>(), 0..4),
            committable in proptest::option::of(any_json()), groups in any::<u32>(),
        ) -> Manifest {
            let paths: Vec<_> = files.iter().map(String::as_str).collect();
            let time = SplitTime { newest: newest.map(Timestamp::from_millis), watermark: None, idle: epoch % 2 == 0 };
            let times = if epoch % 3 == 0 { vec![] } else { vec![SplitTime::default(), time] };
            let split = |(split, offset, finished)| SplitSnapshot { split, offset, finished, times: times.clone() };
            let sources = splits.into_iter().map(split);
            let sinks = committable.map(|committable| SinkSnapshot { name: job.clone(), subtask: 0, committable });
            Manifest {
                sources: vec![SourceSnapshot { name: job.clone(), splits: sources.collect() }],
                sinks: sinks.into_iter().collect(),
                key_groups: groups,
                job,
                ..manifest(epoch, by, parent.map(|p| Digest(p.to_string())), &paths)
            }
        }
    }

    #[test]
    fn manifests_without_times_are_read() {
        let old: SplitSnapshot = serde_json::from_value(json!({"split": "a", "offset": 1, "finished": false})).unwrap();
        assert_eq!(old, split("a", 1));
        assert_eq!(serde_json::to_value(old).unwrap().as_object().unwrap().len(), 3);
    }

    fn any_file() -> impl Strategy<Value = Vec<u8>> {
        any_manifest().prop_map(|manifest| manifest.encode().unwrap().0)
    }

    /// With the right hash, so that the JSON is reached.
    fn hashed(json: &[u8]) -> Vec<u8> {
        [format!("{MAGIC} {VERSION} {}\n", digest_of(json)).as_bytes(), json].concat()
    }

    /// An object of eight characters is a node of a tree, which takes 600 bytes.
    const JSON: Bound = Bound { per_byte: 128, more: 64 << 10 };

    proptest! {
        #![proptest_config(cases(500))]

        #[test]
        fn what_is_written_is_read_back(manifest in any_manifest()) {
            let (bytes, digest) = manifest.encode().unwrap();
            prop_assert_eq!(Manifest::decode(&bytes), Ok((manifest, digest)));
        }

        #[test]
        fn any_file_is_taken(bytes in prop_oneof![any_bytes(), damaged(any_file())]) {
            // what does not have the hash that it names is not looked at
            let _ = bounded(bytes.len(), TIGHT, || Manifest::decode(&bytes))?;
        }

        #[test]
        fn any_line_and_content_are_taken(words in "[a-z0-9 -]{0,90}", json in any_text()) {
            let any = format!("{words}\n{json}");
            prop_assert!(bounded(any.len(), TIGHT, || Manifest::decode(any.as_bytes()))?.is_err());
            let hashed = hashed(json.as_bytes());
            prop_assert!(bounded(hashed.len(), TIGHT, || Manifest::decode(&hashed))?.is_err());
        }

        #[test]
        fn any_content_is_taken(bytes in damaged(any_file())) {
            let json = bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
            let hashed = hashed(json);
            if let Ok((manifest, digest)) = bounded(hashed.len(), JSON, || Manifest::decode(&hashed))? {
                prop_assert_eq!(&digest, &digest_of(json));
                let (again, digest) = manifest.encode().unwrap();
                prop_assert_eq!(Manifest::decode(&again), Ok((manifest, digest)));
            }
        }

        #[test]
        fn no_flipped_bit_and_no_cut_goes_unseen(
            manifest in any_manifest(), at in any::<prop::sample::Index>(), bit in 0..8u32,
        ) {
            let (bytes, _) = manifest.encode().unwrap();
            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= 1u8 << bit;
            prop_assert!(Manifest::decode(&flipped).is_err());
            prop_assert!(Manifest::decode(&bytes[..at.index(bytes.len())]).is_err());
        }
    }
}
