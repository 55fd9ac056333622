//! `demo.analytics`: how many payments each merchant had, of how much, and how they are spread. It can go back to where it
//! was and read again, and then checks that what the log holds is what it was: the same number of payments, and the
//! same sum, in each partition.

use super::super::payment::Payment;
use super::super::report::{Merchant, Work};
use super::MAX_NAME;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Merchants that are told apart; further ones are `others`.
const MAX_MERCHANTS: usize = 20;
const OTHERS: &str = "others";
/// Larger amounts count as this one where they are ranked.
const MOST_CENTS: u64 = 10_000_000;

/// The figures, and the replay that goes on.
#[derive(Debug, Default)]
pub(in super::super) struct Analytics {
    merchants: BTreeMap<String, Spread>,
    /// What was read of each partition so far, each record once.
    read: BTreeMap<i32, Tally>,
    mark: BTreeMap<i32, Tally>,
    /// What is read again, by partition, until it is where the replay began.
    again: BTreeMap<i32, Again>,
    replays: u64,
    verified: u64,
    mismatched: u64,
}

#[derive(Debug)]
struct Spread {
    count: u64,
    cents: u64,
    amounts: Histogram<u32>,
}

/// Records up to an offset (exclusive).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    next: i64,
    count: u64,
    cents: u64,
}

#[derive(Clone, Copy, Debug)]
struct Again {
    /// Where it was when the replay began: up to there the same must be read.
    expected: Tally,
    found: Tally,
}

impl Analytics {
    /// Counts a payment that has not been read before.
    pub(in super::super) fn take(&mut self, partition: i32, offset: i64, payment: &Payment<'_>) {
        self.record(partition, offset, payment.amount_cents);
        let known = self.merchants.contains_key(payment.merchant);
        let name = if known || self.merchants.len() < MAX_MERCHANTS { payment.merchant } else { OTHERS };
        if !self.merchants.contains_key(name) {
            let amounts = Histogram::new_with_bounds(1, MOST_CENTS, 2).expect("the bounds are constant");
            let name = name.chars().take(MAX_NAME).collect();
            self.merchants.insert(name, Spread { count: 0, cents: 0, amounts });
        }
        if let Some(spread) = self.merchants.get_mut(name) {
            spread.count += 1;
            spread.cents += payment.amount_cents;
            spread.amounts.saturating_record(payment.amount_cents.clamp(1, MOST_CENTS));
        }
    }

    fn record(&mut self, partition: i32, offset: i64, cents: u64) {
        let read = self.read.entry(partition).or_default();
        *read = Tally { next: offset + 1, count: read.count + 1, cents: read.cents + cents };
    }

    /// Looks at a payment that had been read before.
    pub(in super::super) fn take_again(&mut self, partition: i32, offset: i64, payment: &Payment<'_>) {
        let Some(again) = self.again.get_mut(&partition) else { return };
        // What comes twice within a replay, after a rebalance in it, is looked at once.
        if offset < again.found.next {
            return;
        }
        again.found.next = offset + 1;
        again.found.count += 1;
        again.found.cents += payment.amount_cents;
        self.close(partition);
    }

    /// Ends the replay of a partition that is where it began.
    fn close(&mut self, partition: i32) {
        let Some(again) = self.again.get(&partition).filter(|a| a.found.next >= a.expected.next) else {
            return;
        };
        let same = again.found == again.expected;
        self.verified += u64::from(same);
        self.mismatched += u64::from(!same);
        self.again.remove(&partition);
    }

    /// Remembers where it is.
    pub(in super::super) fn mark(&mut self) {
        self.mark = self.read.clone();
    }

    /// Begins to replay what was read since the mark: where each partition is to be read from. Empty if there is nothing to
    /// go back to.
    pub(in super::super) fn replay(&mut self) -> BTreeMap<i32, i64> {
        let mut from = BTreeMap::new();
        self.again.clear();
        for (partition, marked) in std::mem::take(&mut self.mark) {
            let Some(read) = self.read.get(&partition).filter(|read| read.next > marked.next) else {
                continue;
            };
            self.again.insert(partition, Again { expected: *read, found: marked });
            from.insert(partition, marked.next);
        }
        self.replays += u64::from(!from.is_empty());
        from
    }

    /// The log begins after where a replay does: it says nothing about what is gone.
    pub(in super::super) fn cannot_replay(&mut self, partition: i32) {
        self.again.remove(&partition);
    }

    /// Some partition is not yet where the replay began.
    pub(in super::super) fn is_replaying(&self) -> bool {
        !self.again.is_empty()
    }

