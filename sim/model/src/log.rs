//! A replica's log: at most four offsets, of each record one byte: leader epoch and a number unique to the produce
//! attempt. Two logs hold the same record at an offset exactly when the bytes are equal.

pub const CAPACITY: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Log {
    start: u8,
    end: u8,
    records: [u8; CAPACITY],
    /// Where deletion has emptied the log: the epoch that its cache still has for the log end. 0 otherwise.
    kept_epoch: u8,
}

impl Log {
    pub const EMPTY: Log = Log::starting_at(0);

    pub const fn starting_at(start: u8) -> Log {
        Log { start, end: start, records: [0; CAPACITY], kept_epoch: 0 }
    }

    pub fn start(&self) -> u8 {
        self.start
    }

    pub fn end(&self) -> u8 {
        self.end
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn get(&self, offset: u8) -> Option<u8> {
        (self.start <= offset && offset < self.end).then(|| self.records[offset as usize])
    }

    pub fn append(&mut self, epoch: u8, attempt: u8) {
        self.push(epoch << 4 | attempt);
    }

    pub fn push(&mut self, record: u8) {
        self.records[self.end as usize] = record;
        self.end += 1;
        self.kept_epoch = 0;
    }

    /// `end` is at or above the log start.
    pub fn truncate(&mut self, end: u8) {
        if end < self.end {
            self.records[end as usize..].fill(0);
            self.end = end;
        }
    }

    /// Deletes below `start`, which is at most the log end. Like the epoch cache of the storage, it remembers the
    /// epoch of the last record even when that goes, if `keeps_epoch`.
    pub fn delete_below(&mut self, start: u8, keeps_epoch: bool) {
        if start <= self.start {
            return;
        }
        if start == self.end && keeps_epoch {
            self.kept_epoch = self.last_epoch();
        }
        self.records[..start as usize].fill(0);
        self.start = start;
    }

    /// The records from an offset within the log on.
    pub fn suffix(&self, from: u8) -> Log {
        let mut out = Log::starting_at(from);
        (from.max(self.start)..self.end).for_each(|offset| out.push(self.records[offset as usize]));
        out
    }

    fn epoch_at(&self, offset: u8) -> u8 {
        self.records[offset as usize] >> 4
    }

    /// 0 where there is none.
    pub fn last_epoch(&self) -> u8 {
        if self.is_empty() { self.kept_epoch } else { self.epoch_at(self.end - 1) }
    }

    /// The epoch cache's answer: the largest epoch at or below `epoch` and the offset where it ends.
    pub fn end_of_epoch(&self, epoch: u8) -> Option<(u8, u8)> {
        if self.is_empty() {
            let kept = self.kept_epoch;
            return (kept != 0 && kept <= epoch).then_some((kept, self.end));
        }
        let last = (self.start..self.end).rev().find(|&offset| self.epoch_at(offset) <= epoch)?;
        Some((self.epoch_at(last), last + 1))
    }

    /// How far it is the same as `other`, from its own start on.
    pub fn common_end(&self, other: &Log) -> u8 {
        let same = |&offset: &u8| self.get(offset) == other.get(offset);
        (self.start..self.end).find(|offset| !same(offset)).unwrap_or(self.end)
    }

    /// It has every record of `committed` from the larger start on.
    pub fn holds(&self, committed: &Log) -> bool {
        let from = self.start.max(committed.start);
        self.end >= committed.end && (from..committed.end).all(|o| self.get(o) == committed.get(o))
    }

    /// The same epoch at the same offset means the same records up to there, as far as both reach back.
    pub fn matches(&self, other: &Log) -> bool {
        let from = self.start.max(other.start);
        let common = self.end.min(other.end);
        let last = (from..common).rev().find(|&o| self.epoch_at(o) == other.epoch_at(o));
        last.is_none_or(|last| (from..=last).all(|o| self.get(o) == other.get(o)))
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}:", self.start)?;
        for offset in self.start..self.end {
            let record = self.records[offset as usize];
            write!(f, " {}e{}", (b'`' + (record & 15)) as char, record >> 4)?;
        }
        if self.kept_epoch != 0 {
            write!(f, " (e{})", self.kept_epoch)?;
        }
        write!(f, "]")
    }
}
