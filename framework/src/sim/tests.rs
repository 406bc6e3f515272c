//! Campaigns: many seeds, and for each rule that must not be broken the seed that shows why.

use super::pipeline::Size;
use super::world::{Hosts, Plan, Report, Tamper, run};
use crate::disk::simulated::trace;
use crate::mutant::break_rule;
use crate::random::Random;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a seed stands for.
fn plan(seed: u64) -> Plan {
    let mut random = Random::new(seed ^ 0x5eed);
    let parallelism = 1 + random.below(2) as usize;
    let (broker, parts) = [(true, false), (false, true), (true, true)][random.below(3) as usize];
    let size = Size {
        splits: 1 + random.below(3) as u32,
        records: random.below(12),
        parallelism,
        workers: 1 + random.below(parallelism as u64) as usize,
        exchange: random.one_in(3),
        keep: 1 + random.below(2) as usize,
        parts,
        rows: random.one_in(2).then(|| 1 + random.below(6) as usize),
    };
    let hosts = match random.below(6) {
        0 if broker => Hosts::Shared,
        1 | 2 if broker => Hosts::Copied,
        _ => Hosts::One,
    };
    let tamper = match random.below(12) {
        0 if hosts == Hosts::One => Tamper::RollBack,
        1 if hosts == Hosts::One && broker => Tamper::DeleteLog,
        2 if hosts == Hosts::One => Tamper::Damage,
        _ => Tamper::None,
    };
    Plan { size, broker, faults: random.below(7) as u32, hosts, tamper, clocks: false }
}

/// Worlds of all kinds, those in which some rule matters among them.
fn any_plan(seed: u64) -> Plan {
    match RULES.get(seed as usize % (2 * RULES.len())) {
        Some((rule, _)) => plan_for(rule, seed),
        None => plan(seed),
    }
}

