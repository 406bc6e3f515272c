//! Nodes and edges, typed inside and untyped outside: how each becomes a stage. The only place where the graph meets
//! record types again.

use crate::operator::{
    Deal, DecisionLog, Operator, Process, RecordOf, Sink, SinkContext, SinkWriter, Source, SplitOf, Visible, Watermarks,
};
use crate::state::Layout;
use crate::state::items::{ItemsLayout, ItemsStore};
use crate::state::keyed::StateContext;
use crate::subtask::{
    AnyStage, Assignment, BatchWriter, Branch, BranchStage, ChainStage, Commands, Consumers, Discard, EventTimeStage,
    FanOut, Followers, GateSpec, Keep, Kept, KeyOf, KeyedWriter, Loops, OperatorStage, ProcessStage, Receiver, Sender,
    SetTimes, SinkStage, Splits, StageContext, drive, drive_source, erase, inbox, mismatch, typed,
};
use crate::{Batch, BoxError, Error};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;
use std::any::{Any, TypeId, type_name};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// An end of a lane whose type the graph has forgotten.
pub(crate) type AnySend = Box<dyn Any + Send>;
/// A subtask's life.
pub(crate) type Life = LocalBoxFuture<'static, Result<(), Error>>;

fn lane<T: 'static>(any: AnySend) -> Result<T, Error> {
    any.downcast::<T>().map(|end| *end).map_err(|_| mismatch::<T>())
}

/// What follows a node in its subtask: stages, or, after a keyed chain, the lanes to each of its readers.
pub(crate) enum Outputs {
    /// One stage for all that reads the output.
    Stage(AnyStage),
    /// For each reader, the lane to each of its subtasks.
    Lanes(Vec<Vec<AnySend>>),
}

impl Outputs {
    pub(crate) fn stage(self) -> Result<AnyStage, Error> {
        match self {
            Self::Stage(stage) => Ok(stage),
            Self::Lanes(_) => Err(mismatch::<AnyStage>()),
        }
    }

    fn lanes<T: Send + 'static>(self) -> Result<Vec<Vec<Sender<T>>>, Error> {
        match self {
            Self::Stage(_) => Err(mismatch::<Sender<T>>()),
            Self::Lanes(all) => all.into_iter().map(|lanes| lanes.into_iter().map(lane).collect()).collect(),
        }
    }
}

/// Where a subtask behind an exchange reads.
pub(crate) struct Inlet {
    pub(crate) inbox: AnySend,
    pub(crate) gate: GateSpec,
}

/// The type of an edge's records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordType {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
}

/// An output, typed by its records.
pub(crate) trait Edge: Send + Sync {
    /// What its records are.
    fn record_type(&self) -> RecordType;
    /// An inbox with so many lanes.
    fn inbox(&self, lanes: usize) -> (Vec<AnySend>, AnySend);
    /// The end of a subtask that hands its records to others without keys; one lane forwards, several rotate.
    fn writer(&self, lanes: Vec<AnySend>, first: usize) -> Result<AnyStage, Error>;
    /// The end of a subtask whose records go to all lanes.
    fn broadcaster(&self, lanes: Vec<AnySend>) -> Result<AnyStage, Error>;
    /// One stage of several.
    fn fan_out(&self, next: Vec<AnyStage>) -> Result<AnyStage, Error>;
    /// The stage of a branch.
    fn branch(&self, next: AnyStage) -> Result<Box<dyn Branch>, Error>;
    /// The life of a subtask behind an inbox.
    fn drive(&self, inlet: Inlet, stage: AnyStage, commands: Commands, cx: StageContext) -> Result<Life, Error>;
}

/// The edge that carries `T`. Knows how to clone a record once a stream was cloned.
pub(crate) struct Of<T>(OnceLock<fn(&T) -> T>);

impl<T> Of<T> {
    pub(crate) fn new() -> Self {
        Self(OnceLock::new())
    }

    /// From now on records may be given to several readers.
    pub(crate) fn cloned(&self) -> &OnceLock<fn(&T) -> T> {
        &self.0
    }
}

