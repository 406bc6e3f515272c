//! [`Undecodable`]: a record that a source could not decode, as a value.

use millstream_framework::BoxError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How much of a record is shown, in characters.
const SHOWN: usize = 120;

/// A record that a source could not decode, with all that is needed to find it, to repair it, and to try again. What
/// the `try_` formats give beside records; a stream of them is what a dead-letter file is written from:
///
/// ```
/// # use millstream_framework::{BoxError, Topology};
/// # use millstream_operators::{Files, Null};
/// # fn topology(t: &Topology) -> Result<(), BoxError> {
/// let (numbers, undecodable) = t.source("numbers", Files::read("in/*.jsonl").try_json::<u64>()).split();
/// undecodable.sink("dead_letters", Files::write("dead").json());
/// numbers.sink("numbers_out", Null::new());
/// # Ok(())
/// # }
/// ```
///
/// In text (`Display`) it is one line, the bytes shortened. In JSON the bytes are a string if they are UTF-8, else an
/// array of numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Undecodable {
    /// Which split it stands in: of files the path.
    pub split: String,
    /// Where in the split it begins: of files the byte, from 0.
    pub offset: u64,
    /// What is wrong with it.
    pub error: String,
    /// The record as it stands there; a line without its end.
    #[serde(with = "readable")]
    pub bytes: Vec<u8>,
}

impl Undecodable {
    #[cold]
    pub(crate) fn new(split: &str, offset: u64, error: &BoxError, bytes: &[u8]) -> Self {
        Self { split: split.into(), offset, error: error.to_string(), bytes: bytes.into() }
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> String {
        format!("`{}`, offset {}", self.split, self.offset)
    }
}

impl std::error::Error for Undecodable {}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: `{}`", self.place(), self.error, shorten(&self.bytes))
    }
}

/// The beginning of a record, as one line.
fn shorten(bytes: &[u8]) -> String {
    // a character has at most 4 bytes
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN * 4)]);
    let end = start.char_indices().nth(SHOWN).map(|(end, _)| end);
    let shown = start[..end.unwrap_or(start.len())].replace(char::is_control, "\u{fffd}");
    if end.is_some() { shown + "..." } else { shown }
}

/// Bytes that a person can read, where the format is for people.
mod readable {
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serialize, Serializer};
    use std::fmt;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) if to.is_human_readable() => text.serialize(to),
            Err(_) if to.is_human_readable() => bytes.serialize(to),
            _ => to.serialize_bytes(bytes),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        if from.is_human_readable() { from.deserialize_any(Bytes) } else { from.deserialize_byte_buf(Bytes) }
    }

    struct Bytes;
    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or an array of bytes")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }
        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = items.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(bytes: &[u8]) -> Undecodable {
        Undecodable { split: "/in/a.txt".into(), offset: 17, error: "no `u64`".into(), bytes: bytes.into() }
    }

    #[test]
    fn is_one_line_of_text() {
        assert_eq!(bad(b"x\ty").to_string(), "`/in/a.txt`, offset 17: no `u64`: `x\u{fffd}y`");
        let long = bad("ä".repeat(1000).as_bytes()).to_string();
        assert!(long.ends_with("ää...`") && long.chars().count() < 200, "{long}");
    }

    #[test]
    fn is_lossless_in_json() {
        let json = r#"{"split":"/in/a.txt","offset":17,"error":"no `u64`","bytes":"x\"y"}"#;
        assert_eq!(serde_json::to_string(&bad(b"x\"y")).unwrap(), json);
        for bytes in [&b""[..], b"text", b"\xff\x00", "ä".as_bytes()] {
            let json = serde_json::to_string(&bad(bytes)).unwrap();
            assert_eq!(serde_json::from_str::<Undecodable>(&json).unwrap(), bad(bytes), "{json}");
        }
    }
}
