//! The settings of a job, one by one: what each is called, what it takes, what it is when nobody says anything, and how
//! it gets into [`Settings`] and out again. Flags, variables, keys of the file, `--show-config` and
//! `docs/configuration.md` are all made from this table.

use super::Settings;
use bytesize::ByteSize;
use std::path::PathBuf;
use std::time::Duration;

/// One setting.
pub(crate) struct Setting {
    /// What it is called in a file. Flag and variable are called after it.
    pub(crate) key: &'static str,
    /// What it belongs to, for people.
    pub(crate) group: Group,
    /// What it takes.
    pub(crate) takes: Takes,
    /// What it is when nobody says anything.
    pub(crate) default: &'static str,
    /// What it does, in a sentence.
    pub(crate) help: &'static str,
    /// Takes over a value as people write it.
    set: fn(&mut Settings, &str) -> Option<()>,
    /// The value as people write it, if there is one.
    get: fn(&Settings) -> Option<String>,
}

/// What settings are sorted by, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// An order for one start. A file or a variable would repeat it at each, so that it is a flag only.
    Start,
    /// Checkpoints.
    Checkpoints,
    /// What the job may use.
    Resources,
    /// What happens when it fails.
    Failures,
}

impl Group {
    /// The heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Start => "This start",
            Self::Checkpoints => "Checkpoints",
            Self::Resources => "Resources",
            Self::Failures => "Failures",
        }
    }
}

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// A path.
    Directory,
    /// A time with its unit.
    Duration,
    /// A time with its unit, or no bound.
    Bound,
    /// A size.
    Bytes,
    /// A number from 0 on.
    Number,
    /// A number from 1 on.
    Count,
    /// What to start from.
    Restore,
    /// Nothing: it is on or off.
    Switch,
}

impl Takes {
    /// The name of the value, for texts of help.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Directory => "DIRECTORY",
            Self::Duration => "DURATION",
            Self::Bound => "DURATION|none",
            Self::Bytes => "BYTES",
            Self::Number | Self::Count => "N",
            Self::Restore => "latest|none|ID",
            Self::Switch => "true|false",
        }
    }

    /// What is wanted, for those who wrote something else.
    pub(crate) fn wanted(self) -> &'static str {
        match self {
            Self::Directory => "the path of a directory is wanted",
            Self::Duration => "a time with its unit is wanted, such as 500ms, 10s or 1m",
            Self::Bound => "none or a time with its unit is wanted, such as 10s or 1m",
            Self::Bytes => "a number of bytes is wanted, such as 256MiB or 1GiB",
            Self::Number => "a number from 0 on is wanted",
            Self::Count => "a number from 1 on is wanted",
            Self::Restore => "latest, none or the number of a checkpoint is wanted",
            Self::Switch => "true or false is wanted",
        }
    }
}

impl Setting {
    /// The setting with this key.
    pub(crate) fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// `--checkpoint-interval`.
    pub(crate) fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }

    /// `MILLSTREAM_CHECKPOINT_INTERVAL`.
    pub(crate) fn variable(&self) -> String {
        format!("{}{}", super::layers::PREFIX, self.key.to_uppercase())
    }

    /// The value as people write it; none where nothing is set and nothing stands in for it.
    pub(crate) fn get(&self, settings: &Settings) -> Option<String> {
        (self.get)(settings)
    }

    /// Takes over a value as people write it; none if it is not what is wanted.
    pub(super) fn set(&self, settings: &mut Settings, text: &str) -> Option<()> {
        (self.set)(settings, text)
    }
}

