//! A source that makes its records: for benchmarks, tests and demonstrations.

use super::rate::{Pacer, Rate};
use millstream_framework::{BoxError, Error, ErrorKind, Polled, Source, SourceContext, SourceReader, SplitBatch};
use std::fmt;
use std::sync::Arc;

/// Makes the record of each (split, offset) with a function, so that a restart makes the same ones again. The function
/// must look at nothing else.
///
/// ```
/// use millstream_operators::Generator;
///
/// let squares = Generator::new(|split: u64, offset: u64| (split, offset * offset)).splits(4).count(1000).rate(500);
/// ```
///
/// Splits are numbered from 0, offsets count the records of a split from 0. A run with more splits or a larger count
/// goes on where the last one ended; with less it reads nothing more, and what was read stays read.
pub struct Generator<F> {
    make: Arc<F>,
    splits: u64,
    count: Option<u64>,
    rate: Rate,
}

impl<F> Generator<F> {
    /// One split without an end.
    pub fn new<T>(make: F) -> Self
    where
        F: Fn(u64, u64) -> T + Send + Sync + 'static,
    {
        Self { make: Arc::new(make), splits: 1, count: None, rate: Rate::default() }
    }

    /// So many splits; at most that many subtasks have something to do.
    #[must_use]
    pub fn splits(mut self, splits: u64) -> Self {
        self.splits = splits;
        self
    }

    /// So many records per split, then the source ends.
    #[must_use]
    pub fn count(mut self, per_split: u64) -> Self {
        self.count = Some(per_split);
        self
    }

    /// At most so many records per second in the whole job, handed out about every 10 ms; `None` for no limit.
    #[must_use]
    pub fn rate(mut self, per_second: impl Into<Option<u64>>) -> Self {
        self.rate.set(per_second.into());
        self
    }
}

impl<F> fmt::Debug for Generator<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("splits", &self.splits).field("count", &self.count).finish_non_exhaustive()
    }
}

#[diagnostic::do_not_recommend]
impl<T: Send + 'static, F: Fn(u64, u64) -> T + Send + Sync + 'static> Source for Generator<F> {
    type Reader = GeneratorReader<F>;

    async fn splits(&self, _: &[u64]) -> Result<Vec<u64>, BoxError> {
        self.rate.check()?;
        if self.splits == 0 {
            return Err(
                Error::new(ErrorKind::Usage, "a generator of 0 splits makes nothing: give it at least one").into()
            );
        }
        Ok((0..self.splits).collect())
    }

    async fn open(&self, _: &SourceContext) -> Result<GeneratorReader<F>, BoxError> {
        Ok(GeneratorReader {
            make: self.make.clone(),
            end: self.count.unwrap_or(u64::MAX),
            lanes: Vec::new(),
            next: 0,
            pacer: self.rate.pacer(),
        })
    }
}

/// The reader of [`Generator`].
pub struct GeneratorReader<F> {
    make: Arc<F>,
    /// The offset after the last one of each split.
    end: u64,
    /// Each split with the offset of its next record.
    lanes: Vec<(u64, u64)>,
    next: usize,
    pacer: Pacer,
}

impl<F> fmt::Debug for GeneratorReader<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratorReader").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl<F> GeneratorReader<F> {
    /// The lane whose turn it is, which has something to hand out.
    fn turn(&mut self) -> Option<&mut (u64, u64)> {
        for _ in 0..self.lanes.len() {
            self.next = if self.next + 1 < self.lanes.len() { self.next + 1 } else { 0 };
            if self.lanes[self.next].1 < self.end {
                return self.lanes.get_mut(self.next);
            }
        }
        None
    }

    /// The split, and which of its offsets are to be made now.
    fn take(&mut self, room: usize) -> Result<(u64, std::ops::Range<u64>), Polled> {
        let (granted, end) = (self.pacer.grant(room), self.end);
        let Some((split, offset)) = self.turn() else {
            self.pacer.stop();
            return Err(Polled::Finished);
        };
        if granted == 0 {
            return Err(Polled::Later);
        }
        let (split, from) = (*split, *offset);
        *offset = end.min(from.saturating_add(granted as u64));
        let range = from..*offset;
        self.pacer.spend((range.end - range.start) as usize);
        Ok((split, range))
    }
}

