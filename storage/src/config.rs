//! What a store and a log can be told. Names follow Kafka's keys where Kafka has one.

use crate::dedup::DedupConfig;
use std::time::Duration;
use strandline_record::{BrokerId, TimestampType};
use uuid::Uuid;

/// When an appended batch counts as flushed (`flush`, per topic).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlushMode {
    /// When the journal has made it durable.
    #[default]
    Ack,
    /// At once; the segments are synced this often. An unclean stop may lose the tail.
    Interval(Duration),
    /// At once; the operating system writes it when it likes.
    Os,
}

/// What compaction goes by, per topic. The times of appends count, as for retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// Records stay as they are for so long (`min.compaction.lag.ms`).
    pub min_lag_ms: i64,
    /// A log is compacted when a record waits for longer, however little there is to gain, and its active segment is
    /// rolled for that (`max.compaction.lag.ms`).
    pub max_lag_ms: i64,
    /// A tombstone stays for so long after the first pass over it (`delete.retention.ms`).
    pub delete_retention_ms: i64,
    /// A log is compacted when more than so many bytes in a million were not yet (`min.cleanable.dirty.ratio`).
    pub min_dirty_ppm: u32,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        CompactionConfig {
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3_600_000,
            min_dirty_ppm: 500_000,
        }
    }
}

/// One log's settings, changeable at run time ([`crate::PartitionLog::set_config`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is rolled before it grows past this (`segment.bytes`); at most `i32::MAX`.
    pub segment_bytes: u64,
    /// A segment whose first batch is older than this is rolled (`segment.ms`).
    pub segment_ms: i64,
    /// Bytes between two entries of the sparse index (`index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// Segments whose newest batch was appended longer ago are deleted (`retention.ms`). The time of the
    /// append counts, not the producer's timestamp, so that a wrong producer clock deletes and keeps
    /// nothing (KIP-937).
    pub retention_ms: Option<i64>,
    /// The oldest segments are deleted while the rest is at least this big (`retention.bytes`).
    pub retention_bytes: Option<u64>,
    /// With `cleanup.policy=compact`, which only takes records that have a key.
    pub compaction: Option<CompactionConfig>,
    /// With `dedup.key`: of the records of one key only the first in a window of time is appended.
    pub dedup: Option<DedupConfig>,
    /// Largest batch, header included, that a producer may write (`max.message.bytes`).
    pub max_message_bytes: usize,
    pub flush: FlushMode,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            compaction: None,
            dedup: None,
            max_message_bytes: 1_048_588,
            flush: FlushMode::Ack,
            message_timestamp_type: TimestampType::CreateTime,
        }
    }
}

impl LogConfig {
    /// Age of its first batch at which a segment is rolled.
    pub(crate) fn roll_ms(&self) -> i64 {
        self.compaction.map_or(self.segment_ms, |compaction| self.segment_ms.min(compaction.max_lag_ms))
    }
}

/// The settings of a whole store (one per node).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// A directory that another node wrote is refused.
    pub node_id: BrokerId,
    /// A directory of another cluster is refused; `None` accepts any.
    pub cluster_id: Option<Uuid>,
    /// The identity that a new directory gets; an existing one keeps its own.
    pub new_directory_id: Uuid,
    /// Size of one journal file. A checkpoint is written whenever one is full.
    pub journal_file_bytes: u64,
    /// With this many journal files in use, flushing waits for a checkpoint. At least 2.
    pub journal_files_max: usize,
    /// Newest batches kept in memory, of all logs together.
    pub tail_cache_bytes: usize,
    /// Appends are refused while less than this is free; journal, checkpoints and Raft live on it.
    pub reserved_bytes: u64,
    /// Segment files held open at once.
    pub open_files_max: usize,
    /// A checkpoint syncs up to so many files and directories one by one; more by one sync of the whole file system,
    /// which also waits for what others wrote there.
    pub sync_files_max: usize,
    /// The state of a producer that wrote nothing for so long is forgotten (`producer.id.expiration.ms`).
    pub producer_id_expiration_ms: i64,
    /// Memory for the keys of the log that is being compacted; with more keys it takes several passes
    /// (`log.cleaner.dedupe.buffer.size`).
    pub dedupe_buffer_bytes: usize,
    /// Idempotency keys that are remembered, of all logs together (`dedup.max.keys`); each takes about 35 bytes.
    pub dedup_keys_max: usize,
}

impl StoreConfig {
    pub fn new(node_id: BrokerId, new_directory_id: Uuid) -> Self {
        StoreConfig {
            node_id,
            cluster_id: None,
            new_directory_id,
            journal_file_bytes: 64 << 20,
            journal_files_max: 4,
            tail_cache_bytes: 24 << 20,
            reserved_bytes: 512 << 20,
            open_files_max: 512,
            sync_files_max: 16,
            producer_id_expiration_ms: 86_400_000,
            dedupe_buffer_bytes: 16 << 20,
            dedup_keys_max: 8_000_000,
        }
    }
}
