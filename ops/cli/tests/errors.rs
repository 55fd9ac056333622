//! What goes wrong ends with an error that says what to do, with the exit code that scripts can tell apart, and
//! without losing anything that was acknowledged.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and time")]

mod common;

use common::{Cli, Dev, Node, NodeFlags, Single, signal, wait_for};
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use strandline_client::{Client, ErrorCode, Record, TopicPartition};

fn numbers(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

/// A topic with one partition and a hundred acknowledged lines, which are returned.
fn filled(cli: &Cli, topic: &str, flags: &[&str]) -> String {
    cli.ok(&[&["topic", "create", topic, "--partitions", "1"], flags].concat());
    let lines = numbers(0..100);
    cli.produce_ok(&[topic], &lines);
    lines
}

#[test]
fn an_unknown_topic_is_named_with_a_hint_and_nothing_is_created() {
    let single = Single::start(&[]);
    let kept = filled(&single.cli, "kept", &[]);
    let says = &["nosuch", "strandline topic list"];
    single.cli.refuses(&["produce", "nosuch"], "x\n", 3, says);
    single.cli.refuses(&["consume", "nosuch", "--exit-at-end"], "", 3, says);
    single.cli.refuses(&["topic", "describe", "nosuch"], "", 3, says);
    // Decided at once, not after the time that a node might need to hear of a new topic.
    let patient = ["--timeout", "10m"];
    for command in [
        &["topic", "delete", "nosuch"][..],
        &["topic", "alter", "nosuch", "--config", "retention.ms=1000"],
        &["topic", "add-partitions", "nosuch", "--partitions", "4"],
    ] {
        single.cli.refuses(&[command, &patient].concat(), "", 3, says);
    }
    let says = &["kept has no partition 7: it has 1", "strandline topic describe kept"];
    single.cli.refuses(&["consume", "kept", "--partition", "7"], "", 3, says);
    single.cli.refuses(&["produce", "kept", "--partition", "7"], "x\n", 3, says);
    let topics = single.cli.json(&["topic", "list"]);
    assert_eq!(topics.as_array().map(Vec::len), Some(1), "{topics}");
    assert_eq!(single.cli.read("kept"), kept);
}

#[test]
fn an_unknown_group_is_not_found_and_not_made_by_a_slip_of_the_pen() {
    let single = Single::start(&[]);
    let cli = &single.cli;
    filled(cli, "t", &[]);
    let reset = ["group", "reset", "nosuch", "--topic", "t", "--to", "earliest"];
    for command in [&["group", "describe", "nosuch"][..], &["group", "delete", "nosuch"], &reset] {
        cli.refuses(command, "", 3, &["nosuch", "no such group", "strandline group list"]);
        let output = cli.run(&[&["--json"], command].concat());
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((output.status.code(), &error["error"]["kind"]), (Some(3), &"not_found".into()));
        assert!(output.stdout.is_empty(), "nothing that could be taken for a description");
    }
    assert_eq!(cli.json(&["group", "list"]), serde_json::json!([]));

    // Made on purpose, it exists, although nobody has ever been its member.
    cli.ok(&[&reset[..], &["--create"]].concat());
    let made = cli.json(&["group", "describe", "nosuch"]);
    assert_eq!((&made["state"], &made["total_lag"]), (&"Empty".into(), &100.into()), "{made}");
    cli.ok(&["group", "reset", "nosuch", "--topic", "t", "--to", "latest"]);
    cli.ok(&["group", "delete", "nosuch"]);
    cli.refuses(&["group", "describe", "nosuch"], "", 3, &["no such group"]);
    cli.refuses(&["cluster", "remove-node", "9"], "", 3, &["9", "strandline cluster status"]);
}

#[test]
fn a_record_over_max_message_bytes_is_refused_alone() {
    let single = Single::start(&[]);
    let cli = &single.cli;
    let mut kept = filled(cli, "small", &["--config", "max.message.bytes=2000"]);
    let big = "x".repeat(5000);
    let says = &["max.message.bytes is 2000", "strandline topic alter"];
    cli.refuses(&["produce", "small"], &format!("{big}\n"), 6, says);
    assert_eq!(cli.read("small"), kept);
    // Its neighbours, before and behind it in the same moment, are written.
    let around = format!("before\n{big}\nbehind\n");
    cli.refuses(&["produce", "small", "--keep-going"], &around, 6, says);
    kept += "before\nbehind\n";
    assert_eq!(cli.read("small"), kept);
    // Records that only together are more than the limit travel in as many batches as it takes.
    let many = numbers(100..5000);
    cli.produce_ok(&["small"], &many);
    kept += &many;
    assert_eq!(cli.read("small"), kept);
    cli.ok(&["topic", "alter", "small", "--config", "max.message.bytes=10000"]);
    cli.produce_ok(&["small"], &format!("{big}\n"));
    assert_eq!(cli.read("small"), kept + &big + "\n");
}

#[test]
fn a_data_directory_of_another_node_or_cluster_or_in_use_is_left_alone() {
    let mut single = Single::start(&[]);
    let kept = filled(&single.cli, "kept", &[]);
    let dir = single.flags.dir.clone();
    let second = NodeFlags::new(1, &dir, &[]);
    second.refused(1, &["is locked", "stop that one, or choose another data.dir"]);
    assert_eq!(single.cli.read("kept"), kept, "whoever uses it goes on");
    single.stop();

    NodeFlags { id: 2, ..second.clone() }.refused(1, &["belongs to node 1, this is node 2", "data.dir"]);
    let other = "11111111-2222-4333-8444-555555555555";
    single.flags.with(&["--cluster-id", other]).refused(6, &["belongs to cluster", other]);

    single.start_again();
    assert_eq!(single.cli.read("kept"), kept);
}

#[test]
fn a_port_in_use_is_named_before_anything_is_touched() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let flags = NodeFlags::new(1, dir.path().join("node"), &["--form-cluster", "1=127.0.0.1:7170"]);
    let says = [format!("127.0.0.1:{port}"), "choose another port".to_owned()];
    let says = says.each_ref().map(String::as_str);
    NodeFlags { grpc: port, ..flags.clone() }.refused(1, &says);
    NodeFlags { peer: port, ..flags.clone() }.refused(1, &says);
    assert!(!flags.dir.exists(), "no data directory was made");

    let cli = Cli { bootstrap: String::new() };
    let data = dir.path().join("dev");
    let (port, peer) = (port.to_string(), flags.peer.to_string());
    let mut dev = vec!["dev", "--nodes", "1", "--grpc-port", &port, "--peer-port", &peer];
    dev.extend(["--data-dir", data.to_str().unwrap()]);
    cli.refuses(&dev, "", 1, &[&format!("port {port} of node 1"), "nothing was started"]);
    assert!(!data.exists());
}

