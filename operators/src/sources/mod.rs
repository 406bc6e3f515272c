//! Sources: files, a generator, and the values of an iterator. `rate.rs` is what they share: a limit for the whole job.

pub mod files;
mod generator;
mod iter;
mod rate;

pub use generator::{Generator, GeneratorReader};
pub use iter::{Records, RecordsReader};
