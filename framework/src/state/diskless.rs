//! The backend of builds without the cargo feature `rocksdb`: keeps nothing, so that stateless pipelines run and the
//! others compile. The one that keeps state is in `disk.rs`.

#![allow(dead_code)]

use super::backend::{Keys, OpenSpec, Report};
use super::snapshot::StateSnapshot;
use crate::{Attempt, Epoch, Error, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What the subtasks of one attempt share: nothing.
#[derive(Debug)]
pub(crate) struct StateEnv;

impl StateEnv {
    /// As `disk::StateEnv::start`; never fails.
    pub(crate) fn start(_: &Path, _: Attempt, _: usize) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self))
    }

    /// The backend of one operator's subtask.
    ///
    /// # Errors
    /// A refusal if there is state to restore.
    pub(crate) fn open(self: &Arc<Self>, spec: OpenSpec) -> Result<Backend, Error> {
        if spec.restore.iter().any(|s| s.base.is_some() || !s.deltas.is_empty()) {
            return Err(Error::refused(format!("the checkpoint holds state of `{}`, and {WITHOUT}", spec.operator)));
        }
        Ok(Backend { operator: spec.operator, groups: spec.groups, report: spec.report, lost: false })
    }

    /// Does nothing.
    pub(crate) fn shut_down(&self) {}
}

const WITHOUT: &str = "this program was built without RocksDB: build it with the cargo feature `rocksdb`";

/// Keeps nothing.
pub(crate) struct Backend {
    operator: String,
    groups: Range<u32>,
    report: Report,
    /// Whether a row was put, which no snapshot will hold.
    lost: bool,
}

impl Backend {
    /// Always.
    pub(crate) fn is_empty(&self) -> bool {
        true
    }

    /// Finds nothing.
    pub(crate) fn get_many(
        &mut self,
        _: &Keys,
        _: impl FnMut(usize, Epoch, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// Shows nothing.
    pub(crate) fn scan(
        &mut self,
        _: &[u8],
        _: &[u8],
        _: impl FnMut(&[u8], Epoch, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// Remembers that there was a row to keep: `finish` must not claim a snapshot without it.
    #[inline]
    pub(crate) fn put(
        &mut self,
        _: Epoch,
        _: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
        _: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.lost = true;
        Ok(())
    }

    /// An error, which says what to enable.
    pub(crate) fn spill(&mut self, _: Epoch, _: &[u8], _: &[u8]) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Usage, WITHOUT).at(format!("state of `{}`", self.operator)))
    }

    /// Reports an empty snapshot, or an error if a row was put since the start.
    pub(crate) fn finish(&mut self, epoch: Epoch, _: bool) -> Result<(), Error> {
        if self.lost {
            let error = Error::new(ErrorKind::Usage, WITHOUT).at(format!("state of `{}`", self.operator));
            (self.report)(epoch, Err(error));
            return Ok(());
        }
        let (operator, groups) = (self.operator.clone(), self.groups.clone());
        (self.report)(epoch, Ok(StateSnapshot { operator, groups, base: None, deltas: Vec::new() }));
        Ok(())
    }

    /// Always.
    pub(crate) fn may_forget(&self, _: Epoch) -> bool {
        true
    }

    /// Never.
    pub(crate) fn wants_whole(&mut self, _: u64) -> bool {
        false
    }

    /// Does nothing.
    pub(crate) fn decided(&mut self, _: Epoch) {}

    /// Never.
    pub(crate) fn may_drop(&mut self, _: Epoch) -> bool {
        false
    }
}
