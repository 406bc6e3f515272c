//! Reading a stored key back. The format, and how it is written, is in `encode.rs`.

use super::encode::{ESCAPED_ZERO, KeyError, deeper};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

/// Reads a key from the front of `bytes`; returns it with the number of bytes it took.
///
/// # Errors
/// The bytes were not written by [`encode_key`](super::encode_key) for this type. Never panics, whatever the bytes are.
///
/// # Cost
/// Linear in the bytes; a string is copied once, and no allocation is larger than the bytes justify.
pub fn decode_key<K: DeserializeOwned>(bytes: &[u8]) -> Result<(K, usize), KeyError> {
    let mut decoder = Decoder { rest: bytes, len: bytes.len(), depth: 0 };
    let key = K::deserialize(&mut decoder)?;
    Ok((key, decoder.position()))
}

struct Decoder<'a> {
    rest: &'a [u8],
    len: usize,
    depth: u32,
}

impl Decoder<'_> {
    fn position(&self) -> usize {
        self.len - self.rest.len()
    }

    /// The last `len` bytes taken are no `expected`.
    fn malformed(&self, expected: &'static str, len: usize) -> KeyError {
        KeyError::Malformed { expected, at: self.position().saturating_sub(len) }
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(KeyError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A byte that must be 0 or 1.
    fn flag(&mut self, expected: &'static str) -> Result<bool, KeyError> {
        match self.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(self.malformed(expected, 1)),
        }
    }

    fn unescaped(&mut self) -> Result<Vec<u8>, KeyError> {
        let mut bytes = Vec::new();
        loop {
            let zero = self.rest.iter().position(|byte| *byte == 0).ok_or(KeyError::Truncated)?;
            let (before, rest) = self.rest.split_at(zero);
            self.rest = rest;
            bytes.extend_from_slice(before);
            match self.take()? {
                [0, 0] => return Ok(bytes),
                [0, ESCAPED_ZERO] => bytes.push(0),
                _ => return Err(self.malformed("end of a string", 1)),
            }
        }
    }

    fn text(&mut self) -> Result<String, KeyError> {
        let start = self.position();
        String::from_utf8(self.unescaped()?).map_err(|_| KeyError::Malformed { expected: "UTF-8", at: start })
    }

    /// Runs `read` one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, KeyError>) -> Result<T, KeyError> {
        deeper(&mut self.depth)?;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }
}

macro_rules! take_numbers {
    ($($method:ident => $visit:ident($ty:ty) ^ $flip:expr;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
            visitor.$visit(<$ty>::from_be_bytes(self.take()?) ^ $flip)
        }
    )*};
}

macro_rules! refuse {
    ($($method:ident($($ty:ty),*) => $error:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $(_: $ty,)* _: V) -> Result<V::Value, KeyError> {
            Err($error)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Decoder<'_> {
    type Error = KeyError;

    take_numbers! {
        deserialize_i8 => visit_i8(i8) ^ i8::MIN;
        deserialize_i16 => visit_i16(i16) ^ i16::MIN;
        deserialize_i32 => visit_i32(i32) ^ i32::MIN;
        deserialize_i64 => visit_i64(i64) ^ i64::MIN;
        deserialize_i128 => visit_i128(i128) ^ i128::MIN;
        deserialize_u8 => visit_u8(u8) ^ 0;
        deserialize_u16 => visit_u16(u16) ^ 0;
        deserialize_u32 => visit_u32(u32) ^ 0;
        deserialize_u64 => visit_u64(u64) ^ 0;
        deserialize_u128 => visit_u128(u128) ^ 0;
    }

    refuse! {
        deserialize_any() => KeyError::NotSelfDescribing;
        deserialize_ignored_any() => KeyError::NotSelfDescribing;
        deserialize_identifier() => KeyError::NotSelfDescribing;
        deserialize_f32() => KeyError::Float;
        deserialize_f64() => KeyError::Float;
        deserialize_map() => KeyError::Map;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_bool(self.flag("bool")?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        let code = u32::from_be_bytes(self.take()?);
        visitor.visit_char(char::from_u32(code).ok_or_else(|| self.malformed("char", 4))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_byte_buf(self.unescaped()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_byte_buf(self.unescaped()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        if self.flag("option")? { self.nested(|inner| visitor.visit_some(inner)) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        self.nested(|decoder| {
            let mut elements = Elements { decoder, ended: false };
            let value = visitor.visit_seq(&mut elements)?;
            // A visitor that stops early must stop where the sequence does.
            if elements.ended || !elements.decoder.flag("end of a sequence")? {
                Ok(value)
            } else {
                Err(elements.decoder.malformed("end of a sequence", 1))
            }
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_seq(Parts { decoder: self, left: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        self.nested(|decoder| visitor.visit_enum(decoder))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence, up to its end marker. No size hint: a length is never trusted.
struct Elements<'a, 'b> {
    decoder: &'a mut Decoder<'b>,
    ended: bool,
}

impl<'de> de::SeqAccess<'de> for &mut Elements<'_, '_> {
    type Error = KeyError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, KeyError> {
        if self.ended || !self.decoder.flag("sequence marker")? {
            self.ended = true;
            return Ok(None);
        }
        seed.deserialize(&mut *self.decoder).map(Some)
    }
}

/// The parts of a tuple or struct, whose number the type knows.
struct Parts<'a, 'b> {
    decoder: &'a mut Decoder<'b>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Parts<'_, '_> {
    type Error = KeyError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, KeyError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.decoder).map(Some)
    }
}

impl<'de> de::EnumAccess<'de> for &mut Decoder<'_> {
    type Error = KeyError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), KeyError> {
        let index = u32::from_be_bytes(self.take()?);
        let variant: de::value::U32Deserializer<KeyError> = index.into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Decoder<'_> {
    type Error = KeyError;

    fn unit_variant(self) -> Result<(), KeyError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, KeyError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, KeyError> {
        de::Deserializer::deserialize_tuple(self, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        de::Deserializer::deserialize_tuple(self, fields.len(), visitor)
    }
}
