//! Metadata and cluster status, from this node's image.

use super::convert::{self, topic_id_bytes};
use crate::context::Context;
use crate::error::ServeError;
use std::collections::BTreeMap;
use strandline_metadata::{Broker, Image, Partition, Topic};
use strandline_record::{BrokerId, PartitionId, TopicPartition};
use strandline_wire::v1;

/// Topics described in one answer without asking for them by name.
const MAX_LISTED_TOPICS: usize = 100_000;

pub fn broker_info(broker: &Broker) -> v1::BrokerInfo {
    v1::BrokerInfo {
        id: broker.id.0,
        grpc: broker.endpoints.grpc.to_string(),
        peer: broker.endpoints.peer.to_string(),
        kafka: broker.endpoints.kafka.as_deref().unwrap_or_default().to_owned(),
        http: broker.endpoints.http.as_deref().unwrap_or_default().to_owned(),
        rack: broker.rack.as_deref().unwrap_or_default().to_owned(),
        fenced: broker.fenced,
        draining: broker.draining,
        epoch: broker.epoch.0,
    }
}

pub fn topic_info(image: &Image, topic: &Topic) -> v1::TopicInfo {
    let partitions = (0..topic.partitions)
        .filter_map(|number| {
            let tp = TopicPartition { topic: topic.id, partition: PartitionId(number) };
            Some(partition_info(number, image.partition(tp)?))
        })
        .collect();
    v1::TopicInfo {
        error: None,
        name: topic.name.to_string(),
        topic_id: topic_id_bytes(topic.id),
        partitions,
        configs: topic.configs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
    }
}

fn partition_info(number: i32, partition: &Partition) -> v1::PartitionInfo {
    let ids = |set: &mut dyn Iterator<Item = &BrokerId>| set.map(|b| b.0).collect::<Vec<_>>();
    v1::PartitionInfo {
        partition: number,
        leader: partition.leader.map(|b| b.0),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch.0,
        replicas: ids(&mut partition.replicas.iter()),
        isr: ids(&mut partition.isr.iter()),
        elr: ids(&mut partition.elr.iter()),
        reassignment: ids(&mut partition.reassignment.iter().flatten()),
    }
}

/// The answer for what exists; the caller creates missing topics first where that is asked for.
pub fn metadata(context: &Context, image: &Image, request: &v1::MetadataRequest) -> v1::MetadataResponse {
    let topics = if request.all_topics {
        image
            .topic_ids
            .iter()
            .take(MAX_LISTED_TOPICS)
            .filter_map(|(_, id)| image.topics.get(id))
            .map(|t| topic_info(image, t))
            .collect()
    } else {
        request
            .topics
            .iter()
            .map(|name| match image.topic_by_name(name) {
                Some(topic) => topic_info(image, topic),
                None => v1::TopicInfo {
                    error: Some(convert::error(context, &ServeError::UnknownTopic(name.clone()))),
                    name: name.clone(),
                    ..Default::default()
                },
            })
            .collect()
    };
    v1::MetadataResponse {
        cluster_id: image.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
        metadata_index: image.index,
        controller_id: context.raft.leader().map(|(id, _)| id),
        brokers: image.brokers.iter().map(|(_, broker)| broker_info(broker)).collect(),
        topics,
    }
}

pub fn cluster_status(context: &Context, image: &Image) -> v1::ClusterStatusResponse {
    let mut leads: BTreeMap<BrokerId, (u32, u32)> = image.brokers.keys().map(|id| (*id, (0, 0))).collect();
    let (mut under_replicated, mut leaderless) = (0, 0);
    for (_, partition) in image.partitions.iter() {
        under_replicated += u32::from(partition.isr.len() < partition.replicas.len());
        leaderless += u32::from(partition.leader.is_none());
        if let Some(leader) = partition.leader {
            leads.entry(leader).or_default().0 += 1;
        }
        for replica in &partition.replicas {
            leads.entry(*replica).or_default().1 += 1;
        }
    }
    let metrics = context.raft.metrics();
    v1::ClusterStatusResponse {
        error: None,
        unconfirmed: false,
        cluster_id: image.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
        raft_leader: metrics.leader,
        raft_term: metrics.term,
        raft_last_index: metrics.last_index.unwrap_or(0),
        raft_applied_index: metrics.applied.unwrap_or(0),
        voters: context.raft.voters().into_keys().collect(),
        learners: context.raft.learners().into_keys().collect(),
        brokers: image.brokers.iter().map(|(_, broker)| broker_info(broker)).collect(),
        topics: image.topics.size() as u32,
        partitions: image.partitions.size() as u32,
        under_replicated,
        leaderless,
        node_id: context.id.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leaders: leads
            .into_iter()
            .map(|(id, (leads, replicas))| v1::LeaderCount { broker_id: id.0, leads, replicas })
            .collect(),
    }
}
