//! CPU time and memory of processes, from `/proc`.

use std::path::Path;

/// User and system seconds that a process has used, its reaped children not included. `None`: no such process.
#[allow(clippy::disallowed_methods, reason = "reads /proc")]
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    // The command name may hold spaces; fields are counted after its closing parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Some(ticks as f64 / per_second)
}

/// User and system seconds of this process (`RUSAGE_SELF`) or of its reaped children (`RUSAGE_CHILDREN`).
pub fn rusage_seconds(who: libc::c_int) -> f64 {
    // SAFETY: `usage` is a plain structure that getrusage fills.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(who, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Resident set of a process in bytes: now, and the most it ever was.
#[allow(clippy::disallowed_methods, reason = "reads /proc")]
pub fn resident_bytes(pid: u32) -> Option<(u64, u64)> {
    let status = String::from_utf8(std::fs::read(format!("/proc/{pid}/status")).ok()?).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// Process ids that `strandline dev` wrote below its data directory, by node.
#[allow(clippy::disallowed_methods, reason = "reads the pid files of `strandline dev`")]
pub fn dev_pids(data_dir: &Path) -> Vec<(u64, u32)> {
    (1..=64)
        .filter_map(|node| {
            let pid = std::fs::read(data_dir.join(format!("node-{node}/pid"))).ok()?;
            Some((node, String::from_utf8(pid).ok()?.trim().parse().ok()?))
        })
        .collect()
}
