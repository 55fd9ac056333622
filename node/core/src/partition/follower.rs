//! A follower in one epoch of a partition. One value per epoch (and per leader: they change together).
//!
//! ```text
//!            request()                    answer()
//!   ready ────────────────▶ asked ─────────────────────▶ ready   (refused: retry; marks only: stays asked)
//!     ▲                                     │ Append / Truncate / Reset
//!     └──────── appended() / truncated() ── busy
//! ```
//!
//! Invariants (asserted):
//! * log start ≤ high watermark ≤ log end, flushed end ≤ log end;
//! * at most one request is outstanding; only its own answer is used, and only while the log is the one that
//!   it described (a late second answer must not truncate what has been refetched and acknowledged since);
//! * the log is cut only at an epoch's end, never because of a high watermark, and never below the own high
//!   watermark unless an unclean election came after it was learnt (then a log of which nothing would be left begins
//!   again at 0: its own log start may be of another history);
//! * what is acknowledged is what is flushed.
//!
//! A request is answered once: with data, with where the logs part, or with a refusal. Before that, any number
//! of answers without data may bring new marks (high watermark, log start); the request stays outstanding, so
//! a request that has nothing to get simply waits at the leader. One request at a time costs a round trip per
//! answer and keeps every answer exactly as the model has it; appending and the next request do not wait for
//! the local flush, whose end follows as an acknowledgement of its own ([`Follower::flushed`]).

use super::FlushToken;
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};

#[derive(Clone, Copy, Debug)]
pub struct FollowerStart {
    pub tp: TopicPartition,
    pub leader: BrokerId,
    pub epoch: LeaderEpoch,
    /// This process's registration.
    pub broker_epoch: BrokerEpoch,
    /// From the same image: epoch of the partition's last unclean election, 0 if there was none.
    pub unclean_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub log_end: Offset,
    /// Epoch of the last record, from the epoch cache; `None`: the log is empty.
    pub last_epoch: Option<LeaderEpoch>,
    pub flushed: Offset,
    /// From this replica's earlier roles in this process; the log start after a restart.
    pub high_watermark: Offset,
    /// The epoch in which it was learnt; 0 after a restart.
    pub high_watermark_epoch: LeaderEpoch,
    pub truncations: u64,
    /// The last request number used for this partition by this process: numbers grow across epochs, leaders
    /// and streams, so that an old acknowledgement is told from a new one.
    pub last_number: u64,
}

impl FollowerStart {
    /// Whether what this replica knows as visible, learnt in `learnt_in`, may have been lost by an unclean election.
    fn is_after_unclean_election(&self, learnt_in: LeaderEpoch) -> bool {
        self.unclean_epoch > learnt_in
    }

    /// The log must first begin again at 0: nothing of it is left to be compared with the leader's, and what was
    /// deleted below its start may have been of another history than the one that an unclean election chose.
    pub fn begins_again(&self) -> bool {
        self.last_epoch.is_none()
            && self.log_start > Offset::ZERO
            && self.is_after_unclean_election(self.high_watermark_epoch)
    }

    /// The same after that has been done.
    pub fn begun_again(self) -> Self {
        let zero = Offset::ZERO;
        FollowerStart {
            log_start: zero,
            log_end: zero,
            flushed: zero,
            high_watermark: zero,
            truncations: self.truncations + 1,
            ..self
        }
    }
}

#[derive(Debug)]
pub struct Follower {
    start: FollowerStart,
    log_start: Offset,
    log_end: Offset,
    last_epoch: Option<LeaderEpoch>,
    /// ≤ `log_end`.
    flushed: Offset,
    /// ≤ `log_end`.
    high_watermark: Offset,
    high_watermark_epoch: LeaderEpoch,
    truncations: u64,
    number: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ready,
    Asked(Asked),
    Appending(Marks),
    Truncating { to: Offset },
    Resetting { start: Offset },
}

/// The log as the outstanding request described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    number: u64,
    next: Offset,
    last_epoch: Option<LeaderEpoch>,
}

/// The leader's, as of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    high_watermark: Offset,
    log_start: Offset,
}

/// What to send; the leader's side of it is [`super::FollowerFetch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerRequest {
    pub number: u64,
    pub broker_epoch: BrokerEpoch,
    pub leader_epoch: LeaderEpoch,
    pub next_offset: Offset,
    pub last_epoch: Option<LeaderEpoch>,
    pub flushed_end: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the request that this answers.
    pub number: u64,
    pub leader_epoch: LeaderEpoch,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Batches that begin at `base`, which is the `next_offset` asked for.
    Data {
        base: Offset,
        high_watermark: Offset,
        log_start: Offset,
    },
    /// No batches yet; the request stays outstanding.
    Marks {
        high_watermark: Offset,
        log_start: Offset,
    },
    Diverging {
        epoch: Option<LeaderEpoch>,
        end: Offset,
    },
    BelowLogStart {
        log_start: Offset,
    },
    /// Not leader, another epoch, stale broker, error: whatever the reason, ask again later.
    Refused,
}

