//! The only wiring: opens what is on disk, starts the listeners and the tasks, and takes them down again.
//!
//! ```text
//! store ─▶ raft ─▶ peer listener ─▶ enter the cluster ─▶ register ─▶ metadata ─▶ roles
//!                  grpc listener (answers "not ready" until then)      session ─▶ unfenced
//!                  Kafka listener (accepts nobody until registered)
//! ```

use crate::broker::{Broker, Orphans};
use crate::config::NodeConfig;
use crate::context::Context;
use crate::controller::Controller;
use crate::dedup;
use crate::env::Env;
use crate::error::ServeError;
use crate::front::grpc::{GrpcFront, arrives};
use crate::front::kafka::KafkaFront;
use crate::group::Groups;
use crate::inspect::Inspect;
use crate::lifecycle::{self, RaftGate};
use crate::net;
use crate::peer_listener;
use crate::peer_service::PeerService;
use crate::peers::Peers;
use crate::removal;
use crate::session::Session;
use futures::future::BoxFuture;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use strandline_raft::{MembershipError, RaftConfig, RaftHandle};
use strandline_record::BrokerId;
use strandline_storage::{DiskState, ScrubCursor, Store, StoreConfig};
use strandline_wire::peer::peer_server::PeerServer;
use strandline_wire::v1::strandline_server::StrandlineServer;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;
use uuid::Uuid;

/// Why a node did not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("configuration: {0}")]
    Config(String),
    #[error("{0}")]
    Storage(String),
    #[error("cannot listen on {addr}: {error}{}", in_use_hint(.error))]
    Listen { addr: String, error: io::Error },
    #[error("metadata: {0}")]
    Raft(String),
    #[error(
        "node {id} is known to cluster {cluster} with another data directory, and this one is empty. A node that lost \
         its disk has forgotten what it promised: run `strandline cluster remove-node {id}` on the cluster, then start \
         it with --join"
    )]
    WipedNode { id: BrokerId, cluster: String },
    #[error(
        "{addr} belongs to cluster {cluster} already, which does not list this node: use --join instead of --form-cluster"
    )]
    AlreadyFormed { cluster: String, addr: String },
    #[error("not let into the cluster: {0}")]
    JoinRefused(String),
    #[error("this data directory belongs to cluster {found}, cluster.id says {wanted}")]
    WrongCluster { wanted: Uuid, found: Uuid },
    #[error(
        "node {id} was removed from cluster {cluster}, which has moved everything off it first: its process and its data \
         directory {data_dir} are no longer needed. To use this machine again, start a node on an empty data directory \
         with --join"
    )]
    Removed { id: BrokerId, cluster: Uuid, data_dir: String },
    #[error("the cluster refused this node: {0}")]
    Refused(String),
    #[error("stopped before the node had started")]
    Stopped,
}

fn in_use_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another process has this port; stop it or choose another port)",
        _ => "",
    }
}

/// Between two looks at time-outs: ISR members that lag, produces whose time is up, group sessions.
const TICK: Duration = Duration::from_millis(100);
const MAINTENANCE: Duration = Duration::from_secs(1);
/// For calls that are being answered when the node stops.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Runs a node until `shutdown` completes, then hands its leadership over and stops cleanly.
pub async fn run(
    config: NodeConfig,
    env: Arc<dyn Env>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    run_boxed(config, env, Box::pin(shutdown)).await
}

/// Neither generic nor opaque, so that the whole node is compiled in this crate and not again in each that
/// runs one.
fn run_boxed<'a>(
    config: NodeConfig,
    env: Arc<dyn Env>,
    shutdown: BoxFuture<'a, ()>,
) -> BoxFuture<'a, Result<(), RunError>> {
    Box::pin(run_node(config, env, shutdown))
}

