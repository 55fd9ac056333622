//! Configuration of a node.
//!
//! One table ([`KEYS`], declared in `keys.rs` together with the fields of [`NodeConfig`]) drives the TOML
//! file, the environment, the flags of `strandline serve`, `strandline config list` and the page
//! `ops/docs/configuration.md`. A key has one name everywhere, written three ways:
//!
//! ```text
//! file          broker.session.timeout.ms = 3000
//! environment   STRANDLINE_BROKER_SESSION_TIMEOUT_MS=3000
//! flag          --broker-session-timeout-ms 3000
//! ```
//!
//! Flags win over the environment, the environment over the file, the file over the default. Where Kafka
//! has a key for the same thing, the name is Kafka's.
//!
//! Nothing here reads a file or the environment: the caller hands their content to [`load`], so that tests
//! and the simulation decide what a node sees.
//!
//! Invariant: a `NodeConfig` that [`load`] returned has passed [`NodeConfig::validate`]. One that was built by
//! hand (`NodeConfig { … , ..NodeConfig::new(id, dir) }`) has not until `validate` is called.

mod docs;
mod keys;
mod source;
mod validate;
mod value;

pub use docs::{markdown, sample_toml};
pub use keys::{KEYS, Key, NodeConfig, key};
pub use source::{ConfigError, ConfigFile, Loaded, Origin, Problem, Sources, load, suggest};
pub use validate::Violation;
pub use value::{FlushMode, FormCluster, HostPort, LogFormat, TimestampType};
