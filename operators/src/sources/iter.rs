//! A source of values that are there: for tests and small tables.

use millstream_framework::{BoxError, Error, Polled, Source, SourceContext, SourceReader, SplitBatch};
use std::fmt;
use std::sync::Arc;

/// Hands out the values of an iterator: one split, read by one subtask, whose offset is the index of the value.
///
/// ```
/// use millstream_operators::Records;
///
/// let words = Records::of(["the", "quick", "fox"].map(String::from));
/// ```
///
/// The values are collected when the source is made, so the iterator must end, and cloned when they are handed out. A
/// restart must make the same values again: a longer list is read on, a shorter one than was read is refused, and a
/// change of values that were read goes unnoticed.
pub struct Records<T>(Arc<[T]>);

impl<T: Clone + Send + Sync + 'static> Records<T> {
    /// The values of `values`, in order.
    pub fn of(values: impl IntoIterator<Item = T>) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({} values)", self.0.len())
    }
}

#[diagnostic::do_not_recommend]
impl<T: Clone + Send + Sync + 'static> Source for Records<T> {
    type Reader = RecordsReader<T>;

    async fn splits(&self, _: &[u64]) -> Result<Vec<u64>, BoxError> {
        Ok(vec![0])
    }

    async fn open(&self, _: &SourceContext) -> Result<RecordsReader<T>, BoxError> {
        Ok(RecordsReader { values: self.0.clone(), next: None })
    }
}

/// The reader of [`Records`].
pub struct RecordsReader<T> {
    values: Arc<[T]>,
    /// The index of the next value; `None` in readers that were not dealt the split.
    next: Option<usize>,
}

impl<T> fmt::Debug for RecordsReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordsReader").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<T> RecordsReader<T> {
    /// The values to hand out now; empty at the end.
    fn take(&mut self, room: usize) -> &[T] {
        let Some(next) = &mut self.next else { return &[] };
        let from = *next;
        *next = self.values.len().min(from.saturating_add(room));
        &self.values[from..*next]
    }
}

impl<T: Clone + Send + Sync + 'static> SourceReader for RecordsReader<T> {
    type Record = T;
    type Split = u64;
    type Offset = u64;

    async fn assign(&mut self, _: u64, from: Option<u64>) -> Result<u64, BoxError> {
        let from = from.unwrap_or(0);
        match usize::try_from(from).ok().filter(|next| *next <= self.values.len()) {
            Some(next) => self.next = Some(next),
            None => return Err(shorter(self.values.len(), from).into()),
        }
        Ok(from)
    }

    async fn ready(&mut self) {}

    fn poll(&mut self, out: &mut SplitBatch<T, u64>) -> Result<Polled, BoxError> {
        let values = self.take(out.room());
        if values.is_empty() {
            return Ok(Polled::Finished);
        }
        out.of(&0);
        out.values().extend_from_slice(values);
        Ok(Polled::More)
    }

    fn offset(&self, split: &u64) -> Result<u64, BoxError> {
        let next = self.next.filter(|_| *split == 0);
        next.map(|next| next as u64).ok_or_else(|| format!("split {split} was never assigned to this reader").into())
    }
}

fn shorter(have: usize, read: u64) -> Error {
    Error::refused(format!(
        "the source has {have} values, but the checkpoint has read {read} of them: give it the same values again, \
         or start anew with `--restore none`, an empty data directory and an empty output directory"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, drain, source_context};

    fn reader(values: &[u8], from: Option<u64>) -> Result<RecordsReader<u8>, BoxError> {
        block_on(async {
            let mut reader = Records::of(values.to_vec()).open(&source_context()).await?;
            reader.assign(0, from).await.map(|_| reader)
        })
    }

    #[test]
    fn hands_out_in_order_and_ends() {
        let mut reader = reader(&[1, 2, 3], None).unwrap();
        assert_eq!(reader.take(2), [1, 2]);
        assert_eq!(reader.offset(&0).unwrap(), 2);
        assert_eq!(drain(&mut reader), [(0, 3)]);
        assert!(reader.take(2).is_empty());
    }

    #[test]
    fn a_longer_list_is_read_on_and_a_shorter_one_refused() {
        assert_eq!(reader(&[1, 2, 3], Some(2)).unwrap().take(9), [3]);
        assert!(reader(&[1, 2, 3], Some(3)).unwrap().take(9).is_empty());
        let error = reader(&[1, 2, 3], Some(4)).unwrap_err().to_string();
        assert!(error.contains("3 values") && error.contains("read 4"), "{error}");
    }

    #[test]
    fn a_reader_without_the_split_has_nothing() {
        let mut reader = block_on(Records::of([1, 2]).open(&source_context())).unwrap();
        assert!(reader.take(9).is_empty() && reader.offset(&0).is_err());
    }
}
