//! Fetch sessions (KIP-227): what a consumer asks for and what it was last told, kept so that both sides say only
//! what changed. Pure: ids and times are handed in.
//!
//! ```text
//!   id, epoch     the client means                               the answer
//!   0, 0          everything anew; give me a session             all partitions, a session id if there is room
//!   any, -1       everything, and no session                     all partitions
//!   n, e > 0      as before, with these changes and without      those with news
//!                 the forgotten ones
//! ```
//!
//! Invariants: a session's epoch is the one that its next request must name; sessions and the partitions in them
//! are bounded, and one that is in use is not given up for another.

use super::api::Code;
use kafka_protocol::error::ResponseError::{
    FetchSessionIdNotFound, FetchSessionTopicIdError, InvalidFetchSessionEpoch,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// `session_epoch` of a request that ends its session.
pub const FINAL_EPOCH: i32 = -1;
/// `session_epoch` of a request that begins one.
pub const INITIAL_EPOCH: i32 = 0;
/// `session_id` of requests and answers without one.
pub const NO_SESSION: i32 = 0;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Kafka's `max.incremental.fetch.session.cache.slots`.
    pub sessions: usize,
    /// Partitions in all sessions together.
    pub partitions: usize,
    /// A session that was not used for this long may make room for another one.
    pub idle_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { sessions: 1_000, partitions: 1_000_000, idle_ms: 120_000 }
    }
}

/// A topic as the client names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    Name(Arc<str>),
    Id(Uuid),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub topic: TopicKey,
    pub partition: i32,
}

/// What a client wants of a partition, as it said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub offset: i64,
    pub leader_epoch: i32,
    pub last_fetched_epoch: i32,
    pub max_bytes: i32,
}

/// What a client was last told of a partition besides records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub high_watermark: i64,
    pub log_start: i64,
}

/// A fetch as it is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// [`NO_SESSION`] if there is none.
    pub session: i32,
    /// Only partitions with news are answered.
    pub incremental: bool,
    /// In the order in which they are read; whoever got records last time comes last.
    pub partitions: Vec<(Key, Wanted, Option<Told>)>,
}

/// What happened to one partition of a session's answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub key: Key,
    /// `None` after an error: the next answer names the partition again.
    pub told: Option<Told>,
    pub had_records: bool,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    told: Option<Told>,
    turn: u64,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    entries: BTreeMap<Key, Entry>,
    next_turn: u64,
    used_ms: u64,
}

impl Session {
    fn want(&mut self, key: Key, wanted: Wanted) {
        let turn = self.next_turn;
        self.next_turn += 1;
        match self.entries.get_mut(&key) {
            Some(entry) => entry.wanted = wanted,
            None => {
                self.entries.insert(key, Entry { wanted, told: None, turn });
            }
        }
    }

    fn in_order(&self) -> Vec<(Key, Wanted, Option<Told>)> {
        let mut ordered: Vec<_> = self.entries.iter().collect();
        ordered.sort_unstable_by_key(|(_, entry)| entry.turn);
        ordered.into_iter().map(|(key, entry)| (key.clone(), entry.wanted, entry.told)).collect()
    }
}

/// The sessions of this node.
#[derive(Debug)]
pub struct Sessions {
    limits: Limits,
    sessions: BTreeMap<i32, Session>,
    partitions: usize,
}

/// What a request says of its session.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub session: i32,
    pub epoch: i32,
    /// Topics are named by id.
    pub by_id: bool,
    /// For a new session; positive, and drawn at random so that nobody meets another's.
    pub fresh_id: i32,
    pub now_ms: u64,
}

impl Sessions {
    pub fn new(limits: Limits) -> Self {
        Sessions { limits, sessions: BTreeMap::new(), partitions: 0 }
    }

