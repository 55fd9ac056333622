//! What a gateway shows of itself at a scrape: HTTP by route, what it holds back, and its ingest pipeline.
//!
//! Invariants: labels are templates of routes, a handful of methods and statuses, and topics of the ingest pipeline:
//! nothing that a client chooses.

mod http;
mod table;

pub(crate) use http::{HttpMeters, Taken};
pub use table::METRICS;

use crate::app::App;
use crate::live::MAX_VIEWERS;
use strandline_metrics::{Labels, Page, Source};
use table::*;

impl Source for App {
    fn gather(&self, page: &mut Page) {
        self.meters.http.gather(page);
        admission(self, page);
        let records = self.meters.records();
        page.add(&RECORDS, &[&"in"], records.written);
        page.add(&RECORDS, &[&"out"], records.read);
        if let Some(ingest) = &self.ingest {
            self::ingest(ingest, page);
        }
    }
}

fn admission(app: &App, page: &mut Page) {
    let (config, in_use) = (&app.config, app.admission.in_use());
    let uses = [
        (&IN_FLIGHT, "write", in_use.writes, config.max_inflight_requests),
        (&IN_FLIGHT, "read", in_use.reads, config.max_inflight_reads),
    ];
    for (metric, class, used, max) in uses {
        page.add(metric, &[&class], used);
        page.add(&IN_FLIGHT_MAX, &[&class], max);
    }
    page.add(&IN_FLIGHT_BYTES, &[], in_use.bytes);
    page.add(&IN_FLIGHT_BYTES_MAX, &[], config.max_inflight_bytes);
    for (reason, count) in app.admission.refusals() {
        page.add(&REFUSED, &[&reason], count);
    }
    page.add(&CONNECTIONS, &[], config.max_connections.saturating_sub(app.connections.available_permits()));
    page.add(&CONNECTIONS_MAX, &[], config.max_connections);
    page.add(&STREAMS, &[], app.live.viewers());
    page.add(&STREAMS_MAX, &[], MAX_VIEWERS);
}

fn ingest(ingest: &crate::ingest::Ingest, page: &mut Page) {
    let counts = &ingest.health().counts;
    let outcomes =
        [("processed", &counts.processed), ("rejected", &counts.rejected), ("failed", &counts.failed)];
    for (outcome, count) in outcomes {
        page.add(&INGEST_EVENTS, &[&outcome], count.get());
    }
    page.add(&INGEST_DEAD_LETTERS, &[], counts.dead_letters.get());
    page.add(&INGEST_STORE_ERRORS, &[], counts.store_errors.get());
    page.add(&INGEST_STORE_WRITE, &[], counts.store_write.reading());
    if let Some(up) = ingest.store_is_up() {
        page.add(&INGEST_STORE_UP, &[], up);
    }
    page.add(&INGEST_ENQUEUE, &[], ingest.enqueued().reading());
    for ((topic, partition), next) in &*counts.offsets.lock() {
        page.family(&INGEST_OFFSET).add(Labels::new(&[topic, partition]), *next);
    }
}
