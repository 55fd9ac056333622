//! Does planned faults to the world, ends them when their time is up, starts again what died, and heals everything.

mod direct;
mod operator;

use self::operator::Operator;
use super::links::{FaultId, Latency, Links};
use super::plan::{Planned, Target};
use super::{FaultCounters, FaultKind};
use crate::observe::Role;
use crate::seeds::Seed;
use crate::workload::admin::{Order, Orders};
use crate::world::{NodeState, World};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use strandline_storage::disk::SimDisk;
use strandline_storage::disk::sim::{SimFault, SimOp, Unsynced};

/// A dead node is started again after about this, unless a fault keeps it down.
const RESTART_US: u64 = 1_000_000;

#[derive(Debug)]
pub struct Injector {
    links: Links,
    counters: FaultCounters,
    /// Ends of what is under way, by time.
    ends: BTreeMap<(u64, FaultId), End>,
    next: FaultId,
    /// Dead nodes and when they are started.
    restarts: BTreeMap<u64, u64>,
    /// The one machine whose data may be destroyed.
    victim: u64,
    operator: Operator,
    rolling: Option<Rolling>,
    orders: Orders,
    /// Hosts that stand still, each with the fault that made it; two may hit one host.
    paused: Vec<(FaultId, String)>,
    rng: StdRng,
}

#[derive(Clone, Debug)]
enum End {
    /// Links are whole, clocks are not touched.
    Network,
    Disk(u64),
    Client(String),
    /// It goes on.
    Process,
}

/// Which direction is lost, of what one sends the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    There,
    Back,
    Both,
}

#[derive(Clone, Debug)]
struct Rolling {
    left: Vec<u64>,
    /// When the next one is stopped.
    next_us: u64,
}

impl Injector {
    pub fn new(seed: Seed, victim: u64, orders: Orders) -> Injector {
        Injector {
            links: Links::default(),
            counters: FaultCounters::default(),
            ends: BTreeMap::new(),
            next: 0,
            restarts: BTreeMap::new(),
            victim,
            operator: Operator::default(),
            rolling: None,
            orders,
            paused: Vec::new(),
            rng: seed.fork("injector").rng(),
        }
    }

    pub fn counters(&self) -> &FaultCounters {
        &self.counters
    }

    /// Ends what is due and starts what is down. Called before every step.
    pub fn tick(&mut self, world: &mut World) {
        let now = world.now_us();
        while let Some((&(at, fault), _)) = self.ends.first_key_value()
            && at <= now
        {
            let end = self.ends.remove(&(at, fault)).expect("it was just there");
            self.end(world, fault, end);
        }
        self.operate(world);
        self.roll(world);
        self.restart(world);
    }

    /// Does `planned` now if there is anything that it can hit. Answers whom it hit.
    pub fn inject(&mut self, world: &mut World, planned: &Planned) -> Option<String> {
        let mut rng = planned.seed.rng();
        let until = world.now_us() + planned.lasts_us;
        let hit = self.carry_out(world, planned, &mut rng, until);
        if let Some(whom) = &hit {
            self.counters.count(planned.kind);
            world.trace().note("fault", format_args!("{}: {whom}", planned.kind));
        }
        hit
    }

    /// Everything is whole and everybody runs; what was destroyed stays destroyed.
    pub fn heal(&mut self, world: &mut World) {
        world.trace().note("fault", format_args!("all faults end"));
        let ends = std::mem::take(&mut self.ends);
        for ((_, fault), end) in ends {
            self.end(world, fault, end);
        }
        self.links.heal(world);
        for (fault, _) in self.paused.clone() {
            self.go_on(world, fault);
        }
        self.rolling = None;
        self.operator.all_is_healed();
        for id in world.node_ids() {
            heal_disk(world, id);
            self.restarts.insert(id, world.now_us());
        }
        self.tick(world);
    }

    /// Whether somebody is still on the way back.
    pub fn is_quiet(&self) -> bool {
        self.operator.is_done() && self.rolling.is_none()
    }

    // ---- faults ----

