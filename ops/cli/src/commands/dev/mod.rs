//! `strandline dev`: a real cluster on this machine, one process a node, looked after until Ctrl-C.
//!
//! ```text
//! ports free? ─▶ start nodes ─▶ table ─▶ all unfenced ─▶ "ready …" ─▶ watch ─▶ Ctrl-C ─▶ stop all
//!                    ▲                                                  │
//!                    └──────────────── 3 s ◀──── a node dies ◀──────────┘
//! ```
//!
//! Every node is this same program started again as `serve` with flags; nothing in a node knows about `dev`.

mod data_dir;
mod node_process;
mod plan;
mod ready;

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::signals::Signals;
use crate::table::table;
use data_dir::DataDir;
use node_process::{NodeProcess, Order};
use plan::{NodePlan, Plan};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long a dead node stays away before it is started again.
const RESTART_AFTER: Duration = Duration::from_secs(3);
/// How long nodes may take to stop before they are killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// When to say that the cluster is not ready yet.
const NOT_READY_AFTER: Duration = Duration::from_secs(20);
/// Lines of a node's log that are shown when it fails to start.
const LOG_LINES_SHOWN: usize = 12;

/// Run a cluster on this machine, each node its own process, until Ctrl-C
///
/// Prints a table of the nodes and, once they serve, a line that begins with `ready`. Each node keeps its data, its
/// `pid` and its `log.txt` in DATA_DIR/node-ID; starting again with the same directory goes on with the same
/// data, and with more --nodes than before the new ones join. A node that dies is started again after 3 seconds (kill
/// one and see); one that was removed from the cluster is left out from then on. The nodes end with this command,
/// even if it is killed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline dev
    strandline dev --nodes 1 --data-dir /tmp/one
    strandline dev --grpc-port 7080 --peer-port 7180 --no-restart
    strandline dev -- --log-level debug                     flags behind -- go to every node
    kill -9 $(cat strandline-data/node-2/pid)               it comes back after 3 seconds")]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    pub nodes: u16,
    /// Where the nodes keep their data
    #[arg(long, default_value = "./strandline-data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Port of the first node for clients (gRPC); the others follow
    #[arg(long, default_value_t = 7070, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub grpc_port: u16,
    /// Port of the first node for the other nodes; the others follow
    #[arg(long, default_value_t = 7170, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub peer_port: u16,
    /// Port of the first node for Kafka clients; the others follow
    #[arg(long, default_value_t = 9092, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub kafka_port: u16,
    /// Port of the first node for HTTP (events over JSON); the others follow
    #[arg(long, default_value_t = 8080, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub http_port: u16,
    /// Do not start nodes again that die
    #[arg(long)]
    pub no_restart: bool,
    /// Further flags for every node, as `strandline serve` takes them
    #[arg(last = true, value_name = "NODE FLAGS")]
    pub node_flags: Vec<String>,
}

pub fn run(args: DevArgs, _global: &Global, out: Output) -> Result<(), Failure> {
    let mut dir = DataDir::open(&args.data_dir)?;
    let plan = Plan::make(&args, &dir.look()?)?;
    plan.check_ports()?;
    dir.make()?;
    plan.joining().try_for_each(|id| dir.mark_joining(id))?;
    // One thread, and it is this one: a node dies with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    runtime.block_on(async {
        let signals = Signals::listen().map_err(cannot_start)?;
        Supervisor::start(plan, dir, !args.no_restart, out)?.watch(signals).await
    })
}

fn cannot_start(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failure, format_args!("cannot start: {error}"))
}

/// What the supervisor waits for.
enum Event {
    Died { node: usize, pid: u32, status: ExitStatus },
    StartAgain(usize),
    Ready(Duration),
    NotReadyYet(String),
}

struct Supervisor {
    plan: Plan,
    dir: DataDir,
    restart: bool,
    out: Output,
    /// `None` while a node is dead.
    running: Vec<Option<NodeProcess>>,
    /// Dead nodes that are about to be started again.
    resting: usize,
    /// The nodes that make up the cluster: those of the plan that were not removed from it.
    members: watch::Sender<Vec<NodePlan>>,
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    ready: bool,
}

impl Supervisor {
    fn start(plan: Plan, dir: DataDir, restart: bool, out: Output) -> Result<Supervisor, Failure> {
        let begun = Instant::now();
        let (sender, events) = mpsc::unbounded_channel();
        let (members, expected) = watch::channel(plan.nodes.clone());
        let mut supervisor = Supervisor {
            running: Vec::new(),
            resting: 0,
            members,
            plan,
            dir,
            restart,
            out,
            events,
            sender,
            ready: false,
        };
        for node in 0..supervisor.plan.nodes.len() {
            let process = supervisor.spawn(node)?;
            supervisor.running.push(Some(process));
        }
        supervisor.print_table()?;
        tokio::spawn(say_when_ready(expected, supervisor.sender.clone(), begun));
        Ok(supervisor)
    }

