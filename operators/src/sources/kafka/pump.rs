//! The thread of a source: one client, whose messages it takes in batches and lays into the inbox of the subtask that
//! reads their partition. It also commits offsets to the consumer group, measures lag, and looks whether brokers that
//! were away are back. Everything here is compiled once, whatever records are decoded to.
//!
//! ```text
//! brokers -> client -> queue of subtask 0 -> batches -> inbox 0 -> reader 0
//!                   \> queue of subtask 1 -> batches -> inbox 1 -> reader 1
//! ```
//!
//! Bounds: a queue is filled up to the bytes its reader may read ahead, and by what is on its way from the brokers; an
//! inbox has [`INBOX_MAX`] batches, each of about [`BATCH_BYTES`] and of at most [`BATCH_MAX`] messages.

use super::find;
use super::group::Group;
use super::retention::{self, Pace, Retention};
use super::start::Facts;
use super::topics::{KafkaPartition, Topics};
use crate::kafka::client::{Client, Questions, list};
use crate::kafka::ffi::{self, Commits, Messages, Queue};
use millstream_framework::{BoxError, Error, ErrorKind, Lag, clock, spawn};
use rdkafka::consumer::Consumer;
use rdkafka::{ClientConfig, Offset};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Batches that wait for a reader.
const INBOX_MAX: usize = 3;

/// Messages in a batch, at most.
const BATCH_MAX: usize = 1024;

/// About so many bytes are in a batch.
const BATCH_BYTES: usize = 1 << 20;

/// How long the thread sleeps at most. It is woken when there is something to do; this is for events of the client.
const NAP: Duration = Duration::from_millis(50);

/// How often lag is measured, and how often brokers that are away are looked for.
const TICK: Duration = Duration::from_secs(1);

/// How long the last commits may take when the source is closed.
const FAREWELL: Duration = Duration::from_secs(2);