impl<T: Send + 'static, F: Fn(u64, u64) -> T + Send + Sync + 'static> SourceReader for GeneratorReader<F> {
    type Record = T;
    type Split = u64;
    type Offset = u64;

    async fn assign(&mut self, split: u64, from: Option<u64>) -> Result<u64, BoxError> {
        let from = from.unwrap_or(0);
        self.lanes.push((split, from));
        self.pacer.start();
        Ok(from)
    }

    async fn ready(&mut self) {
        self.pacer.ready().await;
    }

    fn poll(&mut self, out: &mut SplitBatch<T, u64>) -> Result<Polled, BoxError> {
        match self.take(out.room()) {
            Ok((split, offsets)) => {
                let make = &*self.make;
                out.of(&split);
                if offsets.end == self.end {
                    out.finished(&split);
                }
                out.values().extend(offsets.map(|offset| make(split, offset)));
                Ok(Polled::More)
            }
            Err(polled) => Ok(polled),
        }
    }

    fn offset(&self, split: &u64) -> Result<u64, BoxError> {
        let lane = self.lanes.iter().find(|lane| lane.0 == *split);
        lane.map(|lane| lane.1).ok_or_else(|| format!("split {split} was never assigned to this reader").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, drain, source_context};

    type Offsets = (u64, std::ops::Range<u64>);

    /// A reader of these splits, from these offsets.
    fn reader(
        generator: &Generator<fn(u64, u64) -> u64>,
        from: &[(u64, Option<u64>)],
    ) -> GeneratorReader<fn(u64, u64) -> u64> {
        block_on(async {
            let mut reader = generator.open(&source_context()).await.unwrap();
            for (split, from) in from {
                assert_eq!(reader.assign(*split, *from).await.unwrap(), from.unwrap_or(0));
            }
            reader
        })
    }

    fn generator() -> Generator<fn(u64, u64) -> u64> {
        Generator::new((|split, offset| split * 1000 + offset) as fn(u64, u64) -> u64)
    }

    /// What it takes until it finishes.
    fn rest(reader: &mut GeneratorReader<fn(u64, u64) -> u64>, room: usize) -> Vec<Offsets> {
        std::iter::from_fn(|| reader.take(room).ok()).collect()
    }

    #[test]
    fn splits_take_turns_and_end_at_their_count() {
        let mut reader = reader(&generator().count(5), &[(0, None), (1, Some(3)), (2, Some(5))]);
        assert_eq!(rest(&mut reader, 4), [(1, 3..5), (0, 0..4), (0, 4..5)]);
        assert_eq!(reader.take(4), Err(Polled::Finished));
        assert_eq!(reader.offset(&1).unwrap(), 5);
        assert!(reader.offset(&7).is_err());
    }

    #[test]
    fn makes_the_same_records_each_time() {
        let run = || drain(&mut reader(&generator().count(2000), &[(0, None), (3, Some(1998))]));
        let records = run();
        assert_eq!((records.len(), records[0]), (2002, (3, 4998)));
        assert_eq!(records, run());
    }

    #[test]
    fn goes_on_from_an_offset_and_reads_nothing_beyond_a_smaller_count() {
        let mut before = reader(&generator().count(10), &[(0, None)]);
        before.take(4).unwrap();
        let from = before.offset(&0).unwrap();
        assert_eq!(rest(&mut reader(&generator().count(10), &[(0, Some(from))]), 100), [(0, 4..10)]);
        assert_eq!(rest(&mut reader(&generator().count(3), &[(0, Some(from))]), 100), []);
    }

    #[test]
    fn lists_its_splits_and_refuses_what_never_ends() {
        assert_eq!(block_on(Source::splits(&generator().splits(3), &[])).unwrap(), [0, 1, 2]);
        assert!(block_on(Source::splits(&generator().splits(0), &[])).is_err());
        assert!(block_on(Source::splits(&generator().rate(0), &[])).is_err());
    }

    #[test]
    fn a_rate_makes_it_wait() {
        let mut reader = reader(&generator().rate(1), &[(0, None)]);
        assert_eq!(reader.take(100), Err(Polled::Later));
        assert!(reader.pacer.pause().is_some());
    }
}
