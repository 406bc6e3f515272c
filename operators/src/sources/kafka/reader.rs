//! The reader of a subtask: takes batches out of its lane, cuts them by partition, and decodes records where they lie.
//! Where partitions begin is decided in `start.rs`; the thread that fetches is in `pump.rs`.

use super::format::KafkaDecode;
use super::offset::{KafkaOffset, LastRecord, hash};
use super::pump::{Lane, Progress, Pump};
use super::record::KafkaRecord;
use super::start::{self, Begin, Facts, OutOfRange};
use super::topics::KafkaPartition;
use crate::kafka::client::{Questions, aside, passes};
use crate::kafka::ffi::{Message, Messages, Queue};
use crate::sources::rate::Pacer;
use crate::sources::undecodable::Undecodable;
use millstream_framework::{BoxError, Error, ErrorKind, Polled, Skipped, SourceReader, SplitBatch, Traffic};
use rdkafka::error::RDKafkaErrorCode as Code;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The reader of [`KafkaSource`](super::KafkaSource).
pub struct KafkaReader<F> {
    format: F,
    skipped: Option<Skipped>,
    pacer: Pacer,
    partitions: Partitions,
}

/// All of a reader that does not depend on what records are decoded to.
pub(super) struct Partitions {
    pub(super) facts: Arc<BTreeMap<KafkaPartition, Facts>>,
    /// Of partitions that were found since.
    found: BTreeMap<KafkaPartition, Facts>,
    pub(super) out_of_range: OutOfRange,
    pub(super) pump: Arc<Pump>,
    pub(super) lane: Arc<Lane>,
    pub(super) traffic: Traffic,
    assigned: Vec<Assigned>,
    index: BTreeMap<KafkaPartition, usize>,
    /// By what tells topics apart in messages, and partition; filled as they are met.
    met: HashMap<(usize, i32), usize>,
    /// The batch at hand, and how far it is.
    batch: Messages,
    at: usize,
    /// Those that are still to be known again.
    apart: Vec<Apart>,
    /// What came along while partitions were looked at, to be read before anything in the lane.
    first: Vec<Messages>,
    /// Whether what was restored has been shown to the group.
    shown: bool,
}

/// A partition that is read into a queue of its own, until its first record is seen to be the last one that was read.
struct Apart {
    partition: KafkaPartition,
    last: LastRecord,
    first: Queue,
}

/// A partition.
struct Assigned {
    partition: KafkaPartition,
    next: i64,
    stop: Option<i64>,
    cluster: Option<String>,
    topic_id: Option<String>,
    last: Option<LastRecord>,
    at_end: bool,
    finished: bool,
    /// The runtime was told so.
    told: bool,
    progress: Arc<Progress>,
}

/// Records of one partition that follow each other in the batch at hand.
struct Run {
    assigned: usize,
    from: usize,
    to: usize,
}

impl<F> KafkaReader<F> {
    pub(super) fn new(format: F, skipped: Option<Skipped>, pacer: Pacer, partitions: Partitions) -> Self {
        Self { format, skipped, pacer, partitions }
    }
}

impl Partitions {
    pub(super) fn new(
        facts: Arc<BTreeMap<KafkaPartition, Facts>>,
        out_of_range: OutOfRange,
        pump: Arc<Pump>,
        lane: Arc<Lane>,
        traffic: Traffic,
    ) -> Self {
        Self {
            facts,
            found: BTreeMap::new(),
            out_of_range,
            pump,
            lane,
            traffic,
            assigned: Vec::new(),
            index: BTreeMap::new(),
            met: HashMap::new(),
            batch: Messages::default(),
            at: 0,
            apart: Vec::new(),
            first: Vec::new(),
            shown: false,
        }
    }

    fn assign(&mut self, partition: KafkaPartition, from: Option<KafkaOffset>) -> Result<KafkaOffset, BoxError> {
        let facts = self.facts.get(&partition).or_else(|| self.found.get(&partition));
        let facts = facts.ok_or_else(|| start::missing(&partition))?.clone();
        let begin = start::begin(&partition, &facts, from.as_ref(), self.out_of_range)?;
        if let Some(offset) = begin.instead_of {
            let next = begin.next;
            tracing::warn!(%partition, offset, next, "the offset to go on from is not there, records are passed over");
        }
        let last = from.and_then(|from| from.last).filter(|_| begin.instead_of.is_none());
        let progress = self.pump.watch(&self.lane, &partition, begin.next, last.and_then(|last| last.timestamp));
        let mut assigned = Assigned {
            partition: partition.clone(),
            next: begin.next,
            stop: facts.stop,
            cluster: facts.cluster,
            topic_id: facts.topic_id,
            last,
            at_end: false,
            finished: false,
            told: false,
            progress,
        };
        if assigned.is_done() {
            assigned.finish();
        } else {
            self.begin(&partition, begin)?;
        }
        let offset = assigned.offset();
        self.index.insert(partition, self.assigned.len());
        self.assigned.push(assigned);
        Ok(offset)
    }

