//! A real cluster of real processes for tests: `strandline dev` on free ports in a directory of its own.
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, files and ports")]
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod http;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub const BIN: &str = env!("CARGO_BIN_EXE_strandline");

/// The first of `count` consecutive free ports. Ranges differ between test processes and within one, and lie
/// below those from which the system takes the local ports of outgoing connections.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 120) as u16 * 100;
    loop {
        let base = start.wrapping_add(NEXT.fetch_add(count, Ordering::Relaxed)).max(10_000);
        let free =
            (base..base.saturating_add(count)).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        if free && base < u16::MAX - count {
            return base;
        }
    }
}

/// `strandline dev`, stopped when dropped.
pub struct Dev {
    child: Child,
    pub dir: tempfile::TempDir,
    pub grpc_port: u16,
    nodes: u16,
}

impl Dev {
    pub fn start(nodes: u16) -> Dev {
        Dev::start_with(nodes, &[])
    }

    pub fn start_with(nodes: u16, flags: &[&str]) -> Dev {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let grpc_port = free_ports(nodes * 4);
        Dev::start_in(dir, grpc_port, nodes, flags)
    }

    /// Ctrl-C, then the same directory with so many nodes, on other ports.
    pub fn restart_with(mut self, nodes: u16) -> Dev {
        signal(self.child.id() as i32, libc::SIGINT);
        assert!(self.child.wait().expect("it can be waited for").success());
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a temporary directory"));
        drop(self);
        Dev::start_in(dir, free_ports(nodes * 4), nodes, &[])
    }

    fn start_in(dir: tempfile::TempDir, grpc_port: u16, nodes: u16, flags: &[&str]) -> Dev {
        let mut child = Command::new(BIN)
            .args(["dev", "--nodes", &nodes.to_string()])
            .args(["--grpc-port", &grpc_port.to_string(), "--peer-port", &(grpc_port + nodes).to_string()])
            .args(["--kafka-port", &(grpc_port + 2 * nodes).to_string()])
            .args(["--http-port", &(grpc_port + 3 * nodes).to_string()])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("strandline dev starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        loop {
            line.clear();
            let read = lines.read_line(&mut line).expect("its output can be read");
            assert!(read > 0, "strandline dev ended before it was ready: {:?}", child.wait());
            if line.starts_with("ready") {
                break;
            }
        }
        // What it says later (restarts) is read, so that it never blocks.
        std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = lines.read_to_string(&mut rest);
        });
        Dev { child, dir, grpc_port, nodes }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// All addresses, for `--bootstrap`.
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = (0..self.nodes).map(|n| format!("127.0.0.1:{}", self.grpc_port + n)).collect();
        all.join(",")
    }

    /// Port of the first node for the other nodes.
    pub fn peer_port(&self) -> u16 {
        self.grpc_port + self.nodes
    }

    /// Where node `node` serves HTTP.
    pub fn http(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.grpc_port + 3 * self.nodes + node - 1)
    }

    /// What its nodes were given as `--form-cluster`.
    pub fn form_cluster(&self) -> String {
        let all: Vec<String> =
            (0..self.nodes).map(|n| format!("{}=127.0.0.1:{}", n + 1, self.peer_port() + n)).collect();
        all.join(",")
    }

    pub fn pid(&self, node: u16) -> Option<i32> {
        let path = self.data_dir().join(format!("node-{node}/pid"));
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// SIGKILL. The supervisor starts the node again after 3 s.
    pub fn kill(&self, node: u16) -> i32 {
        let pid = self.pid(node).expect("a running node");
        signal(pid, libc::SIGKILL);
        pid
    }

    /// Waits until node `node` runs again under another pid.
    pub fn wait_restarted(&self, node: u16, old: i32) {
        wait_for("the node to be started again", Duration::from_secs(30), || {
            self.pid(node).is_some_and(|pid| pid != old)
        });
    }

    /// Waits until every partition has all its replicas in sync.
    pub fn wait_in_sync(&self) {
        wait_for("all replicas to be in sync", Duration::from_secs(60), || {
            let output = self.run(&["--json", "cluster", "status"]);
            let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
                return false;
            };
            let brokers = status["brokers"].as_array().map_or(0, |all| {
                all.iter().filter(|broker| broker["fenced"] == serde_json::Value::Bool(false)).count()
            });
            status["under_replicated"] == 0 && status["leaderless"] == 0 && brokers == usize::from(self.nodes)
        });
    }

    pub fn cli(&self) -> Cli {
        Cli { bootstrap: self.bootstrap() }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.cli().command(args)
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.cli().run(args)
    }

    pub fn ok(&self, args: &[&str]) -> String {
        self.cli().ok(args)
    }

    pub fn fails(&self, args: &[&str], input: &str) -> (i32, String) {
        self.cli().fails(args, input)
    }

    pub fn produce(&self, args: &[&str], input: &str) -> Output {
        self.cli().produce(args, input)
    }
}

