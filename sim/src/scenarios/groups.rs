//! Coordinators and members that are not what they think, and producers whose answers are lost.

use super::Scenario;
use super::script::{first, get_trio, missed, ms, nodes_but, seconds, small};
use crate::draw::Cast;
use crate::faults::FaultKind;
use crate::faults::plan::{Planned, Target};
use crate::history::{Acks, Attempt, Event, Outcome, What};
use crate::observe::ImageView;
use crate::stage::Stage;
use crate::stage::direct::{host, hosts};
use crate::world::Failure;
use std::collections::{BTreeMap, BTreeSet};

const GROUP: &str = "workers";

fn generation(image: &ImageView) -> i32 {
    image.groups.get(GROUP).map_or(0, |group| group.generation)
}

fn members(image: &ImageView) -> usize {
    image.groups.get(GROUP).filter(|group| group.assigned).map_or(0, |group| group.members.len())
}

/// Generations of the commits that were begun and not answered.
fn open_commits(history: &[Event]) -> Vec<i32> {
    let mut open = BTreeMap::new();
    for event in history {
        match &event.what {
            What::Commit { commit, generation: Some(generation), .. } => {
                open.insert(*commit, *generation);
            }
            What::Committed { commit, .. } => {
                open.remove(commit);
            }
            _ => {}
        }
    }
    open.into_values().collect()
}

pub const ZOMBIE_COMMIT: Scenario = Scenario {
    name: "zombie-commit",
    hazard: 27,
    about: "a member is paused past its session; its commit arrives when others have its partitions",
    cast: |cast: &mut Cast| {
        small(cast, 3, 4);
        cast.members = 3;
        cast.twist.member = |_, plan| (plan.session_timeout, plan.work) = (seconds(2), ms(200));
    },
    play: |stage| stage.provoke(6, "a commit of a member that was replaced arrived", zombie_commit),
};

fn zombie_commit(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    stage.must(seconds(30), "all members have their partitions", |stage| members(&stage.agreed()) == 3)?;
    stage.run_for(ms(500))?;
    let (before, told) = (generation(&stage.agreed()), stage.history.len());
    let paused = stage.pause("member-0");
    let replaced = |stage: &Stage<'_>| generation(&stage.agreed()) > before && members(&stage.agreed()) == 2;
    let late = stage.wait(seconds(12), replaced)?
        && open_commits(&stage.history[told..]).iter().any(|own| *own < generation(&stage.agreed()));
    stage.mend(paused);
    stage.run_for(seconds(1))?;
    Ok(late)
}

pub const OFFSET_REWIND: Scenario = Scenario {
    name: "offset-rewind",
    hazard: 28,
    about: "the coordinator dies as soon as a commit is acknowledged; its successor must know it",
    cast: |cast: &mut Cast| {
        small(cast, 3, 2);
        cast.members = 2;
        cast.twist.member = |_, plan| plan.work = ms(40);
    },
    play: offset_rewind,
};

fn offset_rewind(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let mut hits = 0;
    for _ in 0..4 {
        stage.settle()?;
        let told = stage.history.len();
        let acknowledged = |stage: &Stage<'_>| {
            stage.history[told..]
                .iter()
                .any(|event| matches!(event.what, What::Committed { outcome: Outcome::Acknowledged(()), .. }))
        };
        if !stage.wait(seconds(10), acknowledged)? {
            continue;
        }
        let Some(coordinator) = stage.coordinator(&stage.agreed(), GROUP) else { continue };
        stage.lose_power(coordinator, strandline_storage::disk::sim::Unsynced::Lost);
        let (told, now) = (stage.history.len(), stage.world.now_us());
        let succeeded = stage.wait(seconds(10), |stage| {
            stage.coordinator(&stage.agreed(), GROUP).is_some_and(|id| id != coordinator)
                && stage.history[told..].iter().any(|event| {
                    matches!(event.what, What::OffsetRead { asked_us, offset: Some(_), .. } if asked_us > now)
                })
        })?;
        hits += u32::from(succeeded);
    }
    match hits >= 2 {
        true => Ok(()),
        false => Err(missed(&format!("offsets were read from {hits} successors only"))),
    }
}

pub const TWO_COORDINATORS: Scenario = Scenario {
    name: "two-coordinators",
    hazard: 29,
    about: "a coordinator that the other nodes cannot reach keeps serving the members that can reach it",
    cast: |cast: &mut Cast| {
        small(cast, 5, 4);
        cast.members = 4;
    },
    play: |stage| stage.provoke(3, "two nodes held themselves for the coordinator", two_coordinators),
};

