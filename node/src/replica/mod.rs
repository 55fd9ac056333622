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
//! Both directions gather: one wake-up and one message serve every partition that has something to say.

mod fetcher;
mod server;
mod session;

pub use fetcher::{Fetcher, Fetchers};
pub use server::serve;
pub use session::ReplicaSession;
