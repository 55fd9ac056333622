//! What goes into and comes out of the coordinator of a group of the consumer protocol.

use super::assignor::Assignor;
use crate::group::{ProposalId, ReplyId};
use std::collections::BTreeSet;
use std::sync::Arc;
use strandline_metadata::{Command, GroupEpoch, Partitions, Rejection};

/// `ConsumerGroupHeartbeat`'s member epoch of a member that joins, or joins again without any partitions.
pub const JOIN: i32 = 0;
/// Of one that leaves for good.
pub const LEAVE: i32 = -1;
/// Of a static member that leaves and will be back.
pub const LEAVE_FOR_NOW: i32 = -2;

#[derive(Clone, Debug)]
pub struct ConsumerGroupLimits {
    /// `group.consumer.session.timeout.ms`: silence after which a member is removed.
    pub session_timeout_ms: u32,
    /// `group.consumer.heartbeat.interval.ms`: how often members are told to ask.
    pub heartbeat_interval_ms: u32,
    /// `group.consumer.max.size`
    pub max_members: usize,
    /// `group.consumer.assignors`: those that members may ask for. The first is for groups whose members ask for none.
    pub assignors: Vec<Assignor>,
    /// Longer rebalance time-outs are cut to this.
    pub rebalance_timeout_max_ms: u32,
    /// Bytes of one regular expression.
    pub max_regex_bytes: usize,
    /// Bytes of one member's identifiers and subscription together.
    pub max_member_bytes: usize,
    /// The same for all members together: a change of all of them must fit into one Raft entry.
    pub max_group_bytes: usize,
    /// Pause before a failed proposal is sent again.
    pub propose_retry_ms: u32,
}

impl Default for ConsumerGroupLimits {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            max_members: 1_000,
            assignors: Assignor::ALL.to_vec(),
            rebalance_timeout_max_ms: 3_600_000,
            max_regex_bytes: 4 << 10,
            max_member_bytes: 256 << 10,
            max_group_bytes: 4 << 20,
            propose_retry_ms: 500,
        }
    }
}

/// ConsumerGroupHeartbeat. What is `None` did not change since the member's last one.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    /// The client chooses it (version 1), else whoever received its first request.
    pub member_id: Arc<str>,
    /// The member's epoch, or [`JOIN`], [`LEAVE`], [`LEAVE_FOR_NOW`].
    pub epoch: i32,
    pub instance_id: Option<Arc<str>>,
    pub rack: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub rebalance_timeout_ms: Option<u32>,
    pub topics: Option<BTreeSet<Arc<str>>>,
    /// Version 1. Empty: no longer one.
    pub regex: Option<Arc<str>>,
    pub assignor: Option<Arc<str>>,
    /// What the member has: after a revocation, without what it gave up.
    pub owned: Option<Partitions>,
}

impl HeartbeatRequest {
    /// It says all that there is to say: the answer is to do so as well.
    pub fn is_full(&self) -> bool {
        let subscription = self.topics.is_some() || self.regex.is_some();
        self.epoch == JOIN || (self.rebalance_timeout_ms.is_some() && subscription && self.owned.is_some())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    pub member_id: Arc<str>,
    /// The member's epoch from now on; [`LEAVE`] or [`LEAVE_FOR_NOW`] for one that left.
    pub epoch: i32,
    pub heartbeat_interval_ms: u32,
    /// What the member may consume, where that changed since it was told, or it asked in full.
    pub assignment: Option<Partitions>,
}

pub type HeartbeatResult = Result<HeartbeatAnswer, ConsumerGroupError>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Reply {
        id: ReplyId,
        answer: HeartbeatResult,
    },
    /// Propose to Raft. Success shows in the image; anything else is reported with
    /// [`super::ConsumerGroupState::proposal_failed`].
    Propose {
        id: ProposalId,
        command: Command,
    },
}

/// Why a request was refused; the fronts choose the wire codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerGroupError {
    /// Retriable: find the coordinator and ask again.
    #[error("this broker does not coordinate the group now")]
    NotCoordinator,
    #[error("no such member; join again")]
    UnknownMemberId,
    /// The member has to give up all it has and join again.
    #[error("the member epoch is not current; join again without partitions")]
    FencedMemberEpoch,
    /// Of a commit: try again with the epoch that the next heartbeat brings.
    #[error("the member epoch is not current")]
    StaleMemberEpoch,
    #[error("another member uses this group.instance.id now")]
    FencedInstanceId,
    #[error("the member with this group.instance.id has not left")]
    UnreleasedInstanceId,
    #[error("no such assignor; there are: {0}")]
    UnsupportedAssignor(String),
    #[error("the regular expression is not valid: {0}")]
    InvalidRegularExpression(String),
    #[error("the group is full")]
    GroupMaxSizeReached,
    #[error("the request is not valid: {0}")]
    InvalidRequest(&'static str),
    #[error("the group has members of the classic protocol")]
    OtherProtocol,
    /// `apply` refused what the group needed, for a reason that asking again will not mend.
    #[error("refused: {0}")]
    Refused(Rejection),
}

/// Kafka's name for where a group stands. (Its `Assigning` does not occur: a target is agreed together with
/// the group epoch that asks for it.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerGroupPhase {
    Empty,
    Reconciling,
    Stable,
    /// Not there: never agreed, or deleted.
    Dead,
}

impl ConsumerGroupPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// As agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupDescription {
    pub phase: ConsumerGroupPhase,
    pub epoch: GroupEpoch,
    /// The group epoch of the target assignment.
    pub target_epoch: GroupEpoch,
    pub assignor: Assignor,
    /// By member id.
    pub members: Vec<(Arc<str>, Arc<strandline_metadata::ConsumerMember>)>,
}
