//! The envelope of stored state values: one value in bincode, and the fields of a row one after the other.
//! Not here: keys (`key`, bincode keeps no order), checksums (the files that hold rows have them), and what a reader
//! does with an older version of a field.
//!
//! # The format on disk, frozen by golden tests
//!
//! A row is a concatenation of fields, without count or terminator. A field is
//!
//! | bytes | what |
//! |---|---|
//! | 1 to 5 | `id`: varint, the field's number in the manifest |
//! | 1 | `codec`: how the payload is written; 1 is bincode 2, `config::standard()` |
//! | 1 to 5 | `version`: varint, the schema version the payload was written with |
//! | 1 to 5 | `len`: varint, bytes of payload |
//! | `len` | payload |
//!
//! A varint is LEB128: 7 bits to a byte, lowest first, the high bit set on all bytes but the last, in as few bytes as
//! possible. So field 3 of version 1 holding `5u64` is `03 01 01 01 05`, and a reader skips a field it does not know.
//!
//! # What a decoder may cost
//!
//! A payload has at most [`MAX_VALUE_BYTES`], checked when writing. When reading, bincode counts against a limit, for
//! it makes room for a string before it looks whether there are as many bytes. It counts by the width of the type,
//! which is up to [`WIDENING`] times the bytes; so the limit is that much higher than a payload may be long, or it
//! could be written and never read. There are three of them, since each is compiled for each type: a damaged length in
//! a payload of up to 64 KiB can ask for 1 MiB, in one of up to 16 MiB for 256 MiB, and in a larger one for 4 GiB.
//!
//! Two gaps are left to the checksums of the files: the nesting of recursive types is not bounded, and a damaged length
//! of a collection of zero-sized elements is counted to its end.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The codec byte of bincode 2 with `config::standard()`.
pub(crate) const BINCODE: u8 = 1;

/// Largest encoded value: 256 MiB.
pub(crate) const MAX_VALUE_BYTES: usize = 256 << 20;

/// Bytes bincode may count for one byte read: a `u128` of one byte counts 16.
const WIDENING: usize = 16;

/// So long are nearly all payloads, at most: 64 KiB.
const SMALL: usize = 64 << 10;

/// So long are nearly all others, at most: 16 MiB.
const LARGE: usize = MAX_VALUE_BYTES / WIDENING;

/// Why a state value cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// bincode or the type's own `Serialize` refused the value.
    #[error("the state value cannot be encoded: give collections a known length, and check its `Serialize`")]
    Encode(#[source] bincode::error::EncodeError),
    /// The value is larger than [`MAX_VALUE_BYTES`].
    #[error(
        "a state value of {bytes} bytes is over the limit of {MAX_VALUE_BYTES}: split it, or use a collection state"
    )]
    TooLarge {
        /// Encoded size.
        bytes: usize,
    },
    /// The bytes are no value of this type.
    #[error("the state value cannot be decoded: its type changed without a new version, or the bytes are damaged")]
    Decode(#[source] bincode::error::DecodeError),
    /// Bytes are left after the value.
    #[error("{bytes} bytes are left after the state value: its type changed without a new version")]
    Trailing {
        /// Bytes not consumed.
        bytes: usize,
    },
    /// A varint is cut short, longer than needed, or too large for what it stands for.
    #[error("the state row has a malformed {what}: the bytes are damaged; restore an older checkpoint")]
    Varint {
        /// What the varint stands for.
        what: &'static str,
    },
    /// A field's payload is longer than the row.
    #[error("the state row is cut short in field {id}: the bytes are damaged; restore an older checkpoint")]
    Truncated {
        /// Field that was being read.
        id: u32,
    },
    /// The field was written by a codec this program does not have.
    #[error("field {id} is written with codec {codec}, unknown to this program: use the version that wrote it")]
    UnknownCodec {
        /// Field that was being read.
        id: u32,
        /// The codec byte found.
        codec: u8,
    },
    /// The row has a field that the manifest does not name.
    #[error(
        "the state row has a field {id}, which the checkpoint's manifest does not name: the two do not belong together"
    )]
    UnknownField {
        /// The field.
        id: u32,
    },
}

/// Appends to a vector, without the copies of bincode's own writers.
struct Append<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Append<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends `value` in bincode. On an error `into` is as it was.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = into.len();
    // matched at once: moving a `Result` with bincode's large error about costs more than to encode a number
    match bincode::serde::encode_into_writer(value, Append(into), bincode::config::standard()) {
        Ok(()) if into.len() - start <= MAX_VALUE_BYTES => Ok(()),
        Ok(()) => {
            let bytes = into.len() - start;
            into.truncate(start);
            Err(CodecError::TooLarge { bytes })
        }
        Err(error) => {
            into.truncate(start);
            Err(CodecError::Encode(error))
        }
    }
}

