//! What is made of a record of Kafka.

use super::record::{KafkaRecord, NO_VALUE};
use crate::sources::files::{Decode, Json};
use crate::sources::undecodable::Undecodable;
use millstream_framework::BoxError;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;

/// The longest value that bincode is to read, in bytes: as much as Kafka's own limits let through with ease, and little
/// enough that a length which is none cannot fill the memory.
const BINCODE_MAX: usize = 64 << 20;
/// So long are nearly all values, at most. Lengths in them that are none can ask for [`WIDENING`] times as much.
const BINCODE_SMALL: usize = 64 << 10;
/// Bytes that bincode may count for one that is read.
const WIDENING: usize = 16;

/// Makes records of those of Kafka, where they were fetched to. Each subtask has a clone of its own, so a format may
/// keep scratch memory. A format with a schema registry behind it looks schemas up when they are met first.
pub trait KafkaDecode: Clone + Send + Sync + 'static {
    /// What it makes.
    type Record: Send + 'static;

    /// What it makes of this one.
    ///
    /// # Errors
    /// What is wrong with it. The reader adds its bytes, the partition and the offset.
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<Self::Record, BoxError>;

    /// What becomes of one that cannot be decoded, for formats that know.
    ///
    /// # Errors
    /// The record, as if this were not written: it ends the attempt.
    fn undecodable(&mut self, record: Undecodable) -> Result<Self::Record, Undecodable> {
        Err(record)
    }
}

/// The value as it is.
#[derive(Debug, Clone, Copy)]
pub struct KafkaBytes;

impl KafkaDecode for KafkaBytes {
    type Record = Vec<u8>;
    #[inline]
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<Vec<u8>, BoxError> {
        Ok(record.value().ok_or(NO_VALUE)?.to_vec())
    }
}

/// The value as a `String`.
#[derive(Debug, Clone, Copy)]
pub struct KafkaText;

impl KafkaDecode for KafkaText {
    type Record = String;
    #[inline]
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<String, BoxError> {
        Ok(record.text()?.to_owned())
    }
}

macro_rules! typed { ($($(#[$doc:meta])* $name:ident $shown:literal)*) => { $(
    $(#[$doc])*
    pub struct $name<T>(PhantomData<fn() -> T>);

    impl<T> $name<T> {
        pub(super) const fn new() -> Self {
            Self(PhantomData)
        }
    }

    impl<T> Clone for $name<T> {
        fn clone(&self) -> Self {
            Self::new()
        }
    }

    impl<T> fmt::Debug for $name<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($shown)
        }
    }
)* } }

typed! {
    /// The value as JSON of type `T`; a record without a value is JSON's `null`.
    KafkaJson "KafkaJson"
    /// The value as bincode 2 of type `T`, in its standard configuration.
    KafkaBincode "KafkaBincode"
}

impl<T: DeserializeOwned + Send + 'static> KafkaDecode for KafkaJson<T> {
    type Record = T;
    #[inline]
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<T, BoxError> {
        let value = record.value();
        match Json::<T>::new().decode(value.unwrap_or(b"null")) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err("its value is empty, which is no JSON".into()),
            Err(_) if value.is_none() => Err(NO_VALUE.into()),
            Err(error) => Err(error),
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> KafkaDecode for KafkaBincode<T> {
    type Record = T;
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<T, BoxError> {
        let value = record.value().ok_or(NO_VALUE)?;
        let config = bincode::config::standard();
        let decoded = if value.len() <= BINCODE_SMALL {
            bincode::serde::decode_from_slice(value, config.with_limit::<{ BINCODE_SMALL * WIDENING }>())
        } else {
            bincode::serde::decode_from_slice(value, config.with_limit::<BINCODE_MAX>())
        };
        let (decoded, read) = decoded
            .map_err(|error| BoxError::from(format!("no `{}` as bincode: {error}", std::any::type_name::<T>())))?;
        match value.len() - read {
            0 => Ok(decoded),
            more => Err(format!("{more} bytes follow what is a `{}` as bincode", std::any::type_name::<T>()).into()),
        }
    }
}

/// What a function makes of it. Made by [`ReadKafka::decode`](super::ReadKafka::decode).
#[derive(Clone, Copy)]
pub struct With<F>(pub(super) F);

impl<F> fmt::Debug for With<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("With")
    }
}

