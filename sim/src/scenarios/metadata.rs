//! Damaged and lost disks of metadata, clocks that jump, clients that know old metadata.

use super::Scenario;
use super::raft::{SNAPSHOT_WITHIN, start_storm, stormy};
use super::script::{first, get_trio, missed, ms, nodes_but, seconds, small};
use crate::draw::Cast;
use crate::invariants::Violation;
use crate::stage::Stage;
use crate::stage::direct::hosts;
use crate::workload::admin::Order;
use crate::world::{Failure, NodeState};
use rand::RngExt;
use strandline_storage::disk::sim::Unsynced;

/// Files with records where they belong. (Recovery may cut the end of one that was being written.)
fn kept(stage: &Stage<'_>, id: u64) -> usize {
    let files = stage.world.node(id).machine().disk.files();
    let is_record_file = |path: &std::path::Path| {
        path.starts_with("/data/logs") && path.extension().is_some_and(|extension| extension == "log")
    };
    files.iter().filter(|(path, _)| is_record_file(path)).count()
}

/// Whether it ended by itself, saying this.
fn has_refused(stage: &Stage<'_>, id: u64, because: &str) -> bool {
    matches!(stage.world.node(id).state(), NodeState::Ended(Some(why)) if why.contains(because))
}

/// A node with metadata that cannot be trusted is given up: it gets an empty disk, is removed and joins again.
fn replace(stage: &mut Stage<'_>, id: u64) -> Result<(), Failure> {
    stage.must(seconds(10), "the node was down", |stage| !stage.world.node(id).is_up())?;
    stage.injector.readmit_node(id);
    stage.wipe(id);
    stage.settle()
}

pub const ORPHAN_DELETE: Scenario = Scenario {
    name: "orphan-delete",
    hazard: 20,
    about: "bits flip in a snapshot of the metadata: the node must not take its partitions for orphans",
    cast: |cast| stormy(cast, 4),
    play: orphan_delete,
};

fn orphan_delete(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (leader, ..) = get_trio(stage, &first())?;
    let bell = start_storm(stage);
    let with_snapshot = |stage: &Stage<'_>| {
        let replicas = stage.partition(&first()).replicas.clone();
        let mut taken =
            stage.world.views().values().filter(|view| view.raft.snapshot > 0 && view.node != leader);
        taken.find(|view| replicas.contains(&view.node)).map(|view| view.node)
    };
    stage.must(SNAPSHOT_WITHIN, "a snapshot was taken", |stage| with_snapshot(stage).is_some())?;
    bell.ring();
    let id = with_snapshot(stage).expect("it was just there");
    stage.crash(id);
    let before = kept(stage, id);
    if stage.rot(id, ".snapshot", 3) == 0 || before == 0 {
        return Err(missed("there was no snapshot to damage, or no data"));
    }
    stage.start(id);
    stage.must(seconds(20), "the node refused its snapshot", |stage| has_refused(stage, id, "snapshot"))?;
    let after = kept(stage, id);
    if after < before {
        let what =
            format!("with a damaged snapshot node {id} has {after} of {before} files of its partitions left");
        return Err(Failure::Safety(Violation { invariant: "I17-integrity", what }));
    }
    replace(stage, id)
}

pub const WIPED_NODE: Scenario = Scenario {
    name: "wiped-node",
    hazard: 21,
    about: "a node comes back under its old id with an empty disk",
    cast: |cast| small(cast, 4, 1),
    play: wiped_node,
};

fn wiped_node(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (leader, second, _) = get_trio(stage, &first())?;
    // One that formed the cluster: it has a vote to forget.
    let id =
        *[second, 1, 2, 3].iter().find(|id| **id <= 3 && **id != leader).expect("three formed the cluster");
    let epoch = |stage: &Stage<'_>| stage.agreed().brokers.get(&id).map(|broker| broker.epoch);
    let before = epoch(stage);
    stage.lose_power(id, Unsynced::Lost);
    stage.wipe(id);
    stage.run_for(ms(200))?;
    stage.start(id);
    stage.must(seconds(20), "the node was refused", |stage| {
        has_refused(stage, id, "another data directory")
    })?;
    if epoch(stage) != before {
        let what = format!("node {id} was registered with an empty disk");
        return Err(Failure::Safety(Violation { invariant: "I11-unclean-return", what }));
    }
    stage.injector.readmit_node(id);
    stage.settle()
}

