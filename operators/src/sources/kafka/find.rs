//! What the cluster has, asked when a job starts: all questions for all partitions at once, in an order that makes the
//! answers fit together. What follows for a partition that the checkpoint knows is decided in `start.rs`, and when it
//! is ordered to be read from another place in `reset.rs`.

use super::offset::KafkaOffset;
use super::reset;
use super::start::{self, Facts, Start, Stop};
use super::topics::{KafkaPartition, Topics};
use crate::kafka::client::Questions;
use millstream_framework::{BoxError, Error, ErrorKind, ResetPlace, ResetTo, Timestamp, clock};
use rdkafka::Offset;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

/// How long a topic that is missing is looked for: one that was just made is not known to all brokers at once, and
/// after a restart a broker may need a moment to know those it has.
const GRACE: Duration = Duration::from_secs(8);

type Offsets = BTreeMap<KafkaPartition, Option<i64>>;

/// What has changed: partitions that are new, which are read from their start, and one that is gone, if any is.
///
/// # Errors
/// If the cluster does not answer as it should; nothing is lost by asking later.
pub(super) fn discover(
    questions: &Questions<'_>,
    topics: &Topics,
    known: &BTreeSet<KafkaPartition>,
) -> Result<(BTreeMap<KafkaPartition, Facts>, Option<KafkaPartition>), BoxError> {
    let cluster = questions.topics(names(topics, known.iter()).as_deref())?;
    let gone = known.iter().find(|partition| !has(&cluster, partition)).cloned();
    let choice = topics.choose(&cluster)?;
    let new: Vec<_> = choice.found.into_iter().filter(|partition| !known.contains(partition)).collect();
    let new = match new.is_empty() {
        true => BTreeMap::new(),
        false => facts(questions, new, (&Start::Earliest, &Stop::Never))?,
    };
    Ok((new, gone))
}

/// What to ask the cluster for: those that are wanted and those that are known; none for all.
fn names<'a>(topics: &Topics, known: impl Iterator<Item = &'a KafkaPartition>) -> Option<Vec<String>> {
    let known = known.map(|partition| partition.topic.to_string());
    let names = topics.names()?.iter().cloned().chain(known).collect::<BTreeSet<_>>();
    Some(names.into_iter().collect())
}

fn has(cluster: &BTreeMap<String, i32>, partition: &KafkaPartition) -> bool {
    cluster.get(&*partition.topic).is_some_and(|count| partition.partition < *count)
}

/// The partitions to read, those that are known included, with what is to be known of each.
///
/// # Errors
/// [`ErrorKind::Usage`] if there is nothing to read, or if offsets are said that do not fit; a refusal if a partition
/// that is known is not there.
pub(super) fn find(
    questions: &Questions<'_>,
    topics: &Topics,
    (start, stop): (&Start, &Stop),
    known: &[KafkaPartition],
) -> Result<BTreeMap<KafkaPartition, Facts>, BoxError> {
    let partitions = partitions(questions, topics, known)?;
    // with a checkpoint, what is new begins with its oldest record
    let start = if known.is_empty() { start } else { &Start::Earliest };
    facts(questions, partitions, (start, stop))
}

