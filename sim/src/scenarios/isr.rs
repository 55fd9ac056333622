//! Who counts as in sync, when the answers come late and the replicas are not what they were.

use super::Scenario;
use super::script::{first, get_trio, impatient, ms, nodes_but, seconds, set, small};
use crate::draw::Cast;
use crate::history::Acks;
use crate::observe::Role;
use crate::stage::Stage;
use crate::stage::direct::{host, hosts};
use crate::workload::admin::Order;
use crate::world::Failure;
use strandline_node::config::NodeConfig;
use strandline_storage::disk::sim::Unsynced;

/// Nobody loses its session by a link that is slow for a few seconds.
fn patient_controller(config: &mut NodeConfig) {
    impatient(config);
    config.broker_session_timeout = seconds(9);
}

/// The controller is where a play cannot use it: for another try it is elsewhere.
pub fn move_controller(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let order = stage.orders.give(Order::TransferLeadership);
    stage.wait(seconds(5), |stage| stage.orders.result(order).is_some())?;
    Ok(false)
}

pub const ZOMBIE_LEADER: Scenario = Scenario {
    name: "zombie-leader",
    hazard: 4,
    about: "a leader that only its clients can reach goes on taking writes after its successor was elected",
    cast: |cast: &mut Cast| {
        small(cast, 5, 1);
        cast.producers = 3;
        // Those who wait for the whole ISR have soon sent as much as may be under way.
        cast.twist.producer = |number, plan| {
            if number > 0 {
                (plan.acks, plan.idempotent) = (Acks::Leader, false);
            }
        };
    },
    play: |stage| stage.provoke(4, "a deposed leader appended what its clients sent", zombie_leader),
};

fn zombie_leader(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, ..) = get_trio(stage, &tp)?;
    let others = hosts(nodes_but(stage, &[leader]));
    // First it is not heard any more, then it hears nothing either.
    stage.cut_one_way(&hosts([leader]), &others);
    stage.run_for(ms(500))?;
    stage.cut_one_way(&others, &hosts([leader]));
    let deposed = |stage: &Stage<'_>| {
        let epoch = stage.partition(&tp).leader_epoch;
        stage
            .replica(leader, &tp)
            .is_some_and(|at| matches!(at.role, Role::Leader { epoch: own } if own < epoch))
    };
    if !stage.wait(seconds(15), deposed)? {
        return Ok(false);
    }
    let end = |stage: &Stage<'_>| stage.replica(leader, &tp).map_or(0, |at| at.log_end);
    let before = end(stage);
    let appended = stage.wait(seconds(8), |stage| deposed(stage) && end(stage) > before)?;
    // And its successor works meanwhile.
    stage.run_for(seconds(1))?;
    Ok(appended)
}

pub const LOCAL_ISR_SHRINK: Scenario = Scenario {
    name: "local-isr-shrink",
    hazard: 5,
    about: "the answer to a change of the ISR comes after the next election",
    cast: |cast: &mut Cast| {
        small(cast, 5, 1);
        cast.twist.node = patient_controller;
    },
    play: |stage| {
        stage.provoke(8, "an ISR change was agreed and answered an election too late", local_isr_shrink)
    },
};

/// The second replica leads; the link to the controller is slow; the last one lags and is removed; the first one is
/// elected before the leader knows of that.
fn local_isr_shrink(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, ..) = get_trio(stage, &tp)?;
    let replicas = stage.partition(&tp).replicas.clone();
    if leader == replicas[0] {
        stage.crash(leader);
        stage.start_in(leader, ms(100));
        stage.wait(seconds(10), |stage| stage.leader_of(&tp).is_some_and(|id| id != leader))?;
        stage.settle()?;
    }
    let Some(leader) = stage.leader_of(&tp).filter(|id| *id != replicas[0]) else { return Ok(false) };
    let Some(controller) = stage.controller() else { return Ok(false) };
    let lagging = *replicas.iter().find(|id| **id != leader && **id != replicas[0]).expect("three replicas");
    // The slow link to it is to carry no replication.
    if replicas.contains(&controller) {
        return move_controller(stage);
    }
    // The order below must reach the controller, not wait in the slow link behind a leader that was asked first.
    stage.cut(&["admin".to_owned()], &hosts([leader]));
    stage.slow_link(&host(leader), &host(controller), ms(1_500));
    stage.cut(&hosts([lagging]), &hosts([leader]));
    let shrunk_unheard = |stage: &Stage<'_>| {
        !stage.partition(&tp).isr.contains(&lagging)
            && stage.replica(leader, &tp).is_some_and(|at| at.maximal_isr.contains(&lagging))
    };
    if !stage.wait(seconds(10), shrunk_unheard)? {
        return Ok(false);
    }
    let epoch = stage.partition(&tp).leader_epoch;
    stage.orders.give(Order::ElectPreferred { tp: tp.clone() });
    stage.wait(seconds(3), |stage| {
        stage.partition(&tp).leader_epoch > epoch
            && stage
                .replica(leader, &tp)
                .is_some_and(|at| at.role == Role::Leader { epoch } && at.maximal_isr.contains(&lagging))
    })
}

pub const STALE_FOLLOWER_IN_ISR: Scenario = Scenario {
    name: "stale-follower-in-isr",
    hazard: 6,
    about: "a follower loses power, and its unsynced tail, after the leader asked for it to join the ISR",
    cast: |cast: &mut Cast| {
        small(cast, 5, 1);
        // So that there is a tail to lose.
        set(&mut cast.topics[0], "flush", "interval");
        super::script::unclean_elections(cast);
        cast.topics[0].facts.flush_ack = false;
        cast.twist.node = patient_controller;
    },
    play: |stage| stage.provoke(8, "a follower was reborn while its joining was under way", stale_follower),
};

