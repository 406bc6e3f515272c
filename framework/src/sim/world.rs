//! A world: its machines, the processes on them, and what befalls them.

use super::broker::{Broker, Connection};
use super::output::Output;
use super::parts;
use super::pipeline::{self, Size};
use crate::checkpoints::Manifest;
use crate::disk::simulated::{Disk, Mount, note, shaken};
use crate::mutant::broken;
use crate::operator::Digest;
use crate::random::Random;
use crate::runtime::{Control, live};
use crate::{Error, ErrorKind, clock};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::iter::successors;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::LocalSet;

/// So long a world may take; what has no end by then has none.
const TURNS: u64 = 30_000;

/// What is to be simulated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) size: Size,
    /// Whether there is a sink that decides.
    pub(super) broker: bool,
    /// How many faults there may be.
    pub(super) faults: u32,
    /// Who else runs the job.
    pub(super) hosts: Hosts,
    /// What a person does meanwhile.
    pub(super) tamper: Tamper,
    /// Whether the clocks of the machines go wrong.
    pub(super) clocks: bool,
}

/// Who may run the job at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosts {
    /// One process: the lock holds.
    One,
    /// Another one in the same directory, where the lock does not hold.
    Shared,
    /// A second machine, on a copy of the directory.
    Copied,
}

/// What a person may do, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tamper {
    None,
    /// The job directory is put back to an earlier copy.
    RollBack,
    /// The log of the decisions is deleted.
    DeleteLog,
    /// A file of a checkpoint is damaged.
    Damage,
}

/// What happened.
#[derive(Debug, Default, Clone)]
pub(super) struct Report {
    pub(super) turns: u64,
    pub(super) lives: u32,
    pub(super) deaths: u32,
    pub(super) power_cuts: u32,
    pub(super) takeovers: u32,
    pub(super) refusals: u32,
    pub(super) decisions: usize,
}

