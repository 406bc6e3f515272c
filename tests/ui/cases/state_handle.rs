//! The fields of a row are state handles.
use millstream::prelude::*;

#[derive(State)]
struct Row {
    small: Option<u64>,
    seen: ValueState<bool>,
    count: u64,
}

fn main() {
    let _: Option<Row> = None;
}
