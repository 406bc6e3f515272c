//! The lock of a job directory, and the mark of a job that was given another name. Both are there before anything of
//! the job is: `rename` holds a directory whose checkpoints are still to come.

use crate::checkpoints::directory::{CHECKPOINTS, names};
use crate::checkpoints::listing::{FileName, STATE};
use crate::checkpoints::store::{create_durably, remove, sync_dir, write_durably};
use crate::disk::{self, Lock};
use crate::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

pub(super) const LOCK: &str = "LOCK";
const RENAMED: &str = "RENAMED";

/// A job directory that is locked for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Hold {
    data_dir: PathBuf,
    _lock: Lock,
}

/// What stands in the mark.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Renamed {
    pub(crate) from: String,
    pub(crate) to: String,
}

impl Hold {
    /// Makes the directory if it is missing, and takes the lock. The job is for the error.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process holds the lock, [`ErrorKind::Io`] if the directory cannot be used.
    pub(crate) fn take(data_dir: &Path, job: &str) -> Result<Self, Error> {
        create_durably(data_dir)?;
        Ok(Self { data_dir: data_dir.to_owned(), _lock: lock(&data_dir.join(LOCK), job)? })
    }

    /// Where it is.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether a directory has manifests, whose ever they are.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(crate) fn has_manifests(data_dir: &Path) -> Result<bool, Error> {
        let checkpoints = data_dir.join(CHECKPOINTS);
        let is_manifest = |name: &String| matches!(FileName::parse(name), Some(FileName::Manifest(..)));
        Ok(disk::is_dir(&checkpoints) && names(&checkpoints)?.iter().any(is_manifest))
    }

    /// Says that a job has another name, or is being given it: neither can be started here.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(crate) fn mark(&self, renamed: &Renamed) -> Result<(), Error> {
        let bytes = serde_json::to_vec(renamed);
        let bytes = bytes.map_err(|e| Error::new(ErrorKind::Failed, "cannot write the names").because(e))?;
        // what it says is the same whenever it is written
        write_durably(&self.data_dir.join(RENAMED), &bytes)?;
        sync_dir(&self.data_dir)
    }

    /// Takes the mark away.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(crate) fn unmark(&self) -> Result<(), Error> {
        remove(&self.data_dir.join(RENAMED))?;
        sync_dir(&self.data_dir)
    }

    /// # Errors
    /// A refusal if this job has another name now, or is being given its own.
    pub(crate) fn refuse_renamed(&self, job: &str) -> Result<(), Error> {
        let path = self.data_dir.join(RENAMED);
        let bytes = match disk::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(|e| Error::io(e, "read", &path))?,
        };
        let place = path.display();
        let text = match serde_json::from_slice(&bytes) {
            Ok(Renamed { from, to }) if from == job => format!(
                "the job `{job}` is named `{to}` now, and what it had in this directory is there: start it under that \
                 name. If a new job is to have the old name, remove {place}"
            ),
            Ok(Renamed { from, to }) if to == job => format!(
                "the job `{job}` is being given what the job `{from}` has, which was cut short: finish it with the \
                 command `rename {from}`"
            ),
            Ok(_) => return Ok(()),
            Err(error) => format!("{place} is to say which name the job has now, and cannot be read: {error}"),
        };
        Err(Error::refused(text))
    }

    /// Moves all checkpoints to another directory on the same file system, which must have none.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(crate) fn move_to(&self, other: &Self) -> Result<(), Error> {
        let [from, to] = [self, other].map(|hold| hold.data_dir.join(CHECKPOINTS));
        // made by a start that was refused; what is not empty stays, and is in the way
        for empty in [to.join(STATE), to.clone()] {
            let _ = disk::remove_dir(&empty);
        }
        disk::rename(&from, &to).map_err(|e| Error::io(e, &format!("move {} to", from.display()), &to))?;
        sync_dir(&other.data_dir)?;
        sync_dir(&self.data_dir)
    }
}

/// Takes the lock and writes the pid of this process into it.
fn lock(path: &Path, job: &str) -> Result<Lock, Error> {
    let held = match Lock::take(path).map_err(|e| Error::io(e, "lock", path))? {
        Ok(lock) => return Ok(lock),
        Err(held) => held,
    };
    // a pid is short; whatever else stands there is not shown whole
    let holder = match held.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    };
    Err(Error::new(
        ErrorKind::Busy,
        format!(
            "{holder} holds {}: the job `{job}`, or another one in this directory, is running there. Wait until it has \
             ended or stop it; give each job a --data-dir of its own",
            path.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{TIGHT, any_bytes, bounded, cases, damaged};
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn a_job_that_is_renamed_is_refused_under_both_names() {
        let directory = tempfile::tempdir().unwrap();
        let hold = Hold::take(directory.path(), "old").unwrap();
        assert!(hold.refuse_renamed("old").is_ok());
        let renamed = Renamed { from: "old".into(), to: "new".into() };
        hold.mark(&renamed).unwrap();
        hold.mark(&renamed).unwrap();
        let said = |job: &str| {
            let error = hold.refuse_renamed(job).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            error.to_string()
        };
        assert!(said("old").contains("is named `new` now") && said("new").contains("`rename old`"));
        assert!(hold.refuse_renamed("other").is_ok());
        fs::write(directory.path().join(RENAMED), "{").unwrap();
        assert!(said("other").contains("cannot be read"));
        hold.unmark().unwrap();
        hold.unmark().unwrap();
        assert!(hold.refuse_renamed("old").is_ok());
    }

    proptest! {
        #![proptest_config(cases(64))]

        #[test]
        fn any_mark_and_any_lock_is_taken(
            bytes in prop_oneof![any_bytes(), damaged(Just(br#"{"from":"old","to":"new"}"#.to_vec()))],
        ) {
            let directory = tempfile::tempdir().unwrap();
            let hold = Hold::take(directory.path(), "old").unwrap();
            fs::write(directory.path().join(RENAMED), &bytes).unwrap();
            if let Err(error) = bounded(bytes.len(), TIGHT, || hold.refuse_renamed("old"))? {
                prop_assert_eq!(error.kind(), ErrorKind::Refused);
            }
            fs::write(directory.path().join(LOCK), &bytes).unwrap();
            let error = bounded(bytes.len(), TIGHT, || Hold::take(directory.path(), "old"))?.unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::Busy);
        }
    }
}
