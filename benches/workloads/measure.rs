//! Taking a figure: wall time and processor time of a piece of work, and the median of several runs.

use millstream::clock;
use std::time::Instant;

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// Of all threads of the process, in steps of 10 ms.
    pub(crate) cpu_seconds: f64,
    /// Count and sum of the output.
    pub(crate) output: (u64, u64),
}

impl Figure {
    /// Millions of records per second.
    pub(crate) fn rate(&self) -> f64 {
        self.records as f64 / self.seconds / 1e6
    }

    /// Millions of records per second of processor time; infinite where the run was too short to tell.
    pub(crate) fn rate_cpu(&self) -> f64 {
        self.records as f64 / self.cpu_seconds / 1e6
    }
}

/// Times a piece of work over `records` that gives count and sum of its output.
pub(crate) fn timed(records: u64, work: impl FnOnce() -> (u64, u64)) -> Figure {
    let watch = Watch::start();
    let output = work();
    let (seconds, cpu_seconds) = watch.read();
    Figure { records, seconds, cpu_seconds, output }
}

/// Wall and processor time since it was started.
pub(crate) struct Watch {
    since: Instant,
    cpu: f64,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { cpu: cpu_seconds(), since: clock::now() }
    }

    pub(crate) fn read(&self) -> (f64, f64) {
        let wall = self.since.elapsed().as_secs_f64();
        (wall, cpu_seconds() - self.cpu)
    }
}

/// Processor time of this process and its ended threads; 0 where the system does not tell in this way.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // behind the name, which may hold anything: fields 3 and on, user and system time being 14 and 15
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The value at a share of the sorted values; 0 of none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Runs pieces of work in turn, A B A B, so that what else the machine does meets all of them alike. One unmeasured
/// round first. The outputs of all must be equal.
///
/// # Panics
/// When they are not: then the figures would be of different work.
pub(crate) fn interleaved<const N: usize>(
    rounds: usize,
    mut work: [&mut dyn FnMut() -> Figure; N],
) -> [Vec<Figure>; N] {
    let mut figures = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for (work, figures) in work.iter_mut().zip(&mut figures) {
            let figure = work();
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    let output = |figures: &Vec<Figure>| figures.first().map(|f: &Figure| f.output);
    let outputs: Vec<_> = figures.iter().map(output).collect();
    assert!(outputs.windows(2).all(|w| w[0] == w[1]), "the outputs differ: {outputs:?}");
    figures
}
