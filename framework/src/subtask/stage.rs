//! A stage: what an operator, or a fused chain, is in one subtask. One virtual call per batch; stages own what follows
//! them. What drives them is in `drive.rs`.

use crate::{Batch, Epoch, Error, Timestamp};
use std::any::Any;
use std::task::{Context, Poll};

/// An operator in one subtask. Calls never wait; what takes time is started by them and driven by `poll_ready`.
pub(crate) trait Stage<I> {
    /// Takes the records and leaves the batch empty, its memory kept.
    fn on_batch(&mut self, batch: &mut Batch<I>) -> Result<(), Error>;
    /// No record of this time or older is expected any more, behind the records that came so far. Never less than the
    /// one before; the same one again says that something comes again after [`on_idle`](Self::on_idle).
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error>;
    /// Nothing comes for now: nobody need wait for the watermark of this input. The next record or watermark ends it.
    fn on_idle(&mut self) -> Result<(), Error>;
    /// The barrier of this epoch is on its way, or has passed already. What keeps records back because it has as many
    /// as it wants takes those before the barrier all the same, so that the barrier does not wait behind them.
    fn on_announced(&mut self, epoch: Epoch);
    /// The epoch is over. Passes the barrier on first, then freezes what this stage keeps.
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error>;
    /// No record follows; barriers still do.
    fn on_end(&mut self) -> Result<(), Error>;
    /// The checkpoint is decided.
    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error>;
    /// Drives what waits, and is ready when the next batch may come. With `all`, nothing is kept back for a fuller
    /// batch.
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    /// A bounded piece of work that can wait for a quiet moment, such as copying frozen rows. False: nothing is left.
    fn background(&mut self) -> Result<bool, Error>;
}

/// A `Box<dyn Stage<T>>` whose `T` the graph has forgotten.
pub(crate) type AnyStage = Box<dyn Any>;

/// Forgets the type.
pub(crate) fn erase<T: 'static>(stage: impl Stage<T> + 'static) -> AnyStage {
    let stage: Box<dyn Stage<T>> = Box::new(stage);
    Box::new(stage)
}

/// Remembers it. Edges are typed by `Stream<T>`, so it is what it was.
pub(crate) fn typed<T: 'static>(any: AnyStage) -> Result<Box<dyn Stage<T>>, Error> {
    any.downcast::<Box<dyn Stage<T>>>().map(|stage| *stage).map_err(|_| mismatch::<T>())
}

/// An error that only a fault in the builder of topologies can cause.
pub(crate) fn mismatch<T>() -> Error {
    let name = std::any::type_name::<T>();
    Error::new(crate::ErrorKind::Topology, format!("an edge does not carry `{name}`: this is a fault in millstream"))
}

/// One stream with several readers in the same subtask: the records are cloned for all but the last.
pub(crate) struct FanOut<T> {
    clone: fn(&T) -> T,
    next: Vec<Box<dyn Stage<T>>>,
    copy: Batch<T>,
    /// Whether watermarks go through here.
    marked: bool,
}

impl<T> FanOut<T> {
    pub(crate) fn new(clone: fn(&T) -> T, next: Vec<Box<dyn Stage<T>>>) -> Self {
        Self { clone, next, copy: Batch::default(), marked: false }
    }

    fn each(&mut self, mut f: impl FnMut(&mut dyn Stage<T>) -> Result<(), Error>) -> Result<(), Error> {
        self.next.iter_mut().try_for_each(|next| f(next.as_mut()))
    }

    /// Whether all are ready.
    fn poll_each(&mut self, all: bool, cx: &mut Context<'_>) -> Result<bool, Error> {
        every(self.next.iter_mut().map(|next| next.poll_ready(all, cx)))
    }
}

impl<T> Stage<T> for FanOut<T> {
    fn on_batch(&mut self, batch: &mut Batch<T>) -> Result<(), Error> {
        let Some((last, others)) = self.next.split_last_mut() else {
            batch.clear();
            return Ok(());
        };
        for next in others {
            self.copy.values.extend(batch.values.iter().map(self.clone));
            self.copy.times.extend_from_slice(&batch.times);
            next.on_batch(&mut self.copy)?;
        }
        last.on_batch(batch)
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.marked = true;
        self.each(|next| next.on_watermark(mark))
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.each(|next| next.on_idle())
    }
    fn on_announced(&mut self, epoch: Epoch) {
        self.next.iter_mut().for_each(|next| next.on_announced(epoch));
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
            // what one reader waits for may be a watermark that another one still gathers records before
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

/// Whether all are ready; every one of them is asked, or those behind the first would not wake the subtask.
pub(crate) fn every(polls: impl Iterator<Item = Poll<Result<(), Error>>>) -> Result<bool, Error> {
    let mut ready = true;
    for poll in polls {
        match poll {
            Poll::Ready(done) => done?,
            Poll::Pending => ready = false,
        }
    }
    Ok(ready)
}

/// The end of a stream that nobody reads on purpose.
pub(crate) struct Discard;

impl<T> Stage<T> for Discard {
    fn on_batch(&mut self, batch: &mut Batch<T>) -> Result<(), Error> {
        batch.clear();
        Ok(())
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
