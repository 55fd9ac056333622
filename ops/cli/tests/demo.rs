//! The demonstration in real processes: over HTTP from two gateways, from the command line, and with nodes that are killed.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and ports")]

mod common;

use common::{Dev, Gateway, http, wait_for};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const PATH: &str = "/v1/demo";

fn put(address: &str, body: &str) -> http::Answer {
    http::request(address, "PUT", PATH, &["content-type: application/json"], body)
}

fn stop(address: &str) -> Value {
    http::request(address, "DELETE", PATH, &[], "").expect(200)
}

fn number(document: &Value, pointer: &str) -> u64 {
    document.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {document}"))
}

/// Waits until the demonstration of a gateway is so.
fn until(address: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    wait_for(what, PATIENCE, || {
        found = http::get(address, PATH).expect(200);
        so(&found)
    });
    found
}

/// Records of the topic, by the ends of its partitions.
fn written(address: &str) -> u64 {
    let offsets = http::get(address, "/v1/topics/demo.payments/offsets").expect(200);
    let partitions = offsets["partitions"].as_array().expect("partitions");
    assert_eq!(partitions.len(), 12);
    partitions.iter().map(|partition| number(partition, "/highWatermark")).sum()
}

#[test]
fn a_button_starts_changes_and_stops_it_and_a_killed_node_does_not() {
    let dev = Dev::start(3);
    let [first, second] = [dev.http(1), dev.http(2)];
    let idle = http::get(&first, PATH).expect(200);
    assert_eq!((&idle["state"], &idle["allowed"]), (&"stopped".into(), &true.into()), "{idle}");
    for (body, says) in [
        (r#"{"ratePerMinute":9999}"#, "ratePerMinute"),
        (r#"{"minutes":121}"#, "minutes"),
        (r#"{"rate":1}"#, "unknown field"),
    ] {
        let problem = put(&first, body).expect(400);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{problem}");
    }
    let running = put(&first, r#"{"ratePerMinute":30000,"minutes":5}"#).expect(200);
    assert_eq!((&running["state"], number(&running, "/here/ratePerMinute")), (&"running".into(), 30_000));
    assert_eq!(number(&running, "/here/endsAt") - number(&running, "/here/startedAt"), 300_000);

    // Others are told where it runs, and are refused.
    let elsewhere = until(&second, "the other gateway to know", |status| {
        status["elsewhere"]["by"].as_str() == Some(&first)
    });
    assert_eq!(
        (&elsewhere["state"], &elsewhere["elsewhere"]["ratePerMinute"]),
        (&"elsewhere".into(), &30_000.into())
    );
    for refused in [put(&second, "{}"), http::request(&second, "DELETE", PATH, &[], "")] {
        let problem = refused.expect(409);
        assert_eq!(problem["type"], "/docs#demo-elsewhere");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains(&first)), "{problem}");
    }
    let (code, said) = dev.fails(&["demo", "--seconds", "1"], "");
    assert!(code == 6 && said.contains(&first), "{code} {said}");

    // Everybody reads, and what they make of it is there.
    until(&first, "the groups to read", |status| {
        let groups = status["here"]["groups"].as_array().expect("groups");
        let reads = |group: &Value| group["lag"].is_u64() && number(group, "/read") > 1_000;
        groups.len() == 3 && groups.iter().all(reads) && status["here"]["written"]["latencyMs"].is_array()
    });
    dev.kill(3);
    let before = number(&http::get(&first, PATH).expect(200), "/here/written/acknowledged");
    until(&first, "payments to be acknowledged without the node", |status| {
        number(status, "/here/written/acknowledged") > before + 3_000
    });
    let faster = put(&first, r#"{"ratePerMinute":60000}"#).expect(200);
    assert_eq!(number(&faster, "/here/ratePerMinute"), 60_000);
    let ended = stop(&first);
    assert_eq!((&ended["state"], &ended["here"]["ended"]), (&"stopped".into(), &"stopped".into()));
    let (acknowledged, unknown) =
        (number(&ended, "/here/written/acknowledged"), number(&ended, "/here/written/unknown"));
    let there = written(&first);
    assert!((acknowledged..=acknowledged + unknown).contains(&there), "{there} records: {ended}");
    let orders = &ended["here"]["groups"][0];
    assert!(number(orders, "/read") - number(orders, "/repeated") <= there, "{orders}");
    assert!(number(orders, "/work/totalCents") > 0 && number(orders, "/unreadable") == 0, "{orders}");
    assert_eq!(stop(&first)["state"], "stopped", "once more does nothing");

    // A gateway that is killed makes room.
    put(&first, "{}").expect(200);
    dev.kill(1);
    wait_for("another gateway to be let in", PATIENCE, || put(&second, r#"{"minutes":1}"#).status == 200);
    assert_eq!(http::get(&second, PATH).expect(200)["state"], "running");
    assert_eq!(stop(&second)["here"]["ended"], "stopped");
}

#[test]
fn from_the_command_line_it_ends_by_itself_and_says_what_it_did() {
    let dev = Dev::start(1);
    let plain = Gateway::start(&dev.bootstrap());
    assert_eq!(http::get(&plain.address, PATH).expect(200)["allowed"], false);
    let problem = put(&plain.address, "{}").expect(403);
    assert_eq!(problem["type"], "/docs#development-only");
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("strandline demo")), "{problem}");

    let lines = dev.ok(&["--json", "demo", "--seconds", "4", "--rate", "30000"]);
    let last: Value = serde_json::from_str(lines.lines().last().expect("a summary")).expect("JSON");
    assert_eq!((&last["state"], &last["ended"]), (&"stopped".into(), &"timeIsUp".into()));
    let acknowledged = number(&last, "/written/acknowledged");
    assert_eq!((acknowledged, number(&last, "/written/unknown")), (written(&plain.address), 0), "{last}");
    assert!(acknowledged > 0 && last["groups"].as_array().is_some_and(|groups| groups.len() == 3), "{last}");

    let text = dev.ok(&["demo", "--seconds", "1", "--no-groups"]);
    assert!(text.contains("its time was up") && !text.contains("demo.orders"), "{text}");
    let nobody = format!("127.0.0.1:{}", common::free_ports(1));
    let (code, said) = dev.fails(&["--bootstrap", &nobody, "--timeout", "1s", "demo"], "");
    assert!(code == 4 && said.contains("strandline dev"), "{code} {said}");
}
