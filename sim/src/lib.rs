//! Whole Strandline clusters in one thread: the very same node and SDK code on turmoil's network and clock and on
//! the simulated disk, with faults, an independent oracle, and one seed that replays a run.

#[cfg(not(tokio_unstable))]
compile_error!("build with --cfg tokio_unstable (see .cargo/config.toml): turmoil seeds tokio through it");

pub mod clock;
pub mod cluster;
pub mod draw;
pub mod env;
pub mod faults;
pub mod history;
pub mod interpose;
pub mod invariants;
pub mod life;
pub mod net;
pub mod observe;
pub mod run;
pub mod scenarios;
pub mod seeds;
pub mod stage;
pub mod trace;
pub mod watch;
pub mod workers;
pub mod workload;
pub mod world;

pub use cluster::{App, Cluster, check};
pub use faults::FaultKind;
pub use faults::plan::Target;
