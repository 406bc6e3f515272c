//! The stored form of a key: bytes that sort as the keys do (`Ord` as derived), read back without a schema of ours.
//! Not here: the table id and key group in front of it, and values, whose encoding keeps no order (`codec`).
//!
//! | part | bytes |
//! |---|---|
//! | `u8`..`u128` | big endian |
//! | `i8`..`i128` | big endian, sign bit flipped |
//! | `bool`, `char` | 1 byte 0 or 1; `u32` big endian |
//! | string, bytes | its bytes, each `00` written as `00 FF`; then `00 00` |
//! | `Option` | `00`, or `01` and the content |
//! | sequence | `01` before each element, `00` at the end |
//! | tuple, struct, array, unit | the parts one after the other |
//! | enum | variant index as `u32` big endian, then its content |
//!
//! No encoding is a proper prefix of another key's of the same type, so anything may follow a key. (`00 00` ends a
//! string before any longer one: what continues it starts with `00 FF` or with more than `00`.) The order is that of
//! what serde writes: a type that serialises as text sorts as text. The format is frozen by golden tests.
//!
//! What is `untagged` or has a `tag` can be written but not read back, as nothing in the bytes names the type: refuse
//! it when a job is built, not at restore.

use serde::de;
use serde::ser::{self, Impossible, Serialize};
use std::fmt;

/// Nesting of options, sequences and enums in one key (a type cannot recurse through anything else alone). Bounds the
/// stack that damaged bytes can take; checked when writing too, so that what is written can be read.
const MAX_DEPTH: u32 = 128;

pub(super) const ESCAPED_ZERO: u8 = 0xFF;

/// Why a key cannot be written to or read from the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key holds an `f32` or `f64`.
    #[error("a key cannot hold a float, as floats have no total order: use an integer of a fixed unit, or `to_bits()`")]
    Float,
    /// The key holds a map, or a struct with `#[serde(flatten)]`, which serde turns into one.
    #[error("a key cannot hold a map (nor `#[serde(flatten)]`): use a sorted `Vec` of pairs, or name the fields")]
    Map,
    /// The key leaves out a field depending on its value, so it could not be read back.
    #[error("key field `{field}` was skipped: remove `skip_serializing_if`, or use an `Option`")]
    SkippedField {
        /// Name of the field in its struct.
        field: &'static str,
    },
    /// The key needs to see its data to know its type.
    #[error("a key is not self-describing: use a plain enum or struct, without `untagged`, `tag` or `flatten`")]
    NotSelfDescribing,
    /// Options, sequences and enums of the key are nested too deeply.
    #[error("a key is nested more than {MAX_DEPTH} deep: use a flat key, such as a `Vec` of the parts")]
    TooDeep,
    /// The bytes end inside the key.
    #[error("the stored key is cut short: it was written by another key type, or is damaged; restore a checkpoint")]
    Truncated,
    /// The bytes are no encoding of this key type.
    #[error("the stored key has no valid {expected} at byte {at}: it was written by another key type, or is damaged")]
    Malformed {
        /// What should have been there.
        expected: &'static str,
        /// Offset in the bytes given to [`decode_key`](super::decode_key).
        at: usize,
    },
    /// The key's own `Serialize` or `Deserialize` refused.
    #[error("the key's own serde code refused it: {0}")]
    Custom(String),
}

impl ser::Error for KeyError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        KeyError::Custom(message.to_string())
    }
}

impl de::Error for KeyError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        KeyError::Custom(message.to_string())
    }
}

/// Appends the order-preserving encoding of `key` to `into`. Two keys of one type compare as their encodings do.
///
/// # Errors
/// The key's type cannot be stored ([`KeyError`] says why and what to write instead); `into` is then as it was.
///
/// # Cost
/// Linear in the key; allocates only what `into` needs to grow.
#[inline]
pub fn encode_key<K: Serialize + ?Sized>(key: &K, into: &mut Vec<u8>) -> Result<(), KeyError> {
    let start = into.len();
    let result = key.serialize(&mut Encoder { into, depth: 0 });
    if result.is_err() {
        into.truncate(start);
    }
    result
}

/// One level deeper, or the error.
pub(super) fn deeper(depth: &mut u32) -> Result<(), KeyError> {
    *depth += 1;
    if *depth > MAX_DEPTH { Err(KeyError::TooDeep) } else { Ok(()) }
}