fn two_coordinators(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    stage.must(seconds(30), "all members have their partitions", |stage| members(&stage.agreed()) == 4)?;
    let Some(old) = stage.coordinator(&stage.agreed(), GROUP) else { return Ok(false) };
    let rest = hosts(nodes_but(stage, &[old]));
    stage.cut(&hosts([old]), &rest);
    let two = |stage: &Stage<'_>| {
        let believes = stage.world.views().get(&old).and_then(|view| stage.coordinator(&view.image, GROUP));
        believes == Some(old) && stage.coordinator(&stage.agreed(), GROUP).is_some_and(|id| id != old)
    };
    if !stage.wait(seconds(10), two)? {
        return Ok(false);
    }
    // Long enough for sessions to end on either side.
    stage.run_for(seconds(8))?;
    Ok(two(stage))
}

pub const REBALANCE_STORM: Scenario = Scenario {
    name: "rebalance-storm",
    hazard: 31,
    about: "fifty slow members and a rolling restart of all nodes; then the group comes to rest",
    cast: |cast: &mut Cast| {
        small(cast, 3, 12);
        cast.members = MEMBERS;
        cast.twist.member = |_, plan| plan.work = ms(1_000);
    },
    play: rebalance_storm,
};

const MEMBERS: usize = 50;

fn rebalance_storm(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.must(seconds(40), "all members were there", |stage| members(&stage.agreed()) == MEMBERS)?;
    let before = generation(&stage.agreed());
    let rolling = Planned {
        at_us: 0,
        lasts_us: 0,
        kind: FaultKind::RollingRestart,
        target: Target::Node,
        seed: stage.world.seed().fork("rolling"),
    };
    if stage.inject(&rolling).is_none() {
        return Err(missed("the nodes were not restarted"));
    }
    // A member leaves and comes back meanwhile.
    for member in 0..5 {
        let name = format!("member-{member}");
        stage.world.crash_client(&name);
        stage.run_for(seconds(1))?;
        stage.world.restart_client(&name);
    }
    let all_restarted =
        |stage: &Stage<'_>| stage.world.node_ids().iter().all(|id| stage.world.node(*id).lives() > 1);
    stage.must(seconds(40), "every node was restarted", all_restarted)?;
    stage.must(seconds(20), "the group noticed", |stage| generation(&stage.agreed()) > before)?;
    stage.settle()?;
    // Quiet from here on: twice the session time-out.
    stage.until(seconds(12), "the group did not come to rest", |stage| match members(&stage.agreed()) {
        MEMBERS => Ok(()),
        count => Err(format!("{count} members are assigned")),
    })
}

pub const RETRY_DUPLICATE: Scenario = Scenario {
    name: "retry-duplicate",
    hazard: 32,
    about: "acknowledgements are lost, the leader dies, and the producer sends the same batches to its successor",
    cast: |cast: &mut Cast| {
        small(cast, 5, 1);
        cast.twist.producer = |_, plan| {
            (plan.acks, plan.idempotent, plan.pause) = (Acks::All, true, ms(8));
        };
    },
    play: |stage| {
        stage.provoke(6, "a successor acknowledged what its predecessor had appended", retry_duplicate)
    },
};

fn retry_duplicate(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, ..) = get_trio(stage, &tp)?;
    stage.cut_one_way(&hosts([leader]), &["producer-0".to_owned()]);
    stage.run_for(ms(300))?;
    let high = stage.replica(leader, &tp).map_or(0, |at| at.high_watermark);
    stage.crash(leader);
    let told = stage.history.len();
    let sent = |event: &Event| match event.what {
        What::Send { attempt, .. } => Some(attempt),
        _ => None,
    };
    let before: BTreeSet<Attempt> = stage.history.iter().filter_map(sent).collect();
    stage.wait(seconds(15), |stage| {
        stage.history[told..].iter().any(|event| {
            matches!(event.what, What::Sent { attempt, outcome: Outcome::Acknowledged(Some(offset)), .. }
                if before.contains(&attempt) && offset < high)
        })
    })
}

pub const UNKNOWN_OUTCOME: Scenario = Scenario {
    name: "unknown-outcome",
    hazard: 34,
    about: "no answer reaches a producer until its delivery time-out: it must say that it does not know",
    cast: |cast: &mut Cast| {
        small(cast, 3, 2);
        cast.producers = 2;
    },
    play: unknown_outcome,
};

fn unknown_outcome(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (unknown, nodes) = (stage.work.unknown, stage.world.node_ids());
    let ends = |stage: &Stage<'_>| {
        let views = stage.world.views().values();
        views.flat_map(|view| view.replicas.get(&first())).map(|at| at.high_watermark).max()
    };
    let before = ends(stage);
    let cut = stage.cut_one_way(&hosts(nodes.clone()), &["producer-0".to_owned()]);
    stage.run_for(ms(100))?;
    stage.world.trace().note("play", format_args!("{} hears nothing of {}", "producer-0", host(nodes[0])));
    stage.must(seconds(30), "an attempt ended without an answer", |stage| stage.work.unknown > unknown)?;
    stage.mend(cut);
    match ends(stage) > before {
        true => Ok(()),
        false => Err(missed("nothing was appended meanwhile")),
    }
}
