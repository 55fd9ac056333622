//! Consumer groups and their committed offsets.

use super::Admin;
use crate::call::{Repeat, Via};
use crate::error::{Error, Result};
use crate::types::{OffsetAndMetadata, OffsetSpec, TopicPartition, id_bytes, id_from};
use bytes::Bytes;
use std::collections::BTreeMap;
use strandline_wire::assign;
use strandline_wire::v1;

/// A group in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Group id.
    pub group: String,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
    pub state: String,
    /// `consumer` for groups of consumers.
    pub protocol_type: String,
}

/// A group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Group id.
    pub group: String,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
    pub state: String,
    /// +1 at every completed rebalance.
    pub generation: i32,
    /// `consumer` for groups of consumers.
    pub protocol_type: String,
    /// Assignor in use; empty before the first assignment.
    pub protocol: String,
    /// Broker that coordinates it.
    pub coordinator: u64,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Id that the coordinator gave it.
    pub member_id: String,
    /// Id of a static member, which keeps its partitions over a restart.
    pub instance_id: Option<String>,
    /// What the application calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Partitions that it owns, where the group's protocol is `consumer`.
    pub partitions: Vec<TopicPartition>,
}

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Next offset to read, with what was committed beside it.
    pub position: OffsetAndMetadata,
    /// Milliseconds since the Unix epoch; -1 if not known.
    pub commit_time_ms: i64,
}

impl Admin {
    /// Every group of the cluster.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>> {
        let answer = self
            .client
            .inner
            .call("list groups".to_owned(), Via::Any, Repeat::Read, |mut wire, _| {
                Box::pin(async move { wire.list_groups(v1::ListGroupsRequest {}).await })
            })
            .await?;
        let mut groups: Vec<_> = answer
            .groups
            .into_iter()
            .map(|g| GroupListing { group: g.group, state: g.state, protocol_type: g.protocol_type })
            .collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// One group, with its members and what they own.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let answer = self
            .client
            .inner
            .call(format!("describe group {group}"), Via::Coordinator(group), Repeat::Read, |mut wire, _| {
                let request = v1::DescribeGroupRequest { group: group.to_owned() };
                Box::pin(async move { wire.describe_group(request).await })
            })
            .await?;
        let consumers = answer.protocol_type == "consumer";
        let members = answer.members.into_iter().map(|m| GroupMember {
            partitions: if consumers { partitions_of(&m.assignment) } else { Vec::new() },
            member_id: m.member_id,
            instance_id: (!m.instance_id.is_empty()).then_some(m.instance_id),
            client_id: m.client_id,
            client_host: m.client_host,
        });
        Ok(GroupDescription {
            members: members.collect(),
            group: answer.group,
            state: answer.state,
            generation: answer.generation,
            protocol_type: answer.protocol_type,
            protocol: answer.protocol,
            coordinator: answer.coordinator,
        })
    }

    /// Deletes a group without members, with its offsets.
    ///
    /// # Errors
    /// `GROUP_NOT_EMPTY`, `GROUP_NOT_FOUND`.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        self.client
            .inner
            .call(format!("delete group {group}"), Via::Coordinator(group), Repeat::Unsafe, |mut wire, _| {
                let request = v1::DeleteGroupRequest { group: group.to_owned() };
                Box::pin(async move { wire.delete_group(request).await })
            })
            .await
            .map(drop)
    }

    /// Every offset that the group has committed. Topics deleted since are left out.
    pub async fn group_offsets(&self, group: &str) -> Result<BTreeMap<TopicPartition, CommittedOffset>> {
        let inner = &self.client.inner;
        let answer = inner
            .call(
                format!("offsets of group {group}"),
                Via::Coordinator(group),
                Repeat::Read,
                |mut wire, _| {
                    let request =
                        v1::OffsetFetchRequest { group: group.to_owned(), topics: Vec::new(), all: true };
                    Box::pin(async move { wire.offset_fetch(request).await })
                },
            )
            .await?;
        let mut offsets = BTreeMap::new();
        for committed in answer.offsets.into_iter().filter(|o| o.offset >= 0) {
            let Some(id) = id_from(&committed.topic_id) else { continue };
            let Some(topic) = inner.topic_by_id(id).await? else { continue };
            let tp = TopicPartition { topic: topic.name.clone(), partition: committed.partition };
            offsets.insert(
                tp,
                CommittedOffset {
                    commit_time_ms: committed.commit_time_ms,
                    position: OffsetAndMetadata {
                        offset: committed.offset,
                        leader_epoch: (committed.leader_epoch >= 0).then_some(committed.leader_epoch),
                        metadata: committed.metadata,
                    },
                },
            );
        }
        Ok(offsets)
    }

    /// Commits offsets for a group without members.
    ///
    /// # Errors
    /// `GROUP_NOT_EMPTY` while it has members.
    pub async fn set_group_offsets(
        &self,
        group: &str,
        offsets: BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<()> {
        let committed = self.client.inner.commit_offsets(group, -1, "", "", &offsets).await;
        committed.map_err(|error| error.of_no_member(group))
    }

    /// Sets a group without members to a place in every partition of `topic`. Returns the offsets committed.
    pub async fn reset_group_offsets(
        &self,
        group: &str,
        topic: &str,
        to: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let described = self.describe_topic(topic).await?;
        let partitions =
            (0..described.partitions.len() as i32).map(|p| TopicPartition::new(described.name.clone(), p));
        self.reset_group_partitions(group, partitions.collect(), to).await
    }

    /// The same for chosen partitions. An offset outside a partition is moved to its nearer end.
    pub async fn reset_group_partitions(
        &self,
        group: &str,
        partitions: Vec<TopicPartition>,
        to: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let all = |spec| partitions.iter().map(move |tp| (tp.clone(), spec)).collect::<Vec<_>>();
        let found = self.list_offsets(all(to)).await?;
        let ends = self.list_offsets(all(OffsetSpec::Latest)).await?;
        let starts = match to {
            OffsetSpec::Offset(_) => self.list_offsets(all(OffsetSpec::Earliest)).await?,
            _ => BTreeMap::new(),
        };
        let mut offsets = BTreeMap::new();
        for tp in &partitions {
            let end = ends[tp].offset.unwrap_or(0);
            let start = starts.get(tp).and_then(|l| l.offset).unwrap_or(0);
            // No record at or after the timestamp: everything is read.
            offsets.insert(tp.clone(), found[tp].offset.unwrap_or(end).clamp(start, end.max(start)));
        }
        let commits =
            offsets.iter().map(|(tp, offset)| (tp.clone(), OffsetAndMetadata::new(*offset))).collect();
        self.set_group_offsets(group, commits).await?;
        Ok(offsets)
    }

    /// Forgets what a group has committed for these partitions.
    pub async fn delete_group_offsets(&self, group: &str, partitions: Vec<TopicPartition>) -> Result<()> {
        let topics = self.client.inner.by_topic_id(&partitions).await?;
        self.client
            .inner
            .call(
                format!("delete offsets of group {group}"),
                Via::Coordinator(group),
                Repeat::Safe,
                |mut wire, _| {
                    let request =
                        v1::DeleteOffsetsRequest { group: group.to_owned(), topics: topics.clone() };
                    Box::pin(async move { wire.delete_offsets(request).await })
                },
            )
            .await
            .map(drop)
    }
}

