//! A process of a simulation as the disk sees it: a [`Mount`], in place while it is the process's turn
//! ([`Mount::within`]). It can be told to let the process die at one of its next calls, before or after what that does;
//! a dead process changes nothing more, whatever it still tries.

pub(crate) use super::memory::Disk;
use super::memory::{Change, Content, EEXIST, EIO, EISDIR, ENOENT, ENOSPC, ENOTDIR, Node, State, error, is_root};
use crate::mutant::broken;
use crate::random::Random;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Mount>>> = const { RefCell::new(None) };
    /// What happens, if it is written down.
    static TRACE: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on what happens in simulations of this thread is written down; gives what was so far.
pub(crate) fn trace(on: bool) -> Vec<String> {
    TRACE.replace(on.then(Vec::new)).unwrap_or_default()
}

/// Writes down what happens.
pub(crate) fn note(what: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            let who = current().map_or_else(|| "the world".to_owned(), |mount| format!("process {}", mount.pid));
            trace.push(format!("{who}: {}", what()));
        }
    });
}

/// What `call` does on the disk of the process whose turn it is, if this is a simulation.
pub(super) fn with<T>(call: impl FnOnce(&Rc<Mount>) -> T) -> Option<T> {
    let mount = CURRENT.with_borrow(Clone::clone)?;
    Some(call(&mount))
}

/// Whether this is a simulation.
pub(crate) fn is_on() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// The mount of the process whose turn it is.
pub(crate) fn current() -> Option<Rc<Mount>> {
    CURRENT.with_borrow(Clone::clone)
}

/// One process's way to a disk.
#[derive(Debug)]
pub(crate) struct Mount {
    disk: Disk,
    pub(crate) pid: u32,
    dead: Cell<bool>,
    /// How many more changes of the disk, polls of its tasks and calls of the broker until it dies.
    changes: Cell<Option<u64>>,
    polls: Cell<Option<u64>>,
    calls: Cell<Option<u64>>,
    /// Of how many changes one fails; none fails at 0.
    failures: Cell<u64>,
    /// It has got beyond its first recovery.
    has_created: Cell<bool>,
    random: RefCell<Random>,
}

/// Whether a fuse is at its end.
fn burns(fuse: &Cell<Option<u64>>) -> bool {
    let left = fuse.get();
    fuse.set(left.and_then(|n| n.checked_sub(1)));
    left == Some(0)
}

/// A task of a simulated process: now and then it is not its turn, and when the process dies it never is again.
pub(crate) async fn shaken<F: Future>(task: F, mount: Rc<Mount>) -> F::Output {
    let mut task = pin!(task);
    poll_fn(|cx| {
        if burns(&mount.polls) {
            note(|| "dies".into());
            mount.kill();
        }
        if mount.is_dead() {
            return Poll::Pending;
        }
        if mount.one_in(4) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        task.as_mut().poll(cx)
    })
    .await
}

impl Mount {
    /// A new process.
    pub(crate) fn new(disk: &Disk, pid: u32, random: Random) -> Rc<Self> {
        let (dead, failures, changes, polls, calls, has_created) = Default::default();
        Rc::new(Self {
            disk: disk.clone(),
            pid,
            dead,
            failures,
            changes,
            polls,
            calls,
            has_created,
            random: random.into(),
        })
    }

    /// It is this process's turn.
    pub(crate) fn within<T>(self: &Rc<Self>, call: impl FnOnce() -> T) -> T {
        struct Back(Option<Rc<Mount>>);
        impl Drop for Back {
            fn drop(&mut self) {
                CURRENT.replace(self.0.take());
            }
        }
        let _back = Back(CURRENT.replace(Some(self.clone())));
        call()
    }

    /// It dies at so many changes from now.
    pub(crate) fn die_at_change(&self, n: u64) {
        self.changes.set(Some(n));
    }

    /// It dies when its tasks have gone on so many times.
    pub(crate) fn die_at_poll(&self, n: u64) {
        self.polls.set(Some(n));
    }

    /// It dies at so many calls of the broker from now, before or after what one does.
    pub(crate) fn die_at_call(&self, n: u64) {
        self.calls.set(Some(n));
    }

    /// It calls the broker, or has been answered: whether it is dead.
    pub(crate) fn dies(&self) -> bool {
        if burns(&self.calls) {
            self.kill();
        }
        self.is_dead()
    }

