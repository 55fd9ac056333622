//! A crash with loss of power at every single mutating operation of scripted sequences, and again at the
//! operations of the recovery that follows: what comes back is the state before or after an operation,
//! nothing flushed is missing, and there is never a third state.

mod common;

use common::{DiskCrashed, Modelled, NOW, Node, batch, check_consistent, log_config, tp};
use strandline_record::{LeaderEpoch, Offset};
use strandline_storage::disk::sim::Unsynced;
use strandline_storage::disk::{Disk, OpenMode, SimDisk};

type Script = fn(&mut Modelled) -> Result<(), DiskCrashed>;

/// Appends, rolls, checkpoints and a journal that comes around.
fn journal_reuse(it: &mut Modelled) -> Result<(), DiskCrashed> {
    for round in 0..9 {
        for log in 0..2 {
            it.append(log, 2, 700)?;
            it.append(log, 1, 3000)?;
        }
        it.append(2, 1, 9000)?;
        it.flush()?;
        if round % 4 == 3 {
            it.checkpoint()?;
        }
    }
    it.flush()
}

/// Truncations above and below what a checkpoint lists, over several segments, and appends after each.
fn truncation(it: &mut Modelled) -> Result<(), DiskCrashed> {
    for _ in 0..6 {
        it.append(0, 3, 400)?;
    }
    it.flush()?;
    it.checkpoint()?;
    it.truncate(0, 16)?;
    it.append(0, 2, 500)?;
    it.truncate(0, 17)?;
    it.append(0, 1, 100)?;
    it.flush()?;
    it.truncate(0, 4)?;
    it.checkpoint()?;
    it.append(0, 1, 100)?;
    it.truncate(0, 4)?;
    it.append(0, 2, 100)?;
    it.flush()?;
    it.append(0, 2, 4000)?;
    it.checkpoint()
}

/// The log start moves, by request and by retention; the log starts over.
fn start_and_reset(it: &mut Modelled) -> Result<(), DiskCrashed> {
    for _ in 0..8 {
        it.append(0, 2, 600)?;
        it.append(1, 2, 600)?;
    }
    it.flush()?;
    it.advance(0, 5)?;
    it.checkpoint()?;
    it.retain(0)?;
    it.flush()?;
    it.append(0, 1, 10)?;
    it.reset(1, 100)?;
    it.append(1, 2, 300)?;
    it.flush()?;
    it.checkpoint()?;
    it.reset(1, 7)?;
    it.advance(0, 1_000_000)?;
    it.append(0, 1, 10)?;
    it.flush()?;
    it.checkpoint()
}

/// Logs are deleted and created again under the same name.
fn delete_and_create(it: &mut Modelled) -> Result<(), DiskCrashed> {
    for log in 0..3 {
        it.append(log, 2, 1600)?;
        it.append(log, 2, 1600)?;
    }
    it.flush()?;
    it.delete(0);
    it.create(0)?;
    it.append(0, 1, 50)?;
    it.checkpoint()?;
    it.delete(0);
    it.delete(1);
    it.append(1, 3, 50)?;
    it.flush()?;
    it.checkpoint()?;
    it.delete(2);
    it.flush()?;
    it.checkpoint()
}

fn run_to_crash(disk: &SimDisk, script: Script) -> Option<std::collections::BTreeMap<i32, common::History>> {
    let mut it = Modelled::open(disk).ok()?;
    let _ = script(&mut it);
    Some(it.logs.clone())
}

fn sweep(script: Script) {
    let plain = SimDisk::new(0);
    let mut it = Modelled::open(&plain).expect("it opens");
    script(&mut it).expect("nothing fails without a crash");
    let operations = plain.op_count();
    it.check_exact();
    drop(it);
    assert!(operations > 40, "the script does something");
    for crash_at in 0..operations {
        let disk = SimDisk::new(crash_at * 7919);
        disk.set_crash_at_op(crash_at);
        let logs = run_to_crash(&disk, script).unwrap_or_default();
        assert!(disk.is_crashed(), "operation {crash_at} is reached");
        disk.power_loss();
        // The recovery may be interrupted as well, at any point.
        let probe = disk.fork(1);
        let before = probe.op_count();
        drop(Node::open(&probe));
        let recovery_operations = probe.op_count() - before;
        for again in (crash_at % 3..recovery_operations).step_by(3) {
            let twice = disk.fork(crash_at * 31 + again);
            twice.set_crash_at_op(twice.op_count() + again);
            // Once its checkpoint is durable it goes on whatever becomes of the files that it removes.
            drop(Node::try_open(&twice));
            assert!(twice.is_crashed(), "the recovery of crash {crash_at} reaches {again}");
            if again % 2 == 0 {
                // Only the process dies; what the next one finds must outlive the power.
                twice.crash();
                let found = Modelled::check_recovered(&Node::open(&twice), &logs);
                twice.power_loss();
                Modelled::check_recovered(&Node::open(&twice), &found);
                continue;
            }
            twice.power_loss();
            let node = Node::open(&twice);
            Modelled::check_recovered(&node, &logs);
        }
        let node = Node::open(&disk);
        let logs = Modelled::check_recovered(&node, &logs);
        // And it goes on from there.
        let mut it = Modelled { node, logs, next_id: 1_000, epoch: 100, mixed: false };
        for log in 0..3 {
            it.append(log, 1, 20).expect("it goes on");
        }
        it.flush().expect("it goes on");
        it.check_exact();
        let logs = it.logs.clone();
        let node = Node::open(&it.node.power_loss());
        Modelled::check_recovered(&node, &logs);
    }
}

