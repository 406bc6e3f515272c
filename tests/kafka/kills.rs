//! `kafka_count`, killed at any instant: exactly once from topics, through an exchange and keyed state, into a topic.

use super::broker::{Broker, broker};
use super::counting::Counting;
use crate::common::{Random, is_soak, mix, seed};
use std::path::Path;
use std::time::Duration;

/// So many lives that end with SIGKILL, at parallelisms that change, while the input grows.
fn kill(counting: &mut Counting<'_>, data: &Path, kills: u64, random: &mut Random) {
    for _ in 0..kills {
        let parallelism = (1 + random.within(0..4)).to_string();
        counting.write(100 + random.within(0..300));
        let mut process = counting.start(data, &["--parallelism", &parallelism]);
        let most = if random.within(0..3) == 0 { 400 } else { 2500 };
        std::thread::sleep(random.up_to(Duration::from_millis(most / 2)));
        counting.write(random.within(1..200));
        std::thread::sleep(random.up_to(Duration::from_millis(most / 2)));
        if !process.kill() {
            assert!(process.printed().contains("yielded"), "it has ended by itself:\n{}", process.tail());
        }
    }
}

fn campaign(broker: &Broker, kills: u64, seed: u64) {
    let mut random = Random::new(seed);
    let (_scratch, mut counting, data, watcher) = Counting::begin(broker, seed);
    println!("seed {seed}");
    kill(&mut counting, &data, kills, &mut random);
    let seen = watcher.seen();
    counting.finish(&data, &[]);
    counting.check_decisions(&data);
    let decided = counting.decisions().len();
    println!("{kills} kills, {decided} decisions, {} records, {seen} of them seen before the end", counting.records());
    watcher.check_all();
    counting.check_console();
}

/// Ends by SIGABRT between any two steps of the protocol.
#[cfg(debug_assertions)]
#[test]
fn f1_dies_between_any_two_steps() {
    use std::os::unix::process::ExitStatusExt as _;

    let mut died = 0;
    let (scratch, mut counting, data, watcher) = Counting::begin(broker(), 3);
    let points = millstream::framework::FAILPOINTS.iter().flat_map(|point| [(*point, 0), (*point, 2)]);
    // a process passes those of its recovery once
    for (point, skips) in points.filter(|(point, skips)| *skips == 0 || !point.starts_with("recovery")) {
        counting.write(80);
        let mut command = counting.command(&data, &[]);
        command.env("FAILPOINTS", format!("{point}={skips}*off->return"));
        let mut process = crate::common::Process::start(&mut command, &scratch.join("dying"));
        let dies = process.wait_until(|| {
            counting.write(20);
            false
        });
        assert_eq!(dies, Ok(false), "{point}");
        let status = process.ended().unwrap();
        assert_eq!(status.signal(), Some(6), "{point}: {status}:\n{}", process.tail());
        died += 1;
    }
    counting.finish(&data, &[]);
    counting.check_decisions(&data);
    watcher.check_all();
    println!("died {died} times");
}

/// F1: dies in the recovery of a recovery of a recovery.
#[cfg(debug_assertions)]
#[test]
fn f1_dies_in_recoveries_three_deep() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let (_scratch, mut counting, data, watcher) = Counting::begin(broker(), seed);
    for _ in 0..if is_soak() { 64 } else { 4 } {
        counting.write(100);
        let points = crate::common::deaths_in_recoveries(&mut random, millstream::framework::FAILPOINTS);
        println!("{points:?}");
        points.iter().for_each(|point| crate::common::dies_at(&mut counting.command(&data, &[]), point, 0));
        if random.within(0..2) == 0 {
            counting.finish(&data, &[]);
        }
    }
    counting.finish(&data, &[]);
    counting.check_decisions(&data);
    watcher.check_all();
}

/// Its transaction is open when it falls asleep, and is aborted by the broker meanwhile if it sleeps for long enough.
#[test]
fn f2_soak_sleeps_longer_than_its_transaction_lives() {
    let (_scratch, mut counting, data, watcher) = Counting::begin(broker(), 4);
    // 60 s is the least that a transaction lives, and the broker looks every 10 s
    let asleep = Duration::from_secs(if is_soak() { 75 } else { 1 });
    let mut process = counting.start(&data, &["--checkpoint-timeout", "5s"]);
    for naps in 1..=3 {
        counting.write(2000);
        watcher.wait_for(counting.records() - 1900);
        process.freeze();
        std::thread::sleep(asleep);
        process.signal("CONT");
        watcher.wait_for(counting.records());
        assert!(process.ended().is_none(), "nap {naps}:\n{}", process.tail());
    }
    process.ends_well();
    counting.check_decisions(&data);
    watcher.check_all();
}

#[test]
fn f1_soak_killed_at_any_instant() {
    let (all, first) = (if is_soak() { 300 } else { 20 }, seed());
    let mut done = 0;
    for number in 0.. {
        let kills = (all - done).min(50);
        campaign(broker(), kills, if number == 0 { first } else { mix(first + number) >> 16 });
        done += kills;
        if done >= all {
            break;
        }
    }
}
