//! An attribute that is not built, not known or in the wrong place is never ignored.
use millstream::prelude::*;

#[derive(State)]
struct Later {
    #[state(ttl = Duration::from_secs(1))]
    small: ValueState<u64>,
}

#[derive(State)]
struct Unknown {
    #[state(nmae = "little")]
    small: ValueState<u64>,
}

#[derive(State)]
#[state(version = 2)]
struct Misplaced {
    small: ValueState<u64>,
}

#[derive(State)]
struct Unnameable {
    #[state(name = "My State")]
    small: ValueState<u64>,
    #[state(version = 0)]
    large: ValueState<u64>,
}

#[derive(State)]
struct Twins {
    #[state(name = "large")]
    small: ValueState<u64>,
    large: ValueState<u64>,
}

fn main() {
    let _: Option<(Later, Unknown, Misplaced, Unnameable, Twins)> = None;
}
