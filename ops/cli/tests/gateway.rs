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