impl<T, F> KafkaDecode for With<F>
where
    T: Send + 'static,
    F: Fn(&KafkaRecord<'_>) -> Result<T, BoxError> + Clone + Send + Sync + 'static,
{
    type Record = T;
    #[inline]
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<T, BoxError> {
        (self.0)(record)
    }
}

/// What another format makes of it, or, if that fails, an [`Undecodable`].
#[derive(Debug, Clone)]
pub struct KafkaTry<F>(pub(super) F);

impl<F: KafkaDecode> KafkaDecode for KafkaTry<F> {
    type Record = Result<F::Record, Undecodable>;
    #[inline]
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<Self::Record, BoxError> {
        self.0.decode(record).map(Ok)
    }
    fn undecodable(&mut self, record: Undecodable) -> Result<Self::Record, Undecodable> {
        Ok(Err(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Bound, TIGHT, any_bytes, any_text, bounded, cases, damaged};
    use millstream_framework::Timestamp;
    use proptest::prelude::*;

    fn record(value: &[u8]) -> KafkaRecord<'_> {
        KafkaRecord::new("orders", 3, 17).with_value(value)
    }

    fn wrong<F: KafkaDecode>(mut format: F, record: &KafkaRecord<'_>) -> String {
        format.decode(record).err().expect("this cannot be decoded").to_string()
    }

    #[test]
    fn bytes_and_text_are_taken_as_they_are() {
        assert_eq!(KafkaBytes.decode(&record(b"a\xff")).unwrap(), b"a\xff");
        assert_eq!(KafkaText.decode(&record("grüße".as_bytes())).unwrap(), "grüße");
        assert!(wrong(KafkaText, &record(b"abc\xff")).contains("byte 3 of its value"));
        let tombstone = KafkaRecord::new("orders", 3, 17);
        assert!(wrong(KafkaBytes, &tombstone).contains("tombstone"));
        assert!(wrong(KafkaText, &tombstone).contains("tombstone"));
    }

    #[test]
    fn json_is_typed_and_a_tombstone_is_null() {
        assert_eq!(KafkaJson::<(u8, String)>::new().decode(&record(br#"[1, "a"]"#)).unwrap(), (1, "a".into()));
        assert!(wrong(KafkaJson::<u8>::new(), &record(b"1 2")).contains("no `u8` as JSON"));
        assert!(wrong(KafkaJson::<u8>::new(), &record(b" ")).contains("empty"));
        let tombstone = KafkaRecord::new("orders", 3, 17);
        assert_eq!(KafkaJson::<Option<u8>>::new().decode(&tombstone).unwrap(), None);
        assert!(wrong(KafkaJson::<u8>::new(), &tombstone).contains("tombstone"));
    }

    #[test]
    fn bincode_is_read_to_its_end() {
        let config = bincode::config::standard();
        let mut bytes = bincode::serde::encode_to_vec((7u64, "x"), config).unwrap();
        assert_eq!(KafkaBincode::<(u64, String)>::new().decode(&record(&bytes)).unwrap(), (7, "x".into()));
        bytes.push(0);
        assert!(wrong(KafkaBincode::<(u64, String)>::new(), &record(&bytes)).contains("1 bytes follow"));
        assert!(
            wrong(KafkaBincode::<String>::new(), &record(b"\xfd\xff\xff\xff\xff\xff\xff\xff\xff")).contains("no `")
        );
    }

    #[test]
    fn a_function_sees_all_of_a_record() {
        let headers: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("b", None), ("a", Some(b"2"))];
        let time = Timestamp::from_millis(5);
        let record = record(b"v").with_key(b"k").with_rest(Some(time), &headers);
        let mut format = With(|r: &KafkaRecord<'_>| {
            let place = format!("{}/{} {}", r.topic(), r.partition(), r.offset());
            let header = r.header("a").map(<[u8]>::to_vec);
            Ok((place, r.key_text()?.to_owned(), r.text()?.to_owned(), r.timestamp(), header, r.headers().count()))
        });
        let seen = format.decode(&record).unwrap();
        assert_eq!(seen, ("orders/3 17".into(), "k".into(), "v".into(), Some(time), Some(b"2".to_vec()), 3));
        let failing = With(|r: &KafkaRecord<'_>| Ok(r.key_text()?.len()));
        assert!(wrong(failing, &KafkaRecord::new("orders", 3, 17)).contains("no key"));
    }

    #[test]
    fn what_fails_is_a_record_where_that_is_wanted() {
        let mut format = KafkaTry(KafkaText);
        assert_eq!(format.decode(&record(b"a")).unwrap(), Ok("a".into()));
        assert!(format.decode(&record(b"\xff")).is_err());
        let bad = Undecodable::new("orders/3", 17, &"bad".into(), b"\xff");
        assert_eq!(format.undecodable(bad.clone()), Ok(Err(bad)));
    }

    type Order = (u64, Option<String>, Vec<Vec<u8>>);

    /// Of bincode: a text, and a `Vec` in a `Vec`, of which a damaged length says that they are long.
    const PACKED: Bound = Bound { per_byte: 64, more: (BINCODE_SMALL * WIDENING + 3 * (1 << 20)) as u64 };

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn any_record_is_taken(
            value in prop_oneof![
                any_bytes(),
                any_text().prop_map(String::into_bytes),
                damaged(any::<Order>().prop_map(|order| serde_json::to_vec(&order).unwrap())),
                damaged(any::<Order>().prop_map(|order| packed(&order))),
            ],
            key: Option<Vec<u8>>, is_tombstone in proptest::bool::weighted(0.1),
        ) {
            let mut record = KafkaRecord::new("orders", 3, 17);
            record = if is_tombstone { record } else { record.with_value(&value) };
            record = key.as_deref().map_or(record, |key| record.with_key(key));
            let input = value.len();
            let bytes = bounded(input, TIGHT, || KafkaBytes.decode(&record))?;
            prop_assert_eq!(bytes.is_err(), is_tombstone);
            let _ = bounded(input, TIGHT, || KafkaText.decode(&record))?;
            let _ = bounded(input, TIGHT, || KafkaJson::<Order>::new().decode(&record))?;
            let _ = bounded(input, PACKED, || KafkaBincode::<Order>::new().decode(&record))?;
            let _ = bounded(input, PACKED, || KafkaTry(KafkaBincode::<String>::new()).decode(&record))?;
            let _ = bounded(input, TIGHT, || (record.key_text().is_ok(), record.header("a").is_some()))?;
        }

        #[test]
        fn what_is_written_is_read(order: Order) {
            let (json, packed) = (serde_json::to_vec(&order).unwrap(), packed(&order));
            prop_assert_eq!(&KafkaJson::<Order>::new().decode(&record(&json)).unwrap(), &order);
            prop_assert_eq!(KafkaBincode::<Order>::new().decode(&record(&packed)).unwrap(), order);
        }
    }

    fn packed(order: &Order) -> Vec<u8> {
        bincode::serde::encode_to_vec(order, bincode::config::standard()).unwrap()
    }

    /// A length of 16 MiB and five bytes.
    #[test]
    fn a_damaged_length_asks_for_little() {
        let value = [252, 0, 0, 0, 1];
        let decoded = bounded(5, PACKED, || KafkaBincode::<String>::new().decode(&record(&value))).unwrap();
        assert!(decoded.is_err());
    }

    /// bincode counts sixteen bytes for each of these, which are written in one.
    #[test]
    fn what_is_narrow_in_bincode_is_read() {
        for length in [BINCODE_SMALL - 10, BINCODE_SMALL + 1] {
            let numbers = vec![7u128; length];
            let value = bincode::serde::encode_to_vec(&numbers, bincode::config::standard()).unwrap();
            assert_eq!(KafkaBincode::<Vec<u128>>::new().decode(&record(&value)).unwrap(), numbers);
        }
    }
}
