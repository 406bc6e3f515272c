//! The state backend on RocksDB: what an operator's worker calls. What its calls mean is in `backend.rs`; how the
//! threads behind it work is in `writer.rs`, `syncer.rs` and `fold.rs`, what they share in `store.rs`.
//!
//! Memory of a process: the budget (see `rocks.rs`), a piece buffer of 256 KiB per subtask with a delta open (two while
//! a barrier is copied), 16 MiB of pieces under way and as many at most in the pool, the chunk of one fold, 32 MiB with
//! what sorting takes, and per subtask up to 128 KiB for restored deltas (`Limits::keep_bytes`; what is more is in the
//! budget). A restore takes one chunk, too, before folds begin, if it has no room for the index. Measured: 440 MB of
//! rows in four subtasks, a budget of 32 MiB: peak RSS 155 MiB, restores and rescales included.

use super::backend::{CHECKPOINTS, Keys, OpenSpec};
use super::delta::Piece;
use super::fold;
use super::restore;
use super::rocks::Tuning;
use super::scan::Run;
use super::store::{Limits, Shared, Store, lock, sync_directory};
use super::syncer::{self, SYNCERS};
use super::writer::{Job, Pool, QUEUE, Writer};
use crate::mutant::broken;
use crate::{Attempt, Epoch, Error, ErrorKind, disk, spawn};
use std::path::Path;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What the subtasks of one attempt share: settings, and the threads that write deltas and that fold.
pub(crate) struct StateEnv {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    deltas: SyncSender<Job>,
    /// At most one fold per subtask is in it.
    folds: Sender<Option<Arc<Store>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// In a simulation: what the threads would do.
    #[cfg(test)]
    hands: Option<Mutex<Hands>>,
}

/// What does the work of the threads in a simulation.
#[cfg(test)]
struct Hands {
    writer: Writer,
    deltas: Receiver<Job>,
    finished: Vec<Receiver<super::syncer::Finished>>,
    folds: Receiver<Option<Arc<Store>>>,
}

impl StateEnv {
    /// Makes the directories `live-<attempt>` and `checkpoints/state` below `data_dir`, and starts the threads.
    /// `budget_bytes` bounds what RocksDB keeps in memory.
    ///
    /// # Errors
    /// When the disk fails, or when there is no thread left to give.
    pub(crate) fn start(data_dir: &Path, attempt: Attempt, budget_bytes: usize) -> Result<Arc<Self>, Error> {
        #[cfg(test)]
        if disk::simulated::is_on() {
            // so small that folds and files come soon
            let limits = Limits { deltas: 2, bytes: 300, chunk_bytes: 1000, keep_bytes: 100 };
            return Self::start_with(data_dir, attempt, 12 << 10, limits);
        }
        Self::start_with(data_dir, attempt, budget_bytes, Limits::PRODUCTION)
    }

    pub(super) fn start_with(
        dir: &Path,
        attempt: Attempt,
        budget_bytes: usize,
        limits: Limits,
    ) -> Result<Arc<Self>, Error> {
        let live = dir.join(format!("live-{attempt}"));
        let checkpoints = dir.join(CHECKPOINTS);
        for path in [&live, &checkpoints.join("state")] {
            disk::create_dir_all(path).map_err(|e| Error::io(e, "make the directory", path))?;
        }
        sync_directory(&checkpoints)?;
        sync_directory(dir)?;
        let tuning = Arc::new(Tuning::new(budget_bytes)?);
        let shared = Arc::new(Shared {
            attempt,
            limits,
            tuning,
            checkpoints,
            live,
            stopped: false.into(),
            poison: Default::default(),
            stores: Default::default(),
        });
        let (deltas, delta_jobs) = sync_channel(QUEUE);
        let (folds, fold_jobs) = channel();
        let (pool, threads) = Default::default();
        #[cfg(test)]
        if disk::simulated::is_on() {
            let (syncers, finished) = (0..SYNCERS).map(|_| sync_channel(QUEUE)).unzip();
            let writer = Writer::new(Arc::clone(&shared), Arc::clone(&pool), syncers);
            let hands = Some(Mutex::new(Hands { writer, deltas: delta_jobs, finished, folds: fold_jobs }));
            return Ok(Arc::new(Self { shared, pool, deltas, folds, threads, hands }));
        }
        let env = Self {
            shared,
            pool,
            deltas,
            folds,
            threads,
            #[cfg(test)]
            hands: None,
        };
        env.start_threads(delta_jobs, fold_jobs)?;
        Ok(Arc::new(env))
    }

