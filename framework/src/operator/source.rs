//! The contract of sources: splits that are read in order, each with an offset.
//!
//! A source lists its splits; each subtask opens one reader for all the splits it is dealt. Between two calls of
//! [`poll`](SourceReader::poll) the runtime may take a checkpoint: it asks for the offset of each split, and whatever
//! was handed out before belongs to that checkpoint, whatever comes later to the next. After a crash the reader is
//! given these offsets again and must hand out exactly the records that follow them.
//!
//! If waiting for data and taking it are one call in your client, write a [`SplitSource`](crate::SplitSource) instead.

use crate::operator::{Traffic, Trouble};
use crate::{Attempt, Batch, BoxError, Data, Error, ErrorKind, Timestamp};
use std::fmt;

/// What names a part of a source that is read in order. It stands in manifests, so it must mean the same tomorrow.
pub trait Split: Data + Clone + Ord + fmt::Display + fmt::Debug {}
impl<T: Data + Clone + Ord + fmt::Display + fmt::Debug> Split for T {}

/// A source: lists splits, and opens a reader per subtask.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source",
    label = "not a source",
    note = "a connector's builder becomes a source when its format is chosen, as in `Files::read(path).lines()`"
)]
pub trait Source: Send + Sync + 'static {
    /// Reads for one subtask.
    type Reader: SourceReader;

    /// All splits there are now, with those at hand that the checkpoint knows; these are read on in any case, listed
    /// again or not. A split that is not known is read from its start. Called when an attempt begins, while it is still
    /// found out what is restored, and again if that is another checkpoint than it seemed: listing has no effects.
    ///
    /// # Errors
    /// [`Error::refused`](crate::Error::refused) for what a person has to decide; any other error is retried by the
    /// restart policy.
    async fn splits(&self, known: &[SplitOf<Self>]) -> Result<Vec<SplitOf<Self>>, BoxError>;

    /// Opens the reader of one subtask, without splits. Called once per subtask and attempt, on the thread it stays on,
    /// also in subtasks that will be dealt no split: the first [`poll`](SourceReader::poll) of those says
    /// [`Polled::Finished`].
    ///
    /// # Errors
    /// As for [`splits`](Source::splits).
    async fn open(&self, cx: &SourceContext) -> Result<Self::Reader, BoxError>;

    /// Where these splits, which a checkpoint has read up to these offsets, are to be read from by the order of a
    /// person (the command `offsets reset`): a place for each, in their order. Nothing runs meanwhile, no reader is
    /// open, and nothing is to be changed; it may be asked once for a plan and once more to carry it out. The splits
    /// need not be what the checkpoint has read: to go on with a file or a topic that was made again is what this is
    /// for, so the offsets given have to be those of what is there now. One call of whatever the source asks serves all
    /// splits.
    ///
    /// By default a source cannot do this.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), saying which places there are, for one that there is not; and for
    /// a split that is gone, of which only the order to forget it makes sense, which needs no source.
    async fn reset(
        &self,
        splits: &[(SplitOf<Self>, OffsetOf<Self>)],
        to: ResetTo,
    ) -> Result<Vec<ResetPlace<OffsetOf<Self>>>, BoxError> {
        let _ = (splits, to);
        Err(cannot_reset())
    }

    /// Whether the reader gives each record its event time.
    fn has_event_time(&self) -> bool {
        false
    }

    /// Whether its readers read ahead into memory; then [`SourceContext::ahead_bytes`] is their share of the job's.
    fn reads_ahead(&self) -> bool {
        false
    }
}

/// Apart from what is compiled per source.
pub(super) fn cannot_reset() -> BoxError {
    let text =
        "this source cannot be set to another place; it can be made to `forget` splits, which are then read anew";
    Error::new(ErrorKind::Usage, text).into()
}

/// Where a person wants splits to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// The oldest record there is.
    Earliest,
    /// What comes after all that is there now.
    Latest,
    /// The first record of this time or a later one; the end, if there is none.
    At(Timestamp),
    /// This offset, as the source counts them.
    Offset(u64),
}

/// Where a split is to be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetPlace<O> {
    /// The offset of the next record.
    pub offset: O,
    /// What that means, for people: `up to 12 records are read again`.
    pub what: String,
}

