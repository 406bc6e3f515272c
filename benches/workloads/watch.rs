//! Reads what the runtime says of its checkpoints: the event `checkpoint decided` of the log. Warnings go to the
//! terminal.

use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A checkpoint that was decided.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) epoch: u64,
    /// From its barrier to its decision.
    pub(crate) took_ms: f64,
    /// The longest stop it caused in a subtask.
    pub(crate) pause_ms: f64,
    /// The longest wait of a subtask between its first and its last barrier.
    pub(crate) alignment_ms: f64,
}

static TAKEN: Mutex<Vec<Taken>> = Mutex::new(Vec::new());

fn taken() -> MutexGuard<'static, Vec<Taken>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The checkpoints since the last call.
pub(crate) fn take() -> Vec<Taken> {
    std::mem::take(&mut taken())
}

/// From now on checkpoints are noted.
pub(crate) fn start() {
    let _ = tracing::subscriber::set_global_default(Watch);
}

struct Watch;

impl Subscriber for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
            || (*metadata.level() <= Level::DEBUG && metadata.target().ends_with("runtime::attempt"))
    }
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if *event.metadata().level() <= Level::WARN {
            eprintln!("{}: {}", event.metadata().level(), fields.text);
        } else if fields.is_decided {
            taken().push(fields.taken);
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
    text: String,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "epoch" => self.taken.epoch = value,
            "took_us" => self.taken.took_ms = value as f64 / 1e3,
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
