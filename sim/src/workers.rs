//! Blocking work on simulated time: each worker is a task that takes as long as its disk is slow, so that requests
//! gather meanwhile as they would behind a thread.

use crate::life::Life;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_storage::worker::{Waker, Worker, WorkerHost};
use tokio::sync::Notify;

/// How long a round of disk work takes; the world changes it (slow disk). Clones are the same disk's.
#[derive(Clone, Debug)]
pub struct DiskPace(Arc<Mutex<(Duration, Duration)>>);

/// A healthy disk: an fdatasync takes about a millisecond, which is also the finest step of simulated time.
const HEALTHY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(3));

impl Default for DiskPace {
    fn default() -> Self {
        DiskPace(Arc::new(Mutex::new(HEALTHY)))
    }
}

impl DiskPace {
    /// Every round takes between these from now on.
    pub fn set(&self, shortest: Duration, longest: Duration) {
        *self.0.lock() = (shortest, longest.max(shortest));
    }

    pub fn heal(&self) {
        *self.0.lock() = HEALTHY;
    }

    fn draw(&self, rng: &mut StdRng) -> Duration {
        let (shortest, longest) = *self.0.lock();
        rng.random_range(shortest..=longest)
    }
}

/// What is told when a worker fails: its name and the error.
pub type OnFatal = Arc<dyn Fn(&str, &std::io::Error) + Send + Sync>;

pub struct SimWorkers {
    life: Life,
    pace: DiskPace,
    seeds: Mutex<StdRng>,
    on_fatal: OnFatal,
}

impl std::fmt::Debug for SimWorkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimWorkers")
    }
}

impl SimWorkers {
    pub fn new(seed: u64, life: Life, pace: DiskPace, on_fatal: OnFatal) -> SimWorkers {
        SimWorkers { life, pace, seeds: Mutex::new(StdRng::seed_from_u64(seed)), on_fatal }
    }
}

impl WorkerHost for SimWorkers {
    fn spawn(&self, mut worker: Box<dyn Worker>) -> Waker {
        let woken = Arc::new((AtomicBool::new(true), Notify::new()));
        let (mine, life, pace, on_fatal) =
            (woken.clone(), self.life.clone(), self.pace.clone(), self.on_fatal.clone());
        let mut rng = StdRng::seed_from_u64(self.seeds.lock().random());
        tokio::spawn(async move {
            while !life.is_over() {
                if !mine.0.swap(false, Ordering::AcqRel) {
                    match worker.period() {
                        Some(period) => {
                            let _ = tokio::time::timeout(period, mine.1.notified()).await;
                        }
                        None => {
                            mine.1.notified().await;
                            continue;
                        }
                    }
                }
                tokio::time::sleep(pace.draw(&mut rng)).await;
                if life.is_over() {
                    return;
                }
                mine.0.store(false, Ordering::Release);
                if let Err(error) = worker.run() {
                    on_fatal(worker.name(), &error);
                    return;
                }
            }
        });
        Waker::new(move || {
            if !woken.0.swap(true, Ordering::AcqRel) {
                woken.1.notify_one();
            }
        })
    }
}
