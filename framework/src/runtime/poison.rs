//! Whether a job keeps failing because of one record. Pure: what the supervisor knows of the failed attempts goes in,
//! what is to be said comes out.

use crate::{Error, ErrorKind};

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The record that it failed at, in words, if that is known.
    pub(crate) record: Option<String>,
    /// Which operator failed and how, without what changes from attempt to attempt; none if no record can be the cause.
    pub(crate) what: Option<String>,
}

impl Failure {
    /// What is to be remembered of an error.
    pub(crate) fn of(error: &Error, record: Option<String>) -> Self {
        Self { record, what: (error.kind() == ErrorKind::Failed).then(|| without_subtasks(&error.innermost())) }
    }
}

/// The same text for all subtasks: which one a record goes to may change with each attempt.
fn without_subtasks(text: &str) -> String {
    let mut parts = text.split(", subtask ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// What to write instead, whatever record it is.
const REMEDY: &str = "trying again will not help. Let that step give a `Result` (`map` in place of `try_map`, \
    `try_json` in place of `json`) and then `split` it, for a stream of what fails, or call `or_skip`; or correct the \
    program or the record. Then run the job again: its last checkpoint stays, and it goes on from there";

/// What is to be said after so many failures in a row: that it is always the same record, and what to do about it.
/// Nothing if it may be something that passes.
///
/// 1. A record that is known is the cause if every attempt that knows one names it, and the others fail alike.
/// 2. If none is known, a record most likely is the cause if all attempts fail alike, and not by the disk or the like.
/// 3. One failure alone proves nothing.
pub(crate) fn verdict(failures: &[Failure]) -> Option<String> {
    let (first, others) = failures.split_first()?;
    let alike = first.what.is_some() && others.iter().all(|failure| failure.what == first.what);
    let mut records = failures.iter().filter_map(|failure| failure.record.as_deref());
    let (record, n) = (records.next(), failures.len());
    let known = 1 + records.clone().count();
    match record {
        _ if others.is_empty() => None,
        Some(record) if records.all(|other| other == record) && (alike || known == n) => {
            Some(format!("{record} is a poison record: all {n} attempts failed at it, so {REMEDY}"))
        }
        None if alike => Some(format!(
            "all {n} attempts failed in the same way, most likely at the same record, a poison record: so {REMEDY}. \
             Which split and offset it has is not known behind an exchange"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(record: &str, what: &str) -> Failure {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Failure { record: some(record), what: some(what) }
    }

    fn said(failures: &[(&str, &str)]) -> Option<String> {
        verdict(&failures.iter().map(|(record, what)| failed(record, what)).collect::<Vec<_>>())
    }

    #[test]
    fn the_same_record_each_time_is_poison() {
        for failures in [
            &[("", "a"), ("x", "a"), ("x", "a")][..],
            &[("", "a"), ("x", "a")],
            // what a panic says may change, the record does not
            &[("x", "a"), ("x", "b")],
            &[("x", ""), ("x", "")],
        ] {
            let text = said(failures).unwrap_or_default();
            assert!(
                text.starts_with("x is a poison record: all") && text.contains("`or_skip`"),
                "{failures:?}: {text}"
            );
        }
    }

    #[test]
    fn the_same_error_each_time_most_likely_is() {
        let text = said(&[("", "a"), ("", "a"), ("", "a")]).unwrap();
        assert!(text.contains("all 3 attempts") && text.contains("most likely") && text.contains("exchange"), "{text}");
    }

    #[test]
    fn it_does_not_matter_which_subtask_had_it() {
        let error = |subtask| Error::new(ErrorKind::Failed, "too much").at(format!("sink `out`, subtask {subtask}"));
        assert_eq!(Failure::of(&error(10), None), Failure::of(&error(3), None));
        assert_eq!(Failure::of(&error(10), None).what.as_deref(), Some("sink `out`: too much"));
        assert_eq!(Failure::of(&Error::new(ErrorKind::Full, "no room"), None).what, None);
    }

    #[test]
    fn what_may_pass_is_not_poison() {
        for failures in [
            &[][..],
            &[("", "a")],
            &[("x", "a")],
            &[("", "a"), ("", "b")],
            &[("x", "a"), ("y", "a")],
            &[("", "b"), ("x", "a"), ("x", "a")],
            &[("x", "a"), ("", "b"), ("x", "a")],
            // the disk, or a service
            &[("", ""), ("", "")],
            &[("", ""), ("x", "a")],
        ] {
            assert_eq!(said(failures), None, "{failures:?}");
        }
    }
}
