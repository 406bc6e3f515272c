//! What holds a connector up, for those who watch a job.

use std::sync::{Arc, Mutex, PoisonError};

/// What a connector waits for before it can go on, such as a server that does not answer: text for people, shown in
/// [`OperatorStatus`](crate::OperatorStatus) as long as it lasts. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// It has this trouble, or none any more.
    pub fn set(&self, text: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// What it is, if there is any.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
