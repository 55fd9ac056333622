//! What the client knows of the cluster: brokers, topics, leaders. Pure: answers go in, routes come out.
//!
//! Invariants (hazard 26): an answer older than one already seen (by `metadata_index`) changes nothing; the
//! leader epoch known for a partition of one topic id never decreases. A hint in a NOT_LEADER answer counts
//! like an answer if its epoch is newer.

use crate::error::{Error, LeaderHint, Result};
use crate::types::{TopicId, id_from};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_wire::v1;

/// A broker of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Node id.
    pub id: u64,
    /// Address for SDKs.
    pub grpc: String,
    /// Address for other nodes.
    pub peer: String,
    /// Address for Kafka clients; empty if it has none.
    pub kafka: String,
    /// Address of the HTTP gateway; empty if it has none.
    pub http: String,
    /// Failure domain; empty if none was configured.
    pub rack: String,
    /// Not serving: it is down, or has not caught up since its start.
    pub fenced: bool,
    /// Being removed.
    pub draining: bool,
    /// Which registration this is.
    pub epoch: u64,
}

impl From<&v1::BrokerInfo> for Broker {
    fn from(b: &v1::BrokerInfo) -> Self {
        Broker {
            id: b.id,
            grpc: b.grpc.clone(),
            peer: b.peer.clone(),
            kafka: b.kafka.clone(),
            http: b.http.clone(),
            rack: b.rack.clone(),
            fenced: b.fenced,
            draining: b.draining,
            epoch: b.epoch,
        }
    }
}

/// A topic as the cluster's metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Name.
    pub name: Arc<str>,
    /// Identity: a topic deleted and created again has another.
    pub id: TopicId,
    /// By number, from 0.
    pub partitions: Vec<PartitionDescription>,
    /// What was set explicitly.
    pub configs: BTreeMap<String, String>,
}

/// A partition as the cluster's metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Number, from 0.
    pub partition: i32,
    /// Who leads, if anyone does.
    pub leader: Option<u64>,
    /// +1 at every election.
    pub leader_epoch: i32,
    /// +1 at every agreed change.
    pub partition_epoch: i32,
    /// Assigned brokers; the first is preferred as leader.
    pub replicas: Vec<u64>,
    /// In-sync replicas.
    pub isr: Vec<u64>,
    /// Eligible leader replicas (KIP-966): may lead if no in-sync replica can.
    pub elr: Vec<u64>,
    /// Where the partition is being moved; empty if it is not.
    pub reassignment: Vec<u64>,
}

impl TopicDescription {
    pub(crate) fn parse(topic: &v1::TopicInfo) -> Result<TopicDescription> {
        if let Some(error) = Error::from_wire(topic.error.as_ref()) {
            return Err(error.context(format_args!("topic {}", topic.name)));
        }
        let id = id_from(&topic.topic_id).ok_or_else(|| {
            Error::protocol(format!("topic {} came with an id that is no UUID", topic.name))
        })?;
        let mut partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|p| PartitionDescription {
                partition: p.partition,
                leader: p.leader,
                leader_epoch: p.leader_epoch,
                partition_epoch: p.partition_epoch,
                replicas: p.replicas.clone(),
                isr: p.isr.clone(),
                elr: p.elr.clone(),
                reassignment: p.reassignment.clone(),
            })
            .collect();
        partitions.sort_by_key(|p| p.partition);
        if partitions.iter().enumerate().any(|(i, p)| p.partition != i as i32) {
            return Err(Error::protocol(format!("topic {} came with gaps in its partitions", topic.name)));
        }
        let configs = topic.configs.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(TopicDescription { name: topic.name.as_str().into(), id, partitions, configs })
    }
}

