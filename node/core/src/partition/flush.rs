//! Which end of the log counts as acknowledged, and how a late flush completion is told from a current one.

use strandline_record::LeaderEpoch;

/// What "flushed" means for a topic (`flush` configuration).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `flush=ack`: only what fdatasync has made durable counts, on the leader and on followers.
    Flushed,
    /// `flush=interval`, `flush=os`: what is appended counts. The price is paid at an unclean restart, when
    /// RegisterBroker takes the broker out of the ELR too.
    Appended,
}

/// Taken when a flush is asked for, given back when it completes. A completion whose token is not the
/// current one is dropped: the bytes that it made durable may have been truncated since, and others
/// appended in their place (hazard 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushToken {
    pub leader_epoch: LeaderEpoch,
    /// How often this log has been truncated or reset since the process started, in any role.
    pub truncations: u64,
}
