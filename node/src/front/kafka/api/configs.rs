//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: topics under Kafka's names and with Kafka's defaults;
//! a broker's configuration can be read here and is changed in its file.

use super::cluster::refused;
use super::{Code, NONE, text};
use crate::config::KEYS;
use crate::error::ServeError;
use crate::front::kafka::dispatch::Call;
use kafka_protocol::error::ResponseError::{InvalidConfig, InvalidRequest};
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementallyAltered;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use strandline_metadata::configs::{self, ConfigKind, TOPIC_CONFIGS};
use strandline_metadata::{Rejection, Topic};
use strandline_record::BrokerId;

/// Resource types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from (KIP-226).
pub const DYNAMIC_TOPIC_CONFIG: i8 = 1;
pub const STATIC_BROKER_CONFIG: i8 = 4;
pub const DEFAULT_CONFIG: i8 = 5;

/// Types of values (KIP-569).
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

fn wire_type(name: &str, kind: ConfigKind) -> i8 {
    match kind {
        ConfigKind::Boolean => BOOLEAN,
        ConfigKind::Number { max, .. } if max <= i64::from(i32::MAX) => INT,
        ConfigKind::Number { .. } => LONG,
        ConfigKind::Ratio => DOUBLE,
        ConfigKind::Choice(_) if name == configs::CLEANUP_POLICY => LIST,
        ConfigKind::Choice(_) | ConfigKind::DedupKey => STRING,
    }
}

