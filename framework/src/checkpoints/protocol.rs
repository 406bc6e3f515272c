//! The coordinator of checkpoints as a pure state machine: events in, commands out. It knows neither clocks nor disks
//! nor threads; the runtime carries commands out and reports back. What a command means to whom is said at [`Command`].
//!
//! The protocol, numbered as in `mod.rs`; the same numbers stand at the code below.
//!
//! 0. GENESIS, or the announced checkpoint of a job that goes back: taken and finished before any record flows [H7,
//!    H16].
//! 1. Epoch n starts once n-1 is known decided and finished: never two at a time [I2]. An epoch in which nothing was
//!    read is not taken, the last one neither unless results are to come of what was read before; whoever asks for a
//!    checkpoint then is referred to n-1.
//! 2. and 3. Participants align, freeze, prepare, and ack when what they have is durable. This is theirs to do.
//! 4. When all acks are in, the manifest is written. All of n-1 is finished by then, for otherwise n had not begun [H2,
//!    H3].
//! 5. THE DECISION is asked for when the manifest is durable, not before [I1, M3].
//! 6. When it is known, sinks commit; when all of them have, marker and collector follow, and 1 again.
//!
//! A checkpoint that takes too long is not given up: its barrier has gone out and cannot be taken back. It is warned of
//! at each time-out, and after `tolerated_failures` of them the next one ends the attempt.

use crate::checkpoints::recover::Decision;
use crate::mutant::broken;
use crate::{Epoch, Error, ErrorKind};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// When checkpoints are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// From the start of one to the start of the next.
    pub(crate) interval: Duration,
    /// At least this long from the end of one to the start of the next.
    pub(crate) min_pause: Duration,
    /// How long one may take, from its barrier until all sinks have committed. Not zero.
    pub(crate) timeout: Duration,
    /// How many time-outs of one checkpoint are only warned of.
    pub(crate) tolerated_failures: u32,
}

/// Whoever acks: a subtask, by a number that the runtime gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Participant(pub(crate) usize);

impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who takes part. All of them ack, each once per checkpoint; one that is source and sink stands in both sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Participants {
    /// They end, and they say that there was progress.
    pub(crate) sources: BTreeSet<Participant>,
    /// They do neither.
    pub(crate) others: BTreeSet<Participant>,
    /// They commit, those that had nothing to prepare included.
    pub(crate) sinks: BTreeSet<Participant>,
    /// What people call them, by number; one that has no name is called by its number.
    pub(crate) names: Vec<String>,
}

impl Participants {
    fn all(&self) -> BTreeSet<Participant> {
        self.sources.iter().chain(&self.others).chain(&self.sinks).copied().collect()
    }
}

/// Where an attempt starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With a checkpoint of this number, before records flow: a genesis, or the job goes back.
    Take(Epoch),
    /// From the newest checkpoint, which has this number: records flow at once.
    After(Epoch),
}

