//! Where the checkpoints of a job are decided: in its directory, or in the log of the sinks that decide.
//!
//! The directory is a log without records of its own: the manifest in place is the record, its number, identity and
//! parent are those of R, and the lock says whose the job is.

use crate::Error;
use crate::checkpoints::manifest::DecisionMode;
use crate::checkpoints::store::Store;
use crate::operator::{Decided, DecisionLog, Progress};
use std::sync::Arc;

/// See the head of this file.
#[derive(Debug)]
pub(crate) enum Log {
    /// The directory.
    Directory(Arc<Store>),
    /// That of the sinks.
    Sinks(Box<dyn DecisionLog>),
}

impl Log {
    /// What manifests are to say of it.
    pub(crate) fn mode(&self) -> DecisionMode {
        match self {
            Self::Directory(_) => DecisionMode::Directory,
            Self::Sinks(log) => DecisionMode::Log(log.id()),
        }
    }

    /// The newest record, once somebody but the lock says whose the job is.
    pub(crate) async fn look(&self) -> Result<Option<Progress>, Error> {
        match self {
            Self::Directory(_) => std::future::pending().await,
            Self::Sinks(log) => log.look().await,
        }
    }

    /// Decides a checkpoint whose manifest is durable. In the directory the decision is the return of its fsync, not
    /// the rename before it [H4], which blocks for as long as that takes. If it fails nobody knows what is on the disk,
    /// and asking again would not tell: recovery does.
    pub(crate) async fn commit(&self, progress: &Progress) -> Decided {
        match self {
            Self::Directory(store) => match store.sync() {
                Ok(()) => Decided::Committed,
                Err(error) => Decided::Unknown(error),
            },
            Self::Sinks(log) => log.commit(progress).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::attempt;
    use super::*;
    use crate::operator::{Digest, Instance};
    use futures::FutureExt as _;

    #[test]
    fn what_the_directory_cannot_make_durable_is_in_doubt() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path(), "words").unwrap());
        let progress = Progress {
            version: 1,
            job: "words".into(),
            instance: Instance(uuid::Uuid::new_v4()),
            attempt: attempt(1),
            epoch: 0,
            manifest: Digest("0".into()),
            parent: None,
        };
        let log = Log::Directory(store.clone());
        assert_eq!(log.mode(), DecisionMode::Directory);
        assert!(matches!(log.commit(&progress).now_or_never(), Some(Decided::Committed)));
        std::fs::remove_dir_all(store.checkpoints()).unwrap();
        assert!(matches!(log.commit(&progress).now_or_never(), Some(Decided::Unknown(_))));
    }
}
