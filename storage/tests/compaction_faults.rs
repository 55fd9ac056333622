//! Compaction when something gets in its way: crashes, damage, a full disk, a log that changes; and a follower that lags.

mod common;
mod keyed;

use common::{NOW, Node, tp};
use keyed::{Keyed, TOMBSTONES_MS, config, files, keyed, read_all, rounds};
use std::sync::Arc;
use strandline_record::{BatchHeader, Compression, Offset};
use strandline_storage::disk::sim::{SimFault, SimOp};
use strandline_storage::disk::{Disk, OpenMode, SimDisk};
use strandline_storage::{LogConfig, PartitionLog};

#[test]
fn damage_that_a_pass_meets_marks_the_log_and_nothing_is_dropped() {
    for damage in ["bit", "epoch", "missing"] {
        let mut it = keyed();
        rounds(&mut it, 0..5, 20);
        it.checkpoint().unwrap();
        let before = files(&it.node.disk, "log");
        let disk = it.node.disk.clone();
        let (path, _) = disk
            .files()
            .into_iter()
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "log"))
            .nth(1)
            .expect("there are several segments");
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        match damage {
            "bit" => file.write_all_at(&[std::io::IoSlice::new(b"?")], 200).unwrap(),
            // Outside the checksum.
            "epoch" => file.write_all_at(&[std::io::IoSlice::new(&[0, 0, 0, 9])], 12).unwrap(),
            _ => file.set_len(10).unwrap(),
        }
        it.compact().unwrap();
        let log = it.log();
        let from = log.damaged().expect("it was found");
        assert!(Offset::ZERO < from && from < log.log_end(), "{damage}: {from}");
        assert_eq!(it.node.store.compaction_stats().passes, 0);
        assert!(before.iter().all(|name| files(&disk, "log").contains(name)), "{damage}: the bytes are kept");
        // Cut there as any damaged log; and the rest can be compacted.
        assert!(log.repair().unwrap() <= from);
        it.written.retain(|record| record.offset < log.log_end().get());
        it.check();
    }
}

#[test]
fn a_pass_ends_when_the_log_changes_under_it() {
    type Change = fn(&Keyed);
    let changes: [(&str, Change); 4] = [
        ("cut", |it| assert!(it.log().truncate_to(Offset(30)).unwrap() <= Offset(30))),
        ("begun again", |it| it.log().reset_to(Offset(7)).unwrap()),
        ("deleted from the front", |it| it.log().advance_log_start(Offset(60)).unwrap()),
        ("deleted", |it| assert!(it.node.store.delete_log(tp(0)))),
    ];
    for (name, change) in changes {
        // However far it has come.
        for turns in 1..60 {
            let mut it = keyed();
            rounds(&mut it, 0..5, 20);
            it.log().set_retention_bound(it.log().flushed_end());
            let turn = |it: &Keyed, look| {
                it.node.store.compact(NOW, 500, look);
                it.node.host.run_named("compaction").unwrap();
            };
            (0..turns).for_each(|n| turn(&it, n == 0));
            let state = || it.node.store.get(tp(0)).map(|log| (log.log_start(), log.log_end()));
            change(&it);
            let after = state();
            (0..200).for_each(|_| turn(&it, false));
            assert_eq!(state(), after, "{name} after {turns} turns");
            if let Some(log) = it.node.store.get(tp(0)) {
                assert!(log.compacted_to() <= log.log_end());
                if name == "cut" {
                    // Below the high watermark, as after an unclean election: what the cut records had superseded may
                    // be gone. What is there is whole.
                    read_all(&log);
                } else {
                    it.written.retain(|record| record.offset < log.log_end().get());
                    it.check();
                }
            }
            it.checkpoint().unwrap();
            let disk = it.node.disk.clone();
            disk.power_loss();
            let node = Node::open(&disk);
            assert_eq!(node.report.damaged, []);
            assert_eq!(node.store.get(tp(0)).map(|log| (log.log_start(), log.log_end())), after);
            let listed = files(&disk, "log").len();
            node.checkpoint();
            assert!(files(&disk, "log").len() <= listed);
        }
    }
}

