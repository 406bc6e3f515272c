//! Workers: threads that subtasks are pinned to, each with a runtime of its own. Subtasks are made where they run, so
//! only records cross threads.

use super::wiring::{Common, SubtaskSpec};
use crate::key::groups_of;
use crate::state::RowLayout;
use crate::state::backend::{OpenSpec, StateEnv};
use crate::state::items::{ItemsLayout, ItemsStore};
use crate::state::keyed::StateContext;
use crate::state::snapshot::{ItemsSnapshot, OperatorStates, StateSnapshot};
use crate::subtask::{Life, Report, Sender, Splits, StageContext, drive};
use crate::topology::{Assemble, Kind, Plan};
use crate::{Epoch, Error, ErrorKind, guard, spawn};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// What subtasks of an attempt are made from.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) common: Common,
    /// None: state is in memory only.
    pub(crate) state: Option<Arc<StateEnv>>,
    pub(crate) operators: Vec<OperatorStates>,
    /// Of the restored checkpoint.
    pub(crate) restored: Option<Epoch>,
    pub(crate) snapshots: Vec<StateSnapshot>,
    pub(crate) items: Vec<ItemsSnapshot>,
    /// What the paths of snapshots are relative to.
    pub(crate) checkpoints: PathBuf,
    /// Of each keyed operator's subtask.
    pub(crate) cache_bytes: usize,
    pub(crate) cache_rows: Option<usize>,
}

/// A worker that runs.
pub(crate) enum Worker {
    Thread(JoinHandle<()>),
    /// In a simulation all is done by one thread.
    #[cfg(test)]
    Task(tokio::task::JoinHandle<()>),
}

impl Worker {
    /// Waits until it has ended.
    pub(crate) async fn join(self) {
        let has_panicked = match self {
            Self::Thread(thread) => thread.join().is_err(),
            #[cfg(test)]
            Self::Task(task) => task.await.is_err(),
        };
        if has_panicked {
            tracing::error!("a worker has panicked");
        }
    }
}

/// Starts a worker with its subtasks; it ends when they have, or when `gone` turns true.
pub(crate) fn start(
    number: usize,
    shared: Arc<Shared>,
    subtasks: Vec<SubtaskSpec>,
    gone: watch::Receiver<bool>,
) -> Result<Worker, Error> {
    let reports = shared.common.reports.clone();
    #[cfg(test)]
    if crate::disk::simulated::is_on() {
        return Ok(Worker::Task(spawn::local(async move {
            if let Err(error) = serve(shared, subtasks, gone).await {
                reports.send(Report::Failed(error));
            }
        })));
    }
    let thread = spawn::thread(format!("millstream-{number}"), move || {
        if let Err(error) = run(shared, subtasks, gone) {
            reports.send(Report::Failed(error));
        }
    });
    thread.map(Worker::Thread)
}

fn run(shared: Arc<Shared>, subtasks: Vec<SubtaskSpec>, gone: watch::Receiver<bool>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(ErrorKind::Io, "cannot start a worker").because(e))?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(shared, subtasks, gone))
}

/// Runs subtasks until they have ended, or until `gone` turns true.
async fn serve(shared: Arc<Shared>, subtasks: Vec<SubtaskSpec>, mut gone: watch::Receiver<bool>) -> Result<(), Error> {
    let begin = |spec: SubtaskSpec| {
        let shared = shared.clone();
        let place = format!("subtask {} of {}", spec.subtask, shared.label(spec.task));
        let life = spawn::local(async move { make(&shared, spec)?.await });
        async move { (place, life.await) }
    };
    let mut lives: FuturesUnordered<_> = subtasks.into_iter().map(begin).collect();
    loop {
        tokio::select! {
            biased;
            _ = gone.wait_for(|gone| *gone) => return Ok(()),
            ended = lives.next() => match ended {
                None => return Ok(()),
                Some((_, Ok(Ok(())))) => {}
                Some((_, Ok(Err(error)))) => return Err(error),
                Some((place, Err(error))) => return Err(panicked(place, error)),
            },
        }
    }
}