/// Runs as many seeds as are asked for, on all cores; gives what happened, or the smallest seed that shows a mistake.
fn campaign(
    seeds: Range<u64>,
    rule: Option<&'static str>,
    plan: impl Fn(u64) -> Plan + Sync,
) -> Result<Report, (u64, String)> {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let work = || {
        break_rule(rule);
        let (mut all, mut wrong) = (Report::default(), None);
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= failed.load(Relaxed) {
                return (all, wrong);
            }
            match run(plan(seed), seed) {
                Ok(report) => all.add(&report),
                Err(text) => {
                    failed.fetch_min(seed, Relaxed);
                    wrong = Some((seed, text));
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = Report::default();
    done.iter().for_each(|(report, _)| all.add(report));
    done.into_iter().filter_map(|(_, wrong)| wrong).min().map_or(Ok(all), Err)
}

/// How many seeds: as many as are asked for, in soaks more.
fn seeds(quick: u64, soak: u64) -> Range<u64> {
    let is_soak = std::env::var_os("MILLSTREAM_SOAK").is_some();
    let first = std::env::var("MILLSTREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    first..first + if is_soak { soak } else { quick }
}

/// What a seed does, as it is written down.
fn trace_of(plan: Plan, seed: u64) -> (Result<Report, String>, Vec<String>) {
    trace(true);
    let done = run(plan, seed);
    (done, trace(false))
}

/// The shortest trace that can be found in which the same goes wrong: of smaller worlds and of other seeds.
fn shortest(plan: Plan, seed: u64) -> Option<(Plan, u64, Vec<String>)> {
    let smaller = |n: u64| {
        let (mut size, mut random) = (plan.size, Random::new(n));
        size.records = size.records.min(1 + random.below(size.records.max(1)));
        size.splits = size.splits.min(1 + random.below(2) as u32);
        size.exchange &= random.one_in(2);
        size.parallelism = size.parallelism.min(1 + random.below(2) as usize);
        size.workers = size.workers.min(size.parallelism);
        Plan { size, faults: random.below(u64::from(plan.faults) + 1) as u32, ..plan }
    };
    let all = std::iter::once((plan, seed)).chain((0..3000).map(|n| (smaller(n), if n % 4 == 0 { seed } else { n })));
    let fails = all.filter_map(|(plan, seed)| Some((plan, seed, run(plan, seed).err()?)));
    let (plan, seed, _) = fails.min_by_key(|(plan, seed, _)| trace_of(*plan, *seed).1.len())?;
    Some((plan, seed, trace_of(plan, seed).1))
}

#[test]
fn schedules_lose_nothing_and_double_nothing() {
    if let Ok(rule) = std::env::var("RULE") {
        return holds(seeds(100_000, 5_000_000), |seed| plan_for(&rule, seed));
    }
    holds(seeds(100_000, 5_000_000), any_plan);
}

#[test]
fn f13_clocks_that_jump_change_nothing() {
    holds(seeds(2000, 100_000), |seed| Plan { clocks: true, ..any_plan(seed) });
}

/// Nothing goes wrong in these worlds; or the shortest trace is printed in which it does.
#[track_caller]
fn holds(seeds: Range<u64>, plan: impl Fn(u64) -> Plan + Sync) {
    match campaign(seeds.clone(), None, &plan) {
        Ok(all) => println!("{} schedules: {all:?}", seeds.end - seeds.start),
        Err((seed, wrong)) => {
            let (plan, smallest, trace) = shortest(plan(seed), seed).unwrap();
            trace.iter().for_each(|line| println!("{line}"));
            panic!("seed {seed}: {wrong}\nthe shortest trace found is of seed {smallest}, {plan:?}");
        }
    }
}

#[test]
fn a_seed_gives_one_trace() {
    for seed in 0..100 {
        let plan = any_plan(seed);
        assert_eq!(trace_of(plan, seed).1, trace_of(plan, seed).1, "seed {seed}");
    }
}

/// The rules, as the executable specification of the protocol numbers them, and what it is to break one.
const RULES: [(&str, &str); 39] = [
    ("M1", "the fsync of the directory after the rename of a manifest is left out"),
    ("M2", "the fsync of the manifest before its rename is left out"),
    ("M3", "the commit is asked for before the manifest is durable"),
    ("M4", "a commit of unknown outcome is taken for an abort"),
    ("M6", "the record names its manifest by number, not by hash"),
    ("M7", "earlier producers are not fenced"),
    ("M8", "the record is read before the fence"),
    ("M9", "the last checkpoint is collected before the next is decided"),
    ("M10", "files are final before the decision"),
    ("M11", "output of the next epoch is sent while one is being decided"),
    ("M12", "the collector deletes what a newer checkpoint still names"),
    ("H1", "files are not finished by a restore"),
    ("H2", "the next manifest is written while files are pending"),
    ("H3", "the renames of files are not made durable"),
    ("H4", "the rename of a manifest decides, not its fsync"),
    ("H5", "a recovery acts on names that are not durable"),
    ("H9", "a recovery clears what it finds, not what it has listed before the fence"),
    ("H10", "the collector keeps the newest checkpoint and nothing else"),
    ("H11", "the collector takes what no manifest names yet"),
    ("H12", "the producer is kept after a commit that was repeated"),
    ("H13", "nothing tells of a directory that was put back"),
    ("H14", "a damaged checkpoint is passed over, though a log has decided it"),
    ("H15", "a damaged checkpoint is passed over, though its files show"),
    ("C1", "no claim"),
    ("C2", "who is fenced does not look by whom before it fences"),
    ("C3", "  looks, but not at what is not decided yet"),
    ("C4", "  does not look again after it has fenced"),
    ("C5", "records flow before the claim"),
    ("C6", "the claim comes before it is known what the record names"),
    ("C7", "  after what is there was cleared away"),
    ("C8", "a claim of unknown outcome is taken for committed"),
    ("C10", "who is fenced before its claim fences back"),
    ("K1", "so many are kept by number, not along the chain"),
    ("K2", "files of kept numbers are kept, and no others"),
    ("S1", "the fsync of a delta is left out"),
    ("S2", "the fsync of a base is left out"),
    ("S3", "a fold forgets that a row is gone"),
    ("S4", "a row that leaves memory is lost"),
    ("S5", "a row is given out after its next change"),
];

/// Worlds in which a rule matters.
fn plan_for(rule: &str, seed: u64) -> Plan {
    let mut plan = plan(seed);
    plan.tamper = Tamper::None;
    plan.faults = plan.faults.max(2);
    plan.size.records = plan.size.records.max(3);
    match rule {
        "M6" | "C6" => (plan.broker, plan.hosts) = (true, Hosts::Copied),
        "M7" | "M8" | "H9" | "H10" | "K1" => (plan.broker, plan.hosts) = (true, Hosts::Shared),
        "H13" => (plan.broker, plan.size.parts, plan.tamper) = (false, true, Tamper::RollBack),
        "H14" => (plan.broker, plan.tamper) = (true, Tamper::Damage),
        "H15" => (plan.broker, plan.size.parts, plan.tamper) = (false, true, Tamper::Damage),
        "H4" | "H5" => (plan.broker, plan.size.parts) = (false, true),
        "M3" | "M4" | "M11" | "H12" => plan.broker = true,
        "M10" | "H1" | "H2" | "H3" => (plan.broker, plan.size.parts) = (true, true),
        "H11" | "S1" | "S2" | "S3" | "S4" | "S5" => {
            plan.size.rows = Some(1 + seed as usize % 4);
            plan.size.records = plan.size.records.max(9);
        }
        _ if rule.starts_with('C') => (plan.broker, plan.hosts) = (true, Hosts::Shared),
        _ => {}
    }
    if !plan.broker || plan.tamper != Tamper::None {
        plan.hosts = Hosts::One;
    }
    if matches!(rule, "H9" | "H10" | "K1" | "K2") {
        plan.size.keep = 2;
        plan.size.parts |= rule == "H9";
    }
    plan
}

/// So many schedules each rule is given to show itself.
const SCHEDULES: u64 = 60_000;

#[test]
fn each_broken_rule_is_caught() {
    let mut missed = Vec::new();
    let only = std::env::var("RULE").unwrap_or_default();
    for (rule, what) in RULES.into_iter().filter(|(rule, _)| only.is_empty() || *rule == only) {
        match campaign(seeds(SCHEDULES, SCHEDULES), Some(rule), |seed| plan_for(rule, seed)) {
            Err((seed, wrong)) => println!("| {rule} | {} | {} | {} |", what.trim(), seed + 1, head(&wrong)),
            Ok(_) => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

fn head(wrong: &str) -> String {
    wrong.chars().take(100).collect()
}
