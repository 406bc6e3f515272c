//! A stage: what an operator, or a fused chain, is in one subtask. One virtual call per batch; stages own what follows
//! them. What drives them is in `drive.rs`.
//!
//! Of a stage only `on_batch` knows records. The rest is [`Control`], which has no types, and what only hands batches
//! on is written against [`AnyStage`], so that neither is compiled for each type that a user has.

use crate::record::AnyBatch;
use crate::{Batch, Epoch, Error, Timestamp};
use std::any::Any;
use std::task::{Context, Poll};

/// What an operator in one subtask hears besides records. Calls never wait; what takes time is started by them and
/// driven by `poll_ready`. What a stage does not take up itself goes to what follows it, so that nothing is lost.
pub(crate) trait Control {
    /// What follows in this subtask; behind the last stage, [`end`].
    fn next(&mut self) -> &mut dyn Control;
    /// No record of this time or older is expected any more, behind the records that came so far. Never less than the
    /// one before; the same one again says that something comes again after [`on_idle`](Self::on_idle).
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.next().on_watermark(mark)
    }
    /// Nothing comes for now: nobody need wait for the watermark of this input. The next record or watermark ends it.
    fn on_idle(&mut self) -> Result<(), Error> {
        self.next().on_idle()
    }
    /// The barrier of this epoch is on its way, or has passed already. What keeps records back because it has as many
    /// as it wants takes those before the barrier all the same, so that the barrier does not wait behind them.
    fn on_announced(&mut self, epoch: Epoch) {
        self.next().on_announced(epoch);
    }
    /// The epoch is over. Passes the barrier on first, then freezes what this stage keeps.
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.next().on_barrier(epoch)
    }
    /// No record follows; barriers still do.
    fn on_end(&mut self) -> Result<(), Error> {
        self.next().on_end()
    }
    /// The checkpoint is decided.
    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.next().on_decided(epoch)
    }
    /// Drives what waits, and is ready when the next batch may come. With `all`, nothing is kept back for a fuller
    /// batch.
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.next().poll_ready(all, cx)
    }
    /// A bounded piece of work that can wait for a quiet moment, such as copying frozen rows. False: nothing is left.
    fn background(&mut self) -> Result<bool, Error> {
        self.next().background()
    }
}

/// An operator in one subtask: what of it knows records.
pub(crate) trait Stage: Control {
    /// What it takes.
    type In: Send + 'static;
    /// Takes the records and leaves the batch empty, its memory kept.
    fn on_batch(&mut self, batch: &mut Batch<Self::In>) -> Result<(), Error>;
}

/// A stage whose record type only its batches tell, which is how stages know each other.
pub(crate) trait AnyStage: Control {
    /// Takes the records and leaves the batch empty, its memory kept.
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error>;
}

/// Edges are typed by `Stream<T>`, so the batch is of the type that the stage takes.
impl<S: Stage> AnyStage for S {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        let batch: &mut dyn Any = batch;
        self.on_batch(batch.downcast_mut().ok_or_else(mismatch::<S::In>)?)
    }
}

/// What follows the last stage of a subtask: nothing.
struct End;

/// See [`Control::next`].
pub(crate) fn end() -> &'static mut dyn Control {
    // of no size: nothing is allocated, and nothing leaks
    Box::leak(Box::new(End))
}

impl Control for End {
    fn next(&mut self) -> &mut dyn Control {
        self
    }
    fn on_watermark(&mut self, _: Timestamp) -> Result<(), Error> {
        Ok(())
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        Ok(())
    }
    fn on_announced(&mut self, _: Epoch) {}
    fn on_barrier(&mut self, _: Epoch) -> Result<(), Error> {
        Ok(())
    }
    fn on_end(&mut self) -> Result<(), Error> {
        Ok(())
    }
    fn on_decided(&mut self, _: Epoch) -> Result<(), Error> {
        Ok(())
    }
    fn poll_ready(&mut self, _: bool, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
    fn background(&mut self) -> Result<bool, Error> {
        Ok(false)
    }
}

/// An error that only a fault in the builder of topologies can cause.
pub(crate) fn mismatch<T>() -> Error {
    let name = std::any::type_name::<T>();
    Error::new(crate::ErrorKind::Topology, format!("an edge does not carry `{name}`: this is a fault in millstream"))
}

/// All that follow one stage in its subtask, none of them before another one: each hears whatever it passes on.
pub(crate) struct Followers {
    all: Vec<Box<dyn AnyStage>>,
    /// Whether watermarks go through here.
    marked: bool,
}

impl Followers {
    pub(crate) fn new(all: Vec<Box<dyn AnyStage>>) -> Self {
        Self { all, marked: false }
    }

