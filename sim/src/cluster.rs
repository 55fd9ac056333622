//! A simulated cluster for the tests of applications: start one, run your own producers and consumers against it
//! through the ordinary SDK, hurt it by name, assert, and replay any failure from its seed.
//!
//! ```no_run
//! use std::time::Duration;
//! use strandline_sim::{Cluster, FaultKind};
//!
//! #[test]
//! fn a_greeting_survives_the_death_of_a_leader() {
//!     strandline_sim::check(1..=20, |cluster: &mut Cluster| {
//!         cluster.create_topic("greetings", 1, 3);
//!         cluster.client("app", |app| async move {
//!             let producer = app.client().producer().build().unwrap();
//!             let record = strandline_client::Record::to("greetings").value("hello");
//!             producer.send_and_wait(record).await.expect("it is acknowledged in the end");
//!         });
//!         cluster.inject(FaultKind::Crash, "node-1", Duration::from_secs(2));
//!         assert!(cluster.run_until_ended("app", Duration::from_secs(30)));
//!     });
//! }
//! # fn main() {}
//! ```
//!
//! Time in it is simulated: `tokio::time::sleep` in a client costs nothing, and a minute passes in a few seconds.
//! Clients must take time from tokio and randomness from [`App::seed`]; threads and real sockets do not exist there.

use crate::faults::FaultKind;
use crate::faults::inject::Injector;
use crate::faults::plan::{Planned, Target};
use crate::invariants;
use crate::invariants::i19_liveness::converged;
use crate::seeds::Seed;
use crate::trace::{Detail, Trace};
use crate::workload::admin::{Order, Orders, operate};
use crate::world::{ClientWorld, Failure, PEER_PORT, World};
use futures::future::LocalBoxFuture;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use strandline_node::config::{FormCluster, HostPort, NodeConfig};
use strandline_record::BrokerId;

/// Reads one seed to run instead of all: `STRANDLINE_SEED=17 cargo test …` replays a failure.
pub const SEED_VARIABLE: &str = "STRANDLINE_SEED";
const FORMING: Duration = Duration::from_secs(30);
const ORDERS: Duration = Duration::from_secs(30);

/// A simulated cluster. Whatever goes wrong with it that is not a fault you asked for panics with the reason.
#[derive(Debug)]
pub struct Cluster {
    world: World,
    injector: Injector,
    orders: Orders,
    seed: Seed,
    injected: u64,
}

/// What a client's code gets: its own view of the simulated world.
#[derive(Clone, Debug)]
pub struct App {
    world: ClientWorld,
    bootstrap: String,
}

impl App {
    /// An SDK client of the cluster, as this host sees it.
    ///
    /// # Panics
    /// Never with the options that it sets; change them with [`App::client_builder`].
    pub fn client(&self) -> strandline_client::Client {
        self.client_builder().build().expect("the simulation's options are usable")
    }

    /// The same, before it is built.
    pub fn client_builder(&self) -> strandline_client::ClientBuilder {
        self.world.sdk(&self.bootstrap)
    }

    /// The client's name in the network.
    pub fn name(&self) -> &str {
        &self.world.name
    }

    /// How often this client was started, from 1.
    pub fn life(&self) -> u64 {
        self.world.life
    }

    /// For everything random in this life of the client.
    pub fn seed(&self) -> u64 {
        self.world.seed.fork("app").value()
    }

    /// A line in the trace that the report of a failure shows.
    pub fn note(&self, text: &str) {
        self.world.recorder.note(&self.world.name, format_args!("{text}"));
    }
}

impl Cluster {
    /// Three nodes that have formed a cluster.
    ///
    /// # Panics
    /// If they do not within thirty simulated seconds.
    pub fn new(seed: u64) -> Cluster {
        Cluster::with_nodes(seed, 3)
    }

