//! The ingest pipeline: events of any shape come in over HTTP, are normalised, counted once, and answer questions.
//!
//! ```text
//!  POST /api/events ─► normalise ─┬─ accepted ─► topic ingest.events ───┐
//!                      (pure)     └─ refused ──► topic ingest.rejected ─┤
//!                                                                       ▼
//!  GET /api/events, /api/aggregations ◄── store (SQLite, PostgreSQL) ◄─ processor ─ gives up ─► topic ingest.dlq
//! ```
//!
//! Invariants: an event is answered only when it is on disk on every in-sync replica; it counts in the aggregates
//! once, however often it is sent, read or tried; the store's offsets and what they stand for change in one
//! transaction; nothing that was taken is dropped: it ends as processed, rejected or failed.

mod config;
pub mod dead_letters;
mod http;
pub mod normalise;
mod pipeline;
mod processor;
mod progress;
mod reader;
pub mod record;
pub mod store;
mod submit;

pub use config::{IngestConfig, StoreLocation};
pub(crate) use http::Api;
pub use http::routes;
pub use pipeline::{Ingest, Opener};
pub(crate) use progress::NextOffsets;
