//! From many small proposals to few log entries. One proposal of this node is in flight at a time; whatever
//! gathers meanwhile becomes the next one, as a single `Command::Batch`. On a follower the batch is forwarded to
//! the leader, where it merges with the leader's own.
//!
//! ```text
//!   propose ──► queue ──► batch ──► leader: client_write ──► answers
//!                 ▲         └─────► follower: Propose RPC ──► the leader's queue
//!                 └── certainly not proposed: tried again until each one's deadline
//! ```
//! Invariant: a command is tried again only if its earlier attempt certainly left nothing in any log. When
//! that is not known, its proposer is told so.

use crate::handle::Inner;
use crate::network::{Lane, was_not_sent};
use crate::proto::{self, proposal_reply};
use crate::types::Proposal;
use bytes::{Bytes, BytesMut};
use openraft::errors::{ClientWriteError, RaftError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use strandline_metadata::{Command, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Proposals that may wait; the next ones wait in front of the queue.
pub const QUEUE: usize = 4096;
const BATCH_COMMANDS: u32 = 1024;
const BATCH_BYTES: usize = 512 << 10;
/// One proposal is at most this long, encoded.
pub const MAX_PROPOSAL_BYTES: usize = 16 << 20;
/// An attempt is given up, with unknown outcome, after this time: commits take milliseconds.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);
/// Pause before a further attempt, unless leadership changes before.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub enum Outcome {
    /// One response for each command.
    Applied(Vec<Response>),
    /// Certainly in no log.
    NotProposed(String),
    /// May yet be applied.
    Unknown(String),
}

/// Commands of one proposer, which share a fate.
pub struct Queued {
    /// Encodings, one behind another.
    pub commands: Bytes,
    pub count: u32,
    pub deadline: Instant,
    /// Came from another node: goes into this node's log or back.
    pub forwarded: bool,
    pub ticket: Arc<Ticket>,
    pub reply: oneshot::Sender<Outcome>,
}

/// Settles between proposer and queue whether an attempt was made when the deadline passed.
#[derive(Default)]
pub struct Ticket(AtomicU8);

impl Ticket {
    const WAITING: u8 = 0;
    const TRYING: u8 = 1;
    const CANCELLED: u8 = 2;

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// True if no attempt is or will be under way.
    pub fn cancel(&self) -> bool {
        self.change(Self::WAITING, Self::CANCELLED)
    }
}

/// Checks and splits what another node forwarded: every byte becomes part of the log on all nodes.
pub fn check_forwarded(count: u32, commands: &[u8]) -> Result<(), String> {
    if commands.len() > MAX_PROPOSAL_BYTES {
        return Err(format!("{} bytes proposed at once", commands.len()));
    }
    let mut rest = commands;
    for _ in 0..count {
        let (command, behind) = postcard::take_from_bytes::<Command>(rest).map_err(|e| e.to_string())?;
        if matches!(command, Command::Batch(_)) {
            return Err("a batch within a batch".to_owned());
        }
        rest = behind;
    }
    if count == 0 || !rest.is_empty() {
        return Err("the number of commands does not match".to_owned());
    }
    Ok(())
}

/// The encodings of `commands`, one behind another.
pub fn encode_commands(commands: &[Command]) -> Bytes {
    commands.iter().flat_map(Command::encode).collect::<Vec<u8>>().into()
}

/// One log entry of commands that are encoded already: the same bytes as encoding `Command::Batch` of them.
fn entry(count: u32, parts: &[&Bytes]) -> Proposal {
    if count == 1 {
        return Proposal(parts[0].clone());
    }
    let mut empty = Command::Batch(Vec::new()).encode();
    assert_eq!(empty.pop(), Some(0), "an empty list ends with its length, 0");
    let mut bytes = BytesMut::with_capacity(empty.len() + 5 + parts.iter().map(|p| p.len()).sum::<usize>());
    bytes.extend_from_slice(&empty);
    bytes.extend_from_slice(&postcard::to_stdvec(&count).expect("a number can be encoded"));
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Proposal(bytes.freeze())
}

/// Runs until the node stops.
pub async fn run(inner: Arc<Inner>, mut incoming: mpsc::Receiver<Queued>) {
    let mut waiting: VecDeque<Queued> = VecDeque::new();
    let mut leadership = inner.leadership.clone();
    loop {
        if waiting.is_empty() {
            match incoming.recv().await {
                Some(queued) => waiting.push_back(queued),
                None => return,
            }
        }
        while waiting.len() < QUEUE {
            let Ok(queued) = incoming.try_recv() else { break };
            waiting.push_back(queued);
        }
        leadership.borrow_and_update();
        let mut batch = take_batch(&mut waiting);
        if !inner.is_leader() {
            // Going round in circles helps nobody: who forwarded looks for the leader again.
            let (forwarded, own) = batch.into_iter().partition(|q| q.forwarded);
            give_back(forwarded, "this node does not lead");
            batch = own;
        }
        if batch.is_empty() {
            continue;
        }
        match attempt(&inner, &batch).await {
            Outcome::Applied(responses) => {
                let mut responses = responses.into_iter();
                for queued in batch {
                    let own = responses.by_ref().take(queued.count as usize).collect();
                    let _ = queued.reply.send(Outcome::Applied(own));
                }
            }
            Outcome::Unknown(why) => {
                for queued in batch {
                    let _ = queued.reply.send(Outcome::Unknown(why.clone()));
                }
            }
            Outcome::NotProposed(why) => {
                tracing::debug!(why, commands = batch.len(), "proposals wait");
                let (forwarded, own): (Vec<_>, Vec<_>) = batch.into_iter().partition(|q| q.forwarded);
                give_back(forwarded, &why);
                for queued in own.into_iter().rev() {
                    queued.ticket.change(Ticket::TRYING, Ticket::WAITING);
                    waiting.push_front(queued);
                }
                tokio::select! {
                    biased;
                    changed = leadership.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                }
            }
        }
    }
}

fn give_back(queued: Vec<Queued>, why: &str) {
    for queued in queued {
        let _ = queued.reply.send(Outcome::NotProposed(why.to_owned()));
    }
}

/// The next proposals, within the limits (but at least one); those nobody waits for any more are dropped.
fn take_batch(waiting: &mut VecDeque<Queued>) -> Vec<Queued> {
    let now = Instant::now();
    let mut batch: Vec<Queued> = Vec::new();
    let (mut commands, mut bytes) = (0, 0);
    while let Some(next) = waiting.front() {
        let full = commands + next.count > BATCH_COMMANDS || bytes + next.commands.len() > BATCH_BYTES;
        if full && !batch.is_empty() {
            break;
        }
        let next = waiting.pop_front().expect("just seen");
        if next.deadline <= now || next.reply.is_closed() {
            if next.ticket.cancel() {
                let _ = next.reply.send(Outcome::NotProposed("the deadline passed".to_owned()));
            }
            continue;
        }
        if next.ticket.change(Ticket::WAITING, Ticket::TRYING) {
            commands += next.count;
            bytes += next.commands.len();
            batch.push(next);
        }
    }
    batch
}

async fn attempt(inner: &Inner, batch: &[Queued]) -> Outcome {
    let latest = batch.iter().map(|q| q.deadline).max().expect("a batch is not empty");
    let deadline = latest.min(Instant::now() + ATTEMPT_DEADLINE);
    let count = batch.iter().map(|q| q.count).sum();
    let parts: Vec<&Bytes> = batch.iter().map(|q| &q.commands).collect();
    let attempt = async {
        match inner.leader() {
            None => Outcome::NotProposed("there is no leader".to_owned()),
            Some((leader, _)) if leader == inner.id => write(inner, count, entry(count, &parts)).await,
            Some((leader, _)) => match inner.address(leader) {
                None => Outcome::NotProposed(format!("the address of leader {leader} is not known yet")),
                Some(address) => {
                    let commands =
                        Bytes::from(parts.iter().flat_map(|p| p.iter().copied()).collect::<Vec<u8>>());
                    forward(inner, leader, &address, count, commands).await
                }
            },
        }
    };
    tokio::time::timeout_at(deadline, attempt)
        .await
        .unwrap_or_else(|_| Outcome::Unknown("no answer within the deadline".to_owned()))
}

async fn write(inner: &Inner, count: u32, proposal: Proposal) -> Outcome {
    match inner.raft.client_write(proposal).await {
        Ok(written) => match written.data {
            Response::Batch(responses) if count > 1 => Outcome::Applied(responses),
            response => Outcome::Applied(vec![response]),
        },
        Err(RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_))) => {
            Outcome::Unknown(error.to_string())
        }
        Err(RaftError::APIError(error)) => Outcome::NotProposed(error.to_string()),
        Err(RaftError::Fatal(fatal)) => Outcome::Unknown(fatal.to_string()),
    }
}