async fn run_node(
    config: NodeConfig,
    env: Arc<dyn Env>,
    mut shutdown: BoxFuture<'_, ()>,
) -> Result<(), RunError> {
    if let Err(violations) = config.validate() {
        return Err(RunError::Config(
            violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        ));
    }
    let disk = env.disk();
    let workers = env.workers();
    // The ports first: a port in use should be said before anything is touched.
    let peer_listener = listen(&env, &config.listen_peer.to_string()).await?;
    let grpc_listener = listen(&env, &config.listen_grpc.to_string()).await?;
    let kafka_listener = match &config.listen_kafka {
        Some(addr) => Some(listen(&env, &addr.to_string()).await?),
        None => None,
    };
    if config.form_cluster.is_none()
        && config.join.is_empty()
        && matches!(Store::is_new(&*disk, &config.data_dir), Ok(true))
    {
        return Err(RunError::Config(lifecycle::NO_CLUSTER.to_owned()));
    }
    let store_config = store_config(&config, &*env);
    let (store, report) =
        Store::open(disk.clone(), &config.data_dir, store_config, &*workers, env.wall_clock_ms())
            .map_err(|error| RunError::Storage(error.to_string()))?;
    tracing::info!(logs = store.logs().len(), report = ?report, "storage is open");
    let raft = start_raft(&config, &env).await?;
    let has_state = raft.is_initialized().await;

    let stopping = CancellationToken::new();
    let peers = Peers::new(env.connect());
    let context = Context::new(config, env, store, raft, peers, stopping.clone());
    let broker = Broker::new(context.clone());
    context.env.started(Inspect::new(context.clone(), broker.clone()));
    let groups = Groups::new(context.clone());
    let controller = Controller::new(context.clone());
    let session = Arc::new(Session::default());
    let gate = RaftGate::default();

    let tasks = tokio_util::task::TaskTracker::new();
    vital(
        &tasks,
        &context,
        "peer listener",
        serve_peers(&context, &broker, &controller, &gate, peer_listener),
    );
    vital(
        &tasks,
        &context,
        "gRPC listener",
        serve_grpc(&context, &broker, &groups, &controller, grpc_listener),
    );
    if let Some(listener) = kafka_listener {
        let front = KafkaFront::new(broker.clone(), groups.clone(), controller.clone());
        vital(&tasks, &context, "Kafka listener", front.serve(listener));
    }

    let started = async {
        lifecycle::enter(&context, &gate, has_state).await?;
        if has_state {
            vital(&tasks, &context, "address", lifecycle::tell_address(context.clone()));
        }
        vital(&tasks, &context, "controller", controller.clone().run());
        let cluster_id = lifecycle::cluster_identity(&context).await?;
        lifecycle::register(&context, cluster_id).await
    };
    let mut removed = Box::pin(removal::noticed(&context, &session));
    let removed_from = |cluster: Uuid| RunError::Removed {
        id: context.id,
        cluster,
        data_dir: context.config.data_dir.display().to_string(),
    };
    let registered = tokio::select! {
        biased;
        () = &mut shutdown => Err(RunError::Stopped),
        reason = context.raft.failed() => Err(RunError::Raft(reason)),
        cluster = &mut removed => Err(removed_from(cluster)),
        registered = started => registered,
    };
    let ended = match registered {
        Ok(_) => {
            vital(
                &tasks,
                &context,
                "metadata follower",
                follow_metadata(context.clone(), broker.clone(), groups.clone()),
            );
            vital(&tasks, &context, "ticker", tick(context.clone(), broker.clone(), groups.clone()));
            vital(&tasks, &context, "maintenance", maintain(context.clone(), broker.clone()));
            vital(&tasks, &context, "idempotency keys", dedup::read_keys(context.clone(), broker.clone()));
            let (keeper, kept) = (session.clone(), context.clone());
            vital(&tasks, &context, "session", async move { keeper.run(kept).await });
            tokio::select! {
                biased;
                () = &mut shutdown => tokio::select! {
                    biased;
                    // What was not agreed on is not handed over either: this stop is no clean one.
                    reason = context.raft.failed() => Err(RunError::Raft(reason)),
                    () = stop_cleanly(&context, &session) => Ok(()),
                },
                reason = context.raft.failed() => Err(RunError::Raft(reason)),
                cluster = &mut removed => Err(removed_from(cluster)),
            }
        }
        Err(RunError::Stopped) => Ok(()),
        Err(error) => Err(error),
    };
    stopping.cancel();
    broker.stop();
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    context.raft.shutdown().await;
    // Stopped before it was registered, it took no role: the last stop is as clean as it was.
    let clean_epoch = context.broker_epoch().or_else(|| context.store.clean_epoch());
    if ended.is_ok()
        && let Err(error) = context.store.close_clean(clean_epoch)
    {
        tracing::error!(%error, "the data directory could not be closed cleanly; recovery runs at the next start");
    }
    ended
}

/// Runs a task without which the node is none: if it panics, the node ends. Otherwise its session would go on, and
/// its partitions would keep a leader that does nothing.
fn vital(
    tasks: &tokio_util::task::TaskTracker,
    context: &Arc<Context>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let (running, env) = (tokio::spawn(task), context.env.clone());
    tasks.spawn(async move {
        if running.await.is_err_and(|error| error.is_panic()) {
            env.die(name, &io::Error::other("the task panicked"));
        }
    });
}

async fn listen(env: &Arc<dyn Env>, addr: &str) -> Result<Box<dyn crate::env::Listener>, RunError> {
    env.listen(addr).await.map_err(|error| RunError::Listen { addr: addr.to_owned(), error })
}

