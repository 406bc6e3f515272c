//! Sinks: part files exactly once, the console, the memory of a test, and nowhere.

mod collect;
mod console;
pub mod files;
mod null;

pub use collect::{Collected, CollectedWriter, Seen};
pub use console::{Console, ConsoleWriter};
pub use null::Null;
