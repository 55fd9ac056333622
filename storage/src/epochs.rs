//! Which leader epoch starts where in a log (KIP-101, KIP-279). Derived from the batches alone: an epoch
//! in which nothing was appended is not in it.
//!
//! Invariants: epochs and start offsets strictly increase; every start is below the log end, except that
//! the last entry may lie at the end of a log whose records were all removed by retention.

use serde::{Deserialize, Serialize};
use strandline_record::{LeaderEpoch, Offset};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochCache {
    pub fn last(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Records that a batch of `epoch` was appended at `offset`. An older epoch than the last is refused.
    pub fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        match self.entries.last() {
            Some((last, _)) if *last > epoch => false,
            Some((last, _)) if *last == epoch => true,
            Some((_, start)) if *start >= offset => {
                // The records of the last epoch were all removed: it is replaced.
                self.entries.pop();
                self.assign(epoch, offset)
            }
            _ => {
                self.entries.push((epoch, offset));
                true
            }
        }
    }

    pub fn start_of(&self, epoch: LeaderEpoch) -> Option<Offset> {
        let at = self.entries.binary_search_by_key(&epoch, |(epoch, _)| *epoch).ok()?;
        Some(self.entries[at].1)
    }

    /// The epoch of the batch that holds `offset`. The epoch in a batch's header lies outside its checksum: it is
    /// checked against this.
    pub fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        self.entries[..after].last().map(|(epoch, _)| *epoch)
    }

    /// The largest epoch that is at most `asked`, and where it ends.
    pub fn end_of(&self, asked: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.entries.partition_point(|(epoch, _)| *epoch <= asked);
        let (epoch, _) = self.entries[..after].last()?;
        let end = self.entries.get(after).map_or(log_end, |(_, start)| *start);
        Some((*epoch, end))
    }

    /// The log now ends at `end`.
    pub fn truncate(&mut self, end: Offset) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// The log now starts at `start`: the epoch that holds it starts there.
    pub fn advance_start(&mut self, start: Offset) {
        let holding = self.entries.partition_point(|(_, at)| *at <= start);
        if holding > 0 {
            self.entries.drain(..holding - 1);
            self.entries[0].1 = start;
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// What the invariants say, for what came from disk.
    pub fn is_sound(&self, log_end: Offset) -> bool {
        self.entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1)
            && self.entries.last().is_none_or(|(_, start)| *start <= log_end)
            && self.entries.first().is_none_or(|(epoch, start)| epoch.get() >= -1 && start.get() >= 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for (epoch, start) in entries {
            assert!(cache.assign(LeaderEpoch(*epoch), Offset(*start)));
        }
        cache
    }

    fn end_of(cache: &EpochCache, asked: i32, log_end: i64) -> Option<(i32, i64)> {
        cache.end_of(LeaderEpoch(asked), Offset(log_end)).map(|(e, o)| (e.get(), o.get()))
    }

    #[test]
    fn the_end_of_an_epoch_is_where_the_next_one_starts_and_a_missing_epoch_answers_the_one_before() {
        let cache = cache(&[(1, 0), (3, 10), (7, 20)]);
        assert_eq!(end_of(&cache, 0, 30), None);
        assert_eq!(end_of(&cache, 1, 30), Some((1, 10)));
        assert_eq!(end_of(&cache, 2, 30), Some((1, 10)));
        assert_eq!(end_of(&cache, 5, 30), Some((3, 20)));
        assert_eq!(end_of(&cache, 9, 30), Some((7, 30)));
        let at = |offset| cache.at(Offset(offset)).map(LeaderEpoch::get);
        assert_eq!((at(0), at(9), at(10), at(25)), (Some(1), Some(1), Some(3), Some(7)));
    }

    #[test]
    fn an_older_epoch_cannot_follow_a_newer_one() {
        let mut cache = cache(&[(3, 10)]);
        assert!(!cache.assign(LeaderEpoch(2), Offset(20)));
        assert!(cache.assign(LeaderEpoch(3), Offset(20)));
        assert_eq!(cache.start_of(LeaderEpoch(3)), Some(Offset(10)));
    }

    #[test]
    fn truncation_forgets_epochs_that_start_at_or_after_the_new_end() {
        let mut cache = cache(&[(1, 0), (3, 10), (7, 20)]);
        cache.truncate(Offset(20));
        assert_eq!(cache.last(), Some(LeaderEpoch(3)));
        cache.truncate(Offset(11));
        assert_eq!(cache.last(), Some(LeaderEpoch(3)));
        cache.truncate(Offset(0));
        assert_eq!(cache.last(), None);
    }

    #[test]
    fn retention_keeps_the_epoch_that_holds_the_log_start_even_when_all_records_are_gone() {
        let mut cache = cache(&[(1, 0), (3, 10), (7, 20)]);
        cache.advance_start(Offset(15));
        assert_eq!(cache, self::cache(&[(3, 15), (7, 20)]));
        cache.advance_start(Offset(30));
        assert_eq!(cache, self::cache(&[(7, 30)]));
        assert!(cache.assign(LeaderEpoch(9), Offset(30)));
        assert_eq!(cache, self::cache(&[(9, 30)]));
    }
}
