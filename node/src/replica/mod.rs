//! Replication streams. A follower's broker opens one stream to each broker that leads partitions it
//! follows, and all of those partitions share it ([`Fetcher`]); the leader's broker answers as data comes
//! ([`serve`], [`ReplicaSession`]).
//!
//! ```text
//! follower broker                          leader broker
//! Partition ─ mark_dirty ─▶ Fetcher ──ReplicaFetch──▶ serve ─▶ Partition::replica_fetch
//!     ▲                        │                                     │ mark_ready
//!     └──── replica_data ──────┘◀──ReplicaData── ReplicaSession ◀────┘
//! ```
//!
//! Both directions gather: one wake-up and one message serve every partition that has something to say. Messages
//! travel as frames of their own on a connection of their own ([`frame`]). Either end says something at least every
//! [`KEEP_ALIVE`], and gives the stream up when it has heard nothing for [`SILENCE`]: a peer, or the way to it, can
//! be gone without the connection being closed.

mod fetcher;
mod frame;
mod server;
mod session;

pub use fetcher::{Fetcher, Fetchers};
pub use frame::PREFACE;
pub use server::serve;
pub use session::ReplicaSession;

use std::time::Duration;

const KEEP_ALIVE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(6);
