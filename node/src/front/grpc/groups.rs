//! Group requests of the SDK.

use super::{Answer, GrpcFront, convert};
use crate::error::ServeError;
use crate::net::Remote;
use std::sync::Arc;
use strandline_core::group::{GroupError, GroupPhase, JoinRequest, SyncRequest};
use strandline_metadata::{CommittedOffset as Agreed, Rejection};
use strandline_record::{Generation, LeaderEpoch, Offset, PartitionId, TopicPartition};
use strandline_wire::v1::*;
use tonic::{Request, Response};

fn instance(wire: &str) -> Option<Arc<str>> {
    (!wire.is_empty()).then(|| wire.into())
}

pub fn partitions(topics: &[TopicPartitions]) -> Result<Vec<TopicPartition>, ServeError> {
    let mut list = Vec::new();
    for topic in topics {
        let id = convert::topic_id_of(&topic.topic_id)?;
        list.extend(
            topic.partitions.iter().map(|n| TopicPartition { topic: id, partition: PartitionId(*n) }),
        );
    }
    Ok(list)
}

impl GrpcFront {
    pub(super) fn find_coordinator_of(&self, group: &str) -> Answer<FindCoordinatorResponse> {
        let image = self.context().image();
        let found = self.groups.coordinator(group).and_then(|id| image.broker(id));
        Ok(Response::new(match found {
            Some(broker) => FindCoordinatorResponse {
                error: None,
                broker_id: broker.id.0,
                endpoint: broker.endpoints.grpc.to_string(),
            },
            None => {
                let why = ServeError::ClusterNotReady("no broker is ready to coordinate groups".to_owned());
                FindCoordinatorResponse { error: self.error(&why), ..Default::default() }
            }
        }))
    }

    pub(super) async fn join(&self, request: Request<JoinGroupRequest>) -> Answer<JoinGroupResponse> {
        let host =
            request.extensions().get::<Remote>().map(|remote| remote.0.clone()).unwrap_or_else(|| "".into());
        let request = request.into_inner();
        let client_id: Arc<str> = request.client_id.as_str().into();
        let fresh_id: Arc<str> = format!("{client_id}-{}", self.context().fresh_uuid()).into();
        let join = JoinRequest {
            member_id: request.member_id.as_str().into(),
            instance_id: instance(&request.instance_id),
            client_id,
            client_host: host,
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocol_type: request.protocol_type.as_str().into(),
            protocols: request
                .protocols
                .iter()
                .map(|p| (p.name.as_str().into(), p.metadata[..].into()))
                .collect(),
            require_known_member_id: true,
            can_skip_assignment: false,
            fresh_id,
        };
        let asked = request.member_id;
        Ok(Response::new(match self.groups.join(&request.group, join).await {
            Ok(answer) => JoinGroupResponse {
                error: None,
                generation: answer.generation.0,
                protocol: answer.protocol.to_string(),
                leader: answer.leader.to_string(),
                member_id: answer.member_id.to_string(),
                members: answer
                    .members
                    .into_iter()
                    .map(|member| JoinedMember {
                        member_id: member.member_id.to_string(),
                        instance_id: member.instance_id.as_deref().unwrap_or_default().to_owned(),
                        metadata: bytes::Bytes::copy_from_slice(&member.metadata),
                    })
                    .collect(),
            },
            Err(error) => {
                let member_id = match &error {
                    ServeError::Group(GroupError::MemberIdRequired { member_id }) => member_id.to_string(),
                    _ => asked,
                };
                JoinGroupResponse {
                    error: self.error(&error),
                    member_id,
                    generation: -1,
                    ..Default::default()
                }
            }
        }))
    }

    pub(super) async fn sync(&self, request: SyncGroupRequest) -> Answer<SyncGroupResponse> {
        let sync = SyncRequest {
            member_id: request.member_id.as_str().into(),
            instance_id: instance(&request.instance_id),
            generation: Generation(request.generation),
            protocol_type: None,
            protocol: None,
            assignments: request
                .assignments
                .iter()
                .map(|a| (a.member_id.as_str().into(), a.assignment[..].into()))
                .collect(),
        };
        Ok(Response::new(match self.groups.sync(&request.group, sync).await {
            Ok(answer) => SyncGroupResponse {
                error: None,
                assignment: bytes::Bytes::copy_from_slice(&answer.assignment),
                protocol: answer.protocol.to_string(),
            },
            Err(error) => SyncGroupResponse { error: self.error(&error), ..Default::default() },
        }))
    }

    pub(super) fn beat(&self, request: HeartbeatRequest) -> Answer<HeartbeatResponse> {
        let instance = instance(&request.instance_id);
        let generation = Generation(request.generation);
        let beat = self.groups.heartbeat(&request.group, &request.member_id, instance.as_deref(), generation);
        Ok(Response::new(HeartbeatResponse { error: beat.err().and_then(|error| self.error(&error)) }))
    }

