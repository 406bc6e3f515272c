//! Transactions that the broker aborts because they take too long: while nobody reaches it, and right at the commit.
//! The proxy has the time-outs be short, whatever the job asks for.

use super::counting::{Counting, Watcher};
use super::proxy::{Fault, Proxy};
use super::wait_until;
use crate::common::{Process, Scratch, is_soak};
use std::path::PathBuf;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);

/// That looks for transactions that have timed out all the time.
const LOOKS: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms=100";

/// A job whose transactions time out soon.
struct Short<'a> {
    _scratch: Scratch,
    counting: Counting<'a>,
    data: PathBuf,
    watcher: Watcher,
    process: Process,
}

impl<'a> Short<'a> {
    fn new(proxy: &'a Proxy, flags: &[&str]) -> Self {
        let (_scratch, mut counting, data, watcher) = Counting::begin(&proxy.broker, 6);
        let process = counting.start(&data, &[flags, &["--restart-pause", "10ms"]].concat());
        counting.write(200);
        watcher.wait_for(200);
        Self { _scratch, counting, data, watcher, process }
    }

    /// Waits until the broker has ended the transaction. How many records are committed then.
    fn is_over(&self) -> u64 {
        wait_until("the transaction is over", || !self.counting.has_undecided());
        self.counting.broker.committed(&self.counting.output).len() as u64
    }

    /// All is there, and so it goes on.
    fn goes_on(&mut self) {
        for _ in 0..2 {
            let (watcher, all) = (&self.watcher, self.counting.records());
            let done = self.process.wait_until(|| watcher.seen() >= all);
            assert_eq!(done, Ok(true), "{}", self.process.tail());
            self.counting.add(100);
        }
    }

    fn ends(mut self) {
        self.goes_on();
        self.process.ends_well();
        self.counting.finish(&self.data, &[]);
        self.counting.check_decisions(&self.data);
        self.watcher.check_all();
    }
}

fn short() -> Proxy {
    let proxy = Proxy::of(&[LOOKS]);
    proxy.shorten(i32::try_from(TIMEOUT.as_millis()).unwrap());
    proxy
}

#[test]
fn f8_a_job_that_reaches_no_broker_for_longer_than_its_transaction_lives_recovers() {
    let proxy = short();
    let mut short = Short::new(&proxy, &["--checkpoint-interval", "1s"]);
    let job = short.counting.job();
    for outages in 1..=2 {
        let told = |process: &Process, text: &str| process.printed().matches(text).count();
        let before = told(&short.process, "Kafka does not answer");
        loop {
            short.counting.opens(&mut short.process);
            proxy.cut(&[&job, "millstream"]);
            if short.counting.has_undecided() {
                break;
            }
            proxy.cut(&[]);
        }
        let committed = short.is_over();
        assert!(committed < short.counting.records(), "nothing was open");
        wait_until("the outage is told", || told(&short.process, "Kafka does not answer") > before);
        proxy.cut(&[]);
        short.goes_on();
        assert!(short.process.failures() >= outages, "the transaction was not missed:\n{}", short.process.tail());
    }
    short.ends();
}

/// The broker has committed in time; the reply comes when the time is over, and in a soak when nobody waits for it.
#[test]
fn f10_soak_a_commit_whose_reply_comes_after_the_time_out_counts() {
    let proxy = short();
    let mut short = Short::new(&proxy, &[]);
    proxy.disturb(&short.counting.job(), Fault::LateReply);
    short.counting.add(100);
    wait_until("the commit", || proxy.has_met());
    let committed = short.is_over();
    // a commit is given up after 15 s
    std::thread::sleep(if is_soak() { Duration::from_secs(20) } else { TIMEOUT + Duration::from_secs(1) });
    // what was not in it may have been committed by the next attempt, whose reply is late, too
    assert!(short.is_over() >= committed);
    proxy.end();
    short.goes_on();
    short.ends();
}

/// What was open has timed out when the broker is there again; it may forget some of it.
#[test]
fn f8_soak_a_broker_that_is_away_for_longer_than_a_transaction_lives_doubles_nothing() {
    let proxy = short();
    let mut short = Short::new(&proxy, &["--checkpoint-interval", "1s"]);
    for _ in 0..if is_soak() { 10 } else { 2 } {
        short.counting.opens(&mut short.process);
        proxy.broker.kill();
        std::thread::sleep(TIMEOUT + Duration::from_secs(2));
        proxy.broker.start();
        short.goes_on();
    }
    short.ends();
}
