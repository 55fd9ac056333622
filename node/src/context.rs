//! What every part of a node shares: who it is, its configuration, its stores and its clocks.

use crate::config::NodeConfig;
use crate::env::Env;
use crate::error::ServeError;
use crate::metrics::Meters;
use crate::peers::Peers;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_metadata::{Command, Image, Response};
use strandline_raft::{ProposeError, RaftHandle};
use strandline_record::{BrokerEpoch, BrokerId};
use strandline_storage::Store;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a proposal is tried when the caller named no deadline.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);

pub struct Context {
    pub id: BrokerId,
    pub config: NodeConfig,
    pub env: Arc<dyn Env>,
    pub store: Arc<Store>,
    pub raft: RaftHandle,
    pub peers: Peers,
    /// Counts; nothing is decided by them.
    pub meters: Meters,
    /// Known once the cluster is formed or joined.
    pub cluster_id: OnceLock<Uuid>,
    /// Cancelled when the node stops serving; tasks end then.
    pub stopping: CancellationToken,
    broker_epoch: AtomicU64,
    started: tokio::time::Instant,
    rng: Mutex<StdRng>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context(node {})", self.id)
    }
}

impl Context {
    pub fn new(
        config: NodeConfig,
        env: Arc<dyn Env>,
        store: Arc<Store>,
        raft: RaftHandle,
        peers: Peers,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        let rng = Mutex::new(StdRng::seed_from_u64(env.fork_seed("node")));
        Arc::new(Context {
            id: config.node_id,
            config,
            env,
            store,
            raft,
            peers,
            meters: Meters::default(),
            cluster_id: OnceLock::new(),
            stopping,
            broker_epoch: AtomicU64::new(0),
            started: tokio::time::Instant::now(),
            rng,
        })
    }

    /// Where other nodes reach this one.
    pub fn advertised_peer(&self) -> String {
        self.config.advertised_peer().to_string()
    }

    /// Where SDK clients reach this node.
    pub fn advertised_grpc(&self) -> String {
        self.config.advertised_grpc().to_string()
    }

    /// Monotonic milliseconds; what every decision about time uses.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The epoch of this process's registration, once it has been agreed.
    pub fn broker_epoch(&self) -> Option<BrokerEpoch> {
        match self.broker_epoch.load(Ordering::Acquire) {
            0 => None,
            epoch => Some(BrokerEpoch(epoch)),
        }
    }

    pub fn set_broker_epoch(&self, epoch: BrokerEpoch) {
        self.broker_epoch.store(epoch.0, Ordering::Release);
    }

    pub fn image(&self) -> Arc<Image> {
        self.raft.image()
    }

    pub fn fresh_uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(rand::RngExt::random(&mut *self.rng.lock())).into_uuid()
    }

    pub fn random_u64(&self) -> u64 {
        rand::RngExt::random(&mut *self.rng.lock())
    }

    /// Proposes a command and waits until it has been applied.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Result<Response, ServeError> {
        match self.raft.propose(command, deadline).await {
            Ok(Response::Rejected(rejection)) => Err(ServeError::Rejected(rejection)),
            Ok(response) => Ok(response),
            Err(ProposeError::NotSent(why)) => Err(ServeError::ClusterNotReady(why)),
            Err(ProposeError::Unknown(why)) => Err(ServeError::ProposalUnknown(why)),
        }
    }

    /// Waits until this node's image holds every metadata change answered before this call, on any node.
    pub async fn linearize(&self) -> Result<(), ServeError> {
        let read = self.raft.ensure_linearizable(PROPOSE_DEADLINE).await;
        read.map(|_| ()).map_err(|error| ServeError::ClusterNotReady(error.to_string()))
    }

    /// Waits until this node's image holds everything up to Raft index `index`, so that a client that
    /// changed something and asks again here sees it.
    pub async fn image_at(&self, index: u64, deadline: Duration) -> Result<Arc<Image>, ServeError> {
        let mut images = self.raft.images();
        let wait = async {
            loop {
                let image = self.raft.image();
                if image.index >= index {
                    return image;
                }
                images.changed().await;
            }
        };
        tokio::time::timeout(deadline, wait)
            .await
            .map_err(|_| ServeError::ClusterNotReady("this node lags behind the metadata".to_owned()))
    }
}
