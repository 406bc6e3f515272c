//! What is made is no operator.
use millstream::prelude::*;

struct Lookup;

fn topology(t: &Topology) -> Result<(), BoxError> {
    t.source("numbers", Records::of([1u64])).operator("lookup", || Lookup).discard();
    Ok(())
}

fn main() {
    let _ = Job::new("job", topology);
}