#[test]
fn a_follower_takes_the_rest_of_a_filler_that_begins_before_its_end() {
    let mut leader = keyed();
    rounds(&mut leader, 0..5, 8);
    let follower = Node::open(&SimDisk::new(2));
    let log = follower.store.open_log(tp(0), &config()).unwrap();
    let fetch = |until: Offset| {
        while log.log_end() < until {
            let read = leader_read(&leader.log(), log.log_end(), until);
            log.append_as_follower(&read, NOW).unwrap();
        }
    };
    // It has what is superseded now.
    fetch(Offset(13));
    assert_eq!(log.log_end(), Offset(13));
    rounds(&mut leader, 0..5, 12);
    leader.compact().unwrap();
    let leaders = leader.log();
    let first = leader_read(&leaders, Offset(13), leaders.log_end());
    let header = BatchHeader::parse(&first).unwrap();
    assert!(header.is_filler() && header.base_offset() < Offset(13), "{header:?}");
    let fetch = |until: Offset| {
        while log.log_end() < until {
            log.append_as_follower(&leader_read(&leaders, log.log_end(), until), NOW).unwrap();
        }
    };
    fetch(leaders.log_end());
    let last = |log: &Arc<PartitionLog>| {
        read_all(log).into_iter().map(|seen| (seen.key, seen)).collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(last(&log), last(&leaders), "each key's last value is the same");
    // Compacted here too; and after a loss of power as before.
    follower.run();
    log.set_retention_bound(log.log_end());
    follower.store.compact(NOW, 1 << 30, true);
    follower.run();
    assert_eq!(last(&log), last(&leaders));
    assert_eq!(log.truncate_to(log.compacted_to()).unwrap(), log.compacted_to());
    let end = log.log_end();
    follower.run();
    let follower = Node::open(&follower.power_loss());
    assert_eq!(follower.store.get(tp(0)).unwrap().log_end(), end);
}

fn leader_read(log: &Arc<PartitionLog>, from: Offset, upto: Offset) -> bytes::Bytes {
    log.read(from, 400, true, upto).unwrap().bytes
}

#[test]
fn a_full_disk_puts_compaction_off() {
    let mut it = keyed();
    rounds(&mut it, 0..5, 20);
    it.node.disk.set_capacity(Some(it.node.disk.used_bytes() + (64 << 10)));
    let before = files(&it.node.disk, "log");
    it.compact().unwrap();
    let stats = it.node.store.compaction_stats();
    assert_eq!((stats.passes, stats.abandoned, stats.errors), (0, 1, 1));
    assert_eq!(files(&it.node.disk, "log"), before);
    it.node.disk.set_capacity(None);
    it.compact().unwrap();
    it.check();
    assert!(it.node.store.compaction_stats().passes > 0);
}

#[test]
fn a_log_without_the_journal_is_what_it_was_when_the_process_dies_at_a_compaction() {
    let os = LogConfig { flush: strandline_storage::FlushMode::Os, ..config() };
    // However many operations of the disk it comes to.
    for at in 0..40 {
        let mut it = keyed();
        it.config = os.clone();
        it.log();
        it.checkpoint().unwrap();
        rounds(&mut it, 0..5, 20);
        let disk = it.node.disk.clone();
        it.log().set_retention_bound(Offset(100));
        disk.set_crash_at_op(disk.op_count() + at);
        it.node.store.compact(NOW, 1 << 30, true);
        let _ = it.node.host.run_all();
        disk.crash();
        let it = it.reopen(&disk);
        assert_eq!(it.log().log_end(), Offset(100), "the process alone loses nothing (crash at {at})");
    }
}

#[test]
fn a_crash_anywhere_in_compacting_leaves_the_old_or_the_new_state() {
    let script = |it: &mut Keyed| -> Option<()> {
        for round in 0..3 {
            for n in 0..14u8 {
                let codec = Compression::from_id(n % 5).expect("a codec");
                it.append(&[(n % 3, n % 7 == 6), (n, false)], codec, Some(i64::from(n % 2)))?;
            }
            it.flush()?;
            if round != 1 {
                it.checkpoint()?;
            }
            it.now += TOMBSTONES_MS;
            it.compact()?;
            it.epoch += 1;
        }
        it.checkpoint()
    };
    let plain = SimDisk::new(0);
    let mut it = Keyed::open(&plain).unwrap();
    script(&mut it).expect("nothing fails without a crash");
    it.check();
    assert!(it.node.store.compaction_stats().segments_replaced > 5);
    let operations = plain.op_count();
    for crash_at in 0..operations {
        let disk = SimDisk::new(crash_at * 7919);
        disk.set_crash_at_op(crash_at);
        let Some(mut it) = Keyed::open(&disk) else { continue };
        let _ = script(&mut it);
        assert!(disk.is_crashed(), "operation {crash_at} is reached");
        let flushed = it.node.store.get(tp(0)).map_or(Offset::ZERO, |log| log.flushed_end());
        // Only the process, or the machine too.
        if crash_at % 3 == 0 {
            disk.crash()
        } else {
            disk.power_loss()
        }
        let mut it = it.reopen(&disk);
        assert_eq!(it.node.report.damaged, [], "crash at {crash_at}");
        assert!(it.log().log_end() >= flushed, "crash at {crash_at}");
        rounds(&mut it, 0..5, 20);
        it.compact().unwrap();
        it.check();
        it.checkpoint().unwrap();
        let listed = files(&disk, "log");
        disk.power_loss();
        it.reopen(&disk);
        assert_eq!(files(&disk, "log"), listed, "no file is left over (crash at {crash_at})");
    }
}

#[test]
fn what_cannot_be_written_aside_is_given_up_and_a_failed_sync_of_it_ends_the_process() {
    // Names of files that compaction writes.
    let aside = "-5000";
    for (fault, fatal) in [
        (SimFault::eio(SimOp::Create), false),
        (SimFault::eio(SimOp::Write), false),
        (SimFault::enospc(SimOp::Write), false),
        (SimFault::eio(SimOp::Sync), true),
    ] {
        let name = format!("{fault:?}");
        let mut it = keyed();
        rounds(&mut it, 0..5, 20);
        it.node.disk.inject(fault.on(aside));
        assert_eq!(it.compact().is_none(), fatal, "{name}");
        assert_eq!(it.node.store.is_failed(), fatal, "{name}");
        if !fatal {
            let stats = it.node.store.compaction_stats();
            assert_eq!((stats.passes, stats.abandoned, stats.errors), (0, 1, 1), "{name}");
            it.check();
            assert!(files(&it.node.disk, "log").iter().all(|file| !file.contains(aside)), "{name}");
            it.compact().unwrap();
            assert!(it.node.store.compaction_stats().passes > 0, "{name}");
        }
        let disk = it.node.disk.clone();
        disk.power_loss();
        it.reopen(&disk);
    }
}
