//! Generated messages and services: [`v1`] is the SDK's protocol, [`peer`] the one between nodes.

pub mod assign;
pub mod codec;
pub mod produce;

/// SDK ↔ broker (`strandline.v1`).
#[allow(clippy::all, clippy::disallowed_methods, missing_docs)]
pub mod v1 {
    tonic::include_proto!("strandline.v1");
}

/// Broker ↔ broker (`strandline.peer.v1`).
#[allow(clippy::all, clippy::disallowed_methods, missing_docs)]
pub mod peer {
    tonic::include_proto!("strandline.peer.v1");
}
