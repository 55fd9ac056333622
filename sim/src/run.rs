//! One run: a cluster and its clients drawn from the seed, a phase with faults, a phase in which everything must come
//! right again, and the oracle's judgement.
//!
//! ```text
//!   form ─▶ topics ─▶ clients ─▶ faults … ─▶ heal ─▶ converge (I19) ─▶ clients end ─▶ all is read back ─▶ finish
//! ```

use crate::draw::{Cast, draw_cast};
use crate::faults::FaultCounters;
use crate::faults::inject::Injector;
use crate::faults::plan::{self, Planned, Scope};
use crate::history::{Event, Outcome, TopicFacts, What};
use crate::invariants::{self, Violation};
use crate::observe::{NodeView, Role};
use crate::seeds::Seed;
use crate::trace::Trace;
use crate::watch::Watcher;
use crate::workload::admin::{Order, Orders, operate};
use crate::workload::read::read_everything;
use crate::workload::{Bell, group, offsets, produce, read};
use crate::world::{ClientWorld, Failure, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a run is to be. Everything else follows from it.
#[derive(Clone, Debug)]
pub struct RunOptions {
    pub seed: u64,
    /// A named scenario; free exploration without one.
    pub scenario: Option<String>,
    /// Simulated time of the fault phase of an exploration; healing comes on top. Scenarios have their own.
    pub faulty_for: Duration,
    pub trace: Trace,
    /// For shrinking: at most so many nodes, clients and faults of what the seed would draw.
    pub limits: Limits,
}

/// Upper bounds on what a seed draws. What lies within is drawn as without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub nodes: usize,
    pub clients: usize,
    /// The first so many faults happen.
    pub faults: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { nodes: usize::MAX, clients: usize::MAX, faults: usize::MAX }
    }
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct RunReport {
    pub failure: Option<Failure>,
    /// When, in simulated microseconds, it ended.
    pub ended_us: u64,
    pub faults: FaultCounters,
    pub work: WorkCounters,
    /// Hash of the trace and its number of lines.
    pub trace: (u64, u64),
}

/// What the clients achieved: a run in which nothing was acknowledged shows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCounters {
    pub sent: u64,
    pub acknowledged: u64,
    pub failed: u64,
    pub unknown: u64,
    pub read: u64,
    pub commits: u64,
    pub rebalances: u64,
}

impl WorkCounters {
    fn count(&mut self, event: &Event) {
        match &event.what {
            What::Send { .. } => self.sent += 1,
            What::Sent { outcome: Outcome::Acknowledged(_), .. } => self.acknowledged += 1,
            What::Sent { outcome: Outcome::Failed(_), .. } => self.failed += 1,
            What::Sent { outcome: Outcome::Unknown(_), .. } => self.unknown += 1,
            What::Read { .. } => self.read += 1,
            What::Committed { outcome: Outcome::Acknowledged(()), .. } => self.commits += 1,
            What::Assigned { .. } => self.rebalances += 1,
            _ => {}
        }
    }

    pub fn add(&mut self, other: &WorkCounters) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.read += other.read;
        self.commits += other.commits;
        self.rebalances += other.rebalances;
    }
}

/// The cluster must have formed by then.
const FORMING: Duration = Duration::from_secs(30);
/// Leaders everywhere, everybody back in the ISR, within this after the last fault (I19). Connections that lost a
/// message take up to ten seconds to be given up, twice where a fetch follows a session.
const CONVERGING: Duration = Duration::from_secs(60);
/// A producer's delivery time-out and some more.
const ENDING: Duration = Duration::from_secs(60);
const READING_BACK: Duration = Duration::from_secs(60);

/// Carries a run out, from its seed to its report.
pub fn run(options: RunOptions, watcher: &mut dyn Watcher) -> RunReport {
    let seed = Seed::new(options.seed);
    let cast = draw_cast(seed.fork("cast"), options.limits);
    let scope = Scope { faulty_us: options.faulty_for.as_micros() as u64, nodes: cast.nodes };
    let mut faults = plan::draw(seed.fork("faults"), scope);
    faults.truncate(options.limits.faults);
    let orders = Orders::default();
    let mut run = Run {
        world: World::new(options.seed, options.trace.clone(), invariants::all()),
        injector: Injector::new(seed, 1 + seed.fork("victim").value() % cast.nodes as u64, orders.clone()),
        orders,
        bell: Bell::default(),
        cast,
        work: WorkCounters::default(),
        watcher,
    };
    let failure = run.whole(faults, scope).err();
    if let Some(failure) = &failure {
        options.trace.note("run", format_args!("{failure}"));
    }
    RunReport {
        failure,
        ended_us: run.world.now_us(),
        faults: run.injector.counters().clone(),
        work: run.work,
        trace: options.trace.hash(),
    }
}

