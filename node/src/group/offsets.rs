//! Committed offsets: commits are judged inside `apply` (generation and member, or an empty group) and
//! answered after it; fetches read an image that is at least as new as every answered commit (I14).

use super::Groups;
use super::cell::Coordinated;
use crate::context::PROPOSE_DEADLINE;
use crate::error::ServeError;
use std::sync::Arc;
use strandline_core::consumer_group::ConsumerGroupError;
use strandline_core::group::GroupError;
use strandline_metadata::{Command, CommittedOffset, GroupEpoch, Rejection};
use strandline_record::{Generation, PartitionId, TopicId, TopicPartition};

/// Partitions in one commit, and bytes of metadata for each (Kafka's `offset.metadata.max.bytes`).
const MAX_OFFSETS: usize = 10_000;
const MAX_METADATA: usize = 4096;

impl Groups {
    /// Commits on behalf of a member (in a group of the consumer protocol `generation` is its epoch), or (without generation and member) of a simple consumer.
    pub async fn commit(
        self: &Arc<Self>,
        group: &str,
        member: &Arc<str>,
        instance: Option<&str>,
        generation: Option<Generation>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), ServeError> {
        if offsets.len() > MAX_OFFSETS {
            return Err(ServeError::InvalidRequest(format!(
                "one commit names at most {MAX_OFFSETS} partitions"
            )));
        }
        if offsets.iter().any(|(_, o)| o.metadata.as_ref().is_some_and(|m| m.len() > MAX_METADATA)) {
            return Err(ServeError::InvalidRequest(format!(
                "offset metadata has at most {MAX_METADATA} bytes"
            )));
        }
        let member = self.on_cell(group, |_, state, now| match state.group.as_mut() {
            Some(Coordinated::Classic(state)) => {
                state.commit_check(member, instance, generation, now).map_err(ServeError::Group)
            }
            Some(Coordinated::Consumer(state)) => {
                let epoch = generation.map(|generation| GroupEpoch(generation.0));
                state.commit_check(member, epoch).map_err(ServeError::ConsumerGroup)
            }
            None => unreachable!("a cell in use has a group"),
        })??;
        if offsets.is_empty() {
            return Ok(());
        }
        let command = Command::CommitOffsets { group: group.into(), member, offsets };
        self.context.propose(command, PROPOSE_DEADLINE).await.map(|_| ()).map_err(|error| match error {
            ServeError::Rejected(Rejection::IllegalGeneration { .. } | Rejection::StaleGeneration(_)) => {
                ServeError::Group(GroupError::IllegalGeneration)
            }
            ServeError::Rejected(Rejection::RebalanceInProgress) => {
                ServeError::Group(GroupError::RebalanceInProgress)
            }
            ServeError::Rejected(Rejection::StaleMemberEpoch { .. }) => {
                ServeError::ConsumerGroup(ConsumerGroupError::StaleMemberEpoch)
            }
            ServeError::Rejected(Rejection::UnknownMember) => ServeError::Group(GroupError::UnknownMemberId),
            other => other,
        })
    }

    /// Committed offsets of some partitions, or of all that the group has.
    pub async fn committed(
        &self,
        group: &str,
        wanted: Option<Vec<TopicPartition>>,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, ServeError> {
        self.context.linearize().await?;
        let image = self.context.image();
        let group: Arc<str> = group.into();
        Ok(match wanted {
            Some(wanted) => wanted
                .into_iter()
                .filter_map(|tp| Some((tp, image.committed_offset(&group, tp)?.clone())))
                .collect(),
            None => {
                let first = TopicPartition { topic: TopicId(uuid::Uuid::nil()), partition: PartitionId(0) };
                image
                    .offsets
                    .range((group.clone(), first)..)
                    .take_while(|((name, _), _)| *name == group)
                    .map(|((_, tp), committed)| (*tp, committed.clone()))
                    .collect()
            }
        })
    }

    /// Forgets a group without members, offsets and all.
    pub async fn delete(self: &Arc<Self>, group: &str) -> Result<(), ServeError> {
        self.context.propose(Command::DeleteGroup { group: group.into() }, PROPOSE_DEADLINE).await.map(|_| ())
    }

    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: Vec<TopicPartition>,
    ) -> Result<(), ServeError> {
        let command = Command::DeleteOffsets { group: group.into(), partitions };
        self.context.propose(command, PROPOSE_DEADLINE).await.map(|_| ())
    }
}
