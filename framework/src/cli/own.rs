//! The flags of a pipeline's own, `Job::settings::<T>()`: how a `T` is made of the command line and, for what is not
//! given there, of the file and of `--set`.
//!
//! Only clap can make a `T`, and only of texts. So what the weaker layers have for a flag is put on the command line as
//! that flag, and the line is read once more: a value in a file is written, and checked, as the flag's is.

use super::args::Refusal;
use crate::job::Flags;
use crate::values::{Origin, Values};
use crate::{Error, ErrorKind, Job};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// That no flag of the pipeline is one that every job has.
pub(super) fn no_clash(job: &Job, all: &Command) -> Result<(), Error> {
    let commands = || all.get_subcommands().flat_map(|one| std::iter::once(one).chain(one.get_subcommands()));
    for own in args(job.flags).iter().filter_map(Arg::get_long) {
        let longs =
            |command: &Command| command.get_arguments().filter_map(Arg::get_long).filter(|long| *long == own).count();
        if let Some(command) = commands().find(|command| longs(command) > 1) {
            let text = format!(
                "the pipeline has a flag --{own}, and so has every job (the command `{}`): rename the field, or give \
                 it another name for the command line with `#[arg(long = \"..\")]`",
                command.get_name()
            );
            return Err(Error::new(ErrorKind::Topology, text));
        }
    }
    Ok(())
}

fn args(flags: Option<Flags>) -> Vec<Arg> {
    let own = flags.map(|flags| (flags.augment)(Command::new("own")));
    own.iter().flat_map(Command::get_arguments).cloned().collect()
}

/// A key of a tree and the name of a flag mean the same field, however serde writes it.
fn is_same(key: &str, id: &str) -> bool {
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    plain(key) == plain(id)
}

/// Reads the pipeline's own flags; `given` is what the command line has of them.
pub(super) fn read(mut job: Job, all: &Command, line: &[OsString], given: &ArgMatches) -> Result<Job, Refusal> {
    let Some(flags) = job.flags else { return Ok(job) };
    let args = args(job.flags);
    let is_given = |arg: &Arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let weaker = job.values()?;
    // by the name of the flag: the key it stands for
    let mut lent: BTreeMap<String, &String> = BTreeMap::new();
    let mut taken = Vec::new();
    let (command, rest) = line.split_at(words(all, line));
    let mut line = command.to_vec();
    for (key, value) in weaker.entries() {
        let Some(arg) = args.iter().find(|arg| is_same(key, arg.get_id().as_str())) else { continue };
        let Some(texts) = as_flag(arg, value) else { continue };
        taken.push(key);
        if !is_given(arg) {
            lent.insert(arg.get_id().to_string(), key);
            line.extend(texts);
        }
    }
    line.extend_from_slice(rest);
    let mut command = all.clone();
    let matches = command.try_get_matches_from_mut(&line);
    let matches = matches.map_err(|error| misfit(error, &args, &lent, &weaker))?;
    let matches = innermost(&matches);
    let tree = (flags.read)(matches).map_err(|e| command.error(clap::error::ErrorKind::ValueValidation, e))?;
    let mut values = Values::default();
    for (key, value) in tree.as_object().into_iter().flatten() {
        let origin = match args.iter().find(|arg| is_same(key, arg.get_id().as_str())) {
            Some(arg) if is_given(arg) => Origin::Flag(name(arg)),
            Some(arg) => match lent.get(arg.get_id().as_str()) {
                Some(key) => weaker.origin(&[(*key).clone()]),
                None => Origin::Default,
            },
            None => Origin::Default,
        };
        values.overlay(&Values::of(&json!({ key: value }), &origin));
    }
    for (path, value) in job.pipeline.leaves() {
        if !path.first().is_some_and(|key| taken.contains(&key)) {
            values.set(&path, value, job.pipeline.origin(&path));
        }
    }
    job.pipeline = values;
    Ok(job)
}

