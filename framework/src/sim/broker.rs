//! A broker with transactions: one producer has the right to write and to commit, the others are fenced; requests may
//! be answered late or not at all, and a commit whose answer was lost may still be under way, to be carried out later.
//!
//! What it keeps for readers is what is committed. Each commit is compared with what was promised (`Output::take`).

use super::output::{Output, Row};
use crate::disk::simulated::{self, Mount, note};
use crate::mutant::broken;
use crate::operator::{Decided, Decider, DecisionLog, LogContext, LogId, Progress, Sink, SinkContext, SinkWriter};
use crate::random::Random;
use crate::{Attempt, Batch, BoxError, Epoch, Error, ErrorKind};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A transaction: what it makes visible, all of it or nothing.
#[derive(Debug, Default)]
struct Transaction {
    rows: Vec<Row>,
    record: Option<Progress>,
}

#[derive(Debug, Default)]
struct State {
    exists: bool,
    /// The producer that has the right.
    producer: u64,
    of_attempt: BTreeMap<Attempt, u64>,
    open: Transaction,
    /// It is decided that the open one is committed, and not carried out yet: then nothing else happens before that.
    decided: bool,
    /// Requests to commit, by producer, that have been sent again and are still on their way.
    late: Vec<u64>,
    records: Vec<Progress>,
    /// What its writer knows to be decided.
    known: Option<Progress>,
    /// Which process wrote a record, by instance.
    written_by: BTreeMap<uuid::Uuid, u32>,
    /// Processes that have learned that they are fenced, and which one had the job already then.
    fenced_by: BTreeMap<u32, Option<u32>>,
    /// How often somebody has been fenced since the last decision.
    fences: u32,
    /// What must not be.
    wrong: Option<String>,
    output: Output,
    /// One of so many calls has no answer; all have at 0.
    losses: u64,
}

impl State {
    fn carry_out(&mut self) {
        let epoch = self.open.record.as_ref().map(|record| record.epoch);
        note(|| format!("the broker shows {} rows of checkpoint {epoch:?}", self.open.rows.len()));
        self.decided = false;
        let Transaction { rows, record } = std::mem::take(&mut self.open);
        self.output.take(rows);
        if let (Some(record), Some(last)) = (&record, self.records.last())
            && record.instance != last.instance
            && self.records.iter().any(|r| r.instance == record.instance)
        {
            let epoch = record.epoch;
            self.wrong = Some(format!("who was superseded has decided checkpoint {epoch}"));
        }
        self.fences = 0;
        self.records.extend(record);
    }

    /// A new producer; what another one left open is settled.
    fn fence(&mut self, attempt: Attempt, pid: u32) {
        if broken("M7") {
            self.of_attempt.insert(attempt, self.producer);
            return;
        }
        self.fences += 1;
        if self.fences > 30 {
            self.wrong = Some("processes fence each other, and nothing is decided".into());
        }
        let owner = self.owner();
        if let Some(by) = self.fenced_by.remove(&pid).flatten().filter(|by| Some(*by) == owner) {
            self.wrong = Some(format!("process {pid} was superseded and fences its replacement, process {by}"));
        }
        self.producer += 1;
        if self.decided {
            self.carry_out();
        }
        self.open = Transaction::default();
        self.of_attempt.insert(attempt, self.producer);
    }

    /// The newest decided record.
    fn newest(&self) -> Option<Progress> {
        if broken("M4") { self.known.clone() } else { self.records.last().cloned() }
    }

    /// Who wrote the newest record, one that is not decided included.
    fn owner(&self) -> Option<u32> {
        let newest = self.open.record.as_ref().or(self.records.last())?;
        self.written_by.get(&newest.instance.0).copied()
    }

    /// A process learns whether it has the right.
    fn asks(&mut self, attempt: Attempt, pid: u32) -> bool {
        let owns = self.owns(attempt);
        let had_it = self.records.iter().any(|r| self.written_by.get(&r.instance.0) == Some(&pid));
        if !owns {
            // when it learned it first: others of its tasks may ask later, when it has looked already
            let owner = self.owner().filter(|owner| had_it && *owner != pid);
            self.fenced_by.entry(pid).or_insert(owner);
        }
        owns
    }

    fn owns(&self, attempt: Attempt) -> bool {
        self.of_attempt.get(&attempt) == Some(&self.producer)
    }

    /// A request that was late arrives.
    fn arrive(&mut self, producer: u64) {
        if producer == self.producer && (self.open.record.is_some() || !self.open.rows.is_empty()) {
            self.carry_out();
        }
    }
}

