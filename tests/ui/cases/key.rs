//! Floats are no keys.
use millstream::prelude::*;

fn topology(t: &Topology) -> Result<(), BoxError> {
    let prices = t.source("prices", Records::of([1.5f64]));
    prices.key_by(|price| price).map_with_state("seen", |seen: &mut bool, _| *seen).discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
