//! The batches of one partition that are sent and not yet settled: their order, their sequences, and what
//! each answer means for them. Pure.
//!
//! ```text
//!  push ──► Waiting ──take──► Outstanding ──Appended──────────► done
//!              ▲                  │ NotAppended, Unknown,
//!              └──────────────────┘ OutOfOrder behind another
//!
//!  a gap that no answer will fill (rejected, expired, lost by the broker) ──► broken: nothing is sent until
//!  every outstanding batch is settled; then `recover` numbers what is left anew under a new producer epoch
//! ```
//!
//! Invariants
//! - At most `limit` batches are here; idempotent, at most five: the broker remembers five (KIP-98).
//! - Sequences ascend from the first batch to the last without overlap, under one producer id and epoch, unless
//!   broken; a gap between two is a batch that was acknowledged before the one ahead of it.
//! - Batches go out in order. One that must be sent again waits until no later one is outstanding, so that the
//!   wire never carries a later batch ahead of an earlier one that the broker lacks.
//! - A batch gets a new sequence only if every attempt to send it was answered, and with a refusal (KIP-360
//!   where it is safe): were one copy still on its way, it could be appended twice.

use std::collections::VecDeque;
use strandline_record::sequence_plus;

/// The broker's memory of a producer's batches in a partition.
pub(crate) const MAX_IDEMPOTENT_IN_FLIGHT: usize = 5;

/// Producer id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In the log (now, or since an earlier attempt).
    Appended,
    /// Certainly not appended by this attempt; try again.
    NotAppended,
    /// No answer, or one that leaves it open.
    Unknown,
    /// The broker lacks a batch before this one.
    OutOfOrder,
    /// The broker no longer accepts this producer id and epoch here.
    IdentityLost,
    /// Certainly not appended, and never will be.
    Rejected,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Appended,
    /// It is not in the log and will not be.
    Failed,
    /// It may be in the log, or yet get there; once at most.
    Indeterminate,
}

/// Names a batch in the window, and which attempt to send it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    batch: u64,
    attempt: u32,
}

#[derive(Debug)]
struct Entry<B> {
    number: u64,
    /// `None` once its user has been told (expired while outstanding); kept for the sequence.
    batch: Option<B>,
    count: i32,
    sequence: i32,
    attempt: u32,
    outstanding: bool,
    /// Some attempt was never answered: a copy may be in the log, or on its way.
    uncertain: bool,
}

/// A batch to put on the wire.
#[derive(Debug)]
pub(crate) struct Outgoing<'a, B> {
    pub(crate) ticket: Ticket,
    pub(crate) batch: &'a mut B,
    /// `None` without idempotence.
    pub(crate) stamp: Option<(Identity, i32)>,
}

#[derive(Debug)]
pub(crate) struct Window<B> {
    limit: usize,
    idempotent: bool,
    identity: Option<Identity>,
    next_sequence: i32,
    next_number: u64,
    broken: bool,
    entries: VecDeque<Entry<B>>,
}

impl<B> Window<B> {
    pub(crate) fn new(limit: usize, idempotent: bool) -> Self {
        assert!(
            limit > 0 && (!idempotent || limit <= MAX_IDEMPOTENT_IN_FLIGHT),
            "the broker remembers five batches"
        );
        Window {
            limit,
            idempotent,
            identity: None,
            next_sequence: 0,
            next_number: 0,
            broken: false,
            entries: VecDeque::new(),
        }
    }

    /// How many more batches may be pushed.
    pub(crate) fn room(&self) -> usize {
        if self.broken { 0 } else { self.limit - self.entries.len() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a batch of `count` records. `identity` is the producer's present one: a window that is empty
    /// adopts it, one that is not finishes with its own first. Returns the stamp that the batch is to carry.
    ///
    /// # Panics
    /// If there is no [`room`](Self::room), or no identity though idempotent.
    pub(crate) fn push(
        &mut self,
        batch: B,
        count: i32,
        identity: Option<Identity>,
    ) -> Option<(Identity, i32)> {
        assert!(self.room() > 0, "a batch is pushed only where there is room");
        assert!(count > 0, "a batch holds records");
        if self.idempotent && self.entries.is_empty() && self.identity != identity {
            self.identity = identity;
            self.next_sequence = 0;
        }
        assert!(!self.idempotent || self.identity.is_some(), "an idempotent batch has a producer id");
        let sequence = self.next_sequence;
        self.next_sequence = sequence_plus(sequence, count);
        self.entries.push_back(Entry {
            number: self.next_number,
            batch: Some(batch),
            count,
            sequence,
            attempt: 0,
            outstanding: false,
            uncertain: false,
        });
        self.next_number += 1;
        self.identity.filter(|_| self.idempotent).map(|identity| (identity, sequence))
    }

    /// The batch pushed last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut B> {
        self.entries.back_mut().and_then(|entry| entry.batch.as_mut())
    }

    fn next_waiting(&self) -> Option<usize> {
        if self.broken {
            return None;
        }
        let first = self.entries.iter().position(|e| !e.outstanding)?;
        let behind_is_clear = self.entries.iter().skip(first + 1).all(|e| !e.outstanding);
        behind_is_clear.then_some(first)
    }

    /// Whether [`take`](Self::take) would give a batch.
    pub(crate) fn has_waiting(&self) -> bool {
        self.next_waiting().is_some()
    }

    /// The next batch to send; it counts as outstanding from now on.
    pub(crate) fn take(&mut self) -> Option<Outgoing<'_, B>> {
        let at = self.next_waiting()?;
        let identity = self.identity;
        let idempotent = self.idempotent;
        let entry = &mut self.entries[at];
        entry.outstanding = true;
        entry.attempt += 1;
        let stamp = idempotent.then(|| (identity.expect("set when pushed"), entry.sequence));
        let ticket = Ticket { batch: entry.number, attempt: entry.attempt };
        let batch = entry.batch.as_mut().expect("a batch without its user is not sent again");
        Some(Outgoing { ticket, batch, stamp })
    }

