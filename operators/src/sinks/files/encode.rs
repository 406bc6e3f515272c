//! What a record is written as. Where the bytes go is in `writer.rs`.

use millstream_framework::{BoxError, Error, ErrorKind};
use serde::Serialize;

/// Writes records of type `T` as lines.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot write records of type `{T}`",
    note = "text takes `String`, JSON any `Serialize` type: put a `map` before the sink"
)]
pub trait Encode<T>: Clone + Send + Sync + 'static {
    /// What the names of the files end with, without the dot: ASCII letters and digits.
    fn extension(&self) -> &'static str;

    /// Appends a record, without the newline.
    ///
    /// # Errors
    /// Ends the attempt.
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), BoxError>;
}

/// A record is a line of text.
#[derive(Debug, Clone, Copy)]
pub struct Text;

#[diagnostic::do_not_recommend]
impl Encode<String> for Text {
    fn extension(&self) -> &'static str {
        "txt"
    }
    #[inline]
    fn encode(&self, value: &String, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(value.as_bytes());
        Ok(())
    }
}

/// A record is a JSON value.
#[derive(Debug, Clone, Copy)]
pub struct JsonLines;

#[diagnostic::do_not_recommend]
impl<T: Serialize> Encode<T> for JsonLines {
    fn extension(&self) -> &'static str {
        "jsonl"
    }
    #[inline]
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        serde_json::to_writer(into, value).map_err(|error| {
            let text = format!("a record of type `{}` cannot be written as JSON", std::any::type_name::<T>());
            Error::new(ErrorKind::Failed, text).because(error).into()
        })
    }
}