    fn carry_out(
        &mut self,
        world: &mut World,
        planned: &Planned,
        rng: &mut StdRng,
        until: u64,
    ) -> Option<String> {
        let fault = self.next;
        self.next += 1;
        match planned.kind {
            FaultKind::Crash => self.kill(world, planned, rng, until, |world, id, _| world.crash(id)),
            FaultKind::PowerLoss => self.kill(world, planned, rng, until, |world, id, rng| {
                let unsynced = match rng.random_range(0..4) {
                    0 => Unsynced::Lost,
                    _ => Unsynced::Random,
                };
                world.power_loss(id, unsynced);
            }),
            FaultKind::CrashPoint => {
                let id = pick(world, planned.target, rng)?;
                let disk = &world.node(id).machine().disk;
                disk.set_crash_at_op(disk.op_count() + rng.random_range(0..40));
                self.restarts.insert(id, until);
                Some(name(id))
            }
            FaultKind::Pause => {
                let id = pick(world, planned.target, rng)?;
                let one = name(id);
                self.pause(world, fault, &one);
                self.ends.insert((until, fault), End::Process);
                Some(one)
            }
            FaultKind::Partition | FaultKind::OneWayPartition => {
                let (side, rest) = split(world, planned.target, rng)?;
                let how = match planned.kind {
                    FaultKind::Partition => Cut::Both,
                    _ if rng.random_bool(0.5) => Cut::There,
                    _ => Cut::Back,
                };
                for one in &side {
                    for other in &rest {
                        self.cut(world, fault, one, other, how);
                    }
                }
                self.ends.insert((until, fault), End::Network);
                Some(format!("{} | {}", side.join(" "), rest.join(" ")))
            }
            FaultKind::Loss => {
                let one = name(pick(world, planned.target, rng)?);
                let rate = rng.random_range(0.001..0.05);
                self.slow(world, fault, &one, None, Latency::Loss(rate), until);
                Some(format!("{one}, {rate:.3} of its messages"))
            }
            FaultKind::Delay => {
                let one = name(pick(world, planned.target, rng)?);
                let up_to = Duration::from_millis(rng.random_range(20..600));
                self.slow(world, fault, &one, None, Latency::UpTo(up_to), until);
                Some(format!("{one}, up to {up_to:?}"))
            }
            FaultKind::SlowLink => {
                let one = name(pick(world, planned.target, rng)?);
                let other = others(world, &one).choose(rng)?.clone();
                let latency = Duration::from_millis(rng.random_range(50..800));
                self.slow(world, fault, &one, Some(&other), Latency::Fixed(latency), until);
                Some(format!("{one} - {other}, {latency:?}"))
            }
            FaultKind::SlowDisk => {
                let id = pick(world, planned.target, rng)?;
                let longest = Duration::from_millis(rng.random_range(100..1_500));
                world.node(id).machine().pace.set(longest / 4, longest);
                self.ends.insert((until, fault), End::Disk(id));
                Some(format!("{}, up to {longest:?}", name(id)))
            }
            FaultKind::WriteError | FaultKind::FsyncError => {
                let id = pick(world, planned.target, rng)?;
                let operation = match planned.kind {
                    FaultKind::WriteError => SimOp::Write,
                    _ => SimOp::Sync,
                };
                world.node(id).machine().disk.inject(SimFault::eio(operation).after(rng.random_range(0..5)));
                Some(name(id))
            }
            FaultKind::DiskFull => {
                let id = pick(world, planned.target, rng)?;
                let disk = &world.node(id).machine().disk;
                disk.set_capacity(Some(disk.used_bytes() + rng.random_range(0..200_000)));
                self.ends.insert((until, fault), End::Disk(id));
                Some(name(id))
            }
            FaultKind::BitRot => self.rot(world, rng),
            FaultKind::WipedDisk => self.wipe(world),
            FaultKind::ClockJump => {
                let id = pick(world, planned.target, rng)?;
                let by_ms = rng.random_range(-3_600_000..3_600_000);
                world.node(id).machine().clock.jump(world.now_us(), by_ms);
                Some(format!("{} by {by_ms} ms", name(id)))
            }
            FaultKind::ClockDrift => {
                let id = pick(world, planned.target, rng)?;
                let ppm = rng.random_range(-100_000..100_000);
                world.node(id).machine().clock.drift(world.now_us(), ppm);
                Some(format!("{} by {ppm} ppm", name(id)))
            }
            FaultKind::Membership => self.change_membership(world, planned, fault, rng, until),
            FaultKind::RollingRestart => {
                if self.rolling.is_some() {
                    return None;
                }
                let mut left = world.node_ids();
                left.shuffle(rng);
                self.rolling = Some(Rolling { left, next_us: world.now_us() });
                Some("every node".to_owned())
            }
            FaultKind::ClientCrash => {
                let client = client(world, rng)?;
                world.crash_client(&client);
                self.ends.insert((until, fault), End::Client(client.clone()));
                Some(client)
            }
            FaultKind::ClientCut => {
                let client = client(world, rng)?;
                let hold = rng.random_bool(0.5);
                for id in world.node_ids() {
                    match hold {
                        true => self.links.hold(world, fault, &client, &name(id)),
                        false => self.cut(world, fault, &client, &name(id), Cut::Both),
                    }
                }
                self.ends.insert((until, fault), End::Network);
                Some(client)
            }
        }
    }

