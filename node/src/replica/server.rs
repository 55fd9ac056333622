//! The leader's end of replication streams: one task a stream, which takes requests in and sends data out side by
//! side, so that neither waits for the other.

use super::frame::{Frame, FrameReader, FrameWriter, Limits};
use super::session::{MAX_MESSAGE_BYTES, ReplicaSession};
use super::{KEEP_ALIVE, SILENCE};
use crate::broker::Broker;
use crate::context::Context;
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use strandline_raft::io::BoxedIo;
use strandline_record::{BrokerEpoch, BrokerId, PartitionId, TopicId, TopicPartition};
use strandline_wire::peer::{ReplicaData, ReplicaDataPartition, ReplicaFetch, ReplicaFetchPartition};
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

const FIRST_MESSAGE_DEADLINE: Duration = Duration::from_secs(5);
/// A refusal is said within this time or not at all.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);
/// Partitions named in one message at most.
const MAX_PARTITIONS: usize = 100_000;
/// Answers without data that may wait for a follower that does not read them.
const MAX_ANSWERS: usize = 2 * MAX_PARTITIONS;
/// Bytes of one partition in one message, so that a busy partition does not hold up the others.
const MAX_PARTITION_BYTES: usize = 1 << 20;
/// Requests carry no batches.
const LIMITS: Limits = Limits { head: MAX_PARTITIONS * 80, body: 0 };

/// Serves one follower's stream, behind its preface, until it ends.
pub async fn serve(broker: Arc<Broker>, io: BoxedIo) -> io::Result<()> {
    let (read, write) = tokio::io::split(io);
    let (mut reader, mut writer) = (FrameReader::new(read, LIMITS), FrameWriter::new(write));
    let first = tokio::time::timeout(FIRST_MESSAGE_DEADLINE, receive(&mut reader))
        .await
        .map_err(|_| timed_out("a replication stream begins with a request"))??
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if let Some(refusal) = refused(broker.context(), &first) {
        let answer = ReplicaData { refusal: refusal.clone(), ..Default::default() };
        let _ = tokio::time::timeout(REFUSAL_DEADLINE, writer.send(&answer, Vec::new())).await;
        return Err(io::Error::other(refusal));
    }
    let session = Arc::new(ReplicaSession::new(BrokerId(first.broker_id), BrokerEpoch(first.broker_epoch)));
    tracing::debug!(follower = %session.broker, "replication stream open");
    let mut requests = Requests { broker: broker.clone(), session: session.clone(), seen: BTreeSet::new() };
    let mut data = Data { broker, session, left: VecDeque::new(), answers: Vec::new() };
    tokio::select! {
        biased;
        ended = requests.take_in(first, &mut reader) => ended,
        ended = data.send_out(&mut writer) => ended,
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

async fn receive<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> io::Result<Option<ReplicaFetch>> {
    match reader.next().await? {
        Some(Frame { head, .. }) => Ok(Some(ReplicaFetch::decode(head)?)),
        None => Ok(None),
    }
}

fn refused(context: &Context, first: &ReplicaFetch) -> Option<String> {
    let mine = context.cluster_id.get().map(|id| id.to_string()).unwrap_or_default();
    (first.cluster_id != mine)
        .then(|| format!("this node belongs to cluster {mine}, the follower to cluster {}", first.cluster_id))
}

/// The follower's requests. Dropped, the partitions forget the stream.
struct Requests {
    broker: Arc<Broker>,
    session: Arc<ReplicaSession>,
    seen: BTreeSet<TopicPartition>,
}

impl Requests {
    async fn take_in<R: AsyncRead + Unpin>(
        &mut self,
        first: ReplicaFetch,
        reader: &mut FrameReader<R>,
    ) -> io::Result<()> {
        let mut next = Some(first);
        while let Some(message) = next {
            if message.partitions.len() > MAX_PARTITIONS || self.session.answers() > MAX_ANSWERS {
                return Err(io::Error::other("the follower asks more than it reads"));
            }
            if message.broker_epoch != self.session.broker_epoch.0 {
                return Ok(()); // A newer registration opens a new stream.
            }
            for fetch in &message.partitions {
                self.take(fetch);
            }
            next = tokio::time::timeout(SILENCE, receive(reader))
                .await
                .map_err(|_| timed_out("nothing was heard from the follower"))??;
        }
        Ok(())
    }

    fn take(&mut self, fetch: &ReplicaFetchPartition) {
        let Ok(topic) = Uuid::from_slice(&fetch.topic_id) else { return };
        let tp = TopicPartition { topic: TopicId(topic), partition: PartitionId(fetch.partition) };
        match self.broker.partition(tp) {
            Some(partition) => {
                self.seen.insert(tp);
                partition.replica_fetch(&self.session, fetch);
            }
            None => self.session.answer(unknown(fetch)),
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for tp in &self.seen {
            if let Some(partition) = self.broker.partition(*tp) {
                partition.replica_gone(&self.session);
            }
        }
    }
}

fn unknown(fetch: &ReplicaFetchPartition) -> ReplicaDataPartition {
    ReplicaDataPartition {
        topic_id: fetch.topic_id.clone(),
        partition: fetch.partition,
        leader_epoch: fetch.leader_epoch,
        number: fetch.number,
        outcome: strandline_wire::peer::replica_data_partition::Outcome::NotLeader as i32,
        ..Default::default()
    }
}

/// Builds messages when the connection has room for one.
struct Data {
    broker: Arc<Broker>,
    session: Arc<ReplicaSession>,
    /// Ready partitions that the last message had no room for.
    left: VecDeque<TopicPartition>,
    answers: Vec<ReplicaDataPartition>,
}

impl Data {
    async fn send_out<W: AsyncWrite + Unpin>(&mut self, writer: &mut FrameWriter<W>) -> io::Result<()> {
        // Says that the stream is open.
        writer.send(&ReplicaData::default(), Vec::new()).await?;
        loop {
            let message = tokio::time::timeout(KEEP_ALIVE, self.next()).await;
            let (head, batches) = message.unwrap_or_default();
            // A follower that does not read makes this wait, and is given up when nothing is heard from it either.
            writer.send(&head, batches).await?;
        }
    }

    async fn next(&mut self) -> (ReplicaData, Vec<Bytes>) {
        loop {
            if self.left.is_empty() && self.answers.is_empty() {
                let ready = self.session.next().await;
                self.left.extend(ready.partitions);
                self.answers = ready.answers;
            }
            let mut partitions = std::mem::take(&mut self.answers);
            let (mut batches, mut bytes) = (Vec::new(), 0);
            while bytes < MAX_MESSAGE_BYTES {
                let Some(tp) = self.left.pop_front() else { break };
                let room = MAX_PARTITION_BYTES.min(MAX_MESSAGE_BYTES - bytes);
                let data = self.broker.partition(tp).and_then(|p| p.take_replica_data(&self.session, room));
                if let Some((answer, read)) = data {
                    bytes += answer.batch_bytes as usize;
                    partitions.push(answer);
                    batches.extend(read);
                }
            }
            if !partitions.is_empty() {
                return (ReplicaData { partitions, ..Default::default() }, batches);
            }
        }
    }
}
