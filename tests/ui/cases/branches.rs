//! A stream is split that has no branches.

use millstream::prelude::*;

struct Order {
    cents: u64,
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let orders = t.source("cents", Records::of(0..10u64)).map(|cents| Order { cents });
    let (cheap, dear) = orders.split();
    Ok(())
}

fn main() {
    Job::new("branches", topology).main();
}