/// Reads all the splits of one subtask.
pub trait SourceReader: 'static {
    /// What it reads.
    type Record: Send + 'static;
    /// What names a split.
    type Split: Split;
    /// Where in a split: all that is needed to go on, and to notice that the split is not what it was. It stands in
    /// manifests as JSON.
    type Offset: Data + Clone + fmt::Debug;

    /// Takes a split over, to be read from `from`, or from its start. Gives the offset it really starts at, so that
    /// "the newest" becomes a number that the first checkpoint keeps.
    ///
    /// # Errors
    /// [`Error::refused`](crate::Error::refused) when the split cannot be the one the offset was taken from.
    async fn assign(&mut self, split: Self::Split, from: Option<Self::Offset>) -> Result<Self::Offset, BoxError>;

    /// All splits of the start have been assigned. What takes asking somebody is best asked for all of them at once,
    /// here; nothing is read before it returns. Not called for splits that are found later. A reader around another one
    /// has to hand this on, or that one never begins.
    ///
    /// # Errors
    /// As for [`assign`](SourceReader::assign); the runtime does not know of which split, so they have to say.
    async fn assigned(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Waits until [`poll`](SourceReader::poll) may bring something. Takes nothing, for the runtime drops the future
    /// whenever something else is to be done, and calls it anew. There is no error to give: return, and let `poll` say
    /// what is wrong.
    async fn ready(&mut self);

    /// Hands out records that are there, of one split, at most [`room`](SplitBatch::room). Never waits.
    ///
    /// # Errors
    /// Ends the attempt. A record that cannot be decoded is an error that says where.
    fn poll(&mut self, out: &mut SplitBatch<Self::Record, Self::Split>) -> Result<Polled, BoxError>;

    /// Splits that have come into being since the splits were listed, and that this reader is to read; each once. Asked
    /// for after each `poll`, then assigned as those of the start are, without an offset. A checkpoint that is restored
    /// may not know them yet: then they have to be listed. A reader without splits is over, and is asked no more.
    fn found(&mut self) -> Vec<Self::Split> {
        Vec::new()
    }

    /// The offset of the next record that `poll` will hand out of this split. Asked for at each barrier, of every split
    /// that was assigned, those that have been read to their end included.
    ///
    /// # Errors
    /// Ends the attempt.
    fn offset(&self, split: &Self::Split) -> Result<Self::Offset, BoxError>;

    /// These offsets belong to a decided checkpoint: they may be shown to others, such as a consumer group. Best
    /// effort: it may be left out by a crash, and is never the authority.
    async fn decided(&mut self, offsets: &[(Self::Split, Self::Offset)]) {
        let _ = offsets;
    }
}

/// The record type of a source.
pub type RecordOf<S> = <<S as Source>::Reader as SourceReader>::Record;
/// The split type of a source.
pub type SplitOf<S> = <<S as Source>::Reader as SourceReader>::Split;
/// The offset type of a source.
pub type OffsetOf<S> = <<S as Source>::Reader as SourceReader>::Offset;

/// Who a reader is.
#[derive(Debug, Clone)]
pub struct SourceContext {
    /// The job.
    pub job: String,
    /// The name of the source.
    pub source: String,
    /// Which of `parallelism` subtasks, from 0.
    pub subtask: usize,
    /// How many subtasks read this source.
    pub parallelism: usize,
    /// This life of the job.
    pub attempt: Attempt,
    /// Where the reader counts the bytes it takes in, if it knows them.
    pub traffic: Traffic,
    /// Where the reader says what holds it up.
    pub trouble: Trouble,
    /// How many bytes this reader may have read ahead; nothing unless the source says [`Source::reads_ahead`].
    pub ahead_bytes: usize,
}

/// What a poll found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// There may be more at once: poll again.
    More,
    /// Nothing more for now, for every split has been read to its end: wait with `ready`.
    AtEnd,
    /// Nothing more for now, though there may be more in some split, as with a rate to be kept: wait with `ready`.
    Later,
    /// Nothing ever again, in any split of this reader.
    Finished,
}

/// Where `poll` puts records: a batch of one split.
#[derive(Debug)]
pub struct SplitBatch<R, S> {
    pub(crate) records: Batch<R>,
    pub(crate) split: Option<S>,
    /// How many records the runtime wants at most.
    pub(crate) room: usize,
    /// Splits that are read to their end, and whether nothing will follow.
    pub(crate) ends: Vec<(S, bool)>,
    /// Whether an offset moved without a record.
    pub(crate) moved: bool,
}

impl<R, S: Clone> Default for SplitBatch<R, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R, S: Clone> SplitBatch<R, S> {
    /// An empty batch; connectors need one in their tests only.
    #[must_use]
    pub fn new() -> Self {
        Self { records: Batch::new(), split: None, room: crate::record::BATCH, ends: Vec::new(), moved: false }
    }

    /// Says which split the records of this batch are of; call it once per poll that hands out records.
    pub fn of(&mut self, split: &S) {
        self.split = Some(split.clone());
    }

    /// Says, at each poll while it is so, that a split has been read to its end for now, records of this batch
    /// included; for a reader that knows it of one split and not of all, of which [`Polled::AtEnd`] speaks. A split
    /// that is never said to be at its end never counts as idle, and holds the watermark back.
    pub fn at_end(&mut self, split: &S) {
        self.ends.push((split.clone(), false));
    }

    /// Says once that nothing follows in a split: it holds no watermark back from now on. [`Polled::Finished`] says it
    /// of all.
    pub fn finished(&mut self, split: &S) {
        self.ends.push((split.clone(), true));
    }

    /// Says that the offset of a split has passed something that is no record, such as the mark of an aborted
    /// transaction, so that a checkpoint keeps it though there may be no record to keep.
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// How many more records this batch takes. More are not lost, but make batches that are too large for the cache.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room.saturating_sub(self.records.len())
    }

    /// Adds a record without event time.
    #[inline(always)]
    pub fn push(&mut self, value: R) {
        self.records.values.push(value);
    }

    /// Adds a record with its event time; only for sources that say [`Source::has_event_time`].
    #[inline(always)]
    pub fn push_at(&mut self, time: Timestamp, value: R) {
        self.records.values.push(value);
        self.records.times.push(time);
    }

    /// The split it was said to be [`of`](Self::of).
    pub fn split(&self) -> Option<&S> {
        self.split.as_ref()
    }

    /// The values of this batch, to append to.
    pub fn values(&mut self) -> &mut Vec<R> {
        &mut self.records.values
    }
}