impl Report {
    /// What happened in another one, too.
    pub(super) fn add(&mut self, other: &Self) {
        let Self { turns, lives, deaths, power_cuts, takeovers, refusals, decisions } = other;
        self.turns += turns;
        self.lives += lives;
        self.deaths += deaths;
        self.power_cuts += power_cuts;
        self.takeovers += takeovers;
        self.refusals += refusals;
        self.decisions += decisions;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Process,
    Power,
}

struct Process {
    mount: Rc<Mount>,
    tasks: LocalSet,
    end: Rc<RefCell<Option<Result<(), Error>>>>,
    machine: usize,
    death: Death,
    paused_until: u64,
}

pub(super) struct World {
    plan: Plan,
    random: Random,
    machines: Vec<Disk>,
    broker: Broker,
    processes: Vec<Process>,
    /// On which machine a process is to be started, and at which turn.
    starts: Vec<(u64, usize)>,
    faults: u32,
    take_over_at: Option<u64>,
    tamper_at: u64,
    has_tampered: bool,
    /// Of the directory, to be put back.
    backup: Option<Disk>,
    /// Starts by hand, when nothing runs any more.
    tries: u32,
    report: Report,
    /// The machine on which it has come to its end.
    over: Option<usize>,
}

/// Runs a plan with a seed to its end.
///
/// # Errors
/// What was wrong.
pub(super) fn run(plan: Plan, seed: u64) -> Result<Report, String> {
    let mut random = Random::new(seed);
    let take_over_at = (plan.hosts != Hosts::One).then(|| random.below(70));
    let tamper_at = random.below(80);
    let mut world = World {
        plan,
        random,
        machines: vec![Disk::default()],
        broker: Broker::default(),
        processes: Vec::new(),
        starts: vec![(0, 0)],
        faults: plan.faults,
        take_over_at,
        tamper_at,
        has_tampered: false,
        backup: None,
        tries: 0,
        report: Report::default(),
        over: None,
    };
    if plan.broker && world.random.one_in(2) {
        let calls = 5 + world.random.below(40);
        world.broker.lose_one_in(calls);
    }
    // a new one each time: timers are rounded by the time since it was made
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let start = {
        let _inside = runtime.enter();
        clock::now()
    };
    let _pretence = clock::pretend(start);
    runtime.block_on(poll_fn(|cx| world.turn(cx)))?;
    Ok(world.report)
}

impl World {
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.report.turns += 1;
        let now = self.report.turns;
        if now > TURNS {
            let (starts, busy) = (&self.starts, self.broker.is_busy());
            let processes: Vec<_> = self.processes.iter().map(|p| (p.machine, p.paused_until)).collect();
            let now = clock::now();
            let text = format!("the job does not come to its end: {processes:?}, {starts:?}, {busy}, {now:?}");
            return Poll::Ready(Err(text));
        }
        self.broker.turn(&mut self.random);
        let due: Vec<_> = self.starts.extract_if(.., |(at, _)| *at <= now).collect();
        due.into_iter().for_each(|(_, machine)| self.start(machine));
        if self.plan.clocks && self.random.one_in(10) {
            let days = self.random.below(1000);
            let start = clock::now().checked_sub(Duration::from_secs(days * 86_400));
            note(|| format!("the clock jumps to day {days}"));
            start.into_iter().for_each(clock::jump);
        }
        if self.take_over_at.is_some_and(|at| at <= now) {
            self.take_over();
        }
        if self.plan.tamper == Tamper::RollBack && self.backup.is_none() && self.random.one_in(20) {
            self.backup = Some(self.machines[0].copied());
        }
        for i in 0..self.processes.len() {
            let with = i + self.random.below((self.processes.len() - i) as u64) as usize;
            self.processes.swap(i, with);
        }
        let mut i = 0;
        while i < self.processes.len() {
            if let Err(wrong) = self.poll(i, cx) {
                return Poll::Ready(Err(wrong));
            }
            i += 1;
        }
        self.processes.retain(|process| !process.mount.is_dead());
        if let Err(wrong) = self.broker.check() {
            return Poll::Ready(Err(wrong));
        }
        if let Some(machine) = self.over {
            return Poll::Ready(self.check_end(machine));
        }
        if self.faults == 0 {
            self.broker.lose_one_in(0);
        }
        if self.processes.is_empty() && self.starts.is_empty() {
            self.tries += 1;
            if !self.has_tampered {
                return Poll::Ready(Err("no process goes on".into()));
            }
            if self.tries > 4 {
                // a person has to decide
                return Poll::Ready(Ok(()));
            }
            let machine = self.tries as usize % self.machines.len();
            self.faults = 0;
            self.lose_power(machine);
            self.starts.push((now, machine));
        }
        // time goes on by itself when all wait for it; what is due by turns must not
        if !self.starts.is_empty() || self.processes.iter().any(|p| p.paused_until > now) || self.broker.is_busy() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn spend(&mut self) -> bool {
        let has = self.faults > 0;
        self.faults -= u32::from(has);
        has
    }

    fn start(&mut self, machine: usize) {
        let pid = self.report.lives;
        note(|| format!("process {pid} starts on machine {machine}"));
        self.report.lives += 1;
        let mount = Mount::new(&self.machines[machine], pid, self.random.fork());
        let mut process = Process {
            mount: mount.clone(),
            tasks: LocalSet::new(),
            end: Rc::default(),
            machine,
            death: Death::Process,
            paused_until: 0,
        };
        if self.random.below(4) > 0 && self.spend() {
            match self.random.below(3) {
                0 => mount.die_at_change(self.random.below(60)),
                1 => mount.die_at_poll(self.random.below(200)),
                _ => mount.die_at_call(self.random.below(40)),
            }
            if self.random.one_in(3) {
                process.death = Death::Power;
            }
        }
        if self.random.one_in(5) && self.spend() {
            mount.fail_one_in(10 + self.random.below(80));
        }
        let broker = self.plan.broker.then(|| Connection::new(&self.broker));
        let (mut size, end) = (self.plan.size, process.end.clone());
        if size.rows.is_some() && self.random.one_in(4) {
            size.parallelism = 1 + self.random.below(3) as usize;
            size.workers = size.workers.min(size.parallelism);
        }
        let task = async move {
            let done = live(pipeline::job(size, broker), &Control::new("numbers"), || {}).await;
            end.replace(Some(done));
        };
        mount.within(|| process.tasks.spawn_local(shaken(task, mount.clone())));
        self.processes.push(process);
    }

