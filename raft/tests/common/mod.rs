//! Nodes in this process, each with its own runtime, so that a kill takes its tasks and sockets at once.
#![allow(dead_code, reason = "each test file uses its part")]
// Reason: the tests are the real outside world here: sockets and directories.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strandline_metadata::{BrokerEndpoints, Command, Image, Response};
use strandline_raft::{BoxedIo, Connect, MemoryStateStore, RaftConfig, RaftHandle, SledStore, StateStore};
use strandline_record::BrokerId;
use strandline_storage::disk::{Disk, RealDisk, SimDisk};
use strandline_storage::worker::ThreadHost;
use tokio::runtime::Runtime;
use uuid::Uuid;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where a node keeps its things.
#[derive(Clone)]
pub enum Place {
    Real(PathBuf),
    Sim(SimDisk),
}

impl Place {
    fn disk(&self) -> Arc<dyn Disk> {
        match self {
            Place::Real(_) => Arc::new(RealDisk::new()),
            Place::Sim(disk) => Arc::new(disk.clone()),
        }
    }

    pub fn dir(&self) -> PathBuf {
        match self {
            Place::Real(dir) => dir.join("raft"),
            Place::Sim(_) => "/data/raft".into(),
        }
    }

    pub fn sled_dir(&self) -> PathBuf {
        match self {
            Place::Real(dir) => dir.join("state"),
            Place::Sim(_) => unreachable!("the simulation has no sled"),
        }
    }

    fn state_store(&self) -> Box<dyn StateStore> {
        match self {
            Place::Real(_) => Box::new(SledStore::new(&self.sled_dir())),
            Place::Sim(_) => Box::new(MemoryStateStore::default()),
        }
    }
}

pub struct TestNode {
    pub id: u64,
    pub place: Place,
    pub address: SocketAddr,
    pub tune: fn(&mut RaftConfig),
    running: Option<(Runtime, Arc<ThreadHost>, RaftHandle)>,
}

impl TestNode {
    pub fn new(id: u64, place: Place, tune: fn(&mut RaftConfig)) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        TestNode { id, place, address, tune, running: None }
    }

    pub fn handle(&self) -> &RaftHandle {
        &self.running.as_ref().expect("the node runs").2
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn start(&mut self) {
        self.try_start().expect("the node starts");
    }

    pub fn try_start(&mut self) -> Result<(), strandline_raft::StartError> {
        assert!(self.running.is_none());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // What fails here was made to fail by the test; the node's own host would end the process.
        let host = Arc::new(ThreadHost::new(Arc::new(|_, _| {})));
        let mut config = RaftConfig::new(self.id, self.place.dir(), 7 + self.id);
        (self.tune)(&mut config);
        let (disk, store, workers) = (self.place.disk(), self.place.state_store(), host.clone());
        let handle =
            runtime.block_on(async { RaftHandle::start(config, disk, workers, store, connect()).await })?;
        let (service, address) = (handle.service(), self.address);
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
        });
        self.running = Some((runtime, host, handle));
        Ok(())
    }

    /// As abrupt as it gets within a process: no task of the node runs on, its sockets close.
    pub fn kill(&mut self) {
        let (runtime, host, handle) = self.running.take().expect("the node runs");
        if let Place::Sim(disk) = &self.place {
            disk.crash();
        }
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(handle);
        host.stop();
    }

    /// The machine loses power.
    pub fn power_loss(&mut self) {
        let Place::Sim(disk) = self.place.clone() else { unreachable!("only a simulated disk forgets") };
        let (runtime, host, handle) = self.running.take().expect("the node runs");
        disk.power_loss();
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(handle);
        host.stop();
    }
}

pub fn connect() -> Connect {
    Arc::new(|address: String| {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<BoxedIo, io::Error>(Box::new(stream))
        })
    })
}

pub struct Cluster {
    pub nodes: BTreeMap<u64, TestNode>,
    pub runtime: Runtime,
    _dir: Option<tempfile::TempDir>,
}

