//! A histogram of times that many tasks write to without waiting for each other.
//!
//! Buckets are log-linear: 16 in each power of two of microseconds, so that a quantile is at most 6.25 % too large.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_metrics::{LATENCY, Reading};

/// Buckets in a power of two.
const SLICES: usize = 16;
/// Powers of two above the first [`SLICES`] microseconds: to 2^26 µs, 67 s, and everything longer.
const POWERS: usize = 22;
const BUCKETS: usize = SLICES * (POWERS + 1);

/// Times since the start, by bucket, and their sum in microseconds.
#[derive(Debug)]
pub(crate) struct Latency([AtomicU64; BUCKETS], AtomicU64);

impl Default for Latency {
    fn default() -> Self {
        Latency(std::array::from_fn(|_| AtomicU64::new(0)), AtomicU64::new(0))
    }
}

/// Counts at one moment.
#[derive(Clone, Debug)]
pub(super) struct Counts(Box<[u64]>);

impl Default for Counts {
    fn default() -> Self {
        Counts(vec![0; BUCKETS].into())
    }
}

fn bucket(micros: u64) -> usize {
    if micros < SLICES as u64 {
        return micros as usize;
    }
    // The highest bit says the power, the four below it the slice.
    let power = micros.ilog2() as usize - 4;
    let slice = (micros >> power) as usize - SLICES;
    ((power + 1) * SLICES + slice).min(BUCKETS - 1)
}

/// The largest time, in microseconds, that falls into a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < SLICES {
        return bucket as u64;
    }
    let (power, slice) = (bucket / SLICES - 1, bucket % SLICES);
    ((SLICES + slice + 1) as u64) << power
}

impl Latency {
    /// Counts one.
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.1.fetch_add(micros, Ordering::Relaxed);
    }

    /// As metrics show it: a time counts below a bound if all of its bucket lies there.
    pub(crate) fn reading(&self) -> Reading {
        let counts = self.counts();
        let mut counted = counts.0.iter().enumerate().peekable();
        let below = |bound: u64, counted: &mut std::iter::Peekable<_>| {
            let mut sum = 0;
            while let Some((_, count)) = counted.next_if(|(at, _): &(usize, &u64)| upper(*at) <= bound) {
                sum += count;
            }
            sum
        };
        let mut buckets: Vec<(f64, u64)> = LATENCY
            .upper
            .iter()
            .map(|bound| (*bound as f64 / LATENCY.scale, below(*bound, &mut counted)))
            .collect();
        buckets.push((f64::INFINITY, counted.map(|(_, count)| count).sum()));
        let sum = self.1.load(Ordering::Relaxed) as f64 / LATENCY.scale;
        Reading { count: counts.0.iter().sum(), buckets, sum }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts(self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

impl Counts {
    /// What was counted since `before`.
    pub(super) fn since(&self, before: &Counts) -> Counts {
        Counts(self.0.iter().zip(&before.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    /// The 50th, 95th and 99th percentile in milliseconds, rounded up to the bucket; `None` of nothing.
    pub(super) fn percentiles(&self) -> Option<[f64; 3]> {
        let total: u64 = self.0.iter().sum();
        (total > 0).then(|| [50, 95, 99].map(|percent| self.quantile(total, percent) as f64 / 1000.0))
    }

    fn quantile(&self, total: u64, percent: u64) -> u64 {
        let rank = (u128::from(total) * u128::from(percent)).div_ceil(100);
        let mut passed = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            passed += u128::from(*count);
            if passed >= rank {
                return upper(bucket);
            }
        }
        upper(BUCKETS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_are_of_what_was_counted_since() {
        let latency = Latency::default();
        assert_eq!(latency.counts().percentiles(), None);
        latency.record(Duration::from_secs(3600));
        let before = latency.counts();
        (1..=100).for_each(|ms| latency.record(Duration::from_millis(ms)));
        let [p50, p95, p99] = latency.counts().since(&before).percentiles().unwrap();
        for (found, exact) in [(p50, 50.0), (p95, 95.0), (p99, 99.0)] {
            assert!(found >= exact && found <= exact * 1.0626, "{found} of {exact}");
        }
    }

    #[test]
    fn metrics_show_every_time_once_below_a_bound_that_it_does_not_exceed() {
        let latency = Latency::default();
        [90, 100, 240, 3_000, 40_000_000]
            .into_iter()
            .for_each(|micros| latency.record(Duration::from_micros(micros)));
        let reading = latency.reading();
        let found: Vec<_> = reading.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        // The bucket of 100 µs reaches beyond it.
        assert_eq!(found, [(0.0001, 1), (0.00025, 2), (0.005, 1), (f64::INFINITY, 1)]);
        assert_eq!((reading.count, reading.sum), (5, 40.00343));
    }

    proptest! {
        #[test]
        fn a_time_lies_in_its_bucket(micros in 0_u64..(1 << 26)) {
            let found = bucket(micros);
            prop_assert!(upper(found) >= micros);
            prop_assert!(upper(found) as f64 <= micros as f64 * 1.0625 + 1.0);
            prop_assert!(found == 0 || bucket(micros + 1) >= found);
        }
    }
}
