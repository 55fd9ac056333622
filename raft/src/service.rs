//! The receiving side of `network`: a tonic service for the node's peer listener.

use crate::handle::Inner;
use crate::network::{MAX_MESSAGE_BYTES, encode};
use crate::proposals::Outcome;
use crate::proto::raft_server::{Raft, RaftServer};
use crate::proto::{
    Message, Proposal, ProposalReply, ReadIndexReply, ReadIndexRequest, SnapshotChunk, proposal_reply,
};
use crate::snapshots::MAX_SNAPSHOT_BYTES;
use crate::types::{Snapshot, SnapshotMeta, Vote, scope};
use bytes::BytesMut;
use futures::{Stream, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use std::pin::Pin;
use std::sync::Arc;
use strandline_metadata::snapshot;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Answers to a stream of entries that may wait to be sent; the requests wait for them.
const STREAM_ANSWERS: usize = 16;

pub type RaftService = RaftServer<Service>;

pub fn service(inner: Arc<Inner>) -> RaftService {
    RaftServer::new(Service { inner })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

pub struct Service {
    inner: Arc<Inner>,
}

impl Service {
    /// Refuses what was meant for another node: its address may have been given to this one.
    fn check(&self, to: u64) -> Result<(), Status> {
        match self.inner.id {
            id if id == to => Ok(()),
            id => Err(Status::failed_precondition(format!("this is node {id}, not node {to}"))),
        }
    }

    fn open<T: DeserializeOwned>(&self, message: &Message) -> Result<T, Status> {
        self.check(message.to)?;
        postcard::from_bytes(&message.body).map_err(|e| Status::invalid_argument(e.to_string()))
    }

    fn answer<T: Serialize, E: std::fmt::Display>(
        &self,
        to: u64,
        answer: Result<T, E>,
    ) -> Result<Response<Message>, Status> {
        let answer = answer.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(Message { from: self.inner.id, to, body: encode(&answer) }))
    }
}

#[tonic::async_trait]
impl Raft for Service {
    async fn append(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let message = request.into_inner();
        let answer = self.inner.raft.append_entries(self.open(&message)?).await;
        self.answer(message.from, answer)
    }

    type StreamAppendStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let inner = self.inner.clone();
        let id = inner.id;
        // Ends at the first message that is not for us or cannot be read: the peer opens another stream.
        let requests = request.into_inner().scan((), move |(), message| {
            let message = message.ok().filter(|m| m.to == id);
            std::future::ready(message.and_then(|m| postcard::from_bytes(&m.body).ok()))
        });
        let (send, answers) = mpsc::channel(STREAM_ANSWERS);
        // A task, because the answers borrow the handle. It ends with the requests, or with who reads the answers.
        tokio::spawn(scope(inner.next_seed(), async move {
            let mut answers = std::pin::pin!(inner.raft.stream_append(requests));
            while let Some(answer) = answers.next().await {
                let message = match answer {
                    Ok(result) => Ok(Message { from: id, to: 0, body: encode(&result) }),
                    Err(fatal) => Err(Status::unavailable(fatal.to_string())),
                };
                if send.send(message).await.is_err() {
                    return;
                }
            }
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn vote(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let message = request.into_inner();
        let answer = self.inner.raft.vote(self.open(&message)?).await;
        self.answer(message.from, answer)
    }

    async fn pre_vote(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let message = request.into_inner();
        let answer = self.inner.raft.pre_vote(self.open(&message)?).await;
        self.answer(message.from, answer)
    }

    async fn transfer_leader(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let message = request.into_inner();
        let answer = self.inner.raft.handle_transfer_leader(self.open(&message)?).await;
        self.answer(message.from, answer)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Message>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("no chunks"))?;
        self.check(first.to)?;
        let (vote, meta, total): (Vote, SnapshotMeta, u64) =
            postcard::from_bytes(&first.header).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if total > MAX_SNAPSHOT_BYTES {
            return Err(Status::resource_exhausted(format!("a snapshot of {total} bytes")));
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.message().await? {
            bytes.extend_from_slice(&chunk.data);
            if bytes.len() as u64 > total {
                return Err(Status::invalid_argument("more bytes than announced"));
            }
        }
        if bytes.len() as u64 != total {
            return Err(Status::invalid_argument("fewer bytes than announced"));
        }
        // A snapshot that cannot be used is the sender's fault and must not stop this node.
        snapshot::decode(&bytes).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let snapshot = Snapshot { meta, snapshot: bytes.freeze() };
        let answer = self.inner.raft.install_full_snapshot(vote, snapshot).await;
        self.answer(first.from, answer)
    }

    async fn propose(&self, request: Request<Proposal>) -> Result<Response<ProposalReply>, Status> {
        let Proposal { from, to, count, commands } = request.into_inner();
        self.check(to)?;
        // A removed node that runs on, or is started again, still knows whom to ask, and would register itself anew.
        if self.inner.address(from).is_none() {
            return Err(Status::failed_precondition(format!("node {from} is not a member of this cluster")));
        }
        let (outcome, responses, message) = match self.inner.propose_forwarded(count, commands).await {
            Outcome::Applied(responses) => {
                (proposal_reply::Outcome::Applied, encode(&responses), String::new())
            }
            Outcome::NotProposed(why) => (proposal_reply::Outcome::NotLeader, bytes::Bytes::new(), why),
            Outcome::Unknown(why) => (proposal_reply::Outcome::Unknown, bytes::Bytes::new(), why),
        };
        Ok(Response::new(ProposalReply { outcome: outcome.into(), responses, message }))
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexReply>, Status> {
        self.check(request.into_inner().to)?;
        let index = self.inner.read_index_as_leader().await;
        Ok(Response::new(ReadIndexReply { leader: index.is_some(), index: index.unwrap_or_default() }))
    }
}
