//! What a play does on the stage by name, what it looks at, and how it waits for the moment that it needs.
//!
//! A play that misses its moment is tried again, so that a scenario provokes its hazard with (nearly) every seed; one
//! that never meets it fails as *not provoked*, because it has shown nothing.

use super::Stage;
use crate::faults::FaultKind;
use crate::faults::links::{FaultId, Latency};
use crate::history::Tp;
use crate::observe::{ImageView, PartitionView, ReplicaView, Role};
use crate::world::Failure;
use std::sync::Arc;
use std::time::Duration;
use strandline_storage::disk::sim::{SimFault, Unsynced};

/// A host's name in the network.
pub fn host(id: u64) -> String {
    format!("node-{id}")
}

pub fn hosts(ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    ids.into_iter().map(host).collect()
}

/// What happens.
impl Stage<'_> {
    fn tell(&mut self, kind: FaultKind, whom: &str) {
        self.watcher.fault(self.world.now_us(), kind.name(), whom, None);
    }

    /// The process dies, until [`Stage::start`].
    pub fn crash(&mut self, id: u64) {
        self.injector.crash(&mut self.world, id);
        self.tell(FaultKind::Crash, &host(id));
    }

    /// The machine is without power, until [`Stage::start`].
    pub fn lose_power(&mut self, id: u64, unsynced: Unsynced) {
        self.injector.lose_power(&mut self.world, id, unsynced);
        self.tell(FaultKind::PowerLoss, &host(id));
    }

    pub fn crash_in(&mut self, id: u64, operations: u64, back_in: Duration) {
        self.injector.crash_in(&self.world, id, operations, back_in);
        self.tell(FaultKind::CrashPoint, &host(id));
    }

    pub fn start(&mut self, id: u64) {
        self.start_in(id, Duration::ZERO);
    }

    pub fn start_in(&mut self, id: u64, after: Duration) {
        self.injector.bring_back(&self.world, id, after);
    }

    pub fn wipe(&mut self, id: u64) {
        self.injector.wipe_disk(&mut self.world, id);
        self.tell(FaultKind::WipedDisk, &host(id));
    }

    pub fn cut_one_way(&mut self, from: &[String], to: &[String]) -> FaultId {
        let whom = format!("{} -> {}", from.join(" "), to.join(" "));
        self.tell(FaultKind::OneWayPartition, &whom);
        self.injector.cut_one_way(&mut self.world, from, to)
    }

    pub fn cut(&mut self, side: &[String], rest: &[String]) -> FaultId {
        self.tell(FaultKind::Partition, &format!("{} | {}", side.join(" "), rest.join(" ")));
        self.injector.cut_both_ways(&mut self.world, side, rest)
    }

    pub fn hold(&mut self, one: &str, other: &str) -> FaultId {
        self.tell(FaultKind::SlowLink, &format!("{one} - {other}"));
        self.injector.hold_link(&mut self.world, one, other)
    }

    pub fn pause(&mut self, host: &str) -> FaultId {
        self.tell(FaultKind::Pause, host);
        self.injector.pause_host(&mut self.world, host)
    }

    /// Every message between the two takes this long.
    pub fn slow_link(&mut self, one: &str, other: &str, latency: Duration) -> FaultId {
        self.change_link(one, other, Latency::Fixed(latency))
    }

    pub fn change_link(&mut self, one: &str, other: &str, latency: Latency) -> FaultId {
        self.tell(FaultKind::SlowLink, &format!("{one} - {other}, {latency:?}"));
        self.injector.change_link(&mut self.world, one, other, latency)
    }

    pub fn slow_disk(&mut self, id: u64, round: Duration) -> FaultId {
        self.tell(FaultKind::SlowDisk, &host(id));
        self.injector.slow_disk(&self.world, id, round)
    }

    pub fn fill_disk(&mut self, id: u64, left: u64) -> FaultId {
        self.tell(FaultKind::DiskFull, &host(id));
        self.injector.fill_disk(&self.world, id, left)
    }

    pub fn fail_disk(&mut self, id: u64, kind: FaultKind, fault: SimFault) {
        self.tell(kind, &host(id));
        self.injector.fail_disk(&self.world, id, kind, fault);
    }

    pub fn rot(&mut self, id: u64, path_contains: &str, flips: usize) -> usize {
        self.tell(FaultKind::BitRot, &host(id));
        self.injector.rot_files(&self.world, id, path_contains, flips)
    }

    pub fn mend(&mut self, fault: FaultId) {
        self.injector.mend(&mut self.world, fault);
    }
}

