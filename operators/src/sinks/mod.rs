//! Sinks: part files exactly once, topics of Kafka (feature `kafka`), the console, the program itself, the memory of a
//! test, and nowhere.

pub(crate) mod channel;
mod collect;
mod console;
pub mod files;
#[cfg(feature = "kafka")]
pub mod kafka;
mod null;

pub use channel::{ChannelPart, ChannelReceiver, ChannelSink, ChannelWriter};
pub use collect::{Collected, CollectedWriter, Seen};
pub use console::{Console, ConsoleWriter};
pub use null::Null;
