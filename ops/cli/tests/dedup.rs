//! Idempotency keys against real nodes: a record is written once, whoever sends it again, to whichever node, and whoever
//! has died in between.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and ports")]

mod common;

use common::http::{get, post};
use common::{Dev, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

/// Sends it until a leader has been found, as a client would.
fn written(address: &str, topic: &str, body: &str) -> Value {
    let mut answer = Value::Null;
    wait_for("an answer to a record", Duration::from_secs(30), || {
        let got = post(address, &format!("/v1/topics/{topic}/records"), body);
        answer = serde_json::from_str(&got.body).unwrap_or(Value::Null);
        got.status == 200
    });
    answer
}

#[test]
fn a_key_is_written_once_wherever_it_is_sent_and_whoever_leads() {
    let dev = Dev::start(3);
    dev.ok(&["topic", "create", "payments", "--partitions", "1", "--config", "dedup.key=header:payment"]);
    let payment = |id: &str, value: u64| {
        json!({"partition": 0, "headers": {"payment": id}, "value": value}).to_string()
    };
    let (one, two, three) = (dev.http(1), dev.http(2), dev.http(3));
    let first = written(&one, "payments", &payment("a", 1));
    assert_eq!(first, json!({"topic": "payments", "partition": 0, "offset": 0}));
    let again = json!({"topic": "payments", "partition": 0, "offset": 0, "duplicate": true});
    assert_eq!(written(&two, "payments", &payment("a", 2)), again);
    // In one batch: two that are known, two that are the same.
    let batch = format!("[{},{},{}]", payment("b", 3), payment("a", 4), payment("b", 5));
    let results = written(&three, "payments", &batch)["results"].clone();
    let places: Vec<_> =
        results.as_array().unwrap().iter().map(|r| (&r["offset"], &r["duplicate"])).collect();
    let second = results[0]["offset"].clone();
    assert_eq!(places, [(&second, &Value::Null), (&json!(0), &json!(true)), (&second, &json!(true))]);

    // Whoever leads dies.
    let leader = |node: u16| {
        let topic: Value = get(&dev.http(node), "/v1/topics/payments").expect(200);
        topic["partitions"][0]["leader"].as_u64().unwrap() as u16
    };
    let dead = leader(1);
    let alive = if dead == 1 { 2 } else { 1 };
    let pid = dev.kill(dead);
    let after = written(&dev.http(alive), "payments", &payment("b", 6));
    assert_eq!((&after["offset"], &after["duplicate"]), (&second, &json!(true)));
    dev.wait_restarted(dead, pid);
    dev.wait_in_sync();

    // All of them die.
    let pids: Vec<_> = (1..=3).map(|node| dev.kill(node)).collect();
    for (node, pid) in (1..=3).zip(pids) {
        dev.wait_restarted(node, pid);
    }
    let after = written(&one, "payments", &payment("a", 7));
    assert_eq!((&after["offset"], &after["duplicate"]), (&json!(0), &json!(true)));
    written(&two, "payments", &payment("c", 8));
    let read = get(&three, "/consume?topic=payments").expect(200);
    let values: Vec<_> =
        read["events"].as_array().unwrap().iter().map(|event| event["value"].clone()).collect();
    assert_eq!(values, [1, 3, 8]);
}

#[test]
fn what_cannot_be_a_key_is_refused_with_what_can() {
    let dev = Dev::start(1);
    let refused = |config: &[&str], says: &str| {
        let mut args = vec!["topic", "create", "t"];
        for config in config {
            args.extend(["--config", config]);
        }
        let (_, error) = dev.fails(&args, "");
        assert!(error.contains(says), "{error}");
    };
    refused(&["dedup.key=value"], "none, key, header:NAME");
    refused(&["dedup.key=key", "cleanup.policy=compact"], "not together with cleanup.policy=compact");
    refused(&["dedup.windows.ms=1"], "dedup.window.ms");
}
