//! Looking at a cluster from outside, for whoever shows it to people: one node's view at a time, and the ends of many
//! partitions with one request to each leader.
//!
//! Nothing here retries, and nothing changes what the client believes: that a node does not answer is what is asked.

use super::Admin;
use crate::error::{Error, Result};
use crate::metadata::{Broker, TopicDescription};
use crate::types::{TopicPartition, id_bytes, id_from};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_wire::v1;

/// Partitions in one request for their ends.
const PARTITIONS_A_REQUEST: usize = 2_000;
/// Leaders that are asked at once.
const CONCURRENCY: usize = 16;

/// The cluster as one node has it. Of two views the one with the larger index is the newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The cluster's id.
    pub cluster_id: String,
    /// Index of the metadata in the Raft log.
    pub metadata_index: u64,
    /// Where the node believes that the controller runs.
    pub controller: Option<u64>,
    /// Registered brokers, by id.
    pub brokers: Vec<Broker>,
    /// Topics by name, where they were asked for. Those that could not be understood are left out.
    pub topics: Vec<TopicDescription>,
}

impl Admin {
    /// The addresses that the client began with.
    pub fn bootstrap_addresses(&self) -> Vec<Arc<str>> {
        self.client.inner.options.bootstrap.clone()
    }

    /// Asks the node at `address` for its view; `topics`: with all of them.
    ///
    /// # Errors
    /// Where no answer came in time, or a refusal: the node is down, starting, or out of reach.
    pub async fn node_view(&self, address: &str, topics: bool, within: Duration) -> Result<NodeView> {
        let mut wire = self.client.inner.wire(address)?;
        let request = v1::MetadataRequest { all_topics: topics, ..Default::default() };
        let answer = match tokio::time::timeout(within, wire.metadata(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(Error::from_status(&status, address).without_effect()),
            Err(_) => {
                return Err(Error::timed_out(format!("{address} did not answer within {within:?}")));
            }
        };
        let mut brokers: Vec<Broker> = answer.brokers.iter().map(Broker::from).collect();
        brokers.sort_by_key(|broker| broker.id);
        let mut topics: Vec<_> =
            answer.topics.iter().filter_map(|topic| TopicDescription::parse(topic).ok()).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(NodeView {
            cluster_id: answer.cluster_id,
            metadata_index: answer.metadata_index,
            controller: answer.controller_id,
            brokers,
            topics,
        })
    }

    /// High watermarks of all partitions of `topics`, asked once of the leaders among `brokers`. Partitions without a
    /// leader, and those whose leader does not answer within `within`, are left out.
    pub async fn high_watermarks(
        &self,
        brokers: &[Broker],
        topics: &[TopicDescription],
        within: Duration,
    ) -> BTreeMap<TopicPartition, i64> {
        use futures::stream::StreamExt;
        let mut names = BTreeMap::new();
        let mut wanted: BTreeMap<u64, Vec<v1::ListOffsetsPartition>> = BTreeMap::new();
        for topic in topics {
            names.insert(topic.id, topic.name.clone());
            for partition in &topic.partitions {
                let Some(leader) = partition.leader else { continue };
                wanted.entry(leader).or_default().push(v1::ListOffsetsPartition {
                    topic_id: id_bytes(topic.id),
                    partition: partition.partition,
                    leader_epoch: -1,
                    timestamp_ms: crate::types::OffsetSpec::Latest.wire(),
                });
            }
        }
        let requests = wanted.into_iter().filter_map(|(leader, partitions)| {
            let broker = brokers.iter().find(|broker| broker.id == leader && !broker.grpc.is_empty())?;
            Some((broker.grpc.clone(), partitions))
        });
        let answers = futures::stream::iter(requests)
            .map(|(address, partitions)| async move {
                let mut results = Vec::with_capacity(partitions.len());
                let Ok(wire) = self.client.inner.wire(&address) else { return results };
                for some in partitions.chunks(PARTITIONS_A_REQUEST) {
                    let request = v1::ListOffsetsRequest { partitions: some.to_vec() };
                    let mut wire = wire.clone();
                    match tokio::time::timeout(within, wire.list_offsets(request)).await {
                        Ok(Ok(answer)) => results.extend(answer.into_inner().partitions),
                        _ => break,
                    }
                }
                results
            })
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        let found = answers.into_iter().flatten().filter(|found| found.error.is_none() && found.offset >= 0);
        let named = found.filter_map(|found| {
            let topic = names.get(&id_from(&found.topic_id)?)?.clone();
            Some((TopicPartition { topic, partition: found.partition }, found.offset))
        });
        named.collect()
    }
}
