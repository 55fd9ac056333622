//! Counts of values by power of two, with the part of the published crate's interface that openraft names. A
//! histogram is 65 counters; a percentile is the upper bound of the power of two it falls into.

use std::fmt;
use std::marker::PhantomData;

const BUCKETS: usize = u64::BITS as usize + 1;

/// `T` is the published crate's tag for a slot; it is not used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Bucket 0 holds the value 0, bucket n values of n bits.
    counts: Box<[u64; BUCKETS]>,
    tag: PhantomData<T>,
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Histogram { counts: Box::new([0; BUCKETS]), tag: PhantomData }
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += count;
    }

    /// Values recorded.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The smallest power-of-two bound that `fraction` (0 to 1) of the values do not exceed; 0 when empty.
    pub fn percentile(&self, fraction: f64) -> u64 {
        let wanted = (self.total() as f64 * fraction).ceil() as u64;
        let mut seen = 0;
        for (bits, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return if bits == 0 { 0 } else { u64::MAX >> (BUCKETS - 1 - bits) };
            }
        }
        0
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Histogram::new()
    }
}

/// Percentiles of a [`Histogram`], each as an upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n={} p50<={} p90<={} p99<={} p99.9<={}", self.samples, self.p50, self.p90, self.p99, self.p99_9)
    }
}

/// Several histograms as text, a line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    pub fn new() -> Self {
        AsciiChart::default()
    }

    #[allow(clippy::should_implement_trait, reason = "the published crate's name for it")]
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_upper_bounds_by_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        histogram.record_n(0, 10);
        histogram.record_n(5, 80);
        histogram.record_n(u64::MAX, 10);
        assert_eq!(histogram.percentile(0.1), 0);
        assert_eq!(histogram.percentile(0.5), 7);
        assert_eq!(histogram.percentile(0.9), 7);
        assert_eq!(histogram.percentile(0.99), u64::MAX);
        assert_eq!(histogram.percentile_stats().samples, 100);
    }
}
