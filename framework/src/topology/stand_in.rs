//! What stands in for sources and sinks in a test: records come from the test and go to it. Of the user's connectors
//! nothing is called. Which are replaced, and what runs between them, is in `testing/`.

use super::node::{Outputs, SinkNode, SourceNode};
use crate::operator::{Decider, Polled, SinkContext, Source, SourceContext, SourceReader, SplitBatch, Visible};
use crate::record::AnyBatch;
use crate::subtask::{
    AnyStage, Assignment, Commands, Keep, Kept, Life, Mark, Splits, StageContext, Unpack, drive_source, mismatch,
    open_source, source_context,
};
use crate::{BoxError, Error};
use futures::FutureExt;
use futures::future::{LocalBoxFuture, try_join};
use serde_json::Value;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The test's end of a source. The test waits until what it said has been worked off, so the queues need no bound.
pub(crate) struct Told {
    /// None: it has ended.
    pub(crate) batches: Option<UnboundedSender<Box<dyn AnyBatch>>>,
    pub(crate) marks: UnboundedSender<Mark>,
}

/// What can be taken once.
struct Once<T>(Mutex<Option<T>>);

impl<T> Once<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(Some(value)))
    }

    fn take(&self) -> Result<T, Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(mismatch::<T>)
    }
}

/// A source that gives what it is told. It has one subtask, and one split: 0.
pub(crate) fn listener() -> (Arc<dyn SourceNode>, Told) {
    let (batches, told) = unbounded_channel();
    let (marks, made) = unbounded_channel();
    let source = Arc::new(Listener(Once::new(told)));
    let node = ListenerNode { source, marks: Once::new(made) };
    (Arc::new(node), Told { batches: Some(batches), marks })
}

/// Its records are batches: only what follows knows of what.
struct Listener(Once<UnboundedReceiver<Box<dyn AnyBatch>>>);

impl Source for Listener {
    type Reader = ListenerReader;
    async fn splits(&self, _: &[u32]) -> Result<Vec<u32>, BoxError> {
        Ok(vec![0])
    }
    async fn open(&self, _: &SourceContext) -> Result<ListenerReader, BoxError> {
        Ok(ListenerReader { told: self.0.take()?, next: None, over: false, count: 0 })
    }
}

struct ListenerReader {
    told: UnboundedReceiver<Box<dyn AnyBatch>>,
    next: Option<Box<dyn AnyBatch>>,
    over: bool,
    /// Batches given so far.
    count: u64,
}

impl SourceReader for ListenerReader {
    type Record = Box<dyn AnyBatch>;
    type Split = u32;
    type Offset = u64;

    async fn assign(&mut self, _: u32, from: Option<u64>) -> Result<u64, BoxError> {
        self.count = from.unwrap_or(0);
        Ok(self.count)
    }

    async fn ready(&mut self) {
        if self.next.is_none() && !self.over {
            self.next = self.told.recv().await;
            self.over = self.next.is_none();
        }
    }

    fn poll(&mut self, out: &mut SplitBatch<Box<dyn AnyBatch>, u32>) -> Result<Polled, BoxError> {
        match self.next.take() {
            Some(batch) => {
                self.count += 1;
                out.of(&0);
                out.push(batch);
                Ok(Polled::More)
            }
            None if self.over => Ok(Polled::Finished),
            None => Ok(Polled::AtEnd),
        }
    }

    fn offset(&self, _: &u32) -> Result<u64, BoxError> {
        Ok(self.count)
    }
}

struct ListenerNode {
    source: Arc<Listener>,
    marks: Once<UnboundedReceiver<Mark>>,
}

impl SourceNode for ListenerNode {
    fn splits<'a>(&'a self, _: Vec<Value>) -> LocalBoxFuture<'a, Result<Vec<Value>, BoxError>> {
        async { Ok(vec![Value::from(0)]) }.boxed_local()
    }

    fn drive(
        &self,
        assigned: Vec<Assignment>,
        splits: Rc<Splits>,
        next: Outputs,
        commands: Commands,
        cx: StageContext,
    ) -> Result<Life, Error> {
        let stage = Unpack(next.stage()?);
        let open = open_source(self.source.clone(), source_context(&cx));
        let mut marks = self.marks.take()?;
        let told = splits.clone();
        // first, for the other one then sees what has changed
        let marking = async move {
            while let Some(mark) = marks.recv().await {
                told.declare(mark);
            }
            Ok(())
        };
        let reading = drive_source(open, assigned, splits, Box::new(stage), commands, cx);
        Ok(try_join(marking, reading).map(|done| done.map(|_| ())).boxed_local())
    }
}

/// A sink that keeps what it gets.
pub(crate) fn keeper() -> (Arc<dyn SinkNode>, Kept) {
    let kept = Kept::default();
    (Arc::new(Keeper(kept.clone())), kept)
}

struct Keeper(Kept);

impl SinkNode for Keeper {
    fn stage(&self, cx: &StageContext) -> Box<dyn AnyStage> {
        Box::new(Keep { kept: self.0.clone(), counters: cx.counters.clone() })
    }
    fn decides(&self) -> Option<Arc<dyn Decider>> {
        None
    }
    fn inspect<'a>(&'a self, _: &'a SinkContext) -> LocalBoxFuture<'a, Result<Visible, BoxError>> {
        async { Ok(Visible::default()) }.boxed_local()
    }
    fn commit<'a>(&'a self, _: &'a SinkContext, _: Vec<Value>) -> LocalBoxFuture<'a, Result<(), BoxError>> {
        async { Ok(()) }.boxed_local()
    }
    fn clean<'a>(&'a self, _: &'a SinkContext, _: Visible) -> LocalBoxFuture<'a, Result<(), BoxError>> {
        async { Ok(()) }.boxed_local()
    }
}
