//! What a store and its logs do when nothing goes wrong.

mod common;

use common::*;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TimestampType};
use strandline_storage::disk::{Disk, RealDisk, SimDisk};
use strandline_storage::worker::{ManualHost, ThreadHost};
use strandline_storage::{
    AppendError, BindError, FlushedTo, LogConfig, OpenError, PartitionLog, ReadError, Store, StoreConfig,
};
use uuid::Uuid;

fn open_with(disk: &SimDisk, config: StoreConfig) -> Result<Arc<Store>, OpenError> {
    Store::open(Arc::new(disk.clone()), Path::new(ROOT), config, &ManualHost::new(), NOW)
        .map(|(store, _)| store)
}

fn append(node: &Node, log: i32, id: u64, count: i32) -> Offset {
    node.log(log).append_as_leader(&batch(id, count, 300), LeaderEpoch(1), NOW).unwrap().base_offset
}

#[test]
fn a_directory_is_refused_while_it_is_in_use_and_to_another_node_or_cluster() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    assert!(node.report.created);
    assert!(matches!(Node::try_open(&disk).map(|_| ()), Err(OpenError::Locked { .. })));
    let (cluster, other) = (Uuid::from_u128(5), Uuid::from_u128(6));
    assert_eq!(node.store.cluster_id(), None);
    node.store.bind_cluster(cluster).unwrap();
    node.store.bind_cluster(cluster).unwrap();
    assert!(
        matches!(node.store.bind_cluster(other), Err(BindError::OtherCluster { found }) if found == cluster)
    );
    drop(node);
    let error = open_with(&disk, StoreConfig { cluster_id: Some(other), ..store_config() }).unwrap_err();
    assert!(matches!(error, OpenError::OtherCluster { found, .. } if found == cluster), "{error}");
    let error = open_with(&disk, StoreConfig::new(BrokerId(2), Uuid::from_u128(9))).unwrap_err();
    assert!(matches!(error, OpenError::OtherNode { found: BrokerId(1), .. }), "{error}");
    let node = Node::open(&disk);
    assert!(!node.report.created);
    assert_eq!(node.store.directory_id(), Uuid::from_u128(77), "the directory keeps its identity");
    assert_eq!(node.store.cluster_id(), Some(cluster));
}

#[test]
fn the_epoch_of_a_clean_close_is_told_once() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    assert_eq!(node.store.clean_epoch(), None);
    append(&node, 0, 1, 1);
    node.store.close_clean(Some(BrokerEpoch(42))).unwrap();
    let refused = node.store.get(tp(0));
    assert!(refused.is_none(), "a closed store has no logs");
    drop(node);
    disk.power_loss();
    let node = Node::open(&disk);
    assert!(node.report.clean);
    assert_eq!(node.store.clean_epoch(), Some(BrokerEpoch(42)));
    assert_eq!(check_consistent(&node.log(0)).end, 1, "a clean close makes everything durable");
    let node = Node::open(&node.power_loss());
    assert!(!node.report.clean);
    assert_eq!(node.store.clean_epoch(), None, "it was used up");
}

#[test]
fn empty_logs_cost_no_file_and_creating_them_no_sync_each() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let (files, syncs) = (disk.files().len(), disk.counters().syncs);
    for n in 0..3000 {
        node.log(n);
    }
    node.run();
    assert!(disk.files().len() <= files + 3);
    assert!(disk.counters().syncs < syncs + 10);
    let node = Node::open(&node.power_loss());
    assert_eq!(node.store.logs().len(), 3000);
}

#[test]
fn a_fresh_store_opens_with_few_syncs() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let counters = disk.counters();
    assert!(counters.syncs + counters.dir_syncs + counters.filesystem_syncs <= 12, "{counters:?}");
    drop(node);
}

