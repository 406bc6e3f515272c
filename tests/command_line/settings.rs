//! The layers of settings, through the binary of `word_count` and a file `millstream.toml` beside it.

use super::word_count;
use crate::common::{Scratch, names};
use millstream::prelude::*;
use millstream::{ErrorKind, Secret};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const FILE: &str = "keep = 7\ncheckpoint_interval = \"40ms\"\n\n[pipeline]\ninput = \"input\"\noutput = \"output\"\n";

/// Each setting's value and place, as `--show-config=json` has them.
fn shown(printed: &str) -> impl Fn(&str) -> (Value, Value) {
    let all: Value = serde_json::from_str(printed).unwrap_or_else(|e| panic!("{e}: {printed}"));
    let lines: Vec<Value> =
        ["settings", "pipeline"].iter().flat_map(|of| all[of].as_array().unwrap().clone()).collect();
    move |key| {
        let line = lines.iter().find(|line| line["key"] == key).unwrap_or_else(|| panic!("no {key}"));
        (line["value"].clone(), line["place"].clone())
    }
}

#[test]
fn each_layer_is_over_the_one_before() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    std::fs::write(scratch.join("millstream.toml"), FILE).unwrap();
    std::fs::write(scratch.join("other.toml"), FILE.replace('7', "8")).unwrap();
    let variables = [("MILLSTREAM_CHECKPOINT_INTERVAL", "60ms"), ("MILLSTREAM_MEMORY", "64MiB")];
    let flags = ["run", "--show-config=json", "--memory", "128MiB", "--set", "rate=5"];
    let ended = job.call(&flags, &variables).expect(0, &[]);
    let setting = shown(&ended.printed);
    for (key, value, place) in [
        ("keep", Value::from(7), Value::from("millstream.toml:1")),
        ("checkpoint_interval", "60ms".into(), "MILLSTREAM_CHECKPOINT_INTERVAL".into()),
        ("memory", "128MiB".into(), "--memory".into()),
        ("checkpoint_timeout", "1m".into(), Value::Null),
        ("data_dir", "millstream-data/word_count".into(), Value::Null),
        ("input", "input".into(), "millstream.toml:5".into()),
        ("rate", 5.into(), "--set".into()),
    ] {
        assert_eq!(setting(key), (value, place), "{key}");
    }
    let other = job.call(&["run", "--show-config=json", "--config", "other.toml"], &[]).expect(0, &[]);
    assert_eq!(shown(&other.printed)("keep"), (8.into(), "other.toml:1".into()));
    let text = job.call(&["run", "--show-config"], &variables).expect(0, &["# [pipeline]"]).printed;
    let line = text.lines().find(|line| line.starts_with("checkpoint_interval")).unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>(),
        ["checkpoint_interval", "60ms", "MILLSTREAM_CHECKPOINT_INTERVAL"]
    );
    assert!(!scratch.join("millstream-data").exists() && !job.output().exists(), "nothing was run");
}

#[test]
fn a_job_runs_with_what_the_file_says() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    let data = format!("data_dir = \"data\"\nrestart_attempts = 1\n{FILE}rate = 500\n");
    std::fs::write(scratch.join("millstream.toml"), data).unwrap();
    let ended = job.call(&["run"], &[]).expect(0, &["finished: 100 records in"]);
    job.check(&job.shown()).unwrap();
    let checkpoints = ended.printed.rsplit_once(" checkpoints").unwrap().0.rsplit(' ').next().unwrap().to_owned();
    assert!(checkpoints.parse::<u32>().unwrap() > 1, "an interval of 40 ms: {}", ended.printed);
    assert!(names(&job.data()).contains(&"checkpoints".to_owned()));
    // the directory is that of the same file
    job.call(&["checkpoints", "list"], &[]).expect(0, &["the next start takes checkpoint"]);
}

