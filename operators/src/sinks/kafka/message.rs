//! `KafkaMessage`: a record to be written, with all that Kafka knows of one. Where it goes is said in `writer.rs`.

use crate::sources::Undecodable;
use millstream_framework::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A record for Kafka: key, value or tombstone, headers, time, and where it goes if that is not the sink's topic. Made
/// where the types are known, in a `map` before the sink:
///
/// ```
/// # use millstream_framework::{BoxError, Topology};
/// # use millstream_operators::Kafka;
/// use millstream_operators::sinks::kafka::KafkaMessage;
///
/// # fn topology(t: &Topology) -> Result<(), BoxError> {
/// let kafka = Kafka::new("localhost:9092");
/// t.source("orders", kafka.read("orders").json::<(String, u64)>())
///     .map(|(user, amount)| KafkaMessage::json(&amount).key(&user).header("currency", "EUR"))
///     .sink("amounts", kafka.write("amounts"));
/// # Ok(())
/// # }
/// ```
///
/// A type of yours that is `Into<KafkaMessage>` can be given to the sink as it is.
///
/// A value that cannot be encoded is kept as what it is, a record that cannot be written: the sink sends it to its dead
/// letters, or ends the attempt. Key and value cost an allocation each, the rest one more if there is any of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaMessage {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: Option<i64>,
    rest: Option<Box<Rest>>,
}

/// What few records have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    topic: Option<String>,
    partition: Option<i32>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    /// Why there is no value.
    unencodable: Option<String>,
}

impl KafkaMessage {
    fn of(value: Option<Vec<u8>>) -> Self {
        Self { key: None, value, timestamp_ms: None, rest: None }
    }

    /// With these bytes as its value. Bytes that are given away (`Vec<u8>`, `String`) are not copied.
    #[must_use]
    pub fn bytes(value: impl IntoBytes) -> Self {
        Self::of(Some(value.into_bytes()))
    }

    /// With this text as its value.
    #[must_use]
    pub fn text(value: impl Into<String>) -> Self {
        Self::of(Some(value.into().into_bytes()))
    }

