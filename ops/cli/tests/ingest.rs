//! The ingest pipeline with real processes: the page's examples as they are written, two gateways at once, dead letters,
//! and PostgreSQL shared by gateways of which one is killed.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and ports")]

mod common;
#[path = "../../../node/gateway/tests/postgres/mod.rs"]
mod postgres;

use common::{Dev, Gateway, http, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const PAGE: &str = include_str!("../../docs/ingest.md");

/// The page's commands, each with the answer printed below it.
fn examples() -> Vec<(String, Value)> {
    let blocks: Vec<&str> = PAGE.split("```").skip(1).step_by(2).collect();
    let pairs = blocks.windows(2).filter(|pair| pair[0].starts_with("sh\n"));
    pairs
        .map(|pair| {
            let answer = pair[1].strip_prefix("json\n").expect("an answer follows each command");
            (pair[0][3..].trim().to_owned(), serde_json::from_str(answer).expect("the page has JSON"))
        })
        .collect()
}

/// Runs `curl -s URL [-d BODY]` as a shell would read it, against the gateways of `dev`.
fn run(command: &str, dev: &Dev) -> http::Answer {
    let mut words = Vec::new();
    let mut rest = command.strip_prefix("curl -s ").expect("every command is curl -s").trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("quotes are closed"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    let (host, path) = words[0].split_once('/').expect("a path");
    let node = match host {
        "localhost:8080" => 1,
        "localhost:8081" => 2,
        other => panic!("no gateway of dev is at {other}"),
    };
    match &words[1..] {
        [] => http::get(&dev.http(node), &format!("/{path}")),
        [flag, body] if flag == "-d" => http::post(&dev.http(node), &format!("/{path}"), body),
        other => panic!("unexpected: {other:?}"),
    }
}

/// Whether everything in `expected` is in `found` so.
fn contains(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| contains(f, e))
        }
        _ => found == expected,
    }
}

fn totals(address: &str) -> Value {
    http::get(address, "/api/aggregations").expect(200)["aggregations"][0].clone()
}

fn event(number: u32) -> String {
    json!({ "client": format!("c{}", number % 7), "metric": "m", "amount": number, "ts": 1_705_000_000 + number })
        .to_string()
}

#[test]
fn the_pages_examples_work_as_written_and_dead_letters_are_redriven() {
    let dev = Dev::start(3);
    let examples = examples();
    assert!(examples.len() >= 9, "{}", examples.len());
    for (command, expected) in examples {
        let answer = run(&command, &dev);
        assert!([200, 202].contains(&answer.status), "{command}: {answer:?}");
        assert!(
            contains(&answer.json(), &expected),
            "{command}:\nexpected {expected}\nfound    {}",
            answer.body
        );
    }

    // Every gateway has the whole view, sooner or later.
    for node in 1..=3 {
        wait_for("every view to have all events", Duration::from_secs(20), || {
            totals(&dev.http(node))["count"] == 5
        });
        wait_for("every view to have seen the failure", Duration::from_secs(20), || {
            http::get(&dev.http(node), "/api/events?status=failed").expect(200)["count"] == 1
        });
    }
    let letters = || {
        let text = dev.ok(&["--json", "dlq", "list"]);
        serde_json::from_str::<Value>(&text).expect("JSON")["letters"].as_array().expect("a list").clone()
    };
    let found = letters();
    assert_eq!(found.len(), 1, "one letter, though three views failed: {found:?}");
    assert_eq!((&found[0]["attempts"], &found[0]["redrives"]), (&json!(5), &json!(0)));
    let key = found[0]["key"].as_str().expect("a key");
    let shown: Value = serde_json::from_str(&dev.ok(&["--json", "dlq", "show", &key[..12]])).expect("JSON");
    assert_eq!(shown["event"]["original"]["payload"]["amount"], 7);
    assert!(dev.ok(&["dlq", "list"]).contains(&key[..12]));
    let (code, error) = dev.fails(&["dlq", "show", "0000"], "");
    assert!(code == 3 && error.contains("no dead letter 0000"), "{code}: {error}");

    assert!(dev.ok(&["dlq", "redrive", "--all"]).contains("redrove 1 event"));
    assert_eq!(letters(), [] as [Value; 0]);
    dev.ok(&["dlq", "redrive", key]);
    for node in 1..=3 {
        wait_for("the redriven event to count", Duration::from_secs(20), || {
            totals(&dev.http(node))["count"] == 6
        });
        assert_eq!(totals(&dev.http(node))["sum"], 1723.5);
        assert_eq!(http::get(&dev.http(node), "/api/events?status=failed").expect(200)["count"], 0);
        // Of a resend the log has an offset, and no record.
        wait_for("nothing to be left to bring in", Duration::from_secs(20), || {
            http::get(&dev.http(node), "/get_status").expect(200)["lag"] == 0
        });
    }
}

