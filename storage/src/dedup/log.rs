//! The index as a part of its log: taken along by appends and truncations, read up again after a start, and asked by the
//! leader's appends.

use super::{Dedup, DedupStats, MOST_KEYS, Repeat, for_each_key};
use crate::error::{AppendError, ReadError};
use crate::log::{Appended, Inner, PartitionLog};
use crate::store::Store;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use strandline_record::{BatchBuilder, BatchHeader, DecodeLimits, Offset, decode_verified_batch, emptied};

/// Read at most so much before an append that finds the index behind: a small log is ready for its first record.
const BEFORE_AN_APPEND: usize = 1 << 20;
/// Records of a batch are decompressed up to this size when some of them are to be left out.
const DECOMPRESSED_MAX: usize = crate::compaction::DECOMPRESSED_MAX;

impl Store {
    /// What the indexes of idempotency keys take.
    pub fn dedup_stats(&self) -> DedupStats {
        let shared = self.shared();
        let logs = shared.all_logs();
        let bytes = logs.iter().map(|log| log.lock().dedup.as_ref().map_or(0, Dedup::memory_bytes));
        DedupStats {
            bytes: bytes.sum::<usize>() as u64,
            keys: shared.dedup.used() as u64,
            forgotten_early: shared.dedup.forgotten_early() as u64,
        }
    }
}

impl PartitionLog {
    /// Whether [`catch_up_dedup`](Self::catch_up_dedup) has something to do.
    pub fn dedup_is_behind(&self) -> bool {
        let inner = self.lock();
        inner.config.dedup.is_some() && inner.dedup.as_ref().is_none_or(|dedup| dedup.next < inner.end)
    }

    /// Reads about `max_bytes` (and at least one batch) of the window for the index. `true` once it covers the log, and
    /// where there is no `dedup.key`. To be called again and again after a start; meanwhile the leader refuses records
    /// ([`AppendError::KeysNotRead`]).
    ///
    /// # Errors
    /// Why the log could not be read.
    pub fn catch_up_dedup(self: &Arc<Self>, max_bytes: usize, now_ms: i64) -> Result<bool, ReadError> {
        let (from, end, changes) = {
            let mut inner = self.lock();
            let Some(config) = inner.config.dedup.clone() else { return Ok(true) };
            if inner.dedup.is_none() {
                let from = inner.window_start(now_ms.saturating_sub(config.window_ms));
                inner.dedup = Some(Dedup::new(config, from, self.shared.dedup.clone()));
            }
            let (start, end) = (inner.start, inner.end);
            let dedup = inner.dedup.as_mut().expect("it was just set");
            dedup.next = dedup.next.max(start);
            if dedup.next >= end {
                return Ok(true);
            }
            (dedup.next, end, dedup.changes)
        };
        let read = self.read(from, max_bytes, true, end)?.bytes;
        let mut inner = self.lock();
        let times: Vec<(Offset, i64)> = inner
            .segments
            .iter()
            .map(|segment| (segment.end, segment.newest_append_ms.min(now_ms)))
            .collect();
        let time_of = |offset: Offset| {
            let segment = times.partition_point(|(end, _)| *end <= offset);
            times.get(segment).map_or(now_ms, |(_, at_ms)| *at_ms)
        };
        let end = inner.end;
        let Some(dedup) = inner.dedup.as_mut().filter(|dedup| dedup.changes == changes && dedup.next == from)
        else {
            return Ok(false);
        };
        dedup.take(self.shared.directory_id, &read, time_of);
        if read.is_empty() {
            // Nothing but a hole is left up to the end.
            dedup.next = end;
        }
        Ok(dedup.next >= end)
    }

    /// Makes the index ready for an append, if little is missing.
    pub(crate) fn read_keys_before_append(self: &Arc<Self>, now_ms: i64) -> Result<(), AppendError> {
        if !self.dedup_is_behind() {
            return Ok(());
        }
        match self.catch_up_dedup(BEFORE_AN_APPEND, now_ms) {
            Ok(true) => Ok(()),
            Ok(false) => Err(AppendError::KeysNotRead),
            Err(ReadError::Damaged { from }) => Err(AppendError::Damaged { from }),
            Err(ReadError::Deleted) => Err(AppendError::Deleted),
            Err(error) => Err(AppendError::Failed(error.to_string())),
        }
    }

