//! A store is open before its first checkpoint: what holds until that is durable, and through how many starts.

mod common;

use common::*;
use strandline_record::{LeaderEpoch, Offset};
use strandline_storage::disk::SimDisk;
use strandline_storage::disk::sim::{SimFault, SimOp, Unsynced};
use strandline_storage::{FlushMode, LogConfig};

fn append(node: &Node, log: i32, id: u64, size: usize) {
    node.log(log).append_as_leader(&batch(id, 1, size), LeaderEpoch(1), NOW).unwrap();
}

fn flush(node: &Node) {
    node.host.run_named("journal").unwrap();
}

fn ids(node: &Node, log: i32) -> Vec<u64> {
    check_consistent(&node.log(log)).batches.iter().map(|batch| batch.id).collect()
}

/// Opens, and says how often the whole file system was synced for that.
fn open_counting(disk: &SimDisk) -> (Node, u64) {
    let before = disk.counters().filesystem_syncs;
    let node = Node::open(disk);
    (node, disk.counters().filesystem_syncs - before)
}

#[test]
fn after_a_crash_a_store_is_open_before_everything_is_synced_and_all_is_soon_after() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    for log in 0..50 {
        append(&node, log, 1, 500);
    }
    flush(&node);
    let disk = node.power_loss();
    let (node, syncs) = open_counting(&disk);
    assert_eq!(syncs, 0);
    assert_eq!((node.report.replayed, node.log(7).flushed_end()), (100, Offset(1)));
    let before = disk.counters().filesystem_syncs;
    node.run();
    assert_eq!(disk.counters().filesystem_syncs, before + 1);
    let node = Node::open(&node.power_loss());
    assert_eq!(node.report.replayed, 0, "the checkpoint has it all");
    assert!((0..50).all(|log| ids(&node, log) == [1]));
}

#[test]
fn where_the_journal_is_not_all_that_counts_the_checkpoint_comes_first() {
    // The next start would not read the journal.
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 500);
    node.store.close_clean(None).unwrap();
    drop(node);
    let (node, syncs) = open_counting(&disk);
    assert_eq!(syncs, 1);
    append(&node, 0, 2, 500);
    flush(&node);
    let disk = node.power_loss();
    let node = Node::open(&disk);
    assert_eq!(ids(&node, 0), [1, 2]);

    // Batches that are not in the journal were taken in.
    let os = LogConfig { flush: FlushMode::Os, ..log_config() };
    let log = node.store.open_log(tp(0), &os).unwrap();
    node.checkpoint();
    log.append_as_leader(&batch(3, 1, 500), LeaderEpoch(1), NOW).unwrap();
    let (node, syncs) = open_counting(&node.kill());
    assert_eq!(syncs, 1);
    node.disk.power_loss_with(Unsynced::Lost);
    assert_eq!(ids(&Node::open(&node.disk), 0), [1, 2, 3]);
}

#[test]
fn starts_that_die_before_their_first_checkpoint_add_up() {
    for seed in 0..30 {
        let mut disk = SimDisk::new(seed);
        let mut expected = Vec::new();
        for start in 0..12 {
            let node = Node::open(&disk);
            assert_eq!((&node.report.damaged, node.report.damaged_groups), (&vec![], 0));
            assert_eq!(ids(&node, 0), expected, "seed {seed}, start {start}");
            for id in start * 10..start * 10 + 3 {
                append(&node, 0, id, 3000);
                flush(&node);
                expected.push(id);
            }
            // Once and again a group is torn, and its number used again.
            append(&node, 0, start * 10 + 9, 9000);
            if seed % 3 == 0 {
                disk.set_crash_at_op(disk.op_count() + 1);
                assert!(node.host.run_named("journal").is_err());
            }
            drop(node);
            disk.power_loss();
            let found = ids(&Node::open(&disk), 0);
            assert!(found.starts_with(&expected), "seed {seed}, start {start}: {found:?} after {expected:?}");
            // Whatever survived counts from now on.
            expected = found;
            disk = disk.fork(seed * 100 + start);
        }
        assert!(expected.len() >= 36);
        let files = disk.files().into_iter().filter(|(path, _)| path.to_string_lossy().ends_with(".journal"));
        assert!(
            files.count() <= store_config().journal_files_max + 1,
            "the journal does not grow with each start"
        );
    }
}

#[test]
fn what_a_killed_process_wrote_and_did_not_sync_is_durable_when_it_counts() {
    let mut unsynced = 0;
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let node = Node::open(&disk);
        append(&node, 0, 1, 500);
        flush(&node);
        append(&node, 0, 2, 500);
        // The group is written, and the process dies in the sync.
        let operation = disk.op_count() + 1;
        disk.set_crash_at_op(operation);
        assert!(node.host.run_named("journal").is_err());
        assert_eq!(disk.op_count(), operation + 1);
        let disk = node.kill();
        let lost = disk.fork(seed);
        lost.power_loss_with(Unsynced::Lost);
        unsynced += usize::from(ids(&Node::open(&lost), 0) == [1]);
        let node = Node::open(&disk);
        assert_eq!((ids(&node, 0), node.log(0).flushed_end()), (vec![1, 2], Offset(2)));
        disk.power_loss_with(Unsynced::Lost);
        assert_eq!(ids(&Node::open(&disk), 0), [1, 2]);
    }
    assert!(unsynced > 0, "some syncs were not done");
}

#[test]
fn a_checkpoint_of_a_killed_process_is_durable_when_it_counts() {
    let mut from_the_checkpoint = 0;
    for at in 0..12 {
        let disk = SimDisk::new(at);
        let node = Node::open(&disk);
        append(&node, 0, 1, 500);
        node.checkpoint();
        // In the segment, and not in the journal.
        append(&node, 0, 2, 500);
        node.store.request_checkpoint();
        disk.set_crash_at_op(disk.op_count() + at);
        let _ = node.host.run_named("checkpoint");
        let node = Node::open(&node.kill());
        let found = ids(&node, 0);
        from_the_checkpoint += usize::from(found == [1, 2]);
        disk.power_loss_with(Unsynced::Lost);
        assert_eq!(ids(&Node::open(&disk), 0), found, "it died at operation {at}");
    }
    assert!((1..12).contains(&from_the_checkpoint), "some checkpoints were begun too late and some were not");
}

#[test]
fn a_group_that_could_not_be_synced_is_durable_before_it_counts() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 500);
    flush(&node);
    append(&node, 0, 2, 500);
    disk.inject(SimFault::eio(SimOp::Sync).on(".journal"));
    assert!(node.host.run_named("journal").is_err());
    // The process ends, the machine goes on: its page cache still has the group.
    let disk = node.kill();
    disk.clear_faults();
    let node = Node::open(&disk);
    assert_eq!(ids(&node, 0), [1, 2]);
    assert_eq!(node.log(0).flushed_end(), Offset(2), "it will be acknowledged");
    drop(node);
    disk.power_loss_with(Unsynced::Lost);
    assert_eq!(ids(&Node::open(&disk), 0), [1, 2]);
}

#[test]
fn a_journal_that_cannot_be_synced_is_not_opened() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 500);
    flush(&node);
    let disk = node.kill();
    disk.inject(SimFault::eio(SimOp::Sync).on(".journal"));
    assert!(Node::try_open(&disk).is_err());
}
