//! Stands in for the crate of the same name, which openraft depends on.
//!
//! The library computes its tables for all of its sixteen resolutions at first use: 29 MB of the 60 MB of a sidecar, for
//! statistics that openraft keeps and this project never asks for. This one has the types that openraft names, counts in
//! powers of two and needs no tables; percentiles are therefore rounded down to a power of two. It can go once the library
//! makes its tables when they are asked for.

use std::fmt;
use std::marker::PhantomData;

/// One count for each number of significant bits.
const BUCKETS: usize = u64::BITS as usize + 1;

/// Counts of values, in powers of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// At `i` the values of `i` significant bits.
    counts: [u64; BUCKETS],
    data: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One without values.
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], data: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value several times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bits = u64::BITS - value.leading_zeros();
        self.counts[bits as usize] += times;
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The usual percentiles, each rounded down to a power of two; 0 without values.
    pub fn percentile_stats(&self) -> PercentileStats {
        let [p0_1, p1, p5, p10, p50, p90, p99, p99_9] = [1, 10, 50, 100, 500, 900, 990, 999].map(|p| self.permille(p));
        PercentileStats { samples: self.total(), p0_1, p1, p5, p10, p50, p90, p99, p99_9 }
    }

    fn permille(&self, permille: u64) -> u64 {
        let rank = u128::from(self.total()) * u128::from(permille);
        let mut below = 0;
        for (bits, count) in self.counts.iter().enumerate() {
            below += u128::from(*count) * 1000;
            if *count > 0 && below >= rank {
                return if bits == 0 { 0 } else { 1 << (bits - 1) };
            }
        }
        0
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of a [`Histogram`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values there are.
    pub samples: u64,
    /// 0.1th percentile.
    pub p0_1: u64,
    /// 1st percentile.
    pub p1: u64,
    /// 5th percentile.
    pub p5: u64,
    /// 10th percentile.
    pub p10: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n={} p50={} p90={} p99={} p99.9={}", self.samples, self.p50, self.p90, self.p99, self.p99_9)
    }
}

/// Several histograms as text, one a line.
#[derive(Debug, Default)]
pub struct AsciiChart(Vec<(&'static str, Histogram)>);

impl AsciiChart {
    /// One without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one histogram more.
    #[must_use]
    pub fn add(mut self, name: &'static str, histogram: Histogram) -> Self {
        self.0.push((name, histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_rounded_down_to_powers_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        for value in [0, 1, 2, 3, 100, u64::MAX] {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p99_9), (6, 0, 2, 1 << 63));
        histogram.record_n(0, 3);
        assert_eq!((histogram.total(), histogram.percentile_stats().p10), (9, 0));
        let chart = AsciiChart::new().add("a", histogram.clone()).add("b", Histogram::new()).to_string();
        assert_eq!(
            chart,
            "a: n=9 p50=1 p90=9223372036854775808 p99=9223372036854775808 p99.9=9223372036854775808\nb: n=0 p50=0 p90=0 p99=0 p99.9=0\n"
        );
    }
}
