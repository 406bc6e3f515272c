//! What a person sees while a job runs: a live line on a terminal, log lines elsewhere. And what signals do.

use crate::runtime::{self, Control, JobStatus, Phase};
use crate::{Error, ErrorKind, Job, clock};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How often the live line changes, and how often a log line comes.
const LIVE: Duration = Duration::from_millis(200);
const LOGGED: Duration = Duration::from_secs(10);

/// Runs the job on a thread of its own, shows what it does, and passes signals on: the first one asks for a last
/// checkpoint, the second one ends the process at once.
pub(crate) fn run(job: Job) -> Result<(), Error> {
    let bar = std::io::stderr().is_terminal().then(live_line);
    log(bar.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(ErrorKind::Io, "cannot wait for signals").because(e))?;
    // before anything is started: a signal that comes early is to stop the job in good order, too
    let signals = {
        let _context = runtime.enter();
        Signals::new()
    };
    let control = Control::new(&job.name);
    let thread = runtime::launch(job, control.clone(), oneshot::channel().0)?;
    let done = runtime.block_on(watch(&control, bar.as_ref(), signals));
    // it has told the end before
    let _ = thread.join();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if done.is_ok() {
        summary(&control);
    }
    done
}

fn live_line() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner:.cyan} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar
}

/// Log lines go to standard error; above the live line, if there is one.
#[derive(Clone)]
struct Lines(Option<ProgressBar>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &self.0 {
            Some(bar) => bar.suspend(|| std::io::stderr().write_all(bytes))?,
            None => std::io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// `RUST_LOG` says what is logged; without it all from `info` on, or from `warn` on above a live line.
fn log(bar: Option<ProgressBar>) {
    let quiet = if bar.is_some() { "warn" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let ansi = bar.is_some();
    // an embedding program may have set a subscriber of its own
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(Lines(bar)).try_init();
}

async fn watch(control: &Control, bar: Option<&ProgressBar>, mut signals: Signals) -> Result<(), Error> {
    let mut shown = Shown::new(&control.status());
    let mut logged = clock::now();
    loop {
        tokio::select! {
            done = control.ended() => return done,
            () = tokio::time::sleep(LIVE) => {}
            () = signals.next() => {
                if control.is_stopping() {
                    std::process::exit(1);
                }
                tracing::info!("stopping after a last checkpoint; another signal ends at once");
                control.stop();
            }
        }
        let status = control.status();
        if let Some(bar) = bar {
            bar.set_message(shown.line(&status));
            bar.tick();
        } else if clock::since(logged) >= LOGGED {
            logged = clock::now();
            tracing::info!("{}", shown.line(&status));
        }
    }
}

/// SIGINT and SIGTERM.
struct Signals(Option<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)>);

impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let both = signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
        if let Err(error) = &both {
            tracing::warn!(%error, "signals are not handled");
        }
        Self(both.ok())
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some((interrupt, terminate)) => tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} },
            None => std::future::pending().await,
        }
    }
}

/// What was shown last, for rates.
struct Shown {
    at: Instant,
    records_in: u64,
    records_out: u64,
    rate_in: f64,
    rate_out: f64,
}

impl Shown {
    fn new(status: &JobStatus) -> Self {
        let JobStatus { records_in, records_out, .. } = *status;
        Self { at: clock::now(), records_in, records_out, rate_in: 0.0, rate_out: 0.0 }
    }

    fn line(&mut self, status: &JobStatus) -> String {
        let seconds = clock::since(self.at).as_secs_f64().max(0.001);
        if seconds >= 0.5 {
            self.rate_in = status.records_in.saturating_sub(self.records_in) as f64 / seconds;
            self.rate_out = status.records_out.saturating_sub(self.records_out) as f64 / seconds;
            (self.at, self.records_in, self.records_out) = (clock::now(), status.records_in, status.records_out);
        }
        let phase = match status.phase {
            Phase::Recovering => "recovering",
            Phase::Running => "running",
            Phase::Pausing => "waiting to recover",
            Phase::Stopping => "stopping",
            Phase::Ended => "ended",
        };
        let checkpoint = status.checkpoint.map_or_else(String::new, |c| {
            let (took, pause) = (c.took.as_secs_f64() * 1e3, c.pause.as_secs_f64() * 1e3);
            let alignment = c.alignment.as_secs_f64() * 1e3;
            format!("  checkpoint {} in {took:.0} ms (alignment {alignment:.1} ms, pause {pause:.1} ms)", c.epoch)
        });
        let (rate_in, rate_out) = (count(self.rate_in), count(self.rate_out));
        format!("{phase}  in {rate_in}/s  out {rate_out}/s  total in {}{checkpoint}", count(status.records_in as f64))
    }
}

/// A number with three digits or so.
fn count(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn summary(control: &Control) {
    let JobStatus { job, records_in, records_out, checkpoints, restored, .. } = control.status();
    let restored = restored.map_or_else(String::new, |n| format!(", resumed from checkpoint {n}"));
    let how = if control.is_stopping() { "stopped" } else { "finished" };
    eprintln!("{job} {how}: {records_in} records in, {records_out} out, {checkpoints} checkpoints{restored}");
}
