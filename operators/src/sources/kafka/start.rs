//! Where a partition is read from and up to where: what the user says, what the cluster and the checkpoint say, and
//! what follows. Pure; who finds the facts is `find.rs`.

use super::offset::{KafkaOffset, LastRecord};
use super::topics::KafkaPartition;
use millstream_framework::{Error, Timestamp};
use std::collections::BTreeMap;

/// Where a job that has no checkpoint starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Start {
    #[default]
    Earliest,
    Latest,
    At(Timestamp),
    /// Where this consumer group is.
    Group(String),
    Offsets(BTreeMap<KafkaPartition, i64>),
}

/// Where the source ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Stop {
    #[default]
    Never,
    /// Where the log ends when the job starts.
    End,
    At(Timestamp),
    Offsets(BTreeMap<KafkaPartition, i64>),
}

/// What becomes of a partition whose log no longer has, or does not have, the offset to be read next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// The job is refused: records are lost, and a person decides what to do about it.
    #[default]
    Fail,
    /// Go on with the oldest record there is. What was thrown away before it was read is lost, and said in a warning.
    Earliest,
    /// Go on with what comes from now on. All that is there now is passed over, and said in a warning.
    Latest,
}

/// What the cluster says of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) cluster: Option<String>,
    pub(super) topic_id: Option<String>,
    /// The oldest offset there is.
    pub(super) log_start: i64,
    /// The last stable offset: where readers of committed records end.
    pub(super) end: i64,
    /// Where a job without a checkpoint starts.
    pub(super) start: i64,
    /// Where it stops, if it does.
    pub(super) stop: Option<i64>,
}

/// How to begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// The offset of the first record to hand out.
    pub(super) next: i64,
    /// To be compared with what stands there, if anything does.
    pub(super) last: Option<LastRecord>,
    /// The offset that was to be read next and is not there.
    pub(super) instead_of: Option<i64>,
}

/// Decides where to begin, from what the checkpoint has of the partition.
///
/// # Errors
/// A refusal, if going on could lose or double records.
pub(super) fn begin(
    partition: &KafkaPartition,
    facts: &Facts,
    from: Option<&KafkaOffset>,
    policy: OutOfRange,
) -> Result<Begin, Error> {
    let Some(from) = from else {
        let in_range = (facts.log_start..=facts.end).contains(&facts.start);
        return if in_range {
            Ok(Begin { next: facts.start, last: None, instead_of: None })
        } else {
            replaced(facts, facts.start, policy).ok_or_else(|| no_such_start(partition, facts))
        };
    };
    if let (Some(was), Some(is)) = (&from.cluster, &facts.cluster)
        && was != is
    {
        return Err(foreign(partition, was, is));
    }
    if let (Some(was), Some(is)) = (&from.topic_id, &facts.topic_id)
        && was != is
    {
        let found = format!("its topic has the id {is} and had {was}: it was deleted and made again");
        return Err(other_log(partition, &found));
    }
    if from.next > facts.end {
        let found = format!("it ends at offset {}, and the checkpoint has read up to {}", facts.end, from.next);
        return Err(other_log(partition, &found));
    }
    if from.next < facts.log_start {
        return replaced(facts, from.next, policy).ok_or_else(|| expired(partition, from.next, facts.log_start));
    }
    let last = from.last.filter(|last| last.offset >= facts.log_start);
    Ok(Begin { next: from.next, last, instead_of: None })
}

fn replaced(facts: &Facts, missing: i64, policy: OutOfRange) -> Option<Begin> {
    let next = match policy {
        OutOfRange::Fail => return None,
        OutOfRange::Earliest => facts.log_start,
        OutOfRange::Latest => facts.end,
    };
    Some(Begin { next, last: None, instead_of: Some(missing) })
}

/// What a person can do who wants to go on with what is there, or without it.
fn reset(partition: &KafkaPartition, to: &str) -> String {
    format!("`offsets reset --split {partition} --to {to} --execute`")
}

/// What a person can do who wants to begin again.
pub(super) const ANEW: &str =
    "read all anew with `--restore none`, an empty data directory and an empty place for the output";

fn no_such_start(partition: &KafkaPartition, facts: &Facts) -> Error {
    let Facts { start, log_start, end, .. } = facts;
    Error::refused(format!(
        "{partition} is to be read from offset {start}, and has those from {log_start} up to {end}: start somewhere \
         else, or say `.when_out_of_range(..)`"
    ))
}

fn foreign(partition: &KafkaPartition, was: &str, is: &str) -> Error {
    Error::refused(format!(
        "{partition} is on the cluster {is}, and the checkpoint has read it on the cluster {was}, whose offsets mean \
         nothing here: name the brokers of that one; or go on with the state there is and what this one has, by \
         {}; or {ANEW}",
        reset(partition, "earliest")
    ))
}