/// What to do with an answer.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Not an answer to what is asked now.
    Ignore,
    /// New marks, nothing to write.
    Learned(Learned),
    /// Append the answer's batches as they are, check that they begin at `base`, then call
    /// [`Follower::appended`] (also if only some could be appended) and ask again.
    Append { base: Offset },
    /// Truncate the log, then [`Follower::truncated`], then ask again.
    Truncate(Truncation),
    /// Delete the log and begin an empty one at `start`, then [`Follower::truncated`], then ask again.
    Reset { start: Offset },
    /// Ask again after a pause (or when the image moves): refused, or an answer that makes no sense.
    Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The new log end: everything at and above goes.
    pub to: Offset,
}

/// What changed here because the leader's marks moved.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    pub high_watermark: Option<Offset>,
    /// Records below may be deleted.
    pub log_start: Option<Offset>,
}

impl Follower {
    pub fn new(start: FollowerStart) -> Self {
        let follower = Follower {
            start,
            log_start: start.log_start,
            log_end: start.log_end,
            last_epoch: start.last_epoch,
            flushed: start.flushed,
            high_watermark: start.high_watermark.max(start.log_start),
            high_watermark_epoch: start.high_watermark_epoch,
            truncations: start.truncations,
            number: start.last_number,
            step: Step::Ready,
        };
        assert!(start.last_epoch <= Some(start.epoch), "{}: records of a later epoch", start.tp);
        assert!(!start.begins_again(), "{}: nothing is left of the log, which did not begin again", start.tp);
        follower.check();
        follower
    }

    fn check(&self) {
        let tp = self.start.tp;
        assert!(self.log_start <= self.high_watermark, "{tp}: log start above the high watermark");
        assert!(self.high_watermark <= self.log_end, "{tp}: high watermark above the log end");
        assert!(self.flushed <= self.log_end, "{tp}: flushed end above the log end");
    }

    /// The next request, if one is due: nothing is outstanding and no action is unfinished.
    pub fn request(&mut self) -> Option<FollowerRequest> {
        if self.step != Step::Ready {
            return None;
        }
        self.number += 1;
        let asked = Asked { number: self.number, next: self.log_end, last_epoch: self.last_epoch };
        self.step = Step::Asked(asked);
        Some(FollowerRequest {
            number: asked.number,
            broker_epoch: self.start.broker_epoch,
            leader_epoch: self.start.epoch,
            next_offset: asked.next,
            last_epoch: asked.last_epoch,
            flushed_end: self.flushed,
        })
    }

    /// The stream is gone, and the request with it.
    pub fn disconnected(&mut self) {
        if matches!(self.step, Step::Asked(_)) {
            self.step = Step::Ready;
        }
    }

    /// `log_start` is the log's own: retention raises it without a word here. `own_end` is where the log's largest epoch
    /// at or below the one asked ends; where there is none, the log start at that moment.
    pub fn answer(
        &mut self,
        answer: &Answer,
        log_start: Offset,
        own_end: impl Fn(LeaderEpoch) -> Offset,
    ) -> Action {
        let Step::Asked(asked) = self.step else {
            return Action::Ignore;
        };
        if answer.number != asked.number {
            return Action::Ignore;
        }
        if answer.outcome == Outcome::Refused {
            self.step = Step::Ready;
            return Action::Retry;
        }
        if answer.leader_epoch != self.start.epoch {
            return Action::Ignore;
        }
        assert!(
            asked.next == self.log_end && asked.last_epoch == self.last_epoch,
            "{}: the log moved under an outstanding request",
            self.start.tp
        );
        self.step = Step::Ready;
        self.log_start = self.log_start.max(log_start.min(self.high_watermark));
        match answer.outcome {
            Outcome::Marks { high_watermark, log_start } => {
                self.step = Step::Asked(asked);
                Action::Learned(self.learn(Marks { high_watermark, log_start }))
            }
            Outcome::Data { base, high_watermark, log_start } if base == asked.next => {
                self.step = Step::Appending(Marks { high_watermark, log_start });
                Action::Append { base }
            }
            Outcome::Data { .. } | Outcome::Refused => Action::Retry,
            Outcome::Diverging { epoch: Some(epoch), end } => {
                // With no such epoch of its own nothing here can be right.
                let to = end.min(own_end(epoch));
                if to <= self.log_start && self.start.is_after_unclean_election(self.high_watermark_epoch) {
                    self.step = Step::Resetting { start: Offset::ZERO };
                    return Action::Reset { start: Offset::ZERO };
                }
                let to = to.max(self.log_start);
                if to >= self.log_end {
                    return Action::Retry; // it would never end; a leader that follows the rules cannot say so
                }
                self.may_truncate(to);
                self.step = Step::Truncating { to };
                Action::Truncate(Truncation { to })
            }
            Outcome::Diverging { epoch: None, end: start } => {
                // An empty log has nothing to lose. (Its high watermark may be no more than its log start, which a power
                // loss has left without the records behind it.)
                if self.log_start < self.log_end {
                    self.may_truncate(start);
                }
                self.step = Step::Resetting { start };
                Action::Reset { start }
            }
            Outcome::BelowLogStart { log_start: start } => {
                if start <= self.log_end {
                    return Action::Retry; // not below: a leader that follows the rules cannot say so
                }
                self.step = Step::Resetting { start };
                Action::Reset { start }
            }
        }
    }

