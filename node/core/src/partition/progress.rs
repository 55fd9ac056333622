//! How far each follower has come, as its leader knows it.
//!
//! "Caught up" is Kafka's `lastCaughtUpTime` for a stream that is silent while there is nothing to say: a
//! follower is caught up while its acknowledged end is the log end, and otherwise was when it held what was
//! the log end at some earlier moment. One such moment is kept as a mark; reaching it moves both.

use super::Durability;
use std::collections::BTreeMap;
use strandline_record::{BrokerEpoch, BrokerId, Offset};

#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Under which registration the follower fetched. `None`: not in this epoch; nothing of it counts.
    ack: Option<Ack>,
    /// When it last had everything, as far as is known. `None`: never seen to.
    caught_up_ms: Option<u64>,
    /// The log end at `mark_ms`: who acknowledges this end was caught up then.
    mark_end: Offset,
    mark_ms: u64,
}

/// Recorded by a fetch that matched the leader's log, in this epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub broker_epoch: BrokerEpoch,
    /// Number of the first fetch that matched: from then on its log is a prefix of the leader's.
    pub matched: u64,
    /// What its disk holds.
    pub flushed: Offset,
    /// N: its log end when it last asked.
    pub next: Offset,
}

impl Ack {
    /// A: what counts for the high watermark.
    pub fn end(&self, durability: Durability) -> Offset {
        match durability {
            Durability::Flushed => self.flushed,
            Durability::Appended => self.next,
        }
    }
}

impl Progress {
    /// At the start of an epoch: members of the ISR get the benefit of the doubt, in time only.
    pub fn new(in_isr: bool, log_end: Offset, now_ms: u64) -> Self {
        Progress { ack: None, caught_up_ms: in_isr.then_some(now_ms), mark_end: log_end, mark_ms: now_ms }
    }

    pub fn ack(&self) -> Option<Ack> {
        self.ack
    }

    /// The acknowledged end, if it came under `current`, the broker epoch that the image shows.
    pub fn end_under(&self, current: Option<BrokerEpoch>, durability: Durability) -> Option<Offset> {
        self.ack.filter(|ack| Some(ack.broker_epoch) == current).map(|ack| ack.end(durability))
    }

    /// A fetch or acknowledgement that passed every check. Within a broker epoch the ends never go back:
    /// what the follower has acknowledged in this epoch it does not truncate in this epoch, so a smaller
    /// end is an older message.
    pub fn record(&mut self, new: Ack, durability: Durability, log_end: Offset, now_ms: u64) {
        let ack = match self.ack {
            Some(old) if old.broker_epoch == new.broker_epoch => {
                Ack { flushed: old.flushed.max(new.flushed), next: old.next.max(new.next), ..old }
            }
            Some(_) => {
                // Another registration: what it had before its restart says nothing of what it has now.
                (self.caught_up_ms, self.mark_end, self.mark_ms) = (None, log_end, now_ms);
                new
            }
            None => new,
        };
        self.ack = Some(ack);
        let end = ack.end(durability);
        if end >= log_end {
            self.caught_up_ms = Some(now_ms);
            (self.mark_end, self.mark_ms) = (log_end, now_ms);
        } else if end >= self.mark_end {
            self.caught_up_ms = self.caught_up_ms.max(Some(self.mark_ms));
            (self.mark_end, self.mark_ms) = (log_end, now_ms);
        }
    }

    /// The log is about to grow from `old_end` to `new_end`.
    pub fn log_grows(&mut self, durability: Durability, old_end: Offset, new_end: Offset, now_ms: u64) {
        if self.ack.is_some_and(|ack| ack.end(durability) >= old_end) {
            self.caught_up_ms = Some(now_ms);
            (self.mark_end, self.mark_ms) = (new_end, now_ms);
        }
    }

    /// For how long it has not been caught up; `None`: never has been.
    pub fn lag_ms(&self, durability: Durability, log_end: Offset, now_ms: u64) -> Option<u64> {
        if self.ack.is_some_and(|ack| ack.end(durability) >= log_end) {
            return Some(0);
        }
        self.caught_up_ms.map(|at| now_ms.saturating_sub(at))
    }
}

