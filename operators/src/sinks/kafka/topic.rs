//! The progress topic of a job: its name, its settings, and what is refused.

use crate::kafka::admin::{Admin, Values};
use crate::kafka::client::Questions;
use crate::sources::kafka::topics::PROGRESS;
use millstream_framework::{BoxError, Error, ErrorKind, clock};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::time::Duration;

/// How long a name of a topic may be for Kafka.
const NAME_MAX: usize = 249;

/// With so many brokers, decisions survive the loss of one.
const COPIES: usize = 3;

/// How long it may take until a topic that was made is known everywhere.
const SPREADS: Duration = Duration::from_secs(30);

/// How long one that is missing is looked for: what follows from that is final, and a broker that was just started may
/// not know all it has.
const GRACE: Duration = Duration::from_secs(2);

/// The topic of a job.
///
/// # Errors
/// [`ErrorKind::Usage`] for names that are none for Kafka.
pub(super) fn name(job: &str) -> Result<String, Error> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let most = NAME_MAX - PROGRESS.len();
    let wrong = if job.is_empty() || !job.chars().all(is_allowed) {
        "has characters that a topic of Kafka cannot have in its name: use a-z, 0-9, `_`, `-` and `.`".to_owned()
    } else if job.len() > most {
        format!("is too long for the name of a topic of Kafka: use at most {most} characters")
    } else {
        return Ok(format!("{PROGRESS}{job}"));
    };
    Err(Error::new(ErrorKind::Usage, format!("the job's name `{job}` {wrong}")))
}

/// The transactional id of a job: no two jobs have the same, for what follows the name is always the same.
pub(super) fn transactional_id(job: &str) -> String {
    format!("millstream-{job}-0")
}

