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
    /// Everything below is on disk, as it stands.
    pub durable: i64,
    pub flushes: Vec<Flush>,
}

/// A flush under way: what it will have put on disk.
#[derive(Clone, Debug)]
pub struct Flush {
    pub token: FlushToken,
    start: i64,
    records: Vec<Record>,
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
        self.records.push(record);
    }

    pub fn from(&self, offset: i64, at_most: usize) -> Vec<Record> {
        let skip = usize::try_from(offset - self.start).expect("within the log");
        self.records.iter().skip(skip).take(at_most).copied().collect()
    }

    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.records.last().map(|record| record.epoch)
    }

    pub fn truncate(&mut self, end: i64) {
        self.records.truncate(usize::try_from(end - self.start).expect("within the log"));
        self.durable = self.durable.min(end);
    }

    pub fn reset(&mut self, start: i64) {
        *self = Log { start, durable: start, flushes: std::mem::take(&mut self.flushes), ..Log::default() };
    }

    pub fn delete_below(&mut self, start: i64) {
        let gone = usize::try_from(start - self.start).expect("the log start only rises");
        self.records.drain(..gone);
        self.start = start;
        self.durable = self.durable.max(start);
    }

    /// The epoch cache: largest epoch at or below, and where it ends.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> EpochEnd {
        let upto = self.records.iter().rposition(|record| record.epoch <= epoch)?;
        Some((self.records[upto].epoch, Offset(self.start + upto as i64 + 1)))
    }

    pub fn start_flush(&mut self, token: FlushToken) {
        self.flushes.push(Flush { token, start: self.start, records: self.records.clone() });
    }

    /// What is on disk afterwards is what is in the log *and* was in it when the flush began. True if that is
    /// less than the flush covered.
    pub fn finish_flush(&mut self, index: usize) -> (Flush, bool) {
        let flush = self.flushes.remove(index);
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
