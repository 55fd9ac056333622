//! Who takes part in Raft: voters, and learners, which receive everything and have no vote. Changes are made by
//! the leader, one at a time, through joint consensus.

use crate::handle::RaftHandle;
use crate::types::{LogId, StoredMembership};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A member that lacks at most this many entries holds nearly all of the log.
const CAUGHT_UP_ENTRIES: u64 = 256;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("only the leader can change the membership (leader: {0:?})")]
    NotLeader(Option<u64>),
    #[error("another change is in progress")]
    InProgress,
    #[error("{0}")]
    Refused(String),
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// Changes when the configuration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipMarks(Option<LogId>, Option<LogId>);

/// Raft's members and how they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    /// Members that hold nearly all of the log, as far as the leader has heard. Empty elsewhere.
    pub caught_up: BTreeSet<u64>,
    /// A change is under way: the newest configuration is not committed yet.
    pub changing: bool,
    /// The newest configuration is a joint one: the first of a change's two steps. Whoever led may have died before the
    /// second, which the next leader has to take.
    pub joint: bool,
    /// Where each of them is.
    pub addresses: BTreeMap<u64, String>,
}

impl RaftHandle {
    /// Forms the cluster of these voters (id and peer address). To be called with the same list on one or all
    /// of them; refused once initialized.
    pub async fn initialize(&self, members: BTreeMap<u64, String>) -> Result<(), MembershipError> {
        let members: BTreeMap<u64, BasicNode> =
            members.into_iter().map(|(id, address)| (id, BasicNode::new(address))).collect();
        match self.inner().raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(MembershipError::Unknown(fatal.to_string())),
            Err(RaftError::APIError(error)) => Err(MembershipError::Refused(error.to_string())),
        }
    }

    /// Whether this node has a vote or a log: it was initialized, or added by others, before.
    pub async fn is_initialized(&self) -> bool {
        // Raft that has stopped had been something before.
        self.inner().raft.is_initialized().await.unwrap_or(true)
    }

    /// Adds a learner, or changes the address of a member. Does not wait until it has caught up. Leader only.
    pub async fn add_learner(&self, id: u64, address: String) -> Result<(), MembershipError> {
        let nodes = BTreeMap::from([(id, BasicNode::new(&address))]);
        let change = match self.inner().address(id) {
            Some(known) if known == address => return Ok(()),
            Some(_) => ChangeMembers::SetNodes(nodes),
            None => ChangeMembers::AddNodes(nodes),
        };
        self.change_membership(change, true).await
    }

    /// Makes learners voters. Leader only.
    pub async fn promote(&self, ids: BTreeSet<u64>) -> Result<(), MembershipError> {
        self.change_membership(ChangeMembers::AddVoterIds(ids), true).await
    }

    /// Replaces the voters; former ones stay as learners. Leader only.
    pub async fn change_voters(&self, ids: BTreeSet<u64>) -> Result<(), MembershipError> {
        self.change_membership(ChangeMembers::ReplaceAllVoters(ids), true).await
    }

    /// Removes a member altogether; who is none already is no error. Leader only; a leader that removes itself
    /// steps down.
    pub async fn remove(&self, id: u64) -> Result<(), MembershipError> {
        let ids = BTreeSet::from([id]);
        let Membership { voters, learners, .. } = self.membership();
        if voters.contains(&id) {
            self.change_membership(ChangeMembers::RemoveVoters(ids), false).await
        } else if learners.contains(&id) {
            self.change_membership(ChangeMembers::RemoveNodes(ids), false).await
        } else {
            Ok(())
        }
    }

    /// Voters and their peer addresses, of the latest membership known here, committed or not.
    pub fn voters(&self) -> BTreeMap<u64, String> {
        self.with_addresses(self.membership().voters)
    }

    pub fn learners(&self) -> BTreeMap<u64, String> {
        self.with_addresses(self.membership().learners)
    }

    fn with_addresses(&self, ids: BTreeSet<u64>) -> BTreeMap<u64, String> {
        ids.into_iter().filter_map(|id| Some((id, self.inner().address(id)?))).collect()
    }

    /// The newest configuration's entry, and that of the newest committed one: as long as both are the same, so is
    /// what [`RaftHandle::membership`] says of voters, learners and changes.
    pub fn membership_marks(&self) -> MembershipMarks {
        let metrics = self.inner().raft.metrics();
        let metrics = metrics.borrow_watched();
        let entry = |config: &StoredMembership| *config.log_id();
        MembershipMarks(entry(&metrics.membership_config), entry(&metrics.committed_membership_config))
    }

    pub fn membership(&self) -> Membership {
        let metrics = self.inner().raft.metrics();
        let metrics = metrics.borrow_watched();
        let effective = &metrics.membership_config;
        let last = metrics.last_log_index.unwrap_or(0);
        let holds_nearly_all = |held: u64| held + CAUGHT_UP_ENTRIES >= last;
        let mut caught_up = BTreeSet::new();
        if let Some(replication) = &metrics.replication {
            let fit = replication
                .iter()
                .filter(|(_, held)| held.as_ref().is_some_and(|h| holds_nearly_all(h.index)));
            caught_up.extend(fit.map(|(id, _)| *id));
            caught_up.insert(metrics.id);
        }
        Membership {
            voters: effective.voter_ids().collect(),
            learners: effective.membership().learner_ids().collect(),
            caught_up,
            addresses: effective.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
            changing: metrics.committed_membership_config != *effective,
            joint: effective.membership().get_joint_config().len() > 1,
        }
    }

    /// Hands leadership to a voter and waits until this node no longer leads. Leader only.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MembershipError> {
        let inner = self.inner();
        if !inner.is_leader() {
            return Err(MembershipError::NotLeader(inner.leader().map(|(id, _)| id)));
        }
        if to == inner.id {
            return Ok(());
        }
        if !self.membership().voters.contains(&to) {
            return Err(MembershipError::Refused(format!("node {to} is not a voter")));
        }
        let mut leadership = inner.leadership.clone();
        let stopped = |e: openraft::errors::Fatal<_>| MembershipError::Unknown(e.to_string());
        inner.raft.trigger().transfer_leader(to).await.map_err(stopped)?;
        let patience = Duration::from_millis(inner.config.election_max_ms * 2);
        let handed_over = leadership.wait_for(|now| !now.is_leader);
        match tokio::time::timeout(patience, handed_over).await {
            Ok(_) => Ok(()),
            Err(_) => Err(MembershipError::Unknown(format!("node {to} has not taken over yet"))),
        }
    }

    async fn change_membership(
        &self,
        change: ChangeMembers<u64, BasicNode>,
        retain: bool,
    ) -> Result<(), MembershipError> {
        match self.inner().raft.change_membership(change, retain).await {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(MembershipError::Unknown(fatal.to_string())),
            Err(RaftError::APIError(error)) => Err(match error {
                ClientWriteError::ForwardToLeader(to) => MembershipError::NotLeader(to.leader_id),
                ClientWriteError::LogEntryDiscarded(_) => MembershipError::Unknown(error.to_string()),
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                    MembershipError::InProgress
                }
                error => MembershipError::Refused(error.to_string()),
            }),
        }
    }
}
