//! Leaders that die, twice and with stale knowledge: what a replica may throw away, and what a new leader may say.

use super::Scenario;
use super::script::{first, get_trio, min_insync, ms, seconds, set, small, unclean_elections};
use crate::draw::Cast;
use crate::history::{Acks, Outcome, What};
use crate::observe::Role;
use crate::stage::Stage;
use crate::stage::direct::{host, hosts};
use crate::world::Failure;
use strandline_storage::disk::sim::Unsynced;

pub const HW_TRUNCATION: Scenario = Scenario {
    name: "hw-truncation",
    hazard: 1,
    about: "a follower that knows an old high watermark meets a new leader, then must lead itself",
    cast: |cast| small(cast, 5, 1),
    play: |stage| {
        stage.provoke(6, "a follower behind in its high watermark led two epochs later", hw_truncation)
    },
};

/// Leader, second and last replica: the leader dies while the last one has records below the high watermark above its
/// own idea of it; the second one leads, the last one meets it, and the second one dies: the last must have them all.
fn hw_truncation(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    let lags = |stage: &Stage<'_>| {
        let (Some(at_leader), Some(at_last)) = (stage.replica(leader, &tp), stage.replica(last, &tp)) else {
            return false;
        };
        at_last.high_watermark < at_leader.high_watermark && at_leader.high_watermark <= at_last.flushed_end
    };
    if !stage.wait(seconds(5), lags)? {
        return Ok(false);
    }
    let visible = stage.replica(leader, &tp).map_or(0, |replica| replica.high_watermark);
    stage.crash(leader);
    let met = |stage: &Stage<'_>| {
        stage
            .replica(last, &tp)
            .is_some_and(|at| matches!(at.role, Role::Follower { leader, .. } if leader == second))
    };
    if !stage.wait(seconds(10), met)? {
        return Ok(false);
    }
    stage.lose_power(second, Unsynced::Lost);
    let led = stage.wait(seconds(10), |stage| stage.leader_of(&tp) == Some(last))?;
    Ok(led && stage.replica(last, &tp).is_some_and(|at| at.log_end >= visible))
}

pub const DOUBLE_FAILOVER: Scenario = Scenario {
    name: "double-failover",
    hazard: 2,
    about: "three elections of one partition within a second, epochs without a record among them",
    cast: |cast| small(cast, 5, 1),
    play: |stage| stage.provoke(6, "three elections within a second", double_failover),
};

fn double_failover(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    let epoch = |stage: &Stage<'_>| stage.partition(&tp).leader_epoch;
    let (began, before) = (stage.world.now_us(), epoch(stage));
    for (victim, back_in) in [(leader, ms(200)), (second, ms(300)), (last, ms(300))] {
        let leads = |stage: &Stage<'_>| stage.partition(&tp).leader == Some(victim);
        if !stage.wait(seconds(3), leads)? {
            return Ok(false);
        }
        stage.crash(victim);
        stage.start_in(victim, back_in);
    }
    let three = stage.wait(seconds(5), |stage| epoch(stage) >= before + 3)?;
    Ok(three && stage.world.now_us() - began <= 1_000_000)
}

pub const UNCLEAN_ELECTION: Scenario = Scenario {
    name: "unclean-election",
    hazard: 3,
    about: "the whole ISR is gone, a replica that was behind takes over, and consumers are told what they lost",
    cast: |cast: &mut Cast| {
        small(cast, 5, 1);
        min_insync(cast, 1);
        unclean_elections(cast);
        cast.readers = 2;
        cast.twist.node = super::script::impatient;
    },
    play: |stage| stage.provoke(4, "an unclean election cut what a consumer had read", unclean_election),
};

