//! Raft's calls to other nodes, over tonic. Every call has a deadline of ours; connections are made by the
//! injected [`Connect`], two to each peer: one for what decides liveness (heartbeats, votes, proposals), one for
//! what may be large (entries, snapshots).
//!
//! Entries travel on a bidirectional stream, many requests in flight; a stream on which an answer is overdue
//! is given up.

use crate::io::{BoxedIo, Connect};
use crate::proto::raft_client::RaftClient;
use crate::proto::{Message, SnapshotChunk};
use crate::types::{Snapshot, StreamAppendResult, TypeConfig, Vote};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout as TimeoutError, Unreachable,
};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RPCTypes};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};

/// No message is larger; proposals are bounded well below.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);
const CONNECT_DEADLINE: Duration = Duration::from_millis(1000);
/// openraft's own deadlines are as short as a heartbeat; a loaded peer may answer a little later.
const MIN_DEADLINE: Duration = Duration::from_millis(250);
/// A request on a stream is answered within this time, fsync on the other side included.
const STREAM_STALL: Duration = Duration::from_secs(2);
/// A connection that answers no ping for this long is given up.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type BoxStream<'a, T> = Pin<Box<dyn Stream<Item = T> + Send + 'a>>;
type Rpc = RPCError<TypeConfig>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Small and urgent.
    Urgent,
    /// May be large.
    Bulk,
}

/// Connections to peers, made when first used and again whenever they broke.
pub struct Peers {
    pub id: u64,
    connect: Connect,
    channels: Mutex<BTreeMap<(u64, Lane), (String, Channel)>>,
    /// Where the members are now. openraft goes on using a client that it made before a member moved.
    members: Mutex<BTreeMap<u64, String>>,
    /// Where else they may be, by the configuration: the way to each other if all of them have moved.
    also_at: Arc<BTreeMap<u64, String>>,
}

impl Peers {
    pub fn new(id: u64, connect: Connect, also_at: BTreeMap<u64, String>) -> Self {
        let also_at = Arc::new(also_at);
        Peers { id, connect, channels: Mutex::default(), members: Mutex::default(), also_at }
    }

    /// What the membership says of the members' addresses.
    pub fn learn<'a>(&self, members: impl Iterator<Item = (u64, &'a str)>) {
        let mut known = self.members.lock();
        for (id, address) in members {
            match known.get_mut(&id) {
                Some(same) if *same == *address => {}
                Some(moved) => address.clone_into(moved),
                None => drop(known.insert(id, address.to_owned())),
            }
        }
    }

    /// A client for `target` at the address that the membership names, or at `address` if it names none.
    pub fn client(&self, target: u64, address: &str, lane: Lane) -> RaftClient<Channel> {
        let moved = self.members.lock().get(&target).cloned();
        let address = moved.as_deref().unwrap_or(address);
        let mut channels = self.channels.lock();
        let entry = channels.entry((target, lane));
        let (known, channel) = entry.or_insert_with(|| (address.to_owned(), self.channel(target, address)));
        if known != address {
            *known = address.to_owned();
            *channel = self.channel(target, address);
        }
        RaftClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A connection of its own, to learn whether anybody listens.
    pub async fn connect(&self, target: u64, address: String) -> io::Result<BoxedIo> {
        dial(&self.connect, address, self.also_at.get(&target).cloned()).await
    }

    fn channel(&self, target: u64, address: &str) -> Channel {
        let (connect, address) = (self.connect.clone(), address.to_owned());
        let also_at = self.also_at.get(&target).cloned();
        Endpoint::from_static("http://raft.strandline")
            .connect_timeout(CONNECT_DEADLINE)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            // A connection on which something was lost for good (a firewall that forgot it) looks alive and answers
            // nothing: every new stream would be opened on it, and time out on it, for as long as TCP tries.
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(tower::service_fn(move |_: tonic::codegen::http::Uri| {
                let (connect, address, also_at) = (connect.clone(), address.clone(), also_at.clone());
                async move { dial(&connect, address, also_at).await.map(hyper_util::rt::TokioIo::new) }
            }))
    }
}

/// At its address, or at the other one if nobody listens there. Whoever answers at either checks for whom a message is.
async fn dial(connect: &Connect, address: String, also_at: Option<String>) -> io::Result<BoxedIo> {
    let also_at = also_at.filter(|other| *other != address);
    match connect(address).await {
        Ok(io) => Ok(io),
        Err(error) => match also_at {
            Some(other) => connect(other).await.map_err(|_| error),
            None => Err(error),
        },
    }
}

/// Whether no connection could be made, so that the request certainly was not sent.
pub fn was_not_sent(status: &tonic::Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

pub struct Network(pub Arc<Peers>);

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { peers: self.0.clone(), target, address: node.addr.clone(), lane: Lane::Bulk }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { lane: Lane::Urgent, ..self.new_client(target, node).await }
    }
}

/// One node's calls to one other node.
pub struct Peer {
    peers: Arc<Peers>,
    target: u64,
    address: String,
    /// For entries; votes and hand-overs are always urgent.
    lane: Lane,
}

impl Peer {
    fn client(&self, lane: Lane) -> RaftClient<Channel> {
        self.peers.client(self.target, &self.address, lane)
    }

