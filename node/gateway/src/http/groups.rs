//! Consumer groups over HTTP: what they are, what they have committed, and members that this gateway keeps for its
//! clients ([`super::instances`]).

use super::consume::{Records, at_most, held, wait};
use super::extract::{Admitted, Params, Reading, Segments};
use super::problem::Problem;
use crate::app::{AppState, check_topic_name};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_client::{AutoOffsetReset, OffsetAndMetadata, TopicPartition};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// Records of a poll unless said otherwise, and at most.
const DEFAULT_MAX: usize = 100;
const MOST: usize = 10_000;
/// A poll's answer ends with the record that reaches this.
const POLL_BYTES: usize = 1 << 20;
/// What a consumer reads ahead.
const PREFETCH_BYTES: usize = 1 << 20;
const FETCH_BYTES: u32 = 256 << 10;
const MAX_TOPICS: usize = 100;
const MAX_NAME: usize = 249;

#[derive(Serialize, ToSchema)]
pub(crate) struct Groups {
    groups: Vec<GroupEntry>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct GroupEntry {
    group: String,
    state: String,
    protocol_type: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    group: String,
    state: String,
    generation: i32,
    protocol_type: String,
    /// Assignor in use.
    protocol: String,
    /// Node that coordinates it.
    coordinator: u64,
    members: Vec<Member>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Member {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    partitions: Vec<Place>,
}

#[derive(Serialize, ToSchema)]
struct Place {
    topic: String,
    partition: i32,
}

impl From<&TopicPartition> for Place {
    fn from(tp: &TopicPartition) -> Place {
        Place { topic: tp.topic.to_string(), partition: tp.partition }
    }
}

/// Offsets of partitions: the next record to read in each.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Offsets {
    #[serde(default)]
    offsets: Vec<PartitionOffset>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PartitionOffset {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Offsets {
    fn of<'a>(all: impl IntoIterator<Item = (&'a TopicPartition, i64)>) -> Offsets {
        let offset = |(tp, offset): (&TopicPartition, i64)| PartitionOffset {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            offset,
        };
        Offsets { offsets: all.into_iter().map(offset).collect() }
    }

    fn checked(self) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>, Problem> {
        let mut checked = BTreeMap::new();
        for PartitionOffset { topic, partition, offset } in self.offsets {
            check_topic_name(&topic)?;
            if partition < 0 || offset < 0 {
                return Err(Problem::invalid("partition and offset are 0 or more"));
            }
            checked.insert(TopicPartition::new(topic, partition), OffsetAndMetadata::new(offset));
        }
        Ok(checked)
    }
}

/// A member to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Join {
    topics: Vec<String>,
    #[serde(default)]
    auto_offset_reset: Reset,
}

