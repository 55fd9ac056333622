//! What followers say to a leader, and what it says to them.

use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

/// A follower's numbered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    /// Grows with each request of this replica as long as its process lives.
    pub number: u64,
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    pub leader_epoch: LeaderEpoch,
    /// N: its log end.
    pub next_offset: Offset,
    /// Epoch of its last record; `None`: its log is empty.
    pub last_epoch: Option<LeaderEpoch>,
    /// What its disk holds; always the truth, whatever the topic's durability.
    pub flushed_end: Offset,
}

/// Only the follower's flushed end moved; its numbered request stays outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerAck {
    /// Of the request that is outstanding.
    pub number: u64,
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    pub leader_epoch: LeaderEpoch,
    pub flushed_end: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchDecision {
    /// The logs match up to `from`, and the acknowledgement is recorded. Send what follows, now or when there
    /// is some: it stays true until this leader is deposed.
    Send {
        from: Offset,
    },
    /// The follower's log is another one from `end` on; nothing was recorded. With no epoch, `end` is the log
    /// start and the follower begins there with an empty log.
    Diverging {
        epoch: Option<LeaderEpoch>,
        end: Offset,
    },
    /// What the follower asks for has been deleted: it begins at the log start with an empty log.
    BelowLogStart {
        log_start: Offset,
    },
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The follower's epoch is older: it waits for its image.
    #[error("leader epoch {current} is current")]
    FencedEpoch { current: LeaderEpoch },
    /// The follower's epoch is newer (this leader is deposed by it), or this leader was deposed before.
    #[error("leader epoch {epoch} is over")]
    NotLeader { epoch: LeaderEpoch },
    #[error("broker {0} is no replica")]
    NotReplica(BrokerId),
    /// The broker epoch is not the one in the leader's image, which may be the one that is behind: retry.
    #[error("the broker epoch is not current")]
    StaleBroker,
    /// An acknowledgement with no matched fetch before it in this epoch and registration. Ignore it: the next
    /// request says as much.
    #[error("no fetch has matched in this epoch yet")]
    NoFetch,
}
