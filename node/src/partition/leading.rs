//! What a replica keeps while it leads: the deciding [`Leader`], the produces that wait for it, and the
//! followers' outstanding requests.

use super::{Acks, Completion, Produced, ServeError};
use crate::replica::ReplicaSession;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use strandline_core::partition::Leader;
use strandline_record::{BrokerId, Offset};

pub struct Leading {
    pub core: Leader,
    /// Ordered by end; a repeated batch waits for its first copy's end.
    pub waiting_all: VecDeque<Waiting>,
    pub waiting_leader: VecDeque<Waiting>,
    pub feeds: BTreeMap<BrokerId, Feed>,
}

/// An appended batch that is not acknowledged yet.
pub struct Waiting {
    /// Last offset + 1.
    pub end: Offset,
    pub produced: Produced,
    pub deadline_ms: u64,
    pub completion: Completion,
}

/// One follower's place on its stream.
pub struct Feed {
    pub session: Arc<ReplicaSession>,
    pub outstanding: Option<Outstanding>,
    pub sent_high_watermark: Offset,
    pub sent_log_start: Offset,
}

/// A follower's request that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    pub number: u64,
    pub from: Offset,
}

impl Leading {
    pub fn new(core: Leader) -> Self {
        Leading {
            core,
            waiting_all: VecDeque::new(),
            waiting_leader: VecDeque::new(),
            feeds: BTreeMap::new(),
        }
    }

    pub fn wait(&mut self, acks: Acks, waiting: Waiting) {
        let queue = match acks {
            Acks::All => &mut self.waiting_all,
            Acks::Leader | Acks::None => &mut self.waiting_leader,
        };
        // Nearly always at the back: only a repeated batch ends earlier.
        let place = queue.partition_point(|other| other.end <= waiting.end);
        queue.insert(place, waiting);
    }

    /// Those whose condition holds now.
    pub fn take_acknowledged(&mut self, done: &mut Vec<(Completion, Result<Produced, ServeError>)>) {
        take_front(&mut self.waiting_all, |end| self.core.is_acknowledged(Acks::All.into(), end), done);
        take_front(&mut self.waiting_leader, |end| self.core.is_acknowledged(Acks::Leader.into(), end), done);
    }

    /// Those whose time is up: appended, perhaps replicated, not known to be durable.
    pub fn take_expired(&mut self, now_ms: u64, done: &mut Vec<(Completion, Result<Produced, ServeError>)>) {
        for queue in [&mut self.waiting_all, &mut self.waiting_leader] {
            if queue.iter().any(|waiting| waiting.deadline_ms <= now_ms) {
                let (expired, kept) =
                    std::mem::take(queue).into_iter().partition(|w| w.deadline_ms <= now_ms);
                *queue = kept;
                let expired: VecDeque<Waiting> = expired;
                done.extend(expired.into_iter().map(|w| (w.completion, Err(ServeError::TimedOut))));
            }
        }
    }

    /// Everything that still waits ends as unknown.
    pub fn abandon(self, done: &mut Vec<(Completion, Result<Produced, ServeError>)>) {
        let waiting = self.waiting_all.into_iter().chain(self.waiting_leader);
        done.extend(waiting.map(|waiting| (waiting.completion, Err(ServeError::Deposed))));
    }
}

fn take_front(
    queue: &mut VecDeque<Waiting>,
    acknowledged: impl Fn(Offset) -> bool,
    done: &mut Vec<(Completion, Result<Produced, ServeError>)>,
) {
    let count = queue.iter().take_while(|waiting| acknowledged(waiting.end)).count();
    done.extend(queue.drain(..count).map(|waiting| (waiting.completion, Ok(waiting.produced))));
}

impl From<Acks> for strandline_core::partition::Acks {
    fn from(acks: Acks) -> Self {
        match acks {
            Acks::All => strandline_core::partition::Acks::All,
            Acks::Leader => strandline_core::partition::Acks::Leader,
            Acks::None => strandline_core::partition::Acks::None,
        }
    }
}
