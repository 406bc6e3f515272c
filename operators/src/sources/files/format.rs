//! What is made of a line. Where lines begin and end is in `lines.rs`.

use millstream_framework::BoxError;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;

/// How much of a line is shown in an error, in characters.
const SHOWN: usize = 120;

/// Makes records of lines.
pub trait Decode: Clone + Send + Sync + 'static {
    /// What it makes.
    type Record: Send + 'static;

    /// The record of a line, which comes without its end; none if there is none in it.
    ///
    /// # Errors
    /// Ends the attempt. The reader adds the file and the place in it.
    fn decode(&self, line: &[u8]) -> Result<Option<Self::Record>, BoxError>;
}

/// A line is a `String`.
#[derive(Debug, Clone, Copy)]
pub struct Lines;

impl Decode for Lines {
    type Record = String;
    #[inline]
    fn decode(&self, line: &[u8]) -> Result<Option<String>, BoxError> {
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => Err(format!(
                "byte {} of the line is not UTF-8; convert the file to UTF-8: `{}`",
                error.valid_up_to(),
                shorten(line)
            )
            .into()),
        }
    }
}

/// A line is a JSON value of type `T`.
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<T: DeserializeOwned + Send + 'static> Decode for Json<T> {
    type Record = T;
    #[inline]
    fn decode(&self, line: &[u8]) -> Result<Option<T>, BoxError> {
        match serde_json::from_slice(line) {
            Ok(value) => Ok(Some(value)),
            Err(_) if line.trim_ascii().is_empty() => Ok(None),
            Err(error) => {
                // the line number is always 1 and says nothing
                let (column, wanted) = (error.column(), std::any::type_name::<T>());
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default();
                Err(format!("no `{wanted}` as JSON: {text} at column {column} of `{}`", shorten(line)).into())
            }
        }
    }
}

/// The beginning of a line, for an error.
fn shorten(line: &[u8]) -> String {
    // a character has at most 4 bytes
    let start = String::from_utf8_lossy(&line[..line.len().min(SHOWN * 4)]);
    match start.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &start[..end]),
        None => start.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_to_be_utf8() {
        assert_eq!(Lines.decode("grüße".as_bytes()).unwrap().unwrap(), "grüße");
        assert_eq!(Lines.decode(b"").unwrap().unwrap(), "");
        let error = Lines.decode(b"abc\xff").unwrap_err().to_string();
        assert!(error.contains("byte 3 of the line") && error.contains("`abc\u{fffd}`"), "{error}");
    }

    #[test]
    fn json_passes_blank_lines_over_and_shows_bad_ones_shortened() {
        let json = Json::<(u8, String)>::new();
        assert_eq!(json.decode(br#" [1, "a"] "#).unwrap(), Some((1, "a".into())));
        assert_eq!(json.decode(b" \t").unwrap(), None);
        let line = format!("[1, 2, \"{}\"]", "ä".repeat(1000));
        let error = json.decode(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("column 5") && error.contains("`[1, 2, \"ää") && error.ends_with("...`"), "{error}");
        assert!(error.len() < 500 && !error.contains("line 1"), "{error}");
    }
}
