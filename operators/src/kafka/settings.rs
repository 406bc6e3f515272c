//! Settings of the client: librdkafka's by name, with what may not be set because the guarantees rest on it, and with
//! secrets, which are never shown.

use super::Cluster;
use millstream_framework::{BoxError, Error, ErrorKind, Secret};
use rdkafka::ClientConfig;
use std::fmt;

/// The value of a setting.
#[derive(Clone)]
pub(crate) enum Value {
    Plain(String),
    Secret(Secret),
}

/// Settings in the order in which they were given; of two with one name the later counts.
#[derive(Clone, Default)]
pub(crate) struct Settings(Vec<(String, Value)>);

impl Settings {
    pub(crate) fn set(&mut self, name: impl Into<String>, value: Value) {
        self.0.push((name.into(), value));
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// These, and then `more`.
    pub(crate) fn and(&self, more: &Self) -> Self {
        Self(self.0.iter().chain(&more.0).cloned().collect())
    }
}

/// By names; values are shown of those only that hold no secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, value)| match value {
            Value::Plain(value) if !is_secret(name) => (name, value.as_str()),
            _ => (name, "***"),
        });
        f.debug_map().entries(shown).finish()
    }
}

/// Whether the value of a setting is nobody's business, however it was given.
fn is_secret(name: &str) -> bool {
    ["password", "secret", "ssl.key", "ssl_key", "sasl.oauthbearer.config", "private.key", "assertion"]
        .iter()
        .any(|part| name.contains(part))
        && !name.ends_with(".location")
}

/// Settings that a source may not have, with the reason. A name with a star at its end stands for all that begin so.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "the brokers are named in `Kafka::new(..)`"),
    ("metadata.broker.list", "the brokers are named in `Kafka::new(..)`"),
    ("group.id", "say `.group(..)`"),
    (
        "enable.auto.commit",
        "offsets are committed once a checkpoint with them is decided; `.commit_offsets(false)` \
        leaves that away",
    ),
    ("auto.commit.interval.ms", "offsets are committed once a checkpoint with them is decided"),
    ("auto.commit.enable", "offsets are committed once a checkpoint with them is decided"),
    ("enable.auto.offset.store", "offsets are kept in checkpoints"),
    ("offset.store.*", "offsets are kept in checkpoints"),
    (
        "auto.offset.reset",
        "say `.from_earliest()` or `.from_latest()` for a job without a checkpoint, and \
        `.when_out_of_range(..)` for offsets that are not there: what skips or repeats records must be meant",
    ),
    (
        "isolation.level",
        "only committed records are read: those of aborted transactions would be counted, and a record \
        that is read before its transaction ends cannot be taken back",
    ),
    ("check.crcs", "records that the network or a disk has damaged must not be processed"),
    ("enable.partition.eof", "the source needs to know where partitions end"),
    ("allow.auto.create.topics", "reading must not make topics: a misspelt name would be one"),
    ("group.instance.id", UNUSED),
    ("group.protocol", UNUSED),
    ("group.remote.assignor", UNUSED),
    ("partition.assignment.strategy", UNUSED),
    ("session.timeout.ms", UNUSED),
    ("heartbeat.interval.ms", UNUSED),
    ("max.poll.interval.ms", UNUSED),
];

const UNUSED: &str =
    "the job deals out partitions itself and is no member of its consumer group, so this would do nothing";

/// Settings that a sink may not have, with the reason.
const REFUSED_OF_SINKS: &[(&str, &str)] = &[
    ("bootstrap.servers", "the brokers are named in `Kafka::new(..)`"),
    ("metadata.broker.list", "the brokers are named in `Kafka::new(..)`"),
    (
        "transactional.id",
        "it is made of the job's name, so that one instance of the job at a time can commit, and no other job does",
    ),
    (
        "transaction.timeout.ms",
        "it follows from the job's `checkpoint_interval` and `checkpoint_timeout`: change those",
    ),
    ("enable.idempotence", "without it the client's own retries write records twice or out of order"),
    ("enable.gapless.guarantee", "a record that cannot be written ends the attempt in any case"),
    ("acks", ALL_ACKS),
    ("request.required.acks", ALL_ACKS),
    ("max.in.flight*", "more than the client allows by itself would break the order of retried records"),
    ("retries", RETRIES),
    ("message.send.max.retries", RETRIES),
    (
        "retry.backoff*",
        "whether a commit was sent more than once is told from how long it took, and that rests on this setting",
    ),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    ("partitioner", "say `.partitioned_by(..)` of the sink"),
    ("delivery.report.only.error", "the sink counts what is on its way by itself"),
    ("queuing.strategy", "records of a partition have to keep their order"),
];

