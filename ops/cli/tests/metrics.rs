//! `/metrics` of real processes: what was done is what was counted, what is counted is on the page, and Prometheus's own
//! checker finds nothing to say.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and ports")]

mod common;

use common::{Dev, Gateway, http, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Series of one scrape, as they are written, with their values.
#[derive(Debug)]
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn of(address: &str) -> Scrape {
        let answer = http::get(address, "/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let series = answer.body.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            (series.to_owned(), value.parse().expect("a number"))
        };
        Scrape(series.map(value).collect())
    }

    /// The value of a series; one that is not there has not been counted yet.
    fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }
}

/// The sum of a series over the nodes.
fn sum(dev: &Dev, series: &str) -> f64 {
    (1..=3).map(|node| Scrape::of(&dev.http(node)).get(series)).sum()
}

#[test]
fn counters_move_by_exactly_what_was_done() {
    let dev = Dev::start(3);
    let first = dev.http(1);
    dev.ok(&["topic", "create", "counted", "--partitions", "2", "--replication", "3"]);
    let grpc = |name: &str| sum(&dev, &format!("strandline_{name}{{protocol=\"grpc\"}}"));
    let of_topic = |name: &str| sum(&dev, &format!("strandline_topic_{name}{{topic=\"counted\"}}"));
    assert_eq!(grpc("produced_records_total"), 0.0);

    // Over HTTP: one request of three, and one of one. The gateway is a client of the nodes.
    http::post(&first, "/v1/topics/counted/records", r#"[{"value":1},{"value":2},{"value":3}]"#).expect(200);
    http::post(&first, "/v1/topics/counted/records", r#"{"value":4,"partition":1}"#).expect(200);
    assert_eq!(grpc("produced_records_total"), 4.0);
    assert_eq!(of_topic("produced_records_total"), 4.0);
    assert!(of_topic("produced_bytes_total") >= 2.0 * 61.0, "two requests, two batches with their headers");
    assert_eq!(grpc("produced_bytes_total"), of_topic("produced_bytes_total"));
    let scrape = Scrape::of(&first);
    assert_eq!(scrape.get("strandline_http_records_total{direction=\"in\"}"), 4.0);
    let route = "method=\"POST\",route=\"/v1/topics/{topic}/records\"";
    assert_eq!(scrape.get(&format!("strandline_http_requests_total{{{route},status=\"2xx\"}}")), 2.0);
    assert_eq!(scrape.get(&format!("strandline_http_request_duration_seconds_count{{{route}}}")), 2.0);
    assert_eq!(scrape.get("strandline_http_received_bytes_total"), 62.0);

    // From the command line, and back.
    dev.produce(&["counted", "--partition", "0"], "five\nsix\n");
    assert_eq!(of_topic("produced_records_total"), 6.0);
    let read = dev.ok(&["consume", "counted", "--from", "earliest", "--exit-at-end"]);
    assert_eq!(read.lines().count(), 6);
    assert_eq!(of_topic("fetched_records_total"), 6.0);
    assert_eq!(grpc("fetched_records_total"), 6.0);
    assert_eq!(grpc("fetched_bytes_total"), of_topic("fetched_bytes_total"));

    // What the replicas are.
    let ends = |partition: u32| {
        let series = format!("{{topic=\"counted\",partition=\"{partition}\"}}");
        let of = |scrape: &Scrape, name: &str| scrape.get(&format!("strandline_partition_{name}{series}"));
        let all: Vec<Scrape> = (1..=3).map(|node| Scrape::of(&dev.http(node))).collect();
        assert_eq!(all.iter().map(|scrape| of(scrape, "is_leader")).sum::<f64>(), 1.0, "one leads");
        let leader = all.iter().find(|scrape| of(scrape, "is_leader") == 1.0).expect("it leads");
        assert_eq!(of(leader, "isr_replicas"), 3.0);
        assert_eq!(of(leader, "follower_lag_records"), 0.0);
        assert_eq!(of(leader, "log_end_offset"), of(leader, "high_watermark"));
        of(leader, "high_watermark")
    };
    assert_eq!(ends(0) + ends(1), 6.0);
    assert_eq!(sum(&dev, "strandline_leader_partitions"), 2.0);
    assert_eq!(sum(&dev, "strandline_replicas"), 6.0);
    assert_eq!(sum(&dev, "strandline_raft_is_leader"), 1.0);
    assert_eq!(sum(&dev, "strandline_brokers{state=\"active\"}"), 9.0);

    // Errors by kind, and refusals.
    let missing = "strandline_request_errors_total{protocol=\"grpc\",error=\"topic_exists\"}";
    let before = sum(&dev, missing);
    assert!(!dev.run(&["topic", "create", "counted"]).status.success());
    assert_eq!(sum(&dev, missing), before + 1.0);

    // A group that is behind: what it has committed, not what it has read.
    dev.ok(&["group", "reset", "behind", "--topic", "counted", "--to", "earliest", "--create"]);
    let lag = "strandline_group_lag_records{group=\"behind\",topic=\"counted\"}";
    wait_for("every node to know what was committed", Duration::from_secs(10), || sum(&dev, lag) == 6.0);
}

#[test]
fn what_a_follower_lacks_shows_while_it_is_gone_and_not_after() {
    let dev = Dev::start(3);
    http::post(&dev.http(1), "/produce", r#"{"value":1}"#).expect(200);
    dev.wait_in_sync();
    assert_eq!(sum(&dev, "strandline_under_replicated_partitions"), 0.0);
    let began = sum(&dev, "strandline_roles_begun_total{role=\"leader\"}");
    let old = dev.kill(3);
    let left = [dev.http(1), dev.http(2)];
    let of_left = |series: &str| left.iter().map(|address| Scrape::of(address).get(series)).sum::<f64>();
    wait_for("the others to miss it", Duration::from_secs(30), || {
        of_left("strandline_under_replicated_partitions") == 1.0
            && of_left("strandline_brokers{state=\"fenced\"}") == 2.0
    });
    assert_eq!(of_left("strandline_offline_partitions"), 0.0);
    dev.wait_restarted(3, old);
    dev.wait_in_sync();
    wait_for("nothing to be missed", Duration::from_secs(30), || {
        sum(&dev, "strandline_under_replicated_partitions") == 0.0
    });
    assert!(sum(&dev, "strandline_roles_begun_total{role=\"leader\"}") + began >= 1.0);
}

/// Names of families in the tables of the page.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/metrics.md");
    page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect()
}

#[test]
fn everything_that_is_shown_is_on_the_page_and_pleases_prometheus() {
    let dev = Dev::start(3);
    let alone = Gateway::start(&dev.bootstrap());
    http::post(&alone.address, "/produce", r#"{"value":1}"#).expect(200);
    http::post(&dev.http(1), "/api/events", r#"{"source":"a","metric":"m","amount":1}"#);
    let documented = documented();
    assert!(documented.len() > 80, "{documented:?}");
    for address in [dev.http(1), dev.http(2), dev.http(3), alone.address.clone()] {
        let text = http::get(&address, "/metrics").body;
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let unknown: Vec<&str> = families.filter(|family| !documented.contains(*family)).collect();
        assert!(unknown.is_empty(), "not in ops/docs/metrics.md: {unknown:?}");
        promtool_has_nothing_to_say(&text);
        let accept = ["accept: application/openmetrics-text; version=1.0.0"];
        let open = http::request(&address, "GET", "/metrics", &accept, "");
        assert!(
            open.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
        );
        assert!(open.body.ends_with("# EOF\n"));
    }
    assert_eq!(alone.stop(), Some(0), "a clean end");
}

fn promtool_has_nothing_to_say(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("promtool runs: install Debian's package prometheus, as .ci/run does");
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn series_are_bounded_and_the_rest_is_counted() {
    let dev = Dev::start_with(1, &["--", "--http-metrics-max-partitions", "3"]);
    for topic in ["a", "b", "c", "d"] {
        dev.ok(&["topic", "create", topic, "--partitions", "2"]);
    }
    let scrape = Scrape::of(&dev.http(1));
    let with = |name: &str| scrape.0.keys().filter(|series| series.starts_with(&format!("{name}{{"))).count();
    assert_eq!(with("strandline_partition_size_bytes"), 3);
    assert_eq!(with("strandline_topic_size_bytes"), 3);
    assert!(scrape.0.contains_key("strandline_partition_size_bytes{topic=\"b\",partition=\"0\"}"));
    assert_eq!(scrape.get("strandline_metrics_omitted{kind=\"partition\"}"), 5.0);
    assert_eq!(scrape.get("strandline_metrics_omitted{kind=\"topic\"}"), 1.0);
    assert_eq!(scrape.get("strandline_replicas"), 8.0, "sums are of all");
}