/// Where to begin in partitions of which the group has committed nothing.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Reset {
    #[default]
    Earliest,
    Latest,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Joined {
    group: String,
    consumer: String,
    /// Path of the consumer, on this gateway.
    path: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PollParams {
    /// Most events in the answer; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 10000)]
    max: Option<usize>,
    /// How long to wait, in milliseconds, when there is no event yet; 0 unless said otherwise.
    #[param(maximum = 30000)]
    wait_ms: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct Polled<'a> {
    #[schema(value_type = Vec<super::event::Shown>)]
    events: Records<'a>,
}

pub(super) fn check_group(group: &str) -> Result<(), Problem> {
    match group.is_empty() || group.len() > MAX_NAME || group.chars().any(char::is_control) {
        true => Err(Problem::invalid(format!("a group's name has 1 to {MAX_NAME} characters"))),
        false => Ok(()),
    }
}

/// List the groups
#[utoipa::path(
    get,
    path = "/v1/groups",
    tag = "groups",
    responses(
        (status = 200, description = "Every group", body = Groups),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list(State(app): State<AppState>, _: Reading) -> Result<Json<Groups>, Problem> {
    let groups = app.client.admin().list_groups().await?.into_iter();
    let groups =
        groups.map(|g| GroupEntry { group: g.group, state: g.state, protocol_type: g.protocol_type });
    Ok(Json(Groups { groups: groups.collect() }))
}

/// Show a group with its members and what they own
#[utoipa::path(
    get,
    path = "/v1/groups/{group}",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group")),
    responses(
        (status = 200, description = "The group", body = Group),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn describe(
    State(app): State<AppState>,
    Segments(group): Segments<String>,
    _: Reading,
) -> Result<Json<Group>, Problem> {
    check_group(&group)?;
    let group = app.client.admin().describe_group(&group).await?;
    let members = group.members.into_iter().map(|member| Member {
        member_id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        partitions: member.partitions.iter().map(Place::from).collect(),
    });
    Ok(Json(Group {
        members: members.collect(),
        group: group.group,
        state: group.state,
        generation: group.generation,
        protocol_type: group.protocol_type,
        protocol: group.protocol,
        coordinator: group.coordinator,
    }))
}

/// Delete a group without members, with its offsets
#[utoipa::path(
    delete,
    path = "/v1/groups/{group}",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group")),
    responses(
        (status = 204, description = "Deleted"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Segments(group): Segments<String>,
    _admitted: Admitted,
) -> Result<StatusCode, Problem> {
    check_group(&group)?;
    app.client.admin().delete_group(&group).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Show what a group has committed
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/offsets",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group")),
    responses(
        (status = 200, description = "Next offset to read, by partition", body = Offsets),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn offsets(
    State(app): State<AppState>,
    Segments(group): Segments<String>,
    _: Reading,
) -> Result<Json<Offsets>, Problem> {
    check_group(&group)?;
    let committed = app.client.admin().group_offsets(&group).await?;
    Ok(Json(Offsets::of(committed.iter().map(|(tp, committed)| (tp, committed.position.offset)))))
}

/// Set what a group without members has committed
#[utoipa::path(
    put,
    path = "/v1/groups/{group}/offsets",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group")),
    request_body(content = Offsets),
    responses(
        (status = 200, description = "What is committed now, of the partitions named", body = Offsets),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn set_offsets(
    State(app): State<AppState>,
    Segments(group): Segments<String>,
    admitted: Admitted,
) -> Result<Json<Offsets>, Problem> {
    check_group(&group)?;
    let offsets = admitted.json::<Offsets>()?.checked()?;
    for tp in offsets.keys() {
        let topic = app.topic(&tp.topic).await?;
        if tp.partition as usize >= topic.partitions.len() {
            let detail = format!("topic {} has no partition {}", tp.topic, tp.partition);
            return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-partition", detail));
        }
    }
    let answer = Offsets::of(offsets.iter().map(|(tp, position)| (tp, position.offset)));
    if !offsets.is_empty() {
        app.client.admin().set_group_offsets(&group, offsets).await?;
    }
    Ok(Json(answer))
}

/// Join a group: this gateway keeps a consumer for its client
#[utoipa::path(
    post,
    path = "/v1/groups/{group}/consumers",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group")),
    request_body(content = Join),
    responses(
        (status = 201, description = "Joined; poll at its path, on this gateway", body = Joined),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn join(
    State(app): State<AppState>,
    Segments(group): Segments<String>,
    admitted: Admitted,
) -> Result<Response, Problem> {
    check_group(&group)?;
    let join: Join = admitted.json()?;
    if join.topics.is_empty() || join.topics.len() > MAX_TOPICS {
        return Err(Problem::invalid(format!("topics names 1 to {MAX_TOPICS} topics")));
    }
    for topic in &join.topics {
        app.topic(topic).await?;
    }
    let consumer = app
        .client
        .consumer()
        .group(group.as_str())
        .auto_commit(false)
        .auto_offset_reset(match join.auto_offset_reset {
            Reset::Earliest => AutoOffsetReset::Earliest,
            Reset::Latest => AutoOffsetReset::Latest,
        })
        .prefetch_bytes(PREFETCH_BYTES)
        .fetch_max_bytes(FETCH_BYTES)
        .partition_fetch_bytes(FETCH_BYTES)
        .build()?;
    consumer.subscribe(join.topics)?;
    let id = app.instances.keep(&group, consumer, app.client.now_ms())?;
    let path = format!("/v1/groups/{}/consumers/{id}", encoded(&group));
    let location = path.clone();
    Ok((StatusCode::CREATED, [("location", location)], Json(Joined { group, consumer: id, path }))
        .into_response())
}

/// A segment of a path.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~');
    text.bytes().fold(String::new(), |mut path, byte| {
        match plain(byte) {
            true => path.push(char::from(byte)),
            false => path.push_str(&format!("%{byte:02X}")),
        }
        path
    })
}

/// Read what is next for a consumer
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/consumers/{consumer}/records",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group"), ("consumer" = String, Path, description = "Id that joining gave"), PollParams),
    responses(
        (status = 200, description = "Events of its partitions", body = Polled),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn poll(
    State(app): State<AppState>,
    Segments((group, id)): Segments<(String, String)>,
    Params(params): Params<PollParams>,
    Reading(permit): Reading,
) -> Result<Response, Problem> {
    let max = at_most("max", params.max.unwrap_or(DEFAULT_MAX), MOST)?;
    let wait = wait(params.wait_ms)?;
    let instance = app.instances.get(&group, &id)?;
    let records = instance
        .with(async |consumer| {
            let deadline = Instant::now() + wait;
            let (mut records, mut bytes) = (Vec::new(), 0);
            while records.len() < max && bytes < POLL_BYTES {
                // What is at hand is taken without waiting once there is something.
                let left = match records.is_empty() {
                    true => deadline.saturating_duration_since(Instant::now()),
                    false => Duration::ZERO,
                };
                match consumer.poll(1, left).await {
                    Ok(more) if more.is_empty() => break,
                    Ok(more) => {
                        let size = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, bytes::Bytes::len);
                        bytes += more.iter().map(|r| size(&r.key) + size(&r.value) + 64).sum::<usize>();
                        records.extend(more);
                    }
                    // Those before the error are owed; it comes back with the next poll if it lasts.
                    Err(error) if !records.is_empty() => {
                        tracing::debug!(%error, "a poll ended early");
                        break;
                    }
                    Err(error) => return Err(Problem::from(error)),
                }
            }
            Ok(records)
        })
        .await?;
    Ok(held(&Polled { events: Records { records: &records, place: true } }, permit))
}

/// Commit what was polled, or the offsets named
#[utoipa::path(
    post,
    path = "/v1/groups/{group}/consumers/{consumer}/offsets",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group"), ("consumer" = String, Path, description = "Id that joining gave")),
    request_body(content = Offsets),
    responses(
        (status = 200, description = "What was committed", body = Offsets),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn commit(
    State(app): State<AppState>,
    Segments((group, id)): Segments<(String, String)>,
    admitted: Admitted,
) -> Result<Json<Offsets>, Problem> {
    let given = admitted.json::<Offsets>()?.checked()?;
    let instance = app.instances.get(&group, &id)?;
    let committed = instance
        .with(async |consumer| {
            if given.is_empty() {
                consumer.commit().await?;
                let assigned = consumer.assignment();
                Ok(Offsets::of(assigned.iter().filter_map(|tp| Some((tp, consumer.position(tp)?)))))
            } else {
                consumer.commit_offsets(&given).await?;
                Ok(Offsets::of(given.iter().map(|(tp, position)| (tp, position.offset))))
            }
        })
        .await?;
    Ok(Json(committed))
}

/// Leave the group
#[utoipa::path(
    delete,
    path = "/v1/groups/{group}/consumers/{consumer}",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group"), ("consumer" = String, Path, description = "Id that joining gave")),
    responses(
        (status = 204, description = "Left"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn leave(
    State(app): State<AppState>,
    Segments((group, id)): Segments<(String, String)>,
    _admitted: Admitted,
) -> Result<StatusCode, Problem> {
    app.instances.remove(&group, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
