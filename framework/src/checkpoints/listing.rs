//! What lies in the directory of checkpoints: the grammar of its names, and a listing of it. Names are taken apart here
//! and nowhere else; what is done about them is decided in `recover.rs` and `collect.rs`; `store.rs` does the I/O.
//!
//! | name below `checkpoints/` | what |
//! |---|---|
//! | `manifest-<epoch>-<attempt>` | a checkpoint; never overwritten, renamed or moved [H8] |
//! | `tmp-manifest-<epoch>-<attempt>` | one that is being written |
//! | `decided-<epoch>` | this checkpoint is known to have been decided and finished |
//! | `state/delta-<epoch>-<attempt>-<operator>-<subtask>` | rows that one epoch changed |
//! | `state/items-<epoch>-<attempt>-<operator>-<subtask>` | the items of an operator without keys |
//! | `state/base-<epoch>-<attempt>-<operator>-<subtask>/` | all rows as of an epoch |
//!
//! The epoch of a delta is that of its rows, that of items the first one they belong to, that of a base the one up to
//! which it was folded. No manifest of an earlier epoch names it, and a base is named by none at all for a while after
//! it was made.

use crate::checkpoints::manifest::{Damage, Manifest};
use crate::operator::Digest;
use crate::{Attempt, Epoch, Error};

/// The directory of state files, below the directory of checkpoints.
pub(crate) const STATE: &str = "state";

/// What was found below the directory of checkpoints, each kind in order.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Listing {
    /// By epoch, then attempt.
    pub(crate) manifests: Vec<Listed>,
    /// The numbers of `decided-<epoch>` markers.
    pub(crate) decided: Vec<Epoch>,
    /// Delta files, items and base directories, by name.
    pub(crate) states: Vec<StateFile>,
    /// Manifests that were being written when their attempt ended.
    pub(crate) unfinished: Vec<Named>,
    /// Names that no version of this grammar knows. Nothing touches them.
    pub(crate) others: Vec<String>,
}

/// A manifest that lies in place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    /// By its name.
    pub(crate) epoch: Epoch,
    /// By its name.
    pub(crate) attempt: Attempt,
    /// What is in it, and its identity.
    pub(crate) content: Result<(Manifest, Digest), Damage>,
}

/// A name with an epoch in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Below the directory of checkpoints.
    pub(crate) path: String,
    /// The epoch it belongs to.
    pub(crate) epoch: Epoch,
}

/// A delta file, a file of items or a base directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateFile {
    /// Below the directory of checkpoints.
    pub(crate) path: String,
    /// No earlier checkpoint needs it.
    pub(crate) epoch: Epoch,
    /// Who wrote it.
    pub(crate) attempt: Attempt,
    /// `<operator>-<subtask>`: whose it is. The bases of one owner and attempt follow one another.
    pub(crate) owner: String,
    /// A base directory, not a file.
    pub(crate) is_base: bool,
}

/// What the name of a file directly below the directory of checkpoints says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A manifest in place.
    Manifest(Epoch, Attempt),
    /// A manifest being written.
    Unfinished(Epoch, Attempt),
    /// A marker.
    Decided(Epoch),
}

impl FileName {
    /// Reads what [`Display`](std::fmt::Display) wrote, and nothing else.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let numbered = |rest: &str| {
            let (epoch, attempt) = rest.split_once('-')?;
            Some((number(epoch)?, Attempt::parse(attempt)?))
        };
        if let Some(rest) = name.strip_prefix("manifest-") {
            return numbered(rest).map(|(epoch, attempt)| Self::Manifest(epoch, attempt));
        }
        if let Some(rest) = name.strip_prefix("tmp-manifest-") {
            return numbered(rest).map(|(epoch, attempt)| Self::Unfinished(epoch, attempt));
        }
        number(name.strip_prefix("decided-")?).map(Self::Decided)
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifest(epoch, attempt) => write!(f, "manifest-{epoch}-{attempt}"),
            Self::Unfinished(epoch, attempt) => write!(f, "tmp-manifest-{epoch}-{attempt}"),
            Self::Decided(epoch) => write!(f, "decided-{epoch}"),
        }
    }
}