/// The broker. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Broker(Arc<Mutex<State>>);

impl Broker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is visible.
    pub(super) fn output(&self) -> Output {
        self.state().output.clone()
    }

    /// The newest decision.
    pub(super) fn newest(&self) -> Option<Progress> {
        self.state().records.last().cloned()
    }

    /// The log is deleted.
    pub(super) fn forget(&self) {
        let state = &mut *self.state();
        (state.exists, state.open, state.known) = (false, Transaction::default(), None);
        state.records.clear();
    }

    /// How many decisions there are.
    pub(super) fn decisions(&self) -> usize {
        self.state().records.len()
    }

    /// One of so many calls is not answered from now on; none at 0.
    pub(super) fn lose_one_in(&self, calls: u64) {
        self.state().losses = calls;
    }

    /// What the decisions are, checked against each other.
    pub(super) fn check(&self) -> Result<(), String> {
        let state = self.state();
        state.output.check()?;
        state.wrong.clone().map_or(Ok(()), Err)?;
        for pair in state.records.windows(2) {
            let [one, next] = pair else { continue };
            if next.epoch != one.epoch && next.epoch != one.epoch + 1 {
                return Err(format!("checkpoint {} was decided after {}", next.epoch, one.epoch));
            }
            if next.epoch == one.epoch && next.manifest != one.manifest {
                return Err(format!("checkpoint {} was decided twice, and is not the same", one.epoch));
            }
        }
        Ok(())
    }

    /// Whether something is on its way here.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.state();
        state.decided || !state.late.is_empty()
    }

    /// Time passes at the broker: what was on its way arrives, or what was decided is carried out.
    pub(super) fn turn(&self, random: &mut Random) {
        let state = &mut *self.state();
        if state.decided && random.one_in(3) {
            state.carry_out();
        }
        if !state.late.is_empty() && random.one_in(5) {
            let producer = state.late.remove(random.below(state.late.len() as u64) as usize);
            state.arrive(producer);
        }
    }
}

/// The broker as a process reaches it.
#[derive(Debug, Clone)]
pub(super) struct Connection(Broker);

/// A call that goes out, is carried out and comes back; and may be lost on both ways.
async fn call<T: std::fmt::Debug>(
    what: &str,
    broker: &Broker,
    mount: &Mount,
    done: impl FnOnce(&mut State) -> T,
) -> Option<T> {
    pause(mount).await;
    if mount.is_dead() || mount.dies() {
        note(|| format!("{what}: dies before"));
        return std::future::pending().await;
    }
    let (result, is_lost) = {
        let state = &mut *broker.state();
        let losses = state.losses;
        if losses > 0 && mount.one_in(2 * losses) {
            (None, true)
        } else {
            (Some(done(state)), losses > 0 && mount.one_in(2 * losses))
        }
    };
    note(|| format!("{what}: {result:?}{}", if is_lost { ", not answered" } else { "" }));
    if mount.dies() {
        note(|| format!("{what}: dies after"));
        return std::future::pending().await;
    }
    pause(mount).await;
    result.filter(|_| !is_lost)
}

async fn pause(mount: &Mount) {
    if mount.one_in(4) {
        tokio::time::sleep(Duration::from_micros(mount.draw() % 900)).await;
    }
}

fn mount() -> Rc<Mount> {
    simulated::current().unwrap_or_else(|| unreachable!("the broker is called by a simulated process"))
}

impl Connection {
    pub(super) fn new(broker: &Broker) -> Arc<Self> {
        Arc::new(Self(broker.clone()))
    }
}

impl Decider for Connection {
    fn place(&self) -> String {
        "a simulated broker".into()
    }

    fn check<'a>(&'a self) -> LocalBoxFuture<'a, Result<String, Error>> {
        async { Ok("it is simulated".into()) }.boxed_local()
    }

    fn open<'a>(
        &'a self,
        cx: &'a LogContext,
        create: bool,
    ) -> LocalBoxFuture<'a, Result<Option<Box<dyn DecisionLog>>, Error>> {
        async move {
            let mount = mount();
            let made = loop {
                let made = call("open", &self.0, &mount, |state| {
                    state.exists |= create;
                    state.exists
                });
                if let Some(made) = made.await {
                    break made;
                }
            };
            let log = Log { broker: self.0.clone(), attempt: cx.attempt };
            Ok(made.then(|| Box::new(log) as Box<dyn DecisionLog>))
        }
        .boxed_local()
    }
}

