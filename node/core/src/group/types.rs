//! What goes into and comes out of a group's coordinator.

use std::sync::Arc;
use strandline_metadata::{Command, Rejection};
use strandline_record::Generation;

/// Names the request that an answer belongs to. Chosen by the caller, unique among those unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyId(pub u64);

/// Names a proposal of one [`super::GroupState`], to report its failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// The time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic; every time-out is measured with it.
    pub mono_ms: u64,
    /// Wall clock, for display only (`Group::changed_at_ms`); nothing is decided by it.
    pub wall_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: u32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: u32,
    /// Longer rebalance time-outs are cut to this.
    pub rebalance_timeout_max_ms: u32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members to come.
    pub initial_rebalance_delay_ms: u32,
    /// `group.max.size`: members, and member ids handed out but not joined with yet.
    pub max_members: usize,
    /// Protocols that one member may name.
    pub max_protocols: usize,
    /// Bytes of one member's identifiers and protocol metadata together.
    pub max_member_bytes: usize,
    /// The same for all members together: a generation must fit into one Raft entry.
    pub max_group_bytes: usize,
    /// Bytes of all assignments of a generation together.
    pub max_assignment_bytes: usize,
    /// Pause before a failed proposal is sent again.
    pub propose_retry_ms: u32,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            rebalance_timeout_max_ms: 3_600_000,
            initial_rebalance_delay_ms: 250,
            max_members: 1_000,
            max_protocols: 16,
            max_member_bytes: 256 << 10,
            max_group_bytes: 4 << 20,
            max_assignment_bytes: 4 << 20,
            propose_retry_ms: 500,
        }
    }
}

#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Empty at first; then the id that the coordinator gave.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub session_timeout_ms: u32,
    /// How long a rebalance waits for this member (Kafka's `max.poll.interval.ms`). 0: as long as its session.
    pub rebalance_timeout_ms: u32,
    pub protocol_type: Arc<str>,
    /// Name and metadata, in order of preference.
    pub protocols: Vec<(Arc<str>, Arc<[u8]>)>,
    /// JoinGroup 4 and later (KIP-394): a dynamic member first gets an id and must come back with it, so
    /// that lost answers leave no ghosts. The SDK always does.
    pub require_known_member_id: bool,
    /// JoinGroup 9 and later (KIP-814): a returning static leader can be told to skip the assignment.
    pub can_skip_assignment: bool,
    /// An id never used before, to give to the member if it has none.
    pub fresh_id: Arc<str>,
}

#[derive(Clone, Debug)]
pub struct SyncRequest {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub generation: Generation,
    /// SyncGroup 5 and later; checked when present.
    pub protocol_type: Option<Arc<str>>,
    pub protocol: Option<Arc<str>>,
    /// From the leader: member id and assignment. Ignored from others.
    pub assignments: Vec<(Arc<str>, Arc<[u8]>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    pub generation: Generation,
    pub protocol_type: Arc<str>,
    pub protocol: Arc<str>,
    pub leader: Arc<str>,
    pub member_id: Arc<str>,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
    /// The leader is to take the assignment as it stands (KIP-814).
    pub skip_assignment: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    /// The member's metadata for the chosen protocol.
    pub metadata: Arc<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAnswer {
    pub protocol_type: Arc<str>,
    pub protocol: Arc<str>,
    pub assignment: Arc<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Join(JoinAnswer),
    Sync(SyncAnswer),
    Error(GroupError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Reply {
        id: ReplyId,
        answer: Answer,
    },
    /// Propose to Raft. Success shows in the image; anything else is reported with
    /// [`super::GroupState::proposal_failed`].
    Propose {
        id: ProposalId,
        command: Command,
    },
}

/// What became of a proposal that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposalFailure {
    /// `apply` refused it.
    Rejected(Rejection),
    /// No answer, no leader: it may have been, or may still be, applied.
    Unknown,
}

/// Why a group request was refused; the fronts choose the wire codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Retriable: find the coordinator and ask again.
    #[error("this broker does not coordinate the group now")]
    NotCoordinator,
    #[error("join again with member id {member_id}")]
    MemberIdRequired { member_id: Arc<str> },
    #[error("no such member; join again")]
    UnknownMemberId,
    #[error("the generation is not current; join again")]
    IllegalGeneration,
    #[error("another member uses this group.instance.id now")]
    FencedInstanceId,
    #[error("the group is rebalancing; join again")]
    RebalanceInProgress,
    #[error("the group's members share no protocol with this one")]
    InconsistentGroupProtocol,
    #[error("the session time-out must lie between {min_ms} and {max_ms} ms")]
    InvalidSessionTimeout { min_ms: u32, max_ms: u32 },
    #[error("the group is full")]
    GroupMaxSizeReached,
    #[error("the request is not valid: {0}")]
    InvalidRequest(&'static str),
    /// `apply` refused what the group needed, for a reason that asking again will not mend.
    #[error("refused: {0}")]
    Refused(Rejection),
}

/// Kafka's name for where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPhase {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    /// Of the consumer protocol (KIP-848): some member is on its way to its target.
    Reconciling,
    Stable,
    /// Not there: never agreed, or deleted.
    Dead,
}

impl GroupPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub phase: GroupPhase,
    /// The agreed generation; 0 before the first.
    pub generation: Generation,
    pub protocol_type: Arc<str>,
    pub protocol: Arc<str>,
    pub leader: Option<Arc<str>>,
    pub members: Vec<MemberDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    /// For the agreed protocol; empty while the member is not part of the agreed generation.
    pub metadata: Arc<[u8]>,
    pub assignment: Arc<[u8]>,
}
