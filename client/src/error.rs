//! What went wrong, and the two questions every caller has: may I try again, and did it perhaps happen?

use crate::types::TopicPartition;
use std::fmt;
use std::sync::Arc;
use strandline_wire::v1;
pub use strandline_wire::v1::ErrorCode;

/// Result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the client or of the cluster. Cheap to clone (all records of a batch share one).
///
/// Besides a message that says what to do, each error answers [`is_retriable`](Error::is_retriable) and
/// [`may_have_happened`](Error::may_have_happened); [`kind`](Error::kind) is for code that must tell causes
/// apart.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    may_have_happened: bool,
    retriable: bool,
    leader: Option<LeaderHint>,
    obstacle: Option<ErrorCode>,
}

/// Who leads (or coordinates) instead, as the broker that refused knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    /// Broker id.
    pub id: u64,
    /// Its leader epoch, where the refusal was about a partition.
    pub epoch: Option<i32>,
    /// Its gRPC address, where the refusing broker knew it.
    pub endpoint: Option<String>,
}

/// The cause of an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A broker answered with this code.
    Broker(ErrorCode),
    /// No answer came, or none that settles it: the operation may or may not have taken effect.
    Indeterminate,
    /// No connection could be made; nothing was sent.
    Connection,
    /// The time allowed ran out before anything could have taken effect.
    TimedOut,
    /// The record can never fit in the producer's buffer or in a batch.
    RecordTooLarge,
    /// An option of a builder, or an argument, is not usable.
    Invalid,
    /// The log was truncated below what this consumer had read (KIP-320): an unclean election happened, and
    /// records that were read are gone.
    Truncated {
        /// Where.
        partition: TopicPartition,
        /// The consumer's position, past the end of what it shares with the log.
        position: i64,
        /// Last leader epoch that the log and the consumer have in common, -1 if there is none.
        epoch: i32,
        /// Where that epoch ends in the log: reading may go on from here.
        end_offset: i64,
    },
    /// The position is not in the log: retention removed it, or it is past the end.
    OffsetOutOfRange {
        /// Where.
        partition: TopicPartition,
        /// The position asked for.
        position: i64,
        /// First offset that can be read.
        log_start_offset: i64,
        /// End (exclusive) of what can be read.
        high_watermark: i64,
    },
    /// The group has no committed offset for the partition and `auto_offset_reset` is `Error`.
    NoOffset(TopicPartition),
    /// Bytes that a broker served fail their checksum or cannot be decoded.
    Corrupt(TopicPartition),
    /// The group moved on without this member; what was to be committed belongs to others now.
    Rebalanced,
    /// The broker answers another cluster id than before, or something that the protocol does not allow.
    Protocol,
    /// The producer or consumer has been closed.
    Closed,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let (retriable, may_have_happened) = match &kind {
            ErrorKind::Broker(code) => (code_is_retriable(*code), code_may_have_happened(*code)),
            ErrorKind::Indeterminate => (false, true),
            ErrorKind::Connection | ErrorKind::TimedOut => (true, false),
            _ => (false, false),
        };
        let (message, obstacle) = (message.into(), None);
        Error(Arc::new(Inner { kind, message, may_have_happened, retriable, leader: None, obstacle }))
    }

    pub(crate) fn indeterminate(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Indeterminate, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn connection(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Connection, message)
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TimedOut, message)
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("the {what} has been closed; build a new one"))
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }

    /// The error that a broker put into an answer; `None` and `NONE` are success.
    pub(crate) fn from_wire(error: Option<&v1::Error>) -> Option<Error> {
        let error = error?;
        let code = match ErrorCode::try_from(error.code) {
            Ok(ErrorCode::None) => return None,
            Ok(code) => code,
            // A newer broker: treated as unexpected.
            Err(_) => ErrorCode::Unknown,
        };
        let mut result = Self::new(ErrorKind::Broker(code), describe(code, &error.message));
        if let Some(id) = error.leader_id {
            let endpoint = (!error.leader_endpoint.is_empty()).then(|| error.leader_endpoint.clone());
            result = result
                .modify(|inner| inner.leader = Some(LeaderHint { id, epoch: error.leader_epoch, endpoint }));
        }
        Some(result)
    }

    /// A call that failed below the protocol. A connection that was never made sent nothing; anything else
    /// may have reached the broker.
    pub(crate) fn from_status(status: &tonic::Status, endpoint: &str) -> Error {
        let mut source = std::error::Error::source(status);
        while let Some(error) = source {
            if error.is::<tonic::ConnectError>() {
                return Error::connection(format!("cannot connect to {endpoint}: {}", root_cause(error)));
            }
            source = error.source();
        }
        match status.code() {
            tonic::Code::Unimplemented => Error::protocol(format!(
                "{endpoint} does not know this call ({}); is it a Strandline broker's gRPC address, and recent enough?",
                status.message()
            )),
            code => Error::indeterminate(format!(
                "{endpoint} gave no usable answer ({code}: {})",
                status.message()
            ))
            .modify(|inner| inner.retriable = true),
        }
    }

    pub(crate) fn context(self, what: impl fmt::Display) -> Error {
        self.modify(|inner| inner.message = format!("{what}: {}", inner.message))
    }

    /// The same, but with nothing left to hope for from trying again.
    pub(crate) fn give_up(self, message: impl fmt::Display) -> Error {
        self.modify(|inner| inner.message = format!("{message}; the last obstacle: {}", inner.message))
    }

    pub(crate) fn because(self, cause: &Error) -> Error {
        self.modify(|inner| {
            inner.message = format!("{}; the last obstacle: {}", inner.message, cause.message());
            inner.obstacle = cause.code();
        })
    }

    /// Of a call that changes nothing: its outcome is never in doubt.
    pub(crate) fn without_effect(self) -> Error {
        self.modify(|inner| {
            inner.may_have_happened = false;
            if inner.kind == ErrorKind::Indeterminate {
                inner.kind = ErrorKind::Connection;
            }
        })
    }

    /// To a commit without membership, which a group with members refuses in words meant for a member.
    pub(crate) fn of_no_member(self, group: &str) -> Error {
        match self.code() {
            Some(
                ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress,
            ) => self.modify(|inner| {
                inner.kind = ErrorKind::Broker(ErrorCode::GroupNotEmpty);
                inner.retriable = false;
                inner.message = format!("group {group} has members, and only they commit its offsets");
            }),
            _ => self,
        }
    }

    pub(crate) fn possibly(self) -> Error {
        self.modify(|inner| inner.may_have_happened = true)
    }

    pub(crate) fn unknown_outcome(self) -> Error {
        self.modify(|inner| {
            inner.kind = ErrorKind::Indeterminate;
            inner.may_have_happened = true;
            inner.retriable = false;
        })
    }

    fn modify(self, change: impl FnOnce(&mut Inner)) -> Error {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Error(Arc::new(inner))
    }

    /// The cause, for matching.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What a broker last answered before the time allowed ran out, where that is how it ended.
    pub fn obstacle(&self) -> Option<ErrorCode> {
        self.0.obstacle
    }

    /// The broker's code, if a broker answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self.0.kind {
            ErrorKind::Broker(code) => Some(code),
            _ => None,
        }
    }

    /// The same call may succeed later without anything being changed. The client has already retried for as
    /// long as its time-outs allow. Where [`may_have_happened`](Self::may_have_happened) is also true, a second
    /// try may do it twice.
    pub fn is_retriable(&self) -> bool {
        self.0.retriable
    }

    /// The operation may have taken effect although this error was returned: its outcome is unknown, not
    /// "failed". `false` is a promise that it did not.
    pub fn may_have_happened(&self) -> bool {
        self.0.may_have_happened
    }

    /// Who leads instead, where the broker said so.
    pub fn leader(&self) -> Option<&LeaderHint> {
        self.0.leader.as_ref()
    }

    /// The message without the kind.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("retriable", &self.0.retriable)
            .field("may_have_happened", &self.0.may_have_happened)
            .finish()
    }
}

