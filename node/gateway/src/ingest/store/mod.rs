//! Where events are kept and counted: one trait, two stores, one contract (`tests/ingest_store.rs`).
//!
//! ```text
//!  processor ─ Batch (writes, from, next) ─► plan (pure: what is new, what it adds) ─► one transaction:
//!                                            rows, buckets, totals, and the source's next offset
//!  questions ─ AggregateQuery ─► cover (pure: which buckets, which rows) ─► Groups
//! ```
//!
//! Invariants: a source's next offset and everything before it change in one transaction, so that no record counts
//! twice, whoever brings it again; an [`EventId`] has one row; buckets are the sums of the processed rows, at every
//! commit; a range that cuts a bucket is answered exactly, from smaller buckets and in the end from rows.

mod bucket;
mod cover;
mod plan;
mod postgres;
mod sqlite;

use super::normalise::{Amount, Event, EventId};
use async_trait::async_trait;
pub use bucket::Bucket;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A partition of one topic, by the topic's identity: one that is deleted and created again begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// Partition number.
    pub partition: i32,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Counted.
    Processed,
    /// It could not be normalised.
    Rejected,
    /// The store would not take it, and it was dead-lettered.
    Failed,
}

impl Status {
    /// Every status, in the order of their numbers in the stores.
    pub const ALL: [Status; 3] = [Status::Processed, Status::Rejected, Status::Failed];

    /// As it is answered and asked for.
    pub fn name(self) -> &'static str {
        match self {
            Status::Processed => "processed",
            Status::Rejected => "rejected",
            Status::Failed => "failed",
        }
    }

    /// The status of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    fn number(self) -> i16 {
        self as i16
    }

    fn from_number(number: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// What the processor decided about one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts, unless it is there already.
    Processed(Event),
    /// It is kept for audit.
    Rejected {
        /// The client, where that much could be read.
        client: Option<String>,
        /// Name of the reason, and a sentence.
        reason: String,
    },
    /// The store would not take it; it lies in the dead-letter topic.
    Failed {
        /// The event.
        event: Event,
        /// Last error.
        error: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl Verdict {
    /// What becomes of the event.
    pub fn status(&self) -> Status {
        match self {
            Verdict::Processed(_) => Status::Processed,
            Verdict::Rejected { .. } => Status::Rejected,
            Verdict::Failed { .. } => Status::Failed,
        }
    }
}

/// One record of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where it lies in its source.
    pub offset: i64,
    /// Identity of the event.
    pub id: EventId,
    /// When it was appended, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// It was sent again from the dead-letter topic: it may turn *failed* into *processed*.
    pub redriven: bool,
    /// What was decided.
    pub verdict: Verdict,
    /// The event as it was sent; kept unless it is processed.
    pub original: Option<String>,
}

impl Write {
    fn kept_original(&self) -> Option<&str> {
        self.original.as_deref().filter(|_| self.verdict.status() != Status::Processed)
    }
}

/// Consecutive records of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where they come from.
    pub source: Source,
    /// Its topic's name.
    pub topic: Arc<str>,
    /// First offset that the batch stands for, inclusive.
    pub from: i64,
    /// Offset after the last that it stands for. Records may be missing between the two: control batches, compaction.
    pub next: i64,
    /// The records, by offset.
    pub writes: Vec<Write>,
}

/// Why the store did not do what it was asked to; nothing of it happened, unless the answer to a commit was lost, which
/// trying again finds out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It may work when it is tried again.
    #[error("the store did not answer as it should: {0}")]
    Unavailable(String),
    /// The question asks for more groups than [`MAX_GROUPS`].
    #[error("the answer has more than {MAX_GROUPS} groups")]
    TooManyGroups,
    /// A batch begins after what the store has: someone else's records lie between.
    #[error("the store's next offset of partition {} is {next}: what lies between is missing", of.partition)]
    Behind {
        /// Whose.
        of: Source,
        /// Where to go on reading.
        next: i64,
    },
}

/// Most groups of one answer: what it holds in memory is bounded.
pub const MAX_GROUPS: usize = 20_000;

/// A row, as questions are answered with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Identity.
    pub id: EventId,
    /// What became of it.
    pub status: Status,
    /// Client, if known.
    pub client: Option<String>,
    /// Metric, unless rejected.
    pub metric: Option<String>,
    /// Amount, unless rejected.
    pub amount: Option<Amount>,
    /// When it happened, or, if rejected, arrived: milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// When it was appended to the log.
    pub received_ms: i64,
    /// Why it was rejected or failed.
    pub reason: Option<String>,
    /// How often it was tried, if it failed.
    pub attempts: Option<u32>,
    /// As it was sent, unless it was processed.
    pub original: Option<String>,
    /// Topic of the first record of this event.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// Which events to list; newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this client only.
    pub client: Option<String>,
    /// Of this status only.
    pub status: Option<Status>,
    /// From this time on, inclusive.
    pub from_ms: Option<i64>,
    /// Before this time.
    pub to_ms: Option<i64>,
    /// At most so many.
    pub limit: u32,
    /// After leaving out so many.
    pub skip: u32,
}

/// What to add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggregateQuery {
    /// Of this client only.
    pub client: Option<String>,
    /// Of this metric only.
    pub metric: Option<String>,
    /// From this time on, inclusive.
    pub from_ms: Option<i64>,
    /// Before this time.
    pub to_ms: Option<i64>,
    /// One group for each client.
    pub by_client: bool,
    /// One group for each metric.
    pub by_metric: bool,
}

/// Client and metric of a group, each where the question asked for it.
pub type GroupKey = (Option<String>, Option<String>);

/// How many events ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Counted.
    pub processed: u64,
    /// Rejected.
    pub rejected: u64,
    /// Failed and not redriven since.
    pub failed: u64,
    /// Records that were there already.
    pub duplicates: u64,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.topic_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{}", self.partition)
    }
}

/// A place for events. Every call has a deadline of its own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whether other gateways keep the same view, and share the work.
    fn shared(&self) -> bool;

    /// The next offset of every source that it has seen.
    async fn offsets(&self) -> Result<BTreeMap<Source, i64>, StoreError>;

    /// Writes batches of different sources, all or nothing. Records before a source's next offset are passed over.
    async fn apply(&self, batches: Arc<[Batch]>) -> Result<(), StoreError>;

    /// Writes something and commits it: whether the store takes anything at all.
    async fn probe(&self) -> Result<(), StoreError>;

    /// The rows of these events; those that are not there are left out.
    async fn get(&self, ids: Vec<EventId>) -> Result<BTreeMap<EventId, StoredEvent>, StoreError>;

    /// Lists events, newest first, then by id.
    async fn list(&self, filter: EventFilter) -> Result<Vec<StoredEvent>, StoreError>;

    /// Adds processed events up.
    async fn aggregate(&self, query: AggregateQuery) -> Result<BTreeMap<GroupKey, Bucket>, StoreError>;

    /// How many events ended how.
    async fn totals(&self) -> Result<Totals, StoreError>;
}