    /// With this value as JSON.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => Self::of(Some(bytes)),
            Err(error) => Self::unencodable::<T>("JSON", &error),
        }
    }

    /// With this value in bincode 2, in its standard configuration, as [`ReadKafka::bincode`] reads it.
    ///
    /// [`ReadKafka::bincode`]: crate::sources::kafka::ReadKafka::bincode
    #[must_use]
    pub fn bincode<T: Serialize + ?Sized>(value: &T) -> Self {
        match bincode::serde::encode_to_vec(value, bincode::config::standard()) {
            Ok(bytes) => Self::of(Some(bytes)),
            Err(error) => Self::unencodable::<T>("bincode", &error),
        }
    }

    /// Without a value: it says that what stood under its key is gone. Needs a key to mean anything.
    #[must_use]
    pub fn tombstone() -> Self {
        Self::of(None)
    }

    #[cold]
    fn unencodable<T: ?Sized>(format: &str, error: &dyn fmt::Display) -> Self {
        let why = format!("a `{}` cannot be written as {format}: {error}", std::any::type_name::<T>());
        let mut message = Self::of(None);
        message.rest().unencodable = Some(why);
        message
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// With this key: text or bytes. Records of one key go to one partition, in order, unless the sink says otherwise.
    #[must_use]
    pub fn key(mut self, key: impl IntoBytes) -> Self {
        self.key = Some(key.into_bytes());
        self
    }

    /// With one more header. Names need not be unique; their order is kept.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl IntoBytes) -> Self {
        let value = Some(value.into_bytes());
        self.rest().headers.push((name.into(), value));
        self
    }

    /// With one more header, which has a name and no value.
    #[must_use]
    pub fn header_without_value(mut self, name: impl Into<String>) -> Self {
        self.rest().headers.push((name.into(), None));
        self
    }

    /// With this time, to the millisecond; without one it is the time of writing. Times up to the beginning of 1970
    /// cannot be written. A topic that is set to `LogAppendTime` has times of its own.
    #[must_use]
    pub fn timestamp(mut self, time: impl Into<Timestamp>) -> Self {
        self.timestamp_ms = Some(time.into().as_millis());
        self
    }

    /// To this topic instead of the sink's.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.rest().topic = Some(name.into());
        self
    }

    /// To this partition, whatever the sink says about partitions.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.rest().partition = Some(partition);
        self
    }

    /// Its key.
    #[inline]
    #[must_use]
    pub fn get_key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Its value; none of a tombstone.
    #[inline]
    #[must_use]
    pub fn get_value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Its time in milliseconds since 1970, if it was given one.
    #[inline]
    #[must_use]
    pub fn get_timestamp(&self) -> Option<Timestamp> {
        self.timestamp_ms.map(Timestamp::from_millis)
    }

    /// The topic that it was given.
    #[inline]
    #[must_use]
    pub fn get_topic(&self) -> Option<&str> {
        self.rest.as_ref()?.topic.as_deref()
    }

    /// The partition that it was given.
    #[inline]
    #[must_use]
    pub fn get_partition(&self) -> Option<i32> {
        self.rest.as_ref()?.partition
    }

    /// Its headers in order: names and values, which may be missing.
    pub fn get_headers(&self) -> impl ExactSizeIterator<Item = (&str, Option<&[u8]>)> {
        let headers = self.rest.as_ref().map_or(&[][..], |rest| &rest.headers);
        headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Why it has no value though it should.
    #[inline]
    pub(super) fn why_unencodable(&self) -> Option<&str> {
        self.rest.as_ref()?.unencodable.as_deref()
    }

    /// The bytes of key, value and headers, and of what Kafka keeps beside them, at most: as one record in a batch of
    /// its own.
    #[inline]
    pub(super) fn size(&self) -> usize {
        let headers = self.rest.as_ref().map_or(0, |rest| {
            let sizes = rest.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
            sizes.map(|size| size + HEADER_BYTES).sum()
        });
        self.bytes_of_user() + headers + RECORD_BYTES
    }

    /// The bytes of key and value.
    #[inline]
    pub(super) fn bytes_of_user(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }

    /// The same, without the place it was to go to and whatever is wrong with its value, and with the value cut off.
    pub(super) fn into_dead_letter(mut self, value_bytes_max: usize) -> Self {
        let rest = self.rest();
        (rest.topic, rest.partition, rest.unencodable) = (None, None, None);
        self.timestamp_ms = None;
        let size = self.value.as_ref().map_or(0, Vec::len);
        if size <= value_bytes_max {
            return self;
        }
        self.value.iter_mut().for_each(|value| value.truncate(value_bytes_max));
        self.header(VALUE_BYTES, size.to_string())
    }

    /// Without key, which is given back.
    pub(super) fn take_key(&mut self) -> Option<Vec<u8>> {
        self.key.take()
    }

    /// Without headers.
    pub(super) fn drop_headers(&mut self) {
        self.rest().headers.clear();
    }
}

/// A batch's own bytes and, at most, those of the lengths of a record.
const RECORD_BYTES: usize = 61 + 36;

/// Two lengths.
const HEADER_BYTES: usize = 10;

/// How many bytes the value of a dead letter had that is cut off.
pub(super) const VALUE_BYTES: &str = "millstream.value.bytes";
/// What is wrong with a dead letter.
pub(super) const ERROR: &str = "millstream.error";

/// To a topic for dead letters: the bytes as they stood in the source, and headers that say what was wrong
/// (`millstream.error`) and where it stood (`millstream.split`, `millstream.offset`).
impl From<Undecodable> for KafkaMessage {
    fn from(record: Undecodable) -> Self {
        let Undecodable { split, offset, error, bytes } = record;
        Self::bytes(bytes)
            .header(ERROR, error)
            .header("millstream.split", split)
            .header("millstream.offset", offset.to_string())
    }
}

/// As it is shown in errors: no value, which may be long or secret.
impl fmt::Debug for KafkaMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.get_key().map(|key| String::from_utf8_lossy(key).into_owned());
        let mut shown = f.debug_struct("KafkaMessage");
        shown.field("key", &key).field("value_bytes", &self.get_value().map(<[u8]>::len));
        shown.field("topic", &self.get_topic()).field("partition", &self.get_partition()).finish_non_exhaustive()
    }
}

/// Text or bytes, as keys, values and headers are given. What is given away is not copied.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither text nor bytes",
    note = "a number can be given as text (`id.to_string()`) or as bytes (`id.to_be_bytes()`)"
)]
pub trait IntoBytes {
    /// The bytes.
    fn into_bytes(self) -> Vec<u8>;
}

