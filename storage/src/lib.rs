//! Bytes on disk: segmented logs, one journal per node, recovery.
//!
//! ```text
//!   append ──► segment (page cache; read and replicated from there, the newest batches from memory)
//!      └─────► journal (one write + one fdatasync for the batches of all logs) ──► flushed end moves
//!                 │ a file is full
//!                 ▼
//!             checkpoint: sync the segments, write down what they hold, reuse the journal before it
//! ```
//!
//! What everything here rests on (each module says how it keeps its part):
//! * log start ≤ log end and flushed end ≤ log end; a batch below the flushed end survives power loss. (The flushed end
//!   is below the log start while a log that began again, or a log start that went past it, is not on disk yet.)
//! * bytes of a segment that the last durable checkpoint lists are never changed, and its file is not
//!   removed before a later checkpoint without it is durable: a truncation goes on in a new file. So a
//!   crash finds the listed state, and the journal leads from there to the newest one;
//! * the last state of every log is a prefix of the operations that were done on it;
//! * damage is told from a torn tail, marked durably, and nothing of a damaged log is served.

mod ballast;
mod cache;
mod checkpoint;
mod compaction;
mod config;
mod dedup;
pub mod disk;
mod epochs;
mod error;
mod files;
pub mod fuzzing;
mod index;
mod journal;
mod log;
mod meta;
mod meters;
mod producers;
mod recovery;
mod retention;
mod segment;
mod store;
pub mod worker;

pub use compaction::CompactionStats;
pub use config::{CompactionConfig, FlushMode, LogConfig, StoreConfig};
pub use dedup::{DedupConfig, DedupKey, DedupStats, Repeat};
pub use error::{AppendError, BindError, LogError, OpenError, ReadError};
pub use log::{Appended, FlushListener, FlushedTo, PartitionLog, ReadBatches};
pub use meters::StoreReading;
pub use producers::KnownProducer;
pub use recovery::{DamagedLog, RecoveryReport};
pub use retention::{DamageReport, ScrubCursor};
pub use store::{DiskState, Store};
