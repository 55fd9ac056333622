//! What is sent, and when each record is due.

use bytes::Bytes;
use rand::RngExt;
use std::time::Duration;
use tokio::time::Instant;

/// Random bytes to cut values from: compression finds nothing, and nothing is made for a record.
pub struct Payload {
    pool: Bytes,
    size: usize,
    at: usize,
}

impl Payload {
    const POOL_BYTES: usize = 4 << 20;

    pub fn new(size: usize) -> Payload {
        let mut pool = vec![0; Self::POOL_BYTES + size];
        rand::rng().fill(&mut pool[..]);
        Payload { pool: pool.into(), size, at: 0 }
    }

    /// The next value. Values repeat only after megabytes.
    pub fn next(&mut self) -> Bytes {
        self.at = (self.at + 61) % Self::POOL_BYTES;
        self.pool.slice(self.at..self.at + self.size)
    }
}

/// When records are due.
pub struct Schedule {
    begun: Instant,
    /// `None`: at once.
    interval: Option<Duration>,
    sent: u64,
}

impl Schedule {
    pub fn new(begun: Instant, per_second: Option<f64>) -> Schedule {
        Schedule { begun, interval: per_second.map(|rate| Duration::from_secs_f64(1.0 / rate)), sent: 0 }
    }

    /// Waits until the next record is due and says when that was; late records are due in the past.
    pub async fn next(&mut self) -> Instant {
        let Some(interval) = self.interval else { return Instant::now() };
        let due = self.begun + Duration::from_secs_f64(interval.as_secs_f64() * self.sent as f64);
        self.sent += 1;
        // The timer ticks every millisecond: what is due within it goes out together, as from a busy application.
        if due > Instant::now() + Duration::from_millis(1) {
            tokio::time::sleep_until(due).await;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_size_asked_for_and_differ() {
        let mut payload = Payload::new(100);
        let values: std::collections::BTreeSet<Bytes> = (0..1000).map(|_| payload.next()).collect();
        assert_eq!(values.len(), 1000);
        assert!(values.iter().all(|value| value.len() == 100));
        assert_eq!(Payload::new(0).next().len(), 0);
    }

    #[tokio::test]
    async fn records_are_due_at_the_rate_and_a_late_one_is_due_in_the_past() {
        // Everything up to now is due already, so nothing waits.
        let begun = Instant::now() - Duration::from_secs(1);
        let mut schedule = Schedule::new(begun, Some(100.0));
        for n in 0..50 {
            assert_eq!(schedule.next().await, begun + Duration::from_millis(10 * n));
        }
        let ahead = Instant::now() + Duration::from_millis(5);
        assert_eq!(Schedule::new(ahead, Some(100.0)).next().await, ahead);
        assert!(Instant::now() >= ahead - Duration::from_millis(1), "it did not wait");
    }
}