#[test]
fn one_sync_of_the_journal_makes_the_batches_of_many_logs_durable_and_each_is_told_once() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    node.run();
    let told: Arc<Mutex<Vec<(i32, FlushedTo)>>> = Arc::default();
    for n in 0..20 {
        let told = told.clone();
        node.log(n).set_flush_listener(Arc::new(move |flushed| told.lock().push((n, flushed))));
        append(&node, n, 1, 2);
        append(&node, n, 2, 3);
    }
    let syncs = disk.counters().syncs;
    assert!(node.store.journal_pending_bytes() > 20 * 600);
    node.run();
    assert_eq!(disk.counters().syncs, syncs + 1);
    assert_eq!(node.store.journal_pending_bytes(), 0);
    let told = told.lock();
    assert_eq!(told.len(), 20);
    let expected = FlushedTo { end: Offset(5), leader_epoch: LeaderEpoch(1), truncations: 0 };
    assert!(told.iter().all(|(_, flushed)| *flushed == expected));
}

#[test]
fn a_flush_from_before_a_truncation_is_not_reported() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let told: Arc<Mutex<Vec<FlushedTo>>> = Arc::default();
    let log = node.log(0);
    let sink = told.clone();
    log.set_flush_listener(Arc::new(move |flushed| sink.lock().push(flushed)));
    append(&node, 0, 1, 2);
    append(&node, 0, 2, 3);
    assert_eq!(log.truncate_to(Offset(2)).unwrap(), Offset(2));
    node.run();
    let expected = FlushedTo { end: Offset(2), leader_epoch: LeaderEpoch(1), truncations: 1 };
    assert_eq!(*told.lock(), vec![expected]);
    assert_eq!(log.flushed_end(), Offset(2));
}

/// Counted as flushed before that is durable, a log that a loss of power brings back short could lead.
#[test]
fn a_log_that_began_again_or_deleted_past_its_flushed_end_counts_as_flushed_once_that_is_durable() {
    let marks = |log: Arc<PartitionLog>| (log.log_start(), log.flushed_end(), log.log_end());
    let at = |start, flushed, end| (Offset(start), Offset(flushed), Offset(end));
    let begun_again = || {
        let node = Node::open(&SimDisk::new(1));
        append(&node, 0, 1, 2);
        append(&node, 1, 1, 2);
        node.run();
        node.log(0).reset_to(Offset(9)).unwrap();
        append(&node, 1, 2, 3);
        node.log(1).advance_log_start(Offset(5)).unwrap();
        node
    };
    let node = begun_again();
    assert_eq!((marks(node.log(0)), marks(node.log(1))), (at(9, 2, 9), at(5, 2, 5)));
    let node = Node::open(&node.power_loss());
    assert_eq!((marks(node.log(0)), marks(node.log(1))), (at(0, 2, 2), at(0, 2, 2)), "the old logs are back");

    let node = begun_again();
    node.run();
    assert_eq!((marks(node.log(0)), marks(node.log(1))), (at(9, 9, 9), at(5, 5, 5)));
    let node = Node::open(&node.power_loss());
    assert_eq!((marks(node.log(0)), marks(node.log(1))), (at(9, 9, 9), at(5, 5, 5)));
}

#[test]
fn bad_batches_are_refused_by_kind() {
    let node = Node::open(&SimDisk::new(1));
    let log = node.log(0);
    let leader = |bytes: Vec<u8>| log.append_as_leader(&bytes.into(), LeaderEpoch(1), NOW).map(|_| ());
    let good = batch(1, 3, 50).to_vec();
    let mut flipped = good.clone();
    flipped[80] ^= 1;
    assert!(matches!(leader(flipped.clone()), Err(AppendError::Corrupt(_))));
    assert!(matches!(leader(good[..good.len() - 1].to_vec()), Err(AppendError::Corrupt(_))));
    assert!(matches!(leader(vec![]), Err(AppendError::Invalid(_))));
    let mut config = log_config();
    config.max_message_bytes = 100;
    log.set_config(config);
    assert!(matches!(leader(good.clone()), Err(AppendError::TooLarge { max: 100, .. })));
    let follower = |bytes: &bytes::Bytes| log.append_as_follower(bytes, NOW).map(|_| ());
    assert!(matches!(follower(&flipped.into()), Err(AppendError::Corrupt(_))));
    let good = batch(1, 3, 50);
    assert!(matches!(
        follower(&stamped(&good, 5, 1)),
        Err(AppendError::NotContiguous { expected: Offset(0), found: Offset(5) })
    ));
    follower(&stamped(&good, 0, 4)).unwrap();
    assert!(
        matches!(follower(&stamped(&good, 3, 3)), Err(AppendError::Invalid(_))),
        "epochs do not decrease"
    );
    assert_eq!(log.log_end(), Offset(3));
}

