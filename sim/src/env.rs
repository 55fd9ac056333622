//! [`Env`] of a simulated node: turmoil's network and clock, a [`SimDisk`], workers on simulated time, randomness
//! from the seed. One for each life.

use crate::clock::WallClock;
use crate::life::Life;
use crate::net::Net;
use crate::seeds::Seed;
use crate::trace::Trace;
use crate::workers::{DiskPace, SimWorkers};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;
use strandline_node::env::{Env, Listener};
use strandline_node::inspect::Inspect;
use strandline_raft::io::{BoxedIo, Connect};
use strandline_raft::{MemoryStateStore, StateStore};
use strandline_storage::disk::{Disk, SimDisk};
use strandline_storage::worker::WorkerHost;

pub struct SimEnv {
    host: Arc<str>,
    net: Net,
    disk: SimDisk,
    workers: Arc<SimWorkers>,
    clock: WallClock,
    life: Life,
    seed: Seed,
    trace: Trace,
    inspect: Arc<Mutex<Option<Inspect>>>,
}

/// What outlives a life and is handed to the next.
#[derive(Clone, Debug)]
pub struct Machine {
    pub host: Arc<str>,
    pub disk: SimDisk,
    pub pace: DiskPace,
    pub clock: WallClock,
}

impl SimEnv {
    /// `seed` must differ between lives. The node's handle is put into `inspect` as soon as there is one.
    pub fn new(
        machine: &Machine,
        life: Life,
        seed: Seed,
        trace: Trace,
        inspect: Arc<Mutex<Option<Inspect>>>,
    ) -> SimEnv {
        let Machine { host, disk, pace, clock } = machine.clone();
        let (dying, told, name) = (life.clone(), trace.clone(), host.clone());
        let on_fatal = move |what: &str, error: &io::Error| {
            told.note(&name, format_args!("ends itself: {what}: {error}"));
            dying.end(format!("{what}: {error}"));
        };
        let workers = SimWorkers::new(seed.fork("workers").value(), life.clone(), pace, Arc::new(on_fatal));
        let net = Net::new(host.clone(), life.clone(), trace.clone());
        SimEnv { host, net, disk, workers: Arc::new(workers), clock, life, seed, trace, inspect }
    }
}

impl std::fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimEnv({})", self.host)
    }
}

impl Env for SimEnv {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn workers(&self) -> Arc<dyn WorkerHost> {
        self.workers.clone()
    }

    fn connect(&self) -> Connect {
        let net = self.net.clone();
        Arc::new(move |address| {
            let net = net.clone();
            Box::pin(async move { Ok(Box::new(net.connect(address).await?) as BoxedIo) })
        })
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(self.net.clone().listen(addr).await?) as Box<dyn Listener>) })
    }

    fn wall_clock_ms(&self) -> i64 {
        self.clock.read_ms(self.trace.now_us())
    }

    fn fork_seed(&self, stream: &str) -> u64 {
        self.seed.fork(stream).value()
    }

    fn state_store(&self, _: &Path) -> Box<dyn StateStore> {
        // Derived state, lost at every crash: each start rebuilds it from the snapshot and the log.
        Box::new(MemoryStateStore::default())
    }

    fn die(&self, what: &str, error: &io::Error) {
        self.trace.note(&self.host, format_args!("ends itself: {what}: {error}"));
        self.life.end(format!("{what}: {error}"));
    }

    fn started(&self, node: Inspect) {
        *self.inspect.lock() = Some(node);
    }
}