/// All there are, in the order in which people see them.
pub(crate) const SETTINGS: [Setting; 16] = [
    Setting {
        key: "restore",
        group: Group::Start,
        takes: Takes::Restore,
        default: "latest",
        help: "What to start from. Holds for one start: drop it from a script that starts the job again, or it goes \
               back each time",
        set: |s, text| text.parse().ok().map(|to| s.restore = to),
        get: |s| Some(s.restore.to_string()),
    },
    Setting {
        key: "allow_duplicates",
        group: Group::Start,
        takes: Takes::Switch,
        default: "false",
        help: "Start even where results may become visible twice",
        set: |s, text| text.parse().ok().map(|to| s.allow_duplicates = to),
        get: |s| Some(s.allow_duplicates.to_string()),
    },
    Setting {
        key: "data_dir",
        group: Group::Checkpoints,
        takes: Takes::Directory,
        default: "millstream-data/<job>",
        help: "Where checkpoints and working state live; one running instance per directory",
        set: |s, text| (!text.is_empty()).then(|| s.data_dir = PathBuf::from(text)),
        get: |s| Some(s.data_dir.display().to_string()),
    },
    Setting {
        key: "checkpoint_interval",
        group: Group::Checkpoints,
        takes: Takes::Duration,
        default: "1s",
        help: "How often a checkpoint is taken, from start to start; output becomes visible with it",
        set: |s, text| duration(text).map(|to| s.checkpoint_interval = to),
        get: |s| Some(written(s.checkpoint_interval)),
    },
    Setting {
        key: "checkpoint_pause",
        group: Group::Checkpoints,
        takes: Takes::Duration,
        default: "0s",
        help: "The least time from the end of a checkpoint to the start of the next",
        set: |s, text| duration(text).map(|to| s.checkpoint_pause = to),
        get: |s| Some(written(s.checkpoint_pause)),
    },
    Setting {
        key: "checkpoint_timeout",
        group: Group::Checkpoints,
        takes: Takes::Duration,
        default: "1m",
        help: "After so long a checkpoint is late and warned of",
        set: |s, text| duration(text).map(|to| s.checkpoint_timeout = to),
        get: |s| Some(written(s.checkpoint_timeout)),
    },
    Setting {
        key: "tolerated_timeouts",
        group: Group::Checkpoints,
        takes: Takes::Number,
        default: "2",
        help: "How many more times a late checkpoint is waited for before the attempt fails",
        set: |s, text| text.parse().ok().map(|to| s.tolerated_timeouts = to),
        get: |s| Some(s.tolerated_timeouts.to_string()),
    },
    Setting {
        key: "keep",
        group: Group::Checkpoints,
        takes: Takes::Count,
        default: "3",
        help: "How many checkpoints are kept",
        set: |s, text| count(text).map(|to| s.keep = to),
        get: |s| Some(s.keep.to_string()),
    },
    Setting {
        key: "workers",
        group: Group::Resources,
        takes: Takes::Count,
        default: "the number of cores",
        help: "Threads that run subtasks",
        set: |s, text| count(text).map(|to| s.workers = Some(to)),
        get: |s| Some(s.workers().to_string()),
    },
    Setting {
        key: "parallelism",
        group: Group::Resources,
        takes: Takes::Count,
        default: "the number of workers",
        help: "Subtasks of each operator that does not say itself",
        set: |s, text| count(text).map(|to| s.parallelism = Some(to)),
        get: |s| Some(s.parallelism().to_string()),
    },
    Setting {
        key: "memory",
        group: Group::Resources,
        takes: Takes::Bytes,
        default: "512MiB",
        help: "Memory for state and for what is under way; state may be many times larger",
        set: |s, text| text.parse::<ByteSize>().ok().map(|to| s.memory = to.as_u64()),
        get: |s| Some(size(s.memory)),
    },
    Setting {
        key: "cache_rows",
        group: Group::Resources,
        takes: Takes::Count,
        default: "its share of the memory",
        help: "Rows that each subtask of a keyed operator keeps in memory; for tests",
        set: |s, text| count(text).map(|to| s.cache_rows = Some(to)),
        get: |s| s.cache_rows.map(|rows| rows.to_string()),
    },
    Setting {
        key: "watermark_drift",
        group: Group::Resources,
        takes: Takes::Bound,
        default: "1m",
        help: "How far in event time one input of an operator may run ahead of the slowest",
        set: |s, text| bound(text).map(|to| s.watermark_drift = to),
        get: |s| Some(s.watermark_drift.map_or_else(|| "none".into(), written)),
    },
    Setting {
        key: "restart_attempts",
        group: Group::Failures,
        takes: Takes::Count,
        default: "5",
        help: "How many attempts in a row may fail, with no checkpoint in between, before the job does",
        set: |s, text| count(text)?.try_into().ok().map(|to| s.restart.attempts = to),
        get: |s| Some(s.restart.attempts.to_string()),
    },
    Setting {
        key: "restart_pause",
        group: Group::Failures,
        takes: Takes::Duration,
        default: "500ms",
        help: "The pause after the first failure; it doubles with each further one",
        set: |s, text| duration(text).map(|to| s.restart.pause = to),
        get: |s| Some(written(s.restart.pause)),
    },
    Setting {
        key: "restart_pause_max",
        group: Group::Failures,
        takes: Takes::Duration,
        default: "30s",
        help: "The longest pause",
        set: |s, text| duration(text).map(|to| s.restart.pause_max = to),
        get: |s| Some(written(s.restart.pause_max)),
    },
];

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

fn written(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn bound(text: &str) -> Option<Option<Duration>> {
    if text == "none" { Some(None) } else { duration(text).map(Some) }
}

fn count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|n| *n > 0)
}

