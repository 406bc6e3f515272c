//! `process` takes what implements `Process`.
use millstream::prelude::*;

struct Fraud;

fn topology(t: &Topology) -> Result<(), BoxError> {
    let ids = t.source("ids", Records::of([7u64]));
    ids.key_by(|id| id).process("fraud", Fraud).discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
