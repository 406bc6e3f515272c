//! How a file is found again: the offset that checkpoints keep, and the text of a refusal. What is compared with what
//! is in `lines.rs`.

use millstream_framework::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// How many bytes before the offset are remembered by a hash.
pub(super) const HISTORY: usize = 4096;

/// How far a file was read, and how to know it again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileOffset {
    /// The position of the next line, in bytes from the start.
    pub byte: u64,
    /// How long the file was when it was last looked at, in bytes.
    pub length: u64,
    /// XXH3-64 of the up to 4096 bytes before `byte`; in JSON as 16 hexadecimal digits.
    #[serde(with = "crate::sources::hex")]
    pub hash: u64,
    /// Whether the last line that was read ended with the file and not with a newline.
    pub unterminated: bool,
}

/// As errors show it: the byte is what people look for.
impl fmt::Debug for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.byte)
    }
}

impl FileOffset {
    /// Of a file of which nothing was read.
    pub(super) fn start(length: u64) -> Self {
        Self { byte: 0, length, hash: xxh3_64(&[]), unterminated: false }
    }
}

/// That a file cannot be read on: what was found, and what to do.
pub(super) fn refuse(path: &Path, found: &str) -> Error {
    let to = if path.exists() { "earliest" } else { "forget" };
    Error::refused(format!(
        "`{0}` is not the file that the checkpoint has read: {found}; put it back as it was (it may only have grown by \
         whole lines); or go on with what is there now, and with the state there is, by \
         `offsets reset --split {1} --to {to} --execute`; or read all anew with `--restore none`, an empty data \
         directory and an empty output directory",
        path.display(),
        quoted(&path.display().to_string())
    ))
}

/// As one word of a shell.
fn quoted(path: &str) -> String {
    let is_plain = path.chars().all(|c| c.is_alphanumeric() || "/._-+=:,@%".contains(c));
    if is_plain { path.into() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{TIGHT, any_text, bounded, cases, damaged_text};
    use proptest::prelude::*;

    #[test]
    fn stands_in_manifests_as_json() {
        let offset = FileOffset { byte: 7, length: 9, hash: 0xab, unterminated: true };
        let json = r#"{"byte":7,"length":9,"hash":"00000000000000ab","unterminated":true}"#;
        assert_eq!(serde_json::to_string(&offset).unwrap(), json);
        assert_eq!(serde_json::from_str::<FileOffset>(json).unwrap(), offset);
        assert!(serde_json::from_str::<FileOffset>(&json.replace("00ab", "zz")).is_err());
    }

    #[test]
    fn the_command_of_a_refusal_can_be_pasted() {
        let command = |path: &str| refuse(Path::new(path), "it is shorter").to_string();
        assert!(command("/data/orders-1.log").contains("`offsets reset --split /data/orders-1.log --to forget"));
        assert!(command("it's here").contains(r"`offsets reset --split 'it'\''s here' --to forget"));
    }

    prop_compose! {
        fn any_offset()(byte: u64, length: u64, hash: u64, unterminated: bool) -> FileOffset {
            FileOffset { byte, length, hash, unterminated }
        }
    }

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn any_json_is_taken(
            text in prop_oneof![
                any_text(),
                damaged_text(any_offset().prop_map(|offset| serde_json::to_string(&offset).unwrap())),
            ],
        ) {
            if let Ok(offset) = bounded(text.len(), TIGHT, || serde_json::from_str::<FileOffset>(&text))? {
                let again = serde_json::to_string(&offset).unwrap();
                prop_assert_eq!(serde_json::from_str::<FileOffset>(&again).unwrap(), offset);
            }
        }

        #[test]
        fn what_is_written_is_read(offset in any_offset()) {
            let json = serde_json::to_value(&offset).unwrap();
            prop_assert_eq!(serde_json::from_value::<FileOffset>(json).unwrap(), offset);
        }
    }
}
