//! The settings a user gives a topology of their own: a tree of values, and where each of them came from. Which layers
//! there are, and which is the stronger, is decided in `config/` and `cli/`.

use crate::{Error, ErrorKind};
use serde::de::{DeserializeOwned, Visitor};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Origin {
    /// Nobody said anything.
    #[default]
    Default,
    /// A call in the program.
    Program(&'static Location<'static>),
    /// A line of a configuration file.
    File(String, usize),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl Origin {
    /// The layer, for programs.
    pub(crate) fn layer(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Program(_) => "program",
            Self::File(..) => "file",
            Self::Variable(_) => "environment",
            Self::Flag(_) => "command line",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Program(at) => write!(f, "{}:{}", at.file(), at.line()),
            Self::File(path, line) => write!(f, "{path}:{line}"),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// The keys that lead to a value. Keys may hold dots themselves, so paths are dotted for people only.
pub(crate) type Path = Vec<String>;

/// A tree of values, each leaf with its origin.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    tree: Value,
    origins: BTreeMap<Path, Origin>,
}

impl Default for Values {
    fn default() -> Self {
        Self { tree: Value::Object(Map::new()), origins: BTreeMap::new() }
    }
}

impl Values {
    /// All of a tree, from one place.
    pub(crate) fn of(tree: &Value, origin: &Origin) -> Self {
        let mut values = Self::default();
        leaves(tree, &mut Path::new(), &mut |path, value| values.set(path, value.clone(), origin.clone()));
        values
    }

    /// Puts a value at a path, in place of what was there and below. Null takes no value away.
    pub(crate) fn set(&mut self, path: &[String], value: Value, origin: Origin) {
        let is_there = || path.iter().try_fold(&self.tree, |at, key| at.get(key)).is_some();
        if value.is_null() && is_there() {
            return;
        }
        let mut at = &mut self.tree;
        for key in path {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[key];
        }
        *at = value;
        self.origins.retain(|key, _| !key.starts_with(path));
        self.origins.insert(path.to_vec(), origin);
    }

    /// Puts the leaves of `over` on top of those that are here.
    pub(crate) fn overlay(&mut self, over: &Self) {
        for (path, value) in over.leaves() {
            self.set(&path, value, over.origin(&path));
        }
    }

    /// Where the value at a path came from.
    pub(crate) fn origin(&self, path: &[String]) -> Origin {
        let above = (0..=path.len()).rev().filter_map(|n| path.get(..n));
        let known = above.filter_map(|path| self.origins.get(path)).next();
        // of a table, its first entry tells
        let below = || self.origins.iter().find(|(key, _)| key.starts_with(path)).map(|(_, origin)| origin);
        known.or_else(below).cloned().unwrap_or_default()
    }

    /// What stands at the top under a key.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.tree.as_object().into_iter().flatten()
    }

    /// Each leaf with its path.
    pub(crate) fn leaves(&self) -> Vec<(Path, Value)> {
        let mut all = Vec::new();
        leaves(&self.tree, &mut Path::new(), &mut |path, value| all.push((path.to_vec(), value.clone())));
        all
    }

    /// The values as a `T`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], saying which value of which place does not fit.
    pub(crate) fn read<T: DeserializeOwned>(&self, reads: &mut Reads) -> Result<T, Error> {
        let mut unread = BTreeSet::new();
        let mut note = |path: serde_ignored::Path<'_>| {
            unread.insert(ignored(&path));
        };
        let tracked = serde_ignored::Deserializer::new(self.tree.clone(), &mut note);
        let value = serde_path_to_error::deserialize(tracked).map_err(|error| self.misfit(&error))?;
        reads.known.extend(fields::<T>());
        reads.unread = Some(match reads.unread.take() {
            Some(before) => before.intersection(&unread).cloned().collect(),
            None => unread,
        });
        Ok(value)
    }

    fn misfit(&self, error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
        let path: Path = error.path().iter().map_while(key).collect();
        let inner = error.inner();
        let text = if path.is_empty() {
            let ways = "`[pipeline]` in the configuration file, `--set KEY=VALUE`, or its flag where it has one";
            format!("the settings of the pipeline do not fit: {inner} (a setting is given by {ways})")
        } else {
            format!("{}: the setting `{}` of the pipeline does not fit: {inner}", self.origin(&path), error.path())
        };
        Error::new(ErrorKind::Usage, text)
    }

    /// That all that was given for the pipeline in a file or with `--set` was read by it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], naming the key, its place, and the nearest key there is.
    pub(crate) fn all_read(&self, reads: &Reads) -> Result<(), Error> {
        let nobody = || self.entries().map(|(key, _)| vec![key.clone()]).collect();
        for path in reads.unread.clone().unwrap_or_else(nobody) {
            let origin = self.origin(&path);
            if matches!(origin, Origin::File(..) | Origin::Flag(_)) {
                // of tables in tables nobody says which keys they have
                let known = reads.known.iter().copied().filter(|_| path.len() == 1);
                let path = path.join(".");
                let hint = nearest(&path, known).map_or_else(String::new, |key| format!("; did you mean `{key}`?"));
                let text = format!("{origin}: the pipeline has no setting `{path}`{hint}");
                return Err(Error::new(ErrorKind::Usage, text));
            }
        }
        Ok(())
    }
}

