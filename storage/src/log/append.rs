//! Appending: checks outside the lock, one copy of the bytes, one write, one entry for the journal.

use super::{Inner, PartitionLog, Trouble};
use crate::cache;
use crate::compaction::refuse_keyless;
use crate::dedup::Repeat;
use crate::error::AppendError;
use crate::journal::Op;
use bytes::Bytes;
use std::sync::Arc;
use strandline_record::{
    BatchError, BatchHeader, BatchIter, BatchLimits, LeaderEpoch, Offset, TimestampType, filler,
    stamp_log_append_time, validate_batch, write_base_offset, write_leader_epoch,
};

/// Largest batch that is taken from a leader: what the format can say.
const FOLLOWER_BATCH_MAX: usize = i32::MAX as usize;

/// What an append did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record, inclusive.
    pub last_offset: Offset,
    /// Set with `message.timestamp.type=LogAppendTime`, ms since the Unix epoch.
    pub log_append_time: Option<i64>,
    /// `false`: everything was in the log before, up to `last_offset`.
    pub written: bool,
    /// With `dedup.key`: records that are in the log already, in the order of the batch. Their own offsets stay empty.
    pub repeats: Vec<Repeat>,
}

fn rejected(error: BatchError) -> AppendError {
    match error {
        BatchError::TooLarge { size, max } => AppendError::TooLarge { size, max },
        BatchError::BadChecksum { .. }
        | BatchError::Truncated { .. }
        | BatchError::TrailingBytes { .. }
        | BatchError::InvalidLength { .. } => AppendError::Corrupt(error),
        other => AppendError::Invalid(other.to_string()),
    }
}

/// Checks every batch of `bytes`, which must be whole batches and nothing else.
fn validate(bytes: &[u8], limits: BatchLimits) -> Result<Vec<BatchHeader>, AppendError> {
    let mut headers = Vec::with_capacity(1);
    for batch in BatchIter::new(bytes) {
        let (header, batch) = match batch {
            // Says what is wrong even when the rest of an oversized batch is missing.
            Err(BatchError::Truncated { needed, .. }) if needed > limits.max_batch_bytes => {
                return Err(AppendError::TooLarge { size: needed, max: limits.max_batch_bytes });
            }
            batch => batch.map_err(rejected)?,
        };
        validate_batch(batch, limits).map_err(rejected)?;
        headers.push(header);
    }
    if headers.is_empty() {
        return Err(AppendError::Invalid("no batch".to_owned()));
    }
    Ok(headers)
}

impl PartitionLog {
    /// Appends one or more producer batches as the leader of `epoch`. Validates them, gives them offsets
    /// and the epoch, and keeps the resulting bytes for readers at the tail. One that is a duplicate or out
    /// of order refuses them all. Durable once the flushed end passes the last offset.
    ///
    /// # Panics
    /// If `epoch` is older than the last batch's: the caller leads in an epoch that follows it.
    pub fn append_as_leader(
        self: &Arc<Self>,
        batches: &Bytes,
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let (max_message_bytes, timestamp_type, compacted, deduplicated) = {
            let inner = self.lock();
            inner.usable()?;
            let config = &inner.config;
            let compacted = config.compaction.is_some();
            (config.max_message_bytes, config.message_timestamp_type, compacted, config.dedup.is_some())
        };
        self.shared.admit(batches.len())?;
        let mut headers = validate(batches, BatchLimits::producer(max_message_bytes))?;
        if compacted {
            refuse_keyless(batches).map_err(AppendError::Invalid)?;
        }
        if deduplicated {
            if headers.len() > 1 {
                return Err(AppendError::Invalid("one batch at a time, with dedup.key".to_owned()));
            }
            self.read_keys_before_append(now_ms)?;
        }
        let mut bytes = batches.to_vec();
        let log_append_time = (timestamp_type == TimestampType::LogAppendTime).then_some(now_ms);
        let mut at = 0;
        for header in &headers {
            let batch = &mut bytes[at..at + header.size_in_bytes()];
            write_leader_epoch(batch, epoch);
            if let Some(now_ms) = log_append_time {
                stamp_log_append_time(batch, now_ms);
            }
            at += header.size_in_bytes();
        }

        let mut inner = self.lock();
        inner.usable()?;
        assert!(inner.epochs.last().is_none_or(|last| last <= epoch), "a leader's epoch follows the log's");
        let base_offset = inner.end;
        let mut next = base_offset;
        at = 0;
        for header in &mut headers {
            let batch = &mut bytes[at..];
            write_base_offset(batch, next);
            at += header.size_in_bytes();
            *header = BatchHeader::parse(batch).map_err(rejected)?;
            next = header.next_offset();
        }
        let bytes = Bytes::from(bytes);
        if inner.config.dedup.is_some() {
            let appended = self.append_new_records(&mut inner, headers[0], bytes, now_ms)?;
            drop(inner);
            if appended.written {
                self.after_append();
            }
            return Ok(Appended { log_append_time, ..appended });
        }
        if headers.iter().any(|header| header.producer().is_some()) {
            let checked = inner.load(&self.shared, self.tp).map(|loaded| loaded.producers.check(&headers));
            checked.map_err(|trouble| self.append_trouble(&mut inner, trouble))??;
        }
        self.write_batches(&mut inner, &bytes, &headers, now_ms, true)?;
        drop(inner);
        self.after_append();
        let last_offset = next.plus(-1);
        Ok(Appended { base_offset, last_offset, log_append_time, written: true, repeats: Vec::new() })
    }

