//! Agreement on metadata and group offsets: openraft, with a log and snapshots on `storage::disk` and tonic
//! between the nodes.
//!
//! `handle` is what the node uses: propose a command, follow the image, know the leader (with `leadership` and
//! `membership`). Behind it are
//! `proposals` (many commands, few entries), `log` (entries and vote, durable), `state_machine` (entries to
//! images), `state_store` and `snapshots` (quick starts, bounded logs), `network` and `service` (the two ends
//! of a call).

mod feed;
mod handle;
pub mod io;
mod leadership;
mod log;
mod membership;
mod network;
mod proposals;
mod service;
mod snapshots;
mod state_machine;
mod state_store;
pub mod types;

/// Messages between nodes (`strandline.raft.v1`).
#[allow(clippy::all, clippy::disallowed_methods, missing_docs)]
mod proto {
    tonic::include_proto!("strandline.raft.v1");
}

pub use feed::{ImageFeed, ImageReceiver};
pub use handle::{Metrics, ProposeError, RaftConfig, RaftHandle, StartError};
pub use io::{BoxedIo, Connect, Io};
pub use leadership::Leadership;
pub use log::{LogConfig, LogError, LogStore};
pub use membership::{Membership, MembershipError, MembershipMarks};
pub use service::RaftService;
pub use state_store::{Applied, MemoryStateStore, SledStore, StateStore, StoredState};
pub use types::scope;
