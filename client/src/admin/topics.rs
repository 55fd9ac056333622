//! Topics, their configuration, and what lies in their partitions.

use super::Admin;
use crate::call::{Repeat, Via};
use crate::error::{Error, Result};
use crate::metadata::TopicDescription;
use crate::types::{OffsetSpec, TopicId, TopicPartition, id_bytes, id_from};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_wire::v1;

/// A topic to create.
#[derive(Clone, Debug)]
#[must_use]
pub struct NewTopic {
    name: String,
    partitions: i32,
    replication_factor: i32,
    configs: BTreeMap<String, String>,
    validate_only: bool,
}

impl NewTopic {
    /// A topic with the broker's default number of partitions and replicas.
    pub fn new(name: impl Into<String>) -> Self {
        NewTopic {
            name: name.into(),
            partitions: -1,
            replication_factor: -1,
            configs: BTreeMap::new(),
            validate_only: false,
        }
    }

    /// How many partitions.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// How many copies of each partition.
    pub fn replication_factor(mut self, replicas: i32) -> Self {
        self.replication_factor = replicas;
        self
    }

    /// Sets a configuration key, named as in Kafka (`retention.ms`, `min.insync.replicas`, …).
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(key.into(), value.into());
        self
    }

    /// Only says whether it would be created.
    pub fn validate_only(mut self) -> Self {
        self.validate_only = true;
        self
    }
}

/// What was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its identity; nil if it was only validated.
    pub id: TopicId,
    /// How many partitions it got.
    pub partitions: i32,
    /// How many replicas each got.
    pub replication_factor: i32,
}

/// A configuration key of a topic with its value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Key, as in Kafka.
    pub name: String,
    /// Value in force.
    pub value: String,
    /// Not set on the topic: the broker's default.
    pub is_default: bool,
    /// What it does.
    pub documentation: String,
    /// Type of the value.
    pub value_type: String,
}

/// Answer to a lookup of an [`OffsetSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` if no record is at or after the timestamp asked for.
    pub offset: Option<i64>,
    /// Timestamp of that record, where a timestamp was asked for.
    pub timestamp_ms: Option<i64>,
    /// Leader epoch of that record, where known.
    pub leader_epoch: Option<i32>,
}

