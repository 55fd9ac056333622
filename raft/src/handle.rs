//! [`RaftHandle`]: what the rest of the node sees of Raft.

use crate::feed::{ImageFeed, ImageReceiver};
use crate::io::Connect;
use crate::leadership::{Leadership, leadership_of, watch_leadership};
use crate::log::{LogConfig, LogError, LogStore};
use crate::network::{Lane, Network, Peers};
use crate::proposals::{self, Outcome, Queued, Ticket};
use crate::proto::ReadIndexRequest;
use crate::service::{self, RaftService};
use crate::snapshots::SnapshotStore;
use crate::state_machine::StateMachine;
use crate::state_store::StateStore;
use crate::types::{TypeConfig, scope};
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, Raft, ReadPolicy, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_metadata::{Command, Image, Response};
use strandline_storage::disk::Disk;
use strandline_storage::worker::WorkerHost;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pause before asking again for a confirmed index, unless leadership changes before.
const READ_RETRY_PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct RaftConfig {
    pub id: u64,
    /// Log and snapshots; created when missing. The directory that holds it is durable already.
    pub dir: PathBuf,
    pub heartbeat_ms: u64,
    /// A follower campaigns when it has heard nothing for `election_max_ms` plus a time between these two.
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    /// A snapshot is taken after this many entries,
    pub snapshot_entries: u64,
    /// or when the log's entries have this many bytes.
    pub snapshot_bytes: u64,
    /// Entries kept in the log behind a snapshot, for followers that are a little behind.
    pub keep_entries: u64,
    pub log: LogConfig,
    /// Where members may be when nobody listens at the address that the membership has.
    pub also_at: BTreeMap<u64, String>,
    /// For everything random. Differs between nodes and between starts.
    pub seed: u64,
}

impl RaftConfig {
    pub fn new(id: u64, dir: PathBuf, seed: u64) -> Self {
        RaftConfig {
            id,
            dir,
            heartbeat_ms: 100,
            election_min_ms: 300,
            election_max_ms: 600,
            snapshot_entries: 5000,
            snapshot_bytes: 64 << 20,
            keep_entries: 1000,
            log: LogConfig::default(),
            also_at: BTreeMap::new(),
            seed,
        }
    }
}

/// Why Raft cannot start. None is retriable without somebody doing something.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("raft state: {0}")]
    Io(#[from] io::Error),
    #[error("raft configuration: {0}")]
    Config(String),
    #[error("raft cannot start: {0}")]
    Raft(String),
}

/// A proposal that was not answered by the state machine. (A rejection is an answer: `Response::Rejected`.)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It is in no log and never will be: safe to repeat.
    #[error("not proposed: {0}")]
    NotSent(String),
    /// It may have been applied, or may yet be.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    pub term: u64,
    pub leader: Option<u64>,
    pub is_leader: bool,
    pub last_index: Option<u64>,
    pub committed: Option<u64>,
    pub applied: Option<u64>,
    pub snapshot: Option<u64>,
    pub purged: Option<u64>,
    pub log_bytes: u64,
    /// Raft has stopped for good (storage error); the node must not go on.
    pub failed: bool,
}

/// This node's part in Raft. Clones share it; it runs until [`RaftHandle::shutdown`].
#[derive(Clone)]
pub struct RaftHandle {
    inner: Arc<Inner>,
}