    /// What is to be read for a request.
    pub fn begin(&mut self, ask: Ask, wanted: Vec<(Key, Wanted)>, forgotten: &[Key]) -> Result<Begun, Code> {
        if matches!(ask.epoch, FINAL_EPOCH | INITIAL_EPOCH) {
            if ask.session != NO_SESSION {
                self.remove(ask.session);
            }
            return Ok(self.begin_full(ask, wanted));
        }
        let Some(session) = self.sessions.get_mut(&ask.session) else {
            return Err(FetchSessionIdNotFound.code());
        };
        if session.by_id != ask.by_id {
            return Err(FetchSessionTopicIdError.code());
        }
        if session.epoch != ask.epoch {
            return Err(InvalidFetchSessionEpoch.code());
        }
        let before = session.entries.len();
        for (key, wanted) in wanted {
            session.want(key, wanted);
        }
        for key in forgotten {
            session.entries.remove(key);
        }
        session.used_ms = ask.now_ms;
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        let partitions = session.in_order();
        self.partitions = self.partitions + session.entries.len() - before;
        if partitions.is_empty() || self.partitions > self.limits.partitions {
            self.remove(ask.session);
            return Ok(Begun { session: NO_SESSION, incremental: false, partitions });
        }
        Ok(Begun { session: ask.session, incremental: true, partitions })
    }

    fn begin_full(&mut self, ask: Ask, wanted: Vec<(Key, Wanted)>) -> Begun {
        let distinct = wanted.iter().map(|(key, _)| key).collect::<BTreeSet<_>>().len();
        let keeps = ask.epoch == INITIAL_EPOCH
            && distinct > 0
            && distinct == wanted.len()
            && !self.sessions.contains_key(&ask.fresh_id)
            && self.has_room(distinct, ask.now_ms);
        let partitions = wanted.iter().map(|(key, wanted)| (key.clone(), *wanted, None)).collect();
        if !keeps {
            return Begun { session: NO_SESSION, incremental: false, partitions };
        }
        let mut session = Session {
            epoch: 1,
            by_id: ask.by_id,
            entries: BTreeMap::new(),
            next_turn: 0,
            used_ms: ask.now_ms,
        };
        for (key, wanted) in wanted {
            session.want(key, wanted);
        }
        self.partitions += session.entries.len();
        self.sessions.insert(ask.fresh_id, session);
        Begun { session: ask.fresh_id, incremental: false, partitions }
    }