fn unclean_election(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    if stage.controller() == Some(last) {
        return super::isr::move_controller(stage);
    }
    let unclean_before = stage.partition(&tp).unclean_epoch;
    // The last one stays alive but falls behind.
    stage.cut(&hosts([last]), &hosts([leader, second]));
    if !stage.wait(seconds(10), |stage| !stage.partition(&tp).isr.contains(&last))? {
        return Ok(false);
    }
    let behind = stage.replica(last, &tp).map_or(0, |at| at.log_end);
    stage.run_for(seconds(1))?;
    let told = stage.history.len();
    stage.crash(leader);
    stage.crash(second);
    let unclean = |stage: &Stage<'_>| stage.partition(&tp).unclean_epoch > unclean_before;
    if !stage.wait(seconds(20), unclean)? {
        return Ok(false);
    }
    let truncated = |stage: &Stage<'_>| {
        stage.history[told..]
            .iter()
            .any(|event| matches!(&event.what, What::Truncated { position, .. } if *position > behind))
    };
    stage.wait(seconds(10), truncated)
}

pub const HW_REGRESSION: Scenario = Scenario {
    name: "hw-regression",
    hazard: 9,
    about: "a leader that knows an older high watermark is asked for the end, for as long as it cannot tell",
    cast: |cast| small(cast, 5, 1),
    play: |stage| stage.provoke(6, "a new leader knew an older high watermark, for a while", hw_regression),
};

fn hw_regression(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    // What the two have in common takes long, so that the new leader cannot know for long either.
    stage.slow_link(&host(second), &host(last), ms(400));
    let high = |stage: &Stage<'_>, node| stage.replica(node, &tp).map_or(0, |at| at.high_watermark);
    if !stage.wait(seconds(5), |stage| high(stage, second) < high(stage, leader))? {
        return Ok(false);
    }
    let visible = high(stage, leader);
    stage.crash(leader);
    if !stage.wait(seconds(10), |stage| stage.leader_of(&tp) == Some(second))? {
        return Ok(false);
    }
    let (began, older) = (stage.world.now_us(), high(stage, second) < visible);
    stage.wait(seconds(10), |stage| high(stage, second) >= visible)?;
    Ok(older && stage.world.now_us() - began >= 200_000)
}

pub const EARLY_VISIBILITY: Scenario = Scenario {
    name: "early-visibility",
    hazard: 10,
    about: "records acknowledged by the leader alone vanish with it, among others that must not",
    cast: |cast: &mut Cast| {
        small(cast, 5, 1);
        set(&mut cast.topics[0], "segment.bytes", "65536");
        (cast.producers, cast.readers) = (3, 2);
        cast.twist.producer = |number, plan| {
            plan.acks = if number == 1 { Acks::Leader } else { Acks::All };
            plan.idempotent &= number != 1;
            plan.pause = ms(10);
        };
    },
    play: |stage| stage.provoke(6, "a record acknowledged by its leader only was lost", early_visibility),
};

fn early_visibility(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let (leader, second, last) = get_trio(stage, &tp)?;
    for follower in [second, last] {
        stage.slow_link(&host(leader), &host(follower), ms(150));
    }
    stage.run_for(seconds(1))?;
    let told = stage.history.len();
    let early = |stage: &Stage<'_>| {
        let high = stage.replica(leader, &tp).map_or(i64::MAX, |at| at.high_watermark);
        stage.history[told..].iter().rev().find_map(|event| match event.what {
            What::Sent { outcome: Outcome::Acknowledged(Some(offset)), .. } if offset >= high => Some(offset),
            _ => None,
        })
    };
    if !stage.wait(seconds(5), |stage| early(stage).is_some())? {
        return Ok(false);
    }
    let offset = early(stage).expect("it was just there");
    stage.lose_power(leader, Unsynced::Kept);
    let next = |stage: &Stage<'_>| stage.leader_of(&tp).filter(|id| *id != leader);
    if !stage.wait(seconds(10), |stage| next(stage).is_some())? {
        return Ok(false);
    }
    let next = next(stage).expect("it was just there");
    Ok(stage.replica(next, &tp).is_some_and(|at| at.log_end <= offset))
}