pub fn describe(call: &Call, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let detail = Detail {
        synonyms: request.include_synonyms,
        types: call.version >= 3,
        documentation: call.version >= 3 && request.include_documentation,
    };
    let results = request.resources.into_iter().map(|resource| {
        let wanted = |name: &str| {
            let keys = resource.configuration_keys.as_ref();
            keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| **key == *name))
        };
        let described = match resource.resource_type {
            TOPIC => describe_topic(call, &resource.resource_name, &detail, wanted),
            BROKER => describe_broker(call, &resource.resource_name, &detail, wanted),
            other => Err((
                InvalidRequest.code(),
                Some(text(&format!("resource type {other} has no configuration"))),
            )),
        };
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match described {
            Ok(configs) => result.with_error_code(NONE).with_configs(configs),
            Err((code, message)) => result.with_error_code(code).with_error_message(message),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// What the client wants to know of each value.
struct Detail {
    synonyms: bool,
    types: bool,
    documentation: bool,
}

type Described = Result<Vec<DescribeConfigsResourceResult>, (Code, Option<StrBytes>)>;

fn describe_topic(call: &Call, name: &str, detail: &Detail, wanted: impl Fn(&str) -> bool) -> Described {
    let image = call.context().image();
    let Some(topic) = image.topic_by_name(name) else {
        return Err(refused(&ServeError::UnknownTopic(name.to_owned())));
    };
    let rows = TOPIC_CONFIGS.iter().filter(|row| wanted(row.name));
    Ok(rows.map(|row| described_key(topic, row, detail)).collect())
}

fn described_key(
    topic: &Topic,
    row: &'static configs::ConfigKey,
    detail: &Detail,
) -> DescribeConfigsResourceResult {
    let set = topic.configs.get(row.name);
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(text(row.name))
        .with_value(Some(text(set.map_or(row.default, |value| value))))
        .with_config_source(if set.is_some() { DYNAMIC_TOPIC_CONFIG } else { DEFAULT_CONFIG });
    if detail.synonyms {
        let synonym = |value: &str, source| {
            let synonym = DescribeConfigsSynonym::default().with_name(text(row.name));
            synonym.with_value(Some(text(value))).with_source(source)
        };
        result.synonyms.extend(set.map(|value| synonym(value, DYNAMIC_TOPIC_CONFIG)));
        result.synonyms.push(synonym(row.default, DEFAULT_CONFIG));
    }
    if detail.types {
        result.config_type = wire_type(row.name, row.kind);
    }
    if detail.documentation {
        result.documentation = Some(text(row.documentation));
    }
    result
}

/// Only this node knows its own configuration; clients ask each broker for its own.
fn describe_broker(call: &Call, name: &str, detail: &Detail, wanted: impl Fn(&str) -> bool) -> Described {
    let own = call.context().id;
    // The empty name stands for the defaults of all brokers, of which there are none.
    if name.is_empty() {
        return Ok(Vec::new());
    }
    if name.parse::<BrokerId>() != Ok(own) {
        let why = format!("this is broker {own}; only it knows its configuration");
        return Err((InvalidRequest.code(), Some(text(&why))));
    }
    let config = &call.context().config;
    let rows = KEYS.iter().filter(|key| wanted(key.name)).map(|key| {
        let value = key.get(config);
        let default = key.default().unwrap_or_default();
        let source = if value == default { DEFAULT_CONFIG } else { STATIC_BROKER_CONFIG };
        let mut result = DescribeConfigsResourceResult::default()
            .with_name(text(key.name))
            .with_value((!value.is_empty()).then(|| text(&value)))
            .with_read_only(true)
            .with_config_source(source);
        if detail.types {
            result.config_type = STRING;
        }
        if detail.documentation {
            result.documentation = Some(text(key.documentation));
        }
        result
    });
    Ok(rows.collect())
}

/// Sets and unsets, or says why not.
type Change = (BTreeMap<String, String>, Vec<String>);

async fn apply(
    call: &Call,
    kind: i8,
    name: &str,
    change: Result<Change, ServeError>,
    validate_only: bool,
) -> (Code, Option<StrBytes>) {
    if kind != TOPIC {
        let why = match kind {
            BROKER => "a broker is configured by its file, environment and flags".to_owned(),
            other => format!("resource type {other} has no configuration"),
        };
        return (if kind == BROKER { InvalidConfig } else { InvalidRequest }.code(), Some(text(&why)));
    }
    let altered = match change {
        Ok((set, unset)) => call.front.controller.alter_topic(name, set, unset, validate_only).await,
        Err(error) => Err(error),
    };
    altered.err().map_or((NONE, None), |error| refused(&error))
}

fn invalid(key: &str, reason: &str) -> ServeError {
    ServeError::Rejected(Rejection::InvalidConfig { key: key.to_owned(), reason: reason.to_owned() })
}

/// Replaces everything that is set; what is not named returns to its default.
pub async fn alter(call: &Call, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut response = AlterConfigsResponse::default();
    for resource in request.resources {
        let image = call.context().image();
        let topic = image.topic_by_name(&resource.resource_name);
        let change = match topic {
            None => Err(ServeError::UnknownTopic(resource.resource_name.to_string())),
            Some(topic) => {
                let set: Result<BTreeMap<String, String>, ServeError> = resource
                    .configs
                    .iter()
                    .map(|config| match &config.value {
                        Some(value) => Ok((config.name.to_string(), value.to_string())),
                        None => Err(invalid(&config.name, "it has no value")),
                    })
                    .collect();
                set.map(|set| {
                    let unset = topic.configs.keys().filter(|key| !set.contains_key(&***key));
                    let unset = unset.map(ToString::to_string).collect();
                    (set, unset)
                })
            }
        };
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        let (code, message) = apply(call, kind, name, change, request.validate_only).await;
        response.responses.push(
            Altered::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    response
}

/// Changes single values (KIP-339).
pub async fn incremental_alter(
    call: &Call,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut response = IncrementalAlterConfigsResponse::default();
    for resource in request.resources {
        let image = call.context().image();
        let topic = image.topic_by_name(&resource.resource_name).map(|topic| &**topic);
        let operations: Vec<Operation<'_>> = resource
            .configs
            .iter()
            .map(|config| (&*config.name, config.config_operation, config.value.as_deref()))
            .collect();
        let change = match topic {
            None => Err(ServeError::UnknownTopic(resource.resource_name.to_string())),
            Some(topic) => changes(topic, &operations),
        };
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        // Nothing of a broker is set here, so there is nothing to clear.
        let clears = kind == BROKER && operations.iter().all(|(_, operation, _)| *operation == DELETE);
        let (code, message) = match clears {
            true => (NONE, None),
            false => apply(call, kind, name, change, request.validate_only).await,
        };
        response.responses.push(
            IncrementallyAltered::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    response
}

/// Key, operation, value.
type Operation<'a> = (&'a str, i8, Option<&'a str>);

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn changes(topic: &Topic, operations: &[Operation<'_>]) -> Result<Change, ServeError> {
    let (mut set, mut unset): Change = Default::default();
    for (key, operation, value) in operations {
        if set.contains_key(*key) || unset.iter().any(|known| known == key) {
            return Err(invalid(key, "it is changed twice"));
        }
        let value = || value.ok_or_else(|| invalid(key, "it has no value"));
        match *operation {
            SET => drop(set.insert((*key).to_owned(), value()?.to_owned())),
            // What does not exist is not set: tools clear Kafka's throttles, whether there are any or not.
            DELETE if configs::find(key).is_err() => {}
            DELETE => unset.push((*key).to_owned()),
            APPEND | SUBTRACT if *key == configs::CLEANUP_POLICY => {
                let now = configs::effective(&topic.configs, key).unwrap_or_default();
                let list = edited(now, value()?, *operation == APPEND);
                set.insert((*key).to_owned(), list);
            }
            APPEND | SUBTRACT => return Err(invalid(key, "it is not a list")),
            other => return Err(ServeError::InvalidRequest(format!("there is no operation {other}"))),
        }
    }
    Ok((set, unset))
}

/// A list with some words more, or some fewer.
fn edited(list: &str, words: &str, append: bool) -> String {
    let split = |text: &str| -> Vec<String> {
        text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
    };
    let (mut list, words) = (split(list), split(words));
    match append {
        true => {
            for word in words {
                if !list.contains(&word) {
                    list.push(word);
                }
            }
        }
        false => list.retain(|word| !words.contains(word)),
    }
    list.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_edited_word_by_word() {
        assert_eq!(edited("delete", "compact", true), "delete,compact");
        assert_eq!(edited("delete", "delete, compact", true), "delete,compact");
        assert_eq!(edited("compact,delete", "compact", false), "delete");
        assert_eq!(edited("delete", "delete", false), "");
    }

    #[test]
    fn types_are_those_that_kafka_has_for_the_same_keys() {
        let of = |name: &str| wire_type(name, configs::find(name).unwrap().kind);
        assert_eq!(of("cleanup.policy"), LIST);
        assert_eq!(of("retention.ms"), LONG);
        assert_eq!(of("retention.bytes"), LONG);
        assert_eq!(of("min.cleanable.dirty.ratio"), DOUBLE);
        assert_eq!(of("segment.bytes"), INT);
        assert_eq!(of("max.message.bytes"), INT);
        assert_eq!(of("min.insync.replicas"), INT);
        assert_eq!(of("compression.type"), STRING);
        assert_eq!(of("unclean.leader.election.enable"), BOOLEAN);
    }
}
