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
