use super::super::stats::{Answer, Window};
use super::*;
use std::time::Duration;

/// A run of 10 s at 100 requests a second, of which one in ten was refused, one failed and 50 were not reached.
pub fn example() -> Report {
    let ms = Duration::from_millis;
    let mut total = Window::new();
    for n in 0..950 {
        let due = ms(n * 10);
        let answer = match n {
            0 => Answer::Failed("HTTP 503 cluster-not-ready".to_owned()),
            n if n % 10 == 9 => Answer::Refused(Some(ms(1000))),
            _ => Answer::Acknowledged,
        };
        total.record(due, due + ms(1), due + ms(2 + n / 10), answer);
    }
    let points = (1..=10)
        .map(|t| Point {
            cluster_memory_bytes: Some(t * 1_000_000),
            ..Point::of(&total, t as f64, 10.0, Some(1000), 3)
        })
        .collect();
    let measured = Measured {
        due: Some(1000),
        started: 950,
        warmup_acknowledged: 17,
        elapsed: Duration::from_secs(10),
        total,
        points,
        client_cpu: ms(950),
        cluster_cpu: Some(ms(1900)),
        interrupted: false,
    };
    let parameters = Parameters {
        via: "http",
        target: "POST /produce".to_owned(),
        addresses: vec!["127.0.0.1:8080".to_owned()],
        concurrency: 64,
        duration_seconds: 10.0,
        warmup_seconds: 1.0,
        record_bytes: 200,
        records_per_request: 2,
        keys: 0,
        acks: "all",
        threads: 1,
    };
    Report::of(parameters, Some(100.0), "2026-11-22T01:00:00Z".to_owned(), measured)
}

#[test]
fn the_text_says_what_was_sent_and_what_became_of_it() {
    let text = example().text();
    for part in [
        "load via http: POST /produce, open loop at 100 requests/s, at most 64 under way, 2 records of 200 B each",
        "85 requests/s, 171 records/s, 34.2 kB/s (for 10.0 s)",
        "854 acknowledged of 1 000 due, 95 refused (429), 1 FAILED, 50 not reached",
        "latency      p50 49 ms",
        "429 itself   p50",
        "1 × HTTP 503 cluster-not-ready",
        "Retry-After  1 s × 95",
        "client 0.95 s, 1000.0 µs a request; nodes 1.90 s, 2000.0 µs a request, at most 10.0 MB resident",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let closed = Report { rate_asked: None, arrivals: "closed", ..example() };
    assert!(closed.text().contains("CLOSED LOOP"));
}

#[test]
fn the_json_has_the_documented_fields_and_all_of_them_are_documented() {
    fn names(value: &serde_json::Value, path: &str, found: &mut std::collections::BTreeSet<String>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    let free = matches!(path, "errors." | "retry_after_seconds.");
                    let path = format!("{path}{name}");
                    if !free {
                        names(value, &format!("{path}."), found);
                        found.insert(path);
                    }
                }
            }
            serde_json::Value::Array(all) => all
                .iter()
                .for_each(|value| names(value, &format!("{}[].", path.trim_end_matches('.')), found)),
            _ => {}
        }
    }
    let mut report = example();
    let step = Step { why: Some("x".to_owned()), ..report.step(100.0, 1000.0) };
    report.limit = Some(Limit { requests_per_second: Some(1.0), limit_p99_ms: 1.0, steps: vec![step] });
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["requests"]["acknowledged"], 854);
    assert_eq!((&json["records_acknowledged"], &json["latency_ms"]["samples"]), (&1708.into(), &854.into()));
    let mut found = std::collections::BTreeSet::new();
    names(&json, "", &mut found);
    let page = include_str!("../../../../../../docs/bench.md");
    let missing: Vec<_> = found.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "ops/docs/bench.md does not have {missing:#?}");
}

#[test]
fn a_step_holds_only_when_nothing_is_wrong_with_it() {
    let report = example();
    assert_eq!(report.step(100.0, 1000.0).why.as_deref(), Some("95 refused"));
    let mut fine = report.clone();
    (fine.requests.refused, fine.requests.failed) = (0, 0);
    assert!(fine.step(85.4, 1000.0).holds);
    assert!(fine.step(86.2, 1000.0).holds, "99 % of it");
    assert!(fine.step(87.0, 1000.0).why.is_some_and(|why| why.contains("less was reached")));
    fine.seconds = 10.25;
    assert!(fine.step(86.2, 1000.0).holds, "last answers are no lack of rate");
    fine.seconds = 10.5;
    assert!(!fine.step(86.2, 1000.0).holds, "a queue that has to be worked off is");
    fine.seconds = 10.0;
    assert_eq!(fine.step(85.4, 50.0).why.as_deref(), Some("p99 above 50 ms"));
    fine.requests.failed = 1;
    assert_eq!(fine.step(85.4, 1000.0).why.as_deref(), Some("1 failed"));
    fine.latency_ms = None;
    assert!(!fine.step(85.4, 1000.0).holds);
}
