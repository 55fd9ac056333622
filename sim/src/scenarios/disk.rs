//! Disks that tear, rot, fail, fill up and are slow.

use super::Scenario;
use super::script::{first, get_trio, impatient, missed, ms, seconds, small};
use crate::draw::Cast;
use crate::faults::FaultKind;
use crate::invariants::Violation;
use crate::stage::Stage;
use crate::workload::admin::Order;
use crate::world::Failure;
use rand::RngExt;
use rand::seq::IndexedRandom;
use std::path::PathBuf;
use strandline_storage::disk::Disk;
use strandline_storage::disk::sim::{SimFault, SimOp, Unsynced};

/// Files of a node whose name ends so.
fn files(stage: &Stage<'_>, id: u64, extension: &str) -> Vec<PathBuf> {
    let files = stage.world.node(id).machine().disk.files();
    let paths = files.into_iter().map(|(path, _)| path);
    paths.filter(|path| path.extension().is_some_and(|own| own == extension)).collect()
}

pub const TORN_WRITE: Scenario = Scenario {
    name: "torn-write",
    hazard: 35,
    about: "machines lose power with writes under way, of which any part survives; at last all of them at once",
    cast: |cast| small(cast, 3, 2),
    play: torn_write,
};

fn torn_write(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let under_way = |stage: &Stage<'_>| {
        let mut views = stage.world.views().values();
        views.find(|view| view.replicas.values().any(|at| at.log_end > at.flushed_end)).map(|view| view.node)
    };
    for _ in 0..4 {
        stage.settle()?;
        stage.must(seconds(10), "a write was under way", |stage| under_way(stage).is_some())?;
        let id = under_way(stage).expect("it was just there");
        stage.lose_power(id, Unsynced::Random);
        stage.start_in(id, ms(300));
    }
    stage.settle()?;
    stage.must(seconds(10), "a write was under way", |stage| under_way(stage).is_some())?;
    for id in stage.world.node_ids() {
        stage.lose_power(id, Unsynced::Random);
    }
    Ok(())
}

pub const BIT_ROT: Scenario = Scenario {
    name: "bit-rot",
    hazard: 36,
    about: "bits flip in old segments of a replica: it is found, leaves the ISR, and is repaired from the others",
    cast: |cast: &mut Cast| {
        small(cast, 3, 1);
        cast.twist.node = |config| {
            super::script::calm(config);
            config.scrub_bytes_per_second = 16 << 20;
        };
    },
    play: |stage| stage.provoke(3, "a damaged replica left the ISR", bit_rot),
};

fn bit_rot(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, _) = get_trio(stage, &tp)?;
    let mut rng = stage.world.seed().fork("play").nth(stage.world.now_us()).rng();
    let id = *[leader, second].choose(&mut rng).expect("there are two");
    if !stage.wait(seconds(30), |stage| files(stage, id, "log").len() > 3)? {
        return Ok(false);
    }
    let oldest = files(stage, id, "log")[0].display().to_string();
    if stage.rot(id, &oldest, 3) == 0 {
        return Ok(false);
    }
    stage.wait(seconds(30), |stage| {
        !stage.partition(&tp).isr.contains(&id) || stage.replica(id, &tp).is_some_and(|at| at.damaged)
    })
}

pub const FSYNC_ERROR: Scenario = Scenario {
    name: "fsync-error",
    hazard: 37,
    about: "an fsync fails once and would succeed the second time: the process ends instead of trying",
    cast: |cast| small(cast, 3, 1),
    play: fsync_error,
};

fn fsync_error(stage: &mut Stage<'_>) -> Result<(), Failure> {
    for place in ["journal", "raft", "journal"] {
        stage.settle()?;
        let (leader, ..) = get_trio(stage, &first())?;
        let hit = |stage: &Stage<'_>| stage.world.node(leader).machine().disk.faults_hit();
        let (before, life) = (hit(stage), stage.world.node(leader).lives());
        stage.fail_disk(leader, FaultKind::FsyncError, SimFault::eio(SimOp::Sync).on(place));
        stage.must(seconds(10), "a sync failed", |stage| hit(stage) > before)?;
        let node =
            |stage: &Stage<'_>| !stage.world.node(leader).is_up() || stage.world.node(leader).lives() > life;
        if !stage.wait(seconds(1), node)? {
            let what = format!("node {leader} goes on after a failed sync of its {place}");
            return Err(Failure::Safety(Violation { invariant: "I1-durability", what }));
        }
    }
    Ok(())
}

pub const DISK_FULL: Scenario = Scenario {
    name: "disk-full",
    hazard: 38,
    about: "a leader's disk is full, once in the middle of a roll: it refuses, stays, and goes on when there is space",
    cast: |cast| small(cast, 3, 1),
    play: disk_full,
};

