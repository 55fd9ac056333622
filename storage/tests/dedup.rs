//! Idempotency keys: what a log takes, what it leaves out, and what it answers.

mod common;

use bytes::Bytes;
use common::{NOW, Node, ROOT, log_config, store_config};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use strandline_record::{
    BatchBuilder, Compression, DecodeLimits, HEADER_BYTES, LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    ProducerStamp, RecordHeader, SharedBatchIter, crc32c, decode_batch,
};
use strandline_storage::disk::SimDisk;
use strandline_storage::worker::ManualHost;
use strandline_storage::{
    AppendError, Appended, DedupConfig, DedupKey, LogConfig, PartitionLog, Repeat, Store,
};

const WINDOW: i64 = 256_000;
const LIMITS: DecodeLimits = DecodeLimits { max_decompressed_bytes: 1 << 20 };
const EPOCH: LeaderEpoch = LeaderEpoch(1);

fn config(key: DedupKey) -> LogConfig {
    LogConfig { dedup: Some(DedupConfig { key, window_ms: WINDOW }), ..log_config() }
}

fn open(node: &Node, n: i32) -> Arc<PartitionLog> {
    let log = node.log(n);
    log.set_config(config(DedupKey::Key));
    log
}

/// A store that is opened when it is `now_ms`: what is replayed counts as appended then.
fn open_at(disk: &SimDisk, now_ms: i64) -> Node {
    let host = ManualHost::new();
    let through = Arc::new(disk.clone());
    let (store, report) = Store::open(through, Path::new(ROOT), store_config(), &host, now_ms).unwrap();
    Node { disk: disk.clone(), host, store, report }
}

/// A batch of records with these keys; the value says which key and which record it is.
fn batch(keys: &[&str], stamp: Option<(i64, i32)>, codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    builder.set_producer(stamp.map(|(id, base_sequence)| ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
        base_sequence,
    }));
    for (n, key) in keys.iter().enumerate() {
        let key = (!key.is_empty()).then_some(key.as_bytes());
        builder.append(NOW, key, Some(format!("value {n}").as_bytes()), &[]);
    }
    builder.build()
}

fn append(log: &Arc<PartitionLog>, keys: &[&str], now_ms: i64) -> Appended {
    log.append_as_leader(&batch(keys, None, Compression::None), EPOCH, now_ms).unwrap()
}

fn repeats(appended: &Appended) -> Vec<(i32, i64)> {
    appended.repeats.iter().map(|Repeat { index, first }| (*index, first.get())).collect()
}

/// Offset and key of every record.
fn records(log: &Arc<PartitionLog>) -> Vec<(i64, String)> {
    let (mut from, end, mut records) = (log.log_start(), log.log_end(), Vec::new());
    while from < end {
        let read = log.read(from, 1 << 20, true, end).unwrap();
        from = read.next_offset;
        for batch in SharedBatchIter::new(read.bytes) {
            for record in decode_batch(batch.unwrap().1, LIMITS).unwrap().iter().map(Result::unwrap) {
                let key = record.key.map(|key| String::from_utf8(key.to_vec()).unwrap());
                records.push((record.offset.get(), key.unwrap_or_default()));
            }
        }
    }
    records
}

fn owned(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
    expected.iter().map(|(offset, key)| (*offset, (*key).to_owned())).collect()
}

#[test]
fn a_second_record_with_the_same_key_is_left_out_and_its_sender_told_where_the_first_is() {
    for codec in
        [Compression::None, Compression::Lz4, Compression::Zstd, Compression::Gzip, Compression::Snappy]
    {
        let node = Node::open(&SimDisk::new(1));
        let log = open(&node, 0);
        assert_eq!(repeats(&append(&log, &["a", "b"], NOW)), []);
        let mixed = log.append_as_leader(&batch(&["c", "a", "", "c", "d"], None, codec), EPOCH, NOW).unwrap();
        assert_eq!((mixed.base_offset, mixed.last_offset, mixed.written), (Offset(2), Offset(6), true));
        assert_eq!(repeats(&mixed), [(1, 0), (3, 2)]);
        // Nothing new, and nobody counts: nothing is appended.
        let again = append(&log, &["d", "b"], NOW);
        assert_eq!((again.base_offset, again.last_offset, again.written), (Offset(6), Offset(6), false));
        assert_eq!((repeats(&again), log.log_end()), (vec![(0, 6), (1, 1)], Offset(7)));
        // Without a key every record is another one.
        assert_eq!(repeats(&append(&log, &["", ""], NOW)), []);
        let all = [(0, "a"), (1, "b"), (2, "c"), (4, ""), (6, "d"), (7, ""), (8, "")];
        assert_eq!(records(&log), owned(&all));
        assert_eq!(node.store.dedup_stats().keys, 4);
    }
}

