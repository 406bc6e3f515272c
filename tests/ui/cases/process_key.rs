//! rustc's own: the process function wants another key.
use millstream::prelude::*;

struct Fraud;
impl Process for Fraud {
    type Key = String;
    type In = u64;
    type Out = u64;
    type State = ();
    fn on_record(&self, id: u64, _: &mut (), cx: &mut Context<'_, String, u64>) -> Result<(), BoxError> {
        cx.emit(id);
        Ok(())
    }
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let ids = t.source("ids", Records::of([7u64]));
    ids.key_by(|id| id).process("fraud", Fraud).discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