#[test]
fn a_crash_anywhere_in_appending_checkpointing_and_journal_reuse_leaves_the_old_or_the_new_state() {
    sweep(journal_reuse);
}

#[test]
fn a_crash_anywhere_in_truncating_leaves_the_old_or_the_new_state() {
    sweep(truncation);
}

#[test]
fn a_crash_anywhere_in_moving_the_log_start_and_starting_over_leaves_the_old_or_the_new_state() {
    sweep(start_and_reset);
}

#[test]
fn a_crash_anywhere_in_deleting_and_creating_leaves_the_old_or_the_new_state() {
    sweep(delete_and_create);
}

/// Makes the one index on the disk durable, and no segment.
fn sync_the_index(disk: &SimDisk) {
    let indexes: Vec<_> =
        disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "index")).collect();
    let [(index, _)] = &indexes[..] else { panic!("one index is there: {indexes:?}") };
    disk.open(index, OpenMode::Read).unwrap().sync_data().unwrap();
    let dir = index.parent().unwrap();
    disk.sync_dir(dir).unwrap();
    disk.sync_dir(dir.parent().unwrap()).unwrap();
}

/// A disk on which a power loss took away the end of a segment and left the index that went further.
fn with_an_index_beyond_its_segment() -> SimDisk {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    let append = |id, size| node.log(0).append_as_leader(&batch(id, 1, size), LeaderEpoch(1), NOW).unwrap();
    append(1, 100);
    node.checkpoint();
    append(2, 900);
    // Closes the segment and writes its index.
    append(3, 2900);
    sync_the_index(&disk);
    disk.power_loss_with(Unsynced::Lost);
    disk
}

#[test]
fn an_index_of_lost_bytes_never_comes_back_to_those_that_are_written_in_their_place() {
    let disk = with_an_index_beyond_its_segment();
    let probe = disk.fork(1);
    let before = probe.op_count();
    drop(Node::open(&probe));
    let operations = probe.op_count() - before;
    // The recovery runs through, or dies anywhere (its process, not the machine) and another one follows.
    for crash_at in 0..=operations {
        let disk = disk.fork(crash_at);
        if crash_at < operations {
            disk.set_crash_at_op(disk.op_count() + crash_at);
            drop(Node::try_open(&disk));
            assert!(disk.is_crashed(), "the recovery reaches {crash_at}");
            disk.crash();
        }
        let node = Node::open(&disk);
        assert_eq!(check_consistent(&node.log(0)).end, 1);
        // A record and some bytes more than what was lost: the old index fits into the segment, not to its batches.
        node.log(0).append_as_leader(&batch(4, 2, 901), LeaderEpoch(1), NOW).unwrap();
        node.checkpoint();
        disk.power_loss_with(Unsynced::Lost);
        let node = Node::open(&disk);
        let log = node.store.open_log(tp(0), &log_config()).unwrap();
        assert_eq!(check_consistent(&log).end, 3, "crash at {crash_at}");
        let appended = log.append_as_leader(&batch(5, 1, 10), LeaderEpoch(1), NOW);
        assert_eq!(appended.expect("nothing is damaged").base_offset, Offset(3), "crash at {crash_at}");
    }
}

#[test]
fn an_index_whose_log_was_lost_is_not_taken_for_one_of_the_next_log_of_that_name() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    node.log(0).append_as_leader(&batch(1, 1, 900), LeaderEpoch(1), NOW).unwrap();
    // Closes the segment and writes its index.
    node.log(0).append_as_leader(&batch(2, 1, 2900), LeaderEpoch(1), NOW).unwrap();
    sync_the_index(&disk);
    disk.power_loss_with(Unsynced::Lost);
    for (path, _) in disk.files() {
        if path.extension().is_some_and(|extension| extension == "log") {
            // Names survive independently of one another.
            disk.remove_file(&path).unwrap();
        }
    }
    let node = Node::open(&disk);
    assert_eq!(node.report.unknown, Vec::<String>::new());
    node.log(0).append_as_leader(&batch(3, 2, 901), LeaderEpoch(1), NOW).unwrap();
    node.checkpoint();
    let node = Node::open(&node.kill());
    let appended = node.log(0).append_as_leader(&batch(4, 1, 10), LeaderEpoch(1), NOW);
    assert_eq!(appended.expect("nothing is damaged").base_offset, Offset(2));
}

#[test]
fn nothing_of_a_log_that_was_lost_is_left_to_the_next_one_where_a_deletion_was_under_way() {
    let disk = SimDisk::new(1);
    let node = Node::open(&disk);
    node.log(0).append_as_leader(&batch(1, 1, 10), LeaderEpoch(1), NOW).unwrap();
    node.run();
    assert!(node.store.delete_log(tp(0)));
    // The checkpoint of this says that the directory is to be removed.
    node.run();
    // A new one of that name, of which the journal knows nothing: a closed segment with its index, and another.
    node.log(0).append_as_leader(&batch(2, 1, 900), LeaderEpoch(1), NOW).unwrap();
    node.log(0).append_as_leader(&batch(3, 1, 2900), LeaderEpoch(1), NOW).unwrap();
    let node = Node::open(&node.kill());
    assert_eq!(node.store.logs(), vec![]);
    node.log(0).append_as_leader(&batch(4, 2, 901), LeaderEpoch(1), NOW).unwrap();
    node.checkpoint();
    let node = Node::open(&node.kill());
    let appended = node.log(0).append_as_leader(&batch(5, 1, 10), LeaderEpoch(1), NOW);
    assert_eq!(appended.expect("nothing is damaged").base_offset, Offset(2));
}