#[test]
fn a_bad_configuration_is_explained_and_an_unknown_key_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli { bootstrap: String::new() };
    let data = dir.path().join("data");
    let serve = ["serve", "--node-id", "1", "--data-dir", data.to_str().unwrap()];
    let with = |more: &[&str], says: &[&str]| cli.refuses(&[&serve, more].concat(), "", 2, says);
    with(&["--worker-threads", "0"], &["--worker-threads", "0 is too small", "1 to 1024"]);
    with(&["--log-flush-mode", "sometimes"], &["log.flush.mode", "sometimes", "ack"]);
    with(&["--worker-thread", "3"], &["--worker-thread", "similar argument", "--worker-threads"]);
    with(&[], &["the data directory is empty", "--form-cluster", "--join"]);

    let output = cli.run(&["topic", "create", "--json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), &error["error"]["kind"]), (Some(2), &"usage".into()), "{error}");

    let file = dir.path().join("node.toml");
    let in_file = |text: &str, says: &[&str]| {
        std::fs::write(&file, text).unwrap();
        with(&["--config", file.to_str().unwrap()], says);
    };
    in_file("\nworker.thread = 3", &["node.toml:2", "did you mean `worker.threads`"]);
    in_file("worker.threads = \"many\"", &["node.toml:1", "worker.threads", "a whole number"]);

    let mut command = cli.command(&serve);
    let output = command.env("STRANDLINE_WORKER_THREAD", "3").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("did you mean STRANDLINE_WORKER_THREADS"), "{message}");
}

