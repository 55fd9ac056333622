//! A compacted topic on real nodes: only the last value of each key is left, whoever leads.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes and time")]

mod common;

use common::{Dev, wait_for};
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_client::{Client, Record};

const SOON: Duration = Duration::from_secs(60);

/// Lines of twenty keys in turn, of which each knows its number.
fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("key-{}:value {n}\n", n % 20)).collect()
}

/// What is read: offset, key and value.
fn read(dev: &Dev) -> Vec<(u64, String, String)> {
    let text = dev.ok(&["consume", "t", "--from", "earliest", "--exit-at-end", "--format", "%o\t%k\t%v"]);
    let lines = text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    lines.map(|parts| (parts[0].parse().expect("an offset"), parts[1].clone(), parts[2].clone())).collect()
}

fn last_values(dev: &Dev) -> BTreeMap<String, (u64, String)> {
    let read = read(dev);
    assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets increase");
    read.into_iter().map(|(offset, key, value)| (key, (offset, value))).collect()
}

fn leader(dev: &Dev) -> u16 {
    let topic = serde_json::from_str::<serde_json::Value>(&dev.ok(&["--json", "topic", "describe", "t"]));
    let leader = topic.expect("a JSON document")["partitions"][0]["leader"].as_u64();
    leader.expect("somebody leads") as u16
}

#[tokio::test]
async fn only_the_last_value_of_each_key_is_left_whoever_leads() {
    let dev = Dev::start_with(
        3,
        &["--", "--log-cleaner-backoff-ms", "50", "--log-retention-check-interval-ms", "50"],
    );
    let cli = dev.cli();
    cli.ok(&["topic", "create", "t", "--partitions", "1", "--config", "segment.bytes=8192"]);
    let keyed = ["t", "--key-separator", ":", "--batch-bytes", "1KiB", "--compression", "zstd"];
    cli.produce_ok(&keyed, &lines(0..6000));
    assert_eq!(read(&dev).len(), 6000, "nothing goes without the policy");
    let policy = ["cleanup.policy=compact", "min.cleanable.dirty.ratio=0.01", "delete.retention.ms=100"];
    let configs = policy.iter().flat_map(|config| ["--config", config]);
    cli.ok(&["topic", "alter", "t"].into_iter().chain(configs).collect::<Vec<_>>());
    wait_for("compaction", SOON, || read(&dev).len() < 2000);
    let expected: BTreeMap<String, (u64, String)> =
        (5980..6000).map(|n| (format!("key-{}", n % 20), (n, format!("value {n}")))).collect();
    assert_eq!(last_values(&dev), expected);

    // What could never be superseded is refused, alone.
    cli.refuses(&["produce", "t"], "no key\n", 6, &["no key", "cleanup.policy=compact"]);
    assert_eq!(last_values(&dev), expected);

    // A deleted key goes, and its tombstone with it.
    let client = Client::builder().bootstrap(dev.bootstrap()).build().unwrap();
    let producer = client.producer().build().unwrap();
    let delivered = producer.send_and_wait(Record::to("t").key("key-3")).await.unwrap();
    assert_eq!(delivered.offset, Some(6000));
    producer.close().await.unwrap();
    let others = lines(6001..9000);
    let others: Vec<&str> = others.lines().filter(|line| !line.starts_with("key-3:")).collect();
    cli.produce_ok(&keyed, &(others.join("\n") + "\n"));
    wait_for("the deletion", SOON, || {
        // A little more, so that there is something to compact.
        cli.produce_ok(&keyed, &lines(9000..9003).repeat(100));
        last_values(&dev).keys().all(|key| key != "key-3")
    });
    let expected = last_values(&dev);
    assert_eq!(expected.len(), 19);

    // The next leader has compacted on its own, and has the same.
    dev.wait_in_sync();
    let led = leader(&dev);
    dev.kill(led);
    wait_for("another leader", SOON, || {
        let output = dev.run(&["--json", "topic", "describe", "t"]);
        output.status.success() && leader(&dev) != led
    });
    assert_eq!(last_values(&dev), expected);
    wait_for("the new leader's compaction", SOON, || read(&dev).len() < 2000);
    cli.produce_ok(&keyed, &lines(9003..9020));
    let values = last_values(&dev);
    assert_eq!(values["key-0"].1, "value 9000", "and it goes on");
    assert_eq!(values["key-19"].1, "value 9019");
}
