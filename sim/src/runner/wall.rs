//! The runner's own clocks: how long a run truly takes. Nothing in a run sees them.

use std::time::Duration;
use strandline_sim::interpose::machine_time;

/// Since a moment of the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    begun: Duration,
}

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch { begun: machine_time() }
    }

    pub fn elapsed(self) -> Duration {
        machine_time() - self.begun
    }
}

/// Time that this process's first thread, in which a run takes place, had a core. `None` where the system does not
/// tell (anything but Linux).
pub fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    Some(Duration::from_nanos(stat.split_whitespace().next()?.parse().ok()?))
}

pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
