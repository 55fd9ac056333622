//! Where the applied state is kept between starts, so that a start need not replay the log. It is a cache in
//! all but name: whatever it cannot give back is rebuilt from the last snapshot and the log.
//!
//! Contract of a [`StateStore`]: `load` gives back exactly what some earlier `write` left (not necessarily the
//! last), or nothing; it never mixes two states.

mod sled_store;

pub use sled_store::SledStore;

use crate::types::{LogId, StoredMembership};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use strandline_metadata::{Delta, Image};

/// How far the state was applied, and the membership at that point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StoredState {
    pub applied: Applied,
    pub image: Arc<Image>,
}

/// All calls block, and come from one thread at a time.
pub trait StateStore: Send + 'static {
    /// What is stored. What does not read back is wiped and answered as nothing.
    fn load(&mut self) -> io::Result<Option<StoredState>>;
    /// Replaces what is stored by `state`, all or nothing; `delta` says what differs from the last one written.
    fn write(&mut self, state: &StoredState, delta: &Delta) -> io::Result<()>;
    /// Makes what was written durable.
    fn flush(&mut self) -> io::Result<()>;
    /// Forgets everything.
    fn wipe(&mut self) -> io::Result<()>;
}

/// Keeps the state in memory: gone at every crash. For the simulation, which must not have real files.
#[derive(Debug, Default)]
pub struct MemoryStateStore(Option<StoredState>);

impl StateStore for MemoryStateStore {
    fn load(&mut self) -> io::Result<Option<StoredState>> {
        Ok(self.0.clone())
    }

    fn write(&mut self, state: &StoredState, _delta: &Delta) -> io::Result<()> {
        self.0 = Some(state.clone());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wipe(&mut self) -> io::Result<()> {
        self.0 = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
