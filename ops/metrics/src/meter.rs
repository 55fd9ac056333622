//! What many tasks add to without waiting for each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of a histogram's buckets, inclusive and ascending, in units of which `scale` make one of the metric's.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub upper: &'static [u64],
    pub scale: f64,
}

/// Microseconds, shown as seconds: from an append in memory to a request that waited for a dead node.
pub const LATENCY: Bounds = Bounds {
    upper: &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000, 10_000_000, 30_000_000,
    ],
    scale: 1e6,
};

/// Bytes: from a block to the largest batch.
pub const SIZE: Bounds = Bounds {
    upper: &[
        4 << 10,
        8 << 10,
        16 << 10,
        32 << 10,
        64 << 10,
        128 << 10,
        256 << 10,
        512 << 10,
        1 << 20,
        2 << 20,
        4 << 20,
        8 << 20,
        16 << 20,
    ],
    scale: 1.0,
};

/// Counts by size. The sum may lag behind the buckets by what is being added.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    /// One for each bound, and one for what is above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: Bounds) -> Self {
        let buckets = (0..=bounds.upper.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts a time, in a histogram of [`LATENCY`].
    pub fn record(&self, took: Duration) {
        self.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts one value, in the bounds' units.
    pub fn add(&self, value: u64) {
        let bucket = self.bounds.upper.partition_point(|upper| *upper < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub fn reading(&self) -> Reading {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let upper = self.bounds.upper.iter().map(|upper| *upper as f64 / self.bounds.scale);
        Reading {
            count: counts.iter().sum(),
            buckets: upper.chain([f64::INFINITY]).zip(counts).collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / self.bounds.scale,
        }
    }
}

/// A histogram at one moment, in the metric's units.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Upper bound (inclusive, the last one infinite) and what fell between it and the one before.
    pub buckets: Vec<(f64, u64)>,
    pub sum: f64,
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_above_all_to_the_last() {
        let histogram = Histogram::new(Bounds { upper: &[10, 20], scale: 10.0 });
        [1, 10, 11, 20, 21].into_iter().for_each(|value| histogram.add(value));
        let reading = histogram.reading();
        assert_eq!(reading.buckets, [(1.0, 2), (2.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((reading.sum, reading.count), (6.3, 5));
    }

    #[test]
    fn times_are_shown_in_seconds() {
        let histogram = Histogram::new(LATENCY);
        histogram.record(Duration::from_micros(2_500));
        histogram.record(Duration::from_secs(3600));
        let reading = histogram.reading();
        let found: Vec<_> = reading.buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(found, [(0.0025, 1), (f64::INFINITY, 1)]);
        assert_eq!(reading.sum, 3600.0025);
    }

    proptest! {
        #[test]
        fn every_value_is_counted_once(values in proptest::collection::vec(0_u64..1 << 40, 0..100)) {
            let histogram = Histogram::new(SIZE);
            values.iter().for_each(|value| histogram.add(*value));
            let reading = histogram.reading();
            prop_assert_eq!(reading.count, values.len() as u64);
            prop_assert_eq!(reading.sum, values.iter().sum::<u64>() as f64);
            let below = |bound: f64| values.iter().filter(|value| **value as f64 <= bound).count() as u64;
            let mut cumulative = 0;
            for (upper, count) in reading.buckets {
                cumulative += count;
                prop_assert_eq!(cumulative, below(upper));
            }
        }
    }
}
