//! What compaction leaves of one batch. Pure: bytes in, bytes out.
//!
//! A record goes when a later one has its key, or when it is a tombstone whose time is over (KIP-534: the first pass
//! over a tombstone notes in the batch from when on it may go) and which every replica has got. What stays, stays as it is, in a batch with the same
//! offsets, producer, sequences, leader epoch and codec. Of a batch whose records all go the header is kept where the
//! producer's sequence is still remembered; else it is removed and a filler takes its place (see [`super`]).
//!
//! Records without a key (of the time before the topic was compacted) cannot be superseded and stay. A batch that
//! cannot be opened stays as it is; behind one no tombstone is removed, since it may hold what the tombstone deletes.

use super::keys::KeyMap;
use bytes::Bytes;
use std::collections::BTreeSet;
use strandline_record::{
    BatchBuilder, BatchError, BatchHeader, DecodeLimits, DecodedBatch, LeaderEpoch, Offset, Record,
    decode_verified_batch, emptied, filler,
};

/// Records of a batch are decompressed up to this size; beyond, the batch cannot be opened.
pub const DECOMPRESSED_MAX: usize = 64 << 20;

/// A batch's records, if they can be read, every one of them.
pub fn open(batch: &Bytes) -> Result<DecodedBatch, BatchError> {
    let decoded =
        decode_verified_batch(batch.clone(), DecodeLimits { max_decompressed_bytes: DECOMPRESSED_MAX })?;
    decoded.iter().try_for_each(|record| record.map(|_| ()))?;
    Ok(decoded)
}

/// What a pass knows.
#[derive(Debug)]
pub struct Rules<'a> {
    /// The last offset of each key that was seen.
    pub keys: &'a KeyMap,
    /// Records below were seen by this pass or by an earlier one; those from here on stay.
    pub mapped_to: Offset,
    /// Tombstones below may go; every replica has got them.
    pub tombstone_bound: Offset,
    /// Base offsets of the batches that producers are remembered by.
    pub remembered: &'a BTreeSet<Offset>,
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Keep,
    Replace(Bytes),
    /// A filler takes its place.
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordFate {
    Stays,
    /// Stays, and is a tombstone.
    Tombstone,
    Goes,
}

/// Decides on the batches of one log, in the order of their offsets.
#[derive(Debug, Default)]
pub struct Filter {
    /// A batch that could not be opened came before.
    pub unreadable: bool,
    /// Records that were removed so far.
    pub removed: u64,
}

impl Filter {
    /// `batch` is whole and intact.
    pub fn decide(&mut self, rules: &Rules, header: &BatchHeader, batch: &Bytes) -> Fate {
        if header.is_filler() {
            return Fate::Remove;
        }
        if header.is_control() || header.base_offset() >= rules.mapped_to {
            return Fate::Keep;
        }
        let Ok(decoded) = open(batch) else {
            self.unreadable = true;
            return Fate::Keep;
        };
        // Twice over the records rather than once with all of them in memory.
        let (mut stay, mut tombstones, mut goes) = (0u64, false, 0u64);
        for record in decoded.iter().flatten() {
            match self.judge(rules, header, &record) {
                RecordFate::Stays => stay += 1,
                RecordFate::Tombstone => (stay, tombstones) = (stay + 1, true),
                RecordFate::Goes => goes += 1,
            }
        }
        if stay == 0 {
            self.removed += goes;
            return match rules.remembered.contains(&header.base_offset()) {
                true if goes == 0 => Fate::Keep,
                true => Fate::Replace(emptied(header)),
                false => Fate::Remove,
            };
        }
        // Only once all of the batch was seen: each of its tombstones stays for the whole time.
        let notes_horizon =
            tombstones && header.delete_horizon().is_none() && header.last_offset() < rules.mapped_to;
        if goes == 0 && !notes_horizon {
            return Fate::Keep;
        }
        let mut builder = BatchBuilder::rewrite(header);
        if notes_horizon {
            builder.set_delete_horizon(rules.now_ms.saturating_add(rules.delete_retention_ms));
        }
        for record in decoded.iter().flatten() {
            if self.judge(rules, header, &record) != RecordFate::Goes {
                builder.append_record(&record);
            }
        }
        self.removed += goes;
        Fate::Replace(builder.build())
    }

    fn judge(&self, rules: &Rules, header: &BatchHeader, record: &Record) -> RecordFate {
        let Some(key) = record.key.as_ref().filter(|_| record.offset < rules.mapped_to) else {
            return RecordFate::Stays;
        };
        if rules.keys.last(key).is_some_and(|last| last > record.offset) {
            return RecordFate::Goes;
        }
        if record.value.is_some() {
            return RecordFate::Stays;
        }
        let over = header.delete_horizon().is_some_and(|horizon_ms| horizon_ms <= rules.now_ms);
        let everywhere = record.offset < rules.tombstone_bound;
        if over && everywhere && !self.unreadable { RecordFate::Goes } else { RecordFate::Tombstone }
    }
}

/// Consecutive batches that were removed, to be replaced by as few fillers as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    base: Offset,
    last: Offset,
    epoch: LeaderEpoch,
}

impl Gap {
    /// Widens `gap` by the place of a batch. Returns the filler of the one before where they cannot be one: a filler
    /// is of one leader epoch.
    pub fn widen(gap: &mut Option<Gap>, header: &BatchHeader) -> Option<Bytes> {
        let (base, last) = (header.base_offset(), header.last_offset());
        if let Some(known) = gap.as_mut()
            && known.last.plus(1) == base
            && known.epoch == header.leader_epoch()
            && last.get() - known.base.get() <= i64::from(i32::MAX)
        {
            known.last = last;
            return None;
        }
        gap.replace(Gap { base, last, epoch: header.leader_epoch() }).map(Gap::filler)
    }

    pub fn filler(self) -> Bytes {
        filler(self.base, self.last, self.epoch)
    }
}
