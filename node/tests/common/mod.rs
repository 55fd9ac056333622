//! Whole nodes inside a test: real sockets and the very same `run`, on simulated disks, each node on a runtime of
//! its own that can be dropped at any moment.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests choose free ports and wait")]

pub mod strangers;
pub mod wire;

use futures::future::BoxFuture;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_node::config::{FormCluster, HostPort, NodeConfig};
use strandline_node::env::{Env, Listener, RealEnv};
use strandline_raft::io::Connect;
use strandline_raft::{MemoryStateStore, StateStore};
use strandline_record::BrokerId;
use strandline_storage::disk::{Disk, SimDisk};
use strandline_storage::worker::{ThreadHost, WorkerHost};
use strandline_wire::v1::strandline_client::StrandlineClient;
use strandline_wire::v1::*;
use tonic::transport::Channel;

/// Real network and clock, a simulated disk, threads that end with it.
#[derive(Debug)]
struct TestEnv {
    real: RealEnv,
    disk: SimDisk,
    workers: Arc<ThreadHost>,
}

impl Env for TestEnv {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }
    fn workers(&self) -> Arc<dyn WorkerHost> {
        self.workers.clone()
    }
    fn connect(&self) -> Connect {
        self.real.connect()
    }
    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.real.listen(addr)
    }
    fn wall_clock_ms(&self) -> i64 {
        self.real.wall_clock_ms()
    }
    fn fork_seed(&self, stream: &str) -> u64 {
        self.real.fork_seed(stream)
    }
    fn state_store(&self, _: &Path) -> Box<dyn StateStore> {
        Box::new(MemoryStateStore::default())
    }
    fn die(&self, what: &str, error: &io::Error) {
        panic!("{what}: {error}");
    }
}

pub struct Node {
    pub config: NodeConfig,
    pub disk: SimDisk,
    running: Option<(tokio::runtime::Runtime, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
}

impl Node {
    pub fn start(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // A worker that meets the dead disk of a power loss ends; there is no process here to end with it.
        let workers = Arc::new(ThreadHost::new(Arc::new(|_, _| {})));
        let env = Arc::new(TestEnv { real: RealEnv::new(), disk: self.disk.clone(), workers });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let config = self.config.clone();
        let task = runtime.spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            if let Err(error) = strandline_node::run(config, env, shutdown).await {
                eprintln!("a node ended: {error}");
            }
        });
        self.running = Some((runtime, stop, task));
    }

    /// The power goes: everything that was not made durable is lost, kept or torn, and nobody says goodbye.
    pub fn power_loss(&mut self) {
        self.disk.power_loss();
        if let Some((runtime, stop, _)) = self.running.take() {
            std::mem::forget(stop);
            // Waits for the worker threads, so that the ports are free again.
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// A clean stop.
    pub fn stop(&mut self) {
        if let Some((runtime, stop, task)) = self.running.take() {
            let _ = stop.send(());
            let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), task).await });
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    pub fn kafka(&self) -> String {
        self.config.listen_kafka.as_ref().expect("every node of a test has one").to_string()
    }

    pub fn grpc(&self) -> String {
        self.config.listen_grpc.to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((runtime, _, _)) = self.running.take() {
            runtime.shutdown_background();
        }
    }
}

/// `count` nodes that form one cluster, not started yet.
pub fn cluster(count: u64, seed: u64) -> Vec<Node> {
    let ports: Vec<u16> = free_ports(count as usize * 3);
    let at = |port: u16| HostPort::new("127.0.0.1", port);
    let members = (1..=count).map(|id| (BrokerId(id), at(ports[id as usize - 1]))).collect();
    (1..=count)
        .map(|id| {
            let mut config = NodeConfig::new(BrokerId(id), "/data");
            config.listen_peer = at(ports[id as usize - 1]);
            config.listen_grpc = at(ports[(count + id) as usize - 1]);
            config.listen_kafka = Some(at(ports[(2 * count + id) as usize - 1]));
            config.form_cluster = Some(FormCluster(std::collections::BTreeMap::clone(&members)));
            config.journal_file_bytes = 4 << 20;
            config.disk_reserved_bytes = 16 << 20;
            Node { config, disk: SimDisk::new(seed.wrapping_mul(31).wrapping_add(id)), running: None }
        })
        .collect()
}

fn free_ports(count: usize) -> Vec<u16> {
    // Held together, so that none is given twice.
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// A client of one node; waits until it answers and its cluster has `brokers` live brokers.
pub async fn client(node: &Node, brokers: usize) -> StrandlineClient<Channel> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(mut client) = StrandlineClient::connect(format!("http://{}", node.grpc())).await
            && let Ok(status) = client.cluster_status(ClusterStatusRequest {}).await
            && let status = status.into_inner()
            && status.error.is_none()
            && status.brokers.iter().filter(|broker| !broker.fenced).count() >= brokers
        {
            return client;
        }
        assert!(Instant::now() < until, "the cluster was not ready within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
