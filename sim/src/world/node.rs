//! A machine and the node on it, over all its lives.

use crate::clock::WallClock;
use crate::env::{Machine, SimEnv};
use crate::life::Life;
use crate::observe::{NodeView, Observer};
use crate::seeds::Seed;
use crate::trace::Trace;
use crate::workers::DiskPace;
use futures::future::LocalBoxFuture;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_node::config::{HostPort, NodeConfig};
use strandline_node::inspect::Inspect;
use strandline_storage::disk::SimDisk;
use tokio::sync::oneshot;

use super::{GRPC_PORT, PEER_PORT};

/// Where every node keeps its data, on a disk of its own.
const DATA_DIR: &str = "/data";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    Up,
    /// Dead, or not started again yet.
    Down,
    /// `node::run` returned: after a clean stop (`None`), or with the error that ended it.
    Ended(Option<String>),
}

#[derive(Debug)]
pub struct NodeHost {
    shared: Arc<Shared>,
    observer: Observer,
}

/// What the software closure, which turmoil keeps, has in common with the world.
#[derive(Debug)]
struct Shared {
    id: u64,
    machine: Machine,
    seed: Seed,
    trace: Trace,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    config: NodeConfig,
    /// Counted from 1.
    number: u64,
    life: Life,
    state: NodeState,
    inspect: Arc<Mutex<Option<Inspect>>>,
    /// Of a process that has ended by itself, for one last look.
    last: Option<Inspect>,
    stop: Option<oneshot::Sender<()>>,
}

impl NodeHost {
    pub(super) fn new(mut config: NodeConfig, seed: Seed, trace: Trace) -> NodeHost {
        let id = config.node_id.0;
        let host: Arc<str> = Arc::from(format!("node-{id}"));
        config.data_dir = PathBuf::from(DATA_DIR);
        config.listen_grpc = HostPort::new("0.0.0.0", GRPC_PORT);
        config.listen_peer = HostPort::new("0.0.0.0", PEER_PORT);
        config.advertise_grpc = Some(HostPort::new(&*host, GRPC_PORT));
        config.advertise_peer = Some(HostPort::new(&*host, PEER_PORT));
        let machine = Machine {
            host,
            disk: SimDisk::new(seed.fork("disk").value()),
            pace: DiskPace::default(),
            clock: WallClock::default(),
        };
        let now = Now {
            config,
            number: 1,
            life: Life::default(),
            state: NodeState::Up,
            inspect: Arc::default(),
            last: None,
            stop: None,
        };
        let shared = Shared { id, machine, seed, trace, now: Mutex::new(now) };
        NodeHost { shared: Arc::new(shared), observer: Observer::default() }
    }

    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// `node-1`: its name in the network.
    pub fn name(&self) -> &str {
        &self.shared.machine.host
    }

    /// Disk, pace of the disk, clock.
    pub fn machine(&self) -> &Machine {
        &self.shared.machine
    }

    pub fn state(&self) -> NodeState {
        self.shared.now.lock().state.clone()
    }

    pub fn is_up(&self) -> bool {
        self.shared.now.lock().state == NodeState::Up
    }

    /// How often it was started.
    pub fn lives(&self) -> u64 {
        self.shared.now.lock().number
    }

    /// Looks inside; `None` while nothing runs or it has not got that far.
    pub fn inspect(&self) -> Option<Inspect> {
        let now = self.shared.now.lock();
        let inspect = now.inspect.lock();
        inspect.clone().filter(|_| now.state == NodeState::Up)
    }

    pub fn config(&self) -> NodeConfig {
        self.shared.now.lock().config.clone()
    }

    pub(super) fn configure(&mut self, change: impl FnOnce(&mut NodeConfig)) {
        change(&mut self.shared.now.lock().config);
    }

    pub(super) fn look(&mut self) -> Option<NodeView> {
        // A process that ended within a step may have said in it what it had just done.
        let inspect = self.inspect().or_else(|| self.shared.now.lock().last.take())?;
        Some(self.observer.look(&inspect, self.lives()))
    }

    /// Whether its life ended from inside, by a failed disk or a crash point that was reached.
    pub(super) fn has_ended_itself(&self) -> bool {
        let now = self.shared.now.lock();
        now.state == NodeState::Up && (now.life.is_over() || self.shared.machine.disk.is_crashed())
    }

    pub(super) fn end_life(&mut self) {
        let mut now = self.shared.now.lock();
        now.life.end("killed");
        now.state = NodeState::Down;
        now.last = None;
        *now.inspect.lock() = None;
        now.stop = None;
        self.observer = Observer::default();
    }

    pub(super) fn begin_life(&mut self) {
        let mut now = self.shared.now.lock();
        now.number += 1;
        now.life = Life::default();
        now.inspect = Arc::default();
        now.last = None;
        now.state = NodeState::Up;
    }

    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.shared.now.lock().stop.take() {
            let _ = stop.send(());
        }
    }

    /// What turmoil runs at each start.
    pub(super) fn software(&self) -> impl Fn() -> LocalBoxFuture<'static, turmoil::Result> + 'static {
        let shared = self.shared.clone();
        move || Box::pin(shared.clone().live())
    }
}

impl Shared {
    async fn live(self: Arc<Self>) -> turmoil::Result {
        let (stop, stopped) = oneshot::channel();
        let (env, config, life) = {
            let mut now = self.now.lock();
            now.stop = Some(stop);
            let seed = self.seed.nth(now.number);
            let env =
                SimEnv::new(&self.machine, now.life.clone(), seed, self.trace.clone(), now.inspect.clone());
            (Arc::new(env), now.config.clone(), now.life.clone())
        };
        let shutdown = async {
            // The sender is dropped when the life ends otherwise.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ended = strandline_node::run(config, env, shutdown).await;
        if life.is_over() {
            return Ok(());
        }
        let error = ended.err().map(|error| error.to_string());
        match &error {
            None => self.trace.note(&self.machine.host, format_args!("has stopped")),
            Some(error) => self.trace.note(&self.machine.host, format_args!("ended: {error}")),
        }
        // The process is gone: its handles and its lock end with it.
        life.end("ended");
        self.machine.disk.crash();
        let mut now = self.now.lock();
        now.state = NodeState::Ended(error);
        let last = now.inspect.lock().take();
        now.last = last;
        Ok(())
    }
}