/// What a topology has read of its settings.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// What each call so far left unread; none if there was no call.
    unread: Option<BTreeSet<Path>>,
    /// The fields of the types that were read, where they are structs.
    known: BTreeSet<&'static str>,
}

/// The key that a segment of an error's path is; none below which there are no keys.
fn key(segment: &serde_path_to_error::Segment) -> Option<String> {
    match segment {
        serde_path_to_error::Segment::Map { key } => Some(key.clone()),
        _ => None,
    }
}

/// The path of what was ignored.
fn ignored(path: &serde_ignored::Path<'_>) -> Path {
    use serde_ignored::Path::{Map, NewtypeStruct, NewtypeVariant, Root, Seq, Some};
    let (parent, key) = match path {
        Root => return Path::new(),
        Seq { parent, index } => (parent, index.to_string()),
        Map { parent, key } => (parent, key.clone()),
        Some { parent } | NewtypeStruct { parent } | NewtypeVariant { parent } => return ignored(parent),
    };
    let mut path = ignored(parent);
    path.push(key);
    path
}

/// Shows each leaf with its path. A table without entries is a leaf, but for the whole.
fn leaves(tree: &Value, path: &mut Path, each: &mut impl FnMut(&[String], &Value)) {
    match tree {
        Value::Object(entries) if path.is_empty() || !entries.is_empty() => {
            for (key, value) in entries {
                path.push(key.clone());
                leaves(value, path, each);
                path.pop();
            }
        }
        leaf => each(path, leaf),
    }
}

/// The most similar of some words, if it is similar at all.
pub(crate) fn nearest<'a>(word: &str, of: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = of.map(|known| (strsim::jaro_winkler(word, known), known));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.7).map(|(_, known)| known)
}

/// The names of the fields of `T`, if it is a struct: its implementation of `Deserialize` says them to a deserialiser
/// before it is given anything.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields = &[][..];
    let _ = T::deserialize(FieldsOnly(&mut fields));
    fields
}

/// Gives nothing and keeps what it is asked for.
struct FieldsOnly<'a>(&'a mut &'static [&'static str]);

