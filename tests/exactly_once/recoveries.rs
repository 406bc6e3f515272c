//! F1: a process that dies while it works, and the next ones while they recover, three deep.

use super::{lines, word_count};
use crate::common::{Random, Scratch, deaths_in_recoveries, dies_at, is_soak, seed};

/// Those that are passed only where sinks decide.
const OF_SINKS: &[&str] =
    &["recovery-looked", "recovery-fenced", "recovery-read", "recovery-claimed", "checkpoint-recorded"];

#[test]
fn f1_dies_in_recoveries_three_deep() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    let passed = millstream::framework::FAILPOINTS.iter().copied().filter(|point| !OF_SINKS.contains(point));
    let passed: Vec<_> = passed.collect();
    for round in 0..if is_soak() { 300 } else { 12 } {
        let points = deaths_in_recoveries(&mut random, &passed);
        println!("{points:?}");
        for point in points {
            dies_at(job.command().args(["--parallelism", &random.within(1..4).to_string()]), point, 0);
        }
        if random.within(0..2) == 0 {
            job.run(&[]).expect(0, &[]);
            job.check(&job.shown()).unwrap();
        }
        job.append("a.txt", lines(1000 + round * 20, 1020 + round * 20));
    }
    job.run(&[]).expect(0, &[]);
    job.check(&job.shown()).unwrap();
}