/// Reads a value that takes up all of `bytes`.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<{ SMALL * WIDENING }>();
    let (value, used) = if bytes.len() <= SMALL {
        bincode::serde::decode_from_slice(bytes, config).map_err(CodecError::Decode)?
    } else {
        decode_large(bytes)?
    };
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::Trailing { bytes: left }),
    }
}

#[cold]
#[inline(never)]
fn decode_large<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    let config = bincode::config::standard();
    let decoded = if bytes.len() <= LARGE {
        bincode::serde::decode_from_slice(bytes, config.with_limit::<{ LARGE * WIDENING }>())
    } else {
        bincode::serde::decode_from_slice(bytes, config.with_limit::<{ MAX_VALUE_BYTES.saturating_mul(WIDENING) }>())
    };
    decoded.map_err(CodecError::Decode)
}

/// Appends `value` as LEB128, 1 to 10 bytes.
#[inline]
pub(crate) fn put_varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Reads a LEB128 from the front of `bytes` and moves past it; on an error `bytes` stays where it was.
///
/// An encoding that is longer than needed is an error: every row has one form only.
#[inline]
pub(crate) fn get_varint(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    const MALFORMED: CodecError = CodecError::Varint { what: "number" };
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte < 0x80 {
            let overlong = byte == 0 && i > 0;
            // The tenth byte has room for one bit.
            if overlong || (i == 9 && byte > 1) {
                return Err(MALFORMED);
            }
            *bytes = bytes.get(i + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(MALFORMED)
}

/// Appends a field: header and payload, encoded in place. On an error `into` is as it was.
///
/// Allocates only when `into` has to grow. Payloads of 128 bytes and more are shifted by 1 to 4 bytes, to make room
/// for their length.
#[inline]
pub(crate) fn put_field<T: Serialize + ?Sized>(
    id: u32,
    version: u32,
    value: &T,
    into: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let start = into.len();
    if id < 0x80 && version < 0x80 {
        into.extend_from_slice(&[id as u8, BINCODE, version as u8, 0]);
    } else {
        put_header(id, version, into);
    }
    let payload = into.len();
    if let Err(error) = encode(value, into) {
        into.truncate(start);
        return Err(error);
    }
    let len = into.len() - payload;
    match into.get_mut(payload - 1) {
        Some(place) if len < 0x80 => *place = len as u8,
        _ => widen_len(payload - 1, len, into),
    }
    Ok(())
}

/// Everything before the payload, with one byte for its length.
#[cold]
fn put_header(id: u32, version: u32, into: &mut Vec<u8>) {
    put_varint(u64::from(id), into);
    into.push(BINCODE);
    put_varint(u64::from(version), into);
    into.push(0);
}

/// Replaces the byte at `place` by the varint of `len`, shifting the payload behind it.
#[inline(never)]
fn widen_len(place: usize, len: usize, into: &mut Vec<u8>) {
    let end = into.len();
    put_varint(len as u64, into);
    let extra = into.len() - end;
    if let Some(tail) = into.get_mut(place..) {
        // [reserved][payload][varint] becomes [varint][reserved][payload], and the reserved byte goes.
        tail.rotate_right(extra);
    }
    into.remove(place + extra);
}

/// One field of a row, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's number in the manifest.
    pub(crate) id: u32,
    /// How the payload is written.
    pub(crate) codec: u8,
    /// Schema version the payload was written with.
    pub(crate) version: u32,
    /// The encoded value.
    pub(crate) payload: &'a [u8],
}

impl Field<'_> {
    /// The value in the payload; [`CodecError::UnknownCodec`] if it is not in bincode.
    #[inline]
    pub(crate) fn value<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        match self.codec {
            BINCODE => decode(self.payload),
            codec => Err(CodecError::UnknownCodec { id: self.id, codec }),
        }
    }
}

/// The fields of a row, in the order written. Nothing follows an error.
pub(crate) fn fields(row: &[u8]) -> Fields<'_> {
    Fields { rest: row }
}

/// Iterator of [`fields`]; allocates nothing.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, CodecError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = get_field(&mut self.rest);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[inline]
fn get_field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, CodecError> {
    let id = get_u32(rest, "field id")?;
    let (&codec, after) = rest.split_first().ok_or(CodecError::Truncated { id })?;
    *rest = after;
    let version = get_u32(rest, "field version")?;
    let len = get_u32(rest, "field length")? as usize;
    let (payload, after) = rest.split_at_checked(len).ok_or(CodecError::Truncated { id })?;
    *rest = after;
    Ok(Field { id, codec, version, payload })
}