    /// In a simulation: writes and syncs what is to be, now, and folds a while later.
    #[cfg(test)]
    fn work(self: &Arc<Self>) {
        let Some(hands) = &self.hands else { return };
        let Hands { writer, deltas, finished, folds } = &mut *lock(hands);
        while let Ok(job) = deltas.try_recv() {
            writer.step(job);
            for finished in &*finished {
                let batch: Vec<_> = finished.try_iter().collect();
                if !batch.is_empty() {
                    syncer::step(&self.shared, batch.into_iter());
                }
            }
        }
        while let Ok(Some(store)) = folds.try_recv() {
            let shared = Arc::clone(&self.shared);
            drop(spawn::local(async move {
                let pause = disk::simulated::current().map_or(0, |mount| mount.draw() % 4000);
                tokio::time::sleep(std::time::Duration::from_micros(pause)).await;
                if !shared.is_stopped() {
                    fold::step(&store);
                }
            }));
        }
    }

    fn start_threads(&self, deltas: Receiver<Job>, folds: Receiver<Option<Arc<Store>>>) -> Result<(), Error> {
        let mut threads = lock(&self.threads);
        let mut syncers = Vec::new();
        for i in 0..SYNCERS {
            let (to, finished) = sync_channel(QUEUE);
            let shared = Arc::clone(&self.shared);
            threads.push(spawn::thread(format!("millstream-sync-{i}"), move || syncer::run(&shared, &finished))?);
            syncers.push(to);
        }
        let writer = Writer::new(Arc::clone(&self.shared), Arc::clone(&self.pool), syncers);
        threads.push(spawn::thread("millstream-delta", move || writer.run(&deltas))?);
        let shared = Arc::clone(&self.shared);
        threads.push(spawn::thread("millstream-fold", move || fold::run(&shared, &folds))?);
        Ok(())
    }

    /// The backend of one operator's subtask, restored. A fresh one touches no disk.
    ///
    /// # Errors
    /// A refusal if a file of the checkpoint is missing or damaged; when the disk fails.
    pub(crate) fn open(self: &Arc<Self>, spec: OpenSpec) -> Result<Backend, Error> {
        let place = format!("state of {}[{}]", spec.operator, spec.subtask);
        let store = restore::open(&self.shared, &spec).map_err(|e| e.at(place))?;
        let restored = {
            let chain = lock(&store.chain);
            chain.base.is_some() || !chain.deltas.is_empty()
        };
        Ok(Backend {
            store: Arc::new(store),
            env: Arc::clone(self),
            open: Default::default(),
            on_disk: restored,
            wanted: Vec::new(),
        })
    }

    /// Ends and joins the threads; what they have not done is left undone. Backends that are still there get errors.
    /// Again: nothing.
    pub(crate) fn shut_down(&self) {
        self.shared.stopped.store(true, Relaxed);
        let _ = self.deltas.send(Job::Stop);
        let _ = self.folds.send(None);
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the state backend has panicked");
            }
        }
    }
}

impl Drop for StateEnv {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// A delta that is being written; unused without entries.
#[derive(Default)]
struct OpenDelta {
    epoch: Epoch,
    entries: u64,
    piece: Piece,
}

/// The state of one operator's subtask, behind the row table.
pub(crate) struct Backend {
    store: Arc<Store>,
    env: Arc<StateEnv>,
    /// The frozen epoch's and the running one's.
    open: [OpenDelta; 2],
    /// See `is_empty`.
    on_disk: bool,
    wanted: Vec<usize>,
}

impl Backend {
    /// Whether nothing is on disk that is not in the table: nothing was restored, spilled or dropped. Then a miss needs
    /// no look-up.
    pub(crate) fn is_empty(&self) -> bool {
        !self.on_disk
    }