impl<T: Send + 'static> Edge for Of<T> {
    fn record_type(&self) -> RecordType {
        RecordType { id: TypeId::of::<T>(), name: type_name::<T>() }
    }

    fn inbox(&self, lanes: usize) -> (Vec<AnySend>, AnySend) {
        let (senders, receiver) = inbox::<T>(lanes);
        (senders.into_iter().map(|s| Box::new(s) as AnySend).collect(), Box::new(receiver))
    }

    fn writer(&self, lanes: Vec<AnySend>, first: usize) -> Result<AnyStage, Error> {
        let mut senders: Vec<Sender<T>> = lanes.into_iter().map(lane).collect::<Result<_, _>>()?;
        Ok(match senders.pop() {
            Some(only) if senders.is_empty() => erase(BatchWriter::forward(only)),
            last => {
                senders.extend(last);
                erase(BatchWriter::rebalance(senders, first))
            }
        })
    }

    fn broadcaster(&self, lanes: Vec<AnySend>) -> Result<AnyStage, Error> {
        let clone = self.0.get().ok_or_else(mismatch::<T>)?;
        let senders = lanes.into_iter().map(lane).collect::<Result<_, _>>()?;
        Ok(erase(BatchWriter::broadcast(senders, *clone)))
    }

    fn fan_out(&self, mut next: Vec<AnyStage>) -> Result<AnyStage, Error> {
        if next.len() == 1
            && let Some(only) = next.pop()
        {
            return Ok(only);
        }
        let clone = self.0.get().ok_or_else(mismatch::<T>)?;
        let next = next.into_iter().map(|next| self.branch(next)).collect::<Result<_, _>>()?;
        Ok(erase(FanOut::new(*clone, Followers::new(next))))
    }

    fn branch(&self, next: AnyStage) -> Result<Box<dyn Branch>, Error> {
        Ok(Box::new(typed::<T>(next)?))
    }

    fn drive(&self, inlet: Inlet, stage: AnyStage, commands: Commands, cx: StageContext) -> Result<Life, Error> {
        let inbox: Receiver<T> = lane(inlet.inbox)?;
        Ok(drive(inbox, inlet.gate, typed::<T>(stage)?, commands, cx).boxed_local())
    }
}

/// A source.
pub(crate) trait SourceNode: Send + Sync {
    /// All splits there are now, given those that are known.
    fn splits<'a>(&'a self, known: Vec<Value>) -> LocalBoxFuture<'a, Result<Vec<Value>, BoxError>>;
    /// The life of a subtask that reads it.
    fn drive(
        &self,
        assigned: Vec<Assignment>,
        times: Rc<Splits>,
        next: Outputs,
        commands: Commands,
        cx: StageContext,
    ) -> Result<Life, Error>;
}

pub(crate) struct SourceOf<S>(pub(crate) Arc<S>);

impl<S: Source> SourceNode for SourceOf<S> {
    fn splits<'a>(&'a self, known: Vec<Value>) -> LocalBoxFuture<'a, Result<Vec<Value>, BoxError>> {
        async move {
            let known: Vec<SplitOf<S>> =
                known.into_iter().map(serde_json::from_value).collect::<Result<_, _>>().map_err(|e| {
                    Error::refused(format!(
                        "the checkpoint has splits that this source cannot read ({e}): give it another name to start it anew"
                    ))
                })?;
            let splits = self.0.splits(&known).await?;
            Ok(splits.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
        }
        .boxed_local()
    }

    fn drive(
        &self,
        splits: Vec<Assignment>,
        times: Rc<Splits>,
        next: Outputs,
        commands: Commands,
        cx: StageContext,
    ) -> Result<Life, Error> {
        let stage = typed::<RecordOf<S>>(next.stage()?)?;
        Ok(drive_source(self.0.clone(), splits, times, stage, commands, cx).boxed_local())
    }
}