#[test]
fn a_bad_configuration_of_a_topic_changes_nothing() {
    let single = Single::start(&[]);
    let cli = &single.cli;
    let kept = filled(cli, "kept", &["--config", "retention.ms=3600000"]);
    let before = cli.json(&["topic", "describe", "kept"])["configs"].clone();
    let alter = |set: &[&str], says: &[&str]| {
        let set: Vec<&str> = set.iter().flat_map(|pair| ["--config", pair]).collect();
        cli.refuses(&[&["topic", "alter", "kept"], &set[..]].concat(), "", 2, says);
        cli.refuses(&[&["topic", "create", "new"], &set[..]].concat(), "", 2, says);
    };
    alter(&["retention.mss=1"], &["retention.mss", "did you mean retention.ms?"]);
    alter(&["retention.ms=soon"], &["retention.ms", "'soon' is not a whole number"]);
    // All or none: the good value beside a bad one is not taken either.
    alter(&["retention.bytes=1000000", "flush=perhaps"], &["flush", "ack, interval, os"]);
    let never = "2 is more than the topic has replicas (1): nothing could be written";
    alter(&["min.insync.replicas=2"], &["min.insync.replicas", never]);
    alter(&["retention.ms=1", "retention.ms=2"], &["retention.ms is given twice"]);
    cli.refuses(&["topic", "alter", "kept"], "", 2, &["--config", "--unset"]);
    let looked = cli.json(&["topic", "create", "new", "--validate-only"]);
    assert_eq!((&looked["id"], &looked["created"]), (&serde_json::Value::Null, &false.into()));
    let add = ["topic", "add-partitions", "kept", "--partitions", "1000000"];
    cli.refuses(&add, "", 6, &["kept has 1 partitions; 999999 more at once are too many"]);
    let exists = ["topic kept exists already", "strandline topic describe"];
    cli.refuses(&["topic", "create", "kept"], "", 6, &exists);
    cli.refuses(&["topic", "create", "no good"], "", 6, &["only ASCII letters, digits"]);
    cli.refuses(
        &["topic", "create", "new", "--replication", "2"],
        "",
        6,
        &["2 replicas", "there are 1", "start more nodes"],
    );
    assert_eq!(cli.json(&["topic", "describe", "kept"])["configs"], before);
    assert_eq!(cli.json(&["topic", "list"]).as_array().map(Vec::len), Some(1));
    assert_eq!(cli.read("kept"), kept);
}

#[test]
fn a_group_has_committed_what_was_written_and_not_what_was_read() {
    let single = Single::start(&[]);
    let cli = &single.cli;
    let lines = filled(cli, "t", &[]);
    let committed = |group: &str| {
        let described = cli.run(&["--json", "group", "describe", group]);
        let described: serde_json::Value = serde_json::from_slice(&described.stdout).unwrap_or_default();
        described["partitions"][0]["committed"].as_i64().unwrap_or(0)
    };
    let consume = |group| ["consume", "t", "--group", group, "--exit-at-end"];

    // Nothing of it fits.
    let mut command = cli.command(&consume("full"));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let failed = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let message = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write the output"), "{message}");
    assert_eq!(committed("full"), 0);
    assert_eq!(cli.ok(&consume("full")), lines, "so nothing is passed over");
    assert_eq!(committed("full"), 100);

    // The reader is gone from the start: nothing was taken, and it is not worth a word.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = cli.command(&consume("left"));
    let left = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((left.status.code(), left.stderr.len()), (Some(0), 0));
    assert_eq!(committed("left"), 0);
    assert_eq!(cli.ok(&consume("left")), lines);
}

