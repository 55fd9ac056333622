//! "Leader of epoch e": the high watermark, fetches and acknowledgements, growing the ISR.

use crate::metadata::{BROKERS, has, size};
use crate::model::Replication;
use crate::replica::{Ack, Replica, Role};
use crate::state::{Body, Message, State};

impl Replication {
    /// What of a follower's (or the leader's own) log counts, by the flush mode in the leader's image.
    fn counting(&self, s: &State, b: usize, flushed: u8, end: u8) -> u8 {
        let flushed_only = self.rules.counts_flushed_only && !s.image(b).flush_later;
        if flushed_only { flushed } else { end }
    }

    pub(crate) fn own_end(&self, s: &State, b: usize) -> u8 {
        let replica = &s.replicas[b];
        self.counting(s, b, replica.flushed, replica.log.end())
    }

    /// A(f), if it counts: acknowledged in this epoch, under the broker epoch in the image.
    fn acknowledged(&self, s: &State, b: usize, f: usize) -> Option<u8> {
        let ack = s.replicas[b].acks[f]?;
        let current = ack.broker_epoch == s.image(b).broker_epoch[f];
        (current || !self.rules.hw_needs_current_broker_epoch)
            .then(|| self.counting(s, b, ack.flushed, ack.next))
    }

    /// HW := max(HW, min over the maximal ISR of (own F, followers' A)), and what passes it is visible and
    /// acknowledged.
    pub(crate) fn advance_high_watermark(&self, s: &mut State, b: usize) {
        let rules = &self.rules;
        let Some(leader) = s.replicas[b].leader() else { return };
        let epoch = leader.epoch;
        if rules.hw_needs_min_isr && size(leader.isr) < s.image(b).needed() {
            return;
        }
        let mut set = leader.isr;
        if rules.hw_over_maximal_isr {
            set |= leader.adds;
        }
        if !rules.removal_counts_once_committed {
            set &= !leader.removes;
        }
        let mut end = self.own_end(s, b);
        for f in (0..BROKERS).filter(|&f| f != b && has(set, f)) {
            match self.acknowledged(s, b, f) {
                Some(acknowledged) => end = end.min(acknowledged),
                None => return,
            }
        }
        let tracks_epoch = self.bounds.uncleans > 0;
        let replica = &mut s.replicas[b];
        if end > replica.high_watermark {
            replica.high_watermark = end;
            if tracks_epoch {
                replica.high_watermark_epoch = epoch;
            }
            let log = replica.log;
            s.see(epoch, &log, end);
        }
    }

    /// "Grow the ISR with f when …"
    pub(crate) fn may_grow(&self, s: &State, b: usize, f: usize) -> bool {
        let rules = &self.rules;
        let replica = &s.replicas[b];
        let image = s.image(b);
        let Some(leader) = replica.leader() else { return false };
        let Some(end) = self.acknowledged(s, b, f) else { return false };
        has(image.replicas, f)
            && (!rules.grow_needs_hw || end >= replica.high_watermark)
            && (!rules.grow_needs_epoch_start || end >= leader.start)
            && (!rules.alter_checks_unfenced || !has(image.fenced, f))
    }