#[derive(Debug)]
struct Log {
    broker: Broker,
    attempt: Attempt,
}

fn unanswered() -> Error {
    Error::new(ErrorKind::Failed, "no answer")
}

impl DecisionLog for Log {
    fn id(&self) -> LogId {
        LogId { system: "simulated".into(), name: "log".into(), incarnation: None }
    }

    fn look<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>> {
        async {
            let newest = |state: &mut State| {
                let open = state.open.record.clone().filter(|_| !broken("C3"));
                open.or_else(|| state.records.last().cloned())
            };
            call("look", &self.broker, &mount(), newest).await.ok_or_else(unanswered)
        }
        .boxed_local()
    }

    fn fence<'a>(&'a self) -> LocalBoxFuture<'a, Result<(), Error>> {
        async {
            let mount = mount();
            // asked again until there is an answer, as clients do
            while call("fence", &self.broker, &mount, |state| state.fence(self.attempt, mount.pid)).await.is_none() {}
            Ok(())
        }
        .boxed_local()
    }

    fn read<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>> {
        async { call("read", &self.broker, &mount(), |state| state.newest()).await.ok_or_else(unanswered) }
            .boxed_local()
    }

    fn commit<'a>(&'a self, progress: &'a Progress) -> LocalBoxFuture<'a, Decided> {
        async {
            let mount = mount();
            let written = call("record", &self.broker, &mount, |state| {
                if state.owns(self.attempt) && !state.decided {
                    state.open.record = Some(progress.clone());
                    state.written_by.insert(progress.instance.0, mount.pid);
                }
                state.asks(self.attempt, mount.pid)
            });
            match written.await {
                None => return Decided::Unknown(unanswered()),
                Some(false) => return Decided::Fenced,
                Some(true) => {}
            }
            let again = mount.one_in(8);
            let carried_out = !mount.one_in(4);
            let committed = call("commit", &self.broker, &mount, |state| {
                if !state.owns(self.attempt) {
                    return false;
                }
                if carried_out {
                    state.carry_out();
                } else {
                    state.decided = true;
                }
                true
            });
            let committed = committed.await;
            if again || committed.is_none() {
                let state = &mut *self.broker.state();
                let producer = state.of_attempt.get(&self.attempt).copied();
                state.late.extend(producer);
            }
            match committed {
                None => Decided::Unknown(unanswered()),
                Some(false) => Decided::Fenced,
                Some(true) => {
                    // a copy of the request may be under way: the producer is replaced before anything else is written
                    if again && !broken("H12") {
                        while call("renew", &self.broker, &mount, |s| s.fence(self.attempt, mount.pid)).await.is_none()
                        {
                        }
                        // somebody may have taken the job over before
                        let newest = call("read again", &self.broker, &mount, |state| state.newest()).await;
                        let Some(newest) = newest else { return Decided::Unknown(unanswered()) };
                        if newest.is_some_and(|r| r.instance != progress.instance) && !broken("C14") {
                            return Decided::Superseded;
                        }
                    }
                    while call("carried out", &self.broker, &mount, |state| state.decided).await != Some(false) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    self.broker.state().known = Some(progress.clone());
                    Decided::Committed
                }
            }
        }
        .boxed_local()
    }
}

/// A sink that decides.
pub(super) struct Ledger(pub(super) Arc<Connection>);

impl Sink<Row> for Ledger {
    type Writer = Writer;

    async fn open(&self, cx: &SinkContext) -> Result<Writer, BoxError> {
        Ok(Writer { broker: self.0.0.clone(), attempt: cx.attempt })
    }

    fn decides(&self) -> Option<Arc<dyn Decider>> {
        Some(self.0.clone())
    }

    fn separates_epochs(&self) -> bool {
        broken("M11")
    }
}

pub(super) struct Writer {
    broker: Broker,
    attempt: Attempt,
}

impl SinkWriter<Row> for Writer {
    type Committable = ();

    async fn write(&mut self, batch: Batch<Row>) -> Result<(), BoxError> {
        let mount = mount();
        let written = call("write", &self.broker, &mount, |state| {
            let may = state.asks(self.attempt, mount.pid) && !state.decided;
            if may {
                state.open.rows.extend(batch.values);
            }
            may
        });
        match written.await {
            Some(true) => Ok(()),
            Some(false) => Err("the producer is fenced".into()),
            None => Err("no answer".into()),
        }
    }

    async fn prepare(&mut self, _: Epoch) -> Result<Option<()>, BoxError> {
        Ok(None)
    }

    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}
