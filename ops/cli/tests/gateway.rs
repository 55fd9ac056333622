//! The HTTP gateway as real processes: in each node of `strandline dev`, and alone in front of them.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and ports")]

mod common;

use common::{Dev, Gateway, http};

#[test]
fn every_node_and_a_gateway_alone_serve_http() {
    let dev = Dev::start(3);
    let alone = Gateway::start(&dev.bootstrap());
    let nodes = (1..=3).map(|node| dev.http(node));
    for address in nodes.chain([alone.address.clone()]) {
        assert_eq!(http::get(&address, "/healthz").expect(200)["status"], "ok");
        assert_eq!(http::get(&address, "/readyz").expect(200)["status"], "ready");
        assert!(http::get(&address, "/openapi.json").expect(200)["paths"]["/produce"]["post"].is_object());
        assert!(http::get(&address, "/docs").body.contains("/v1/topics/{topic}/records"));
        let problem = http::get(&address, "/nowhere").expect(404);
        assert_eq!(problem["type"], "/docs#no-such-path");
        assert_eq!(http::request(&address, "DELETE", "/healthz", &[], "").expect(405)["status"], 405);
    }
    assert_eq!(alone.stop(), Some(0), "a clean end");
}

#[test]
fn a_gateway_without_a_cluster_is_alive_and_not_ready() {
    let nobody = format!("127.0.0.1:{}", common::free_ports(1));
    let gateway = Gateway::start(&nobody);
    http::get(&gateway.address, "/healthz").expect(200);
    let answer = http::get(&gateway.address, "/readyz");
    let problem = answer.expect(503);
    assert_eq!(problem["may_have_happened"], false);
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("nodes")), "{problem}");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// The next message of a stream of server-sent events that is of one of these kinds and of which `wanted` holds.
fn message(
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    loop {
        let line = lines.next().expect("the stream has no end").expect("it can be read");
        if let Some(data) = line.strip_prefix("data: ") {
            let data = serde_json::from_str(data).expect("JSON");
            if wanted(&data) {
                return data;
            }
        }
    }
}

#[test]
fn the_dashboard_is_served_and_its_stream_shows_records_and_a_killed_node() {
    use std::io::{BufRead, BufReader, Write};
    let dev = Dev::start(3);
    let page = http::get(&dev.http(1), "/");
    assert!(page.body.contains("<div id=\"root\">"), "{page:?}");
    let mut stream = std::net::TcpStream::connect(dev.http(1)).expect("a connection");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a limit");
    stream.write_all(b"GET /v1/live HTTP/1.1\r\nhost: x\r\n\r\n").expect("it is written");
    let mut lines = BufReader::new(stream).lines();
    let serving = |data: &serde_json::Value| {
        let nodes = data["cluster"]["nodes"].as_array()?;
        let well = |node: &&serde_json::Value| node["state"] == "serving" && node["answers"] == true;
        Some(nodes.iter().filter(well).count())
    };
    message(&mut lines, |data| serving(data) == Some(3));
    http::post(&dev.http(2), "/produce", r#"[{"value":1},{"value":2}]"#).expect(200);
    message(&mut lines, |data| data["cluster"]["topics"] == 1);
    // What is there when the ends are asked for first is no rate.
    let known = || {
        let rows = http::get(&dev.http(1), "/v1/cluster/topics").expect(200);
        rows["topics"][0]["end"] == 2
    };
    common::wait_for("the ends to be known", std::time::Duration::from_secs(30), known);
    http::post(&dev.http(2), "/produce", r#"[{"value":3},{"value":4}]"#).expect(200);
    message(&mut lines, |data| data["in"].as_f64().is_some_and(|rate| rate > 0.0));
    let rows = http::get(&dev.http(1), "/v1/cluster/partitions?topic=events").expect(200);
    assert_eq!(rows["partitions"][0]["isr"].as_array().map(Vec::len), Some(3), "{rows}");

    dev.kill(3);
    let silent = message(&mut lines, |data| serving(data) == Some(2));
    assert_eq!(silent["cluster"]["nodes"][2]["id"], 3, "{silent}");
    assert_eq!(silent["cluster"]["reachable"], true);
    // `dev` starts it again.
    message(&mut lines, |data| serving(data) == Some(3));
}

/// Commands of the page with what they print, in order.
fn examples(page: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        for line in block.split("```").next().unwrap_or_default().lines() {
            match (line.strip_prefix("$ "), all.last_mut()) {
                (Some(command), _) => all.push((command.to_owned(), String::new())),
                (None, Some((_, output))) => *output += &format!("{line}\n"),
                (None, None) => panic!("output without a command: {line}"),
            }
        }
    }
    all
}

/// The time of an event is what no page can foresee.
fn without_times(text: &str) -> String {
    let mut parts = text.split("\"timestamp\":");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "\"timestamp\":" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

#[test]
fn the_examples_of_the_page_print_what_it_says() {
    let dev = Dev::start(3);
    let examples = examples(include_str!("../../docs/http.md"));
    assert!(examples.len() >= 10, "{}", examples.len());
    for (command, expected) in examples {
        let there = (1..=3).fold(command.clone(), |text, node| {
            text.replace(&format!("localhost:{}", 8079 + node), &dev.http(node))
        });
        let output = std::process::Command::new("bash").args(["-c", &there]).output().expect("bash runs");
        let found = String::from_utf8(output.stdout).expect("text");
        assert_eq!(without_times(found.trim_end()), without_times(expected.trim_end()), "{command}");
    }
}
