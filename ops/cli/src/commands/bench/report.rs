//! Results, as text and as JSON.

use super::Target;
use super::cpu::CpuUsed;
use crate::exit::Failure;
use crate::output::{Output, grouped, human_bytes, human_ms};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Times from 1 µs to an hour, to three digits.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Times {
    pub fn new() -> Times {
        Times(Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are constant"))
    }

    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub fn merge(&mut self, other: &Times) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// As if nothing had been recorded; keeps its memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// In milliseconds; 0 if nothing was recorded.
    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1000.0
    }

    /// The time in milliseconds that this share of all (0 to 1) did not exceed.
    pub fn at_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }

    pub fn quantiles(&self) -> Option<Quantiles> {
        (!self.0.is_empty()).then(|| Quantiles {
            samples: self.count(),
            p50_ms: self.at_ms(0.5),
            p99_ms: self.at_ms(0.99),
            p999_ms: self.at_ms(0.999),
            max_ms: self.max_ms(),
        })
    }
}

/// What a distribution of times comes down to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    pub samples: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// The result of one benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    #[serde(flatten)]
    pub target: Target,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acks: Option<&'static str>,
    pub record_bytes: u64,
    pub records: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    pub failed: u64,
    /// What was timed, and how long it took.
    pub latency: BTreeMap<&'static str, Option<Quantiles>>,
    pub cpu: CpuUsed,
}

impl Report {
    pub fn show(&self, out: Output) -> Result<(), Failure> {
        out.show(self, || self.text())
    }

    fn text(&self) -> String {
        let Report { target, .. } = self;
        let mut lines = vec![format!(
            "{} {}: {} partitions × {} replicas, flush={}{}",
            self.benchmark,
            target.topic,
            target.partitions,
            target.replicas,
            target.flush,
            self.acks.map_or_else(String::new, |acks| format!(", acks={acks}"))
        )];
        lines.push(format!(
            "throughput   {} records/s, {}/s ({} records of {} B in {:.2} s{})",
            grouped(self.records_per_second as u64),
            human_bytes(self.bytes_per_second),
            grouped(self.records),
            self.record_bytes,
            self.seconds,
            if self.failed > 0 { format!(", {} FAILED", grouped(self.failed)) } else { String::new() }
        ));
        for (what, quantiles) in &self.latency {
            let text = match quantiles {
                Some(q) => format!(
                    "p50 {}, p99 {}, p99.9 {}, max {} ({} samples)",
                    human_ms(q.p50_ms),
                    human_ms(q.p99_ms),
                    human_ms(q.p999_ms),
                    human_ms(q.max_ms),
                    grouped(q.samples)
                ),
                None => "no samples".to_owned(),
            };
            lines.push(format!("{what:12} {text}"));
        }
        let per_gb = |who: &str, seconds: f64, per_gb: f64| format!("{who} {per_gb:.2} ({seconds:.2} s)");
        let mut cpu = per_gb("client", self.cpu.client_seconds, self.cpu.client_seconds_per_gb);
        match (self.cpu.cluster_seconds, self.cpu.cluster_seconds_per_gb) {
            (Some(seconds), Some(cluster)) => {
                cpu.push_str(&format!(", {}", per_gb("cluster", seconds, cluster)))
            }
            _ => cpu.push_str(" (the cluster's with --data-dir or --pids)"),
        }
        lines.push(format!("CPU s per GB {cpu}"));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_measured_and_how_it_went() {
        let mut times = Times::new();
        (1..=1000).for_each(|ms| times.record(Duration::from_millis(ms)));
        let report = Report {
            benchmark: "produce",
            target: Target { topic: "t".into(), partitions: 12, replicas: 3, flush: "ack".into() },
            acks: Some("all"),
            record_bytes: 1024,
            records: 1_000_000,
            bytes: 1_024_000_000,
            seconds: 2.0,
            records_per_second: 500_000.0,
            bytes_per_second: 512e6,
            failed: 0,
            latency: BTreeMap::from([("acknowledged", times.quantiles()), ("arrived", None)]),
            cpu: CpuUsed {
                client_seconds: 1.0,
                cluster_seconds: Some(2.0),
                client_seconds_per_gb: 0.98,
                cluster_seconds_per_gb: Some(1.95),
            },
        };
        let text = report.text();
        for part in [
            "produce t: 12 partitions × 3 replicas, flush=ack, acks=all",
            "500 000 records/s, 512 MB/s (1 000 000 records of 1024 B in 2.00 s)",
            "acknowledged p50 500 ms, p99 990 ms, p99.9 999 ms, max 1.00 s (1 000 samples)",
            "arrived      no samples",
            "CPU s per GB client 0.98 (1.00 s), cluster 1.95 (2.00 s)",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["topic"], &json["flush"], &json["latency"]["acknowledged"]["samples"]),
            (&"t".into(), &"ack".into(), &1000.into())
        );
    }
}
