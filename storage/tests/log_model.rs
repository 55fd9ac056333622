//! The store against its model: whatever is done to the logs, through restarts, cleanly, by death of the
//! process and by loss of power.

mod common;

use common::{DiskCrashed, History, Modelled, Node};
use proptest::prelude::*;
use std::collections::BTreeMap;
use strandline_storage::disk::SimDisk;

#[derive(Clone, Debug)]
enum Op {
    Append {
        log: i32,
        count: i32,
        size: usize,
    },
    Truncate {
        log: i32,
        back: i64,
    },
    Reset {
        log: i32,
        start: i64,
    },
    Advance {
        log: i32,
        by: i64,
    },
    Retain {
        log: i32,
    },
    Delete {
        log: i32,
    },
    SetMode {
        log: i32,
        os: bool,
    },
    Flush,
    Checkpoint,
    CloseAndOpen,
    Kill,
    PowerLoss,
    /// The process or the machine dies at that operation of the disk in a checkpoint, or in flushing.
    DieAtWork {
        checkpoint: bool,
        at: u64,
        power: bool,
    },
}

fn op(modes: bool) -> impl Strategy<Value = Op> {
    let log = || 0..3i32;
    prop_oneof![
        12 => (log(), 1..4i32, 0..900usize).prop_map(|(log, count, size)| Op::Append { log, count, size }),
        2 => (log(), 0..12i64).prop_map(|(log, back)| Op::Truncate { log, back }),
        1 => (log(), 0..50i64).prop_map(|(log, start)| Op::Reset { log, start }),
        1 => (log(), 0..10i64).prop_map(|(log, by)| Op::Advance { log, by }),
        1 => log().prop_map(|log| Op::Retain { log }),
        1 => log().prop_map(|log| Op::Delete { log }),
        2 => (log(), any::<bool>()).prop_map(move |(log, os)| if modes { Op::SetMode { log, os } } else { Op::Flush }),
        4 => Just(Op::Flush),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::CloseAndOpen),
        1 => Just(Op::Kill),
        1 => Just(Op::PowerLoss),
    ]
}

fn op_or_death(modes: bool) -> impl Strategy<Value = Op> {
    let death = (any::<bool>(), 0..25u64, any::<bool>());
    prop_oneof![
        8 => op(modes),
        1 => death.prop_map(|(checkpoint, at, power)| Op::DieAtWork { checkpoint, at, power }),
    ]
}

fn reopen(disk: &SimDisk, logs: &BTreeMap<i32, History>, before: (u64, i32, bool)) -> Modelled {
    let node = Node::open(disk);
    let logs = Modelled::check_recovered(&node, logs);
    let modes: Vec<(i32, bool)> = logs.iter().map(|(n, history)| (*n, history.os)).collect();
    let mixed = before.2;
    let mut it = Modelled { node, logs, next_id: before.0, epoch: before.1 + 1, mixed };
    for (n, os) in modes {
        if it.exists(n) {
            it.set_mode(n, os).expect("nothing fails on this disk");
        }
        it.mixed = mixed;
    }
    it
}

fn apply(mut it: Modelled, op: &Op) -> Result<Modelled, DiskCrashed> {
    let end = |it: &Modelled, n: &i32| {
        it.logs.get(n).and_then(|h| h.current().as_ref()).map_or((0, 0), |state| (state.start, state.end))
    };
    let before = (it.next_id, it.epoch, it.mixed);
    match op {
        Op::Append { log, count, size } => it.append(*log, *count, *size)?,
        Op::Truncate { log, back } => {
            let to = end(&it, log).1 - back;
            it.truncate(*log, to)?;
        }
        Op::Reset { log, start } => it.reset(*log, *start)?,
        Op::Advance { log, by } => {
            let to = end(&it, log).0 + by;
            it.advance(*log, to)?;
        }
        Op::Retain { log } => it.retain(*log)?,
        Op::Delete { log } => it.delete(*log),
        Op::SetMode { log, os } => it.set_mode(*log, *os)?,
        Op::Flush => it.flush()?,
        Op::Checkpoint => it.checkpoint()?,
        Op::CloseAndOpen => {
            it.check_exact();
            let (disk, logs) = it.close()?;
            return Ok(reopen(&disk, &logs, before));
        }
        Op::Kill => {
            let logs = it.logs.clone();
            return Ok(reopen(&it.node.kill(), &logs, before));
        }
        Op::DieAtWork { checkpoint, at, power } => {
            let disk = &it.node.disk;
            disk.set_crash_at_op(disk.op_count() + at);
            // Done, or cut short.
            let _ = if *checkpoint { it.checkpoint() } else { it.flush() };
            let logs = it.logs.clone();
            let disk = if *power { it.node.power_loss() } else { it.node.kill() };
            return Ok(reopen(&disk, &logs, before));
        }
        Op::PowerLoss => {
            let logs = it.logs.clone();
            return Ok(reopen(&it.node.power_loss(), &logs, before));
        }
    }
    Ok(it)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 700, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_log_is_always_what_the_model_says(seed: u64, ops in proptest::collection::vec(op(false), 1..90)) {
        run(seed, &ops);
    }

    #[test]
    fn logs_of_changing_flush_modes_are_always_what_the_model_says(
        seed: u64,
        ops in proptest::collection::vec(op(true), 1..90),
    ) {
        run(seed, &ops);
    }

    #[test]
    fn logs_of_processes_that_die_at_work_are_always_what_the_model_says(
        seed: u64,
        ops in proptest::collection::vec(op_or_death(false), 1..90),
    ) {
        run(seed, &ops);
    }

    #[test]
    fn logs_of_changing_flush_modes_and_of_processes_that_die_at_work_are_always_what_the_model_says(
        seed: u64,
        ops in proptest::collection::vec(op_or_death(true), 1..90),
    ) {
        run(seed, &ops);
    }
}

fn run(seed: u64, ops: &[Op]) {
    let mut it = Modelled::open(&SimDisk::new(seed)).expect("a fresh disk opens");
    for op in ops {
        it = apply(it, op).expect("nothing fails on this disk");
    }
    it.check_exact();
}
