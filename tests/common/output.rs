//! Directories of part files as a reader sees them: names, and lines in the order in which they became visible.

use super::names;
use std::collections::BTreeMap;
use std::path::Path;

/// The name of a visible part file, taken apart without the framework's help.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartName {
    pub(crate) sink: String,
    pub(crate) epoch: u64,
    pub(crate) subtask: u64,
    pub(crate) attempt: String,
}

impl PartName {
    /// `<sink>-<epoch, 10 digits>-<subtask, 4 digits>-<attempt, 32 hexadecimal digits>.<extension>`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let mut parts = stem.rsplitn(4, '-');
        let (attempt, subtask, epoch, sink) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let digits = |text: &str, width| text.len() == width && text.bytes().all(|b| b.is_ascii_digit());
        let hex = attempt.len() == 32 && attempt.bytes().all(|b| b.is_ascii_hexdigit());
        let is_part = matches!(extension, "jsonl" | "txt") && hex && digits(epoch, 10) && digits(subtask, 4);
        is_part.then(|| Self {
            sink: sink.to_owned(),
            epoch: epoch.parse().unwrap(),
            subtask: subtask.parse().unwrap(),
            attempt: attempt.to_owned(),
        })
    }
}

/// The names that are not hidden, sorted.
pub(crate) fn visible(directory: &Path) -> Vec<String> {
    names(directory).into_iter().filter(|name| !name.starts_with('.')).collect()
}

/// All visible files with their content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Output(pub(crate) BTreeMap<String, String>);

impl Output {
    pub(crate) fn of(directory: &Path) -> Self {
        let read = |name: String| {
            let text = std::fs::read_to_string(directory.join(&name)).unwrap();
            (name, text)
        };
        Self(visible(directory).into_iter().map(read).collect())
    }

    /// The lines of one sink, epoch by epoch, subtask by subtask.
    pub(crate) fn lines(&self, sink: &str) -> Vec<&str> {
        let mut parts: Vec<_> = self
            .0
            .iter()
            .map(|(name, text)| (PartName::parse(name).unwrap_or_else(|| panic!("`{name}` is no part file")), text))
            .filter(|(name, _)| name.sink == sink)
            .collect();
        parts.sort();
        parts.into_iter().flat_map(|(_, text)| text.lines()).collect()
    }

    /// Whether all files of `before` are still here and still the same.
    pub(crate) fn continues(&self, before: &Self) -> Result<(), String> {
        for (name, text) in &before.0 {
            match self.0.get(name) {
                Some(now) if now == text => {}
                Some(_) => return Err(format!("the visible file {name} has changed")),
                None => return Err(format!("the visible file {name} has disappeared")),
            }
        }
        Ok(())
    }
}

/// The lines of a sink in a directory, in the order in which they became visible.
pub(crate) fn read_lines(directory: &Path, sink: &str) -> Vec<String> {
    Output::of(directory).lines(sink).into_iter().map(str::to_owned).collect()
}

#[test]
fn names_of_part_files_are_taken_apart() {
    let attempt = "0f8fad5bd9cb469fa16570867728950e";
    let name = PartName::parse(&format!("a-b-0000000012-0003-{attempt}.jsonl")).unwrap();
    assert_eq!((name.sink.as_str(), name.epoch, name.subtask, name.attempt.as_str()), ("a-b", 12, 3, attempt));
    for wrong in [
        format!("a-12-0003-{attempt}.jsonl"),
        format!("a-0000000012-0003-{attempt}.tmp"),
        format!("a-0000000012-0003-{attempt}"),
        "notes.txt".into(),
    ] {
        assert_eq!(PartName::parse(&wrong), None, "{wrong}");
    }
}

/// Whether `found` has for each key of `totals` exactly the counts from 1 to its total, in this order.
pub(crate) fn counted(
    sink: &str,
    found: impl Iterator<Item = (String, u64)>,
    totals: &BTreeMap<String, u64>,
) -> Result<(), String> {
    let mut so_far = BTreeMap::<String, u64>::new();
    for (key, count) in found {
        let before = so_far.get(&key).copied().unwrap_or(0);
        if count != before + 1 {
            return Err(format!("{sink}: `{key}` has count {count} after {before}"));
        }
        so_far.insert(key, count);
    }
    for (key, total) in totals {
        let found = so_far.remove(key).unwrap_or(0);
        if found != *total {
            return Err(format!("{sink}: `{key}` comes {found} times and should come {total} times"));
        }
    }
    match so_far.pop_first() {
        Some((key, count)) => Err(format!("{sink}: `{key}` comes {count} times and should not come at all")),
        None => Ok(()),
    }
}

#[test]
fn counts_are_complete_in_order_and_nothing_else() {
    let check = |found: &[(&str, u64)]| {
        let found = found.iter().map(|(key, count)| (key.to_string(), *count));
        counted("sink", found, &BTreeMap::from([("a".into(), 2), ("b".into(), 1)])).err().unwrap_or_default()
    };
    assert_eq!(check(&[("a", 1), ("b", 1), ("a", 2)]), "");
    assert!(check(&[("a", 1), ("b", 1), ("a", 1)]).contains("count 1 after 1"));
    assert!(check(&[("a", 2), ("b", 1), ("a", 1)]).contains("count 2 after 0"));
    assert!(check(&[("a", 1), ("b", 1)]).contains("comes 1 times and should come 2"));
    assert!(check(&[("a", 1), ("b", 1), ("a", 2), ("a", 3)]).contains("comes 3 times"));
    assert!(check(&[("a", 1), ("b", 1), ("a", 2), ("c", 1)]).contains("not come at all"));
}