/// What is to hold of it, with so many brokers; the first three for correctness, the others save room. That there are
/// two copies at least follows from the brokers in sync that a decision waits for.
fn wanted(brokers: usize) -> [(&'static str, String); 5] {
    let in_sync = if brokers >= COPIES { 2 } else { 1 };
    [
        ("cleanup.policy", "compact".into()),
        ("min.insync.replicas", in_sync.to_string()),
        ("unclean.leader.election.enable", "false".into()),
        ("segment.ms", "600000".into()),
        ("segment.bytes", "16777216".into()),
    ]
}

/// What was found.
#[derive(Debug)]
struct Found {
    partitions: usize,
    /// None if they may not be asked for.
    settings: Option<Values>,
}

/// How many brokers the cluster has, and the topic if it is there.
fn find(questions: &Questions<'_>, admin: &Admin, topic: &str) -> Result<(usize, Option<Found>), BoxError> {
    let (brokers, shape) = questions.ask(&format!("look at the topic `{topic}`"), |wait| {
        let metadata = questions.client.fetch_metadata(Some(topic), wait)?;
        let mut shape = None;
        for one in metadata.topics().iter().filter(|one| one.name() == topic) {
            match one.error().map(Code::from) {
                None if one.partitions().is_empty() => {}
                None => shape = Some(one.partitions().len()),
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {}
                Some(code) => return Err(KafkaError::MetadataFetch(code)),
            }
        }
        Ok((metadata.brokers().len(), shape))
    })?;
    let Some(partitions) = shape else { return Ok((brokers, None)) };
    let settings = admin.topic_settings(questions, topic)?;
    Ok((brokers, Some(Found { partitions, settings })))
}

/// Sees to it that the topic is there and is as it must be; false if it is not there and is not to be made.
///
/// # Errors
/// A refusal if it is not as it must be; [`ErrorKind::Usage`] if it cannot be made.
pub(super) fn ensure(
    questions: &Questions<'_>,
    admin: &Admin,
    topic: &str,
    (address, create): (&str, bool),
) -> Result<bool, BoxError> {
    let (until, given_up) = (clock::now() + SPREADS, clock::now() + GRACE);
    let mut was_made = false;
    loop {
        let (brokers, found) = find(questions, admin, topic)?;
        match found {
            Some(found) => {
                check(topic, address, brokers, &found)?;
                return Ok(true);
            }
            None if !create && clock::now() >= given_up => return Ok(false),
            None if !create => std::thread::sleep(Duration::from_millis(100)),
            None if !was_made => {
                make(questions, admin, topic, brokers)?;
                was_made = true;
            }
            None if clock::now() >= until => {
                let text = format!("the topic `{topic}` was made and is not there: start the job again");
                return Err(Error::new(ErrorKind::Failed, text).into());
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
        questions.go_on()?;
    }
}

fn make(questions: &Questions<'_>, admin: &Admin, topic: &str, brokers: usize) -> Result<(), BoxError> {
    let copies = if brokers >= COPIES { COPIES } else { 1 };
    match admin.make(questions, topic, copies as i32, &wanted(brokers))? {
        Ok(()) => {
            tracing::info!(topic, copies, "made the topic for the job's decisions");
            Ok(())
        }
        Err(Code::TopicAlreadyExists) => Ok(()),
        Err(code) => {
            let settings = wanted(brokers).map(|(name, value)| format!("--config {name}={value}"));
            let text = format!(
                "the topic `{topic}` cannot be made: {}. Give this user the right to, or make it yourself: \
                kafka-topics.sh --create --topic {topic} --partitions 1 --replication-factor {copies} {}",
                KafkaError::AdminOp(code),
                settings.join(" ")
            );
            Err(Error::new(ErrorKind::Usage, text).into())
        }
    }
}

/// # Errors
/// A refusal that names the setting, what it must be, and the command that makes it so.
fn check(topic: &str, address: &str, brokers: usize, found: &Found) -> Result<(), Error> {
    let refused =
        |what: String| Err(Error::refused(format!("the topic `{topic}`, where the job's decisions stand, {what}")));
    if found.partitions != 1 {
        return refused(format!(
            "has {} partitions and must have one, since decisions have one order. Partitions cannot be taken away: if \
            no job has decided there, delete it (kafka-topics.sh --bootstrap-server {address} --delete --topic \
            {topic}) and start again; else give the job another name",
            found.partitions
        ));
    }
    let Some(settings) = &found.settings else {
        tracing::warn!(topic, "the settings of this topic may not be read, so they are not checked");
        return Ok(());
    };
    let wanted = wanted(brokers);
    for (name, value) in &wanted[..3] {
        let set = settings.get(*name).map_or("nothing", String::as_str);
        let is_right = match *name {
            "min.insync.replicas" => {
                set.parse::<usize>().is_ok_and(|set| value.parse().is_ok_and(|value| set >= value))
            }
            _ => set == value,
        };
        if !is_right {
            return refused(format!(
                "has `{name}` = `{set}` and must have `{value}`, or decisions can be lost: kafka-configs.sh \
                --bootstrap-server {address} --alter --entity-type topics --entity-name {topic} --add-config \
                {name}={value}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_a_topic_and_an_id_of_its_own() {
        assert_eq!(name("shop.v-2_x").unwrap(), "__millstream_progress_shop.v-2_x");
        assert_eq!(transactional_id("shop"), "millstream-shop-0");
        for (job, said) in [("", "characters"), ("a b", "characters"), ("ä", "characters"), (&"a".repeat(228), "227")]
        {
            let error = name(job).unwrap_err();
            assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(said), "{error}");
        }
        assert_eq!(name(&"a".repeat(227)).unwrap().len(), NAME_MAX);
    }

    fn found(brokers: usize, change: impl FnOnce(&mut Found)) -> Result<(), Error> {
        let settings = wanted(brokers).map(|(name, value)| (name.to_owned(), value)).into();
        let mut found = Found { partitions: 1, settings: Some(settings) };
        change(&mut found);
        check("t", "b:1", brokers, &found)
    }

    #[test]
    fn a_topic_that_could_lose_decisions_is_refused_with_the_command_that_repairs_it() {
        let set = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            move |found: &mut Found| _ = found.settings.as_mut().unwrap().insert(name, value)
        };
        assert!(found(1, |_| ()).is_ok() && found(3, |_| ()).is_ok());
        assert!(found(3, set("min.insync.replicas", "3")).is_ok());
        assert!(found(1, set("segment.ms", "1")).is_ok(), "costs room only");
        assert!(found(1, |found| found.settings = None).is_ok());
        let text = |result: Result<(), Error>| {
            let error = result.expect_err("this is to be refused");
            assert_eq!(error.kind(), ErrorKind::Refused);
            error.to_string()
        };
        let said = text(found(1, set("cleanup.policy", "compact,delete")));
        assert!(said.contains("`cleanup.policy` = `compact,delete`") && said.contains("must have `compact`"), "{said}");
        assert!(said.contains("--entity-name t --add-config cleanup.policy=compact"), "{said}");
        assert!(text(found(3, set("min.insync.replicas", "1"))).contains("must have `2`"));
        assert!(text(found(1, set("unclean.leader.election.enable", "true"))).contains("unclean"));
        assert!(text(found(1, |found| found.partitions = 4)).contains("has 4 partitions"));
    }
}
