//! A crash with loss of power at every single mutating operation of scripted sequences, and again at the
//! operations of the recovery that follows: what comes back is the state before or after an operation,
//! nothing flushed is missing, and there is never a third state.

mod common;

use common::{DiskCrashed, Modelled, Node};
use strandline_storage::disk::SimDisk;

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