fn store_config(config: &NodeConfig, env: &dyn Env) -> StoreConfig {
    use rand::SeedableRng;
    let mut rng = rand::rngs::StdRng::seed_from_u64(env.fork_seed("directory"));
    let new_directory_id = uuid::Builder::from_random_bytes(rand::RngExt::random(&mut rng)).into_uuid();
    StoreConfig {
        journal_file_bytes: config.journal_file_bytes,
        journal_files_max: config.journal_files_max,
        tail_cache_bytes: config.tail_cache_bytes as usize,
        reserved_bytes: config.disk_reserved_bytes,
        dedupe_buffer_bytes: config.log_cleaner_dedupe_buffer_size as usize,
        dedup_keys_max: config.dedup_max_keys,
        ..StoreConfig::new(config.node_id, new_directory_id)
    }
}

async fn start_raft(config: &NodeConfig, env: &Arc<dyn Env>) -> Result<RaftHandle, RunError> {
    let dir = config.data_dir.join("raft");
    let raft = RaftConfig {
        heartbeat_ms: config.raft_heartbeat.as_millis() as u64,
        election_min_ms: config.raft_election_min.as_millis() as u64,
        election_max_ms: config.raft_election_max.as_millis() as u64,
        snapshot_entries: config.raft_snapshot_entries as u64,
        also_at: config
            .form_cluster
            .iter()
            .flat_map(|nodes| nodes.0.iter().map(|(id, addr)| (id.0, addr.to_string())))
            .collect(),
        keep_entries: config.raft_snapshot_entries as u64 / 5,
        ..RaftConfig::new(config.node_id.0, dir.clone(), env.fork_seed("raft"))
    };
    RaftHandle::start(raft, env.disk(), env.workers(), env.state_store(&dir.join("state")), env.connect())
        .await
        .map_err(|error| RunError::Raft(error.to_string()))
}

fn serve_peers(
    context: &Arc<Context>,
    broker: &Arc<Broker>,
    controller: &Arc<Controller>,
    gate: &RaftGate,
    listener: Box<dyn crate::env::Listener>,
) -> impl Future<Output = ()> + use<> {
    let service = PeerServer::new(PeerService { broker: broker.clone(), controller: controller.clone() })
        .max_decoding_message_size(net::MAX_MESSAGE)
        .max_encoding_message_size(net::MAX_MESSAGE);
    let raft = context.raft.service();
    let gate = gate.clone();
    let guarded =
        tonic::service::interceptor::InterceptedService::new(raft, move |request: tonic::Request<()>| {
            if gate.is_open() {
                Ok(request)
            } else {
                Err(tonic::Status::unavailable("this node has not entered its cluster yet"))
            }
        });
    let router = net::server().add_service(service).add_service(guarded);
    let stopping = context.stopping.clone();
    let (accepting, connections) = peer_listener::start(broker.clone(), listener);
    async move {
        let serving = router.serve_with_incoming_shutdown(connections, stopping.cancelled());
        let serving = async { tokio::join!(serving, accepting).0 };
        until_stopped(serving, &stopping, "the peer listener ended").await;
    }
}

fn serve_grpc(
    context: &Arc<Context>,
    broker: &Arc<Broker>,
    groups: &Arc<Groups>,
    controller: &Arc<Controller>,
    listener: Box<dyn crate::env::Listener>,
) -> impl Future<Output = ()> + use<> {
    let front = GrpcFront { broker: broker.clone(), groups: groups.clone(), controller: controller.clone() };
    let service = StrandlineServer::new(front)
        .max_decoding_message_size(net::MAX_MESSAGE)
        .max_encoding_message_size(net::MAX_MESSAGE);
    let router = net::server().layer(MapRequestLayer::new(arrives(context.clone()))).add_service(service);
    let stopping = context.stopping.clone();
    let acceptor = net::Acceptor::new("gRPC", listener, net::Limits::new(context.config.max_connections));
    context.meters.listens(acceptor.connections());
    async move {
        let connections = net::incoming(acceptor);
        let serving = router.serve_with_incoming_shutdown(connections, stopping.cancelled());
        until_stopped(serving, &stopping, "the gRPC listener ended").await;
    }
}

/// When the node stops, what is being answered has a moment to end; streams on which others only wait have none
/// to hold it up.
async fn until_stopped(
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    stopping: &CancellationToken,
    ended: &'static str,
) {
    let stopped = async {
        stopping.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        biased;
        served = serving => if let Err(error) = served {
            tracing::error!(%error, "{ended}");
        },
        () = stopped => {}
    }
}

