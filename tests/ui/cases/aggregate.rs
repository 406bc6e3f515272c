//! The closure of `aggregate` returns an aggregate of the stream's records.
use millstream::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    id: u64,
    shop: String,
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let orders = t.source("orders", Records::of([Order { id: 7, shop: "kiosk".into() }]));
    orders.clone().key_by(|o| &o.id).aggregate("orders", |_| 7u64).discard();
    orders.clone().key_by(|o| &o.id).aggregate("shops", |of| of.sum(|o| o.shop.clone())).discard();
    orders.key_by(|o| &o.id).aggregate("mean", |of| of.mean(|o| o.shop.clone())).discard();
    Ok(())
}

fn main() {
    let _ = topology;
}