    /// As many nodes as wanted; beyond three they have joined.
    ///
    /// # Panics
    /// If they do not form a cluster within thirty simulated seconds.
    pub fn with_nodes(seed: u64, nodes: usize) -> Cluster {
        let orders = Orders::default();
        let root = Seed::new(seed);
        let mut cluster = Cluster {
            world: World::new(seed, Trace::new(Detail::Notes), without_a_history()),
            injector: Injector::new(root, 1, orders.clone()),
            orders,
            seed: root,
            injected: 0,
        };
        let peer = |id: u64| HostPort::new(format!("node-{id}"), PEER_PORT);
        let founders = (nodes as u64).min(3);
        let members: BTreeMap<_, _> = (1..=founders).map(|id| (BrokerId(id), peer(id))).collect();
        for id in 1..=nodes as u64 {
            let mut config = NodeConfig::new(BrokerId(id), "/data");
            match id <= founders {
                true => config.form_cluster = Some(FormCluster(members.clone())),
                false => config.join = (1..=founders).map(peer).collect(),
            }
            config.journal_file_bytes = 4 << 20;
            config.disk_reserved_bytes = 16 << 20;
            cluster.world.add_node(config);
        }
        cluster.until(FORMING, "the cluster did not form", |world| converged(world.views(), nodes));
        let (bootstrap, orders) = (cluster.world.bootstrap(), cluster.orders.clone());
        let operator = move |world: ClientWorld| {
            Box::pin(operate(world, bootstrap.clone(), orders.clone())) as LocalBoxFuture<'static, ()>
        };
        cluster.world.add_client("admin", Arc::new(operator));
        cluster
    }

    /// Makes a topic and waits until all its replicas are in sync.
    ///
    /// # Panics
    /// If the cluster refuses it.
    pub fn create_topic(&mut self, name: &str, partitions: i32, replication: i32) {
        self.create_topic_with(name, partitions, replication, &[]);
    }