    /// Has it read, from the record on by which it is known again.
    fn begin(&mut self, partition: &KafkaPartition, begin: Begin) -> Result<(), BoxError> {
        let Some(last) = begin.last else { return self.pump.read(partition, begin.next, &self.lane) };
        let first = self.pump.read_apart(partition, last.offset)?;
        self.apart.push(Apart { partition: partition.clone(), last, first });
        Ok(())
    }

    /// Waits for the records by which partitions are known again: for those of all at once, since each takes a fetch.
    async fn know(&mut self) -> Result<(), BoxError> {
        let (pump, lane, all) = (self.pump.clone(), self.lane.clone(), std::mem::take(&mut self.apart));
        if all.is_empty() {
            return Ok(());
        }
        let known = aside(move |called_off| {
            let questions = Questions { client: pump.client(), called_off };
            let known = all.into_iter().map(|Apart { partition, last, first }| {
                let first = pump.join(&partition, &first, &lane, || questions.go_on())?;
                same(&partition, last, &first)?;
                Ok(first)
            });
            known.collect::<Result<Vec<_>, BoxError>>()
        });
        self.first.extend(known.await?);
        Ok(())
    }

    /// The next records to be decoded, `most` of them; what is no record is looked at on the way. None if there is
    /// nothing for now.
    fn next_run(&mut self, most: usize, moved: &mut bool) -> Result<Option<Run>, BoxError> {
        loop {
            let Some(message) = self.batch.get(self.at) else {
                if !self.next_batch() {
                    return Ok(None);
                }
                continue;
            };
            let assigned = find(&mut self.met, &self.index, message)?;
            let state = &mut self.assigned[assigned];
            if let Some(err) = message.error() {
                *moved |= state.told(message, Code::from(err))?;
                self.at += 1;
            } else if state.finished || message.offset() < state.next {
                self.at += 1;
            } else {
                let (from, stop) = (self.at, state.stop.unwrap_or(i64::MAX));
                let same = |m: &Message<'_>| {
                    let (topic, partition) = (m.topic_id(), m.partition());
                    (topic, partition) == (message.topic_id(), message.partition())
                        && m.error().is_none()
                        && m.offset() < stop
                };
                let to =
                    (from..).take(most).take_while(|i| self.batch.get(*i).is_some_and(|m| same(&m))).count() + from;
                if to > from {
                    return Ok(Some(Run { assigned, from, to }));
                }
                // the first record that is not to be read
                state.next = stop;
                *moved = true;
            }
            self.finish(assigned);
        }
    }

    /// What there is to read after the batch at hand.
    fn next_batch(&mut self) -> bool {
        self.at = 0;
        let emptied = std::mem::take(&mut self.batch);
        self.batch = match self.first.pop() {
            Some(first) => first,
            None => self.lane.swap(emptied),
        };
        self.batch.len() > 0
    }

    /// These were read.
    fn pass(&mut self, run: &Run, bytes: u64) {
        let state = &mut self.assigned[run.assigned];
        if let Some(last) = self.batch.get(run.to - 1) {
            state.next = last.offset() + 1;
            state.at_end = false;
            state.last = Some(fingerprint(last));
            state.progress.next.store(state.next, Relaxed);
        }
        self.traffic.add(bytes);
        self.at = run.to;
        self.finish(run.assigned);
    }

    /// Leaves a partition that has been read as far as it is to be.
    fn finish(&mut self, assigned: usize) {
        let state = &mut self.assigned[assigned];
        if !state.finished && state.is_done() {
            state.finish();
            self.pump.leave(&state.partition);
        }
    }

    /// Once all is dealt out: the group is told what was restored, for another process may have set it back.
    fn show_once(&mut self) {
        if !std::mem::replace(&mut self.shown, true) {
            self.pump.decided(self.assigned.iter().map(|state| (&state.partition, state.next)));
        }
    }

    /// Whether there is nothing to be done before something comes into the lane. Once all is read nothing does, and the
    /// runtime is to be told so.
    fn waits(&self) -> bool {
        let is_over = self.assigned.iter().all(|state| state.finished);
        !is_over && self.batch.get(self.at).is_none() && self.first.is_empty()
    }

    /// What there is to say when there is nothing to hand out.
    fn rest(&self) -> Polled {
        if self.assigned.iter().all(|state| state.finished) {
            Polled::Finished
        } else if self.assigned.iter().all(|state| state.finished || state.at_end) && self.lane.is_empty() {
            Polled::AtEnd
        } else {
            Polled::Later
        }
    }

    /// Which partitions are at their end, of those that are not all so.
    fn tell_ends<R>(&mut self, out: &mut SplitBatch<R, KafkaPartition>) {
        for state in &mut self.assigned {
            if state.finished && !std::mem::replace(&mut state.told, true) {
                out.finished(&state.partition);
            } else if state.at_end && !state.finished {
                out.at_end(&state.partition);
            }
        }
    }

    fn decided(&self, offsets: &[(KafkaPartition, KafkaOffset)]) {
        for (partition, offset) in offsets {
            if let Some(state) = self.index.get(partition).map(|i| &self.assigned[*i]) {
                state.progress.decided.store(offset.next, Relaxed);
                let ms = offset.last.and_then(|last| last.timestamp).unwrap_or(-1);
                state.progress.decided_ms.store(ms, Relaxed);
            }
        }
        self.pump.decided(offsets.iter().map(|(partition, offset)| (partition, offset.next)));
    }
}