pub const RAFT_BIT_ROT: Scenario = Scenario {
    name: "raft-bit-rot",
    hazard: 24,
    about: "bits flip in the middle of a voter's Raft log: that is no torn tail",
    cast: |cast| small(cast, 4, 1),
    play: raft_bit_rot,
};

fn raft_bit_rot(stage: &mut Stage<'_>) -> Result<(), Failure> {
    for _ in 0..5 {
        stage.settle()?;
        let controller = stage.controller().ok_or_else(|| missed("a leader of Raft"))?;
        let id =
            *nodes_but(stage, &[controller]).iter().find(|id| **id <= 3).expect("three formed the cluster");
        stage.crash(id);
        stage.rot(id, "/raft/", 12);
        stage.start(id);
        if stage.wait(seconds(8), |stage| has_refused(stage, id, "damaged"))? {
            return replace(stage, id);
        }
    }
    Err(missed("no voter noticed the damage"))
}

pub const CLOCK_JUMP: Scenario = Scenario {
    name: "clock-jump",
    hazard: 25,
    about: "wall clocks jump by up to an hour and drift by a tenth, while leaders fail and groups go on",
    cast: |cast: &mut Cast| {
        small(cast, 3, 2);
        cast.members = 2;
    },
    play: clock_jump,
};

fn clock_jump(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let mut rng = stage.world.seed().fork("play").rng();
    for _ in 0..3 {
        let ids = stage.world.node_ids();
        for (number, id) in ids.iter().enumerate() {
            let by_ms = rng.random_range(1_800_000..3_600_000) * if number % 2 == 0 { 1 } else { -1 };
            stage.injector.jump_clock(&stage.world, *id, by_ms);
            stage.injector.drift_clock(&stage.world, *id, rng.random_range(-100_000..100_000));
        }
        stage.run_for(seconds(2))?;
        if let Some(leader) = stage.leader_of(&first()) {
            stage.crash(leader);
            stage.start_in(leader, ms(500));
        }
        stage.run_for(seconds(4))?;
    }
    let now = stage.world.now_us();
    let times: Vec<i64> =
        stage.world.node_ids().iter().map(|id| stage.world.node(*id).machine().clock.read_ms(now)).collect();
    let apart = times.iter().max().zip(times.iter().min()).map_or(0, |(latest, earliest)| latest - earliest);
    match apart > 600_000 {
        true => Ok(()),
        false => Err(missed(&format!("the clocks are only {apart} ms apart"))),
    }
}

pub const STALE_CLIENT_METADATA: Scenario = Scenario {
    name: "stale-client-metadata",
    hazard: 26,
    about: "a producer can reach only the old leader, which has handed leadership over",
    cast: |cast| small(cast, 4, 1),
    play: |stage| stage.provoke(4, "a producer was left with the old leader", stale_client_metadata),
};

fn stale_client_metadata(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    let rest = hosts(nodes_but(stage, &[leader]));
    stage.cut(&["producer-0".to_owned()], &rest);
    stage.orders.give(Order::Reassign { tp: tp.clone(), replicas: vec![second, leader, last] });
    stage.orders.give(Order::ElectPreferred { tp: tp.clone() });
    if !stage.wait(seconds(20), |stage| stage.leader_of(&tp).is_some_and(|id| id != leader))? {
        return Ok(false);
    }
    // What was under way is answered; then nothing is acknowledged any more.
    stage.run_for(seconds(1))?;
    let before = stage.work.acknowledged;
    stage.run_for(seconds(2))?;
    let alive = stage.world.node(leader).is_up();
    Ok(alive && stage.work.acknowledged == before)
}
