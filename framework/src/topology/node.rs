//! Nodes and edges, typed inside and untyped outside: how each becomes a stage. The only place where the graph meets
//! record types again.

use crate::operator::{
    Deal, Decider, OffsetOf, Operator, Process, ResetPlace, ResetTo, Sink, SinkContext, SinkWriter, Source,
    SourceContext, SplitOf, Visible, Watermarks,
};
use crate::record::AnyBatch;
use crate::state::Layout;
use crate::state::items::{ItemsLayout, ItemsStore};
use crate::state::keyed::StateContext;
use crate::subtask::{
    AnyStage, Assignment, Batches, BranchStage, ChainStage, Commands, Consumers, Copier, Discard, EventTimeStage,
    FanOut, Followers, GateSpec, KeyOf, LaneWriter, Life, Loops, Opening, OperatorStage, Owners, ProcessStage,
    Receiver, Sender, SetTimes, SinkStage, Splits, StageContext, copier, drive_source, mismatch, open_sink,
    open_source, sink_context, source_context,
};
use crate::{Batch, BoxError, Error};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::any::{TypeId, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// What follows a node in its subtask: stages, or, after a keyed chain, the lanes to each of its readers.
pub(crate) enum Outputs {
    /// One stage for all that reads the output.
    Stage(Box<dyn AnyStage>),
    /// For each reader, the lane to each of its subtasks.
    Lanes(Vec<Vec<Sender>>),
}

impl Outputs {
    pub(crate) fn stage(self) -> Result<Box<dyn AnyStage>, Error> {
        match self {
            Self::Stage(stage) => Ok(stage),
            Self::Lanes(_) => Err(mismatch::<Self>()),
        }
    }

    fn lanes(self) -> Result<Vec<Vec<Sender>>, Error> {
        match self {
            Self::Stage(_) => Err(mismatch::<Self>()),
            Self::Lanes(lanes) => Ok(lanes),
        }
    }
}

/// Where a subtask behind an exchange reads.
pub(crate) struct Inlet {
    pub(crate) inbox: Receiver,
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
    /// A batch without records.
    fn empty(&self) -> Box<dyn AnyBatch>;
    /// How its records are copied for several readers, if a stream was cloned.
    fn copier(&self) -> Result<Copier, Error>;
    /// What is gathered for the readers of a keyed stream.
    fn consumers(&self, owners: Owners) -> Box<dyn Batches>;
}

/// The edge that carries `T`. Knows how to clone records once a stream was cloned; if it always did, how to do so would
/// be compiled for all streams.
pub(crate) struct Of<T>(OnceLock<Cloning<T>>);

#[derive(Clone, Copy)]
struct Cloning<T> {
    one: fn(&T) -> T,
    copier: fn(fn(&T) -> T) -> Copier,
}

impl<T> Of<T> {
    pub(crate) fn new() -> Self {
        Self(OnceLock::new())
    }

    /// From now on records may be given to several readers.
    pub(crate) fn allow_clones(&self, one: fn(&T) -> T)
    where
        T: Send + 'static,
    {
        self.0.get_or_init(|| Cloning { one, copier: copier::<T> });
    }
}

impl<T: Send + 'static> Edge for Of<T> {
    fn record_type(&self) -> RecordType {
        RecordType { id: TypeId::of::<T>(), name: type_name::<T>() }
    }

    fn empty(&self) -> Box<dyn AnyBatch> {
        Box::new(Batch::<T>::new())
    }

    fn copier(&self) -> Result<Copier, Error> {
        match self.0.get() {
            Some(cloning) => Ok((cloning.copier)(cloning.one)),
            None => Err(mismatch::<T>()),
        }
    }

    fn consumers(&self, owners: Owners) -> Box<dyn Batches> {
        Box::new(Consumers::new(owners, self.0.get().map(|cloning| cloning.one)))
    }
}

impl dyn Edge {
    /// The end of a subtask that hands its records to others without keys; one lane forwards, several rotate.
    pub(crate) fn writer(&self, mut lanes: Vec<Sender>, first: usize) -> Box<dyn AnyStage> {
        let empty = &*self.empty();
        Box::new(match lanes.pop() {
            Some(only) if lanes.is_empty() => LaneWriter::forward(only, empty),
            last => {
                lanes.extend(last);
                LaneWriter::rebalance(lanes, first, empty)
            }
        })
    }

