//! rustc's own, with our words: a stream that reaches no sink.
#![deny(unused_must_use)]
use millstream::prelude::*;

fn topology(t: &Topology) -> Result<(), BoxError> {
    t.source("ids", Records::of([7u64])).map(|id| id + 1);
    t.source("more", Records::of([7u64])).key_by(|id| id);
    Ok(())
}

fn main() {
    let _ = topology;
}