/// Where requests for a partition go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) broker: u64,
    pub(crate) leader_epoch: i32,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    cluster_id: String,
    index: u64,
    brokers: BTreeMap<u64, Broker>,
    /// Of those brokers that have one.
    addresses: BTreeMap<u64, Arc<str>>,
    topics: BTreeMap<Arc<str>, Arc<TopicDescription>>,
    names: BTreeMap<TopicId, Arc<str>>,
}

impl Metadata {
    /// Takes an answer in. Returns whether it was new enough to count; topics in `asked` that it reports as
    /// unknown are forgotten.
    pub(crate) fn update(&mut self, answer: &v1::MetadataResponse) -> Result<bool> {
        if !self.cluster_id.is_empty()
            && !answer.cluster_id.is_empty()
            && self.cluster_id != answer.cluster_id
        {
            return Err(Error::protocol(format!(
                "a broker of cluster {} answered where cluster {} was expected: check the bootstrap addresses",
                answer.cluster_id, self.cluster_id
            )));
        }
        if answer.metadata_index < self.index {
            return Ok(false);
        }
        self.cluster_id.clone_from(&answer.cluster_id);
        self.index = answer.metadata_index;
        self.brokers = answer.brokers.iter().map(|b| (b.id, Broker::from(b))).collect();
        let reachable = answer.brokers.iter().filter(|b| !b.grpc.is_empty());
        self.addresses = reachable.map(|b| (b.id, Arc::from(b.grpc.as_str()))).collect();
        for info in &answer.topics {
            match TopicDescription::parse(info) {
                Ok(topic) => self.put(topic),
                Err(error) if error.code() == Some(v1::ErrorCode::UnknownTopicOrPartition) => {
                    self.forget(info.name.as_str());
                }
                // Leaves what is known; the caller that asked for it sees the error itself.
                Err(_) => {}
            }
        }
        Ok(true)
    }

    fn put(&mut self, mut topic: TopicDescription) {
        if let Some(old) = self.topics.get(&topic.name) {
            if old.id == topic.id {
                for (known, new) in old.partitions.iter().zip(&mut topic.partitions) {
                    if known.leader_epoch > new.leader_epoch {
                        // A hint told us of a later election than this image holds.
                        (new.leader, new.leader_epoch) = (known.leader, known.leader_epoch);
                    }
                }
            } else {
                self.names.remove(&old.id);
            }
        }
        self.names.insert(topic.id, topic.name.clone());
        self.topics.insert(topic.name.clone(), Arc::new(topic));
    }

    fn forget(&mut self, name: &str) {
        if let Some(topic) = self.topics.remove(name) {
            self.names.remove(&topic.id);
        }
    }

    /// Believes a refusal that names a later leader. Returns whether that changed the route.
    pub(crate) fn hint(&mut self, topic: &str, partition: i32, hint: &LeaderHint) -> bool {
        let Some(epoch) = hint.epoch else { return false };
        let Some(known) = self.topics.get_mut(topic) else { return false };
        match known.partitions.get(partition as usize) {
            Some(p) if p.leader_epoch < epoch || (p.leader_epoch == epoch && p.leader.is_none()) => {}
            _ => return false,
        }
        if !self.addresses.contains_key(&hint.id) {
            // Without its address the hint cannot be followed.
            return false;
        }
        let p = &mut Arc::make_mut(known).partitions[partition as usize];
        (p.leader, p.leader_epoch) = (Some(hint.id), epoch);
        true
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Arc<TopicDescription>> {
        self.topics.get(name).cloned()
    }

    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<Arc<TopicDescription>> {
        self.names.get(&id).and_then(|name| self.topics.get(name)).cloned()
    }

    pub(crate) fn route(&self, topic: &str, partition: i32) -> Option<Route> {
        let p = self.topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)?;
        let broker = p.leader?;
        self.addresses.contains_key(&broker).then_some(Route { broker, leader_epoch: p.leader_epoch })
    }

    pub(crate) fn address(&self, id: u64) -> Option<Arc<str>> {
        self.addresses.get(&id).cloned()
    }