/// How many words a command line has up to its command, that included: `orders offsets reset` has three.
fn words(all: &Command, line: &[OsString]) -> usize {
    let mut command = Some(all);
    let mut is_command = |word: &&OsString| {
        command = command.and_then(|command| command.find_subcommand(word.as_os_str()));
        command.is_some()
    };
    line.len().min(1 + line.iter().skip(1).take_while(|word| is_command(word)).count())
}

fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

/// What is written on a command line for a value; none if it cannot be.
fn as_flag(arg: &Arg, value: &Value) -> Option<Vec<OsString>> {
    let long = arg.get_long()?;
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Bool(is)) => Some(is.then(|| format!("--{long}").into()).into_iter().collect()),
        (ArgAction::Append, Value::Array(values)) if !values.is_empty() => {
            values.iter().map(|value| Some(format!("--{long}={}", text(value)?).into())).collect()
        }
        (ArgAction::Set | ArgAction::Append, value) => Some(vec![format!("--{long}={}", text(value)?).into()]),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        // a secret
        Value::Object(entries) => match entries.iter().next()? {
            (key, Value::String(place)) if entries.len() == 1 && ["env", "file"].contains(&key.as_str()) => {
                Some(format!("{key}:{place}"))
            }
            _ => None,
        },
        Value::Array(_) | Value::Null => None,
    }
}

fn name(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().to_string(), |long| format!("--{long}"))
}