#[test]
fn what_members_of_a_group_forbid_is_said_in_their_name() {
    let single = Single::start(&[]);
    let cli = &single.cli;
    filled(cli, "t", &[]);
    let past = ["group", "reset", "g", "--topic", "t", "--to", "99999999", "--create"];
    let output = cli.run(&past);
    let remark = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && remark.contains("t-0 has no such offset: 100"), "{remark}");
    assert_eq!(cli.json(&past)["partitions"][0]["moved_into_range"], true);

    let mut member = cli.command(&["consume", "t", "--group", "g"]);
    let mut member = member.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the member to have its partition", Duration::from_secs(20), || {
        cli.json(&["group", "describe", "g"])["partitions"][0]["member"].is_string()
    });
    let reset = ["group", "reset", "g", "--topic", "t", "--to", "earliest"];
    cli.refuses(&reset, "", 6, &["group g has members", "stop the group's members first"]);
    let beside = ["consume", "t", "--group", "g", "--partition", "0", "--exit-at-end"];
    let refused = cli.run(&beside);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(6), "{message}");
    assert!(refused.stdout.is_empty() && message.contains("group g has 1 member"), "{message}");
    signal(member.id() as i32, libc::SIGTERM);
    assert!(member.wait().unwrap().success());
    cli.ok(&reset);
    assert_eq!(cli.ok(&beside).lines().count(), 100);
}

#[test]
fn produce_creates_a_topic_only_where_the_cluster_allows_it() {
    let single = Single::start(&["--auto-create-topics-enable", "true"]);
    single.cli.produce_ok(&["made"], "x\n");
    assert_eq!(single.cli.read("made"), "x\n");
    single.cli.refuses(&["topic", "describe", "asked"], "", 3, &["asked"]);
    single.cli.refuses(&["consume", "asked", "--exit-at-end"], "", 3, &["asked"]);

    // The other listener of the same node.
    let peer = format!("127.0.0.1:{}", single.flags.peer);
    single.cli.refuses(
        &["topic", "list", "--bootstrap", &peer],
        "",
        1,
        &["not those for the other nodes", "--listen-grpc"],
    );
}