const ALL_ACKS: &str = "a record counts as written when all brokers in sync have it; fewer lose records with a broker";
const RETRIES: &str = "a record that was given up is a failed attempt, and retries cannot write it twice";
const TIMEOUT: &str = "brokers that are away are waited for as long as the job's `checkpoint_timeout` allows";

/// Why a setting is refused.
fn refused(of: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    let found = of.iter().find(|(refused, _)| match refused.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *refused,
    });
    found.map(|(_, why)| *why)
}

/// What a client is for.
#[derive(Debug, Clone)]
pub(crate) struct Purpose<'a> {
    pub(crate) client_id: &'a str,
    /// The group whose offsets it reads or writes.
    pub(crate) group: Option<&'a str>,
    /// How many bytes a queue of messages may have read ahead.
    pub(crate) ahead_bytes: usize,
}

/// The configuration of a client.
///
/// # Errors
/// [`ErrorKind::Usage`] for what may not be set, and for secrets that cannot be read.
pub(crate) fn configure(cluster: &Cluster, more: &Settings, purpose: &Purpose<'_>) -> Result<ClientConfig, BoxError> {
    let kib = (purpose.ahead_bytes / 1024).clamp(64, 2_097_151);
    let defaults = [
        ("client.id", purpose.client_id),
        // bytes are the bound, so records are none
        ("queued.min.messages", "1000000"),
        ("queued.max.messages.kbytes", &kib.to_string()),
        ("fetch.max.bytes", &(kib * 1024).clamp(1 << 20, 50 << 20).to_string()),
        ("fetch.queue.backoff.ms", "20"),
        // so that the end of a partition shows soon
        ("fetch.wait.max.ms", "100"),
        ("reconnect.backoff.max.ms", "1000"),
        ("socket.timeout.ms", "30000"),
        ("log.connection.close", "false"),
    ];
    let fixed = [
        ("bootstrap.servers", &*cluster.brokers),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("check.crcs", "true"),
        ("enable.partition.eof", "true"),
        ("allow.auto.create.topics", "false"),
    ];
    let group = purpose.group.map(|group| ("group.id", group));
    let fixed: Vec<_> = fixed.into_iter().chain(group).collect();
    layered(&defaults, (&cluster.settings.and(more), REFUSED), &fixed)
}

/// The configuration of a producer.
///
/// # Errors
/// As of [`configure`].
pub(crate) fn configure_producer(
    cluster: &Cluster,
    more: &Settings,
    client_id: &str,
) -> Result<ClientConfig, BoxError> {
    let defaults = [
        ("client.id", client_id),
        ("linger.ms", "5"),
        // what may be on its way: a bound of memory, and enough that the network is never idle
        ("queue.buffering.max.messages", "500000"),
        ("queue.buffering.max.kbytes", "131072"),
        ("reconnect.backoff.max.ms", "1000"),
        ("socket.timeout.ms", "30000"),
        ("topic.metadata.refresh.interval.ms", "60000"),
        ("log.connection.close", "false"),
    ];
    let fixed = [
        ("bootstrap.servers", &*cluster.brokers),
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("message.timeout.ms", "0"),
        ("delivery.report.only.error", "true"),
        // as the Java client: by the hash of the key; without a key, batch by batch to any
        ("partitioner", "murmur2_random"),
    ];
    layered(&defaults, (&cluster.settings.and(more), REFUSED_OF_SINKS), &fixed)
}

