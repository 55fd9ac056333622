//! Events over HTTP against real nodes: what is written is read back, from any gateway, and what is refused says so.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and ports")]

mod common;

use common::http::{Answer, get, post, request};
use common::{Dev, Gateway, http, wait_for};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn send(address: &str, path: &str, kind: &str, body: &str) -> Answer {
    request(address, "POST", path, &[&format!("content-type: {kind}")], body)
}

/// One cluster for all that leaves it as it is.
#[test]
fn events_go_in_and_come_out_of_any_node() {
    let dev = Dev::start(3);
    let (one, two, three) = (dev.http(1), dev.http(2), dev.http(3));
    the_default_topic_appears_by_itself(&one, &two);
    batches_are_answered_in_their_order(&two, &three);
    topics_and_offsets(&three, &one);
    what_is_wrong_is_a_problem_that_says_so(&one);
    cloud_events_in_every_mode(&one, &two);
    a_retry_returns_the_first_answer(&one);
    a_group_joins_polls_commits_and_leaves(&one, &two);
    a_waiting_read_is_answered_when_a_record_comes(&two, &three);
    the_cluster_is_described(&three);
}

fn the_default_topic_appears_by_itself(one: &str, two: &str) {
    assert_eq!(get(one, "/consume").expect(200), json!({"events": [], "nextOffset": 0}));
    let written = post(one, "/produce", r#"{"key":"user1","value":{"action":"login","n":1.50}}"#).expect(200);
    assert_eq!(written, json!({"topic": "events", "partition": 0, "offset": 0}));
    let written =
        post(two, "/produce", r#"{"key":null,"value":"text","headers":{"source":"web"}}"#).expect(200);
    assert_eq!(written["offset"], 1);
    let read = get(one, "/consume?partition=0&offset=0").expect(200);
    let events = read["events"].as_array().unwrap();
    assert_eq!(read["nextOffset"], 2);
    assert_eq!(events[0]["key"], "user1");
    assert_eq!(events[0]["value"], json!({"action": "login", "n": 1.5}));
    assert!(events[0]["timestamp"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(events[1]["value"], "text");
    assert_eq!(events[1]["headers"], json!({"source": "web"}));
    let one_only = get(two, "/consume?offset=1&max=1").expect(200);
    assert_eq!((one_only["events"].as_array().unwrap().len(), &one_only["nextOffset"]), (1, &json!(2)));
    assert!(get(two, "/consume").body.contains(r#""n":1.50}"#), "to the byte");
}

fn batches_are_answered_in_their_order(two: &str, three: &str) {
    let array = post(two, "/produce", r#"[{"value":1},{"value":2},{"value":3}]"#).expect(200);
    let offsets: Vec<_> = array["results"].as_array().unwrap().iter().map(|r| r["offset"].clone()).collect();
    assert_eq!(offsets, [2, 3, 4]);
    let lines = send(three, "/produce", "application/x-ndjson", "{\"value\":4}\n{\"value\":5}\n").expect(200);
    assert_eq!(lines["results"][1]["offset"], 6);
    let read = get(two, "/consume?offset=2").expect(200);
    let values: Vec<_> = read["events"].as_array().unwrap().iter().map(|e| e["value"].clone()).collect();
    assert_eq!(values, [1, 2, 3, 4, 5]);
    assert_eq!(post(two, "/produce", "[]").expect(200), json!({"results": []}));
}

fn topics_and_offsets(three: &str, one: &str) {
    let orders = r#"{"name":"orders","partitions":3,"configs":{"retention.ms":"60000"}}"#;
    let created = post(three, "/v1/topics", orders).expect(201);
    assert_eq!(created["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(created["configs"]["retention.ms"], "60000");
    assert_eq!(post(three, "/v1/topics", orders).expect(409)["type"], "/docs#topic-exists");
    let written = post(one, "/v1/topics/orders/records", r#"{"partition":2,"value":"x"}"#).expect(200);
    assert_eq!(written, json!({"topic": "orders", "partition": 2, "offset": 0}));
    let elsewhere = post(one, "/produce", r#"{"topic":"orders","partition":1,"value":"y"}"#).expect(200);
    assert_eq!(elsewhere["topic"], "orders");
    let read = get(one, "/v1/topics/orders/records?partition=2").expect(200);
    assert_eq!((&read["highWatermark"], &read["logStartOffset"]), (&json!(1), &json!(0)));
    assert_eq!(read["events"][0]["value"], "x");
    let ends = get(three, "/v1/topics/orders/offsets").expect(200);
    let high: Vec<_> = (0..3).map(|p| ends["partitions"][p]["highWatermark"].clone()).collect();
    assert_eq!(high, [0, 1, 1]);
    let names = get(one, "/v1/topics").expect(200);
    assert_eq!(names["topics"], json!([{"name":"events","partitions":1},{"name":"orders","partitions":3}]));
    post(one, "/v1/topics", r#"{"name":"gone"}"#).expect(201);
    assert_eq!(request(one, "DELETE", "/v1/topics/gone", &[], "").status, 204);
    assert_eq!(get(three, "/v1/topics/gone").expect(404)["type"], "/docs#unknown-topic");
}

fn what_is_wrong_is_a_problem_that_says_so(one: &str) {
    let problem = |answer: Answer, status: u16, kind: &str| -> Value {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        let document = answer.expect(status);
        assert_eq!(document["type"], format!("/docs#{kind}"), "{document}");
        assert_eq!(document["status"], status);
        document
    };
    problem(post(one, "/produce", "{"), 400, "invalid-request");
    problem(post(one, "/produce", r#"{"key":"k"}"#), 400, "invalid-request");
    problem(post(one, "/produce", r#"{"value":1,"partition":7}"#), 400, "invalid-request");
    problem(post(one, "/produce", r#"{"value":1,"topic":"no/topic"}"#), 400, "invalid-request");
    problem(post(one, "/produce", r#"{"value":1,"topic":"nowhere"}"#), 404, "unknown-topic");
    problem(
        post(one, "/v1/topics/orders/records", r#"{"value":1,"topic":"events"}"#),
        400,
        "invalid-request",
    );
    problem(get(one, "/consume?partition=1"), 404, "unknown-partition");
    problem(get(one, "/consume?topic=nowhere"), 404, "unknown-topic");
    problem(get(one, "/consume?offset=x"), 400, "invalid-request");
    problem(get(one, "/consume?ofset=1"), 400, "invalid-request");
    let range = problem(get(one, "/consume?offset=1000"), 416, "offset-out-of-range");
    assert_eq!((&range["logStartOffset"], &range["highWatermark"]), (&json!(0), &json!(7)));
    problem(post(one, "/v1/topics", r#"{"name":"a b"}"#), 400, "invalid-topic");
    problem(post(one, "/v1/topics", r#"{"name":"a","partitions":0}"#), 400, "invalid-request");
    problem(post(one, "/v1/topics", r#"{"name":"a","configs":{"no.such":"1"}}"#), 400, "invalid-request");
    problem(get(one, "/v1/groups/nobody"), 404, "unknown-group");
    problem(get(one, "/v1/groups/g/consumers/1/records"), 404, "unknown-consumer");
    let large = format!(r#"{{"value":"{}"}}"#, "x".repeat(2 << 20));
    problem(post(one, "/produce", &large), 413, "record-too-large");
    assert_eq!(get(one, "/consume?offset=6").expect(200)["nextOffset"], 7, "none of these wrote anything");
}

fn cloud_events_in_every_mode(one: &str, two: &str) {
    post(one, "/v1/topics", r#"{"name":"cloud"}"#).expect(201);
    let event =
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"k","data":{"n":1}}"#;
    send(one, "/produce?topic=cloud", "application/cloudevents+json", event).expect(200);
    let batch = format!("[{event},{event}]");
    let written =
        send(two, "/v1/topics/cloud/records", "application/cloudevents-batch+json", &batch).expect(200);
    assert_eq!(written["results"].as_array().unwrap().len(), 2);
    let binary =
        ["ce-specversion: 1.0", "ce-id: 9", "ce-source: /s", "ce-type: t", "content-type: text/plain"];
    request(one, "POST", "/v1/topics/cloud/records", &binary, "hello").expect(200);
    let read = get(two, "/v1/topics/cloud/records").expect(200);
    assert_eq!(read["events"][0]["key"], "k");
    assert_eq!(read["events"][2]["value"]["data"], json!({"n": 1}));
    assert_eq!(read["events"][2]["headers"], json!({"content-type": "application/cloudevents+json"}));
    assert_eq!(read["events"][3]["value"], "hello");
    assert_eq!(read["events"][3]["headers"]["ce_id"], "9");
    let wrong = send(one, "/produce?topic=cloud", "application/cloudevents+json", "{}");
    assert_eq!(wrong.expect(400)["type"], "/docs#invalid-request");
    assert_eq!(send(one, "/produce", "application/cloudevents+avro", "{}").expect(415)["status"], 415);
}

fn a_retry_returns_the_first_answer(one: &str) {
    post(one, "/v1/topics", r#"{"name":"once"}"#).expect(201);
    let keyed = |body: &str| request(one, "POST", "/produce?topic=once", &["idempotency-key: pay-1"], body);
    let first = keyed(r#"{"value":1}"#).expect(200);
    let racing: Vec<Value> = std::thread::scope(|scope| {
        let retries: Vec<_> = (0..8).map(|_| scope.spawn(|| keyed(r#"{"value":1}"#).expect(200))).collect();
        retries.into_iter().map(|retry| retry.join().unwrap()).collect()
    });
    assert!(racing.iter().all(|answer| *answer == first), "{racing:?}");
    assert_eq!(keyed(r#"{"value":2}"#).expect(422)["type"], "/docs#idempotency-key-reused");
    assert_eq!(get(one, "/consume?topic=once").expect(200)["nextOffset"], 1);
    // What was refused is not what the key stands for.
    let other = |body: &str| request(one, "POST", "/produce?topic=once", &["idempotency-key: pay-2"], body);
    assert_eq!(other("{").status, 400);
    assert_eq!(other(r#"{"value":2}"#).expect(200)["offset"], 1);
    let empty = request(one, "POST", "/produce?topic=once", &["idempotency-key: "], r#"{"value":2}"#);
    assert_eq!(empty.expect(400)["type"], "/docs#invalid-idempotency-key");
}

fn a_group_joins_polls_commits_and_leaves(one: &str, two: &str) {
    let joined = post(one, "/v1/groups/readers/consumers", r#"{"topics":["orders"]}"#).expect(201);
    let path = joined["path"].as_str().unwrap().to_owned();
    let mut values = Vec::new();
    wait_for("both records", Duration::from_secs(30), || {
        let polled = get(one, &format!("{path}/records?wait_ms=1000")).expect(200);
        let events = polled["events"].as_array().unwrap();
        values.extend(events.iter().map(|e| (e["partition"].as_i64().unwrap(), e["value"].clone())));
        values.len() == 2
    });
    values.sort_by_key(|(partition, _)| *partition);
    assert_eq!(values, [(1, json!("y")), (2, json!("x"))]);
    let elsewhere = get(two, &format!("{path}/records")).expect(404);
    assert_eq!(elsewhere["type"], "/docs#unknown-consumer");
    let described = get(two, "/v1/groups/readers").expect(200);
    assert_eq!(described["members"][0]["partitions"].as_array().unwrap().len(), 3, "{described}");
    let committed = post(one, &format!("{path}/offsets"), "").expect(200);
    assert_eq!(committed["offsets"].as_array().unwrap().len(), 3);
    let busy = request(
        one,
        "PUT",
        "/v1/groups/readers/offsets",
        &[],
        r#"{"offsets":[{"topic":"orders","partition":1,"offset":0}]}"#,
    );
    assert_eq!(busy.expect(409)["type"], "/docs#group-not-empty");
    assert_eq!(request(one, "DELETE", &path, &[], "").status, 204);
    let offsets = get(two, "/v1/groups/readers/offsets").expect(200);
    let of = |partition: i64| {
        let all = offsets["offsets"].as_array().unwrap();
        all.iter().find(|o| o["partition"] == partition).map(|o| o["offset"].clone())
    };
    assert_eq!((of(1), of(2)), (Some(json!(1)), Some(json!(1))), "{offsets}");
    // Nobody is left: its place may be set, and whoever joins next begins there.
    let set = request(
        two,
        "PUT",
        "/v1/groups/readers/offsets",
        &[],
        r#"{"offsets":[{"topic":"orders","partition":1,"offset":0}]}"#,
    );
    assert_eq!(set.expect(200)["offsets"][0]["offset"], 0);
    let path =
        post(two, "/v1/groups/readers/consumers", r#"{"topics":["orders"]}"#).expect(201)["path"].clone();
    let path = path.as_str().unwrap();
    let mut again = Vec::new();
    wait_for("the record again", Duration::from_secs(30), || {
        let polled = get(two, &format!("{path}/records?wait_ms=1000")).expect(200);
        again.extend(polled["events"].as_array().unwrap().iter().map(|e| e["value"].clone()));
        !again.is_empty()
    });
    assert_eq!(again, ["y"]);
    assert_eq!(request(two, "DELETE", path, &[], "").status, 204);
    assert_eq!(request(two, "DELETE", "/v1/groups/readers", &[], "").status, 204);
    assert_eq!(get(one, "/v1/groups/readers").status, 404);
    let nowhere = post(one, "/v1/groups/readers/consumers", r#"{"topics":["nowhere"]}"#);
    assert_eq!(nowhere.expect(404)["type"], "/docs#unknown-topic");
}

fn a_waiting_read_is_answered_when_a_record_comes(two: &str, three: &str) {
    post(two, "/v1/topics", r#"{"name":"quiet"}"#).expect(201);
    assert_eq!(get(two, "/consume?topic=quiet&wait_ms=200").expect(200)["events"], json!([]));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| get(two, "/consume?topic=quiet&wait_ms=30000").expect(200));
        post(three, "/produce", r#"{"topic":"quiet","value":"now"}"#).expect(200);
        let read = waiting.join().unwrap();
        assert_eq!(read["events"][0]["value"], "now", "{read}");
    });
}

fn the_cluster_is_described(three: &str) {
    let cluster = get(three, "/v1/cluster").expect(200);
    let nodes = cluster["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().any(|node| node["http"] == *three), "{cluster}");
    assert_eq!((&cluster["leaderless"], &cluster["confirmed"]), (&json!(0), &json!(true)));
}

#[test]
fn what_is_too_much_gets_429_before_its_body_is_read() {
    let single = common::Single::start(&[]);
    let limits = ["--http-client-rate", "1", "--http-client-burst", "3", "--http-client-header", "x-client"];
    let gateway = Gateway::start_with(&single.cli.bootstrap, &limits);
    let come = |client: &str| {
        let client = format!("x-client: {client}");
        request(&gateway.address, "POST", "/produce", &[&client], r#"{"value":1}"#)
    };
    let answers: Vec<Answer> = (0..4).map(|_| come("a")).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses[0], 200);
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    for answer in &refused {
        assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|s| s >= 1)));
        assert_eq!(answer.json()["may_have_happened"], false);
    }
    come("b").expect(200);
    // Whoever was refused has not written.
    let accepted = statuses.iter().filter(|status| **status == 200).count() + 1;
    let read = request(&gateway.address, "GET", "/consume", &["x-client: c"], "").expect(200);
    assert_eq!(read["nextOffset"], accepted);

    let small = Gateway::start_with(
        &single.cli.bootstrap,
        &[
            "--http-max-body-bytes",
            "2000",
            "--http-max-inflight-bytes",
            "3000",
            "--http-request-timeout-ms",
            "2000",
        ],
    );
    let address = small.address.clone();
    let body = format!(r#"{{"value":"{}"}}"#, "x".repeat(1500));
    // A declared length is held as soon as the head is there.
    let mut slow = TcpStream::connect(&address).unwrap();
    write!(
        slow,
        "POST /produce HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut answer = None;
    wait_for("the slow body to take its bytes", Duration::from_secs(2), || {
        let found = post(&address, "/produce", &body);
        let refused = found.status == 429;
        answer = Some(found);
        refused
    });
    assert_eq!(answer.unwrap().expect(429)["type"], "/docs#too-many-bytes-in-flight");
    assert_eq!(http::read_answer(&mut slow).unwrap().expect(408)["type"], "/docs#body-too-slow");
    let large = format!("content-length: {}", 1_u64 << 40);
    let refused = request(&address, "POST", "/produce", &[&large], "");
    assert_eq!(refused.expect(413)["type"], "/docs#body-too-large");
    let mut chunked = TcpStream::connect(&address).unwrap();
    let head = "POST /produce HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    write!(chunked, "{head}fa0\r\n{}\r\n0\r\n\r\n", " ".repeat(4000)).unwrap();
    assert_eq!(http::read_answer(&mut chunked).unwrap().status, 413);
    // Headers that never end are not kept.
    let mut endless = TcpStream::connect(&address).unwrap();
    endless.write_all(b"POST /produce HTTP/1.1\r\n").unwrap();
    let many = format!("{}\r\n", "x-h: ".to_owned() + &"y".repeat(1000)).repeat(80);
    let _ = endless.write_all(many.as_bytes());
    let mut said = Vec::new();
    let _ = endless.read_to_end(&mut said);
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&said));
}
