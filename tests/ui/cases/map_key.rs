//! What entries are found by is a key.
use millstream::prelude::*;

#[derive(State)]
struct Row {
    by_weight: MapState<f64, u64>,
}

fn main() {
    let _: Option<Row> = None;
}