/// What is set, what the user sets instead, and what nobody can change: `refused` says why.
fn layered(
    defaults: &[(&str, &str)],
    (settings, of): (&Settings, &[(&str, &'static str)]),
    fixed: &[(&str, &str)],
) -> Result<ClientConfig, BoxError> {
    let mut config = ClientConfig::new();
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    for (name, value) in &settings.0 {
        if let Some(why) = refused(of, name) {
            return Err(usage(format!("the Kafka setting `{name}` cannot be set: {why}")));
        }
        match value {
            Value::Plain(value) => config.set(name, value),
            Value::Secret(secret) => config.set(name, secret.reveal()?),
        };
    }
    for (name, value) in fixed {
        config.set(*name, *value);
    }
    Ok(config)
}

/// What librdkafka says of a configuration that it does not take; without the values of secrets.
pub(crate) fn not_taken(error: &rdkafka::error::KafkaError) -> BoxError {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, what, name, _) if is_secret(name) => {
            let what = if what.contains("No such") { "there is no such setting" } else { "its value is not accepted" };
            usage(format!("the Kafka setting `{name}`: {what}"))
        }
        rdkafka::error::KafkaError::ClientConfig(_, what, name, value) => {
            usage(format!("the Kafka setting `{name}` = `{value}`: {what}"))
        }
        rdkafka::error::KafkaError::ClientCreation(what) => {
            usage(format!("the Kafka settings do not go together: {what}"))
        }
        other => usage(format!("the Kafka settings are not accepted: {other}")),
    }
}

fn usage(text: String) -> BoxError {
    Error::new(ErrorKind::Usage, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Kafka;
    use crate::testing::said;

    const PURPOSE: Purpose<'_> = Purpose { client_id: "job", group: Some("g"), ahead_bytes: 1 << 20 };

    fn configured(kafka: &Kafka) -> Result<ClientConfig, BoxError> {
        configure(kafka.cluster(), &Settings::default(), &PURPOSE)
    }

    fn producing(kafka: &Kafka) -> Result<ClientConfig, BoxError> {
        configure_producer(kafka.cluster(), &Settings::default(), "job")
    }

    #[test]
    fn what_the_guarantees_rest_on_cannot_be_set_and_the_reason_is_said() {
        for (name, why) in REFUSED {
            let name = name.replace('*', "method");
            let (kind, text) = said(&configured(&Kafka::new("b:1").set(&name, "x")).unwrap_err());
            assert_eq!(kind, ErrorKind::Usage);
            assert!(text.contains(&name) && text.contains(why), "{text}");
        }
        let config = configured(&Kafka::new("b:1")).unwrap();
        let fixed = ["bootstrap.servers", "isolation.level", "enable.auto.commit", "auto.offset.reset", "group.id"];
        assert_eq!(fixed.map(|name| config.get(name).unwrap()), ["b:1", "read_committed", "false", "error", "g"]);
    }

    #[test]
    fn what_a_sink_rests_on_cannot_be_set_and_the_reason_is_said() {
        for (name, why) in REFUSED_OF_SINKS {
            let name = name.replace('*', ".ms");
            let (kind, text) = said(&producing(&Kafka::new("b:1").set(&name, "1")).unwrap_err());
            assert_eq!(kind, ErrorKind::Usage);
            assert!(text.contains(&name) && text.contains(why), "{text}");
        }
        let config = producing(&Kafka::new("b:1").set("linger.ms", "50").set("compression.type", "zstd")).unwrap();
        let set = ["bootstrap.servers", "enable.idempotence", "acks", "partitioner", "linger.ms", "compression.type"];
        let values = set.map(|name| config.get(name).unwrap());
        assert_eq!(values, ["b:1", "true", "all", "murmur2_random", "50", "zstd"]);
        config.create_native_config().expect("librdkafka takes it");
    }

    #[test]
    fn any_other_setting_is_passed_on_and_the_later_one_counts() {
        let kafka = Kafka::new("b:1").set("client.id", "mine").set("fetch.wait.max.ms", "7");
        let mut more = Settings::default();
        more.set("fetch.wait.max.ms", Value::Plain("8".into()));
        let config = configure(kafka.cluster(), &more, &PURPOSE).unwrap();
        assert_eq!((config.get("client.id"), config.get("fetch.wait.max.ms")), (Some("mine"), Some("8")));
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("1024"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let kafka = Kafka::new("b:1")
            .set("sasl.username", "ann")
            .set("sasl.password", "hunter2")
            .set("ssl.key.location", "/etc/key.pem")
            .secret("sasl.oauthbearer.client.secret", Secret::env("PATH"));
        let shown = format!("{kafka:?}");
        assert!(!shown.contains("hunter2") && !shown.contains(&std::env::var("PATH").unwrap()), "{shown}");
        assert!(shown.contains("ann") && shown.contains("key.pem") && shown.contains("***"), "{shown}");
        let config = configured(&kafka).unwrap();
        assert_eq!(config.get("sasl.password"), Some("hunter2"));
        assert_eq!(config.get("sasl.oauthbearer.client.secret"), Some(&*std::env::var("PATH").unwrap()));
    }

    #[test]
    fn errors_of_settings_name_them_and_no_secret() {
        let said_of = |kafka: Kafka| {
            let error = configured(&kafka).unwrap().create_native_config().err().expect("this is no setting");
            said(&not_taken(&error)).1
        };
        let text = said_of(Kafka::new("b:1").set("fetch.min.byte", "1"));
        assert!(text.contains("`fetch.min.byte`") && text.contains("No such"), "{text}");
        let text = said_of(Kafka::new("b:1").set("fetch.min.bytes", "many"));
        assert!(text.contains("`fetch.min.bytes` = `many`"), "{text}");
        let text = said_of(Kafka::new("b:1").set("my.password", "hunter2"));
        assert!(text.contains("`my.password`") && !text.contains("hunter2"), "{text}");
    }
}
