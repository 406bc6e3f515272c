//! One attempt: recovers, starts the workers, and carries out what the coordinator commands until the end. The
//! decisions are in `checkpoints/protocol.rs`, pure; here are the hands.

use super::control::{Asked, Control};
use super::metrics::Meters;
use super::ownership::{self, Right};
use super::recovery::{self, Recovered};
use super::status::Phase;
use super::wiring::{Common, Switchboard, reads_ahead, wire};
use super::worker::{self, Shared, Worker};
use crate::checkpoints::{
    Command, Coordinator, Event, Head, Log, Manifest, Part, Participant, Removal, Restore, Settings, SplitSnapshot,
    Store, collect,
};
use crate::config::{self, Budget};
use crate::failpoint::failpoint;
use crate::mutant::broken;
use crate::operator::{Decided, Digest, Instance, Progress, Visible};
use crate::state::backend::StateEnv;
use crate::subtask::{self, Assignment, Report, Reports, Suspect};
use crate::topology::{Kind, Plan};
use crate::{Attempt, Epoch, Error, ErrorKind, Job, clock};
use serde_json::Value;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// What the user ordered. Once the first checkpoint is finished the order has been carried out, and recoveries in place
/// resume from the newest.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) restore: Restore,
    pub(crate) allow_duplicates: bool,
    /// What ended the attempt before, as far as that is known.
    pub(crate) suspect: Option<Arc<Suspect>>,
}

/// What all attempts of a process share.
pub(crate) struct Session {
    pub(crate) job: Job,
    pub(crate) store: Arc<Store>,
    pub(crate) instance: Instance,
    pub(crate) right: Cell<Right>,
    pub(crate) control: Control,
}

impl Session {
    /// That of a process which holds the directory and has fenced nobody.
    pub(crate) fn new(job: Job, store: Store, control: Control) -> Self {
        let (instance, right) = (Instance(crate::message::draw()), Cell::new(Right::None));
        Self { job, store: Arc::new(store), instance, right, control }
    }

    /// The record that decides a checkpoint.
    pub(crate) fn record(
        &self,
        attempt: Attempt,
        epoch: Epoch,
        (manifest, parent): (Digest, Option<Digest>),
    ) -> Progress {
        let (job, instance) = (self.job.name.clone(), self.instance);
        Progress { version: Progress::VERSION, job, instance, attempt, epoch, manifest, parent }
    }
}

/// A job that has decided nothing for so long looks whether it is still its own: whoever takes over one that has
/// nothing to do shows in no other way.
const WATCH: Duration = Duration::from_secs(2);

/// How long a job that was asked to stop may take to begin, before it is stopped without.
const GRACE: Duration = Duration::from_secs(3);

/// Runs one attempt to its end.
pub(crate) async fn run(session: &Session, order: &mut Order) -> Result<(), Error> {
    let (job, store, suspect) = (&session.job, &session.store, order.suspect.take());
    let plan = job.plan()?;
    plan.graph.read_secrets()?;
    let attempt = Attempt::draw();
    let prepare = async {
        // who holds the sources' splits and who holds the sinks' log need not wait for each other
        let listing = store.list()?;
        let likely = known_splits(&plan, order.restore.likely(&listing).map(|(manifest, _)| manifest));
        let listed = async { Ok(list_splits(&plan, &likely).await) };
        let (recovered, listed) =
            futures::try_join!(recovery::recover_job(session, &plan, attempt, order, listing), listed)?;
        let restored = recovered.manifest.as_ref().map(|m| m.epoch);
        tracing::info!(job = %job.name, restored, first = recovered.first, "recovered");
        let known = known_splits(&plan, recovered.manifest.as_deref());
        let listed = if known == likely { listed? } else { list_splits(&plan, &known).await? };
        let splits = deal(&plan, recovered.manifest.as_deref(), listed);
        Ok::<_, Error>((recovered, splits))
    };
    let (recovered, splits) = tokio::select! {
        biased;
        prepared = prepare => prepared?,
        error = session.control.aborted() => return Err(error),
        () = stopped_for(&session.control, GRACE) => {
            tracing::info!(job = %job.name, "asked to stop before it could begin: nothing was read");
            return Ok(());
        }
    };
    let budget = job.settings.budget(plan.graph.nodes.iter().any(|node| reads_ahead(&node.kind)));
    let is_keyed = plan.graph.nodes.iter().any(|node| matches!(node.kind, Kind::Process(_)));
    let state = is_keyed.then(|| StateEnv::start(store.data_dir(), attempt, budget.storage)).transpose()?;
    let done = match Running::start(session, plan, attempt, recovered, splits, (state.clone(), budget), suspect) {
        Ok(running) => running.run(order).await,
        Err(error) => Err(error),
    };
    state.iter().for_each(|state| state.shut_down());
    if state.is_some() && done.is_ok() {
        // nothing points to it any more; after a failure it may help to find out why, until the next start
        let live = store.live(attempt);
        if let Err(error) = std::fs::remove_dir_all(&live) {
            tracing::debug!(%error, "could not remove {}", live.display());
        }
    }
    done
}

