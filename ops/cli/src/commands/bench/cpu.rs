//! CPU time: this process's, and that of the nodes when they run on this machine.

use super::CpuArgs;
use crate::exit::{Exit, Failure};
use std::path::Path;

/// Seconds of CPU time (user and system) up to now.
#[derive(Clone, Debug)]
pub struct CpuTime {
    client: f64,
    /// By process; empty when no nodes are watched.
    nodes: Vec<(u32, f64)>,
}

/// CPU time between two moments.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct CpuUsed {
    pub client_seconds: f64,
    /// `None` when no nodes are watched.
    pub cluster_seconds: Option<f64>,
    pub client_seconds_per_gb: f64,
    pub cluster_seconds_per_gb: Option<f64>,
}

impl CpuTime {
    pub fn now(args: &CpuArgs) -> Result<CpuTime, Failure> {
        let pids = match &args.data_dir {
            Some(dir) => pids_in(dir)?,
            None => args.pids.clone(),
        };
        let nodes =
            pids.into_iter().map(|pid| Ok((pid, of_process(pid)?))).collect::<Result<_, Failure>>()?;
        Ok(CpuTime { client: own(), nodes })
    }

    /// What was used since, for so many bytes. A node that was replaced meanwhile counts from its start.
    pub fn used_since(&self, args: &CpuArgs, bytes: u64) -> Result<CpuUsed, Failure> {
        let (client, cluster) = self.until(&CpuTime::now(args)?);
        let gigabytes = (bytes as f64 / 1e9).max(1e-9);
        Ok(CpuUsed {
            client_seconds: client,
            cluster_seconds: cluster,
            client_seconds_per_gb: client / gigabytes,
            cluster_seconds_per_gb: cluster.map(|seconds| seconds / gigabytes),
        })
    }

    /// Seconds from this moment to a later one: this process's, and the nodes' if any are watched.
    pub fn until(&self, later: &CpuTime) -> (f64, Option<f64>) {
        let before =
            |pid: u32| self.nodes.iter().find(|(p, _)| *p == pid).map_or(0.0, |(_, seconds)| *seconds);
        let cluster: f64 = later.nodes.iter().map(|(pid, seconds)| seconds - before(*pid)).sum();
        (later.client - self.client, (!later.nodes.is_empty()).then_some(cluster))
    }

    /// Resident memory of the watched nodes together, in bytes. One that has just ended counts nothing.
    pub fn memory(&self) -> Option<u64> {
        // SAFETY: a plain query.
        let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let of = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            text.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let pages: u64 = self.nodes.iter().filter_map(|(pid, _)| of(pid)).sum();
        (!self.nodes.is_empty()).then_some(pages * page)
    }
}

fn own() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the struct; zeroes are valid in it if it does not.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn of_process(pid: u32) -> Result<f64, Failure> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::new(
            Exit::NotFound,
            format_args!("cannot read the CPU time of process {pid} ({path}): {error}"),
        )
    })?;
    // SAFETY: a plain query.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let ticks =
        ticks(&text).ok_or_else(|| Failure::new(Exit::Failure, format_args!("{path} is not as expected")))?;
    Ok(ticks as f64 / ticks_per_second)
}

/// utime and stime: fields 14 and 15, counted from 1. The second field is the program's name in brackets, which may
/// itself hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Pids of the nodes that `strandline dev` runs in a directory.
fn pids_in(dir: &Path) -> Result<Vec<u32>, Failure> {
    let unreadable =
        |error| Failure::new(Exit::NotFound, format_args!("cannot read {}: {error}", dir.display()));
    let mut pids = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path().join("pid");
        if let Some(pid) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()) {
            pids.push(pid);
        }
    }
    if pids.is_empty() {
        let message = format!("no node runs in {}: there is no node-ID/pid", dir.display());
        return Err(
            Failure::new(Exit::NotFound, message).hint("give the --data-dir of a running `strandline dev`")
        );
    }
    pids.sort_unstable();
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_program_name() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 3 0 1 2 3";
        assert_eq!(ticks(stat), Some(400));
        assert_eq!(ticks("42 (x"), None);
    }

    #[test]
    fn the_time_of_this_process_is_the_same_seen_from_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("node-1")).unwrap();
        std::fs::write(dir.path().join("node-1/pid"), format!("{}\n", std::process::id())).unwrap();
        let args = CpuArgs { pids: vec![], data_dir: Some(dir.path().into()) };
        let before = CpuTime::now(&args).unwrap();
        let mut sum = 0_u64;
        while own() - before.client < 0.1 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let used = before.used_since(&args, 1_000_000_000).unwrap();
        assert!((used.client_seconds - used.cluster_seconds.unwrap()).abs() < 0.05, "{used:?}");
        assert!((used.client_seconds - used.client_seconds_per_gb).abs() < 1e-9);
        assert!(before.memory().is_some_and(|bytes| bytes > 1 << 20), "this process is resident");
    }

    #[test]
    fn a_directory_without_nodes_is_said_to_have_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(pids_in(dir.path()).unwrap_err().exit, Exit::NotFound);
    }
}
