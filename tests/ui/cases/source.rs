//! A builder of files is no source before it has a format.
use millstream::prelude::*;

fn topology(t: &Topology) -> Result<(), BoxError> {
    t.source("text", Files::read("in")).discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