    fn message(&self, body: Bytes) -> Message {
        Message { from: self.peers.id, to: self.target, body }
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> Rpc {
        let (id, target) = (self.peers.id, self.target);
        RPCError::Timeout(TimeoutError { action, id, target, timeout })
    }

    /// Sends `request` with `call` and decodes the answer, within the deadline.
    async fn call<Q, A, F>(
        &self,
        action: RPCTypes,
        request: &Q,
        option: &RPCOption,
        call: impl FnOnce(Message) -> F,
    ) -> Result<A, Rpc>
    where
        Q: Serialize,
        A: DeserializeOwned,
        F: Future<Output = Result<tonic::Response<Message>, tonic::Status>>,
    {
        let deadline = option.soft_ttl().max(MIN_DEADLINE);
        let call = call(self.message(encode(request)));
        match tokio::time::timeout(deadline, call).await {
            Err(_) => Err(self.timed_out(action, deadline)),
            Ok(Err(status)) => Err(rpc_error(&status)),
            Ok(Ok(answer)) => decode(&answer.into_inner().body),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Rpc> {
        let mut client = self.client(self.lane);
        let call = async |message| client.append(message).await;
        self.call(RPCTypes::AppendEntries, &request, &option, call).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult, Rpc>>, Rpc>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // Heartbeats are single requests: a stream for each would cost more than it brings.
        if self.lane == Lane::Urgent {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // openraft's pause after a failure is in its first request: a connection that is made before that is
            // asked for is refused again and again without any pause.
            let mut input = input;
            let Some(first) = input.next().await else {
                return Ok(Box::pin(futures::stream::empty()) as BoxStream<'s, _>);
            };
            let input = futures::stream::once(std::future::ready(first)).chain(input);
            let pace = Arc::new(Pace::default());
            let (from, to, sent) = (self.peers.id, self.target, pace.clone());
            let requests = input.map(move |request| {
                sent.sent.fetch_add(1, Ordering::AcqRel);
                sent.more.notify_one();
                Message { from, to, body: encode(&request) }
            });
            let mut client = self.client(Lane::Bulk);
            let answers = match tokio::time::timeout(STREAM_STALL, client.stream_append(requests)).await {
                Err(_) => return Err(self.timed_out(RPCTypes::AppendEntries, STREAM_STALL)),
                Ok(Err(status)) => return Err(rpc_error(&status)),
                Ok(Ok(answers)) => answers.into_inner(),
            };
            let this = &*self;
            let answers = futures::stream::unfold(Some((answers, 0)), move |state| {
                let pace = pace.clone();
                async move {
                    let (mut answers, received) = state?;
                    let item = tokio::select! {
                        biased;
                        answer = answers.message() => match answer {
                            Ok(None) => return None,
                            Ok(Some(message)) => decode::<StreamAppendResult>(&message.body),
                            Err(status) => Err(rpc_error(&status)),
                        },
                        () = pace.overdue(received) => {
                            Err(this.timed_out(RPCTypes::AppendEntries, STREAM_STALL))
                        }
                    };
                    let next = matches!(item, Ok(Ok(_))).then(|| (answers, received + 1));
                    Some((item, next))
                }
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        let mut client = self.client(Lane::Urgent);
        let call = async |message| client.vote(message).await;
        self.call(RPCTypes::Vote, &request, &option, call).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        let mut client = self.client(Lane::Urgent);
        let call = async |message| client.pre_vote(message).await;
        self.call(RPCTypes::Vote, &request, &option, call).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Rpc> {
        let mut client = self.client(Lane::Urgent);
        let call = async |message| client.transfer_leader(message).await;
        self.call(RPCTypes::TransferLeader, &request, &option, call).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let (from, to) = (self.peers.id, self.target);
        let total = snapshot.snapshot.len() as u64;
        let header = encode(&(vote, &snapshot.meta, total));
        let first = SnapshotChunk { from, to, header, data: Bytes::new() };
        let mut rest = snapshot.snapshot;
        let data = std::iter::from_fn(move || {
            let chunk = rest.split_to(rest.len().min(SNAPSHOT_CHUNK_BYTES));
            (!chunk.is_empty()).then(|| SnapshotChunk { from, to, header: Bytes::new(), data: chunk })
        });
        let chunks = futures::stream::iter(std::iter::once(first).chain(data));
        let mut client = self.client(Lane::Bulk);
        let call = tokio::time::timeout(SNAPSHOT_DEADLINE, client.install_snapshot(chunks));
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = call => answer,
        };
        match answer {
            Err(_) => Err(self.timed_out(RPCTypes::InstallSnapshot, SNAPSHOT_DEADLINE).into()),
            Ok(Err(status)) => Err(rpc_error(&status).into()),
            Ok(Ok(answer)) => Ok(decode(&answer.into_inner().body)?),
        }
    }
}

/// How many requests went out on a stream, for noticing that an answer is overdue.
#[derive(Default)]
struct Pace {
    sent: AtomicU64,
    more: Notify,
}

impl Pace {
    /// Waits until more was sent than `received` answers came, and then for as long as an answer may take.
    async fn overdue(&self, received: u64) {
        while self.sent.load(Ordering::Acquire) <= received {
            self.more.notified().await;
        }
        tokio::time::sleep(STREAM_STALL).await;
    }
}

pub fn encode<T: Serialize>(message: &T) -> Bytes {
    postcard::to_stdvec(message).expect("Raft's messages can be encoded").into()
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Rpc> {
    postcard::from_bytes(body).map_err(|e| RPCError::Network(NetworkError::new(&e)))
}

fn rpc_error(status: &tonic::Status) -> Rpc {
    if was_not_sent(status) {
        RPCError::Unreachable(Unreachable::new(status))
    } else {
        RPCError::Network(NetworkError::new(status))
    }
}
