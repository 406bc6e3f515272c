//! What a process function keeps is a struct with `#[derive(State)]`.
use millstream::prelude::*;

struct Seen {
    small: ValueState<u64>,
}

struct Fraud;
impl Process for Fraud {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = Seen;
    fn on_record(&self, id: u64, seen: &mut Seen, _: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        seen.small.set(id);
        Ok(())
    }
}

fn main() {
    let _ = Fraud;
}
