//! The metadata's own log: promises kept over power loss, snapshots, elections, membership.

use super::Scenario;
use super::script::{calm, first, get_trio, missed, ms, nodes_but, seconds, small};
use crate::draw::Cast;
use crate::faults::FaultKind;
use crate::stage::Stage;
use crate::stage::direct::{host, hosts};
use crate::workload::Bell;
use crate::world::{ClientWorld, Failure};
use futures::future::LocalBoxFuture;
use std::sync::Arc;
use std::time::Duration;
use strandline_storage::disk::sim::{SimFault, SimOp, Unsynced};

pub const RAFT_UNSYNCED: Scenario = Scenario {
    name: "raft-unsynced",
    hazard: 15,
    about: "voters lose power in the moment in which they have promised a term",
    cast: |cast| small(cast, 3, 1),
    play: raft_unsynced,
};

fn raft_unsynced(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let mut hits = 0;
    for _ in 0..8 {
        stage.must(seconds(30), "a leader of Raft and everybody there", |stage| {
            stage.controller().is_some() && stage.world.views().len() == 3
        })?;
        let Some(leader) = stage.controller() else { continue };
        let term = stage.world.views()[&leader].raft.term;
        stage.crash(leader);
        stage.start_in(leader, ms(700));
        let promised = |stage: &Stage<'_>| {
            stage.world.views().values().find(|view| view.raft.term > term).map(|view| view.node)
        };
        if stage.wait(seconds(5), |stage| promised(stage).is_some())? {
            let voter = promised(stage).expect("it was just there");
            stage.lose_power(voter, Unsynced::Lost);
            stage.start_in(voter, ms(300));
            hits += 1;
        }
    }
    if hits < 4 {
        return Err(missed(&format!("power was lost after a promise {hits} times only")));
    }
    Ok(())
}

pub const METADATA_REWIND: Scenario = Scenario {
    name: "metadata-rewind",
    hazard: 17,
    about: "all nodes lose power at once; one that comes back with older metadata must not serve it",
    cast: |cast| small(cast, 3, 2),
    play: |stage| stage.provoke(4, "a node came back with older metadata and caught up", metadata_rewind),
};

fn metadata_rewind(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let before = stage.agreed().index;
    for id in stage.world.node_ids() {
        stage.lose_power(id, Unsynced::Random);
        stage.start_in(id, ms(300));
    }
    let behind = |stage: &Stage<'_>| stage.world.views().values().any(|view| view.image.index < before);
    let rewound = stage.wait(seconds(10), behind)?;
    Ok(rewound && stage.wait(seconds(20), |stage| stage.agreed().index > before)?)
}

/// Changes of metadata, many at a time, until the bell rings.
async fn storm(world: ClientWorld, bootstrap: String, topic: String, bell: Bell) {
    let client = world.sdk(&bootstrap).build().expect("the options are usable");
    let one = |number: u64| {
        let (client, topic, bell) = (client.clone(), topic.clone(), bell.clone());
        async move {
            for round in 0.. {
                if bell.has_rung() {
                    break;
                }
                // More than a week, so that nothing is deleted by it.
                let keep = 700_000_000 + number * 1_000_000 + round % 1_000_000;
                let admin = client.admin();
                let change = admin.alter_topic(&topic, [("retention.ms".to_owned(), keep.to_string())], []);
                if tokio::time::timeout(seconds(10), change).await.is_err() {
                    tokio::time::sleep(ms(100)).await;
                }
            }
        }
    };
    futures::future::join_all((0..8).map(one)).await;
}

/// Snapshots are taken often.
pub fn stormy(cast: &mut Cast, nodes: usize) {
    small(cast, nodes, 1);
    cast.twist.node = |config| {
        calm(config);
        config.raft_snapshot_entries = 200;
    };
}

/// Starts it; the bell ends it.
pub fn start_storm(stage: &mut Stage<'_>) -> Bell {
    let bell = Bell::default();
    let (bootstrap, topic) = (stage.world.bootstrap(), stage.cast.topics[0].name.clone());
    let told = bell.clone();
    let software = move |world: ClientWorld| {
        Box::pin(storm(world, bootstrap.clone(), topic.clone(), told.clone())) as LocalBoxFuture<'static, ()>
    };
    stage.world.add_client("storm", Arc::new(software));
    bell
}

/// Entries of Raft after which a snapshot is taken take this long at most.
pub const SNAPSHOT_WITHIN: Duration = Duration::from_secs(60);

pub const SNAPSHOT_INTERRUPTED: Scenario = Scenario {
    name: "snapshot-interrupted",
    hazard: 18,
    about: "on each node another step of taking a snapshot fails, and the node dies of it",
    cast: |cast| stormy(cast, 3),
    play: snapshot_interrupted,
};