    /// The end of a subtask whose records go to all lanes.
    pub(crate) fn broadcaster(&self, lanes: Vec<Sender>) -> Result<Box<dyn AnyStage>, Error> {
        Ok(Box::new(LaneWriter::broadcast(lanes, self.copier()?, &*self.empty())))
    }

    /// One stage of several.
    pub(crate) fn fan_out(&self, mut next: Vec<Box<dyn AnyStage>>) -> Result<Box<dyn AnyStage>, Error> {
        if next.len() == 1
            && let Some(only) = next.pop()
        {
            return Ok(only);
        }
        Ok(Box::new(FanOut::new(self.copier()?, self.empty(), Followers::new(next))))
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
    /// See [`Source::reads_ahead`].
    fn reads_ahead(&self) -> bool {
        false
    }
    /// What splits and their offsets are called.
    fn show(&self, splits: Vec<SplitAt>) -> Result<Vec<(String, String)>, Error> {
        let _ = splits;
        Err(mismatch::<SplitAt>())
    }
    /// See [`Source::reset`].
    fn reset<'a>(&'a self, splits: Vec<SplitAt>, to: ResetTo) -> LocalBoxFuture<'a, Result<Vec<Place>, BoxError>> {
        let _ = (splits, to);
        async { Err(mismatch::<SplitAt>().into()) }.boxed_local()
    }
}

/// A split and its offset, as they stand in manifests.
pub(crate) type SplitAt = (Value, Value);

/// Where a split is to be read from.
pub(crate) struct Place {
    /// As it stands in manifests.
    pub(crate) offset: Value,
    /// For people.
    pub(crate) shown: String,
    pub(crate) what: String,
}

pub(crate) struct SourceOf(pub(crate) Box<dyn AnySource>);

impl SourceNode for SourceOf {
    fn splits<'a>(&'a self, known: Vec<Value>) -> LocalBoxFuture<'a, Result<Vec<Value>, BoxError>> {
        self.0.splits(known)
    }

    fn drive(
        &self,
        splits: Vec<Assignment>,
        times: Rc<Splits>,
        next: Outputs,
        commands: Commands,
        cx: StageContext,
    ) -> Result<Life, Error> {
        let open = self.0.open(source_context(&cx));
        Ok(drive_source(open, splits, times, next.stage()?, commands, cx))
    }

    fn reads_ahead(&self) -> bool {
        self.0.reads_ahead()
    }

    fn show(&self, splits: Vec<SplitAt>) -> Result<Vec<(String, String)>, Error> {
        self.0.show(splits)
    }

    fn reset<'a>(&'a self, splits: Vec<SplitAt>, to: ResetTo) -> LocalBoxFuture<'a, Result<Vec<Place>, BoxError>> {
        self.0.reset(splits, to)
    }
}

/// A source whose types only it knows.
pub(crate) trait AnySource: Send + Sync {
    /// See [`SourceNode::splits`].
    fn splits(&self, known: Vec<Value>) -> LocalBoxFuture<'_, Result<Vec<Value>, BoxError>>;
    /// Opens a reader.
    fn open(&self, cx: SourceContext) -> Opening;
    /// See [`Source::reads_ahead`].
    fn reads_ahead(&self) -> bool;
    /// See [`SourceNode::show`].
    fn show(&self, splits: Vec<SplitAt>) -> Result<Vec<(String, String)>, Error>;
    /// See [`Source::reset`].
    fn reset(&self, splits: Vec<SplitAt>, to: ResetTo) -> LocalBoxFuture<'_, Result<Vec<Place>, BoxError>>;
}

pub(crate) struct TypedSource<S>(pub(crate) Arc<S>);

impl<S: Source> AnySource for TypedSource<S> {
    fn splits(&self, known: Vec<Value>) -> LocalBoxFuture<'_, Result<Vec<Value>, BoxError>> {
        async move {
            let known = read_splits(known)?;
            show_splits(&self.0.splits(&known).await?)
        }
        .boxed_local()
    }

    fn open(&self, cx: SourceContext) -> Opening {
        open_source(self.0.clone(), cx)
    }

    fn reads_ahead(&self) -> bool {
        self.0.reads_ahead()
    }

    fn show(&self, splits: Vec<SplitAt>) -> Result<Vec<(String, String)>, Error> {
        show_splits_at::<SplitOf<S>, OffsetOf<S>>(splits)
    }

    fn reset(&self, splits: Vec<SplitAt>, to: ResetTo) -> LocalBoxFuture<'_, Result<Vec<Place>, BoxError>> {
        async move {
            let known = read_offsets(splits)?;
            show_places(known.len(), self.0.reset(&known, to).await?)
        }
        .boxed_local()
    }
}

