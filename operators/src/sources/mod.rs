//! Sources: files, Kafka, a generator, the values of an iterator, and what the program sends. What they share:
//! `rate.rs`, a limit for the whole job, and `undecodable.rs`, a record that could not be decoded, as a value.

pub(crate) mod channel;
pub mod files;
mod generator;
mod hex;
mod iter;
#[cfg(feature = "kafka")]
pub mod kafka;
mod rate;
mod undecodable;

pub use channel::{ChannelOffset, ChannelReader, ChannelSender, ChannelSource, Closed, NotSent};
pub use generator::{Generator, GeneratorReader};
pub use iter::{Records, RecordsReader};
pub use undecodable::Undecodable;
