//! Sources: files, a generator, the values of an iterator, and what the program sends. `rate.rs` is what they share: a
//! limit for the whole job.

pub(crate) mod channel;
pub mod files;
mod generator;
mod iter;
mod rate;

pub use channel::{ChannelOffset, ChannelReader, ChannelSender, ChannelSource, Closed, NotSent};
pub use generator::{Generator, GeneratorReader};
pub use iter::{Records, RecordsReader};
