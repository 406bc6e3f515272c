//! rustc's own: user functions are `Fn`, shared by all subtasks; what changes belongs into state.
use millstream::prelude::*;

fn topology(t: &Topology) -> Result<(), BoxError> {
    let mut count = 0;
    t.source("ids", Records::of([7u64]))
        .map(move |id| {
            count += 1;
            (count, id)
        })
        .discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
