//! The world of one run: turmoil's network and clock, the machines and the processes on them, what can be done to
//! them, and the oracle that looks on.
//!
//! ```text
//!   step():  every host runs one millisecond ─▶ nodes observed ─▶ clients' events ─▶ oracle ─▶ the dead are buried
//! ```
//!
//! Nothing happens to a host but between two steps. All that is random comes from the run's seed.

mod client;
mod node;

pub use client::{ClientHost, ClientSoftware, ClientWorld};
pub use node::{NodeHost, NodeState};

use crate::clock::EPOCH_MS;
use crate::history::{Event, Session, What};
use crate::interpose::SimulatedTime;
use crate::invariants::{Invariant, Observation, Violation};
use crate::observe::NodeView;
use crate::seeds::Seed;
use crate::trace::Trace;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use strandline_node::config::NodeConfig;
use strandline_storage::disk::sim::Unsynced;

/// The finest difference in time that a run knows.
pub const STEP: Duration = Duration::from_millis(1);
/// Hosts answer each other this fast when nothing is wrong.
pub const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(4));
pub const GRPC_PORT: u16 = 7070;
pub const PEER_PORT: u16 = 7170;

/// Why a run ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A promise was broken.
    Safety(Violation),
    /// Nothing wrong was said, but what should have come did not (I19).
    Liveness(Violation),
    /// A host panicked or ended with an error that no fault explains.
    Crash(String),
    /// A scenario did not bring about what it is about: it shows nothing.
    NotProvoked(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Safety(violation) => write!(f, "safety violated: {violation}"),
            Failure::Liveness(violation) => write!(f, "liveness violated: {violation}"),
            Failure::Crash(what) => write!(f, "crashed: {what}"),
            Failure::NotProvoked(what) => write!(f, "not provoked: {what}"),
        }
    }
}

/// What clients write their history to. Clones are the same history.
#[derive(Clone, Debug)]
pub struct Recorder {
    events: Arc<Mutex<Vec<Event>>>,
    trace: Trace,
    counters: Arc<Mutex<Counters>>,
    clients: Arc<Mutex<BTreeMap<Session, Arc<str>>>>,
}

#[derive(Debug, Default)]
struct Counters {
    session: u64,
    attempt: u64,
    call: u64,
}

impl Recorder {
    pub fn now_us(&self) -> u64 {
        self.trace.now_us()
    }

    /// Puts `what` into the history. `who` names the client in the trace.
    pub fn record(&self, who: &str, what: What) {
        self.trace.note(who, format_args!("{what:?}"));
        if let Some(session) = what.session() {
            self.clients.lock().entry(session).or_insert_with(|| Arc::from(who));
        }
        self.events.lock().push(Event { at_us: self.trace.now_us(), what });
    }

    /// The name of the client whose session this is, once it has put something on record.
    pub fn client_of(&self, session: Session) -> Option<Arc<str>> {
        self.clients.lock().get(&session).cloned()
    }

    /// Something worth a line in the trace that is no part of the history.
    pub fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        self.trace.note(who, what);
    }

    pub fn new_session(&self) -> Session {
        let mut counters = self.counters.lock();
        counters.session += 1;
        Session(counters.session)
    }

    pub fn new_attempt(&self) -> crate::history::Attempt {
        let mut counters = self.counters.lock();
        counters.attempt += 1;
        crate::history::Attempt(counters.attempt)
    }

    /// A number for a commit or another call that has a beginning and an end.
    pub fn new_call(&self) -> u64 {
        let mut counters = self.counters.lock();
        counters.call += 1;
        counters.call
    }
}

/// One simulated world.
pub struct World {
    sim: turmoil::Sim<'static>,
    seed: Seed,
    trace: Trace,
    recorder: Recorder,
    nodes: BTreeMap<u64, NodeHost>,
    clients: BTreeMap<Arc<str>, ClientHost>,
    views: BTreeMap<u64, NodeView>,
    /// Judged, and not taken yet by whoever counts or draws them.
    judged: Vec<Event>,
    invariants: Vec<Box<dyn Invariant>>,
    now_us: u64,
    /// Declared last: what is dropped before it still sees simulated time.
    time: SimulatedTime,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({} nodes, {} clients)", self.nodes.len(), self.clients.len())
    }
}

impl World {
    pub fn new(seed: u64, trace: Trace, invariants: Vec<Box<dyn Invariant>>) -> World {
        let time = SimulatedTime::begin();
        let seed = Seed::new(seed);
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(seed.fork("turmoil").value())
            .epoch(std::time::UNIX_EPOCH + Duration::from_millis(EPOCH_MS as u64))
            // The runner decides when it is over.
            .simulation_duration(Duration::from_secs(1 << 30))
            .tick_duration(STEP)
            .min_message_latency(LATENCY.0)
            .max_message_latency(LATENCY.1)
            // Segments that a connection may have under way; each holds a whole write.
            .tcp_capacity(4096)
            .enable_random_order();
        let recorder = Recorder {
            events: Arc::default(),
            trace: trace.clone(),
            counters: Arc::default(),
            clients: Arc::default(),
        };
        World {
            sim: builder.build(),
            seed,
            trace,
            recorder,
            nodes: BTreeMap::new(),
            clients: BTreeMap::new(),
            views: BTreeMap::new(),
            judged: Vec::new(),
            invariants,
            now_us: 0,
            time,
        }
    }

