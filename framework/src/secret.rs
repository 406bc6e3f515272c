//! [`Secret`]: a value that is named in configuration and never stands there. Who reads it at the start of a job is
//! `runtime/`; here is where it comes from and that it is not shown.

use crate::{Error, ErrorKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

/// A password, a token or the like, by the name of a variable of the environment or by the path of a file.
///
/// It is read when the job starts; what cannot be read ends the start with an error that names the variable or the
/// path. It is never shown: `Debug`, `Display` and `Serialize` give `***`.
///
/// In a user's settings it is written `{ env = "NAME" }` or `{ file = "PATH" }`, and on a command line `env:NAME` or
/// `file:PATH`. The value itself is refused in both, for files of settings are copied and command lines are listed.
///
/// ```
/// use millstream_framework::Secret;
///
/// let password = Secret::env("KAFKA_PASSWORD");
/// assert_eq!(format!("{password} {password:?}"), "*** ***");
/// let from_file: Secret = "file:/run/secrets/kafka".parse()?;
/// assert!("hunter2".parse::<Secret>().is_err());
/// # Ok::<(), millstream_framework::BoxError>(())
/// ```
pub struct Secret(Arc<Inner>);

struct Inner {
    place: Place,
    value: OnceLock<String>,
}

enum Place {
    Variable(String),
    File(PathBuf),
}

thread_local! {
    /// The secrets made or cloned on this thread, while somebody collects them.
    static COLLECTED: RefCell<Option<Vec<Secret>>> = const { RefCell::new(None) };
    /// Whether settings are being turned into values on this thread: then a secret stays the reference it is.
    static AS_REFERENCE: Cell<bool> = const { Cell::new(false) };
}

/// What `f` gives, and the secrets it made or cloned: those of a topology while it is built. Building does no I/O, so
/// they are to be read later.
pub(crate) fn collect<R>(f: impl FnOnce() -> R) -> (R, Vec<Secret>) {
    let outer = COLLECTED.replace(Some(Vec::new()));
    let result = f();
    (result, COLLECTED.replace(outer).unwrap_or_default())
}

/// Settings as values. Secrets in them stay references, for what comes of it is read as settings again.
pub(crate) fn to_value(settings: &impl Serialize) -> serde_json::Result<serde_json::Value> {
    let outer = AS_REFERENCE.replace(true);
    let value = serde_json::to_value(settings);
    AS_REFERENCE.set(outer);
    value
}

impl Secret {
    /// The value of a variable of the environment.
    pub fn env(name: impl Into<String>) -> Self {
        Self::new(Arc::new(Inner { place: Place::Variable(name.into()), value: OnceLock::new() }))
    }

    /// The content of a file, without line ends at its end.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(Arc::new(Inner { place: Place::File(path.into()), value: OnceLock::new() }))
    }

    fn new(inner: Arc<Inner>) -> Self {
        COLLECTED.with_borrow_mut(|all| all.iter_mut().for_each(|all| all.push(Self(inner.clone()))));
        Self(inner)
    }

    /// The value, for connectors that are about to use it. It was read when the job started; outside of a job the first
    /// call reads it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if it cannot be read, or is empty.
    pub fn reveal(&self) -> Result<&str, Error> {
        match self.0.value.get() {
            Some(value) => Ok(value),
            None => {
                let value = self.0.place.read()?;
                Ok(self.0.value.get_or_init(|| value))
            }
        }
    }
}

impl Place {
    fn read(&self) -> Result<String, Error> {
        let fault = |what: String, remedy: &str| Err(Error::new(ErrorKind::Usage, format!("{what}: {remedy}")));
        let (name, value) = match self {
            Self::Variable(name) => match std::env::var(name) {
                Ok(value) => (format!("the variable {name} of the environment"), value),
                Err(std::env::VarError::NotPresent) => {
                    let what = format!("a secret is to be in the variable {name} of the environment, which is not set");
                    return fault(what, "set it for this process");
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    let what = format!("a secret is in the variable {name} of the environment, which is no UTF-8");
                    return fault(what, "write it as text");
                }
            },
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => (format!("the file {}", path.display()), text.trim_end_matches(['\n', '\r']).to_owned()),
                Err(error) => {
                    let what = format!("a secret is to be in the file {}: {error}", path.display());
                    return fault(what, "put it there, readable for this user, or name another file");
                }
            },
        };
        match value.is_empty() {
            true => fault(format!("a secret is to be in {name}, which is empty"), "put it there"),
            false => Ok(value),
        }
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Secret {
    type Err = Error;

    /// Reads `env:NAME` and `file:PATH`.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::env(name)),
            Some(("file", path)) if !path.is_empty() => Ok(Self::file(path)),
            // what was given may be the secret, so it is not repeated
            _ => Err(Error::new(ErrorKind::Usage, NOT_HERE)),
        }
    }
}