    /// One of so many changes fails; none at 0.
    pub(crate) fn fail_one_in(&self, changes: u64) {
        self.failures.set(changes);
    }

    /// It is dead from now on.
    pub(crate) fn kill(&self) {
        self.dead.set(true);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// Draws from the randomness of the process.
    pub(crate) fn draw(&self) -> u64 {
        self.random.borrow_mut().next()
    }

    /// True once in so many times.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.random.borrow_mut().one_in(n)
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> io::Result<T>) -> io::Result<T> {
        if self.is_dead() {
            return Err(error(EIO));
        }
        look(&self.disk.0.borrow())
    }

    /// A call that changes something; `part` is what it does if it fails half way.
    fn change<T>(
        &self,
        (what, path): (&str, &Path),
        change: impl FnOnce(&mut State) -> io::Result<T>,
        part: impl FnOnce(&mut State),
    ) -> io::Result<T> {
        let dies = burns(&self.changes);
        let said = |how: &str| note(|| format!("{what} {}{how}", path.display()));
        if self.is_dead() || (dies && self.one_in(2)) {
            if !self.is_dead() {
                said(": dies before");
            }
            self.kill();
            return Err(error(EIO));
        }
        let state = &mut *self.disk.0.borrow_mut();
        let failures = self.failures.get();
        if failures > 0 && self.one_in(failures) {
            said(": fails");
            part(state);
            return Err(error(if what.starts_with("sync") { EIO } else { ENOSPC }));
        }
        let done = change(state);
        said(match &done {
            _ if dies => ": dies after",
            Ok(_) => "",
            Err(_) => ": error",
        });
        if dies {
            self.kill();
        }
        done
    }

    /// Whether the fsync of this directory is the one that a broken rule leaves out.
    fn forgets(&self, directory: &Path) -> bool {
        let holds_manifests = directory.ends_with("checkpoints");
        let recovers = !self.has_created.get();
        if recovers { broken("H5") } else { holds_manifests && (broken("M1") || broken("H4")) }
    }

    pub(super) fn create(self: &Rc<Self>, path: &Path, new: bool) -> io::Result<Handle> {
        self.has_created.set(true);
        let file = self.change(
            ("create", path),
            |state| {
                state.in_directory(path)?;
                match state.file(path) {
                    Ok(_) if new => Err(error(EEXIST)),
                    Ok(file) => {
                        state.files[file].now = Arc::default();
                        Ok(file)
                    }
                    Err(e) if e.raw_os_error() == Some(ENOENT) => {
                        state.files.push(Content::default());
                        let file = state.files.len() - 1;
                        state.change(Change::Put(path.into(), Node::File(file)));
                        Ok(file)
                    }
                    Err(e) => Err(e),
                }
            },
            |_| {},
        )?;
        Ok(Handle { path: path.into(), file, at: 0 })
    }

