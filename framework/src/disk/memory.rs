//! A disk in memory, as bad as disks may be: what was not synced is lost with the power, or is not, each name and each
//! file for itself. A machine has one. What its processes do with it, and what fails then, is in `simulated.rs`.

use crate::random::Random;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

pub(super) fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

pub(super) const EIO: i32 = 5;
pub(super) const ENOENT: i32 = 2;
pub(super) const EEXIST: i32 = 17;
pub(super) const ENOTDIR: i32 = 20;
pub(super) const EISDIR: i32 = 21;
pub(super) const ENOSPC: i32 = 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(usize),
}

/// A change of names that is not durable yet. A rename is one.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Put(PathBuf, Node),
    Take(PathBuf),
    Move(PathBuf, PathBuf, Node),
}

impl Change {
    pub(super) fn is_in(&self, directory: &Path) -> bool {
        let (Self::Put(path, _) | Self::Take(path) | Self::Move(path, ..)) = self;
        path.parent() == Some(directory)
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Put(path, node) => _ = names.insert(path.clone(), *node),
            Self::Take(path) => _ = names.remove(path),
            Self::Move(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct Content {
    pub(super) now: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    /// A sync has failed: the next ones say that all is well.
    pub(super) dropped: bool,
}

#[derive(Debug, Default, Clone)]
pub(super) struct State {
    pub(super) names: BTreeMap<PathBuf, Node>,
    pub(super) durable: BTreeMap<PathBuf, Node>,
    pub(super) pending: Vec<Change>,
    pub(super) files: Vec<Content>,
    pub(super) locks: BTreeMap<PathBuf, u32>,
    /// The journal has failed: no name becomes durable any more.
    pub(super) broken: bool,
    /// Locks do not hold, as on some network file systems.
    pub(super) is_lockless: bool,
}

/// The disk of a machine. Clones are the same one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk(pub(super) Rc<RefCell<State>>);

impl Disk {
    /// Another machine's, with all that a copy made now would hold.
    pub(crate) fn copied(&self) -> Self {
        let mut state = self.0.borrow().clone();
        state.locks.clear();
        state.settle();
        Self(Rc::new(RefCell::new(state)))
    }

    /// The power is gone: what was not synced is there or not.
    pub(crate) fn lose_power(&self, random: &mut Random) {
        let state = &mut *self.0.borrow_mut();
        state.broken = false;
        state.locks.clear();
        let pending = std::mem::take(&mut state.pending);
        // all, none, what came first, or any
        let keep = random.below(4);
        let first = random.below(pending.len() as u64 + 1);
        for (i, change) in pending.iter().enumerate() {
            let kept = match keep {
                0 => false,
                1 => true,
                2 => (i as u64) < first,
                _ => random.one_in(2),
            };
            if kept {
                change.apply(&mut state.durable);
            }
        }
        let durable = &state.durable;
        let reached =
            |path: &Path| path.ancestors().skip(1).all(|a| durable.get(a) == Some(&Node::Directory) || is_root(a));
        state.names =
            durable.iter().filter(|(path, _)| reached(path)).map(|(path, node)| (path.clone(), *node)).collect();
        for file in &mut state.files {
            if Arc::ptr_eq(&file.now, &file.durable) {
                continue;
            }
            file.now = match random.below(4) {
                0 => file.durable.clone(),
                1 => file.now.clone(),
                2 => Arc::new(file.now[..random.below(file.now.len() as u64 + 1) as usize].to_vec()),
                _ => Arc::new(vec![0; file.now.len()]),
            };
        }
        state.settle();
    }

    /// A bit of a file is another one, if there is a file that `which` takes. Says which file.
    pub(crate) fn flip(&self, random: &mut Random, which: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let state = &mut *self.0.borrow_mut();
        let files = state.names.iter().filter_map(|(path, node)| match node {
            Node::File(file) if which(path) && !state.files[*file].now.is_empty() => Some((path, *file)),
            _ => None,
        });
        let files: Vec<_> = files.collect();
        let (path, file) = *files.get(random.below(files.len().max(1) as u64) as usize)?;
        let path = path.clone();
        let mut bytes = state.files[file].now.to_vec();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        state.files[file].now = Arc::new(bytes);
        state.files[file].durable = state.files[file].now.clone();
        Some(path)
    }

    /// Locks do not hold from now on.
    pub(crate) fn without_locks(&self) {
        self.0.borrow_mut().is_lockless = true;
    }

    /// All is as it was when the copy was made.
    pub(crate) fn put_back(&self, copy: &Self, below: &Path) {
        let (state, copy) = (&mut *self.0.borrow_mut(), copy.0.borrow());
        state.names.retain(|path, _| !path.starts_with(below));
        for (path, node) in copy.names.iter().filter(|(path, _)| path.starts_with(below)) {
            let node = match node {
                Node::Directory => Node::Directory,
                Node::File(file) => {
                    state.files.push(copy.files[*file].clone());
                    Node::File(state.files.len() - 1)
                }
            };
            state.names.insert(path.clone(), node);
        }
        state.settle();
    }

    /// Whether no name becomes durable any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.borrow().broken
    }

    /// What is in a file, if it is there.
    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.0.borrow();
        state.file(path).map_or_else(|_| Vec::new(), |file| state.files[file].now.to_vec())
    }

    /// The names of all files.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let state = self.0.borrow();
        state.names.iter().filter(|(_, node)| matches!(node, Node::File(_))).map(|(path, _)| path.clone()).collect()
    }
}

pub(super) fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}

impl State {
    /// What there is becomes durable.
    fn settle(&mut self) {
        self.durable = self.names.clone();
        self.pending.clear();
        for file in &mut self.files {
            file.durable = file.now.clone();
            file.dropped = false;
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Directory) => Err(error(EISDIR)),
            None if path.ancestors().any(|a| matches!(self.names.get(a), Some(Node::File(_)))) => Err(error(ENOTDIR)),
            None => Err(error(ENOENT)),
        }
    }

    /// The parent must be there.
    pub(super) fn in_directory(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if is_root(parent) || self.names.get(parent) == Some(&Node::Directory) => Ok(()),
            _ => Err(error(ENOENT)),
        }
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }
}
