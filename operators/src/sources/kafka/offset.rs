//! How a place in a partition is found again: the offset that checkpoints keep, with what makes sure that the partition
//! is the one it was taken of. What is compared with what is in `start.rs`.

use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How far a partition was read, and how to know it again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaOffset {
    /// The offset to go on from. It has passed what is no record, such as the marks of transactions.
    pub next: i64,
    /// The id of the cluster, if it has one.
    pub cluster: Option<String>,
    /// The id of the topic as Kafka's tools print it, if the cluster tells. A topic that is deleted and made again has
    /// another one.
    pub topic_id: Option<String>,
    /// The last record that was read; none as long as there was none.
    pub last: Option<LastRecord>,
}

/// As errors show it: the number is what people look for.
impl fmt::Debug for KafkaOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.next)
    }
}

/// A record by which a partition is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastRecord {
    /// Its own offset, which may lie further back than one before the next: compaction and the marks of transactions
    /// leave gaps.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970, if it has one.
    pub timestamp: Option<i64>,
    /// XXH3-64 of its value, seeded with that of its key; in JSON as 16 hexadecimal digits.
    #[serde(with = "crate::sources::hex")]
    pub hash: u64,
}

/// The hash of a record. What is missing is not what is empty.
pub(crate) fn hash(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let seed = key.map_or(1, xxh3_64);
    value.map_or(!seed, |value| xxh3_64_with_seed(value, seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Bound, TIGHT, any_text, bounded, cases, damaged_text};
    use crate::sources::kafka::KafkaPartition;
    use proptest::prelude::*;

    #[test]
    fn stands_in_manifests_as_json() {
        let last = Some(LastRecord { offset: 6, timestamp: Some(1_700_000_000_000), hash: 0xab });
        let offset = KafkaOffset { next: 9, cluster: Some("c".into()), topic_id: Some("t".into()), last };
        let json = concat!(
            r#"{"next":9,"cluster":"c","topic_id":"t","last":"#,
            r#"{"offset":6,"timestamp":1700000000000,"hash":"00000000000000ab"}}"#
        );
        assert_eq!(serde_json::to_string(&offset).unwrap(), json);
        assert_eq!(serde_json::from_str::<KafkaOffset>(json).unwrap(), offset);
        assert_eq!(format!("{offset:?}"), "9");
    }

    #[test]
    fn the_hash_tells_records_apart_and_stays_as_it_is() {
        let records: [(Option<&[u8]>, Option<&[u8]>); 6] = [
            (None, None),
            (None, Some(b"")),
            (Some(b""), None),
            (Some(b""), Some(b"")),
            (Some(b"a"), Some(b"b")),
            (Some(b"b"), Some(b"a")),
        ];
        let hashes: std::collections::BTreeSet<_> = records.iter().map(|(key, value)| hash(*key, *value)).collect();
        assert_eq!(hashes.len(), records.len());
        // it stands in manifests
        assert_eq!(hash(Some(b"key"), Some(b"value")), 12_799_176_785_381_101_966);
    }

    prop_compose! {
        fn any_offset()(
            next: i64, cluster: Option<String>, topic_id: Option<String>, last: Option<(i64, Option<i64>, u64)>,
        ) -> KafkaOffset {
            let last = last.map(|(offset, timestamp, hash)| LastRecord { offset, timestamp, hash });
            KafkaOffset { next, cluster, topic_id, last }
        }
    }

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn any_json_is_taken(
            text in prop_oneof![
                any_text(),
                damaged_text(any_offset().prop_map(|offset| serde_json::to_string(&offset).unwrap())),
            ],
        ) {
            if let Ok(offset) = bounded(text.len(), TIGHT, || serde_json::from_str::<KafkaOffset>(&text))? {
                let again = serde_json::to_string(&offset).unwrap();
                prop_assert_eq!(serde_json::from_str::<KafkaOffset>(&again).unwrap(), offset);
            }
            let _ = bounded(text.len(), TIGHT, || serde_json::from_str::<KafkaPartition>(&text))?;
        }

        #[test]
        fn what_is_written_is_read(offset in any_offset(), key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
            let json = serde_json::to_value(&offset).unwrap();
            prop_assert_eq!(serde_json::from_value::<KafkaOffset>(json).unwrap(), offset);
            let input = key.iter().chain(&value).map(Vec::len).sum();
            bounded(input, Bound { per_byte: 0, more: 0 }, || hash(key.as_deref(), value.as_deref()))?;
        }
    }
}