    fn spawn(&self, node: usize) -> Result<NodeProcess, Failure> {
        let sender = self.sender.clone();
        NodeProcess::spawn(&self.plan.nodes[node], &self.plan, move |pid, status| {
            // The supervisor outlives its nodes; if not, nobody is left to care.
            let _ = sender.send(Event::Died { node, pid, status });
        })
    }

    fn print_table(&self) -> Result<(), Failure> {
        let pid = |node: usize| self.running[node].as_ref().map_or(0, |process| process.pid);
        let nodes: Vec<_> = self.plan.nodes.iter().enumerate().collect();
        let documents: Vec<_> = nodes
            .iter()
            .map(|(i, node)| {
                json!({
                    "node": node.id, "pid": pid(*i), "grpc": node.grpc, "peer": node.peer, "kafka": node.kafka,
                    "http": node.http,
                    "data_dir": node.dir, "log": node.log(),
                })
            })
            .collect();
        self.out.show(&json!({ "event": "started", "nodes": documents }), || {
            let rows = nodes.iter().map(|(i, node)| {
                let dir = node.dir.display().to_string();
                [
                    node.id.to_string(),
                    pid(*i).to_string(),
                    node.grpc.clone(),
                    node.peer.clone(),
                    node.kafka.clone(),
                    node.http.clone(),
                    dir,
                ]
            });
            format!(
                "{}\n\nlogs: log.txt in each directory",
                table(["node", "pid", "grpc", "peer", "kafka", "http", "data"], rows)
            )
        })?;
        for id in &self.plan.idle {
            self.out.remark(&format!("{} is there too, and not started", self.dir.node(*id).display()));
        }
        self.plan.removed.iter().try_for_each(|id| self.say_removed(*id, "is left out"))
    }

    fn say_removed(&self, id: u64, what: &str) -> Result<(), Failure> {
        let dir = self.dir.node(id);
        self.out.show(&json!({ "event": "removed", "node": id, "data_dir": dir }), || {
            format!(
                "node {id} {what}: it was removed from the cluster; to have a new node {id}, delete {} and start again",
                dir.display()
            )
        })
    }

    async fn watch(mut self, mut signals: Signals) -> Result<(), Failure> {
        loop {
            let event = tokio::select! {
                biased;
                _ = signals.next() => return self.stop(signals).await,
                event = self.events.recv() => event.expect("the supervisor holds a sender itself"),
            };
            let outcome = match event {
                Event::Died { node, pid, status } => self.died(node, pid, status),
                Event::StartAgain(node) => self.start_again(node),
                Event::Ready(after) => {
                    self.ready = true;
                    self.say_ready(after)
                }
                Event::NotReadyYet(why) => {
                    self.out.remark(&format!("not ready yet: {why}; the nodes' logs may say more"));
                    Ok(())
                }
            };
            if let Err(failure) = outcome {
                self.stop(signals).await?;
                return Err(failure);
            }
        }
    }

    fn say_ready(&self, after: Duration) -> Result<(), Failure> {
        let members = self.members.borrow();
        let all = |address: fn(&NodePlan) -> &str| members.iter().map(address).collect::<Vec<_>>().join(",");
        let bootstrap = all(|node| &node.grpc);
        let document = json!({ "event": "ready", "seconds": after.as_secs_f64(), "bootstrap": bootstrap,
            "kafka": all(|node| &node.kafka) });
        self.out.show(&document, || {
            let s = if members.len() == 1 { "" } else { "s" };
            format!(
                "ready after {:.2} s: {} node{s}, --bootstrap {bootstrap} (Ctrl-C stops)",
                after.as_secs_f64(),
                members.len()
            )
        })
    }