#[test]
fn without_a_majority_nothing_is_in_doubt_that_changes_nothing_and_the_obstacle_is_named() {
    let dev = Dev::start_with(3, &["--no-restart"]);
    let cli = Cli { bootstrap: format!("127.0.0.1:{}", dev.grpc_port) };
    filled(&dev.cli(), "t", &["--replication", "3"]);
    // Transfers name who leads then, though the nodes hear of it one after the other.
    let mut before = None;
    for _ in 0..4 {
        let leader = cli.json(&["cluster", "transfer-leadership"])["raft_leader"].as_u64();
        assert!(leader.is_some() && leader != before, "{leader:?} after {before:?}");
        before = leader;
    }
    dev.kill(2);
    dev.kill(3);
    let produce = ["produce", "t", "--delivery-timeout", "3s"];
    let (code, message) = cli.fails(&produce, "lost\n");
    assert!(code == 4 || code == 6, "{code}: {message}");
    assert!(
        message.contains("the last obstacle") && !message.contains("is a node running there"),
        "{message}"
    );
    cli.refuses(&["group", "list", "--timeout", "2s"], "", 4, &["list groups"]);
    let consume = ["consume", "t", "--group", "g", "--timeout", "5s"];
    cli.refuses(&consume, "", 4, &["waiting for the coordinator of group g", "describe group g"]);
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_and_not_a_silent_jump() {
    let single = Single::start(&["--log-retention-check-interval-ms", "50"]);
    let cli = &single.cli;
    // Deleted on request.
    let lines = filled(cli, "deleted", &[]);
    let client = Client::builder().bootstrap(&cli.bootstrap).build().unwrap();
    let start = client.admin().delete_records(&TopicPartition::new("deleted", 0), Some(40)).await.unwrap();
    assert_eq!(start, 40);
    let from = |topic: &'static str, from: &'static str| ["consume", topic, "--from", from, "--exit-at-end"];
    let gone = &["offset 5 of deleted-0", "offsets 40 to 100 can be read"];
    cli.refuses(&from("deleted", "5"), "", 3, gone);
    cli.refuses(&from("deleted", "101"), "", 3, &["past the end", "offsets 40 to 100 can be read"]);
    assert!(lines.ends_with(&cli.read("deleted")));
    assert_eq!(cli.read("deleted").lines().next(), Some("line 40"));

    // Removed by retention.
    let limits = ["--config", "segment.bytes=4096", "--config", "retention.bytes=8192"];
    let mut lines = filled(cli, "retained", &limits);
    let more = numbers(100..5000);
    cli.produce_ok(&["retained", "--batch-bytes", "1KiB"], &more);
    lines += &more;
    let mut first = 0;
    wait_for("retention to remove the oldest records", Duration::from_secs(10), || {
        let topic = cli.json(&["topic", "describe", "retained"]);
        first = topic["partitions"][0]["log_start_offset"].as_i64().unwrap();
        first > 4000
    });
    cli.refuses(
        &from("retained", "5"),
        "",
        3,
        &["offset 5 of retained-0", &format!("offsets {first} to 5000")],
    );
    let rest = cli.read("retained");
    assert_eq!(rest.lines().next(), Some(&*format!("line {first}")));
    assert!(lines.ends_with(&rest));
}

/// Takes space without writing.
struct Filler(File);

impl Filler {
    fn new(path: &Path, bytes: u64) -> Filler {
        let file = File::create(path).unwrap();
        // SAFETY: the descriptor is open for the call.
        let failed = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as i64) };
        assert_eq!(failed, 0, "a file of {bytes} bytes can be allocated");
        Filler(file)
    }

    fn remove(self) {
        self.0.set_len(0).unwrap();
    }
}