    /// Appends a leader's batches as they are: contiguous to the log end, intact, epochs not decreasing. A log
    /// that is empty may begin inside the first batch (its leader's log start lies there). Of a filler that begins
    /// before the log end (the leader has compacted more) the rest is taken.
    pub fn append_as_follower(
        self: &Arc<Self>,
        batches: &Bytes,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.shared.admit(batches.len())?;
        let mut headers = validate(batches, BatchLimits::log(FOLLOWER_BATCH_MAX))?;
        let mut inner = self.lock();
        inner.usable()?;
        let rest = inner.rest_of_filler(batches, &mut headers);
        let batches = rest.as_ref().unwrap_or(batches);
        inner.check_continues(&headers)?;
        // Not kept in memory: a follower is hardly ever read from, and the slices would keep alive the
        // whole message that they came in.
        self.write_batches(&mut inner, batches, &headers, now_ms, false)?;
        drop(inner);
        self.after_append();
        Ok(Appended {
            base_offset: headers[0].base_offset(),
            last_offset: headers[headers.len() - 1].last_offset(),
            log_append_time: None,
            written: true,
            repeats: Vec::new(),
        })
    }

    pub(crate) fn write_batches(
        self: &Arc<Self>,
        inner: &mut Inner,
        bytes: &Bytes,
        headers: &[BatchHeader],
        now_ms: i64,
        keep: bool,
    ) -> Result<(), AppendError> {
        let written = inner.write(&self.shared, self.tp, bytes, headers, now_ms);
        written.map_err(|trouble| self.append_trouble(inner, trouble))?;
        if let Some(dedup) = &mut inner.dedup {
            dedup.appended(self.shared.directory_id, bytes, headers, now_ms);
        }
        if keep {
            let mut at = 0;
            for header in headers {
                let batch = bytes.slice(at..at + header.size_in_bytes());
                at += header.size_in_bytes();
                let log = Arc::downgrade(self);
                inner.cache.push(&self.shared.cache, log, header.base_offset(), header.next_offset(), batch);
            }
        } else {
            inner.cache.clear(&self.shared.cache);
        }
        if inner.journaled {
            let number = inner.active().expect("it was just written to").number;
            let (base, end) = (headers[0].base_offset(), inner.end);
            self.journal(inner, Op::Append { base, end, number, bytes: bytes.clone() });
        } else {
            inner.flushed = inner.end;
        }
        Ok(())
    }

    /// Notes what went wrong and says it to the appender.
    pub(crate) fn append_trouble(self: &Arc<Self>, inner: &mut Inner, trouble: Trouble) -> AppendError {
        match trouble {
            Trouble::Full => {
                self.shared.space.found_full();
                AppendError::StorageFull
            }
            Trouble::Damaged(from) => {
                self.note_damage(inner, from);
                AppendError::Damaged { from }
            }
            Trouble::Io(error) => {
                let reason = error.to_string();
                self.shared.write_failed(self.tp, error);
                AppendError::Failed(reason)
            }
        }
    }

    fn after_append(&self) {
        self.shared.journal.wake();
        cache::settle(&self.shared.cache);
    }
}

impl Inner {
    /// Where the first batch is a filler that begins before the log end and goes beyond it: the batches with the rest of
    /// it instead, which the headers say too.
    fn rest_of_filler(&self, batches: &Bytes, headers: &mut [BatchHeader]) -> Option<Bytes> {
        let first = headers[0];
        let goes_beyond = first.base_offset() < self.end && self.end < first.next_offset();
        if !first.is_filler() || !goes_beyond || self.start == self.end {
            return None;
        }
        let rest = filler(self.end, first.last_offset(), first.leader_epoch());
        headers[0] = BatchHeader::parse(&rest).expect("a filler is a batch");
        Some([&rest, &batches[first.size_in_bytes()..]].concat().into())
    }

    /// Whether batches from a leader or from the journal continue this log.
    pub(crate) fn check_continues(&self, headers: &[BatchHeader]) -> Result<(), AppendError> {
        let (mut next, mut epoch) = (self.end, self.epochs.last());
        for (at, header) in headers.iter().enumerate() {
            let base = header.base_offset();
            let begins_inside =
                at == 0 && self.start == self.end && base < next && header.next_offset() > next;
            if base != next && !begins_inside {
                return Err(AppendError::NotContiguous { expected: next, found: base });
            }
            if header.leader_epoch() < LeaderEpoch(0)
                || epoch.is_some_and(|last| last > header.leader_epoch())
            {
                let reason =
                    format!("leader epoch {} at offset {base} follows {epoch:?}", header.leader_epoch());
                return Err(AppendError::Invalid(reason));
            }
            (next, epoch) = (header.next_offset(), Some(header.leader_epoch()));
        }
        Ok(())
    }
}
