//! Topic configurations: Kafka's keys, types and defaults where Kafka has the key, each with what it means
//! here. `validate` is what `apply` asks; [`TopicSettings`] is what the rest of the broker reads.

use crate::command::Rejection;
use crate::image::TopicConfigs;
use std::fmt;
use std::sync::Arc;

pub const CLEANUP_POLICY: &str = "cleanup.policy";
pub const COMPRESSION_TYPE: &str = "compression.type";
pub const DEDUP_KEY: &str = "dedup.key";
pub const DEDUP_WINDOW_MS: &str = "dedup.window.ms";
pub const DELETE_RETENTION_MS: &str = "delete.retention.ms";
pub const FLUSH: &str = "flush";
pub const FLUSH_MS: &str = "flush.ms";
pub const INDEX_INTERVAL_BYTES: &str = "index.interval.bytes";
pub const MAX_COMPACTION_LAG_MS: &str = "max.compaction.lag.ms";
pub const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
pub const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";
pub const MIN_CLEANABLE_DIRTY_RATIO: &str = "min.cleanable.dirty.ratio";
pub const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
pub const RETENTION_BYTES: &str = "retention.bytes";
pub const RETENTION_MS: &str = "retention.ms";
pub const SEGMENT_BYTES: &str = "segment.bytes";
pub const SEGMENT_MS: &str = "segment.ms";
pub const UNCLEAN_LEADER_ELECTION_ENABLE: &str = "unclean.leader.election.enable";

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    pub name: &'static str,
    pub kind: ConfigKind,
    pub default: &'static str,
    pub documentation: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// Whole number within the bounds, both inclusive.
    Number { min: i64, max: i64 },
    /// Decimal fraction from 0 to 1, six digits of which count.
    Ratio,
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `none`, `key`, or `header:` with a name.
    DedupKey,
}

impl fmt::Display for ConfigKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigKind::Number { .. } => f.write_str("number"),
            ConfigKind::Ratio => f.write_str("ratio"),
            ConfigKind::Boolean => f.write_str("boolean"),
            ConfigKind::Choice(words) => f.write_str(&words.join("|")),
            ConfigKind::DedupKey => f.write_str("none|key|header:NAME"),
        }
    }
}

