//! Bits that flip, files that vanish: damage is found, marked durably and repaired, and no wrong byte is ever
//! served.

mod common;

use common::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use strandline_record::{LeaderEpoch, Offset};
use strandline_storage::disk::sim::Unsynced;
use strandline_storage::disk::{Disk, OpenMode, SimDisk};
use strandline_storage::{AppendError, OpenError, ReadError, RecoveryReport, ScrubCursor};

fn files(disk: &SimDisk, contains: &str) -> Vec<(PathBuf, u64)> {
    disk.files().into_iter().filter(|(path, _)| path.to_string_lossy().contains(contains)).collect()
}

/// A store with one log of ten batches of two records in several closed segments and one active, checkpointed.
fn checkpointed() -> Modelled {
    let mut it = Modelled::open(&SimDisk::new(5)).expect("it opens");
    for _ in 0..10 {
        it.append(0, 2, 500).unwrap();
    }
    it.flush().unwrap();
    it.checkpoint().unwrap();
    it
}

#[test]
fn a_flipped_bit_in_a_segment_is_noticed_by_the_reader_marked_durably_and_repaired() {
    let it = checkpointed();
    let disk = it.node.kill();
    let segments = files(&disk, ".log");
    assert!(segments.len() > 2);
    disk.flip_bit(&segments[1].0, segments[1].1 / 2 + 40, 3).unwrap();

    let node = Node::open(&disk);
    assert_eq!(node.report.damaged, vec![], "a start does not read whole segments");
    let log = node.log(0);
    let (mut from, end) = (Offset(0), log.log_end());
    let damaged_from = loop {
        match log.read(from, 4000, true, end) {
            Ok(read) => from = read.next_offset,
            Err(ReadError::Damaged { from }) => break from,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(damaged_from, from, "everything before the damage was served");
    assert!(Offset(0) < from && from < end);
    assert!(matches!(log.read(Offset(0), 100, true, end), Err(ReadError::Damaged { .. })), "nothing more is");
    let append = log.append_as_leader(&batch(99, 1, 1), LeaderEpoch(9), NOW);
    assert!(matches!(append, Err(AppendError::Damaged { .. })), "{append:?}");

    node.run();
    let node = Node::open(&node.power_loss());
    assert_eq!(node.report.damaged.iter().map(|d| (d.tp, d.from)).collect::<Vec<_>>(), vec![(tp(0), from)]);
    let log = node.log(0);
    assert_eq!(log.damaged(), Some(from));
    assert_eq!(log.repair().unwrap(), from);
    assert_eq!(log.damaged(), None);
    let refetched = stamped(&batch(50, 4, 10), from.get(), 3);
    log.append_as_follower(&refetched, NOW).unwrap();
    node.run();
    let node = Node::open(&node.power_loss());
    let state = check_consistent(&node.log(0));
    assert_eq!(state.end, from.get() + 4);
    assert_eq!(state.batches.last().map(|last| last.id), Some(50));
}

#[test]
fn the_scrub_finds_damage_in_closed_segments_within_its_budget() {
    let it = checkpointed();
    let disk = it.node.kill();
    let segments = files(&disk, ".log");
    disk.flip_bit(&segments[2].0, segments[2].1 - 10, 0).unwrap();
    let node = Node::open(&disk);
    let mut cursor = ScrubCursor::default();
    let mut found = Vec::new();
    let mut calls = 0;
    while found.is_empty() {
        found = node.store.scrub_some(&mut cursor, 1000);
        calls += 1;
        assert!(calls < 100, "the scrub comes around");
    }
    assert!(calls > 2, "one call reads no more than it may");
    assert_eq!(found[0].tp, tp(0));
    assert_eq!(node.log(0).damaged(), Some(found[0].from));
}

#[test]
fn a_missing_or_short_segment_is_damage_from_where_it_ends() {
    let it = checkpointed();
    let disk = it.node.kill();
    let segments = files(&disk, ".log");
    let missing = disk.fork(1);
    missing.remove_file(&segments[1].0).unwrap();
    let node = Node::open(&missing);
    let from = node.report.damaged[0].from;
    assert_eq!(node.log(0).repair().unwrap(), from);
    let state = check_consistent(&node.log(0));
    assert!(0 < state.end && state.end == from.get());

    let short = disk.fork(2);
    let file = short.open(&segments[1].0, OpenMode::ReadWrite).unwrap();
    file.set_len(segments[1].1 - 1).unwrap();
    let node = Node::open(&short);
    assert!(node.report.damaged[0].from > from, "the whole batches before are kept");
}

/// Three groups in the journal: all logs, then the middle, then `last`. Returns the node after power loss.
fn with_damaged_middle(offset_in_group: u64, last: &[i32]) -> (Node, RecoveryReport) {
    let mut it = Modelled::open(&SimDisk::new(5)).unwrap();
    for log in 0..4 {
        it.append(log, 1, 100).unwrap();
    }
    it.flush().unwrap();
    it.append(1, 1, 100).unwrap();
    it.append(2, 1, 100).unwrap();
    it.flush().unwrap();
    for log in last {
        it.append(*log, 1, 100).unwrap();
    }
    it.flush().unwrap();
    let disk = it.node.disk.clone();
    drop(it);
    disk.power_loss_with(Unsynced::Lost);
    let journal = files(&disk, ".journal");
    // Groups begin at multiples of 4096; the first one has four creations and four appends.
    disk.flip_bit(&journal[0].0, 4096 + offset_in_group, 1).unwrap();
    let node = Node::open(&disk);
    let report = node.report.clone();
    (node, report)
}

#[test]
fn a_damaged_payload_in_the_journal_marks_the_log_that_it_belongs_to() {
    // Header and a table of two entries, then the payloads.
    let (node, report) = with_damaged_middle(64 + 2 * 64 + 70, &[0, 1, 2]);
    assert_eq!(report.damaged.iter().map(|d| (d.tp, d.from)).collect::<Vec<_>>(), vec![(tp(1), Offset(1))]);
    assert!(!report.torn_tail);
    for log in [0, 2] {
        check_consistent(&node.log(log));
    }
    assert_eq!(node.log(2).log_end(), Offset(3));
    assert_eq!(node.log(0).log_end(), Offset(2));
}

#[test]
fn damage_in_the_journal_is_not_found_again_after_the_repair() {
    let (node, report) = with_damaged_middle(64 + 2 * 64 + 70, &[0, 1, 2]);
    assert_eq!(report.damaged.len(), 1);
    let log = node.log(1);
    let end = log.repair().unwrap();
    log.append_as_follower(&stamped(&batch(50, 4, 10), end.get(), 3), NOW).unwrap();
    node.host.run_named("journal").unwrap();
    let node = Node::open(&node.power_loss());
    assert_eq!((node.report.damaged.clone(), node.report.damaged_groups), (vec![], 0));
    assert_eq!(check_consistent(&node.log(1)).end, end.get() + 4);
}

#[test]
fn a_damaged_table_in_the_journal_marks_every_log_that_is_not_known_to_be_whole() {
    let (node, report) = with_damaged_middle(64 + 20, &[0, 1]);
    // 0 was written to again and its chain has no gap; 1 has one; of 2 and 3 nothing is known.
    let expected = vec![(tp(1), Offset(1)), (tp(2), Offset(1)), (tp(3), Offset(1))];
    assert_eq!(report.damaged.iter().map(|d| (d.tp, d.from)).collect::<Vec<_>>(), expected);
    assert_eq!(report.damaged_groups, 1);
    assert_eq!(check_consistent(&node.log(0)).end, 2);
}

#[test]
fn a_torn_last_group_is_cut_and_no_damage() {
    let mut it = Modelled::open(&SimDisk::new(5)).unwrap();
    it.append(0, 1, 100).unwrap();
    it.flush().unwrap();
    it.append(0, 1, 6000).unwrap();
    it.flush().unwrap();
    let disk = it.node.disk.clone();
    drop(it);
    disk.power_loss_with(Unsynced::Lost);
    let journal = files(&disk, ".journal");
    disk.flip_bit(&journal[0].0, 4096 + 5000, 1).unwrap();
    let node = Node::open(&disk);
    assert!(node.report.torn_tail);
    assert_eq!(node.report.damaged, vec![]);
    assert_eq!(check_consistent(&node.log(0)).end, 1);
}

#[test]
fn a_missing_or_garbled_index_is_rebuilt() {
    let it = checkpointed();
    let expected = it.logs[&0].current().clone();
    let (disk, _) = it.close().unwrap();
    let indexes = files(&disk, ".index");
    assert!(indexes.len() > 2, "closed segments and the active one have an index");
    for (n, (path, len)) in indexes.iter().enumerate() {
        if n % 2 == 0 {
            disk.remove_file(path).unwrap();
        } else {
            disk.flip_bit(path, len / 2, 5).unwrap();
        }
    }
    let node = Node::open(&disk);
    assert_eq!(Some(check_consistent(&node.log(0))), expected);
    check_producer(&node.log(0), 0, expected.as_ref().unwrap());
}

#[test]
fn one_damaged_checkpoint_file_is_healed_and_two_stop_the_start() {
    let it = checkpointed();
    let expected = it.logs[&0].current().clone();
    let disk = it.node.kill();
    for name in ["/data/checkpoint", "/data/checkpoint.copy"] {
        let disk = disk.fork(3);
        disk.flip_bit(Path::new(name), 30, 2).unwrap();
        let node = Node::open(&disk);
        assert_eq!(node.report.damaged_checkpoints, 1);
        assert_eq!(Some(check_consistent(&node.log(0))), expected);
        let node = Node::open(&node.kill());
        assert_eq!(node.report.damaged_checkpoints, 0);
    }
    disk.flip_bit(Path::new("/data/checkpoint"), 30, 2).unwrap();
    disk.flip_bit(Path::new("/data/checkpoint.copy"), 31, 2).unwrap();
    let before = disk.dump();
    let error = Node::try_open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::Unreadable { path, .. } if path.ends_with("checkpoint")), "{error}");
    assert_eq!(disk.dump(), before, "the bytes are kept");
}