impl StateFile {
    /// Reads the name of an entry of the directory of state files. From the left, for operators may be called `a-b`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (kind, rest) = name.split_once('-').filter(|(kind, _)| matches!(*kind, "delta" | "base" | "items"))?;
        let (epoch, rest) = rest.split_once('-')?;
        let (attempt, owner) = rest.split_once('-').filter(|(_, owner)| !owner.is_empty())?;
        Some(Self {
            path: format!("{STATE}/{name}"),
            epoch: number(epoch)?,
            attempt: Attempt::parse(attempt)?,
            owner: owner.to_owned(),
            is_base: kind == "base",
        })
    }
}

/// No job gets so far; above it there is always a next number.
const EPOCH_MAX: Epoch = Epoch::MAX / 2;

/// A decimal number written the one way there is, so that no two names mean the same.
fn number(text: &str) -> Option<Epoch> {
    text.parse().ok().filter(|n: &Epoch| *n <= EPOCH_MAX && n.to_string() == text)
}

impl Listing {
    /// Sorts a name of the directory of checkpoints in. Gives a manifest's name back, for its content has to be read.
    pub(crate) fn add(&mut self, name: &str) -> Option<(Epoch, Attempt)> {
        match FileName::parse(name) {
            Some(FileName::Manifest(epoch, attempt)) => return Some((epoch, attempt)),
            Some(FileName::Unfinished(epoch, _)) => self.unfinished.push(Named { path: name.to_owned(), epoch }),
            Some(FileName::Decided(epoch)) => self.decided.push(epoch),
            None if name == STATE => {}
            None => self.others.push(name.to_owned()),
        }
        None
    }

    /// Sorts a name of the directory of state files in.
    pub(crate) fn add_state(&mut self, name: &str) {
        match StateFile::parse(name) {
            Some(file) => self.states.push(file),
            None => self.others.push(format!("{STATE}/{name}")),
        }
    }

    /// Sorts everything, so that decisions do not depend on the order a file system lists names in.
    pub(crate) fn sort(&mut self) {
        self.manifests.sort_by_key(|m| (m.epoch, m.attempt));
        self.decided.sort_unstable();
        self.states.sort_by(|a, b| a.path.cmp(&b.path));
        self.unfinished.sort_by(|a, b| a.path.cmp(&b.path));
        self.others.sort();
    }

    /// The manifest with this identity.
    pub(crate) fn find(&self, digest: &Digest) -> Option<&Manifest> {
        self.intact().find(|(_, d)| *d == digest).map(|(m, _)| m)
    }

    /// All manifests that can be read.
    pub(crate) fn intact(&self) -> impl DoubleEndedIterator<Item = (&Manifest, &Digest)> {
        self.manifests.iter().filter_map(|m| m.content.as_ref().ok()).map(|(m, d)| (m, d))
    }
}

impl Listed {
    /// Judges the bytes found under a manifest's name, in a directory of these jobs, of which the last one looks.
    ///
    /// # Errors
    /// A refusal if they are of another job or of another version of millstream: both are in order as they are, only
    /// not for this program, so that nothing here may be restored over or cleared away.
    pub(crate) fn judge(
        (epoch, attempt): (Epoch, Attempt),
        bytes: &[u8],
        jobs: &[&str],
        place: &str,
    ) -> Result<Self, Error> {
        let content = match Manifest::decode(bytes) {
            Ok((manifest, _)) if !jobs.contains(&&*manifest.job) => {
                return Err(other_job(&manifest, jobs[jobs.len() - 1], place));
            }
            Ok((manifest, _)) if (manifest.epoch, manifest.attempt) != (epoch, attempt) => {
                let (other, by) = (manifest.epoch, manifest.attempt);
                Err(Damage::Unreadable(format!("it is checkpoint {other} of attempt {by}, renamed")))
            }
            Err(Damage::Version { found }) => return Err(other_version(epoch, &found, place)),
            content => content,
        };
        Ok(Self { epoch, attempt, content })
    }
}

fn other_job(manifest: &Manifest, job: &str, place: &str) -> Error {
    let Manifest { job: other, epoch, .. } = manifest;
    if manifest.formerly.as_ref().is_some_and(|former| former.job == job) {
        return Error::refused(format!(
            "the job `{job}`, whose checkpoints were in {place}, is named `{other}` now (checkpoint {epoch} says so): \
             start it under that name; if it does not start, the renaming was cut short: `rename {job}` of \
             `{other}` finishes it"
        ));
    }
    Error::refused(format!(
        "{place} belongs to the job `{other}` (its checkpoint {epoch} says so), and this is the job `{job}`: going on \
         would mix the state of two jobs. Give each job a --data-dir of its own; or, if this is that job under a new \
         name, take over what it has, with the command `rename {other}`"
    ))
}