fn disk_full(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let tp = first();
    let (leader, ..) = get_trio(stage, &tp)?;
    let life = stage.world.node(leader).lives();
    let full = stage.fill_disk(leader, 100_000);
    let end = |stage: &Stage<'_>| stage.replica(leader, &tp).map_or(0, |at| at.log_end);
    let mut stood = (end(stage), stage.world.now_us());
    let began = stage.world.now_us();
    while stage.world.now_us() < stood.1 + 1_500_000 {
        if stage.world.now_us() > began + 20_000_000 {
            return Err(missed("the leader went on appending"));
        }
        stage.step()?;
        if end(stage) != stood.0 {
            stood = (end(stage), stage.world.now_us());
        }
    }
    still_there(stage, leader, life)?;
    stage.mend(full);
    stage.settle()?;
    // Mid-roll: there is no space for the file of the next segment.
    let (leader, ..) = get_trio(stage, &tp)?;
    let hit = |stage: &Stage<'_>| stage.world.node(leader).machine().disk.faults_hit();
    let (before, life) = (hit(stage), stage.world.node(leader).lives());
    stage.fail_disk(leader, FaultKind::DiskFull, SimFault::enospc(SimOp::Create).on("/logs/"));
    stage.must(seconds(20), "a roll found no space", |stage| hit(stage) > before)?;
    stage.run_for(seconds(1))?;
    still_there(stage, leader, life)
}

/// A full disk is no reason to die.
fn still_there(stage: &Stage<'_>, id: u64, life: u64) -> Result<(), Failure> {
    if stage.world.node(id).is_up() && stage.world.node(id).lives() == life {
        return Ok(());
    }
    let what = format!("node {id} died of a full disk");
    Err(Failure::Liveness(Violation { invariant: "I19-liveness", what }))
}

pub const INDEX_LOST: Scenario = Scenario {
    name: "index-lost",
    hazard: 39,
    about: "indexes are garbled and one is gone; the node that has them serves all reads",
    cast: |cast| small(cast, 3, 1),
    play: index_lost,
};

fn index_lost(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let tp = first();
    let preferred = stage.partition(&tp).replicas[0];
    stage.must(seconds(40), "there were indexes", |stage| files(stage, preferred, "index").len() > 3)?;
    stage.settle()?;
    stage.crash(preferred);
    let indexes = files(stage, preferred, "index");
    let lost = indexes.last().ok_or_else(|| missed("an index"))?;
    let removed = stage.world.node(preferred).machine().disk.remove_file(lost);
    if removed.is_err() || stage.rot(preferred, ".index", 40) == 0 {
        return Err(missed("there was no index to lose"));
    }
    stage.start(preferred);
    stage.must(seconds(30), "it was in sync again", |stage| stage.partition(&tp).isr.contains(&preferred))?;
    stage.settle()?;
    stage.orders.give(Order::ElectPreferred { tp: tp.clone() });
    stage.must(seconds(20), "it served all reads", |stage| stage.leader_of(&tp) == Some(preferred))
}

pub const CRASH_POINTS: Scenario = Scenario {
    name: "crash-points",
    hazard: 40,
    about: "crashes in the middle of chosen disk operations, of rolls and retention above all, some with power loss",
    cast: |cast: &mut Cast| {
        small(cast, 3, 2);
        super::retention::short_retention(cast);
        cast.producers = 2;
        cast.twist.producer = |_, plan| (plan.pause, plan.value_bytes) = (ms(8), 2_000);
    },
    play: crash_points,
};

fn crash_points(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let mut rng = stage.world.seed().fork("play").rng();
    let rolls = |stage: &Stage<'_>| {
        let views = stage.world.views().values();
        views.flat_map(|view| view.replicas.values()).map(|at| at.log_start).max().unwrap_or(0)
    };
    stage.must(seconds(30), "retention began", |stage| rolls(stage) > 0)?;
    let (before, mut hits) = (rolls(stage), 0);
    for _ in 0..10 {
        stage.wait(seconds(20), |stage| {
            stage.world.views().len() == 3 && stage.leader_of(&first()).is_some()
        })?;
        let id = *stage.world.node_ids().choose(&mut rng).expect("there are nodes");
        if !stage.world.node(id).is_up() {
            continue;
        }
        // A roll or a deletion: names change then.
        let renames = |stage: &Stage<'_>| {
            let counters = stage.world.node(id).machine().disk.counters();
            counters.creates + counters.removes + counters.renames
        };
        let then = renames(stage);
        stage.wait(seconds(3), |stage| renames(stage) > then)?;
        stage.crash_in(id, rng.random_range(0..12), ms(400));
        if stage.wait(seconds(3), |stage| !stage.world.node(id).is_up())? {
            hits += 1;
            if rng.random_bool(0.5) {
                stage.world.node(id).machine().disk.power_loss_with(Unsynced::Random);
            }
        }
    }
    match hits >= 6 && rolls(stage) > before {
        true => Ok(()),
        false => Err(missed(&format!("{hits} crash points were reached, log starts from {before}"))),
    }
}

pub const SLOW_DISK: Scenario = Scenario {
    name: "slow-disk",
    hazard: 43,
    about: "one disk is a thousand times slower: its replicas leave the ISR and the others go on without it",
    cast: |cast: &mut Cast| {
        small(cast, 3, 1);
        cast.twist.node = impatient;
    },
    play: slow_disk,
};

fn slow_disk(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    let slow = if stage.controller() == Some(second) { last } else { second };
    stage.slow_disk(slow, ms(2_500));
    stage
        .must(seconds(20), "the slow node left the ISR", |stage| !stage.partition(&tp).isr.contains(&slow))?;
    let before = stage.work.acknowledged;
    stage.run_for(seconds(4))?;
    let acknowledged = stage.work.acknowledged - before;
    if stage.leader_of(&tp) == Some(leader) && acknowledged < 50 {
        let what = format!("{acknowledged} records were acknowledged in four seconds next to a slow disk");
        return Err(Failure::Liveness(Violation { invariant: "I19-liveness", what }));
    }
    Ok(())
}
