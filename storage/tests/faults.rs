//! A disk that refuses: full, failing writes, failing syncs.

mod common;

use common::*;
use std::sync::Arc;
use strandline_record::{LeaderEpoch, Offset};
use strandline_storage::disk::SimDisk;
use strandline_storage::disk::sim::{SimFault, SimOp, Unsynced};
use strandline_storage::{AppendError, DiskState, FlushMode, LogConfig, Store};

fn append(node: &Node, log: i32, id: u64, size: usize) -> Result<Offset, AppendError> {
    let appended = node.log(log).append_as_leader(&batch(id, 1, size), LeaderEpoch(1), NOW)?;
    Ok(appended.base_offset)
}

#[test]
fn a_failed_sync_of_the_journal_is_fatal_never_retried_and_acknowledges_nothing() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 10).unwrap();
    node.run();
    assert_eq!(node.log(0).flushed_end(), Offset(1));
    append(&node, 0, 2, 10).unwrap();
    disk.inject(SimFault::eio(SimOp::Sync).on("journal"));
    let syncs = disk.counters().syncs;
    let error = node.host.run_all().unwrap_err();
    assert!(error.to_string().contains("sync failed"), "{error}");
    assert!(node.store.is_failed());
    assert_eq!(node.log(0).flushed_end(), Offset(1), "a sync that failed acknowledges nothing");
    assert!(matches!(append(&node, 0, 3, 10), Err(AppendError::Failed(_))));
    let _ = node.host.run_all();
    assert_eq!(disk.counters().syncs, syncs + 1, "it is not tried again");
    let node = Node::open(&node.power_loss());
    let state = check_consistent(&node.log(0));
    assert!(state.end == 1 || state.end == 2);
}

#[test]
fn a_failed_sync_of_a_segment_is_fatal() {
    for fault in [SimFault::eio(SimOp::Sync).on(".log"), SimFault::eio(SimOp::SyncDir).on("logs")] {
        let disk = SimDisk::new(1);
        let node = Node::open(&disk);
        append(&node, 0, 1, 10).unwrap();
        node.run();
        disk.inject(fault);
        checkpoint_fails(node);
        assert_eq!(disk.faults_hit(), 1);
    }
}

#[test]
fn a_failed_sync_of_the_file_system_is_fatal() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    for log in 0..5 {
        append(&node, log, 1, 10).unwrap();
    }
    node.run();
    disk.inject(SimFault::eio(SimOp::SyncFilesystem));
    checkpoint_fails(node);
    assert_eq!(disk.faults_hit(), 1);
}

fn checkpoint_fails(node: Node) {
    node.store.request_checkpoint();
    assert!(node.host.run_all().is_err());
    assert!(node.store.is_failed());
    let node = Node::open(&node.power_loss());
    assert_eq!(check_consistent(&node.log(0)).end, 1, "the journal still has it");
}

#[test]
fn a_failed_write_ends_the_process_as_a_failed_sync_does() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 10).unwrap();
    node.run();
    disk.inject(SimFault::eio(SimOp::Write).on(".log"));
    assert!(matches!(append(&node, 0, 2, 10), Err(AppendError::Failed(_))));
    assert!(matches!(append(&node, 0, 3, 10), Err(AppendError::Failed(_))));
    assert!(matches!(append(&node, 1, 4, 10), Err(AppendError::Failed(_))), "no log takes anything");
    assert!(node.store.is_failed());
    let error = node.host.run_all().unwrap_err();
    assert!(error.to_string().contains("(simulated fault) an operation on /data/logs/"), "{error}");
    assert_eq!(see(&node.log(0)).end, 1, "what was there is still read");
    let node = Node::open(&node.power_loss());
    assert_eq!(check_consistent(&node.log(0)).end, 1);
    append(&node, 0, 5, 10).unwrap();
}

#[test]
fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_space() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 10).unwrap();
    node.checkpoint();
    disk.set_capacity(Some(disk.used_bytes() + (1 << 20)));
    let mut appended = 1;
    loop {
        match append(&node, 0, appended + 1, 20_000) {
            Ok(_) => appended += 1,
            Err(AppendError::StorageFull) => break,
            Err(error) => panic!("{error}"),
        }
        node.run();
        assert!(appended < 100, "the disk is full some time");
    }
    assert!(appended > 3);
    assert_eq!(node.store.disk_state(), DiskState::Full);
    assert!(matches!(append(&node, 1, 1, 10), Err(AppendError::StorageFull)), "every log is read-only");
    node.run();
    assert_eq!(see(&node.log(0)).end, appended as i64, "reading goes on");
    disk.set_capacity(None);
    assert_eq!(node.store.disk_state(), DiskState::Ok);
    append(&node, 0, 1_000, 20_000).unwrap();
    node.run();
    let node = Node::open(&node.power_loss());
    assert_eq!(check_consistent(&node.log(0)).end, appended as i64 + 1);
}