/// Until a job that was asked to stop has had so long to begin: a source may be waiting for a server.
async fn stopped_for(control: &Control, grace: Duration) {
    control.stopped().await;
    tokio::time::sleep(grace).await;
}

/// Splits of each source, by the number of its node.
type SplitsOf<T> = BTreeMap<usize, Vec<T>>;

/// What a checkpoint has of the sources.
fn restored_splits(plan: &Plan, manifest: Option<&Manifest>) -> SplitsOf<Assignment> {
    let sources = plan.graph.nodes.iter().enumerate().filter(|(_, node)| matches!(node.kind, Kind::Source(_)));
    let restored = sources.map(|(i, node)| {
        let known = manifest.and_then(|m| m.sources.iter().find(|s| Some(&s.name) == node.name.as_ref()));
        (i, known.iter().flat_map(|s| &s.splits).map(restored).collect())
    });
    restored.collect()
}

fn known_splits(plan: &Plan, manifest: Option<&Manifest>) -> SplitsOf<Value> {
    let names = |splits: Vec<Assignment>| splits.into_iter().map(|known| known.split).collect();
    restored_splits(plan, manifest).into_iter().map(|(i, splits)| (i, names(splits))).collect()
}

/// Asks all sources which splits there are.
async fn list_splits(plan: &Plan, known: &SplitsOf<Value>) -> Result<SplitsOf<Value>, Error> {
    let mut listed = BTreeMap::new();
    for (i, node) in plan.graph.nodes.iter().enumerate() {
        let (Kind::Source(source), Some(name)) = (&node.kind, &node.name) else { continue };
        let splits = source.splits(known.get(&i).cloned().unwrap_or_default()).await;
        listed.insert(i, splits.map_err(|e| Error::from_user(e, format!("source `{name}`")))?);
    }
    Ok(listed)
}

/// All splits of each source, those the checkpoint knows and those that are new, dealt to its subtasks.
fn deal(plan: &Plan, manifest: Option<&Manifest>, listed: SplitsOf<Value>) -> BTreeMap<usize, Vec<Vec<Assignment>>> {
    let mut dealt = restored_splits(plan, manifest);
    for (i, listed) in listed {
        let splits = dealt.entry(i).or_default();
        let mut known: BTreeSet<_> = splits.iter().map(|known| known.split.to_string()).collect();
        let new = listed.into_iter().filter(|split| known.insert(split.to_string()));
        splits.extend(new.map(|split| Assignment { split, ..Assignment::default() }));
    }
    let among = |i, splits: Vec<Assignment>| {
        let mut subtasks = vec![Vec::new(); plan.parallelism(i)];
        let n = subtasks.len();
        splits.into_iter().enumerate().for_each(|(at, split)| subtasks[at % n].push(split));
        subtasks
    };
    dealt.into_iter().map(|(i, splits)| (i, among(i, splits))).collect()
}

fn restored(split: &SplitSnapshot) -> Assignment {
    let SplitSnapshot { split, offset, times, .. } = split.clone();
    Assignment { split, from: Some(offset), times }
}

/// When checkpoints are taken.
fn timing(settings: &config::Settings) -> Settings {
    Settings {
        interval: settings.checkpoint_interval,
        min_pause: settings.checkpoint_pause,
        timeout: settings.checkpoint_timeout,
        tolerated_failures: settings.tolerated_timeouts,
    }
}

