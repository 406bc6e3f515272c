//! What is made of a line. Where lines begin and end is in `lines.rs`; `csv.rs` has the format that needs a header.

use crate::sources::undecodable::Undecodable;
use millstream_framework::BoxError;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;

/// Makes records of lines. Each file is read with a clone of its own, so a format may keep scratch memory.
pub trait Decode: Clone + Send + Sync + 'static {
    /// What it makes.
    type Record: Send + 'static;

    /// Whether the first line of each file is a header, and no record.
    fn has_header(&self) -> bool {
        false
    }

    /// Takes the header of the file that is about to be read, from its start or from further on.
    ///
    /// # Errors
    /// Ends the attempt.
    fn header(&mut self, line: &[u8]) -> Result<(), BoxError> {
        let _ = line;
        Ok(())
    }

    /// The record of a line, which comes without its end; none if there is none in it.
    ///
    /// # Errors
    /// What is wrong with the line. The reader adds its bytes, the file and the place in it.
    fn decode(&mut self, line: &[u8]) -> Result<Option<Self::Record>, BoxError>;

    /// The record that a line is that cannot be decoded, for formats that know one.
    ///
    /// # Errors
    /// The line, as if this were not written: it ends the attempt.
    fn undecodable(&mut self, line: Undecodable) -> Result<Self::Record, Undecodable> {
        Err(line)
    }
}

/// A line is a `String`.
#[derive(Debug, Clone, Copy)]
pub struct Lines;

impl Decode for Lines {
    type Record = String;
    #[inline]
    fn decode(&mut self, line: &[u8]) -> Result<Option<String>, BoxError> {
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => {
                let byte = error.valid_up_to();
                Err(format!("byte {byte} of the line is not UTF-8; convert the file to UTF-8").into())
            }
        }
    }
}

/// A line is its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes;

impl Decode for Bytes {
    type Record = Vec<u8>;
    #[inline]
    fn decode(&mut self, line: &[u8]) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(Some(line.to_vec()))
    }
}

/// A line is a JSON value of type `T`.
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    pub(crate) const fn new() -> Self {
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
    fn decode(&mut self, line: &[u8]) -> Result<Option<T>, BoxError> {
        match serde_json::from_slice(line) {
            Ok(value) => Ok(Some(value)),
            Err(_) if line.trim_ascii().is_empty() => Ok(None),
            Err(error) => {
                // the line number is always 1 and says nothing
                let (column, wanted) = (error.column(), std::any::type_name::<T>());
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default();
                Err(format!("no `{wanted}` as JSON: {text} at column {column}").into())
            }
        }
    }
}

/// A line is what another format makes of it, or, if that fails, an [`Undecodable`].
#[derive(Debug, Clone)]
pub struct Try<F>(pub(super) F);

impl<F: Decode> Decode for Try<F> {
    type Record = Result<F::Record, Undecodable>;
    fn has_header(&self) -> bool {
        self.0.has_header()
    }
    fn header(&mut self, line: &[u8]) -> Result<(), BoxError> {
        self.0.header(line)
    }
    #[inline]
    fn decode(&mut self, line: &[u8]) -> Result<Option<Self::Record>, BoxError> {
        Ok(self.0.decode(line)?.map(Ok))
    }
    fn undecodable(&mut self, line: Undecodable) -> Result<Self::Record, Undecodable> {
        Ok(Err(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Bound, TIGHT, any_bytes, any_text, bounded, cases, damaged};
    use proptest::prelude::*;

    /// An object of a few characters is a node of a tree, which takes 600 bytes.
    const TREE: Bound = Bound { per_byte: 128, more: 64 << 10 };

    #[test]
    fn lines_have_to_be_utf8_and_bytes_do_not() {
        assert_eq!(Lines.decode("grüße".as_bytes()).unwrap().unwrap(), "grüße");
        assert_eq!(Lines.decode(b"").unwrap().unwrap(), "");
        let error = Lines.decode(b"abc\xff").unwrap_err().to_string();
        assert!(error.contains("byte 3 of the line"), "{error}");
        assert_eq!(Bytes.decode(b"abc\xff").unwrap().unwrap(), b"abc\xff");
    }

    #[test]
    fn json_passes_blank_lines_over_and_says_what_is_wrong() {
        let mut json = Json::<(u8, String)>::new();
        assert_eq!(json.decode(br#" [1, "a"] "#).unwrap(), Some((1, "a".into())));
        assert_eq!(json.decode(b" \t").unwrap(), None);
        let error = json.decode(b"[1, 2]").unwrap_err().to_string();
        assert!(error.contains("column 5") && !error.contains("line 1"), "{error}");
    }

    type Record = (u64, Option<String>, Vec<f64>);

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn any_line_is_taken(
            line in prop_oneof![
                any_bytes(),
                any_text().prop_map(String::into_bytes),
                damaged(any::<Record>().prop_map(|record| serde_json::to_vec(&record).unwrap())),
            ],
        ) {
            let input = line.len();
            let text = bounded(input, TIGHT, || Lines.decode(&line))?.ok().flatten();
            prop_assert_eq!(text.as_deref(), std::str::from_utf8(&line).ok());
            let bytes = bounded(input, Bound { per_byte: 1, more: 0 }, || Bytes.decode(&line).unwrap())?;
            prop_assert_eq!(bytes.as_ref(), Some(&line));
            let _ = bounded(input, TIGHT, || Json::<Record>::new().decode(&line))?;
            let _ = bounded(input, TREE, || Try(Json::<serde_json::Value>::new()).decode(&line))?;
            if let Err(error) = bounded(input, TIGHT, || Json::<Undecodable>::new().decode(&line))? {
                let bad = bounded(input, TIGHT, || Undecodable::new("split", 7, &error, &line))?;
                let shown = bounded(input, TIGHT, || bad.to_string())?;
                prop_assert!(!shown.contains('\n') || bad.error.contains('\n'));
            }
        }

        #[test]
        fn what_is_written_is_read(a: u64, b: Option<String>, c in proptest::collection::vec(-1e300..1e300, 0..4)) {
            let line = serde_json::to_vec(&(a, &b, &c)).unwrap();
            prop_assert_eq!(Json::<Record>::new().decode(&line).unwrap(), Some((a, b, c)));
        }
    }
}
