//! Hazards provoked on purpose: each a short play on the stage of a run, which ends with the same healing and the same
//! judgement as every other run, and fails if what it is about did not happen.

mod disk;
mod failover;
mod groups;
mod isr;
mod logs;
mod metadata;
mod network;
mod raft;
mod retention;
mod script;

use crate::draw::Cast;
use crate::stage::Stage;
use crate::world::Failure;
use std::time::Duration;

/// One hazard, provoked.
#[derive(Debug)]
pub struct Scenario {
    /// As the list of hazards names it.
    pub name: &'static str,
    /// Its number in that list.
    pub hazard: u8,
    /// One line for `list`.
    pub about: &'static str,
    /// Changes who takes part.
    pub cast: fn(&mut Cast),
    /// The phase with faults.
    pub play: fn(&mut Stage<'_>) -> Result<(), Failure>,
}

impl Scenario {
    /// The play, once every kind of client is at work.
    pub fn perform(&self, stage: &mut Stage<'_>) -> Result<(), Failure> {
        stage.until(Duration::from_secs(30), "the clients did not begin to work", |stage| {
            let (work, cast) = (&stage.work, &stage.cast);
            let idle = work.acknowledged < 20 * cast.producers as u64
                || (cast.readers > 0 && work.read == 0)
                || (cast.members > 0 && work.commits == 0);
            if idle { Err(format!("{work:?}")) } else { Ok(()) }
        })?;
        (self.play)(stage)
    }
}

static SCENARIOS: &[Scenario] = &[
    failover::HW_TRUNCATION,
    failover::DOUBLE_FAILOVER,
    failover::UNCLEAN_ELECTION,
    isr::ZOMBIE_LEADER,
    isr::LOCAL_ISR_SHRINK,
    isr::STALE_FOLLOWER_IN_ISR,
    isr::EARLY_REJOIN,
    isr::LAST_REPLICA_STANDING,
    failover::HW_REGRESSION,
    failover::EARLY_VISIBILITY,
    logs::FSYNC_VS_TRUNCATION,
    logs::EPOCH_CACHE,
    logs::REASSIGNMENT_FLAP,
    raft::RAFT_UNSYNCED,
    raft::METADATA_REWIND,
    raft::SNAPSHOT_INTERRUPTED,
    raft::SNAPSHOT_CATCH_UP,
    metadata::ORPHAN_DELETE,
    metadata::WIPED_NODE,
    raft::MEMBERSHIP_IN_PARTITION,
    raft::DISRUPTIVE_SERVER,
    metadata::RAFT_BIT_ROT,
    metadata::CLOCK_JUMP,
    metadata::STALE_CLIENT_METADATA,
    groups::ZOMBIE_COMMIT,
    groups::OFFSET_REWIND,
    groups::TWO_COORDINATORS,
    groups::REBALANCE_STORM,
    groups::RETRY_DUPLICATE,
    groups::UNKNOWN_OUTCOME,
    disk::TORN_WRITE,
    disk::BIT_ROT,
    disk::FSYNC_ERROR,
    disk::DISK_FULL,
    disk::INDEX_LOST,
    disk::CRASH_POINTS,
    retention::RETENTION_UNDER_READER,
    retention::BAD_TIMESTAMPS,
    disk::SLOW_DISK,
    network::MESSY_NETWORK,
];

/// Every scenario, by hazard.
pub fn all() -> &'static [Scenario] {
    SCENARIOS
}

pub fn named(name: &str) -> Option<&'static Scenario> {
    all().iter().find(|scenario| scenario.name == name)
}

/// A hazard without a scenario.
#[derive(Clone, Copy, Debug)]
pub struct NotYet {
    pub name: &'static str,
    pub hazard: u8,
    pub why: &'static str,
}

/// Hazards that do not apply to what exists, or that another kind of test provokes, each with the reason.
pub fn not_yet() -> &'static [NotYet] {
    const fn it(hazard: u8, name: &'static str, why: &'static str) -> NotYet {
        NotYet { name, hazard, why }
    }
    static LIST: &[NotYet] = &[
        it(12, "follower-read", "only leaders serve reads"),
        it(
            16,
            "apply-torn",
            "here the applied state is rebuilt at every start; the store that keeps it is tested in raft/src/state_store",
        ),
        it(
            30,
            "coordinator-load",
            "a coordinator loads nothing, groups lie in the replicated metadata; 100 000 of them are for real processes",
        ),
        it(33, "late-transaction", "there are no transactions"),
        it(
            45,
            "slow-consumer",
            "the network here takes any number of bytes from a sender; needs a raw client and a bounded one",
        ),
        it(
            46,
            "hostile-input",
            "fuzz targets batch_decoder and recovery, node/tests/requests.rs and node/tests/peer_listener.rs",
        ),
        it(
            47,
            "partition-explosion",
            "memory and descriptors are those of a real process; there is no quota yet",
        ),
        it(48, "version-skew", "there is one version of every format so far"),
    ];
    LIST
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Hazards in `ops/docs/HAZARDS.md`.
    const HAZARDS: u8 = 48;

    #[test]
    fn every_hazard_has_a_scenario_or_a_reason() {
        let played = all().iter().map(|scenario| scenario.hazard);
        let excused = not_yet().iter().map(|hazard| hazard.hazard);
        let listed: Vec<u8> = played.chain(excused).collect();
        let once: BTreeSet<u8> = listed.iter().copied().collect();
        assert_eq!(listed.len(), once.len(), "a hazard is listed twice");
        assert_eq!(once, (1..=HAZARDS).collect());
        assert!(all().is_sorted_by_key(|scenario| scenario.hazard));
    }

    #[test]
    fn names_are_found_and_differ() {
        let names: BTreeSet<&str> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(names.iter().all(|name| named(name).is_some_and(|found| found.name == *name)));
    }
}
