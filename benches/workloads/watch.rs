//! Reads what the runtime says of its checkpoints: the event `checkpoint decided` of the log; and how long Kafka took
//! to give a job the right to commit. Warnings go to the terminal.

use millstream::clock;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A checkpoint that was decided.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) epoch: u64,
    /// From its barrier to its decision.
    pub(crate) took_ms: f64,
    /// From the last part that is durable to its decision.
    pub(crate) decision_ms: f64,
    /// When it was decided.
    pub(crate) at: Option<Instant>,
    /// The longest stop it caused in a subtask.
    pub(crate) pause_ms: f64,
    /// The longest wait of a subtask between its first and its last barrier.
    pub(crate) alignment_ms: f64,
}

static TAKEN: Mutex<Vec<Taken>> = Mutex::new(Vec::new());

/// How long `init_transactions` took, in milliseconds.
static INIT: Mutex<Option<f64>> = Mutex::new(None);

fn taken() -> MutexGuard<'static, Vec<Taken>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The checkpoints since the last call.
pub(crate) fn take() -> Vec<Taken> {
    std::mem::take(&mut taken())
}

/// How long `init_transactions` took since the last call, if it was done.
#[cfg(feature = "kafka")]
pub(crate) fn take_init() -> Option<f64> {
    INIT.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// From now on checkpoints are noted.
pub(crate) fn start() {
    let _ = tracing::subscriber::set_global_default(Watch);
}

/// The modules that say it.
const TOLD_BY: [&str; 2] = ["runtime::attempt", "kafka::transaction"];

struct Watch;

impl Subscriber for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
            || (*metadata.level() <= Level::DEBUG && TOLD_BY.iter().any(|end| metadata.target().ends_with(end)))
    }
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if *event.metadata().level() <= Level::WARN {
            eprintln!("{}: {}", event.metadata().level(), fields.text);
        } else if fields.is_decided {
            taken().push(Taken { at: Some(clock::now()), ..fields.taken });
        } else if fields.init_ms.is_some() {
            *INIT.lock().unwrap_or_else(PoisonError::into_inner) = fields.init_ms;
        }
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields {
    taken: Taken,
    is_decided: bool,
    init_ms: Option<f64>,
    text: String,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "epoch" => self.taken.epoch = value,
            "took_us" => self.taken.took_ms = value as f64 / 1e3,
            "decision_us" => self.taken.decision_ms = value as f64 / 1e3,
            "init_us" => self.init_ms = Some(value as f64 / 1e3),
            "pause_us" => self.taken.pause_ms = value as f64 / 1e3,
            "alignment_us" => self.taken.alignment_ms = value as f64 / 1e3,
            _ => self.record_debug(field, &value),
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.is_decided |= field.name() == "message" && text == "checkpoint decided";
        let _ = write!(self.text, "{}={text} ", field.name());
    }
}