#[test]
fn a_follower_gets_the_leaders_bytes_and_has_the_same_log() {
    let (a, b) = (Node::open(&SimDisk::new(1)), Node::open(&SimDisk::new(2)));
    let (leader, follower) = (a.log(0), b.log(0));
    for id in 0..12 {
        let batches = [batch(id, 2, 400), batch(100 + id, 1, 10)].concat();
        leader.append_as_leader(&batches.into(), LeaderEpoch(1 + id as i32 / 4), NOW).unwrap();
    }
    while follower.log_end() < leader.log_end() {
        let read = leader.read(follower.log_end(), 700, true, leader.log_end()).unwrap();
        let appended = follower.append_as_follower(&read.bytes, NOW).unwrap();
        assert_eq!(appended.last_offset.plus(1), read.next_offset);
    }
    assert_eq!(check_consistent(&leader), check_consistent(&follower));
    // A log that starts anew inside a batch takes that whole batch.
    follower.reset_to(Offset(4)).unwrap();
    let read = leader.read(Offset(4), 700, true, leader.log_end()).unwrap();
    assert_eq!(read.base_offset, Offset(3));
    follower.append_as_follower(&read.bytes, NOW).unwrap();
    assert_eq!(follower.log_start(), Offset(4));
    b.run();
    let b = Node::open(&b.power_loss());
    assert_eq!(b.log(0).log_start(), Offset(4));
    assert_eq!(see(&b.log(0)).batches[0].base, 3);
}

#[test]
fn reads_are_whole_batches_within_the_bounds() {
    let node = Node::open(&SimDisk::new(1));
    for id in 0..10 {
        append(&node, 0, id, 3);
    }
    let log = node.log(0);
    let size = log.read(Offset(0), 1, true, Offset(30)).unwrap().bytes.len();
    // From memory at the end, from the file at the start.
    for from in [0, 27] {
        let read = |max, min_one, upto| log.read(Offset(from + 1), max, min_one, Offset(upto)).unwrap();
        let first = read(size, false, from + 3);
        assert_eq!((first.base_offset, first.next_offset), (Offset(from), Offset(from + 3)));
        assert!(read(size - 1, false, from + 3).bytes.is_empty());
        assert!(!read(size - 1, true, from + 3).bytes.is_empty());
        assert!(read(size, true, from + 2).bytes.is_empty(), "only what lies wholly below the bound");
    }
    // The same in slices, of which memory gives one for each batch.
    for (from, max, upto) in
        [(0, 9 * size, 30), (24, 9 * size, 30), (24, 1, 30), (24, 1, 26), (0, 1, 2), (30, 100, 30)]
    {
        let read = log.read(Offset(from), max, true, Offset(upto)).unwrap();
        let slices = log.read_slices(Offset(from), max, Offset(upto)).unwrap();
        assert_eq!(slices.concat(), read.bytes);
        assert!(slices.iter().all(|slice| !slice.is_empty()));
    }
    assert_eq!(log.read_slices(Offset(24), 9 * size, Offset(30)).unwrap().len(), 2);
    let read = log.read(Offset(0), 2 * size - 1, false, Offset(30)).unwrap();
    assert_eq!(read.next_offset, Offset(3));
    let read = log.read(Offset(0), 9 * size, false, Offset(30)).unwrap();
    assert_eq!(read.next_offset, Offset(6), "a read ends with its segment");
    let read = log.read(Offset(24), 9 * size, false, Offset(29)).unwrap();
    assert_eq!(read.next_offset, Offset(27));
    assert!(log.read(Offset(30), 100, true, Offset(30)).unwrap().bytes.is_empty());
    for out in [-1, 31] {
        let error = log.read(Offset(out), 100, true, Offset(30)).unwrap_err();
        assert!(matches!(error, ReadError::OutOfRange { log_start: Offset(0), log_end: Offset(30) }));
    }
}