    /// The job is started on a copy of its directory; where it was it may go on, after a pause.
    fn take_over(&mut self) {
        self.take_over_at = None;
        let Some(process) = self.processes.iter_mut().find(|p| p.machine == 0) else { return };
        process.paused_until = self.report.turns + self.random.below(120);
        self.report.takeovers += 1;
        if self.plan.hosts == Hosts::Shared {
            note(|| "the lock does not hold".into());
            self.machines[0].without_locks();
        } else {
            note(|| "machine 1 is a copy of machine 0".into());
            self.machines.push(self.machines[0].copied());
        }
        self.start(self.machines.len() - 1);
    }

    fn poll(&mut self, i: usize, cx: &mut Context<'_>) -> Result<(), String> {
        let process = &mut self.processes[i];
        if process.mount.is_dead() || process.paused_until > self.report.turns {
            return Ok(());
        }
        let Process { mount, tasks, .. } = process;
        let _ = mount.within(|| Pin::new(tasks).poll(cx));
        let (machine, death) = (process.machine, process.death);
        if process.mount.is_dead() {
            self.report.deaths += 1;
            self.clear(i);
            if death == Death::Power {
                self.lose_power(machine);
            }
            let after = self.random.below(30);
            self.starts.push((self.report.turns + after, machine));
            self.tamper();
            return self.check();
        }
        let ended = process.end.borrow_mut().take();
        match ended {
            None => Ok(()),
            Some(done) => {
                self.processes[i].mount.kill();
                self.clear(i);
                self.ended(machine, done)
            }
        }
    }

    /// What a process holds goes, while the disk is its own, and it can change nothing any more.
    fn clear(&mut self, i: usize) {
        let process = &mut self.processes[i];
        let tasks = std::mem::take(&mut process.tasks);
        process.mount.within(|| drop(tasks));
    }

    fn lose_power(&mut self, machine: usize) {
        self.report.power_cuts += 1;
        for i in 0..self.processes.len() {
            if self.processes[i].machine == machine && !self.processes[i].mount.is_dead() {
                self.processes[i].mount.kill();
                self.clear(i);
                let after = self.random.below(30);
                self.starts.push((self.report.turns + after, machine));
            }
        }
        note(|| format!("machine {machine} loses power"));
        self.machines[machine].lose_power(&mut self.random);
    }

    /// While no process runs in the directory.
    fn tamper(&mut self) {
        if self.has_tampered || self.report.turns < self.tamper_at || self.processes.iter().any(|p| !p.mount.is_dead())
        {
            return;
        }
        self.has_tampered = match (self.plan.tamper, &self.backup) {
            (Tamper::RollBack, Some(backup)) => {
                note(|| "the directory is put back".into());
                self.machines[0].put_back(backup, Path::new("/data"));
                true
            }
            (Tamper::DeleteLog, _) => {
                note(|| "the log is deleted".into());
                self.broker.forget();
                true
            }
            (Tamper::Damage, _) => {
                let is_of_a_checkpoint = |path: &Path| path.starts_with("/data/checkpoints");
                let damaged = self.machines[0].flip(&mut self.random, is_of_a_checkpoint);
                note(|| format!("a bit is flipped: {damaged:?}"));
                damaged.is_some()
            }
            _ => false,
        };
    }

    /// Whether a refusal is right.
    fn may_refuse(&self) -> bool {
        self.has_tampered || self.machines.len() > 1
    }