/// Apart from what is compiled per source, as are the next ones.
fn read_offsets<S: DeserializeOwned, O: DeserializeOwned>(known: Vec<SplitAt>) -> Result<Vec<(S, O)>, Error> {
    let (splits, offsets): (Vec<_>, Vec<_>) = known.into_iter().unzip();
    let offsets = offsets.into_iter().map(serde_json::from_value).collect::<Result<Vec<_>, _>>().map_err(|e| {
        let text =
            format!("the checkpoint has offsets that this source cannot read ({e}): it can only `forget` splits");
        Error::refused(text)
    })?;
    Ok(read_splits(splits)?.into_iter().zip(offsets).collect())
}

/// An offset that this source cannot read is shown as it stands in the manifest.
fn show_splits_at<S: DeserializeOwned + fmt::Display, O: DeserializeOwned + fmt::Debug>(
    known: Vec<SplitAt>,
) -> Result<Vec<(String, String)>, Error> {
    let (splits, offsets): (Vec<_>, Vec<_>) = known.into_iter().unzip();
    let offset = |value: Value| {
        let text = value.to_string();
        serde_json::from_value::<O>(value).map_or(text, |offset| format!("{offset:?}"))
    };
    let names = read_splits::<S>(splits)?.into_iter().map(|split| split.to_string());
    Ok(names.zip(offsets.into_iter().map(offset)).collect())
}

fn show_places<O: Serialize + fmt::Debug>(wanted: usize, found: Vec<ResetPlace<O>>) -> Result<Vec<Place>, BoxError> {
    if found.len() != wanted {
        return Err(format!("the source was asked for {wanted} places and gives {}", found.len()).into());
    }
    let show = |ResetPlace { offset, what }: ResetPlace<O>| {
        Ok(Place { shown: format!("{offset:?}"), offset: serde_json::to_value(offset)?, what })
    };
    found.into_iter().map(show).collect()
}

fn read_splits<T: DeserializeOwned>(known: Vec<Value>) -> Result<Vec<T>, Error> {
    known.into_iter().map(serde_json::from_value).collect::<Result<_, _>>().map_err(|e| {
        Error::refused(format!(
            "the checkpoint has splits that this source cannot read ({e}): give it another name to start it anew"
        ))
    })
}

