//! Writes the records of Kafka topics to files, as lines of JSON, each exactly once.
//!
//! Start a broker with `make kafka-up`, make a topic and write something to it with
//! `scripts/kafka.sh tool localhost:PORT console-producer --topic orders`, then run
//! `kafka_files run --brokers localhost:PORT --topic orders --output out`. Kill it at any moment, and stop the broker
//! if you like: what stands in the files in the end is every record once.

use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(clap::Args, Serialize, Deserialize)]
struct Settings {
    /// Brokers of the cluster, HOST:PORT with commas between
    #[arg(long)]
    brokers: String,
    /// A topic; with ^ at its start, a pattern of topics
    #[arg(long)]
    topic: String,
    /// A directory for the results
    #[arg(long)]
    output: PathBuf,
    /// Stop where the topics end now, instead of never
    #[arg(long)]
    until_end: bool,
    /// Log in as this user (SASL PLAIN)
    #[arg(long)]
    user: Option<String>,
    /// The password of the user, as env:NAME or file:PATH
    #[arg(long)]
    password: Option<Secret>,
}

/// A line of the output.
#[derive(Serialize)]
struct Line {
    topic: String,
    partition: i32,
    offset: i64,
    time: Option<Timestamp>,
    key: Option<String>,
    value: String,
}

fn main() -> ExitCode {
    Job::new("kafka_files", topology).settings::<Settings>().main()
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let settings: Settings = t.config()?;
    let topics = match settings.topic.strip_prefix('^') {
        Some(pattern) => Topics::matching(pattern),
        None => Topics::named(settings.topic),
    };
    let mut kafka = Kafka::new(settings.brokers);
    if let (Some(user), Some(password)) = (settings.user, settings.password) {
        kafka = kafka.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", "PLAIN");
        kafka = kafka.set("sasl.username", user).secret("sasl.password", password);
    }
    let mut read = kafka.read(topics);
    if settings.until_end {
        read = read.until_end();
    }
    t.source("records", read.decode(line)).sink("lines", Files::write(settings.output).json());
    Ok(())
}

fn line(record: &KafkaRecord<'_>) -> Result<Line, BoxError> {
    Ok(Line {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        offset: record.offset(),
        time: record.timestamp(),
        key: record.key().map(|_| record.key_text().map(str::to_owned)).transpose()?,
        value: record.text()?.to_owned(),
    })
}
