//! A sink takes the records its format can write.
use millstream::prelude::*;

#[derive(Clone)]
struct Order;

fn topology(t: &Topology) -> Result<(), BoxError> {
    let orders = t.source("orders", Records::of([Order]));
    orders.clone().sink("text", Files::write("out").text());
    orders.clone().sink("json", Files::write("out").json());
    orders.clone().sink("console", Console::out());
    orders.sink("no_format", Files::write("out"));
    Ok(())
}

fn main() {
    let _ = topology;
}
