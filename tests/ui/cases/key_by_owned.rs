//! rustc's own: `key_by` borrows.
use millstream::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    id: u64,
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let orders = t.source("orders", Records::of([Order { id: 7 }]));
    orders.key_by(|o| o.id).map_with_state("seen", |seen: &mut bool, _| *seen).discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
