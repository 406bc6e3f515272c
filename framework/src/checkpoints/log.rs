//! The directory as a decision log: the one of jobs whose sinks do not decide themselves. The coordinator knows only
//! the trait, so that a sink's own log takes its place without a change there.
//!
//! Here the manifest in place is the record: its number, identity and parent are those of R. What it lacks is the
//! instance, which a directory does not need: the lock says whose the job is.

use crate::Error;
use crate::checkpoints::store::Store;
use crate::operator::{Decided, DecisionLog, Instance, Progress};
use futures::future::LocalBoxFuture;
use std::sync::Arc;

/// Version of the records this log gives.
const VERSION: u32 = 1;

/// See the head of this file. Its calls block for as long as an fsync takes; they run on the coordinator's thread.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryLog {
    store: Arc<Store>,
    instance: Instance,
}

impl DirectoryLog {
    /// The log of a locked directory, for this life of the process.
    pub(crate) fn new(store: Arc<Store>, instance: Instance) -> Self {
        Self { store, instance }
    }

    /// The newest manifest that can be read; of equal numbers the smallest hash, as in `recover.rs`. What to restore is
    /// decided there, from more facts than this.
    fn newest(&self) -> Result<Option<Progress>, Error> {
        let listing = self.store.list()?;
        let newest = listing.intact().max_by(|(a, x), (b, y)| a.epoch.cmp(&b.epoch).then(y.cmp(x)));
        Ok(newest.map(|(manifest, digest)| Progress {
            version: VERSION,
            job: manifest.job.clone(),
            instance: self.instance,
            attempt: manifest.attempt,
            epoch: manifest.epoch,
            manifest: digest.clone(),
            parent: manifest.parent.clone(),
        }))
    }
}

impl DecisionLog for DirectoryLog {
    fn look<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>> {
        Box::pin(async move { self.newest() })
    }

    /// Nothing: who holds the lock is alone.
    fn fence<'a>(&'a self) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn read<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>> {
        Box::pin(async move { self.newest() })
    }

    /// The decision is the return of the directory's fsync, not the rename before it [H4]. If it fails nobody knows
    /// what is on the disk, and asking again would not tell: recovery does.
    fn commit<'a>(&'a self, _: &'a Progress) -> LocalBoxFuture<'a, Decided> {
        Box::pin(async move {
            match self.store.sync() {
                Ok(()) => Decided::Committed,
                Err(error) => Decided::Unknown(error),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::{attempt, manifest};
    use super::*;
    use futures::FutureExt as _;

    /// None of them waits for anything but the disk.
    fn block_on<T>(future: LocalBoxFuture<'_, T>) -> T {
        future.now_or_never().unwrap()
    }

    #[test]
    fn the_newest_manifest_is_the_record() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path(), "words").unwrap());
        let instance = Instance(uuid::Uuid::new_v4());
        let log = DirectoryLog::new(store.clone(), instance);
        block_on(log.fence()).unwrap();
        assert_eq!(block_on(log.read()).unwrap(), None);
        let parent = store.put_manifest(&manifest(0, 1, None, &[])).unwrap();
        let digest = store.put_manifest(&manifest(1, 2, Some(parent.clone()), &[])).unwrap();
        std::fs::write(store.checkpoints().join(format!("manifest-2-{}", attempt(2))), "damaged").unwrap();
        let record = block_on(log.read()).unwrap().unwrap();
        let (job, attempt, parent) = ("words".into(), attempt(2), Some(parent));
        assert_eq!(record, Progress { version: 1, job, instance, attempt, epoch: 1, manifest: digest, parent });
        assert_eq!(block_on(log.look()).unwrap().as_ref(), Some(&record));
        assert!(matches!(block_on(log.commit(&record)), Decided::Committed));
        std::fs::remove_dir_all(store.checkpoints()).unwrap();
        assert!(matches!(block_on(log.commit(&record)), Decided::Unknown(_)));
    }
}
