//! The Strandline broker: [`run`] is a whole node, [`env::Env`] everything ambient that it uses.
//!
//! Four flows, file by file:
//! * produce: `front/grpc/produce.rs` → `partition/leader_side.rs` → `core::partition::Leader` → storage;
//!   the answer waits in `partition/leading.rs` until the high watermark passes;
//! * replication: `replica/fetcher.rs` (follower) ⇄ `replica/server.rs` (leader), both around
//!   `partition/replica_side.rs` and `partition/leader_side.rs`;
//! * metadata: `controller/` decides → Raft → `run.rs` follows the images → `broker.rs` → `partition/mod.rs`;
//! * groups: `front/grpc/groups.rs` → `group/` → `core::group` → Raft → back through the image.

#[cfg(not(tokio_unstable))]
compile_error!(
    "build with --cfg tokio_unstable (it is in .cargo/config.toml; RUSTFLAGS in the environment replaces that \
     file's flags): without it the simulation cannot seed tokio's own random choices"
);

mod broker;
pub mod config;
mod context;
mod controller;
mod dedup;
pub mod env;
mod error;
mod front;
#[doc(hidden)]
pub mod fuzzing;
mod group;
pub mod inspect;
mod lifecycle;
pub mod metrics;
mod net;
mod partition;
mod peer_listener;
mod peer_service;
mod peers;
mod removal;
mod replica;
mod run;
mod session;

pub use error::ServeError;
pub use run::{RunError, run};