impl std::error::Error for Error {}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

pub(crate) fn code_is_retriable(code: ErrorCode) -> bool {
    use ErrorCode::*;
    matches!(
        code,
        UnknownTopicOrPartition
            | NotLeader
            | FencedLeaderEpoch
            | UnknownLeaderEpoch
            | LeaderNotAvailable
            | NotEnoughReplicas
            | OffsetNotAvailable
            | RequestTimedOut
            | OutcomeUnknown
            | StorageFull
            | StorageError
            | ShuttingDown
            | NotCoordinator
            | CoordinatorLoading
            | RebalanceInProgress
            | ClusterNotReady
            | Throttled
            | UnstableOffsets
    )
}

pub(crate) fn code_may_have_happened(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unknown | ErrorCode::RequestTimedOut | ErrorCode::OutcomeUnknown)
}

/// The broker's own words, and what to do where they leave that open.
fn describe(code: ErrorCode, message: &str) -> String {
    use ErrorCode::*;
    let (what, advice) = match code {
        None => ("success", ""),
        Unknown => ("the broker failed unexpectedly", "its log says why"),
        UnknownTopicOrPartition => ("unknown topic or partition", "create the topic, or check its name"),
        NotLeader => ("this broker does not lead the partition", ""),
        FencedLeaderEpoch => ("the client's leader epoch is out of date", ""),
        UnknownLeaderEpoch => ("the broker has not yet learnt of the client's leader epoch", ""),
        LeaderNotAvailable => ("the partition has no leader now", "it returns with an in-sync replica"),
        NotEnoughReplicas => {
            ("fewer in-sync replicas than min.insync.replicas", "nothing was written; bring replicas back")
        }
        OffsetOutOfRange => ("the offset is not in the log", "seek to an offset that is"),
        OffsetNotAvailable => ("the new leader does not know its high watermark yet", ""),
        RecordTooLarge => (
            "the batch is larger than the topic's max.message.bytes",
            "lower batch_bytes, or raise that limit",
        ),
        CorruptRecord => ("the batch fails its checksum", "it was damaged on the way"),
        InvalidRecord => ("the broker refuses the record", ""),
        OutOfOrderSequence => ("a batch before this one is missing from the log", ""),
        DuplicateSequence => ("the batch had been written before", ""),
        ProducerFenced | InvalidProducerEpoch => {
            ("another producer took over this producer id", "close this producer")
        }
        UnknownProducerId => ("the log no longer knows this producer id", ""),
        RequestTimedOut => ("the broker gave up waiting", "the outcome is unknown"),
        OutcomeUnknown => ("the leader stopped before it could confirm", "the outcome is unknown"),
        StorageFull => ("the broker's disk is full", "nothing was written; free space or lower retention"),
        StorageError => ("the broker's replica is damaged or offline", "another replica will take over"),
        ShuttingDown => ("the broker is shutting down", ""),
        TopicExists => ("the topic exists already", ""),
        InvalidTopic => {
            ("the topic name is not allowed", "use letters, digits, '.', '_' and '-', at most 249")
        }
        InvalidPartitions => {
            ("the number of partitions is not allowed", "it must be positive, and may only grow")
        }
        InvalidReplicationFactor => (
            "the replication factor is not possible",
            "it must be positive and at most the number of brokers",
        ),
        InvalidConfig => ("a configuration key or value is not valid", ""),
        InvalidRequest => ("the request is not valid", ""),
        NotCoordinator => ("this broker does not coordinate the group", ""),
        CoordinatorLoading => ("the group's coordinator is still loading", ""),
        IllegalGeneration => ("the group has moved to another generation", "rejoin"),
        UnknownMemberId => ("the group does not know this member", "rejoin"),
        MemberIdRequired => ("join again with the member id given", ""),
        FencedInstanceId => {
            ("another member joined with the same group_instance_id", "give each member its own")
        }
        RebalanceInProgress => ("the group is rebalancing", "poll, then try again"),
        InconsistentGroupProtocol => {
            ("the group's members have no assignor in common", "configure one that all of them support")
        }
        GroupNotEmpty => ("the group has members", "stop them first"),
        GroupNotFound => ("there is no such group", ""),
        InvalidSessionTimeout => ("the session timeout is outside the broker's limits", ""),
        ClusterNotReady => ("the cluster has no metadata leader now", "a majority of the voters must run"),
        NodeNotFound => ("there is no such node", ""),
        Rejected => ("a precondition does not hold", ""),
        Throttled => ("too much is in flight", ""),
        UnstableOffsets => ("a transaction on these offsets is not finished", ""),
    };
    let mut text = if message.is_empty() { what.to_owned() } else { message.to_owned() };
    if message.is_empty() && !advice.is_empty() {
        text.push_str(": ");
        text.push_str(advice);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_leaves_the_outcome_open_says_so_and_no_other_does() {
        for number in 1..=44 {
            let code = ErrorCode::try_from(number).expect("codes are dense");
            let error = Error::from_wire(Some(&v1::Error { code: number, ..Default::default() }))
                .expect("not success");
            let open =
                matches!(code, ErrorCode::Unknown | ErrorCode::RequestTimedOut | ErrorCode::OutcomeUnknown);
            assert_eq!(error.may_have_happened(), open, "{code:?}");
            assert_eq!(error.code(), Some(code));
            assert!(!error.to_string().is_empty());
        }
        assert!(Error::from_wire(Some(&v1::Error::default())).is_none());
        assert!(Error::from_wire(None).is_none());
    }

    #[test]
    fn a_code_from_a_newer_broker_is_unexpected_and_open() {
        let error = Error::from_wire(Some(&v1::Error { code: 9999, ..Default::default() })).unwrap();
        assert_eq!(error.code(), Some(ErrorCode::Unknown));
        assert!(error.may_have_happened() && !error.is_retriable());
    }

    #[test]
    fn the_brokers_words_are_kept() {
        let error = Error::from_wire(Some(&v1::Error {
            code: ErrorCode::RecordTooLarge as i32,
            message: "batch of 2000000 bytes; max.message.bytes is 1048588".into(),
            ..Default::default()
        }))
        .unwrap()
        .context("produce to logs-3");
        assert_eq!(
            error.to_string(),
            "produce to logs-3: batch of 2000000 bytes; max.message.bytes is 1048588"
        );
        assert!(!error.is_retriable() && !error.may_have_happened());
    }
}
