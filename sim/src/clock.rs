//! A host's wall clock: off by a skew, running too fast or too slow, jumping. Monotonic time is tokio's and the
//! same for all; nothing that keeps data safe may look at either.

use parking_lot::Mutex;
use std::sync::Arc;

/// Milliseconds since 1970 at which every simulation begins.
pub const EPOCH_MS: i64 = 1_700_000_000_000;

/// Clones are the same clock.
#[derive(Clone, Debug)]
pub struct WallClock(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Wall time less true time at `since_us`, in microseconds.
    offset_us: i64,
    since_us: u64,
    /// Parts per million gained.
    drift_ppm: i64,
}

impl Default for WallClock {
    fn default() -> Self {
        WallClock(Arc::new(Mutex::new(Inner { offset_us: 0, since_us: 0, drift_ppm: 0 })))
    }
}

impl Inner {
    fn offset_at(&self, now_us: u64) -> i64 {
        let passed = now_us.saturating_sub(self.since_us) as i64;
        self.offset_us + passed / 1_000_000 * self.drift_ppm + passed % 1_000_000 * self.drift_ppm / 1_000_000
    }
}

impl WallClock {
    /// What it shows when `now_us` microseconds have truly passed since the start.
    pub fn read_ms(&self, now_us: u64) -> i64 {
        let inner = self.0.lock();
        EPOCH_MS + (now_us as i64 + inner.offset_at(now_us)) / 1000
    }

    /// Sets it this much forward or back.
    pub fn jump(&self, now_us: u64, by_ms: i64) {
        let mut inner = self.0.lock();
        (inner.offset_us, inner.since_us) = (inner.offset_at(now_us) + by_ms * 1000, now_us);
    }

    /// From now on it gains this many millionths (loses, if negative).
    pub fn drift(&self, now_us: u64, ppm: i64) {
        let mut inner = self.0.lock();
        (inner.offset_us, inner.since_us) = (inner.offset_at(now_us), now_us);
        inner.drift_ppm = ppm;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_drifts_from_when_it_is_told_and_jumps_by_what_it_is_told() {
        let clock = WallClock::default();
        assert_eq!(clock.read_ms(5_000_000), EPOCH_MS + 5_000);
        clock.drift(5_000_000, 100_000);
        assert_eq!(clock.read_ms(15_000_000), EPOCH_MS + 16_000);
        clock.jump(15_000_000, -3_600_000);
        assert_eq!(clock.read_ms(15_000_000), EPOCH_MS + 16_000 - 3_600_000);
        clock.drift(15_000_000, 0);
        assert_eq!(clock.read_ms(16_000_000), EPOCH_MS + 17_000 - 3_600_000);
    }
}
