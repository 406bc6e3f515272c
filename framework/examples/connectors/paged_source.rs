//! A source the simple way, for a service whose client waits and takes in one call: `SplitSource` lists the splits and
//! opens one at an offset, `SplitReader` reads it. `BySplit` makes it a source.

use millstream_framework::{BoxError, Error, Polled, SplitReader, SplitSource};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Books on a shelf, and on a page of the service's answer.
pub(crate) const BOOKS: u64 = 1500;
const PAGE: u64 = 40;

/// Whether the connection was lost.
pub(crate) static LOST: AtomicBool = AtomicBool::new(false);

/// A stand-in for the client: books of a shelf, from a place on. Once it loses the connection.
async fn page(shelf: u64, from: u64) -> Result<Vec<u64>, BoxError> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    if from >= BOOKS / 2 && !LOST.swap(true, Ordering::Relaxed) {
        return Err("the connection is lost".into());
    }
    Ok((from..BOOKS.min(from + PAGE)).map(|book| shelf * BOOKS + book).collect())
}

/// The source. All subtasks share it, and building a topology does no I/O: so it says where the service is, and holds
/// no connection to it.
pub(crate) struct Library {
    pub(crate) shelves: u64,
}

impl SplitSource for Library {
    /// The number of a shelf. It stands in manifests, so it must mean the same tomorrow.
    type Split = u64;
    type Reader = Shelf;

    async fn splits(&self, _known: &[u64]) -> Result<Vec<u64>, BoxError> {
        Ok((0..self.shelves).collect())
    }

    async fn open(&self, shelf: &u64, from: Option<u64>) -> Result<Shelf, BoxError> {
        let next = from.unwrap_or(0);
        if next > BOOKS {
            // going on from anywhere else could lose or double books: not to be tried again, a person has to decide
            let text = format!("shelf {shelf} has {BOOKS} books, of which {next} were read: put the others back");
            return Err(Error::refused(text).into());
        }
        Ok(Shelf { shelf: *shelf, next })
    }
}

/// Reads one shelf.
pub(crate) struct Shelf {
    shelf: u64,
    next: u64,
}

impl SplitReader for Shelf {
    type Record = u64;
    /// How many books were read, hence the number of the next one.
    type Offset = u64;

    async fn next_batch(&mut self, out: &mut Vec<u64>) -> Result<Polled, BoxError> {
        let books = page(self.shelf, self.next).await?;
        self.next += books.len() as u64;
        out.extend(books);
        Ok(if self.next < BOOKS { Polled::More } else { Polled::Finished })
    }

    fn offset(&self) -> u64 {
        self.next
    }
}