    /// Looks at a batch that is to be sent next, if there is one.
    pub(crate) fn peek(&self) -> Option<&B> {
        self.next_waiting().and_then(|at| self.entries[at].batch.as_ref())
    }

    /// Takes the outcome of an attempt. Outcomes of attempts that no longer count are ignored. Returns the
    /// batch if that ends it.
    pub(crate) fn settle(&mut self, ticket: Ticket, outcome: Outcome) -> Option<(B, Verdict)> {
        let at = self.entries.iter().position(|e| e.number == ticket.batch)?;
        let head = at == 0;
        let entry = &mut self.entries[at];
        if !entry.outstanding || entry.attempt != ticket.attempt {
            return None;
        }
        entry.outstanding = false;
        match outcome {
            Outcome::Appended => {
                let entry = self.entries.remove(at).expect("found above");
                entry.batch.map(|batch| (batch, Verdict::Appended))
            }
            Outcome::Rejected => self.drop_entry(at),
            Outcome::Unknown if !self.idempotent => {
                entry.uncertain = true;
                self.drop_entry(at)
            }
            Outcome::Unknown => {
                entry.uncertain = true;
                self.keep_or_drop(at)
            }
            Outcome::NotAppended => self.keep_or_drop(at),
            Outcome::OutOfOrder | Outcome::IdentityLost if !self.idempotent => self.drop_entry(at),
            Outcome::OutOfOrder => {
                // Behind an unsettled batch this is only its echo; at the head the gap is real.
                self.broken |= head;
                self.keep_or_drop(at)
            }
            Outcome::IdentityLost => {
                self.broken = true;
                self.keep_or_drop(at)
            }
        }
    }

    /// A batch to be sent again stays, unless its user has been told already.
    fn keep_or_drop(&mut self, at: usize) -> Option<(B, Verdict)> {
        if self.entries[at].batch.is_none() { self.drop_entry(at) } else { None }
    }

    /// Takes a batch out that is not known to be in the log: its sequences are missing from now on.
    fn drop_entry(&mut self, at: usize) -> Option<(B, Verdict)> {
        let entry = self.entries.remove(at).expect("the caller found it");
        let last = sequence_plus(entry.sequence, entry.count) == self.next_sequence;
        if self.idempotent {
            if last && !entry.uncertain && !self.broken {
                // Nobody saw these sequences: the next batch has them.
                self.next_sequence = entry.sequence;
            } else {
                self.broken = true;
            }
        }
        let verdict = if entry.uncertain { Verdict::Indeterminate } else { Verdict::Failed };
        entry.batch.map(|batch| (batch, verdict))
    }

    /// Ends the batches for which `is_due`. One that is outstanding is reported as indeterminate and stays
    /// until its answer comes, for its sequence.
    pub(crate) fn expire(&mut self, mut is_due: impl FnMut(&B) -> bool) -> Vec<(B, Verdict)> {
        let mut ended = Vec::new();
        // From the back, so that a tail of batches that nobody saw gives its sequences back.
        for at in (0..self.entries.len()).rev() {
            let entry = &mut self.entries[at];
            if !entry.batch.as_ref().is_some_and(&mut is_due) {
                continue;
            }
            if entry.outstanding {
                ended.extend(entry.batch.take().map(|batch| (batch, Verdict::Indeterminate)));
            } else {
                ended.extend(self.drop_entry(at));
            }
        }
        ended.reverse();
        ended
    }

    /// The partition starts anew (its topic was deleted and created again): old sequences mean nothing there.
    pub(crate) fn restart(&mut self) {
        self.broken |= self.idempotent && (!self.entries.is_empty() || self.next_sequence != 0);
    }

    /// Broken, and everything outstanding is settled: give it to [`recover`](Self::recover) with an identity
    /// other than this one.
    pub(crate) fn awaits_recovery(&self) -> Option<Identity> {
        (self.broken && self.entries.iter().all(|e| !e.outstanding))
            .then(|| self.identity.expect("idempotent"))
    }

    /// Goes on under a new identity. Batches that may be in the log already cannot be sent under other
    /// sequences: they end as indeterminate.
    ///
    /// # Panics
    /// If the window does not await it, or the identity is the old one.
    pub(crate) fn recover(&mut self, identity: Identity) -> Vec<(B, Verdict)> {
        assert!(self.awaits_recovery().is_some_and(|old| old != identity), "recovery needs a new identity");
        let mut ended = Vec::new();
        self.entries.retain_mut(|entry| {
            if entry.uncertain {
                ended.extend(entry.batch.take().map(|batch| (batch, Verdict::Indeterminate)));
            }
            entry.batch.is_some()
        });
        self.identity = Some(identity);
        self.next_sequence = 0;
        for entry in &mut self.entries {
            entry.sequence = self.next_sequence;
            self.next_sequence = sequence_plus(entry.sequence, entry.count);
        }
        self.broken = false;
        ended
    }

    /// Everything, at the end of the producer.
    pub(crate) fn drain(&mut self) -> Vec<(B, Verdict)> {
        let end = |e: Entry<B>| {
            let open = e.uncertain || e.outstanding;
            e.batch.map(|batch| (batch, if open { Verdict::Indeterminate } else { Verdict::Failed }))
        };
        self.entries.drain(..).filter_map(end).collect()
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