const NOT_HERE: &str = "a secret does not stand here itself: name where it is, as env:NAME or file:PATH (in a \
                        configuration file also { env = \"NAME\" } or { file = \"PATH\" })";

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.place {
            _ if !AS_REFERENCE.get() => serializer.serialize_str("***"),
            Place::Variable(name) => serializer.collect_str(&format_args!("env:{name}")),
            Place::File(path) => serializer.collect_str(&format_args!("file:{}", path.display())),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reference)
    }
}

/// Reads where a secret is.
struct Reference;

impl<'de> de::Visitor<'de> for Reference {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ env = \"NAME\" } or { file = \"PATH\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        text.parse().map_err(E::custom)
    }

    // the error of serde would repeat what was given
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom(NOT_HERE))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(NOT_HERE))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(NOT_HERE))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let secret = match map.next_entry::<String, String>()? {
            Some((key, name)) if key == "env" => Secret::env(name),
            Some((key, path)) if key == "file" => Secret::file(path),
            _ => return Err(de::Error::custom(NOT_HERE)),
        };
        match map.next_key::<String>()? {
            None => Ok(secret),
            Some(_) => Err(de::Error::custom("a secret is in one place: { env = \"NAME\" } or { file = \"PATH\" }")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{TIGHT, any_text, bounded, cases, damaged_text};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn it_is_read_from_a_file_once_and_line_ends_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let secret = Secret::file(&path);
        let error = secret.reveal().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(path.to_str().unwrap()) && error.to_string().contains("put it there"));
        std::fs::write(&path, "\r\n").unwrap();
        assert!(secret.reveal().unwrap_err().to_string().contains("is empty"));
        std::fs::write(&path, " hunter 2 \r\n\n").unwrap();
        assert_eq!(secret.reveal().unwrap(), " hunter 2 ");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.clone().reveal().unwrap(), " hunter 2 ", "it is known by now");
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = Secret::env("MILLSTREAM_NO_SUCH_VARIABLE").reveal().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("MILLSTREAM_NO_SUCH_VARIABLE of the environment, which is not set: set it"));
        assert!(!Secret::env("PATH").reveal().unwrap().is_empty());
    }

    #[test]
    fn it_is_never_shown() {
        let secret = Secret::env("PATH");
        let value = secret.reveal().unwrap().to_owned();
        for text in [secret.to_string(), format!("{secret:#?}"), serde_json::to_string(&Some(&secret)).unwrap()] {
            assert!(text.contains("***") && !text.contains(&value), "{text}");
        }
    }

    #[test]
    fn settings_name_it_and_do_not_hold_it() {
        for written in [json!({"env": "PATH"}), json!("env:PATH")] {
            let secret: Secret = serde_json::from_value(written).unwrap();
            assert_eq!(secret.reveal().unwrap(), std::env::var("PATH").unwrap());
            let again = to_value(&secret).unwrap();
            assert_eq!(again, json!("env:PATH"));
            assert_eq!(serde_json::to_value(&secret).unwrap(), json!("***"));
            serde_json::from_value::<Secret>(again).unwrap();
        }
        for wrong in [
            json!("hunter2"),
            json!("env:"),
            json!(271828),
            json!(-271828),
            json!(9.71828),
            json!({"value": "hunter2"}),
            json!({"env": "A", "file": "b"}),
        ] {
            let error = serde_json::from_value::<Secret>(wrong).unwrap_err().to_string();
            assert!(error.contains("a secret") && !error.contains("hunter2") && !error.contains("71828"), "{error}");
        }
    }

    #[test]
    fn those_of_a_call_are_collected() {
        let outside = Secret::env("A");
        let ((), found) = collect(|| {
            let _made = (Secret::env("B"), outside.clone());
            let (_, inner) = collect(|| Secret::env("C"));
            assert_eq!(inner.len(), 1);
        });
        assert_eq!(found.len(), 2);
        assert!(Arc::ptr_eq(&found[1].0, &outside.0));
    }

    proptest! {
        #![proptest_config(cases(1000))]

        /// Neither panics, and what is no reference is not repeated.
        #[test]
        fn any_reference_is_taken(
            text in prop_oneof![any_text(), damaged_text(Just(r#"{"file": "a/b"}"#.into())), Just("env:NAME".into())],
        ) {
            if let Err(error) = bounded(text.len(), TIGHT, || text.parse::<Secret>())? {
                prop_assert_eq!(error.to_string(), NOT_HERE);
            }
            let json = serde_json::to_string(&text).unwrap();
            let _ = bounded(json.len(), TIGHT, || serde_json::from_str::<Secret>(&json))?;
            let _ = bounded(text.len(), TIGHT, || serde_json::from_str::<Secret>(&text))?;
        }
    }
}
