//! Identifiers and the record batch: the pure bottom of Strandline. No clock, no socket, no file.

mod batch;
mod compression;
mod error;
mod ids;

pub use batch::*;
pub use compression::*;
pub use error::*;
pub use ids::*;