    pub(super) fn leave(&self, request: LeaveGroupRequest) -> Answer<LeaveGroupResponse> {
        let (member, instance): (Arc<str>, _) =
            (request.member_id.as_str().into(), instance(&request.instance_id));
        let left = self.groups.leave(&request.group, &member, instance.as_deref());
        Ok(Response::new(LeaveGroupResponse { error: left.err().and_then(|error| self.error(&error)) }))
    }

    pub(super) async fn commit(&self, request: OffsetCommitRequest) -> Answer<OffsetCommitResponse> {
        let image = self.context().image();
        let commit_time_ms = self.context().env.wall_clock_ms();
        let (mut known, mut results) = (Vec::new(), Vec::new());
        for wanted in request.partitions {
            let found = convert::topic_partition(&wanted.topic_id, wanted.partition)
                .and_then(|tp| image.partition(tp).map(|_| tp).ok_or(ServeError::UnknownPartition));
            let error = match found {
                Ok(tp) => {
                    let metadata = (!wanted.metadata.is_empty()).then(|| wanted.metadata.as_str().into());
                    let leader_epoch = convert::epoch_of(wanted.leader_epoch);
                    known.push((
                        tp,
                        Agreed { offset: Offset(wanted.offset), leader_epoch, metadata, commit_time_ms },
                    ));
                    None
                }
                Err(error) => self.error(&error),
            };
            results.push(PartitionError { topic_id: wanted.topic_id, partition: wanted.partition, error });
        }
        let (member, instance): (Arc<str>, _) =
            (request.member_id.as_str().into(), instance(&request.instance_id));
        let generation = (request.generation >= 0).then_some(Generation(request.generation));
        let committed =
            self.groups.commit(&request.group, &member, instance.as_deref(), generation, known).await;
        let error = committed.err().and_then(|error| self.error(&error));
        Ok(Response::new(OffsetCommitResponse { error, partitions: results }))
    }

    pub(super) async fn committed(&self, request: OffsetFetchRequest) -> Answer<OffsetFetchResponse> {
        let wanted = match request.all {
            true => Ok(None),
            false => partitions(&request.topics).map(Some),
        };
        let found = match wanted {
            Ok(wanted) => self.groups.committed(&request.group, wanted).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(match found {
            Ok(offsets) => OffsetFetchResponse {
                error: None,
                offsets: offsets
                    .into_iter()
                    .map(|(tp, committed)| CommittedOffset {
                        topic_id: convert::topic_id_bytes(tp.topic),
                        partition: tp.partition.0,
                        offset: committed.offset.0,
                        leader_epoch: committed.leader_epoch.map_or(-1, LeaderEpoch::get),
                        metadata: committed.metadata.as_deref().unwrap_or_default().to_owned(),
                        commit_time_ms: committed.commit_time_ms,
                    })
                    .collect(),
            },
            Err(error) => OffsetFetchResponse { error: self.error(&error), offsets: Vec::new() },
        }))
    }

    pub(super) async fn list(&self) -> Answer<ListGroupsResponse> {
        if let Err(error) = self.context().linearize().await {
            return Ok(Response::new(ListGroupsResponse { error: self.error(&error), groups: Vec::new() }));
        }
        let groups = self.groups.list().into_iter().map(|(name, phase, protocol_type)| GroupListing {
            group: name.to_string(),
            state: phase.as_str().to_owned(),
            protocol_type: protocol_type.to_string(),
        });
        Ok(Response::new(ListGroupsResponse { error: None, groups: groups.collect() }))
    }

    pub(super) async fn describe(&self, group: &str) -> Answer<DescribeGroupResponse> {
        let described = match self.context().linearize().await {
            Ok(()) => self.groups.describe(group),
            Err(error) => Err(error),
        };
        // Kafka's "Dead": neither members nor anything agreed. A name that was mistyped is the usual cause.
        let described = described.and_then(|description| match description.phase {
            GroupPhase::Dead => Err(ServeError::Rejected(Rejection::UnknownGroup)),
            _ => Ok(description),
        });
        Ok(Response::new(match described {
            Ok(description) => DescribeGroupResponse {
                error: None,
                group: group.to_owned(),
                state: description.phase.as_str().to_owned(),
                generation: description.generation.0,
                protocol_type: description.protocol_type.to_string(),
                protocol: description.protocol.to_string(),
                coordinator: self.context().id.0,
                members: description
                    .members
                    .into_iter()
                    .map(|member| GroupMemberInfo {
                        member_id: member.member_id.to_string(),
                        instance_id: member.instance_id.as_deref().unwrap_or_default().to_owned(),
                        client_id: member.client_id.to_string(),
                        client_host: member.client_host.to_string(),
                        metadata: bytes::Bytes::copy_from_slice(&member.metadata),
                        assignment: bytes::Bytes::copy_from_slice(&member.assignment),
                    })
                    .collect(),
            },
            Err(error) => DescribeGroupResponse {
                error: self.error(&error),
                group: group.to_owned(),
                ..Default::default()
            },
        }))
    }
}