    fn kill(
        &mut self,
        world: &mut World,
        planned: &Planned,
        rng: &mut StdRng,
        until: u64,
        how: impl Fn(&mut World, u64, &mut StdRng),
    ) -> Option<String> {
        let ids = match planned.target {
            Target::All => running(world),
            target => vec![pick(world, target, rng)?],
        };
        if ids.is_empty() {
            return None;
        }
        for id in &ids {
            how(world, *id, rng);
            self.restarts.insert(*id, until);
        }
        Some(ids.iter().map(|id| name(*id)).collect::<Vec<_>>().join(" "))
    }

    fn cut(&mut self, world: &mut World, fault: FaultId, one: &str, other: &str, how: Cut) {
        if how != Cut::Back {
            self.links.cut(world, fault, one, other);
        }
        if how != Cut::There {
            self.links.cut(world, fault, other, one);
        }
    }

    fn slow(
        &mut self,
        world: &mut World,
        fault: FaultId,
        one: &str,
        other: Option<&str>,
        latency: Latency,
        until: u64,
    ) {
        let others = other.map_or_else(|| others(world, one), |other| vec![other.to_owned()]);
        for other in others {
            self.links.slow(world, fault, one, &other, latency);
        }
        self.ends.insert((until, fault), End::Network);
    }

    /// Only where every partition has all its replicas, so that what rots is somewhere else too.
    fn rot(&mut self, world: &mut World, rng: &mut StdRng) -> Option<String> {
        if !all_replicated(world) {
            return None;
        }
        let disk: &SimDisk = &world.node(self.victim).machine().disk;
        let what = *["/topics/", ".log", ".index"].choose(rng)?;
        let flips = rng.random_range(1..=3);
        let flipped = disk.rot(what, flips);
        let places: Vec<String> =
            flipped.iter().map(|(path, at, bit)| format!("{}@{at}.{bit}", path.display())).collect();
        (!places.is_empty()).then(|| format!("{}: {}", name(self.victim), places.join(" ")))
    }

    fn wipe(&mut self, world: &mut World) -> Option<String> {
        if self.operator.brings_back().is_some() || !all_replicated(world) || !world.node(self.victim).is_up()
        {
            return None;
        }
        world.power_loss(self.victim, Unsynced::Lost);
        world.wipe(self.victim);
        self.restarts.remove(&self.victim);
        self.operator.bring_back(self.victim);
        Some(name(self.victim))
    }

    fn change_membership(
        &mut self,
        world: &mut World,
        planned: &Planned,
        fault: FaultId,
        rng: &mut StdRng,
        until: u64,
    ) -> Option<String> {
        let image = &world.views().values().max_by_key(|view| view.image.index)?.image.clone();
        let partitions: Vec<_> = image.partitions.iter().collect();
        let (tp, partition) = *partitions.choose(rng)?;
        let mut nodes: Vec<u64> = image.brokers.keys().copied().collect();
        nodes.shuffle(rng);
        nodes.truncate(partition.replicas.len());
        let (side, rest) = split(world, planned.target, rng)?;
        for one in &side {
            for other in &rest {
                self.cut(world, fault, one, other, Cut::Both);
            }
        }
        self.ends.insert((until, fault), End::Network);
        let text = format!("{tp} to {nodes:?} while {} | {}", side.join(" "), rest.join(" "));
        self.orders.give(Order::Reassign { tp: tp.clone(), replicas: nodes });
        Some(text)
    }

    fn pause(&mut self, world: &mut World, fault: FaultId, host: &str) {
        self.paused.push((fault, host.to_owned()));
        world.pause(host);
    }

    // ---- afterwards ----

    /// Whom this fault let stand still goes on, unless another holds it.
    fn go_on(&mut self, world: &mut World, fault: FaultId) {
        let mut released = Vec::new();
        self.paused.retain(|(by, host)| {
            *by != fault || {
                released.push(host.clone());
                false
            }
        });
        for host in released {
            if self.paused.iter().all(|(_, held)| *held != host) {
                world.resume(&host);
            }
        }
    }

    fn end(&mut self, world: &mut World, fault: FaultId, end: End) {
        self.links.end(world, fault);
        self.go_on(world, fault);
        match end {
            End::Network | End::Process => {}
            End::Disk(id) => heal_disk(world, id),
            End::Client(client) => world.restart_client(&client),
        }
    }

