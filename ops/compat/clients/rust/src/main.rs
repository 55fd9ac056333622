//! Driver of rdkafka (Rust on librdkafka): a line of JSON in, a line out. `ops/compat/README.md` has the protocol.

mod member;
mod produce;

use std::io::{BufRead, Write};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Map, Value, json};

/// What went wrong, or that the client has no such feature.
pub enum Failure {
    NotAvailable(&'static str),
    Error(String),
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Error(error.to_string())
    }
}

pub type Answer = Result<Value, Failure>;

const DEADLINE: Duration = Duration::from_secs(30);

pub fn settings(bootstrap: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", bootstrap);
    settings
}

pub fn text<'a>(request: &'a Value, field: &str) -> &'a str {
    request[field].as_str().unwrap_or_default()
}

fn main() {
    let bootstrap = std::env::args().next_back().unwrap_or_default();
    let mut member = None;
    for line in std::io::stdin().lock().lines() {
        let Ok(request) =
            line.map_err(Failure::from).and_then(|line| Ok(serde_json::from_str::<Value>(&line)?))
        else {
            break;
        };
        let answer = match answer(&bootstrap, &request, &mut member) {
            Ok(answer) => answer,
            Err(Failure::NotAvailable(why)) => json!({ "na": why }),
            Err(Failure::Error(error)) => json!({ "error": error }),
        };
        println!("{answer}");
        let _ = std::io::stdout().flush();
    }
}

fn answer(bootstrap: &str, request: &Value, member: &mut Option<member::Member>) -> Answer {
    let left = || Failure::Error("no member".into());
    match text(request, "do") {
        "version" => Ok(json!({ "version": version() })),
        "create" => create(bootstrap, request),
        "produce" => produce::run(bootstrap, request),
        "join" => {
            *member = Some(member::Member::join(bootstrap, request)?);
            Ok(json!({ "ok": true }))
        }
        "state" => member.as_ref().ok_or_else(left)?.state(),
        "leave" => member.take().ok_or_else(left)?.leave(),
        "lookup" => lookup(bootstrap, request),
        "configs" => configs(bootstrap, request),
        "groups" => groups(bootstrap, request),
        "delete" => delete(bootstrap, request),
        _ => Err(Failure::NotAvailable("none")),
    }
}

fn version() -> String {
    format!("0.39.0 (librdkafka {})", rdkafka::util::get_rdkafka_version().1)
}

/// Runs a call of the administration, which the crate has as futures.
fn administer<T, F>(
    bootstrap: &str,
    work: impl FnOnce(AdminClient<DefaultClientContext>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = settings(bootstrap).create()?;
    runtime.block_on(work(admin))
}

fn each(results: Vec<TopicResult>) -> Result<(), Failure> {
    for result in results {
        result.map_err(|(name, code)| Failure::Error(format!("{name}: {code}")))?;
    }
    Ok(())
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(DEADLINE))
}

fn create(bootstrap: &str, request: &Value) -> Answer {
    let partitions = request["partitions"].as_i64().unwrap_or(1) as i32;
    let replicas = request["replicas"].as_i64().unwrap_or(1) as i32;
    administer(bootstrap, async |admin| {
        let topic = NewTopic::new(text(request, "topic"), partitions, TopicReplication::Fixed(replicas));
        each(admin.create_topics([&topic], &options()).await?)
    })?;
    Ok(json!({ "ok": true }))
}

fn lookup(bootstrap: &str, request: &Value) -> Answer {
    let consumer: BaseConsumer = settings(bootstrap).create()?;
    let topic = text(request, "topic");
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE)?;
    let mut asked = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        let at = Offset::Offset(request["timestamp"].as_i64().unwrap_or(0));
        asked.add_partition_offset(topic, partition.id(), at)?;
    }
    let found = consumer.offsets_for_times(asked, DEADLINE)?;
    let offsets: Map<String, Value> = (found.elements().iter())
        .map(|place| {
            let offset = if let Offset::Offset(offset) = place.offset() { offset } else { -1 };
            (place.partition().to_string(), json!(offset))
        })
        .collect();
    Ok(json!({ "offsets": offsets }))
}

fn configs(bootstrap: &str, request: &Value) -> Answer {
    let (topic, key) = (text(request, "topic"), text(request, "key"));
    administer(bootstrap, async |admin| {
        let resource = ResourceSpecifier::Topic(topic);
        let change = AlterConfig::new(resource).set(key, text(request, "value"));
        for result in admin.alter_configs([&change], &options()).await? {
            result.map_err(|(_, code)| Failure::Error(code.to_string()))?;
        }
        let described = admin.describe_configs([&resource], &options()).await?.remove(0)?;
        let value = described.get(key).and_then(|entry| entry.value.clone());
        Ok(json!({ "value": value }))
    })
}

fn groups(bootstrap: &str, request: &Value) -> Answer {
    let group = text(request, "group");
    let consumer: BaseConsumer = settings(bootstrap).set("group.id", group).create()?;
    let listed = consumer.fetch_group_list(None, DEADLINE)?;
    let state =
        consumer.fetch_group_list(Some(group), DEADLINE)?.groups().first().map(|g| g.state().to_owned());
    let topic = text(request, "topic");
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE)?;
    let mut asked = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        asked.add_partition(topic, partition.id());
    }
    let offsets: Map<String, Value> = (consumer.committed_offsets(asked, DEADLINE)?.elements().iter())
        .filter_map(|place| match place.offset() {
            Offset::Offset(offset) => Some((place.partition().to_string(), json!(offset))),
            _ => None,
        })
        .collect();
    let found = listed.groups().iter().any(|each| each.name() == group);
    Ok(json!({ "listed": found, "state": state, "committed": offsets }))
}

fn delete(bootstrap: &str, request: &Value) -> Answer {
    administer(bootstrap, async |admin| {
        for result in admin.delete_groups(&[text(request, "group")], &options()).await? {
            result.map_err(|(name, code)| Failure::Error(format!("{name}: {code}")))?;
        }
        each(admin.delete_topics(&[text(request, "topic")], &options()).await?)
    })?;
    Ok(json!({ "ok": true }))
}