/// Every key that a topic may set, in alphabetical order.
pub const TOPIC_CONFIGS: &[ConfigKey] = &[
    ConfigKey {
        name: CLEANUP_POLICY,
        kind: ConfigKind::Choice(&["delete", "compact", "compact,delete", "delete,compact"]),
        default: "delete",
        documentation: "What happens to old segments. delete: removed once over the retention time or size. compact: \
            of the records of one key only the last one is kept; records without a key are refused. Or both.",
    },
    ConfigKey {
        name: COMPRESSION_TYPE,
        kind: ConfigKind::Choice(&["producer"]),
        default: "producer",
        documentation: "Batches are kept as the producer compressed them.",
    },
    ConfigKey {
        name: DEDUP_KEY,
        kind: ConfigKind::DedupKey,
        default: "none",
        documentation: "What makes two records the same. key: their key. header:NAME: the value of the first header of that \
            name. Within dedup.window.ms a second one in the same partition is not appended, and its sender is told where \
            the first one is. Records without it are appended always. Not together with compaction.",
    },
    ConfigKey {
        name: DEDUP_WINDOW_MS,
        kind: ConfigKind::Number { min: 1, max: i64::MAX },
        default: "86400000",
        documentation: "For how long after its record an idempotency key (dedup.key) is remembered, in milliseconds: shorter \
            if the record is removed before, or if there are more than the broker's dedup.max.keys; a little longer after a \
            restart.",
    },
    ConfigKey {
        name: DELETE_RETENTION_MS,
        kind: ConfigKind::Number { min: 0, max: i64::MAX },
        default: "86400000",
        documentation: "How long a tombstone (a record without a value) is kept after compaction has removed what it \
            deletes, in milliseconds: a consumer that reads everything within this time hears of the deletion.",
    },
    ConfigKey {
        name: FLUSH,
        kind: ConfigKind::Choice(&["ack", "interval", "os"]),
        default: "ack",
        documentation: "When records are made durable. ack: before they are acknowledged, on every in-sync \
            replica. interval: every flush.ms. os: when the operating system writes them. With interval and \
            os a power loss on all in-sync replicas at once can lose acknowledged records.",
    },
    ConfigKey {
        name: FLUSH_MS,
        kind: ConfigKind::Number { min: 1, max: i64::MAX },
        default: "1000",
        documentation: "Longest time in milliseconds that a record stays unsynced with flush=interval.",
    },
    ConfigKey {
        name: INDEX_INTERVAL_BYTES,
        kind: ConfigKind::Number { min: 512, max: i32::MAX as i64 },
        default: "4096",
        documentation: "Bytes of log between two entries of the offset index.",
    },
    ConfigKey {
        name: MAX_COMPACTION_LAG_MS,
        kind: ConfigKind::Number { min: 1, max: i64::MAX },
        default: "9223372036854775807",
        documentation: "Longest time in milliseconds that a record waits for compaction, however little there is to \
            compact.",
    },
    ConfigKey {
        name: MAX_MESSAGE_BYTES,
        kind: ConfigKind::Number { min: 1024, max: 60 << 20 },
        default: "1048588",
        documentation: "Largest record batch that is accepted, in bytes, compressed and with its header. At most 60 MiB: requests are \
            bounded at 64.",
    },
    ConfigKey {
        name: MESSAGE_TIMESTAMP_TYPE,
        kind: ConfigKind::Choice(&["CreateTime", "LogAppendTime"]),
        default: "CreateTime",
        documentation: "Whether records keep the producer's time or get the leader's when appended.",
    },
    ConfigKey {
        name: MIN_CLEANABLE_DIRTY_RATIO,
        kind: ConfigKind::Ratio,
        default: "0.5",
        documentation: "A partition is compacted when more than this part of its closed segments has not been yet: \
            lower costs more disk work, higher leaves more superseded records.",
    },
    ConfigKey {
        name: MIN_COMPACTION_LAG_MS,
        kind: ConfigKind::Number { min: 0, max: i64::MAX },
        default: "0",
        documentation: "Time in milliseconds for which every record is kept, superseded or not.",
    },
    ConfigKey {
        name: MIN_INSYNC_REPLICAS,
        kind: ConfigKind::Number { min: 1, max: 1000 },
        default: "2",
        documentation: "In-sync replicas needed to accept and acknowledge acks=all writes. A value that is set counts as \
            it is, even above the replica count (then nothing is acknowledged); the default is lowered to the \
            replica count, so 1 for a topic with one replica.",
    },
    ConfigKey {
        name: RETENTION_BYTES,
        kind: ConfigKind::Number { min: -1, max: i64::MAX },
        default: "-1",
        documentation: "Oldest segments are removed while the partition is larger; -1: no limit.",
    },
    ConfigKey {
        name: RETENTION_MS,
        kind: ConfigKind::Number { min: -1, max: i64::MAX },
        default: "604800000",
        documentation: "Segments whose records are all older, in milliseconds, are removed; -1: never.",
    },
    ConfigKey {
        name: SEGMENT_BYTES,
        kind: ConfigKind::Number { min: 4096, max: i32::MAX as i64 },
        default: "1073741824",
        documentation: "A segment is closed before it would exceed this many bytes.",
    },
    ConfigKey {
        name: SEGMENT_MS,
        kind: ConfigKind::Number { min: 1, max: i64::MAX },
        default: "604800000",
        documentation: "A segment is closed after this many milliseconds even if it is not full.",
    },
    ConfigKey {
        name: UNCLEAN_LEADER_ELECTION_ENABLE,
        kind: ConfigKind::Boolean,
        default: "false",
        documentation: "Whether a replica that may lack acknowledged records can be made leader when no \
            other is left.",
    },
];

