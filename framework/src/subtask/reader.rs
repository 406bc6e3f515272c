//! A source's reader without its types, so that the loop at a source (`source.rs`) is compiled once: splits have
//! numbers here, in the order in which they were assigned, and offsets are JSON or text. What is left to compile per
//! source is a call per batch and little else.

use crate::operator::{OffsetOf, Polled, RecordOf, Source, SourceContext, SourceReader, Split, SplitBatch, SplitOf};
use crate::record::AnyBatch;
use crate::{BoxError, Data, Epoch, Error};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a poll brought, besides the records.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) records: usize,
    /// Which split they are of.
    pub(crate) split: Option<usize>,
    /// Splits at their end, and whether it is for good. To be emptied.
    pub(crate) ends: Vec<(usize, bool)>,
    /// Whether an offset moved without a record.
    pub(crate) moved: bool,
    /// Whether there are splits to be adopted.
    pub(crate) found: bool,
}

/// A reader whose types only it knows.
pub(crate) trait AnyReader {
    /// Takes a split, from an offset on; both as they stand in manifests. It has the next number from now on.
    fn assign(&mut self, split: Value, from: Option<Value>) -> Result<LocalBoxFuture<'_, Result<(), BoxError>>, Error>;
    /// All of the start have been assigned.
    fn assigned(&mut self) -> LocalBoxFuture<'_, Result<(), BoxError>>;
    /// Takes the splits that were found since, from their start; how many. They have the next numbers.
    fn adopt(&mut self) -> LocalBoxFuture<'_, Result<usize, BoxError>>;
    /// Reads at most so many records into the batch.
    fn poll(&mut self, room: usize, read: &mut Read) -> Result<Polled, BoxError>;
    fn batch(&mut self) -> &mut dyn AnyBatch;
    fn ready(&mut self) -> LocalBoxFuture<'_, ()>;
    /// What a split is called.
    fn name(&self, split: usize) -> String;
    /// A split, as it stands in manifests.
    fn split(&self, split: usize) -> Option<Value>;
    /// The offset of the next record of a split, in words.
    fn offset(&self, split: usize) -> String;
    /// Each split and its offset, as they stand in manifests. They are kept until the epoch is decided. The place is
    /// for errors.
    fn keep(&mut self, epoch: Epoch, place: &str) -> Result<Vec<(Value, Value)>, Error>;
    /// Shows the reader the offsets of this epoch and those before it.
    fn decided(&mut self, epoch: Epoch) -> LocalBoxFuture<'_, ()>;
}

/// A reader on its way.
pub(crate) type Opening = LocalBoxFuture<'static, Result<Box<dyn AnyReader>, BoxError>>;

/// Opens a reader.
pub(crate) fn open_source<S: Source>(source: Arc<S>, cx: SourceContext) -> Opening {
    async move {
        let reader: Box<dyn AnyReader> = Box::new(ReaderOf::<S> {
            reader: source.open(&cx).await?,
            splits: Vec::new(),
            numbers: BTreeMap::new(),
            batch: SplitBatch::new(),
            kept: VecDeque::new(),
            found: Vec::new(),
        });
        Ok(reader)
    }
    .boxed_local()
}

struct ReaderOf<S: Source> {
    reader: S::Reader,
    splits: Vec<SplitOf<S>>,
    /// The number of each.
    numbers: BTreeMap<SplitOf<S>, usize>,
    batch: SplitBatch<RecordOf<S>, SplitOf<S>>,
    /// What is not decided yet.
    kept: VecDeque<(Epoch, Vec<(SplitOf<S>, OffsetOf<S>)>)>,
    /// To be adopted.
    found: Vec<SplitOf<S>>,
}

