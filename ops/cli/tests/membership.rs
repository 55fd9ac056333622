//! Nodes join, leave and stop while the cluster serves; whatever was acknowledged stays readable.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and time")]

mod common;

use common::{Cli, Dev, Node, NodeFlags, signal, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_client::{Client, Delivery, Record, TopicPartition};

const LIMIT: Duration = Duration::from_secs(20);

fn status(cli: &Cli) -> Value {
    cli.json(&["cluster", "status"])
}

fn ids(list: &Value) -> BTreeSet<u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn partitions(cli: &Cli, topic: &str) -> Vec<Value> {
    cli.json(&["topic", "describe", topic])["partitions"].as_array().cloned().unwrap_or_default()
}

fn replicas(cli: &Cli, topic: &str) -> BTreeSet<u64> {
    partitions(cli, topic).iter().flat_map(|partition| ids(&partition["replicas"])).collect()
}

fn serves(cli: &Cli, node: u64) -> bool {
    let status = status(cli);
    status["brokers"].as_array().unwrap().iter().any(|b| b["id"] == node && b["fenced"] == false)
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_node_joins_takes_replicas_and_is_drained_and_removed() {
    let dev = Dev::start(3);
    let cli = dev.cli();
    cli.ok(&["topic", "create", "t", "--partitions", "6", "--replication", "3"]);
    let mut text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    cli.produce_ok(&["t"], &text);
    let cluster_id = status(&cli)["cluster_id"].as_str().unwrap().to_owned();
    let peers: Vec<String> = (0..3).map(|n| format!("127.0.0.1:{}", dev.peer_port() + n)).collect();
    let plain = NodeFlags::new(4, dir(&dev, "four"), &[]);

    // Into another cluster than it says, or forming one that exists: refused, and harmless.
    let other = "11111111-2222-4333-8444-555555555555";
    let wrong = plain.with(&["--join", &peers.join(","), "--cluster-id", other]);
    wrong.refused(6, &[&format!("this is cluster {cluster_id}"), &format!("join cluster {other}")]);
    let list = format!("{},4=127.0.0.1:{}", dev.form_cluster(), plain.peer);
    let twice = NodeFlags { dir: dir(&dev, "twice"), ..plain.clone() }.with(&["--form-cluster", &list]);
    twice.refused(
        6,
        &[&format!("belongs to cluster {cluster_id} already"), "use --join instead of --form-cluster"],
    );
    assert_eq!(ids(&status(&cli)["raft"]["voters"]), [1, 2, 3].into());

    // Asked at a node that need not lead.
    let joining = plain.with(&["--join", &peers[2], "--cluster-id", &cluster_id]);
    let four = Node::start(&joining);
    wait_for("node 4 to serve", LIMIT, || serves(&cli, 4));

    // New partitions use it, and old ones can be moved to it.
    cli.ok(&["topic", "create", "new", "--partitions", "8", "--replication", "3"]);
    cli.produce_ok(&["new"], &text);
    assert!(replicas(&cli, "new").contains(&4));
    let client = Client::builder().bootstrap(&cli.bootstrap).build().unwrap();
    client.admin().reassign(&TopicPartition::new("t", 0), vec![4, 1, 2]).await.unwrap();
    wait_for("partition 0 to have moved", LIMIT, || {
        let moved = &partitions(&cli, "t")[0];
        moved["replicas"] == json!([4, 1, 2])
            && ids(&moved["isr"]) == [1, 2, 4].into()
            && moved["reassignment"] == json!([])
    });
    assert_eq!(sorted(&cli.read("t")), sorted(&text));

    // Drained, then removed.
    let removed = cli.ok(&["cluster", "remove-node", "4"]);
    assert!(removed.contains("node 4 is removed") && removed.contains("exit code 7"), "{removed}");
    for topic in ["t", "new"] {
        assert!(!replicas(&cli, topic).contains(&4), "{topic}");
        assert!(
            partitions(&cli, topic).iter().all(|p| ids(&p["isr"]).len() == 3),
            "{topic} kept its replicas"
        );
    }
    let after = status(&cli);
    assert!(after["brokers"].as_array().unwrap().iter().all(|broker| broker["id"] != 4), "{after}");
    // On the node that carried it out that was waited for; another one may be a moment behind.
    wait_for("Raft to have forgotten node 4", LIMIT, || {
        let raft = &status(&cli)["raft"];
        !ids(&raft["voters"]).contains(&4) && !ids(&raft["learners"]).contains(&4)
    });
    // Its process finds out, and does not come back by being started again.
    let (code, log) = four.wait(LIMIT);
    assert_eq!(code, Some(7), "{log}");
    assert!(log.contains("node 4 was removed from cluster") && !log.contains("panicked"), "{log}");
    joining.refused(7, &["node 4 was removed from cluster", "no longer needed", "--join"]);
    assert_eq!(status(&cli)["brokers"].as_array().unwrap().len(), 3, "it has not registered itself again");
    cli.produce_ok(&["t"], "after\n");
    text += "after\n";
    assert_eq!(sorted(&cli.read("t")), sorted(&text));
    cli.refuses(&["cluster", "remove-node", "4"], "", 3, &["broker 4 is not registered"]);

    // Its number is free for an empty directory.
    let again = NodeFlags { dir: dir(&dev, "four-again"), ..joining };
    let four = Node::start(&again);
    wait_for("the new node 4 to serve", LIMIT, || serves(&cli, 4));

    // Asked to remove itself, it says so only when Raft has forgotten it as well.
    let at_four = ["cluster", "remove-node", "4", "--bootstrap", &format!("127.0.0.1:{}", again.grpc)];
    assert!(cli.ok(&at_four).contains("node 4 is removed"));
    let raft = &status(&cli)["raft"];
    assert!(!ids(&raft["voters"]).contains(&4) && !ids(&raft["learners"]).contains(&4), "{raft}");
    let (code, log) = four.wait(LIMIT);
    assert_eq!(code, Some(7), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_at_another_peer_address_is_found_there() {
    let dev = Dev::start_with(3, &["--no-restart"]);
    let cli = dev.cli();
    cli.ok(&["topic", "create", "t", "--partitions", "3", "--replication", "3"]);
    cli.produce_ok(&["t"], "before\n");
    // Whoever leads the metadata, and whoever follows then.
    let mut moved = Vec::new();
    for _ in 0..2 {
        let leader = status(&cli)["raft"]["leader"].as_u64().unwrap();
        let old = dev.kill(leader as u16);
        wait_for("its process to be gone", LIMIT, || !std::path::Path::new(&format!("/proc/{old}")).exists());
        let flags = NodeFlags {
            id: leader,
            dir: dev.data_dir().join(format!("node-{leader}")),
            grpc: dev.grpc_port + leader as u16 - 1,
            peer: common::free_ports(1),
            more: Vec::new(),
        };
        moved.push((Node::start(&flags), flags.peer));
        let at = |status: &Value| -> Option<String> {
            let brokers = status["brokers"].as_array()?;
            let broker = brokers.iter().find(|b| b["id"] == leader && b["fenced"] == false)?;
            broker["peer"].as_str().map(str::to_owned)
        };
        let address = format!("127.0.0.1:{}", flags.peer);
        wait_for("it to serve there", LIMIT, || at(&status(&cli)).as_deref() == Some(&address));
        dev.wait_in_sync();
        cli.produce_ok(&["t"], "after\n");
    }
    assert_eq!(cli.read("t").lines().count(), 3);
}

fn dir(dev: &Dev, name: &str) -> std::path::PathBuf {
    dev.dir.path().join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_transferred_and_a_node_that_is_stopped_hands_its_own_over_first() {
    let dev = Dev::start_with(3, &["--no-restart"]);
    let cli = dev.cli();
    cli.ok(&["topic", "create", "t", "--partitions", "6", "--replication", "3"]);

    // Of the metadata, on request.
    let leader = status(&cli)["raft"]["leader"].as_u64().unwrap();
    let next = leader % 3 + 1;
    cli.ok(&["cluster", "transfer-leadership", "--to", &next.to_string()]);
    wait_for("the metadata to be led by the node asked for", LIMIT, || {
        status(&cli)["raft"]["leader"] == next
    });
    cli.ok(&["cluster", "transfer-leadership"]);
    wait_for("another node to lead", LIMIT, || {
        status(&cli)["raft"]["leader"].as_u64().is_some_and(|leader| leader != next)
    });
    let to = ["cluster", "transfer-leadership", "--to", "9", "--timeout", "10m"];
    cli.refuses(&to, "", 6, &["node 9 is not a voter"]);

    // Of partitions, by a node that is asked to stop while records come in: the metadata's leader, the hardest.
    let client = Client::builder().bootstrap(&cli.bootstrap).build().unwrap();
    let producer = client.producer().linger(Duration::ZERO).build().unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let stop = enough.clone();
    let producing = tokio::spawn(async move {
        let mut deliveries: Vec<Delivery> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let number = deliveries.len();
            let record = Record::to("t").partition(number as i32 % 6).value(format!("record {number}"));
            deliveries.push(producer.send_and_wait(record).await.expect("no record fails"));
        }
        deliveries
    });
    let stopping = status(&cli)["raft"]["leader"].as_u64().unwrap();
    let leads = |node: u64| partitions(&cli, "t").iter().filter(|p| p["leader"] == node).count();
    wait_for("the node to lead partitions", LIMIT, || leads(stopping) > 0);
    let pid = dev.pid(stopping as u16).unwrap();
    signal(pid, libc::SIGTERM);
    wait_for("the node to end", LIMIT, || dev.pid(stopping as u16).is_none());
    assert_eq!(leads(stopping), 0);
    assert!(partitions(&cli, "t").iter().all(|p| p["leader"].is_u64()), "every partition is led");
    tokio::time::sleep(Duration::from_millis(300)).await;
    enough.store(true, Ordering::Relaxed);
    let deliveries = producing.await.expect("every record was acknowledged");
    let log = std::fs::read_to_string(dev.data_dir().join(format!("node-{stopping}/log.txt"))).unwrap();
    assert!(log.contains("handing leadership over"), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR") && !log.contains("panicked"), "{log}");

    let places: BTreeSet<(i32, Option<i64>)> = deliveries.iter().map(|d| (d.partition, d.offset)).collect();
    assert_eq!(places.len(), deliveries.len(), "each has an offset of its own");
    let sent: Vec<String> = (0..deliveries.len()).map(|n| format!("record {n}")).collect();
    let mut sent: Vec<&str> = sent.iter().map(String::as_str).collect();
    sent.sort_unstable();
    assert_eq!(sorted(&cli.read("t")), sent);

    // It had closed its directory, so that its next start has nothing to repair.
    let ports = (dev.grpc_port + stopping as u16 - 1, dev.peer_port() + stopping as u16 - 1);
    let dir = dev.data_dir().join(format!("node-{stopping}"));
    let flags = NodeFlags { id: stopping, dir, grpc: ports.0, peer: ports.1, more: Vec::new() };
    let node = Node::start(&flags);
    dev.wait_in_sync();
    assert!(node.log().contains("clean: true"), "{}", node.log());
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn dev_grows_a_cluster_leaves_out_what_was_removed_and_is_alone_in_its_directory() {
    let dev = Dev::start(1);
    dev.cli().ok(&["topic", "create", "t", "--partitions", "1"]);
    dev.cli().produce_ok(&["t"], "one\n");
    let dev = dev.restart_with(4);
    let cli = dev.cli();
    assert_eq!(cli.read("t"), "one\n");
    assert!((1..=4).all(|node| serves(&cli, node)));

    // A second one on the same directory changes nothing there.
    let data = dev.data_dir();
    let pids: Vec<_> = (1..=4).map(|node| dev.pid(node)).collect();
    let second = ["dev", "--grpc-port", "1024", "--peer-port", "2024", "--data-dir", data.to_str().unwrap()];
    cli.refuses(&second, "", 1, &["another `strandline dev` (pid ", "nothing was started"]);
    assert_eq!((1..=4).map(|node| dev.pid(node)).collect::<Vec<_>>(), pids);

    for node in ["4", "3"] {
        cli.ok(&["cluster", "remove-node", node]);
    }
    let dev = dev.restart_with(4);
    let cli = dev.cli();
    assert!(serves(&cli, 1) && serves(&cli, 2));
    assert_eq!(dev.pid(3).or(dev.pid(4)), None, "they are left out");
    std::fs::remove_dir_all(dev.data_dir().join("node-3")).unwrap();
    let dev = dev.restart_with(3);
    assert!((1..=3).all(|node| serves(&dev.cli(), node)), "a new node 3");
    assert_eq!(dev.cli().read("t"), "one\n");
}