fn no_queue() -> BoxError {
    Error::new(ErrorKind::Failed, "the Kafka client gives no queue").into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // nothing is left half done where it could panic
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the thread.
#[derive(Default)]
struct Alarm {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Alarm {
    fn ring(&self) {
        *lock(&self.rung) = true;
        self.changed.notify_one();
    }

    fn wait(&self, most: Duration) {
        let rung = lock(&self.rung);
        let waited = self.changed.wait_timeout_while(rung, most, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// What a subtask gets.
pub(super) struct Lane {
    queue: Queue,
    inbox: Mutex<Inbox>,
    /// There is a batch, or something was found.
    filled: Notify,
    alarm: Arc<Alarm>,
    /// How many partitions come here.
    partitions: AtomicUsize,
    /// See [`Shared::gone`].
    gone: Arc<OnceLock<KafkaPartition>>,
    /// Partitions that are new and are to be read here.
    found: Mutex<Vec<(KafkaPartition, Facts)>>,
}

#[derive(Default)]
struct Inbox {
    full: VecDeque<Messages>,
    /// Emptied ones.
    spare: Vec<Messages>,
    /// The mean size of messages, in bytes.
    size: usize,
}

impl Lane {
    /// The next batch, in exchange for an emptied one.
    pub(super) fn swap(&self, mut emptied: Messages) -> Messages {
        emptied.clear();
        let mut inbox = lock(&self.inbox);
        let was_full = inbox.full.len() == INBOX_MAX;
        let Some(next) = inbox.full.pop_front() else { return emptied };
        inbox.spare.push(emptied);
        drop(inbox);
        if was_full {
            self.alarm.ring();
        }
        next
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.inbox).full.is_empty()
    }

    /// A partition that is not there any more.
    pub(super) fn gone(&self) -> Option<&KafkaPartition> {
        self.gone.get()
    }

    /// Until there is a batch, or a partition was found or is gone.
    pub(super) async fn ready(&self) {
        while self.is_empty() && self.gone.get().is_none() && lock(&self.found).is_empty() {
            self.filled.notified().await;
        }
    }

    /// The partitions that were found since.
    pub(super) fn found(&self) -> Vec<(KafkaPartition, Facts)> {
        std::mem::take(&mut *lock(&self.found))
    }

    /// Fills the inbox from the queue; whether there was anything. Only the thread calls it.
    fn fill(&self) -> bool {
        let mut moved = false;
        loop {
            let (mut batch, most) = {
                let mut inbox = lock(&self.inbox);
                if inbox.full.len() == INBOX_MAX {
                    return moved;
                }
                let most = BATCH_BYTES.checked_div(inbox.size).unwrap_or(BATCH_MAX).clamp(1, BATCH_MAX);
                (inbox.spare.pop().unwrap_or_default(), most)
            };
            let taken = self.queue.take(most, Duration::ZERO, &mut batch);
            let mut inbox = lock(&self.inbox);
            if taken == 0 {
                inbox.spare.push(batch);
                return moved;
            }
            let bytes: usize = (0..taken).filter_map(|i| batch.get(i)?.value().map(<[u8]>::len)).sum();
            inbox.size = bytes / taken;
            inbox.full.push_back(batch);
            drop(inbox);
            self.filled.notify_one();
            moved = true;
        }
    }
}

/// What is known of a partition by its reader, for those who watch.
pub(super) struct Progress {
    pub(super) partition: KafkaPartition,
    /// The next record to hand out.
    pub(super) next: AtomicI64,
    /// It is read no more.
    pub(super) finished: AtomicBool,
    /// Where the last decided checkpoint goes on, and the time of the record before that in milliseconds since 1970,
    /// or less than 0.
    pub(super) decided: AtomicI64,
    pub(super) decided_ms: AtomicI64,
    lag: Lag,
    pace: OnceLock<Mutex<Pace>>,
}

/// What is shared by the readers of a source, in one attempt. When the last of them is gone the thread ends.
pub(super) struct Pump {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Asks for the retention of topics, and looks out for new ones.
    asking: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    job: String,
    source: String,
    client: Arc<Client>,
    commits: Commits,
    alarm: Arc<Alarm>,
    closing: AtomicBool,
    closed: Notify,
    lanes: Mutex<Vec<Arc<Lane>>>,
    partitions: Mutex<Vec<Arc<Progress>>>,
    /// None if nothing is to be committed.
    group: Option<Mutex<Group>>,
    /// Of the commit under way. There is never more than one, or they might overtake each other.
    under_way: Mutex<Option<Vec<KafkaPartition>>>,
    retention: Mutex<BTreeMap<String, Retention>>,
    /// A partition that was read and is not there any more; told to all readers.
    gone: Arc<OnceLock<KafkaPartition>>,
}

/// What is looked for while the source is read.
pub(super) struct Lookout {
    pub(super) topics: Topics,
    pub(super) every: Duration,
    /// Whether what is new is to be read.
    pub(super) takes_new: bool,
    /// What is read already.
    pub(super) known: BTreeSet<KafkaPartition>,
}

impl Pump {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(
        job: &str,
        source: &str,
        config: ClientConfig,
        client: Client,
        lookout: Lookout,
        commits: bool,
    ) -> Result<Self, BoxError> {
        let client = Arc::new(client);
        let shared = Arc::new(Shared {
            job: job.into(),
            source: source.into(),
            commits: Commits::new(client.clone()).ok_or_else(no_queue)?,
            client,
            under_way: Mutex::default(),
            alarm: Arc::default(),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            lanes: Mutex::default(),
            partitions: Mutex::default(),
            group: commits.then(Mutex::default),
            retention: Mutex::default(),
            gone: Arc::default(),
        });
        let (reading, asking) = (shared.clone(), shared.clone());
        let thread = spawn::thread("millstream-kafka", move || reading.run())?;
        let pump = Self { shared, thread: Mutex::new(Some(thread)), asking: Mutex::default() };
        *lock(&pump.asking) = Some(spawn::thread("millstream-kafka-look", move || asking.look_out(&config, lookout))?);
        Ok(pump)
    }

    pub(super) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// A lane for one more reader.
    pub(super) fn lane(&self) -> Result<Arc<Lane>, BoxError> {
        let alarm = self.shared.alarm.clone();
        let queue = self.queue(move || alarm.ring())?;
        let alarm = self.shared.alarm.clone();
        let lane = Arc::new(Lane {
            queue,
            inbox: Mutex::default(),
            filled: Notify::new(),
            alarm,
            partitions: AtomicUsize::new(0),
            gone: self.shared.gone.clone(),
            found: Mutex::default(),
        });
        lock(&self.shared.lanes).push(lane.clone());
        Ok(lane)
    }

    fn queue(&self, wake: impl Fn() + Send + Sync + 'static) -> Result<Queue, BoxError> {
        Queue::new(self.shared.client.clone(), Box::new(wake)).ok_or_else(no_queue)
    }

    /// Reads a partition from an offset on, into the lane.
    pub(super) fn read(&self, partition: &KafkaPartition, from: i64, lane: &Lane) -> Result<(), BoxError> {
        self.attach(partition, &lane.queue)?;
        self.assign(partition, from)
    }

    /// Reads a partition from an offset on, into a queue of its own, until it [joins](Self::join) a lane.
    pub(super) fn read_apart(&self, partition: &KafkaPartition, from: i64) -> Result<Queue, BoxError> {
        let first = self.queue(|| {})?;
        self.attach(partition, &first)?;
        self.assign(partition, from)?;
        Ok(first)
    }

    /// Waits for the first message of a partition that is read apart (a record, or that there is none), and gives it
    /// with what else has come; all others follow into the lane.
    pub(super) fn join(
        &self,
        partition: &KafkaPartition,
        first: &Queue,
        lane: &Lane,
        go_on: impl Fn() -> Result<(), BoxError>,
    ) -> Result<Messages, BoxError> {
        let mut messages = Messages::default();
        while first.take(1, NAP, &mut messages) == 0 {
            go_on()?;
        }
        // what comes from now on comes to the lane; all that came before is in `first`
        self.attach(partition, &lane.queue)?;
        while first.take(BATCH_MAX, Duration::ZERO, &mut messages) > 0 {}
        Ok(messages)
    }

    fn attach(&self, partition: &KafkaPartition, queue: &Queue) -> Result<(), BoxError> {
        match queue.attach(&partition.topic, partition.partition) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Failed, format!("the Kafka client has no queue of {partition}")).into()),
        }
    }

    fn assign(&self, partition: &KafkaPartition, from: i64) -> Result<(), BoxError> {
        let list = list([(partition, Offset::Offset(from))].into_iter())?;
        let assigned = self.shared.client.incremental_assign(&list);
        assigned.map_err(|error| Error::new(ErrorKind::Failed, format!("cannot read {partition}: {error}")).into())
    }

    /// Nothing more is wanted of a partition.
    pub(super) fn leave(&self, partition: &KafkaPartition) {
        let left = list([(partition, Offset::Invalid)].into_iter())
            .and_then(|list| Ok(self.shared.client.incremental_unassign(&list)?));
        if let Err(error) = left {
            tracing::debug!(%partition, %error, "could not leave a partition");
        }
    }

    /// A partition is read by the reader of this lane; shows how far it is.
    pub(super) fn watch(
        &self,
        lane: &Lane,
        partition: &KafkaPartition,
        next: i64,
        read_ms: Option<i64>,
    ) -> Arc<Progress> {
        let progress = Arc::new(Progress {
            partition: partition.clone(),
            next: AtomicI64::new(next),
            finished: AtomicBool::new(false),
            decided: AtomicI64::new(next),
            decided_ms: AtomicI64::new(read_ms.unwrap_or(-1)),
            lag: Lag::of(&*self.shared.job, &*self.shared.source, partition),
            pace: OnceLock::new(),
        });
        lock(&self.shared.partitions).push(progress.clone());
        lane.partitions.fetch_add(1, Relaxed);
        progress
    }

    /// These offsets are decided: they may be shown to the group.
    pub(super) fn decided<'a>(&self, offsets: impl Iterator<Item = (&'a KafkaPartition, i64)>) {
        if let Some(group) = &self.shared.group {
            let mut group = lock(group);
            offsets.for_each(|(partition, next)| group.decided(partition, next));
            drop(group);
            self.shared.alarm.ring();
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.shared.closing.store(true, Relaxed);
        self.shared.closed.notify_one();
        self.shared.alarm.ring();
        for thread in [&self.thread, &self.asking].into_iter().filter_map(|thread| lock(thread).take()) {
            // it has nothing to say
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut due = clock::now();
        while !self.closing.load(Relaxed) {
            self.serve();
            let moved = lock(&self.lanes).iter().filter(|lane| lane.fill()).count() > 0;
            self.commit();
            let now = clock::now();
            if now >= due {
                due = now + TICK;
                self.look_for_brokers();
                self.measure(now);
            }
            if !moved {
                self.alarm.wait(NAP);
            }
        }
        self.say_farewell();
    }

    /// Lets the client say what it has to.
    fn serve(&self) {
        while let Some(told) = self.client.poll(Duration::ZERO) {
            // records come to the lanes, so this is an error, of which the context was told
            drop(told);
        }
        if let Some(done) = self.commits.done() {
            let partitions = lock(&self.under_way).take().unwrap_or_default();
            if let Err(code) = done {
                self.not_committed(&partitions, &code);
            }
        }
    }

    fn not_committed(&self, partitions: &[KafkaPartition], error: &dyn std::fmt::Display) {
        let source = &self.source;
        if self.group.as_ref().is_some_and(|group| lock(group).failed(partitions, clock::now())) {
            tracing::warn!(source, %error, "offsets could not be committed to the consumer group, will be again");
        }
    }

    /// While brokers are away nothing is committed: it would only wait.
    fn commit(&self) {
        let Some(group) = &self.group else { return };
        let mut under_way = lock(&self.under_way);
        if under_way.is_some() || self.client.context().outage.is_there() {
            return;
        }
        let due = lock(group).due(clock::now());
        if due.is_empty() {
            return;
        }
        let offsets = list(due.iter().map(|(partition, next)| (partition, Offset::Offset(*next))));
        let begun = offsets.and_then(|offsets| self.commits.begin(&offsets).map_err(|code| code.to_string().into()));
        let partitions = due.into_iter().map(|(partition, _)| partition).collect();
        match begun {
            Ok(()) => *under_way = Some(partitions),
            Err(error) => self.not_committed(&partitions, &error),
        }
    }

    /// The last decision may have come just now, and commits under way end before the client does.
    fn say_farewell(&self) {
        let until = clock::now() + FAREWELL;
        loop {
            self.serve();
            self.group.iter().for_each(|group| lock(group).hurry());
            self.commit();
            let is_done = lock(&self.under_way).is_none();
            if is_done || self.client.context().outage.is_there() || clock::now() >= until {
                return;
            }
            self.alarm.wait(Duration::from_millis(2));
        }
    }

    /// Once brokers were away, whatever is read or answered shows that one is back.
    fn look_for_brokers(&self) {
        let outage = &self.client.context().outage;
        let Some(known) = lock(&self.partitions).first().cloned().filter(|_| outage.is_there()) else { return };
        match self.client.fetch_metadata(Some(&known.partition.topic), TICK / 2) {
            Ok(_) => outage.ended(),
            Err(error) => outage.began(&error.to_string()),
        }
    }

    fn measure(&self, now: Instant) {
        for progress in lock(&self.partitions).iter() {
            let partition = &progress.partition;
            let Some((log_start, end)) = ffi::watermarks(&self.client, &partition.topic, partition.partition) else {
                continue;
            };
            if progress.finished.load(Relaxed) || end < 0 {
                continue;
            }
            let next = progress.next.load(Relaxed);
            progress.lag.records(u64::try_from(end - next).unwrap_or(0));
            let pace = progress.pace.get_or_init(|| Mutex::new(Pace::new(log_start, now)));
            let mut pace = lock(pace);
            pace.saw(log_start, now);
            let Some(retention) = lock(&self.retention).get(&*partition.topic).copied() else { continue };
            let decided = progress.decided.load(Relaxed);
            let decided_ms = Some(progress.decided_ms.load(Relaxed)).filter(|ms| *ms >= 0);
            let wall = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let now_ms = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
            let left = retention::expires_in((decided, decided_ms), end, Some(retention), &pace, now_ms);
            progress.lag.expires_in(left);
        }
    }

    /// Asks for the retention of topics, and now and again for partitions and topics that are new; on a thread of its
    /// own, for nobody waits for it.
    fn look_out(&self, config: &ClientConfig, lookout: Lookout) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
        let Lookout { topics, every, takes_new, mut known } = lookout;
        let mut missed = None;
        let mut new: BTreeSet<_> = known.iter().map(|partition| partition.topic.to_string()).collect();
        runtime.block_on(async {
            loop {
                let names: Vec<_> = std::mem::take(&mut new).into_iter().collect();
                let ask = async {
                    if !names.is_empty() {
                        let found = retention::ask(config, &names).await;
                        lock(&self.retention).extend(found);
                    }
                    tokio::time::sleep(every).await;
                };
                tokio::select! {
                    () = ask => {}
                    () = self.closed.notified() => return,
                }
                let questions = Questions { client: &self.client, called_off: &self.closing };
                match find::discover(&questions, &topics, &known) {
                    Ok((found, gone)) => {
                        self.look_at_gone(gone, &mut missed);
                        if !takes_new {
                            continue;
                        }
                        new.extend(found.keys().map(|partition| partition.topic.to_string()));
                        known.extend(found.keys().cloned());
                        found.into_iter().for_each(|(partition, facts)| self.hand_over(partition, facts));
                    }
                    Err(error) => tracing::debug!(%error, "could not look for new partitions"),
                }
            }
        });
    }

    /// A partition that is missed twice in a row is gone: a broker that was started just now may not know all it has.
    fn look_at_gone(&self, gone: Option<KafkaPartition>, missed: &mut Option<KafkaPartition>) {
        if let Some(partition) = gone.as_ref().filter(|gone| missed.as_ref() == Some(gone)) {
            let _ = self.gone.set(partition.clone());
            lock(&self.lanes).iter().for_each(|lane| lane.filled.notify_one());
        }
        *missed = gone;
    }

    /// A new partition goes to the reader that has the fewest, of those that have any: others are over.
    fn hand_over(&self, partition: KafkaPartition, facts: Facts) {
        let lanes = lock(&self.lanes);
        let busy = lanes.iter().filter(|lane| lane.partitions.load(Relaxed) > 0);
        let load = |lane: &&Arc<Lane>| lane.partitions.load(Relaxed) + lock(&lane.found).len();
        if let Some(lane) = busy.min_by_key(load) {
            tracing::info!(source = self.source, %partition, "found a new partition");
            lock(&lane.found).push((partition, facts));
            lane.filled.notify_one();
        }
    }
}