#[test]
fn two_gateways_that_get_one_event_at_once_agree_which_was_the_first() {
    let dev = Dev::start(3);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ingest.sqlite");
    let own =
        Gateway::start_with(&dev.bootstrap(), &["--ingest-store", &format!("sqlite:{}", file.display())]);
    let send = |address: &str, number: u32| {
        let answer = http::post(address, "/api/events", &event(number)).expect(200);
        answer["results"][0].clone()
    };
    for number in 0..25 {
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(|| send(&dev.http(1), number));
            let other = scope.spawn(|| send(&own.address, number));
            (one.join().expect("an answer"), other.join().expect("an answer"))
        });
        let duplicates = [&one, &other].map(|result| result["isDuplicate"].as_bool().expect("known"));
        assert_eq!(duplicates.iter().filter(|duplicate| **duplicate).count(), 1, "{one} {other}");
        assert_eq!(one["event"], other["event"]);
    }
    for address in [&dev.http(1), &own.address] {
        wait_for("both views to have all", Duration::from_secs(20), || totals(address)["count"] == 25);
    }
    // What a gateway may not do, and what cannot be read.
    let refused = http::post(&own.address, "/api/events?simulateFailure=true", &event(1)).expect(403);
    assert_eq!(refused["type"], "/docs#development-only");
    for (method, path, body, status) in [
        ("POST", "/api/events", "{\"client\":", 400),
        ("POST", "/api/events", "[]", 400),
        ("POST", "/api/events", "", 400),
        ("POST", "/api/events?simulate=true", "{}", 400),
        ("POST", "/register_event", "{\"client\":\"a\"}", 422),
        ("POST", "/register_event", "[{},{}]", 413),
        ("GET", "/api/events?status=lost", "", 400),
        ("GET", "/api/events?limit=1001", "", 400),
        ("GET", "/api/aggregations?groupBy=day", "", 400),
        ("GET", "/api/aggregations?startDate=soon", "", 400),
        ("GET", "/api/aggregations?startDate=2024-01-02&endDate=2024-01-01", "", 400),
    ] {
        let problem = http::request(&own.address, method, path, &[], body).expect(status);
        assert_eq!(problem["status"], status, "{method} {path}");
    }
    // Deleted, a view is made again from the topics.
    assert_eq!(own.stop(), Some(0));
    remove(&file);
    let again =
        Gateway::start_with(&dev.bootstrap(), &["--ingest-store", &format!("sqlite:{}", file.display())]);
    wait_for("the view to be made again", Duration::from_secs(20), || {
        http::get(&again.address, "/api/aggregations").status == 200 && totals(&again.address)["count"] == 25
    });
    let none = Gateway::start(&dev.bootstrap());
    assert_eq!(http::get(&none.address, "/api/events").expect(503)["type"], "/docs#no-ingestion");
}

fn remove(file: &Path) {
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{ending}", file.display()));
    }
}

#[test]
fn gateways_share_a_postgresql_and_count_once_though_one_is_killed_and_connections_break() {
    let server = postgres::Postgres::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = runtime.block_on(server.database("events"));
    let dev = Dev::start_with(3, &["--", "--ingest-store", "none"]);
    let start =
        || Gateway::start_with(&dev.bootstrap(), &["--ingest-store", &url, "--ingest-development", "true"]);
    let mut gateways = vec![start(), start(), start()];
    let mut expected = BTreeSet::new();
    for round in 0..30u32 {
        if round == 12 {
            // Killed, not stopped: its partitions go to the others when its session ends.
            drop(gateways.pop());
        }
        if round % 4 == 1 {
            // The store fails now and then: every connection to it breaks.
            runtime.block_on(
                server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'events'"),
            );
        }
        // Ten events, of which some were sent before.
        let numbers = (round * 8).saturating_sub(2)..round * 8 + 8;
        expected.extend(numbers.clone());
        let body = format!("[{}]", numbers.map(event).collect::<Vec<_>>().join(","));
        let address = &gateways[round as usize % gateways.len()].address;
        let answer = http::post(address, "/api/events", &body);
        assert!([200, 202].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.json()["failed"], 0, "{answer:?}");
    }
    let sum: u64 = expected.iter().map(|number| u64::from(*number)).sum();
    for gateway in &gateways {
        wait_for("all events to be counted", Duration::from_secs(40), || {
            totals(&gateway.address)["count"] == expected.len()
        });
        assert_eq!(totals(&gateway.address)["sum"], sum);
    }
    // A simulated failure is one letter, and one row that all see.
    let failed =
        http::post(&gateways[0].address, "/api/events?simulateFailure=true", &event(10_000)).expect(200);
    assert_eq!(failed["results"][0]["status"], "failed", "{failed}");
    let listed = http::get(&gateways[1].address, "/api/events?status=failed").expect(200);
    assert_eq!(listed["count"], 1);
    let letters: Value = serde_json::from_str(&dev.ok(&["--json", "dlq", "list"])).expect("JSON");
    assert_eq!(letters["letters"][0]["records"], 1);
    assert_eq!(totals(&gateways[0].address)["count"], expected.len());
}
