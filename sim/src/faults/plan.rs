//! Which faults happen when: drawn from the seed before the run begins, so that leaving the last ones out changes
//! nothing of what the first ones are. Each seed uses its own selection of kinds, often few (swarm testing: a kind
//! that is always there hides what happens without it).

use super::FaultKind;
use crate::seeds::Seed;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

/// One fault to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// After the start of the fault phase, in simulated microseconds.
    pub at_us: u64,
    /// How long it lasts; a crashed node is down that long.
    pub lasts_us: u64,
    pub kind: FaultKind,
    /// Whom it hits, decided when it happens.
    pub target: Target,
    /// Everything else about it.
    pub seed: Seed,
}

/// Roles hit harder than names: who holds one is looked up when the fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Some node.
    Node,
    /// Some partition's leader.
    Leader,
    /// The leader of Raft.
    Controller,
    /// Some follower of some partition.
    Follower,
    /// Every node at the same moment.
    All,
    /// This node.
    Id(u64),
}

/// What a plan is drawn for.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    pub faulty_us: u64,
    pub nodes: usize,
}

pub fn draw(seed: Seed, scope: Scope) -> Vec<Planned> {
    let mut rng = seed.fork("plan").rng();
    let kinds = selection(&mut rng, scope.nodes);
    let mean_gap_us = *[400_000u64, 1_000_000, 2_500_000].choose(&mut rng).expect("it is not empty");
    let mut planned = Vec::new();
    let mut at_us = 0;
    for number in 0.. {
        let one = seed.fork("fault").nth(number);
        let mut rng = one.rng();
        at_us += (mean_gap_us as f64 * exponential(&mut rng)) as u64;
        if at_us >= scope.faulty_us {
            break;
        }
        let kind = *kinds.choose(&mut rng).expect("a selection is not empty");
        let lasts_us = (duration_us(kind) as f64 * exponential(&mut rng)) as u64;
        let target = target(&mut rng, kind);
        planned.push(Planned {
            at_us,
            lasts_us: lasts_us.min(15_000_000),
            kind,
            target,
            seed: one.fork("rest"),
        });
    }
    more_rot(seed.fork("more rot"), scope, &mut planned);
    planned
}

/// Rot must wait until all copies are there, which is seldom while much else goes on: some seeds get more of it.
fn more_rot(seed: Seed, scope: Scope, planned: &mut Vec<Planned>) {
    let mut rng = seed.rng();
    if scope.faulty_us == 0 || rng.random_bool(0.6) {
        return;
    }
    for number in 0..rng.random_range(1..=3) {
        let one = seed.nth(number);
        planned.push(Planned {
            at_us: one.rng().random_range(0..scope.faulty_us),
            lasts_us: 0,
            kind: FaultKind::BitRot,
            target: Target::Node,
            seed: one.fork("rest"),
        });
    }
    planned.sort_by_key(|planned| planned.at_us);
}

/// A quarter of the seeds use everything, the others a handful.
fn selection(rng: &mut StdRng, nodes: usize) -> Vec<FaultKind> {
    let mut kinds: Vec<FaultKind> =
        FaultKind::ALL.iter().copied().filter(|kind| possible(*kind, nodes)).collect();
    if rng.random_bool(0.75) {
        kinds.shuffle(rng);
        let keep = rng.random_range(2..=6);
        kinds.truncate(keep);
    }
    kinds
}

fn possible(kind: FaultKind, nodes: usize) -> bool {
    match kind {
        // Its replicas need another place while it is gone.
        FaultKind::WipedDisk => nodes > 3,
        _ => true,
    }
}

fn target(rng: &mut StdRng, kind: FaultKind) -> Target {
    let all = match kind {
        FaultKind::Crash | FaultKind::PowerLoss => 0.1,
        _ => 0.0,
    };
    if rng.random_bool(all) {
        return Target::All;
    }
    *[Target::Node, Target::Leader, Target::Controller, Target::Follower]
        .choose(rng)
        .expect("it is not empty")
}

fn duration_us(kind: FaultKind) -> u64 {
    let ms = match kind {
        FaultKind::Crash | FaultKind::PowerLoss | FaultKind::CrashPoint => 1_500,
        FaultKind::Pause => 2_000,
        FaultKind::WipedDisk => 1_000,
        FaultKind::ClientCrash => 500,
        FaultKind::DiskFull | FaultKind::SlowDisk => 3_000,
        FaultKind::Partition | FaultKind::OneWayPartition | FaultKind::Membership => 4_000,
        _ => 3_000,
    };
    ms * 1_000
}

/// Of mean 1.
fn exponential(rng: &mut StdRng) -> f64 {
    let uniform: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
    -uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_lies_in_its_time() {
        let scope = Scope { faulty_us: 60_000_000, nodes: 3 };
        for number in 0..200 {
            let plan = draw(Seed::new(number), scope);
            assert_eq!(plan, draw(Seed::new(number), scope));
            assert!(plan.iter().all(|p| p.at_us < scope.faulty_us && p.lasts_us <= 15_000_000));
            assert!(plan.is_sorted_by_key(|p| p.at_us));
            assert!(plan.iter().all(|p| p.kind != FaultKind::WipedDisk), "three nodes have no spare");
        }
    }

    #[test]
    fn every_kind_is_planned_by_some_seed() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..200 {
            seen.extend(
                draw(Seed::new(number), Scope { faulty_us: 60_000_000, nodes: 5 }).iter().map(|p| p.kind),
            );
        }
        assert_eq!(seen.len(), FaultKind::ALL.len());
    }
}