/// A size without loss, in the largest unit that it is a multiple of.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("{bytes}B"), |(shift, name)| format!("{}{name}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::super::RestartPolicy;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_table_says_of_defaults_is_so() {
        let settings = Settings::new("<job>");
        for setting in &SETTINGS {
            // these follow from the machine or from each other
            if !["workers", "parallelism", "cache_rows"].contains(&setting.key) {
                assert_eq!(setting.get(&settings).as_deref(), Some(setting.default), "{}", setting.key);
            }
        }
        assert_eq!(Settings { workers: Some(7), ..settings }.parallelism(), 7);
    }

    /// Whoever adds a field adds a line to the table, or it could not be set but in the program.
    #[test]
    fn every_field_is_in_the_table() {
        let Settings {
            data_dir: _,
            checkpoint_interval: _,
            checkpoint_pause: _,
            checkpoint_timeout: _,
            tolerated_timeouts: _,
            keep: _,
            parallelism: _,
            workers: _,
            memory: _,
            cache_rows: _,
            watermark_drift: _,
            restore: _,
            allow_duplicates: _,
            restart: RestartPolicy { attempts: _, pause: _, pause_max: _ },
            // not settings
            origins: _,
        } = Settings::new("job");
        assert_eq!(SETTINGS.len(), 16);
    }

    /// Texts that a setting takes, and some it does not.
    fn texts(takes: Takes) -> (Vec<&'static str>, Vec<&'static str>) {
        match takes {
            Takes::Directory => (vec!["a/b", "/c"], vec![""]),
            Takes::Duration => (vec!["500ms", "1m", "0s", "1m 30s"], vec!["5", "often", "-1s", ""]),
            Takes::Bound => (vec!["10s", "1m", "none", "0s"], vec!["5", "often", ""]),
            Takes::Bytes => (vec!["256MiB", "1GiB", "3B", "1000B"], vec!["much", "-1", ""]),
            Takes::Number => (vec!["0", "7"], vec!["-1", "1.5", "few", ""]),
            Takes::Count => (vec!["1", "7"], vec!["0", "-1", "1.5", "many", ""]),
            Takes::Restore => (vec!["latest", "none", "17"], vec!["newest", "-1", ""]),
            Takes::Switch => (vec!["true", "false"], vec!["yes", "1", ""]),
        }
    }

    #[test]
    fn what_is_set_is_got() {
        for setting in &SETTINGS {
            let (good, bad) = texts(setting.takes);
            let mut settings = Settings::new("job");
            for text in good {
                assert_eq!(setting.set(&mut settings, text), Some(()), "{} {text}", setting.key);
                assert_eq!(setting.get(&settings).as_deref(), Some(text), "{}", setting.key);
            }
            let before = setting.get(&settings);
            for text in bad {
                assert_eq!(setting.set(&mut settings, text), None, "{} {text}", setting.key);
                assert_eq!(setting.get(&settings), before, "{} {text}", setting.key);
            }
        }
    }

    /// The table of `docs/configuration.md`.
    fn documented() -> String {
        let mut out =
            String::from("| key in the file | flag | variable | takes | default | what |\n|---|---|---|---|---|---|\n");
        for setting in &SETTINGS {
            let Setting { key, group, takes, default, help, .. } = setting;
            let is_order = *group == Group::Start;
            let (key, variable) = match is_order {
                true => ("-".to_owned(), "-".to_owned()),
                false => (format!("`{key}`"), format!("`{}`", setting.variable())),
            };
            let takes = takes.name().replace('|', " or ");
            out += &format!("| {key} | `{}` | {variable} | {takes} | {default} | {help} |\n", setting.flag());
        }
        out
    }

    /// `UPDATE_DOCS=1` writes it down.
    #[test]
    fn the_documentation_lists_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (start, end) = ("<!-- settings -->\n", "<!-- end of settings -->\n");
        let (before, rest) = text.split_once(start).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let expect = format!("{before}{start}{}{end}{after}", documented());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, expect).unwrap();
        } else {
            assert_eq!(text, expect, "UPDATE_DOCS=1 brings docs/configuration.md up to date");
        }
    }

    proptest! {
        #[test]
        fn sizes_and_times_are_written_without_loss(bytes in any::<u64>(), shift in 0..40u32, ns in 0..u64::MAX / 2) {
            let bytes = bytes.checked_shl(shift).unwrap_or_default() & ((1 << 53) - 1);
            prop_assert_eq!(size(bytes).parse::<ByteSize>().unwrap().as_u64(), bytes);
            prop_assert_eq!(duration(&written(Duration::from_nanos(ns))), Some(Duration::from_nanos(ns)));
        }
    }
}
