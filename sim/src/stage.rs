//! The stage of one run: its world, its cast and what is done on it, step by step. Explorations and scenarios both
//! play on it; what comes before and after the faults is the same for all.

pub mod direct;
pub mod serving;

use crate::draw::Cast;
use crate::faults::inject::Injector;
use crate::faults::plan::Planned;
use crate::history::{Event, TopicFacts, What};
use crate::invariants;
use crate::invariants::Violation;
use crate::invariants::i19_liveness::{self, converged};
use crate::observe::NodeView;
use crate::run::WorkCounters;
use crate::seeds::Seed;
use crate::trace::Trace;
use crate::watch::Watcher;
use crate::workload::admin::{Order, Orders, operate};
use crate::workload::read::read_everything;
use crate::workload::{Bell, group, offsets, produce, read};
use crate::world::{ClientWorld, Failure, World};
use futures::future::LocalBoxFuture;
use serving::Serving;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The cluster must have formed by then.
const FORMING: Duration = Duration::from_secs(30);
/// Leaders everywhere, everybody back in the ISR, within this after the last fault (I19). Connections that lost a
/// message take up to ten seconds to be given up, twice where a fetch follows a session.
const CONVERGING: Duration = Duration::from_secs(60);
/// A record that waits for a batch before it may take a delivery time-out; a member a session's and a rebalance's.
const SERVING: Duration = Duration::from_secs(60);
/// A producer's delivery time-out and some more.
const ENDING: Duration = Duration::from_secs(60);
const READING_BACK: Duration = Duration::from_secs(60);

pub struct Stage<'a> {
    pub world: World,
    pub injector: Injector,
    pub orders: Orders,
    /// Tells the clients to stop.
    pub bell: Bell,
    pub cast: Cast,
    pub work: WorkCounters,
    /// Everything that clients did and were told so far.
    pub history: Vec<Event>,
    /// What was served since the cluster came right again.
    serving: Option<Serving>,
    watcher: &'a mut dyn Watcher,
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stage({:?})", self.world)
    }
}