/// An attempt under way.
struct Running<'a> {
    session: &'a Session,
    shared: Arc<Shared>,
    meters: Meters,
    board: Switchboard,
    reports: mpsc::UnboundedReceiver<Report>,
    gone: watch::Sender<bool>,
    workers: Vec<Worker>,
    coordinator: Coordinator,
    log: Log,
    /// When to look next whose the job is.
    watch: Instant,
    start: Instant,
    /// Those that are not ready yet.
    missing: usize,
    parts: Vec<Part>,
    /// The manifest of the checkpoint under way, then of the newest.
    newest: Option<Digest>,
    parent: Option<Digest>,
    /// Only where a rule is broken on purpose: it is still to be written.
    late: Option<Manifest>,
    uncleaned: Vec<(usize, Visible)>,
    _removal: Removal,
    /// Answers to commands, which come before anything from outside.
    answers: VecDeque<Event>,
    /// Who waits for a checkpoint: for which one, once its barrier is sent.
    asked: Vec<(Option<Epoch>, Asked)>,
    /// Where the error came from that ends this attempt.
    suspect: Option<Arc<Suspect>>,
    over: Option<Result<(), Error>>,
}

impl<'a> Running<'a> {
    fn start(
        session: &'a Session,
        plan: Plan,
        attempt: Attempt,
        recovered: Recovered,
        splits: BTreeMap<usize, Vec<Vec<Assignment>>>,
        (state, budget): (Option<Arc<StateEnv>>, Budget),
        suspect: Option<Arc<Suspect>>,
    ) -> Result<Self, Error> {
        let (to, reports) = mpsc::unbounded_channel();
        let settings = &session.job.settings;
        let mut common = Common::new(&plan, &session.job.name, attempt, recovered.first, budget, Reports(to));
        common.suspect = suspect;
        session.control.begin(recovered.manifest.as_ref().map(|m| m.epoch), common.operators(&plan));
        let keyed = common.keyed(&plan);
        let meters = Meters::new(&plan, &common, settings.workers());
        let (participants, missing) = (common.participants.sorted(&plan), common.participants.len());
        let gates = recovered.manifest.as_ref().map_or(&[][..], |m| &m.gates);
        let (specs, board) = wire(&plan, splits, gates, settings.watermark_drift);
        let shared = Arc::new(Shared {
            plan,
            common,
            state,
            operators: recovered.operators,
            restored: recovered.manifest.as_ref().map(|m| m.epoch),
            items: recovered.manifest.as_ref().map(|m| m.items.clone()).unwrap_or_default(),
            checkpoints: session.store.checkpoints().to_owned(),
            snapshots: recovered.manifest.as_ref().map(|m| m.states.clone()).unwrap_or_default(),
            cache_bytes: budget.rows / keyed.max(1),
            cache_rows: settings.cache_rows,
        });
        let (gone, _) = watch::channel(false);
        let mut running = Self {
            session,
            shared: shared.clone(),
            meters,
            board,
            reports,
            gone,
            workers: Vec::new(),
            coordinator: Coordinator::new(timing(settings), participants, recovered.start),
            log: recovered.log,
            watch: clock::now() + WATCH,
            start: clock::now(),
            missing,
            parts: Vec::new(),
            newest: recovered.digest,
            parent: None,
            late: None,
            uncleaned: recovered.uncleaned,
            _removal: recovered.removal,
            answers: VecDeque::new(),
            asked: Vec::new(),
            suspect: None,
            over: None,
        };
        let n = settings.workers();
        let mut pinned: Vec<Vec<_>> = (0..n).map(|_| Vec::new()).collect();
        for spec in specs {
            pinned[spec.subtask % n].push(spec);
        }
        for (number, subtasks) in pinned.into_iter().enumerate().filter(|(_, subtasks)| !subtasks.is_empty()) {
            running.workers.push(worker::start(number, shared.clone(), subtasks, running.gone.subscribe())?);
        }
        Ok(running)
    }

    /// Until all is over; joins the workers whatever happened.
    async fn run(mut self, order: &mut Order) -> Result<(), Error> {
        let mut stop_seen = false;
        while self.over.is_none() {
            let event = match self.answers.pop_front() {
                Some(event) => Some(event),
                None => self.next(&mut stop_seen).await,
            };
            let Some(event) = event else { continue };
            for command in self.coordinator.step(clock::since(self.start), event) {
                if let Err(error) = self.obey(command).await {
                    self.over.get_or_insert(Err(error));
                }
            }
            if self.coordinator.finished().is_some() {
                order.restore = Restore::Latest;
            }
        }
        order.suspect = self.suspect.take();
        let over = self.over.take().unwrap_or(Ok(()));
        let over = self.unless_superseded(over).await;
        if let Err(error) = &over {
            let text = "the attempt failed before the checkpoint was decided: ask again";
            let failed = Error::new(ErrorKind::Failed, text).because(error.clone());
            self.asked.drain(..).for_each(|(_, asked)| drop(asked.send(Err(failed.clone()))));
        }
        self.leave(over.is_ok()).await;
        self.meters.publish();
        over
    }

