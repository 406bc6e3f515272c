//! An operator without keys: asks a remote service about each record, so many calls at once, and emits the answers in
//! the order of the records. What has no answer yet is an item, so it is in every checkpoint, and no checkpoint waits
//! for an answer.

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use millstream_framework::{Batch, BoxError, Operator, Output, Record, Timestamp};
use serde::{Deserialize, Serialize};
use std::rc::Rc;
use std::time::Duration;

/// A stand-in for the client of a service.
pub(crate) struct Client;

impl Client {
    /// The price of a book, which takes a while.
    async fn price(&self, book: u64) -> Result<u64, BoxError> {
        tokio::time::sleep(Duration::from_millis(1 + book % 13)).await;
        Ok(price(book))
    }
}

/// What the service answers.
pub(crate) fn price(book: u64) -> u64 {
    1_000_000 + 7 * book
}

/// A record without an answer. It stands in checkpoints.
#[derive(Serialize, Deserialize)]
pub(crate) struct Question {
    book: u64,
    time: Timestamp,
}

/// The operator. It is made on the thread it stays on, so it may hold what is not `Send`.
pub(crate) struct Lookup {
    client: Rc<Client>,
    at_once: usize,
    /// Call i is for item i. After a restart there are items and no calls yet.
    calls: FuturesOrdered<LocalBoxFuture<'static, Result<u64, BoxError>>>,
}

impl Lookup {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { client: Rc::new(Client), at_once, calls: FuturesOrdered::new() }
    }

    /// Starts the calls that are missing and waits for the first answer.
    async fn next(&mut self, items: &mut Vec<Question>, out: &mut Output<u64>) -> Result<(), BoxError> {
        for Question { book, .. } in items.iter().take(self.at_once).skip(self.calls.len()) {
            let (client, book) = (self.client.clone(), *book);
            self.calls.push_back(Box::pin(async move { client.price(book).await }));
        }
        // may be dropped while it waits here: `calls` keeps what is under way; from here on there is no `await`
        let Some(answer) = self.calls.next().await else { return std::future::pending().await };
        let Question { time, .. } = items.remove(0);
        out.emit(Record { value: answer?, time });
        Ok(())
    }
}

impl Operator for Lookup {
    type In = u64;
    type Out = u64;
    type Item = Question;

    /// Must not wait: takes the questions in.
    async fn on_batch(
        &mut self,
        batch: Batch<u64>,
        items: &mut Vec<Question>,
        _: &mut Output<u64>,
    ) -> Result<(), BoxError> {
        items.extend(batch.into_records().map(|Record { value: book, time }| Question { book, time }));
        Ok(())
    }

    async fn ready(&mut self, items: &mut Vec<Question>, out: &mut Output<u64>) -> Result<(), BoxError> {
        self.next(items, out).await
    }

    fn capacity(&self) -> usize {
        self.at_once
    }

    /// Nothing older than the oldest question will come of them.
    fn pending_since(&self, items: &[Question]) -> Option<Timestamp> {
        items.iter().map(|question| question.time).min()
    }

    async fn on_end(&mut self, items: &mut Vec<Question>, out: &mut Output<u64>) -> Result<(), BoxError> {
        while !items.is_empty() {
            self.next(items, out).await?;
        }
        Ok(())
    }
}
