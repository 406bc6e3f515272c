//! A share of memory that many take from, and give back to.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

/// In bytes.
#[derive(Debug)]
pub(super) struct Room {
    all: usize,
    /// Negative when more was taken than there was.
    left: AtomicIsize,
}

/// What one of them has taken. Goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    taken: usize,
}

impl Room {
    /// Of so many bytes.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { all: bytes, left: AtomicIsize::new(signed(bytes)) })
    }

    /// How much there is for all together.
    pub(super) fn all(&self) -> usize {
        self.all
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> isize {
        self.left.load(Relaxed)
    }
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

impl Share {
    /// Of nothing yet.
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), taken: 0 }
    }

    /// Takes so many bytes, if they are there.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let wanted = signed(bytes);
        let taken =
            self.room.left.fetch_update(Relaxed, Relaxed, |left| (left >= wanted).then(|| left - wanted)).is_ok();
        self.taken += if taken { bytes } else { 0 };
        taken
    }

    /// The same, but leaves half of all there is to others.
    pub(super) fn take_of_half(&mut self, bytes: usize) -> bool {
        self.room.left.load(Relaxed) >= signed(bytes + self.room.all / 2) && self.take(bytes)
    }

    /// Takes so many bytes that have been used already: others will have to wait for them.
    pub(super) fn take_anyway(&mut self, bytes: usize) {
        self.room.left.fetch_sub(signed(bytes), Relaxed);
        self.taken += bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.left.fetch_add(signed(self.taken), Relaxed);
    }
}
