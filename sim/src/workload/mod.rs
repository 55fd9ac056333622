//! What the clients of a run do. All of it is the ordinary SDK, and all that it is told goes into the history.

pub mod admin;
pub mod group;
pub mod offsets;
pub mod produce;
pub mod read;

use crate::history::{Outcome, Tp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
pub struct Bell(Arc<AtomicBool>);

impl Bell {
    /// No new work from here on.
    pub fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn has_rung(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
