//! Two processes that are the same job: on one directory, on a copy of it, and one that sleeps while the other works.

use super::broker::{Broker, broker};
use super::counting::{Counting, Watcher};
use crate::common::{Process, Scratch, copy_directory};
use std::path::{Path, PathBuf};

/// A job that runs, and has read and written all there is.
struct Running<'a> {
    scratch: Scratch,
    counting: Counting<'a>,
    watcher: Watcher,
    first: Process,
}

impl Running<'_> {
    fn new(broker: &'static Broker) -> Running<'static> {
        let (scratch, mut counting, data, watcher) = Counting::begin(broker, 1);
        let first = counting.start(&data, &[]);
        counting.write(400);
        watcher.wait_for(400);
        Running { scratch, counting, watcher, first }
    }

    fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    /// A copy of the directory of the first, which has nothing to do and stands still meanwhile.
    fn copy(&self) -> PathBuf {
        let copy = self.scratch.join("copy");
        let mut before = 0;
        super::wait_until("no more decisions", || {
            std::thread::sleep(std::time::Duration::from_millis(700));
            std::mem::replace(&mut before, self.counting.decisions().len()) == before
        });
        self.first.freeze();
        copy_directory(&self.data(), &copy);
        self.first.signal("CONT");
        copy
    }

    /// Writes more, and waits until all of it was counted.
    fn goes_on(&mut self) {
        self.counting.write(300);
        self.watcher.wait_for(self.counting.records());
    }

    /// Waits until a second instance has made the job its own.
    fn is_claimed(&self) {
        let instances = || {
            let decisions = self.counting.decisions();
            decisions.iter().map(|r| r["instance"].to_string()).collect::<std::collections::BTreeSet<_>>().len()
        };
        super::wait_until("a claim", || instances() == 2);
    }

    /// That the first has given way for good, and says so.
    fn is_superseded(&mut self) {
        assert_eq!(self.first.wait().unwrap(), 77, "{}", self.first.tail());
        assert!(self.first.printed().contains("is superseded"), "{}", self.first.tail());
    }
}

fn settled(running: Running<'_>, data: &Path) {
    running.counting.finish(data, &[]);
    running.counting.check_decisions(data);
    running.watcher.check_all();
}

#[test]
fn f4_a_second_start_on_the_directory_says_who_holds_it_and_changes_nothing() {
    let mut running = Running::new(broker());
    let mut second = running.counting.start(&running.data(), &[]);
    assert_eq!(second.wait().unwrap(), 75, "{}", second.tail());
    let holder = running.first.id().to_string();
    assert!(second.printed().contains(&holder), "{holder} is not in: {}", second.tail());
    running.goes_on();
    let data = running.data();
    running.first.ends_well();
    settled(running, &data);
}

#[test]
fn f4_a_start_on_a_copy_supersedes_the_first() {
    let mut running = Running::new(broker());
    let copy = running.copy();
    let mut second = running.counting.start(&copy, &[]);
    // the first has nothing to do, and notices all the same
    running.is_superseded();
    running.goes_on();
    second.ends_well();
    settled(running, &copy);
}

#[test]
fn f2_one_that_slept_while_another_took_over_changes_nothing() {
    let mut running = Running::new(broker());
    // it sleeps while it counts: likely in a transaction that is open
    running.counting.write(200);
    std::thread::sleep(std::time::Duration::from_millis(30));
    running.first.freeze();
    let copy = running.scratch.join("copy");
    copy_directory(&running.data(), &copy);
    let mut second = running.counting.start(&copy, &[]);
    running.is_claimed();
    running.watcher.wait_for(running.counting.records());
    running.first.signal("CONT");
    running.goes_on();
    running.is_superseded();
    running.goes_on();
    second.ends_well();
    settled(running, &copy);
}

#[test]
fn f12_a_mistaken_start_on_an_old_copy_is_refused_and_the_job_goes_on() {
    let mut running = Running::new(broker());
    let copy = running.copy();
    running.goes_on();
    running.counting.refused(&copy, &[], &["put back to an earlier state or copied", "with the command `adopt`"]);
    running.goes_on();
    assert!(running.first.ended().is_none());
    let data = running.data();
    running.first.kill();
    settled(running, &data);
}