#[test]
fn the_sequences_of_an_idempotent_producer_go_on_whatever_is_left_out() {
    let node = Node::open(&SimDisk::new(1));
    let log = open(&node, 0);
    let send = |keys: &[&str], sequence| {
        log.append_as_leader(&batch(keys, Some((7, sequence)), Compression::None), EPOCH, NOW)
    };
    send(&["a", "b"], 0).unwrap();
    assert_eq!(repeats(&send(&["a", "b", "a"], 2).unwrap()), [(0, 0), (1, 1), (2, 0)]);
    assert_eq!(log.log_end(), Offset(5), "its header stays");
    let mixed = send(&["b", "c"], 5).unwrap();
    assert_eq!((repeats(&mixed), mixed.base_offset), (vec![(0, 1)], Offset(5)));
    // The answer was lost, and it comes again: the same answer.
    let again = send(&["b", "c"], 5).unwrap();
    assert_eq!((repeats(&again), again.base_offset, again.written), (vec![(0, 1)], Offset(5), false));
    let whole = send(&["a", "b", "a"], 2).unwrap();
    assert_eq!(
        (repeats(&whole), whole.written, log.log_end()),
        (vec![(0, 0), (1, 1), (2, 0)], false, Offset(7))
    );
    assert!(matches!(send(&["e"], 9), Err(AppendError::OutOfOrderSequence { .. })));
    assert_eq!(repeats(&send(&["e"], 7).unwrap()), [], "what was refused is not remembered");
    assert_eq!(records(&log), owned(&[(0, "a"), (1, "b"), (6, "c"), (7, "e")]));
}

#[test]
fn a_batch_whose_keys_cannot_be_seen_is_refused() {
    let node = Node::open(&SimDisk::new(1));
    let log = open(&node, 0);
    // The length of the only record says more than there is; the checksum is right.
    let mut bytes = batch(&["a"], None, Compression::None).to_vec();
    bytes[HEADER_BYTES] = 0x7e;
    let crc = crc32c(&bytes[HEADER_BYTES - 40..]);
    bytes[HEADER_BYTES - 44..HEADER_BYTES - 40].copy_from_slice(&crc.to_be_bytes());
    let refused = log.append_as_leader(&bytes.into(), EPOCH, NOW);
    assert!(matches!(&refused, Err(AppendError::Invalid(why)) if why.contains("dedup.key")), "{refused:?}");
    assert_eq!((log.log_end(), node.store.dedup_stats().keys), (Offset(0), 0));
}

#[test]
fn a_header_may_be_the_key() {
    let node = Node::open(&SimDisk::new(1));
    let log = node.log(0);
    log.set_config(config(DedupKey::Header("id".into())));
    let send = |headers: &[(&'static str, Option<&'static str>)]| {
        let mut builder = BatchBuilder::new(Compression::None);
        let headers: Vec<RecordHeader> =
            headers.iter().map(|(name, value)| RecordHeader::new(*name, value.map(Bytes::from))).collect();
        builder.append(NOW, Some(b"the same"), Some(b"v"), &headers);
        repeats(&log.append_as_leader(&builder.build(), EPOCH, NOW).unwrap())
    };
    assert_eq!(send(&[("id", Some("1"))]), []);
    assert_eq!(send(&[("other", Some("1"))]), []);
    assert_eq!(
        send(&[("x", None), ("id", Some("1")), ("id", Some("2"))]),
        [(0, 0)],
        "the first of that name"
    );
    assert_eq!((send(&[("id", None)]), send(&[("id", None)])), (vec![], vec![]), "no value is no key");
    assert_eq!(send(&[("id", Some(""))]), []);
    assert_eq!(send(&[("id", Some(""))]), [(0, 4)], "an empty one is");
}

#[test]
fn a_key_is_forgotten_with_its_window_and_with_its_record() {
    let node = Node::open(&SimDisk::new(1));
    let log = open(&node, 0);
    append(&log, &["a"], NOW);
    append(&log, &["b"], NOW + WINDOW / 2);
    assert_eq!(repeats(&append(&log, &["a"], NOW + WINDOW - 1)), [(0, 0)]);
    assert_eq!(repeats(&append(&log, &["a"], NOW + WINDOW)), []);
    assert_eq!(repeats(&append(&log, &["a", "b"], NOW + WINDOW)), [(0, 2), (1, 1)]);
    log.advance_log_start(Offset(2)).unwrap();
    assert_eq!(repeats(&append(&log, &["a", "b"], NOW + WINDOW)), [(0, 2)]);
    // Truncated records have not been.
    log.truncate_to(Offset(2)).unwrap();
    assert_eq!(repeats(&append(&log, &["a", "b"], NOW + WINDOW)), []);
    log.reset_to(Offset(50)).unwrap();
    assert_eq!(append(&log, &["a"], NOW + WINDOW).base_offset, Offset(50));
}

#[test]
fn a_follower_knows_what_its_leader_knew() {
    let node = Node::open(&SimDisk::new(1));
    let (leader, follower) = (open(&node, 0), open(&node, 1));
    assert!(follower.catch_up_dedup(1, NOW).unwrap(), "from here on it goes along");
    for round in 0..5 {
        append(&leader, &["a", &format!("b{round}"), "c"], NOW + round);
        let read = leader.read(follower.log_end(), 1 << 20, true, leader.log_end()).unwrap();
        follower.append_as_follower(&read.bytes, NOW + round).unwrap();
    }
    assert_eq!(records(&leader), records(&follower));
    assert!(!follower.dedup_is_behind());
    let asked = ["a", "b0", "b4", "c", "new"];
    assert_eq!(repeats(&append(&leader, &asked, NOW + 9)), repeats(&append(&follower, &asked, NOW + 9)));
}

