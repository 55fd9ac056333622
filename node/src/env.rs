//! Everything ambient that a node uses: files, threads, sockets, the wall clock, randomness, and how to
//! die. The product runs on [`RealEnv`]; the simulation passes another implementation to the same
//! [`crate::run`]. Monotonic time is tokio's, which a simulation controls anyway.

use crate::inspect::Inspect;
use futures::future::BoxFuture;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use strandline_raft::io::{BoxedIo, Connect};
use strandline_raft::{SledStore, StateStore};
use strandline_storage::disk::{Disk, RealDisk};
use strandline_storage::worker::{ThreadHost, WorkerHost};

/// The world of one node.
pub trait Env: Send + Sync + Debug + 'static {
    fn disk(&self) -> Arc<dyn Disk>;
    /// Drives blocking work (journal, raft log, background syncs).
    fn workers(&self) -> Arc<dyn WorkerHost>;
    /// Opens a connection to `host:port`; the caller bounds it in time.
    fn connect(&self) -> Connect;
    /// Binds `host:port`. `AddrInUse` when somebody has the port.
    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Milliseconds since 1970. May jump; only stamps things, never decides safety.
    fn wall_clock_ms(&self) -> i64;
    /// Seed of an independent random stream; the same name gives the same stream in a simulation.
    fn fork_seed(&self, stream: &str) -> u64;
    /// Where Raft's applied state is kept between starts.
    fn state_store(&self, dir: &Path) -> Box<dyn StateStore>;
    /// Ends the node at once (a failed fsync leaves nothing else to do). Does not return in the product.
    fn die(&self, what: &str, error: &io::Error);
    /// The node's parts exist from here on; who wants to look inside keeps the handle.
    fn started(&self, _node: Inspect) {}
}

/// A bound socket.
pub trait Listener: Send {
    /// The next connection and its remote address. Cancel safe: a dropped call loses no connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxedIo, Arc<str>)>>;
    fn local_addr(&self) -> io::Result<String>;
}

/// The product's environment.
pub struct RealEnv {
    workers: Arc<ThreadHost>,
    seed: u64,
    on_start: Option<OnStart>,
}

type OnStart = Box<dyn Fn(Inspect) + Send + Sync>;

impl Debug for RealEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RealEnv")
    }
}

/// Exit code of a process that ended itself because a disk operation failed.
pub const EXIT_DISK_FAILED: i32 = 70;

impl RealEnv {
    #[allow(clippy::disallowed_methods, clippy::new_without_default, reason = "this is the real seam")]
    pub fn new() -> Self {
        let on_fatal = Arc::new(|worker: &str, error: &io::Error| end_process(worker, error));
        RealEnv { workers: Arc::new(ThreadHost::new(on_fatal)), seed: rand::random(), on_start: None }
    }

    /// Calls `then` when the node's parts exist ([`Env::started`]). What it keeps of the node must not be in this
    /// environment, which the node keeps.
    pub fn on_start(self, then: impl Fn(Inspect) + Send + Sync + 'static) -> Self {
        RealEnv { on_start: Some(Box::new(then)), ..self }
    }
}

fn end_process(what: &str, error: &io::Error) -> ! {
    // Not a clean shutdown: nothing may be flushed or answered after a failed write or sync.
    tracing::error!(%what, %error, "a disk operation failed; the node ends itself, recovery decides at its next start");
    eprintln!("strandline: fatal: {what}: {error}");
    std::process::exit(EXIT_DISK_FAILED)
}

impl Env for RealEnv {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(RealDisk::new())
    }

    fn workers(&self) -> Arc<dyn WorkerHost> {
        self.workers.clone()
    }

    fn connect(&self) -> Connect {
        Arc::new(|addr: String| Box::pin(connect_tcp(addr)))
    }

    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(bind_tcp(addr).await?) as Box<dyn Listener>) })
    }

    #[allow(clippy::disallowed_methods, reason = "this is the real seam")]
    fn wall_clock_ms(&self) -> i64 {
        let since =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        since.as_millis() as i64
    }

    fn fork_seed(&self, stream: &str) -> u64 {
        // FNV-1a of the name, mixed with the process's own seed.
        stream.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    fn state_store(&self, dir: &Path) -> Box<dyn StateStore> {
        Box::new(SledStore::new(dir))
    }

    fn die(&self, what: &str, error: &io::Error) {
        end_process(what, error)
    }

    fn started(&self, node: Inspect) {
        if let Some(then) = &self.on_start {
            then(node);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the real seam")]
async fn connect_tcp(addr: String) -> io::Result<BoxedIo> {
    let stream = tokio::net::TcpStream::connect(&addr).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// Sockets that listen wait this long for the kernel to hand over a connection queue of this length.
const LISTEN_BACKLOG: u32 = 1024;

async fn bind_tcp(addr: &str) -> io::Result<TcpListener> {
    let mut last = None;
    for candidate in tokio::net::lookup_host(addr).await? {
        let socket = if candidate.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        // A restarted node takes its port again although old connections linger in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        match socket.bind(candidate).and_then(|()| socket.listen(LISTEN_BACKLOG)) {
            Ok(listener) => return Ok(TcpListener(listener)),
            Err(error) => last = Some(error),
        }
    }
    Err(last
        .unwrap_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the host name has no address")))
}

struct TcpListener(tokio::net::TcpListener);

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxedIo, Arc<str>)>> {
        Box::pin(async move {
            let (stream, remote) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxedIo, Arc::from(remote.to_string())))
        })
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.0.local_addr()?.to_string())
    }
}
