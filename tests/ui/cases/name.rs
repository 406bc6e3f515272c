//! What keeps state has a name, which is the first argument.
use millstream::prelude::*;

struct Tumbling;

fn topology(t: &Topology) -> Result<(), BoxError> {
    let ids = t.source(7, Records::of([7u64]));
    ids.key_by(|id| id).map_with_state(Tumbling, |seen: &mut bool, _| *seen).discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
