//! This process as the kernel sees it (`/proc/self`), under the names that Prometheus's own libraries use, and what was
//! built. Where there is no such file system, the series are missing.

use std::fs;
use strandline_metrics::{Metric, Page, Source};

const CPU: Metric = Metric::counter("process_cpu_seconds_total", &[], "User and system time");
const RESIDENT: Metric = Metric::gauge("process_resident_memory_bytes", &[], "Resident memory");
const VIRTUAL: Metric = Metric::gauge("process_virtual_memory_bytes", &[], "Address space");
const THREADS: Metric = Metric::gauge("process_threads", &[], "Threads");
const OPEN: Metric = Metric::gauge("process_open_fds", &[], "Open file descriptors");
const MAX_OPEN: Metric = Metric::gauge("process_max_fds", &[], "File descriptors that may be open");
const STARTED: Metric = Metric::gauge("process_start_time_seconds", &[], "When it started, since 1970");
const BUILD: Metric = Metric::gauge("strandline_build_info", &["version"], "1, for what was built");

/// All of them.
pub const METRICS: &[&Metric] = &[&BUILD, &CPU, &RESIDENT, &VIRTUAL, &THREADS, &OPEN, &MAX_OPEN, &STARTED];

/// The process that this runs in.
#[derive(Debug)]
pub struct ProcessMetrics;

impl Source for ProcessMetrics {
    fn gather(&self, page: &mut Page) {
        page.add(&BUILD, &[&env!("CARGO_PKG_VERSION")], 1_u64);
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            page.add(&CPU, &[], stat.cpu_ticks as f64 / ticks_per_second());
            page.add(&THREADS, &[], stat.threads);
            page.add(&VIRTUAL, &[], stat.virtual_bytes);
            page.add(&RESIDENT, &[], stat.resident_pages * page_bytes());
            if let Some(booted) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
                page.add(&STARTED, &[], booted as f64 + stat.started_ticks as f64 / ticks_per_second());
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The one that reads them is among them.
            page.add(&OPEN, &[], open.count().saturating_sub(1));
        }
        if let Some(max) = max_descriptors() {
            page.add(&MAX_OPEN, &[], max);
        }
    }
}

/// Fields of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    started_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // The second field is the name, in parentheses, with whatever is in it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The first of these is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Seconds since 1970, from `/proc/stat`.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn ticks_per_second() -> f64 {
    // SAFETY: a plain question without pointers.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64
}

fn page_bytes() -> u64 {
    // SAFETY: a plain question without pointers.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(0) as u64
}

fn max_descriptors() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call only writes the struct it is given.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (asked == 0).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_spaces_and_parentheses() {
        let text =
            "17 (a) (b 3) S 1 2 3 4 5 6 7 8 9 10 100 20 11 12 20 0 5 0 4711 8192 3 18446744073709551615 1";
        let expected =
            Stat { cpu_ticks: 120, threads: 5, started_ticks: 4711, virtual_bytes: 8192, resident_pages: 3 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("17 (cut) S 1 2"), None);
    }

    #[test]
    fn the_boot_time_has_a_line_of_its_own() {
        assert_eq!(boot_time("cpu 1 2\nbtime 1763780000\nprocesses 3\n"), Some(1_763_780_000));
    }
}
