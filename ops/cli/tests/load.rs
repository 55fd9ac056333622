//! `strandline bench load` against real processes: what it says it wrote is in the log, to the record.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and ports")]

mod common;

use common::{Dev, Gateway, http};
use serde_json::Value;

/// Runs `bench load` for two seconds.
fn load(dev: &Dev, args: &[&str]) -> Value {
    let text = dev.ok(&[&["--json", "bench", "load", "--duration", "2s"], args].concat());
    let report: Value = serde_json::from_str(&text).expect("a JSON document");
    let requests = &report["requests"];
    let [started, acknowledged, refused, failed] = ["started", "acknowledged", "refused", "failed"]
        .map(|name| requests[name].as_u64().expect("a number"));
    assert_eq!(started, acknowledged + refused + failed, "{requests}");
    if let Some(scheduled) = requests["scheduled"].as_u64() {
        assert_eq!(Some(scheduled - started), requests["not_reached"].as_u64(), "{requests}");
    }
    assert_eq!(report["latency_ms"]["samples"], acknowledged);
    report
}

/// Records in a topic, and how many different numbers they have.
fn written(dev: &Dev, topic: &str) -> (u64, u64) {
    let text = dev.cli().read(topic);
    let numbers = text.lines().map(|line| {
        let document: Value = serde_json::from_str(line).expect("JSON");
        document["n"].as_u64().expect("a number")
    });
    let numbers: Vec<u64> = numbers.collect();
    let different: std::collections::BTreeSet<_> = numbers.iter().collect();
    (numbers.len() as u64, different.len() as u64)
}

#[test]
fn what_it_says_it_wrote_is_in_the_log() {
    let dev = Dev::start(3);
    let brokers =
        (0..3).map(|n| format!("127.0.0.1:{}", dev.grpc_port + 6 + n)).collect::<Vec<_>>().join(",");
    let urls = (1..=3).map(|node| format!("http://{}", dev.http(node))).collect::<Vec<_>>().join(",");
    let page = dev.dir.path().join("report.html");
    let file = dev.dir.path().join("report.json");
    let ways: [(&str, &[&str]); 4] = [
        ("by-http", &["--via", "http", "--url", &urls, "--rate", "300", "--keys", "50"]),
        ("by-batches", &["--via", "http", "--url", &urls, "--rate", "50", "--batch", "7"]),
        ("by-grpc", &["--via", "grpc", "--rate", "300", "--batch", "2"]),
        (
            "by-kafka",
            &["--via", "kafka", "--brokers", &brokers, "--rate", "max", "--concurrency", "5", "--keys", "9"],
        ),
    ];
    for (topic, way) in ways {
        let data_dir = dev.data_dir();
        let files = ["--html", page.to_str().unwrap(), "--json-file", file.to_str().unwrap()];
        let more = ["--topic", topic, "--partitions", "3", "--data-dir", data_dir.to_str().unwrap()];
        let report = load(&dev, &[way, &more, &files].concat());
        assert_eq!((&report["requests"]["failed"], &report["errors"]), (&0.into(), &serde_json::json!({})));
        let acknowledged = report["records_acknowledged"].as_u64().expect("a number");
        assert!(acknowledged > 0, "{report}");
        assert_eq!(written(&dev, topic), (acknowledged, acknowledged), "{topic}");
        assert!(report["cpu"]["cluster_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
        assert!(std::fs::read_to_string(&page).unwrap().contains("<figcaption>Latency by percentile"));
        let on_disk: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(on_disk, report);
    }
    // Events of the ingest pipeline: all different, all processed.
    let mut taken = 0;
    for path in ["ingest", "register"] {
        let report = load(&dev, &["--path", path, "--url", &urls, "--rate", "100", "--warmup", "1s"]);
        let requests = &report["requests"];
        assert_eq!((&requests["scheduled"], &requests["failed"]), (&200.into(), &0.into()), "{report}");
        assert!(requests["warmup_acknowledged"].as_u64().is_some_and(|count| count > 0), "{requests}");
        taken +=
            requests["acknowledged"].as_u64().unwrap() + requests["warmup_acknowledged"].as_u64().unwrap();
    }
    let address = dev.http(2);
    common::wait_for("all events to be processed", std::time::Duration::from_secs(30), || {
        let answer = http::get(&address, "/api/aggregations?metric=load").expect(200);
        answer["aggregations"][0]["count"] == taken
    });
}

#[test]
fn refusals_are_counted_and_a_limit_is_found_below_them() {
    let dev = Dev::start(1);
    let limits = ["--http-client-rate", "200", "--http-client-burst", "20"];
    let gateway = Gateway::start_with(&dev.bootstrap(), &limits);
    let url = format!("http://{}", gateway.address);
    let report = load(&dev, &["--url", &url, "--rate", "1000"]);
    let requests = &report["requests"];
    let (acknowledged, refused) =
        (requests["acknowledged"].as_u64().unwrap(), requests["refused"].as_u64().unwrap());
    assert!(acknowledged >= 20 && refused > acknowledged, "{requests}");
    assert_eq!(report["refused_service_ms"]["samples"], refused);
    assert_eq!(report["retry_after_seconds"]["1"], refused);
    // Whoever was refused has not written.
    let read = http::get(&dev.http(1), "/v1/topics/events/offsets").expect(200);
    let ends = read["partitions"].as_array().unwrap().iter().map(|p| p["highWatermark"].as_u64().unwrap());
    assert_eq!(ends.sum::<u64>(), acknowledged);

    let found = ["--url", &url, "--rate", "100", "--duration", "1s", "--find-limit"];
    let found: Value =
        serde_json::from_str(&dev.ok(&[&["--json", "bench", "load"], &found[..]].concat())).unwrap();
    let limit = found["limit"]["requests_per_second"].as_f64().expect("a limit");
    let refused = found["limit"]["steps"].as_array().unwrap().iter().any(|step| step["refused"] != 0);
    // What the bucket lets in, with its burst; slower machines may hold less.
    assert!(limit <= 250.0 && refused, "{}", found["limit"]);
    assert_eq!(found["rate_asked"], limit);
}

#[test]
fn who_does_not_answer_is_named_with_what_to_do() {
    let port = common::free_ports(1);
    let nobody = format!("127.0.0.1:{port}");
    let cli = common::Cli { bootstrap: nobody.clone() };
    for way in [
        &["--via", "http", "--url", &format!("http://{nobody}")][..],
        &["--via", "grpc"],
        &["--via", "kafka", "--brokers", &nobody],
    ] {
        let args = [&["bench", "load", "--timeout", "2s"], way].concat();
        cli.refuses(&args, "", 4, &[&nobody, "strandline dev"]);
    }
    let wrong: [(&[&str], &str); 4] = [
        (&["--size", "10"], "--size must be at least 40"),
        (&["--find-limit", "--rate", "max"], "begins at a rate"),
        (&["--url", "https://x"], "TLS is not spoken"),
        (&["--rate", "fast"], "20k, or max"),
    ];
    for (args, says) in wrong {
        cli.refuses(&[&["bench", "load"], args].concat(), "", 2, &[says]);
    }
}
