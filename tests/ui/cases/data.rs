//! What crosses an exchange or is kept in state is `Data`.
use millstream::prelude::*;

struct Bare {
    id: u64,
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let bare = t.source("ids", Records::of([7u64])).map(|id| Bare { id });
    bare.key_by(|bare| &bare.id).map_with_state("seen", |seen: &mut bool, _| *seen).discard();
    Ok(())
}

fn kept(t: &Topology) -> Result<(), BoxError> {
    let ids = t.source("ids", Records::of([7u64]));
    ids.key_by(|id| id).map_with_state("last", |last: &mut Option<Bare>, id| last.replace(Bare { id })).discard();
    Ok(())
}

fn main() {
    let _ = (topology, kept);
}