fn show_splits<T: Serialize>(splits: &[T]) -> Result<Vec<Value>, BoxError> {
    Ok(splits.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

/// An operator without state of its own.
pub(crate) trait OperatorNode: Send + Sync {
    fn stage(&self, next: Outputs, cx: &StageContext) -> Result<Box<dyn AnyStage>, Error>;
}

/// A fused chain.
pub(crate) struct ChainOf {
    pub(crate) loops: Loops,
    /// Where its results go.
    pub(crate) edge: Arc<dyn Edge>,
}

impl OperatorNode for ChainOf {
    fn stage(&self, next: Outputs, cx: &StageContext) -> Result<Box<dyn AnyStage>, Error> {
        let (run, place) = (self.loops.make(), cx.place("operator"));
        Ok(Box::new(ChainStage::new(run, self.edge.empty(), next.stage()?, place)))
    }
}

/// Several outputs.
pub(crate) trait BranchesNode: Send + Sync {
    fn stage(&self, branches: Vec<Box<dyn AnyStage>>, cx: &StageContext) -> Box<dyn AnyStage>;
}

/// A fused chain that ends in branches.
pub(crate) struct BranchesOf<T>(Loops, PhantomData<fn() -> T>);

impl<T: Deal> BranchesOf<T> {
    pub(crate) fn new(loops: Loops) -> Self {
        Self(loops, PhantomData)
    }
}

impl<T: Deal> BranchesNode for BranchesOf<T> {
    fn stage(&self, branches: Vec<Box<dyn AnyStage>>, cx: &StageContext) -> Box<dyn AnyStage> {
        Box::new(BranchStage::<T>::new(self.0.make(), Followers::new(branches), cx.place("operator")))
    }
}

/// Where times are set. `number` says which of its source's it is.
pub(crate) trait EventTimeNode: Send + Sync {
    fn stage(
        &self,
        number: usize,
        splits: Rc<Splits>,
        next: Outputs,
        cx: &StageContext,
    ) -> Result<Box<dyn AnyStage>, Error>;
}

pub(crate) struct EventTimeOf {
    pub(crate) set: SetTimes,
    pub(crate) watermarks: Watermarks,
}

impl EventTimeNode for EventTimeOf {
    fn stage(
        &self,
        number: usize,
        splits: Rc<Splits>,
        next: Outputs,
        cx: &StageContext,
    ) -> Result<Box<dyn AnyStage>, Error> {
        let (set, next) = (self.set.clone(), next.stage()?);
        Ok(Box::new(EventTimeStage::new(set, self.watermarks, number, splits, next, cx.clone())))
    }
}

/// A fused chain that ends in an exchange by key.
pub(crate) struct KeyByOf {
    pub(crate) loops: Loops,
    pub(crate) edge: Arc<dyn Edge>,
}

impl OperatorNode for KeyByOf {
    fn stage(&self, next: Outputs, cx: &StageContext) -> Result<Box<dyn AnyStage>, Error> {
        let lanes = next.lanes()?;
        let subtasks: Vec<_> = lanes.iter().map(Vec::len).collect();
        let to = self.edge.consumers(Owners::new(&subtasks, cx.key_groups));
        let (run, lanes) = (self.loops.make(), lanes.into_iter().flatten().collect());
        Ok(Box::new(LaneWriter::keyed(run, lanes, to, cx.place("operator"))))
    }
}

/// The end of a stream that nobody reads on purpose.
pub(crate) struct DiscardOf;
impl OperatorNode for DiscardOf {
    fn stage(&self, _: Outputs, _: &StageContext) -> Result<Box<dyn AnyStage>, Error> {
        Ok(Box::new(Discard))
    }
}

/// A keyed operator.
pub(crate) trait ProcessNodeSpec: Send + Sync {
    /// Its states as the program declares them.
    fn layout(&self) -> Layout;
    fn stage(&self, state: StateContext, next: Outputs, cx: &StageContext) -> Result<Box<dyn AnyStage>, Error>;
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
    fn stage(&self, state: StateContext, next: Outputs, cx: &StageContext) -> Result<Box<dyn AnyStage>, Error> {
        let (process, key_of, next) = (self.process.clone(), self.key_of.clone(), next.stage()?);
        Ok(Box::new(ProcessStage::new(process, key_of, state, self.timed, next, cx.clone())))
    }
}

/// An operator without keys.
pub(crate) trait ItemsNode: Send + Sync {
    /// What its items are.
    fn layout(&self) -> ItemsLayout;
    fn stage(&self, items: ItemsStore, next: Outputs, cx: &StageContext) -> Result<Box<dyn AnyStage>, Error>;
}

pub(crate) struct OperatorOf<F> {
    pub(crate) make: F,
    pub(crate) timed: bool,
}

impl<O: Operator, F: Fn() -> O + Send + Sync> ItemsNode for OperatorOf<F> {
    fn layout(&self) -> ItemsLayout {
        ItemsLayout::of::<O::Item>(O::ITEM_VERSION)
    }
    fn stage(&self, items: ItemsStore, next: Outputs, cx: &StageContext) -> Result<Box<dyn AnyStage>, Error> {
        Ok(Box::new(OperatorStage::new((self.make)(), items, self.timed, next.stage()?, cx.clone())?))
    }
}

/// A sink.
pub(crate) trait SinkNode: Send + Sync {
    fn stage(&self, cx: &StageContext) -> Box<dyn AnyStage>;
    /// Its own decision log, if it has one.
    fn decides(&self) -> Option<Arc<dyn Decider>>;
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
    fn stage(&self, cx: &StageContext) -> Box<dyn AnyStage> {
        let open = open_sink(self.sink.clone(), sink_context(cx));
        Box::new(SinkStage::new(open, self.sink.separates_epochs(), cx.clone()))
    }
    fn decides(&self) -> Option<Arc<dyn Decider>> {
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
