//! What the simulated processes run: a source with numbered records, an operator that counts them and keeps the count
//! as an item, and a sink that is the broker's or writes files.

use super::broker::{Connection, Ledger};
use super::output::Row;
use super::parts::Parts;
use crate::disk::simulated;
use crate::operator::{Context, Operator, Output, Polled, Process, Source, SourceContext, SourceReader, SplitBatch};
use crate::state::{State, ValueState};
use crate::topology::Topology;
use crate::{Batch, BoxError, Job, Record, RestartPolicy};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How large a world is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) splits: u32,
    /// Records of each split.
    pub(super) records: u64,
    pub(super) parallelism: usize,
    pub(super) workers: usize,
    /// Records change the subtask on their way.
    pub(super) exchange: bool,
    pub(super) keep: usize,
    /// Whether there is a sink of files.
    pub(super) parts: bool,
    /// What counts the records on their way: an operator with items, or a keyed one with rows, of which so many are
    /// kept in memory.
    pub(super) rows: Option<usize>,
}

/// The job as one process has it.
pub(super) fn job(size: Size, broker: Option<Arc<Connection>>) -> Job {
    let topology = move |t: &Topology| {
        let records = t.source("records", Numbers { splits: size.splits, records: size.records });
        let mut counted = match size.rows {
            None => records.operator("count", || Count),
            Some(_) => records.key_by_value(key_of).process("count", Visits),
        };
        if size.exchange {
            counted = counted.rebalance();
        }
        if let Some(broker) = &broker {
            counted.clone().sink("ledger", Ledger(broker.clone()));
        }
        if size.parts {
            counted.sink("parts", Parts);
        } else {
            counted.discard();
        }
        Ok(())
    };
    let job = Job::new("numbers", topology)
        .data_dir("/data")
        .parallelism(size.parallelism)
        .workers(size.workers)
        .keep(size.keep)
        .checkpoint_interval(Duration::from_millis(2))
        .checkpoint_pause(Duration::ZERO)
        .restart(RestartPolicy { attempts: 4, pause: Duration::from_millis(1), pause_max: Duration::from_millis(20) });
    match size.rows {
        Some(rows) => job.cache_rows(rows),
        None => job,
    }
}

struct Numbers {
    splits: u32,
    records: u64,
}

impl Source for Numbers {
    type Reader = Reader;

    async fn splits(&self, _: &[u32]) -> Result<Vec<u32>, BoxError> {
        Ok((0..self.splits).collect())
    }

    async fn open(&self, _: &SourceContext) -> Result<Reader, BoxError> {
        Ok(Reader { records: self.records, at: BTreeMap::new(), rests: false })
    }
}

struct Reader {
    records: u64,
    at: BTreeMap<u32, u64>,
    rests: bool,
}

fn below(n: u64) -> u64 {
    simulated::current().map_or(0, |mount| mount.draw() % n)
}

impl SourceReader for Reader {
    type Record = Row;
    type Split = u32;
    type Offset = u64;

    async fn assign(&mut self, split: u32, from: Option<u64>) -> Result<u64, BoxError> {
        let from = from.unwrap_or(0);
        self.at.insert(split, from);
        Ok(from)
    }

    async fn ready(&mut self) {
        if std::mem::take(&mut self.rests) {
            tokio::time::sleep(Duration::from_micros(below(3000))).await;
        }
    }

    fn poll(&mut self, out: &mut SplitBatch<Row, u32>) -> Result<Polled, BoxError> {
        let open: Vec<_> = self.at.iter().filter(|(_, n)| **n < self.records).map(|(split, _)| *split).collect();
        let Some(split) = open.get(below(open.len().max(1) as u64) as usize) else { return Ok(Polled::Finished) };
        if below(3) == 0 {
            self.rests = true;
            return Ok(Polled::Later);
        }
        out.of(split);
        if let Some(n) = self.at.get_mut(split) {
            let records = (1 + below(3)).min(self.records - *n);
            (*n..*n + records).for_each(|n| out.push((*split, n)));
            *n += records;
        }
        Ok(Polled::More)
    }

    fn offset(&self, split: &u32) -> Result<u64, BoxError> {
        Ok(self.at.get(split).copied().unwrap_or(0))
    }
}

/// Rows of state belong to these.
fn key_of((split, n): &Row) -> (u32, u64) {
    (*split, n % 3)
}

#[derive(State)]
struct Visit {
    /// How often a key was seen; nothing is kept of it at each third time.
    times: ValueState<u64>,
    /// Makes rows of many lengths, some too long to be kept in memory by a restore.
    ballast: ValueState<Vec<u8>>,
}

/// Keeps how often it has seen a key, and lets those records through that come when they should.
struct Visits;

impl Process for Visits {
    type Key = (u32, u64);
    type In = Row;
    type Out = Row;
    type State = Visit;

    fn on_record(
        &self,
        (split, n): Row,
        visit: &mut Visit,
        cx: &mut Context<'_, (u32, u64), Row>,
    ) -> Result<(), BoxError> {
        let times = n / 3 % 3;
        let fits = visit.times.take().unwrap_or(0) == times
            && visit.ballast.take().map_or(0, |b| b.len()) as u64 == 40 * times;
        if times < 2 {
            visit.times.set(times + 1);
            visit.ballast.set(vec![n as u8; 40 * (times as usize + 1)]);
        }
        cx.emit((split, if fits { n } else { n + 1000 }));
        Ok(())
    }
}

/// Keeps how many records of each split it has seen, and lets those through that are the next ones.
struct Count;

impl Operator for Count {
    type In = Row;
    type Out = Row;
    type Item = (u32, u64);

    async fn on_batch(
        &mut self,
        batch: Batch<Row>,
        items: &mut Vec<(u32, u64)>,
        out: &mut Output<Row>,
    ) -> Result<(), BoxError> {
        for (split, n) in batch.values {
            match items.iter_mut().find(|(of, _)| *of == split) {
                Some((_, seen)) => {
                    // a count that does not fit what comes shows as a record that nobody expects
                    out.emit(Record::untimed((split, if *seen == n { n } else { n + 1000 })));
                    *seen += 1;
                }
                None => {
                    out.emit(Record::untimed((split, if n == 0 { n } else { n + 1000 })));
                    items.push((split, 1));
                }
            }
        }
        Ok(())
    }

    fn pending_since(&self, _: &[(u32, u64)]) -> Option<crate::Timestamp> {
        None
    }
}
