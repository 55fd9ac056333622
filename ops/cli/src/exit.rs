//! Exit codes, and the error that carries one. The only place that decides which failure ends with which
//! code; `strandline --help` prints [`HELP`].

use serde_json::json;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use strandline_client::{Error, ErrorCode, ErrorKind};
use strandline_node::RunError;

/// What the exit code says. Scripts may rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that has no code of its own.
    Failure = 1,
    /// The command line or a configuration value is wrong; nothing was done.
    Usage = 2,
    NotFound = 3,
    /// No node answered in time, or the cluster has no leader: nothing was done, try again.
    Unreachable = 4,
    /// No answer settles whether it happened.
    OutcomeUnknown = 5,
    /// The cluster understood and said no; nothing was done.
    Refused = 6,
    /// The node was removed from its cluster (`strandline serve`): starting it again is of no use.
    Removed = 7,
    /// Interrupted (SIGINT) before the end.
    Interrupted = 130,
}

/// The section about exit codes in `strandline --help`.
pub const HELP: &str = "\
Exit codes:
    0  done
    1  failed
    2  the command line or a configuration value is wrong; nothing was done
    3  the topic, group, node or offset does not exist
    4  no node answered in time, or the cluster has no leader; nothing was done, try again
    5  outcome unknown: it may or may not have happened
    6  refused by the cluster (exists already, not enough replicas, not empty, …); nothing was done
    7  the node was removed from its cluster; starting it again is of no use
   70  a node ended itself because a disk operation failed
  130  interrupted";

impl Exit {
    /// For `--json`.
    fn name(self) -> &'static str {
        match self {
            Exit::Failure => "failure",
            Exit::Usage => "usage",
            Exit::NotFound => "not_found",
            Exit::Unreachable => "unreachable",
            Exit::OutcomeUnknown => "outcome_unknown",
            Exit::Refused => "refused",
            Exit::Removed => "removed",
            Exit::Interrupted => "interrupted",
        }
    }
}

/// Why a command ends without having done its work: what happened, and where possible what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
    /// Whoever reads our output closed it (`strandline consume … | head`): not worth a word.
    reader_left: bool,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Failure { exit, message: message.to_string(), hint: None, reader_left: false }
    }

    pub fn usage(message: impl Display) -> Self {
        Failure::new(Exit::Usage, message)
    }

    pub fn interrupted(message: impl Display) -> Self {
        Failure::new(Exit::Interrupted, message)
    }

    /// Says first what could not be done because of it.
    pub fn context(self, what: impl Display) -> Self {
        Failure { message: format!("{what}: {}", self.message), ..self }
    }

    /// The same failure in words that know more.
    pub fn replaced(self, message: impl Display) -> Self {
        Failure { message: message.to_string(), ..self }
    }

    pub fn with_exit(self, exit: Exit) -> Self {
        Failure { exit, ..self }
    }

    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// A failure to write our own output.
    pub fn output(error: &std::io::Error) -> Self {
        let mut failure = Failure::new(Exit::Failure, format_args!("cannot write the output: {error}"));
        failure.reader_left = error.kind() == std::io::ErrorKind::BrokenPipe;
        failure
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        if self.reader_left {
            return ExitCode::SUCCESS;
        }
        let text = if json {
            let error = json!({
                "code": self.exit as u8, "kind": self.exit.name(), "message": self.message, "hint": self.hint,
            });
            format!("{}\n", json!({ "error": error }))
        } else {
            let hint = self.hint.iter().map(|hint| format!("  hint: {hint}\n")).collect::<String>();
            format!("error: {}\n{hint}", self.message.replace('\n', "\n       "))
        };
        // Nothing is left to tell if standard error is closed too.
        let _ = std::io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.exit as u8)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = exit_of(&error);
        let failure = Failure::new(exit, &error);
        match exit {
            Exit::Unreachable if error.code().or(error.obstacle()).is_none() => failure.hint(
                "is a node running there? `strandline dev` starts a cluster on this machine; --bootstrap or \
                 STRANDLINE_BOOTSTRAP names another one",
            ),
            Exit::Failure if *error.kind() == ErrorKind::Protocol => failure.hint(
                "--bootstrap takes the addresses for clients (--listen-grpc, 7070 by default), not those for the other \
                 nodes (--listen-peer, 7170 by default)",
            ),
            Exit::OutcomeUnknown => failure.hint("it may have happened: look before you repeat it"),
            Exit::NotFound if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                failure.hint("`strandline topic list` shows the topics that exist")
            }
            Exit::NotFound if error.code() == Some(ErrorCode::GroupNotFound) => {
                failure.hint("`strandline group list` shows the groups that exist")
            }
            Exit::NotFound if error.code() == Some(ErrorCode::NodeNotFound) => {
                failure.hint("`strandline cluster status` shows the nodes that exist")
            }
            _ => match error.code().or(error.obstacle()).and_then(advice) {
                Some(advice) => failure.hint(advice),
                None => failure,
            },
        }
    }
}

