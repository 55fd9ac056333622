//! The HTTP gateway: events over JSON and CloudEvents, in front of a cluster that it knows through the SDK only.
//!
//! ```text
//!  browser, curl ──HTTP/1.1──► server ──► http::routes ──► SDK ──gRPC──► whichever node leads
//!                              │ time, headers  │ problem documents
//!                              └ connections    └ admission: rate, requests and bytes in flight
//! ```
//!
//! A node mounts one in its own process (`listen.http`), and `strandline gateway` runs one alone: [`serve`] is both.
//! It keeps nothing that an acknowledgement depends on, so any gateway serves any topic.
//!
//! Invariants: a write is answered with 200 only when its records are on disk on every in-sync replica; an answer
//! of 429 or 5xx says whether what was asked for may have happened ([`http::problem`]); every queue, body and wait
//! is bounded by [`GatewayConfig`].
#![warn(missing_docs)]

mod app;
mod config;
pub mod demo;
pub mod http;
pub mod ingest;
mod live;
pub mod metrics;
mod server;

pub use app::{App, AppState};
pub use config::GatewayConfig;
pub use server::{ServeError, serve};
