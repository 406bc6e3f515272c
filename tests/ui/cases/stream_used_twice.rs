//! rustc's own: a stream has one reader unless it is cloned.
use millstream::prelude::*;

fn topology(t: &Topology) -> Result<(), BoxError> {
    let ids = t.source("ids", Records::of([7u64]));
    ids.sink("one", Null::new());
    ids.sink("two", Null::new());
    Ok(())
}

fn main() {
    let _ = topology;
}