impl Cluster {
    /// `voters` nodes on real directories, formed and with a leader.
    pub fn real(voters: u64, tune: fn(&mut RaftConfig)) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let place = |id| Place::Real(dir.path().join(format!("node-{id}")));
        let mut cluster = Cluster::form((1..=voters).map(|id| (id, place(id))).collect(), tune);
        cluster._dir = Some(dir);
        cluster
    }

    pub fn simulated(voters: u64, tune: fn(&mut RaftConfig)) -> Cluster {
        let places = (1..=voters).map(|id| (id, Place::Sim(sim_disk(id))));
        Cluster::form(places.collect(), tune)
    }

    fn form(places: BTreeMap<u64, Place>, tune: fn(&mut RaftConfig)) -> Cluster {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut nodes: BTreeMap<u64, TestNode> =
            places.into_iter().map(|(id, place)| (id, TestNode::new(id, place, tune))).collect();
        nodes.values_mut().for_each(TestNode::start);
        let members = nodes.iter().map(|(id, node)| (*id, node.address.to_string())).collect();
        let cluster = Cluster { nodes, runtime, _dir: None };
        cluster.runtime.block_on(cluster.nodes[&1].handle().initialize(members)).unwrap();
        cluster.leader();
        assert_eq!(
            cluster.propose(1, Command::FormCluster { cluster_id: Uuid::from_u128(9), now_ms: 1 }),
            Response::Done
        );
        cluster
    }

    /// A further node, started but known to nobody.
    pub fn add_node(&mut self, id: u64, tune: fn(&mut RaftConfig)) -> String {
        let place = match &self._dir {
            Some(dir) => Place::Real(dir.path().join(format!("node-{id}"))),
            None => Place::Sim(sim_disk(id)),
        };
        let mut node = TestNode::new(id, place, tune);
        node.start();
        let address = node.address.to_string();
        self.nodes.insert(id, node);
        address
    }

    pub fn handle(&self, id: u64) -> RaftHandle {
        self.nodes[&id].handle().clone()
    }

    pub fn node(&mut self, id: u64) -> &mut TestNode {
        self.nodes.get_mut(&id).unwrap()
    }

    pub fn running(&self) -> Vec<u64> {
        self.nodes.values().filter(|n| n.is_running()).map(|n| n.id).collect()
    }

    /// Waits until the running nodes agree on a leader among them that leads, and answers it.
    pub fn leader(&self) -> u64 {
        self.eventually("a leader that all running nodes know", || {
            let running = self.running();
            let known: Vec<_> = running.iter().map(|id| self.nodes[id].handle().leader()).collect();
            let first = known[0].map(|(id, _)| id)?;
            let agreed = known.iter().all(|k| *k == known[0]) && running.contains(&first);
            (agreed && self.nodes[&first].handle().is_leader()).then_some(first)
        })
    }

    pub fn follower(&self) -> u64 {
        let leader = self.leader();
        self.running().into_iter().find(|id| *id != leader).unwrap()
    }

    pub fn eventually<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let polls = PATIENCE.as_millis() / 10;
        for _ in 0..polls {
            if let Some(found) = check() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("did not come about: {what}");
    }

    /// Proposes until the outcome is known.
    pub fn propose(&self, from: u64, command: Command) -> Response {
        let handle = self.handle(from);
        self.runtime.block_on(async move {
            loop {
                match handle.propose(command.clone(), PATIENCE).await {
                    Ok(response) => return response,
                    Err(strandline_raft::ProposeError::Unknown(why)) => eprintln!("again: {why}"),
                    Err(error) => panic!("{error}"),
                }
            }
        })
    }

    /// Proposes a broker that is told apart by its number; true if it was answered.
    pub fn register(&self, from: u64, number: u64) -> bool {
        let handle = self.handle(from);
        let answer = self.runtime.block_on(handle.propose(registration(number), PATIENCE));
        match answer {
            Ok(Response::Registered { .. }) => true,
            Ok(other) => panic!("{other:?}"),
            Err(_) => false,
        }
    }

    /// Waits until `id` has applied everything that was committed when this was called.
    pub fn up_to_date(&self, id: u64) -> Arc<Image> {
        let handle = self.handle(id);
        self.runtime.block_on(handle.ensure_linearizable(PATIENCE)).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.values_mut().filter(|n| n.is_running()) {
            node.kill();
        }
    }
}

/// A disk with the node's data directory, which is the node's own to make durable.
fn sim_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all("/data".as_ref()).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    disk
}

pub fn registration(number: u64) -> Command {
    Command::RegisterBroker {
        id: BrokerId(number),
        directory: Uuid::from_u128(number.into()),
        cluster_id: Uuid::from_u128(9),
        endpoints: BrokerEndpoints::default(),
        rack: None,
        clean_epoch: None,
    }
}

pub fn brokers(image: &Image) -> Vec<u64> {
    image.brokers.keys().map(|id| id.0).collect()
}
