//! Records, partitions and offsets as users see them.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
pub use strandline_record::{RecordHeader as Header, TopicId};

/// One partition of a topic, by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: Into<Arc<str>>> From<(T, i32)> for TopicPartition {
    fn from((topic, partition): (T, i32)) -> Self {
        TopicPartition::new(topic, partition)
    }
}

/// A record to produce. Cloning shares the bytes.
///
/// On a hot path keep the topic name as an `Arc<str>` and the payload as [`Bytes`], so that nothing is copied
/// before it is encoded into its batch.
///
/// ```
/// use strandline_client::Record;
/// let record = Record::to("orders").key("customer-7").value(r#"{"total":12}"#).header("source", "web");
/// assert_eq!(record.topic(), "orders");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    pub(crate) timestamp_ms: Option<i64>,
}

impl Record {
    /// An empty record for `topic`.
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Record {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    /// The key: records with equal keys go to one partition, in order.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The payload. A record without one is a tombstone in a compacted topic.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Appends a header.
    pub fn header(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header::new(key, Some(value.into())));
        self
    }

    /// Appends a header whose value may be absent.
    pub fn with_header(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }

    /// Chooses the partition instead of leaving it to the partitioner.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Milliseconds since the Unix epoch; without it, the time of sending.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// The topic that it is for.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What it holds against the producer's `buffer_bytes`: payload, key, headers and their framing.
    pub(crate) fn weight(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|h| h.key.len() + h.value.as_ref().map_or(0, Bytes::len) + 10).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers + 32
    }
}

/// Where an acknowledged record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
    /// Offset; `None` where the broker did not say (`acks=none`, or a duplicate older than its window).
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch, as the log has it.
    pub timestamp_ms: i64,
    /// An earlier attempt had already been appended; the log holds the record once.
    pub duplicate: bool,
    /// The topic's `dedup.key` found an earlier record with the same key: this one was not appended, and `offset` is the
    /// earlier one's.
    pub repeated: bool,
}

/// A record as read from its partition. Key, value and headers share the fetched buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
    /// Position in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Leader epoch in which it was appended.
    pub leader_epoch: i32,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<Header>,
}

impl ConsumerRecord {
    /// Where it was read.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}

/// A committed offset: the next record that the group is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// Next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, for detecting truncation (KIP-320).
    pub leader_epoch: Option<i32>,
    /// Free text of whoever committed.
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// `offset` is the next record to read: one past the last one processed.
    pub fn new(offset: i64) -> Self {
        OffsetAndMetadata { offset, leader_epoch: None, metadata: String::new() }
    }
}

impl From<i64> for OffsetAndMetadata {
    fn from(offset: i64) -> Self {
        Self::new(offset)
    }
}

/// A place in a partition, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// Log start offset.
    Earliest,
    /// High watermark: the next record to be written.
    Latest,
    /// First record whose timestamp is at or after this (milliseconds since the Unix epoch); the end if there
    /// is none.
    Timestamp(i64),
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// Exactly this offset.
    Offset(i64),
}

impl OffsetSpec {
    pub(crate) fn wire(self) -> i64 {
        match self {
            OffsetSpec::Latest => -1,
            OffsetSpec::Earliest => -2,
            OffsetSpec::MaxTimestamp => -3,
            OffsetSpec::Timestamp(ms) => ms,
            OffsetSpec::Offset(_) => unreachable!("an offset needs no lookup"),
        }
    }
}

pub(crate) fn id_bytes(id: TopicId) -> Bytes {
    Bytes::copy_from_slice(id.0.as_bytes())
}

pub(crate) fn id_from(bytes: &[u8]) -> Option<TopicId> {
    uuid::Uuid::from_slice(bytes).ok().map(TopicId)
}