fn free_bytes(path: &Path) -> u64 {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: all zeros is a valid statvfs; the call gets a terminated path and a struct to write.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(path.as_ptr(), &raw mut stat), 0);
        stat.f_bavail * stat.f_frsize
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_makes_the_node_read_only_until_there_is_space_again() {
    // Everything counts from the space that is free now. Others use this disk too: a margin for them.
    let place = tempfile::tempdir().unwrap();
    let free = free_bytes(place.path());
    let filler_bytes = (free / 4).min(2 << 30);
    let reserved = (free - filler_bytes / 2).to_string();
    let mut single = Single::start(&["--disk-reserved-bytes", &reserved, "--journal-file-bytes", "4MiB"]);
    let kept = filled(&single.cli, "kept", &[]);

    let filler = Filler::new(&place.path().join("filler"), filler_bytes);
    let client = Client::builder().bootstrap(&single.cli.bootstrap).build().unwrap();
    single.cli.ok(&["topic", "create", "big", "--partitions", "1"]);
    let producer = client.producer().delivery_timeout(Duration::from_secs(1)).build().unwrap();
    let mut acknowledged = Vec::new();
    let error = loop {
        // The node looks at the space again every so many megabytes.
        assert!(acknowledged.len() < 512, "256 MiB were accepted by a disk that is full");
        match producer.send_and_wait(Record::to("big").value(vec![b'x'; 512 << 10])).await {
            Ok(delivery) => acknowledged.push(delivery.offset),
            Err(error) => break error,
        }
    };
    assert_eq!(error.obstacle(), Some(ErrorCode::StorageFull), "{error}");
    assert!(error.is_retriable() && !error.may_have_happened(), "{error}");

    // Readable, also for one that is started on a full disk, and metadata still changes.
    let refused = ["produce", "kept", "--delivery-timeout", "500ms"];
    let says = &["the disk is full", "read-only until space is free", "takes records again by itself"];
    single.cli.refuses(&refused, "lost\n", 6, says);
    single.kill();
    single.start_again();
    single.cli.refuses(&refused, "lost\n", 6, says);
    assert_eq!(single.cli.read("kept"), kept);
    single.cli.ok(&["topic", "create", "made-while-full"]);

    // A producer that waits gets through by itself once there is space.
    let mut waiting = single.cli.command(&["produce", "kept"]);
    let mut waiting =
        waiting.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    waiting.stdin.take().unwrap().write_all(b"patient\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    filler.remove();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(single.cli.read("kept"), kept + "patient\n");
    let big = single.cli.json(&["topic", "describe", "big"]);
    assert_eq!(
        big["partitions"][0]["high_watermark"],
        acknowledged.len(),
        "every acknowledged record and no other"
    );
}

#[test]
fn with_fewer_replicas_than_the_minimum_writes_are_refused_and_other_topics_go_on() {
    let dev = Dev::start_with(3, &["--no-restart"]);
    let cli = dev.cli();
    let mut strict = filled(&cli, "strict", &["--replication", "2", "--config", "min.insync.replicas=2"]);
    let mut other = filled(&cli, "other", &["--replication", "3"]);
    let partition = cli.json(&["topic", "describe", "strict"])["partitions"][0].clone();
    let leader = partition["leader"].as_u64().unwrap();
    let replicas = partition["replicas"].as_array().unwrap();
    let follower = replicas.iter().filter_map(serde_json::Value::as_u64).find(|id| *id != leader).unwrap();
    dev.kill(follower as u16);
    wait_for("the dead replica to leave the in-sync set", Duration::from_secs(10), || {
        cli.json(&["topic", "describe", "strict"])["partitions"][0]["isr"].as_array().map(Vec::len) == Some(1)
    });

    let says = &[
        "1 in-sync replicas, min.insync.replicas is 2; nothing was appended",
        "bring the missing nodes back",
    ];
    cli.refuses(&["produce", "strict", "--delivery-timeout", "1s"], "lost\n", 6, says);
    let partition = cli.json(&["topic", "describe", "strict"])["partitions"][0].clone();
    assert_eq!(partition["leader"], leader, "there is a leader still");
    assert_eq!(cli.read("strict"), strict, "what is there can be read, and nothing was appended");
    cli.produce_ok(&["other"], "goes on\n");
    other += "goes on\n";
    assert_eq!(cli.read("other"), other);

    // In its place, an empty directory: that node has forgotten what it promised.
    let (grpc, peer) = (dev.grpc_port + follower as u16 - 1, dev.peer_port() + follower as u16 - 1);
    let dir = dev.data_dir().join(format!("node-{follower}"));
    let flags = NodeFlags { id: follower, dir: dir.with_extension("empty"), grpc, peer, more: Vec::new() };
    let says = &["another data directory", &format!("strandline cluster remove-node {follower}")];
    flags.with(&["--form-cluster", &dev.form_cluster()]).refused(6, says);
    let live = format!("127.0.0.1:{}", dev.peer_port() + leader as u16 - 1);
    flags.with(&["--join", &live]).refused(6, says);

    // With its own directory it is taken back, and a producer that waited gets through.
    let mut waiting = cli.command(&["produce", "strict"]);
    let mut waiting =
        waiting.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    waiting.stdin.take().unwrap().write_all(b"patient\n").unwrap();
    let back = Node::start(&NodeFlags { dir, ..flags });
    assert!(waiting.wait().unwrap().success());
    strict += "patient\n";
    assert_eq!(cli.read("strict"), strict);
    assert_eq!(back.stop(), Some(0));
}
