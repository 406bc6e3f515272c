//! The operators, sources and sinks that come with millstream. They are written against `millstream-framework` only, as
//! a stranger's would be; pipelines depend on the facade `millstream`, which re-exports both.
//!
//! | what | where |
//! |---|---|
//! | operators on keyed streams: the list | [`KeyedOperators`] in `keyed.rs` |
//! | what they do, one operator per file | `with_state.rs`, `reduce.rs`, [`aggregate`] |
//! | sources: files, Kafka (feature `kafka`), a generator, an iterator, the program itself | [`sources`] |
//! | sinks: files, the console, memory, the program itself, nowhere | [`sinks`] |
//!
//! User functions are boxed, so that an operator is compiled once per data type and not once per closure.

pub mod aggregate;
mod channel;
mod files;
#[cfg(test)]
#[path = "../../framework/src/fuzz_test.rs"]
mod fuzz;
#[cfg(feature = "kafka")]
mod kafka;
mod keyed;
mod reduce;
pub mod sinks;
pub mod sources;
#[cfg(test)]
mod testing;
mod with_state;

pub use aggregate::{Aggregate, Of};
pub use channel::Channel;
pub use files::Files;
#[cfg(feature = "kafka")]
pub use kafka::Kafka;
pub use keyed::KeyedOperators;
pub use sinks::{Collected, Console, Null};
pub use sources::{Generator, Records, Undecodable};
