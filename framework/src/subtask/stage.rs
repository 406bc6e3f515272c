//! A stage: what an operator, or a fused chain, is in one subtask. One virtual call per batch; stages own what follows
//! them. What drives them is in `drive.rs`.

use crate::operator::{Chain, Collect};
use crate::{Batch, BoxError, Epoch, Error, Record, Timestamp};
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
    fn on_announced(&mut self, _: Epoch) {}
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

/// A fused chain in front of another stage of the same subtask.
pub(crate) struct ChainStage<C, T> {
    chain: C,
    timed: bool,
    out: Batch<T>,
    next: Box<dyn Stage<T>>,
    /// For errors.
    place: String,
}

impl<T: 'static, C: Chain<T>> ChainStage<C, T> {
    pub(crate) fn new(chain: C, timed: bool, next: Box<dyn Stage<T>>, place: String) -> Self {
        Self { chain, timed, out: Batch::default(), next, place }
    }
}

/// Records of so many bytes are cheaper to put down than a branch on whether to.
const SMALL: usize = 64;

/// Where a chain puts its results.
struct Tail<'a, T, const TIMED: bool> {
    out: &'a mut Batch<T>,
    error: Option<BoxError>,
}

impl<T, const TIMED: bool> Collect<T> for Tail<'_, T, TIMED> {
    #[inline(always)]
    fn emit(&mut self, r: Record<T>) {
        self.out.values.push(r.value);
        if TIMED {
            self.out.times.push(r.time);
        }
    }
    #[inline(always)]
    fn emit_if(&mut self, keep: bool, r: Record<T>) {
        if TIMED || std::mem::needs_drop::<T>() || size_of::<T>() > SMALL {
            if keep {
                self.emit(r);
            }
            return;
        }
        // put down in any case, and left out of the length: no branch
        let len = self.out.values.len();
        self.out.values.push(r.value);
        self.out.values.truncate(len + usize::from(keep));
    }
    #[cold]
    fn fail(&mut self, error: BoxError) {
        self.error.get_or_insert(error);
    }
}

/// Runs each record of the batch through the chain into `tail`. Two loops, so that untimed streams do not pay for
/// times.
#[inline(always)]
pub(crate) fn run_chain<T, C: Chain<T>>(
    chain: &mut C,
    timed: bool,
    batch: &mut Batch<C::In>,
    tail: &mut impl Collect<T>,
) {
    if timed {
        let times = batch.times.drain(..).chain(std::iter::repeat(Timestamp::MIN));
        for (value, time) in batch.values.drain(..).zip(times) {
            chain.push(Record { value, time }, tail);
        }
    } else {
        for value in batch.values.drain(..) {
            chain.push(Record { value, time: Timestamp::MIN }, tail);
        }
    }
    batch.clear();
}

impl<T: 'static, C: Chain<T>> Stage<C::In> for ChainStage<C, T> {
    fn on_batch(&mut self, batch: &mut Batch<C::In>) -> Result<(), Error> {
        self.out.values.reserve(batch.len());
        let error = if self.timed {
            let mut tail = Tail::<T, true> { out: &mut self.out, error: None };
            run_chain(&mut self.chain, true, batch, &mut tail);
            tail.error
        } else {
            let mut tail = Tail::<T, false> { out: &mut self.out, error: None };
            run_chain(&mut self.chain, false, batch, &mut tail);
            tail.error
        };
        match error {
            Some(error) => Err(Error::from_user(error, &self.place)),
            None => self.next.on_batch(&mut self.out),
        }
    }
    fn on_watermark(&mut self, mark: Timestamp) -> Result<(), Error> {
        self.next.on_watermark(mark)
    }
    fn on_idle(&mut self) -> Result<(), Error> {
        self.next.on_idle()
    }
    fn on_announced(&mut self, epoch: Epoch) {
        self.next.on_announced(epoch);
    }
    fn on_barrier(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.next.on_barrier(epoch)
    }
    fn on_end(&mut self) -> Result<(), Error> {
        self.next.on_end()
    }
    fn on_decided(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.next.on_decided(epoch)
    }
    fn poll_ready(&mut self, all: bool, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.next.poll_ready(all, cx)
    }
    fn background(&mut self) -> Result<bool, Error> {
        self.next.background()
    }
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
