//! Finds stolen cards: a tiny payment, to see whether the card works, and within a minute a large one at a shop where
//! this card has never been used.
//!
//! What is remembered of a card is state; that the tiny payment is a minute ago, a timer tells. Kill it at any moment
//! and start it again with the same flags: the alerts are those of an undisturbed run.

use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(clap::Args, Serialize, Deserialize)]
struct Settings {
    /// A directory for the alerts
    #[arg(long)]
    output: PathBuf,
    /// How many payments there are
    #[arg(long, default_value_t = 1_000_000)]
    payments: u64,
    /// Payments per second, for the whole job
    #[arg(long, value_name = "PAYMENTS_PER_SECOND")]
    rate: Option<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    card: u64,
    shop: String,
    cents: u64,
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Alert {
    card: u64,
    tried_with: u64,
    cents: u64,
    at: Timestamp,
}

/// What is known of a card.
#[derive(State)]
struct Seen {
    small: ValueState<u64>,
    shops: MapState<String, u32>,
    forget: EventTimer,
}

struct Fraud {
    within: Duration,
}

impl Process for Fraud {
    type Key = u64;
    type In = Payment;
    type Out = Alert;
    type State = Seen;

    fn on_record(&self, payment: Payment, seen: &mut Seen, cx: &mut Context<'_, u64, Alert>) -> Result<(), BoxError> {
        let Payment { card, shop, cents, at } = payment;
        let times = seen.shops.or_default(shop);
        *times += 1;
        // the timer fires when the watermark has passed, which may be after this payment came
        let in_time = seen.forget.at().is_some_and(|until| at < until);
        if *times == 1
            && cents > 50_000
            && in_time
            && let Some(tried_with) = seen.small.take()
        {
            cx.emit(Alert { card, tried_with, cents, at });
        }
        if cents < 100 {
            seen.small.set(cents);
            seen.forget.set(at + self.within);
        }
        Ok(())
    }

    fn on_timer(&self, seen: &mut Seen, _: &mut Context<'_, u64, Alert>) -> Result<(), BoxError> {
        seen.small.take();
        Ok(())
    }
}

/// The nth random number.
fn random(n: u64) -> u64 {
    let z = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 31)
}

/// The nth payment: every 100 ms somebody pays at one of a few shops; some cards are tried out.
fn payment(n: u64) -> Payment {
    let random = random(n);
    // ten payments in a row are of four cards, so that a card is used again within the minute
    let card = n / 10 % 5_000 * 4 + random % 4;
    let cents = match (random >> 8) % 16 {
        0 => (random >> 16) % 100,
        1 | 2 => 50_000 + (random >> 16) % 100_000,
        _ => 100 + (random >> 16) % 20_000,
    };
    let shop = format!("shop-{}", (random >> 40) % 200);
    Payment { card, shop, cents, at: Timestamp::from_millis(n as i64 * 100) }
}

fn main() -> ExitCode {
    Job::new("fraud", topology).settings::<Settings>().main()
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let settings: Settings = t.config()?;
    t.source("payments", Generator::new(|_, n| payment(n)).count(settings.payments).rate(settings.rate))
        .event_time(|payment| payment.at, Watermarks::bounded(Duration::from_secs(5)))
        .key_by(|payment| &payment.card)
        .process("fraud", Fraud { within: Duration::from_mins(1) })
        .sink("alerts", Files::write(settings.output).json());
    Ok(())
}