impl Start {
    /// What a recovery's decision means for the coordinator; none for a refusal.
    pub(crate) fn of(decision: &Decision) -> Option<Self> {
        match decision {
            Decision::Fresh { first: n } | Decision::Restore { announce: Some(n), .. } => Some(Self::Take(*n)),
            Decision::Restore { epoch, announce: None, .. } => Some(Self::After(*epoch)),
            Decision::Refuse(_) => None,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// All participants are restored, all splits assigned, all committables of the restored checkpoint finished.
    Ready,
    /// Time has passed; needed no earlier than [`Coordinator::deadline`].
    Tick,
    /// A participant's part of a checkpoint is durable, and its part was handed to who writes the manifest.
    Ack {
        /// Of this checkpoint.
        epoch: Epoch,
        /// By whom.
        participant: Participant,
    },
    /// The manifest is durable.
    Written {
        /// Of this checkpoint.
        epoch: Epoch,
    },
    /// The decision log says: committed. (Any other answer ends the attempt, and is no event.)
    Decided {
        /// This checkpoint.
        epoch: Epoch,
    },
    /// Everything a participant prepared is visible, and that is durable.
    Committed {
        /// Of this checkpoint.
        epoch: Epoch,
        /// By whom.
        participant: Participant,
    },
    /// A source's subtask will read nothing more. Comes after its last `Progress`.
    Ended {
        /// Which.
        participant: Participant,
    },
    /// A source's subtask has read something, or an operator has emitted something that it had kept: to be sent for the
    /// first records after the start and after each of its barriers. One that comes late, for records before the
    /// barrier, does no harm but a checkpoint more.
    Progress,
    /// A participant has results to come of what was before its last barrier, or of what was restored. To be sent
    /// before its ack. If all sources end, a last checkpoint is taken though nothing was read since.
    Owing,
    /// The user asks for a checkpoint now. If nothing was read since the last one, that one is it.
    Trigger,
    /// The user asks for the end. What sources have read and not reported yet will be read again by the next start.
    Stop,
}

/// What is to be done. In the order given; [`Warn`](Command::Warn) apart, each is answered by the event named.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send this barrier from all sources: [`Event::Ack`] from each participant.
    Barrier(Epoch),
    /// Write the manifest from the parts that came with the acks: [`Event::Written`].
    WriteManifest(Epoch),
    /// Ask the decision log to decide it: [`Event::Decided`].
    Commit(Epoch),
    /// Tell sinks to commit, and sources that their offsets are decided: [`Event::Committed`] from each sink.
    Finish(Epoch),
    /// Write the marker, then collect. It must not hold up the next barrier for long, but may go on beside it.
    Collect(Epoch),
    /// A checkpoint was asked for and nothing was read since this one: tell who asked that it is the one.
    Covered(Epoch),
    /// Let records flow. Once, or never if the user stops before.
    Run,
    /// Tell the user.
    Warn(String),
    /// End the attempt with this error.
    Fail(Error),
    /// All is decided and finished: let go of everything.
    End,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Coordinator {
    settings: Settings,
    participants: Participants,
    phase: Phase,
    /// The number of the next checkpoint.
    next: Epoch,
    /// The newest checkpoint of this attempt that is decided and finished.
    finished: Option<Epoch>,
    /// Records do not flow before the first checkpoint is finished.
    is_held: bool,
    /// Something was read since the last barrier.
    has_progress: bool,
    /// There are results to come of what was before the last barrier.
    is_owing: bool,
    is_triggered: bool,
    is_stopping: bool,
    ended: BTreeSet<Participant>,
    /// When the last checkpoint, or the run, began.
    began: Duration,
    /// When the last checkpoint was finished.
    paused: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    Starting,
    Idle,
    Taking(Taking),
    Over,
}

/// The one checkpoint that is being taken.
#[derive(Debug)]
struct Taking {
    epoch: Epoch,
    stage: Stage,
    /// The attempt ends with it.
    is_last: bool,
    /// When it is late, again.
    late: Duration,
    /// How often it was.
    timeouts: u32,
}

/// What the checkpoint waits for.
#[derive(Debug)]
enum Stage {
    Acks(BTreeSet<Participant>),
    Manifest,
    Decision,
    Commits(BTreeSet<Participant>),
}

impl Stage {
    /// What the checkpoint waits for, in words.
    fn describe(&self, names: &[String]) -> String {
        let name = |p: &Participant| names.get(p.0).cloned().unwrap_or_else(|| p.to_string());
        let list = |all: &BTreeSet<_>| all.iter().map(name).collect::<Vec<_>>().join(", ");
        match self {
            Self::Acks(missing) => format!("the snapshots of {}", list(missing)),
            Self::Manifest => "its manifest to be written".into(),
            Self::Decision => "the decision log".into(),
            Self::Commits(missing) => format!("the commits of {}", list(missing)),
        }
    }
}

impl Coordinator {
    /// A coordinator that waits for [`Event::Ready`].
    pub(crate) fn new(settings: Settings, participants: Participants, start: Start) -> Self {
        let (next, is_held) = match start {
            Start::Take(first) => (first, true),
            Start::After(restored) => (restored.saturating_add(1), false),
        };
        Self {
            settings,
            participants,
            phase: Phase::Starting,
            next,
            finished: None,
            is_held,
            has_progress: false,
            is_owing: false,
            is_triggered: false,
            is_stopping: false,
            ended: BTreeSet::new(),
            began: Duration::ZERO,
            paused: None,
        }
    }

    /// Takes an event; says what is to be done. `now` is the time since any fixed start and does not go back. Events
    /// that fit nothing, of other checkpoints or strangers, change nothing.
    pub(crate) fn step(&mut self, now: Duration, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        self.take(now, event, &mut out);
        match &mut self.phase {
            Phase::Idle => self.consider(now, &mut out),
            Phase::Taking(taking) if now >= taking.late => self.time_out(now, &mut out),
            _ => {}
        }
        out
    }

    /// When a [`Event::Tick`] would do something next, if nothing else happens. Always later than the last step.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Idle if self.has_progress => Some(self.due()),
            Phase::Taking(taking) => Some(taking.late),
            Phase::Starting | Phase::Idle | Phase::Over => None,
        }
    }