/// One replica as its leader sees it, for `topic describe` and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    pub broker: BrokerId,
    pub is_leader: bool,
    pub in_isr: bool,
    /// In the maximal ISR only: its addition is not committed yet.
    pub joining: bool,
    /// Its log end as last heard; `None` before its first fetch in this epoch.
    pub log_end: Option<Offset>,
    /// Its acknowledged end, likewise.
    pub acknowledged_end: Option<Offset>,
    /// Records between the leader's log end and its acknowledged end.
    pub lag: Option<i64>,
    /// Milliseconds since it last was caught up; `None`: never in this epoch.
    pub lag_ms: Option<u64>,
}

/// Progress of all followers of a partition.
pub(super) type Followers = BTreeMap<BrokerId, Progress>;

#[cfg(test)]
mod tests {
    use super::*;
    use Durability::Flushed;

    fn ack(end: i64) -> Ack {
        Ack { broker_epoch: BrokerEpoch(1), matched: 1, flushed: Offset(end), next: Offset(end) }
    }

    fn lag(p: &Progress, log_end: i64, now_ms: u64) -> Option<u64> {
        p.lag_ms(Flushed, Offset(log_end), now_ms)
    }

    #[test]
    fn a_silent_follower_at_the_log_end_is_caught_up_for_ever() {
        let mut p = Progress::new(true, Offset(0), 0);
        p.record(ack(10), Flushed, Offset(10), 5);
        assert_eq!(lag(&p, 10, 1_000_000), Some(0));
        p.log_grows(Flushed, Offset(10), Offset(11), 1_000_000);
        assert_eq!(lag(&p, 11, 1_000_100), Some(100));
    }

    #[test]
    fn a_follower_that_keeps_reaching_where_the_log_ended_is_not_lagging() {
        let mut p = Progress::new(false, Offset(0), 0);
        assert_eq!(lag(&p, 10, 50), None);
        p.record(ack(3), Flushed, Offset(10), 100);
        assert_eq!(lag(&p, 10, 100), Some(100), "it reached the first mark, set at 0");
        p.record(ack(9), Flushed, Offset(20), 200);
        assert_eq!(lag(&p, 20, 200), Some(200), "it has not reached 10, the end at 100");
        p.record(ack(10), Flushed, Offset(30), 300);
        assert_eq!(lag(&p, 30, 300), Some(200), "it holds what was the end at 100");
        p.record(ack(30), Flushed, Offset(40), 400);
        assert_eq!(lag(&p, 40, 450), Some(150), "it holds what was the end at 300");
    }

    #[test]
    fn an_older_message_moves_nothing_back_and_a_new_registration_starts_again() {
        let mut p = Progress::new(true, Offset(0), 0);
        p.record(ack(8), Flushed, Offset(10), 1);
        p.record(ack(5), Flushed, Offset(10), 2);
        assert_eq!(p.end_under(Some(BrokerEpoch(1)), Flushed), Some(Offset(8)));
        p.record(Ack { broker_epoch: BrokerEpoch(2), ..ack(5) }, Flushed, Offset(10), 3);
        assert_eq!(p.end_under(Some(BrokerEpoch(2)), Flushed), Some(Offset(5)));
        assert_eq!(p.end_under(Some(BrokerEpoch(1)), Flushed), None);
    }

    #[test]
    fn where_appended_counts_the_position_asked_for_is_the_acknowledgement() {
        let mut p = Progress::new(true, Offset(0), 0);
        p.record(Ack { flushed: Offset(2), ..ack(8) }, Durability::Appended, Offset(8), 1);
        assert_eq!(p.end_under(Some(BrokerEpoch(1)), Durability::Appended), Some(Offset(8)));
        assert_eq!(p.end_under(Some(BrokerEpoch(1)), Flushed), Some(Offset(2)));
    }
}
