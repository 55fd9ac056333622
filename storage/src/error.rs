//! What can go wrong, by what the caller can do about it.

use std::io;
use std::path::PathBuf;
use strandline_record::{BatchError, BrokerId, Offset, ProducerEpoch};
use thiserror::Error;
use uuid::Uuid;

/// Why a directory could not be opened. Nothing was changed in it.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("the data directory {} is locked: another process is using it; stop that one, or choose another data.dir", .path.display())]
    Locked { path: PathBuf },
    #[error("the data directory {} belongs to node {found}, this is node {expected}: correct node.id or data.dir", .path.display())]
    OtherNode { path: PathBuf, found: BrokerId, expected: BrokerId },
    #[error("the data directory {} belongs to cluster {found}, this node is in cluster {expected}", .path.display())]
    OtherCluster { path: PathBuf, found: Uuid, expected: Uuid },
    #[error("no permission to use {}", .path.display())]
    Permission {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The bytes of a file that everything rests on are not what was written. They are kept; the node can
    /// be wiped and added again, its peers have the data.
    #[error("{} is unreadable: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("cannot open the data directory {}: {source}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Why the directory could not be bound to a cluster.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("the data directory belongs to cluster {found}")]
    OtherCluster { found: Uuid },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why nothing was appended. Except for [`AppendError::Failed`] it certainly did not happen.
#[derive(Debug, Error)]
pub enum AppendError {
    #[error("batch of {size} bytes is larger than max.message.bytes ({max})")]
    TooLarge { size: usize, max: usize },
    /// The bytes are no intact batch.
    #[error("corrupt batch: {0}")]
    Corrupt(BatchError),
    /// The bytes are intact and not acceptable.
    #[error("invalid batch: {0}")]
    Invalid(String),
    /// From a leader: the bytes do not continue this log.
    #[error("batch starts at offset {found}, the log ends at {expected}")]
    NotContiguous { expected: Offset, found: Offset },
    /// Sequences are missing between the producer's last batch and this one.
    #[error("out of order sequence {found} of producer {producer}, expected {expected}")]
    OutOfOrderSequence { producer: i64, expected: i32, found: i32 },
    /// The batch is in the log already, at these offsets (inclusive).
    #[error("duplicate of the batch at offsets {base_offset} to {last_offset}")]
    Duplicate { base_offset: Offset, last_offset: Offset },
    /// Retry soon: the index of idempotency keys is being read up.
    #[error("the idempotency keys of this partition are still being read")]
    KeysNotRead,
    #[error("producer epoch {found} is fenced, {current} is current")]
    ProducerFenced { current: ProducerEpoch, found: ProducerEpoch },
    /// Retry later: the disk is full.
    #[error("the disk is full")]
    StorageFull,
    /// The log is damaged from this offset and waits for [`crate::PartitionLog::repair`].
    #[error("the log is damaged from offset {from}")]
    Damaged { from: Offset },
    /// The log was deleted.
    #[error("the log was deleted")]
    Deleted,
    /// Writing failed, now or before: the process is about to end. Whether these bytes are
    /// found after that is unknown.
    #[error("the log failed: {0}")]
    Failed(String),
}

/// Why nothing was read.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("offset is out of range: the log starts at {log_start} and ends at {log_end}")]
    OutOfRange { log_start: Offset, log_end: Offset },
    #[error("the log is damaged from offset {from}")]
    Damaged { from: Offset },
    #[error("the log was deleted")]
    Deleted,
    #[error("reading failed: {0}")]
    Failed(String),
}

/// Why an operation on a whole log was not done.
#[derive(Debug, Error)]
pub enum LogError {
    #[error("offset {asked} is outside of {log_start}..={log_end}")]
    OutOfRange { asked: Offset, log_start: Offset, log_end: Offset },
    #[error("the log is damaged from offset {from}")]
    Damaged { from: Offset },
    #[error("the log was deleted")]
    Deleted,
    #[error("the log failed: {0}")]
    Failed(String),
}
