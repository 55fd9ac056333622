//! Idempotency keys (`dedup.key`): within a window of time, a second record with the same key is not appended; whoever
//! sends it is told where the first one is.
//!
//! ```text
//!   leader:    batch ─▶ keys ─▶ [index] ─▶ all new: as it is
//!                                          some known: the batch without those, same offsets and sequences
//!                                          all known: of an idempotent producer its header, of others nothing
//!   follower:  batch ─▶ append ─▶ keys ─▶ [index]
//!   start:     the segments of the window, read again in pieces (`catch_up_dedup`)
//! ```
//!
//! The index is derived from the log and nothing else, on every replica: it survives a change of leader and a restart, and
//! a truncated record does not count. Times are those of the append, as for retention; after a restart those of the
//! newest append of each segment, so that a key may be remembered for longer than the window, never for less. A record
//! that the log has lost to retention is not known any more.
//!
//! Invariants: the index covers `[window start, next)`; a leader appends only when `next` is the log end, so it never
//! appends a record whose key it has not compared; records without the key are appended always; what is answered is in
//! the log, and counts as acknowledged only when it is durable there (see the partition).

pub(crate) mod index;
mod log;

use crate::compaction::DECOMPRESSED_MAX;
use bytes::Bytes;
use index::{Hash, Index};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use std::sync::Arc;
use strandline_record::{BatchHeader, BatchIter, DecodeLimits, Offset, Scanned, decode_verified_batch};
use uuid::Uuid;

pub use index::Budget;

/// So much room is made for the keys of a batch before they are seen; a batch may say that it has any number of records.
const MOST_KEYS: usize = 4096;

/// What makes two records the same (`dedup.key`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DedupKey {
    /// The record's key.
    Key,
    /// The value of its first header of this name.
    Header(Arc<str>),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupConfig {
    pub key: DedupKey,
    /// `dedup.window.ms`.
    pub window_ms: i64,
}

/// A record that was not appended, since the log has one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Its place in the batch, from 0.
    pub index: i32,
    /// Where the first one is.
    pub first: Offset,
}

/// What the indexes of a store are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DedupStats {
    /// Keys that are remembered, in all logs.
    pub keys: u64,
    /// Memory that they take, in bytes.
    pub bytes: u64,
    /// Keys that were forgotten within their window for want of room, since the start of the process.
    pub forgotten_early: u64,
}

/// The index of one log, and how far it is.
#[derive(Debug)]
pub(crate) struct Dedup {
    config: DedupConfig,
    index: Index,
    /// Everything below has been taken in, as far as it is in the window.
    next: Offset,
    /// Raised by whatever makes what is read at the moment worthless.
    changes: u64,
}

impl DedupKey {
    fn of<'a>(&self, record: &Scanned<'a>) -> Option<&'a [u8]> {
        match self {
            DedupKey::Key => record.key,
            DedupKey::Header(name) => record.header(name.as_bytes()),
        }
    }
}

fn hash(secret: Uuid, key: &[u8]) -> Hash {
    let mut hasher = SipHasher13::new_with_key(secret.as_bytes());
    hasher.write(key);
    let hash = hasher.finish128();
    [hash.h1, hash.h2]
}

/// Tells `each` the offset and the hash of the records of one batch that have the key. `false`: not all of them could be
/// looked at.
pub(crate) fn for_each_key(
    config: &DedupConfig,
    secret: Uuid,
    batch: &Bytes,
    mut each: impl FnMut(Offset, Hash),
) -> bool {
    let limits = DecodeLimits { max_decompressed_bytes: DECOMPRESSED_MAX };
    let Ok(decoded) = decode_verified_batch(batch.clone(), limits) else { return false };
    if decoded.header().is_control() {
        return true;
    }
    let mut seen = 0;
    for record in decoded.scan() {
        seen += 1;
        if let Some(key) = config.key.of(&record) {
            each(record.offset, hash(secret, key));
        }
    }
    seen == decoded.header().count()
}

impl Dedup {
    fn new(config: DedupConfig, next: Offset, budget: Arc<Budget>) -> Dedup {
        let index = Index::new(config.window_ms, budget);
        Dedup { config, index, next, changes: 0 }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
    }

    /// The log ends at `end` now, which is not above where it ended.
    pub(crate) fn cut(&mut self, end: Offset) {
        self.index.truncate(end);
        self.next = self.next.min(end);
        self.changes += 1;
    }

    /// Takes in whole batches that have just been appended; if the index was not that far, they are read later.
    pub(crate) fn appended(&mut self, secret: Uuid, batches: &Bytes, headers: &[BatchHeader], now_ms: i64) {
        if self.next == headers[0].base_offset() {
            self.index.expire(now_ms);
            self.take(secret, batches, |_| now_ms);
        }
    }

    /// Takes in whole batches, the first of which may begin before where it is.
    fn take(&mut self, secret: Uuid, batches: &Bytes, time_of: impl Fn(Offset) -> i64) {
        let mut at = 0;
        for (header, batch) in BatchIter::new(batches).map_while(Result::ok) {
            let whole = batches.slice(at..at + batch.len());
            at += batch.len();
            let now_ms = time_of(header.base_offset());
            let next = self.next;
            let mut keys = Vec::with_capacity(usize::try_from(header.count()).unwrap_or(0).min(MOST_KEYS));
            // A key that is there already had outlived its window for the leader that took it again.
            for_each_key(&self.config, secret, &whole, |offset, hash| {
                if offset >= next {
                    keys.push((offset, hash));
                }
            });
            self.index.warm(keys.iter().map(|(_, hash)| *hash));
            self.index.begin(keys.len());
            keys.into_iter().for_each(|(offset, hash)| self.index.put(hash, offset, now_ms));
            self.index.end();
            self.next = self.next.max(header.next_offset());
        }
    }
}
