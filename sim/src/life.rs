//! One life of a process, from its start to its crash. Whatever belongs to a life that is over does nothing any more:
//! between the moment of a death inside a step and the end of that step no byte may leave the host.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Clones are the same life.
#[derive(Clone, Debug, Default)]
pub struct Life(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    dead: AtomicBool,
    cause: Mutex<Option<String>>,
}

impl Life {
    /// Ends it; the first cause counts.
    pub fn end(&self, cause: impl Into<String>) {
        self.0.cause.lock().get_or_insert_with(|| cause.into());
        self.0.dead.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Why the process ended itself; `None` while it lives.
    pub fn cause(&self) -> Option<String> {
        self.0.cause.lock().clone()
    }
}
