//! Tests of the coordinator: what it does in each situation, and that no order of legal events breaks an invariant.

use super::*;
use proptest::prelude::*;

const SOURCES: [usize; 2] = [0, 1];
const SINKS: [usize; 2] = [3, 4];

fn set(of: &[usize]) -> BTreeSet<Participant> {
    of.iter().copied().map(Participant).collect()
}

fn participants() -> Participants {
    Participants { sources: set(&SOURCES), others: set(&[2]), sinks: set(&SINKS), names: Vec::new() }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn settings() -> Settings {
    Settings { interval: ms(100), min_pause: ms(30), timeout: ms(1000), tolerated_failures: 1 }
}

/// A command in short: `barrier 3`.
fn short(command: &Command) -> String {
    match command {
        Command::Barrier(n) => format!("barrier {n}"),
        Command::WriteManifest(n) => format!("write {n}"),
        Command::Commit(n) => format!("commit {n}"),
        Command::Finish(n) => format!("finish {n}"),
        Command::Collect(n) => format!("collect {n}"),
        Command::Covered(n) => format!("covered {n}"),
        Command::Run => "run".into(),
        Command::Warn(_) => "warn".into(),
        Command::Fail(_) => "fail".into(),
        Command::End => "end".into(),
    }
}

/// A coordinator and the time.
struct Script {
    coordinator: Coordinator,
    now: u64,
}

impl Script {
    fn new(start: Start) -> Self {
        Self { coordinator: Coordinator::new(settings(), participants(), start), now: 0 }
    }

    /// One that was restored from `epoch` and runs.
    fn running(epoch: Epoch) -> Self {
        let mut script = Self::new(Start::After(epoch));
        script.check(Event::Ready, "run");
        script
    }

    #[track_caller]
    fn check(&mut self, event: Event, expect: &str) {
        let commands = self.coordinator.step(ms(self.now), event);
        let found: Vec<_> = commands.iter().map(short).collect();
        assert_eq!(found.join(", "), expect, "{event:?} at {}", self.now);
    }

    #[track_caller]
    fn at(&mut self, now: u64, event: Event, expect: &str) {
        self.now = now;
        self.check(event, expect);
    }

    #[track_caller]
    fn all(&mut self, of: &[usize], event: impl Fn(Participant) -> Event, expect: &str) {
        for (i, p) in of.iter().enumerate() {
            self.check(event(Participant(*p)), if i + 1 == of.len() { expect } else { "" });
        }
    }

    /// From the barrier to the end of a checkpoint.
    #[track_caller]
    fn complete(&mut self, epoch: Epoch, expect: &str) {
        self.all(&[0, 1, 2, 3, 4], |participant| Event::Ack { epoch, participant }, &format!("write {epoch}"));
        self.check(Event::Written { epoch }, &format!("commit {epoch}"));
        self.check(Event::Decided { epoch }, &format!("finish {epoch}"));
        self.all(&SINKS, |participant| Event::Committed { epoch, participant }, expect);
    }

    #[track_caller]
    fn ended(&mut self, expect: &str) {
        self.all(&SOURCES, |participant| Event::Ended { participant }, expect);
    }
}

#[test]
fn genesis_comes_before_records() {
    let mut script = Script::new(Start::Take(0));
    script.check(Event::Tick, "");
    script.check(Event::Ready, "barrier 0");
    script.check(Event::Ready, "");
    script.complete(0, "run, collect 0");
    assert_eq!(script.coordinator.finished(), Some(0));
    script.check(Event::Progress, "");
    script.at(99, Event::Tick, "");
    script.at(100, Event::Tick, "barrier 1");
    script.complete(1, "collect 1");
}

#[test]
fn going_back_is_announced_before_records() {
    let mut script = Script::new(Start::Take(8));
    script.check(Event::Ready, "barrier 8");
    script.complete(8, "run, collect 8");
}

#[test]
fn a_job_does_not_end_while_results_are_to_come() {
    let mut script = Script::running(5);
    script.check(Event::Owing, "");
    script.at(500, Event::Tick, "");
    assert_eq!(script.coordinator.deadline(), None, "no reason for a checkpoint now");
    script.ended("barrier 6");
    script.complete(6, "collect 6, end");

    let mut script = Script::running(5);
    script.check(Event::Progress, "");
    script.at(100, Event::Tick, "barrier 6");
    script.check(Event::Owing, "");
    script.ended("");
    script.complete(6, "collect 6, barrier 7");
    script.complete(7, "collect 7, end");

    // who is stopped goes on next time
    let mut script = Script::running(5);
    script.check(Event::Owing, "");
    script.check(Event::Stop, "end");
}

#[test]
fn the_newest_restored_runs_at_once() {
    let mut script = Script::running(5);
    script.at(500, Event::Tick, "");
    assert_eq!(script.coordinator.deadline(), None);
    script.check(Event::Progress, "barrier 6");
}

#[test]
fn start_follows_from_the_decision() {
    let digest = crate::operator::Digest("d".into());
    let restore = |announce| Decision::Restore { digest: digest.clone(), epoch: 4, announce };
    assert_eq!(Start::of(&Decision::Fresh { first: 0 }), Some(Start::Take(0)));
    assert_eq!(Start::of(&restore(None)), Some(Start::After(4)));
    assert_eq!(Start::of(&restore(Some(9))), Some(Start::Take(9)));
    assert_eq!(Start::of(&Decision::Refuse(Error::refused(""))), None);
}

#[test]
fn the_next_barrier_waits_for_all_sinks() {
    let mut script = Script::running(0);
    script.at(100, Event::Progress, "barrier 1");
    script.at(150, Event::Progress, "");
    script.at(900, Event::Tick, "");
    script.at(950, Event::Trigger, "");
    script.complete(1, "collect 1, barrier 2");
}

#[test]
fn what_fits_nothing_changes_nothing() {
    let mut script = Script::running(0);
    let ack = |epoch, i| Event::Ack { epoch, participant: Participant(i) };
    script.check(ack(1, 0), "");
    script.at(100, Event::Progress, "barrier 1");
    script.check(Event::Written { epoch: 1 }, "");
    script.check(Event::Decided { epoch: 1 }, "");
    script.all(&[0, 0, 1, 2, 3, 77], |participant| Event::Ack { epoch: 1, participant }, "");
    script.check(ack(0, 4), "");
    script.check(ack(2, 4), "");
    script.check(Event::Committed { epoch: 1, participant: Participant(3) }, "");
    script.check(ack(1, 4), "write 1");
    script.check(ack(1, 4), "");
    script.check(Event::Ended { participant: Participant(4) }, "");
    script.check(Event::Ended { participant: Participant(77) }, "");
    script.check(Event::Written { epoch: 1 }, "commit 1");
}

#[test]
fn interval_is_from_start_to_start_and_pause_from_end_to_start() {
    let mut script = Script::running(0);
    script.check(Event::Progress, "");
    assert_eq!(script.coordinator.deadline(), Some(ms(100)));
    script.at(100, Event::Tick, "barrier 1");
    script.now = 110;
    script.complete(1, "collect 1");
    script.check(Event::Progress, "");
    assert_eq!(script.coordinator.deadline(), Some(ms(200)), "the interval is longer");
    script.at(200, Event::Tick, "barrier 2");
    script.now = 290;
    script.complete(2, "collect 2");
    script.check(Event::Progress, "");
    assert_eq!(script.coordinator.deadline(), Some(ms(320)), "the pause is longer");
    script.at(319, Event::Tick, "");
    script.at(320, Event::Tick, "barrier 3");
}

#[test]
fn asked_for_is_taken_at_once_if_there_is_anything_to_take() {
    let mut script = Script::running(0);
    script.check(Event::Trigger, "covered 0");
    script.check(Event::Progress, "");
    script.check(Event::Trigger, "barrier 1");
    script.check(Event::Trigger, "");
    script.complete(1, "collect 1, covered 1");
    script.check(Event::Progress, "");
    // read after the barrier: the checkpoint under way does not have it
    script.check(Event::Trigger, "barrier 2");
    script.check(Event::Progress, "");
    script.check(Event::Trigger, "");
    script.complete(2, "collect 2, barrier 3");
}

#[test]
fn asked_for_before_anything_is_decided_is_the_first_one() {
    let mut script = Script::new(Start::Take(0));
    script.check(Event::Trigger, "");
    script.check(Event::Ready, "barrier 0");
    script.complete(0, "run, collect 0");
    let mut script = Script::new(Start::After(4));
    script.check(Event::Trigger, "");
    script.check(Event::Ready, "run, covered 4");
    // nothing is decided, and nothing will be
    let mut script = Script::new(Start::Take(8));
    script.check(Event::Trigger, "");
    script.check(Event::Stop, "");
    script.check(Event::Ready, "end");
}

#[test]
fn the_end_of_the_input() {
    let mut script = Script::running(0);
    script.check(Event::Progress, "");
    script.ended("barrier 1");
    script.complete(1, "collect 1, end");
    script.check(Event::Stop, "");
    // Nothing new: nothing is taken.
    let mut script = Script::running(7);
    script.ended("end");
    // Over before it began, and a genesis all the same.
    let mut script = Script::new(Start::Take(0));
    script.ended("");
    script.check(Event::Ready, "barrier 0");
    script.complete(0, "run, collect 0, end");
}

#[test]
fn checkpoints_go_on_when_a_source_has_ended() {
    let mut script = Script::running(0);
    script.check(Event::Ended { participant: Participant(0) }, "");
    script.check(Event::Ended { participant: Participant(0) }, "");
    script.at(100, Event::Progress, "barrier 1");
    script.complete(1, "collect 1");
    script.check(Event::Progress, "");
    script.check(Event::Ended { participant: Participant(1) }, "barrier 2");
    script.complete(2, "collect 2, end");
}

#[test]
fn the_last_records_may_come_while_a_checkpoint_is_taken() {
    let mut script = Script::running(0);
    script.at(100, Event::Progress, "barrier 1");
    script.check(Event::Progress, "");
    script.ended("");
    script.complete(1, "collect 1, barrier 2");
    script.complete(2, "collect 2, end");
}

#[test]
fn a_stop_is_never_lost() {
    let mut script = Script::running(0);
    script.check(Event::Stop, "end");
    let mut script = Script::running(0);
    script.check(Event::Progress, "");
    script.check(Event::Stop, "barrier 1");
    script.check(Event::Progress, "");
    script.complete(1, "collect 1, end");
    let mut script = Script::running(0);
    script.at(100, Event::Progress, "barrier 1");
    script.check(Event::Stop, "");
    script.check(Event::Progress, "");
    script.complete(1, "collect 1, barrier 2");
    script.complete(2, "collect 2, end");
    let mut script = Script::new(Start::Take(0));
    script.check(Event::Stop, "");
    script.check(Event::Ready, "end");
    let mut script = Script::new(Start::After(3));
    script.check(Event::Stop, "");
    script.check(Event::Ready, "end");
    let mut script = Script::new(Start::Take(0));
    script.check(Event::Ready, "barrier 0");
    script.check(Event::Stop, "");
    script.complete(0, "collect 0, end");
}

#[test]
fn a_job_without_sinks_is_finished_with_the_decision() {
    let only = Participants { sources: set(&[0]), ..Participants::default() };
    let coordinator = Coordinator::new(settings(), only, Start::Take(0));
    let mut script = Script { coordinator, now: 0 };
    script.check(Event::Ready, "barrier 0");
    script.check(Event::Ack { epoch: 0, participant: Participant(0) }, "write 0");
    script.check(Event::Written { epoch: 0 }, "commit 0");
    script.check(Event::Decided { epoch: 0 }, "finish 0, run, collect 0");
}

#[test]
fn a_late_checkpoint_is_warned_of_and_then_fails() {
    let mut script = Script::running(0);
    script.at(100, Event::Progress, "barrier 1");
    script.check(Event::Ack { epoch: 1, participant: Participant(2) }, "");
    assert_eq!(script.coordinator.deadline(), Some(ms(1100)));
    script.at(1099, Event::Tick, "");
    script.now = 50_000;
    let commands = script.coordinator.step(ms(script.now), Event::Tick);
    let [Command::Warn(text)] = &commands[..] else { panic!("{commands:?}") };
    assert!(text.contains("checkpoint 1 takes longer") && text.contains("0, 1, 3, 4"), "{text}");
    script.at(50_999, Event::Tick, "");
    let commands = script.coordinator.step(ms(51_000), Event::Tick);
    let [Command::Fail(error)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("raise `checkpoint_timeout`"), "{error}");
    script.check(Event::Stop, "");
    assert_eq!(script.coordinator.deadline(), None);
}

#[test]
fn time_outs_are_counted_for_each_checkpoint_anew() {
    let mut script = Script::running(0);
    for epoch in 1..5 {
        script.now += 200;
        script.check(Event::Progress, &format!("barrier {epoch}"));
        script.now += 1000;
        script.check(Event::Tick, "warn");
        script.complete(epoch, &format!("collect {epoch}"));
    }
}

/// What the outside does: answers to commands, in any order, and people and sources in between.
struct World {
    coordinator: Coordinator,
    start: Start,
    now: Duration,
    /// Answers that are due, to be given in any order.
    due: Vec<Event>,
    given: Vec<Event>,
    taking: Option<Epoch>,
    finished: Option<Epoch>,
    ran: bool,
    over: bool,
    failed: bool,
    /// Something was read that no barrier has covered.
    owed: bool,
    stopped: bool,
    ended: BTreeSet<Participant>,
    /// The last barrier went out after the end was near.
    last_is_final: bool,
}

impl World {
    fn new(start: Start) -> Self {
        Self {
            coordinator: Coordinator::new(settings(), participants(), start),
            start,
            now: Duration::ZERO,
            due: vec![Event::Ready],
            given: vec![],
            taking: None,
            finished: None,
            ran: false,
            over: false,
            failed: false,
            owed: false,
            stopped: false,
            ended: BTreeSet::new(),
            last_is_final: false,
        }
    }

    /// One thing happens, chosen by `what`.
    fn any(&mut self, what: u8, which: usize, noise: Event) {
        let reads = self.ran && self.ended.len() < SOURCES.len();
        match what {
            0..=5 if !self.due.is_empty() => self.give(which),
            6 if reads => self.send(Event::Progress),
            7 if !self.owed || which.is_multiple_of(4) => {
                self.send(Event::Ended { participant: Participant(SOURCES[which % 2]) })
            }
            8 => {
                self.now += ms((which % 700) as u64);
                self.send(Event::Tick);
            }
            9 => self.send(Event::Trigger),
            10 if which.is_multiple_of(8) => self.send(Event::Stop),
            11 if !self.due.contains(&noise) => self.send(noise),
            _ => {}
        }
    }

    fn give(&mut self, which: usize) {
        let event = self.due.swap_remove(which % self.due.len());
        self.send(event);
    }

    fn send(&mut self, event: Event) {
        self.given.push(event);
        match event {
            Event::Progress => self.owed = true,
            Event::Stop => self.stopped = true,
            Event::Ended { participant } => self.ended.extend(set(&SOURCES).get(&participant)),
            _ => {}
        }
        let commands = self.coordinator.step(self.now, event);
        commands.into_iter().for_each(|command| self.obey(command));
        assert_eq!(self.coordinator.taking(), self.taking.filter(|_| !self.failed));
        assert_eq!(self.coordinator.finished(), self.finished);
        assert!(self.coordinator.deadline().is_none_or(|d| d > self.now), "a deadline that has passed");
    }

    /// Whether this was said since the barrier of this epoch.
    fn was_given(&self, event: Event) -> bool {
        self.given.contains(&event)
    }

    fn obey(&mut self, command: Command) {
        assert!(!self.over, "{command:?} after the end");
        match command {
            Command::Barrier(epoch) => self.barrier(epoch),
            Command::WriteManifest(epoch) => {
                for participant in (0..5).map(Participant) {
                    assert!(self.was_given(Event::Ack { epoch, participant }));
                }
                self.due.push(Event::Written { epoch });
            }
            Command::Commit(epoch) => {
                assert!(self.was_given(Event::Written { epoch }), "I1");
                self.due.push(Event::Decided { epoch });
            }
            Command::Finish(epoch) => {
                assert!(self.was_given(Event::Decided { epoch }));
                let sinks = SINKS.map(|i| Event::Committed { epoch, participant: Participant(i) });
                self.due.extend(sinks);
            }
            Command::Collect(epoch) => {
                assert_eq!(self.taking.take(), Some(epoch));
                for participant in SINKS.map(Participant) {
                    assert!(self.was_given(Event::Committed { epoch, participant }));
                }
                self.finished = Some(epoch);
            }
            Command::Covered(epoch) => {
                assert!(self.taking.is_none() && !self.owed, "something is not in it");
                let restored = if let Start::After(last) = self.start { Some(last) } else { None };
                assert_eq!(self.finished.or(restored), Some(epoch));
            }
            Command::Run => {
                assert!(!self.ran, "records flow twice");
                self.ran = true;
                if let Start::Take(first) = self.start {
                    assert!(self.was_given(Event::Decided { epoch: first }), "H7");
                }
            }
            Command::Warn(_) => {}
            Command::Fail(_) => (self.over, self.failed) = (true, true),
            Command::End => self.end(),
        }
    }

    fn barrier(&mut self, epoch: Epoch) {
        assert_eq!(self.taking, None, "I2: two at a time");
        let expect = match (self.finished, self.start) {
            (Some(last), _) | (None, Start::After(last)) => last + 1,
            (None, Start::Take(first)) => first,
        };
        assert_eq!(epoch, expect);
        let is_genesis = self.start == Start::Take(epoch);
        assert!(is_genesis || (self.owed && self.ran), "an epoch in which nothing happened");
        self.last_is_final = self.stopped || (self.ended.len() == SOURCES.len() && !is_genesis);
        self.owed = false;
        self.taking = Some(epoch);
        // What was said of this epoch before its barrier was noise.
        self.given.clear();
        self.due.extend((0..5).map(|i| Event::Ack { epoch, participant: Participant(i) }));
    }

    fn end(&mut self) {
        self.over = true;
        assert_eq!(self.taking, None, "the end before all is finished");
        assert!(self.stopped || self.ended.len() == SOURCES.len(), "the end without a reason");
        assert!(!self.owed || self.last_is_final, "something was read and not taken");
    }
}

fn any_noise() -> impl Strategy<Value = Event> {
    let at = (0..9u64, 0..7usize);
    (at, 0..5).prop_map(|((epoch, i), kind)| match kind {
        0 => Event::Ack { epoch, participant: Participant(i) },
        1 => Event::Written { epoch },
        2 => Event::Decided { epoch },
        3 => Event::Committed { epoch, participant: Participant(i) },
        _ => Event::Tick,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_order_of_events_breaks_an_invariant(
        take in any::<bool>(), first in 0..3u64,
        happens in proptest::collection::vec((0..12u8, any::<usize>(), any_noise()), 0..300),
    ) {
        let mut world = World::new(if take { Start::Take(first) } else { Start::After(first) });
        for (what, which, noise) in happens {
            if world.over {
                break;
            }
            world.any(what, which, noise);
        }
        // No stop is lost, whatever is under way: when all that is due is done, the end comes.
        if !world.over {
            world.send(Event::Stop);
        }
        for which in 0.. {
            if world.over {
                break;
            }
            prop_assert!(!world.due.is_empty(), "nothing is due and the end has not come");
            world.give(which);
        }
    }
}