/// What there is to see.
impl Stage<'_> {
    /// The newest metadata that any node which runs has applied.
    pub fn agreed(&self) -> Arc<ImageView> {
        let newest = self.world.views().values().max_by_key(|view| view.image.index);
        newest.map(|view| view.image.clone()).unwrap_or_default()
    }

    /// # Panics
    /// If nobody knows it: plays begin when all topics are made.
    pub fn partition(&self, tp: &Tp) -> Arc<PartitionView> {
        self.agreed().partitions.get(tp).cloned().unwrap_or_else(|| panic!("nobody knows {tp}"))
    }

    pub fn replica(&self, node: u64, tp: &Tp) -> Option<&ReplicaView> {
        self.world.views().get(&node)?.replicas.get(tp)
    }

    /// The agreed leader, if it runs and knows.
    pub fn leader_of(&self, tp: &Tp) -> Option<u64> {
        let image = self.agreed();
        let partition = image.partitions.get(tp)?;
        let leader = partition.leader?;
        (self.replica(leader, tp)?.role == Role::Leader { epoch: partition.leader_epoch }).then_some(leader)
    }

    /// Replicas that follow the present leader and know it.
    pub fn followers_of(&self, tp: &Tp) -> Vec<u64> {
        let Some(leader) = self.leader_of(tp) else { return Vec::new() };
        let partition = self.partition(tp);
        let follows = Role::Follower { leader, epoch: partition.leader_epoch };
        let replicas = partition.replicas.iter().copied();
        replicas.filter(|id| self.replica(*id, tp).is_some_and(|replica| replica.role == follows)).collect()
    }

    /// Who leads Raft.
    pub fn controller(&self) -> Option<u64> {
        let leaders = self.world.views().values().filter(|view| view.raft.leader);
        leaders.max_by_key(|view| view.raft.term).map(|view| view.node)
    }

    /// Whom this metadata makes the coordinator of a group.
    pub fn coordinator(&self, image: &ImageView, group: &str) -> Option<u64> {
        let unfenced = image.brokers.iter().filter(|(_, broker)| !broker.fenced).map(|(id, _)| *id);
        unfenced.max_by_key(|id| (weight(group, *id), std::cmp::Reverse(*id)))
    }
}

/// Rendezvous hashing of groups over brokers, which is part of the cluster's protocol: FNV-1a over the group's name,
/// then SplitMix64's finaliser. Said again here, since what looks on shares no code with what it looks at.
fn weight(group: &str, broker: u64) -> u64 {
    let hash = group
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut z = hash.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(broker.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How time passes.
impl Stage<'_> {
    /// Steps until `seen`, or answers `false`.
    pub fn wait(
        &mut self,
        at_most: Duration,
        mut seen: impl FnMut(&Stage<'_>) -> bool,
    ) -> Result<bool, Failure> {
        let until = self.world.now_us() + at_most.as_micros() as u64;
        while !seen(self) {
            if self.world.now_us() >= until {
                return Ok(false);
            }
            self.step()?;
        }
        Ok(true)
    }

    /// The same where a play cannot go on without.
    pub fn must(
        &mut self,
        at_most: Duration,
        what: &str,
        seen: impl FnMut(&Stage<'_>) -> bool,
    ) -> Result<(), Failure> {
        match self.wait(at_most, seen)? {
            true => Ok(()),
            false => {
                self.describe();
                Err(Failure::NotProvoked(format!("{what} did not happen within {at_most:?}")))
            }
        }
    }

    /// Everything is whole, everybody is in sync, and records are acknowledged.
    pub fn settle(&mut self) -> Result<(), Failure> {
        self.heal();
        self.converge()?;
        self.work_undisturbed()
    }

    /// Tries until one try provokes what it is about. Each begins with a cluster that has settled.
    pub fn provoke(
        &mut self,
        tries: usize,
        what: &str,
        mut one: impl FnMut(&mut Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        for _ in 0..tries {
            self.settle()?;
            if one(self)? {
                self.world.trace().note("play", format_args!("provoked: {what}"));
                return Ok(());
            }
        }
        Err(Failure::NotProvoked(format!("{what}, in {tries} tries")))
    }
}
