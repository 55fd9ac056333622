//! CreateTopics, DeleteTopics, CreatePartitions.

use super::cluster::{refused, twice};
use super::configs::{DEFAULT_CONFIG, DYNAMIC_TOPIC_CONFIG};
use super::{Code, NONE, broker_ids, text, topic_name, topic_of};
use crate::controller::{Created, NewTopic};
use crate::error::ServeError;
use crate::front::kafka::dispatch::Call;
use kafka_protocol::error::ResponseError::UnknownTopicId;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use strandline_metadata::{Rejection, configs};
use strandline_record::BrokerId;
use uuid::Uuid;

/// From this version clients are told how a topic was created.
const TELLS_CONFIGS: i16 = 5;
/// Topics in one request, which are created one after another.
const MAX_TOPICS: usize = 1_000;

/// Names that a request has more than once.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

fn too_many(count: usize) -> Option<ServeError> {
    let why = || format!("one request names at most {MAX_TOPICS} topics");
    (count > MAX_TOPICS).then(|| ServeError::InvalidRequest(why()))
}

pub async fn create_topics(call: &Call, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let repeated = repeated(request.topics.iter().map(|topic| &**topic.name));
    let too_many = too_many(request.topics.len());
    let mut response = CreateTopicsResponse::default();
    for topic in request.topics {
        let result = CreatableTopicResult::default()
            .with_name(topic.name.clone())
            .with_num_partitions(-1)
            .with_replication_factor(-1);
        let fail = |(code, message): (Code, Option<StrBytes>)| {
            result.clone().with_error_code(code).with_error_message(message)
        };
        if repeated.contains(&**topic.name) {
            if !response.topics.iter().any(|done| done.name == topic.name) {
                response.topics.push(fail(twice("the topic")));
            }
            continue;
        }
        let created = match (&too_many, new_topic(&topic, request.validate_only)) {
            (Some(error), _) => Err(error.clone()),
            (None, Err(error)) => Err(error),
            (None, Ok(new)) => call.front.controller.create_topic(new).await,
        };
        response.topics.push(match created {
            Ok(created) => told(call, result, &created),
            Err(error) => fail(refused(&error)),
        });
    }
    response
}

fn new_topic(topic: &CreatableTopic, validate_only: bool) -> Result<NewTopic, ServeError> {
    const DEFAULT: i32 = -1;
    let mut settings = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            return Err(ServeError::Rejected(Rejection::InvalidConfig {
                key: config.name.to_string(),
                reason: "it has no value".to_owned(),
            }));
        };
        settings.insert(config.name.to_string(), value.to_string());
    }
    let assignments = assignments(&topic.assignments)?;
    let (partitions, replication) = (topic.num_partitions, i32::from(topic.replication_factor));
    if assignments.is_some() && (partitions != DEFAULT || replication != DEFAULT) {
        return Err(ServeError::InvalidRequest(
            "a topic has an assignment, or a number of partitions and replicas, not both".to_owned(),
        ));
    }
    Ok(NewTopic {
        name: topic.name.to_string(),
        partitions: (partitions != DEFAULT).then_some(partitions),
        replication: (replication != DEFAULT).then_some(replication),
        assignments,
        configs: settings,
        validate_only,
    })
}

/// Replicas of partition 0, 1, …; every one of them must be there.
fn assignments(wire: &[CreatableReplicaAssignment]) -> Result<Option<Vec<Vec<BrokerId>>>, ServeError> {
    let mut by_number = BTreeMap::new();
    for assignment in wire {
        by_number.insert(assignment.partition_index, broker_ids(&assignment.broker_ids)?);
    }
    let consecutive = by_number.keys().copied().eq(0..wire.len() as i32);
    match (wire.is_empty(), consecutive) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(by_number.into_values().collect())),
        (false, false) => {
            let why = "the assignment must name partitions 0, 1, … once each".to_owned();
            Err(ServeError::Rejected(Rejection::InvalidReplicas(why)))
        }
    }
}

fn told(call: &Call, result: CreatableTopicResult, created: &Created) -> CreatableTopicResult {
    if call.version < TELLS_CONFIGS {
        return result;
    }
    let settings = configs::TOPIC_CONFIGS.iter().map(|row| {
        let set = created.configs.get(row.name);
        CreatableTopicConfigs::default()
            .with_name(text(row.name))
            .with_value(Some(text(set.map_or(row.default, |value| value))))
            .with_config_source(if set.is_some() { DYNAMIC_TOPIC_CONFIG } else { DEFAULT_CONFIG })
    });
    let id = if call.version >= 7 { created.id.0 } else { Uuid::nil() };
    result
        .with_topic_id(id)
        .with_num_partitions(created.partitions)
        .with_replication_factor(i16::try_from(created.replication).unwrap_or(i16::MAX))
        .with_configs(Some(settings.collect()))
}

pub async fn delete_topics(call: &Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name.to_string()), Uuid::nil()));
    let by_state = request.topics.into_iter().map(|t| (t.name.map(|name| name.to_string()), t.topic_id));
    let wanted: Vec<(Option<String>, Uuid)> = by_name.chain(by_state).collect();
    let too_many = too_many(wanted.len());
    let mut response = DeleteTopicsResponse::default();
    for (name, id) in wanted {
        let image = call.context().image();
        let known = topic_of(&image, name.as_deref().unwrap_or_default(), id);
        let result = DeletableTopicResult::default();
        let failed = |code, message: Option<StrBytes>| {
            let message = message.filter(|_| call.version >= 5);
            result
                .clone()
                .with_name(name.as_deref().map(topic_name))
                .with_topic_id(id)
                .with_error_code(code)
                .with_error_message(message)
        };
        let deleted = match (&too_many, known) {
            (Some(error), _) => Err(refused(error)),
            (None, None) if !id.is_nil() => Err((UnknownTopicId.code(), None)),
            (None, None) => Err(refused(&ServeError::UnknownTopic(name.clone().unwrap_or_default()))),
            (None, Some(topic)) => match call.front.controller.delete_topic(&topic.name).await {
                Ok(()) => Ok(topic),
                Err(error) => Err(refused(&error)),
            },
        };
        response.responses.push(match deleted {
            Ok(topic) => {
                let id = if call.version >= 6 { topic.id.0 } else { Uuid::nil() };
                let name = Some(topic_name(&topic.name));
                result.with_name(name).with_topic_id(id).with_error_code(NONE)
            }
            Err((code, message)) => failed(code, message),
        });
    }
    response
}

pub async fn create_partitions(call: &Call, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let repeated = repeated(request.topics.iter().map(|topic| &**topic.name));
    let too_many = too_many(request.topics.len());
    let mut response = CreatePartitionsResponse::default();
    for topic in request.topics {
        let (code, message) = if repeated.contains(&**topic.name) {
            twice("the topic")
        } else {
            let added = match &too_many {
                Some(error) => Err(error.clone()),
                None => add_partitions(call, &topic, request.validate_only).await,
            };
            added.err().map_or((NONE, None), |error| refused(&error))
        };
        response.results.push(
            CreatePartitionsTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code)
                .with_error_message(message),
        );
    }
    response
}

async fn add_partitions(
    call: &Call,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), ServeError> {
    let assignments = match &topic.assignments {
        None => None,
        Some(all) => Some(all.iter().map(|one| broker_ids(&one.broker_ids)).collect::<Result<_, _>>()?),
    };
    call.front.controller.add_partitions(&topic.name, topic.count, assignments, validate_only).await
}