#[test]
fn space_that_others_take_and_free_is_noticed_without_a_byte_written() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 10).unwrap();
    node.run();
    let reserved = store_config().reserved_bytes;
    let free = |bytes| disk.set_capacity(Some(disk.used_bytes() + bytes));
    for (bytes, state) in [(reserved, DiskState::Full), (reserved * 2, DiskState::Ok)] {
        free(bytes);
        assert_eq!(node.store.disk_state(), state, "{bytes} free");
        assert_eq!(append(&node, 0, 2, 10).is_ok(), state == DiskState::Ok);
    }
    free(reserved - 4096);
    assert_eq!(node.store.disk_state(), DiskState::Full);
    // What was appended before becomes durable, and a checkpoint is written: that is what the reserve is for.
    node.checkpoint();
    assert_eq!(node.log(0).flushed_end(), node.log(0).log_end());
    assert!(!node.store.is_failed());
    disk.set_capacity(None);
    assert_eq!(node.store.disk_state(), DiskState::Ok);
    append(&node, 0, 3, 10).unwrap();
}

#[test]
fn running_out_of_space_in_mid_roll_loses_nothing_and_invents_nothing() {
    for operation in [SimOp::Create, SimOp::Write] {
        let disk = SimDisk::new(1);
        let node = Node::open(&disk);
        append(&node, 0, 1, 2900).unwrap();
        disk.inject(SimFault::enospc(operation).on(".log"));
        let full = append(&node, 0, 2, 2900);
        assert!(matches!(full, Err(AppendError::StorageFull)), "{full:?}");
        append(&node, 0, 3, 2900).unwrap();
        append(&node, 0, 4, 10).unwrap();
        node.run();
        let ids = |node: &Node| see(&node.log(0)).batches.iter().map(|b| b.id).collect::<Vec<_>>();
        assert_eq!(ids(&node), vec![1, 3, 4]);
        node.checkpoint();
        let node = Node::open(&node.power_loss());
        assert_eq!(ids(&node), vec![1, 3, 4]);
    }
}

#[test]
fn a_journal_without_space_waits_and_goes_on() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 10).unwrap();
    disk.inject(SimFault::enospc(SimOp::Write).on("journal").always());
    node.run();
    assert_eq!(node.log(0).flushed_end(), Offset(0));
    assert!(!node.store.is_failed());
    append(&node, 0, 2, 10).unwrap();
    node.host.pass_period().unwrap();
    assert_eq!(node.log(0).flushed_end(), Offset(0));
    disk.clear_faults();
    node.host.pass_period().unwrap();
    assert_eq!(node.log(0).flushed_end(), Offset(2));
    let node = Node::open(&node.power_loss());
    assert_eq!(check_consistent(&node.log(0)).end, 2);
}

#[test]
fn a_checkpoint_without_space_gives_nothing_up_and_is_tried_again() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    for id in 1..10 {
        append(&node, 0, id, 2000).unwrap();
    }
    node.run();
    node.log(0).advance_log_start(Offset(5)).unwrap();
    let segments =
        || disk.files().iter().filter(|(path, _)| path.to_string_lossy().ends_with(".log")).count();
    let before = segments();
    disk.inject(SimFault::enospc(SimOp::Write).on("checkpoint").always());
    node.store.request_checkpoint();
    node.run();
    assert_eq!(segments(), before, "no file goes before the checkpoint is there");
    disk.clear_faults();
    node.host.pass_period().unwrap();
    assert!(segments() < before);
    let node = Node::open(&node.power_loss());
    assert_eq!(check_consistent(&node.log(0)).start, 5);
}

#[test]
fn writing_goes_on_while_checkpoints_have_no_space_and_the_journal_grows() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    disk.inject(SimFault::enospc(SimOp::Write).on("checkpoint").always());
    for id in 0..40 {
        append(&node, 0, id, 10_000).unwrap();
        node.run();
    }
    assert_eq!(node.log(0).flushed_end(), Offset(40));
    disk.clear_faults();
    let node = Node::open(&node.power_loss());
    assert_eq!(check_consistent(&node.log(0)).end, 40);
}

fn os_log(store: &Arc<Store>, flush: FlushMode) -> Arc<strandline_storage::PartitionLog> {
    store.open_log(tp(0), &LogConfig { flush, ..log_config() }).unwrap()
}