impl Assigned {
    fn is_done(&self) -> bool {
        self.stop.is_some_and(|stop| self.next >= stop)
    }

    fn finish(&mut self) {
        self.finished = true;
        self.progress.finished.store(true, Relaxed);
    }

    fn offset(&self) -> KafkaOffset {
        let Self { next, last, .. } = *self;
        KafkaOffset { next, cluster: self.cluster.clone(), topic_id: self.topic_id.clone(), last }
    }

    /// The client says something of the partition. Whether its offset has moved by it.
    fn told(&mut self, message: Message<'_>, code: Code) -> Result<bool, BoxError> {
        let (partition, text) = (&self.partition, message.error_text());
        match code {
            Code::PartitionEOF => {
                self.at_end = true;
                // past what is no record: marks of transactions, records of aborted ones
                let moved = message.offset() > self.next;
                self.next = self.next.max(message.offset());
                self.progress.next.store(self.next, Relaxed);
                Ok(moved)
            }
            // the next attempt looks at what there is, and decides
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                let text = format!("{partition} no longer has offset {}: {text}", self.next);
                Err(Error::new(ErrorKind::Failed, text).into())
            }
            // told after half a minute only, as long as a topic that was made may need to be known everywhere
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                Err(Error::new(ErrorKind::Failed, format!("{partition} is gone: {text}")).into())
            }
            Code::TopicAuthorizationFailed => {
                let text = format!("cannot read {partition}: {text}: give this user the right to READ its topic");
                Err(Error::new(ErrorKind::Failed, text).into())
            }
            code if passes(code) => {
                tracing::info!(%partition, %code, "{text}");
                Ok(false)
            }
            code => Err(Error::new(ErrorKind::Failed, format!("cannot read {partition}: {code}: {text}")).into()),
        }
    }
}

/// Which partition a message is of.
fn find(
    met: &mut HashMap<(usize, i32), usize>,
    index: &BTreeMap<KafkaPartition, usize>,
    message: Message<'_>,
) -> Result<usize, BoxError> {
    let key = (message.topic_id(), message.partition());
    if let Some(found) = met.get(&key) {
        return Ok(*found);
    }
    let partition = KafkaPartition::new(message.topic(), message.partition());
    let stranger = || Error::new(ErrorKind::Failed, format!("the Kafka client gives records of {partition}"));
    let found = *index.get(&partition).ok_or_else(stranger)?;
    met.insert(key, found);
    Ok(found)
}

fn fingerprint(message: Message<'_>) -> LastRecord {
    let hash = hash(message.key(), message.value());
    LastRecord { offset: message.offset(), timestamp: message.timestamp_ms(), hash }
}

/// Whether what stands where the last record was is that record, if anything stands there: it may be gone, by
/// compaction, without any harm.
fn same(partition: &KafkaPartition, last: LastRecord, found: &Messages) -> Result<(), BoxError> {
    let Some(first) = found.get(0).filter(|first| first.error().is_none() && first.offset() == last.offset) else {
        return Ok(());
    };
    let is = fingerprint(first);
    if is == last {
        return Ok(());
    }
    let found = format!(
        "the record at offset {} has the time {:?} and the hash {:016x}, and had {:?} and {:016x}",
        last.offset, is.timestamp, is.hash, last.timestamp, last.hash
    );
    Err(start::other_log(partition, &found).into())
}