    /// Looks up all `keys`, in spill, then in base. `found` is given the index of each key that has a row, the epoch
    /// that last changed it (0 for rows of base) and the row; in no set order. Costs, with what is looked for in
    /// RocksDB's cache, 1 to 2 us per key, and a read of the disk without.
    ///
    /// # Errors
    /// When the disk fails or is damaged; what `found` returns.
    pub(crate) fn get_many(
        &mut self,
        keys: &Keys,
        mut found: impl FnMut(usize, Epoch, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.on_disk || keys.is_empty() {
            return Ok(());
        }
        let Self { store, wanted, .. } = self;
        wanted.clear();
        wanted.extend(0..keys.len());
        wanted.sort_unstable_by(|a, b| keys.get(*a).cmp(keys.get(*b)));
        let folded = store.folded();
        store.spill.get_many(keys, wanted, folded, |index, epoch, row| match row {
            [] => Ok(()),
            row => found(index, epoch, row),
        })?;
        if wanted.is_empty() {
            return Ok(());
        }
        // After `spill`, as the argument there demands, and in this order, for a fold makes the second, then closes the
        // first.
        let restored = lock(&store.restored);
        match restored.as_ref().or_else(|| store.base.get()) {
            Some(base) => base.get_many(keys, wanted, |index, row| found(index, 0, row).map(|()| true)),
            None => Ok(()),
        }
    }

    /// Shows the rows with keys in `from..to`, in their order, until `each` says false: key, the epoch that last
    /// changed the row (0 for rows of base), row. Folds wait meanwhile, so it is for some hundreds of rows at a time.
    /// Costs some 10 us, and less than 1 us per row with what is read in RocksDB's cache.
    ///
    /// # Errors
    /// When the disk fails or is damaged; what `each` returns.
    pub(crate) fn scan(
        &mut self,
        from: &[u8],
        to: &[u8],
        each: impl FnMut(&[u8], Epoch, &[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if !self.on_disk || from >= to {
            return Ok(());
        }
        let store = &self.store;
        let folded = store.folded();
        // the fold gives the restored base up after it has made its own, and before it removes what was spilled
        let restored = lock(&store.restored);
        let base = || restored.as_ref().or_else(|| store.base.get()).map(|rocks| Run::of_disk(rocks, from, to));
        store.spill.scan((from, to), folded, base, each)
    }

    /// Appends an entry to the delta of `epoch`, the frozen or the running one: the closures append key and row to a
    /// buffer, no row bytes saying that the row is gone. No allocation. Waits when the disk is slower than its callers.
    ///
    /// # Errors
    /// What the closures return; when two other epochs have not been finished; when the threads have ended.
    #[inline(always)]
    pub(crate) fn put(
        &mut self,
        epoch: Epoch,
        key: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
        row: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let [first, second] = &mut self.open;
        let delta = if first.epoch == epoch {
            first
        } else if second.epoch == epoch {
            second
        } else {
            begin(&mut self.open, epoch, &self.env.pool)?
        };
        delta.piece.put(key, row)?;
        delta.entries += 1;
        if delta.piece.is_full() {
            let piece = std::mem::replace(&mut delta.piece, self.env.pool.take());
            self.send(Job::Piece(Arc::clone(&self.store), epoch, piece))?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn send(&self, job: Job) -> Result<(), Error> {
        let sent = self.env.deltas.send(job).map_err(|_| {
            self.store.failure().unwrap_or_else(|| {
                Error::new(ErrorKind::Io, "the thread that writes deltas has ended").at(self.store.place())
            })
        });
        #[cfg(test)]
        self.env.work();
        sent
    }

    /// Keeps a row that leaves the table, and that `base` does not have as `epoch` left it. It is in no delta by that.
    /// No row bytes say that the row is gone. Some 50 ns while there is room in memory, then about 1 us.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn spill(&mut self, epoch: Epoch, key: &[u8], row: &[u8]) -> Result<(), Error> {
        self.on_disk = true;
        if broken("S4") {
            return Ok(());
        }
        self.store.spill.put(epoch, key, row)
    }

    /// All entries of `epoch` have been put: its delta becomes durable, then the snapshot is reported, from another
    /// thread, with the whole chain. At once, from within, if nothing has changed and no report is outstanding. Epochs
    /// are finished in their order.
    ///
    /// # Errors
    /// The failure of a thread behind; nothing is reported then.
    pub(crate) fn finish(&mut self, epoch: Epoch, whole: bool) -> Result<(), Error> {
        if let Some(error) = self.store.failure() {
            return Err(error);
        }
        let delta = self.open.iter_mut().find(|d| d.epoch == epoch && d.entries > 0).map(std::mem::take);
        if delta.is_none() && self.store.unreported.load(SeqCst) == 0 {
            if whole {
                self.store.folding.store(false, SeqCst);
            }
            (self.store.report)(epoch, Ok(self.store.snapshot()));
            return Ok(());
        }
        let OpenDelta { entries, piece, .. } = delta.unwrap_or_default();
        self.store.unreported.fetch_add(1, SeqCst);
        self.send(Job::Finish(Arc::clone(&self.store), epoch, piece, entries, whole))
    }

    /// Whether a row without content, which `epoch` made so, may leave the table and leave no trace: whatever will be
    /// folded has it, and nothing older of it is where misses are looked up, neither in `base` nor in `spill`.
    pub(crate) fn may_forget(&self, epoch: Epoch) -> bool {
        let store = &self.store;
        let unfolded = || !self.on_disk && store.base.get().is_none() && !store.folding.load(SeqCst);
        epoch <= store.folded() || (epoch <= store.decided.load(SeqCst) && unfolded())
    }

    /// Whether the delta of the epoch that ends now had better hold all rows, of about `bytes` bytes, and not only
    /// those it changed. Such a delta replaces the chain before it, which spares the folds of a small state that
    /// changes fast: it is rewritten with nearly every epoch anyway. To be asked only while the table holds every row;
    /// if the answer is yes, [`finish`](Self::finish) must say that the delta is whole.
    ///
    /// Not when there is a base, or a fold that makes one: what the chain says is gone would still be in it.
    pub(crate) fn wants_whole(&mut self, bytes: u64) -> bool {
        let Store { shared, chain, folding, base, restored, .. } = &*self.store;
        let Limits { bytes: most, deltas, .. } = shared.limits;
        if bytes > most || base.get().is_some() || lock(restored).is_some() {
            return false;
        }
        let is_long = {
            let chain = lock(chain);
            let written: u64 = chain.deltas.iter().map(|d| d.file.bytes).sum();
            chain.base.is_none() && (chain.deltas.len() >= deltas / 2 || written >= most / 2)
        };
        // keeps folds away until the delta has joined the chain
        is_long && folding.compare_exchange(false, true, SeqCst, SeqCst).is_ok()
    }

    /// `epoch` is decided: what it and those before it changed may go into `base`. Starts a fold if that is due and
    /// none is under way.
    pub(crate) fn decided(&mut self, epoch: Epoch) {
        let store = &self.store;
        store.decided.fetch_max(epoch, SeqCst);
        if store.folding.load(SeqCst) || !lock(&store.chain).is_due(epoch, &store.shared.limits) {
            return;
        }
        store.folding.store(true, SeqCst);
        // Fails only after the end of the attempt.
        let _ = self.env.folds.send(Some(Arc::clone(store)));
        #[cfg(test)]
        self.env.work();
    }

    /// Waits until no fold is under way.
    #[cfg(test)]
    pub(super) fn wait_for_fold(&self) {
        let end = crate::clock::now() + std::time::Duration::from_secs(20);
        while self.store.folding.load(SeqCst) && self.store.failure().is_none() {
            assert!(crate::clock::now() < end, "the fold does not end");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// All changes of epochs up to this one are in `base`.
    #[cfg(test)]
    fn folded(&self) -> Epoch {
        self.store.folded()
    }

    /// Whether a row that `epoch` changed last may leave the table without being spilled. The caller drops it if so,
    /// and from then on misses are looked up.
    #[inline]
    pub(crate) fn may_drop(&mut self, epoch: Epoch) -> bool {
        let may = epoch <= self.store.folded();
        self.on_disk |= may;
        may
    }
}

/// Takes an unused delta for `epoch`.
#[cold]
#[inline(never)]
fn begin<'a>(open: &'a mut [OpenDelta; 2], epoch: Epoch, pool: &Pool) -> Result<&'a mut OpenDelta, Error> {
    let [first, second] = open;
    let others = format!("{} and {}", first.epoch, second.epoch);
    let Some(free) = [first, second].into_iter().find(|d| d.entries == 0) else {
        return Err(Error::new(ErrorKind::Failed, format!("a row of epoch {epoch} while {others} are not finished")));
    };
    *free = OpenDelta { epoch, entries: 0, piece: pool.take() };
    Ok(free)
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod tests;
