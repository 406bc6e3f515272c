//! What the cluster is asked and told of settings and topics. Blocks, like `client.rs`, and only on threads that
//! `aside` has started: the answers come as futures.

use super::client::{Events, Questions};
use super::outage::Outage;
use super::settings::not_taken;
use millstream_framework::BoxError;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Settings by name; those without a value are left out.
pub(crate) type Values = BTreeMap<String, String>;

/// Asks about settings, makes and deletes topics.
pub(crate) struct Admin(AdminClient<Events>);

impl Admin {
    /// # Errors
    /// [`ErrorKind::Usage`](millstream_framework::ErrorKind::Usage) for settings that librdkafka does not take.
    pub(crate) fn new(config: &ClientConfig, outage: Arc<Outage>) -> Result<Self, BoxError> {
        AdminClient::from_config_and_context(config, Events { outage }).map(Self).map_err(|error| not_taken(&error))
    }

    /// The settings of a topic; none if they may not be asked for, or if there is no such topic.
    pub(crate) fn topic_settings(&self, questions: &Questions<'_>, topic: &str) -> Result<Option<Values>, BoxError> {
        let what = format!("ask for the settings of the topic `{topic}`");
        self.settings(questions, &what, &ResourceSpecifier::Topic(topic))
    }

    /// The settings of a broker; none if they may not be asked for.
    pub(crate) fn broker_settings(&self, questions: &Questions<'_>, broker: i32) -> Result<Option<Values>, BoxError> {
        self.settings(questions, "ask for the settings of a broker", &ResourceSpecifier::Broker(broker))
    }

    fn settings(
        &self,
        questions: &Questions<'_>,
        what: &str,
        of: &ResourceSpecifier<'_>,
    ) -> Result<Option<Values>, BoxError> {
        let all = questions.ask(what, |wait| {
            let found = wait_for(self.0.describe_configs([of], &options(wait)))?;
            match found.into_iter().next() {
                None | Some(Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => Ok(None),
                Some(Err(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic)) => Ok(None),
                Some(Ok(found)) => Ok(Some(found)),
                Some(Err(code)) => Err(KafkaError::AdminOp(code)),
            }
        });
        let values = all?.map(|found: ConfigResource| {
            let values = found.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
            values.collect::<Values>()
        });
        // so the client tells that it is not allowed
        Ok(values.filter(|values| !values.is_empty()))
    }

    /// Makes a topic. The code says why it could not be made: also that it is there already.
    pub(crate) fn make(
        &self,
        questions: &Questions<'_>,
        topic: &str,
        copies: i32,
        settings: &[(&str, String)],
    ) -> Result<Result<(), Code>, BoxError> {
        questions.ask(&format!("make the topic `{topic}`"), |wait| {
            let new = NewTopic::new(topic, 1, TopicReplication::Fixed(copies));
            let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
            let made = wait_for(self.0.create_topics([&new], &options(wait)))?;
            outcome(made.into_iter().map(|one| one.map_err(|(_, code)| code)))
        })
    }

    /// Deletes topics, as far as it can.
    pub(crate) fn delete(&self, questions: &Questions<'_>, topics: &[&str]) -> Result<Result<(), Code>, BoxError> {
        questions.ask("delete topics", |wait| {
            let gone = wait_for(self.0.delete_topics(topics, &options(wait)))?;
            outcome(gone.into_iter().map(|one| one.map_err(|(_, code)| code)))
        })
    }
}

fn options(wait: Duration) -> AdminOptions {
    // making a topic takes longer than answering a question
    let wait = wait.max(Duration::from_secs(5));
    AdminOptions::new().request_timeout(Some(wait)).operation_timeout(Some(wait))
}

/// # Panics
/// Outside of a runtime; see the head of this file.
fn wait_for<F: Future>(answer: F) -> F::Output {
    tokio::runtime::Handle::current().block_on(answer)
}

/// What goes away by itself is an error, to be asked again; all else is an answer.
fn outcome(all: impl Iterator<Item = Result<String, Code>>) -> KafkaResult<Result<(), Code>> {
    for one in all {
        match one {
            Ok(_) => {}
            Err(code @ (Code::NotController | Code::RequestTimedOut | Code::OperationTimedOut)) => {
                return Err(KafkaError::AdminOp(code));
            }
            Err(code) => return Ok(Err(code)),
        }
    }
    Ok(Ok(()))
}
