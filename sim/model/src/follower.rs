//! "Follower in epoch e", and which role a broker takes when its image moves.

use crate::log::{CAPACITY, Log};
use crate::metadata::{BROKERS, has};
use crate::model::Replication;
use crate::replica::{Leader, Replica, Role};
use crate::state::{Body, Message, State};

impl Replication {
    /// What a broker does when its image or its registration has moved.
    pub(crate) fn take_role(&self, s: &mut State, b: usize) {
        let rules = &self.rules;
        let image = *s.image(b);
        let replica = &mut s.replicas[b];
        let registered = replica.broker_epoch != 0 && image.broker_epoch[b] == replica.broker_epoch;
        if rules.role_after_registration && !registered {
            return;
        }
        if !has(image.replicas, b) {
            // No replica (any more): its log goes.
            replica.leave_role();
            replica.cut(Log::EMPTY, 0);
            (replica.disk, replica.flush) = (Log::EMPTY, None);
            (replica.high_watermark_epoch, replica.damaged) = (0, false);
            return;
        }
        if replica.damaged && has(image.reported, b) {
            replica.damaged = false;
        }
        if rules.role_after_damage_report && replica.damaged {
            return;
        }
        let over = rules.leads_once_per_epoch && image.leader_epoch <= replica.led_until;
        if replica.epoch() < image.leader_epoch && !over {
            let acks = replica.acks;
            replica.leave_role();
            replica.led_until = 0;
            if !rules.acks_reset_each_epoch {
                replica.acks = acks;
            }
            if image.leader as usize == b {
                replica.role = Role::Leader(Leader {
                    epoch: image.leader_epoch,
                    start: replica.log.end(),
                    isr: image.isr,
                    partition_epoch: image.partition_epoch,
                    unanswered: false,
                    adds: 0,
                    removes: 0,
                });
                self.begin_to_lead(s, b);
            } else {
                if !rules.truncates_by_epoch {
                    replica.truncate(replica.high_watermark);
                }
                replica.role = Role::Follower { epoch: image.leader_epoch };
                let nothing_left = replica.log.is_empty() && replica.log.last_epoch() == 0;
                let excused = image.unclean_epoch > replica.high_watermark_epoch;
                if rules.begins_again_after_unclean && nothing_left && replica.log.start() > 0 && excused {
                    self.begin_again(s, b as u8, 0, excused);
                }
            }
        } else if let Some(leader) = replica.leader_mut() {
            if image.partition_epoch > leader.partition_epoch {
                leader.adopt(image.partition_epoch, image.isr);
            }
            for f in (0..BROKERS).filter(|&f| !has(image.replicas, f)) {
                replica.acks[f] = None;
            }
        }
        self.advance_high_watermark(s, b);
    }

    fn begin_to_lead(&self, s: &mut State, b: usize) {
        let own_end = self.own_end(s, b);
        let replica = &mut s.replicas[b];
        if self.rules.hw_starts_at_flushed {
            replica.high_watermark = replica.high_watermark.min(own_end).max(replica.log.start());
        }
        if self.bounds.uncleans > 0 {
            replica.high_watermark_epoch = replica.epoch();
        }
        let (epoch, log, end) = (replica.epoch(), replica.log, replica.high_watermark);
        s.see(epoch, &log, end);
    }

    /// Follower: truncate or append.
    pub(crate) fn handle_answer(&self, s: &mut State, message: Message) {
        let rules = &self.rules;
        let replica = &mut s.replicas[message.follower as usize];
        let Role::Follower { epoch } = replica.role else { return };
        if rules.answer_checks_leader_epoch && epoch != message.leader_epoch {
            return;
        }
        let as_asked = message.next == replica.log.end() && message.last_epoch == replica.log.last_epoch();
        if rules.answer_matches_request && !as_asked {
            return;
        }
        let unclean = s.history[replica.image as usize].unclean_epoch;
        let excused = rules.unclean_excuses_truncation && unclean > replica.high_watermark_epoch;
        match message.body {
            Body::Diverging { epoch, end } => {
                let own = replica.log.end_of_epoch(epoch).map_or(replica.log.start(), |(_, end)| end);
                let end = if rules.truncates_to_own_end { end.min(own) } else { end };
                if excused && end <= replica.log.start() && rules.begins_again_after_unclean {
                    self.begin_again(s, message.follower, 0, excused);
                } else {
                    let end = end.max(replica.log.start());
                    s.no_progress |= as_asked && end >= replica.log.end();
                    s.assertion |= end < replica.high_watermark && !excused;
                    replica.truncate(end);
                    self.count_cut(replica);
                }
            }
            Body::StartAt { offset, deleted } => {
                s.no_progress |= as_asked && deleted && offset <= replica.log.end();
                self.begin_again(s, message.follower, offset, excused);
            }
            Body::Records { records, high_watermark, log_start } if message.next == replica.log.end() => {
                // (Only a mutant can be sent more than there is room for.)
                let room = CAPACITY as u8 - replica.log.end();
                for offset in (records.start()..records.end()).take(room as usize) {
                    replica.log.push(records.get(offset).expect("within the records"));
                }
                let high_watermark = high_watermark.min(replica.log.end()).max(replica.log.start());
                replica.high_watermark = high_watermark;
                if self.bounds.uncleans > 0 {
                    replica.high_watermark_epoch = epoch;
                }
                self.delete(replica, log_start.min(high_watermark));
            }
            _ => {}
        }
    }

    /// With an empty log, at `offset`.
    fn begin_again(&self, s: &mut State, follower: u8, offset: u8, excused: bool) {
        let replica = &mut s.replicas[follower as usize];
        // An empty log has nothing to lose.
        s.assertion |= !replica.log.is_empty() && offset < replica.high_watermark && !excused;
        replica.cut(Log::starting_at(offset), offset);
        if !self.rules.reset_counts_once_flushed {
            replica.flushed = offset;
        }
        // What is below was deleted on the leader, and so below its high watermark.
        replica.high_watermark = offset;
        if self.bounds.uncleans > 0 {
            replica.high_watermark_epoch = replica.epoch();
        }
        self.count_cut(replica);
    }

    fn count_cut(&self, replica: &mut Replica) {
        if self.bounds.acks {
            replica.number += 1;
        }
    }

    /// Raises the log start.
    pub(crate) fn delete(&self, replica: &mut Replica, to: u8) {
        if to <= replica.log.start() {
            return;
        }
        replica.log.delete_below(to, self.rules.emptied_log_keeps_epoch);
        if !self.rules.reset_counts_once_flushed {
            replica.flushed = replica.flushed.max(to);
        }
    }
}