#[test]
fn memory_for_the_newest_batches_is_bounded_over_all_logs() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    for round in 0..20 {
        for n in 0..10 {
            append(&node, n, round, 1);
        }
        assert!(node.store.cached_bytes() <= 8 << 10);
    }
    let reads = disk.counters().reads;
    let log = node.log(9);
    log.read(Offset(19), 100, true, Offset(20)).unwrap();
    assert_eq!(disk.counters().reads, reads, "the newest batch is in memory");
    assert_eq!(check_consistent(&log).end, 20);
}

#[test]
fn retention_removes_whole_segments_by_time_and_size_but_nothing_above_its_bound() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let log = node.log(0);
    for id in 0..10 {
        log.append_as_leader(&batch(id, 1, 1400), LeaderEpoch(1), NOW + id as i64 * 1000).unwrap();
    }
    let segment = 2;
    log.set_config(LogConfig { retention_ms: Some(10_000), ..log_config() });
    node.store.maintain(NOW + 13_500);
    assert_eq!(log.log_start(), Offset(0), "the bound is 0");
    log.set_retention_bound(Offset(10));
    node.store.maintain(NOW + 13_500);
    assert_eq!(log.log_start(), Offset(2 * segment), "records 0 to 3 are old");
    let error = log.read(Offset(0), 100, true, Offset(10)).unwrap_err();
    assert!(matches!(error, ReadError::OutOfRange { log_start: Offset(4), .. }));
    log.set_config(LogConfig { retention_bytes: Some(1500), retention_ms: None, ..log_config() });
    log.set_retention_bound(Offset(7));
    node.store.maintain(NOW);
    assert_eq!(log.log_start(), Offset(6));
    log.set_retention_bound(Offset(10));
    node.store.maintain(NOW);
    assert_eq!(log.log_start(), Offset(8));
    // All of it, once it is old enough; the files follow.
    log.set_config(LogConfig { retention_ms: Some(10_000), ..log_config() });
    node.store.maintain(NOW + 100_000);
    assert_eq!((log.log_start(), log.log_end()), (Offset(10), Offset(10)));
    assert_eq!(log.last_epoch(), Some(LeaderEpoch(1)), "the epoch is still known");
    node.checkpoint();
    assert!(!disk.files().iter().any(|(path, _)| path.to_string_lossy().ends_with(".log")));
    let node = Node::open(&node.power_loss());
    let log = node.log(0);
    assert_eq!((log.log_start(), log.log_end()), (Offset(10), Offset(10)));
    assert_eq!(append(&node, 0, 1, 1), Offset(10));
}

#[test]
fn producer_timestamps_do_not_rule_retention() {
    let node = Node::open(&SimDisk::new(1));
    let log = node.log(0);
    for (id, timestamp) in [(1, 0), (2, NOW * 1000), (3, NOW)] {
        log.append_as_leader(&batch_with(id, 1, 2500, None, timestamp), LeaderEpoch(1), NOW).unwrap();
    }
    log.set_retention_bound(Offset(3));
    log.set_config(LogConfig { retention_ms: Some(60_000), ..log_config() });
    node.store.maintain(NOW + 50_000);
    assert_eq!(log.log_start(), Offset(0));
    node.store.maintain(NOW + 70_000);
    assert_eq!(log.log_start(), Offset(3));
}

#[test]
fn offsets_are_found_by_time_to_the_record() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let log = node.log(0);
    for n in 0..40 {
        log.append_as_leader(&batch_with(n, 2, 300, None, 1000 + n as i64 * 10), LeaderEpoch(1), NOW)
            .unwrap();
    }
    let check = |log: &Arc<strandline_storage::PartitionLog>| {
        for n in 0..40 {
            let at = 1000 + n * 10;
            assert_eq!(log.offset_for_timestamp(at).unwrap(), Some((Offset(n * 2), at)));
            assert_eq!(log.offset_for_timestamp(at - 9).unwrap(), Some((Offset(n * 2), at)));
        }
        assert_eq!(log.offset_for_timestamp(1391).unwrap(), None);
        assert_eq!(log.max_timestamp().unwrap(), Some((Offset(78), 1390)));
    };
    check(&log);
    node.run();
    let node = Node::open(&node.power_loss());
    check(&node.log(0));
    let log = node.log(0);
    log.truncate_to(Offset(51)).unwrap();
    assert_eq!(log.max_timestamp().unwrap(), Some((Offset(48), 1240)));
    log.advance_log_start(Offset(11)).unwrap();
    assert_eq!(log.offset_for_timestamp(0).unwrap(), Some((Offset(11), 1050)));
}