    pub(in super::super) fn figures(&self) -> Work {
        let merchant = |(name, spread): (&String, &Spread)| Merchant {
            name: name.clone(),
            count: spread.count,
            cents: spread.cents,
            p50_cents: spread.amounts.value_at_quantile(0.5),
            p99_cents: spread.amounts.value_at_quantile(0.99),
        };
        let mut merchants: Vec<Merchant> = self.merchants.iter().map(merchant).collect();
        merchants.sort_by(|a, b| b.cents.cmp(&a.cents).then_with(|| a.name.cmp(&b.name)));
        Work::Analytics {
            merchants,
            replays: self.replays,
            partitions_verified: self.verified,
            partitions_mismatched: self.mismatched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(merchant: &str, amount_cents: u64) -> Payment<'_> {
        Payment { id: "p", account: "acc-00001", merchant, amount_cents }
    }

    fn verdicts(analytics: &Analytics) -> (u64, u64, u64) {
        match analytics.figures() {
            Work::Analytics { replays, partitions_verified, partitions_mismatched, .. } => {
                (replays, partitions_verified, partitions_mismatched)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn merchants_are_ranked_and_their_percentiles_are_of_their_own_payments() {
        let mut analytics = Analytics::default();
        for cents in 1..=100 {
            analytics.take(0, cents - 1, &payment("small", cents as u64));
            analytics.take(1, cents - 1, &payment("large", cents as u64 * 1_000));
        }
        let Work::Analytics { merchants, .. } = analytics.figures() else { panic!() };
        let small = Merchant { name: "small".into(), count: 100, cents: 5_050, p50_cents: 50, p99_cents: 99 };
        assert_eq!(merchants.len(), 2);
        assert_eq!((merchants[0].name.as_str(), &merchants[1]), ("large", &small));
        assert!(merchants[0].p50_cents.abs_diff(50_000) < 500, "{:?}", merchants[0]);
    }

    #[test]
    fn merchants_without_end_are_gathered() {
        let mut analytics = Analytics::default();
        for offset in 0..1_000 {
            analytics.take(0, offset, &payment(&format!("m{offset}"), 1));
        }
        assert_eq!(analytics.merchants.len(), MAX_MERCHANTS + 1);
        assert_eq!(analytics.merchants[OTHERS].count, 1_000 - MAX_MERCHANTS as u64);
    }

    #[test]
    fn a_replay_that_finds_what_was_there_verifies_each_partition() {
        let mut analytics = Analytics::default();
        assert!(analytics.replay().is_empty(), "there is no mark");
        for offset in 0..10 {
            analytics.take(0, offset, &payment("m", 5));
        }
        analytics.mark();
        for offset in 10..20 {
            analytics.take(0, offset, &payment("m", offset as u64));
        }
        analytics.take(1, 3, &payment("m", 1));
        analytics.mark();
        assert!(analytics.replay().is_empty(), "nothing was read since the mark");
        analytics.mark();
        analytics.take(0, 20, &payment("m", 7));
        analytics.take(0, 25, &payment("m", 8));
        assert_eq!(analytics.replay(), BTreeMap::from([(0, 20)]));
        analytics.take_again(0, 20, &payment("m", 7));
        // A rebalance in between: it begins anew.
        analytics.take_again(0, 20, &payment("m", 7));
        assert!(analytics.is_replaying());
        analytics.take_again(0, 25, &payment("m", 8));
        assert!(!analytics.is_replaying());
        analytics.take_again(1, 3, &payment("m", 1));
        assert_eq!(verdicts(&analytics), (1, 1, 0));
    }

    #[test]
    fn a_replay_that_finds_something_else_says_so() {
        for (offsets, cents) in [(vec![0, 1, 2], 6), (vec![0, 2], 5)] {
            let mut analytics = Analytics::default();
            analytics.take(0, 9, &payment("m", 5));
            analytics.mark();
            for offset in 10..13 {
                analytics.take(0, offset, &payment("m", 5));
            }
            assert_eq!(analytics.replay(), BTreeMap::from([(0, 10)]));
            for offset in offsets {
                analytics.take_again(0, 10 + offset, &payment("m", cents));
            }
            assert_eq!(verdicts(&analytics), (1, 0, 1), "{cents}");
        }
        let mut analytics = Analytics::default();
        analytics.take(0, 9, &payment("m", 5));
        analytics.mark();
        analytics.take(0, 10, &payment("m", 5));
        analytics.replay();
        analytics.cannot_replay(0);
        assert!(!analytics.is_replaying());
        assert_eq!(verdicts(&analytics), (1, 0, 0));
    }
}