impl Admin {
    /// Creates a topic.
    ///
    /// # Errors
    /// `TOPIC_EXISTS`, `INVALID_TOPIC`, `INVALID_PARTITIONS`, `INVALID_REPLICATION_FACTOR`, `INVALID_CONFIG`;
    /// indeterminate if the answer was lost.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<CreatedTopic> {
        let inner = &self.client.inner;
        let timeout = inner.options.request_timeout;
        let request = v1::CreateTopicRequest {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs: topic.configs.into_iter().collect(),
            validate_only: topic.validate_only,
            timeout_ms: millis(timeout),
        };
        let answer = inner
            .call(format!("create topic {}", topic.name), Via::Any, Repeat::Unsafe, |mut wire, _| {
                let request = request.clone();
                Box::pin(async move { wire.create_topic(request).await })
            })
            .await?;
        Ok(CreatedTopic {
            id: id_from(&answer.topic_id).unwrap_or_default(),
            partitions: answer.partitions,
            replication_factor: answer.replication_factor,
        })
    }

    /// Every topic, by name.
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>> {
        let answer = self.metadata(v1::MetadataRequest { all_topics: true, ..Default::default() }).await?;
        let mut topics = answer.topics.iter().map(TopicDescription::parse).collect::<Result<Vec<_>>>()?;
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic, as the cluster has it now.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription> {
        let request = v1::MetadataRequest { topics: vec![name.to_owned()], ..Default::default() };
        let answer = self.metadata(request).await?;
        match answer.topics.iter().find(|topic| topic.name == name) {
            Some(topic) => TopicDescription::parse(topic),
            None => Err(Error::from_wire(Some(&v1::Error {
                code: v1::ErrorCode::UnknownTopicOrPartition as i32,
                message: format!("there is no topic {name}"),
                ..Default::default()
            }))
            .expect("not success")),
        }
    }

    pub(super) async fn metadata(&self, request: v1::MetadataRequest) -> Result<v1::MetadataResponse> {
        let inner = &self.client.inner;
        let deadline = tokio::time::Instant::now() + inner.options.operation_timeout;
        let mut backoff = crate::backoff::Backoff::new(inner.options.retry);
        loop {
            match inner.fetch_metadata(&request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => inner.pause(&mut backoff, deadline, error).await?,
            }
        }
    }

    /// Configuration of a topic, defaults included.
    pub async fn topic_configs(&self, name: &str) -> Result<Vec<TopicConfig>> {
        let answer = self
            .client
            .inner
            .call(format!("describe topic {name}"), Via::Any, Repeat::Read, |mut wire, _| {
                let request = v1::DescribeTopicConfigsRequest { name: name.to_owned() };
                Box::pin(async move { wire.describe_topic_configs(request).await })
            })
            .await?;
        let config = |c: v1::ConfigEntry| TopicConfig {
            name: c.name,
            value: c.value,
            is_default: c.is_default,
            documentation: c.documentation,
            value_type: c.r#type,
        };
        Ok(answer.configs.into_iter().map(config).collect())
    }

    /// Sets and unsets configuration keys of a topic, all or none.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for an unknown key or a bad value.
    pub async fn alter_topic(
        &self,
        name: &str,
        set: impl IntoIterator<Item = (String, String)>,
        unset: impl IntoIterator<Item = String>,
    ) -> Result<()> {
        let request = v1::AlterTopicRequest {
            name: name.to_owned(),
            set: set.into_iter().collect(),
            unset: unset.into_iter().collect(),
        };
        self.client
            .inner
            .call(format!("alter topic {name}"), Via::Any, Repeat::Safe, |mut wire, _| {
                let request = request.clone();
                Box::pin(async move { wire.alter_topic(request).await })
            })
            .await
            .map(drop)
    }

    /// Deletes a topic and its data.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        self.client
            .inner
            .call(format!("delete topic {name}"), Via::Any, Repeat::Unsafe, |mut wire, _| {
                let request = v1::DeleteTopicRequest { name: name.to_owned() };
                Box::pin(async move { wire.delete_topic(request).await })
            })
            .await
            .map(drop)
    }

    /// Raises the number of partitions to `total`. Keys move: a key's partition depends on the number.
    pub async fn add_partitions(&self, name: &str, total: i32) -> Result<()> {
        self.client
            .inner
            .call(format!("add partitions to {name}"), Via::Any, Repeat::Unsafe, |mut wire, _| {
                let request = v1::AddPartitionsRequest { name: name.to_owned(), total };
                Box::pin(async move { wire.add_partitions(request).await })
            })
            .await
            .map(drop)
    }

    /// Looks places up in partitions, each at its leader.
    pub async fn list_offsets(
        &self,
        partitions: impl IntoIterator<Item = (TopicPartition, OffsetSpec)>,
    ) -> Result<BTreeMap<TopicPartition, ListedOffset>> {
        // At most this many at once.
        const CONCURRENCY: usize = 32;
        use futures::stream::{StreamExt, TryStreamExt};
        let inner = &self.client.inner;
        futures::stream::iter(partitions)
            .map(|(tp, spec)| async move {
                let listed = inner.list_offset(&tp, spec).await?;
                Ok((tp, listed))
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await
    }

    /// Removes the records before `before` (exclusive; `None`: up to the high watermark). Returns the new log
    /// start offset.
    pub async fn delete_records(&self, partition: &TopicPartition, before: Option<i64>) -> Result<i64> {
        let (inner, tp) = (&self.client.inner, partition);
        let topic = inner.topic(&tp.topic, false).await?;
        let answer = inner
            .call(
                format!("delete records of {tp}"),
                Via::Leader(&tp.topic, tp.partition),
                if before.is_some() { Repeat::Safe } else { Repeat::Unsafe },
                |mut wire, _| {
                    let request = v1::DeleteRecordsRequest {
                        topic_id: id_bytes(topic.id),
                        partition: tp.partition,
                        before_offset: before.unwrap_or(-1),
                    };
                    Box::pin(async move { wire.delete_records(request).await })
                },
            )
            .await?;
        Ok(answer.log_start_offset)
    }

    /// Makes the preferred replica the leader; with `unclean`, where the topic allows it and no eligible replica
    /// is alive, any live one: acknowledged records may be lost.
    pub async fn elect_leader(&self, partition: &TopicPartition, unclean: bool) -> Result<()> {
        let (inner, tp) = (&self.client.inner, partition);
        let topic = self.known(tp).await?;
        inner
            .call(format!("elect a leader of {tp}"), Via::Any, Repeat::Unsafe, |mut wire, _| {
                let request =
                    v1::ElectLeaderRequest { topic_id: id_bytes(topic.id), partition: tp.partition, unclean };
                Box::pin(async move { wire.elect_leader(request).await })
            })
            .await
            .map(drop)
    }

    /// Moves a partition to these brokers; the first is preferred as leader. Returns once the move is agreed;
    /// [`PartitionDescription::reassignment`](crate::PartitionDescription::reassignment) empties when it is done.
    pub async fn reassign(&self, partition: &TopicPartition, replicas: Vec<u64>) -> Result<()> {
        self.put_reassignment(partition, replicas, false).await
    }

    /// Stops a move that is under way and goes back to the replicas before it.
    pub async fn cancel_reassignment(&self, partition: &TopicPartition) -> Result<()> {
        self.put_reassignment(partition, Vec::new(), true).await
    }

    async fn put_reassignment(&self, tp: &TopicPartition, replicas: Vec<u64>, cancel: bool) -> Result<()> {
        let topic = self.known(tp).await?;
        self.client
            .inner
            .call(format!("reassign {tp}"), Via::Any, Repeat::Unsafe, |mut wire, _| {
                let request = v1::ReassignRequest {
                    topic_id: id_bytes(topic.id),
                    partition: tp.partition,
                    replicas: replicas.clone(),
                    cancel,
                };
                Box::pin(async move { wire.reassign(request).await })
            })
            .await
            .map(drop)
    }

    async fn known(&self, tp: &TopicPartition) -> Result<Arc<TopicDescription>> {
        let topic = self.client.inner.topic(&tp.topic, false).await?;
        if usize::try_from(tp.partition).ok().is_none_or(|p| p >= topic.partitions.len()) {
            return Err(Error::invalid(format!(
                "topic {} has {} partitions, there is no partition {}",
                tp.topic,
                topic.partitions.len(),
                tp.partition
            )));
        }
        Ok(topic)
    }
}

impl crate::inner::Inner {
    /// Looks one place up at the partition's leader.
    pub(crate) async fn list_offset(&self, tp: &TopicPartition, spec: OffsetSpec) -> Result<ListedOffset> {
        if let OffsetSpec::Offset(offset) = spec {
            return Ok(ListedOffset { offset: Some(offset), timestamp_ms: None, leader_epoch: None });
        }
        let answer = self
            .call(
                format!("look up an offset of {tp}"),
                Via::Leader(&tp.topic, tp.partition),
                Repeat::Read,
                |mut wire, leader_epoch| {
                    let topic = self.metadata.lock().topic(&tp.topic);
                    let partition = v1::ListOffsetsPartition {
                        topic_id: topic.map(|t| id_bytes(t.id)).unwrap_or_default(),
                        partition: tp.partition,
                        leader_epoch,
                        timestamp_ms: spec.wire(),
                    };
                    Box::pin(async move {
                        wire.list_offsets(v1::ListOffsetsRequest { partitions: vec![partition] }).await
                    })
                },
            )
            .await?;
        let found = answer.partitions.first().ok_or_else(|| {
            Error::protocol(format!("the leader of {tp} left the partition out of its answer"))
        })?;
        Ok(ListedOffset {
            offset: (found.offset >= 0).then_some(found.offset),
            timestamp_ms: (found.offset >= 0 && found.timestamp_ms >= 0).then_some(found.timestamp_ms),
            leader_epoch: (found.leader_epoch >= 0).then_some(found.leader_epoch),
        })
    }
}

pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
