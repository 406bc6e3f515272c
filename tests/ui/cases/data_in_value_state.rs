//! What a state keeps is `Data`: said at the first method that is called on it.
use millstream::prelude::*;

struct Bare;

#[derive(State)]
struct Row {
    last: ValueState<Bare>,
}

fn main() {
    let _: Option<Row> = None;
}