/// That it is not what the checkpoint has read.
pub(super) fn other_log(partition: &KafkaPartition, found: &str) -> Error {
    Error::refused(format!(
        "{partition} is not the partition that the checkpoint has read: {found}; if records were cut off and written \
         anew, what was made of them cannot be taken back. Go on with the state there is and what the partition has \
         now, by {}; or {ANEW}",
        reset(partition, "earliest")
    ))
}

fn expired(partition: &KafkaPartition, next: i64, log_start: i64) -> Error {
    let lost = log_start - next;
    Error::refused(format!(
        "{partition} begins at offset {log_start}, and the checkpoint goes on with {next}: up to {lost} records were \
         thrown away before they were read (see the topic's retention.ms and retention.bytes). Say \
         `.when_out_of_range(OutOfRange::Earliest)` to go on without them whenever that happens; or go on without \
         them this once, by {}; or {ANEW}",
        reset(partition, "earliest")
    ))
}

/// That a partition which the checkpoint has read is not there.
pub(super) fn missing(partition: &KafkaPartition) -> Error {
    Error::refused(format!(
        "the cluster has no partition {partition}, which the checkpoint has read: name the brokers of the cluster that \
         has it; or go on without it and with the state there is, by {}; or {ANEW}",
        reset(partition, "forget")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_framework::ErrorKind;

    fn facts() -> Facts {
        let (cluster, topic_id) = (Some("c1".into()), Some("t1".into()));
        Facts { cluster, topic_id, log_start: 10, end: 90, start: 10, stop: None }
    }

    fn from(next: i64) -> KafkaOffset {
        let last = Some(LastRecord { offset: next - 2, timestamp: None, hash: 1 });
        KafkaOffset { next, cluster: Some("c1".into()), topic_id: Some("t1".into()), last }
    }

    fn decide(facts: &Facts, from: Option<KafkaOffset>, policy: OutOfRange) -> Result<Begin, String> {
        let begun = begin(&KafkaPartition::new("orders", 3), facts, from.as_ref(), policy);
        begun.map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::Refused);
            error.to_string()
        })
    }

    #[test]
    fn a_job_without_a_checkpoint_starts_where_it_is_told_if_that_is_there() {
        for start in [10, 50, 90] {
            let begun = decide(&Facts { start, ..facts() }, None, OutOfRange::Fail);
            assert_eq!(begun, Ok(Begin { next: start, last: None, instead_of: None }));
        }
        for start in [9, 91] {
            let facts = Facts { start, ..facts() };
            let text = decide(&facts, None, OutOfRange::Fail).unwrap_err();
            assert!(text.contains(&format!("offset {start}")) && text.contains("when_out_of_range"), "{text}");
            let instead = |next| Ok(Begin { next, last: None, instead_of: Some(start) });
            assert_eq!(decide(&facts, None, OutOfRange::Earliest), instead(10));
            assert_eq!(decide(&facts, None, OutOfRange::Latest), instead(90));
        }
    }

    #[test]
    fn a_checkpoint_goes_on_where_it_was_and_looks_at_the_last_record() {
        let begun = decide(&facts(), Some(from(50)), OutOfRange::Fail).unwrap();
        assert_eq!((begun.next, begun.last.map(|last| last.offset), begun.instead_of), (50, Some(48), None));
        // the last record was thrown away, the next one was not
        let begun = decide(&facts(), Some(from(11)), OutOfRange::Fail).unwrap();
        assert_eq!((begun.next, begun.last), (11, None));
        assert_eq!(decide(&facts(), Some(from(90)), OutOfRange::Fail).unwrap().next, 90);
    }

    #[test]
    fn what_was_thrown_away_is_refused_unless_told_otherwise() {
        let text = decide(&facts(), Some(from(4)), OutOfRange::Fail).unwrap_err();
        assert!(text.contains("up to 6 records") && text.contains("OutOfRange::Earliest"), "{text}");
        let begun = |policy| decide(&facts(), Some(from(4)), policy).map(|begin| (begin.next, begin.instead_of));
        assert_eq!(begun(OutOfRange::Earliest), Ok((10, Some(4))));
        assert_eq!(begun(OutOfRange::Latest), Ok((90, Some(4))));
    }

    #[test]
    fn another_log_is_refused_whatever_is_told() {
        for policy in [OutOfRange::Fail, OutOfRange::Earliest, OutOfRange::Latest] {
            let other = Facts { cluster: Some("c2".into()), ..facts() };
            let text = decide(&other, Some(from(50)), policy).unwrap_err();
            assert!(text.contains("cluster c2") && text.contains("cluster c1"), "{text}");
            let other = Facts { topic_id: Some("t2".into()), ..facts() };
            let text = decide(&other, Some(from(50)), policy).unwrap_err();
            assert!(text.contains("made again") && text.contains("--restore none"), "{text}");
            let text = decide(&facts(), Some(from(91)), policy).unwrap_err();
            assert!(text.contains("ends at offset 90"), "{text}");
        }
        // brokers that tell no ids
        let silent = Facts { cluster: None, topic_id: None, ..facts() };
        assert_eq!(decide(&silent, Some(from(50)), OutOfRange::Fail).unwrap().next, 50);
    }
}
