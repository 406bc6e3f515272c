//! Shops: a map of what each customer bought where, and a list of the last purchases, both behind a cache of 1,000 rows
//! and entries per subtask. Entries are added, changed, taken out, ranged over and cleared; values are pushed and
//! popped at both ends. The probe shows all that is known of each key.
//!
//! Each key belongs to one split, so the order of its records, hence all output, is known.

use super::campaign::{Life, Made, SPLITS, Subject, Told};
use crate::common::{Output, mix};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::process::Command;

const KEYS: u64 = 2_000;
const SHOPS: u64 = 60;

/// What the source makes.
#[derive(Clone, Serialize, Deserialize)]
struct Purchase {
    customer: u64,
    offset: u64,
    random: u64,
    /// Asks for all that is known and changes nothing.
    is_probe: bool,
}

/// Before `probe_from` random customers of the split, few of them often; from there on each of its customers once.
fn purchase(split: u64, offset: u64, probe_from: u64) -> Purchase {
    let random = mix(split << 48 | offset);
    let is_probe = offset >= probe_from;
    let among = if random.is_multiple_of(3) { 10 } else { KEYS / SPLITS };
    let at = if is_probe { offset - probe_from } else { (random >> 8) % among };
    Purchase { customer: at * SPLITS + split, offset, random: random >> 20, is_probe }
}

#[derive(State)]
struct Customer {
    purchases: ValueState<u64>,
    by_shop: MapState<String, u64>,
    last: ListState<u64>,
}

fn shop(random: u64) -> String {
    format!("shop-{}", random % SHOPS)
}

/// Says what there is, in one line; the oracle says it of plain collections.
fn shown(purchase: &Purchase, said: &str) -> String {
    format!("{} {} {said}", purchase.customer, purchase.offset)
}

fn all(count: Option<u64>, by_shop: impl Iterator<Item = (String, u64)>, last: impl Iterator<Item = u64>) -> String {
    let mut text = format!("{count:?}");
    by_shop.for_each(|(shop, n)| _ = write!(text, " {shop}={n}"));
    last.for_each(|value| _ = write!(text, " {value}"));
    text
}

struct Shops;

impl Process for Shops {
    type Key = u64;
    type In = Purchase;
    type Out = String;
    type State = Customer;
    fn on_record(
        &self,
        purchase: Purchase,
        customer: &mut Customer,
        cx: &mut Context<'_, u64, String>,
    ) -> Result<(), BoxError> {
        let Customer { purchases, by_shop, last } = customer;
        if purchase.is_probe {
            cx.emit(shown(&purchase, &all(purchases.get().copied(), by_shop.iter(), last.iter())));
            return Ok(());
        }
        let (random, shop) = (purchase.random, shop(purchase.random >> 8));
        let said = match random % 32 {
            0 => {
                by_shop.clear();
                last.clear();
                purchases.take();
                "cleared".into()
            }
            1..=3 => format!("{:?}", by_shop.take(&shop)),
            4..=5 => {
                by_shop.remove(&shop);
                by_shop.insert(format!("{shop}!"), random);
                "moved".into()
            }
            6..=7 => format!("{:?}", by_shop.range(shop..).take(3).collect::<Vec<_>>()),
            8..=11 => format!("{:?} {:?}", last.pop_front(), last.pop_back()),
            12..=13 => format!("{} of {:?}", last.len(), last.get(random % 5)),
            _ => {
                *purchases.or_default() += 1;
                last.push(random);
                let visits = by_shop.or_default(shop);
                *visits += 1;
                visits.to_string()
            }
        };
        cx.emit(shown(&purchase, &said));
        Ok(())
    }
    /// Of every other record, so that entries come in either way.
    fn prefetch(&self, purchase: &Purchase, wanted: &mut Wanted<'_, Customer>) {
        if purchase.offset.is_multiple_of(2) {
            wanted.entry(|customer| &customer.by_shop, &shop(purchase.random >> 8));
        }
    }
}

/// The same in plain collections.
#[derive(Default)]
struct Plain {
    purchases: Option<u64>,
    by_shop: BTreeMap<String, u64>,
    last: VecDeque<u64>,
}

impl Plain {
    fn on_record(&mut self, purchase: &Purchase) -> String {
        let Self { purchases, by_shop, last } = self;
        if purchase.is_probe {
            let entries = by_shop.iter().map(|(shop, n)| (shop.clone(), *n));
            return all(*purchases, entries, last.iter().copied());
        }
        let (random, shop) = (purchase.random, shop(purchase.random >> 8));
        match random % 32 {
            0 => {
                *self = Self::default();
                "cleared".into()
            }
            1..=3 => format!("{:?}", by_shop.remove(&shop)),
            4..=5 => {
                by_shop.remove(&shop);
                by_shop.insert(format!("{shop}!"), random);
                "moved".into()
            }
            6..=7 => {
                let entries = by_shop.range(shop..).map(|(shop, n)| (shop.clone(), *n));
                format!("{:?}", entries.take(3).collect::<Vec<_>>())
            }
            8..=11 => format!("{:?} {:?}", last.pop_front(), last.pop_back()),
            12..=13 => format!("{} of {:?}", last.len(), last.get((random % 5) as usize)),
            _ => {
                *purchases.get_or_insert(0) += 1;
                last.push_back(random);
                let visits = by_shop.entry(shop).or_default();
                *visits += 1;
                visits.to_string()
            }
        }
    }
}

/// The pipeline.
pub(super) fn job(told: Told) -> Job {
    let made = told.input();
    let job = told.job(move |t, life| {
        life.source(t, made, 20_000, purchase)
            .key_by(|purchase| &purchase.customer)
            .process("shops", Shops)
            .sink("shops-out", life.files().text());
    });
    // memory for some of the evicted rows, so that the others go to files
    job.cache_rows(1000).memory(1 << 20)
}

/// The input and what is right.
pub(super) struct States(Made);

impl States {
    /// With so many records of each split.
    pub(super) fn new(count: u64) -> Self {
        Self(Made::new(count))
    }
}

impl Subject for States {
    fn command(&self, life: &Life) -> Command {
        life.process("states", self.0)
    }

    fn more_input(&mut self) {
        self.0.count += 5_000;
    }

    fn probe(&mut self) {
        self.0.probe(KEYS / SPLITS);
    }

    fn check(&self, output: &Output) -> Result<(), String> {
        let mut customers: HashMap<u64, Plain> = HashMap::new();
        let mut expect: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for purchase in self.0.all(purchase) {
            let said = customers.entry(purchase.customer).or_default().on_record(&purchase);
            expect.entry(purchase.customer).or_default().push(shown(&purchase, &said));
        }
        super::numbers::equal_by_key(&expect, output, "shops-out")
    }

    fn input(&self) -> u64 {
        self.0.records()
    }
}
