//! Counts the records of each key, from Kafka topics into a Kafka topic, each exactly once.
//!
//! Start a broker with `make kafka-up`, make two topics, write records with keys to one of them, and run
//! `kafka_count run --brokers localhost:PORT --input-topic words --output-topic counts --data-dir data`. Kill it at any
//! moment and start it again: a consumer with `isolation.level=read_committed` sees every count once and in order.
//!
//! Each output topic is a job of its own, so that one broker can serve several.

use millstream::prelude::*;
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(clap::Args, Serialize, Deserialize)]
struct Settings {
    /// Brokers of the cluster, HOST:PORT with commas between
    #[arg(long)]
    brokers: String,
    /// The topic to read; with ^ at its start, a pattern of topics
    #[arg(long)]
    input_topic: String,
    /// The topic to write to
    #[arg(long)]
    output_topic: String,
    /// Where to stop
    #[arg(long, value_enum, default_value_t = Until::Never)]
    until: Until,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Until {
    /// Where the topics end when the program starts
    End,
    /// Goes on until it is told to stop
    Never,
}

/// What is written: how often a key was seen, and its last value.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Count {
    key: String,
    count: u64,
    last: String,
}

fn main() -> ExitCode {
    Job::new("kafka_count", topology)
        .settings::<Settings>()
        .name_from(|settings: &Settings| format!("kafka_count-{}", settings.output_topic.to_lowercase()))
        .checkpoint_interval(Duration::from_millis(200))
        .main()
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let settings: Settings = t.config()?;
    let kafka = Kafka::new(settings.brokers);
    let topics = match settings.input_topic.strip_prefix('^') {
        Some(pattern) => Topics::matching(pattern),
        None => Topics::named(settings.input_topic),
    };
    let mut read = kafka.read(topics);
    if settings.until == Until::End {
        read = read.until_end();
    }
    t.source("records", read.decode(|record| Ok((record.key_text()?.to_owned(), record.text()?.to_owned()))))
        .key_by(|(key, _)| key)
        .map_with_state("counts", |count: &mut u64, (key, last)| {
            *count += 1;
            Count { key, count: *count, last }
        })
        .map(|count| KafkaMessage::json(&count).key(&count.key))
        .sink("results", kafka.write(settings.output_topic));
    Ok(())
}