    /// In their order.
    pub(crate) fn all(&mut self) -> &mut [Box<dyn AnyStage>] {
        &mut self.all
    }

    fn each(&mut self, f: impl FnMut(&mut Box<dyn AnyStage>) -> Result<(), Error>) -> Result<(), Error> {
        self.all.iter_mut().try_for_each(f)
    }

    /// Whether all are ready; every one of them is asked, or those behind the first would not wake the subtask.
    fn poll_each(&mut self, all: bool, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut ready = true;
        for next in &mut self.all {
            match next.poll_ready(all, cx) {
                Poll::Ready(done) => done?,
                Poll::Pending => ready = false,
            }
        }
        Ok(ready)
    }
}

impl Control for Followers {
    /// There is not one: whatever there is to hear has to be written out below.
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.marked = true;
        self.each(|next| next.on_watermark(mark))
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.each(|next| next.on_idle())
    }
    fn on_announced(&mut self, epoch: Epoch) {
        self.all.iter_mut().for_each(|next| next.on_announced(epoch));
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.each(|next| next.on_barrier(epoch))
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.each(|next| next.on_end())
    }
    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.each(|next| next.on_decided(epoch))
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let ready = self.poll_each(all, cx)?;
        if !ready && !all && self.marked {
            // what one of them waits for may be a watermark that another one still gathers records before
            self.poll_each(true, cx)?;
        }
        if ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
    fn background(&mut self) -> Result<bool, Error> {
        let mut more = false;
        self.each(|next| {
            more |= next.background()?;
            Ok(())
        })?;
        Ok(more)
    }
}

/// Puts copies of the records of a batch behind those of another one, of the same type.
pub(crate) type Copier = Box<dyn Fn(&dyn AnyBatch, &mut dyn AnyBatch) -> Result<(), Error>>;

/// That of records which `clone` clones.
pub(crate) fn copier<T: Send + 'static>(clone: fn(&T) -> T) -> Copier {
    Box::new(move |from, to| {
        let (from, to): (&dyn Any, &mut dyn Any) = (from, to);
        let both = from.downcast_ref::<Batch<T>>().zip(to.downcast_mut::<Batch<T>>());
        let (from, to) = both.ok_or_else(mismatch::<T>)?;
        to.values.extend(from.values.iter().map(clone));
        to.times.extend_from_slice(&from.times);
        Ok(())
    })
}

/// One stream with several readers in the same subtask: the records are copied for all but the last.
pub(crate) struct FanOut {
    copier: Copier,
    next: Followers,
    copy: Box<dyn AnyBatch>,
}

impl FanOut {
    /// `copy` is an empty batch.
    pub(crate) fn new(copier: Copier, copy: Box<dyn AnyBatch>, next: Followers) -> Self {
        Self { copier, next, copy }
    }
}

impl Control for FanOut {
    fn next(&mut self) -> &mut dyn Control {
        &mut self.next
    }
}

impl AnyStage for FanOut {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        let Some((last, others)) = self.next.all().split_last_mut() else {
            batch.clear();
            return Ok(());
        };
        for next in others {
            (self.copier)(batch, &mut *self.copy)?;
            next.on_any(&mut *self.copy)?;
        }
        last.on_any(batch)
    }
}

/// The end of a stream that nobody reads on purpose.
pub(crate) struct Discard;

impl Control for Discard {
    fn next(&mut self) -> &mut dyn Control {
        end()
    }
}

impl AnyStage for Discard {
    fn on_any(&mut self, batch: &mut dyn AnyBatch) -> Result<(), Error> {
        batch.clear();
        Ok(())
    }
}
