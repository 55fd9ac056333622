//! Logs that are cut and grow again: flushes that come late, epochs that must follow the log, replicas that move.

use super::Scenario;
use super::script::{calm, first, get_trio, missed, ms, nodes_but, seconds, small};
use crate::draw::Cast;
use crate::faults::links::FaultId;
use crate::history::Tp;
use crate::observe::Role;
use crate::stage::Stage;
use crate::stage::direct::{host, hosts};
use crate::workload::admin::Order;
use crate::world::Failure;
use strandline_storage::disk::sim::Unsynced;

/// Keeps the leader apart from the other nodes, but not from its clients, until there is another one. Whether it has
/// appended what its successor does not have. Then all that the nodes sent each other arrives.
fn diverge(stage: &mut Stage<'_>, tp: &Tp, leader: u64) -> Result<bool, Failure> {
    let others = hosts(nodes_but(stage, &[leader]));
    let held: Vec<FaultId> = others.iter().map(|other| stage.hold(&host(leader), other)).collect();
    let end = |stage: &Stage<'_>| stage.replica(leader, tp).map_or(0, |at| at.log_end);
    let before = end(stage);
    let elsewhere = stage.wait(seconds(15), |stage| stage.leader_of(tp).is_some_and(|id| id != leader))?;
    let diverged = elsewhere && end(stage) > before;
    for fault in held {
        stage.mend(fault);
    }
    Ok(diverged)
}

/// A leader that is silent loses its place within a second.
fn short_sessions(cast: &mut Cast) {
    small(cast, 5, 1);
    cast.producers = 3;
    cast.twist.node = |config| {
        calm(config);
        config.broker_session_timeout = ms(500);
        config.broker_heartbeat_interval = ms(100);
    };
}

pub const FSYNC_VS_TRUNCATION: Scenario = Scenario {
    name: "fsync-vs-truncation",
    hazard: 11,
    about: "a slow flush of records ends after they were cut off and others took their place",
    cast: short_sessions,
    play: |stage| {
        stage.provoke(5, "records were cut off while their flush was under way", fsync_vs_truncation)
    },
};

fn fsync_vs_truncation(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, ..) = get_trio(stage, &tp)?;
    let slow = stage.slow_disk(leader, ms(1_500));
    if !diverge(stage, &tp, leader)? {
        return Ok(false);
    }
    let mut before = stage.replica(leader, &tp).cloned();
    let mut cut = false;
    stage.wait(seconds(20), |stage| {
        let now = stage.replica(leader, &tp).cloned();
        if let (Some(before), Some(now)) = (&before, &now) {
            cut |= now.log_end < before.log_end && before.flushed_end < before.log_end;
        }
        before = now;
        cut
    })?;
    stage.run_for(seconds(1))?;
    stage.mend(slow);
    Ok(cut)
}

pub const EPOCH_CACHE: Scenario = Scenario {
    name: "epoch-cache",
    hazard: 13,
    about: "a log is cut at an epoch's start, the machine loses power over it, and the replica comes to lead",
    cast: short_sessions,
    play: |stage| stage.provoke(5, "a replica led after power was lost over its truncation", epoch_cache),
};

fn epoch_cache(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, ..) = get_trio(stage, &tp)?;
    if !diverge(stage, &tp, leader)? {
        return Ok(false);
    }
    let mut longest = 0;
    let cut = stage.wait(seconds(20), |stage| {
        let end = stage.replica(leader, &tp).map_or(0, |at| at.log_end);
        longest = longest.max(end);
        end < longest
    })?;
    if !cut {
        return Ok(false);
    }
    stage.lose_power(leader, Unsynced::Random);
    stage.start_in(leader, ms(200));
    if !stage.wait(seconds(30), |stage| {
        let follows = |at: &crate::observe::ReplicaView| matches!(at.role, Role::Follower { .. });
        stage.partition(&tp).isr.len() == 3 && stage.replica(leader, &tp).is_some_and(follows)
    })? {
        return Ok(false);
    }
    for other in stage.partition(&tp).isr.clone().into_iter().filter(|id| *id != leader) {
        stage.crash(other);
        stage.run_for(ms(200))?;
    }
    stage.wait(seconds(15), |stage| stage.leader_of(&tp) == Some(leader))
}

pub const REASSIGNMENT_FLAP: Scenario = Scenario {
    name: "reassignment-flap",
    hazard: 14,
    about: "replicas move to other nodes and back while one of them cannot be reached",
    cast: |cast| small(cast, 5, 2),
    play: reassignment_flap,
};

fn reassignment_flap(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let tp = first();
    let home = stage.partition(&tp).replicas.clone();
    let mut flaps = 0;
    for round in 0..3 {
        stage.settle()?;
        let (leader, ..) = get_trio(stage, &tp)?;
        let spare = nodes_but(stage, &home);
        let away = vec![home[0], spare[0], spare[1]];
        // Now and then one of those that it moves to, else one that it leaves.
        let victim = if round % 2 == 0 { spare[0] } else { home[2] };
        if victim == leader {
            continue;
        }
        let rest = hosts(nodes_but(stage, &[victim]));
        let cut = stage.cut(&hosts([victim]), &rest);
        stage.orders.give(Order::Reassign { tp: tp.clone(), replicas: away });
        let moving = |stage: &Stage<'_>| stage.partition(&tp).replicas.len() > 3;
        let grown = stage.wait(seconds(15), moving)?;
        stage.run_for(seconds(2))?;
        stage.mend(cut);
        let back = stage.orders.give(Order::Reassign { tp: tp.clone(), replicas: home.clone() });
        stage.wait(seconds(45), |stage| stage.orders.result(back).is_some())?;
        flaps += u32::from(grown);
    }
    match flaps > 0 {
        true => Ok(()),
        false => Err(missed("no replica set grew during the cut")),
    }
}