    /// Before a refusal ends a process that does not know it: another instance may have taken the job over, and what is
    /// missing here is what that one has collected.
    async fn unless_superseded(&self, over: Result<(), Error>) -> Result<(), Error> {
        match (&over, &self.log) {
            (Err(error), Log::Sinks(log)) if error.kind() == ErrorKind::Refused => match log.look().await {
                Ok(newest) => ownership::superseded(self.session, newest.as_ref()).and(over),
                Err(_) => over,
            },
            _ => over,
        }
    }

    /// Tells those who wait for this checkpoint, or for any if `all`, that it is decided and its output committed.
    fn answer(&mut self, epoch: Epoch, all: bool) {
        for (_, asked) in self.asked.extract_if(.., |(of, _)| all || *of == Some(epoch)) {
            // who does not wait any more needs no answer
            let _ = asked.send(Ok(epoch));
        }
    }

    /// Ends the workers, in good order or at once, and joins them.
    async fn leave(&mut self, in_order: bool) {
        if in_order {
            self.board.all(&subtask::Command::End);
        } else {
            let _ = self.gone.send(true);
        }
        for worker in self.workers.drain(..) {
            worker.join().await;
        }
    }

    /// Waits for what happens next.
    async fn next(&mut self, stop_seen: &mut bool) -> Option<Event> {
        let deadline = self.coordinator.deadline().map(|at| tokio::time::Instant::from_std(self.start + at));
        let tick = async move {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let watch = async {
            tokio::time::sleep_until(self.watch.into()).await;
            self.log.look().await
        };
        let publish = tokio::time::sleep_until(self.meters.due().into());
        tokio::select! {
            biased;
            report = self.reports.recv() => match report {
                Some(report) => self.take(report),
                None => {
                    self.over = Some(Err(Error::new(ErrorKind::Failed, "all workers have left")));
                    None
                }
            },
            error = self.session.control.aborted() => {
                self.over = Some(Err(error));
                None
            }
            () = self.session.control.stopped(), if !*stop_seen => {
                *stop_seen = true;
                self.session.control.phase(Phase::Stopping);
                Some(Event::Stop)
            }
            asked = self.session.control.asked() => {
                self.asked.extend(asked.into_iter().map(|asked| (None, asked)));
                Some(Event::Trigger)
            }
            () = tick => Some(Event::Tick),
            newest = watch => {
                self.watch = clock::now() + WATCH;
                match newest {
                    Ok(newest) => self.over = ownership::superseded(self.session, newest.as_ref()).err().map(Err),
                    Err(error) => tracing::debug!(%error, "cannot look whose the job is"),
                }
                None
            }
            () = publish => {
                self.meters.publish();
                None
            }
        }
    }

    /// What a report means to the coordinator.
    fn take(&mut self, report: Report) -> Option<Event> {
        match report {
            Report::Ready => {
                self.missing -= 1;
                (self.missing == 0).then_some(Event::Ready)
            }
            Report::Part { participant, epoch, part } => {
                self.parts.push(part);
                Some(Event::Ack { epoch, participant: Participant(participant) })
            }
            Report::Gate { operator, watermark } => {
                self.parts.push(Part::Gate { operator: operator.to_string(), watermark });
                None
            }
            Report::Committed { participant, epoch } => {
                Some(Event::Committed { epoch, participant: Participant(participant) })
            }
            Report::Progress => Some(Event::Progress),
            Report::Owing => Some(Event::Owing),
            Report::Ended(participant) => Some(Event::Ended { participant: Participant(participant) }),
            Report::Suspect(suspect) => {
                self.suspect = Some(Arc::new(suspect));
                None
            }
            Report::Failed(error) => {
                self.over = Some(Err(error));
                None
            }
        }
    }

    /// Carries a command out.
    async fn obey(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Barrier(epoch) => {
                failpoint("checkpoint-barrier");
                self.session.control.barrier();
                self.meters.barrier();
                self.asked.iter_mut().for_each(|(of, _)| _ = of.get_or_insert(epoch));
                self.parts.clear();
                self.board.all(&subtask::Command::Barrier(epoch));
            }
            Command::WriteManifest(epoch) => {
                failpoint("checkpoint-acked");
                self.meters.durable();
                self.write(epoch)?;
                failpoint("checkpoint-written");
            }
            Command::Commit(epoch) => self.commit(epoch).await?,
            Command::Finish(epoch) => self.board.all(&subtask::Command::Decided(epoch)),
            Command::Collect(epoch) => {
                failpoint("checkpoint-finished");
                self.answer(epoch, false);
                self.meters.committed();
                self.collect(epoch).await?;
            }
            Command::Covered(epoch) => self.answer(epoch, true),
            Command::Run => {
                self.session.control.phase(Phase::Running);
                self.board.sources(&subtask::Command::Run);
            }
            Command::Warn(text) => tracing::warn!("{text}"),
            Command::Fail(error) => return Err(error),
            Command::End => self.over = Some(Ok(())),
        }
        Ok(())
    }