    fn died(&mut self, node: usize, pid: u32, status: ExitStatus) -> Result<(), Failure> {
        let plan = &self.plan.nodes[node];
        let process = self.running[node].take().expect("a node dies once");
        plan.remove_pid(pid);
        if status.code() == Some(Exit::Removed as i32) {
            let id = plan.id;
            self.dir.mark_removed(id)?;
            self.members.send_modify(|members| members.retain(|member| member.id != id));
            self.say_removed(id, &format!("(pid {pid}) ended"))?;
            return self.anything_left();
        }
        // Killed by somebody, it may start next time; what it says itself, it will say again.
        if !self.ready
            && let Some(code) = status.code()
        {
            let exit = if code == Exit::Usage as i32 { Exit::Usage } else { Exit::Failure };
            let (tail, log) = (plan.log_tail(process.log_from, LOG_LINES_SHOWN), plan.log());
            let what =
                format!("node {} did not start ({status}); {} ends with:\n{tail}", plan.id, log.display());
            return Err(Failure::new(exit, what.trim_end()));
        }
        let document = json!({ "event": "died", "node": plan.id, "pid": pid, "status": status.to_string() });
        let seconds = RESTART_AFTER.as_secs();
        self.out.show(&document, || match self.restart {
            true => format!("node {} (pid {pid}) died: {status}; starting it again in {seconds} s", plan.id),
            false => format!("node {} (pid {pid}) died: {status}", plan.id),
        })?;
        if self.restart {
            self.resting += 1;
            let sender = self.sender.clone();
            tokio::spawn(async move {
                tokio::time::sleep(RESTART_AFTER).await;
                let _ = sender.send(Event::StartAgain(node));
            });
        }
        self.anything_left()
    }

    fn anything_left(&self) -> Result<(), Failure> {
        match self.resting == 0 && self.running.iter().all(Option::is_none) {
            true => Err(Failure::new(Exit::Failure, "all nodes are dead")),
            false => Ok(()),
        }
    }

    fn start_again(&mut self, node: usize) -> Result<(), Failure> {
        self.resting -= 1;
        let process = self.spawn(node)?;
        let (id, pid) = (self.plan.nodes[node].id, process.pid);
        self.running[node] = Some(process);
        let document = json!({ "event": "restarted", "node": id, "pid": pid });
        self.out.show(&document, || format!("node {id} started again (pid {pid})"))
    }

    /// Asks every node to stop, waits, then kills; a second signal kills at once.
    async fn stop(mut self, mut signals: Signals) -> Result<(), Failure> {
        let running = self.running.iter().flatten().count();
        self.out.remark(&format!("stopping {running} node{}", if running == 1 { "" } else { "s" }));
        self.order(Order::Terminate);
        let mut killed = false;
        let mut deadline = Instant::now() + STOP_WITHIN;
        while self.running.iter().any(Option::is_some) {
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    if let Some(Event::Died { node, pid, .. }) = event {
                        self.running[node] = None;
                        self.plan.nodes[node].remove_pid(pid);
                    }
                    continue;
                }
                _ = signals.next() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
            if !killed {
                self.out.remark("killing the nodes that still run");
            }
            killed = true;
            self.order(Order::Kill);
            deadline = Instant::now() + STOP_WITHIN;
        }
        if self.out.json {
            self.out.json_line(&json!({ "event": "stopped", "killed": killed }))
        } else {
            Ok(())
        }
    }

    fn order(&self, order: Order) {
        self.running.iter().flatten().for_each(|process| process.order(order));
    }
}

/// Tells once all members serve, and meanwhile why they do not. They become fewer when one has been removed.
async fn say_when_ready(
    mut members: watch::Receiver<Vec<NodePlan>>,
    sender: mpsc::UnboundedSender<Event>,
    begun: Instant,
) {
    let mut said = String::new();
    loop {
        let nodes = members.borrow_and_update().clone();
        let event = tokio::select! {
            biased;
            // Nobody is left to tell if the supervisor is gone.
            changed = members.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = ready::all_serve(&nodes) => Event::Ready(begun.elapsed()),
            () = tokio::time::sleep(NOT_READY_AFTER) => {
                let why = ready::obstacle(&nodes).await;
                if why == said {
                    continue;
                }
                said.clone_from(&why);
                Event::NotReadyYet(why)
            }
        };
        let done = matches!(event, Event::Ready(_));
        if sender.send(event).is_err() || done {
            return;
        }
    }
}

impl NodePlan {
    /// Removes the file `pid`, if it is still that process's.
    fn remove_pid(&self, pid: u32) {
        if std::fs::read_to_string(self.pid_file()).is_ok_and(|text| text.trim() == pid.to_string()) {
            // A file that stays behind names a process that is gone, as after a crash.
            let _ = std::fs::remove_file(self.pid_file());
        }
    }

    /// The last lines of the log behind a position, indented.
    fn log_tail(&self, from: u64, lines: usize) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let new = usize::try_from(from).ok().and_then(|from| text.get(from..)).unwrap_or_default();
        let text = String::from_utf8_lossy(new);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| format!("  {line}\n")).collect()
    }
}