    /// A request or an acknowledgement arrives at the broker that its sender takes for the leader.
    pub(crate) fn handle_request(&self, s: &mut State, message: Message) {
        let rules = &self.rules;
        let (b, f) = (message.leader as usize, message.follower as usize);
        let Some(leader) = s.replicas[b].leader() else { return };
        if rules.fetch_checks_leader_epoch && leader.epoch != message.leader_epoch {
            if leader.epoch < message.leader_epoch {
                // A higher epoch ends this leadership; the image may say so much later.
                s.replicas[b].led_until = leader.epoch;
                s.replicas[b].leave_role();
            }
            return;
        }
        let epoch = leader.epoch;
        let broker_epoch = match message.body {
            Body::Fetch { broker_epoch, .. } | Body::Ack { broker_epoch, .. } => broker_epoch,
            _ => unreachable!("answers go to followers"),
        };
        let stale = s.image(b).broker_epoch[f] != broker_epoch;
        if !has(s.image(b).replicas, f) || rules.fetch_checks_broker_epoch && stale {
            return;
        }
        if let Body::Ack { flushed, .. } = message.body {
            self.record_ack(&mut s.replicas[b], f, broker_epoch, flushed, message.number);
            self.advance_high_watermark(s, b);
            return;
        }
        let body = self.answer(&mut s.replicas[b], &message);
        self.advance_high_watermark(s, b);
        // An answer that would tell the follower nothing is not worth a state.
        let follower = &s.replicas[f];
        let news = match body {
            Body::Records { records, high_watermark, log_start } => {
                !records.is_empty()
                    || high_watermark > follower.high_watermark
                    || log_start > follower.log.start()
            }
            _ => true,
        };
        if follower.up && news {
            s.net.push(Message { leader_epoch: epoch, body, ..message });
        }
    }

    /// Where the logs part, or what follows; then the acknowledged end is recorded.
    fn answer(&self, replica: &mut Replica, message: &Message) -> Body {
        let rules = &self.rules;
        let Body::Fetch { broker_epoch, flushed } = message.body else { unreachable!("a fetch") };
        let log = replica.log;
        let next = message.next;
        if rules.fetch_checks_log_start && next < log.start() {
            return Body::StartAt { offset: log.start(), deleted: true };
        }
        let epoch_start = replica.leader().expect("it leads").start;
        let from_log_start = Body::StartAt { offset: log.start(), deleted: false };
        if message.last_epoch == 0 {
            if rules.fetch_checks_empty_log && next > epoch_start && next != log.start() {
                return from_log_start;
            }
        } else {
            let found = log.end_of_epoch(message.last_epoch);
            if rules.diverging_checks_epoch && found.is_none() {
                return from_log_start;
            }
            let (epoch, end) = found.unwrap_or((0, log.start()));
            let other_epoch = rules.diverging_checks_epoch && epoch != message.last_epoch;
            if other_epoch || rules.diverging_checks_end && end < next {
                return Body::Diverging { epoch, end };
            }
        }
        let f = message.follower as usize;
        let new = Ack { broker_epoch, flushed: flushed.min(next), next, matched: message.number };
        Self::record(replica, f, new);
        Body::Records {
            records: log.suffix(next.min(log.end())),
            high_watermark: replica.high_watermark,
            log_start: log.start(),
        }
    }

    /// As good as a fetch from the follower's log end, if a fetch has matched before it.
    fn record_ack(&self, replica: &mut Replica, f: usize, broker_epoch: u8, flushed: u8, number: u8) {
        let rules = &self.rules;
        let known = replica.acks[f].filter(|ack| ack.broker_epoch == broker_epoch);
        if known.is_none() && rules.ack_needs_match {
            return;
        }
        let matched = known.map_or(number, |ack| ack.matched);
        if matched > number && rules.ack_names_request {
            return;
        }
        let flushed = flushed.min(replica.log.end());
        Self::record(replica, f, Ack { broker_epoch, flushed, next: flushed, matched });
    }

    /// Within a broker epoch the ends never go back: a smaller one is an older message.
    fn record(replica: &mut Replica, f: usize, new: Ack) {
        let end = replica.log.end();
        let new = Ack { flushed: new.flushed.min(end), next: new.next.min(end), ..new };
        let ack = match replica.acks[f] {
            Some(old) if old.broker_epoch == new.broker_epoch => {
                Ack { flushed: old.flushed.max(new.flushed), next: old.next.max(new.next), ..old }
            }
            _ => new,
        };
        replica.acks[f] = Some(ack);
    }

    /// Whether it would answer `ListOffsets(latest)` and fetches at the end.
    pub(crate) fn tells_the_end(&self, replica: &Replica) -> bool {
        match &replica.role {
            Role::Leader(leader) => {
                replica.high_watermark >= leader.start || !self.rules.latest_waits_for_epoch_start
            }
            _ => false,
        }
    }
}