/// The row of `key`; an unknown key is rejected with the nearest name that exists.
pub fn find(key: &str) -> Result<&'static ConfigKey, Rejection> {
    TOPIC_CONFIGS.iter().find(|row| row.name == key).ok_or_else(|| {
        let nearest = TOPIC_CONFIGS
            .iter()
            .map(|row| (strsim::osa_distance(key, row.name), row.name))
            .min()
            .filter(|(distance, _)| *distance <= key.chars().count().max(6) / 2);
        let hint = nearest.map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default();
        invalid(key, format!("there is no such configuration{hint}"))
    })
}

/// Whether all keys exist and all values fit.
pub fn validate(configs: &TopicConfigs) -> Result<(), Rejection> {
    configs.iter().try_for_each(|(key, value)| find(key)?.check(value))?;
    let values = Values(configs);
    let (min, max) = (values.number(MIN_COMPACTION_LAG_MS), values.number(MAX_COMPACTION_LAG_MS));
    if min > max {
        let reason = format!("{min} is more than {MAX_COMPACTION_LAG_MS} ({max})");
        return Err(invalid(MIN_COMPACTION_LAG_MS, reason));
    }
    if dedup_key(values.get(DEDUP_KEY)).is_some() && values.get(CLEANUP_POLICY).contains("compact") {
        let reason =
            format!("not together with {CLEANUP_POLICY}=compact, which removes the records it goes by");
        return Err(invalid(DEDUP_KEY, reason));
    }
    Ok(())
}

/// Longest name of a header that may be the idempotency key, in bytes.
const HEADER_NAME_MAX: usize = 255;

fn dedup_key(value: &str) -> Option<DedupKey> {
    match value.strip_prefix("header:") {
        Some(name) => Some(DedupKey::Header(name.into())),
        None => (value == "key").then_some(DedupKey::Key),
    }
}

/// A fraction from 0 to 1 in millionths.
fn millionths(value: &str) -> Option<u32> {
    let ratio = value.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio))?;
    Some((ratio * 1e6).round() as u32)
}

impl ConfigKey {
    /// Whether `value` is one that this key may have.
    pub fn check(&self, value: &str) -> Result<(), Rejection> {
        let refused =
            |expected: &dyn fmt::Display| Err(invalid(self.name, format!("'{value}' is not {expected}")));
        match self.kind {
            ConfigKind::Number { min, max } => match value.parse::<i64>() {
                Ok(n) if (min..=max).contains(&n) => Ok(()),
                Ok(_) => refused(&format_args!("between {min} and {max}")),
                Err(_) => refused(&"a whole number"),
            },
            ConfigKind::Ratio if millionths(value).is_some() => Ok(()),
            ConfigKind::Ratio => refused(&"a number between 0 and 1"),
            ConfigKind::Boolean if value == "true" || value == "false" => Ok(()),
            ConfigKind::Boolean => refused(&"true or false"),
            ConfigKind::Choice(words) if words.contains(&value) => Ok(()),
            ConfigKind::Choice(words) => refused(&format_args!("one of: {}", words.join(", "))),
            ConfigKind::DedupKey => match dedup_key(value) {
                Some(DedupKey::Header(name)) if name.is_empty() || name.len() > HEADER_NAME_MAX => {
                    refused(&format_args!("header: with a name of 1 to {HEADER_NAME_MAX} bytes"))
                }
                None if value != "none" => refused(&"one of: none, key, header:NAME"),
                _ => Ok(()),
            },
        }
    }
}

fn invalid(key: &str, reason: String) -> Rejection {
    Rejection::InvalidConfig { key: key.to_owned(), reason }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMode {
    Ack,
    Interval,
    Os,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// How a topic is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    pub min_lag_ms: u64,
    pub max_lag_ms: u64,
    pub delete_retention_ms: u64,
    /// `min.cleanable.dirty.ratio` in millionths.
    pub min_dirty_ppm: u32,
}

/// What makes two records the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DedupKey {
    Key,
    /// The first header of this name.
    Header(Arc<str>),
}

/// Idempotency keys of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupSettings {
    pub key: DedupKey,
    pub window_ms: u64,
}

