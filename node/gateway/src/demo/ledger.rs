//! What a group has read: the records of each partition, each counted once however often it comes. Pure.
//!
//! After a rebalance, or a kill, a group begins where it committed last, and some records come again (at least once);
//! after a replay they do because they were asked for. Both are told apart from what is new by their offsets.
//!
//! Invariant: `next` never goes back; `at` does, with the reader.

use std::collections::BTreeMap;

/// Of one group.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    partitions: BTreeMap<i32, Reader>,
    read: u64,
    repeated: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    /// Behind the last record that was counted.
    next: i64,
    /// Behind the last record that was read.
    at: i64,
}

impl Ledger {
    /// A record was read. True if it has not been before.
    pub(super) fn take(&mut self, partition: i32, offset: i64) -> bool {
        let reader = self.partitions.entry(partition).or_default();
        self.read += 1;
        reader.at = offset + 1;
        let new = offset >= reader.next;
        if new {
            reader.next = offset + 1;
        } else {
            self.repeated += 1;
        }
        new
    }

    /// Records read, repeated ones among them.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Records that had been read before.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// How many records lie between where it is and these ends (exclusive). For partitions of which it has read nothing,
    /// `committed` says where it begins; where that says nothing either, it begins at offset 0.
    pub(super) fn lag(&self, ends: &BTreeMap<i32, i64>, committed: &BTreeMap<i32, i64>) -> u64 {
        let behind = |(partition, end): (&i32, &i64)| {
            let at = self.partitions.get(partition).map(|reader| reader.at);
            let at = at.or_else(|| committed.get(partition).copied()).unwrap_or(0);
            u64::try_from(end - at).unwrap_or(0)
        };
        ends.iter().map(behind).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_read_and_not_counted_again() {
        let mut ledger = Ledger::default();
        let new: Vec<bool> =
            [(0, 5), (0, 6), (1, 0), (0, 5), (0, 6), (0, 9)].map(|(p, o)| ledger.take(p, o)).into();
        assert_eq!(new, [true, true, true, false, false, true]);
        assert_eq!((ledger.read(), ledger.repeated()), (6, 2));
    }

    #[test]
    fn lag_follows_the_reader_back() {
        let mut ledger = Ledger::default();
        let ends = BTreeMap::from([(0, 100), (1, 50), (2, 10)]);
        assert_eq!(ledger.lag(&ends, &BTreeMap::from([(1, 50)])), 110);
        ledger.take(0, 89);
        assert_eq!(ledger.lag(&ends, &BTreeMap::from([(0, 0), (1, 45)])), 10 + 5 + 10);
        ledger.take(0, 19);
        assert_eq!(ledger.lag(&BTreeMap::from([(0, 100)]), &BTreeMap::new()), 80);
        // The end is of before.
        ledger.take(0, 100);
        assert_eq!(ledger.lag(&BTreeMap::from([(0, 100)]), &BTreeMap::new()), 0);
    }
}
