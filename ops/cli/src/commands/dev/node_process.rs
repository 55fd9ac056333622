//! One running node: started, watched until it dies, and told to stop.

use super::plan::{NodePlan, Plan};
use crate::exit::{Exit, Failure};
use std::fs::OpenOptions;
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// What a node can be told.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// SIGTERM: stop cleanly.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// A node that runs, or whose death has not been reported yet.
pub struct NodeProcess {
    pub pid: u32,
    /// Where its lines begin in the log, which earlier runs have written to as well.
    pub log_from: u64,
    orders: mpsc::UnboundedSender<Order>,
}

impl NodeProcess {
    /// Starts the node with its output in its log, writes its pid, and calls `died` once when it ends.
    pub fn spawn(
        node: &NodePlan,
        plan: &Plan,
        died: impl FnOnce(u32, ExitStatus) + Send + 'static,
    ) -> Result<NodeProcess, Failure> {
        let fail = |what: &str, error: std::io::Error| {
            Failure::new(Exit::Failure, format_args!("cannot start node {}: {what}: {error}", node.id))
        };
        std::fs::create_dir_all(&node.dir).map_err(|e| fail(&node.dir.display().to_string(), e))?;
        let log = OpenOptions::new().create(true).append(true).open(node.log());
        let log = log.map_err(|e| fail(&node.log().display().to_string(), e))?;
        let log_from = log.metadata().map_err(|e| fail("its log", e))?.len();
        let second = log.try_clone().map_err(|e| fail("its log", e))?;
        let mut command = Command::new(this_program().map_err(|e| fail("finding this program", e))?);
        command.arg0("strandline").args(plan.arguments(node)).stdin(Stdio::null()).stdout(log).stderr(second);
        // A Ctrl-C on the terminal is for the supervisor alone, which then stops the nodes.
        command.process_group(0);
        die_with_supervisor(&mut command);
        let child = command.spawn().map_err(|e| fail("starting the process", e))?;
        let pid = child.id().expect("it has not been waited for");
        write_pid(node, pid).map_err(|e| fail("writing its pid", e))?;
        let (orders, inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move { died(pid, look_after(child, inbox).await) });
        Ok(NodeProcess { pid, log_from, orders })
    }

    /// Passes the order on, unless the node is dead already.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// Waits for the end and passes orders on. Signals go only to a child that has not been waited for, so that they
/// can never reach another process that got its pid.
async fn look_after(mut child: Child, mut orders: mpsc::UnboundedReceiver<Order>) -> ExitStatus {
    loop {
        let order = tokio::select! {
            biased;
            status = child.wait() => return status.expect("waiting for our own child"),
            Some(order) = orders.recv() => order,
        };
        let signal = match order {
            Order::Terminate => libc::SIGTERM,
            Order::Kill => libc::SIGKILL,
        };
        if let Some(pid) = child.id().and_then(|pid| libc::pid_t::try_from(pid).ok()) {
            // SAFETY: a plain system call; the pid is our child's, which has not been reaped.
            unsafe { libc::kill(pid, signal) };
        }
    }
}

/// In one step, so that whoever reads the file never sees half a number.
fn write_pid(node: &NodePlan, pid: u32) -> std::io::Result<()> {
    let temporary = node.dir.join("pid.tmp");
    std::fs::write(&temporary, format!("{pid}\n"))?;
    std::fs::rename(temporary, node.pid_file())
}

/// A supervisor that is killed cannot stop its nodes: the kernel does, where it can.
fn die_with_supervisor(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let supervisor = std::process::id();
        // SAFETY: only calls that are safe between fork and exec (prctl, getppid, and making an error without
        // allocating).
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // It may have died before the kernel was asked to watch it.
                if u32::try_from(libc::getppid()) != Ok(supervisor) {
                    return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// The running program itself, even if a new build has replaced its file meanwhile: all nodes of a cluster
/// run the same one.
fn this_program() -> std::io::Result<std::path::PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok("/proc/self/exe".into()),
        false => std::env::current_exe(),
    }
}