fn snapshot_interrupted(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let steps = [
        (FaultKind::WriteError, SimOp::Write),
        (FaultKind::FsyncError, SimOp::Sync),
        (FaultKind::WriteError, SimOp::Rename),
    ];
    for (id, (kind, operation)) in stage.world.node_ids().into_iter().zip(steps) {
        stage.fail_disk(id, kind, SimFault::eio(operation).on("snapshots"));
    }
    let bell = start_storm(stage);
    let hit = |stage: &Stage<'_>| {
        stage.world.node_ids().into_iter().all(|id| stage.world.node(id).machine().disk.faults_hit() > 0)
    };
    stage.must(SNAPSHOT_WITHIN, "a failure in each node's snapshot", hit)?;
    let taken = |stage: &Stage<'_>| {
        stage.world.views().len() == 3 && stage.world.views().values().all(|view| view.raft.snapshot > 0)
    };
    stage.must(SNAPSHOT_WITHIN, "a snapshot on each node in the end", taken)?;
    bell.ring();
    Ok(())
}

pub const SNAPSHOT_CATCH_UP: Scenario = Scenario {
    name: "snapshot-catch-up",
    hazard: 19,
    about: "a node returns when the log that it lacks is purged",
    cast: |cast| stormy(cast, 3),
    play: snapshot_catch_up,
};

fn snapshot_catch_up(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let controller = stage.controller().ok_or_else(|| missed("a leader of Raft"))?;
    let late = nodes_but(stage, &[controller])[0];
    let last = stage.world.views()[&late].raft.last;
    stage.crash(late);
    let bell = start_storm(stage);
    let purged = |stage: &Stage<'_>| {
        let leader = stage.controller();
        leader.is_some_and(|id| stage.world.views()[&id].raft.purged > last)
    };
    stage.must(SNAPSHOT_WITHIN, "what the node lacks was purged", purged)?;
    bell.ring();
    stage.start(late);
    stage.must(seconds(30), "it got a snapshot", |stage| {
        stage.world.views().get(&late).is_some_and(|view| view.raft.snapshot > last)
    })
}

pub const MEMBERSHIP_IN_PARTITION: Scenario = Scenario {
    name: "membership-in-partition",
    hazard: 22,
    about: "a node joins while the leader of Raft is in a minority",
    cast: |cast| small(cast, 3, 1),
    play: membership_in_partition,
};

fn membership_in_partition(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.settle()?;
    let leader = stage.controller().ok_or_else(|| missed("a leader of Raft"))?;
    let others = nodes_but(stage, &[leader]);
    let cut = stage.cut(&hosts([leader]), &hosts(others.clone()));
    let fourth = stage.cast.joining(4);
    stage.world.add_node(fourth);
    let minority = stage.cut(&hosts([leader]), &hosts([4]));
    stage.must(seconds(30), "the fourth node was registered by the others", |stage| {
        let other = stage.world.views().get(&others[0]);
        other.is_some_and(|view| view.image.brokers.contains_key(&4))
            && stage.world.views().get(&leader).is_some_and(|view| !view.image.brokers.contains_key(&4))
    })?;
    stage.run_for(seconds(1))?;
    stage.mend(minority);
    stage.mend(cut);
    Ok(())
}

pub const DISRUPTIVE_SERVER: Scenario = Scenario {
    name: "disruptive-server",
    hazard: 23,
    about: "a voter hears nobody, but everybody hears it: it must not drive the others from election to election",
    cast: |cast| small(cast, 3, 1),
    play: disruptive_server,
};

fn disruptive_server(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (leader, ..) = get_trio(stage, &first())?;
    let controller = stage.controller().ok_or_else(|| missed("a leader of Raft"))?;
    let deaf = nodes_but(stage, &[controller, leader])[0];
    let others = nodes_but(stage, &[deaf]);
    let cut = stage.cut_one_way(&hosts(others.clone()), &hosts([deaf]));
    let known = |stage: &Stage<'_>, id| stage.world.views().get(&id).map_or(0, |view| view.raft.committed);
    let term = |stage: &Stage<'_>| others.iter().map(|id| stage.world.views()[id].raft.term).max();
    let (before, stood) = (term(stage), known(stage, deaf));
    stage.run_for(seconds(6))?;
    let after = term(stage);
    if known(stage, deaf) > stood + 2 || known(stage, others[0]) <= stood {
        return Err(missed("the voter was not deaf, or nothing was agreed meanwhile"));
    }
    if after > before.map(|term| term + 2) {
        let what = format!("a deaf voter ({}) raised the term from {before:?} to {after:?}", host(deaf));
        return Err(Failure::Liveness(crate::invariants::Violation { invariant: "I19-liveness", what }));
    }
    stage.mend(cut);
    // Ten election time-outs.
    stage.until(seconds(4), "no leader of Raft after healing", |stage| match stage.controller() {
        Some(_) => Ok(()),
        None => Err("nobody leads".to_owned()),
    })
}
