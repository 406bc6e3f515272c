//! Variants that are no branches, and a branch that cannot leave its thread.

use millstream::prelude::*;

#[derive(Branches)]
enum Event {
    Click(u64, u64),
    Quit,
}

#[derive(Branches)]
struct Order(u64);

#[derive(Branches)]
enum Shared {
    Here(std::rc::Rc<u64>),
    There(u64),
}

fn main() {}