#[test]
fn log_append_time_replaces_the_producers_timestamps() {
    let node = Node::open(&SimDisk::new(1));
    let config = LogConfig { message_timestamp_type: TimestampType::LogAppendTime, ..log_config() };
    let log = node.store.open_log(tp(0), &config).unwrap();
    let appended = log.append_as_leader(&batch_with(1, 2, 10, None, 5), LeaderEpoch(1), NOW + 7).unwrap();
    assert_eq!(appended.log_append_time, Some(NOW + 7));
    assert_eq!(log.offset_for_timestamp(NOW).unwrap(), Some((Offset(0), NOW + 7)));
    check_consistent(&log);
}

#[test]
fn an_idempotent_producer_is_recognised_after_every_kind_of_restart_and_after_rolls() {
    let disk = SimDisk::new(1);
    let mut node = Node::open(&disk);
    let batch = |n: i32| batch_with(n as u64, 2, 700, Some((9, 3, n * 2)), NOW);
    for n in 0..12 {
        let log = node.log(0);
        log.append_as_leader(&batch(n), LeaderEpoch(1), NOW).unwrap();
        node.run();
        node = match n % 4 {
            0 => Node::open(&node.power_loss()),
            1 => Node::open(&node.kill()),
            2 => {
                node.store.close_clean(None).unwrap();
                drop(node);
                Node::open(&disk)
            }
            _ => node,
        };
        let log = node.log(0);
        for back in 0..5.min(n + 1) {
            let again = log.append_as_leader(&batch(n - back), LeaderEpoch(1), NOW);
            let expected = Offset(i64::from(n - back) * 2);
            assert!(
                matches!(again, Err(AppendError::Duplicate { base_offset, .. }) if base_offset == expected),
                "{n} {back}: {again:?}"
            );
        }
        let gap = log.append_as_leader(&batch(n + 2), LeaderEpoch(1), NOW);
        assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { .. })), "{gap:?}");
    }
    // Truncated with the log: what was cut may be written again.
    let log = node.log(0);
    log.truncate_to(Offset(20)).unwrap();
    log.append_as_leader(&batch(10), LeaderEpoch(2), NOW).unwrap();
    assert_eq!(log.log_end(), Offset(22));
}

#[test]
fn directories_that_no_checkpoint_knows_are_reported_and_never_deleted() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 1);
    node.checkpoint();
    let name = format!("{:032x}-5", 0xabc);
    disk.create_dir_all(Path::new("/data/logs/lost+found")).unwrap();
    disk.create_dir_all(&Path::new("/data/logs").join(&name)).unwrap();
    let file = Path::new("/data/logs").join(&name).join("00000000000000000000-00000001.log");
    disk.write_file_atomically(&file, b"something").unwrap();
    let node = Node::open(&node.kill());
    assert_eq!(node.report.unknown, vec![name.clone(), "lost+found".to_owned()]);
    assert!(node.store.quarantine_unknown("lost+found").unwrap());
    assert!(!node.store.quarantine_unknown("lost+found").unwrap());
    assert!(disk.exists(Path::new("/data/orphaned/lost+found.0")).unwrap());
    // A log of that name begins empty, and the bytes are kept.
    assert_eq!(append(&node, 5, 1, 1), Offset(0));
    let kept =
        Path::new("/data/orphaned").join(format!("{name}.0")).join("00000000000000000000-00000001.log");
    assert_eq!(disk.read_file(&kept, 100).unwrap(), b"something");
    node.checkpoint();
    let node = Node::open(&node.power_loss());
    assert_eq!(node.report.unknown, Vec::<String>::new());
    assert_eq!(check_consistent(&node.log(5)).end, 1);
}