    fn restart(&mut self, world: &mut World) {
        let now = world.now_us();
        for id in world.node_ids() {
            let waiting = self.operator.brings_back() == Some(id);
            if world.node(id).is_up() || waiting {
                continue;
            }
            let at = *self
                .restarts
                .entry(id)
                .or_insert_with(|| now + (RESTART_US as f64 * self.rng.random_range(0.2..2.0)) as u64);
            if at <= now {
                self.restarts.remove(&id);
                world.start(id);
            }
        }
        // A time that was set for a node that did not die after all says nothing about its next death.
        self.restarts.retain(|id, at| !world.node(*id).is_up() || *at > now);
    }

    fn roll(&mut self, world: &mut World) {
        let now = world.now_us();
        let Some(rolling) = &mut self.rolling else { return };
        if now < rolling.next_us {
            return;
        }
        let others_up = world.node_ids().iter().filter(|id| world.node(**id).is_up()).count();
        match rolling.left.pop() {
            Some(id) if world.node(id).is_up() && others_up > 1 => {
                world.stop(id);
                rolling.next_us = now + 3_000_000;
            }
            Some(_) => rolling.next_us = now + 100_000,
            None => self.rolling = None,
        }
    }
}

fn name(id: u64) -> String {
    format!("node-{id}")
}

fn heal_disk(world: &World, id: u64) {
    let machine = world.node(id).machine();
    machine.pace.heal();
    machine.disk.set_capacity(None);
    machine.disk.clear_faults();
}

fn running(world: &World) -> Vec<u64> {
    world.node_ids().into_iter().filter(|id| world.node(*id).state() == NodeState::Up).collect()
}

fn others(world: &World, one: &str) -> Vec<String> {
    let nodes = world.node_ids().into_iter().map(name);
    let clients = world.client_names().into_iter().map(|client| client.to_string());
    nodes.chain(clients).filter(|other| other != one).collect()
}

fn client(world: &World, rng: &mut StdRng) -> Option<String> {
    let up = world.client_names().into_iter().filter(|client| world.client(client).is_up());
    // The admin carries out what other faults order.
    let up: Vec<String> = up.map(|client| client.to_string()).filter(|client| client != "admin").collect();
    up.choose(rng).cloned()
}

fn pick(world: &World, target: Target, rng: &mut StdRng) -> Option<u64> {
    let running = running(world);
    if let Target::Id(id) = target {
        return running.contains(&id).then_some(id);
    }
    let holders: Vec<u64> = match target {
        Target::Node | Target::All | Target::Id(_) => running.clone(),
        Target::Controller => {
            let leaders = world.views().values().filter(|view| view.raft.leader);
            leaders.max_by_key(|view| view.raft.term).map(|view| view.node).into_iter().collect()
        }
        Target::Leader => with_role(world, |role| matches!(role, Role::Leader { .. })),
        Target::Follower => with_role(world, |role| matches!(role, Role::Follower { .. })),
    };
    let holders: Vec<u64> = holders.into_iter().filter(|id| running.contains(id)).collect();
    holders.choose(rng).or_else(|| running.choose(rng)).copied()
}

fn with_role(world: &World, is: impl Fn(Role) -> bool) -> Vec<u64> {
    let has = |view: &&crate::observe::NodeView| view.replicas.values().any(|replica| is(replica.role));
    world.views().values().filter(has).map(|view| view.node).collect()
}

/// A minority with the target in it, and the rest. Clients go with either side.
fn split(world: &World, target: Target, rng: &mut StdRng) -> Option<(Vec<String>, Vec<String>)> {
    let first = pick(world, target, rng)?;
    let nodes = world.node_ids();
    let mut side: BTreeSet<u64> = [first].into();
    for _ in 1..rng.random_range(1..=(nodes.len() / 2).max(1)) {
        side.extend(nodes.choose(rng));
    }
    let mut inside: Vec<String> = side.iter().map(|id| name(*id)).collect();
    let mut outside: Vec<String> = nodes.iter().filter(|id| !side.contains(id)).map(|id| name(*id)).collect();
    for client in world.client_names() {
        // A third stays in touch with both, a zombie's favourite.
        match rng.random_range(0..3) {
            0 => inside.push(client.to_string()),
            1 => outside.push(client.to_string()),
            _ => {}
        }
    }
    Some((inside, outside))
}

fn all_replicated(world: &World) -> bool {
    let Some(newest) = world.views().values().max_by_key(|view| view.image.index) else { return false };
    world.views().len() == world.node_ids().len()
        && newest.image.brokers.values().all(|broker| !broker.fenced)
        && newest.image.partitions.values().all(|partition| partition.isr.len() == partition.replicas.len())
}