fn partitions_of(assignment: &Bytes) -> Vec<TopicPartition> {
    match assign::Assignment::decode(assignment) {
        Ok(assignment) => {
            assignment.partitions.into_iter().map(|(topic, p)| TopicPartition::new(topic, p)).collect()
        }
        Err(_) => Vec::new(),
    }
}

impl crate::inner::Inner {
    /// Groups partitions by topic id, as requests name them.
    pub(crate) async fn by_topic_id(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<v1::TopicPartitions>> {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for tp in partitions {
            by_topic.entry(&tp.topic).or_default().push(tp.partition);
        }
        let mut topics = Vec::with_capacity(by_topic.len());
        for (name, partitions) in by_topic {
            let topic = self.topic(name, false).await?;
            topics.push(v1::TopicPartitions { topic_id: id_bytes(topic.id), partitions });
        }
        Ok(topics)
    }

    /// What a group has committed for these partitions; those without a commit are left out.
    pub(crate) async fn fetch_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        let topics = self.by_topic_id(partitions).await?;
        let answer = self
            .call(
                format!("offsets of group {group}"),
                Via::Coordinator(group),
                Repeat::Read,
                |mut wire, _| {
                    let request = v1::OffsetFetchRequest {
                        group: group.to_owned(),
                        topics: topics.clone(),
                        all: false,
                    };
                    Box::pin(async move { wire.offset_fetch(request).await })
                },
            )
            .await?;
        let mut offsets = BTreeMap::new();
        for committed in answer.offsets.into_iter().filter(|o| o.offset >= 0) {
            let Some(topic) =
                id_from(&committed.topic_id).and_then(|id| self.metadata.lock().topic_by_id(id))
            else {
                continue;
            };
            let tp = TopicPartition { topic: topic.name.clone(), partition: committed.partition };
            offsets.insert(
                tp,
                OffsetAndMetadata {
                    offset: committed.offset,
                    leader_epoch: (committed.leader_epoch >= 0).then_some(committed.leader_epoch),
                    metadata: committed.metadata,
                },
            );
        }
        Ok(offsets)
    }

    /// Commits, with retries. Committing the same offsets twice comes to the same, so a lost answer is retried.
    pub(crate) async fn commit_offsets(
        &self,
        group: &str,
        generation: i32,
        member_id: &str,
        instance_id: &str,
        offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut partitions = Vec::with_capacity(offsets.len());
        for (tp, offset) in offsets {
            if offset.offset < 0 {
                return Err(Error::invalid(format!("cannot commit offset {} of {tp}", offset.offset)));
            }
            let topic = self.topic(&tp.topic, false).await?;
            partitions.push(v1::OffsetCommitPartition {
                topic_id: id_bytes(topic.id),
                partition: tp.partition,
                offset: offset.offset,
                leader_epoch: offset.leader_epoch.unwrap_or(-1),
                metadata: offset.metadata.clone(),
            });
        }
        let request = v1::OffsetCommitRequest {
            group: group.to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: instance_id.to_owned(),
            partitions,
        };
        let answer = self
            .call(
                format!("commit for group {group}"),
                Via::Coordinator(group),
                Repeat::Safe,
                |mut wire, _| {
                    let request = request.clone();
                    Box::pin(async move { wire.offset_commit(request).await })
                },
            )
            .await?;
        for partition in &answer.partitions {
            if let Some(error) = Error::from_wire(partition.error.as_ref()) {
                return Err(error
                    .context(format_args!("commit for group {group}, partition {}", partition.partition)));
            }
        }
        Ok(())
    }
}
