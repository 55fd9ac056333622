//! The leader's end of replication streams.

use super::session::{MAX_MESSAGE_BYTES, ReplicaSession};
use crate::broker::Broker;
use crate::context::Context;
use futures::Stream;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use strandline_record::{BrokerEpoch, BrokerId, PartitionId, TopicId, TopicPartition};
use strandline_wire::peer::{ReplicaData, ReplicaDataPartition, ReplicaFetch};
use tonic::{Status, Streaming};
use uuid::Uuid;

const FIRST_MESSAGE_DEADLINE: Duration = Duration::from_secs(5);
/// Partitions named in one message at most.
const MAX_PARTITIONS: usize = 100_000;
/// Bytes of one partition in one message, so that a busy partition does not hold up the others.
const MAX_PARTITION_BYTES: usize = 1 << 20;

/// Serves one follower's stream.
pub async fn serve(
    broker: Arc<Broker>,
    mut requests: Streaming<ReplicaFetch>,
) -> Result<impl Stream<Item = Result<ReplicaData, Status>> + Send + 'static, Status> {
    let first = tokio::time::timeout(FIRST_MESSAGE_DEADLINE, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("a replication stream begins with a request"))??
        .ok_or_else(|| Status::invalid_argument("a replication stream begins with a request"))?;
    check_cluster(broker.context(), &first)?;
    let session = Arc::new(ReplicaSession::new(BrokerId(first.broker_id), BrokerEpoch(first.broker_epoch)));
    tracing::debug!(follower = %session.broker, "replication stream open");
    let (reader, stopping) = (session.clone(), broker.context().stopping.clone());
    let readers_broker = broker.clone();
    tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        let mut next = Some(first);
        while let Some(message) = next {
            if message.partitions.len() > MAX_PARTITIONS || message.broker_epoch != reader.broker_epoch.0 {
                break; // A newer registration opens a new stream.
            }
            for fetch in &message.partitions {
                let Ok(topic) = Uuid::from_slice(&fetch.topic_id) else { continue };
                let tp = TopicPartition { topic: TopicId(topic), partition: PartitionId(fetch.partition) };
                match readers_broker.partition(tp) {
                    Some(partition) => {
                        seen.insert(tp);
                        partition.replica_fetch(&reader, fetch);
                    }
                    None => reader.answer(unknown(fetch)),
                }
            }
            next = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                message = requests.message() => message.ok().flatten(),
            };
        }
        reader.close();
        for tp in seen {
            if let Some(partition) = readers_broker.partition(tp) {
                partition.replica_gone(&reader);
            }
        }
    });
    let sender = Sender { broker, guard: CloseOnDrop(session), left: VecDeque::new(), answers: Vec::new() };
    Ok(futures::stream::unfold(sender, |mut sender| async move { Some((Ok(sender.next().await?), sender)) }))
}

fn check_cluster(context: &Context, first: &ReplicaFetch) -> Result<(), Status> {
    let mine = context.cluster_id.get().map(|id| id.to_string()).unwrap_or_default();
    if first.cluster_id != mine {
        return Err(Status::failed_precondition(format!(
            "this node belongs to cluster {mine}, the follower to cluster {}",
            first.cluster_id
        )));
    }
    Ok(())
}

fn unknown(fetch: &strandline_wire::peer::ReplicaFetchPartition) -> ReplicaDataPartition {
    ReplicaDataPartition {
        topic_id: fetch.topic_id.clone(),
        partition: fetch.partition,
        leader_epoch: fetch.leader_epoch,
        number: fetch.number,
        outcome: strandline_wire::peer::replica_data_partition::Outcome::NotLeader as i32,
        ..Default::default()
    }
}

struct CloseOnDrop(Arc<ReplicaSession>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Builds messages when the connection has room for one.
struct Sender {
    broker: Arc<Broker>,
    guard: CloseOnDrop,
    /// Ready partitions that the last message had no room for.
    left: VecDeque<TopicPartition>,
    answers: Vec<ReplicaDataPartition>,
}

impl Sender {
    async fn next(&mut self) -> Option<ReplicaData> {
        loop {
            if self.left.is_empty() && self.answers.is_empty() {
                let ready = self.guard.0.next().await?;
                self.left.extend(ready.partitions);
                self.answers = ready.answers;
            }
            let mut partitions = std::mem::take(&mut self.answers);
            let mut bytes = 0;
            while bytes < MAX_MESSAGE_BYTES {
                let Some(tp) = self.left.pop_front() else { break };
                let room = MAX_PARTITION_BYTES.min(MAX_MESSAGE_BYTES - bytes);
                let data = self.broker.partition(tp).and_then(|p| p.take_replica_data(&self.guard.0, room));
                if let Some(data) = data {
                    bytes += data.batches.len();
                    partitions.push(data);
                }
            }
            if !partitions.is_empty() {
                return Some(ReplicaData { partitions });
            }
        }
    }
}