    /// A batch of a topic with `dedup.key`, as the leader; `bytes` has its offsets and epoch already.
    pub(crate) fn append_new_records(
        self: &Arc<Self>,
        inner: &mut Inner,
        header: BatchHeader,
        bytes: Bytes,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let base = inner.end;
        let start = inner.start;
        let secret = self.shared.directory_id;
        // The configuration or the log may have changed since it was looked at.
        let Some(dedup) = inner.dedup.as_mut().filter(|dedup| dedup.next == base) else {
            return Err(AppendError::KeysNotRead);
        };
        dedup.index.expire(now_ms);
        dedup.index.forget_below(start);
        let room = usize::try_from(header.count()).unwrap_or(0).min(MOST_KEYS);
        let mut keys = Vec::with_capacity(room);
        if !for_each_key(&dedup.config, secret, &bytes, |offset, hash| keys.push((offset, hash))) {
            // Appended as it is, it could hold a key that the log has.
            return Err(AppendError::Invalid(
                "its records cannot be read, and the topic has a dedup.key; compress fewer in a batch, or mend them"
                    .to_owned(),
            ));
        }
        let place = |offset: Offset| (offset.get() - base.get()) as i32;
        if header.producer().is_some() {
            let checked = inner.load(&self.shared, self.topic_partition());
            let checked = checked.map(|loaded| loaded.producers.check(&[header]));
            let checked = checked.map_err(|trouble| self.append_trouble(inner, trouble))?;
            if let Err(AppendError::Duplicate { base_offset, last_offset }) = checked {
                // Sent once more: which of its records were appended then can still be told.
                let dedup = inner.dedup.as_ref().expect("it was just there");
                let first = |&(offset, hash)| Some((place(offset), dedup.index.find(hash)?));
                let repeats: Vec<Repeat> = keys
                    .iter()
                    .filter_map(first)
                    .filter(|(index, first)| *first != base_offset.plus(i64::from(*index)))
                    .map(|(index, first)| Repeat { index, first })
                    .collect();
                let last_offset = repeats.iter().map(|repeat| repeat.first).fold(last_offset, Offset::max);
                return Ok(Appended {
                    base_offset,
                    last_offset,
                    log_append_time: None,
                    written: false,
                    repeats,
                });
            }
            checked?;
        }
        let dedup = inner.dedup.as_mut().expect("it was just there");
        dedup.index.warm(keys.iter().map(|(_, hash)| *hash));
        dedup.index.begin(keys.len());
        let mut repeats = Vec::new();
        for (offset, hash) in keys {
            match dedup.index.find(hash) {
                Some(first) => repeats.push(Repeat { index: place(offset), first }),
                None => dedup.index.put(hash, offset, now_ms),
            }
        }
        dedup.index.end();
        let none_is_new = repeats.len() as i64 == i64::from(header.count());
        if none_is_new && header.producer().is_none() {
            let last_offset = repeats.iter().map(|repeat| repeat.first).fold(Offset::ZERO, Offset::max);
            let base_offset = repeats.first().map_or(base, |repeat| repeat.first);
            return Ok(Appended { base_offset, last_offset, log_append_time: None, written: false, repeats });
        }
        let without = match repeats.is_empty() {
            true => Ok(bytes),
            false => without(&header, &bytes, &repeats),
        };
        let written = without.and_then(|bytes| {
            let header =
                BatchHeader::parse(&bytes).map_err(|error| AppendError::Invalid(error.to_string()))?;
            // Its keys are in the index: the append need not take them in.
            inner.dedup.as_mut().expect("it was just there").next = header.next_offset();
            self.write_batches(inner, &bytes, &[header], now_ms, true)
        });
        if let Err(error) = written {
            inner.dedup.as_mut().expect("it was just there").cut(base);
            return Err(error);
        }
        Ok(Appended {
            base_offset: base,
            last_offset: header.last_offset(),
            log_append_time: None,
            written: true,
            repeats,
        })
    }
}

/// The batch without the records that are in the log already: same offsets, sequences, producer and codec, as compaction
/// leaves one.
fn without(header: &BatchHeader, batch: &Bytes, repeats: &[Repeat]) -> Result<Bytes, AppendError> {
    if repeats.len() as i64 == i64::from(header.count()) {
        // The producer's next batch must find its sequence.
        return Ok(emptied(header));
    }
    let limits = DecodeLimits { max_decompressed_bytes: DECOMPRESSED_MAX };
    let decoded = decode_verified_batch(batch.clone(), limits)
        .map_err(|error| AppendError::Invalid(error.to_string()))?;
    let repeated: BTreeSet<i64> =
        repeats.iter().map(|repeat| header.base_offset().get() + i64::from(repeat.index)).collect();
    let mut builder = BatchBuilder::rewrite(header);
    for record in decoded.iter() {
        let record = record.map_err(|error| AppendError::Invalid(error.to_string()))?;
        if !repeated.contains(&record.offset.get()) {
            builder.append_record(&record);
        }
    }
    Ok(builder.build())
}

impl Inner {
    /// Where the first segment begins to which something was appended at `since_ms` or later.
    fn window_start(&self, since_ms: i64) -> Offset {
        let first = self.segments.iter().find(|segment| segment.newest_append_ms >= since_ms);
        first.map_or(self.end, |segment| segment.base.max(self.start))
    }
}