struct Run<'a> {
    world: World,
    injector: Injector,
    orders: Orders,
    bell: Bell,
    cast: Cast,
    work: WorkCounters,
    watcher: &'a mut dyn Watcher,
}

impl Run<'_> {
    fn whole(&mut self, faults: Vec<Planned>, scope: Scope) -> Result<(), Failure> {
        self.form()?;
        self.make_topics()?;
        self.start_clients();
        self.run_with(faults, scope)?;
        self.injector.heal(&mut self.world);
        self.converge()?;
        // Some more work, undisturbed: it must succeed.
        self.work_undisturbed()?;
        self.bell.ring();
        self.let_clients_end()?;
        self.read_back()?;
        self.world.finish()
    }

    fn step(&mut self) -> Result<(), Failure> {
        self.injector.tick(&mut self.world);
        let stepped = self.world.step();
        for event in self.world.take_events() {
            self.work.count(&event);
            self.watcher.event(&event);
        }
        self.watcher.step(&self.world);
        stepped
    }

    /// Steps until `done`, or answers why not.
    fn until(
        &mut self,
        at_most: Duration,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let until = self.world.now_us() + at_most.as_micros() as u64;
        loop {
            let missing = match done(self) {
                Ok(()) => return Ok(()),
                Err(missing) => missing,
            };
            if self.world.now_us() >= until {
                let what = format!("{what} within {} s: {missing}", at_most.as_secs());
                return Err(Failure::Liveness(Violation { invariant: "I19-liveness", what }));
            }
            self.step()?;
        }
    }

    fn form(&mut self) -> Result<(), Failure> {
        for config in self.cast.node_configs() {
            self.world.add_node(config);
        }
        let nodes = self.cast.nodes;
        self.until(FORMING, "the cluster did not form", |run| all_registered(run.world.views(), nodes))
    }

    fn make_topics(&mut self) -> Result<(), Failure> {
        let (bootstrap, orders) = (self.world.bootstrap(), self.orders.clone());
        let software = move |world: ClientWorld| {
            Box::pin(operate(world, bootstrap.clone(), orders.clone())) as futures::future::LocalBoxFuture<_>
        };
        self.world.add_client("admin", Arc::new(software));
        for topic in self.cast.topics.clone() {
            self.orders.give(Order::CreateTopic {
                name: topic.name.clone(),
                partitions: topic.facts.partitions,
                replication: topic.facts.replication as i32,
                configs: topic.configs.clone(),
            });
            let recorder = self.world.recorder().clone();
            recorder.record("run", What::Topic { topic: Arc::from(topic.name), settings: topic.facts });
        }
        let wanted: Vec<(String, TopicFacts)> =
            self.cast.topics.iter().map(|topic| (topic.name.clone(), topic.facts)).collect();
        self.until(FORMING, "the topics were not made", |run| all_made(run.world.views(), &wanted))
    }

    fn start_clients(&mut self) {
        let bootstrap = self.world.bootstrap();
        let bell = &self.bell;
        for (name, plan) in self.cast.producers(&bootstrap) {
            let bell = bell.clone();
            let software = move |world: ClientWorld| {
                Box::pin(produce::produce(world, plan.clone(), bell.clone()))
                    as futures::future::LocalBoxFuture<_>
            };
            self.world.add_client(&name, Arc::new(software));
        }
        let topics = self.cast.topic_sizes();
        for number in 0..self.cast.readers {
            let (bootstrap, topics, bell) = (bootstrap.clone(), topics.clone(), bell.clone());
            let software = move |world: ClientWorld| {
                Box::pin(read::follow(world, bootstrap.clone(), topics.clone(), bell.clone()))
                    as futures::future::LocalBoxFuture<_>
            };
            self.world.add_client(&format!("reader-{number}"), Arc::new(software));
        }
        for (name, plan) in self.cast.members(&bootstrap) {
            let bell = bell.clone();
            let software = move |world: ClientWorld| {
                Box::pin(group::join(world, plan.clone(), bell.clone())) as futures::future::LocalBoxFuture<_>
            };
            self.world.add_client(&name, Arc::new(software));
        }
        let (plan, bell) = (self.cast.watcher(&bootstrap), bell.clone());
        let software = move |world: ClientWorld| {
            Box::pin(offsets::watch(world, plan.clone(), bell.clone())) as futures::future::LocalBoxFuture<_>
        };
        self.world.add_client("watcher", Arc::new(software));
    }

    fn run_with(&mut self, faults: Vec<Planned>, scope: Scope) -> Result<(), Failure> {
        let begun = self.world.now_us();
        let mut faults = faults.into_iter().peekable();
        while self.world.now_us() < begun + scope.faulty_us {
            let now = self.world.now_us();
            while let Some(planned) = faults.next_if(|planned| begun + planned.at_us <= now) {
                if let Some(whom) = self.injector.inject(&mut self.world, &planned) {
                    let until = (planned.lasts_us > 0).then_some(now + planned.lasts_us);
                    self.watcher.fault(now, planned.kind.name(), &whom, until);
                }
            }
            self.step()?;
        }
        Ok(())
    }

    fn converge(&mut self) -> Result<(), Failure> {
        self.until(CONVERGING, "the cluster did not recover", |run| {
            let nodes = run.world.node_ids().len();
            if !run.injector.is_quiet() {
                return Err("a wiped node is not back yet".to_owned());
            }
            all_registered(run.world.views(), nodes)?;
            converged(run.world.views())
        })
    }

    /// Acknowledgements resume.
    fn work_undisturbed(&mut self) -> Result<(), Failure> {
        let before = self.work.acknowledged;
        self.until(Duration::from_secs(30), "nothing was acknowledged any more", |run| {
            match run.work.acknowledged >= before + 5 {
                true => Ok(()),
                false => Err(format!("{} new acknowledgements", run.work.acknowledged - before)),
            }
        })
    }

    fn let_clients_end(&mut self) -> Result<(), Failure> {
        self.until(ENDING, "the clients did not end", |run| {
            let running: Vec<String> = run
                .world
                .client_names()
                .into_iter()
                .filter(|name| &**name != "admin" && run.world.client_is_running(name))
                .map(|name| name.to_string())
                .collect();
            match running.is_empty() {
                true => Ok(()),
                false => Err(format!("{} still run", running.join(", "))),
            }
        })
    }

    fn read_back(&mut self) -> Result<(), Failure> {
        let done = Arc::new(AtomicBool::new(false));
        let (bootstrap, topics, told) = (self.world.bootstrap(), self.cast.topic_sizes(), done.clone());
        let software = move |world: ClientWorld| {
            Box::pin(read_everything(world, bootstrap.clone(), topics.clone(), told.clone()))
                as futures::future::LocalBoxFuture<_>
        };
        self.world.add_client("judge", Arc::new(software));
        self.until(READING_BACK, "what was written could not be read back", |_| {
            match done.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err("the last reader has not come to the end of all partitions".to_owned()),
            }
        })
    }
}