    pub(super) fn open(self: &Rc<Self>, path: &Path) -> io::Result<Handle> {
        let file = self.look(|state| state.file(path))?;
        Ok(Handle { path: path.into(), file, at: 0 })
    }

    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.look(|state| Ok(state.files[state.file(path)?].now.to_vec()))
    }

    pub(super) fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.look(|state| {
            if !is_root(directory) && state.names.get(directory) != Some(&Node::Directory) {
                return Err(error(ENOENT));
            }
            let below =
                state.names.range(directory.to_path_buf()..).take_while(|(path, _)| path.starts_with(directory));
            let children = below.filter(|(path, _)| path.parent() == Some(directory));
            Ok(children.filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned())).collect())
        })
    }

    pub(super) fn is_dir(&self, path: &Path) -> io::Result<bool> {
        self.look(|state| match state.names.get(path) {
            Some(node) => Ok(*node == Node::Directory),
            None => Err(error(ENOENT)),
        })
    }

    pub(super) fn exists(&self, path: &Path) -> io::Result<bool> {
        self.look(|state| Ok(state.names.contains_key(path)))
    }

    pub(super) fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change(
            ("create_dir", path),
            |state| {
                if state.names.contains_key(path) {
                    return Err(error(EEXIST));
                }
                state.in_directory(path)?;
                state.change(Change::Put(path.into(), Node::Directory));
                Ok(())
            },
            |_| {},
        )
    }

    pub(super) fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<_> =
            path.ancestors().take_while(|p| !is_root(p) && !self.is_dir(p).unwrap_or(false)).collect();
        missing.into_iter().rev().try_for_each(|path| self.create_dir(path))
    }

    pub(super) fn len(&self, path: &Path) -> io::Result<u64> {
        self.look(|state| Ok(state.files[state.file(path)?].now.len() as u64))
    }

    pub(super) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(
            ("link", to),
            |state| {
                let file = state.file(from)?;
                if state.names.contains_key(to) {
                    return Err(error(EEXIST));
                }
                state.in_directory(to)?;
                state.change(Change::Put(to.into(), Node::File(file)));
                Ok(())
            },
            |_| {},
        )
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(
            ("rename", to),
            |state| {
                let file = state.file(from)?;
                state.change(Change::Move(from.into(), to.into(), Node::File(file)));
                Ok(())
            },
            |_| {},
        )
    }

    pub(super) fn remove(&self, path: &Path, all: bool) -> io::Result<()> {
        self.change(
            ("remove", path),
            |state| {
                if all != (state.names.get(path).ok_or_else(|| error(ENOENT))? == &Node::Directory) {
                    return Err(error(if all { ENOTDIR } else { EISDIR }));
                }
                let paths: Vec<_> = state.names.keys().filter(|p| p.starts_with(path)).cloned().collect();
                paths.into_iter().rev().for_each(|path| state.change(Change::Take(path)));
                Ok(())
            },
            |_| {},
        )
    }

    pub(super) fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.change(
            ("sync_dir", directory),
            |state| {
                if state.broken {
                    return Err(error(EIO));
                }
                if self.forgets(directory) {
                    return Ok(());
                }
                let State { pending, durable, .. } = state;
                pending.extract_if(.., |change| change.is_in(directory)).for_each(|change| change.apply(durable));
                Ok(())
            },
            |state| state.broken = true,
        )
    }

    /// Takes a lock; false if another process has it.
    pub(super) fn lock(&self, path: &Path) -> io::Result<bool> {
        self.look(|_| Ok(()))?;
        let state = &mut *self.disk.0.borrow_mut();
        let holder = *state.locks.entry(path.into()).or_insert(self.pid);
        Ok(holder == self.pid || state.is_lockless)
    }

    pub(super) fn unlock(&self, path: &Path) {
        let locks = &mut self.disk.0.borrow_mut().locks;
        if locks.get(path) == Some(&self.pid) {
            locks.remove(path);
        }
    }
}

/// An open file, of the process whose turn it is.
#[derive(Debug)]
pub(crate) struct Handle {
    path: PathBuf,
    file: usize,
    at: usize,
}

fn gone<T>() -> io::Result<T> {
    Err(error(EIO))
}

impl Handle {
    fn look<T>(&self, look: impl FnOnce(&[u8]) -> io::Result<T>) -> io::Result<T> {
        with(|mount| mount.look(|state| look(&state.files[self.file].now))).unwrap_or_else(gone)
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.look(|bytes| Ok(bytes.len() as u64))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let sync = |mount: &Rc<Mount>| {
            mount.change(
                ("sync", &self.path),
                |state| {
                    let name = self.path.to_string_lossy();
                    let forgotten = (broken("M2") && name.contains("/tmp-manifest-"))
                        || (broken("S1") && name.contains("/delta-"))
                        || (broken("S2") && name.contains("/base-"));
                    let file = &mut state.files[self.file];
                    if !file.dropped && !forgotten {
                        file.durable = file.now.clone();
                    }
                    Ok(())
                },
                |state| state.files[self.file].dropped = true,
            )
        };
        with(sync).unwrap_or_else(gone)
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.look(|bytes| {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let n = rest.len().min(into.len());
            into[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        })?;
        self.at += n;
        Ok(n)
    }

    pub(super) fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.look(|bytes| {
            let rest = bytes.get(at as usize..).and_then(|rest| rest.get(..into.len()));
            into.copy_from_slice(rest.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file;
        let append = |state: &mut State, bytes: &[u8]| Arc::make_mut(&mut state.files[file].now).extend(bytes);
        let write = |mount: &Rc<Mount>| {
            let part = mount.draw() as usize % (bytes.len() + 1);
            mount.change(
                ("write", &self.path),
                |state| {
                    append(state, bytes);
                    Ok(bytes.len())
                },
                |state| append(state, &bytes[..part]),
            )
        };
        with(write).unwrap_or_else(gone)
    }
}
