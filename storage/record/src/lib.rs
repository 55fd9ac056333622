//! Identifiers and the record batch: the pure bottom of Strandline. No clock, no socket, no file.
//!
//! A batch travels from producer to disk to replica to consumer as the same bytes. Those on its way read its
//! header ([`BatchHeader`]), check it ([`validate_batch`]) and rewrite its base offset and leader epoch in
//! place; only its ends build ([`BatchBuilder`]) and open it ([`decode_batch`]).

mod batch;
mod builder;
mod compression;
mod error;
pub mod fuzzing;
mod ids;
mod partitioner;
mod records;
mod scan;
mod varint;

pub use batch::*;
pub use builder::*;
pub use compression::*;
pub use error::*;
pub use ids::*;
pub use partitioner::*;
pub use records::*;
pub use scan::{Scan, Scanned};
