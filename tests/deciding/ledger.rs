//! A log and its output in memory, with what a broker with transactions has: the right to write is the newest
//! producer's, and an open transaction shows nothing. On order it loses answers, and gives the right away.

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use millstream::framework::{
    Attempt, Batch, Decided, Decider, DecisionLog, LogContext, LogId, Progress, Sink, SinkContext, SinkWriter,
};
use millstream::prelude::*;
use millstream::{Error, ErrorKind};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// A key and how often it was seen.
pub(crate) type Row = (u64, u64);

/// What goes wrong with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is done, and the answer is lost.
    Done,
    /// It is not done, and nobody says so.
    Lost,
    /// Somebody takes the right and never uses it.
    Fenced,
}

/// What the broker knows.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    /// How often the log was made; none if there is none.
    pub(crate) made: u32,
    pub(crate) is_there: bool,
    /// Who may write: the newest producer.
    producer: u64,
    of_attempt: BTreeMap<Attempt, u64>,
    open: Vec<Row>,
    pub(crate) records: Vec<Progress>,
    pub(crate) rows: Vec<Row>,
    /// What is to happen to the next commits; none: they succeed.
    pub(crate) faults: VecDeque<Option<Fault>>,
}

impl Broker {
    fn fence(&mut self) -> u64 {
        self.producer += 1;
        self.open.clear();
        self.producer
    }

    fn apply(&mut self, progress: &Progress) {
        let open = std::mem::take(&mut self.open);
        self.rows.extend(open);
        self.records.push(progress.clone());
    }
}

/// A connection to the broker, and a sink. Clones are the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(Arc<Connection>);

#[derive(Debug)]
struct Connection(Arc<Mutex<Broker>>);

impl Ledger {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Connection(Arc::default())))
    }

    /// Another connection to the same broker.
    pub(crate) fn again(&self) -> Self {
        Self(Arc::new(Connection(self.0.0.clone())))
    }

    pub(crate) fn broker(&self) -> MutexGuard<'_, Broker> {
        self.0.0.lock().unwrap()
    }
}

impl Decider for Connection {
    fn place(&self) -> String {
        "a ledger".into()
    }

    fn check<'a>(&'a self) -> LocalBoxFuture<'a, Result<String, Error>> {
        async { Ok("the ledger is in memory".into()) }.boxed_local()
    }

    fn open<'a>(
        &'a self,
        cx: &'a LogContext,
        create: bool,
    ) -> LocalBoxFuture<'a, Result<Option<Box<dyn DecisionLog>>, Error>> {
        let mut broker = self.0.lock().unwrap();
        if !broker.is_there && create {
            (broker.is_there, broker.made) = (true, broker.made + 1);
            broker.records.clear();
        }
        let log = Opened { broker: self.0.clone(), attempt: cx.attempt, made: broker.made };
        let log = broker.is_there.then_some(Box::new(log) as Box<dyn DecisionLog>);
        async { Ok(log) }.boxed_local()
    }
}

#[derive(Debug)]
struct Opened {
    broker: Arc<Mutex<Broker>>,
    attempt: Attempt,
    made: u32,
}

impl DecisionLog for Opened {
    fn id(&self) -> LogId {
        LogId { system: "memory".into(), name: "ledger".into(), incarnation: Some(self.made.to_string()) }
    }

    fn look<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>> {
        async { Ok(self.broker.lock().unwrap().records.last().cloned()) }.boxed_local()
    }

    fn fence<'a>(&'a self) -> LocalBoxFuture<'a, Result<(), Error>> {
        let mut broker = self.broker.lock().unwrap();
        let producer = broker.fence();
        broker.of_attempt.insert(self.attempt, producer);
        async { Ok(()) }.boxed_local()
    }

    fn read<'a>(&'a self) -> LocalBoxFuture<'a, Result<Option<Progress>, Error>> {
        self.look()
    }

    fn commit<'a>(&'a self, progress: &'a Progress) -> LocalBoxFuture<'a, Decided> {
        let mut broker = self.broker.lock().unwrap();
        let is_mine = broker.of_attempt.get(&self.attempt) == Some(&broker.producer);
        let unknown = || Decided::Unknown(Error::new(ErrorKind::Failed, "no answer"));
        let decided = match broker.faults.pop_front().flatten() {
            _ if !is_mine => Decided::Fenced,
            None => {
                broker.apply(progress);
                Decided::Committed
            }
            Some(Fault::Done) => {
                broker.apply(progress);
                unknown()
            }
            Some(Fault::Lost) => {
                broker.fence();
                unknown()
            }
            Some(Fault::Fenced) => {
                broker.fence();
                Decided::Fenced
            }
        };
        async { decided }.boxed_local()
    }
}

impl Sink<Row> for Ledger {
    type Writer = Writer;

    async fn open(&self, cx: &SinkContext) -> Result<Writer, BoxError> {
        Ok(Writer { broker: self.0.0.clone(), attempt: cx.attempt })
    }

    fn decides(&self) -> Option<Arc<dyn Decider>> {
        Some(self.0.clone())
    }
}

pub(crate) struct Writer {
    broker: Arc<Mutex<Broker>>,
    attempt: Attempt,
}

impl SinkWriter<Row> for Writer {
    type Committable = ();

    async fn write(&mut self, batch: Batch<Row>) -> Result<(), BoxError> {
        let mut broker = self.broker.lock().unwrap();
        if broker.of_attempt.get(&self.attempt) != Some(&broker.producer) {
            return Err("the producer is fenced".into());
        }
        broker.open.extend(batch.values);
        Ok(())
    }

    async fn prepare(&mut self, _: u64) -> Result<Option<()>, BoxError> {
        Ok(None)
    }

    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}
