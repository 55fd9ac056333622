//! The metrics of a gateway, in the order of the page of documentation.

use strandline_metrics::Metric;

macro_rules! table {
    ($($name:ident = $kind:ident($($argument:tt)*);)*) => {
        $(pub(super) const $name: Metric = Metric::$kind($($argument)*);)*
        /// All of them.
        pub const METRICS: &[&Metric] = &[$(&$name),*];
    };
}

table! {
    HTTP_REQUESTS = counter("strandline_http_requests_total", &["method", "route", "status"],
        "Requests that were answered, by template of the route (none: no such path) and class of the status");
    HTTP_DURATION = histogram("strandline_http_request_duration_seconds", &["method", "route"],
        "Until the head of the answer was there; a read that waits for records waits here");
    HTTP_RECEIVED = counter("strandline_http_received_bytes_total", &[],
        "Bytes of the bodies that requests announced, taken or not");
    HTTP_SENT = counter("strandline_http_sent_bytes_total", &[], "Bytes of the bodies of answers; without streams");
    RECORDS = counter("strandline_http_records_total", &["direction"], "Records that were written (in) and read (out) over HTTP");
    REFUSED = counter("strandline_http_refused_total", &["reason"], "Requests refused with 429, by the bound that they met");
    IN_FLIGHT = gauge("strandline_http_in_flight_requests", &["class"], "Requests that are carried out");
    IN_FLIGHT_MAX = gauge("strandline_http_in_flight_requests_max", &["class"],
        "Requests that may be carried out at once (http.max.inflight.requests, http.max.inflight.reads)");
    IN_FLIGHT_BYTES = gauge("strandline_http_in_flight_bytes", &[], "Bytes of bodies that are held");
    IN_FLIGHT_BYTES_MAX = gauge("strandline_http_in_flight_bytes_max", &[], "Bytes that may be held (http.max.inflight.bytes)");
    CONNECTIONS = gauge("strandline_http_connections", &[], "HTTP connections that are open");
    CONNECTIONS_MAX = gauge("strandline_http_connections_max", &[], "HTTP connections that may be open (max.connections)");
    STREAMS = gauge("strandline_http_event_streams", &[], "Streams of server-sent events that are open: dashboards");
    STREAMS_MAX = gauge("strandline_http_event_streams_max", &[], "Streams of server-sent events that may be open");
    INGEST_EVENTS = counter("strandline_ingest_events_total", &["outcome"],
        "Events that the processor of this gateway brought into the store, resends among them");
    INGEST_DEAD_LETTERS = counter("strandline_ingest_dead_letters_total", &[], "Events that went to the dead-letter topic");
    INGEST_STORE_ERRORS = counter("strandline_ingest_store_errors_total", &[],
        "Writes that the store did not take; each is tried again or ends in a failed event");
    INGEST_STORE_WRITE = histogram("strandline_ingest_store_write_duration_seconds", &[], "One transaction of the store");
    INGEST_STORE_UP = gauge("strandline_ingest_store_up", &[],
        "1 while the store is open and takes writes; missing before the first event");
    INGEST_ENQUEUE = histogram("strandline_ingest_enqueue_duration_seconds", &[],
        "From the arrival of events until they are durable in the log");
    INGEST_OFFSET = gauge("strandline_ingest_next_offset", &["topic", "partition"],
        "Next offset that this gateway brings into the store; less than the high watermark by the queue");
}