/// The effective configuration of a topic's partition, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// With `cleanup.policy=compact`, alone or with `delete`.
    pub compaction: Option<CompactionSettings>,
    /// With `dedup.key`.
    pub dedup: Option<DedupSettings>,
    pub flush: FlushMode,
    pub flush_ms: u64,
    pub index_interval_bytes: u32,
    pub max_message_bytes: u32,
    pub timestamp_type: TimestampType,
    /// As set; the default is `min(2, replicas)`.
    pub min_insync_replicas: usize,
    /// `None`: no limit, or `cleanup.policy` does not say `delete`.
    pub retention_bytes: Option<u64>,
    /// `None`: for ever, or `cleanup.policy` does not say `delete`.
    pub retention_ms: Option<u64>,
    pub segment_bytes: u32,
    pub segment_ms: u64,
    pub unclean_leader_election: bool,
}

impl TopicSettings {
    /// Reads agreed (hence valid) configs. `replication`: the number of replicas of the partition,
    /// see [`Partition::target_replication`](crate::image::Partition::target_replication).
    ///
    /// # Panics
    /// If a value is not valid: `apply` and snapshots let none in.
    pub fn from_configs(configs: &TopicConfigs, replication: usize) -> Self {
        let values = Values(configs);
        let min_insync = values.number(MIN_INSYNC_REPLICAS) as usize;
        let policy = values.get(CLEANUP_POLICY);
        let (deletes, compacts) = (policy.contains("delete"), policy.contains("compact"));
        TopicSettings {
            compaction: compacts.then(|| CompactionSettings {
                min_lag_ms: values.number(MIN_COMPACTION_LAG_MS) as u64,
                max_lag_ms: values.number(MAX_COMPACTION_LAG_MS) as u64,
                delete_retention_ms: values.number(DELETE_RETENTION_MS) as u64,
                min_dirty_ppm: millionths(values.get(MIN_CLEANABLE_DIRTY_RATIO))
                    .expect("agreed values are valid"),
            }),
            dedup: dedup_key(values.get(DEDUP_KEY))
                .map(|key| DedupSettings { key, window_ms: values.number(DEDUP_WINDOW_MS) as u64 }),
            flush: match values.get(FLUSH) {
                "ack" => FlushMode::Ack,
                "interval" => FlushMode::Interval,
                "os" => FlushMode::Os,
                other => unreachable!("flush={other}"),
            },
            flush_ms: values.number(FLUSH_MS) as u64,
            index_interval_bytes: values.number(INDEX_INTERVAL_BYTES) as u32,
            max_message_bytes: values.number(MAX_MESSAGE_BYTES) as u32,
            timestamp_type: match values.get(MESSAGE_TIMESTAMP_TYPE) {
                "CreateTime" => TimestampType::CreateTime,
                "LogAppendTime" => TimestampType::LogAppendTime,
                other => unreachable!("message.timestamp.type={other}"),
            },
            min_insync_replicas: if configs.contains_key(MIN_INSYNC_REPLICAS) {
                min_insync
            } else {
                min_insync.min(replication.max(1))
            },
            retention_bytes: u64::try_from(values.number(RETENTION_BYTES)).ok().filter(|_| deletes),
            retention_ms: u64::try_from(values.number(RETENTION_MS)).ok().filter(|_| deletes),
            segment_bytes: values.number(SEGMENT_BYTES) as u32,
            segment_ms: values.number(SEGMENT_MS) as u64,
            unclean_leader_election: values.get(UNCLEAN_LEADER_ELECTION_ENABLE) == "true",
        }
    }
}

/// The value of `key` for a topic, set or default; `None` if there is no such key.
pub fn effective<'a>(configs: &'a TopicConfigs, key: &str) -> Option<&'a str> {
    let row = TOPIC_CONFIGS.iter().find(|row| row.name == key)?;
    Some(configs.get(key).map_or(row.default, |value| value))
}

struct Values<'a>(&'a TopicConfigs);

impl<'a> Values<'a> {
    fn get(&self, key: &str) -> &'a str {
        effective(self.0, key).expect("a key of the table")
    }

    fn number(&self, key: &str) -> i64 {
        self.get(key).parse().expect("agreed values are valid")
    }
}