impl<F: KafkaDecode> KafkaReader<F> {
    /// Appends the records of a run.
    fn decode(&mut self, run: &Run, into: &mut Vec<F::Record>) -> Result<u64, BoxError> {
        let Self { format, skipped, partitions, .. } = self;
        let split = &partitions.assigned[run.assigned].partition;
        let mut bytes = 0;
        for i in run.from..run.to {
            let Some(message) = partitions.batch.get(i) else { break };
            let record = KafkaRecord::of(message, &split.topic);
            bytes += (message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len)) as u64;
            match format.decode(&record) {
                Ok(record) => into.push(record),
                Err(error) => into.extend(give_up(format, skipped.as_ref(), split, &record, error)?),
            }
        }
        Ok(bytes)
    }
}

/// What becomes of a record that cannot be decoded, or the error that names its place.
#[cold]
fn give_up<F: KafkaDecode>(
    format: &mut F,
    skipped: Option<&Skipped>,
    split: &KafkaPartition,
    record: &KafkaRecord<'_>,
    error: BoxError,
) -> Result<Option<F::Record>, BoxError> {
    let offset = u64::try_from(record.offset()).unwrap_or(0);
    let bad = Undecodable::new(&split.to_string(), offset, &error, record.value().unwrap_or_default());
    if let Some(skipped) = skipped {
        skipped.skip(&bad);
        return Ok(None);
    }
    let failed = |bad: Undecodable| match error.downcast::<Error>() {
        Ok(error) => error.at(bad.place()).into(),
        Err(_) => BoxError::from(bad),
    };
    format.undecodable(bad).map(Some).map_err(failed)
}

impl<F: KafkaDecode> SourceReader for KafkaReader<F> {
    type Record = F::Record;
    type Split = KafkaPartition;
    type Offset = KafkaOffset;

    async fn assign(&mut self, split: KafkaPartition, from: Option<KafkaOffset>) -> Result<KafkaOffset, BoxError> {
        let offset = self.partitions.assign(split, from)?;
        self.pacer.start();
        Ok(offset)
    }

    /// Looks at the records by which partitions are known again; waits for brokers that are away.
    async fn assigned(&mut self) -> Result<(), BoxError> {
        self.partitions.know().await
    }

    async fn ready(&mut self) {
        self.pacer.ready().await;
        if self.partitions.waits() {
            self.partitions.lane.ready().await;
        }
    }

    fn poll(&mut self, out: &mut SplitBatch<F::Record, KafkaPartition>) -> Result<Polled, BoxError> {
        self.partitions.show_once();
        if let Some(gone) = self.partitions.lane.gone() {
            // the next attempt looks again, and decides
            return Err(Error::new(ErrorKind::Failed, format!("{gone} is gone: its topic was deleted")).into());
        }
        if !self.partitions.apart.is_empty() {
            return Err("`assigned` was not called: a reader around this one has to hand it on".into());
        }
        let granted = self.pacer.grant(out.room());
        if granted == 0 && out.room() > 0 {
            return Ok(Polled::Later);
        }
        let mut moved = false;
        let run = self.partitions.next_run(granted, &mut moved)?;
        if moved {
            out.moved();
        }
        let polled = match run {
            Some(run) => {
                let before = out.values().len();
                let bytes = self.decode(&run, out.values())?;
                self.pacer.spend(out.values().len() - before);
                self.partitions.pass(&run, bytes);
                out.of(&self.partitions.assigned[run.assigned].partition);
                Polled::More
            }
            None => self.partitions.rest(),
        };
        if polled == Polled::Finished {
            self.pacer.stop();
        }
        if polled != Polled::AtEnd {
            self.partitions.tell_ends(out);
        }
        Ok(polled)
    }

    fn found(&mut self) -> Vec<KafkaPartition> {
        let found = self.partitions.lane.found();
        let names = found.iter().map(|(partition, _)| partition.clone()).collect();
        self.partitions.found.extend(found);
        names
    }

    /// Passes what is no record, as far as that is known.
    fn offset(&self, split: &KafkaPartition) -> Result<KafkaOffset, BoxError> {
        let state = self.partitions.index.get(split).map(|i| self.partitions.assigned[*i].offset());
        state.ok_or_else(|| format!("{split} was never assigned to this reader").into())
    }

    async fn decided(&mut self, offsets: &[(KafkaPartition, KafkaOffset)]) {
        self.partitions.decided(offsets);
    }
}

impl<F> std::fmt::Debug for KafkaReader<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = self.partitions.assigned.iter().map(|state| (&state.partition, state.next));
        f.debug_map().entries(places).finish()
    }
}