    /// 4. Writes the manifest.
    fn write(&mut self, epoch: Epoch) -> Result<(), Error> {
        let common = &self.shared.common;
        let head = Head {
            job: common.job.to_string(),
            epoch,
            attempt: common.attempt,
            parent: self.newest.clone(),
            decision: self.log.mode(),
            created_ms: clock::wall_ms(),
            topology: self.shared.plan.graph.fingerprint(),
            key_groups: common.key_groups,
            operators: self.shared.operators.clone(),
        };
        let manifest = Manifest::assemble(head, self.parts.drain(..))?;
        let digest = if broken("M3") { manifest.encode()?.1 } else { self.session.store.put_manifest(&manifest)? };
        if broken("M9") {
            self.session.store.collect(&collect(&self.session.store.list()?, &digest, 1))?;
        }
        self.meters.written(&manifest);
        self.late = broken("M3").then_some(manifest);
        self.parent = self.newest.replace(digest);
        self.answers.push_back(Event::Written { epoch });
        Ok(())
    }

    /// 5. Asks for the decision.
    async fn commit(&mut self, epoch: Epoch) -> Result<(), Error> {
        let common = &self.shared.common;
        let Some(manifest) = self.newest.clone() else { return Ok(()) };
        let progress = self.session.record(common.attempt, epoch, (manifest, self.parent.clone()));
        match self.log.commit(&progress).await {
            Decided::Committed => {
                if let Some(manifest) = self.late.take() {
                    self.session.store.put_manifest(&manifest)?;
                }
                failpoint("checkpoint-decided");
                self.session.right.set(Right::Claimed);
                self.watch = clock::now() + WATCH;
                let taken = self.session.control.decided(epoch);
                let decision = self.meters.decided(&taken);
                let [took_us, decision_us, pause_us, alignment_us] =
                    [taken.took, decision, taken.pause, taken.alignment].map(|d| d.as_micros() as u64);
                tracing::debug!(epoch, took_us, decision_us, pause_us, alignment_us, "checkpoint decided");
                self.answers.push_back(Event::Decided { epoch });
                Ok(())
            }
            // recovery finds out by whom, and whether that one goes on
            Decided::Fenced => Err(Error::new(
                ErrorKind::Failed,
                format!("checkpoint {epoch} could not be decided: another producer of this job has fenced this one"),
            )),
            Decided::Superseded => Err(ownership::lost(self.session, None)),
            Decided::Unknown(error) => Err(error),
        }
    }

    /// 6. Marker and collection, and what had to wait for the first decision of a job that went back.
    async fn collect(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.session.store.mark_decided(epoch)?;
        failpoint("checkpoint-marked");
        let uncleaned = std::mem::take(&mut self.uncleaned);
        let common = &self.shared.common;
        recovery::clean(&self.shared.plan, &common.job, common.attempt, uncleaned).await?;
        if let Some(newest) = &self.newest {
            self.session.store.collect(&collect(
                &self.session.store.list()?,
                newest,
                self.session.job.settings.keep,
            ))?;
        }
        failpoint("checkpoint-collected");
        Ok(())
    }
}
