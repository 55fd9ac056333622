//! Consumer groups by the classic protocol (and what is asked of groups of either), at the coordinator that gRPC uses too. What members tell each other
//! (subscriptions, assignments) is passed through: the SDK writes Kafka's own format, so members of both kinds
//! share a group.

use super::{NO_OPERATIONS, NONE, Node, node_of, text};
use crate::error::ServeError;
use crate::front::kafka::codes::group_code;
use crate::front::kafka::dispatch::Call;
use bytes::Bytes;
use kafka_protocol::error::ResponseError::{
    CoordinatorNotAvailable, GroupIdNotFound, InvalidGroupId, InvalidRequest,
    TransactionalIdAuthorizationFailed,
};
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use strandline_core::group::{GroupError, GroupPhase, JoinRequest, SyncRequest};
use strandline_metadata::Rejection;
use strandline_record::Generation;

/// From this version one request names several groups.
const SEVERAL_KEYS: i16 = 4;
/// From this version a new member is told its id first (KIP-394).
const MEMBER_ID_FIRST: i16 = 4;
/// From this version a static leader may be told to skip the assignment (KIP-814).
const MAY_SKIP_ASSIGNMENT: i16 = 9;
/// From this version protocol names may be null in answers.
const NULL_PROTOCOL: i16 = 7;
/// From this version several members leave at once.
const SEVERAL_MEMBERS: i16 = 3;
/// From this version a group that is not there is an error.
const GROUP_NOT_FOUND: i16 = 6;
const CLASSIC: &str = "classic";
const CONSUMER: &str = "consumer";

fn shared(text: &StrBytes) -> Arc<str> {
    Arc::from(&**text)
}

fn instance_of(text: &Option<StrBytes>) -> Option<Arc<str>> {
    text.as_ref().map(shared)
}