/// Where these partitions are to be read from by the order of a person.
///
/// # Errors
/// [`ErrorKind::Usage`] if one is not there, or has no such place.
pub(super) fn places(
    questions: &Questions<'_>,
    splits: &[(KafkaPartition, KafkaOffset)],
    to: ResetTo,
) -> Result<Vec<ResetPlace<KafkaOffset>>, BoxError> {
    let partitions: Vec<_> = splits.iter().map(|(partition, _)| partition.clone()).collect();
    let names: BTreeSet<_> = partitions.iter().map(|partition| partition.topic.to_string()).collect();
    let names: Vec<_> = names.into_iter().collect();
    let until = clock::now() + GRACE;
    loop {
        let cluster = questions.topics(Some(&names))?;
        let Some(gone) = partitions.iter().find(|partition| !has(&cluster, partition)) else { break };
        if clock::now() >= until {
            return Err(reset::gone(gone).into());
        }
        questions.go_on()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let all = facts(questions, partitions, (&reset::start(to), &Stop::Never))?;
    let place = |(partition, from): &(KafkaPartition, KafkaOffset)| match all.get(partition) {
        Some(facts) => reset::place(partition, facts, from, to),
        None => Err(reset::gone(partition)),
    };
    Ok(splits.iter().map(place).collect::<Result<_, _>>()?)
}

fn facts(
    questions: &Questions<'_>,
    partitions: Vec<KafkaPartition>,
    (start, stop): (&Start, &Stop),
) -> Result<BTreeMap<KafkaPartition, Facts>, BoxError> {
    let names: BTreeSet<String> = partitions.iter().map(|partition| partition.topic.to_string()).collect();
    let names: Vec<_> = names.into_iter().collect();
    let ids: BTreeMap<_, _> = names.iter().zip(questions.topic_ids(&names)?).collect();
    let cluster = questions.cluster();
    let log_starts = questions.offsets(&partitions, Offset::Beginning)?;
    let ends = questions.offsets(&partitions, Offset::End)?;
    let starts = starts(questions, &partitions, start, (&log_starts, &ends))?;
    let stops = stops(questions, &partitions, stop, &ends)?;
    let number = |of: &Offsets, partition: &KafkaPartition| of.get(partition).copied().flatten();
    let facts = partitions.into_iter().map(|partition| {
        let log_start = number(&log_starts, &partition).unwrap_or(0);
        let end = number(&ends, &partition).unwrap_or(log_start);
        let facts = Facts {
            cluster: cluster.clone(),
            topic_id: ids.get(&partition.topic.to_string()).cloned().flatten(),
            log_start,
            end,
            start: number(&starts, &partition).unwrap_or(log_start),
            stop: number(&stops, &partition),
        };
        (partition, facts)
    });
    Ok(facts.collect())
}

fn partitions(
    questions: &Questions<'_>,
    topics: &Topics,
    known: &[KafkaPartition],
) -> Result<Vec<KafkaPartition>, BoxError> {
    let until = clock::now() + GRACE;
    let names = names(topics, known.iter());
    loop {
        let cluster = questions.topics(names.as_deref())?;
        let choice = topics.choose(&cluster)?;
        let lost = known.iter().find(|partition| !has(&cluster, partition));
        let error: BoxError = match (lost, choice.missing.first()) {
            (Some(lost), _) => start::missing(lost).into(),
            (None, Some(missing)) => {
                let text = format!("the cluster has no topic `{missing}`: make it, or correct the name");
                Error::new(ErrorKind::Usage, text).into()
            }
            (None, None) if choice.found.is_empty() && known.is_empty() => {
                let text = format!("the cluster has no {topics} that may be read: make one, or correct the pattern");
                Error::new(ErrorKind::Usage, text).into()
            }
            (None, None) => {
                let all: BTreeSet<_> = choice.found.into_iter().chain(known.iter().cloned()).collect();
                return Ok(all.into_iter().collect());
            }
        };
        if clock::now() >= until {
            return Err(error);
        }
        questions.go_on()?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Where a job without a checkpoint starts.
fn starts(
    questions: &Questions<'_>,
    partitions: &[KafkaPartition],
    start: &Start,
    (log_starts, ends): (&Offsets, &Offsets),
) -> Result<Offsets, BoxError> {
    Ok(match start {
        Start::Earliest => log_starts.clone(),
        Start::Latest => ends.clone(),
        Start::At(time) => or(questions.offsets(partitions, first_at(*time))?, ends),
        Start::Group(_) => or(questions.committed(partitions)?, log_starts),
        Start::Offsets(offsets) => named(partitions, offsets, "start")?,
    })
}

fn stops(
    questions: &Questions<'_>,
    partitions: &[KafkaPartition],
    stop: &Stop,
    ends: &Offsets,
) -> Result<Offsets, BoxError> {
    Ok(match stop {
        Stop::Never => BTreeMap::new(),
        Stop::End => ends.clone(),
        Stop::At(time) => {
            past(*time)?;
            or(questions.offsets(partitions, first_at(*time))?, ends)
        }
        Stop::Offsets(offsets) => named(partitions, offsets, "stop")?,
    })
}

/// Numbers below 0 would mean something else.
fn first_at(time: Timestamp) -> Offset {
    Offset::Offset(time.as_millis().max(0))
}

fn or(found: Offsets, other: &Offsets) -> Offsets {
    let replaced = found.into_iter().map(|(partition, offset)| {
        let offset = offset.or_else(|| other.get(&partition).copied().flatten());
        (partition, offset)
    });
    replaced.collect()
}

/// The offsets that the user has said.
fn named(
    partitions: &[KafkaPartition],
    offsets: &BTreeMap<KafkaPartition, i64>,
    what: &str,
) -> Result<Offsets, BoxError> {
    let usage = |text| Err(Error::new(ErrorKind::Usage, text).into());
    if let Some(partition) = partitions.iter().find(|partition| !offsets.contains_key(partition)) {
        return usage(format!("no {what} offset is said of {partition}: say one of each partition that is read"));
    }
    if let Some(partition) = offsets.keys().find(|partition| !partitions.contains(partition)) {
        return usage(format!("a {what} offset is said of {partition}, which is not read: leave it out, or read it"));
    }
    Ok(offsets.iter().map(|(partition, offset)| (partition.clone(), Some(*offset))).collect())
}

/// A stop is a number from the start on, and where the future begins is not known.
fn past(time: Timestamp) -> Result<(), BoxError> {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    if i128::from(time.as_millis()) <= now as i128 {
        return Ok(());
    }
    let text = "the source is to be read until a time to come: say one that is past, or stop the job then";
    Err(Error::new(ErrorKind::Usage, text).into())
}