#[test]
fn without_flush_ack_appends_are_flushed_at_once_and_survive_the_death_of_the_process() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let log = os_log(&node.store, FlushMode::Os);
    node.checkpoint();
    for id in 0..10 {
        log.append_as_leader(&batch(id, 1, 900), LeaderEpoch(1), NOW).unwrap();
        assert_eq!(log.flushed_end(), log.log_end());
    }
    let written = disk.counters().bytes_written;
    node.run();
    assert!(disk.counters().bytes_written < written + 2000, "nothing of it goes to the journal");
    log.truncate_to(Offset(7)).unwrap();
    log.append_as_leader(&batch(50, 1, 10), LeaderEpoch(2), NOW).unwrap();
    node.run();
    let node = Node::open(&node.kill());
    let state = check_consistent(&os_log(&node.store, FlushMode::Os));
    assert_eq!(state.batches.iter().map(|b| b.id).collect::<Vec<_>>(), vec![0, 1, 2, 3, 4, 5, 6, 50]);
    // And a prefix of it survives the loss of power.
    let node = Node::open(&node.power_loss());
    let state = check_consistent(&os_log(&node.store, FlushMode::Os));
    assert_eq!(state.end, 8, "the start before has made it durable");
}

#[test]
fn an_interval_syncs_what_was_appended_before_each_file_or_all_at_once() {
    for (logs, (syncs, filesystem_syncs)) in [(1, (1, 0)), (4, (4, 0)), (5, (0, 1))] {
        let disk = SimDisk::new(1);
        let node = Node::open(&disk);
        let logs: Vec<_> = (0..logs).map(|n| interval_log(&node.store, n)).collect();
        let append = |id| {
            for log in &logs {
                log.append_as_leader(&batch(id, 1, 90), LeaderEpoch(1), NOW).unwrap();
            }
        };
        append(1);
        node.checkpoint();
        append(2);
        let before = disk.counters();
        node.host.pass_period().unwrap();
        let after = disk.counters();
        assert_eq!(after.syncs - before.syncs, syncs);
        assert_eq!(after.filesystem_syncs - before.filesystem_syncs, filesystem_syncs);
        node.host.pass_period().unwrap();
        let idle = disk.counters();
        assert_eq!((idle.syncs, idle.filesystem_syncs), (after.syncs, after.filesystem_syncs));
        disk.power_loss_with(Unsynced::Lost);
        let reopened = Node::open(&disk);
        for n in 0..logs.len() {
            assert_eq!(check_consistent(&interval_log(&reopened.store, n as i32)).end, 2);
        }
    }
}

fn interval_log(store: &Arc<Store>, n: i32) -> Arc<strandline_storage::PartitionLog> {
    let flush = FlushMode::Interval(std::time::Duration::from_millis(50));
    store.open_log(tp(n), &LogConfig { flush, ..log_config() }).unwrap()
}

#[test]
fn after_a_change_to_flush_ack_the_flushed_end_waits_for_what_was_appended_before() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let log = os_log(&node.store, FlushMode::Os);
    node.checkpoint();
    log.append_as_leader(&batch(1, 1, 900), LeaderEpoch(1), NOW).unwrap();
    os_log(&node.store, FlushMode::Ack);
    log.append_as_leader(&batch(2, 1, 900), LeaderEpoch(1), NOW).unwrap();
    node.host.run_named("journal").unwrap();
    assert_eq!(log.flushed_end(), Offset(1), "the batch before it is not durable yet");
    node.run();
    assert_eq!(log.flushed_end(), Offset(2));
    let node = Node::open(&node.power_loss());
    assert_eq!(check_consistent(&os_log(&node.store, FlushMode::Ack)).end, 2);
}

#[test]
fn a_disk_that_others_filled_to_the_last_byte_gets_space_from_a_deleted_log() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    append(&node, 0, 1, 20_000).unwrap();
    append(&node, 1, 1, 10).unwrap();
    node.checkpoint();
    // Not a byte is free: the checkpoint that no longer lists the log has to come from somewhere.
    disk.set_capacity(Some(disk.used_bytes()));
    assert_eq!(node.store.disk_state(), DiskState::Full);
    let before = disk.used_bytes();
    assert!(node.store.delete_log(node.log(0).topic_partition()));
    node.checkpoint();
    assert!(disk.used_bytes() < before - 20_000, "the log's files are gone");
    assert!(!node.store.is_failed());
    // Once there is room again the space is set aside again, for the next time.
    disk.set_capacity(None);
    node.checkpoint();
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(node.store.delete_log(node.log(1).topic_partition()));
    let before = disk.used_bytes();
    node.checkpoint();
    assert!(disk.used_bytes() < before);
    let node = Node::open(&node.power_loss());
    assert!(node.store.logs().is_empty());
}