/// An error of clap's. If it is about a value that was lent to a flag, it names the place the value came from.
fn misfit(error: clap::Error, args: &[Arg], lent: &BTreeMap<String, &String>, values: &Values) -> Refusal {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error.into() };
    // `--rate <LINES>`
    let long = flag.split([' ', '=']).next().unwrap_or_default();
    let arg = args.iter().find(|arg| name(arg) == long).map(|arg| arg.get_id().as_str());
    let Some(key) = arg.and_then(|id| lent.get(id)) else { return error.into() };
    let origin = values.origin(&[(*key).clone()]);
    let why = std::error::Error::source(&error).map_or_else(|| error.kind().to_string(), ToString::to_string);
    Error::new(ErrorKind::Usage, format!("{origin}: the setting `{key}` of the pipeline does not fit: {why}")).into()
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Refusal};
    use crate::{BoxError, ErrorKind, Job, Secret, Topology};
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};
    use std::time::Duration;

    #[derive(Debug, clap::Args, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Settings {
        #[arg(long)]
        input_path: String,
        #[arg(long, default_value_t = 7)]
        rate: u64,
        #[arg(long)]
        topic: Vec<String>,
        #[arg(long)]
        is_loud: bool,
        #[arg(long, value_parser = humantime::parse_duration, default_value = "1s")]
        every: Duration,
        #[arg(long)]
        password: Option<Secret>,
        #[arg(skip)]
        #[serde(default)]
        tables: Vec<Value>,
    }

    fn topology(t: &Topology) -> Result<(), BoxError> {
        t.config::<Settings>()?;
        Ok(())
    }

    fn job() -> Job {
        Job::new("test", topology).settings::<Settings>()
    }

    /// The settings of a job with this file and this command line, each with its place.
    fn read(job: Job, file: &str, line: &[&str]) -> Result<Vec<(String, Value, String)>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.toml");
        std::fs::write(&path, file).unwrap();
        let place = path.display().to_string();
        let start = ["test", "topology", "--config", &place];
        let cli = Cli::parse(job, start.iter().chain(line).map(Into::into));
        match cli {
            Ok(Cli::Topology(job, _)) => {
                // this topology is empty, which is another matter
                if let Err(error) = job.graph()
                    && error.kind() == ErrorKind::Usage
                {
                    return Err(error.to_string().replace(&place, "m.toml"));
                }
                let values = job.values().unwrap();
                let origin = |path: &[String]| values.origin(path).to_string().replace(&place, "m.toml");
                let leaves = values.leaves().into_iter();
                Ok(leaves.map(|(path, value)| (path.join("."), value, origin(&path))).collect())
            }
            Ok(_) => Err("another command".into()),
            Err(Refusal::Ours(error)) => Err(error.to_string().replace(&place, "m.toml")),
            Err(Refusal::Clap(error)) => Err(error.to_string()),
        }
    }

    #[track_caller]
    fn check(file: &str, line: &[&str], expect: &[(&str, Value, &str)]) {
        let found = read(job(), file, line).unwrap();
        for (key, value, origin) in expect {
            let found = found.iter().find(|(k, ..)| k == key).map(|(_, value, origin)| (value, origin.as_str()));
            assert_eq!(found, Some((value, *origin)), "{key}");
        }
    }

    #[test]
    fn flags_are_over_assignments_over_the_file_over_defaults() {
        let file = "[pipeline]\ninput-path = 'a'\nrate = 8\nis_loud = true\ntopic = ['x', 'y']\nevery = '5s'";
        let input = ("input-path", json!("a"), "m.toml:2");
        check("", &["--input-path", "b"], &[("input-path", json!("b"), "--input-path"), ("rate", json!(7), "default")]);
        check(file, &[], &[input.clone(), ("rate", json!(8), "m.toml:3"), ("is-loud", json!(true), "m.toml:4")]);
        check(file, &[], &[("topic", json!(["x", "y"]), "m.toml:5"), ("every.secs", json!(5), "m.toml:6")]);
        check(file, &["--set", "rate=9"], &[input.clone(), ("rate", json!(9), "--set")]);
        let both = ["--set", "rate=9", "--rate", "10", "--topic", "z"];
        check(file, &both, &[input, ("rate", json!(10), "--rate"), ("topic", json!(["z"]), "--topic")]);
        // what has no flag
        check(file, &["--set", "tables=[{a = 1}]"], &[("tables", json!([{"a": 1}]), "--set")]);
    }

    #[test]
    fn the_program_is_over_all() {
        let found = read(job().config(json!({"input-path": "c", "rate": 11})), "", &["--rate", "10"]).unwrap();
        let rate = found.iter().find(|(key, ..)| key == "rate").unwrap();
        assert!(rate.1 == json!(11) && rate.2.contains("own.rs:"), "{rate:?}");
        assert!(found.iter().any(|(key, value, _)| key == "input-path" && *value == json!("c")));
    }

    #[test]
    fn secrets_stay_references() {
        let file = "[pipeline]\ninput-path = 'a'\npassword = {env = 'P'}";
        check(file, &[], &[("password", json!("env:P"), "m.toml:3")]);
        check(file, &["--password", "file:/p"], &[("password", json!("file:/p"), "--password")]);
        let error = read(job(), "[pipeline]\ninput-path = 'a'\npassword = 'hunter2'", &[]).unwrap_err();
        assert!(error.starts_with("m.toml:3: the setting `password`") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn mistakes_are_told_where_they_were_made() {
        let check = |file: &str, line: &[&str], said: &str| {
            let error = read(job(), file, line).unwrap_err();
            assert!(error.contains(said), "`{said}` is not in: {error}");
        };
        check("", &[], "required arguments were not provided:\n  --input-path");
        check(
            "[pipeline]\nrate = 'fast'",
            &["--input-path", "a"],
            "m.toml:2: the setting `rate` of the pipeline does not",
        );
        check(
            "",
            &["--input-path", "a", "--set", "rate=fast"],
            "--set: the setting `rate` of the pipeline does not fit",
        );
        check("", &["--input-path", "a", "--rate", "fast"], "invalid value 'fast' for '--rate <RATE>'");
        check(
            "[pipeline]\nraet = 1",
            &["--input-path", "a"],
            "m.toml:2: the pipeline has no setting `raet`; did you mean",
        );
        check("", &["--input-path", "a", "--no-such"], "unexpected argument '--no-such'");
    }

    #[test]
    fn a_flag_that_every_job_has_is_a_mistake_of_the_program() {
        #[derive(clap::Args, Serialize)]
        struct Clash {
            #[arg(long)]
            keep: Option<u64>,
        }
        let error = read(Job::new("test", topology).settings::<Clash>(), "", &[]).unwrap_err();
        assert!(error.contains("the pipeline has a flag --keep, and so has every job"), "{error}");
    }
}