impl<S: Source> AnyReader for ReaderOf<S> {
    fn assign(&mut self, split: Value, from: Option<Value>) -> Result<LocalBoxFuture<'_, Result<(), BoxError>>, Error> {
        let (split, from) = read::<SplitOf<S>, _>(split, from)?;
        self.numbers.insert(split.clone(), self.splits.len());
        self.splits.push(split.clone());
        Ok(async move { self.reader.assign(split, from).await.map(|_| ()) }.boxed_local())
    }

    fn assigned(&mut self) -> LocalBoxFuture<'_, Result<(), BoxError>> {
        self.reader.assigned().boxed_local()
    }

    fn adopt(&mut self) -> LocalBoxFuture<'_, Result<usize, BoxError>> {
        async move {
            let mut adopted = 0;
            for split in std::mem::take(&mut self.found) {
                if !self.numbers.contains_key(&split) {
                    self.reader.assign(split.clone(), None).await?;
                    self.numbers.insert(split.clone(), self.splits.len());
                    self.splits.push(split);
                    adopted += 1;
                }
            }
            Ok(adopted)
        }
        .boxed_local()
    }

    fn poll(&mut self, room: usize, read: &mut Read) -> Result<Polled, BoxError> {
        let Self { reader, batch, numbers, .. } = self;
        batch.split = None;
        (batch.room, batch.moved) = (room, false);
        let polled = reader.poll(batch)?;
        read.records = batch.records.len();
        read.moved = batch.moved;
        self.found.extend(reader.found());
        read.found = !self.found.is_empty();
        read.split = match &batch.split {
            Some(split) if read.records > 0 => numbers.get(split).copied(),
            _ => None,
        };
        for (split, finished) in batch.ends.drain(..) {
            if let Some(number) = numbers.get(&split) {
                read.ends.push((*number, finished));
            }
        }
        Ok(polled)
    }

    fn batch(&mut self) -> &mut dyn AnyBatch {
        &mut self.batch.records
    }

    fn ready(&mut self) -> LocalBoxFuture<'_, ()> {
        self.reader.ready().boxed_local()
    }

    fn name(&self, split: usize) -> String {
        self.splits[split].to_string()
    }

    fn split(&self, split: usize) -> Option<Value> {
        serde_json::to_value(&self.splits[split]).ok()
    }

    fn offset(&self, split: usize) -> String {
        match self.reader.offset(&self.splits[split]) {
            Ok(offset) => format!("{offset:?}"),
            Err(e) => e.to_string(),
        }
    }

    fn keep(&mut self, epoch: Epoch, place: &str) -> Result<Vec<(Value, Value)>, Error> {
        let mut offsets = Vec::with_capacity(self.splits.len());
        let mut shown = Vec::with_capacity(self.splits.len());
        for split in &self.splits {
            let offset = self.reader.offset(split);
            let offset = offset.map_err(|e| Error::from_user(e, format!("{place}, split {split}")))?;
            shown.push(json(split, &offset, place)?);
            offsets.push((split.clone(), offset));
        }
        self.kept.push_back((epoch, offsets));
        Ok(shown)
    }

    fn decided(&mut self, epoch: Epoch) -> LocalBoxFuture<'_, ()> {
        async move {
            while let Some((_, offsets)) = self.kept.pop_front_if(|(kept, _)| *kept <= epoch) {
                self.reader.decided(&offsets).await;
            }
        }
        .boxed_local()
    }
}

/// What a manifest says of a split. Apart from what is compiled per source, as is the next one.
fn read<S: Split, O: Data>(split: Value, from: Option<Value>) -> Result<(S, Option<O>), Error> {
    let split = serde_json::from_value(split).map_err(|e| not_ours("split", &e))?;
    let from = from.map(serde_json::from_value).transpose().map_err(|e| not_ours("offset", &e))?;
    Ok((split, from))
}

/// What a manifest is to say of it.
fn json<S: Split, O: Data>(split: &S, offset: &O, place: &str) -> Result<(Value, Value), Error> {
    let failed = |e: serde_json::Error| Error::from_user(e.into(), format!("{place}, split {split} as JSON"));
    Ok((serde_json::to_value(split).map_err(failed)?, serde_json::to_value(offset).map_err(failed)?))
}

fn not_ours(what: &str, error: &serde_json::Error) -> Error {
    Error::refused(format!(
        "the checkpoint has a {what} that this source cannot read ({error}): give the source another name to start it anew, or use the source that wrote it"
    ))
}