/// The command line, talking to one cluster.
#[derive(Clone, Debug)]
pub struct Cli {
    pub bootstrap: String,
}

impl Cli {
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command.args(args).env("STRANDLINE_BOOTSTRAP", &self.bootstrap);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("strandline runs")
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "strandline {} failed with {}:\n{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must succeed with `--json`; what it printed.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[&["--json"], args].concat())).expect("a JSON document")
    }

    /// Runs a command that must fail; its exit code and what it says.
    pub fn fails(&self, args: &[&str], input: &str) -> (i32, String) {
        let output = fed(self.command(args), input);
        assert!(!output.status.success(), "strandline {} should have failed", args.join(" "));
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs a command that must fail with this exit code, saying all of this.
    pub fn refuses(&self, args: &[&str], input: &str, code: i32, says: &[&str]) {
        let (found, message) = self.fails(args, input);
        assert_eq!(found, code, "strandline {}: {message}", args.join(" "));
        for part in says {
            assert!(message.contains(part), "strandline {} should say {part:?}:\n{message}", args.join(" "));
        }
    }

    /// Sends text through `strandline produce`.
    pub fn produce(&self, args: &[&str], input: &str) -> Output {
        fed(self.command(&[&["produce"], args].concat()), input)
    }

    /// Sends text that must all be acknowledged.
    pub fn produce_ok(&self, args: &[&str], input: &str) {
        let output = self.produce(args, input);
        assert!(output.status.success(), "produce: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// All values of a topic, in the order of offsets within each partition.
    pub fn read(&self, topic: &str) -> String {
        self.ok(&["consume", topic, "--from", "earliest", "--exit-at-end"])
    }
}

/// Runs a command with this on its standard input, which it need not read to the end.
fn fed(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("strandline runs");
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// One `strandline serve`, killed when dropped.
pub struct Node {
    child: Child,
    log: PathBuf,
}

impl Node {
    /// Starts a node with its log beside its data directory.
    pub fn start(flags: &NodeFlags) -> Node {
        let log = flags.dir.with_extension("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let mut command = flags.command();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        Node { child: child.expect("strandline serve starts"), log }
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> Option<i32> {
        signal(self.child.id() as i32, libc::SIGTERM);
        self.child.wait().expect("it can be waited for").code()
    }

    /// Waits for it to end by itself: its exit code, and its log.
    pub fn wait(mut self, limit: Duration) -> (Option<i32>, String) {
        let mut status = None;
        wait_for("the node to end by itself", limit, || {
            status = self.child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        (status.and_then(|status| status.code()), self.log())
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeFlags {
    pub id: u64,
    pub dir: PathBuf,
    pub grpc: u16,
    pub peer: u16,
    pub more: Vec<String>,
}

impl NodeFlags {
    /// On ports of its own.
    pub fn new(id: u64, dir: impl Into<PathBuf>, more: &[&str]) -> NodeFlags {
        let grpc = free_ports(2);
        let more = more.iter().map(|flag| (*flag).to_owned()).collect();
        NodeFlags { id, dir: dir.into(), grpc, peer: grpc + 1, more }
    }

    pub fn with(&self, more: &[&str]) -> NodeFlags {
        let mut flags = self.clone();
        flags.more.extend(more.iter().map(|flag| (*flag).to_owned()));
        flags
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BIN);
        command
            .args(["serve", "--node-id", &self.id.to_string()])
            .arg("--data-dir")
            .arg(&self.dir)
            .args(["--listen-grpc", &format!("127.0.0.1:{}", self.grpc)])
            .args(["--listen-peer", &format!("127.0.0.1:{}", self.peer)])
            .args(&self.more);
        command
    }

    /// A node that must not start: it ends by itself with this exit code, saying all of this.
    pub fn refused(&self, code: i32, says: &[&str]) {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("strandline serve starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait().expect("it can be waited for").is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let output = child.wait_with_output().expect("it ends");
                panic!("a node runs that should not:\n{}", String::from_utf8_lossy(&output.stderr));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output().expect("it ends");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{message}");
        for part in says {
            assert!(message.contains(part), "the node should say {part:?}:\n{message}");
        }
    }
}

/// One `strandline gateway`, killed when dropped.
pub struct Gateway {
    child: Child,
    pub address: String,
}

impl Gateway {
    pub fn start(bootstrap: &str) -> Gateway {
        Gateway::start_with(bootstrap, &[])
    }

    pub fn start_with(bootstrap: &str, flags: &[&str]) -> Gateway {
        let address = format!("127.0.0.1:{}", free_ports(1));
        let child = Command::new(BIN)
            .args(["gateway", "--bootstrap", bootstrap, "--listen-http", &address])
            .args(flags)
            .spawn()
            .expect("strandline gateway starts");
        let gateway = Gateway { child, address };
        wait_for("the gateway to answer", Duration::from_secs(20), || {
            http::try_request(&gateway.address, "GET", "/healthz", &[], "").is_ok()
        });
        gateway
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> Option<i32> {
        signal(self.child.id() as i32, libc::SIGTERM);
        self.child.wait().expect("it can be waited for").code()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster of one node.
pub struct Single {
    node: Option<Node>,
    pub flags: NodeFlags,
    pub cli: Cli,
    pub dir: tempfile::TempDir,
}

impl Single {
    pub fn start(flags: &[&str]) -> Single {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let plain = NodeFlags::new(1, dir.path().join("node-1"), flags);
        let form = format!("1=127.0.0.1:{}", plain.peer);
        let flags = plain.with(&["--form-cluster", &form]);
        let cli = Cli { bootstrap: format!("127.0.0.1:{}", flags.grpc) };
        let mut single = Single { node: None, flags, cli, dir };
        single.start_again();
        single
    }

    pub fn start_again(&mut self) {
        self.node = Some(Node::start(&self.flags));
        wait_for("the node to serve", Duration::from_secs(20), || {
            let status = self.cli.run(&["--json", "--timeout", "1s", "cluster", "status"]);
            serde_json::from_slice::<serde_json::Value>(&status.stdout)
                .is_ok_and(|status| status["brokers"][0]["fenced"] == false)
        });
    }

    pub fn stop(&mut self) {
        assert_eq!(self.node.take().expect("it runs").stop(), Some(0), "a clean end");
    }

    pub fn kill(&mut self) {
        self.node.take().expect("it runs").kill();
    }
}

impl Dev {
    /// The last lines of each node's log, for a test that failed.
    fn show_logs(&self) {
        for node in 1..=self.nodes {
            let log = std::fs::read_to_string(self.data_dir().join(format!("node-{node}/log.txt")))
                .unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- node {node}: the last of {} log lines", lines.len());
            lines.iter().skip(lines.len().saturating_sub(30)).for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        signal(self.child.id() as i32, libc::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: i32, signal: i32) {
    // SAFETY: kill has no memory effects; the pid is one that this test started.
    unsafe { libc::kill(pid, signal) };
}

pub fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
