//! What this gateway itself counts: a few counters that only grow.

use super::latency::{Counts, Latency};
use crate::metrics::{HttpMeters, Taken};
use axum::http::StatusCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters. Adding to one costs an atomic addition, whoever looks.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    requests: AtomicU64,
    /// Answers of 5xx.
    errors: AtomicU64,
    /// Answers of 429.
    refused: AtomicU64,
    records_in: AtomicU64,
    records_out: AtomicU64,
    pub(crate) http: HttpMeters,
    /// From a write that was let in to its answer.
    pub(crate) produce: Latency,
}

/// Records over HTTP.
pub(crate) struct Records {
    pub(crate) written: u64,
    pub(crate) read: u64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) refused: u64,
    pub(super) records_in: u64,
    pub(super) records_out: u64,
    pub(super) produce: Counts,
    /// Of events, from their arrival until the log has them; nothing where this gateway does not ingest.
    pub(super) ingest: Counts,
}

impl Meters {
    pub(crate) fn answered(&self, taken: &Taken<'_>) {
        let status = taken.status;
        self.http.count(taken);
        self.requests.fetch_add(1, Ordering::Relaxed);
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.refused.fetch_add(1, Ordering::Relaxed);
        } else if status.is_server_error() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn wrote(&self, records: usize) {
        self.records_in.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, records: usize) {
        self.records_out.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Records over HTTP since the start.
    pub(crate) fn records(&self) -> Records {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Records { written: value(&self.records_in), read: value(&self.records_out) }
    }

    pub(super) fn reading(&self, ingest: Option<&Latency>) -> Reading {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Reading {
            requests: value(&self.requests),
            errors: value(&self.errors),
            refused: value(&self.refused),
            records_in: value(&self.records_in),
            records_out: value(&self.records_out),
            produce: self.produce.counts(),
            ingest: ingest.map(Latency::counts).unwrap_or_default(),
        }
    }
}