    /// The same with configuration keys, `("min.insync.replicas", "1")`.
    ///
    /// # Panics
    /// If the cluster refuses it.
    pub fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        replication: i32,
        configs: &[(&str, &str)],
    ) {
        let order = self.orders.give(Order::CreateTopic {
            name: name.to_owned(),
            partitions,
            replication,
            configs: configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        });
        let orders = self.orders.clone();
        self.until(ORDERS, "the topic was not made", |_| match orders.result(order) {
            Some(_) => Ok(()),
            None => Err("no answer".to_owned()),
        });
        if let Some(Err(why)) = self.orders.result(order) {
            panic!("{why}");
        }
        self.converge(ORDERS);
    }

    /// Starts a client's process that runs this code, and again at every restart. It has ended when the code has.
    ///
    /// # Panics
    /// If there is a client of this name already.
    pub fn client<F>(&mut self, name: &str, code: impl Fn(App) -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let bootstrap = self.world.bootstrap();
        let software = move |world: ClientWorld| {
            let running = code(App { world, bootstrap: bootstrap.clone() });
            Box::pin(running) as LocalBoxFuture<'static, ()>
        };
        self.world.add_client(name, Arc::new(software));
    }

    // ---- time ----

    /// Simulated time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.world.now_us())
    }

    /// Time passes.
    ///
    /// # Panics
    /// When a node or a client does, or the cluster breaks a promise.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now() + duration;
        while self.now() < until {
            self.step();
        }
    }

    /// Time passes until `done`; `false` if it is not within `at_most`.
    ///
    /// # Panics
    /// As [`Cluster::run_for`].
    pub fn run_until(&mut self, at_most: Duration, mut done: impl FnMut() -> bool) -> bool {
        let until = self.now() + at_most;
        while !done() {
            if self.now() >= until {
                return false;
            }
            self.step();
        }
        true
    }

    /// Until the code of this client has come to its end; `false` if it has not within `at_most`.
    ///
    /// # Panics
    /// As [`Cluster::run_for`].
    pub fn run_until_ended(&mut self, client: &str, at_most: Duration) -> bool {
        let until = self.now() + at_most;
        while self.world.client_is_running(client) {
            if self.now() >= until {
                return false;
            }
            self.step();
        }
        true
    }

    /// Until every node runs and every partition has its leader and all its replicas in sync.
    ///
    /// # Panics
    /// If that takes longer than `at_most`.
    pub fn converge(&mut self, at_most: Duration) {
        let nodes = self.world.node_ids().len();
        self.until(at_most, "the cluster did not recover", |world| converged(world.views(), nodes));
    }

    // ---- harm ----

    /// Does this to a node (`"node-1"`) for `lasts`; a crashed node is started again after it. Several faults may be
    /// under way together.
    ///
    /// # Panics
    /// If there is no such node, or the fault finds nobody there to hit.
    pub fn inject(&mut self, kind: FaultKind, node: &str, lasts: Duration) {
        let id = node.strip_prefix("node-").and_then(|id| id.parse().ok());
        let id: u64 = id.filter(|id| self.world.node_ids().contains(id)).unwrap_or_else(|| {
            panic!("there is no node {node:?}: nodes are node-1 to node-{}", self.world.node_ids().len())
        });
        self.inject_at(kind, Target::Id(id), lasts);
    }

    /// The same to whoever holds a role at this moment.
    ///
    /// # Panics
    /// If the fault finds nobody there to hit.
    pub fn inject_at(&mut self, kind: FaultKind, target: Target, lasts: Duration) {
        self.injected += 1;
        let planned = Planned {
            at_us: self.world.now_us(),
            lasts_us: lasts.as_micros() as u64,
            kind,
            target,
            seed: self.seed.fork("injected").nth(self.injected),
        };
        let hit = self.injector.inject(&mut self.world, &planned);
        assert!(hit.is_some(), "{kind} at {target:?}: there is nobody whom it could hit now");
    }

    /// The client's process dies in the middle of whatever it does.
    pub fn crash_client(&mut self, name: &str) {
        self.world.crash_client(name);
    }

    pub fn restart_client(&mut self, name: &str) {
        self.world.restart_client(name);
    }

    /// Every fault ends, every node runs.
    pub fn heal(&mut self) {
        self.injector.heal(&mut self.world);
    }

    /// Everything underneath, for what is not here.
    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    // ---- inside ----

    fn step(&mut self) {
        self.injector.tick(&mut self.world);
        if let Err(failure) = self.world.step() {
            self.fail(&failure.to_string());
        }
        // Nobody counts them.
        self.world.take_events();
    }

    fn until(&mut self, at_most: Duration, what: &str, mut done: impl FnMut(&World) -> Result<(), String>) {
        let until = self.now() + at_most;
        while let Err(missing) = done(&self.world) {
            if self.now() >= until {
                self.fail(&format!("{what} within {at_most:?}: {missing}"));
            }
            self.step();
        }
    }

    fn fail(&self, why: &str) -> ! {
        let recent = self.world.trace().recent();
        let last = &recent[recent.len().saturating_sub(30)..];
        panic!("{why}\nat {:?} of simulated time; what happened last:\n{}", self.now(), last.join("\n"));
    }

    fn finish(&mut self) {
        if let Err(failure @ (Failure::Safety(_) | Failure::Liveness(_))) = self.world.finish() {
            self.fail(&failure.to_string());
        }
    }
}

/// What is checked of a cluster whose clients put nothing on record: all that needs only a look at the nodes. Which
/// offsets a group may have is known only from its members' commits.
fn without_a_history() -> Vec<Box<dyn invariants::Invariant>> {
    const OF_COMMITS: [&str; 2] = ["I14-offsets", "I18-resources"];
    invariants::all().into_iter().filter(|invariant| !OF_COMMITS.contains(&invariant.name())).collect()
}

/// Runs `test` on a fresh cluster for each seed, or for the one in `STRANDLINE_SEED`. A panic is reported with its
/// seed and how to replay it.
///
/// # Panics
/// With the first failure.
pub fn check(seeds: impl IntoIterator<Item = u64>, test: impl Fn(&mut Cluster)) {
    #[allow(
        clippy::disallowed_methods,
        reason = "a switch for people who run tests, read before anything is simulated"
    )]
    let only: Option<u64> = std::env::var(SEED_VARIABLE)
        .ok()
        .map(|seed| seed.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={seed} is not a number")));
    let seeds: Vec<u64> = only.map_or_else(|| seeds.into_iter().collect(), |seed| vec![seed]);
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| {
            let mut cluster = Cluster::new(seed);
            test(&mut cluster);
            cluster.finish();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("failed with seed {seed}; replay it alone: {SEED_VARIABLE}={seed} cargo test …");
            std::panic::resume_unwind(panic);
        }
    }
}
