//! The state of every pair of hosts, as the faults that are under way together have it. Two faults may cut or hold
//! one pair; it is whole again when the last of them has ended.

use crate::world::{LATENCY, World};
use std::collections::BTreeMap;
use std::time::Duration;

/// A fault that is under way.
pub type FaultId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Break {
    /// What the first sends to the second is lost.
    Cut,
    /// What either sends the other waits.
    Hold,
}

#[derive(Debug, Default)]
pub struct Links {
    /// (fault, from, to, how).
    broken: Vec<(FaultId, String, String, Break)>,
    latency: Vec<(FaultId, String, String, Latency)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// Every message takes this long.
    Fixed(Duration),
    /// Anything up to this.
    UpTo(Duration),
    /// As usual, but this share of the messages is lost.
    Loss(f64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pair {
    cut_there: bool,
    cut_back: bool,
    held: bool,
}

impl Links {
    pub fn cut(&mut self, world: &mut World, fault: FaultId, from: &str, to: &str) {
        self.change(world, from, to, |links| {
            links.broken.push((fault, from.to_owned(), to.to_owned(), Break::Cut));
        });
    }

    pub fn hold(&mut self, world: &mut World, fault: FaultId, one: &str, other: &str) {
        self.change(world, one, other, |links| {
            links.broken.push((fault, one.to_owned(), other.to_owned(), Break::Hold));
        });
    }

    pub fn slow(&mut self, world: &mut World, fault: FaultId, one: &str, other: &str, latency: Latency) {
        self.latency.push((fault, one.to_owned(), other.to_owned(), latency));
        self.set_latency(world, one, other);
    }

    /// The fault is over; what no other fault breaks is whole again.
    pub fn end(&mut self, world: &mut World, fault: FaultId) {
        let pairs: Vec<(String, String)> =
            self.broken.iter().filter(|b| b.0 == fault).map(|b| (b.1.clone(), b.2.clone())).collect();
        for (one, other) in pairs {
            self.change(world, &one, &other, |links| {
                links.broken.retain(|(id, a, b, _)| !(*id == fault && *a == one && *b == other));
            });
        }
        let pairs: Vec<(String, String)> =
            self.latency.iter().filter(|l| l.0 == fault).map(|l| (l.1.clone(), l.2.clone())).collect();
        self.latency.retain(|l| l.0 != fault);
        for (one, other) in pairs {
            self.set_latency(world, &one, &other);
        }
    }

    /// Everything is whole.
    pub fn heal(&mut self, world: &mut World) {
        let faults: Vec<FaultId> =
            self.broken.iter().map(|b| b.0).chain(self.latency.iter().map(|l| l.0)).collect();
        for fault in faults {
            self.end(world, fault);
        }
    }

    fn change(&mut self, world: &mut World, one: &str, other: &str, change: impl FnOnce(&mut Links)) {
        let before = self.pair(one, other);
        change(self);
        let after = self.pair(one, other);
        if before == after {
            return;
        }
        // Turmoil knows one state a direction: go through a whole link to the new one. What was held arrives.
        if before.held && !after.held {
            world.release(one, other);
        } else if before.cut_there || before.cut_back {
            world.reconnect(one, other);
        }
        match after {
            Pair { held: true, .. } => world.hold(one, other),
            Pair { cut_there: true, cut_back: true, .. } => world.cut_both(one, other),
            Pair { cut_there: true, .. } => world.cut(one, other),
            Pair { cut_back: true, .. } => world.cut(other, one),
            _ => {}
        }
    }

    fn pair(&self, one: &str, other: &str) -> Pair {
        let mut pair = Pair::default();
        for (_, from, to, how) in &self.broken {
            let there = from == one && to == other;
            let back = from == other && to == one;
            match how {
                Break::Cut => {
                    pair.cut_there |= there;
                    pair.cut_back |= back;
                }
                Break::Hold => pair.held |= there || back,
            }
        }
        pair
    }

    fn set_latency(&self, world: &mut World, one: &str, other: &str) {
        let mut slowest = Duration::ZERO;
        let (mut spread, mut loss) = (LATENCY.1, 0.0f64);
        let mut by_link: BTreeMap<FaultId, Latency> = BTreeMap::new();
        for (fault, a, b, latency) in &self.latency {
            if (a == one && b == other) || (a == other && b == one) {
                by_link.insert(*fault, *latency);
            }
        }
        for latency in by_link.values() {
            match latency {
                Latency::Fixed(latency) => slowest = slowest.max(*latency),
                Latency::UpTo(latency) => spread = spread.max(*latency),
                Latency::Loss(rate) => loss = loss.max(*rate),
            }
        }
        world.set_link(one, other, LATENCY.0.max(slowest), spread.max(slowest), loss);
    }
}