impl Stage<'_> {
    pub fn new<'a>(seed: Seed, trace: Trace, cast: Cast, watcher: &'a mut dyn Watcher) -> Stage<'a> {
        let orders = Orders::default();
        let victim = 1 + seed.fork("victim").value() % cast.nodes as u64;
        Stage {
            world: World::new(seed.value(), trace, invariants::all()),
            injector: Injector::new(seed, victim, orders.clone()),
            orders,
            bell: Bell::default(),
            cast,
            work: WorkCounters::default(),
            history: Vec::new(),
            serving: None,
            watcher,
        }
    }

    /// Does a planned fault now, if there is anybody whom it can hit. Answers whom it hit.
    pub fn inject(&mut self, planned: &Planned) -> Option<String> {
        let now = self.world.now_us();
        let whom = self.injector.inject(&mut self.world, planned)?;
        let until = (planned.lasts_us > 0).then_some(now + planned.lasts_us);
        self.watcher.fault(now, planned.kind.name(), &whom, until);
        Some(whom)
    }

    /// All faults end.
    pub fn heal(&mut self) {
        self.injector.heal(&mut self.world);
    }

    pub fn run_for(&mut self, duration: Duration) -> Result<(), Failure> {
        let until = self.world.now_us() + duration.as_micros() as u64;
        while self.world.now_us() < until {
            self.step()?;
        }
        Ok(())
    }

    pub fn step(&mut self) -> Result<(), Failure> {
        self.injector.tick(&mut self.world);
        let stepped = self.world.step();
        for event in self.world.take_events() {
            self.work.count(&event);
            self.watcher.event(&event);
            if let Some(serving) = &mut self.serving {
                serving.follow(&event);
            }
            self.history.push(event);
        }
        self.watcher.step(&self.world);
        stepped
    }

    /// Steps until `done`, or answers why not.
    pub fn until(
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
                self.describe();
                let what = format!("{what} within {} s: {missing}", at_most.as_secs());
                return Err(Failure::Liveness(Violation { invariant: i19_liveness::NAME, what }));
            }
            self.step()?;
        }
    }

    /// Puts on record how everything stands, for whoever asks why it did not go on.
    fn describe(&self) {
        let trace = self.world.trace();
        for (id, view) in self.world.views() {
            let (raft, index) = (view.raft, view.image.index);
            let fenced: Vec<u64> =
                view.image.brokers.iter().filter(|(_, broker)| broker.fenced).map(|(id, _)| *id).collect();
            trace.note("state", format_args!("node-{id}: {raft:?}, image {index}, fenced {fenced:?}"));
            for (tp, replica) in &view.replicas {
                trace.note("state", format_args!("node-{id}: {tp} {replica:?}"));
            }
        }
        if let Some(newest) = self.world.views().values().max_by_key(|view| view.image.index) {
            for (tp, partition) in &newest.image.partitions {
                trace.note("state", format_args!("agreed: {tp} {partition:?}"));
            }
        }
    }

    pub fn form(&mut self) -> Result<(), Failure> {
        for config in self.cast.node_configs() {
            self.world.add_node(config);
        }
        let nodes = self.cast.nodes;
        self.until(FORMING, "the cluster did not form", |stage| converged(stage.world.views(), nodes))
    }

    pub fn make_topics(&mut self) -> Result<(), Failure> {
        let (bootstrap, orders) = (self.world.bootstrap(), self.orders.clone());
        let software = move |world: ClientWorld| {
            Box::pin(operate(world, bootstrap.clone(), orders.clone())) as LocalBoxFuture<'static, ()>
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
        self.until(FORMING, "the topics were not made", |stage| all_made(stage.world.views(), &wanted))
    }

    pub fn start_clients(&mut self) {
        let bootstrap = self.world.bootstrap();
        let bell = &self.bell;
        for (name, plan) in self.cast.producers(&bootstrap) {
            let bell = bell.clone();
            let software = move |world: ClientWorld| {
                Box::pin(produce::produce(world, plan.clone(), bell.clone())) as LocalBoxFuture<'static, ()>
            };
            self.world.add_client(&name, Arc::new(software));
        }
        let topics = self.cast.topic_sizes();
        for number in 0..self.cast.readers {
            let (bootstrap, topics, bell) = (bootstrap.clone(), topics.clone(), bell.clone());
            let software = move |world: ClientWorld| {
                Box::pin(read::follow(world, bootstrap.clone(), topics.clone(), bell.clone()))
                    as LocalBoxFuture<'static, ()>
            };
            self.world.add_client(&format!("reader-{number}"), Arc::new(software));
        }
        for (name, plan) in self.cast.members(&bootstrap) {
            let bell = bell.clone();
            let software = move |world: ClientWorld| {
                Box::pin(group::join(world, plan.clone(), bell.clone())) as LocalBoxFuture<'static, ()>
            };
            self.world.add_client(&name, Arc::new(software));
        }
        let (plan, bell) = (self.cast.watcher(&bootstrap), bell.clone());
        let software = move |world: ClientWorld| {
            Box::pin(offsets::watch(world, plan.clone(), bell.clone())) as LocalBoxFuture<'static, ()>
        };
        self.world.add_client("watcher", Arc::new(software));
    }

    pub fn converge(&mut self) -> Result<(), Failure> {
        self.until(CONVERGING, "the cluster did not recover", |stage| {
            let nodes = stage.world.node_ids().len();
            if !stage.injector.is_quiet() {
                return Err("a wiped node is not back yet".to_owned());
            }
            converged(stage.world.views(), nodes)
        })
    }

    /// Everybody is served again: see [`serving`].
    pub fn work_undisturbed(&mut self) -> Result<(), Failure> {
        let producers = self.cast.producers(&self.world.bootstrap());
        // A run in which nobody writes shows nothing.
        let first = self.cast.topics[0].name.clone();
        let topics: BTreeSet<String> =
            producers.into_iter().map(|(_, plan)| plan.topic).chain([first]).collect();
        // A member may own no partition, but one of them reads.
        let members = self.cast.members;
        let readers = self.cast.readers + members.min(1);
        self.serving = Some(Serving::default());
        self.until(SERVING, "not everybody is served again", |stage| {
            let serving = stage.serving.as_ref().expect("it was begun above");
            serving.served(&topics, readers, members)
        })
    }

    /// No record that was sent since everything is well again was refused.
    pub fn refused_none(&self) -> Result<(), Failure> {
        self.serving.as_ref().map_or(Ok(()), Serving::refused_none).map_err(|refused| {
            let what = format!("the healed cluster refused a record: {refused}");
            Failure::Liveness(Violation { invariant: i19_liveness::NAME, what })
        })
    }

    pub fn let_clients_end(&mut self) -> Result<(), Failure> {
        self.until(ENDING, "the clients did not end", |stage| {
            let running: Vec<String> = stage
                .world
                .client_names()
                .into_iter()
                .filter(|name| &**name != "admin" && stage.world.client_is_running(name))
                .map(|name| name.to_string())
                .collect();
            match running.is_empty() {
                true => Ok(()),
                false => Err(format!("{} still run", running.join(", "))),
            }
        })
    }

    pub fn read_back(&mut self) -> Result<(), Failure> {
        let done = Arc::new(AtomicBool::new(false));
        let (bootstrap, topics, told) = (self.world.bootstrap(), self.cast.topic_sizes(), done.clone());
        let software = move |world: ClientWorld| {
            Box::pin(read_everything(world, bootstrap.clone(), topics.clone(), told.clone()))
                as LocalBoxFuture<'static, ()>
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
    converged(views, views.len())
}
