//! The main job with real processes: records go into a replicated topic, nodes are killed, and everything
//! acknowledged comes out, once, in order.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and time")]

mod common;

use common::Dev;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// Text like a real one: every line unique, keys repeated.
fn text(lines: usize, keys: usize) -> String {
    (0..lines)
        .map(|n| {
            format!("key-{}:line {n} of a text that is long enough to fill a few batches\n", n * 7 % keys)
        })
        .collect()
}

/// Order within each key, nothing lost, nothing twice.
fn check(sent: &str, received: &str) {
    let mut wanted: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in sent.lines() {
        let (key, value) = line.split_once(':').unwrap();
        wanted.entry(key).or_default().push(value);
    }
    let mut found: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in received.lines() {
        let (key, value) = line.split_once(':').unwrap();
        found.entry(key).or_default().push(value);
    }
    let (sent_lines, got_lines) = (sent.lines().count(), received.lines().count());
    assert_eq!(sent_lines, got_lines, "lines sent and lines read back");
    for (key, wanted) in wanted {
        let found = found.remove(key).unwrap_or_default();
        assert!(wanted == found, "the lines of {key} differ: {} sent, {} read", wanted.len(), found.len());
    }
    assert!(found.is_empty(), "keys that were never sent");
}

fn read_back(dev: &Dev, topic: &str) -> String {
    dev.ok(&["consume", topic, "--from", "earliest", "--exit-at-end", "--format", "%k:%v"])
}

#[test]
fn a_text_survives_nodes_killed_one_after_another_once_and_in_order() {
    let dev = Dev::start(3);
    dev.ok(&["topic", "create", "text", "--partitions", "12", "--replication", "3"]);
    let text = text(120_000, 1000);
    let mut producer = dev
        .command(&["produce", "text", "--key-separator", ":"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut input = producer.stdin.take().unwrap();
    // Slowly enough that three kills fall into it.
    let fed = text.clone();
    let feeder = std::thread::spawn(move || {
        for chunk in fed.as_bytes().chunks(fed.len() / 120) {
            input.write_all(chunk).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    for node in [1, 2, 3] {
        std::thread::sleep(Duration::from_millis(1500));
        let old = dev.kill(node);
        dev.wait_restarted(node, old);
        dev.wait_in_sync();
    }
    feeder.join().unwrap();
    assert!(producer.wait().unwrap().success(), "every line was acknowledged");
    check(&text, &read_back(&dev, "text"));
}

#[test]
fn all_nodes_killed_at_once_lose_nothing_acknowledged() {
    let dev = Dev::start(3);
    dev.ok(&["topic", "create", "text", "--partitions", "6", "--replication", "3"]);
    let before = text(20_000, 100);
    assert!(dev.produce(&["text", "--key-separator", ":"], &before).status.success());
    // Under load: this producer's lines go on while everything dies and comes back.
    let during: String = (0..20_000).map(|n| format!("during-{}:{n}\n", n % 50)).collect();
    let mut producer = dev
        .command(&["produce", "text", "--key-separator", ":"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut input = producer.stdin.take().unwrap();
    let fed = during.clone();
    let feeder = std::thread::spawn(move || {
        for chunk in fed.as_bytes().chunks(fed.len() / 20) {
            input.write_all(chunk).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    std::thread::sleep(Duration::from_millis(400));
    let old: Vec<i32> = (1..=3).map(|node| dev.kill(node)).collect();
    for (node, old) in (1..=3).zip(old) {
        dev.wait_restarted(node, old);
    }
    feeder.join().unwrap();
    assert!(producer.wait().unwrap().success(), "every line was acknowledged in the end");
    dev.wait_in_sync();
    check(&(before + &during), &read_back(&dev, "text"));
}

#[test]
fn a_group_processes_everything_while_members_are_killed_and_added() {
    let dev = Dev::start(3);
    dev.ok(&["topic", "create", "work", "--partitions", "6", "--replication", "3"]);
    let text = text(30_000, 300);
    assert!(dev.produce(&["work", "--key-separator", ":"], &text).status.success());
    let out = |n: usize| dev.dir.path().join(format!("member-{n}.txt"));
    let member = |n: usize| {
        let file = std::fs::File::create(out(n)).unwrap();
        dev.command(&["consume", "work", "--group", "g", "--from", "earliest", "--format", "%p %o %k:%v"])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut members: Vec<_> = (0..3).map(member).collect();
    let mut committed: BTreeMap<(String, i64), i64> = BTreeMap::new();
    let mut look = |dev: &Dev| {
        let output = dev.run(&["--json", "group", "describe", "g"]);
        let Ok(group) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return };
        for offset in group["offsets"].as_array().unwrap_or(&Vec::new()) {
            let at = (offset["topic"].as_str().unwrap().to_owned(), offset["partition"].as_i64().unwrap());
            let Some(now) = offset["offset"].as_i64() else { continue };
            let before = committed.entry(at.clone()).or_insert(now);
            assert!(now >= *before, "the committed offset of {at:?} went back from {before} to {now}");
            *before = now;
        }
    };
    std::thread::sleep(Duration::from_secs(2));
    look(&dev);
    members[0].kill().unwrap();
    members[0].wait().unwrap();
    members.push(member(3));
    std::thread::sleep(Duration::from_secs(2));
    look(&dev);
    members[1].kill().unwrap();
    members[1].wait().unwrap();
    let more: String = (0..2_000).map(|n| format!("late-{}:{n}\n", n % 20)).collect();
    assert!(dev.produce(&["work", "--key-separator", ":"], &more).status.success());
    let wanted: std::collections::BTreeSet<&str> = text.lines().chain(more.lines()).collect();
    common::wait_for("the group to have processed every record", Duration::from_secs(60), || {
        look(&dev);
        let mut seen = std::collections::BTreeSet::new();
        let files: Vec<String> =
            (0..4).map(|n| std::fs::read_to_string(out(n)).unwrap_or_default()).collect();
        for line in files.iter().flat_map(|file| file.lines()) {
            if let Some(record) = line.splitn(3, ' ').nth(2) {
                seen.insert(record);
            }
        }
        wanted.iter().all(|line| seen.contains(line))
    });
    for mut member in members {
        let _ = member.kill();
        let _ = member.wait();
    }
}
