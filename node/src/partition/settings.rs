//! From a topic's agreed settings to those of a partition's log.

use std::time::Duration;
use strandline_metadata::configs::{DedupKey, FlushMode, TimestampType, TopicSettings};
use strandline_record as record;
use strandline_storage as storage;
use strandline_storage::{CompactionConfig, DedupConfig, LogConfig};

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// What a topic's settings are to the log of a partition.
pub fn log_config(settings: &TopicSettings) -> LogConfig {
    LogConfig {
        segment_bytes: u64::from(settings.segment_bytes),
        segment_ms: signed(settings.segment_ms),
        index_interval_bytes: settings.index_interval_bytes,
        retention_ms: settings.retention_ms.map(signed),
        retention_bytes: settings.retention_bytes,
        compaction: settings.compaction.map(|compaction| CompactionConfig {
            min_lag_ms: signed(compaction.min_lag_ms),
            max_lag_ms: signed(compaction.max_lag_ms),
            delete_retention_ms: signed(compaction.delete_retention_ms),
            min_dirty_ppm: compaction.min_dirty_ppm,
        }),
        dedup: settings.dedup.as_ref().map(|dedup| DedupConfig {
            key: match &dedup.key {
                DedupKey::Key => storage::DedupKey::Key,
                DedupKey::Header(name) => storage::DedupKey::Header(name.clone()),
            },
            window_ms: signed(dedup.window_ms),
        }),
        max_message_bytes: settings.max_message_bytes as usize,
        flush: match settings.flush {
            FlushMode::Ack => storage::FlushMode::Ack,
            FlushMode::Interval => storage::FlushMode::Interval(Duration::from_millis(settings.flush_ms)),
            FlushMode::Os => storage::FlushMode::Os,
        },
        message_timestamp_type: match settings.timestamp_type {
            TimestampType::CreateTime => record::TimestampType::CreateTime,
            TimestampType::LogAppendTime => record::TimestampType::LogAppendTime,
        },
    }
}