/// An operator without state of its own.
pub(crate) trait OperatorNode: Send + Sync {
    fn stage(&self, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error>;
}

/// A fused chain.
pub(crate) struct ChainOf<I, T>(pub(crate) Loops<I, Batch<T>>);

impl<I: 'static, T: 'static> OperatorNode for ChainOf<I, T> {
    fn stage(&self, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error> {
        Ok(erase(ChainStage::new(self.0.make(), typed::<T>(next.stage()?)?, cx.place("operator"))))
    }
}

/// Several outputs.
pub(crate) trait BranchesNode: Send + Sync {
    fn stage(&self, branches: Vec<Box<dyn Branch>>, cx: &StageContext) -> AnyStage;
}

/// A fused chain that ends in branches.
pub(crate) struct BranchesOf<I, T: Deal>(pub(crate) Loops<I, T::Batches>);

impl<I: 'static, T: Deal> BranchesNode for BranchesOf<I, T> {
    fn stage(&self, branches: Vec<Box<dyn Branch>>, cx: &StageContext) -> AnyStage {
        erase(BranchStage::<I, T>::new(self.0.make(), Followers::new(branches), cx.place("operator")))
    }
}

/// Where times are set. `number` says which of its source's it is.
pub(crate) trait EventTimeNode: Send + Sync {
    fn stage(&self, number: usize, splits: Rc<Splits>, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error>;
}

pub(crate) struct EventTimeOf<T> {
    pub(crate) set: SetTimes<T>,
    pub(crate) watermarks: Watermarks,
}

impl<T: 'static> EventTimeNode for EventTimeOf<T> {
    fn stage(&self, number: usize, splits: Rc<Splits>, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error> {
        let next = typed::<T>(next.stage()?)?;
        let set = self.set.clone();
        Ok(erase(EventTimeStage::new(set, self.watermarks, number, splits, next, cx.clone())))
    }
}

/// A fused chain that ends in an exchange by key.
pub(crate) struct KeyByOf<I, T> {
    pub(crate) loops: Loops<I, Consumers<T>>,
    pub(crate) edge: Arc<Of<T>>,
}

impl<I: 'static, T: Send + 'static> OperatorNode for KeyByOf<I, T> {
    fn stage(&self, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error> {
        let to = Consumers::new(next.lanes::<T>()?, cx.key_groups, self.edge.0.get().copied());
        Ok(erase(KeyedWriter::new(self.loops.make(), to, cx.place("operator"))))
    }
}

/// The end of a stream that nobody reads on purpose.
pub(crate) struct DiscardOf<T>(pub(crate) PhantomData<fn() -> T>);
impl<T: 'static> OperatorNode for DiscardOf<T> {
    fn stage(&self, _: Outputs, _: &StageContext) -> Result<AnyStage, Error> {
        Ok(erase::<T>(Discard))
    }
}

/// A keyed operator.
pub(crate) trait ProcessNodeSpec: Send + Sync {
    /// Its states as the program declares them.
    fn layout(&self) -> Layout;
    fn stage(&self, state: StateContext, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error>;
}

pub(crate) struct ProcessOf<P: Process> {
    pub(crate) process: Arc<P>,
    pub(crate) key_of: KeyOf<P::Key, P::In>,
    pub(crate) timed: bool,
}

impl<P: Process> ProcessNodeSpec for ProcessOf<P> {
    fn layout(&self) -> Layout {
        Layout::of::<P::Key, P::State>()
    }
    fn stage(&self, state: StateContext, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error> {
        let next = typed::<P::Out>(next.stage()?)?;
        let (process, key_of) = (self.process.clone(), self.key_of.clone());
        Ok(erase(ProcessStage::new(process, key_of, state, self.timed, next, cx.clone())))
    }
}

/// An operator without keys.
pub(crate) trait ItemsNode: Send + Sync {
    /// What its items are.
    fn layout(&self) -> ItemsLayout;
    fn stage(&self, items: ItemsStore, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error>;
}

pub(crate) struct OperatorOf<F> {
    pub(crate) make: F,
    pub(crate) timed: bool,
}

impl<O: Operator, F: Fn() -> O + Send + Sync> ItemsNode for OperatorOf<F> {
    fn layout(&self) -> ItemsLayout {
        ItemsLayout::of::<O::Item>()
    }
    fn stage(&self, items: ItemsStore, next: Outputs, cx: &StageContext) -> Result<AnyStage, Error> {
        let next = typed::<O::Out>(next.stage()?)?;
        Ok(erase(OperatorStage::new((self.make)(), items, self.timed, next, cx.clone())?))
    }
}

/// A sink.
pub(crate) trait SinkNode: Send + Sync {
    fn stage(&self, cx: &StageContext) -> AnyStage;
    /// What takes its place in a test.
    fn keep(&self, kept: &Kept, cx: &StageContext) -> AnyStage;
    /// Its own decision log, if it has one.
    fn decides(&self) -> Option<Arc<dyn DecisionLog>>;
    /// Recovery 2.
    fn inspect<'a>(&'a self, cx: &'a SinkContext) -> LocalBoxFuture<'a, Result<Visible, BoxError>>;
    /// Recovery 7: finishes what the restored checkpoint holds.
    fn commit<'a>(&'a self, cx: &'a SinkContext, committables: Vec<Value>) -> LocalBoxFuture<'a, Result<(), BoxError>>;
    /// Recovery 7: clears away what is over.
    fn clean<'a>(&'a self, cx: &'a SinkContext, listed: Visible) -> LocalBoxFuture<'a, Result<(), BoxError>>;
}

pub(crate) struct SinkOf<T, S> {
    pub(crate) sink: Arc<S>,
    pub(crate) of: PhantomData<fn(T)>,
}

impl<T: Send + 'static, S: Sink<T>> SinkNode for SinkOf<T, S> {
    fn stage(&self, cx: &StageContext) -> AnyStage {
        erase::<T>(SinkStage::new(self.sink.clone(), cx.clone()))
    }
    fn keep(&self, kept: &Kept, cx: &StageContext) -> AnyStage {
        erase::<T>(Keep { kept: kept.clone(), counters: cx.counters.clone() })
    }
    fn decides(&self) -> Option<Arc<dyn DecisionLog>> {
        self.sink.decides()
    }
    fn inspect<'a>(&'a self, cx: &'a SinkContext) -> LocalBoxFuture<'a, Result<Visible, BoxError>> {
        self.sink.inspect(cx).boxed_local()
    }
    fn commit<'a>(&'a self, cx: &'a SinkContext, committables: Vec<Value>) -> LocalBoxFuture<'a, Result<(), BoxError>> {
        async move {
            if committables.is_empty() {
                return Ok(());
            }
            let mut writer = self.sink.open(cx).await?;
            for committable in committables {
                let committable: <S::Writer as SinkWriter<T>>::Committable = serde_json::from_value(committable)
                    .map_err(|e| {
                        Error::refused(format!("the checkpoint has a committable that this sink cannot read: {e}"))
                    })?;
                writer.commit(committable).await?;
            }
            Ok(())
        }
        .boxed_local()
    }
    fn clean<'a>(&'a self, cx: &'a SinkContext, listed: Visible) -> LocalBoxFuture<'a, Result<(), BoxError>> {
        self.sink.clean(cx, listed).boxed_local()
    }
}
