//! Who leads, and how a leader that is gone is replaced at once.
//!
//! By itself Raft notices a dead leader by silence: `election_max_ms` during which followers honour its lease,
//! then a random time more. A killed process shows at once, though: its connections break and new ones are refused.
//! Then the followers give up the lease and elect. That is as safe as any election (no read relies on
//! leases here); if the alarm was false it costs one.

use crate::handle::{Inner, RaftHandle};
use crate::state_machine::StateMachine;
use crate::types::{TypeConfig, scope};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use openraft::{Raft, ServerState};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<u64>,
    /// This node leads. Act on it only after [`RaftHandle::ensure_linearizable`], which also makes sure that
    /// everything agreed in earlier terms has been applied here.
    pub is_leader: bool,
}

impl RaftHandle {
    /// Leader and its term, as far as known.
    pub fn leader(&self) -> Option<(u64, u64)> {
        self.inner().leader()
    }

    pub fn is_leader(&self) -> bool {
        self.inner().is_leader()
    }

    /// Changes of term, leader and own role. Its sender goes when Raft has stopped.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner().leadership.clone()
    }

    /// Says that a connection to node `id` broke. If it leads and its address now refuses connections, its
    /// process is gone: an election begins now instead of after the election timeout.
    pub fn peer_lost(&self, id: u64) {
        let inner = self.inner().clone();
        let lost = scope(inner.next_seed(), async move {
            if inner.is_gone(id).await {
                inner.replace_leader(id).await;
            }
        });
        self.inner().spawn(lost);
    }
}

impl Inner {
    pub fn leader(&self) -> Option<(u64, u64)> {
        let now = *self.leadership.borrow();
        Some((now.leader?, now.term))
    }

    pub fn is_leader(&self) -> bool {
        self.leadership.borrow().is_leader
    }

    /// Whether nobody listens at the node's address: not merely slow or cut off, which time must tell.
    async fn is_gone(&self, id: u64) -> bool {
        if id == self.id || self.leader().is_none_or(|(leader, _)| leader != id) {
            return false;
        }
        let Some(address) = self.address(id) else { return false };
        let patience = Duration::from_millis(self.config.election_max_ms);
        match tokio::time::timeout(patience, self.peers.connect(id, address)).await {
            Ok(Err(error)) => {
                matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
            }
            Ok(Ok(_)) | Err(_) => false,
        }
    }

    /// Replaces a leader that is known to be gone, without waiting for its lease. The voters left agree on an
    /// order without talking: the first campaigns at once, the others only stop honouring the lease, and
    /// campaign in turn if nothing came of it (the first may lack entries, or be gone, too).
    async fn replace_leader(&self, lost: u64) {
        let (vote, voters): (_, BTreeSet<u64>) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            if metrics.current_leader != Some(lost) {
                return;
            }
            (metrics.vote, metrics.membership_config.voter_ids().collect())
        };
        let candidates: Vec<u64> = voters.into_iter().filter(|id| *id != lost).collect();
        let Some(rank) = candidates.iter().position(|id| *id == self.id) else { return };
        tracing::info!(lost, rank, "the leader's process is gone: an election begins");
        let pause = Duration::from_millis(self.config.heartbeat_ms);
        for (turn, candidate) in candidates.into_iter().enumerate().take(rank + 1) {
            if turn > 0 {
                tokio::time::sleep(pause).await;
            }
            if self.raft.server_metrics().borrow_watched().vote != vote {
                return;
            }
            let request = TransferLeaderRequest::new(vote, candidate, None);
            // A refusal means that another vote has been given meanwhile; then the election goes on without this.
            let _ = self.raft.handle_transfer_leader(request).await;
        }
    }
}

pub fn leadership_of(raft: &Raft<TypeConfig, StateMachine>) -> Leadership {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    Leadership {
        term: metrics.vote.leader_id.term,
        leader: metrics.current_leader,
        is_leader: metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id),
    }
}

/// Runs until Raft stops.
pub async fn watch_leadership(inner: Arc<Inner>, publish: watch::Sender<Leadership>) {
    let mut metrics = inner.raft.server_metrics();
    loop {
        {
            let metrics = metrics.borrow_watched();
            inner.peers.learn(metrics.membership_config.nodes().map(|(id, node)| (*id, &*node.addr)));
        }
        let now = leadership_of(&inner.raft);
        publish.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        if metrics.changed().await.is_err() {
            // Stopped: nobody leads here any more.
            publish.send_modify(|known| *known = Leadership { leader: None, is_leader: false, ..*known });
            return;
        }
    }
}