/// A panic that no stage has caught.
fn panicked(place: String, error: tokio::task::JoinError) -> Error {
    let error = match error.try_into_panic() {
        Ok(panic) => guard::panicked(panic.as_ref()),
        Err(error) => Error::new(ErrorKind::Failed, error.to_string()),
    };
    error.at(place)
}

impl Shared {
    fn label(&self, task: usize) -> String {
        let names = self.plan.tasks[task].nodes.iter().map(|n| &self.plan.graph.nodes[*n]);
        let named: Vec<_> = names.filter_map(|n| n.name.as_ref()).map(|n| format!("`{n}`")).collect();
        if named.is_empty() { self.plan.graph.nodes[self.plan.tasks[task].head].label() } else { named.join(", ") }
    }
}

/// Makes a subtask on the thread it stays on.
pub(crate) fn make(shared: &Shared, spec: SubtaskSpec) -> Result<Life, Error> {
    let SubtaskSpec { task, subtask, inlet, lanes, commands, splits } = spec;
    let plan = &shared.plan;
    let head = plan.tasks[task].head;
    let mut assembly = Assembly { shared, subtask, lanes, splits: Rc::default() };
    let cx = assembly.context(head);
    match (&plan.graph.nodes[head].kind, inlet) {
        (Kind::Source(source), _) => {
            let next = plan.outputs(head, &mut assembly)?;
            source.drive(splits, assembly.splits, next, commands, cx)
        }
        (_, Some(inlet)) => Ok(drive(inlet.inbox, inlet.gate, plan.stage(head, &mut assembly)?, commands, cx)),
        (_, None) => Err(Error::new(ErrorKind::Topology, "a subtask without input")),
    }
}

struct Assembly<'a> {
    shared: &'a Shared,
    subtask: usize,
    lanes: BTreeMap<usize, Vec<Sender>>,
    splits: Rc<Splits>,
}

impl Assemble for Assembly<'_> {
    fn context(&mut self, node: usize) -> StageContext {
        self.shared.common.context(&self.shared.plan, node, self.subtask)
    }

    fn state(&mut self, node: usize) -> Result<StateContext, Error> {
        let (shared, cx) = (self.shared, self.context(node));
        let states = shared.operators.iter().find(|o| o.operator == *cx.name);
        let states = states.ok_or_else(|| Error::new(ErrorKind::Topology, "a keyed operator without a layout"))?;
        let groups = groups_of(cx.subtask as u32, cx.parallelism as u32, cx.key_groups);
        let overlaps = |s: &&StateSnapshot| s.groups.start < groups.end && groups.start < s.groups.end;
        let ours = shared.snapshots.iter().filter(|s| s.operator == *cx.name).filter(overlaps);
        let (participant, reports) = (cx.participant, cx.reports.clone());
        let report = Arc::new(move |epoch, snapshot: Result<StateSnapshot, Error>| {
            reports.send(match snapshot {
                Ok(snapshot) => Report::Part { participant, epoch, part: crate::checkpoints::Part::State(snapshot) },
                Err(error) => Report::Failed(error),
            });
        });
        let spec = OpenSpec {
            operator: cx.name.to_string(),
            subtask: cx.subtask,
            groups: groups.clone(),
            restore: ours.cloned().collect(),
            restored: shared.restored,
            report,
        };
        let backend = shared.state.as_ref().map(|state| state.open(spec)).transpose()?;
        cx.reports.send(Report::Ready);
        Ok(StateContext {
            backend,
            layout: RowLayout::new(states),
            table: states.table,
            groups,
            cache_bytes: shared.cache_bytes,
            cache_rows: shared.cache_rows,
        })
    }

    fn items(&mut self, node: usize, layout: ItemsLayout) -> ItemsStore {
        let (shared, cx) = (self.shared, self.context(node));
        ItemsStore {
            checkpoints: shared.checkpoints.clone(),
            attempt: cx.attempt,
            operator: cx.name.to_string(),
            subtask: cx.subtask,
            parallelism: cx.parallelism,
            layout,
            restore: shared.items.iter().filter(|i| i.operator == *cx.name).cloned().collect(),
        }
    }

    fn splits(&mut self) -> Rc<Splits> {
        self.splits.clone()
    }

    fn lanes(&mut self, exchange: usize) -> Vec<Sender> {
        self.lanes.remove(&exchange).unwrap_or_default()
    }
}
