//! From an opened data directory to a registered broker: form a cluster, find the one this directory
//! belongs to, or join one.
//!
//! ```text
//! data directory   --form-cluster            --join
//! has Raft state → starts as the member it was, both flags are ignored
//! empty          → all listed nodes must     → asks the leader whether it
//!                  answer, none may know       may; it is refused when its
//!                  this id under another       id is known under another
//!                  directory; the lowest id    directory; then it is added
//!                  initialises Raft            as a learner
//! ```
//!
//! Until that is decided the node takes part in no Raft vote ([`RaftGate`]): a node whose disk was wiped
//! has forgotten what it promised, and must be removed and joined again (hazard 21).

use crate::context::Context;
use crate::error::ServeError;
use crate::removal;
use crate::run::RunError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_metadata::{BrokerEndpoints, Command, Rejection, Response};
use strandline_record::{BrokerEpoch, BrokerId};
use strandline_wire::peer::{JoinRequest, ProbeReply};
use uuid::Uuid;

/// Why a node with an empty directory does not start without being told what it is to be.
pub const NO_CLUSTER: &str =
    "the data directory is empty: say --form-cluster (a new cluster) or --join HOST:PORT (an existing one)";
const PROBE_DEADLINE: Duration = Duration::from_millis(500);
/// Between two rounds of asking the other nodes.
const ASK_AGAIN: Duration = Duration::from_millis(25);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(500);
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
const TELL_DEADLINE: Duration = Duration::from_secs(2);
const REGISTER_DEADLINE: Duration = Duration::from_secs(5);

/// Closed until this node knows that it may take part in Raft.
#[derive(Clone, Debug, Default)]
pub struct RaftGate(Arc<AtomicBool>);

