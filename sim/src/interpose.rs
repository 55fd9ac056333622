//! What every library in this process takes for the time, while a simulated world exists on its thread.
//!
//! The broker's own code reads clocks through its `Env`; libraries do not. HTTP/2 forgets a stream that it reset one
//! second later by `std::time::Instant`, and answers a late frame differently from then on: a run on a busy machine,
//! in which a simulated second took longer, sent one frame more, and everything that followed was another run. So
//! `clock_gettime`, through which the standard library reads all clocks, is defined here: linked into the binary
//! before the C library, it wins, and answers with simulated time on a thread that has a world, and with the
//! kernel's on any other.
//!
//! Linux only; elsewhere libraries see the machine's clocks, and runs are as good but not always the same.
//!
//! Source of the idea: madsim, which does the same for a whole runtime.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// Nanoseconds since the world on this thread began; `None` without a world.
    static NOW: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Simulated monotonic clocks begin here, so that libraries may look back from their first moment.
#[cfg(target_os = "linux")]
const MONOTONIC_NS: u64 = 1_000_000_000_000;

/// While it lives, libraries on this thread see simulated time.
#[derive(Debug)]
pub struct SimulatedTime(());

impl SimulatedTime {
    pub fn begin() -> SimulatedTime {
        NOW.set(Some(0));
        SimulatedTime(())
    }

    /// Time never goes back.
    pub fn set(&self, since_start: Duration) {
        let now = u64::try_from(since_start.as_nanos()).expect("a run is shorter than centuries");
        debug_assert!(NOW.get().is_none_or(|before| before <= now));
        NOW.set(Some(now));
    }
}

impl Drop for SimulatedTime {
    fn drop(&mut self) {
        // A thread that ends may have taken its variable down before a world that it owned.
        let _ = NOW.try_with(|now| now.set(None));
    }
}

/// The machine's monotonic clock, whatever world there is: for measuring how fast a simulation is.
#[cfg(target_os = "linux")]
pub fn machine_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec.
    unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::disallowed_methods, reason = "no simulation sees it")]
pub fn machine_time() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// The C library's function of this name, for everything in this process.
///
/// # Safety
/// As POSIX has it: `time` points to a timespec that may be written.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let simulated = NOW.try_with(Cell::get).ok().flatten().and_then(|now| match clock {
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_BOOTTIME => Some(MONOTONIC_NS + now),
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            Some(crate::clock::EPOCH_MS as u64 * 1_000_000 + now)
        }
        // How long a thread or process ran is no matter of the world.
        _ => None,
    });
    match simulated {
        Some(ns) => {
            let shown = libc::timespec {
                tv_sec: (ns / 1_000_000_000) as libc::time_t,
                tv_nsec: (ns % 1_000_000_000) as libc::c_long,
            };
            // SAFETY: the caller's promise.
            unsafe { time.write(shown) };
            0
        }
        // SAFETY: the caller's promise; the kernel checks the rest.
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[allow(clippy::disallowed_methods, reason = "what libraries see is the point")]
mod tests {
    use super::*;
    use std::time::{Instant, SystemTime};

    #[test]
    fn libraries_see_simulated_time_only_where_there_is_a_world() {
        let time = SimulatedTime::begin();
        let (instant, system) = (Instant::now(), SystemTime::now());
        assert_eq!(
            system.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis(),
            crate::clock::EPOCH_MS as u128
        );
        std::thread::spawn(|| {
            let off = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
            assert_ne!(off, crate::clock::EPOCH_MS as u128, "another thread has the machine's time");
        })
        .join()
        .unwrap();
        assert_eq!(instant.elapsed(), Duration::ZERO, "it stands still until it is set");
        time.set(Duration::from_millis(1500));
        assert_eq!(instant.elapsed(), Duration::from_millis(1500));
        let before = machine_time();
        while machine_time() == before {}
        drop(time);
        assert_ne!(Instant::now(), instant, "the machine's time again");
    }
}
