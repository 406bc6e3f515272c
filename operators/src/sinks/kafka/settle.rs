//! Makes sure that all that was written before this process was given the right to write is over.
//!
//! `init_transactions` promises that for the job's own transactional id: what was open is aborted in all its partitions
//! before it returns. But a broker that ends a transaction for its time-out while it comes up again can forget
//! partitions of it (seen with Kafka 4.3, and known of older ones as hanging transactions). What is in them stays open,
//! and the next mark that this producer's id is given there closes it: a commit of the next epoch would make what the
//! attempt before had written visible, a second time.
//!
//! So each partition that is not settled up to where it ended when the right was given, which is nearly never any, is
//! given a transaction of its own that is aborted, and closes what was open with it: partitions of the sinks' topics,
//! and that of the decisions. What is open then is of other producers, whom nothing here concerns.

use super::tail::{Isolation, Tail};
use super::transaction::Transaction;
use crate::kafka::client::Questions;
use crate::sources::kafka::KafkaPartition;
use millstream_framework::{BoxError, Error, ErrorKind, clock};
use rdkafka::Offset;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long marks that are under way are waited for.
const UNDER_WAY: Duration = Duration::from_secs(1);

type Ends = BTreeMap<KafkaPartition, i64>;

/// Blocks. Only for the one who has just been given the right to write.
///
/// # Errors
/// If the cluster does not answer as it should, or the right is gone.
pub(super) fn settle(
    (tail, transaction): (&Tail, &Transaction),
    topics: &[String],
    until: Instant,
    called_off: &AtomicBool,
) -> Result<(), BoxError> {
    let mut open = ends(tail, topics, called_off)?;
    wait(tail, &mut open, called_off)?;
    if open.is_empty() {
        return Ok(());
    }
    let partitions: Vec<_> = open.keys().cloned().collect();
    tracing::warn!(?partitions, "transactions are open where this job writes: ending those that are its own");
    transaction.abort_in(&partitions, until, &|| !called_off.load(Relaxed))?;
    wait(tail, &mut open, called_off)?;
    if !open.is_empty() {
        tracing::info!(partitions = ?open.keys(), "transactions of others are open where this job writes");
    }
    Ok(())
}

/// Where the partitions of these topics end, and that of the decisions.
fn ends(tail: &Tail, topics: &[String], called_off: &AtomicBool) -> Result<Ends, BoxError> {
    let client = tail.client(Isolation::ReadUncommitted)?;
    let questions = Questions { client: &client, called_off };
    let mut all = vec![KafkaPartition::new(&tail.topic, 0)];
    for topic in topics {
        match questions.topics(Some(std::slice::from_ref(topic))) {
            Ok(found) => {
                all.extend(found.values().flat_map(|count| 0..*count).map(|at| KafkaPartition::new(topic, at)))
            }
            // who may not look at it may not write to it now; whoever tries is told
            Err(error) if error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::Usage) => {}
            Err(error) => return Err(error),
        }
    }
    let ends = questions.offsets(&all, Offset::End)?;
    let told = ends.into_iter().map(|(partition, end)| match end {
        Some(end) => Ok((partition, end)),
        None => Err(Error::new(ErrorKind::Failed, format!("Kafka does not tell where {partition} ends")).into()),
    });
    told.collect()
}

/// Leaves those that are not settled up to there, even after a while.
fn wait(tail: &Tail, open: &mut Ends, called_off: &AtomicBool) -> Result<(), BoxError> {
    let client = tail.client(Isolation::ReadCommitted)?;
    let questions = Questions { client: &client, called_off };
    let until = clock::now() + UNDER_WAY;
    loop {
        let partitions: Vec<_> = open.keys().cloned().collect();
        let stable = questions.offsets(&partitions, Offset::End)?;
        open.retain(|partition, end| stable.get(partition).copied().flatten().is_none_or(|stable| stable < *end));
        if open.is_empty() || clock::now() >= until {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