impl RaftGate {
    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Brings this node into its cluster. Returns once Raft may run; the cluster may not have a leader yet.
pub async fn enter(context: &Arc<Context>, gate: &RaftGate, has_state: bool) -> Result<(), RunError> {
    let config = &context.config;
    if has_state {
        if config.form_cluster.is_some() || !config.join.is_empty() {
            tracing::info!(
                "this data directory belongs to a cluster already: --form-cluster and --join are not needed"
            );
        }
        gate.open();
        return Ok(());
    }
    if let Some(cluster) = context.store.cluster_id() {
        // The directory was bound to a cluster only after Raft state existed: that state is gone.
        return Err(RunError::WipedNode { id: context.id, cluster: cluster.to_string() });
    }
    if let Some(members) = &config.form_cluster {
        let members: BTreeMap<u64, String> =
            members.0.iter().map(|(id, addr)| (id.0, addr.to_string())).collect();
        if !members.contains_key(&context.id.0) {
            return Err(RunError::Config(format!("form.cluster does not name this node ({})", context.id)));
        }
        let formed = hear_from_all(context, &members).await?;
        gate.open();
        if !formed && members.keys().next() == Some(&context.id.0) {
            tracing::info!(nodes = members.len(), "forming a new cluster");
            context.raft.initialize(members).await.map_err(|error| RunError::Raft(error.to_string()))?;
        }
        return Ok(());
    }
    if config.join.is_empty() {
        return Err(RunError::Config(NO_CLUSTER.to_owned()));
    }
    let members: Vec<String> = config.join.iter().map(ToString::to_string).collect();
    join(context, gate, &members).await
}

/// Waits until every other listed node has answered. `true`: some of them are a cluster already.
async fn hear_from_all(context: &Arc<Context>, members: &BTreeMap<u64, String>) -> Result<bool, RunError> {
    let directory = context.store.directory_id().to_string();
    let forming = context.config.form_cluster.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut missing: BTreeSet<u64> = members.keys().copied().filter(|id| *id != context.id.0).collect();
    let mut formed = false;
    let mut pause = ASK_AGAIN;
    let started = tokio::time::Instant::now();
    let mut said = false;
    while !missing.is_empty() {
        let asked = missing.iter().map(|id| {
            let addr = &members[id];
            async move { (*id, addr, context.peers.probe(addr, context.id.0, PROBE_DEADLINE).await) }
        });
        for (id, addr, reply) in futures::future::join_all(asked).await {
            let Ok(reply) = reply else { continue };
            formed |= check_reply(&reply, id, addr, &directory, &forming, context.id)?;
            missing.remove(&id);
        }
        if missing.is_empty() || context.stopping.is_cancelled() {
            break;
        }
        if !said && started.elapsed() > Duration::from_secs(2) {
            said = true;
            tracing::info!(nodes = ?missing, "waiting for the other nodes of the new cluster");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
    Ok(formed)
}

fn check_reply(
    reply: &ProbeReply,
    id: u64,
    addr: &str,
    directory: &str,
    forming: &str,
    me: BrokerId,
) -> Result<bool, RunError> {
    if reply.broker_id != id {
        return Err(RunError::Config(format!(
            "form.cluster says that node {id} is at {addr}, but node {} answers there",
            reply.broker_id
        )));
    }
    if !reply.asker_directory.is_empty() && reply.asker_directory != directory {
        return Err(RunError::WipedNode { id: me, cluster: reply.cluster_id.clone() });
    }
    if reply.has_state && !reply.asker_is_member && !reply.cluster_id.is_empty() {
        return Err(RunError::AlreadyFormed { cluster: reply.cluster_id.clone(), addr: addr.to_owned() });
    }
    // Two lists would be two clusters, and this node the only one to believe in its own.
    if !reply.has_state && !reply.forming.is_empty() && reply.forming != forming {
        return Err(RunError::Config(format!(
            "form.cluster must be the same on each node: it is {forming} here, and {} on node {id} at {addr}",
            reply.forming
        )));
    }
    Ok(reply.has_state)
}

/// Asks whether it would be let in, then to be let in, and follows hints to the leader.
async fn join(context: &Arc<Context>, gate: &RaftGate, members: &[String]) -> Result<(), RunError> {
    let mut asked = 0;
    let mut target = members[0].clone();
    let deadline = tokio::time::Instant::now() + JOIN_DEADLINE;
    let mut request = JoinRequest {
        broker_id: context.id.0,
        directory: context.store.directory_id().to_string(),
        cluster_id: context.config.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
        peer_endpoint: context.advertised_peer(),
        check_only: true,
        moved: false,
    };
    let mut last = String::new();
    let mut pause = ASK_AGAIN;
    while tokio::time::Instant::now() < deadline {
        let call = async {
            Ok::<_, tonic::Status>(context.peers.client(&target)?.join(request.clone()).await?.into_inner())
        };
        match tokio::time::timeout(Duration::from_secs(10), call).await {
            Ok(Ok(reply)) if reply.accepted && request.check_only => {
                // From here on the id is this directory's: the leader may add it as a learner, and reach it.
                gate.open();
                request.check_only = false;
                continue;
            }
            Ok(Ok(reply)) if reply.accepted => {
                tracing::info!(cluster = %reply.cluster_id, "joined the cluster");
                return Ok(());
            }
            Ok(Ok(reply)) if !reply.leader_endpoint.is_empty() && reply.leader_endpoint != target => {
                target = reply.leader_endpoint;
                last = reply.message;
            }
            Ok(Ok(reply)) if !reply.retriable => return Err(RunError::JoinRefused(reply.message)),
            Ok(Ok(reply)) => last = reply.message,
            Ok(Err(status)) => {
                last = status.message().to_owned();
                (asked, target) = next_member(members, asked);
            }
            Err(_) => {
                last = "no answer".to_owned();
                (asked, target) = next_member(members, asked);
            }
        }
        // Also before following a hint: around an election two nodes may each point at the other.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
    Err(RunError::JoinRefused(format!("{target} did not let this node in: {last}")))
}

/// A node that was a member at another address is reached by nobody, and so hears of no leader through which it could
/// register itself: it asks to be let in as if it were new, which moves the member that it is.
pub async fn tell_address(context: Arc<Context>) {
    let mine = context.advertised_peer();
    loop {
        if context.stopping.is_cancelled() {
            return;
        }
        let members = context.raft.membership().addresses;
        if members.get(&context.id.0).is_some_and(|known| *known == mine) {
            return;
        }
        // Before the log is read there are none.
        if !members.is_empty() {
            let request = JoinRequest {
                broker_id: context.id.0,
                directory: context.store.directory_id().to_string(),
                cluster_id: context.store.cluster_id().map(|id| id.to_string()).unwrap_or_default(),
                peer_endpoint: mine.clone(),
                check_only: false,
                moved: true,
            };
            for address in removal::known_addresses(&context, &context.image()) {
                let call = async {
                    let mut client = context.peers.client(&address)?;
                    Ok::<_, tonic::Status>(client.join(request.clone()).await?.into_inner())
                };
                if let Ok(Ok(reply)) = tokio::time::timeout(TELL_DEADLINE, call).await {
                    tracing::debug!(
                        address,
                        accepted = reply.accepted,
                        message = reply.message,
                        "told the address"
                    );
                }
            }
        }
        tokio::time::sleep(ASK_AGAIN_MAX).await;
    }
}

fn next_member(members: &[String], asked: usize) -> (usize, String) {
    (asked + 1, members[(asked + 1) % members.len()].clone())
}

/// Proposes the cluster's identity where this node leads Raft and there is none yet, and binds the data
/// directory to it. Returns the cluster id.
pub async fn cluster_identity(context: &Arc<Context>) -> Result<Uuid, RunError> {
    let mut images = context.raft.images();
    let cluster_id = loop {
        if let Some(id) = context.image().cluster_id {
            break id;
        }
        if context.raft.is_leader() {
            let command = Command::FormCluster {
                cluster_id: context.fresh_uuid(),
                now_ms: context.env.wall_clock_ms(),
            };
            match context.propose(command, REGISTER_DEADLINE).await {
                Ok(_) | Err(ServeError::Rejected(Rejection::AlreadyFormed)) => {}
                Err(error) => tracing::debug!(%error, "the cluster could not be formed yet"),
            }
        }
        tokio::select! {
            biased;
            _ = images.changed() => {}
            () = tokio::time::sleep(ASK_AGAIN) => {}
            () = context.stopping.cancelled() => return Err(RunError::Stopped),
        }
    };
    if let Some(wanted) = context.config.cluster_id
        && wanted != cluster_id
    {
        return Err(RunError::WrongCluster { wanted, found: cluster_id });
    }
    context.store.bind_cluster(cluster_id).map_err(|error| RunError::Storage(error.to_string()))?;
    let _ = context.cluster_id.set(cluster_id);
    Ok(cluster_id)
}

/// Registers this process as the broker's current incarnation and waits until its image says so
/// (ops/docs/REPLICATION.md: before that it takes no role).
pub async fn register(context: &Arc<Context>, cluster_id: Uuid) -> Result<BrokerEpoch, RunError> {
    let config = &context.config;
    let command = Command::RegisterBroker {
        id: context.id,
        directory: context.store.directory_id(),
        cluster_id,
        endpoints: BrokerEndpoints {
            peer: context.advertised_peer().into(),
            grpc: context.advertised_grpc().into(),
            kafka: config.advertised_kafka().map(|address| address.to_string().into()),
            http: config.advertised_http().map(|address| address.to_string().into()),
        },
        rack: config.broker_rack.as_deref().map(Into::into),
        clean_epoch: context.store.clean_epoch(),
    };
    let epoch = loop {
        if context.stopping.is_cancelled() {
            return Err(RunError::Stopped);
        }
        match context.propose(command.clone(), REGISTER_DEADLINE).await {
            Ok(Response::Registered { epoch }) => break epoch,
            Ok(other) => {
                return Err(RunError::Raft(format!("unexpected answer to a registration: {other:?}")));
            }
            Err(ServeError::Rejected(Rejection::WrongDirectory { .. })) => {
                return Err(RunError::WipedNode { id: context.id, cluster: cluster_id.to_string() });
            }
            // A copy of this very proposal, whose answer was lost, is in the same log entry.
            Err(ServeError::Rejected(Rejection::Invalid(why))) => tracing::debug!(%why, "not registered yet"),
            Err(ServeError::Rejected(rejection)) => return Err(RunError::Refused(rejection.to_string())),
            Err(error) => tracing::debug!(%error, "not registered yet"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    context
        .image_at(epoch.0, Duration::from_secs(60))
        .await
        .map_err(|error| RunError::Raft(error.to_string()))?;
    context.set_broker_epoch(epoch);
    tracing::info!(node = %context.id, %epoch, cluster = %cluster_id, "registered");
    Ok(epoch)
}