fn stale_follower(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, _, last) = get_trio(stage, &tp)?;
    let Some(controller) = stage.controller().filter(|id| *id != leader && *id != last) else {
        return move_controller(stage);
    };
    stage.crash(last);
    if !stage.wait(seconds(5), |stage| !stage.partition(&tp).isr.contains(&last))? {
        return Ok(false);
    }
    stage.run_for(ms(500))?;
    let before = stage.agreed().brokers.get(&last).map(|broker| broker.epoch);
    stage.start(last);
    let back = |stage: &Stage<'_>| {
        stage.agreed().brokers.get(&last).map(|broker| broker.epoch) > before
            && stage
                .world
                .views()
                .get(&leader)
                .is_some_and(|view| view.image.brokers.get(&last).is_some_and(|broker| !broker.fenced))
    };
    if !stage.wait(seconds(10), back)? {
        return Ok(false);
    }
    // From here on what the leader proposes takes its time.
    stage.slow_link(&host(leader), &host(controller), ms(1_000));
    let joining = |stage: &Stage<'_>| {
        !stage.partition(&tp).isr.contains(&last)
            && stage.replica(leader, &tp).is_some_and(|at| at.maximal_isr.contains(&last))
    };
    if !stage.wait(seconds(10), joining)? {
        return Ok(false);
    }
    let fetched = stage.agreed().brokers.get(&last).map(|broker| broker.epoch);
    stage.lose_power(last, Unsynced::Lost);
    stage.start(last);
    stage.wait(seconds(5), |stage| {
        joining(stage) && stage.agreed().brokers.get(&last).map(|broker| broker.epoch) > fetched
    })
}

pub const EARLY_REJOIN: Scenario = Scenario {
    name: "early-rejoin",
    hazard: 7,
    about: "a replica is removed and added again, and the leader hears of both at once",
    cast: |cast: &mut Cast| {
        small(cast, 5, 1);
        cast.twist.node = patient_controller;
    },
    play: |stage| stage.provoke(8, "a leader saw a replica removed and added again as one", early_rejoin),
};

fn early_rejoin(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    let Some(controller) = stage.controller().filter(|id| *id != leader) else {
        return move_controller(stage);
    };
    let spare = nodes_but(stage, &[leader, second, last])[0];
    stage.orders.give(Order::Reassign { tp: tp.clone(), replicas: vec![leader, second, spare] });
    // The new one is in sync: what remains is for the controller alone to do.
    let grown = |stage: &Stage<'_>| stage.partition(&tp).isr.contains(&spare);
    if !stage.wait(seconds(15), grown)? {
        return Ok(false);
    }
    let held = stage.hold(&host(leader), &host(controller));
    let removed = |stage: &Stage<'_>| !stage.partition(&tp).replicas.contains(&last);
    let gone = stage.wait(seconds(3), removed)?;
    let back = stage.orders.give(Order::Reassign { tp: tp.clone(), replicas: vec![leader, second, last] });
    let again = gone
        && stage.wait(seconds(4), |stage| {
            stage.partition(&tp).replicas.contains(&last) && stage.partition(&tp).replicas.len() > 3
        })?;
    let unaware = stage.world.views().get(&leader).is_some_and(|view| {
        let known = &view.image.partitions[&tp];
        known.replicas.contains(&last) && known.partition_epoch < stage.partition(&tp).partition_epoch
    });
    stage.mend(held);
    stage.wait(seconds(25), |stage| stage.orders.result(back).is_some())?;
    Ok(again && unaware)
}

pub const LAST_REPLICA_STANDING: Scenario = Scenario {
    name: "last-replica-standing",
    hazard: 8,
    about: "the ISR shrinks to one, which loses power; who comes back first was not complete and must not lead",
    cast: |cast: &mut Cast| {
        small(cast, 5, 1);
        cast.producers = 2;
    },
    play: |stage| {
        stage.provoke(4, "a replica that lacks records waited for those that have them", last_standing)
    },
};

fn last_standing(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    stage.crash(last);
    if !stage.wait(seconds(10), |stage| stage.partition(&tp).isr.len() == 2)? {
        return Ok(false);
    }
    stage.run_for(seconds(1))?;
    stage.crash(second);
    let alone = |stage: &Stage<'_>| {
        let partition = stage.partition(&tp);
        partition.isr.len() == 1 && partition.isr.contains(&leader) && partition.elr.contains(&second)
    };
    if !stage.wait(seconds(10), alone)? {
        return Ok(false);
    }
    stage.run_for(ms(300))?;
    stage.lose_power(leader, Unsynced::Lost);
    stage.start(last);
    let waits = |stage: &Stage<'_>| {
        let image = stage.agreed();
        image.brokers.get(&last).is_some_and(|broker| !broker.fenced)
            && stage.world.views().contains_key(&last)
            && image.partitions[&tp].leader.is_none()
    };
    if !stage.wait(seconds(15), waits)? {
        return Ok(false);
    }
    stage.run_for(seconds(4))?;
    let still = waits(stage);
    stage.start(second);
    Ok(still && stage.wait(seconds(15), |stage| stage.leader_of(&tp) == Some(second))?)
}