async fn follow_metadata(context: Arc<Context>, broker: Arc<Broker>, groups: Arc<Groups>) {
    let mut images = context.raft.images();
    let mut orphans = Orphans::default();
    let mut first = true;
    let mut applied = context.image();
    loop {
        let (image, mut delta) = if first {
            (context.image(), strandline_metadata::Delta { full: true, ..Default::default() })
        } else {
            tokio::select! {
                biased;
                () = context.stopping.cancelled() => return,
                changed = images.changed() => changed,
                () = tokio::time::sleep(TICK), if broker.has_unopened() => {
                    broker.open_again(&applied);
                    continue;
                }
            }
        };
        delta.full |= std::mem::take(&mut first);
        adopt_newer_registration(&context, &image);
        broker.apply(&image, &delta, &mut orphans);
        groups.apply(&image, &delta);
        applied = image;
    }
}

/// A registration that was proposed twice (its first answer was lost) may apply twice; only this process
/// holds the directory's lock, so the later one is this process's too.
fn adopt_newer_registration(context: &Context, image: &strandline_metadata::Image) {
    if let (Some(mine), Some(agreed)) = (context.broker_epoch(), image.broker(context.id))
        && agreed.epoch > mine
        && agreed.directory == context.store.directory_id()
    {
        tracing::info!(epoch = %agreed.epoch, "the registration was applied twice");
        context.set_broker_epoch(agreed.epoch);
    }
}

async fn tick(context: Arc<Context>, broker: Arc<Broker>, groups: Arc<Groups>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            _ = interval.tick() => {}
        }
        let now_ms = context.now_ms();
        for partition in broker.partitions() {
            partition.tick(now_ms);
        }
        groups.tick();
    }
}

/// Retention, time-based rolls, disk space, compaction, and the slow scrub of old data.
async fn maintain(context: Arc<Context>, broker: Arc<Broker>) {
    let mut interval = tokio::time::interval(MAINTENANCE);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let retention_every = context.config.log_retention_check_interval.as_millis() as u64;
    let cleaner_every = context.config.log_cleaner_backoff.as_millis() as u64;
    let (mut retained_at, mut cleaned_at) = (0, 0);
    let mut scrub = ScrubCursor::default();
    loop {
        tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            _ = interval.tick() => {}
        }
        let now_ms = context.now_ms();
        // While the disk is full, retention and a look at the space are what gets it writable again.
        let full = context.store.disk_state() == DiskState::Full;
        if full || now_ms.saturating_sub(retained_at) >= retention_every {
            retained_at = now_ms;
            context.store.maintain(context.env.wall_clock_ms());
            for partition in broker.partitions() {
                partition.log_start_may_have_moved();
            }
        }
        let cleaner_bytes = context.config.log_cleaner_io_max_bytes_per_second;
        if cleaner_bytes > 0 {
            let look = now_ms.saturating_sub(cleaned_at) >= cleaner_every;
            if look {
                cleaned_at = now_ms;
            }
            context.store.compact(context.env.wall_clock_ms(), cleaner_bytes, look);
        }
        let per_second = context.config.scrub_bytes_per_second;
        if per_second > 0 {
            for damage in context.store.scrub_some(&mut scrub, per_second) {
                if let Some(partition) = broker.partition(damage.tp) {
                    partition.look_for_damage();
                }
            }
        }
    }
}

async fn stop_cleanly(context: &Arc<Context>, session: &Session) {
    let deadline = context.config.shutdown_timeout;
    tracing::info!("shutting down: handing leadership over");
    if context.raft.is_leader()
        && context.raft.voters().len() > 1
        && let Err(error) = transfer_raft(context, None).await
    {
        tracing::warn!(%error, "metadata leadership could not be handed over");
    }
    if context.image().brokers.size() > 1 && !session.hand_over(deadline).await {
        tracing::warn!("partition leadership was not handed over in time");
    }
}

/// Hands Raft's leadership to `to`, or to whichever other voter holds nearly all of the log.
pub async fn transfer_raft(context: &Context, to: Option<u64>) -> Result<(), ServeError> {
    let membership = context.raft.membership();
    let other = |set: &std::collections::BTreeSet<u64>| {
        set.iter().copied().find(|id| *id != context.id.0 && membership.voters.contains(id))
    };
    let to = to.or_else(|| other(&membership.caught_up)).or_else(|| other(&membership.voters));
    match to {
        Some(to) => context.raft.transfer_leader(to).await.map_err(|error| match error {
            MembershipError::NotLeader(leader) => ServeError::NotController(leader.map(BrokerId)),
            MembershipError::Refused(why) => ServeError::InvalidRequest(why),
            MembershipError::InProgress => ServeError::ClusterNotReady(error.to_string()),
            MembershipError::Unknown(why) => ServeError::ProposalUnknown(why),
        }),
        None => {
            Err(ServeError::InvalidRequest("there is no other voter that could lead the metadata".to_owned()))
        }
    }
}
