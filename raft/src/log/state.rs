//! What the log holds, in memory: an index of all entries, the recent ones themselves, the vote, and the marks.
//!
//! Invariants: entries are contiguous and begin right behind `purged`; an entry is either in memory or at a
//! known place on disk, or both; the bytes in memory are bounded once they are flushed.

use super::frame::Record;
use crate::types::{Entry, LogId, Vote};
use std::collections::VecDeque;
use std::sync::Arc;
use strandline_storage::disk::DiskFile;

/// Where an entry's record lies.
#[derive(Clone, Debug)]
pub struct Location {
    pub file: Arc<dyn DiskFile>,
    pub position: u64,
    pub bytes: u32,
}

#[derive(Debug)]
pub struct Slot {
    pub log_id: LogId,
    /// Tells this entry from another one that had the same index.
    pub serial: u64,
    /// Encoded size, the measure for what is kept in memory.
    pub bytes: u32,
    pub cached: Option<Box<Entry>>,
    pub location: Option<Location>,
}

#[derive(Debug, Default)]
pub struct LogState {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    slots: VecDeque<Slot>,
    next_serial: u64,
    /// Entries below this index are not in memory.
    cached_from: u64,
    cached_bytes: usize,
}

impl LogState {
    pub fn last_log_id(&self) -> Option<LogId> {
        self.slots.back().map(|s| s.log_id).or(self.purged)
    }

    /// Bytes of all entries that are not purged.
    pub fn live_bytes(&self) -> u64 {
        self.slots.iter().map(|s| u64::from(s.bytes)).sum()
    }

    pub fn slot(&self, index: u64) -> Option<&Slot> {
        let first = self.slots.front()?.log_id.index;
        self.slots.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let first = self.slots.front()?.log_id.index;
        self.slots.get_mut(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// First and last index, inclusive, of the entries that there are.
    pub fn range(&self) -> Option<(u64, u64)> {
        Some((self.slots.front()?.log_id.index, self.slots.back()?.log_id.index))
    }

    /// Adds an entry that is not on disk yet and returns its serial.
    pub fn push(&mut self, entry: Entry, bytes: usize) -> Result<u64, String> {
        self.check_follows(&entry)?;
        let serial = self.next_serial;
        self.next_serial += 1;
        if self.slots.is_empty() {
            self.cached_from = entry.log_id.index;
        }
        self.cached_bytes += bytes;
        self.slots.push_back(Slot {
            log_id: entry.log_id,
            serial,
            bytes: bytes as u32,
            cached: Some(Box::new(entry)),
            location: None,
        });
        Ok(serial)
    }

    fn check_follows(&self, entry: &Entry) -> Result<(), String> {
        let index = entry.log_id.index;
        match self.last_log_id() {
            Some(last) if last.index + 1 != index => Err(format!("entry {index} does not follow {last}")),
            _ => Ok(()),
        }
    }

    /// The entry with this index and serial is on disk now. What exceeds `cache_bytes` leaves memory.
    pub fn flushed(&mut self, index: u64, serial: u64, location: Location) {
        if let Some(slot) = self.slot_mut(index)
            && slot.serial == serial
        {
            slot.location = Some(location);
        }
    }

    /// Drops the oldest entries on disk from memory until at most `limit` bytes remain there.
    pub fn evict(&mut self, limit: usize) {
        while self.cached_bytes > limit {
            let index = self.cached_from;
            let Some(slot) = self.slot_mut(index) else { return };
            if slot.location.is_none() {
                return;
            }
            if slot.cached.take().is_some() {
                let bytes = slot.bytes as usize;
                self.cached_bytes -= bytes;
            }
            self.cached_from += 1;
        }
    }

    pub fn truncate_after(&mut self, last: Option<LogId>) {
        let keep = last.map_or(0, |id| id.index + 1);
        while self.slots.back().is_some_and(|s| s.log_id.index >= keep) {
            let slot = self.slots.pop_back().expect("just seen");
            self.forget(&slot);
        }
        self.cached_from = self.cached_from.min(keep);
    }

    pub fn purge(&mut self, upto: LogId) {
        while self.slots.front().is_some_and(|s| s.log_id.index <= upto.index) {
            let slot = self.slots.pop_front().expect("just seen");
            self.forget(&slot);
        }
        self.purged = self.purged.max(Some(upto));
        self.cached_from = self.cached_from.max(upto.index + 1);
    }

    fn forget(&mut self, slot: &Slot) {
        if slot.cached.is_some() {
            self.cached_bytes -= slot.bytes as usize;
        }
    }

    /// Adds what a record of the log says; `Err` if it contradicts those before it.
    pub fn replay(&mut self, record: Record, location: Location) -> Result<(), String> {
        match record {
            Record::Checkpoint { vote, purged, committed } => {
                self.vote = vote;
                self.committed = committed;
                if let Some(purged) = purged {
                    self.purge(purged);
                }
            }
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(committed) => self.committed = committed,
            Record::TruncateAfter(last) => self.truncate_after(last),
            Record::Purge(upto) => self.purge(upto),
            Record::Entry(entry) => {
                // Entries of removed segments are missing in front; `check_complete` tells in the end whether
                // all of these are purged.
                if !self.slots.is_empty() {
                    self.check_follows(&entry)?;
                }
                if self.purged.is_some_and(|p| p.index >= entry.log_id.index) {
                    return Ok(());
                }
                let bytes = location.bytes;
                self.cached_from = entry.log_id.index + 1;
                self.slots.push_back(Slot {
                    log_id: entry.log_id,
                    serial: self.next_serial,
                    bytes,
                    cached: None,
                    location: Some(location),
                });
                self.next_serial += 1;
            }
        }
        Ok(())
    }

    /// After replay: nothing is missing between what is purged and the first entry.
    pub fn check_complete(&self) -> Result<(), String> {
        let expected = self.purged.map_or(0, |p| p.index + 1);
        match self.slots.front() {
            Some(first) if first.log_id.index != expected => {
                Err(format!("entries {expected} to {} are missing", first.log_id.index - 1))
            }
            _ => Ok(()),
        }
    }
}
