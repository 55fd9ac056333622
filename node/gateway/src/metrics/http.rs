//! Requests by route.

use super::table::*;
use axum::http::{Method, StatusCode};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_metrics::{Counter, Histogram, LATENCY, Labels, Page};

/// Answers as they are told apart: 429 is what clients are to slow down for.
const STATUSES: [&str; 5] = ["2xx", "3xx", "4xx", "429", "5xx"];

#[derive(Debug)]
struct Route {
    took: Histogram,
    answers: [Counter; STATUSES.len()],
}

impl Default for Route {
    fn default() -> Self {
        Route { took: Histogram::new(LATENCY), answers: Default::default() }
    }
}

/// One request that was answered.
pub(crate) struct Taken<'a> {
    pub(crate) method: &'a Method,
    /// Template of its route; `None` of a path that there is not.
    pub(crate) route: Option<&'a str>,
    pub(crate) status: StatusCode,
    /// Until the head of the answer was there.
    pub(crate) took: Duration,
    /// Bodies of the request and of the answer, where their length is known.
    pub(crate) bytes: (u64, u64),
}

/// A method and a template.
type Key = (&'static str, Box<str>);

/// As many routes as the router has.
#[derive(Debug, Default)]
pub(crate) struct HttpMeters {
    routes: RwLock<BTreeMap<Key, Arc<Route>>>,
    received: Counter,
    sent: Counter,
}

fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn status_of(status: StatusCode) -> usize {
    match status.as_u16() {
        429 => 3,
        500.. => 4,
        400.. => 2,
        300.. => 1,
        _ => 0,
    }
}

impl HttpMeters {
    pub(crate) fn count(&self, taken: &Taken<'_>) {
        let route = self.route(name_of(taken.method), taken.route.unwrap_or("none"));
        route.took.record(taken.took);
        route.answers[status_of(taken.status)].inc();
        self.received.add(taken.bytes.0);
        self.sent.add(taken.bytes.1);
    }

    fn route(&self, method: &'static str, template: &str) -> Arc<Route> {
        let key = (method, Box::from(template));
        if let Some(route) = self.routes.read().get(&key) {
            return route.clone();
        }
        self.routes.write().entry(key).or_default().clone()
    }

    pub(super) fn gather(&self, page: &mut Page) {
        for ((method, template), route) in &*self.routes.read() {
            page.family(&HTTP_DURATION).add(Labels::new(&[method, template]), route.took.reading());
            for (status, count) in STATUSES.iter().zip(&route.answers).filter(|(_, count)| count.get() > 0) {
                page.add(&HTTP_REQUESTS, &[method, template, status], count.get());
            }
        }
        page.add(&HTTP_RECEIVED, &[], self.received.get());
        page.add(&HTTP_SENT, &[], self.sent.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_metrics::Format;

    fn taken(method: &Method, route: Option<&'static str>, status: u16) -> String {
        let meters = HttpMeters::default();
        let status = StatusCode::from_u16(status).unwrap();
        meters.count(&Taken { method, route, status, took: Duration::from_millis(3), bytes: (7, 11) });
        let mut page = Page::default();
        meters.gather(&mut page);
        page.render(Format::Text)
    }

    #[test]
    fn a_request_is_counted_by_its_route_and_what_became_of_it() {
        let text = taken(&Method::POST, Some("/produce"), 429);
        for line in [
            "strandline_http_requests_total{method=\"POST\",route=\"/produce\",status=\"429\"} 1\n",
            "strandline_http_request_duration_seconds_count{method=\"POST\",route=\"/produce\"} 1\n",
            "strandline_http_received_bytes_total 7\n",
            "strandline_http_sent_bytes_total 11\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn what_a_client_makes_up_is_no_label() {
        let method = Method::from_bytes(b"NOVEL").unwrap();
        let text = taken(&method, None, 404);
        assert!(text.contains("{method=\"other\",route=\"none\",status=\"4xx\"} 1\n"), "{text}");
    }

    #[test]
    fn each_status_has_its_class() {
        let classes = [200, 204, 304, 400, 404, 429, 431, 500, 503]
            .map(|status| STATUSES[status_of(StatusCode::from_u16(status).unwrap())]);
        assert_eq!(classes, ["2xx", "2xx", "3xx", "4xx", "4xx", "429", "4xx", "5xx", "5xx"]);
    }
}
