//! Long polls: a consumer's fetch registers one waiter with all the partitions it names and is woken by the
//! first that changes.

use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// One waiting fetch.
#[derive(Debug)]
pub struct FetchWaiter(Notify);

impl FetchWaiter {
    pub fn new() -> Arc<Self> {
        Arc::new(FetchWaiter(Notify::new()))
    }

    /// Completes once a partition has changed since the last call (or since registration).
    pub async fn woken(&self) {
        self.0.notified().await;
    }

    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Waiters of one partition. A waiter that gave up is dropped by its fetch and swept here.
#[derive(Debug, Default)]
pub struct Waiters {
    list: Vec<Weak<FetchWaiter>>,
    sweep_at: usize,
}

const SWEEP_FROM: usize = 16;

impl Waiters {
    pub fn add(&mut self, waiter: &Arc<FetchWaiter>) {
        if self.list.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(waiter))) {
            return;
        }
        if self.list.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.list.retain(|known| known.strong_count() > 0);
            self.sweep_at = self.list.len() * 2;
        }
        self.list.push(Arc::downgrade(waiter));
    }

    /// Everybody who waits, once; they register again if they wait again.
    pub fn take(&mut self) -> Vec<Weak<FetchWaiter>> {
        std::mem::take(&mut self.list)
    }
}