#[test]
fn a_quarantined_log_is_moved_with_all_its_bytes_and_a_new_one_begins_empty() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 3);
    let log = node.log(0);
    assert!(node.store.quarantine_log(tp(0)));
    assert!(!node.store.quarantine_log(tp(0)));
    assert!(matches!(log.read(Offset(0), 1, true, Offset(3)), Err(ReadError::Deleted)));
    assert_eq!(append(&node, 0, 2, 1), Offset(0));
    node.checkpoint();
    let node = Node::open(&node.power_loss());
    assert_eq!(see(&node.log(0)).batches[0].id, 2);
    let orphans = |disk: &SimDisk| {
        let files = disk.files().into_iter();
        files.filter(|(path, len)| path.starts_with("/data/orphaned") && *len > 900).count()
    };
    assert_eq!(orphans(&disk), 1);
}

#[test]
fn a_deleted_log_takes_nothing_and_its_files_go() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 3);
    node.checkpoint();
    let log = node.log(0);
    assert!(node.store.delete_log(tp(0)));
    let refused = log.append_as_leader(&batch(1, 1, 1), LeaderEpoch(1), NOW);
    assert!(matches!(refused, Err(AppendError::Deleted)));
    node.run();
    assert!(!disk.dump().contains("/logs/"), "{}", disk.dump());
    let node = Node::open(&node.power_loss());
    assert_eq!(node.store.logs(), vec![]);
    assert_eq!(node.report.unknown, Vec::<String>::new());
}

#[test]
fn the_journal_is_used_again_and_does_not_grow() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    for id in 0..300 {
        append(&node, id as i32 % 3, id, 3);
        if id % 5 == 0 {
            node.run();
        }
    }
    node.run();
    let journal: Vec<_> =
        disk.files().into_iter().filter(|(path, _)| path.starts_with("/data/journal")).collect();
    assert!(journal.len() <= 4, "{journal:?}");
    assert!(journal.iter().all(|(_, len)| *len <= 56 << 10), "{journal:?}");
    let node = Node::open(&node.power_loss());
    for n in 0..3 {
        assert_eq!(check_consistent(&node.log(n)).end, 300);
    }
}

#[test]
fn real_files_and_real_threads_do_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let config = || StoreConfig { reserved_bytes: 0, journal_file_bytes: 4 << 20, ..store_config() };
    let open = || {
        let host = ThreadHost::new(Arc::new(|worker, error| panic!("{worker}: {error}")));
        let (store, report) = Store::open(Arc::new(RealDisk::new()), &root, config(), &host, NOW).unwrap();
        (host, store, report)
    };
    let config_of_log = LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() };
    let (host, store, _) = open();
    let flushed = Arc::new(Mutex::new(std::collections::BTreeMap::new()));
    for n in 0..4 {
        let log = store.open_log(tp(n), &config_of_log).unwrap();
        let flushed = flushed.clone();
        log.set_flush_listener(Arc::new(move |to| {
            flushed.lock().insert(n, to.end);
        }));
    }
    for id in 0..400 {
        let log = store.get(tp(id % 4)).unwrap();
        log.append_as_leader(&batch(id as u64, 10, 4000), LeaderEpoch(1), NOW).unwrap();
    }
    let all = || (0..4).all(|n| flushed.lock().get(&n) == Some(&Offset(1000)));
    for _ in 0..2000 {
        if all() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(all(), "everything is flushed at last: {:?}", flushed.lock());
    assert!(matches!(
        Store::open(Arc::new(RealDisk::new()), &root, config(), &ManualHost::new(), NOW).map(|_| ()),
        Err(OpenError::Locked { .. })
    ));
    host.stop();
    drop((store, host));
    let (host, store, report) = open();
    assert!(!report.clean && report.damaged.is_empty() && !report.torn_tail, "{report:?}");
    for n in 0..4 {
        assert_eq!(check_consistent(&store.open_log(tp(n), &config_of_log).unwrap()).end, 1000);
    }
    store.close_clean(Some(BrokerEpoch(3))).unwrap();
    host.stop();
    drop((store, host));
    let (_host, store, report) = open();
    assert!(report.clean && report.replayed == 0, "{report:?}");
    assert_eq!(store.clean_epoch(), Some(BrokerEpoch(3)));
    for n in 0..4 {
        assert_eq!(check_consistent(&store.open_log(tp(n), &config_of_log).unwrap()).end, 1000);
    }
}
