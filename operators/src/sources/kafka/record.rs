//! A record of Kafka where it was fetched to: what decoders see.

use crate::kafka::ffi::Message;
use millstream_framework::{BoxError, Timestamp};

/// A record in place: nothing of it is copied. Where it stands is known besides what it is.
#[derive(Clone, Copy)]
pub struct KafkaRecord<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    rest: Rest<'a>,
}

/// What is looked at only if somebody asks.
#[derive(Clone, Copy)]
enum Rest<'a> {
    Message(Message<'a>),
    Given { timestamp_ms: Option<i64>, headers: &'a [(&'a str, Option<&'a [u8]>)] },
}

impl<'a> KafkaRecord<'a> {
    /// A record without key, value, time and headers, to test decoders with.
    pub fn new(topic: &'a str, partition: i32, offset: i64) -> Self {
        let rest = Rest::Given { timestamp_ms: None, headers: &[] };
        Self { topic, partition, offset, key: None, value: None, rest }
    }

    #[inline]
    pub(super) fn of(message: Message<'a>, topic: &'a str) -> Self {
        Self {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            key: message.key(),
            value: message.value(),
            rest: Rest::Message(message),
        }
    }

    /// The same with this key.
    #[must_use]
    pub fn with_key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(key);
        self
    }

    /// The same with this value.
    #[must_use]
    pub fn with_value(mut self, value: &'a [u8]) -> Self {
        self.value = Some(value);
        self
    }

    /// The same with this time and these headers.
    #[must_use]
    pub fn with_rest(mut self, timestamp: Option<Timestamp>, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Self {
        self.rest = Rest::Given { timestamp_ms: timestamp.map(|time| time.as_millis()), headers };
        self
    }

    /// The topic's name.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The key, if it has one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value; none of a tombstone, which says that what stood under the key is gone.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The key as text.
    ///
    /// # Errors
    /// If there is none, or if it is not UTF-8.
    pub fn key_text(&self) -> Result<&'a str, BoxError> {
        text("key", self.key.ok_or("it has no key")?)
    }

    /// The value as text.
    ///
    /// # Errors
    /// If there is none, or if it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, BoxError> {
        text("value", self.value.ok_or(NO_VALUE)?)
    }

    /// Its time, by the clock of who wrote it or of the broker, as the topic is set; none of very old formats.
    pub fn timestamp(&self) -> Option<Timestamp> {
        let ms = match self.rest {
            Rest::Message(message) => message.timestamp_ms(),
            Rest::Given { timestamp_ms, .. } => timestamp_ms,
        };
        ms.map(Timestamp::from_millis)
    }

    /// Its headers in order: names, which need not be unique, and values, which may be missing. The first call for a
    /// record takes its headers apart.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let rest = self.rest;
        (0..).map_while(move |i| match rest {
            Rest::Message(message) => message.header(i),
            Rest::Given { headers, .. } => headers.get(i).copied(),
        })
    }

    /// The value of the last header of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().filter(|(header, _)| *header == name).last().and_then(|(_, value)| value)
    }
}

/// That a format which needs a value has none.
pub(super) const NO_VALUE: &str = "it has no value (it is a tombstone)";

fn text<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str, BoxError> {
    std::str::from_utf8(bytes)
        .map_err(|error| format!("byte {} of its {what} is not UTF-8", error.valid_up_to()).into())
}

impl std::fmt::Debug for KafkaRecord<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} @ {}", self.topic, self.partition, self.offset)
    }
}