pub struct Inner {
    pub id: u64,
    pub raft: Raft<TypeConfig, StateMachine>,
    pub peers: Arc<Peers>,
    pub leadership: watch::Receiver<Leadership>,
    pub config: RaftConfig,
    feed: ImageFeed,
    log: LogStore,
    queue: mpsc::Sender<Queued>,
    seeds: AtomicU64,
    runtime: tokio::runtime::Handle,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl RaftHandle {
    /// Opens log and state and takes part in Raft from then on. The node's peer listener must serve
    /// [`RaftHandle::service`]. A node that was never initialized nor added waits.
    pub async fn start(
        config: RaftConfig,
        disk: Arc<dyn Disk>,
        host: Arc<dyn WorkerHost>,
        state_store: Box<dyn StateStore>,
        connect: Connect,
    ) -> Result<RaftHandle, StartError> {
        let log = LogStore::open(disk.clone(), &*host, &config.dir.join("log"), &config.log, config.seed)?;
        let snapshots = SnapshotStore::open(disk, &config.dir.join("snapshots"))?;
        let feed = ImageFeed::default();
        let machine = StateMachine::open(state_store, snapshots, &*host, feed.clone())?;
        let peers = Arc::new(Peers::new(config.id, connect, config.also_at.clone()));
        let options = Arc::new(openraft_config(&config)?);
        let starting = Raft::new(config.id, options, Network(peers.clone()), log.clone(), machine);
        let raft = scope(config.seed, starting).await.map_err(|e| StartError::Raft(e.to_string()))?;

        let (queue, incoming) = mpsc::channel(proposals::QUEUE);
        let (publish, leadership) = watch::channel(leadership_of(&raft));
        let seeds = AtomicU64::new(config.seed.rotate_left(32));
        let inner = Inner {
            id: config.id,
            raft,
            peers,
            leadership,
            feed,
            log,
            config,
            queue,
            seeds,
            runtime: tokio::runtime::Handle::current(),
            tasks: Mutex::default(),
        };
        let inner = Arc::new(inner);
        let tasks = [
            tokio::spawn(proposals::run(inner.clone(), incoming)),
            tokio::spawn(watch_leadership(inner.clone(), publish)),
            tokio::spawn(bound_log(inner.clone())),
        ];
        inner.tasks.lock().extend(tasks);
        Ok(RaftHandle { inner })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// The receiving side, to be mounted on the node's peer listener.
    pub fn service(&self) -> RaftService {
        service::service(self.inner.clone())
    }

    /// Proposes `command` from any node and answers what the state machine did with it, once this is applied on
    /// the leader. Proposals of many callers share log entries. Waits for a leader until the deadline.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Result<Response, ProposeError> {
        let (commands, batch) = match command {
            Command::Batch(commands) => (commands, true),
            command => (vec![command], false),
        };
        if commands.is_empty() {
            return Ok(Response::Batch(Vec::new()));
        }
        let count = commands.len() as u32;
        let encoded = proposals::encode_commands(&commands);
        if encoded.len() > proposals::MAX_PROPOSAL_BYTES {
            return Err(ProposeError::NotSent(format!("a proposal of {} bytes", encoded.len())));
        }
        match self.inner.enqueue(count, encoded, Instant::now() + deadline, false).await {
            Outcome::Applied(responses) if batch => Ok(Response::Batch(responses)),
            Outcome::Applied(mut responses) => Ok(responses.pop().expect("one response for each command")),
            Outcome::NotProposed(why) => Err(ProposeError::NotSent(why)),
            Outcome::Unknown(why) => Err(ProposeError::Unknown(why)),
        }
    }

    /// The image as it moves. See [`ImageReceiver::changed`].
    pub fn images(&self) -> ImageReceiver {
        self.inner.feed.subscribe()
    }

    /// The newest image.
    pub fn image(&self) -> Arc<Image> {
        self.inner.feed.image()
    }

    /// Waits until this node has applied everything that was committed anywhere when the call was made, and
    /// answers that image. On a follower it asks the leader.
    pub async fn ensure_linearizable(&self, deadline: Duration) -> Result<Arc<Image>, ProposeError> {
        let inner = &self.inner;
        let reading = async {
            let mut leadership = inner.leadership.clone();
            loop {
                leadership.borrow_and_update();
                if let Some(index) = inner.read_index().await {
                    return inner.feed.subscribe().wait_applied(index).await;
                }
                // At once on news, but not in a busy loop once Raft has stopped.
                let news = async {
                    if leadership.changed().await.is_err() {
                        std::future::pending().await
                    }
                };
                let _ = tokio::time::timeout(READ_RETRY_PAUSE, news).await;
            }
        };
        let late = |_| ProposeError::NotSent("no leader confirmed within the deadline".to_owned());
        tokio::time::timeout(deadline, reading).await.map_err(late)
    }

    pub fn metrics(&self) -> Metrics {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        Metrics {
            term: metrics.current_term,
            leader: metrics.current_leader,
            is_leader: metrics.state == ServerState::Leader,
            last_index: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            log_bytes: self.inner.log.live_bytes(),
            failed: metrics.running_state.is_err(),
        }
    }

    /// Resolves when Raft has stopped by itself, with the reason: the node must end.
    ///
    /// Waits on the metrics of the server, not on all of them, which change with each heartbeat and would wake the caller seventy
    /// times a second: a quarter of what an idle node does. Both end with Raft's task, and only then is there a reason.
    pub async fn failed(&self) -> String {
        let mut server = self.inner.raft.server_metrics();
        while server.changed().await.is_ok() {}
        let metrics = self.inner.raft.metrics();
        match &metrics.borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "raft has stopped".to_owned(),
        }
    }