    fn may_truncate(&self, to: Offset) {
        assert!(
            to >= self.high_watermark || self.start.is_after_unclean_election(self.high_watermark_epoch),
            "{}: told to truncate to {to}, below the high watermark {} learnt in epoch {}",
            self.start.tp,
            self.high_watermark,
            self.high_watermark_epoch,
        );
    }

    /// The answer's batches are in the log, whose end and last epoch are now these. If they could not all be
    /// appended (a bad batch, a full disk) the end says how far it came; the caller asks again after a pause.
    pub fn appended(&mut self, log_end: Offset, last_epoch: Option<LeaderEpoch>) -> Learned {
        let Step::Appending(marks) = self.step else {
            panic!("{}: appended without being told to", self.start.tp);
        };
        assert!(log_end >= self.log_end, "{}: an append lowered the log end", self.start.tp);
        self.step = Step::Ready;
        self.log_end = log_end;
        self.last_epoch = last_epoch;
        self.learn(marks)
    }

    /// The log has been truncated or reset as told; its last epoch is now this one, and its end `log_end`
    /// (at most what was said; lower where only whole batches can go).
    pub fn truncated(&mut self, log_end: Offset, last_epoch: Option<LeaderEpoch>) {
        match self.step {
            Step::Truncating { to } => {
                assert!(log_end <= to, "{}: truncated too little", self.start.tp);
                self.may_truncate(log_end);
                self.flushed = self.flushed.min(log_end);
                self.high_watermark = self.high_watermark.min(log_end);
            }
            Step::Resetting { start } => {
                assert_eq!(log_end, start, "{}: reset to another offset", self.start.tp);
                assert_eq!(last_epoch, None, "{}: a log just emptied has no epoch", self.start.tp);
                self.log_start = start;
                // It counts as flushed once the flush says so: a loss of power may bring the old log back.
                self.flushed = self.flushed.min(start);
                // All below was deleted on the leader, and so below its high watermark.
                self.high_watermark = start;
                self.high_watermark_epoch = self.start.epoch;
            }
            step => panic!("{}: truncated without being told to ({step:?})", self.start.tp),
        }
        self.step = Step::Ready;
        self.log_end = log_end;
        self.last_epoch = last_epoch;
        self.truncations += 1;
        self.check();
    }

    /// HW := min(leader's HW, own log end). The log is a prefix of the leader's when this is called.
    fn learn(&mut self, marks: Marks) -> Learned {
        let high_watermark = marks.high_watermark.min(self.log_end).max(self.log_start);
        let log_start = marks.log_start.min(high_watermark).max(self.log_start);
        let learned = Learned {
            high_watermark: (high_watermark != self.high_watermark).then_some(high_watermark),
            log_start: (log_start > self.log_start).then_some(log_start),
        };
        self.high_watermark = high_watermark;
        self.high_watermark_epoch = self.start.epoch;
        self.log_start = log_start;
        self.check();
        learned
    }

    /// To be given back with the flush that is being asked for.
    pub fn flush_token(&self) -> FlushToken {
        FlushToken { leader_epoch: self.start.epoch, truncations: self.truncations }
    }

    /// A flush asked for under `token`, after [`Follower::appended`], has made everything below `end` durable.
    /// `Some(A)`: send it as an
    /// acknowledgement of its own; otherwise the next request carries it.
    pub fn flushed(&mut self, token: FlushToken, end: Offset) -> Option<Offset> {
        if token != self.flush_token() || end <= self.flushed {
            return None;
        }
        assert!(end <= self.log_end, "{}: flushed beyond the log end", self.start.tp);
        self.flushed = end;
        matches!(self.step, Step::Asked(_)).then_some(self.flushed)
    }

    /// Number of the request that waits for its answer.
    pub fn outstanding(&self) -> Option<u64> {
        match self.step {
            Step::Asked(asked) => Some(asked.number),
            _ => None,
        }
    }

    // ---- views ----

    pub fn leader(&self) -> BrokerId {
        self.start.leader
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.start.epoch
    }

    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    pub fn flushed_end(&self) -> Offset {
        self.flushed
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The epoch in which the high watermark was learnt; goes into the next role's start with it.
    pub fn high_watermark_epoch(&self) -> LeaderEpoch {
        self.high_watermark_epoch
    }

    pub fn truncations(&self) -> u64 {
        self.truncations
    }

    pub fn last_number(&self) -> u64 {
        self.number
    }
}
