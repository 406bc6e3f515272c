//! The layers a job's settings come from: the file, the environment, the command line. The caller puts them one over
//! the other, the weakest first; here each is read, and what is wrong with it said together with its place.

use super::Settings;
use super::table::{Group, SETTINGS, Setting};
use crate::values::{Origin, Values, nearest};
use crate::{Error, ErrorKind};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

/// What the variables of the environment begin with.
pub(crate) const PREFIX: &str = "MILLSTREAM_";
/// What else may begin so: how millstream itself is built and tested, which programs that are started there see.
const OTHERS: [&str; 7] = ["KAFKA_BOOTSTRAP", "NO_INSTALL", "SEED", "SKIP_SETUP", "SOAK", "TARGET_DIR", "TOOLS_DIR"];
const TESTS: &str = "TEST_";
/// The file that is read when none is named, if it is there.
pub(crate) const FILE: &str = "millstream.toml";
/// Of so many parts a key of `--set` may be; TOML has such a limit, too.
const PARTS_MAX: usize = 100;
/// The table of the file with the settings of the pipeline.
const PIPELINE: &str = "pipeline";

fn mistake(text: String) -> Error {
    Error::new(ErrorKind::Usage, text)
}

impl Settings {
    /// Takes over a value as people write it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], saying where the value came from and what is wanted.
    pub(crate) fn put(&mut self, setting: &Setting, text: &str, origin: Origin) -> Result<(), Error> {
        // flags and variables are called after their setting
        let place = match &origin {
            Origin::File(..) => format!("{origin}: {}", setting.key),
            _ => origin.to_string(),
        };
        let wanted = setting.takes.wanted();
        setting.set(self, text).ok_or_else(|| mistake(format!("{place}: `{text}` is not what it takes: {wanted}")))?;
        self.origins.insert(setting.key, origin);
        Ok(())
    }
}

/// Reads a configuration file into the settings of the job and those of its pipeline.
///
/// # Errors
/// [`ErrorKind::Io`] if it cannot be read; [`ErrorKind::Usage`], naming file and line, if it is no TOML, or has a key
/// that does not exist or a value that does not fit.
pub(crate) fn file(settings: &mut Settings, pipeline: &mut Values, path: &Path) -> Result<(), Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(e, "read the configuration file", path))?;
    let name = path.display().to_string();
    let origin = |at: Range<usize>| Origin::File(name.clone(), line(&text, at.start));
    let table = DeTable::parse(&text).map_err(|e| {
        let at = e.span().map_or_else(|| name.clone(), |at| origin(at).to_string());
        mistake(format!("{at}: this is no TOML: {}", e.message()))
    })?;
    for (key, value) in table.get_ref() {
        let at = origin(key.span());
        match (key.get_ref().as_ref(), value.get_ref()) {
            (PIPELINE, DeValue::Table(entries)) => tree(entries, &mut Vec::new(), &origin, pipeline),
            (PIPELINE, _) => return Err(mistake(format!("{at}: `{PIPELINE}` is a table: write `[{PIPELINE}]`"))),
            (key, value) => {
                let setting =
                    lasting(key, |setting| setting.key.to_owned()).map_err(|why| mistake(format!("{at}: {why}")))?;
                match plain(value) {
                    Value::String(text) => settings.put(setting, &text, at)?,
                    other => settings.put(setting, &other.to_string(), at)?,
                }
            }
        }
    }
    Ok(())
}

/// The line of a place in a text, from 1 on.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The setting that a file or a variable may give; else what is wrong with it. `written` is how it is called there.
fn lasting(key: &str, written: fn(&Setting) -> String) -> Result<&'static Setting, String> {
    let all = || SETTINGS.iter().filter(|s| s.group != Group::Start);
    match Setting::find(key) {
        Some(setting) if setting.group != Group::Start => Ok(setting),
        Some(setting) => {
            let flag = setting.flag();
            Err(format!("`{key}` is an order for one start and no lasting setting: give `{flag}` to that start"))
        }
        None => Err(match nearest(key, all().map(|s| s.key).chain([PIPELINE])) {
            Some(near) => {
                let near = Setting::find(near).map_or_else(|| format!("[{PIPELINE}]"), written);
                format!("there is no setting `{key}`; did you mean `{near}`?")
            }
            None => {
                let all: Vec<_> = all().map(written).collect();
                format!("there is no setting `{key}`; there are {}", all.join(", "))
            }
        }),
    }
}

