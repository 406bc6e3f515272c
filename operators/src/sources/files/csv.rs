//! Lines of comma-separated values, under a header that names the columns. Other formats are in `format.rs`.

use super::format::Decode;
use csv::ByteRecord;
use millstream_framework::BoxError;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;

/// A line is a record of comma-separated values, deserialised as `T` by the names in the first line of its file.
pub struct Csv<T> {
    /// The columns, once a file's header was read.
    columns: ByteRecord,
    fields: ByteRecord,
    /// Of a quoted field, what it means.
    unquoted: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T> Csv<T> {
    pub(super) fn new() -> Self {
        Self { columns: ByteRecord::new(), fields: ByteRecord::new(), unquoted: Vec::new(), of: PhantomData }
    }

    /// Cuts a line into fields.
    fn cut(&mut self, line: &[u8]) -> Result<(), String> {
        self.fields.clear();
        let mut rest = line;
        loop {
            let more = match rest.strip_prefix(b"\"") {
                Some(quoted) => {
                    let end = self.unquote(quoted)?;
                    self.fields.push_field(&self.unquoted);
                    &quoted[end..]
                }
                None => {
                    let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                    self.fields.push_field(&rest[..end]);
                    &rest[end..]
                }
            };
            match more {
                [] => return Ok(()),
                [b',', next @ ..] => rest = next,
                _ => return Err(format!("column {} goes on behind its closing quote", self.fields.len())),
            }
        }
    }

    /// Reads what follows an opening quote; gives the place behind the closing one.
    fn unquote(&mut self, quoted: &[u8]) -> Result<usize, String> {
        self.unquoted.clear();
        let mut at = 0;
        while let Some(part) = quoted[at..].iter().position(|byte| *byte == b'"') {
            self.unquoted.extend_from_slice(&quoted[at..at + part]);
            at += part + 1;
            if quoted.get(at) != Some(&b'"') {
                return Ok(at);
            }
            self.unquoted.push(b'"');
            at += 1;
        }
        let column = self.fields.len() + 1;
        Err(format!("column {column} has no closing quote on its line: line breaks within fields are not read"))
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Self { columns: self.columns.clone(), ..Self::new() }
    }
}

impl<T> fmt::Debug for Csv<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Csv").field(&self.columns).finish()
    }
}

impl<T: DeserializeOwned + Send + 'static> Decode for Csv<T> {
    type Record = T;

    fn has_header(&self) -> bool {
        true
    }

    fn header(&mut self, line: &[u8]) -> Result<(), BoxError> {
        self.cut(line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line))?;
        self.columns = std::mem::take(&mut self.fields);
        Ok(())
    }

    fn decode(&mut self, line: &[u8]) -> Result<Option<T>, BoxError> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        self.cut(line)?;
        let (have, want) = (self.fields.len(), self.columns.len());
        if have != want {
            return Err(format!("it has {have} columns, and the header {want}").into());
        }
        match self.fields.deserialize(Some(&self.columns)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let (wanted, text) = (std::any::type_name::<T>(), error.to_string());
                let text = text.strip_prefix("CSV deserialize error: ").unwrap_or(&text);
                Err(format!("no `{wanted}`: {text}").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Bound, TIGHT, any_bytes, any_text, bounded, cases, damaged};
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        name: String,
        cents: Option<u64>,
    }

    fn decode(header: &str, line: &str) -> Result<Option<Row>, String> {
        let mut csv = Csv::<Row>::new();
        csv.header(header.as_bytes()).map_err(|e| e.to_string())?;
        csv.clone().decode(line.as_bytes()).map_err(|e| e.to_string())
    }

    fn row(name: &str, cents: Option<u64>) -> Result<Option<Row>, String> {
        Ok(Some(Row { name: name.into(), cents }))
    }

    #[test]
    fn columns_are_found_by_their_names() {
        assert_eq!(decode("name,cents", "a,1"), row("a", Some(1)));
        assert_eq!(decode("\u{feff}cents,note,name", ",x,a b"), row("a b", None));
        assert_eq!(decode("\"name\",\"cents\"", "\"a,\"\"b\"\"\",\"2\""), row("a,\"b\"", Some(2)));
        assert_eq!(decode("name,cents", "\"\",3"), row("", Some(3)));
        assert_eq!(decode("name,cents", " "), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, said) in [
            ("a", "it has 1 columns, and the header 2"),
            ("a,1,", "it has 3 columns"),
            ("\"a,1", "column 1 has no closing quote"),
            ("a,\"1\"\"", "column 2 has no closing quote"),
            ("\"a\"b,1", "column 1 goes on behind"),
            ("a,x", "invalid digit"),
        ] {
            let error = decode("name,cents", line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
        assert!(decode("nam,cents", "a,1").unwrap_err().contains("missing field `name`"));
    }

    /// The same fields as a reader of whole files finds.
    #[test]
    fn cuts_as_others_do() {
        for line in ["a,b", ",", "\"\",\"\"", "\"a\"\"\",b", "a\"b,c", "\"x,y\",\"\"\"\"", "  a , b "] {
            let mut ours = Csv::<Row>::new();
            ours.cut(line.as_bytes()).unwrap();
            let mut theirs = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
            assert_eq!(ours.fields, theirs.byte_records().next().unwrap().unwrap(), "{line}");
        }
    }

    /// A column of one character is a node of a tree, of which two texts are a part.
    const TREE: Bound = Bound { per_byte: 256, more: 64 << 10 };

    fn any_lines() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let header = prop_oneof![
            Just(b"name,cents".to_vec()),
            damaged(Just(b"\"name\",cents,note".to_vec())),
            any_text().prop_map(String::into_bytes),
        ];
        let line = prop_oneof![
            any_bytes(),
            any_text().prop_map(String::into_bytes),
            damaged(Just(b"\"a,\"\"b\"\"\",7".to_vec())),
        ];
        (header, line)
    }

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn any_line_is_taken((header, line) in any_lines()) {
            let mut csv = Csv::<Row>::new();
            let input = header.len() + line.len();
            let _ = bounded(input, TIGHT, || csv.header(&header))?;
            let _ = bounded(input, TIGHT, || csv.decode(&line))?;
            let mut loose = Csv::<std::collections::BTreeMap<String, String>>::new();
            let _ = bounded(input, TREE, || loose.header(&header).and_then(|()| loose.decode(&line)))?;
        }

        #[test]
        fn what_is_quoted_is_read(name in "[^\n]{1,20}", cents: Option<u64>) {
            let line = format!("\"{}\",{}", name.replace('"', "\"\""), cents.map_or(String::new(), |c| c.to_string()));
            prop_assert_eq!(decode("name,cents", &line), row(&name, cents));
        }
    }
}
