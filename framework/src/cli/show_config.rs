//! `run --show-config`: every setting with its value and where that came from.

use crate::config::SETTINGS;
use crate::values::Origin;
use crate::{Error, Job};
use serde_json::{Value, json};

/// How settings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// A line per setting.
    Text,
    /// For programs.
    Json,
}

/// A setting as it is shown.
struct Line {
    key: String,
    value: Value,
    origin: Origin,
}

/// All settings of a job, its own included.
pub(crate) fn show(job: &Job, form: Form) -> Result<String, Error> {
    let settings: Vec<_> = SETTINGS
        .iter()
        .map(|setting| {
            // numbers and switches are some in JSON, too
            let text = setting.get(&job.settings);
            let value = text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
            Line { key: setting.key.into(), value, origin: job.settings.origin(setting.key) }
        })
        .collect();
    let values = job.values()?;
    let own = |(path, value): (Vec<String>, Value)| {
        let origin = values.origin(&path);
        Line { value: masked(&path, value), key: path.join("."), origin }
    };
    let pipeline: Vec<_> = values.leaves().into_iter().map(own).collect();
    Ok(match form {
        Form::Text => text(&job.name, &settings, &pipeline),
        Form::Json => {
            let all = |lines: &[Line]| lines.iter().map(Line::json).collect::<Vec<_>>();
            format!("{:#}\n", json!({ "job": job.name, "settings": all(&settings), "pipeline": all(&pipeline) }))
        }
    })
}

/// Secrets are references and are shown as such. Of what bears the name of a secret and is none, nothing is shown: it
/// may have been written where it does not belong.
fn masked(path: &[String], value: Value) -> Value {
    const NAMES: [&str; 5] = ["password", "passwd", "secret", "token", "credential"];
    let is_named = path.iter().any(|key| NAMES.iter().any(|name| key.to_lowercase().contains(name)));
    let is_reference = |text: &str| text.starts_with("env:") || text.starts_with("file:");
    let last = path.last().map(String::as_str);
    match value {
        Value::Null => Value::Null,
        Value::String(text) if is_reference(&text) || matches!(last, Some("env" | "file")) => text.into(),
        _ if is_named => "***".into(),
        value => value,
    }
}

impl Line {
    fn json(&self) -> Value {
        let place = (self.origin != Origin::Default).then(|| self.origin.to_string());
        json!({ "key": self.key, "value": self.value, "origin": self.origin.layer(), "place": place })
    }

    fn value(&self) -> String {
        match &self.value {
            Value::Null => "-".into(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

fn text(job: &str, settings: &[Line], pipeline: &[Line]) -> String {
    let all = || settings.iter().chain(pipeline);
    let keys = all().map(|line| line.key.len()).max().unwrap_or(0);
    // one long value is not to push all origins out of sight
    let values = all().map(|line| line.value().chars().count()).filter(|n| *n <= 32).max().unwrap_or(0);
    let line = |line: &Line| format!("{:keys$}  {:values$}  {}\n", line.key, line.value(), line.origin);
    let mut out = format!("# settings of the job {job}: value, and where it comes from\n");
    out.extend(settings.iter().map(line));
    if !pipeline.is_empty() {
        out.push_str("\n# [pipeline]\n");
        out.extend(pipeline.iter().map(line));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_references_and_passwords_are_not_shown() {
        let own = json!({
            "user": "me", "password": "hunter2", "kafka": {"sasl.password": 4711, "token": {"env": "T"}},
            "api_secret": "file:/run/secrets/api", "passwords": ["hunter2"], "secret": null,
        });
        let job = Job::new("test", |_: &crate::Topology| Ok(())).keep(9).config(own);
        for form in [Form::Text, Form::Json] {
            let shown = show(&job, form).unwrap();
            assert!(!shown.contains("hunter2") && !shown.contains("4711"), "{shown}");
            for said in ["me", "***", "file:/run/secrets/api", "keep", "show_config.rs:"] {
                assert!(shown.contains(said), "`{said}` is not in {shown}");
            }
        }
        let shown: Value = serde_json::from_str(&show(&job, Form::Json).unwrap()).unwrap();
        let keep = shown["settings"].as_array().unwrap().iter().find(|line| line["key"] == "keep").unwrap();
        assert_eq!((&keep["value"], &keep["origin"]), (&json!(9), &json!("program")));
        let value = |key: &str| {
            let line = shown["pipeline"].as_array().unwrap().iter().find(|line| line["key"] == key);
            line.map(|line| line["value"].clone())
        };
        let expect = [("kafka.token.env", json!("T")), ("kafka.sasl.password", json!("***")), ("secret", Value::Null)];
        assert_eq!(expect.clone().map(|(key, _)| value(key)), expect.map(|(_, value)| Some(value)));
    }
}