struct Encoder<'a> {
    into: &'a mut Vec<u8>,
    depth: u32,
}

impl Encoder<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), KeyError> {
        self.into.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn variant(&mut self, index: u32) -> Result<(), KeyError> {
        deeper(&mut self.depth)?;
        self.put(&index.to_be_bytes())
    }

    fn escaped(&mut self, bytes: &[u8]) -> Result<(), KeyError> {
        let mut rest = bytes;
        // `contains` looks at several bytes at a time, and most texts have no zero
        while rest.contains(&0)
            && let Some(zero) = rest.iter().position(|byte| *byte == 0)
        {
            let (before, after) = rest.split_at(zero + 1);
            self.into.extend_from_slice(before);
            self.into.push(ESCAPED_ZERO);
            rest = after;
        }
        self.into.extend_from_slice(rest);
        self.put(&[0, 0])
    }

    fn leave(&mut self) -> Result<(), KeyError> {
        self.depth -= 1;
        Ok(())
    }
}

macro_rules! put_numbers {
    ($($method:ident($value:ident: $ty:ty) => $bits:expr;)*) => {$(
        #[inline]
        fn $method(self, $value: $ty) -> Result<(), KeyError> {
            self.put(&$bits.to_be_bytes())
        }
    )*};
}

impl ser::Serializer for &mut Encoder<'_> {
    type Ok = ();
    type Error = KeyError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Impossible<(), KeyError>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    put_numbers! {
        serialize_bool(v: bool) => u8::from(v);
        serialize_i8(v: i8) => (v ^ i8::MIN);
        serialize_i16(v: i16) => (v ^ i16::MIN);
        serialize_i32(v: i32) => (v ^ i32::MIN);
        serialize_i64(v: i64) => (v ^ i64::MIN);
        serialize_i128(v: i128) => (v ^ i128::MIN);
        serialize_u8(v: u8) => v;
        serialize_u16(v: u16) => v;
        serialize_u32(v: u32) => v;
        serialize_u64(v: u64) => v;
        serialize_u128(v: u128) => v;
        serialize_char(v: char) => u32::from(v);
    }

    fn serialize_f32(self, _: f32) -> Result<(), KeyError> {
        Err(KeyError::Float)
    }

    fn serialize_f64(self, _: f64) -> Result<(), KeyError> {
        Err(KeyError::Float)
    }

    fn serialize_str(self, v: &str) -> Result<(), KeyError> {
        self.escaped(v.as_bytes())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), KeyError> {
        self.escaped(v)
    }

    fn serialize_none(self) -> Result<(), KeyError> {
        self.put(&[0])
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), KeyError> {
        deeper(&mut self.depth)?;
        self.into.push(1);
        value.serialize(&mut *self)?;
        self.leave()
    }

    fn serialize_unit(self) -> Result<(), KeyError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), KeyError> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), KeyError> {
        self.put(&index.to_be_bytes())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), KeyError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        self.variant(index)?;
        value.serialize(&mut *self)?;
        self.leave()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, KeyError> {
        deeper(&mut self.depth)?;
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, KeyError> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, KeyError> {
        Ok(self)
    }

    fn serialize_tuple_variant(self, _: &'static str, index: u32, _: &'static str, _: usize) -> Result<Self, KeyError> {
        self.variant(index)?;
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, KeyError> {
        Err(KeyError::Map)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, KeyError> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, KeyError> {
        self.variant(index)?;
        Ok(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl ser::SerializeSeq for &mut Encoder<'_> {
    type Ok = ();
    type Error = KeyError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        self.into.push(1);
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), KeyError> {
        self.into.push(0);
        self.leave()
    }
}

macro_rules! unnamed_parts {
    ($($kind:ident: $method:ident, end: $end:expr;)*) => {$(
        impl ser::$kind for &mut Encoder<'_> {
            type Ok = ();
            type Error = KeyError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), KeyError> {
                $end(self)
            }
        }
    )*};
}

macro_rules! named_parts {
    ($($kind:ident, end: $end:expr;)*) => {$(
        impl ser::$kind for &mut Encoder<'_> {
            type Ok = ();
            type Error = KeyError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), KeyError> {
                value.serialize(&mut **self)
            }

            fn skip_field(&mut self, field: &'static str) -> Result<(), KeyError> {
                Err(KeyError::SkippedField { field })
            }

            fn end(self) -> Result<(), KeyError> {
                $end(self)
            }
        }
    )*};
}

