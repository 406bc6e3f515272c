//! Tests of pipelines.

mod driver;
mod harness;
mod rig;

use crate::Error;

pub use driver::{TestDriver, TestSource};
pub use harness::ProcessHarness;

/// What was asked for, or the end of the test at the line that asked.
#[track_caller]
fn done<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(done) => done,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests;