#[inline]
fn get_u32(rest: &mut &[u8], what: &'static str) -> Result<u32, CodecError> {
    let value = get_varint(rest).map_err(|_| CodecError::Varint { what })?;
    u32::try_from(value).map_err(|_| CodecError::Varint { what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::fuzz::{Bound, any_bytes, bounded, cases, damaged};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::{BTreeMap, HashMap};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Seen {
        Never,
        Once(i64),
        Often { times: Vec<u64>, shops: BTreeMap<String, f64> },
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            Just(Seen::Never),
            any::<i64>().prop_map(Seen::Once),
            (vec(any::<u64>(), 0..40), btree_map(any::<String>(), -1e9..1e9, 0..4))
                .prop_map(|(times, shops)| Seen::Often { times, shops }),
        ]
    }

    fn field<T: Serialize>(id: u32, version: u32, value: &T) -> Vec<u8> {
        let mut row = Vec::new();
        put_field(id, version, value, &mut row).unwrap();
        row
    }

    /// Frozen: this is the format on disk.
    #[test]
    fn golden_fields() {
        assert_eq!(field(3, 1, &5u64), [3, 1, 1, 1, 5]);
        assert_eq!(field(3, 1, &300u64), [3, 1, 1, 3, 0xFB, 0x2C, 0x01]);
        assert_eq!(field(1, 2, &-1i64), [1, 1, 2, 1, 1]);
        assert_eq!(field(300, 128, &()), [0xAC, 0x02, 1, 0x80, 0x01, 0]);
        assert_eq!(field(0, 0, &("ab", Some(true), 'x')), [0, 1, 0, 6, 2, b'a', b'b', 1, 1, b'x']);
        assert_eq!(field(0, 0, &Seen::Once(2)), [0, 1, 0, 2, 1, 4]);
        assert_eq!(field(u32::MAX, u32::MAX, &1.5f64)[..12], [255, 255, 255, 255, 15, 1, 255, 255, 255, 255, 15, 8]);
    }

    #[test]
    fn golden_lengths() {
        for (len, header) in [
            (126usize, vec![7, 1, 1, 127, 126]),
            (127, vec![7, 1, 1, 0x80, 0x01, 127]),
            (128, vec![7, 1, 1, 0x81, 0x01, 128]),
            (20_000, vec![7, 1, 1, 0xA3, 0x9C, 0x01, 0xFB, 0x20, 0x4E]),
        ] {
            let text = "z".repeat(len);
            let row = field(7, 1, &text);
            assert_eq!(row[..header.len()], header);
            assert_eq!(row[header.len()..], *text.as_bytes());
        }
    }

    #[test]
    fn varints_have_one_form() {
        for (value, bytes) in [
            (0, vec![0]),
            (127, vec![0x7F]),
            (128, vec![0x80, 1]),
            (u64::MAX, vec![255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut found = Vec::new();
            put_varint(value, &mut found);
            assert_eq!(found, bytes);
        }
        let malformed: [&[u8]; 6] = [
            &[],
            &[0x80],
            &[0x80, 0],
            &[0xFF, 0x80, 0],
            &[0xFF; 11],
            &[255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
        ];
        for bytes in malformed {
            let mut rest = bytes;
            assert!(get_varint(&mut rest).is_err(), "{bytes:?}");
            assert_eq!(rest, bytes, "not moved");
        }
    }

    #[test]
    fn the_whole_payload_must_be_used() {
        assert!(matches!(decode::<u8>(&[1, 2]), Err(CodecError::Trailing { bytes: 1 })));
        assert!(matches!(decode::<u64>(&[]), Err(CodecError::Decode(_))));
    }

    /// A length of 16 MiB, which was below the limit, and five bytes.
    #[test]
    fn a_damaged_length_asks_for_little() {
        let bytes = [252, 0, 0, 0, 1];
        assert!(bounded(bytes.len(), PAYLOAD, || decode::<String>(&bytes)).unwrap().is_err());
    }

    #[test]
    fn damaged_lengths_allocate_nothing() {
        use bincode::error::DecodeError::LimitExceeded;
        let huge = [253, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 2];
        assert!(matches!(decode::<String>(&huge), Err(CodecError::Decode(LimitExceeded))));
        assert!(decode::<Vec<u64>>(&huge).is_err());
        assert!(decode::<BTreeMap<u64, u64>>(&huge).is_err());
    }

    /// bincode counts 16 bytes for each of these, written in one: all of it must still be readable.
    #[test]
    fn what_can_be_written_can_be_read() {
        for len in [SMALL - 5, SMALL + 1, LARGE - 4, LARGE + 1] {
            let mut bytes = vec![252];
            bytes.extend_from_slice(&(len as u32).to_le_bytes());
            bytes.resize(bytes.len() + len, 0);
            struct Count(usize);
            impl<'de> Deserialize<'de> for Count {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    struct Elements;
                    impl<'de> serde::de::Visitor<'de> for Elements {
                        type Value = Count;
                        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                            f.write_str("numbers")
                        }
                        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                            let mut count = 0;
                            while seq.next_element::<u128>()?.is_some() {
                                count += 1;
                            }
                            Ok(Count(count))
                        }
                    }
                    deserializer.deserialize_seq(Elements)
                }
            }
            assert_eq!(decode::<Count>(&bytes).unwrap().0, len);
        }
    }

    #[test]
    fn failed_fields_leave_the_row_as_it_was() {
        struct Unsized;
        impl Serialize for Unsized {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq([1u8, 2].iter().filter(|x| **x > 0))
            }
        }
        let mut row = vec![9];
        assert!(matches!(put_field(1, 1, &(5u64, Unsized), &mut row), Err(CodecError::Encode(_))));
        assert_eq!(row, [9]);
    }

    #[test]
    fn unknown_codecs_are_passed_on() {
        let field = fields(&[5, 77, 1, 2, 8, 9]).next().unwrap().unwrap();
        assert_eq!(field, Field { id: 5, codec: 77, version: 1, payload: &[8, 9] });
        assert!(matches!(field.value::<u64>(), Err(CodecError::UnknownCodec { id: 5, codec: 77 })));
    }

    #[test]
    fn damaged_rows_end_with_one_error() {
        let rows: [&[u8]; 4] = [&[1], &[1, 1, 1, 5, 0], &[0x80, 0x80, 0x80, 0x80, 0x10, 1], &[1, 1, 0x80, 0]];
        for row in rows {
            let found: Vec<_> = fields(row).collect();
            assert!(matches!(found[..], [Err(_)]), "{row:?} {found:?}");
        }
    }

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn varints_round_trip(value: u64, shift in 0u32..64) {
            let (mut bytes, value) = (Vec::new(), value >> shift);
            put_varint(value, &mut bytes);
            bytes.push(0xAA);
            let mut rest = &bytes[..];
            prop_assert_eq!(get_varint(&mut rest).unwrap(), value);
            prop_assert_eq!(rest, &[0xAA]);
        }

        #[test]
        fn rows_round_trip(values in vec((any::<u32>(), any::<u32>(), seen()), 0..5)) {
            let mut row = Vec::new();
            for (id, version, value) in &values {
                put_field(*id, *version, value, &mut row).unwrap();
            }
            let found: Vec<_> = fields(&row)
                .map(|field| field.and_then(|f| Ok((f.id, f.version, f.value::<Seen>()?))).unwrap())
                .collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn any_payload_is_taken(bytes in any_payload()) {
            let input = bytes.len();
            let _ = bounded(input, PAYLOAD, || decode::<u64>(&bytes))?;
            let _ = bounded(input, PAYLOAD, || decode::<String>(&bytes))?;
            let _ = bounded(input, PAYLOAD, || decode::<Vec<Seen>>(&bytes))?;
            let _ = bounded(input, PAYLOAD, || decode::<BTreeMap<u64, Vec<u8>>>(&bytes))?;
            let _ = bounded(input, PAYLOAD, || decode::<HashMap<String, Option<u128>>>(&bytes))?;
            let _ = bounded(input, PAYLOAD, || decode::<(Vec<String>, Timestamp, [char; 3])>(&bytes))?;
        }

        #[test]
        fn any_row_is_taken(bytes in prop_oneof![any_bytes(), damaged(any_row())]) {
            // of fields nothing is copied
            let none = Bound { per_byte: 0, more: 0 };
            let count = bounded(bytes.len(), none, || fields(&bytes).filter(Result::is_ok).count())?;
            prop_assert!(count <= bytes.len());
            for field in fields(&bytes).flatten() {
                let _ = bounded(bytes.len(), PAYLOAD, || field.value::<Seen>())?;
            }
        }
    }

    /// Payloads of up to 64 KiB: one string, and what serde makes room for before it has seen a `Vec` in a `Vec`.
    const PAYLOAD: Bound = Bound { per_byte: 64, more: (SMALL * WIDENING + 3 * (1 << 20)) as u64 };

    fn any_row() -> impl Strategy<Value = Vec<u8>> {
        vec((any::<u32>(), any::<u32>(), seen()), 0..5).prop_map(|values| {
            let mut row = Vec::new();
            values.iter().for_each(|(id, version, value)| put_field(*id, *version, value, &mut row).unwrap());
            row
        })
    }

    fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).unwrap();
        bytes
    }

    fn any_payload() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any_bytes(),
            damaged(vec(seen(), 0..4).prop_map(|value| encoded(&value))),
            damaged(any::<String>().prop_map(|value| encoded(&value))),
            damaged(btree_map(any::<u64>(), vec(any::<u8>(), 0..9), 0..4).prop_map(|value| encoded(&value))),
        ]
    }
}