#[test]
fn mistakes_name_their_place_and_make_nothing() {
    let scratch = Scratch::new();
    let job = word_count(&scratch);
    for (file, flags, variables, said) in [
        ("keeep = 7", &[][..], &[][..], "millstream.toml:1: there is no setting `keeep`; did you mean `keep`?"),
        ("\nkeep = 0", &[], &[], "millstream.toml:2: keep: `0` is not what it takes: a number from 1 on is wanted"),
        ("keep =", &[], &[], "millstream.toml:1: this is no TOML"),
        (
            "[pipeline]\nraet = 1",
            &[],
            &[],
            "millstream.toml:2: the pipeline has no setting `raet`; did you mean `rate`?",
        ),
        ("[pipeline]\nrate = 'x'", &[], &[], "millstream.toml:2: the setting `rate` of the pipeline does not fit"),
        ("", &["--set", "raet=1"], &[], "--set: the pipeline has no setting `raet`"),
        ("", &["--set", "rate=x"], &[], "--set: the setting `rate` of the pipeline does not fit"),
        ("", &[], &[("MILLSTREAM_KEEEP", "1")], "the variable MILLSTREAM_KEEEP of the environment"),
        ("", &[], &[("MILLSTREAM_KEEP", "few")], "MILLSTREAM_KEEP: `few` is not what it takes"),
        ("", &["--restart-pause", "5"], &[], "--restart-pause: `5` is not what it takes: a time with its unit"),
    ] {
        std::fs::write(scratch.join("millstream.toml"), file).unwrap();
        let line = ["run", "--input", "input", "--output", "output"];
        job.call(&[&line[..], flags].concat(), variables).expect(2, &[said]);
        assert!(!scratch.join("millstream-data").exists() && !job.output().exists(), "{said}");
    }
    job.call(&["run", "--config", "nowhere.toml"], &[]).expect(1, &["configuration file nowhere.toml"]);
}

#[derive(Clone, Serialize, Deserialize)]
struct Access {
    user: String,
    password: Secret,
}

/// A job that needs its password for every record, and writes how long it is.
fn with_password(scratch: &Scratch, password: Secret) -> (Job, millstream::sinks::Seen<usize>) {
    let (sink, seen) = Collected::new();
    let topology = move |t: &Topology| {
        let Access { user, password } = t.config()?;
        assert_eq!((user.as_str(), password.to_string().as_str()), ("me", "***"));
        let numbers = t.source("numbers", Records::of(0..10u64));
        numbers.try_map(move |_| Ok(password.reveal()?.len())).sink("out", sink.clone());
        Ok(())
    };
    (crate::common::job(scratch, topology).config(Access { user: "me".into(), password }), seen)
}

#[test]
fn a_secret_is_used_and_not_written() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("password"), "correct horse\n").unwrap();
    let (job, seen) = with_password(&scratch, Secret::file(scratch.join("password")));
    assert!(!format!("{job:?}").contains("horse"));
    job.run().unwrap();
    assert_eq!(seen.take(), [13; 10]);
    let mut files = vec![scratch.join("data")];
    let mut read = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(names(&path).iter().map(|name| path.join(name)));
        } else {
            let content = std::fs::read(&path).unwrap();
            assert!(!content.windows(5).any(|part| part == b"horse"), "{}", path.display());
            read += 1;
        }
    }
    assert!(read > 2, "manifests were looked at");
}

#[test]
fn a_missing_secret_is_known_before_anything_is_done() {
    let scratch = Scratch::new();
    for (secret, said) in [
        (Secret::env("NO_SUCH_PASSWORD"), "variable NO_SUCH_PASSWORD of the environment, which is not set: set it"),
        (Secret::file(scratch.join("nothing")), "nothing: No such file"),
    ] {
        let error = with_password(&scratch, secret).0.run().unwrap_err();
        assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Usage, 2), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(!scratch.join("data").exists());
    }
}

#[test]
fn a_program_that_embeds_a_job_may_load_a_file() {
    let scratch = Scratch::new();
    let path = scratch.join("a.toml");
    std::fs::write(&path, "data_dir = 3\n").unwrap();
    let topology = |_: &Topology| Ok(());
    let load = || Job::new("test", topology).keep(2).load_config(Some(&path)).map_err(|e| (e.kind(), e.to_string()));
    let _ = load().unwrap();
    std::fs::write(&path, "\n[pipeline]\nrate = 3\n").unwrap();
    let error = load().unwrap().data_dir(scratch.join("data")).run().unwrap_err().to_string();
    assert!(error.contains("a.toml:3: the pipeline has no setting `rate`"), "{error}");
    std::fs::write(&path, "kepp = 3\n").unwrap();
    let (kind, text) = load().unwrap_err();
    assert!(kind == ErrorKind::Usage && text.contains("a.toml:1: there is no setting `kepp`"), "{text}");
}