/// What to do about a refusal whose message only states a fact.
fn advice(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::RecordTooLarge => {
            "the topic takes larger records after `strandline topic alter TOPIC --config max.message.bytes=BYTES`"
        }
        ErrorCode::NotEnoughReplicas => {
            "bring the missing nodes back (`strandline cluster status`), or lower the topic's min.insync.replicas"
        }
        ErrorCode::StorageFull => {
            "free space on the node's disk or lower the retention of a topic; the node takes records again by itself"
        }
        ErrorCode::TopicExists => "`strandline topic describe TOPIC` shows it, `topic alter` changes it",
        ErrorCode::InvalidReplicationFactor => {
            "start more nodes (`strandline cluster status` shows those that live), or ask for fewer replicas"
        }
        ErrorCode::LeaderNotAvailable
        | ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorLoading
        | ErrorCode::ClusterNotReady
        | ErrorCode::RequestTimedOut
        | ErrorCode::OutcomeUnknown => {
            "more than half of the nodes must run, and one with the partition's records: `strandline cluster status` \
             shows who does"
        }
        ErrorCode::GroupNotEmpty => "stop the group's members first (`strandline group describe GROUP`)",
        _ => return None,
    })
}

fn exit_of(error: &Error) -> Exit {
    if error.may_have_happened() {
        return Exit::OutcomeUnknown;
    }
    match error.kind() {
        ErrorKind::Broker(code) => exit_of_code(*code),
        ErrorKind::Indeterminate => Exit::Unreachable,
        // A broker answered until the end, and said no.
        ErrorKind::TimedOut if error.obstacle().is_some_and(|code| exit_of_code(code) == Exit::Refused) => {
            Exit::Refused
        }
        ErrorKind::Connection | ErrorKind::TimedOut => Exit::Unreachable,
        ErrorKind::RecordTooLarge => Exit::Refused,
        ErrorKind::Invalid => Exit::Usage,
        ErrorKind::OffsetOutOfRange { .. } | ErrorKind::NoOffset(_) => Exit::NotFound,
        _ => Exit::Failure,
    }
}

/// Of an error of which the SDK promises that nothing has happened: a code that leaves this open came from something
/// that changes nothing.
fn exit_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::GroupNotFound
        | ErrorCode::NodeNotFound => Exit::NotFound,
        ErrorCode::LeaderNotAvailable
        | ErrorCode::NotLeader
        | ErrorCode::OffsetNotAvailable
        | ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorLoading
        | ErrorCode::ClusterNotReady
        | ErrorCode::ShuttingDown
        | ErrorCode::StorageError
        | ErrorCode::Throttled
        | ErrorCode::RequestTimedOut
        | ErrorCode::OutcomeUnknown => Exit::Unreachable,
        ErrorCode::InvalidConfig => Exit::Usage,
        ErrorCode::NotEnoughReplicas
        | ErrorCode::StorageFull
        | ErrorCode::RecordTooLarge
        | ErrorCode::InvalidRecord
        | ErrorCode::TopicExists
        | ErrorCode::InvalidTopic
        | ErrorCode::InvalidPartitions
        | ErrorCode::InvalidReplicationFactor
        | ErrorCode::InvalidRequest
        | ErrorCode::GroupNotEmpty
        | ErrorCode::InvalidSessionTimeout
        | ErrorCode::InconsistentGroupProtocol
        | ErrorCode::FencedInstanceId
        | ErrorCode::ProducerFenced
        | ErrorCode::Rejected => Exit::Refused,
        _ => Exit::Failure,
    }
}

/// What is wrong with the command line, without the usage behind it.
impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let message = text.split("\n\nUsage:").next().unwrap_or(&text);
        let message = message.split("\n\nFor more information").next().unwrap_or(message).trim();
        Failure::usage(message.trim_start_matches("error: ")).hint("--help explains the command")
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match &error {
            RunError::Config(_) => Exit::Usage,
            RunError::WipedNode { .. }
            | RunError::AlreadyFormed { .. }
            | RunError::JoinRefused(_)
            | RunError::WrongCluster { .. }
            | RunError::Refused(_) => Exit::Refused,
            RunError::Removed { .. } => Exit::Removed,
            RunError::Storage(_) | RunError::Listen { .. } | RunError::Raft(_) | RunError::Stopped => {
                Exit::Failure
            }
        };
        Failure::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_code() {
        for exit in [
            Exit::Failure,
            Exit::Usage,
            Exit::NotFound,
            Exit::Unreachable,
            Exit::OutcomeUnknown,
            Exit::Refused,
            Exit::Removed,
            Exit::Interrupted,
        ] {
            let number = format!("{:>5}  ", exit as u8);
            assert!(HELP.lines().any(|line| line.starts_with(&number)), "{exit:?}");
        }
    }

    #[test]
    fn what_certainly_did_not_happen_never_exits_with_outcome_unknown() {
        for number in 1..=44 {
            let code = ErrorCode::try_from(number).expect("codes are dense");
            assert_ne!(exit_of_code(code), Exit::OutcomeUnknown, "{code:?}");
        }
        for code in [ErrorCode::RequestTimedOut, ErrorCode::OutcomeUnknown] {
            assert_eq!(exit_of_code(code), Exit::Unreachable, "a read that was not answered");
        }
        assert_eq!(exit_of_code(ErrorCode::InvalidConfig), Exit::Usage);
        assert_eq!(exit_of_code(ErrorCode::TopicExists), Exit::Refused);
        assert_eq!(exit_of_code(ErrorCode::UnknownTopicOrPartition), Exit::NotFound);
        assert_eq!(exit_of_code(ErrorCode::ClusterNotReady), Exit::Unreachable);
    }
}
