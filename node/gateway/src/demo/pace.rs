//! When payments are due: at a rate, whatever becomes of those before (open loop), so that a cluster that is slow for a
//! moment is seen to be slow. Pure: time comes in as what has passed since the start.
//!
//! ```text
//!  due = time × rate ──► behind ──take, a handful at a time──► sent
//!                          └─ beyond LONGEST_ARREARS ─► shed, and counted
//! ```
//!
//! Invariant: taken + behind + shed is what has come due, to within one.

use std::time::Duration;

/// What is further behind than this is not sent any more.
const LONGEST_ARREARS: Duration = Duration::from_secs(10);
const MINUTE_NS: u128 = 60_000_000_000;

/// Deals out payments as they come due.
#[derive(Debug)]
pub(super) struct Pacer {
    per_minute: u32,
    /// Up to where time was counted.
    counted: Duration,
    /// Part of a payment that is due: less than [`MINUTE_NS`], which is a whole one.
    part: u128,
    behind: u64,
    shed: u64,
}

/// What is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// How many.
    pub(super) count: u64,
    /// For how long the first of them has been due; each further one for [`apart`](Self::apart) less.
    pub(super) since: Duration,
    /// Time between two.
    pub(super) apart: Duration,
}

impl Due {
    /// For how long the payment `index` of these has been due.
    pub(super) fn age(&self, index: u64) -> Duration {
        self.since.saturating_sub(self.apart.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX)))
    }
}

impl Pacer {
    /// `per_minute` is more than zero.
    pub(super) fn new(per_minute: u32) -> Pacer {
        Pacer { per_minute: per_minute.max(1), counted: Duration::ZERO, part: 0, behind: 0, shed: 0 }
    }

    /// From `now` on it is this rate. What is behind stays due.
    pub(super) fn set_rate(&mut self, now: Duration, per_minute: u32) {
        if per_minute != self.per_minute {
            self.count(now);
            self.per_minute = per_minute.max(1);
        }
    }

    /// Takes what is due at `now`, the oldest first and at most so many.
    pub(super) fn take(&mut self, now: Duration, most: u64) -> Due {
        self.count(now);
        let apart = Duration::from_nanos((MINUTE_NS / u128::from(self.per_minute)) as u64);
        let since = apart.saturating_mul(u32::try_from(self.behind).unwrap_or(u32::MAX));
        let count = self.behind.min(most);
        self.behind -= count;
        Due { count, since, apart }
    }

    /// Counts what has come due up to `now`.
    fn count(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.counted);
        self.counted = self.counted.max(now);
        let grown = self.part + passed.as_nanos() * u128::from(self.per_minute);
        self.part = grown % MINUTE_NS;
        self.behind += (grown / MINUTE_NS) as u64;
        let most = (LONGEST_ARREARS.as_nanos() * u128::from(self.per_minute) / MINUTE_NS) as u64;
        let beyond = self.behind.saturating_sub(most);
        self.behind -= beyond;
        self.shed += beyond;
    }

    /// Payments that were due and have not been taken.
    pub(super) fn behind(&self) -> u64 {
        self.behind
    }

    /// Payments that will never be sent: they were due for too long.
    pub(super) fn shed(&self) -> u64 {
        self.shed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn in_a_minute_the_rate_comes_due_however_often_it_is_asked() {
        for (rate, step) in [(10_000, 7), (100_000, 5), (999_999, 13), (1_000_000, 1)] {
            let mut pacer = Pacer::new(rate);
            let times = (1..).map(|i| ms(i * step)).take_while(|t| *t <= ms(60_000));
            let sent: u64 = times.map(|t| pacer.take(t, u64::MAX).count).sum();
            let due = u64::from(rate) * (60_000 / step * step) / 60_000;
            assert!(due.abs_diff(sent) <= 1, "{rate}: {sent} of {due}");
            assert_eq!((pacer.shed(), pacer.behind()), (0, 0));
        }
    }

    #[test]
    fn after_a_pause_it_knows_for_how_long_each_has_been_due() {
        let mut pacer = Pacer::new(60_000);
        assert_eq!(pacer.take(ms(10), 1_000).count, 10);
        // Nothing was taken for two seconds: a buffer was full.
        let due = pacer.take(ms(2_010), 500);
        assert_eq!(due, Due { count: 500, since: ms(2_000), apart: ms(1) });
        assert_eq!((due.age(0), due.age(499), due.age(5_000)), (ms(2_000), ms(1_501), Duration::ZERO));
        assert_eq!(pacer.take(ms(2_010), 500).since, ms(1_500));
        assert_eq!(pacer.behind(), 1_000);
        pacer.set_rate(ms(3_010), 120_000);
        assert_eq!(pacer.behind(), 2_000, "what came due at the old rate stays due");
        assert_eq!(pacer.take(ms(4_010), u64::MAX).count, 4_000);
    }

    #[test]
    fn what_is_too_far_behind_is_shed_and_counted() {
        let mut pacer = Pacer::new(60_000);
        pacer.set_rate(ms(60_000), 30_000);
        assert_eq!((pacer.behind(), pacer.shed()), (10_000, 50_000));
        pacer.take(ms(60_000), 1);
        assert_eq!((pacer.behind(), pacer.shed()), (4_999, 55_000), "the bound is a time, at the new rate");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_count_of(
            steps in proptest::collection::vec((0_u64..30_000, 10_000_u32..1_000_000, 0_u64..100_000), 1..60),
        ) {
            let mut pacer = Pacer::new(100_000);
            let (mut now, mut rate, mut taken, mut due) = (0, 100_000_u64, 0, 0_u64);
            for (passed, next_rate, most) in steps {
                now += passed;
                // In parts of a payment, of which it has as many as a minute has milliseconds.
                due += passed * rate;
                taken += pacer.take(ms(now), most).count;
                pacer.set_rate(ms(now), next_rate);
                rate = u64::from(next_rate);
                let accounted = taken + pacer.behind() + pacer.shed();
                prop_assert_eq!(due / 60_000, accounted);
            }
        }
    }
}
