//! Whether a cluster that has come right again serves everybody (I19): each topic, each reader and the group, and no
//! record sent from then on fails.
//!
//! A cluster can look whole and yet give nothing to a client that is stuck on an address, an epoch or a generation of
//! the time before; only that client's own work shows it.

use crate::history::{Acks, Attempt, Event, Outcome, Session, Tp, What};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Acknowledged records that a topic with a producer must get.
const ENOUGH: u64 = 5;

/// Follows the history from the moment on at which the cluster has converged.
#[derive(Debug, Default)]
pub struct Serving {
    /// Records sent since, and what their producer is promised.
    sent: BTreeMap<Attempt, Sent>,
    acknowledged: BTreeMap<Arc<str>, u64>,
    readers: BTreeSet<Session>,
    committed: bool,
    /// The first record sent since that was not acknowledged, and why.
    refused: Option<String>,
}

#[derive(Debug)]
struct Sent {
    tp: Tp,
    acks: Acks,
    idempotent: bool,
}

impl Sent {
    /// Whether this is one that a cluster may answer while leaders change hands, as they may once more after all faults
    /// have ended: a connection that died in the meantime ends a session a while later.
    fn may_end(&self, outcome: &Outcome<Option<i64>>) -> bool {
        match outcome {
            Outcome::Acknowledged(_) => true,
            // Who does not wait for the whole ISR is not promised anything.
            Outcome::Failed(_) => self.acks != Acks::All,
            // Who numbers its batches may send them again, however it ended the first time.
            Outcome::Unknown(_) => self.acks != Acks::All || !self.idempotent,
        }
    }
}

impl Serving {
    pub fn follow(&mut self, event: &Event) {
        match &event.what {
            What::Send { attempt, tp, acks, idempotent, .. } => {
                let sent = Sent { tp: tp.clone(), acks: *acks, idempotent: *idempotent };
                self.sent.insert(*attempt, sent);
            }
            What::Sent { attempt, outcome, .. } => self.ended(attempt, outcome),
            What::Read { session, .. } => {
                self.readers.insert(*session);
            }
            What::Committed { outcome: Outcome::Acknowledged(()), .. } => self.committed = true,
            _ => {}
        }
    }

    fn ended(&mut self, attempt: &Attempt, outcome: &Outcome<Option<i64>>) {
        let Some(sent) = self.sent.remove(attempt) else { return };
        match outcome {
            Outcome::Acknowledged(_) => *self.acknowledged.entry(sent.tp.topic).or_default() += 1,
            Outcome::Failed(why) | Outcome::Unknown(why) if !sent.may_end(outcome) => {
                self.refused.get_or_insert_with(|| format!("{attempt:?} to {}: {why}", sent.tp));
            }
            Outcome::Failed(_) | Outcome::Unknown(_) => {}
        }
    }

    /// Whether everybody of these has been served: topics that a producer writes to, as many readers and members
    /// together, and a group that commits, if it has members.
    ///
    /// # Errors
    /// Who has not.
    pub fn served(&self, topics: &BTreeSet<String>, readers: usize, members: usize) -> Result<(), String> {
        for topic in topics {
            let acknowledged = self.acknowledged.get(topic.as_str()).copied().unwrap_or(0);
            if acknowledged < ENOUGH {
                return Err(format!("{acknowledged} records were acknowledged in {topic}"));
            }
        }
        if self.readers.len() < readers {
            return Err(format!("{} of {readers} readers and members read something", self.readers.len()));
        }
        match members > 0 && !self.committed {
            true => Err("the group committed nothing".to_owned()),
            false => Ok(()),
        }
    }

    /// Whether a record sent since was refused.
    ///
    /// # Errors
    /// Which, and why.
    pub fn refused_none(&self) -> Result<(), String> {
        match &self.refused {
            Some(refused) => Err(refused.clone()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: What) -> Event {
        Event { at_us: 0, what }
    }

    fn send(serving: &mut Serving, number: u64, acks: Acks) {
        send_as(serving, number, acks, true);
    }

    fn send_as(serving: &mut Serving, number: u64, acks: Acks, idempotent: bool) {
        let (session, attempt, tp) = (Session(1), Attempt(number), Tp::new("t", 0));
        serving.follow(&event(What::Send { session, attempt, tp, acks, idempotent }));
    }

    fn end(serving: &mut Serving, number: u64, outcome: Outcome<Option<i64>>) {
        serving.follow(&event(What::Sent { session: Session(1), attempt: Attempt(number), outcome }));
    }

    #[test]
    fn whoever_is_not_served_is_named() {
        let mut serving = Serving::default();
        let topics = BTreeSet::from(["t".to_owned()]);
        assert!(serving.served(&topics, 2, 1).unwrap_err().contains("0 records"));
        for number in 0..ENOUGH {
            send(&mut serving, number, Acks::All);
            end(&mut serving, number, Outcome::Acknowledged(Some(number as i64)));
        }
        assert!(serving.served(&topics, 2, 1).unwrap_err().contains("0 of 2 readers"));
        for session in 2..4 {
            let (session, tp) = (Session(session), Tp::new("t", 0));
            let read = What::Read { session, tp, offset: 0, leader_epoch: 0, attempt: None, checksum: 0 };
            serving.follow(&event(read));
        }
        assert!(serving.served(&topics, 2, 1).unwrap_err().contains("committed nothing"));
        serving.served(&topics, 2, 0).unwrap();
        let outcome = Outcome::Acknowledged(());
        serving.follow(&event(What::Committed { session: Session(2), commit: 1, outcome }));
        serving.served(&topics, 2, 1).unwrap();
    }

    #[test]
    fn only_records_sent_since_to_the_whole_isr_and_with_numbers_must_be_acknowledged() {
        let mut serving = Serving::default();
        end(&mut serving, 1, Outcome::Failed("sent before".to_owned()));
        send(&mut serving, 2, Acks::Leader);
        end(&mut serving, 2, Outcome::Unknown("cut off".to_owned()));
        send_as(&mut serving, 4, Acks::All, false);
        end(&mut serving, 4, Outcome::Unknown("the leader changed".to_owned()));
        serving.refused_none().unwrap();
        send(&mut serving, 3, Acks::All);
        end(&mut serving, 3, Outcome::Unknown("timed out".to_owned()));
        assert!(serving.refused_none().unwrap_err().contains("timed out"));
    }
}