    fn ended(&mut self, machine: usize, done: Result<(), Error>) -> Result<(), String> {
        let Err(error) = done else {
            self.over = Some(machine);
            return Ok(());
        };
        note(|| format!("a process of machine {machine} ended: {error}"));
        match error.kind() {
            ErrorKind::Superseded if self.report.takeovers > 0 => {
                if broken("C12") {
                    self.starts.push((self.report.turns, machine));
                }
            }
            ErrorKind::Refused if self.may_refuse() => {
                self.report.refusals += 1;
                if broken("C13") {
                    self.starts.push((self.report.turns, machine));
                }
            }
            ErrorKind::Busy => {
                // whoever is alive has time to decide
                let after = if broken("C11") { 0 } else { 200 + self.random.below(400) };
                self.starts.push((self.report.turns + after, machine));
            }
            ErrorKind::Superseded | ErrorKind::Refused | ErrorKind::Usage | ErrorKind::Topology => {
                return Err(format!("ended: {error}"));
            }
            _ => {
                // a file system that makes no name durable any more is mounted anew
                if self.machines[machine].is_broken() {
                    self.lose_power(machine);
                }
                let after = self.random.below(60);
                self.starts.push((self.report.turns + after, machine));
            }
        }
        Ok(())
    }

    /// What is visible when a process has died.
    fn check(&self) -> Result<(), String> {
        for machine in &self.machines {
            let mut rows = parts::read(machine);
            rows.sort_unstable();
            let twice = rows.windows(2).find(|pair| pair[0] == pair[1]);
            if let Some([(split, n), _]) = twice {
                return Err(format!("record {n} of split {split} is there twice, in files"));
            }
        }
        if self.has_tampered { Ok(()) } else { self.check_kept() }
    }

    /// The newest decided checkpoint and those before it that are to be kept are in some directory, with all files.
    fn check_kept(&self) -> Result<(), String> {
        let Some(newest) = self.broker.newest() else { return Ok(()) };
        let keep = self.plan.size.keep as u64;
        let kept = self.machines.iter().map(|machine| kept(machine, &newest.manifest)).max().unwrap_or(0);
        let expected = keep.min(newest.epoch + 1);
        if kept >= expected {
            return Ok(());
        }
        Err(format!("of the {expected} checkpoints up to {} that are to be kept there are {kept}", newest.epoch))
    }

    /// All is there, and stays there without power.
    fn check_end(&mut self, machine: usize) -> Result<(), String> {
        self.report.decisions = self.broker.decisions();
        let Size { splits, records, parts, .. } = self.plan.size;
        if self.plan.broker {
            self.broker.output().is_all(splits, records)?;
        }
        for _ in 0..2 {
            if parts {
                let mut output = Output::default();
                output.take(parts::read(&self.machines[machine]));
                output.is_all(splits, records)?;
            }
            self.machines[machine].lose_power(&mut self.random);
        }
        Ok(())
    }
}

/// How many checkpoints there are with all their files, from this one back along its ancestors.
fn kept(machine: &Disk, newest: &Digest) -> u64 {
    let is_manifest = |path: &PathBuf| path.to_string_lossy().contains("/manifest-");
    let manifests: Vec<_> = machine.files().into_iter().filter(is_manifest).collect();
    let decoded = manifests.iter().filter_map(|path| Manifest::decode(&machine.content(path)).ok());
    let by_digest: BTreeMap<_, _> = decoded.map(|(manifest, digest)| (digest, manifest)).collect();
    let is_there = |manifest: &Manifest| {
        let mut files = manifest.files();
        files.all(|file| machine.content(&Path::new("/data/checkpoints").join(&file.path)).len() as u64 == file.bytes)
    };
    let parent = |of: &&Manifest| of.parent.as_ref().and_then(|digest| by_digest.get(digest));
    successors(by_digest.get(newest), parent).take_while(|manifest| is_there(manifest)).count() as u64
}