    /// Takes a snapshot now; the log is purged after it.
    pub async fn trigger_snapshot(&self) {
        // An error means that Raft has stopped, which `failed` tells.
        let _ = self.inner.raft.trigger().snapshot().await;
    }

    /// Stops taking part. What was written stays; the workers end with their host.
    pub async fn shutdown(&self) {
        let _ = self.inner.raft.shutdown().await;
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

impl Inner {
    /// Runs `task` on the runtime that Raft was started on, until Raft is shut down.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(self.runtime.spawn(task));
    }

    pub fn next_seed(&self) -> u64 {
        self.seeds.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
    }

    pub fn address(&self, id: u64) -> Option<String> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&id).map(|node| node.addr.clone())
    }

    async fn enqueue(&self, count: u32, commands: Bytes, deadline: Instant, forwarded: bool) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let queued = Queued { commands, count, deadline, forwarded, ticket: ticket.clone(), reply };
        match tokio::time::timeout_at(deadline, self.queue.send(queued)).await {
            Err(_) => return Outcome::NotProposed("too many proposals are waiting".to_owned()),
            Ok(Err(_)) => return Outcome::NotProposed("raft has stopped".to_owned()),
            Ok(Ok(())) => {}
        }
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) if ticket.cancel() => Outcome::NotProposed("raft has stopped".to_owned()),
            Ok(Err(_)) => Outcome::Unknown("raft has stopped".to_owned()),
            Err(_) if ticket.cancel() => Outcome::NotProposed("no leader within the deadline".to_owned()),
            Err(_) => Outcome::Unknown("no answer within the deadline".to_owned()),
        }
    }

    /// Commands that another node forwarded here, taking this one for the leader.
    pub async fn propose_forwarded(&self, count: u32, commands: Bytes) -> Outcome {
        if !self.is_leader() {
            return Outcome::NotProposed("this node does not lead".to_owned());
        }
        if let Err(why) = proposals::check_forwarded(count, &commands) {
            return Outcome::NotProposed(why);
        }
        // Who forwarded has a deadline of its own, and is told what is known when it passes.
        self.enqueue(count, commands, Instant::now() + Duration::from_secs(10), true).await
    }

    /// An index that covers everything committed so far, confirmed by a quorum; `None` if nobody confirmed it.
    async fn read_index(&self) -> Option<u64> {
        let (leader, _) = self.leader()?;
        if leader == self.id {
            return self.read_index_as_leader().await;
        }
        let mut client = self.peers.client(leader, &self.address(leader)?, Lane::Urgent);
        let asking = client.read_index(ReadIndexRequest { to: leader });
        let reply = tokio::time::timeout(Duration::from_secs(1), asking).await.ok()?.ok()?.into_inner();
        reply.leader.then_some(reply.index)
    }

    pub async fn read_index_as_leader(&self) -> Option<u64> {
        let confirming = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        let confirmed = tokio::time::timeout(Duration::from_secs(1), confirming).await;
        let (read, _) = confirmed.ok()?.ok()?;
        Some(read.index())
    }
}

/// Few entries may be many bytes: snapshots are taken by size, too.
async fn bound_log(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (applied, snapshot) = {
            let metrics = inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.last_applied.map_or(0, |id| id.index), metrics.snapshot.map_or(0, |id| id.index))
        };
        let worth_it = applied >= snapshot + inner.config.keep_entries.max(1);
        if worth_it && inner.log.live_bytes() > inner.config.snapshot_bytes {
            let _ = inner.raft.trigger().snapshot().await;
        }
    }
}

fn openraft_config(config: &RaftConfig) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: "strandline".to_owned(),
        heartbeat_interval: config.heartbeat_ms,
        heartbeat_min_interval: Some(config.heartbeat_ms / 2),
        election_timeout_min: config.election_min_ms,
        election_timeout_max: config.election_max_ms,
        install_snapshot_timeout: 60_000,
        max_payload_entries: 300,
        replication_lag_threshold: config.snapshot_entries.saturating_mul(2),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: config.keep_entries,
        purge_batch_size: 64,
        api_channel_size: Some(1024),
        notification_channel_size: Some(1024),
        state_machine_channel_size: Some(64),
        enable_pre_vote: Some(true),
        // A restarted leader that leads on without an election is not Raft.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        backoff: "50ms 100ms 200ms ..500ms".to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|e| StartError::Config(e.to_string()))
}
