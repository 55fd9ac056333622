//! One attempt to join a group: JoinGroup, the leader's assignment, SyncGroup.

use super::Shared;
use super::group::Member;
use super::membership::{Cause, Partitions};
use crate::admin::topics::millis;
use crate::error::{Error, ErrorCode, Result};
use crate::types::TopicPartition;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_wire::assign;
use strandline_wire::v1;

const PROTOCOL_TYPE: &str = "consumer";

/// Why an attempt to join came to nothing.
pub(super) enum Setback {
    /// Again, at once or after a delay.
    Again {
        cause: Cause,
        at_once: bool,
    },
    Refused(Error),
    Closing,
}

/// The assignment; and, as leader, the topics that assignments were made from, with their partitions.
type Joined = (Partitions, BTreeMap<String, i32>);

/// Joins and syncs once.
pub(super) async fn join_and_sync(
    shared: &Arc<Shared>,
    topics: &BTreeSet<String>,
    owned: &Partitions,
) -> Result<Joined, Setback> {
    let (inner, options) = (&shared.client.inner, &shared.options);
    let group = options.group.as_deref().expect("a subscription has a group");
    let instance = options.instance_id.clone().unwrap_or_default();
    let address = match inner.coordinator(group).await {
        Ok(address) => address,
        Err(error) => return Err(setback(shared, group, &error)),
    };
    let member = shared.group.member();
    let protocols = options
        .assignors
        .iter()
        .map(|assignor| {
            let generation = (member.generation >= 0).then_some(member.generation);
            let subscription = assign::Subscription {
                topics: topics.iter().cloned().collect(),
                user_data: assignor.rules().subscription_user_data(generation),
                owned_partitions: owned.iter().map(|tp| (tp.topic.to_string(), tp.partition)).collect(),
                generation,
                rack: None,
                instance_id: None,
            };
            let metadata =
                subscription.encode().map_err(|e| Setback::Refused(Error::invalid(e.to_string())))?;
            Ok(v1::GroupProtocol { name: assignor.rules().name().to_owned(), metadata: metadata.into() })
        })
        .collect::<Result<Vec<_>, Setback>>()?;
    let request = v1::JoinGroupRequest {
        group: group.to_owned(),
        member_id: member.id.clone(),
        instance_id: instance.clone(),
        client_id: inner.options.client_id.clone(),
        session_timeout_ms: millis(options.session_timeout),
        rebalance_timeout_ms: millis(options.max_poll_interval),
        protocol_type: PROTOCOL_TYPE.to_owned(),
        protocols,
    };
    // The coordinator answers when all members have joined, or the rebalance time-out is over.
    let patience = options.max_poll_interval + inner.options.request_timeout;
    let mut wire = inner.wire(&address).map_err(Setback::Refused)?;
    let joined = match tokio::time::timeout(patience, wire.join_group(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(setback(shared, group, &Error::from_status(&status, &address))),
        Err(_) => {
            let error = Error::indeterminate(format!("{address} did not answer a join within {patience:?}"));
            return Err(setback(shared, group, &error));
        }
    };
    if let Some(error) = Error::from_wire(joined.error.as_ref()) {
        if error.code() == Some(ErrorCode::MemberIdRequired) && !joined.member_id.is_empty() {
            shared.group.state.lock().member.id = joined.member_id;
            return Err(Setback::Again { cause: Cause::Rebalance, at_once: true });
        }
        return Err(setback(shared, group, &error));
    }
    {
        let mut state = shared.group.state.lock();
        state.member.id.clone_from(&joined.member_id);
        state.member.generation = joined.generation;
    }
    tracing::info!(
        group,
        member = joined.member_id,
        generation = joined.generation,
        leads = joined.leader == joined.member_id,
        "joined"
    );
    let (assignments, watched) = if joined.leader == joined.member_id {
        share_out(shared, &joined).await.map_err(|error| setback(shared, group, &error))?
    } else {
        (Vec::new(), BTreeMap::new())
    };
    let request = v1::SyncGroupRequest {
        group: group.to_owned(),
        generation: joined.generation,
        member_id: joined.member_id.clone(),
        instance_id: instance,
        assignments,
    };
    let synced = inner
        .call_once(&address, patience, |mut wire| Box::pin(async move { wire.sync_group(request).await }))
        .await
        .map_err(|error| setback(shared, group, &error))?;
    let assignment = assign::Assignment::decode(&synced.assignment).map_err(|error| {
        Setback::Refused(Error::protocol(format!(
            "the leader of group {group} sent an assignment that cannot be read: {error}"
        )))
    })?;
    let partitions =
        assignment.partitions.into_iter().map(|(topic, p)| TopicPartition::new(topic, p)).collect();
    Ok((partitions, watched))
}

/// What the leader does: reads the members' subscriptions and shares the partitions out.
async fn share_out(
    shared: &Arc<Shared>,
    joined: &v1::JoinGroupResponse,
) -> Result<(Vec<v1::MemberAssignment>, BTreeMap<String, i32>)> {
    let inner = &shared.client.inner;
    let assignor = assign::assignor(&joined.protocol).ok_or_else(|| {
        Error::protocol(format!(
            "the coordinator chose the assignor {:?}, which nobody here offered",
            joined.protocol
        ))
    })?;
    let mut members = BTreeMap::new();
    for member in &joined.members {
        let mut subscription = assign::Subscription::decode(&member.metadata).map_err(|error| {
            Error::protocol(format!(
                "member {} subscribed in a way that cannot be read: {error}",
                member.member_id
            ))
        })?;
        subscription.instance_id = (!member.instance_id.is_empty()).then(|| member.instance_id.clone());
        members.insert(member.member_id.clone(), subscription);
    }
    let topics: BTreeSet<String> = members.values().flat_map(|s| s.topics.iter().cloned()).collect();
    let names: Vec<String> = topics.iter().cloned().collect();
    inner.refresh(&names).await?;
    let partitions_of =
        |topic: &String| inner.metadata.lock().topic(topic).map_or(0, |t| t.partitions.len() as i32);
    let watched: BTreeMap<String, i32> =
        topics.iter().map(|topic| (topic.clone(), partitions_of(topic))).collect();
    let known = watched.iter().filter(|(_, n)| **n > 0).map(|(topic, n)| (topic.clone(), *n)).collect();
    let mut assignments = Vec::with_capacity(members.len());
    for (member_id, partitions) in assignor.assign(&known, &members) {
        let assignment = assign::Assignment { partitions, user_data: None };
        let bytes = assignment.encode().map_err(|error| Error::invalid(error.to_string()))?;
        assignments.push(v1::MemberAssignment { member_id, assignment: Bytes::from(bytes) });
    }
    Ok((assignments, watched))
}

/// What follows from a failed join or sync.
fn setback(shared: &Shared, group: &str, error: &Error) -> Setback {
    tracing::debug!(group, %error, "not joined yet");
    match error.code() {
        Some(ErrorCode::UnknownMemberId) => {
            let mut state = shared.group.state.lock();
            state.member = Member { id: String::new(), generation: -1, stable: false };
            Setback::Again { cause: Cause::Lost, at_once: true }
        }
        Some(ErrorCode::IllegalGeneration) => {
            shared.group.state.lock().member.generation = -1;
            Setback::Again { cause: Cause::Lost, at_once: true }
        }
        Some(ErrorCode::RebalanceInProgress) => Setback::Again { cause: Cause::Rebalance, at_once: true },
        Some(ErrorCode::MemberIdRequired) => Setback::Again { cause: Cause::Rebalance, at_once: false },
        _ if error.is_retriable() || error.may_have_happened() => {
            shared.client.inner.coordinator_failed(group, error);
            Setback::Again { cause: Cause::Rebalance, at_once: false }
        }
        _ => Setback::Refused(error.clone().context(format_args!("join group {group}"))),
    }
}
