//! Groups of the consumer protocol (KIP-848): their heartbeats, and how others see them.

use super::cell::{Coordinated, Effects, Waiter};
use super::{GRACE, Groups};
use crate::error::ServeError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use strandline_core::consumer_group::{
    ConsumerGroupDescription, ConsumerGroupError, ConsumerGroupPhase, HeartbeatAnswer, HeartbeatRequest,
    HeartbeatResult,
};
use strandline_core::group::{GroupDescription, GroupError, GroupPhase, MemberDescription, ReplyId};
use strandline_metadata::{ConsumerMember, Image, Partitions};
use strandline_record::Generation;
use strandline_wire::assign::{Assignment, Subscription};
use tokio::sync::oneshot;

/// Clients give up after 30 s (Kafka's `request.timeout.ms`); they hear from us before.
const HEARTBEAT_WAIT: Duration = Duration::from_secs(10);

impl Groups {
    /// ConsumerGroupHeartbeat. [`ConsumerGroupError::OtherProtocol`] if the group has members of the classic
    /// protocol.
    pub async fn consumer_heartbeat(
        self: &Arc<Self>,
        group: &str,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatAnswer, ServeError> {
        let answer = self.ask_consumer_group(group, request)?;
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(HEARTBEAT_WAIT + GRACE, answer) => answer,
            () = self.context.stopping.cancelled() => return Err(ServeError::ShuttingDown),
        };
        match answer {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(ConsumerGroupError::NotCoordinator)) | Err(_)) => Err(self.moved(group)),
            Ok(Ok(Err(error))) => Err(ServeError::ConsumerGroup(error)),
            // It may have been agreed, or be agreed yet: the member asks again, in full.
            Err(_) => Err(ServeError::ClusterNotReady("the group's change is not agreed yet".to_owned())),
        }
    }

    fn ask_consumer_group(
        self: &Arc<Self>,
        group: &str,
        request: HeartbeatRequest,
    ) -> Result<oneshot::Receiver<HeartbeatResult>, ServeError> {
        let reply = ReplyId(self.next_reply.fetch_add(1, Ordering::Relaxed));
        let (tx, rx) = oneshot::channel();
        self.on_cell(group, |cell, state, now| {
            let image = self.image_here()?;
            if let Some(Coordinated::Classic(classic)) = &state.group {
                match (classic.is_idle(), classic.check_empty()) {
                    (true, _) => {}
                    (false, Ok(())) => return Err(changing_hands()),
                    (false, Err(_)) => {
                        return Err(ServeError::ConsumerGroup(ConsumerGroupError::OtherProtocol));
                    }
                }
                let next = Coordinated::consumer(&group.into(), &image, &self.limits, now);
                self.replace(cell, state, next);
            }
            let Some(Coordinated::Consumer(consumers)) = state.group.as_mut() else {
                unreachable!("just made one, and a cell in use has a group")
            };
            let effects = consumers.heartbeat(request, reply, &image, now);
            state.waiting.insert(reply, Waiter::Consumer(tx));
            self.carry_out(cell, state, Effects::Consumer(effects));
            Ok(())
        })??;
        Ok(rx)
    }

    /// A group of the consumer protocol that this node coordinates; `None` if it is not one.
    pub fn describe_consumers(
        self: &Arc<Self>,
        group: &str,
    ) -> Result<Option<ConsumerGroupDescription>, ServeError> {
        self.on_cell(group, |_, state, _| match &state.group {
            Some(Coordinated::Consumer(state)) => {
                Some(state.describe()).filter(|d| d.phase != ConsumerGroupPhase::Dead)
            }
            _ => None,
        })
    }

    /// Whether the agreed group has the consumer protocol.
    pub fn is_consumer_protocol(&self, group: &str) -> bool {
        self.context.image().consumer_groups.get(group).is_some()
    }
}

/// The last member has left or the first is about to join, and that is not agreed yet.
fn changing_hands() -> ServeError {
    ServeError::ClusterNotReady("the group's last change is not agreed yet".to_owned())
}

pub(super) fn phase_of(phase: ConsumerGroupPhase) -> GroupPhase {
    match phase {
        ConsumerGroupPhase::Empty => GroupPhase::Empty,
        ConsumerGroupPhase::Reconciling => GroupPhase::Reconciling,
        ConsumerGroupPhase::Stable => GroupPhase::Stable,
        ConsumerGroupPhase::Dead => GroupPhase::Dead,
    }
}

/// As a classic group would be described, for those who know no other: the group epoch for its generation,
/// the assignor for its protocol, and Kafka's consumer protocol bytes.
pub(super) fn as_classic(description: ConsumerGroupDescription, image: &Image) -> GroupDescription {
    let member = |(id, member): (Arc<str>, Arc<ConsumerMember>)| MemberDescription {
        member_id: id,
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: subscription_bytes(&member),
        assignment: assignment_bytes(&member.assigned, image),
    };
    GroupDescription {
        phase: phase_of(description.phase),
        generation: Generation(description.epoch.0),
        protocol_type: "consumer".into(),
        protocol: if description.members.is_empty() { "".into() } else { description.assignor.name().into() },
        leader: None,
        members: description.members.into_iter().map(member).collect(),
    }
}

fn subscription_bytes(member: &ConsumerMember) -> Arc<[u8]> {
    let topics = member.topics.iter().map(|name| name.to_string()).collect();
    // What does not fit into those bytes is left out of a description.
    Subscription { topics, ..Subscription::default() }.encode().unwrap_or_default().into()
}

fn assignment_bytes(assigned: &Partitions, image: &Image) -> Arc<[u8]> {
    let partitions = assigned
        .iter()
        .filter_map(|tp| Some((image.topics.get(&tp.topic)?.name.to_string(), tp.partition.0)))
        .collect();
    Assignment { partitions, user_data: None }.encode().unwrap_or_default().into()
}

/// Why a classic request to a group of the consumer protocol is refused.
pub(super) fn not_classic(state: Option<&Coordinated>, joins: bool) -> ServeError {
    let has_members = match state {
        Some(Coordinated::Consumer(state)) => {
            !matches!(state.phase(), ConsumerGroupPhase::Empty | ConsumerGroupPhase::Dead)
        }
        _ => true,
    };
    match (joins, has_members) {
        (true, true) => ServeError::Group(GroupError::InconsistentGroupProtocol),
        (true, false) => changing_hands(),
        (false, _) => ServeError::Group(GroupError::UnknownMemberId),
    }
}
