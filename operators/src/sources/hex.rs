//! 64 bits as text: JSON numbers are exact to 53 bits only in most of the programs that read them. Of fields that hold
//! a hash, by `#[serde(with)]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

pub(crate) fn serialize<S: Serializer>(hash: &u64, to: S) -> Result<S::Ok, S::Error> {
    format!("{hash:016x}").serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    u64::from_str_radix(&text, 16).map_err(|_| D::Error::custom("a hash is 16 hexadecimal digits"))
}