unnamed_parts! {
    SerializeTuple: serialize_element, end: |_| Ok(());
    SerializeTupleStruct: serialize_field, end: |_| Ok(());
    SerializeTupleVariant: serialize_field, end: Encoder::leave;
}
named_parts! {
    SerializeStruct, end: |_| Ok(());
    SerializeStructVariant, end: Encoder::leave;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{TIGHT, bounded, cases, damaged};
    use crate::key::decode_key;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct Place {
        shop: String,
        shelf: Option<i16>,
        tags: Vec<String>,
        at: Spot,
    }

    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    enum Spot {
        Nowhere,
        Id(u64),
        Grid { x: i32, y: i32 },
        Pair(bool, Box<Spot>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Chain(Option<Box<Chain>>);

    fn encoded<K: Serialize + ?Sized>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_key(key, &mut bytes).unwrap();
        bytes
    }

    /// Order, round trip and prefix-freeness of two keys.
    fn check<K: Serialize + DeserializeOwned + Ord + fmt::Debug>(a: &K, b: &K) {
        let (bytes_a, mut bytes_b) = (encoded(a), encoded(b));
        assert_eq!(a.cmp(b), bytes_a.cmp(&bytes_b), "{a:?} {b:?}");
        assert!(a == b || !(bytes_a.starts_with(&bytes_b) || bytes_b.starts_with(&bytes_a)), "{a:?} {b:?}");
        assert_eq!(decode_key::<K>(&bytes_a).unwrap(), (decode_key(&bytes_a).unwrap().0, bytes_a.len()));
        let len = bytes_b.len();
        bytes_b.extend_from_slice(&[0, 1, 0xFF]);
        let (read, used) = decode_key::<K>(&bytes_b).unwrap();
        assert_eq!((&read, used), (b, len));
    }

    fn text() -> impl Strategy<Value = String> {
        let chars = prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('b'), Just('\u{ff}'), any::<char>()];
        vec(chars, 0..6).prop_map(|chars| chars.into_iter().collect())
    }

    fn spot() -> impl Strategy<Value = Spot> {
        let leaf = prop_oneof![
            Just(Spot::Nowhere),
            any::<u64>().prop_map(Spot::Id),
            (-2..3, any::<i32>()).prop_map(|(x, y)| Spot::Grid { x, y })
        ];
        leaf.prop_recursive(3, 4, 1, |inner| {
            (any::<bool>(), inner).prop_map(|(side, spot)| Spot::Pair(side, Box::new(spot)))
        })
    }

    fn place() -> impl Strategy<Value = Place> {
        (text(), any::<Option<i16>>(), vec(text(), 0..3), spot()).prop_map(|(shop, shelf, tags, at)| Place {
            shop,
            shelf,
            tags,
            at,
        })
    }

    /// Frozen: this is the format on disk.
    #[test]
    fn golden_bytes() {
        assert_eq!(encoded(&0x0102u16), [1, 2]);
        assert_eq!(encoded(&(-1i16, 1i8)), [0x7F, 0xFF, 0x81]);
        assert_eq!(encoded(&(true, 'A')), [1, 0, 0, 0, 0x41]);
        assert_eq!(encoded("a\0b"), [b'a', 0, 0xFF, b'b', 0, 0]);
        assert_eq!(encoded(&(None::<u8>, Some(5u8))), [0, 1, 5]);
        assert_eq!(encoded(&vec![7u8, 8]), [1, 7, 1, 8, 0]);
        assert_eq!(encoded(&Spot::Grid { x: 0, y: -1 }), [0, 0, 0, 2, 0x80, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF]);
        assert!(encoded(&()).is_empty());
        assert_eq!(encoded(&[1u8, 2]), [1, 2]);
    }

    #[test]
    fn refuses_what_has_no_order() {
        let mut bytes = vec![9];
        assert_eq!(encode_key(&(1u8, 1f32), &mut bytes), Err(KeyError::Float));
        assert_eq!(encode_key(&(1u8, BTreeMap::from([(1, 2)])), &mut bytes), Err(KeyError::Map));
        assert_eq!(bytes, [9], "left as it was");
        assert_eq!(decode_key::<f64>(&[0; 8]), Err(KeyError::Float));
        assert_eq!(decode_key::<BTreeMap<u8, u8>>(&[0; 8]), Err(KeyError::Map));
    }

    #[test]
    fn refuses_skipped_fields() {
        #[derive(Serialize)]
        struct Sparse {
            #[serde(skip_serializing_if = "Option::is_none")]
            shop: Option<u8>,
        }
        let error = encode_key(&Sparse { shop: None }, &mut Vec::new());
        assert_eq!(error, Err(KeyError::SkippedField { field: "shop" }));
        assert_eq!(encoded(&Sparse { shop: Some(1) }), [1, 1]);
    }

    #[test]
    fn depth_is_bounded_both_ways() {
        let chain = |len| (0..len).fold(Chain(None), |inner, _| Chain(Some(Box::new(inner))));
        let deepest = chain(MAX_DEPTH);
        assert_eq!(decode_key::<Chain>(&encoded(&deepest)).unwrap().0, deepest);
        assert_eq!(encode_key(&chain(MAX_DEPTH + 1), &mut Vec::new()), Err(KeyError::TooDeep));
        assert_eq!(decode_key::<Chain>(&[1; 1_000_000]), Err(KeyError::TooDeep));
    }

    #[test]
    fn names_the_damaged_byte() {
        let malformed = |expected, at| KeyError::Malformed { expected, at };
        assert_eq!(decode_key::<(u8, bool)>(&[1, 2]), Err(malformed("bool", 1)));
        assert_eq!(decode_key::<char>(&[0xFF; 4]), Err(malformed("char", 0)));
        assert_eq!(decode_key::<(u8, String)>(&[1, 0xFF, 0, 0]), Err(malformed("UTF-8", 1)));
        assert_eq!(decode_key::<String>(&[b'a', 0, 7]), Err(malformed("end of a string", 2)));
        assert_eq!(decode_key::<Vec<u8>>(&[1, 7, 3]), Err(malformed("sequence marker", 2)));
        assert_eq!(decode_key::<u64>(&[1, 2]), Err(KeyError::Truncated));
        assert!(matches!(decode_key::<Spot>(&[0, 0, 0, 9]), Err(KeyError::Custom(_))));
    }

    macro_rules! ordered {
        ($($name:ident: $strategy:expr;)*) => {
            proptest! {$(
                #[test]
                fn $name(a in $strategy, b in $strategy) {
                    check(&a, &b);
                    check(&a, &a);
                }
            )*}
        };
    }

    ordered! {
        order_u8: any::<u8>();
        order_u16: any::<u16>();
        order_u32: any::<u32>();
        order_u64: any::<u64>();
        order_u128: any::<u128>();
        order_i8: any::<i8>();
        order_i16: any::<i16>();
        order_i32: any::<i32>();
        order_i64: any::<i64>();
        order_i128: any::<i128>();
        order_near_zero: -2i64..3;
        order_bool: any::<bool>();
        order_char: any::<char>();
        order_text: text();
        order_tuple: (text(), any::<i8>(), text());
        order_bytes: vec(0u8..3, 0..6);
        order_texts: vec(text(), 0..4);
        order_nested_vecs: vec(vec(0u8..2, 0..3), 0..3);
        order_option: any::<Option<Option<u8>>>();
        order_option_text: proptest::option::of(text());
        order_spot: spot();
        order_place: place();
        order_places: (vec(place(), 0..3), any::<u32>());
    }

    /// Bytes where markers are likely, so that decoding gets deep; and damaged keys.
    fn garbage() -> impl Strategy<Value = Vec<u8>> {
        let markers = vec(prop_oneof![0u8..4, Just(0xFF), any::<u8>()], 0..64);
        prop_oneof![markers, damaged(place().prop_map(|key| encoded(&key)))]
    }

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn any_key_is_taken(bytes in garbage()) {
            let input = bytes.len();
            let _ = bounded(input, TIGHT, || decode_key::<Vec<(String, Option<char>, Spot)>>(&bytes))?;
            let _ = bounded(input, TIGHT, || decode_key::<(bool, Vec<Vec<()>>, i128)>(&bytes))?;
            let _ = bounded(input, TIGHT, || decode_key::<Chain>(&bytes).map(|(_, used)| used))?;
            if let Ok((place, used)) = bounded(input, TIGHT, || decode_key::<Place>(&bytes))? {
                prop_assert_eq!(&encoded(&place)[..], &bytes[..used], "the encoding is canonical");
            }
        }

        #[test]
        fn cut_keys_are_errors(key in place(), cut: proptest::sample::Index) {
            let bytes = encoded(&key);
            prop_assert!(decode_key::<Place>(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
