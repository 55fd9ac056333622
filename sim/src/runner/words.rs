//! Events in words, and what they and the text of a violation are about.

use std::collections::BTreeSet;
use std::sync::Arc;
use strandline_sim::history::{Attempt, Outcome, Tp, What};

/// Something that events and violations name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Attempt(Attempt),
    /// A commit or a deletion of records, by the number of the call.
    Call(u64),
    Partition(Tp),
    Group(Arc<str>),
    Node(u64),
}

impl Subject {
    /// Whether few events are about it.
    pub fn is_exact(&self) -> bool {
        matches!(self, Subject::Attempt(_) | Subject::Call(_))
    }
}

/// `  12.345678`, as the trace writes it.
pub fn seconds(us: u64) -> String {
    format!("{:>4}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// Whether a note of the trace only repeats an event of the history or a fault.
pub fn is_event_or_fault(note: &str) -> bool {
    let mut words = note.split_whitespace().skip(1);
    let (who, what) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let event = note.contains(" { session: Session(") || (what == "Topic" && note.contains(" { topic: "));
    event || who == "fault"
}

/// The attempts, calls and nodes that a text names by their numbers: `attempt 5`, `Attempt(5)`, `node-2`, `broker 2`.
pub fn numbered_subjects(text: &str) -> BTreeSet<Subject> {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let pairs = words.windows(2).filter_map(|pair| {
        let number: u64 = pair[1].parse().ok()?;
        match pair[0].to_ascii_lowercase().as_str() {
            "attempt" => Some(Subject::Attempt(Attempt(number))),
            "commit" | "delete" => Some(Subject::Call(number)),
            "node" | "broker" => Some(Subject::Node(number)),
            _ => None,
        }
    });
    pairs.collect()
}

/// Whether a text names a partition or group, as a word of its own: `t-1` is not in `t-12`.
pub fn names(text: &str, subject: &Subject) -> bool {
    let name = match subject {
        Subject::Partition(tp) => tp.to_string(),
        Subject::Group(group) => group.to_string(),
        Subject::Attempt(_) | Subject::Call(_) | Subject::Node(_) => return false,
    };
    let of_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(&name).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        !before.is_some_and(of_word) && !after.is_some_and(of_word)
    })
}

pub fn subjects(what: &What) -> Vec<Subject> {
    let tp = |tp: &Tp| Subject::Partition(tp.clone());
    let group = |group: &Arc<str>| Subject::Group(group.clone());
    match what {
        What::Topic { .. } | What::Gone { .. } => Vec::new(),
        What::Send { attempt, tp: to, .. } => vec![Subject::Attempt(*attempt), tp(to)],
        What::Sent { attempt, .. } => vec![Subject::Attempt(*attempt)],
        What::Read { tp: from, attempt, .. } => {
            attempt.map(Subject::Attempt).into_iter().chain([tp(from)]).collect()
        }
        What::Position { tp: of, .. }
        | What::OutOfRange { tp: of, .. }
        | What::Truncated { tp: of, .. }
        | What::Corrupt { tp: of, .. }
        | What::EndRead { tp: of, .. } => vec![tp(of)],
        What::Assigned { group: of, partitions, .. }
        | What::Revoked { group: of, partitions, .. }
        | What::Lost { group: of, partitions, .. } => {
            [group(of)].into_iter().chain(partitions.iter().map(tp)).collect()
        }
        What::Commit { commit, group: of, offsets, .. } => {
            [Subject::Call(*commit), group(of)].into_iter().chain(offsets.keys().map(tp)).collect()
        }
        What::Committed { commit, .. } => vec![Subject::Call(*commit)],
        What::OffsetRead { group: of, tp: about, .. } => vec![group(of), tp(about)],
        What::DeleteRecords { delete, tp: of, .. } => vec![Subject::Call(*delete), tp(of)],
        What::DeletedRecords { delete, .. } => vec![Subject::Call(*delete)],
    }
}

/// `who` names the client; its session tells its lives apart.
pub fn describe(who: Option<&str>, what: &What) -> String {
    let did = did(what);
    match what.session() {
        None => did,
        Some(session) => format!("{} (session {}) {did}", who.unwrap_or("a client"), session.0),
    }
}