    /// Makes room, if need be, by giving up the session that was not used for longest.
    fn has_room(&mut self, partitions: usize, now_ms: u64) -> bool {
        while self.sessions.len() >= self.limits.sessions
            || self.partitions + partitions > self.limits.partitions
        {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used_ms);
            match oldest {
                Some((id, session)) if now_ms.saturating_sub(session.used_ms) >= self.limits.idle_ms => {
                    let id = *id;
                    self.remove(id);
                }
                _ => return false,
            }
        }
        true
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.entries.len();
        }
    }

    /// What the client is told now.
    pub fn finish(&mut self, id: i32, outcomes: &[Outcome]) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for outcome in outcomes {
            let turn = session.next_turn;
            if let Some(entry) = session.entries.get_mut(&outcome.key) {
                entry.told = outcome.told;
                if outcome.had_records {
                    entry.turn = turn;
                    session.next_turn += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> Key {
        Key { topic: TopicKey::Name("t".into()), partition }
    }

    fn at(offset: i64) -> Wanted {
        Wanted { offset, leader_epoch: 1, last_fetched_epoch: -1, max_bytes: 100 }
    }

    fn ask(session: i32, epoch: i32, now_ms: u64) -> Ask {
        Ask { session, epoch, by_id: false, fresh_id: 100 + now_ms as i32, now_ms }
    }

    fn numbers(begun: &Begun) -> Vec<i32> {
        begun.partitions.iter().map(|(key, ..)| key.partition).collect()
    }

    #[test]
    fn a_session_remembers_what_is_not_said_again_and_forgets_what_is_forgotten() {
        let mut sessions = Sessions::new(Limits::default());
        let full = sessions.begin(ask(0, 0, 1), vec![(key(0), at(0)), (key(1), at(0))], &[]).unwrap();
        assert_eq!((full.session, full.incremental, numbers(&full)), (101, false, vec![0, 1]));
        let told = Told { high_watermark: 5, log_start: 0 };
        sessions.finish(101, &[Outcome { key: key(0), told: Some(told), had_records: true }]);

        let next = sessions.begin(ask(101, 1, 2), vec![(key(0), at(5)), (key(2), at(0))], &[key(1)]).unwrap();
        assert!(next.incremental);
        // The one that got records comes after the others.
        assert_eq!(
            next.partitions,
            vec![(key(0), at(5), Some(told)), (key(2), at(0), None)],
            "a new partition comes last"
        );
        let next = sessions.begin(ask(101, 2, 3), vec![], &[]).unwrap();
        assert_eq!(numbers(&next), vec![0, 2]);
        assert_eq!(sessions.partitions, 2);
    }

    #[test]
    fn whoever_got_records_is_read_last_next_time() {
        let mut sessions = Sessions::new(Limits::default());
        let wanted = (0..3).map(|n| (key(n), at(0))).collect();
        sessions.begin(ask(0, 0, 1), wanted, &[]).unwrap();
        sessions.finish(101, &[Outcome { key: key(0), told: None, had_records: true }]);
        assert_eq!(numbers(&sessions.begin(ask(101, 1, 2), vec![], &[]).unwrap()), vec![1, 2, 0]);
    }

    #[test]
    fn unknown_sessions_and_wrong_epochs_have_their_own_codes_and_do_no_harm() {
        let mut sessions = Sessions::new(Limits::default());
        sessions.begin(ask(0, 0, 1), vec![(key(0), at(0))], &[]).unwrap();
        assert_eq!(sessions.begin(ask(7, 1, 2), vec![], &[]), Err(FetchSessionIdNotFound.code()));
        assert_eq!(sessions.begin(ask(101, 2, 2), vec![], &[]), Err(InvalidFetchSessionEpoch.code()));
        let by_id = Ask { by_id: true, ..ask(101, 1, 2) };
        assert_eq!(sessions.begin(by_id, vec![], &[]), Err(FetchSessionTopicIdError.code()));
        assert!(sessions.begin(ask(101, 1, 2), vec![], &[]).unwrap().incremental);
        assert_eq!(sessions.begin(ask(101, 1, 2), vec![], &[]), Err(InvalidFetchSessionEpoch.code()));
    }

    #[test]
    fn a_final_epoch_ends_the_session_and_an_initial_one_begins_another() {
        let mut sessions = Sessions::new(Limits::default());
        sessions.begin(ask(0, 0, 1), vec![(key(0), at(0))], &[]).unwrap();
        let again = sessions.begin(ask(101, 0, 2), vec![(key(0), at(0))], &[]).unwrap();
        assert_eq!(again.session, 102);
        let last = sessions.begin(ask(102, -1, 3), vec![(key(0), at(0))], &[]).unwrap();
        assert_eq!((last.session, last.incremental), (NO_SESSION, false));
        assert_eq!((sessions.sessions.len(), sessions.partitions), (0, 0));
    }

    #[test]
    fn a_full_cache_gives_up_idle_sessions_only() {
        let limits = Limits { sessions: 1, partitions: 10, idle_ms: 100 };
        let mut sessions = Sessions::new(limits);
        let one = || vec![(key(0), at(0))];
        assert_eq!(sessions.begin(ask(0, 0, 1), one(), &[]).unwrap().session, 101);
        assert_eq!(sessions.begin(ask(0, 0, 50), one(), &[]).unwrap().session, NO_SESSION);
        assert_eq!(sessions.begin(ask(0, 0, 101), one(), &[]).unwrap().session, 201);
        assert_eq!(sessions.begin(ask(101, 1, 102), vec![], &[]), Err(FetchSessionIdNotFound.code()));
        let many: Vec<_> = (0..11).map(|n| (key(n), at(0))).collect();
        assert_eq!(sessions.begin(ask(0, 0, 900), many, &[]).unwrap().session, NO_SESSION);
    }

    #[test]
    fn epochs_wrap_to_one() {
        let mut sessions = Sessions::new(Limits::default());
        sessions.begin(ask(0, 0, 1), vec![(key(0), at(0))], &[]).unwrap();
        sessions.sessions.get_mut(&101).unwrap().epoch = i32::MAX;
        sessions.begin(ask(101, i32::MAX, 2), vec![], &[]).unwrap();
        assert!(sessions.begin(ask(101, 1, 3), vec![], &[]).unwrap().incremental);
    }
}