fn all_registered(views: &BTreeMap<u64, NodeView>, nodes: usize) -> Result<(), String> {
    let newest = views.values().max_by_key(|view| view.image.index).ok_or("no node runs")?;
    let alive = newest.image.brokers.values().filter(|broker| !broker.fenced).count();
    match views.len() == nodes && alive == nodes {
        true => Ok(()),
        false => Err(format!("{} of {nodes} nodes run, {alive} are registered and not fenced", views.len())),
    }
}

fn all_made(views: &BTreeMap<u64, NodeView>, wanted: &[(String, TopicFacts)]) -> Result<(), String> {
    for (name, facts) in wanted {
        let of_topic = |tp: &&crate::history::Tp| *tp.topic == **name;
        for view in views.values() {
            let known = view.image.partitions.keys().filter(of_topic).count();
            if known != facts.partitions as usize {
                return Err(format!("node {} knows {known} partitions of {name}", view.node));
            }
        }
    }
    converged(views)
}

/// Every partition has a leader that its image names, a full ISR, and replicas that are all there and as long as each
/// other's; no move is under way.
pub fn converged(views: &BTreeMap<u64, NodeView>) -> Result<(), String> {
    let newest = views.values().max_by_key(|view| view.image.index).ok_or("no node runs")?;
    for (tp, partition) in &newest.image.partitions {
        let Some(leader) = partition.leader else { return Err(format!("{tp} has no leader")) };
        if partition.isr.len() != partition.replicas.len() {
            return Err(format!("{tp}: ISR {:?} of {:?}", partition.isr, partition.replicas));
        }
        for replica in &partition.replicas {
            let Some(view) = views.get(replica).and_then(|view| view.replicas.get(tp)) else {
                return Err(format!("{tp} is not on node {replica}"));
            };
            let as_agreed = match view.role {
                Role::Leader { epoch } => *replica == leader && epoch == partition.leader_epoch,
                Role::Follower { leader: followed, epoch } => {
                    followed == leader && epoch == partition.leader_epoch
                }
                Role::Idle => false,
            };
            if !as_agreed {
                return Err(format!("{tp} on node {replica}: {:?} instead of what is agreed", view.role));
            }
            if view.damaged {
                return Err(format!("{tp} on node {replica} is damaged"));
            }
        }
    }
    Ok(())
}
