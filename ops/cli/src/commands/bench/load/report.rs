//! The result of a load run: its JSON (`ops/docs/bench.md` has the fields; they keep their names), and its text.

use super::engine::Measured;
use super::machine::Machine;
use super::stats::{Point, Summary, distribution};
use crate::output::{grouped, human_bytes, human_ms};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Seconds after the end of a schedule that its last answers may take without counting as a rate that was not reached.
const LAST_ANSWERS: f64 = 0.25;

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Parameters {
    pub via: &'static str,
    /// `GET` or `POST` and the path, the topic, or both: what each request did.
    pub target: String,
    pub addresses: Vec<String>,
    pub concurrency: usize,
    pub duration_seconds: f64,
    pub warmup_seconds: f64,
    pub record_bytes: u64,
    pub records_per_request: u64,
    /// Different keys; 0: records have none.
    pub keys: u64,
    pub acks: &'static str,
    pub threads: usize,
}

/// Where requests went. `scheduled = started + not_reached`, `started = acknowledged + refused + failed`.
#[derive(Clone, Debug, Serialize)]
pub struct Requests {
    /// Due while it was measured; absent in a closed loop.
    pub scheduled: Option<u64>,
    pub started: u64,
    pub acknowledged: u64,
    /// 429.
    pub refused: u64,
    pub failed: u64,
    /// Due, and never started, since all connections were busy to the end.
    pub not_reached: u64,
    /// Sent before measuring began, and acknowledged; in none of the other figures.
    pub warmup_acknowledged: u64,
}

/// CPU time while it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    pub client_seconds: f64,
    /// A started request.
    pub client_us_per_request: f64,
    /// The watched nodes together (`--data-dir`, `--pids`).
    pub cluster_seconds: Option<f64>,
    pub cluster_us_per_request: Option<f64>,
    pub cluster_memory_max_bytes: Option<u64>,
}

/// Distributions as `[share of all requests, milliseconds]`.
#[derive(Clone, Debug, Serialize)]
pub struct Distributions {
    pub latency: Vec<(f64, f64)>,
    pub refused: Vec<(f64, f64)>,
}

/// One step of `--find-limit`.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Requests a second.
    pub asked: f64,
    pub acknowledged: f64,
    pub refused: u64,
    pub failed: u64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub holds: bool,
    /// Why it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What `--find-limit` found.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// The highest rate that held; absent if none did.
    pub requests_per_second: Option<f64>,
    pub limit_p99_ms: f64,
    /// In the order in which they were tried.
    pub steps: Vec<Step>,
}

/// The whole result. Of `--find-limit`, that of the highest rate that held.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    pub version: &'static str,
    /// RFC 3339, in UTC.
    pub started_at: String,
    pub machine: Machine,
    #[serde(flatten)]
    pub parameters: Parameters,
    /// `open`: requests were due at `rate_asked`, whatever happened. `closed` (`--rate max`): each waited for the one before.
    pub arrivals: &'static str,
    /// Requests a second.
    pub rate_asked: Option<f64>,
    pub interrupted: bool,
    pub seconds: f64,
    pub requests: Requests,
    /// Acknowledged ones.
    pub requests_per_second: f64,
    pub records_acknowledged: u64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// From when a request was due to its acknowledgement.
    pub latency_ms: Option<Summary>,
    /// From when a request was due to its refusal.
    pub refused_latency_ms: Option<Summary>,
    /// From when a request was sent to its refusal.
    pub refused_service_ms: Option<Summary>,
    /// From when a request was due to when it was sent.
    pub send_lag_ms: Option<Summary>,
    pub errors: BTreeMap<String, u64>,
    /// Seconds that `Retry-After` named, and how often.
    pub retry_after_seconds: BTreeMap<u64, u64>,
    pub cpu: Cpu,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    pub distribution: Distributions,
    pub series: Vec<Point>,
}

impl Report {
    pub fn of(parameters: Parameters, rate: Option<f64>, started_at: String, measured: Measured) -> Report {
        let total = &measured.total;
        let seconds = measured.elapsed.as_secs_f64().max(1e-9);
        let records = total.acknowledged * parameters.records_per_request;
        let each = |seconds: f64| seconds * 1e6 / measured.started.max(1) as f64;
        let client_seconds = measured.client_cpu.as_secs_f64();
        let cluster_seconds = measured.cluster_cpu.map(|cpu| cpu.as_secs_f64());
        Report {
            benchmark: "load",
            version: env!("CARGO_PKG_VERSION"),
            started_at,
            machine: Machine::this(),
            arrivals: if rate.is_some() { "open" } else { "closed" },
            rate_asked: rate,
            interrupted: measured.interrupted,
            seconds,
            requests: Requests {
                scheduled: measured.due,
                started: measured.started,
                acknowledged: total.acknowledged,
                refused: total.refused,
                failed: total.failed,
                not_reached: measured.due.map_or(0, |due| due.saturating_sub(measured.started)),
                warmup_acknowledged: measured.warmup_acknowledged,
            },
            requests_per_second: total.acknowledged as f64 / seconds,
            records_acknowledged: records,
            records_per_second: records as f64 / seconds,
            bytes_per_second: (records * parameters.record_bytes) as f64 / seconds,
            latency_ms: Summary::of(&total.latency),
            refused_latency_ms: Summary::of(&total.refused_latency),
            refused_service_ms: Summary::of(&total.refused_service),
            send_lag_ms: Summary::of(&total.lag),
            errors: total.errors.clone(),
            retry_after_seconds: total.retry_after.clone(),
            cpu: Cpu {
                client_seconds,
                client_us_per_request: each(client_seconds),
                cluster_seconds,
                cluster_us_per_request: cluster_seconds.map(each),
                cluster_memory_max_bytes: measured.points.iter().filter_map(|p| p.cluster_memory_bytes).max(),
            },
            limit: None,
            distribution: Distributions {
                latency: distribution(&total.latency),
                refused: distribution(&total.refused_latency),
            },
            series: measured.points,
            parameters,
        }
    }