macro_rules! into_bytes { ($($type:ty, $bytes:ident => $expr:expr;)*) => { $(
    impl IntoBytes for $type {
        #[inline]
        fn into_bytes(self) -> Vec<u8> {
            let $bytes = self;
            $expr
        }
    }
)* } }
into_bytes! {
    Vec<u8>, bytes => bytes;
    String, text => String::into_bytes(text);
    Box<[u8]>, bytes => bytes.into_vec();
    &[u8], bytes => bytes.to_vec();
    &Vec<u8>, bytes => bytes.clone();
    &str, text => text.as_bytes().to_vec();
    &String, text => text.as_bytes().to_vec();
}

impl<const N: usize> IntoBytes for [u8; N] {
    #[inline]
    fn into_bytes(self) -> Vec<u8> {
        self.to_vec()
    }
}

impl<const N: usize> IntoBytes for &[u8; N] {
    #[inline]
    fn into_bytes(self) -> Vec<u8> {
        self.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_message_has_what_it_was_given() {
        let text = KafkaMessage::text("v").key("k").header("a", "1").header("a", [2u8]).header_without_value("b");
        let text = text.timestamp(Timestamp::from_millis(5)).topic("t").partition(3);
        assert_eq!((text.get_key(), text.get_value()), (Some(&b"k"[..]), Some(&b"v"[..])));
        let headers: Vec<_> = text.get_headers().collect();
        assert_eq!(headers, [("a", Some(&b"1"[..])), ("a", Some(&[2][..])), ("b", None)]);
        assert_eq!(text.get_timestamp(), Some(Timestamp::from_millis(5)));
        assert_eq!((text.get_topic(), text.get_partition()), (Some("t"), Some(3)));
        let bare = KafkaMessage::tombstone();
        assert_eq!((bare.get_key(), bare.get_value(), bare.get_headers().len()), (None, None, 0));
        assert_eq!(KafkaMessage::bytes(b"").get_value(), Some(&b""[..]), "empty is not missing");
        assert_eq!(KafkaMessage::json(&("a", 1)).get_value(), Some(&br#"["a",1]"#[..]));
        let bytes = bincode::serde::encode_to_vec(7u64, bincode::config::standard()).unwrap();
        assert_eq!(KafkaMessage::bincode(&7u64), KafkaMessage::bytes(bytes));
    }

    #[test]
    fn what_cannot_be_encoded_says_why() {
        let message = KafkaMessage::json(&BTreeMap::from([((1, 2), 3)])).key("k");
        let why = message.why_unencodable().unwrap();
        assert!(why.contains("cannot be written as JSON") && why.contains("BTreeMap"), "{why}");
        let dead = message.topic("t").partition(1).into_dead_letter(10);
        assert_eq!((dead.why_unencodable(), dead.get_topic(), dead.get_partition()), (None, None, None));
        assert_eq!(dead.get_key(), Some(&b"k"[..]));
    }

    #[test]
    fn the_value_of_a_dead_letter_is_cut_off_and_that_is_said() {
        let dead = KafkaMessage::text("0123456789").header("a", "1").into_dead_letter(4);
        assert_eq!(dead.get_value(), Some(&b"0123"[..]));
        let headers: Vec<_> = dead.get_headers().collect();
        assert_eq!(headers, [("a", Some(&b"1"[..])), (VALUE_BYTES, Some(&b"10"[..]))]);
    }

    #[test]
    fn undecodable_records_are_dead_letters() {
        let error = "no `u64`".into();
        let record = Undecodable::new("orders/3", 17, &error, b"\xff");
        let message = KafkaMessage::from(record);
        assert_eq!(message.get_value(), Some(&b"\xff"[..]));
        let headers: Vec<_> = message.get_headers().map(|(name, value)| (name, value.unwrap())).collect();
        let expected: [(&str, &[u8]); 3] =
            [(ERROR, b"no `u64`"), ("millstream.split", b"orders/3"), ("millstream.offset", b"17")];
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_message_is_small_and_crosses_an_exchange() {
        assert!(size_of::<KafkaMessage>() <= 72, "{}", size_of::<KafkaMessage>());
        let message = KafkaMessage::text("v").key("k").header("a", "1").partition(2);
        let config = bincode::config::standard();
        let bytes = bincode::serde::encode_to_vec(&message, config).unwrap();
        let (again, _): (KafkaMessage, _) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(again, message);
    }
}
