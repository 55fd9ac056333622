//! Requests of clients, and their connections.

use super::meters::{Meters, Requests, Volume};
use super::table::*;
use strandline_metrics::{Labels, Page};

pub(super) fn gather(meters: &Meters, page: &mut Page) {
    let (grpc, kafka) = (&meters.grpc, &meters.kafka);
    for (protocol, produce, fetch) in
        [("grpc", &grpc.produce, &grpc.fetch), ("kafka", &kafka.produce, &kafka.fetch)]
    {
        volume(page, protocol, &produce.volume, (&PRODUCED_RECORDS, &PRODUCED_BYTES));
        volume(page, protocol, &fetch.volume, (&FETCHED_RECORDS, &FETCHED_BYTES));
        for (name, requests) in [("produce", produce), ("fetch", fetch)] {
            of_requests(page, &Labels::new(&[&protocol, &name]), requests);
        }
    }
    let calls = grpc.calls().map(|call| ("grpc", call)).chain(kafka.calls().map(|call| ("kafka", call)));
    for (protocol, (name, count)) in calls {
        page.add(&REQUESTS, &[&protocol, &name], count);
    }
    let errors =
        grpc.errors().map(|error| ("grpc", error)).chain(kafka.errors().map(|error| ("kafka", error)));
    for (protocol, (name, count)) in errors {
        page.add(&REQUEST_ERRORS, &[&protocol, &name], count);
    }
    for listener in meters.listeners() {
        let name = listener.name.to_ascii_lowercase();
        page.add(&CONNECTIONS, &[&name], listener.open());
        page.add(&CONNECTIONS_MAX, &[&name], listener.max);
        for (reason, count) in listener.unserved() {
            page.add(&CONNECTIONS_UNSERVED, &[&name, &reason], count);
        }
    }
}

fn of_requests(page: &mut Page, labels: &Labels, requests: &Requests) {
    let took = requests.took.reading();
    page.family(&REQUESTS).add(labels.clone(), took.count);
    page.family(&REQUEST_DURATION).add(labels.clone(), took);
    page.family(&THROTTLED).add(labels.clone(), requests.throttled.get());
    page.family(&THROTTLED_SECONDS).add(labels.clone(), requests.throttled_seconds());
}

fn volume(
    page: &mut Page,
    protocol: &str,
    volume: &Volume,
    (records, bytes): (&'static strandline_metrics::Metric, &'static strandline_metrics::Metric),
) {
    page.add(records, &[&protocol], volume.records.get());
    page.add(bytes, &[&protocol], volume.bytes.get());
}
