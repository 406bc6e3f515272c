//! Where a partition is to be read from by the order of a person, and what that means. Pure; who asks the cluster is
//! `find.rs`.

use super::offset::KafkaOffset;
use super::start::{Facts, Start};
use super::topics::KafkaPartition;
use millstream_framework::{Error, ErrorKind, ResetPlace, ResetTo};

/// What to ask the cluster for. A number needs no answer but the bounds.
pub(super) fn start(to: ResetTo) -> Start {
    match to {
        ResetTo::Earliest | ResetTo::Offset(_) => Start::Earliest,
        ResetTo::Latest => Start::Latest,
        ResetTo::At(time) => Start::At(time),
    }
}

/// The place in a partition that has been read up to `from`, given what it is now.
///
/// # Errors
/// [`ErrorKind::Usage`] for a number that it does not have.
pub(super) fn place(
    partition: &KafkaPartition,
    facts: &Facts,
    from: &KafkaOffset,
    to: ResetTo,
) -> Result<ResetPlace<KafkaOffset>, Error> {
    let Facts { log_start, end, .. } = *facts;
    let next = match to {
        ResetTo::Offset(number) => i64::try_from(number).ok().filter(|next| (log_start..=end).contains(next)),
        _ => Some(facts.start),
    };
    let next = next.ok_or_else(|| {
        let text = format!("{partition} has the offsets from {log_start} up to {end}: name one of them");
        Error::new(ErrorKind::Usage, text)
    })?;
    let (cluster, topic_id) = (facts.cluster.clone(), facts.topic_id.clone());
    let what = meaning(facts, from, next);
    Ok(ResetPlace { offset: KafkaOffset { next, cluster, topic_id, last: None }, what })
}

/// Offsets count more than records: marks of transactions, and what compaction has removed.
fn meaning(facts: &Facts, from: &KafkaOffset, next: i64) -> String {
    let differ = |was: &Option<String>, is: &Option<String>| was.is_some() && is.is_some() && was != is;
    let ahead = facts.end - next;
    if differ(&from.cluster, &facts.cluster) {
        return format!("it is on another cluster now: up to {ahead} records are read there");
    }
    if differ(&from.topic_id, &facts.topic_id) {
        return format!("its topic was made again: up to {ahead} records of the new one are read");
    }
    if from.next > facts.end {
        return format!("its log was cut off at {}: up to {ahead} records are read", facts.end);
    }
    let lost = (facts.log_start - from.next).max(0);
    let lost = if lost > 0 { format!("up to {lost} records are gone already, ") } else { String::new() };
    match next - from.next.max(facts.log_start) {
        0 if lost.is_empty() => "it stays where it is, whatever record is before it".into(),
        0 => format!("{lost}all that are left are read"),
        n if n > 0 => format!("{lost}up to {n} records are passed over"),
        n => format!("up to {} records are read again", -n),
    }
}

/// That a partition is not there.
pub(super) fn gone(partition: &KafkaPartition) -> Error {
    let text = format!("the cluster has no partition {partition}: it can only be forgotten, with `--to forget`");
    Error::new(ErrorKind::Usage, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(start: i64) -> Facts {
        let (cluster, topic_id) = (Some("c1".into()), Some("t1".into()));
        Facts { cluster, topic_id, log_start: 10, end: 90, start, stop: None }
    }

    fn from(next: i64) -> KafkaOffset {
        KafkaOffset { next, cluster: Some("c1".into()), topic_id: Some("t1".into()), last: None }
    }

    #[track_caller]
    fn check(facts: &Facts, from: &KafkaOffset, to: ResetTo, expect: i64, said: &str) {
        let place = place(&KafkaPartition::new("orders", 3), facts, from, to).unwrap();
        assert_eq!((place.offset.next, place.what.as_str()), (expect, said));
        assert_eq!((&place.offset.cluster, &place.offset.topic_id), (&facts.cluster, &facts.topic_id));
        assert_eq!(place.offset.last, None);
    }

    #[test]
    fn a_place_says_what_it_means() {
        check(&facts(10), &from(50), ResetTo::Earliest, 10, "up to 40 records are read again");
        check(&facts(90), &from(50), ResetTo::Latest, 90, "up to 40 records are passed over");
        check(&facts(10), &from(50), ResetTo::Offset(60), 60, "up to 10 records are passed over");
        check(&facts(10), &from(50), ResetTo::Offset(50), 50, "it stays where it is, whatever record is before it");
        check(
            &facts(10),
            &from(4),
            ResetTo::Earliest,
            10,
            "up to 6 records are gone already, all that are left are read",
        );
        let said = "up to 6 records are gone already, up to 80 records are passed over";
        check(&facts(90), &from(4), ResetTo::Latest, 90, said);
        check(&facts(10), &from(95), ResetTo::Earliest, 10, "its log was cut off at 90: up to 80 records are read");
        let again = KafkaOffset { topic_id: Some("t0".into()), ..from(50) };
        let said = "its topic was made again: up to 80 records of the new one are read";
        check(&facts(10), &again, ResetTo::Earliest, 10, said);
        let foreign = KafkaOffset { cluster: Some("c0".into()), ..from(50) };
        let said = "it is on another cluster now: up to 0 records are read there";
        check(&facts(90), &foreign, ResetTo::Latest, 90, said);
    }

    #[test]
    fn a_number_has_to_be_there() {
        for number in [9, 91, u64::MAX] {
            let error = place(&KafkaPartition::new("orders", 3), &facts(10), &from(50), ResetTo::Offset(number));
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains("orders/3 has the offsets from 10 up to 90"), "{error}");
        }
    }
}
