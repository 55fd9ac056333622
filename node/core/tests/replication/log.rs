//! A replica's log and what of it is on disk.

use strandline_core::partition::{EpochEnd, FlushToken};
use strandline_record::{LeaderEpoch, Offset};

/// `value` is unique to the append, so equal records are the same record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub epoch: LeaderEpoch,
    pub value: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Log {
    pub start: i64,
    records: Vec<Record>,
    /// Where deletion has emptied it: the epoch of the last record, as the storage's epoch cache keeps it.
    kept_epoch: Option<LeaderEpoch>,
    /// Everything below is on disk, as it stands, unless there is an `old` one.
    pub durable: i64,
    pub flushes: Vec<Flush>,
    /// It began again, or was deleted beyond what was on disk, and that is not on disk yet: what is there instead.
    pub old: Option<Old>,
    /// How often that happened.
    beginnings: u64,
}

#[derive(Clone, Debug)]
pub struct Old {
    pub start: i64,
    records: Vec<Record>,
}

impl Old {
    pub fn get(&self, offset: i64) -> Option<Record> {
        self.records.get(usize::try_from(offset - self.start).ok()?).copied()
    }

    pub fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }
}

/// A flush under way: what it will have put on disk.
#[derive(Clone, Debug)]
pub struct Flush {
    pub token: FlushToken,
    start: i64,
    records: Vec<Record>,
    beginnings: u64,
}

impl Flush {
    pub fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }
}

impl Log {
    pub fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }

    pub fn get(&self, offset: i64) -> Option<Record> {
        self.records.get(usize::try_from(offset - self.start).ok()?).copied()
    }

    pub fn append(&mut self, record: Record) {
        self.kept_epoch = None;
        self.records.push(record);
    }

    pub fn from(&self, offset: i64, at_most: usize) -> Vec<Record> {
        let skip = usize::try_from(offset - self.start).expect("within the log");
        self.records.iter().skip(skip).take(at_most).copied().collect()
    }

    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.records.last().map(|record| record.epoch).or(self.kept_epoch)
    }

    pub fn truncate(&mut self, end: i64) {
        self.records.truncate(usize::try_from(end - self.start).expect("within the log"));
        self.durable = self.durable.min(end);
    }

    pub fn reset(&mut self, start: i64) {
        self.begins_anew();
        self.records.clear();
        (self.start, self.durable, self.kept_epoch) = (start, start, None);
    }

    /// From here on `durable` says nothing of the disk until a flush that begins now has ended.
    fn begins_anew(&mut self) {
        let on_disk = self.records[..(self.durable - self.start) as usize].to_vec();
        let start = self.start;
        self.old.get_or_insert(Old { start, records: on_disk });
        self.beginnings += 1;
    }

    /// A loss of power before the new beginning was on disk.
    pub fn back_to(&mut self, old: Old) {
        let durable = old.end();
        let Old { start, records } = old;
        *self = Log { start, records, durable, beginnings: self.beginnings, ..Log::default() };
    }

    pub fn delete_below(&mut self, start: i64) {
        if start > self.durable {
            self.begins_anew();
        }
        let kept_epoch = self.last_epoch().filter(|_| start == self.end());
        let gone = usize::try_from(start - self.start).expect("the log start only rises");
        self.records.drain(..gone);
        self.start = start;
        self.kept_epoch = kept_epoch;
        self.durable = self.durable.max(start);
    }

    /// The epoch cache: largest epoch at or below, and where it ends.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> EpochEnd {
        if self.records.is_empty() {
            return Some((self.kept_epoch.filter(|kept| *kept <= epoch)?, Offset(self.start)));
        }
        let upto = self.records.iter().rposition(|record| record.epoch <= epoch)?;
        Some((self.records[upto].epoch, Offset(self.start + upto as i64 + 1)))
    }

    pub fn start_flush(&mut self, token: FlushToken) {
        let (start, records, beginnings) = (self.start, self.records.clone(), self.beginnings);
        self.flushes.push(Flush { token, start, records, beginnings });
    }

    /// What is on disk afterwards is what is in the log *and* was in it when the flush began. True if that is
    /// less than the flush covered.
    pub fn finish_flush(&mut self, index: usize) -> (Flush, bool) {
        let flush = self.flushes.remove(index);
        if flush.beginnings == self.beginnings {
            self.old = None;
        } else if let Some(old) = self.old.as_mut().filter(|old| old.end() < flush.end()) {
            *old = Old { start: flush.start, records: flush.records.clone() };
        }
        let mut upto = self.start.max(flush.start);
        while upto < flush.end().min(self.end())
            && self.get(upto) == flush.records.get((upto - flush.start) as usize).copied()
        {
            upto += 1;
        }
        self.durable = self.durable.max(upto.min(self.end()));
        let late = upto < flush.end();
        (flush, late)
    }
}