#[test]
fn a_damaged_meta_file_stops_the_start() {
    let it = checkpointed();
    let disk = it.node.kill();
    disk.flip_bit(Path::new("/data/meta"), 30, 2).unwrap();
    let error = Node::try_open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::Unreadable { path, .. } if path.ends_with("meta")), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_rots_nothing_is_served_that_was_not_written(
        seed: u64,
        appends in proptest::collection::vec((0..3i32, 1..4i32, 0..2500usize, 0..6u8), 5..40),
        flips in 1..6usize,
        place in prop_oneof![Just("journal/"), Just("logs/"), Just(".log"), Just(".index"), Just("/data/")],
        power_loss: bool,
    ) {
        let mut it = Modelled::open(&SimDisk::new(seed)).unwrap();
        for (log, count, size, then) in appends {
            it.append(log, count, size).unwrap();
            match then {
                0 | 1 => it.flush().unwrap(),
                2 => it.checkpoint().unwrap(),
                3 => {
                    let end = it.logs[&log].current().as_ref().map_or(0, |state| state.end);
                    it.truncate(log, end - 2).unwrap();
                }
                _ => {}
            }
        }
        let logs = it.logs.clone();
        let disk = if power_loss { it.node.power_loss() } else { it.node.kill() };
        disk.rot(place, flips);
        let node = match Node::try_open(&disk) {
            Ok(node) => node,
            Err(OpenError::Unreadable { .. }) => return Ok(()),
            Err(error) => panic!("{error}"),
        };
        for (n, history) in &logs {
            let Some(log) = node.store.get(tp(*n)) else { continue };
            // Read until the damage is seen and mended; it may be in several places.
            for _ in 0..20 {
                if log.damaged().is_some() {
                    log.repair().unwrap();
                }
                let (mut from, end) = (log.log_start(), log.log_end());
                while from < end {
                    match log.read(from, 1000, true, end) {
                        Ok(read) => {
                            prop_assert!(read.next_offset > from, "reading gets on");
                            from = read.next_offset;
                        }
                        Err(ReadError::Damaged { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                if log.damaged().is_none() {
                    break;
                }
            }
            let found = check_consistent(&log);
            let known = history.states.iter().flatten().any(|state| {
                state.start <= found.start && found.batches.iter().all(|batch| state.batches.contains(batch))
            });
            prop_assert!(known, "log {n} came back as {found:#?}");
        }
    }
}
