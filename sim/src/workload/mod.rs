//! What the clients of a run do. All of it is the ordinary SDK, and all that it is told goes into the history.

pub mod admin;
pub mod group;
pub mod offsets;
pub mod produce;
pub mod read;

use crate::history::{Outcome, Tp};
use parking_lot::Mutex;
use std::sync::Arc;
use strandline_client::{Error, TopicPartition};

/// What an error of the SDK says about an attempt.
pub fn outcome_of<T>(error: &Error) -> Outcome<T> {
    match error.may_have_happened() {
        true => Outcome::Unknown(error.to_string()),
        false => Outcome::Failed(error.to_string()),
    }
}

pub fn tp_of(tp: &TopicPartition) -> Tp {
    Tp { topic: tp.topic.clone(), partition: tp.partition }
}

/// Tells every client of a run when to stop. Clones are the same bell.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Mutex<Rings>>);

#[derive(Debug, Default)]
struct Rings {
    stopped: bool,
    busy: u64,
}

impl Bell {
    /// No new work from here on.
    pub fn ring(&self) {
        self.0.lock().stopped = true;
    }

    pub fn has_rung(&self) -> bool {
        self.0.lock().stopped
    }

    /// One thing has begun that must end before the run is over.
    pub fn begin(&self) {
        self.0.lock().busy += 1;
    }

    pub fn end(&self) {
        self.0.lock().busy -= 1;
    }

    /// Things begun and not ended. Those of a client that crashed never end.
    pub fn busy(&self) -> u64 {
        self.0.lock().busy
    }
}