    /// The newest checkpoint of this attempt that is decided and finished.
    pub(crate) fn finished(&self) -> Option<Epoch> {
        self.finished
    }

    /// The checkpoint that is being taken.
    #[cfg(test)]
    fn taking(&self) -> Option<Epoch> {
        match &self.phase {
            Phase::Taking(taking) => Some(taking.epoch),
            _ => None,
        }
    }

    fn take(&mut self, now: Duration, event: Event, out: &mut Vec<Command>) {
        match event {
            Event::Tick => {}
            Event::Progress => self.has_progress = true,
            Event::Owing => self.is_owing = true,
            Event::Trigger => self.is_triggered = true,
            Event::Stop => self.is_stopping = true,
            Event::Ended { participant } => {
                self.ended.extend(self.participants.sources.get(&participant));
            }
            Event::Ready => self.ready(now, out),
            Event::Ack { epoch, .. }
            | Event::Written { epoch }
            | Event::Decided { epoch }
            | Event::Committed { epoch, .. } => self.go_on(now, epoch, event, out),
        }
    }

    fn ready(&mut self, now: Duration, out: &mut Vec<Command>) {
        if !matches!(self.phase, Phase::Starting) {
            return;
        }
        self.phase = Phase::Idle;
        self.began = now;
        if !self.is_held && !self.is_stopping {
            out.push(Command::Run);
        }
    }

    /// Nothing is being taken: shall something be?
    fn consider(&mut self, now: Duration, out: &mut Vec<Command>) {
        let all_ended = self.ended.len() == self.participants.sources.len();
        let is_last = self.is_stopping || (all_ended && !self.is_held);
        if self.is_held && !self.is_stopping {
            // 0. Before any record.
            return self.begin(now, false, out);
        }
        let has_more = self.has_progress || (all_ended && self.is_owing);
        if !has_more {
            // 1. The last checkpoint, or the restored one, has everything already.
            if std::mem::take(&mut self.is_triggered) && !self.is_held {
                out.push(Command::Covered(self.next.saturating_sub(1)));
            }
            if is_last {
                self.phase = Phase::Over;
                out.push(Command::End);
            }
            return;
        }
        if is_last || self.is_triggered || now >= self.due() {
            self.begin(now, is_last, out);
        }
    }

    /// 1. Barrier n goes out; n-1 is finished, or this would not be called.
    fn begin(&mut self, now: Duration, is_last: bool, out: &mut Vec<Command>) {
        let epoch = self.next;
        self.next = epoch.saturating_add(1);
        self.began = now;
        self.has_progress = false;
        self.is_owing = false;
        self.is_triggered = false;
        let stage = Stage::Acks(self.participants.all());
        let late = now.saturating_add(self.settings.timeout);
        self.phase = Phase::Taking(Taking { epoch, stage, is_last, late, timeouts: 0 });
        out.push(Command::Barrier(epoch));
    }

