//! A row is a struct, and keeps something.
use millstream::prelude::*;

#[derive(State)]
enum Phase {
    Early(ValueState<u64>),
    Late,
}

#[derive(State)]
struct Pair(ValueState<u64>, ValueState<u64>);

#[derive(State)]
struct Nothing;

fn main() {
    let _: Option<(Phase, Pair, Nothing)> = None;
}
