//! Identifiers and the record batch: the pure bottom of Strandline. No clock, no socket, no file.

mod ids;

pub use ids::*;