fn other_version(epoch: Epoch, found: &str, place: &str) -> Error {
    Error::refused(format!(
        "checkpoint {epoch} in {place} has format version {found}, and this program reads version {}: it was taken by \
         another version of millstream, and going on without it would lose or double what it decided. Start the \
         version that took it, or give another --data-dir",
        super::manifest::VERSION
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::manifest::tests::{attempt, manifest};
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn listed(m: Manifest) -> Listed {
        let (_, digest) = m.encode().unwrap();
        Listed { epoch: m.epoch, attempt: m.attempt, content: Ok((m, digest)) }
    }

    #[test]
    fn names_are_read_from_the_left() {
        let check = |name: &str, expect: Option<Epoch>| {
            let found = StateFile::parse(name);
            assert_eq!(found.as_ref().map(|f| f.epoch), expect, "{name}");
            if let Some(file) = found {
                assert_eq!((file.path, file.attempt), (format!("state/{name}"), attempt(7)));
            }
        };
        let by = attempt(7);
        check(&format!("delta-12-{by}-count-0"), Some(12));
        check(&format!("base-0-{by}-per-minute-1-3-0"), Some(0));
        check(&format!("delta-12-{by}-a_b.c-0"), Some(12));
        check(&format!("delta-12-{by}-count-0.tmp"), Some(12));
        check(&format!("delta-012-{by}-count-0"), None);
        check(&format!("delta-x-{by}-count-0"), None);
        let base = StateFile::parse(&format!("base-3-{by}-a-b-7")).unwrap();
        assert_eq!((base.owner.as_str(), base.is_base), ("a-b-7", true));
        check(&format!("delta-12-{by}-"), None);
        check(&format!("other-12-{by}-count-0"), None);
        check(&format!("delta-12-{by}"), None);
        check(&format!("items-12-{by}-count-0"), Some(12));
        check("delta-12-abc-count-0", None);
        check("notes.txt", None);
    }

    #[test]
    fn names_of_manifests_and_markers() {
        let check = |name: &str, expect: Option<FileName>| assert_eq!(FileName::parse(name), expect, "{name}");
        let by = attempt(1);
        check(&format!("manifest-3-{by}"), Some(FileName::Manifest(3, by)));
        check(&format!("tmp-manifest-3-{by}"), Some(FileName::Unfinished(3, by)));
        check("decided-0", Some(FileName::Decided(0)));
        check("decided-00", None);
        check("decided-+1", None);
        // nothing could follow it
        check(&format!("decided-{}", Epoch::MAX), None);
        check(&format!("manifest-3-{by}.bak"), None);
        check("manifest-3", None);
        check("state", None);
    }

    #[test]
    fn a_manifest_of_another_job_or_version_is_a_refusal_that_names_both() {
        let (bytes, _) = manifest(3, 1, None, &[]).encode().unwrap();
        let error = Listed::judge((3, attempt(1)), &bytes, &["other"], "/data").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Refused);
        assert!(error.to_string().contains("`words`") && error.to_string().contains("`other`"), "{error}");
        let later = String::from_utf8(bytes.clone()).unwrap().replacen("manifest 1", "manifest 9", 1);
        let error = Listed::judge((3, attempt(1)), later.as_bytes(), &["words"], "/data").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Refused);
        assert!(error.to_string().contains("version 9"), "{error}");
        let renamed = Listed::judge((4, attempt(1)), &bytes, &["words"], "/data").unwrap();
        assert!(renamed.content.unwrap_err().to_string().contains("checkpoint 3"));
    }

    proptest! {
        #[test]
        fn names_are_read_back(epoch in 0..=EPOCH_MAX, by in any::<u8>(), kind in 0..3) {
            let name = match kind {
                0 => FileName::Manifest(epoch, attempt(by)),
                1 => FileName::Unfinished(epoch, attempt(by)),
                _ => FileName::Decided(epoch),
            };
            prop_assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
    }
}