    /// The step of a search that this run was, with the rate asked for and what p99 may be.
    pub fn step(&self, asked: f64, limit_p99_ms: f64) -> Step {
        let latency = self.latency_ms.as_ref();
        let p99_ms = latency.map(|latency| latency.p99);
        // The last answers come after the last request was due: that is latency, which has a limit of its own.
        let sending = self.parameters.duration_seconds.min(self.seconds);
        let reached = self.requests.acknowledged as f64 / (self.seconds - LAST_ANSWERS).max(sending);
        let why = if self.requests.refused > 0 {
            Some(format!("{} refused", grouped(self.requests.refused)))
        } else if self.requests.failed > 0 {
            Some(format!("{} failed", grouped(self.requests.failed)))
        } else if reached < asked * 0.99 {
            Some("less was reached than was asked for".to_owned())
        } else if p99_ms.is_none_or(|p99| p99 > limit_p99_ms) {
            Some(format!("p99 above {}", human_ms(limit_p99_ms)))
        } else {
            None
        };
        Step {
            asked,
            acknowledged: self.requests_per_second,
            refused: self.requests.refused,
            failed: self.requests.failed,
            p50_ms: latency.map(|latency| latency.p50),
            p99_ms,
            p999_ms: latency.map(|latency| latency.p999),
            holds: why.is_none(),
            why,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let Report { parameters: p, requests, .. } = self;
        writeln!(out, "load via {}: {}, {}", p.via, p.target, self.offered())?;
        writeln!(
            out,
            "throughput   {} requests/s, {} records/s, {}/s (for {:.1} s)",
            grouped(self.requests_per_second.round() as u64),
            grouped(self.records_per_second.round() as u64),
            human_bytes(self.bytes_per_second),
            self.seconds
        )?;
        write!(out, "requests     {} acknowledged", grouped(requests.acknowledged))?;
        if let Some(scheduled) = requests.scheduled {
            write!(out, " of {} due", grouped(scheduled))?;
        }
        for (count, what) in [
            (requests.refused, "refused (429)"),
            (requests.failed, "FAILED"),
            (requests.not_reached, "not reached: all connections were busy"),
        ] {
            if count > 0 {
                write!(out, ", {} {what}", grouped(count))?;
            }
        }
        writeln!(out)?;
        for (what, summary) in [
            ("latency", &self.latency_ms),
            ("send lag", &self.send_lag_ms),
            ("429 from due", &self.refused_latency_ms),
            ("429 itself", &self.refused_service_ms),
        ] {
            if let Some(s) = summary {
                let [p50, p95, p99, p999, max] = [s.p50, s.p95, s.p99, s.p999, s.max].map(human_ms);
                writeln!(out, "{what:12} p50 {p50}, p95 {p95}, p99 {p99}, p99.9 {p999}, max {max}")?;
            }
        }
        for (kind, count) in &self.errors {
            writeln!(out, "error        {} × {kind}", grouped(*count))?;
        }
        if !self.retry_after_seconds.is_empty() {
            let all =
                self.retry_after_seconds.iter().map(|(s, count)| format!("{s} s × {}", grouped(*count)));
            writeln!(out, "Retry-After  {}", all.collect::<Vec<_>>().join(", "))?;
        }
        let cpu = &self.cpu;
        write!(
            out,
            "CPU          client {:.2} s, {:.1} µs a request",
            cpu.client_seconds, cpu.client_us_per_request
        )?;
        match (cpu.cluster_seconds, cpu.cluster_us_per_request) {
            (Some(seconds), Some(each)) => write!(out, "; nodes {seconds:.2} s, {each:.1} µs a request")?,
            _ => write!(out, " (the nodes' with --data-dir or --pids)")?,
        }
        if let Some(bytes) = cpu.cluster_memory_max_bytes {
            write!(out, ", at most {} resident", human_bytes(bytes as f64))?;
        }
        if let Some(limit) = &self.limit {
            writeln!(out)?;
            write!(out, "limit        ")?;
            match limit.requests_per_second {
                Some(rate) => write!(out, "{} requests/s hold", grouped(rate.round() as u64))?,
                None => write!(out, "no rate that was tried holds")?,
            }
            write!(out, " (no 429, no error, 99 % reached, p99 ≤ {})", human_ms(limit.limit_p99_ms))?;
        }
        if self.interrupted {
            write!(out, "\ninterrupted: these are the figures up to then")?;
        }
        Ok(())
    }

    /// How requests arrived, in words.
    pub fn offered(&self) -> String {
        let p = &self.parameters;
        let arrivals = match self.rate_asked {
            Some(rate) => format!("open loop at {} requests/s", grouped(rate.round() as u64)),
            None => {
                "CLOSED LOOP (--rate max: latencies leave out the waiting of requests that were not sent)"
                    .to_owned()
            }
        };
        let records = match p.records_per_request {
            1 => format!("{} B", p.record_bytes),
            n => format!("{n} records of {} B", p.record_bytes),
        };
        format!("{arrivals}, at most {} under way, {records} each", p.concurrency)
    }
}

#[cfg(test)]
pub mod tests;
