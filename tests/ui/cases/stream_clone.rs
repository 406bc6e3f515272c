//! What can be cloned is a stream without steps, of records that can be cloned.
use millstream::prelude::*;

struct Bare;

fn topology(t: &Topology) -> Result<(), BoxError> {
    let bare = t.source("ids", Records::of([7u64])).map(|_| Bare).boxed();
    bare.clone().discard();
    bare.discard();
    Ok(())
}

fn chained(t: &Topology) -> Result<(), BoxError> {
    let chained = t.source("ids", Records::of([7u64])).map(|id| id + 1);
    chained.clone().discard();
    chained.discard();
    Ok(())
}

fn main() {
    let _ = (topology, chained);
}