    pub(crate) fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values()
    }

    pub(crate) fn topic_names(&self) -> Vec<String> {
        self.topics.keys().map(|name| name.to_string()).collect()
    }

    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(id: u64) -> v1::BrokerInfo {
        v1::BrokerInfo { id, grpc: format!("node-{id}:7070"), ..Default::default() }
    }

    fn answer(index: u64, id: u8, leader: Option<u64>, epoch: i32) -> v1::MetadataResponse {
        v1::MetadataResponse {
            cluster_id: "c".into(),
            metadata_index: index,
            brokers: vec![broker(1), broker(2), broker(3)],
            topics: vec![v1::TopicInfo {
                name: "t".into(),
                topic_id: vec![id; 16].into(),
                partitions: vec![v1::PartitionInfo { leader, leader_epoch: epoch, ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn hint(id: u64, epoch: i32) -> LeaderHint {
        LeaderHint { id, epoch: Some(epoch), endpoint: None }
    }

    #[test]
    fn an_answer_older_than_one_seen_changes_nothing() {
        let mut metadata = Metadata::default();
        assert!(metadata.update(&answer(10, 1, Some(1), 4)).unwrap());
        assert!(!metadata.update(&answer(9, 1, Some(2), 5)).unwrap());
        assert_eq!(metadata.route("t", 0), Some(Route { broker: 1, leader_epoch: 4 }));
    }

    #[test]
    fn a_hint_with_a_newer_epoch_counts_at_once_and_outlives_an_older_image() {
        let mut metadata = Metadata::default();
        metadata.update(&answer(10, 1, Some(1), 4)).unwrap();
        assert!(!metadata.hint("t", 0, &hint(2, 4)), "the same epoch says nothing new");
        assert!(!metadata.hint("t", 0, &hint(2, 3)));
        assert!(!metadata.hint("t", 0, &hint(9, 5)), "an unknown broker cannot be asked");
        assert!(metadata.hint("t", 0, &hint(2, 5)));
        assert_eq!(metadata.route("t", 0), Some(Route { broker: 2, leader_epoch: 5 }));
        metadata.update(&answer(11, 1, Some(1), 4)).unwrap();
        assert_eq!(metadata.route("t", 0), Some(Route { broker: 2, leader_epoch: 5 }));
        metadata.update(&answer(12, 1, Some(3), 6)).unwrap();
        assert_eq!(metadata.route("t", 0), Some(Route { broker: 3, leader_epoch: 6 }));
    }

    #[test]
    fn a_topic_created_again_under_its_name_starts_over_with_its_epochs() {
        let mut metadata = Metadata::default();
        metadata.update(&answer(10, 1, Some(1), 4)).unwrap();
        metadata.update(&answer(11, 2, Some(2), 0)).unwrap();
        assert_eq!(metadata.route("t", 0), Some(Route { broker: 2, leader_epoch: 0 }));
        assert!(metadata.topic_by_id(id_from(&[1; 16]).unwrap()).is_none());
        assert!(metadata.topic_by_id(id_from(&[2; 16]).unwrap()).is_some());
    }

    #[test]
    fn a_topic_reported_as_unknown_is_forgotten() {
        let mut metadata = Metadata::default();
        metadata.update(&answer(10, 1, Some(1), 4)).unwrap();
        let mut gone = answer(11, 1, None, 0);
        gone.topics[0].error =
            Some(v1::Error { code: v1::ErrorCode::UnknownTopicOrPartition as i32, ..Default::default() });
        metadata.update(&gone).unwrap();
        assert!(metadata.topic("t").is_none());
    }

    #[test]
    fn another_clusters_answer_is_an_error() {
        let mut metadata = Metadata::default();
        metadata.update(&answer(10, 1, Some(1), 4)).unwrap();
        let mut other = answer(11, 1, Some(1), 4);
        other.cluster_id = "other".into();
        assert!(metadata.update(&other).is_err());
    }
}
