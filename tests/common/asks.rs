//! An operator that asks a service about each record: so many calls at once, answers in the order of the records.

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use millstream::prelude::*;

/// A call of the service.
pub(crate) type Call<A> = LocalBoxFuture<'static, Result<A, BoxError>>;

/// Its items are the records that have no answer yet; the calls under way are for the first of them.
pub(crate) struct Asks<F, A> {
    call: F,
    at_once: usize,
    calls: FuturesOrdered<Call<A>>,
}

impl<F: Fn(u64) -> Call<A>, A> Asks<F, A> {
    pub(crate) fn new(at_once: usize, call: F) -> Self {
        Self { call, at_once, calls: FuturesOrdered::new() }
    }

    async fn answer(&mut self, items: &mut Vec<(u64, Timestamp)>, out: &mut Output<A>) -> Result<(), BoxError> {
        while let Some((question, _)) = items.get(self.calls.len()).filter(|_| self.calls.len() < self.at_once) {
            self.calls.push_back((self.call)(*question));
        }
        match self.calls.next().await {
            Some(answer) => {
                let (_, time) = items.remove(0);
                out.emit(Record { value: answer?, time });
                Ok(())
            }
            None => std::future::pending().await,
        }
    }
}

impl<F: Fn(u64) -> Call<A> + 'static, A: Send + 'static> Operator for Asks<F, A> {
    type In = u64;
    type Out = A;
    type Item = (u64, Timestamp);

    async fn on_batch(
        &mut self,
        batch: Batch<u64>,
        items: &mut Vec<(u64, Timestamp)>,
        _: &mut Output<A>,
    ) -> Result<(), BoxError> {
        items.extend(batch.into_records().map(|record| (record.value, record.time)));
        Ok(())
    }

    async fn ready(&mut self, items: &mut Vec<(u64, Timestamp)>, out: &mut Output<A>) -> Result<(), BoxError> {
        self.answer(items, out).await
    }

    fn capacity(&self) -> usize {
        self.at_once
    }

    async fn on_end(&mut self, items: &mut Vec<(u64, Timestamp)>, out: &mut Output<A>) -> Result<(), BoxError> {
        while !items.is_empty() {
            self.answer(items, out).await?;
        }
        Ok(())
    }
}