    // ---- time ----

    /// Simulated microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// One millisecond passes.
    ///
    /// # Errors
    /// What the oracle found, or the panic of a host.
    pub fn step(&mut self) -> Result<(), Failure> {
        self.now_us += STEP.as_micros() as u64;
        self.trace.set_now(self.now_us);
        self.time.set(Duration::from_micros(self.now_us));
        let sim = std::panic::AssertUnwindSafe(&mut self.sim);
        let stepped = std::panic::catch_unwind(|| {
            let sim = sim;
            sim.0.step().map_err(|error| error.to_string())
        });
        match stepped {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Failure::Crash(error)),
            Err(panic) => return Err(Failure::Crash(panic_text(&*panic))),
        }
        self.look()?;
        self.bury();
        Ok(())
    }

    /// Time passes.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Failure> {
        let until = self.now_us + duration.as_micros() as u64;
        while self.now_us < until {
            self.step()?;
        }
        Ok(())
    }

    /// Steps until `done` holds; `false` if it did not within `at_most`.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn run_until(
        &mut self,
        at_most: Duration,
        mut done: impl FnMut(&World) -> bool,
    ) -> Result<bool, Failure> {
        let until = self.now_us + at_most.as_micros() as u64;
        while !done(self) {
            if self.now_us >= until {
                return Ok(false);
            }
            self.step()?;
        }
        Ok(true)
    }

    fn look(&mut self) -> Result<(), Failure> {
        self.views.clear();
        for (id, node) in &mut self.nodes {
            if let Some(view) = node.look() {
                self.views.insert(*id, view);
            }
        }
        let seen = Observation { now_us: self.now_us, nodes: &self.views };
        for invariant in &mut self.invariants {
            invariant.observe(&seen).map_err(Failure::Safety)?;
        }
        let events = std::mem::take(&mut *self.recorder.events.lock());
        let mut check = Ok(());
        for event in &events {
            for invariant in &mut self.invariants {
                check = check.and_then(|()| invariant.event(event).map_err(Failure::Safety));
            }
        }
        self.judged.extend(events);
        check
    }

    /// What clients put on record since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.judged)
    }

    /// Processes that ended themselves in this step are gone before the next.
    fn bury(&mut self) {
        let over: Vec<u64> =
            self.nodes.iter().filter(|(_, node)| node.has_ended_itself()).map(|(id, _)| *id).collect();
        for id in over {
            self.crash(id);
        }
    }

    /// The oracle's last word: every invariant's check of the whole.
    ///
    /// # Errors
    /// What it found.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let seen = Observation { now_us: self.now_us, nodes: &self.views };
        for invariant in &mut self.invariants {
            invariant.finish(&seen).map_err(Failure::Safety)?;
        }
        Ok(())
    }

    // ---- who is there ----

    pub fn seed(&self) -> Seed {
        self.seed
    }

    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// What the nodes were seen to be after the last step; only those that run.
    pub fn views(&self) -> &BTreeMap<u64, NodeView> {
        &self.views
    }

    pub fn node_ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// # Panics
    /// If there is no such node.
    pub fn node(&self, id: u64) -> &NodeHost {
        self.nodes.get(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// `host:port` of every node that was ever added, for clients.
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> =
            self.nodes.values().map(|node| format!("{}:{GRPC_PORT}", node.name())).collect();
        all.join(",")
    }

    // ---- nodes ----

    /// A machine with an empty disk, on which a node starts at once. `config` needs its id, and who forms the
    /// cluster or whom to join; addresses and directory are set here.
    pub fn add_node(&mut self, config: NodeConfig) {
        let id = config.node_id.0;
        let node = NodeHost::new(config, self.seed.fork("node").nth(id), self.trace.clone());
        let (name, software) = (node.name().to_owned(), node.software());
        self.sim.host(name.as_str(), software);
        self.trace.note(&name, format_args!("starts for the first time"));
        assert!(self.nodes.insert(id, node).is_none(), "node {id} was added twice");
    }

    /// The process dies; what it wrote stays, synced or not.
    pub fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        node.end_life();
        let name = node.name().to_owned();
        node.machine().disk.crash();
        self.sim.crash(name.as_str());
        self.views.remove(&id);
        self.trace.note(&name, format_args!("is dead"));
    }

    /// The machine loses power: the process dies, and of what was not synced only some survives.
    pub fn power_loss(&mut self, id: u64, unsynced: Unsynced) {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        node.end_life();
        let name = node.name().to_owned();
        // Before its tasks are dropped: nothing that they still write may survive.
        node.machine().disk.power_loss_with(unsynced);
        self.sim.crash(name.as_str());
        self.views.remove(&id);
        self.trace.note(&name, format_args!("lost power"));
    }

    /// Its disk is replaced by an empty one. The node must not run.
    pub fn wipe(&mut self, id: u64) {
        let node = self.node(id);
        assert!(!node.is_up(), "a disk is not replaced under a running node");
        node.machine().disk.wipe();
        self.trace.note(node.name(), format_args!("has an empty disk"));
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        assert!(!node.is_up(), "node {id} runs already");
        node.begin_life();
        let name = node.name().to_owned();
        self.sim.bounce(name.as_str());
        self.trace.note(&name, format_args!("starts"));
    }

    /// Asks a node to shut down cleanly; it is up until it has.
    pub fn stop(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node that was added");
        node.stop();
        self.trace.note(node.name(), format_args!("is asked to stop"));
    }

    /// Changes the configuration that the next start uses.
    pub fn configure(&mut self, id: u64, change: impl FnOnce(&mut NodeConfig)) {
        self.nodes.get_mut(&id).expect("a node that was added").configure(change);
    }

    // ---- clients ----

    /// A client's process, run by `software` at once and at every [`World::restart_client`].
    pub fn add_client(&mut self, name: &str, software: ClientSoftware) {
        let client =
            ClientHost::new(name, software, self.seed.fork("client").fork(name), self.recorder.clone());
        self.sim.host(name, client.software());
        self.clients.insert(Arc::from(name), client);
    }

    pub fn client_names(&self) -> Vec<Arc<str>> {
        self.clients.keys().cloned().collect()
    }

    /// # Panics
    /// If there is no such client.
    pub fn client(&self, name: &str) -> &ClientHost {
        self.clients.get(name).unwrap_or_else(|| panic!("there is no client {name}"))
    }

    /// Whether its code has not come to its end; `false` too while it is dead.
    pub fn client_is_running(&mut self, name: &str) -> bool {
        self.sim.is_host_running(name)
    }

    /// The client's process dies.
    pub fn crash_client(&mut self, name: &str) {
        self.clients.get_mut(name).expect("a client that was added").end_life();
        self.sim.crash(name);
        self.trace.note(name, format_args!("is dead"));
    }

    pub fn restart_client(&mut self, name: &str) {
        self.clients.get_mut(name).expect("a client that was added").begin_life();
        self.sim.bounce(name);
        self.trace.note(name, format_args!("starts again"));
    }

    // ---- the network ----

    /// What `from` sends to `to` is lost until [`World::reconnect`]. Connections over the cut never recover.
    pub fn cut(&mut self, from: &str, to: &str) {
        self.sim.partition_oneway(from, to);
        self.trace.note(from, format_args!("cannot reach {to}"));
    }

    /// Both directions.
    pub fn cut_both(&mut self, one: &str, other: &str) {
        self.sim.partition(one, other);
        self.trace.note(one, format_args!("and {other} cannot reach each other"));
    }

    pub fn reconnect(&mut self, one: &str, other: &str) {
        self.sim.repair(one, other);
        self.trace.note(one, format_args!("and {other} reach each other again"));
    }

    /// A host's process, node or client, stands still as after SIGSTOP, until [`World::resume`]: nothing of it runs, its timers
    /// included, and what is sent to it waits. Its death ends that, too.
    pub fn pause(&mut self, host: &str) {
        self.sim.pause(host);
        self.trace.note(host, format_args!("stands still"));
    }

    /// It goes on: everything that waited arrives, and every timer that has expired fires, at once.
    pub fn resume(&mut self, host: &str) {
        self.sim.resume(host);
        self.trace.note(host, format_args!("goes on"));
    }

    /// What the two send each other waits until [`World::release`], then arrives, as behind a router that was busy.
    pub fn hold(&mut self, one: &str, other: &str) {
        self.sim.hold(one, other);
        self.trace.note(one, format_args!("and {other} do not hear each other for now"));
    }

    pub fn release(&mut self, one: &str, other: &str) {
        self.sim.release(one, other);
        self.trace.note(one, format_args!("and {other} hear each other again"));
    }

    /// Messages between the two take from `shortest` to `longest`, and this share of them is lost, each with its
    /// connection.
    pub fn set_link(&mut self, one: &str, other: &str, shortest: Duration, longest: Duration, loss: f64) {
        self.sim.set_link_latency(one, other, shortest);
        self.sim.set_link_max_message_latency(one, other, longest);
        self.sim.set_link_fail_rate(one, other, loss);
        self.trace.note(one, format_args!("and {other}: {shortest:?} to {longest:?}, {loss} lost"));
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a host panicked").to_owned()
}