fn bytes_of(bytes: &Arc<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub fn find_coordinator(call: &Call, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
    let one = |key: &StrBytes| coordinator_of(call, key, request.key_type);
    if call.version >= SEVERAL_KEYS {
        let coordinators = request.coordinator_keys.iter().map(one);
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    let found = one(&request.key);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn coordinator_of(call: &Call, key: &StrBytes, kind: i8) -> Coordinator {
    const GROUP: i8 = 0;
    const TRANSACTION: i8 = 1;
    let refused = |code, why: &str| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code)
            .with_error_message(Some(text(why)))
    };
    match kind {
        GROUP if key.is_empty() => return refused(InvalidGroupId.code(), "a group id is not empty"),
        GROUP => {}
        // This code ends a client at once, where others make it ask for ever.
        TRANSACTION => {
            return refused(TransactionalIdAuthorizationFailed.code(), "there are no transactions");
        }
        _ => return refused(InvalidRequest.code(), "only groups have coordinators"),
    }
    let image = call.context().image();
    let broker = call.front.groups.coordinator(key).and_then(|id| image.broker(id));
    match broker.and_then(|broker| node_of(broker)) {
        Some(Node { id, host, port, .. }) => {
            Coordinator::default().with_key(key.clone()).with_node_id(id).with_host(host).with_port(port)
        }
        None => refused(CoordinatorNotAvailable.code(), "no broker is ready to coordinate groups"),
    }
}

fn millis(wire: i32) -> u32 {
    u32::try_from(wire).unwrap_or(0)
}

pub async fn join(call: &Call, request: JoinGroupRequest) -> JoinGroupResponse {
    let instance_id = instance_of(&request.group_instance_id);
    let stem = instance_id.as_ref().unwrap_or(&call.client_id);
    let fresh_id: Arc<str> = format!("{stem}-{}", call.context().fresh_uuid()).into();
    let asked = request.member_id.clone();
    let join = JoinRequest {
        member_id: shared(&request.member_id),
        instance_id,
        client_id: call.client_id.clone(),
        client_host: call.host.clone(),
        session_timeout_ms: millis(request.session_timeout_ms),
        rebalance_timeout_ms: millis(request.rebalance_timeout_ms),
        protocol_type: shared(&request.protocol_type),
        protocols: request.protocols.iter().map(|p| (shared(&p.name), p.metadata[..].into())).collect(),
        require_known_member_id: call.version >= MEMBER_ID_FIRST,
        can_skip_assignment: call.version >= MAY_SKIP_ASSIGNMENT,
        fresh_id,
    };
    let joined = match request.group_id.is_empty() {
        true => Err(ServeError::Rejected(Rejection::InvalidName(String::new()))),
        false => call.front.groups.join(&request.group_id, join).await,
    };
    match joined {
        Ok(answer) => JoinGroupResponse::default()
            .with_error_code(NONE)
            .with_generation_id(answer.generation.0)
            .with_protocol_type((call.version >= NULL_PROTOCOL).then(|| text(&answer.protocol_type)))
            .with_protocol_name(Some(text(&answer.protocol)))
            .with_leader(text(&answer.leader))
            .with_skip_assignment(answer.skip_assignment)
            .with_member_id(text(&answer.member_id))
            .with_members(
                answer
                    .members
                    .into_iter()
                    .map(|member| {
                        JoinGroupResponseMember::default()
                            .with_member_id(text(&member.member_id))
                            .with_group_instance_id(member.instance_id.as_deref().map(text))
                            .with_metadata(bytes_of(&member.metadata))
                    })
                    .collect(),
            ),
        Err(error) => {
            let member_id = match &error {
                ServeError::Group(GroupError::MemberIdRequired { member_id }) => text(member_id),
                _ => asked,
            };
            JoinGroupResponse::default()
                .with_error_code(group_code(&error))
                .with_generation_id(-1)
                .with_protocol_name((call.version < NULL_PROTOCOL).then(StrBytes::default))
                .with_member_id(member_id)
        }
    }
}

pub async fn sync(call: &Call, request: SyncGroupRequest) -> SyncGroupResponse {
    let sync = SyncRequest {
        member_id: shared(&request.member_id),
        instance_id: instance_of(&request.group_instance_id),
        generation: Generation(request.generation_id),
        protocol_type: instance_of(&request.protocol_type),
        protocol: instance_of(&request.protocol_name),
        assignments: request
            .assignments
            .iter()
            .map(|a| (shared(&a.member_id), a.assignment[..].into()))
            .collect(),
    };
    match call.front.groups.sync(&request.group_id, sync).await {
        Ok(answer) => SyncGroupResponse::default()
            .with_error_code(NONE)
            .with_protocol_type(Some(text(&answer.protocol_type)))
            .with_protocol_name(Some(text(&answer.protocol)))
            .with_assignment(bytes_of(&answer.assignment)),
        Err(error) => SyncGroupResponse::default().with_error_code(group_code(&error)),
    }
}

pub fn heartbeat(call: &Call, request: &HeartbeatRequest) -> HeartbeatResponse {
    let beat = call.front.groups.heartbeat(
        &request.group_id,
        &request.member_id,
        request.group_instance_id.as_deref(),
        Generation(request.generation_id),
    );
    HeartbeatResponse::default().with_error_code(beat.err().map_or(NONE, |error| group_code(&error)))
}

pub fn leave(call: &Call, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let leave = |member: &StrBytes, instance: Option<&str>| {
        let left = call.front.groups.leave(&request.group_id, &shared(member), instance);
        left.err()
    };
    if call.version < SEVERAL_MEMBERS {
        let left = leave(&request.member_id, None);
        return LeaveGroupResponse::default().with_error_code(left.map_or(NONE, |e| group_code(&e)));
    }
    let mut response = LeaveGroupResponse::default();
    for member in &request.members {
        let left = leave(&member.member_id, member.group_instance_id.as_deref());
        if let Some(error @ (ServeError::NotCoordinator(_) | ServeError::ClusterNotReady(_))) = &left {
            return LeaveGroupResponse::default().with_error_code(group_code(error));
        }
        response.members.push(
            MemberResponse::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(left.map_or(NONE, |error| group_code(&error))),
        );
    }
    response
}

pub async fn describe(call: &Call, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let current = call.context().linearize().await;
    let groups = request.groups.into_iter().map(|group| match &current {
        Ok(()) => described(call, group),
        Err(error) => described_error(group, group_code(error), None),
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn described_error(group: GroupId, code: i16, message: Option<StrBytes>) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(group)
        .with_error_code(code)
        .with_error_message(message)
        .with_group_state(text(GroupPhase::Dead.as_str()))
        .with_authorized_operations(NO_OPERATIONS)
}

fn described(call: &Call, group: GroupId) -> DescribedGroup {
    let description = match call.front.groups.describe(&group) {
        Ok(description) => description,
        Err(error) => return described_error(group, group_code(&error), None),
    };
    // Kafka's "Dead": neither members nor anything agreed.
    if description.phase == GroupPhase::Dead {
        return match call.version >= GROUP_NOT_FOUND {
            true => {
                let message = format!("there is no group {}", &**group);
                described_error(group, GroupIdNotFound.code(), Some(text(&message)))
            }
            false => described_error(group, NONE, None),
        };
    }
    let members = description.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().filter(|_| call.version >= 4).map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(bytes_of(&member.metadata))
            .with_member_assignment(bytes_of(&member.assignment))
    });
    DescribedGroup::default()
        .with_error_code(NONE)
        .with_group_id(group)
        .with_group_state(text(description.phase.as_str()))
        .with_protocol_type(text(&description.protocol_type))
        .with_protocol_data(text(&description.protocol))
        .with_members(members.collect())
        .with_authorized_operations(NO_OPERATIONS)
}

/// The groups that this node coordinates: clients ask every broker and put the answers together.
pub async fn list(call: &Call, request: &ListGroupsRequest) -> ListGroupsResponse {
    if let Err(error) = call.context().linearize().await {
        return ListGroupsResponse::default().with_error_code(group_code(&error));
    }
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|name| name.eq_ignore_ascii_case(value))
    };
    let groups = &call.front.groups;
    let mine =
        groups.list().into_iter().filter(|(name, ..)| groups.coordinator(name) == Some(call.context().id));
    let listed = mine.filter_map(|(name, agreed, protocol_type)| {
        // A rebalance under way is known only here.
        let phase = groups.describe(&name).map_or(agreed, |described| described.phase);
        let kind = if groups.is_consumer_protocol(&name) { CONSUMER } else { CLASSIC };
        if !wanted(&request.states_filter, phase.as_str()) || !wanted(&request.types_filter, kind) {
            return None;
        }
        let group = ListedGroup::default().with_group_id(GroupId(text(&name)));
        let group = group.with_protocol_type(text(&protocol_type));
        let group = if call.version >= 4 { group.with_group_state(text(phase.as_str())) } else { group };
        Some(if call.version >= 5 { group.with_group_type(text(kind)) } else { group })
    });
    ListGroupsResponse::default().with_error_code(NONE).with_groups(listed.collect())
}

pub async fn delete(call: &Call, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for group in request.groups_names {
        let deleted = call.front.groups.delete(&group).await;
        let code = deleted.err().map_or(NONE, |error| group_code(&error));
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