    /// The checkpoint that is being taken gets on when what it waits for is there.
    fn go_on(&mut self, now: Duration, epoch: Epoch, event: Event, out: &mut Vec<Command>) {
        let Phase::Taking(taking) = &mut self.phase else { return };
        let is_there = match (&mut taking.stage, event) {
            _ if taking.epoch != epoch => false,
            (Stage::Acks(missing), Event::Ack { participant, .. })
            | (Stage::Commits(missing), Event::Committed { participant, .. }) => {
                missing.remove(&participant) && missing.is_empty()
            }
            (Stage::Manifest, Event::Written { .. }) | (Stage::Decision, Event::Decided { .. }) => true,
            _ => false,
        };
        if !is_there {
            return;
        }
        match taking.stage {
            Stage::Acks(_) => {
                // 4. All acks are in.
                taking.stage = Stage::Manifest;
                out.push(Command::WriteManifest(epoch));
            }
            Stage::Manifest => {
                // 5. The manifest is durable: now, and not before, it may be decided.
                taking.stage = Stage::Decision;
                out.push(Command::Commit(epoch));
            }
            Stage::Decision => {
                // 6. It is decided: now, and not before, the output may show.
                taking.stage = Stage::Commits(self.participants.sinks.clone());
                out.push(Command::Finish(epoch));
                if self.participants.sinks.is_empty() || broken("H2") {
                    self.finish(now, out);
                }
            }
            Stage::Commits(_) => self.finish(now, out),
        }
    }

    /// 6. Everything of the checkpoint is visible: what came before is worth nothing now.
    fn finish(&mut self, now: Duration, out: &mut Vec<Command>) {
        let Phase::Taking(taking) = &self.phase else { return };
        let (epoch, is_last) = (taking.epoch, taking.is_last);
        self.finished = Some(epoch);
        self.paused = Some(now);
        // 0. The genesis is decided: records may flow.
        if std::mem::take(&mut self.is_held) && !self.is_stopping && !is_last {
            out.push(Command::Run);
        }
        out.push(Command::Collect(epoch));
        self.phase = if is_last { Phase::Over } else { Phase::Idle };
        if is_last {
            out.push(Command::End);
        }
    }

    /// The earliest start of a checkpoint that nobody asked for.
    fn due(&self) -> Duration {
        let by_interval = self.began.saturating_add(self.settings.interval);
        self.paused.map_or(by_interval, |end| by_interval.max(end.saturating_add(self.settings.min_pause)))
    }

    /// The checkpoint is late. Counted once however late, for a suspended machine is no slow checkpoint.
    fn time_out(&mut self, now: Duration, out: &mut Vec<Command>) {
        let Phase::Taking(taking) = &mut self.phase else { return };
        taking.timeouts = taking.timeouts.saturating_add(1);
        taking.late = now.saturating_add(self.settings.timeout);
        let (epoch, times, stage) = (taking.epoch, taking.timeouts, taking.stage.describe(&self.participants.names));
        let (limit, tolerated) = (self.settings.timeout, self.settings.tolerated_failures);
        let late =
            format!("checkpoint {epoch} takes longer than `checkpoint_timeout` ({limit:?}): it waits for {stage}");
        if times <= tolerated {
            out.push(Command::Warn(format!("{late}; time-out {times} of {tolerated} that are tolerated")));
            return;
        }
        self.phase = Phase::Over;
        out.push(Command::Fail(Error::new(
            ErrorKind::Failed,
            format!(
                "{late}, after {times} time-outs. If the job is only slow, raise `checkpoint_timeout` or \
                 `tolerated_failures` ({tolerated}); if a sink or a disk hangs, that is what to look at"
            ),
        )));
    }
}

#[cfg(test)]
mod tests;