/// Takes over the entries of a table, each with its line.
fn tree(entries: &DeTable<'_>, path: &mut Vec<String>, origin: &impl Fn(Range<usize>) -> Origin, into: &mut Values) {
    for (key, value) in entries {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(entries) if !entries.is_empty() => tree(entries, path, origin, into),
            value => into.set(path, plain(value), origin(key.span())),
        }
        path.pop();
    }
}

/// A value of TOML as one of JSON; dates become texts.
fn plain(value: &DeValue<'_>) -> Value {
    let inner = |value: &Spanned<DeValue<'_>>| plain(value.get_ref());
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => integer(number),
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(is) => Value::Bool(*is),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(values) => values.iter().map(inner).collect(),
        DeValue::Table(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.get_ref().to_string(), inner(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn integer(number: &DeInteger<'_>) -> Value {
    let (digits, radix) = (number.as_str(), number.radix());
    let signed = i64::from_str_radix(digits, radix).map(Value::from);
    signed.or_else(|_| u64::from_str_radix(digits, radix).map(Value::from)).unwrap_or_else(|_| digits.into())
}

/// Takes over the variables that begin with [`PREFIX`].
///
/// # Errors
/// [`ErrorKind::Usage`], naming the variable, if there is no such setting or its value does not fit.
pub(crate) fn environment(
    settings: &mut Settings,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), Error> {
    let text = |text: OsString| text.into_string().ok();
    let named = variables.into_iter().filter_map(|(name, value)| Some((text(name)?, value)));
    let other = |key: &str| OTHERS.contains(&key) || key.starts_with(TESTS);
    let is_ours = |name: &str| name.strip_prefix(PREFIX).is_some_and(|key| !other(key));
    let mut ours: Vec<_> = named.filter(|(name, _)| is_ours(name)).collect();
    ours.sort();
    for (name, value) in ours {
        let key = name.trim_start_matches(PREFIX).to_lowercase();
        let place = format!("the variable {name} of the environment");
        let setting = lasting(&key, Setting::variable).map_err(|why| mistake(format!("{place}: {why}")))?;
        let value = text(value).ok_or_else(|| mistake(format!("{place}: its value is no UTF-8")))?;
        settings.put(setting, &value, Origin::Variable(name))?;
    }
    Ok(())
}

/// Takes over `KEY=VALUE` of a flag `--set`: the value as TOML if it is some, else as text.
///
/// # Errors
/// [`ErrorKind::Usage`] if there is no key.
pub(crate) fn assignment(pipeline: &mut Values, text: &str) -> Result<(), Error> {
    let parts = text.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
    let is_key = |key: &str| key.split('.').all(|part| !part.is_empty());
    let Some((key, value)) = parts.filter(|(key, _)| is_key(key)) else {
        return Err(mistake(format!("--set: `{text}` is not KEY=VALUE: write the key, as in `--set kafka.group=a`")));
    };
    if key.split('.').count() > PARTS_MAX {
        return Err(mistake(format!("--set: the key of a setting has more than {PARTS_MAX} parts")));
    }
    let value = DeValue::parse(value).map_or_else(|_| value.into(), |value| plain(value.get_ref()));
    let tree = key.split('.').rev().fold(value, |value, key| Value::Object(Map::from_iter([(key.to_owned(), value)])));
    pipeline.overlay(&Values::of(&tree, &Origin::Flag("--set".into())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Takes;
    use crate::fuzz::{Bound, TIGHT, any_bytes, any_text, bounded, cases, damaged, damaged_text};
    use proptest::prelude::*;
    use serde_json::json;
    use std::os::unix::ffi::OsStringExt as _;

    fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.toml");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn read(text: &str) -> Result<(Settings, Values), String> {
        let (_directory, path) = written(text);
        let (mut settings, mut pipeline) = (Settings::new("job"), Values::default());
        let read = file(&mut settings, &mut pipeline, &path);
        let place = path.display().to_string();
        read.map(|()| (settings, pipeline)).map_err(|e| e.to_string().replace(&place, "m.toml"))
    }

    fn vars(all: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        all.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// Three values that a setting takes and that differ, so that it shows whose is taken.
    fn three(takes: Takes) -> [&'static str; 3] {
        match takes {
            Takes::Directory => ["a", "b", "c"],
            Takes::Duration | Takes::Bound => ["1s", "2m", "300ms"],
            Takes::Bytes => ["1GiB", "2MiB", "3KiB"],
            Takes::Number | Takes::Count => ["11", "12", "13"],
            Takes::Restore => ["none", "1", "2"],
            Takes::Switch => ["true", "false", "true"],
        }
    }

    /// For every setting: each stronger layer wins, and the origin is that of the winner.
    #[test]
    fn the_stronger_layer_wins() {
        for setting in SETTINGS.iter().filter(|s| s.group != Group::Start) {
            let [first, second, third] = three(setting.takes);
            let mut settings = Settings::new("job");
            assert_eq!(settings.origin(setting.key), Origin::Default);
            settings.set_by_program(&[setting.key]);
            assert!(settings.origin(setting.key).to_string().contains("layers.rs:"), "{}", setting.key);
            let (_directory, path) = written(&format!("\n{} = \"{first}\"", setting.key));
            file(&mut settings, &mut Values::default(), &path).unwrap();
            let found = |settings: &Settings| (setting.get(settings).unwrap(), settings.origin(setting.key));
            assert_eq!(found(&settings), (first.into(), Origin::File(path.display().to_string(), 2)));
            environment(
                &mut settings,
                vars(&[(&setting.variable(), second), ("OTHER", "x"), ("MILLSTREAM_TARGET_DIR", "x")]),
            )
            .unwrap();
            assert_eq!(found(&settings), (second.into(), Origin::Variable(setting.variable())));
            settings.put(setting, third, Origin::Flag(setting.flag())).unwrap();
            assert_eq!(found(&settings), (third.into(), Origin::Flag(setting.flag())));
        }
    }

    #[test]
    fn a_file_may_write_numbers_and_switches_as_such() {
        let (settings, _) = read("keep = 7\nmemory = 1048576\ncache_rows = 0x10\nwatermark_drift = 'none'").unwrap();
        assert_eq!((settings.keep, settings.memory, settings.cache_rows), (7, 1 << 20, Some(16)));
        assert_eq!(settings.watermark_drift, None);
    }

    #[test]
    fn mistakes_in_a_file_name_line_and_remedy() {
        for (text, said) in [
            ("\n\nkeeep = 3", "m.toml:3: there is no setting `keeep`; did you mean `keep`?"),
            ("\n[pipline]\na = 1", "m.toml:2: there is no setting `pipline`; did you mean `[pipeline]`?"),
            ("qqq = 3", "m.toml:1: there is no setting `qqq`; there are data_dir, "),
            ("keep = 0", "m.toml:1: keep: `0` is not what it takes: a number from 1 on is wanted"),
            ("keep = [1]", "m.toml:1: keep: `[1]` is not what it takes"),
            ("checkpoint_interval = 5", "a time with its unit is wanted, such as 500ms"),
            ("memory = 'much'", "a number of bytes is wanted, such as 256MiB"),
            ("a = 1\nb = ", "m.toml:2: this is no TOML"),
            ("keep = 1\nkeep = 2", "m.toml:2: this is no TOML: duplicate key"),
            ("pipeline = 3", "m.toml:1: `pipeline` is a table: write `[pipeline]`"),
            ("restore = 'none'", "`restore` is an order for one start and no lasting setting: give `--restore`"),
        ] {
            let error = read(text).err().unwrap_or_default();
            assert!(error.contains(said), "`{said}` is not in: {error}");
        }
    }

    #[test]
    fn mistakes_in_the_environment_name_the_variable() {
        for (name, value, said) in [
            ("MILLSTREAM_WORKES", "2", "MILLSTREAM_WORKES of the environment: there is no setting"),
            ("MILLSTREAM_WORKES", "2", "did you mean `MILLSTREAM_WORKERS`?"),
            ("MILLSTREAM_WORKERS", "", "MILLSTREAM_WORKERS: `` is not what it takes: a number from 1 on"),
            ("MILLSTREAM_ALLOW_DUPLICATES", "true", "give `--allow-duplicates` to that start"),
        ] {
            let error = environment(&mut Settings::new("job"), vars(&[(name, value)])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(said), "`{said}` is not in: {error}");
        }
    }

    #[test]
    fn the_pipelines_table_is_taken_over_with_its_lines() {
        let text =
            "[pipeline]\nrate = 5\nsince = 2026-01-01\n[pipeline.kafka]\n\"a.b\" = [1, {c = 2.5}]\nd = {e = true}";
        let (_, values) = read(text).unwrap();
        let leaves: Vec<_> = values.leaves().into_iter().map(|(path, value)| (path.join("/"), value)).collect();
        let expect = [
            ("kafka/a.b", json!([1, {"c": 2.5}])),
            ("kafka/d/e", json!(true)),
            ("rate", json!(5)),
            ("since", json!("2026-01-01")),
        ];
        assert_eq!(leaves, expect.map(|(path, value)| (path.to_owned(), value)));
        let line = |path: &[&str]| values.origin(&path.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string();
        assert!(line(&["kafka", "a.b"]).ends_with("m.toml:5") && line(&["rate"]).ends_with("m.toml:2"));
    }

    #[test]
    fn assignments_are_toml_or_text() {
        for (text, path, value) in [
            ("rate=5", "rate", json!(5)),
            ("kafka.group = a-b", "kafka/group", json!("a-b")),
            ("name='5'", "name", json!("5")),
            ("topics=['a', 'b']", "topics", json!(["a", "b"])),
            ("password={env='P'}", "password/env", json!("P")),
            ("path=/a/b=c", "path", json!("/a/b=c")),
            ("empty=", "empty", json!("")),
        ] {
            let mut values = Values::default();
            assignment(&mut values, text).unwrap();
            let leaves = values.leaves();
            let found = leaves.iter().map(|(at, value)| (at.join("/"), value.clone())).next();
            assert_eq!(found, Some((path.to_owned(), value)), "{text}");
            assert_eq!(values.origin(&leaves[0].0), Origin::Flag("--set".into()));
        }
        for text in ["rate", "=5", "a..b=5", ""] {
            let error = assignment(&mut Values::default(), text).unwrap_err();
            assert!(error.to_string().contains("KEY=VALUE"), "{error}");
        }
    }

    /// Lines as people write them.
    fn any_file() -> impl Strategy<Value = String> {
        let lines = [
            "keep = 7\n",
            "memory = '1GiB'\n",
            "cache_rows = 0x10\n",
            "checkpoint_interval = '1m 30s'\n",
            "watermark_drift = \"none\"\n",
            "[pipeline]\nrate = 5\nsince = 2026-01-01T00:00:00Z\n",
            "[pipeline.kafka]\n\"a.b\" = [1, {c = 2.5}]\nd = {e = true}\n",
            "long = \"\"\"a\nb\"\"\"\n# nothing\n",
            "[[pipeline.of]]\na.b.c = -1\n",
        ];
        prop::collection::vec(prop::sample::select(lines.to_vec()), 0..6).prop_map(|lines| lines.concat())
    }

    /// Each leaf has the whole path to it, and TOML is nested 80 deep at most.
    const TOML: Bound = Bound { per_byte: 512, more: 256 << 10 };

    proptest! {
        #![proptest_config(cases(500))]

        #[test]
        fn any_file_is_taken(text in prop_oneof![any_text(), damaged_text(any_file())]) {
            #[derive(serde::Deserialize)]
            struct Pipeline {
                #[serde(rename = "rate")]
                _rate: Option<u64>,
                #[serde(rename = "kafka")]
                _kafka: Option<std::collections::BTreeMap<String, Vec<f64>>>,
                #[serde(rename = "since")]
                _since: Option<crate::Timestamp>,
                #[serde(rename = "d")]
                _token: Option<crate::Secret>,
            }
            let (_directory, path) = written(&text);
            bounded(text.len(), TOML, || {
                let (mut settings, mut pipeline) = (Settings::new("job"), Values::default());
                let _ = file(&mut settings, &mut pipeline, &path);
                let mut reads = crate::values::Reads::default();
                let _ = pipeline.read::<Pipeline>(&mut reads);
                let _ = pipeline.all_read(&reads);
            })?;
        }

        #[test]
        fn any_file_of_bytes_is_taken(
            bytes in prop_oneof![any_bytes(), damaged(any_file().prop_map(String::into_bytes))],
        ) {
            let (_directory, path) = written("");
            std::fs::write(&path, &bytes).unwrap();
            let (mut settings, mut pipeline) = (Settings::new("job"), Values::default());
            let _ = bounded(bytes.len(), TOML, || file(&mut settings, &mut pipeline, &path))?;
        }

        #[test]
        fn any_assignment_is_taken(
            text in prop_oneof![
                any_text(),
                damaged_text(prop::sample::select(vec!["rate=5", "a.b.c = [1, {d = 2}]", "x = 'y'", "a=", "t=2026-01-01"])
                    .prop_map(String::from)),
            ],
        ) {
            let mut values = Values::default();
            if bounded(text.len(), TOML, || assignment(&mut values, &text))?.is_ok() {
                prop_assert!(values.leaves().iter().all(|(path, _)| !path.is_empty()));
            }
        }

        #[test]
        fn any_environment_is_taken(
            name in prop_oneof![
                any_text(),
                damaged_text(prop::sample::select(SETTINGS.iter().map(Setting::variable).collect::<Vec<_>>())),
            ],
            value in prop_oneof![any_text().prop_map(OsString::from), any_bytes().prop_map(OsString::from_vec)],
        ) {
            let mut settings = Settings::new("job");
            let all = [(name.clone().into(), value.clone()), (format!("{PREFIX}{name}").into(), value)];
            let _ = bounded(name.len(), TIGHT, || environment(&mut settings, all))?;
        }

        #[test]
        fn any_value_of_a_setting_is_taken(
            which in 0..SETTINGS.len(), good in 0..3usize, text in any_text(), damaged in damaged_text(Just("1m 30s".into())),
        ) {
            let setting = &SETTINGS[which];
            for text in [three(setting.takes)[good].to_owned() + &text, text, damaged] {
                let mut settings = Settings::new("job");
                let origin = Origin::Flag(setting.flag());
                if bounded(text.len(), TIGHT, || settings.put(setting, &text, origin))?.is_ok() {
                    let _ = (setting.get(&settings), settings.budget(true), settings.workers(), settings.parallelism());
                    let _ = settings.restart.pause_after(u32::MAX);
                }
            }
        }
    }

    /// A key is taken apart level by level, and each level calls itself for the next.
    #[test]
    fn a_key_of_many_parts_is_a_mistake() {
        for parts in [PARTS_MAX + 1, 60_000] {
            let error = assignment(&mut Values::default(), &format!("{}=1", vec!["a"; parts].join("."))).unwrap_err();
            assert!(error.to_string().contains("more than 100 parts"), "{error}");
        }
        let mut values = Values::default();
        assignment(&mut values, &format!("{}=1", vec!["a"; PARTS_MAX].join("."))).unwrap();
        assert_eq!(values.leaves()[0].0.len(), PARTS_MAX);
    }
}