#[test]
fn after_a_start_the_window_is_read_in_pieces_and_nothing_is_taken_before() {
    let node = Node::open(&SimDisk::new(1));
    let log = open(&node, 0);
    let value = "v".repeat(600);
    for round in 0..4000 {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(NOW, Some(format!("key {round}").as_bytes()), Some(value.as_bytes()), &[]);
        // What is a window old is not read again.
        let now_ms = if round < 1000 { NOW - WINDOW } else { NOW };
        log.append_as_leader(&builder.build(), EPOCH, now_ms).unwrap();
        node.run();
    }
    drop(log);
    let disk = node.kill();
    let node = Node::open(&disk);
    let log = open(&node, 0);
    assert!(log.dedup_is_behind());
    let first = log.append_as_leader(&batch(&["key 3999"], None, Compression::None), EPOCH, NOW);
    assert!(matches!(first, Err(AppendError::KeysNotRead)), "{first:?}");
    let mut pieces = 0;
    while !log.catch_up_dedup(100_000, NOW).unwrap() {
        pieces += 1;
    }
    assert!(pieces > 10, "{pieces}");
    assert!(!log.dedup_is_behind());
    let known = repeats(&append(&log, &["key 3999", "key 1010", "key 0"], NOW));
    assert_eq!(known, [(0, 3999), (1, 1010)]);
    let keys = node.store.dedup_stats().keys;
    assert!((3000..3020).contains(&keys), "{keys}: the window and the rest of its first segment");
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>, bool),
    Wait(i64),
    Truncate(u8),
    Fail,
    Reopen,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// Whatever happens, of each key the log takes one record a window, and every answer names one that is there.
    #[test]
    fn one_record_of_each_key_in_a_window(steps in prop::collection::vec(prop_oneof![
        8 => (prop::collection::vec(0..12u8, 1..6), any::<bool>()).prop_map(|(keys, counted)| Step::Append(keys, counted)),
        2 => (0..WINDOW / 2).prop_map(Step::Wait),
        1 => (0..12u8).prop_map(Step::Truncate),
        1 => Just(Step::Fail),
        1 => Just(Step::Reopen),
    ], 1..60)) {
        let mut node = Node::open(&SimDisk::new(1));
        let mut log = open(&node, 0);
        let (mut now, mut producer) = (NOW, (1, 0));
        // Key → its newest record, and when that was appended.
        let mut newest: BTreeMap<u8, (i64, i64)> = BTreeMap::new();
        let mut times: BTreeMap<i64, (u8, i64)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(keys, counted) => {
                    let names: Vec<String> = keys.iter().map(|key| format!("k{key}")).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let stamp = counted.then_some(producer);
                    let bytes = batch(&names, stamp, Compression::None);
                    let end = log.log_end();
                    let appended = log.append_as_leader(&bytes, EPOCH, now).unwrap();
                    if counted {
                        producer.1 += keys.len() as i32;
                    }
                    node.run();
                    let told: BTreeMap<i32, i64> = repeats(&appended).into_iter().collect();
                    for (n, key) in keys.iter().enumerate() {
                        let offset = end.get() + n as i64;
                        match told.get(&(n as i32)) {
                            Some(first) => prop_assert_eq!(newest.get(key).map(|(at, _)| at), Some(first)),
                            None => {
                                if let Some((at, time)) = newest.get(key) {
                                    prop_assert!(now - time >= WINDOW, "{key} is at {at} since {time}, now {now}");
                                }
                                newest.insert(*key, (offset, now));
                                times.insert(offset, (*key, now));
                            }
                        }
                    }
                }
                Step::Wait(ms) => now += ms,
                Step::Truncate(back) => {
                    let end = (log.log_end().get() - i64::from(back)).max(0);
                    let end = log.truncate_to(Offset(end)).unwrap().get();
                    times.retain(|offset, _| *offset < end);
                    newest.clear();
                    newest.extend(times.iter().map(|(offset, (key, time))| (*key, (*offset, *time))));
                    // What the producer has sent may be gone.
                    producer = (producer.0 + 1, 0);
                }
                Step::Fail => {
                    let bytes = batch(&["k1", "never"], Some((producer.0, producer.1 + 5)), Compression::None);
                    if producer.1 > 0 {
                        prop_assert!(log.append_as_leader(&bytes, EPOCH, now).is_err());
                    }
                }
                Step::Reopen => {
                    node.run();
                    drop(log);
                    let disk = node.kill();
                    node = open_at(&disk, now);
                    log = open(&node, 0);
                    while !log.catch_up_dedup(500, now).unwrap() {}
                    // A segment counts as of its newest append, so all may be known for a while longer: that is not looked at.
                }
            }
            let expected: Vec<(i64, String)> = times.iter().map(|(offset, (key, _))| (*offset, format!("k{key}"))).collect();
            prop_assert_eq!(records(&log), expected);
        }
    }
}
