//! `step` takes what implements `Step` for the stream's records.
use millstream::prelude::*;

#[derive(Clone)]
struct Shout;

fn topology(t: &Topology) -> Result<(), BoxError> {
    t.source("words", Records::of(["a".to_owned()])).step(Shout).discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