impl<'de> serde::Deserializer<'de> for FieldsOnly<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("nothing is given"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    fn flag(name: &str) -> Origin {
        Origin::Flag(name.into())
    }

    fn path(dotted: &str) -> Path {
        dotted.split('.').map(str::to_owned).collect()
    }

    fn file(line: usize) -> Origin {
        Origin::File("m.toml".into(), line)
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Settings {
        rate: u64,
        #[serde(default)]
        kafka: Kafka,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Kafka {
        topics: Vec<u8>,
        #[serde(default)]
        group: Option<Group>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Group {}

    #[test]
    fn leaves_go_over_leaves_and_keep_their_origins() {
        let mut values = Values::of(&json!({"a": {"b": 1, "c.c": 2}, "d": [1, 2], "e": {}}), &file(3));
        values.overlay(&Values::of(&json!({"a": {"b": null, "c.c": 4}, "d": []}), &flag("--d")));
        values.set(&path("f.g"), json!("x"), flag("--set"));
        assert_eq!(values.tree, json!({"a": {"b": 1, "c.c": 4}, "d": [], "e": {}, "f": {"g": "x"}}));
        let all = values.leaves().into_iter().map(|(path, _)| (values.origin(&path).to_string(), path.join(".")));
        let expect = [("m.toml:3", "a.b"), ("--d", "a.c.c"), ("--d", "d"), ("m.toml:3", "e"), ("--set", "f.g")];
        assert_eq!(all.collect::<Vec<_>>(), expect.map(|(origin, path)| (origin.to_owned(), path.to_owned())));
        values.set(&path("a"), json!(5), flag("--a"));
        values.set(&path("d.x.y"), json!(6), flag("--e"));
        assert_eq!(values.tree, json!({"a": 5, "d": {"x": {"y": 6}}, "e": {}, "f": {"g": "x"}}));
        let origins = ["a.b", "nothing", "d.x", "f"].map(|key| values.origin(&path(key)).to_string());
        assert_eq!(origins, ["--a", "default", "--d", "--set"]);
    }

    #[test]
    fn what_does_not_fit_names_its_place() {
        let check = |tree: Value, said: &[&str]| {
            let error = Values::of(&tree, &file(7)).read::<Settings>(&mut Reads::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            said.iter().for_each(|said| assert!(error.to_string().contains(said), "`{said}` is not in: {error}"));
        };
        check(json!({"rate": "fast"}), &["m.toml:7", "`rate`", "expected u64"]);
        check(json!({"rate": 1, "kafka": {"topics": [1, "x"]}}), &["m.toml:7", "`kafka.topics[1]`", "expected u8"]);
        check(json!({}), &["missing field `rate`", "[pipeline]", "--set"]);
    }

    #[test]
    fn what_nobody_reads_is_a_mistake_unless_the_program_gave_it() {
        let check = |key: &str, origin: Origin, said: Option<&str>| {
            let mut values = Values::of(&json!({"rate": 1, "kafka": {"topics": []}}), &file(1));
            values.set(&path(key), json!(1), origin);
            let mut reads = Reads::default();
            values.read::<Settings>(&mut reads).unwrap();
            let error = values.all_read(&reads).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), said);
        };
        check("raet", file(9), Some("m.toml:9: the pipeline has no setting `raet`; did you mean `rate`?"));
        check("raet", Origin::Program(Location::caller()), None);
        check("raet", Origin::Default, None);
        check("zzz.x", flag("--set"), Some("--set: the pipeline has no setting `zzz`"));
        check("kafka.topic", file(2), Some("m.toml:2: the pipeline has no setting `kafka.topic`"));
        check("kafka.group.x", file(2), Some("m.toml:2: the pipeline has no setting `kafka.group.x`"));
        check("rate", file(2), None);
    }

    #[test]
    fn what_one_of_several_types_reads_is_read() {
        #[derive(Deserialize)]
        struct Other {
            #[serde(alias = "pace")]
            _rate: u64,
        }
        let values = Values::of(&json!({"rate": 1, "pace": 2}), &file(1));
        let mut reads = Reads::default();
        assert_eq!(values.read::<Settings>(&mut reads).unwrap().rate, 1);
        assert!(values.all_read(&reads).unwrap_err().to_string().contains("`pace`"));
        let Other { .. } = values.read(&mut reads).unwrap();
        values.all_read(&reads).unwrap();
        assert!(values.all_read(&Reads::default()).is_err(), "nobody has asked at all");
        let all: BTreeMap<String, u64> = values.read(&mut Reads::default()).unwrap();
        assert_eq!(all.len(), 2);
    }
}