fn did(what: &What) -> String {
    match what {
        What::Topic { topic, settings } => format!("topic {topic}: {settings:?}"),
        What::Send { attempt, tp, acks, idempotent, .. } => {
            let how = if *idempotent { ", idempotent" } else { "" };
            format!("sends attempt {} to {tp} (acks {acks:?}{how})", attempt.0)
        }
        What::Sent { attempt, outcome, .. } => {
            let became = became(outcome, |offset| {
                offset.map_or(" without an offset".to_owned(), |offset| format!(" at offset {offset}"))
            });
            format!("has attempt {} {became}", attempt.0)
        }
        What::Position { tp, offset, .. } => format!("begins to read {tp} at {offset}"),
        What::Read { tp, offset, leader_epoch, attempt, .. } => {
            let of = attempt.map_or("a value that nobody sent".to_owned(), |a| format!("attempt {}", a.0));
            format!("reads {of} in {tp} at {offset}, leader epoch {leader_epoch}")
        }
        What::OutOfRange { tp, position, log_start, .. } => {
            format!("is told that {position} of {tp} is out of range, the log starts at {log_start}")
        }
        What::Truncated { tp, position, end, .. } => {
            format!("is told that {tp} was truncated to {end}, it was at {position}")
        }
        What::Corrupt { tp, why, .. } => format!("sees corrupt bytes in {tp}: {why}"),
        What::Assigned { group, member, generation, partitions, .. } => {
            let partitions = list(partitions);
            format!("gets {partitions} as member {member} of group {group}, generation {generation}")
        }
        What::Revoked { group, partitions, .. } => format!("gives up {} of group {group}", list(partitions)),
        What::Lost { group, partitions, .. } => format!("has lost {} of group {group}", list(partitions)),
        What::Commit { commit, group, generation, offsets, .. } => {
            let offsets: Vec<String> = offsets.iter().map(|(tp, offset)| format!("{tp}={offset}")).collect();
            let within = generation.map_or("outside of it".to_owned(), |g| format!("in generation {g}"));
            format!("begins commit {commit} to group {group} {within}: {}", offsets.join(" "))
        }
        What::Committed { commit, outcome, .. } => {
            format!("has commit {commit} {}", became(outcome, |()| String::new()))
        }
        What::OffsetRead { group, tp, offset, .. } => {
            let offset = offset.map_or("nothing".to_owned(), |offset| offset.to_string());
            format!("is told that group {group} has committed {offset} of {tp}")
        }
        What::EndRead { tp, latest, offset, .. } => {
            let which = if *latest { "latest" } else { "earliest" };
            format!("is told that {offset} is the {which} offset of {tp}")
        }
        What::DeleteRecords { delete, tp, before, .. } => {
            format!("begins delete {delete} of all records of {tp} before {before}")
        }
        What::DeletedRecords { delete, outcome, .. } => {
            format!("has delete {delete} {}", became(outcome, |start| format!(", the log starts at {start}")))
        }
        What::Gone { .. } => "is gone".to_owned(),
    }
}

fn became<T>(outcome: &Outcome<T>, detail: impl FnOnce(&T) -> String) -> String {
    match outcome {
        Outcome::Acknowledged(value) => format!("acknowledged{}", detail(value)),
        Outcome::Failed(why) => format!("failed: {why}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
    }
}

fn list(partitions: &[Tp]) -> String {
    partitions.iter().map(Tp::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_text_are_found_by_the_word_before_them() {
        let found = numbered_subjects("Attempt(12) of node-3: commit 4 said attempt #7, offset 9");
        let expected =
            [Subject::Attempt(Attempt(7)), Subject::Attempt(Attempt(12)), Subject::Call(4), Subject::Node(3)];
        assert_eq!(found, expected.into());
    }

    #[test]
    fn names_are_found_as_whole_words_only() {
        let one = Subject::Partition(Tp::new("t", 1));
        assert!(names("t-1: gone", &one));
        assert!(names("gone in (t-1)", &one));
        assert!(!names("t-12 and at-1", &one));
        let group = Subject::Group("orders".into());
        assert!(names("group orders, generation 3", &group));
        assert!(!names("orders-2", &group));
    }
}
