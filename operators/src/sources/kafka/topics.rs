//! Which topics and partitions are read: by name, by list, by pattern. Pure; who asks the cluster is `client.rs`.

use millstream_framework::{BoxError, Error, ErrorKind};
use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Topics whose names begin so are Kafka's own (`__consumer_offsets`) or that of a tool beside it. No pattern finds
/// them.
const INTERNAL: &str = "__";

/// Topics whose names begin so hold the decisions of jobs. Nobody reads them but the job whose they are, so that they
/// are refused where they are named, too.
pub(crate) const PROGRESS: &str = "__millstream_progress_";

/// The topics of a source: made of a name, of a list of names, or by [`Topics::matching`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics(Wanted);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Named(Vec<String>),
    Matching(String),
}

impl Topics {
    /// All topics whose whole name matches this regular expression (syntax of the crate `regex`), as in
    /// `Topics::matching("orders-.*")`. Names that begin with `__` never match: those topics belong to Kafka, and to
    /// the jobs that keep their decisions there.
    pub fn matching(pattern: impl Into<String>) -> Self {
        Self(Wanted::Matching(pattern.into()))
    }

    /// The topic of this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self(Wanted::Named(vec![name.into()]))
    }

    /// The partitions to read, given how many each topic of the cluster has. A topic that is named has to be there.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a pattern that is none, a list without names, and topics that nobody may read.
    pub(super) fn choose(&self, cluster: &BTreeMap<String, i32>) -> Result<Choice, BoxError> {
        match &self.0 {
            Wanted::Named(names) => named(names, cluster),
            Wanted::Matching(pattern) => {
                let regex = Regex::new(&format!("^(?:{pattern})$"));
                let regex = regex.map_err(|error| usage(format!("`{pattern}` is no pattern of topics: {error}")))?;
                let found = cluster.iter().filter(|(name, _)| !name.starts_with(INTERNAL) && regex.is_match(name));
                Ok(Choice { found: found.flat_map(partitions).collect(), missing: Vec::new() })
            }
        }
    }

    /// The names to ask the cluster for; none for all.
    pub(super) fn names(&self) -> Option<&[String]> {
        match &self.0 {
            Wanted::Named(names) => Some(names),
            Wanted::Matching(_) => None,
        }
    }
}

fn named(names: &[String], cluster: &BTreeMap<String, i32>) -> Result<Choice, BoxError> {
    if names.is_empty() {
        return Err(usage("a source reads no topic: name one".into()));
    }
    if let Some(name) = names.iter().find(|name| name.starts_with(PROGRESS)) {
        let text = format!("`{name}` holds the decisions of a job and is not for others to read: name another topic");
        return Err(usage(text));
    }
    let mut choice = Choice::default();
    for name in names {
        match cluster.get_key_value(name) {
            Some(topic) => choice.found.extend(partitions(topic)),
            None => choice.missing.push(name.clone()),
        }
    }
    choice.found.sort();
    choice.found.dedup();
    Ok(choice)
}

fn partitions((topic, count): (&String, &i32)) -> impl Iterator<Item = KafkaPartition> {
    let topic: Arc<str> = topic.as_str().into();
    (0..*count).map(move |partition| KafkaPartition { topic: topic.clone(), partition })
}

fn usage(text: String) -> BoxError {
    Error::new(ErrorKind::Usage, text).into()
}

/// What the cluster has of what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) found: Vec<KafkaPartition>,
    /// Topics that are named and not there.
    pub(super) missing: Vec<String>,
}

/// As it is shown in errors.
impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Wanted::Named(names) => write!(f, "`{}`", names.join("`, `")),
            Wanted::Matching(pattern) => write!(f, "topics matching `{pattern}`"),
        }
    }
}

impl From<&str> for Topics {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

impl From<String> for Topics {
    fn from(name: String) -> Self {
        Self::named(name)
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Topics {
    fn from(names: [S; N]) -> Self {
        Self(Wanted::Named(names.into_iter().map(Into::into).collect()))
    }
}

impl From<Vec<String>> for Topics {
    fn from(names: Vec<String>) -> Self {
        Self(Wanted::Named(names))
    }
}

/// A partition of a topic: what a Kafka source calls a split. Shown as `orders/3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaPartition {
    /// The topic's name.
    #[serde(serialize_with = "show_name", deserialize_with = "read_name")]
    pub topic: Arc<str>,
    /// The number of the partition, from 0.
    pub partition: i32,
}

impl KafkaPartition {
    /// A partition of this topic.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for KafkaPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

fn show_name<S: Serializer>(name: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name)
}

fn read_name<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(from).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::said;

    fn cluster() -> BTreeMap<String, i32> {
        let topics = [
            ("orders-eu", 2),
            ("orders-us", 1),
            ("old-orders-eu", 1),
            ("__consumer_offsets", 4),
            ("__millstream_progress_orders", 1),
        ];
        topics.map(|(name, count)| (name.to_owned(), count)).into()
    }

    fn found(topics: impl Into<Topics>) -> Vec<String> {
        let choice = topics.into().choose(&cluster()).unwrap();
        assert_eq!(choice.missing, [""; 0]);
        choice.found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn topics_are_found_by_name_list_and_pattern() {
        assert_eq!(found("orders-eu"), ["orders-eu/0", "orders-eu/1"]);
        assert_eq!(found(["orders-us", "old-orders-eu", "orders-us"]), ["old-orders-eu/0", "orders-us/0"]);
        assert_eq!(found(Topics::matching("orders-.*")), ["orders-eu/0", "orders-eu/1", "orders-us/0"]);
        assert_eq!(found(Topics::matching("orders|orders-us")), ["orders-us/0"]);
        let choice = Topics::from(["orders-us", "none"]).choose(&cluster()).unwrap();
        assert_eq!((choice.found.len(), choice.missing), (1, vec!["none".to_owned()]));
    }

    #[test]
    fn no_pattern_finds_what_belongs_to_kafka_or_to_a_job() {
        assert_eq!(found(Topics::matching(".*")).len(), 4);
        assert_eq!(found(Topics::matching("__.*")), [""; 0]);
        let (kind, text) = said(&Topics::from("__millstream_progress_orders").choose(&cluster()).unwrap_err());
        assert!(kind == ErrorKind::Usage && text.contains("decisions of a job"), "{text}");
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        let (_, text) = said(&Topics::matching("a(").choose(&cluster()).unwrap_err());
        assert!(text.contains("`a(` is no pattern"), "{text}");
        let (_, text) = said(&Topics::from(Vec::new()).choose(&cluster()).unwrap_err());
        assert!(text.contains("name one"), "{text}");
    }

    #[test]
    fn a_partition_stands_in_manifests_as_json() {
        let json = r#"{"topic":"orders","partition":3}"#;
        assert_eq!(serde_json::to_string(&KafkaPartition::new("orders", 3)).unwrap(), json);
        assert_eq!(serde_json::from_str::<KafkaPartition>(json).unwrap(), KafkaPartition::new("orders", 3));
    }
}
