//! What clients attempted and what they were told: the only thing that the black-box half of the oracle believes.
//!
//! An attempt has one of three outcomes. *Acknowledged*: it happened. *Failed*: it certainly did not and never will.
//! *Unknown*: the client cannot say (a time-out, a lost answer, its own death), and the oracle assumes neither.
//! Clients that crash leave attempts open; those are unknown as well.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A partition of a topic, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tp {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl Tp {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Tp {
        Tp { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for Tp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// One try to write one record. The record's value carries it, so that what is read leads back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// A session of a client: one producer, consumer or admin from its making to its end. A restarted client is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    All,
    Leader,
    None,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    Acknowledged(T),
    Failed(String),
    Unknown(String),
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Simulated microseconds since the start.
    pub at_us: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A topic exists from here on with these settings that matter to the oracle.
    Topic {
        topic: Arc<str>,
        settings: TopicFacts,
    },
    /// A record was handed to a producer.
    Send {
        session: Session,
        attempt: Attempt,
        tp: Tp,
        acks: Acks,
        idempotent: bool,
    },
    /// And this is what became of it. The offset may be missing (`acks=none`, an old duplicate).
    Sent {
        session: Session,
        attempt: Attempt,
        outcome: Outcome<Option<i64>>,
    },
    /// A consumer begins to read here: an assignment, a seek, a reset.
    Position {
        session: Session,
        tp: Tp,
        offset: i64,
    },
    /// A consumer was given a record. `attempt` is `None` when the value is not one that anybody sent.
    Read {
        session: Session,
        tp: Tp,
        offset: i64,
        leader_epoch: i32,
        attempt: Option<Attempt>,
        /// CRC-32C of key, value and headers as the consumer saw them.
        checksum: u32,
    },
    /// A consumer was told that its place is gone (retention, deletion) and may go on at `log_start`.
    OutOfRange {
        session: Session,
        tp: Tp,
        position: i64,
        log_start: i64,
    },
    /// A consumer was told that what it had read was truncated away by an unclean election.
    Truncated {
        session: Session,
        tp: Tp,
        position: i64,
        end: i64,
    },
    /// A consumer saw bytes that fail their checksum.
    Corrupt {
        session: Session,
        tp: Tp,
        why: String,
    },
    /// A group member was given these partitions in addition to what it has.
    Assigned {
        session: Session,
        group: Arc<str>,
        member: Arc<str>,
        generation: i32,
        partitions: Vec<Tp>,
    },
    /// A group member gives these up, still owning them.
    Revoked {
        session: Session,
        group: Arc<str>,
        partitions: Vec<Tp>,
    },
    /// A group member learnt that it owns these no more.
    Lost {
        session: Session,
        group: Arc<str>,
        partitions: Vec<Tp>,
    },
    /// A commit begins. `generation` is `None` for a commit outside of the group's membership.
    Commit {
        session: Session,
        commit: u64,
        group: Arc<str>,
        generation: Option<i32>,
        offsets: BTreeMap<Tp, i64>,
    },
    Committed {
        session: Session,
        commit: u64,
        outcome: Outcome<()>,
    },
    /// A group's committed offset was read; `asked_us` is when the question was sent. `None`: there is none.
    OffsetRead {
        session: Session,
        group: Arc<str>,
        tp: Tp,
        offset: Option<i64>,
        asked_us: u64,
    },
    /// A latest or earliest offset was asked for and answered.
    EndRead {
        session: Session,
        tp: Tp,
        latest: bool,
        offset: i64,
        asked_us: u64,
    },
    /// `DeleteRecords` begins, and its end: everything below may go, everything below the answer is gone.
    DeleteRecords {
        session: Session,
        delete: u64,
        tp: Tp,
        before: i64,
    },
    DeletedRecords {
        session: Session,
        delete: u64,
        outcome: Outcome<i64>,
    },
    /// A client's process has ended; nothing more comes from its open sessions.
    Gone {
        session: Session,
    },
}

impl What {
    /// Whose it is.
    pub fn session(&self) -> Option<Session> {
        match self {
            What::Topic { .. } => None,
            What::Send { session, .. }
            | What::Sent { session, .. }
            | What::Position { session, .. }
            | What::Read { session, .. }
            | What::OutOfRange { session, .. }
            | What::Truncated { session, .. }
            | What::Corrupt { session, .. }
            | What::Assigned { session, .. }
            | What::Revoked { session, .. }
            | What::Lost { session, .. }
            | What::Commit { session, .. }
            | What::Committed { session, .. }
            | What::OffsetRead { session, .. }
            | What::EndRead { session, .. }
            | What::DeleteRecords { session, .. }
            | What::DeletedRecords { session, .. }
            | What::Gone { session } => Some(*session),
        }
    }
}

/// What the oracle must know of a topic, told by whoever made it and not by the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    pub partitions: i32,
    pub replication: usize,
    pub min_insync: usize,
    /// `flush=ack`: an acknowledged record is on the disk of the whole ISR.
    pub flush_ack: bool,
    /// Retention by size or time may raise the log start at any time.
    pub retention: bool,
    pub unclean_elections: bool,
}
