//! Sources the simple way: a reader per split, whose one call waits and takes. [`BySplit`] makes it a [`Source`].
//!
//! The future of `next_batch` is never dropped half way: it is kept across barriers, and what it brought is handed out
//! when it is done.

use crate::operator::source::cannot_reset;
use crate::operator::{Polled, ResetPlace, ResetTo, Source, SourceContext, SourceReader, Split, SplitBatch};
use crate::{BoxError, Data};
use futures::FutureExt;
use futures::future::{LocalBoxFuture, poll_fn};
use std::fmt;
use std::task::Poll;

/// A source that opens a reader for each split.
pub trait SplitSource: Send + Sync + 'static {
    /// What names a split.
    type Split: Split;
    /// Reads one split.
    type Reader: SplitReader;

    /// All splits there are now; see [`Source::splits`].
    ///
    /// # Errors
    /// See [`Source::splits`].
    async fn splits(&self, known: &[Self::Split]) -> Result<Vec<Self::Split>, BoxError>;

    /// Opens a split at an offset, or at its start.
    ///
    /// # Errors
    /// [`Error::refused`](crate::Error::refused) when the split cannot be the one the offset was taken from.
    async fn open(
        &self,
        split: &Self::Split,
        from: Option<<Self::Reader as SplitReader>::Offset>,
    ) -> Result<Self::Reader, BoxError>;

    /// Where splits are to be read from by the order of a person; see [`Source::reset`].
    ///
    /// # Errors
    /// See [`Source::reset`].
    async fn reset(
        &self,
        splits: &[(Self::Split, <Self::Reader as SplitReader>::Offset)],
        to: ResetTo,
    ) -> Result<Vec<ResetPlace<<Self::Reader as SplitReader>::Offset>>, BoxError> {
        let _ = (splits, to);
        Err(cannot_reset())
    }
}

/// Reads one split.
pub trait SplitReader: 'static {
    /// What it reads.
    type Record: Send + 'static;
    /// Where in the split.
    type Offset: Data + Clone + fmt::Debug;

    /// Waits until there is something and appends it, about a thousand records at most. [`Polled::AtEnd`] says that the
    /// split has been read to its end for now; the next call may wait for long. A split never counts as idle, and holds
    /// the watermark back, unless it said so last. After [`Polled::Finished`] it is not called again. What it appends
    /// together with either of them counts, and appending nothing is allowed.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn next_batch(&mut self, out: &mut Vec<Self::Record>) -> Result<Polled, BoxError>;

    /// Where a new reader must start so that it goes on after the last record that was appended. Asked for when the
    /// reader has just been opened, and after each `next_batch`; never while one is under way.
    fn offset(&self) -> Self::Offset;
}

/// Makes a [`SplitSource`] a [`Source`].
#[derive(Debug, Clone)]
pub struct BySplit<S>(std::sync::Arc<S>);

impl<S: SplitSource> BySplit<S> {
    /// A source that reads with `source`.
    pub fn new(source: S) -> Self {
        Self(std::sync::Arc::new(source))
    }
}

#[diagnostic::do_not_recommend]
impl<S: SplitSource> Source for BySplit<S> {
    type Reader = SplitReaders<S>;
    async fn splits(&self, known: &[S::Split]) -> Result<Vec<S::Split>, BoxError> {
        self.0.splits(known).await
    }
    async fn open(&self, _: &SourceContext) -> Result<SplitReaders<S>, BoxError> {
        Ok(SplitReaders { source: self.0.clone(), lanes: Vec::new(), next: 0 })
    }
    async fn reset(
        &self,
        splits: &[(S::Split, <S::Reader as SplitReader>::Offset)],
        to: ResetTo,
    ) -> Result<Vec<ResetPlace<<S::Reader as SplitReader>::Offset>>, BoxError> {
        self.0.reset(splits, to).await
    }
}

type Taken<R> = (R, Vec<<R as SplitReader>::Record>, Result<Polled, BoxError>);

/// What a reader is doing.
enum State<R: SplitReader> {
    Idle(R),
    Reading(LocalBoxFuture<'static, Taken<R>>),
    Done(Taken<R>),
    Finished,
}

struct Lane<S: SplitSource> {
    split: S::Split,
    /// After the last record that `poll` handed out, not the last that was read.
    offset: <S::Reader as SplitReader>::Offset,
    /// So the last read said.
    at_end: bool,
    state: State<S::Reader>,
}

/// The reader of [`BySplit`].
pub struct SplitReaders<S: SplitSource> {
    source: std::sync::Arc<S>,
    lanes: Vec<Lane<S>>,
    next: usize,
}

impl<S: SplitSource> fmt::Debug for SplitReaders<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lanes.iter().map(|l| &l.split)).finish()
    }
}

impl<S: SplitSource> Lane<S> {
    /// Starts a read if none is under way, and looks whether it is done.
    fn drive(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        if let State::Idle(_) = self.state
            && let State::Idle(mut reader) = std::mem::replace(&mut self.state, State::Finished)
        {
            let read = async move {
                let mut records = Vec::new();
                let polled = reader.next_batch(&mut records).await;
                (reader, records, polled)
            };
            self.state = State::Reading(read.boxed_local());
        }
        if let State::Reading(read) = &mut self.state
            && let Poll::Ready(taken) = read.poll_unpin(cx)
        {
            self.state = State::Done(taken);
        }
        matches!(self.state, State::Done(_))
    }
}

impl<S: SplitSource> SourceReader for SplitReaders<S> {
    type Record = <S::Reader as SplitReader>::Record;
    type Split = S::Split;
    type Offset = <S::Reader as SplitReader>::Offset;

    async fn assign(&mut self, split: S::Split, from: Option<Self::Offset>) -> Result<Self::Offset, BoxError> {
        let reader = self.source.open(&split, from).await?;
        let offset = reader.offset();
        self.lanes.push(Lane { split, offset: offset.clone(), at_end: false, state: State::Idle(reader) });
        Ok(offset)
    }

    async fn ready(&mut self) {
        poll_fn(|cx| {
            // every lane is driven, or those behind the first would not wake this task
            let ready = self.lanes.iter_mut().map(|lane| lane.drive(cx)).filter(|ready| *ready).count() > 0;
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn poll(&mut self, out: &mut SplitBatch<Self::Record, S::Split>) -> Result<Polled, BoxError> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..self.lanes.len() {
            self.next = (self.next + 1) % self.lanes.len();
            let lane = &mut self.lanes[self.next];
            if !lane.drive(&mut cx) {
                continue;
            }
            if let State::Done((reader, mut records, polled)) = std::mem::replace(&mut lane.state, State::Finished) {
                let polled = polled?;
                lane.offset = reader.offset();
                out.of(&lane.split);
                out.values().append(&mut records);
                lane.at_end = polled == Polled::AtEnd;
                if polled == Polled::Finished {
                    out.finished(&lane.split);
                } else {
                    lane.state = State::Idle(reader);
                }
                return Ok(Polled::More);
            }
        }
        let mut left = self.lanes.iter().filter(|lane| !matches!(lane.state, State::Finished)).peekable();
        if left.peek().is_none() {
            return Ok(Polled::Finished);
        }
        left.filter(|lane| lane.at_end).for_each(|lane| out.at_end(&lane.split));
        Ok(Polled::Later)
    }

    fn offset(&self, split: &S::Split) -> Result<Self::Offset, BoxError> {
        let lane = self.lanes.iter().find(|lane| lane.split == *split);
        lane.map(|lane| lane.offset.clone()).ok_or_else(|| format!("split {split} was never assigned").into())
    }
}
