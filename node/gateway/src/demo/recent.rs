//! The last five seconds: how much was counted in them, and how long things took. Pure: it is told when a second is over.

use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::time::Duration;

const SECONDS: usize = 5;
/// Longer times count as this one.
const LONGEST_US: u64 = 120_000_000;

/// A count that grows, and how fast it did.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Time and count, the oldest first.
    seen: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// The count at this moment; about once a second.
    pub(super) fn note(&mut self, now: Duration, count: u64) {
        self.seen.push_back((now, count));
        if self.seen.len() > SECONDS + 1 {
            self.seen.pop_front();
        }
    }

    /// How fast it grew, for each `unit` of time.
    pub(super) fn per(&self, unit: Duration) -> u64 {
        let (Some((from, before)), Some((to, after))) = (self.seen.front(), self.seen.back()) else {
            return 0;
        };
        let passed = to.saturating_sub(*from);
        if passed.is_zero() {
            return 0;
        }
        let grown = after.saturating_sub(*before) as f64;
        (grown * unit.as_secs_f64() / passed.as_secs_f64()).round() as u64
    }
}

/// Times, of which the oldest second is forgotten as a new one begins.
#[derive(Debug)]
pub(super) struct Times {
    seconds: VecDeque<Histogram<u32>>,
}

impl Default for Times {
    fn default() -> Self {
        Times { seconds: VecDeque::from([histogram()]) }
    }
}

fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are constant")
}

impl Times {
    pub(super) fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).clamp(1, LONGEST_US);
        if let Some(newest) = self.seconds.back_mut() {
            newest.saturating_record(micros);
        }
    }

    /// A second is over.
    pub(super) fn turn(&mut self) {
        let mut next = if self.seconds.len() > SECONDS { self.seconds.pop_front() } else { None };
        if let Some(old) = &mut next {
            old.reset();
        }
        self.seconds.push_back(next.unwrap_or_else(histogram));
    }

    /// 50th, 95th and 99th percentile in milliseconds; `None` of nothing.
    pub(super) fn percentiles(&self) -> Option<[f64; 3]> {
        let mut all = histogram();
        for second in &self.seconds {
            all.add(second).expect("they have the same bounds");
        }
        (!all.is_empty()).then(|| [0.5, 0.95, 0.99].map(|q| all.value_at_quantile(q) as f64 / 1000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.per(s(1)), 0);
        rate.note(s(0), 0);
        assert_eq!(rate.per(s(1)), 0);
        for second in 1..=10 {
            rate.note(s(second), second * 100);
        }
        assert_eq!((rate.per(s(1)), rate.per(s(60))), (100, 6_000));
        for second in 11..=15 {
            rate.note(s(second), 1_000);
        }
        assert_eq!(rate.per(s(1)), 0);
    }

    #[test]
    fn times_are_forgotten_after_some_seconds() {
        let mut times = Times::default();
        assert_eq!(times.percentiles(), None);
        (0..99).for_each(|_| times.record(Duration::from_millis(2)));
        times.record(Duration::from_secs(9_000));
        let [p50, _, p99] = times.percentiles().unwrap();
        assert!((1.98..2.05).contains(&p50) && (1.98..2.05).contains(&p99), "{p50} {p99}");
        times.record(Duration::from_secs(9_000));
        assert!(times.percentiles().unwrap()[2] > 110_000.0);
        (0..SECONDS).for_each(|_| times.turn());
        assert!(times.percentiles().is_some());
        times.turn();
        assert_eq!(times.percentiles(), None);
        times.record(Duration::from_millis(1));
        assert_eq!(times.seconds.len(), SECONDS + 1);
        assert!(times.percentiles().unwrap()[0] < 1.1);
    }
}
