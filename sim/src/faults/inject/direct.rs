//! Faults by name instead of by draw, for scenarios: this node, this link, until told otherwise. They go through the
//! same books as planned ones, so that they are counted, may overlap with those, and end when everything heals.

use super::{End, Injector, heal_disk, name};
use crate::faults::FaultKind;
use crate::faults::links::{FaultId, Latency};
use crate::world::World;
use std::time::Duration;
use strandline_storage::disk::sim::{SimFault, Unsynced};

/// A node that is not started again before [`Injector::bring_back`] or the end of all faults.
const FOR_GOOD: u64 = u64::MAX;

impl Injector {
    fn begin(&mut self) -> FaultId {
        self.next += 1;
        self.next - 1
    }

    fn count(&mut self, world: &World, kind: FaultKind, whom: &str) {
        self.counters.count(kind);
        world.trace().note("fault", format_args!("{kind}: {whom}"));
    }

    /// The process dies and stays dead.
    pub fn crash(&mut self, world: &mut World, id: u64) {
        self.restarts.insert(id, FOR_GOOD);
        world.crash(id);
        self.count(world, FaultKind::Crash, &name(id));
    }

    /// The machine loses power and stays off.
    pub fn lose_power(&mut self, world: &mut World, id: u64, unsynced: Unsynced) {
        self.restarts.insert(id, FOR_GOOD);
        world.power_loss(id, unsynced);
        self.count(world, FaultKind::PowerLoss, &name(id));
    }

    /// The process dies in the disk operation after so many more, and is started again this long after now.
    pub fn crash_in(&mut self, world: &World, id: u64, operations: u64, back_in: Duration) {
        let disk = &world.node(id).machine().disk;
        disk.set_crash_at_op(disk.op_count() + operations);
        self.restarts.insert(id, world.now_us() + back_in.as_micros() as u64);
        self.count(world, FaultKind::CrashPoint, &name(id));
    }

    /// A dead node is started this long from now.
    pub fn bring_back(&mut self, world: &World, id: u64, after: Duration) {
        self.restarts.insert(id, world.now_us() + after.as_micros() as u64);
    }

    /// A dead node gets an empty disk. Nobody is told.
    pub fn wipe_disk(&mut self, world: &mut World, id: u64) {
        world.wipe(id);
        self.count(world, FaultKind::WipedDisk, &name(id));
    }

    /// A dead node is removed by the admin, then joins with whatever its disk holds.
    pub fn readmit_node(&mut self, id: u64) {
        self.restarts.remove(&id);
        self.operator.bring_back(id);
    }

    /// Nothing that any of the first sends reaches any of the second.
    pub fn cut_one_way(&mut self, world: &mut World, from: &[String], to: &[String]) -> FaultId {
        let fault = self.begin();
        for one in from {
            for other in to {
                self.links.cut(world, fault, one, other);
            }
        }
        self.count(world, FaultKind::OneWayPartition, &format!("{} -> {}", from.join(" "), to.join(" ")));
        fault
    }

    pub fn cut_both_ways(&mut self, world: &mut World, side: &[String], rest: &[String]) -> FaultId {
        let fault = self.begin();
        for one in side {
            for other in rest {
                self.links.cut(world, fault, one, other);
                self.links.cut(world, fault, other, one);
            }
        }
        self.count(world, FaultKind::Partition, &format!("{} | {}", side.join(" "), rest.join(" ")));
        fault
    }

    /// What the two send each other waits.
    pub fn hold_link(&mut self, world: &mut World, one: &str, other: &str) -> FaultId {
        let fault = self.begin();
        self.links.hold(world, fault, one, other);
        self.count(world, FaultKind::SlowLink, &format!("{one} - {other}, held"));
        fault
    }

    /// A host's process, node or client, stands still, and then goes on as if nothing had been.
    pub fn pause_host(&mut self, world: &mut World, host: &str) -> FaultId {
        let fault = self.begin();
        self.pause(world, fault, host);
        self.count(world, FaultKind::Pause, host);
        fault
    }

    pub fn change_link(&mut self, world: &mut World, one: &str, other: &str, latency: Latency) -> FaultId {
        let fault = self.begin();
        self.links.slow(world, fault, one, other, latency);
        let kind = match latency {
            Latency::Fixed(_) => FaultKind::SlowLink,
            Latency::UpTo(_) => FaultKind::Delay,
            Latency::Loss(_) => FaultKind::Loss,
        };
        self.count(world, kind, &format!("{one} - {other}, {latency:?}"));
        fault
    }

    /// Each round of work on this disk takes about so long.
    pub fn slow_disk(&mut self, world: &World, id: u64, round: Duration) -> FaultId {
        let fault = self.begin();
        world.node(id).machine().pace.set(round.mul_f64(0.8), round);
        self.ends.insert((FOR_GOOD, fault), End::Disk(id));
        self.count(world, FaultKind::SlowDisk, &format!("{}, {round:?}", name(id)));
        fault
    }

    /// Only so much more fits on this disk.
    pub fn fill_disk(&mut self, world: &World, id: u64, left: u64) -> FaultId {
        let fault = self.begin();
        let disk = &world.node(id).machine().disk;
        disk.set_capacity(Some(disk.used_bytes() + left));
        self.ends.insert((FOR_GOOD, fault), End::Disk(id));
        self.count(world, FaultKind::DiskFull, &format!("{}, {left} bytes left", name(id)));
        fault
    }

    /// An operation of this disk fails. `kind` is what it counts as.
    pub fn fail_disk(&mut self, world: &World, id: u64, kind: FaultKind, fault: SimFault) {
        self.count(world, kind, &format!("{}: {fault:?}", name(id)));
        world.node(id).machine().disk.inject(fault);
    }

    /// Flips bits in files whose path contains this. Answers how many.
    pub fn rot_files(&mut self, world: &World, id: u64, path_contains: &str, flips: usize) -> usize {
        let flipped = world.node(id).machine().disk.rot(path_contains, flips);
        if !flipped.is_empty() {
            let places: Vec<String> =
                flipped.iter().map(|(path, at, bit)| format!("{}@{at}.{bit}", path.display())).collect();
            self.count(world, FaultKind::BitRot, &format!("{}: {}", name(id), places.join(" ")));
        }
        flipped.len()
    }

    /// A wall clock is set.
    pub fn jump_clock(&mut self, world: &World, id: u64, by_ms: i64) {
        world.node(id).machine().clock.jump(world.now_us(), by_ms);
        self.count(world, FaultKind::ClockJump, &format!("{} by {by_ms} ms", name(id)));
    }

    pub fn drift_clock(&mut self, world: &World, id: u64, ppm: i64) {
        world.node(id).machine().clock.drift(world.now_us(), ppm);
        self.count(world, FaultKind::ClockDrift, &format!("{} by {ppm} ppm", name(id)));
    }

    /// One of the faults above that last is over.
    pub fn mend(&mut self, world: &mut World, fault: FaultId) {
        if let Some(End::Disk(id)) = self.ends.remove(&(FOR_GOOD, fault)) {
            heal_disk(world, id);
        }
        self.links.end(world, fault);
        self.go_on(world, fault);
        world.trace().note("fault", format_args!("number {fault} ends"));
    }
}