async fn forward(inner: &Inner, leader: u64, address: &str, count: u32, commands: Bytes) -> Outcome {
    let mut client = inner.peers.client(leader, address, Lane::Urgent);
    let request = proto::Proposal { from: inner.id, to: leader, count, commands };
    let reply = match client.propose(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) if was_not_sent(&status) || status.code() == tonic::Code::FailedPrecondition => {
            return Outcome::NotProposed(status.to_string());
        }
        Err(status) => return Outcome::Unknown(status.to_string()),
    };
    match reply.outcome() {
        proposal_reply::Outcome::Applied => match postcard::from_bytes::<Vec<Response>>(&reply.responses) {
            Ok(responses) if responses.len() == count as usize => Outcome::Applied(responses),
            Ok(_) => Outcome::Unknown("the leader's answer has the wrong length".to_owned()),
            Err(error) => Outcome::Unknown(format!("the leader's answer cannot be read: {error}")),
        },
        proposal_reply::Outcome::NotLeader => Outcome::NotProposed(reply.message),
        proposal_reply::Outcome::Unknown => Outcome::Unknown(reply.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_record::BrokerId;

    #[test]
    fn an_entry_made_of_encoded_commands_is_the_encoding_of_their_batch() {
        for count in [1_u64, 2, 3, 127, 128, 300, 20_000] {
            let commands: Vec<Command> =
                (0..count).map(|id| Command::UnregisterBroker { id: BrokerId(id) }).collect();
            let encoded: Vec<Bytes> = commands.iter().map(|c| c.encode().into()).collect();
            let proposal = entry(count as u32, &encoded.iter().collect::<Vec<_>>());
            let expected = match &commands[..] {
                [one] => one.clone(),
                _ => Command::Batch(commands),
            };
            assert_eq!(Command::decode(&proposal.0).unwrap(), expected);
        }
    }

    #[test]
    fn forwarded_bytes_that_are_not_exactly_the_announced_commands_are_refused() {
        let commands =
            [Command::AllocateProducerIds { count: 1 }, Command::UnregisterBroker { id: BrokerId(3) }];
        let bytes = encode_commands(&commands);
        assert_eq!(check_forwarded(2, &bytes), Ok(()));
        assert!(check_forwarded(1, &bytes).is_err());
        assert!(check_forwarded(3, &bytes).is_err());
        assert!(check_forwarded(0, &[]).is_err());
        assert!(check_forwarded(2, &bytes[..bytes.len() - 1]).is_err());
        assert!(check_forwarded(1, &Command::Batch(commands.to_vec()).encode()).is_err());
    }
}
